"""`cutline watch`: images of a folder are captioned once, when they are complete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import standin
from conftest import HostileFolder, scene

from cutline.caption import Caption
from cutline.errors import DataError, OptionError
from cutline.metadata import read_text
from cutline.metadata.batch import CaptionWriter
from cutline.watch import WatchOptions, arrivals, watch

FAST = WatchOptions(interval_s=0.02, settle_s=0.1, incomplete_s=0.6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene(100 + seed, 70).save(path)
    return path


class Stop:
    """Stops a watch after some listings; `steps` are run before the listings with their numbers."""

    def __init__(self, listings: int, **steps: Callable[[], Any]) -> None:
        self._left = listings
        self._steps = {int(name[1:]): step for name, step in steps.items()}
        self._count = 0

    def __call__(self) -> bool:
        self._steps.get(self._count, lambda: None)()
        self._count += 1
        return self._count > self._left


def names(groups: Iterator[list[str]]) -> list[str]:
    return [Path(path).name for group in groups for path in group]


def test_images_are_yielded_once_also_those_in_folders_that_are_moved_in(folder: Path) -> None:
    image(folder / "a.jpg")
    image(folder.parent / "album/deep/b.png", 1)
    stop = Stop(30, _5=lambda: (folder.parent / "album").rename(folder / "album"))
    assert names(arrivals(folder, FAST, stop)) == ["a.jpg", "b.png"]
    flat = WatchOptions(False, 0.02, 0.1, 0.6)
    assert names(arrivals(folder, flat, Stop(12))) == ["a.jpg"]


@pytest.mark.parametrize(
    "name", [".a.jpg", "~a.jpg", "a.jpg.part", "a.part.jpg", "a.tmp.jpg", "a.crdownload", "a.txt"]
)
def test_temporary_names_wait_for_the_rename(folder: Path, name: str) -> None:
    file = image(folder / "x.jpg").rename(folder / name)
    assert names(arrivals(folder, FAST, Stop(12))) == []
    file.rename(folder / "template.jpg")
    assert names(arrivals(folder, FAST, Stop(12))) == ["template.jpg"]


def test_a_file_that_is_still_written_waits(folder: Path, tmp_path: Path) -> None:
    content = image(tmp_path / "whole.jpg").read_bytes()
    file = folder / "a.jpg"
    file.write_bytes(b"")
    seen: list[str] = []

    def grow() -> None:
        seen.extend(names(arrivals(folder, FAST, Stop(12))))  # settled, and half of it is missing
        file.write_bytes(content)

    file.write_bytes(content[: len(content) // 2])
    grow()
    assert seen == []
    assert names(arrivals(folder, FAST, Stop(12))) == ["a.jpg"]


def test_a_damaged_file_is_reported_in_the_end_and_does_not_stop_the_others(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "broken.jpg").write_bytes(image(tmp_path / "x.jpg").read_bytes()[:600])
    image(folder / "good.jpg")
    output = tmp_path / "out.jsonl"
    summary = watch(folder, standin.StandIn(), output=output, options=FAST, is_stopped=Stop(60))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(Path(row["source"]).name, row["status"]) for row in rows] == [
        ("good.jpg", "ok"),
        ("broken.jpg", "error"),
    ]
    assert (summary.done, summary.failed) == (2, 1)


def test_hostile_files_are_captioned_or_reported_and_the_watch_goes_on(
    hostile_folder: HostileFolder, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    summary = watch(
        hostile_folder.path,
        standin.StandIn(),
        output=output,
        options=WatchOptions(interval_s=0.02, settle_s=0.1, incomplete_s=0.2),
        is_stopped=Stop(40),
    )
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    captioned = {Path(row["source"]).name for row in rows if row["status"] == "ok"}
    assert captioned == set(hostile_folder.readable)
    assert summary.failed == len(rows) - len(captioned)


def test_a_restart_continues_from_the_output(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    image(folder / "a.jpg")
    captions: list[Caption] = []

    def run() -> None:
        watch(
            folder,
            standin.StandIn(),
            output=output,
            options=FAST,
            on_caption=captions.append,
            is_stopped=Stop(12),
        )

    run()
    image(folder / "b.jpg", 1)
    run()
    run()
    assert [Path(caption.source).name for caption in captions] == ["a.jpg", "b.jpg"]
    assert len(output.read_text().splitlines()) == 2


def test_a_watched_picture_gets_its_caption_as_metadata(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("exiv2")
    for number, name in enumerate(("a.jpg", "b.png")):
        image(folder / name, number)
    writer = CaptionWriter()
    output = tmp_path / "out.csv"
    summary = watch(
        folder,
        standin.StandIn(),
        output=output,
        options=FAST,
        metadata=writer,
        is_stopped=Stop(40),
    )
    assert (summary.done, summary.unwritten) == (2, 0)
    assert read_text(folder / "a.jpg").alt
    assert len(writer.result.written) == 2


def test_an_empty_folder_and_odd_options(folder: Path, tmp_path: Path) -> None:
    captioner = standin.StandIn()
    output = tmp_path / "out.jsonl"
    assert watch(folder, captioner, output=output, is_stopped=Stop(0)).done == 0
    with pytest.raises(DataError, match="expected a folder to watch"):
        watch(folder / "nowhere", captioner, output=output)
    with pytest.raises(OptionError, match="interval_s"):
        WatchOptions(interval_s=0)
    with pytest.raises(OptionError, match=r"expected a .jsonl or .csv file"):
        watch(folder, captioner, output=tmp_path / "out.txt", is_stopped=Stop(0))


@pytest.mark.racy
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_loses_nothing(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    image(folder / "a.jpg")
    command = [sys.executable, "-m", "cutline", "watch", str(folder), "-o", str(output)]
    command += ["--interval", "0.05", "--settle", "0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(60, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(str(folder / "a.jpg"))
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    finally:
        timer.cancel()
    assert process.returncode == 130
    assert "all captions are saved" in error
    assert json.loads(output.read_text())["status"] == "ok"
