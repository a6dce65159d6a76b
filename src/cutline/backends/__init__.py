"""Captioners that are not bundles, and the one way to load any of them."""

from __future__ import annotations

from pathlib import Path

from cutline import captioner
from cutline.caption import Captioner
from cutline.regions.model import Detector

_SERVERS, _HUB = ("http://", "https://"), "hub:"


def is_bundle(model: str | Path | None) -> bool:
    """Whether `load` would take this for a bundle's name or folder."""
    return not (isinstance(model, str) and model.startswith((*_SERVERS, _HUB)))


def load(
    model: str | Path | None = None, *, engine: str = "auto", threads: int | None = None
) -> Captioner:
    """Make a captioner ready.

    Args:
        model: a name among `cutline models`, or a bundle's folder; None is the embedded default.
            "http://HOST/v1#NAME" is the model of that name behind a server that speaks OpenAI's
            chat completions. "hub:NAME" is one from Hugging Face's hub, as in
            "hub:Salesforce/blip-image-captioning-base", "hub:/the/folder" one in its form.
        engine: "onnxruntime", "openvino", or "auto", which is onnxruntime.
        threads: how many pictures are worked on at once; None is one for each core.

    Raises:
        BundleNotFoundError: there is no such model; the message lists those there are.
        BundleError: it is damaged or of an unknown kind.
        MissingExtraError: the engine, client or library is not installed.
        OptionError: there is no such engine, or less than one thread, or the URL names no model.
    """
    if isinstance(model, str) and model.startswith(_SERVERS):
        from cutline.backends.openai import RemoteCaptioner

        return RemoteCaptioner.from_url(model, threads=threads)
    if isinstance(model, str) and model.startswith(_HUB):
        from cutline.backends.huggingface import HubCaptioner

        return HubCaptioner(model.removeprefix(_HUB), threads=threads)
    return captioner.load(model, engine=engine, threads=threads)


def load_detector(name: str, *, threads: int | None = None, min_score: float = 0.3) -> Detector:
    """Load a detector that finds the boxes which a captioner describes.

    Args:
        name: an ONNX file of the form that `cutline.backends.detectors.OnnxDetector` documents, or
            "torchvision:" and the name of a detection model with its published weights.
        threads: processor threads; None is one for each core.
        min_score: boxes below this score are left out, 0..1.

    Raises:
        OptionError: there is no such file or model.
        EngineError: the file is no ONNX model of that form.
        MissingExtraError: torchvision is not installed.
        WeightsError: the published weights cannot be downloaded.
    """
    from cutline.backends import detectors

    if name.startswith("torchvision:"):
        return detectors.TorchvisionDetector(name.removeprefix("torchvision:"), min_score=min_score)
    return detectors.OnnxDetector(Path(name), threads=threads, min_score=min_score)
