from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import scene
from standin import StandIn

from cutline.caption import Caption
from cutline.caption_files import CaptionJob, describe_passed_over
from cutline.errors import OptionError
from cutline.options import FileOptions, Format


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for number in range(4):
        scene(8, 8 + number).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"words")
    for name in ("notes.txt", "0.txt", "clip.MOV", "README"):
        (tmp_path / name).write_text("words")
    return tmp_path


def test_a_folder_is_captioned_from_python_and_continued(album: Path) -> None:
    output = album / "captions.jsonl"
    seen: list[Caption] = []
    job = CaptionJob([str(album)], FileOptions(output=output))
    assert (job.count(), job.is_finished) == (4, False)
    summary = job.run(StandIn(), on_caption=seen.append)
    assert (summary.done, summary.failed, len(seen)) == (4, 1, 4)
    assert summary.passed_over == {".txt": 1, ".mov": 1, "": 1}
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "error"]

    with pytest.raises(OptionError, match="--resume to continue it"):
        CaptionJob([str(album)], FileOptions(output=output))
    scene().save(album / "3.png")
    again = CaptionJob([str(album)], FileOptions(output=output, resume=True))
    assert again.count() == 1
    assert again.run(StandIn()).done == 1
    assert CaptionJob([str(album)], FileOptions(output=output, resume=True)).is_finished


def test_groups_are_asked_for_one_after_the_other(album: Path) -> None:
    asked: list[int] = []

    def groups() -> Iterator[list[str]]:
        for number in range(3):
            asked.append(number)
            yield [str(album / f"{number}.png")]

    seen: list[int] = []
    job = CaptionJob(groups(), FileOptions())
    assert job.count() is None
    job.run(StandIn(), on_caption=lambda caption: seen.append(len(asked)))
    assert seen == [1, 2, 3]


def test_options_are_checked() -> None:
    assert FileOptions(output=Path("a.CSV")).rows_format is Format.CSV
    assert FileOptions().label_count == 0
    assert FileOptions(format=Format.JSONL).label_count == 5
    for wrong, says in [
        ({"resume": True}, "--resume"),
        ({"n_best": 0}, "n_best"),
        ({"search": {"beams": 2}}, "beams"),
    ]:
        with pytest.raises(OptionError, match=says):
            FileOptions(**wrong)  # type: ignore[arg-type]


def test_files_passed_over_are_described() -> None:
    assert describe_passed_over(Counter()) == ""
    assert describe_passed_over(Counter({"": 1})) == "1 file without extension"
    assert describe_passed_over(Counter({".md": 2})) == "2 .md files"
    assert describe_passed_over(Counter({".a": 1, ".b": 3})) == "4 files (3 .b, 1 .a)"
    many = Counter({f".{letter}": 1 for letter in "abcdefghij"})
    assert describe_passed_over(many).endswith("1 .h, 2 others)")
