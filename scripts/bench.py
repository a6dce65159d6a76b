"""Measure Cutline's speed and memory on this machine, into bench/results.json and a table.

    python scripts/bench.py [PHOTOS] [--model NAME|PATH] [--output bench/results.json]

PHOTOS is a folder of JPEG photographs; they are repeated to make up as many as are needed. Every
measurement is a process of its own, bound to as many cores as it is told to use, and warms up
first. Rounds follow each other, each with every measurement once, so that a slow minute does not
fall on one of them alone. Kept are the median of the rounds, the least and the most.

What is measured:

end to end    images/s from JPEG files to captions: `cutline.load(...).stream(...)` with the
              model's own search, without labels. `words` is the mean length of the captions.
stages        ms for each image on one core, one stage after the other: decode (read, turn, scale,
              normalise), encode, labels (only if asked for, so not in the other figures), search.
              Search is start, steps and reorder, which are the decoder's, and the rest, which is
              choosing words. `steps` is how many steps an image takes part in.
0.1           the same two measurements of version 0.1: end to end with its code and its model as
              they were at commit b3c601b, stages with its model and the code of today. `git
              archive` extracts it; without that commit, as in a shallow clone, it is left out.
torch eager   the same architecture in PyTorch, 16 images at a time, also in bfloat16 where the
              processor multiplies matrices of it (AMX), with the same decoding,
              transform and search. The encoder has its batch norms folded. The decoder's weights
              are random, so only the speed is compared; every caption has as many words as
              Cutline's have on average, which are fewer steps than Cutline takes.
BLIP-base     the captioner of transformers at its standard sizes (ViT-B at 384 px) with random
              weights: only the speed is compared. Its own preprocessing, a caption as long as
              Cutline's on average, greedily and with 3 beams, all images in one batch.
regions       images/s of `captioner.regions`: boxes proposed, described and merged.
video         seconds of video described per second, on a clip of eight photographs of three
              seconds each at 25 frames/s; `average` decodes once for each shot, `agreement` once
              for each of its four frames.
matrix        GFLOP/s of a product of two 2048 x 2048 float32 matrices, in NumPy and in PyTorch.
first line    s from the start of `cutline caption ONE.jpg` to its line, and s that
              `import cutline` takes; the median of five, after one that is not counted.
memory        MB that a process has at most occupied after captioning 10, 100 or 1,000
              images, no caption kept; batches are at their full size from some 100 on.

The engines are those that are installed, the default of this processor first, each in its default
precision.

What follows from it, in `ratios`: how many times faster end to end is than the others, and than
the fp32 bound, which is the images/s that the encoder's multiplications and additions alone would
allow in float32 at the measured rate of the matrix product (the faster of the two).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cutline", "numpy", "pillow", "onnxruntime", "openvino", "torch", "transformers")
CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
BATCH = 16
FIRST_LINE_RUNS = 5
MATRIX_SIDE = 2048
EARLIER_COMMIT, EARLIER_MODEL = "b3c601b", "src/cutline/_models/flickr8k-lite2-v1"
EARLIER = {"version": "0.1", "engine": "onnxruntime"}
SKIPPED = 3
"""The exit code of a measurement that lacks a package."""

Spec = dict[str, Any]
Figures = dict[str, float]
Results = dict[str, Any]


def end_to_end(spec: Spec, photos: list[str]) -> Figures:
    """images/s through the captioner's own stream."""
    words, seconds = _stream(spec, photos)
    return {"images_per_s": len(photos) / seconds, "words": words / len(photos)}


def memory(spec: Spec, photos: list[str]) -> Figures:
    """The most MB this process has occupied."""
    _stream(spec, photos)
    return {"peak_mb": _peak_bytes() / 1e6}


def stages(spec: Spec, photos: list[str]) -> Figures:
    """ms for each image of every stage by itself."""
    from cutline.bundle import find
    from cutline.image import load_image
    from cutline.runtime import Runtime
    from cutline.search import SearchOptions

    runtime = Runtime(find(spec["model"]), spec["engine"], spec["cores"])
    bundle, transform = runtime.bundle, runtime.bundle.manifest.preprocessing
    words, bias = bundle.vocabulary(), bundle.bias()
    options = SearchOptions(**bundle.manifest.search)

    def run(sources: Sequence[str]) -> dict[str, float]:
        clock = Clock()
        for some in _batches(sources):
            features = []
            for source in some:
                rgb = load_image(source, around_px=transform.via_px)
                pixels = transform(rgb)[None]
                clock.lap("decode")
                encoded = runtime.encode(pixels)
                clock.lap("encode")
                runtime.logits(encoded)
                clock.lap("labels")
                features.append(encoded.features)
            clock.search(runtime, features, len(some), options, words, bias)
        return clock.spent

    run(photos[:BATCH])
    return _per_image(run(photos), len(photos))


