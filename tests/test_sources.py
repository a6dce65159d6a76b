from __future__ import annotations

import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from conftest import scene
from PIL import Image
from pyarrow import parquet
from s3 import S3, running_s3

from cutline.errors import (
    ImageCorruptError,
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUnreadableError,
    OptionError,
)
from cutline.image import Limits, NamedImage, describe, load_image
from cutline.sources import (
    READ_AHEAD,
    ImageReference,
    filesystem,
    find_sources,
    is_absent,
    read_ahead,
    read_image,
)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with running_s3() as server:
        yield server


@pytest.fixture
def memory() -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for name in (
        "10.png",
        "2.png",
        "2.txt",
        ".hidden.png",
        "notes.txt",
        "deep/1.jpg",
        "deep/[1].jpg",
    ):
        files.pipe_file(f"/album/{name}", png())
    yield "memory://album"
    files.rm("/album", recursive=True)


def png(width: int = 8, height: int = 8) -> bytes:
    content = io.BytesIO()
    scene(width, height).save(content, "PNG")
    return content.getvalue()


def names(paths: list[str], recursive: bool = False, column: str | None = None) -> list[str]:
    return list(map(str, find_sources(paths, recursive, column=column)))


def test_folders_at_addresses_are_listed_as_local_ones(memory: str) -> None:
    passed_over: Counter[str] = Counter()
    found = list(find_sources([memory], False, passed_over=passed_over))
    assert [str(each).rpartition("/")[2] for each in found] == ["2.png", "10.png"]
    assert passed_over == {".txt": 1}
    deep = names([f"{memory}/"], recursive=True)
    assert [each.rpartition("/")[2] for each in deep] == ["2.png", "10.png", "1.jpg", "[1].jpg"]
    assert [each.rpartition("/")[2] for each in names([f"{memory}/*.png"])] == ["2.png", "10.png"]
    assert names([f"{memory}/deep/[1].jpg"]) == [f"{memory}/deep/[1].jpg"]
    assert is_absent(f"{memory}/*.gif")
    assert not is_absent(f"{memory}/*.png")
    assert not is_absent("https://example.org/*.png")


def test_single_addresses_and_urls_keep_their_names(tmp_path: Path) -> None:
    scene().save(tmp_path / "a b.png")
    uri = (tmp_path / "a b.png").as_uri()
    given = ["memory://nowhere/a.png", "https://example.org/a.png?size=[1]", uri]
    assert names(given) == given
    assert load_image(read_image(ImageReference(uri, uri))).size == (96, 64)


def test_s3_is_listed_and_read(s3: S3) -> None:
    for number in (1, 2, 10):
        s3.files.pipe_file(f"{s3.address}/photos/{number}.png", png(8 + number))
    s3.files.pipe_file(f"{s3.address}/photos/empty.png", b"")
    found = list(find_sources([f"{s3.address}/photos/"], False))
    assert list(map(str, found)) == [
        f"{s3.address}/photos/{each}.png" for each in (1, 2, 10, "empty")
    ]
    *good, empty = read_ahead(found)
    assert [load_image(each).width for each in good] == [9, 10, 18]
    with pytest.raises(ImageCorruptError, match="empty"):
        load_image(empty)


@pytest.mark.parametrize(
    ("address", "kind", "says"),
    [
        ("memory://nowhere/a.png", ImageNotFoundError, "no such file"),
        ("martian://a/b.png", ImageUnreadableError, "Protocol not known"),
        ("http://127.0.0.1:9/a.png", ImageUnreadableError, "no connection"),
        ("", ImageNotFoundError, "empty cell"),
    ],
)
def test_what_cannot_be_read_has_one_error(address: str, kind: type[ImageError], says: str) -> None:
    read = read_image(ImageReference("the name", address))
    assert describe(read) == "the name"
    with pytest.raises(kind, match=says) as raised:
        load_image(read)
    assert raised.value.source == "the name"


def test_large_files_are_not_read(memory: str, tmp_path: Path) -> None:
    limits = Limits(max_bytes=10)
    [listed, *_] = find_sources([memory], False)
    (tmp_path / "a.png").write_bytes(png())
    local = ImageReference("a.png", str(tmp_path / "a.png"))
    for each in read_ahead([listed, local], limits):
        with pytest.raises(ImageTooLargeError):
            load_image(each, limits=limits)


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_urls_are_fetched(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(30))
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Handler, directory=str(tmp_path))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}"
        found, missing = read_ahead(list(find_sources([f"{root}/a.png", f"{root}/b.png"], False)))
        server.shutdown()
    assert load_image(found).width == 30
    with pytest.raises(ImageNotFoundError, match="404"):
        load_image(missing)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("remote", [False, True])
