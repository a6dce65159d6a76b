from __future__ import annotations

import csv
import errno
import io
import json
import sys
from pathlib import Path

import pytest

from cutline.caption import Alternative, Caption, Label
from cutline.errors import ImageCorruptError, OptionError, OutputError
from cutline.writers import (
    CsvRows,
    JsonRows,
    ResultFile,
    Sidecars,
    StreamWriter,
    TextRows,
    disk_full,
    drop_failed,
    read_answered,
)

MODEL = "some-v1"
CAPTIONS = [
    Caption("a.jpg", "A dog runs.", -0.51239, MODEL, (Alternative("A cat.", -2.0),)),
    Caption('b "quoted",\nand two\r\nlines.jpg', 'A sign says "no, never".', -1.0, MODEL),
    Caption("c.jpg", "", 0.0, MODEL, error=ImageCorruptError("c.jpg", 'cut short,\nat "byte" 9')),
    Caption("d\u2028é猫\udcff.jpg", "Done.", -0.1, MODEL, labels=(Label("tabby, cat", 0.5),)),
    Caption("a.jpg", "A dog runs.", -0.5, MODEL),
]
ROWS = [JsonRows(), CsvRows(n_best=2, labels=1)]


def whole(rows: JsonRows | CsvRows) -> tuple[bytes, list[int]]:
    """A finished file, and where its header and each of its rows end."""
    content, ends = rows.header, [len(rows.header)]
    for caption in CAPTIONS:
        content += rows.encode(caption)
        ends.append(len(content))
    return content, ends


@pytest.mark.parametrize("rows", ROWS)
def test_a_file_cut_anywhere_is_completed_to_the_whole(
    rows: JsonRows | CsvRows, tmp_path: Path
) -> None:
    content, ends = whole(rows)
    path = tmp_path / "captions"
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        answered = read_answered(path, rows)
        finished = sum(end <= cut for end in ends[1:])
        assert answered.sources.total() + answered.failed == finished
        assert answered.sources["a.jpg"] == (finished >= 1) + (finished >= 5)
        assert answered.failed == (finished >= 3)
        assert answered.model == (MODEL if finished else None)
        file = ResultFile(path, rows.header, keep_bytes=answered.whole_bytes)
        for caption in CAPTIONS[finished:]:
            file.write(rows.encode(caption))
        file.close()
        assert path.read_bytes() == content


@pytest.mark.parametrize("rows", ROWS)
def test_failures_are_dropped_and_nothing_else(rows: JsonRows | CsvRows, tmp_path: Path) -> None:
    content, _ = whole(rows)
    path, link = tmp_path / "captions", tmp_path / "link"
    path.write_bytes(content[:-1])
    path.chmod(0o640)
    link.symlink_to(path)
    kept = rows.header + b"".join(rows.encode(c) for c in CAPTIONS[:-1] if c.error is None)
    assert drop_failed(link, rows) == len(kept)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (kept, 0o640)
    assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(
    "content", [b"my notes", b"my notes\n", b'{"a": 1}\n', b"source,caption\na,b\n", b"\0\0\0\n"]
)
def test_a_foreign_file_is_refused(
    rows: JsonRows | CsvRows, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "captions"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="another file"):
        read_answered(path, rows)


def test_a_damaged_row_amid_whole_ones_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    row = JsonRows().encode(CAPTIONS[0])
    path.write_bytes(row + b"<<<<<<<\n" + row)
    with pytest.raises(OutputError):
        read_answered(path, JsonRows())


def test_csv_of_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_bytes(whole(CsvRows(n_best=2, labels=1))[0])
    with pytest.raises(OutputError, match="--labels"):
        read_answered(path, CsvRows(n_best=2, labels=2))