def torch_eager(spec: Spec, photos: list[str]) -> Figures:
    """images/s of the same architecture in PyTorch, decoder weights random."""
    import numpy as np
    import torch

    from cutline.bundle import find
    from cutline.image import load_image
    from cutline.search import SearchOptions
    from cutline.training.decoders import TorchStepper, build
    from cutline.training.encoders import Backbone
    from cutline.training.recipe import Recipe

    torch.set_num_threads(spec["cores"])
    torch.manual_seed(0)
    bundle = find(spec["model"])
    transform, words = bundle.manifest.preprocessing, bundle.vocabulary()
    recipe = Recipe.from_dict(bundle.manifest.recipe["stages"][-1])
    layout = torch.channels_last if spec["channels_last"] else torch.contiguous_format
    bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=spec["bfloat16"])
    backbone = Backbone(recipe.encoder.backbone, recipe.encoder.cut).eval()
    backbone = backbone.to(memory_format=layout)

    def encode(pixels: Any) -> Any:
        grid = backbone.tail(backbone.trunk(pixels.contiguous(memory_format=layout)))
        return grid.flatten(2).transpose(1, 2).float()

    side = transform.side_px
    width = encode(torch.zeros(1, 3, side, side)).shape[-1]
    stepper = TorchStepper(build(len(words), width, recipe.decoder).eval())
    options = replace(
        SearchOptions(**bundle.manifest.search),
        min_tokens=spec["tokens"],
        max_tokens=spec["tokens"],
    )

    def run(sources: Sequence[str]) -> dict[str, float]:
        clock = Clock()
        for some in _batches(sources):
            pixels = np.stack([transform(load_image(s, around_px=transform.via_px)) for s in some])
            clock.lap("decode")
            features = encode(torch.from_numpy(pixels))
            clock.lap("encode")
            found = clock.search(stepper, [features], len(some), options, words, None)
            assert all(len(best.tokens) == spec["tokens"] for best, *_ in found)
        return clock.spent

    with torch.inference_mode(), bfloat16:
        run(photos[:BATCH])
        began = time.perf_counter()
        spent = run(photos)
        seconds = time.perf_counter() - began
    return {"images_per_s": len(photos) / seconds, **_per_image(spent, len(photos))}


def blip(spec: Spec, photos: list[str]) -> Figures:
    """images/s of BLIP-base at its standard sizes, weights random."""
    import torch
    from PIL import Image
    from transformers import BlipConfig, BlipForConditionalGeneration
    from transformers.utils import logging

    try:
        from transformers import BlipImageProcessorPil as Processor
    except ImportError:
        from transformers import BlipImageProcessor as Processor

    logging.set_verbosity_error()
    torch.set_num_threads(spec["cores"])
    torch.manual_seed(0)
    model, processor = BlipForConditionalGeneration(BlipConfig()).eval(), Processor()

    def run(sources: Sequence[str]) -> None:
        images = [Image.open(source).convert("RGB") for source in sources]
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        ids = model.generate(
            pixels,
            num_beams=spec["beams"],
            min_new_tokens=spec["tokens"],
            max_new_tokens=spec["tokens"],
        )
        assert len(ids) == len(sources), ids.shape
        assert abs(ids.shape[1] - spec["tokens"]) <= 1, ids.shape  # with or without its first token

    with torch.inference_mode():
        run(photos[:1])
        began = time.perf_counter()
        run(photos)
        return {"images_per_s": len(photos) / (time.perf_counter() - began)}


def matrix(spec: Spec, photos: list[str]) -> Figures:
    """GFLOP/s of a float32 matrix product, the best of a dozen."""
    import numpy as np

    del photos
    a, b = np.random.default_rng(0).random((2, MATRIX_SIDE, MATRIX_SIDE), dtype=np.float32)
    rates = {"numpy_gflop_per_s": _gflop_per_s(lambda: a @ b)}
    try:
        import torch
    except ModuleNotFoundError:
        return rates
    torch.set_num_threads(spec["cores"])
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    return {**rates, "torch_gflop_per_s": _gflop_per_s(lambda: x @ y)}


