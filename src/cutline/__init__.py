"""Cutline turns pictures into words people can use.

>>> import cutline
>>> model = cutline.load()
>>> model.caption("dog.jpg").text
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cutline.captioner import (
        Alternative,
        Attention,
        BundleCaptioner,
        Caption,
        Captioner,
        CaptionOptions,
        Label,
        load,
    )
    from cutline.errors import CutlineError, ImageError
    from cutline.search import SearchOptions

_HOMES = {
    **dict.fromkeys(
        (
            "Alternative",
            "Attention",
            "BundleCaptioner",
            "Caption",
            "CaptionOptions",
            "Captioner",
            "Label",
            "load",
        ),
        "captioner",
    ),
    **dict.fromkeys(("CutlineError", "ImageError"), "errors"),
    "SearchOptions": "search",
}

__all__ = [
    "Alternative",
    "Attention",
    "BundleCaptioner",
    "Caption",
    "CaptionOptions",
    "Captioner",
    "CutlineError",
    "ImageError",
    "Label",
    "SearchOptions",
    "load",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cutline")
    if name not in _HOMES:
        raise AttributeError(f"module 'cutline' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cutline.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
