"""The one importer of Ray."""

from __future__ import annotations

from typing import Any

from cutline.errors import MissingExtraError


def import_ray() -> Any:
    """Ray with its data library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtraError("captioning on many machines", "ray") from error
    return ray