def first_line(spec: Spec, photos: list[str]) -> Figures:
    """Seconds from a process's start to the line it prints."""
    command = [sys.executable, "-m", "cutline", "caption", photos[0], "--engine", spec["engine"]]
    if spec["model"]:
        command += ["--model", spec["model"]]
    timed_import = "import time; t = time.perf_counter(); import cutline; " + (
        "print(time.perf_counter() - t)"
    )
    lines, imports = [], []
    for _ in range(1 + FIRST_LINE_RUNS):
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            lines.append(time.perf_counter() - began)
        assert process.returncode == 0, (process.returncode, line)
        assert line.count("\t") == 1, line
        ran = [sys.executable, "-c", timed_import]
        imports.append(float(subprocess.run(ran, check=True, capture_output=True).stdout))
    return {
        "first_line_s": statistics.median(lines[1:]),
        "import_s": statistics.median(imports[1:]),
    }


def regions(spec: Spec, photos: list[str]) -> Figures:
    """images/s with described regions."""
    import cutline

    captioner: Any = cutline.load(spec["model"], engine=spec["engine"], threads=spec["cores"])
    captioner.regions(photos[0])
    began = time.perf_counter()
    found = sum(len(captioner.regions(photo).regions) for photo in photos)
    seconds = time.perf_counter() - began
    return {"images_per_s": len(photos) / seconds, "regions": found / len(photos)}


def video(spec: Spec, photos: list[str]) -> Figures:
    """Seconds of video described per second."""
    import tempfile

    import av
    import scenedetect  # noqa: F401, a missing package leaves this measurement out

    import cutline
    from cutline.video.describe import describe_video
    from cutline.video.model import VideoOptions

    captioner = cutline.load(spec["model"], engine=spec["engine"], threads=spec["cores"])
    captioner.caption(photos[0])
    with tempfile.TemporaryDirectory() as folder:
        clip = _clip(Path(folder) / "clip.mp4", photos)
        with av.open(str(clip)) as container:
            length_s = float(container.duration or 0) / 1e6
        began = time.perf_counter()
        found = describe_video(captioner, clip, VideoOptions(method=spec["method"]))
        seconds = time.perf_counter() - began
    return {"video_s_per_s": length_s / seconds, "shots": len(found.shots)}


def _clip(path: Path, photos: Sequence[str], rate: int = 25, shot_s: int = 3) -> Path:
    """A clip in which each photograph is one shot that pans slowly."""
    import av
    from PIL import Image

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 640, 426, "yuv420p"
        stream.bit_rate = 2_000_000
        for photo in photos:
            wide = Image.open(photo).convert("RGB").resize((640 + rate * shot_s, 426))
            for shift in range(rate * shot_s):
                frame = av.VideoFrame.from_image(wide.crop((shift, 0, shift + 640, 426)))
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


MEASURES: dict[str, Callable[[Spec, list[str]], Figures]] = {
    "end to end": end_to_end,
    "stages": stages,
    "torch eager": torch_eager,
    "BLIP-base": blip,
    "regions": regions,
    "video": video,
    "matrix": matrix,
    "first line": first_line,
    "memory": memory,
}


class Clock:
    """Where the time of one thread goes, in seconds by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Count all time since the last lap to a stage."""
        now = time.perf_counter()
        self.spent[stage] += now - self._last
        self._last = now

    def search(
        self, stepper: Any, features: list[Any], images: int, options: Any, words: Any, bias: Any
    ) -> list[Any]:
        """Search for captions, its time told apart; features are arrays or one tensor."""
        import numpy as np

        from cutline.search import search

        clock = self

        class Timed:
            def step(self, state: Any, tokens: Any) -> Any:
                clock.lap("choose")
                got = stepper.step(state, tokens)
                clock.lap("step")
                clock.spent["steps"] += len(tokens)
                return got

            def reorder(self, state: Any, rows: Any) -> Any:
                clock.lap("choose")
                state = stepper.reorder(state, rows)
                clock.lap("reorder")
                return state

        state = stepper.start(features[0] if len(features) == 1 else np.concatenate(features))
        self.lap("start")
        banned = (words.pad, words.bos, words.unk)
        found = search(
            Timed(), state, images, options,
            bos=words.bos, eos=words.eos, bias=bias, banned=banned,
        )  # fmt: skip
        self.lap("choose")
        assert len(found) == images, len(found)
        assert all(found), "got an image without a caption"
        return found


