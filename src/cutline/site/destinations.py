"""Opening the destination of a site again, from what its store records."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cutline.errors import OptionError
from cutline.site.store.store import Store

if TYPE_CHECKING:
    from cutline.site.destination import Destination

_KIND = "destination"  # the setting with the kind of the destination that was read
_SETTINGS = "destination_settings"  # the setting with what else is needed to open it


def _open_pictures(store: Store) -> Destination:
    from cutline.site.writeback.pictures import PicturesDestination

    settings = store.setting(_SETTINGS) or ""
    return PicturesDestination.from_settings(store.setting("start") or "", settings)


def _open_wordpress(store: Store) -> Destination:
    from cutline.site.wordpress.opening import open_wordpress

    return open_wordpress(store)


OPENERS: dict[str, Callable[[Store], Destination]] = {
    "pictures": _open_pictures,
    "wordpress": _open_wordpress,
}
"""For each kind of destination that the command line knows, a function that opens the one of a
store: `store.setting("start")` is its address. Folders are not among them."""


def remember_destination(store: Store, destination: Destination) -> None:
    """Record the kind of the destination that is read into a store, except for a folder.

    If it has an attribute `settings`, a text without secrets, that is recorded too.
    """
    if destination.kind != "folder":
        store.put_setting(_KIND, destination.kind)
        store.put_setting(_SETTINGS, str(getattr(destination, "settings", "")))


def has_files(store: Store) -> bool:
    """Whether the pages of a store, if they are local, are files of HTML, Markdown or documents."""
    return not store.setting(_KIND)


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
