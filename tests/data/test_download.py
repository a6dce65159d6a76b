from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from cutline.data import download as module
from cutline.data.download import PUBLIC, Archive, PublicSet, _unpack, prepare
from cutline.errors import DataError, OptionError


def packed(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def jpeg(grey: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (40, 30), (grey, grey, 99)).save(content, "JPEG")
    return content.getvalue()


class Server(ThreadingHTTPServer):
    """Serves files with ranges; `breaks` cuts the next answer short after so many bytes."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.breaks = files, [], 0

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content = self.server.files.get(self.path[1:])
        wanted = self.headers.get("Range", "")
        self.server.asked.append((self.path[1:], wanted))
        if content is None:
            self.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.server.breaks if self.server.breaks else len(content)
        self.server.breaks = 0
        self.wfile.write(content[start:end])

    def log_message(self, *_: object) -> None:
        pass


CAPTIONS = packed({"captions.csv": b"image,caption\na.jpg,one\nb.jpg,two\n", "notes.pdf": b"no"})
PICTURES = packed(
    {"images/a.jpg": jpeg(1), "images/b.jpg": jpeg(2), "__MACOSX/images/._a.jpg": b"no"}
)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server({"captions.zip": CAPTIONS, "pictures.zip": PICTURES})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def wanted(server: Server, monkeypatch: pytest.MonkeyPatch) -> PublicSet:
    made = PublicSet(
        "made",
        (
            Archive(server.url("captions.zip"), members=("*.csv",)),
            Archive(server.url("pictures.zip"), f"md5:{hashlib.md5(PICTURES).hexdigest()}"),
        ),
        ("captions.csv", "images/*.jpg"),
        "images/*.jpg and captions.csv from someone",
    )
    monkeypatch.setitem(PUBLIC, "made", made)
    return made


def test_nothing_is_unpacked_outside_the_folder(tmp_path: Path) -> None:
    names = "a.jpg", "../b.jpg", f"{tmp_path}/c.jpg"
    archive = tmp_path / "some.zip"
    archive.write_bytes(packed(dict.fromkeys(names, b"picture")))
    _unpack(archive, Archive("https://example.org/some.zip"), tmp_path / "set")
    assert {path.name for path in tmp_path.rglob("*.jpg")} == {"a.jpg"}


def test_a_set_is_fetched_checked_unpacked_and_read(
    server: Server, wanted: PublicSet, tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    collection = prepare("made", tmp_path / "set", progress=lambda *each: told.append(each))
    assert sum(map(len, collection.splits.values())) == 2
    files = {path.relative_to(tmp_path / "set").as_posix() for path in tmp_path.rglob("*.*")}
    assert files == {"captions.csv", "images/a.jpg", "images/b.jpg", "prepared.json"}
    assert told[-1] == ("pictures.zip", len(PICTURES), len(PICTURES))
    record = json.loads((tmp_path / "set" / "prepared.json").read_text())
    assert record[server.url("captions.zip")]["sha256"] == hashlib.sha256(CAPTIONS).hexdigest()
    server.asked.clear()
    prepare("made", tmp_path / "set")
    assert server.asked == []


def test_a_download_goes_on_where_it_stopped(
    server: Server, wanted: PublicSet, tmp_path: Path
) -> None:
    server.breaks = 100
    with pytest.raises(DataError, match="run the same command"):
        prepare("made", tmp_path)
    assert (tmp_path / "captions.zip.part").stat().st_size == 100
    prepare("made", tmp_path)
    assert server.asked[1] == ("captions.zip", "bytes=100-")
    assert (tmp_path / "captions.csv").read_bytes().endswith(b"b.jpg,two\n")


def test_a_whole_part_of_an_earlier_attempt_is_taken(
    server: Server, wanted: PublicSet, tmp_path: Path
) -> None:
    (tmp_path / "captions.zip.part").write_bytes(CAPTIONS)
    (tmp_path / "pictures.zip").write_bytes(PICTURES)
    prepare("made", tmp_path)
    assert server.asked == [("captions.zip", f"bytes={len(CAPTIONS)}-")]


def test_a_wrong_archive_is_set_aside(server: Server, wanted: PublicSet, tmp_path: Path) -> None:
    server.files["pictures.zip"] = packed({"images/a.jpg": jpeg(9)})
    with pytest.raises(DataError, match=r"pictures\.wrong.* with md5 .*; expected "):
        prepare("made", tmp_path)
    assert not (tmp_path / "images").exists()
    server.files["pictures.zip"] = PICTURES
    prepare("made", tmp_path)


def test_without_a_published_checksum_the_first_one_seen_counts(
    server: Server, wanted: PublicSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_unpack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare("made", tmp_path)
    (tmp_path / "captions.zip").write_bytes(packed({"captions.csv": b"image,caption\n"}))
    with pytest.raises(DataError, match=r"captions\.wrong.* with sha256 "):
        prepare("made", tmp_path)


def test_where_nothing_answers_it_says_what_to_put_where(
    server: Server, wanted: PublicSet, tmp_path: Path
) -> None:
    del server.files["captions.zip"]
    with pytest.raises(DataError, match=r"404.* put into .*: images/\*\.jpg and captions\.csv"):
        prepare("made", tmp_path)
    (tmp_path / "images").mkdir()
    for name, grey in (("a.jpg", 1), ("b.jpg", 2)):
        (tmp_path / "images" / name).write_bytes(jpeg(grey))
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,one\nb.jpg,two\n")
    assert prepare("made", tmp_path).name == tmp_path.name
    with pytest.raises(OptionError, match="got set 'none'; expected one of flickr8k, flickr30k"):
        prepare("none", tmp_path)


def test_every_public_set_says_where_from_and_what_by_hand() -> None:
    for name in ("flickr8k", "flickr30k", "coco2014", "coco2017"):
        found = PUBLIC[name]
        assert found.archives
        assert all(re.split("[./]", each)[0] in found.by_hand for each in found.expected)
        for archive in found.archives:
            kind, _, digits = archive.checksum.partition(":")
            assert len(digits) == {"": 0, "md5": 32, "sha1": 40}[kind]