def _batches(sources: Sequence[str]) -> list[Sequence[str]]:
    return [sources[first : first + BATCH] for first in range(0, len(sources), BATCH)]


def _per_image(spent: dict[str, float], images: int) -> Figures:
    steps = spent["steps"] / images
    times = {f"{k}_ms": 1000 * s / images for k, s in spent.items() if k != "steps"}
    search = sum(times[f"{part}_ms"] for part in ("start", "step", "reorder", "choose"))
    return {**times, "search_ms": search, "steps": steps}


def _stream(spec: Spec, photos: list[str]) -> tuple[int, float]:
    """How many words the captions have in all, and how many seconds they took; none is kept."""
    import cutline

    captioner = cutline.load(spec["model"], engine=spec["engine"], threads=spec["cores"])
    options = cutline.CaptionOptions(labels=0)
    if spec["warm_up"]:
        list(captioner.stream(photos[: 2 * BATCH], options))
    words = count = 0
    began = time.perf_counter()
    for caption in captioner.stream(photos, options):
        assert caption.ok, caption
        assert caption.text, caption
        words += len(caption.text.split())
        count += 1
    seconds = time.perf_counter() - began
    assert count == len(photos), count
    return words, seconds


def _gflop_per_s(product: Callable[[], Any]) -> float:
    times = []
    for _ in range(12):
        began = time.perf_counter()
        product()
        times.append(time.perf_counter() - began)
    return 2 * MATRIX_SIDE**3 / min(times) / 1e9


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.is_file():
        [line] = [li for li in status.read_text().splitlines() if li.startswith("VmHWM")]
        return 1024 * int(line.split()[1])
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def count_macs(model: Any) -> int:
    """The multiply-accumulates of one run of an ONNX graph, its open axes 1 long.

    Convolutions and matrix products are counted, in float or quantized; all else is left out.

    Args:
        model: an onnx.ModelProto.

    Raises:
        ValueError: the shape of a product cannot be inferred.
    """
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    graph = fixed.graph
    del graph.value_info[:]
    for port in graph.input:
        for axis in port.type.tensor_type.shape.dim:
            if not axis.HasField("dim_value"):
                axis.dim_value = 1
    for port in graph.output:
        port.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for port in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[port.name] = [axis.dim_value for axis in port.type.tensor_type.shape.dim]

    def shape(name: str, node: Any) -> list[int]:
        found = shapes.get(name, [])
        if not found or not all(found):
            raise ValueError(f"got no shape for {name!r} of {node.op_type} {node.name!r}")
        return found

    total = 0
    for node in graph.node:
        kind, inputs = node.op_type, node.input
        if kind in ("Conv", "ConvInteger", "QLinearConv"):
            weight = shape(inputs[3 if kind == "QLinearConv" else 1], node)  # (M, C/group, ...)
            depth = math.prod(weight[1:])
        elif kind in ("MatMul", "MatMulInteger", "QLinearMatMul"):
            depth = shape(inputs[0], node)[-1]
        elif kind == "Gemm":
            turned = any(a.name == "transA" and a.i for a in node.attribute)
            depth = shape(inputs[0], node)[0 if turned else 1]
        else:
            continue
        total += depth * math.prod(shape(node.output[0], node))
    return total


