"""The database of a store, and how its rows are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cutline.errors import StoreError
from cutline.site.store.schema import Database


class Tables:
    """What the parts of a store share.

    Args:
        path: the SQLite file; created if it does not exist.

    Raises:
        StoreError: it is some other file, of a newer Cutline, damaged, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = Database(path)

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except (TypeError, ValueError) as error:
            raise StoreError(
                f"{self.path}: {what} is damaged ({error}); take the file from a backup, or start "
                "a new one"
            ) from error