def test_an_absent_or_empty_file_answers_nothing(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    assert read_answered(path, JsonRows()).whole_bytes == 0
    path.touch()
    assert read_answered(path, JsonRows()).whole_bytes == 0


def test_json_is_one_readable_line_a_row() -> None:
    for caption in CAPTIONS:
        line = JsonRows().encode(caption)
        assert line.count(b"\n") == 1
        assert json.loads(line)["source"] == caption.source
    assert "é猫" in JsonRows().encode(Caption("é猫.jpg", "x", 0.0, MODEL)).decode()
    assert json.loads(JsonRows().encode(CAPTIONS[0]))["score"] == -0.5124


def test_text_is_one_line_a_caption_and_none_for_a_failure() -> None:
    assert TextRows().encode(CAPTIONS[0]) == b"a.jpg\tA dog runs.\tA cat.\n"
    assert TextRows().encode(CAPTIONS[1]).startswith(b'b "quoted",\\nand two\\r\\nlines.jpg\tA')
    assert TextRows().encode(CAPTIONS[2]) == b""


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("mine")
    with pytest.raises(OptionError, match="--force"):
        ResultFile(path, b"")
    assert path.read_text() == "mine"
    ResultFile(path, b"header\n", force=True).close()
    assert path.read_text() == "header\n"
    with pytest.raises(OutputError, match="nowhere"):
        ResultFile(tmp_path / "nowhere" / "captions.txt", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_leaves_whole_rows(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "captions.jsonl"
    file = ResultFile(path, b"")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        file.write(b"x" * 79 + b"\n")
        with pytest.raises(OutputError, match="--resume"):
            file.write(b"y" * 79 + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file.close()
    assert path.read_bytes() == b"x" * 79 + b"\n"


def test_sidecars_keep_what_others_wrote(tmp_path: Path) -> None:
    caption = Caption(str(tmp_path / "a.b.jpg"), "A dog.", -1.0, MODEL)
    sidecar = tmp_path / "a.b.txt"
    Sidecars().write(caption)
    assert sidecar.read_text() == "A dog.\n"
    Sidecars().write(caption)
    sidecar.write_text("Mine.\n")
    with pytest.raises(OutputError):
        Sidecars().write(caption)
    assert sidecar.read_text() == "Mine.\n"
    Sidecars(force=True).write(caption)
    assert [path.name for path in tmp_path.iterdir()] == ["a.b.txt"]
    assert sidecar.read_text() == "A dog.\n"


def test_a_picture_named_like_a_sidecar_is_never_replaced(tmp_path: Path) -> None:
    picture = tmp_path / "a.txt"
    picture.write_bytes(b"pixels")
    with pytest.raises(OutputError):
        Sidecars(force=True).write(Caption(str(picture), "A dog.", -1.0, MODEL))
    assert picture.read_bytes() == b"pixels"
    assert not Sidecars.stands_beside(picture)


@pytest.mark.parametrize("force", [False, True])
def test_a_sidecar_that_cannot_be_is_an_output_error(tmp_path: Path, force: bool) -> None:
    (tmp_path / "a.txt").mkdir()
    for picture in (tmp_path / "a.jpg", tmp_path / ("x" * 254)):
        with pytest.raises(OutputError, match="expected a place to write"):
            Sidecars(force=force).write(Caption(str(picture), "A dog.", -1.0, MODEL))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_sidecar_in_no_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as refused:
        Sidecars().write(Caption(str(tmp_path / "gone" / "a.jpg"), "A dog.", -1.0, MODEL))
    assert refused.value.errno == errno.ENOENT
    assert not disk_full(refused.value)


@pytest.mark.parametrize("name", ["=1+1.jpg", "@x.jpg", "-1.jpg", " =x.jpg", "\n=x.jpg", "\uff1dx"])
def test_a_file_name_is_no_formula_in_csv(name: str, tmp_path: Path) -> None:
    rows, path = CsvRows(), tmp_path / "captions.csv"
    path.write_bytes(rows.header + rows.encode(Caption(name, "+1", 0.0, MODEL)))
    assert f'"\'{name}","ok","\'+1"' in path.read_text()
    assert read_answered(path, rows).sources == {name: 1}


def test_a_score_that_is_no_number_is_an_empty_cell() -> None:
    rows = CsvRows(n_best=2, labels=1)
    nan = float("nan")
    caption = Caption("a", "A.", nan, MODEL, (Alternative("B.", nan),), (Label("dog", nan),))
    [cells] = csv.reader([rows.encode(caption).decode()])
    assert [cells[rows.columns.index(name)] for name in ("score", "score_2", "probability_1")] == [
        "",
        "",
        "",
    ]
    assert rows.decode(rows.encode(caption))["status"] == "ok"


@pytest.mark.parametrize("terminal", [True, False])
def test_control_characters_are_escapes_on_a_terminal_alone(terminal: bool) -> None:
    class Stream(io.BytesIO):
        def isatty(self) -> bool:
            return terminal

    stream = Stream()
    row = 'a\x1b[2J\u202e\x9b.jpg,"b\nc"\n'.encode()
    StreamWriter(stream, b"").write(row)
    expected = b'a\\x1b[2J\\u202e\\x9b.jpg,"b\nc"\n' if terminal else row
    assert stream.getvalue() == expected