def earlier_version(folder: Path) -> Path | None:
    """The source tree of version 0.1 with its model, extracted into a folder; None if git fails."""
    packed = folder / "earlier.tar"
    command = ["git", "-C", str(ROOT), "archive", "-o", str(packed), EARLIER_COMMIT, "src"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder


def plan_earlier(cores: int, images: int, tree: Path) -> list[Spec]:
    """The measurements of version 0.1 in a round."""
    model = {**EARLIER, "model": str(tree / EARLIER_MODEL)}
    common = {**model, "source": str(tree / "src"), "images": images, "warm_up": True}
    return [
        *({"name": "end to end", "cores": c, **common} for c in sorted({1, cores}, reverse=True)),
        {"name": "stages", "cores": 1, "images": 4 * BATCH, **model},
    ]


def plan(engines: Sequence[str], cores: int, images: int, *, amx: bool = False) -> list[Spec]:
    """Every measurement of a round, in order; `images` is for end to end, `amx` adds bfloat16."""
    counts = sorted({1, cores})
    return [
        *(
            {"name": "end to end", "engine": e, "cores": c, "images": images, "warm_up": True}
            for c in reversed(counts)
            for e in engines
        ),
        *({"name": "stages", "engine": e, "cores": 1, "images": 4 * BATCH} for e in engines),
        *(
            {
                "name": "torch eager",
                "cores": cores,
                "images": 4 * BATCH,
                "channels_last": last,
                "bfloat16": short,
            }
            for last, short in ((False, False), (True, False), *([(True, True)] if amx else []))
        ),
        *({"name": "BLIP-base", "cores": cores, "images": 6, "beams": b} for b in (1, 3)),
        {"name": "regions", "engine": engines[0], "cores": cores, "images": BATCH},
        *(
            {"name": "video", "engine": engines[0], "cores": cores, "images": 8, "method": m}
            for m in ("average", "agreement")
        ),
        *({"name": "matrix", "cores": c, "images": 1} for c in counts),
        *({"name": "first line", "engine": e, "cores": cores, "images": 1} for e in engines),
        *(
            {"name": "memory", "engine": e, "cores": cores, "images": n, "warm_up": False}
            for e in engines
            for n in (10, 100, 1000)
        ),
    ]


def measure(spec: Spec, photos: list[str]) -> Figures | str:
    """Take one measurement in a process of its own; a string says why there is none."""
    sources = list(islice(cycle(photos), spec["images"]))
    threads = str(spec["cores"])
    limits = {f"{kind}_NUM_THREADS": threads for kind in ("OMP", "MKL", "OPENBLAS")}
    environment = {**os.environ, **limits, "HF_HUB_OFFLINE": "1"}
    if "source" in spec:
        environment["PYTHONPATH"] = spec["source"]
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--measure", json.dumps(spec)],
        input="\n".join(sources), capture_output=True, text=True, env=environment,
    )  # fmt: skip
    last = ran.stdout.strip().rpartition("\n")[2]
    if ran.returncode == SKIPPED:
        return last
    if ran.returncode:
        raise SystemExit(f"{ran.stderr}\ngot exit code {ran.returncode} from {spec}; expected 0")
    figures: Figures = json.loads(last)
    return figures


