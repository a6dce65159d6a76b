"""Settings of a site, the files imported into it, and how its files are shown."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from cutline.site.store.rows import plain
from cutline.site.store.tables import Tables

_UNREAD = "unread_files"
_IMPORTED = "imported:"  # settings: where an imported file was


class Settings(Tables):
    """The part of a store that holds a site's settings."""

    def setting(self, name: str) -> str | None:
        """A setting of the site; None if it was never set.

        Raises:
            StoreError: it is damaged.
        """
        rows = self._database.rows("SELECT value FROM settings WHERE name = ?", (name,))
        value = str(rows[0]["value"]) if rows else None
        with self._reading(f"setting {name}"):
            if value is not None and "\0" in value:
                raise ValueError("got a NUL character")
        return value

    def put_setting(self, name: str, value: str) -> None:
        """Set a setting of the site."""
        with self._database.writing() as connection:
            connection.execute(
                """INSERT INTO settings VALUES (?, ?) ON CONFLICT (name)
                   DO UPDATE SET value = excluded.value WHERE value <> excluded.value""",
                (name, plain(value)),
            )

    def add_origin(self, file: Path) -> str:
        """The name under which an imported file's rows are kept: the same for the same file.

        It is the file's name, or, if a file of that name from another folder was imported before,
        its path as far as needed to tell the two apart.
        """
        known = self._origins()
        path = str(file.resolve())
        for name, imported in known.items():
            if imported == path:
                return name
        parts = file.resolve().parts
        for number in range(1, len(parts) + 1):
            name = "/".join(parts[-number:])
            if name not in known or known[name] is None:
                self.put_setting(f"{_IMPORTED}{name}", path)
                return name
        return path

    def origin(self, file: Path) -> str:
        """The name under which `add_origin` keeps a file's rows; its own name if it knows none.

        A file that was moved since its import is found by its name.
        """
        path = str(file.resolve())
        known = self._origins()
        found = next((name for name, imported in known.items() if imported == path), None)
        return found or file.name

    def _origins(self) -> dict[str, str | None]:
        """Imported files: name -> path; None for one that version 0.1 imported."""
        names = self._database.rows("SELECT DISTINCT origin FROM pages WHERE origin <> ''")
        known: dict[str, str | None] = {row["origin"]: None for row in names}
        paths = self._database.rows(
            "SELECT name, value FROM settings WHERE substr(name, 1, ?) = ?",
            (len(_IMPORTED), _IMPORTED),
        )
        return known | {row["name"].removeprefix(_IMPORTED): row["value"] for row in paths}

    def put_unread_files(self, counts: Mapping[str, int]) -> None:
        """Keep how many images files of unsupported formats seem to hold, by format."""
        self.put_setting(_UNREAD, json.dumps(dict(counts)))

    def unread_files(self) -> dict[str, int]:
        """What `put_unread_files` kept; nothing for a site that was crawled.

        Raises:
            StoreError: it is damaged.
        """
        counts = self.setting(_UNREAD)
        if counts is None:
            return {}
        with self._reading("setting unread_files"):
            return {str(what): int(number) for what, number in dict(json.loads(counts)).items()}

    @property
    def empty_is_missing(self) -> bool:
        """Whether an empty alt counts as missing: the WordPress editor writes it by default."""
        return self.setting("empty_alts") == "missing"

    @property
    def site(self) -> str:
        """What the site is called: its address, or the name of its folder or file."""
        start = self.setting("start") or self.setting("root") or self.path.stem
        return start if "://" in start else Path(start).name or start

    def named(self, text: str) -> str:
        """A URL or a sentence as it is shown: files by their paths from the folder scanned."""
        root = self.setting("root")
        if not root or ("file:" not in text and root not in text):
            return text
        folder = Path(root).resolve()

        def relative(found: re.Match[str]) -> str:
            url = found[0].rstrip("…")
            if folder.as_uri().startswith(url):  # cut short
                return "…"
            start = url.removeprefix(f"{folder.as_uri()}/")
            if start == url:
                start = posixpath.relpath(
                    url.removeprefix("file://"), urlsplit(folder.as_uri()).path
                )
            return start + found[0][len(url) :]

        text = re.sub(r"file:///[^\s\"'<>]*", relative, text)
        return text.replace(f"{folder}{os.sep}", "").replace(str(folder), folder.name)
