"""Captioners that are not bundles, and the one way to load any of them."""

from __future__ import annotations

from pathlib import Path

from cutline import captioner
from cutline.caption import Captioner

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
