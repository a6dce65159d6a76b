from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import scene
from pyarrow import dataset, parquet
from s3 import S3, running_s3
from standin import StandIn

from cutline.caption import Alternative, Caption, Label
from cutline.caption_files import CaptionJob
from cutline.errors import ImageNotFoundError, OptionError, OutputError
from cutline.image_kind import ImageKind
from cutline.options import FileOptions, Format
from cutline.shards import ShardFolder, ShardRows, ShardWriter, caption_schema

CAPTIONS = [
    Caption("a.png", "A dog.", -1.25, "m", (Alternative("A cat.", -2.0),), (Label("dog", 0.5),),
            kind=ImageKind("photograph", 0.9), note="odd"),
    Caption("b.png", "A cat.", float("nan"), "m"),
    Caption("c.png", model="m", error=ImageNotFoundError("c.png", "no such file")),
]  # fmt: skip
COMPUTATION = {"engine": "onnxruntime", "precision": "float32", "threads": 2}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with running_s3() as server:
        yield server


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(5):
        scene(8, 8 + number).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"words")
    return folder


@pytest.mark.parametrize("format", [Format.PARQUET, Format.JSONL])
def test_shards_hold_what_json_rows_do(format: Format, tmp_path: Path) -> None:
    folder, rows = ShardFolder(tmp_path / "out", format), ShardRows(format, COMPUTATION)
    writer = ShardWriter(folder, shard_rows=2)
    for caption in CAPTIONS:
        writer.write(rows.encode(caption))
    writer.close()
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"part-000000.{format}", f"part-000001.{format}"]
    expected = [{"note": None, **each.to_dict(), **COMPUTATION} for each in CAPTIONS]
    assert [{"note": None, **row} for row in folder.rows()] == expected
    answered = folder.read_answered()
    assert answered.sources == {"a.png": 1, "b.png": 1}
    assert (answered.failed, answered.model) == (1, "m")
    folder.drop_failed()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names[:1]
    if format is Format.PARQUET:
        assert dataset.dataset(tmp_path / "out").to_table().schema == caption_schema()


def test_a_shard_is_written_when_its_first_row_has_waited(tmp_path: Path) -> None:
    folder, rows = ShardFolder(tmp_path / "out", Format.PARQUET), ShardRows(Format.PARQUET)
    writer = ShardWriter(folder, shard_s=0.0)
    writer.write(rows.encode(CAPTIONS[0]))
    assert len(list(folder.rows())) == 1


def test_names_that_are_not_unicode_are_resumed(tmp_path: Path) -> None:
    album = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    album.mkdir()
    scene().save(album / "a.png")
    options = FileOptions(output=tmp_path / "out.parquet")
    assert CaptionJob([str(album)], options).run(StandIn()).failed == 0
    [row] = ShardFolder(tmp_path / "out.parquet", Format.PARQUET).rows()
    assert row["source"].endswith("\\xff/a.png")
    again = FileOptions(output=tmp_path / "out.parquet", resume=True)
    assert CaptionJob([str(album)], again).is_finished


def test_parquet_results_are_continued(album: Path, tmp_path: Path) -> None:
    output = tmp_path / "captions.parquet"
    summary = CaptionJob([str(album)], FileOptions(output=output)).run(StandIn())
    assert (summary.done, summary.failed) == (5, 1)
    table = parquet.read_table(output)
    assert table["status"].to_pylist() == ["ok", "ok", "ok", "error", "ok"]
    with pytest.raises(OptionError, match="--resume to continue it"):
        CaptionJob([str(album)], FileOptions(output=output))
    scene().save(album / "3.png")
    scene().save(album / "5.png")
    again = CaptionJob([str(album)], FileOptions(output=output, resume=True))
    assert again.count() == 2
    again.run(StandIn())
    assert sorted(parquet.read_table(output)["source"].to_pylist()) == [
        str(album / f"{number}.png") for number in range(6)
    ]
    assert CaptionJob([str(album)], FileOptions(output=output, resume=True)).is_finished
    fewer = CaptionJob([str(album / "0.png")], FileOptions(output=output, force=True))
    fewer.run(StandIn())
    assert parquet.read_table(output).num_rows == 1


def test_a_bucket_is_captioned_into_a_bucket(s3: S3, album: Path) -> None:
    for path in album.iterdir():
        s3.files.put_file(str(path), f"{s3.address}/album/{path.name}")
    for output in (f"{s3.address}/captions.parquet", f"{s3.address}/captions.jsonl"):
        options = FileOptions(output=output)
        assert CaptionJob([f"{s3.address}/album"], options).run(StandIn()).done == 5
        rows = list(ShardFolder(output, options.rows_format).rows())
        assert [row["source"] for row in rows] == [
            f"{s3.address}/album/{number}.png" for number in range(5)
        ]
        local = CaptionJob([str(album)], FileOptions())
        captions: list[Caption] = []
        local.run(StandIn(), on_caption=captions.append)
        assert [row["caption"] for row in rows] == [each.to_dict()["caption"] for each in captions]
        scene().save(album / "3.png")
        s3.files.put_file(str(album / "3.png"), f"{s3.address}/album/3.png")
        again = CaptionJob([f"{s3.address}/album"], FileOptions(output=output, resume=True))
        assert again.count() == 1
        assert again.run(StandIn()).failed == 0
        assert not ShardFolder(output, options.rows_format).read_answered().failed
        (album / "3.png").write_bytes(b"words")
        s3.files.put_file(str(album / "3.png"), f"{s3.address}/album/3.png")


def test_a_killed_run_keeps_whole_shards(album: Path, tmp_path: Path) -> None:
    output = tmp_path / "captions.parquet"
    child = (
        "import sys, cutline.shards as shards, standin; from cutline import backends, cli;"
        "shards.ShardWriter.__init__.__kwdefaults__['shard_rows'] = 2;"
        "backends.load = standin.load; cli.main()"
    )
    command = [sys.executable, "-c", child, "caption", str(album), "-q", "-o", str(output)]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "STANDIN_KILL": "4.png"}
    killed = subprocess.run(command, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert parquet.read_table(output).num_rows == 4
    environment.pop("STANDIN_KILL")
    again = subprocess.run([*command, "--resume"], env=environment, check=False)
    assert again.returncode == 1
    assert sorted(parquet.read_table(output)["source"].to_pylist()) == [
        str(album / f"{number}.png") for number in range(5)
    ]


def test_options_that_do_not_fit_are_refused(album: Path, tmp_path: Path) -> None:
    for options in (
        {"format": Format.PARQUET},
        {"output": "s3://bucket/captions.csv"},
        {"output": "s3://bucket/captions"},
    ):
        with pytest.raises(OptionError):
            FileOptions(**options)  # type: ignore[arg-type]
    (tmp_path / "taken.parquet").write_bytes(b"words")
    with pytest.raises(OptionError, match="which is a file"):
        CaptionJob([str(album)], FileOptions(output=tmp_path / "taken.parquet"))
    forced = CaptionJob([str(album)], FileOptions(output=tmp_path / "taken.parquet", force=True))
    assert forced.run(StandIn()).done == 5
    (tmp_path / "taken.parquet" / "part-000007.parquet").write_bytes(b"words")
    with pytest.raises(OutputError, match="Parquet"):
        CaptionJob([str(album)], FileOptions(output=tmp_path / "taken.parquet", resume=True))
    with pytest.raises(OptionError, match="--sidecar and --column"):
        CaptionJob(["a.csv"], FileOptions(column="url", sidecar=True))
