import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cutline.training.quantization import quantize, quantize_weights
from cutline.training.warm_start import _weights

Floats = NDArray[np.float32]
IMAGES = np.random.default_rng(0).standard_normal((12, 3, 16, 16)).astype(np.float32)


class Net(nn.Module):
    """Everything that is quantised: convolutions, a residual sum, products, a table."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.narrow, self.wide = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 1)
        self.first, self.last = nn.Linear(8, 32), nn.Linear(32, 10)
        self.table = nn.Embedding(20, 32)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = self.depthwise(self.stem(pixels).clamp(0, 6)).clamp(0, 6)
        x = self.narrow(x)
        x = x + self.wide(x)
        features = x.flatten(2).transpose(1, 2)
        hidden = self.first(features).relu() + self.table(tokens).unsqueeze(1)
        return features, self.last(hidden.mean(1))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The float graph and the quantised one."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("graphs")
    images = torch.export.Dim("images", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Net().eval(), (torch.zeros(2, 3, 16, 16), torch.zeros(2, dtype=torch.int64)),
            dynamo=True, dynamic_shapes=({0: images}, {0: images}), verbose=False,
            input_names=["pixels", "tokens"], output_names=["features", "logits"],
        )  # fmt: skip
    assert program is not None
    program.save(str(folder / "float.onnx"))
    content = (folder / "float.onnx").read_bytes()
    for name in ("int8.onnx", "again.onnx"):
        (folder / name).write_bytes(content)
        quantize(folder / name, [feed(IMAGES[i : i + 4]) for i in (0, 4, 8)])
    assert (folder / "int8.onnx").read_bytes() == (folder / "again.onnx").read_bytes()
    return folder / "float.onnx", folder / "int8.onnx"


def feed(images: Floats) -> dict[str, NDArray[np.generic]]:
    return {"pixels": images, "tokens": np.arange(len(images))}


def run(graph: Path, images: Floats, *, fused: bool = True) -> list[Floats]:
    options = onnxruntime.SessionOptions()
    if not fused:  # every operator in float, between rounding: the simulation
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    outputs: list[Floats] = session.run(None, feed(images))
    return outputs


def apart(a: Floats, b: Floats) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


def test_an_int8_graph_gives_nearly_the_same_and_its_simulation(
    graphs: tuple[Path, Path],
) -> None:
    plain, int8 = graphs
    images = IMAGES[:5]
    for ours, simulated, exact in zip(
        run(int8, images), run(int8, images, fused=False), run(plain, images), strict=True
    ):
        assert 0 < apart(ours, exact) < 0.12
        assert np.abs(ours - simulated).mean() < 0.01 * np.abs(exact).max()


def test_other_images_of_a_batch_change_nothing(graphs: tuple[Path, Path]) -> None:
    features, _ = run(graphs[1], np.concatenate([IMAGES[:1], 50 * IMAGES[1:3]]))
    alone, _ = run(graphs[1], IMAGES[:1])
    np.testing.assert_array_equal(features[:1], alone)


def test_all_but_the_first_convolution_is_stored_in_int8(graphs: tuple[Path, Path]) -> None:
    stored = {each.name: each.data_type for each in onnx.load(graphs[1]).graph.initializer}
    assert stored["stem.weight"] == onnx.TensorProto.FLOAT
    for name in ("depthwise", "narrow", "wide", "table"):
        assert stored[f"{name}.weight.int8"] == onnx.TensorProto.INT8
        assert f"{name}.weight" not in stored


def test_weights_are_read_back_by_their_names(graphs: tuple[Path, Path]) -> None:
    plain, int8 = map(_weights, graphs)
    for name in ("stem", "depthwise", "narrow", "wide", "first", "last"):
        for part in (f"{name}.weight", f"{name}.bias"):
            assert apart(int8[part], plain[part]) < 0.02, part
    assert apart(int8["table.weight"], plain["table.weight"]) < 0.02


def test_scales_keep_small_units_exact_and_respect_a_minimum() -> None:
    weights = np.array([[1.0, 0.5], [1e-3, -5e-4], [0.0, 0.0]], np.float32)
    stored, scales = quantize_weights(weights, 0)
    np.testing.assert_allclose(stored * scales[:, None], weights, rtol=0.01)
    _, scales = quantize_weights(weights, 0, np.array([0.0, 0.1, 0.0], np.float32))
    assert scales[1] == np.float32(0.1)
    assert np.isfinite(scales).all()