def test_a_column_names_images_beside_its_table(suffix: str, remote: bool, tmp_path: Path) -> None:
    values = ["a.png", "https://example.org/b.png", "", "sub/c.png"]
    if suffix == "parquet":
        buffer = io.BytesIO()
        parquet.write_table(pa.table({"n": [1, 2, 3, 4], "image": values}), buffer)
        content = buffer.getvalue()
    elif suffix == "csv":
        content = "".join(f"{i};{v}\n" for i, v in enumerate(["image", *values])).encode()
        content = content.replace(b"0;image", b"n;image")
    else:
        content = "".join(json.dumps({"n": 1, "image": v}) + "\n" for v in values).encode()
    folder = f"memory://lists-{suffix}" if remote else str(tmp_path)
    with fsspec.open(f"{folder}/list.{suffix}", "wb") as file:
        file.write(content)
    found = list(find_sources([f"{folder}/list.{suffix}"], False, column="image"))
    assert all(isinstance(each, ImageReference) for each in found)
    assert [str(each) for each in found] == [
        "a.png", "https://example.org/b.png", f"{folder}/list.{suffix}#2", "sub/c.png"
    ]  # fmt: skip
    assert [each.location for each in found if isinstance(each, ImageReference)] == [
        f"{folder}/a.png", "https://example.org/b.png", "", f"{folder}/sub/c.png"
    ]  # fmt: skip
    assert len(names([folder], column="image")) == 4
    with pytest.raises(OptionError, match=r"got column 'picture'.* expected one of: n, image"):
        names([f"{folder}/list.{suffix}"], column="picture")


@pytest.mark.parametrize("nested", [False, True])
def test_a_column_may_hold_the_images(nested: bool, tmp_path: Path) -> None:
    cells: list[bytes | None] = [png(10 + i) for i in range(5)]
    cells[3] = None
    values = [{"bytes": each, "path": None} for each in cells] if nested else cells
    table = str(tmp_path / "images.parquet")
    parquet.write_table(pa.table({"image": values}), table, row_group_size=2)
    found = list(find_sources([table], False, column="image"))
    assert list(map(str, found)) == [f"{table}#{row}" for row in range(5)]
    read = list(read_ahead(found, threads=2))
    widths = [load_image(each).width for row, each in enumerate(read) if row != 3]
    assert widths == [10, 11, 12, 14]
    with pytest.raises(ImageNotFoundError, match="empty cell"):
        load_image(read[3])


def test_tables_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"words")
    (tmp_path / "bad.jsonl").write_text("[1]\n")
    parquet.write_table(pa.table({"n": [1]}), tmp_path / "numbers.parquet")
    for name, column, says in [
        ("bad.parquet", "a", "cannot be read as Parquet"),
        ("bad.jsonl", "a", "line 1: got list"),
        ("numbers.parquet", "n", "got column 'n' of int64"),
        ("nowhere.csv", "a", "No such file"),
        ("nowhere.parquet", "a", "cannot be read as Parquet"),
        ("notes.txt", "a", "expected a table"),
        ("numbers.parquet", None, "add --column"),
    ]:
        with pytest.raises(OptionError, match=says):
            names([str(tmp_path / name)], column=column)


def test_reading_ahead_is_bounded_and_in_order(memory: str) -> None:
    asked = 0

    def images() -> Iterator[ImageReference | Path]:
        nonlocal asked
        for number in range(3 * READ_AHEAD):
            asked += 1
            place = f"{memory}/{2 if number % 3 else 10}.png"
            yield Path(f"{number}.png") if number % 5 == 4 else ImageReference(str(number), place)

    read = read_ahead(images())
    first = next(read)
    assert asked == READ_AHEAD
    rest = list(read)
    assert [describe(each).removesuffix(".png") for each in [first, *rest]] == [
        str(number) for number in range(3 * READ_AHEAD)
    ]
    assert isinstance(first, NamedImage)
    assert isinstance(load_image(first), Image.Image)


def test_local_paths_are_not_held_back() -> None:
    def images() -> Iterator[Path]:
        yield Path("a.png")
        raise AssertionError("asked for a second image")

    assert next(read_ahead(images())) == Path("a.png")


@pytest.mark.parametrize("address", ["memory://denied/a.jpg", "memory://denied/*.jpg"])
def test_a_storage_client_s_own_errors_are_one_of_ours(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    class NoCredentialsError(Exception):
        pass

    def refuse(*_: object, **__: object) -> bool:
        raise NoCredentialsError("Unable to locate credentials")

    files, _ = filesystem(address)
    for method in ("exists", "isdir", "glob"):
        monkeypatch.setattr(type(files), method, refuse)
    with pytest.raises(OptionError, match=r"NoCredentialsError: Unable .* your credentials"):
        names([address])
