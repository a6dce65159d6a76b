"""Captioners that are not bundles, and the one way to load any of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cutline import captioner
from cutline.backends.servers import is_server
from cutline.caption import Captioner
from cutline.regions.model import Detector

if TYPE_CHECKING:
    from cutline.backends.chat_client import ConnectionOptions
    from cutline.prompts import Prompt

_HUB = "hub:"


def is_bundle(model: str | Path | None) -> bool:
    """Whether `load` takes this for a bundle's name or folder."""
    return not (is_server(model) or (isinstance(model, str) and model.startswith(_HUB)))


def load(
    model: str | Path | None = None,
    *,
    engine: str = "auto",
    threads: int | None = None,
    connection: ConnectionOptions | None = None,
    prompt: Prompt | None = None,
    key: str | None = None,
) -> Captioner:
    """Load a captioner.

    Args:
        model: a name among `cutline models`, or a bundle's folder; None is the embedded default.
            "ollama:NAME", "openai:NAME" and so on, or "http://HOST/v1#NAME", is a model behind a
            server that speaks OpenAI's chat completions. "hub:NAME" is one from Hugging Face's hub,
            as in "hub:Salesforce/blip-image-captioning-base", "hub:/the/folder" one in its form.
        engine: of bundles, see `runtime.choose_engine`.
        threads: images processed at once; None is one for each core, for a server one if it is
            local and four otherwise.
        connection: timeouts, retries and limits for a server; None is the default.
        prompt: how a chat model is asked; None is the package's prompt "caption".
        key: the server's API key; None reads the environment.

    Raises:
        BundleNotFoundError: there is no such model; the message lists those there are.
        BundleError: it is damaged or of an unknown kind.
        MissingExtraError: the engine, client or library is not installed.
        OptionError: there is no such engine, or less than one thread, or the URL names no model.
        ServerError: no model is named, and the server cannot be asked for one.
    """
    if is_server(model):
        from dataclasses import replace

        from cutline.backends.chat_client import ConnectionOptions
        from cutline.backends.openai import RemoteCaptioner

        connection = connection or ConnectionOptions()
        if threads is not None:
            connection = replace(connection, concurrency=threads)
        return RemoteCaptioner.from_name(str(model), connection, prompt=prompt, key=key)
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
