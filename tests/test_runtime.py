from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from onnx import TensorProto, helper

from cutline import runtime as module
from cutline.bundle import Bundle, find, write_bundle
from cutline.errors import BundleError, EngineError, MissingExtraError, OptionError
from cutline.image import load_image
from cutline.options import SearchOptions
from cutline.preprocess import Transform
from cutline.runtime import Runtime, State, cores, engines, open_graph
from cutline.search import search

# OpenVINO may compute in bfloat16, whose numbers have eight bits.
COARSE = {"onnxruntime": 1e-5, "openvino": 3e-2}
SPECIALS: dict[str, Any] = {"bos": 1, "eos": 2, "banned": (0, 1, 3)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny.build(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module", params=["onnxruntime", "openvino:float32"])
def runtime(bundle: Bundle, request: pytest.FixtureRequest) -> Runtime:
    return Runtime(bundle, request.param, threads=2)


def pixels(count: int) -> np.ndarray:
    return np.stack([tiny.TRANSFORM(load_image(picture)) for picture in tiny.pictures(count)])


def features(count: int) -> np.ndarray:
    return tiny.Reference().encode(pixels(count))[0].astype(np.float32)


def test_encoder_and_labels_say_what_the_reference_says(runtime: Runtime) -> None:
    pictures = pixels(3)
    expected = tiny.Reference().encode(pictures)
    got = runtime.encode(pictures)
    for array, reference in zip((got.features, got.embedding, got.mid), expected, strict=True):
        assert array is not None
        assert array.dtype == np.float32
        assert array.shape == reference.shape
        np.testing.assert_allclose(array, reference, atol=COARSE[runtime.engine] * 10, rtol=0)
    logits = runtime.logits(got)
    np.testing.assert_allclose(
        logits, tiny.Reference().logits(expected[2]), atol=COARSE[runtime.engine], rtol=1e-2
    )


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_encoder_may_compute_the_labels_itself(tmp_path: Path, engine: str) -> None:
    files = {**tiny.files(), "encoder.onnx": tiny.encoder(labels=True)}
    del files["labels.onnx"]
    runtime = Runtime(write_bundle(tmp_path / tiny.NAME, files, tiny.manifest()), engine, 1)
    expected = tiny.Reference().logits(tiny.Reference().encode(pixels(2))[2])
    logits = runtime.logits(runtime.encode(pixels(2)))
    np.testing.assert_allclose(logits, expected, atol=COARSE[engine], rtol=1e-2)


def test_steps_and_reorders_follow_the_reference(runtime: Runtime) -> None:
    reference = tiny.Reference()
    state, expected = runtime.start(features(4)), reference.start(features(4))
    moves = [
        (np.full((4, 1), 1), [[0, 0], [1, 1], [2, 2], [3, 3]]),
        (np.arange(8).reshape(4, 2) + 4, [[1, 0], [3, 2], [5, 5], [6, 7]]),
        (np.arange(8).reshape(4, 2) + 7, [[1, 0, 1], [4, 4, 5], [7, 6, 6]]),
        (np.arange(9).reshape(3, 3) + 5, [[5, 3, 4]]),
        (np.arange(3).reshape(1, 3) + 9, [[0, 1, 2]]),
    ]
    for tokens, rows in moves:
        logprobs, attention, state = runtime.step(state, tokens)
        wanted, looked, expected = reference.step(expected, tokens)
        np.testing.assert_allclose(logprobs, wanted, atol=1e-4)
        np.testing.assert_allclose(attention, looked, atol=1e-5)
        state = runtime.reorder(state, np.array(rows))
        expected = reference.reorder(expected, np.array(rows))
        assert state.shape == np.shape(rows)


def test_bfloat16_is_close_to_float32(bundle: Bundle) -> None:
    runtime, reference = Runtime(bundle, "openvino:bfloat16", 1), tiny.Reference()
    tokens = np.full((4, 1), 1)
    logprobs, _, _ = runtime.step(runtime.start(features(4)), tokens)
    wanted, _, _ = reference.step(reference.start(features(4)), tokens)
    np.testing.assert_allclose(logprobs, wanted, atol=0.1)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_other_images_of_a_batch_change_no_bit(engine: str) -> None:
    runtime = Runtime(find(None), engine, threads=1)
    regions = math.prod(runtime.bundle.manifest.grid)
    size = open_graph(runtime.bundle.path("start.onnx"), 1).shapes["features"][2]
    images = np.random.default_rng(0).standard_normal((7, regions, size)).astype(np.float32)
    options = SearchOptions(beam_size=2, max_tokens=3)
    together = search(runtime, runtime.start(images), 7, options, **SPECIALS)
    for first, count in ((0, 1), (1, 2), (3, 3)):
        some = images[first : first + count]
        found = search(runtime, runtime.start(some), count, options, **SPECIALS)
        assert found == together[first : first + count]


def test_a_state_that_is_kept_is_not_overwritten(runtime: Runtime) -> None:
    state = runtime.start(features(2))
    first, _, after = runtime.step(state, np.full((2, 1), 1))
    kept = first.copy(), {name: array.copy() for name, array in after.rows.items()}
    runtime.step(after, np.full((2, 1), 5))
    runtime.start(features(3)[1:])
    np.testing.assert_array_equal(first, kept[0])
    for name, array in kept[1].items():
        np.testing.assert_array_equal(after.rows[name], array)


def test_memory_is_gathered_only_when_an_image_leaves(runtime: Runtime) -> None:
    state = runtime.start(features(3))
    assert runtime.reorder(state, np.array([[0, 0], [1, 1], [2, 2]])).memory is state.memory
    fewer = runtime.reorder(state, np.array([[0], [2]])).memory
    for name, array in state.memory.items():
        np.testing.assert_array_equal(fewer[name], array[[0, 2]])


def test_state_that_is_empty_at_first_survives_a_reorder(runtime: Runtime) -> None:
    state = State((2, 1), {}, {"state_cache": np.zeros((2, 1, 0, 4), np.float32)})
    after = runtime.reorder(state, np.array([[0, 0], [1, 1]]))
    assert after.rows["state_cache"].shape == (2, 2, 0, 4)


@pytest.mark.parametrize("options", [SearchOptions(), SearchOptions(temperature=1.0, n_best=3)])
def test_search_finds_what_it_finds_in_the_reference(
    runtime: Runtime, options: SearchOptions
) -> None:
    reference: Any = tiny.Reference()
    got = search(runtime, runtime.start(features(6)), 6, options, **SPECIALS)
    expected = search(reference, reference.start(features(6)), 6, options, **SPECIALS)
    assert [[h.tokens for h in each] for each in got] == [
        [h.tokens for h in each] for each in expected
    ]
    assert len({each[0].tokens for each in got}) > 2


def test_auto_is_openvino_where_the_processor_multiplies_matrices_of_bfloat16(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(engines()) == {"onnxruntime", "openvino"}
    for flags, engine in (({"amx_bf16", "avx2"}, "openvino"), ({"avx512_bf16"}, "onnxruntime")):
        monkeypatch.setattr(module, "_processor_flags", lambda flags=flags: flags)
        assert Runtime(bundle).engine == engine
    assert Runtime(bundle).threads == cores() >= 1


def test_a_precision_of_openvino_can_be_chosen(bundle: Bundle) -> None:
    for precision in ("float32", "bfloat16"):
        runtime = Runtime(bundle, f"openvino:{precision}", 1)
        assert (runtime.engine, runtime.precision) == ("openvino", precision)
    for engine in ("openvino:", "openvino:float16", "onnxruntime:float32", "auto:float32"):
        with pytest.raises(OptionError, match=f"got engine '{engine}'"):
            Runtime(bundle, engine)


def test_without_openvino_auto_is_onnxruntime(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Callable[[str], bool | None] = lambda name: name != "openvino" or None  # noqa: E731
    monkeypatch.setattr(module, "find_spec", found)
    monkeypatch.setattr(module, "_processor_flags", lambda: {"amx_bf16"})
    assert Runtime(bundle).engine == "onnxruntime"
    with pytest.raises(MissingExtraError, match=r'pip install "cutline\[openvino\]"'):
        Runtime(bundle, "openvino")


def test_unknown_engines_and_no_threads_are_refused(bundle: Bundle) -> None:
    with pytest.raises(
        OptionError, match="got engine 'tpu'; expected auto, onnxruntime or openvin"
    ):
        Runtime(bundle, "tpu")
    with pytest.raises(OptionError, match="got threads=0; expected at least 1"):
        Runtime(bundle, threads=0)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_graph_that_is_none_is_refused(tmp_path: Path, engine: str) -> None:
    files = {**tiny.files(), "step.onnx": b"nothing"}
    broken = write_bundle(tmp_path / tiny.NAME, files, tiny.manifest())
    with pytest.raises(EngineError, match=r"cannot load .*step\.onnx"):
        Runtime(broken, engine, 1)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_graph_with_other_inputs_is_refused(tmp_path: Path, engine: str) -> None:
    files = {**tiny.files(), "start.onnx": tiny.labels()}
    mixed_up = write_bundle(tmp_path / tiny.NAME, files, tiny.manifest())
    with pytest.raises(BundleError, match=r"start\.onnx: got mid -> .*expected features -> "):
        Runtime(mixed_up, engine, 1)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_labels_graph_is_opened_when_labels_are_asked_for(tmp_path: Path, engine: str) -> None:
    files = {**tiny.files(), "labels.onnx": b"nothing"}
    runtime = Runtime(write_bundle(tmp_path / tiny.NAME, files, tiny.manifest()), engine, 1)
    encoded = runtime.encode(pixels(1))
    with pytest.raises(EngineError, match=r"cannot load .*labels\.onnx"):
        runtime.logits(encoded)


def test_pixels_of_another_size_fail_by_name(runtime: Runtime) -> None:
    wrong = Transform(side_px=tiny.SIDE_PX + 1)(load_image(tiny.pictures(1)[0]))[None]
    with pytest.raises(EngineError, match=r"failed on encoder\.onnx"):
        runtime.encode(wrong)
    assert runtime.encode(pixels(1)).features.shape == (1, 9, tiny.WIDTH)


def test_the_first_calls_of_a_process_may_coincide(bundle: Bundle) -> None:
    code = f"""
import threading
import numpy
from cutline.bundle import Bundle
from cutline.runtime import Runtime
runtime = Runtime(Bundle.open({str(bundle.folder)!r}), "openvino", 4)
gate = threading.Barrier(4)
def call():
    gate.wait()
    runtime.encode(numpy.zeros((1, 3, {tiny.SIDE_PX}, {tiny.SIDE_PX}), numpy.float32))
threads = [threading.Thread(target=call, daemon=True) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_signals_are_handled_after_an_engine_is_gone(bundle: Bundle) -> None:
    """On processors with AMX, OpenVINO replaces the stack on which signals are handled."""
    program = (
        "import signal, sys\n"
        "from cutline.captioner import load\n"
        "signal.signal(signal.SIGINT, lambda *_: print('handled'))\n"
        f"captioner = load({str(bundle.folder)!r}, engine=sys.argv[1])\n"
        "del captioner\n"
        "signal.raise_signal(signal.SIGINT)\n"
    )
    for engine in engines():
        command = [sys.executable, "-c", program, engine]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_outputs_have_the_names_of_the_file_on_every_engine(tmp_path: Path) -> None:
    """An output that repeats another tensor has several names in OpenVINO."""
    nodes = [
        helper.make_node("Abs", ["x"], ["/Abs_output_0"]),
        helper.make_node("Identity", ["/Abs_output_0"], ["embedding"]),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "embedding")]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "encoder.onnx"
    onnx.save(model, path)
    assert module._OpenVinoGraph(path, 1, None).outputs == ("embedding",)
