from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "bench.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def network() -> onnx.ModelProto:
    """(images,3,10,8) -> strided, grouped and quantized convolutions -> Gemm and MatMul."""

    def weight(name: str, *shape: int, kind: Any = np.float32) -> TensorProto:
        return numpy_helper.from_array(np.ones(shape, kind), name)

    def values(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Conv", ["pixels", "w1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w2"], ["b"], group=4),
        helper.make_node("DequantizeLinear", ["w3", "scale"], ["w3f"]),
        helper.make_node("Conv", ["b", "w3f"], ["c"]),
        helper.make_node("ReduceMean", ["c"], ["d"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["d", "w4"], ["e"], transB=1),
        helper.make_node("MatMul", ["e", "w5"], ["out"]),
    ]
    weights = [
        weight("w1", 4, 3, 3, 3),
        weight("w2", 4, 1, 3, 3),
        weight("w3", 6, 4, 1, 1, kind=np.int8),
        weight("scale"),
        weight("w4", 5, 6),
        weight("w5", 5, 7),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [values("pixels", "images", 3, 10, 8)],
        [values("out", "images", 7)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_macs_are_those_counted_by_hand(bench: ModuleType) -> None:
    by_hand = [
        4 * 5 * 4 * (3 * 3 * 3),  # 4 maps of 5x4, each from 3x3 of 3 channels
        4 * 3 * 2 * (1 * 3 * 3),  # 4 maps of 3x2, each from 3x3 of its own channel
        6 * 3 * 2 * 4,  # 6 maps of 3x2, each from 4 channels
        5 * 6,
        7 * 5,
    ]
    assert bench.count_macs(network()) == sum(by_hand)


def test_macs_of_an_unknown_shape_are_refused(bench: ModuleType) -> None:
    model = network()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ValueError, match="got no shape for 'a' of Conv"):
        bench.count_macs(model)


def measured(name: str, cores: int = 2, **rest: Any) -> dict[str, Any]:
    figures = {
        key: {"median": value, "min": 0.8 * value, "max": 1.25 * value}
        for key, value in rest.pop("figures").items()
    }
    return {"name": name, "cores": cores, **rest, "figures": figures}


PARTS = ("decode", "encode", "labels", "search", "start", "step", "reorder", "choose")
FAST, PLAIN = {"engine": "fast"}, {"engine": "plain"}
FAST_EARLIER = {"engine": "onnxruntime", "version": "0.1"}
MEASUREMENTS = [
    measured("end to end", **FAST, figures={"images_per_s": 80, "words": 9.5}),
    measured("end to end", **PLAIN, figures={"images_per_s": 40, "words": 9.5}),
    measured("end to end", cores=1, **FAST, figures={"images_per_s": 50, "words": 9.5}),
    measured("end to end", **FAST_EARLIER, figures={"images_per_s": 32, "words": 9.5}),
    measured("stages", 1, **FAST, figures={f"{p}_ms": 3.0 for p in PARTS} | {"steps": 11.25}),
    measured("torch eager", channels_last=False, bfloat16=False, figures={"images_per_s": 5}),
    measured("torch eager", channels_last=True, bfloat16=False, figures={"images_per_s": 8}),
    measured("BLIP-base", beams=1, figures={"images_per_s": 0.5}),
    measured("matrix", 1, figures={"numpy_gflop_per_s": 40, "torch_gflop_per_s": 50}),
    measured("matrix", figures={"numpy_gflop_per_s": 100}),
    measured("memory", **FAST, images=10, figures={"peak_mb": 200}),
    measured("memory", **FAST, images=1000, figures={"peak_mb": 210}),
]


def test_ratios_compare_the_preferred_engine_with_the_best_of_the_others(bench: ModuleType) -> None:
    ratios = bench.ratios(MEASUREMENTS, macs=1_000_000_000)
    assert {name: each["ratio"] for name, each in ratios.items()} == pytest.approx(
        {
            "torch eager": 80 / 8,
            "BLIP-base, greedy": 80 / 0.5,
            "fp32 bound of the encoder, 1 core": 50 / 25,
            "fp32 bound of the encoder, 2 cores": 80 / 50,
            "version 0.1, 2 cores": 80 / 32,
            "fast to plain": 80 / 40,
            "memory of 1,000 images to 10, fast": 210 / 200,
        }
    )
    assert ratios["torch eager"]["min"] == pytest.approx(64 / 10)
    assert ratios["torch eager"]["max"] == pytest.approx(100 / 6.4)


def test_rounds_are_summarised_by_median_and_extremes(bench: ModuleType) -> None:
    rounds = [{"images_per_s": value} for value in (9.0, 3.0, 4.0)]
    assert bench.summarise(rounds) == {"images_per_s": {"median": 4.0, "min": 3.0, "max": 9.0}}


def test_the_table_shows_what_was_measured_and_what_was_not(bench: ModuleType) -> None:
    lines = bench.render(
        {
            "machine": {
                "cpu": "Abacus 9", "features": ["avx2"], "cores": 2, "memory_gb": 7.6,
                "system": "Linux x86_64", "python": "3.11.9", "packages": {"numpy": "2.0"},
            },
            "model": {"name": "tiny-v1", "encoder_macs": 1_000_000_000},
            "photographs": {"count": 12, "mean_megapixels": 0.5},
            "rounds": 3,
            "measurements": MEASUREMENTS,
            "left_out": {"BLIP-base": "transformers is not installed"},
            "ratios": bench.ratios(MEASUREMENTS, macs=1_000_000_000),
        }
    ).splitlines()  # fmt: skip
    assert "| end to end, fast | 2 cores | 80 (64 to 100) images/s |" in lines
    assert "| end to end, version 0.1, onnxruntime | 2 cores | 32 (25.6 to 40) images/s |" in lines
    assert "| torch eager, channels last | 2 cores | 8 (6.4 to 10) images/s |" in lines
    assert "| memory, fast, 1,000 images | 2 cores | 210 (168 to 262) MB |" in lines
    assert "| torch eager | 10 (6.4 to 15.6) | 80 / 8 |" in lines
    assert f"| fast | {' | '.join(['3.00'] * len(PARTS))} | 11.2 |" in lines
    assert "Left out: BLIP-base: transformers is not installed." in lines
    machine = "Machine: Abacus 9, 2 cores, 8 GB, Linux x86_64; avx2; Python 3.11.9, numpy 2.0."
    assert machine in lines


def test_a_round_measures_every_engine_on_one_core_and_on_all(bench: ModuleType) -> None:
    specs = bench.plan(["fast", "plain"], 4, 256)
    end_to_end = [(s["engine"], s["cores"]) for s in specs if s["name"] == "end to end"]
    assert sorted(end_to_end) == [("fast", 1), ("fast", 4), ("plain", 1), ("plain", 4)]
    assert {s["name"] for s in specs} == set(bench.MEASURES)
    assert len({str(s) for s in bench.plan(["fast"], 1, 256)}) == len(bench.plan(["fast"], 1, 256))
