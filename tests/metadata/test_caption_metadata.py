"""`cutline caption --write-metadata`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import standin
from conftest import scene
from typer.testing import CliRunner

from cutline.caption_files import CaptionJob
from cutline.cli import app
from cutline.metadata import MetadataJournal, MetadataOptions, read_text, undo, write_text
from cutline.metadata.batch import CaptionWriter
from cutline.options import FileOptions

pytest.importorskip("exiv2")
pytestmark = pytest.mark.metadata


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.jpg", "b.png", "c.gif")):
        scene(100 + number, 70).save(folder / name)
    return folder


def test_captions_are_written_and_a_persons_text_is_kept(folder: Path, tmp_path: Path) -> None:
    write_text(folder / "b.png", "By hand")
    output = tmp_path / "out.jsonl"
    journal = MetadataJournal(tmp_path / "journal.jsonl")
    writer = CaptionWriter(journal=journal)
    job = CaptionJob([str(folder)], FileOptions(output=output))
    summary = job.run(standin.StandIn(), metadata=writer)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert (summary.done, summary.failed, summary.unwritten) == (3, 0, 1)
    assert [row["status"] for row in rows] == ["ok"] * 3, "a refusal does not lose the caption"
    assert read_text(folder / "a.jpg").alt == rows[0]["caption"]
    assert read_text(folder / "b.png").alt == "By hand"
    assert (folder / "c.gif.xmp").is_file()
    [(refused, reason)] = writer.result.failed
    assert refused == folder / "b.png"
    assert "has a text already" in reason
    assert undo(journal)[1] == []
    assert read_text(folder / "a.jpg").alt is None


def test_overwrite_language_and_sidecars(folder: Path, tmp_path: Path) -> None:
    write_text(folder / "a.jpg", "By hand")
    options = MetadataOptions("de", overwrite=True, sidecar="always")
    job = CaptionJob([str(folder)], FileOptions(output=tmp_path / "out.csv"))
    assert job.run(standin.StandIn(), metadata=CaptionWriter(options)).unwritten == 0
    assert len(list(folder.glob("*.xmp"))) == 3
    assert read_text(folder / "b.png", "de").alt


def test_what_is_not_a_local_file_is_refused(tmp_path: Path) -> None:
    writer = CaptionWriter()
    assert not writer.write("https://example.org/a.jpg", "A cat")
    assert not writer.write("s3://bucket/a.jpg", "A cat")
    assert not writer.write(tmp_path / "a.jpg", "A cat")
    assert writer.result.failed == [
        ("https://example.org/a.jpg", "it is not a file on this machine"),
        ("s3://bucket/a.jpg", "it is not a file on this machine"),
        (tmp_path / "a.jpg", "no such file"),
    ]


def test_the_options_need_write_metadata(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["caption", str(folder), "--overwrite"])
    assert result.exit_code == 2
    assert "expected --write-metadata" in result.stderr
