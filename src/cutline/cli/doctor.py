"""Checks of the installation: versions, engines, checksums and speed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, features

from cutline.backends import is_bundle, load
from cutline.backends.probe import ServerReport, probe
from cutline.backends.servers import is_server
from cutline.bundle import DEFAULT, Bundle, models
from cutline.caption import CaptionOptions
from cutline.errors import CutlineError
from cutline.runtime import cores

PACKAGES = (
    "cutline", "numpy", "pillow", "onnxruntime", "openvino", "pillow-heif", "torch", "av",
    "scenedetect-headless", "fsspec", "pyarrow", "ray",
)  # fmt: skip
FORMATS = {"JPEG": "jpg", "WebP": "webp", "AVIF": "avif"}


@dataclass(frozen=True)
class Speed:
    """What one engine does here with generated photographs, files to captions."""

    engine: str
    load_s: float
    first_caption_s: float
    images_per_s: float


@dataclass(frozen=True)
class Health:
    """What was found."""

    python: str
    system: str
    threads: int
    packages: dict[str, str | None]
    """Version by name; None where it is not installed."""
    formats: dict[str, bool]
    """Image formats that need a codec, and whether it is there."""
    models: dict[str, str]
    """By name: `sound`, or what is wrong."""
    speed: Speed | None
    """None if the model does not run."""
    server: ServerReport | None
    """What a server can do; None if the model is not behind one."""
    problems: tuple[str, ...]
    """What must be put right; empty if all is well."""


def examine(
    model: str | None = None,
    engine: str = "auto",
    threads: int | None = None,
    seconds: float = 3.0,
) -> Health:
    """Look at everything a caption needs, and caption generated images for some seconds.

    Args:
        model: whose speed is tested; None is the default.
        engine: "auto", "onnxruntime" or "openvino".
        threads: processor threads; None takes all there are.
        seconds: how long the speed test takes.
    """
    found = {name: _state(path) for name, path in models().items()}
    problems = [f"model {name}: {state}" for name, state in found.items() if state != "sound"]
    if not features.check(FORMATS["JPEG"]):
        problems.append("Pillow is built without JPEG; install a Pillow wheel")
    speed, server = None, None
    try:
        if model is not None and is_server(model):
            server = probe(model)
            problems += [server.problem] if server.problem else []
        else:
            speed = _speed(model, engine, threads, seconds)
    except CutlineError as error:
        if not is_bundle(model) or found.get(model or DEFAULT, "sound") == "sound":
            problems.append(str(error))
    return Health(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        threads=threads or cores(),
        packages={name: _version(name) for name in PACKAGES},
        formats={name: bool(features.check(codec)) for name, codec in FORMATS.items()}
        | {"HEIC": importlib.util.find_spec("pillow_heif") is not None},
        models=found,
        speed=speed,
        server=server,
        problems=tuple(problems),
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _state(path: Path) -> str:
    try:
        bundle = Bundle.open(path)
        bundle.vocabulary(), bundle.labels(), bundle.bias()
    except CutlineError as error:
        return str(error)
    return "sound"


def _speed(model: str | None, engine: str, threads: int | None, seconds: float) -> Speed:
    began = time.perf_counter()
    captioner = load(model, engine=engine, threads=threads)
    loaded = time.perf_counter()
    picture = _photograph()
    captioner.caption(picture)
    ready = time.perf_counter()

    def until(end: float) -> Iterator[bytes]:
        while time.perf_counter() < end:
            yield picture

    options = CaptionOptions(labels=0)
    count = sum(1 for _ in captioner.stream(until(ready + seconds), options))
    return Speed(
        engine=captioner.runtime.engine if hasattr(captioner, "runtime") else captioner.name,
        load_s=loaded - began,
        first_caption_s=ready - loaded,
        images_per_s=count / (time.perf_counter() - ready),
    )


def _photograph(width: int = 1024, height: int = 768) -> bytes:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    grain = np.random.default_rng(0).normal(scale=8, size=(height, width, 3))
    scene = np.stack([255 * x / width, 255 * y / height, 128 + 90 * np.sin(x / 40)], axis=-1)
    jpeg = io.BytesIO()
    Image.fromarray(np.clip(scene + grain, 0, 255).astype(np.uint8)).save(jpeg, "JPEG", quality=90)
    return jpeg.getvalue()