def measure_here(spec: Spec) -> None:
    """Be the process of one measurement: sources on standard input, figures on standard output."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: spec["cores"]])
    try:
        figures = MEASURES[spec["name"]](spec, sys.stdin.read().splitlines())
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed")
        raise SystemExit(SKIPPED) from error
    print(json.dumps(figures))


def summarise(rounds: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """Median, least and most of every figure."""
    return {
        name: {
            "median": statistics.median(each[name] for each in rounds),
            "min": min(each[name] for each in rounds),
            "max": max(each[name] for each in rounds),
        }
        for name in rounds[0]
    }


def ratios(measurements: Sequence[Results], macs: int) -> dict[str, dict[str, float]]:
    """What the measurements of one run say about each other.

    Each ratio is one of medians; `min` and `max` are the least and the most that the rounds allow.
    """

    def one(figure: str, name: str, **where: Any) -> dict[str, float] | None:
        found = [
            m["figures"][figure]
            for m in measurements
            if m["name"] == name
            and figure in m["figures"]
            and all(m.get(key) == value for key, value in {"version": None, **where}.items())
        ]
        return max(found, key=lambda f: f["median"]) if found else None

    cores = max(m["cores"] for m in measurements)
    engines = list(dict.fromkeys(m["engine"] for m in measurements if "engine" in m))
    best = {"engine": engines[0]}
    ours = one("images_per_s", "end to end", cores=cores, **best)
    pairs = {
        "torch eager": (ours, one("images_per_s", "torch eager", bfloat16=False)),
        "torch eager, bfloat16": (ours, one("images_per_s", "torch eager", bfloat16=True)),
        "BLIP-base, greedy": (ours, one("images_per_s", "BLIP-base", beams=1)),
        "BLIP-base, 3 beams": (ours, one("images_per_s", "BLIP-base", beams=3)),
    }
    described = one("images_per_s", "regions")
    pairs["captions to images with regions"] = (ours, described)
    videos = [one("video_s_per_s", "video", method=m) for m in ("average", "agreement")]
    pairs["video, average to agreement"] = (videos[0], videos[1])
    for count in sorted({1, cores}):
        rates = [one(f"{of}_gflop_per_s", "matrix", cores=count) for of in ("numpy", "torch")]
        rate = max(filter(None, rates), key=lambda f: f["median"], default=None)
        bound = rate and {key: value * 1e9 / (2 * macs) for key, value in rate.items()}
        mine = one("images_per_s", "end to end", cores=count, **best)
        pairs[f"fp32 bound of the encoder, {_cores(count)}"] = (mine, bound)
        before = one("images_per_s", "end to end", cores=count, **EARLIER)
        pairs[f"version 0.1, {_cores(count)}"] = (mine, before)
    for other in engines[1:]:
        theirs = one("images_per_s", "end to end", cores=cores, engine=other)
        pairs[f"{engines[0]} to {other}"] = (ours, theirs)
    for engine in engines:
        many = one("peak_mb", "memory", engine=engine, images=1000)
        for count in (10, 100):
            few = one("peak_mb", "memory", engine=engine, images=count)
            pairs[f"memory of 1,000 images to {count}, {engine}"] = (many, few)
    return {
        name: {
            "ratio": a["median"] / b["median"],
            "min": a["min"] / b["max"],
            "max": a["max"] / b["min"],
            "of": a["median"],
            "to": b["median"],
        }
        for name, (a, b) in pairs.items()
        if a and b
    }


def render(results: Results) -> str:
    """The results as Markdown."""
    measurements, machine = results["measurements"], results["machine"]
    photographs, model = results["photographs"], results["model"]
    rows: list[tuple[str, str, str]] = []
    notes = {
        "torch eager": lambda m: (
            ("channels last" if m["channels_last"] else "contiguous")
            + (", bfloat16" if m["bfloat16"] else "")
        ),
        "BLIP-base": lambda m: "greedy" if m["beams"] == 1 else f"{m['beams']} beams",
        "video": lambda m: m["method"],
    }
    units = {
        "images_per_s": "images/s", "numpy_gflop_per_s": "GFLOP/s in NumPy",
        "torch_gflop_per_s": "GFLOP/s in PyTorch", "first_line_s": "s", "import_s": "s to import",
        "peak_mb": "MB", "video_s_per_s": "s of video per s",
    }  # fmt: skip
    for m in measurements:
        if m["name"] == "stages":
            continue
        extra = notes.get(m["name"], lambda m: m.get("engine", ""))(m)
        if m["name"] == "memory":
            extra += f", {m['images']:,} images"
        for figure, unit in units.items():
            if figure in m["figures"]:
                version = f"version {m['version']}" if "version" in m else ""
                what = ", ".join(filter(None, (m["name"], version, extra)))
                rows.append((what, _cores(m["cores"]), f"{_spread(m['figures'][figure])} {unit}"))
    lines = [
        "# Speed and memory",
        "",
        f"Written by `make bench`; `scripts/bench.py` says what each figure means. "
        f"{model['name']}, {photographs['count']} photographs of "
        f"{photographs['mean_megapixels']:.2f} megapixels on average, median of "
        f"{results['rounds']} rounds (least to most).",
        "",
        f"Machine: {machine['cpu']}, {_cores(machine['cores'])}, {machine['memory_gb']:.0f} GB, "
        f"{machine['system']}; {', '.join(machine['features'])}; Python {machine['python']}, "
        + ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
        + ".",
        "",
        *_table(("What", "On", "Measured"), rows),
        "",
        "The decoder of torch eager and all of BLIP-base have random weights: only their speed is "
        "compared, with captions as long as Cutline's are on average.",
        *(f"Left out: {name}: {reason}." for name, reason in results["left_out"].items()),
        "",
        *_table(
            ("End to end compared with", "Times", "From"),
            [
                (name, _spread({**r, "median": r["ratio"]}), f"{r['of']:.3g} / {r['to']:.3g}")
                for name, r in results["ratios"].items()
            ],
        ),
        "",
        f"The encoder takes {model['encoder_macs'] / 1e6:,.0f} million multiply-accumulates an "
        "image.",
        "",
    ]
    parts = ("decode", "encode", "labels", "search", "start", "step", "reorder", "choose")
    lines += _table(
        ("ms an image on 1 core", *parts, "steps"),
        [
            (
                f"model of {m['version']}, {m['engine']}" if "version" in m else m["engine"],
                *(f"{m['figures'][f'{part}_ms']['median']:.2f}" for part in parts),
                f"{m['figures']['steps']['median']:.1f}",
            )
            for m in measurements
            if m["name"] == "stages"
        ],
    )
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    bars = (head, ["---", *["--:"] * (len(head) - 1)], *rows)
    return [f"| {' | '.join(cells)} |" for cells in bars]


def _spread(figure: dict[str, float]) -> str:
    median, least, most = (f"{figure[key]:.3g}" for key in ("median", "min", "max"))
    return f"{median} ({least} to {most})"


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def machine(cores: int) -> Results:
    """What this machine is and which versions are on it."""
    cpu, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line.partition(":") for line in info.read_text().splitlines()]
        first = {key.strip(): value.strip() for key, _, value in reversed(lines)}
        cpu, flags = first.get("model name", cpu), first.get("flags", "")
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu,
        "features": [name for name in CPU_FEATURES if name in flags.split()],
        "cores": cores,
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": packages,
    }


def bench(
    photos: list[str], model: str | None, rounds: int, images: int, tree: Path | None
) -> Results:
    """Measure everything, with progress on standard error."""
    import onnx
    from PIL import Image
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    from cutline.bundle import find
    from cutline.runtime import choose_engine, cores, engines

    bundle, available = find(model), cores()
    default, _ = choose_engine("auto")
    ordered = (default, *(each for each in engines() if each != default))
    amx = "amx_bf16" in machine(available)["features"]
    specs = [{**spec, "model": model} for spec in plan(ordered, available, images, amx=amx)]
    if tree is not None:
        specs += plan_earlier(available, images, tree)
    taken: list[list[Figures]] = [[] for _ in specs]
    left_out: dict[str, str] = {}
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=rounds * len(specs))
        for _ in range(rounds):
            for spec, figures in zip(specs, taken, strict=True):
                progress.update(task, description=f"{spec['name']} {spec.get('engine', '')}")
                if spec["name"] not in left_out:
                    tokens = round(taken[0][0]["words"]) if taken[0] else 0
                    got = measure({**spec, "tokens": tokens}, photos)
                    if isinstance(got, str):
                        left_out[spec["name"]] = got
                    else:
                        figures.append(got)
                progress.advance(task)
    measurements = [
        {
            **{k: v for k, v in spec.items() if k not in ("model", "source")},
            "figures": summarise(figures),
        }
        for spec, figures in zip(specs, taken, strict=True)
        if figures
    ]
    macs = count_macs(onnx.load(str(bundle.path("encoder.onnx"))))
    pixels = [math.prod(Image.open(photo).size) for photo in photos]
    return {
        "machine": machine(available),
        "model": {"name": bundle.name, "encoder_macs": macs},
        "photographs": {"count": len(photos), "mean_megapixels": statistics.fmean(pixels) / 1e6},
        "rounds": rounds,
        "caption_words": round(taken[0][0]["words"]),
        "measurements": measurements,
        "left_out": left_out,
        "ratios": ratios(measurements, macs),
    }


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", nargs="?", type=Path, default=ROOT / "samples", metavar="PHOTOS")
    parser.add_argument("--model", help="a model's name or folder; by default the embedded one")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results.json")
    parser.add_argument("--rounds", type=int, default=3, help="of every measurement (3)")
    parser.add_argument("--images", type=int, default=256, help="for end to end (256)")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measure_here(arguments.measure)
    photos = [
        str(path.resolve())
        for path in sorted(arguments.photos.glob("*"))
        if path.suffix.lower() in (".jpg", ".jpeg")
    ]
    if not photos:
        parser.error(f"got no JPEG photograph in {arguments.photos}; expected a folder of them")
    with tempfile.TemporaryDirectory() as folder:
        tree = earlier_version(Path(folder))
        results = bench(photos, arguments.model, arguments.rounds, arguments.images, tree)
    if tree is None:
        results["left_out"]["version 0.1"] = f"git has no commit {EARLIER_COMMIT} here"
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = render(results)
    arguments.output.with_name("README.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
