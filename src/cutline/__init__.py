"""Cutline captions photographs, folders and websites.

    import cutline

    model = cutline.load()
    print(model.caption("dog.jpg").text)

Every name below is imported when it is first used, so that `import cutline` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cutline.errors import (
    BundleError,
    BundleNotFoundError,
    CutlineError,
    DataError,
    EngineError,
    FetchError,
    ImageCorruptError,
    ImageError,
    ImageFormatError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUnreadableError,
    MissingExtraError,
    OptionError,
    OutputError,
    ParityError,
    RecipeError,
    StoreError,
    WeightsError,
)

if TYPE_CHECKING:
    from cutline.backends import load
    from cutline.bundle import models
    from cutline.caption import (
        Alternative,
        Attention,
        Caption,
        Captioner,
        CaptionOptions,
        InContext,
        Label,
    )
    from cutline.discover import find_images
    from cutline.options import SearchOptions

    __version__: str

__all__ = [
    "Alternative",
    "Attention",
    "BundleError",
    "BundleNotFoundError",
    "Caption",
    "CaptionOptions",
    "Captioner",
    "CutlineError",
    "DataError",
    "EngineError",
    "FetchError",
    "ImageCorruptError",
    "ImageError",
    "ImageFormatError",
    "ImageNotFoundError",
    "ImageTooLargeError",
    "ImageUnreadableError",
    "InContext",
    "Label",
    "MissingExtraError",
    "OptionError",
    "OutputError",
    "ParityError",
    "RecipeError",
    "SearchOptions",
    "StoreError",
    "WeightsError",
    "__version__",
    "find_images",
    "load",
    "models",
]

_HOMES = {
    "load": "backends",
    "models": "bundle",
    "find_images": "discover",
    "SearchOptions": "search",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("cutline")
    elif name in __all__:
        module = importlib.import_module(f"cutline.{_HOMES.get(name, 'caption')}")
        value = getattr(module, name)
    else:
        raise AttributeError(f"module 'cutline' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
