from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from cutline.atomic import read_regular, replacing, write_whole
from cutline.errors import OutputError


@pytest.mark.parametrize("synced", [True, False])
def test_a_file_is_as_it_was_until_the_end(tmp_path: Path, synced: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o640)

    def stop() -> None:
        with replacing(path, synced=synced) as file:
            file.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert path.read_text() == "old"
    with replacing(path, synced=synced) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "a.txt")
    for content in ("first", "second"):
        write_whole(link, content)
        assert link.is_symlink()
        assert (tmp_path / "there" / "a.txt").read_text() == content


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    write_whole(null, "gone")
    assert null.is_char_device()


def test_refusals_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"missing.a\.txt: No such file.*expected a place"):
        write_whole(tmp_path / "missing" / "a.txt", "x")
    with pytest.raises(OutputError, match="Is a directory"):
        write_whole(tmp_path, "x")


def test_a_file_that_waits_for_data_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files such as /proc/kmsg are regular, but a read returns nothing while they wait."""
    path = tmp_path / "kmsg"
    path.touch()
    with path.open("rb") as file:
        monkeypatch.setattr(os, "open", lambda *_: file.fileno())
        waiting = nullcontext(SimpleNamespace(read=lambda: None))
        monkeypatch.setattr(os, "fdopen", lambda *_: waiting)
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(path)
