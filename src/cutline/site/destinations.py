"""Opening the destination of a site again, from what its store records."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cutline.errors import OptionError
from cutline.site.store.store import Store

if TYPE_CHECKING:
    from cutline.site.destination import Destination

_KIND = "destination"  # the setting with the kind of the destination that was read


OPENERS: dict[str, Callable[[Store], Destination]] = {}
"""For each kind of destination that the command line knows, a function that opens the one of a
store: `store.setting("start")` is its address. Folders are not among them."""


def remember_destination(store: Store, destination: Destination) -> None:
    """Record the kind of the destination that is read into a store, except for a folder."""
    if destination.kind != "folder":
        store.put_setting(_KIND, destination.kind)


def stored_destination(store: Store) -> Destination | None:
    """The destination that was read into a store; None for folders, crawls and imports.

    Raises:
        OptionError: only a program can open it, or it needs credentials that are missing.
    """
    kind = store.setting(_KIND)
    if not kind:
        return None
    if kind not in OPENERS:
        raise OptionError(
            f"got {store.path}, whose pages are in a destination of the kind {kind!r}; expected a "
            "program that opens it and calls cutline.site"
        )
    return OPENERS[kind](store)
