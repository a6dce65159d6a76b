"""Damaged and malicious books and documents: one clear line, in bounded time and memory."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import made_documents as made
import pytest

from cutline.errors import DataError
from cutline.site.pages.documents import archive as archives
from cutline.site.pages.documents.archive import Archive
from cutline.site.pages.formats import document_format

pytestmark = pytest.mark.documents

WORD = made.word(made.paragraph(made.drawing("rId1")))
BOOK = made.book(made.chapter('<img src="../a.png"/>'))
TEXT = made.open_document(made.frame())


def error(content: bytes, name: str) -> str:
    """Why a file cannot be read."""
    found = document_format(Path(name))
    assert found is not None
    page, occurrences = found.read(content, Path("/site") / name, name)
    assert "\n" not in page.error
    assert not (page.error and occurrences)
    return page.error


def with_body(body: str) -> bytes:
    return made.word("", {"word/document.xml": body})


def declared(member: str, size: int) -> bytes:
    """A Word file whose directory declares another size for a member."""
    content = bytearray(WORD)
    at = content.index(member.encode(), content.index(b"PK\x01\x02")) - 46
    struct.pack_into("<L", content, at + 24, size)
    return bytes(content)


def twice() -> bytes:
    stream = io.BytesIO(BOOK)
    with zipfile.ZipFile(stream, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("OEBPS/content.opf", "<package/>")
    return stream.getvalue()


def overlapping() -> bytes:
    """Two members that share their bytes, as in a bomb of overlapping files."""
    content = bytearray(made.archive({"a": b"x" * 99, "b": b"x" * 99}))
    at = content.rindex(b"PK\x01\x02")
    names = content.index(b"PK\x03\x04", 4)
    struct.pack_into("<L", content, at + 42, 0)
    content[at + 46 : at + 47] = b"a"
    del names
    return bytes(content)


def encrypted() -> bytes:
    content = bytearray(WORD)
    at = content.index(b"PK\x01\x02")
    while at >= 0:
        content[at + 8] |= 1
        at = content.find(b"PK\x01\x02", at + 4)
    return bytes(content)


ODF_ENCRYPTED = """<manifest:manifest
 xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"><manifest:file-entry>
<manifest:encryption-data/></manifest:file-entry></manifest:manifest>"""
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
DEEP = 500


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"", "a.docx", "it is empty"),
        (b"not an archive", "a.epub", "it is not a ZIP archive"),
        (WORD[: len(WORD) // 2], "a.docx", "it is cut short"),
        (WORD.replace(b"PK\x01\x02", b"PK\x00\x00"), "a.docx", "its directory is damaged"),
        (b"junk" + WORD, "a.docx", "data precedes the archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "a.docx", "the old binary format"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            "a.pptx",
            "it is encrypted with a password",
        ),
        (encrypted(), "a.docx", "it is encrypted"),
        (twice(), "a.epub", "two members named 'OEBPS/content.opf'"),
        (declared("word/document.xml", 5), "a.docx", "another size than declared"),
        (declared("word/document.xml", 1 << 30), "a.docx", "expected at most"),
        (made.archive({"a": "b"}), "a.docx", "it names no main part"),
        (made.archive({"a": "b"}), "a.epub", "it has no META-INF/container.xml"),
        (made.slides(), "a.docx", "its main part is of another format"),
        (WORD, "a.pptx", "its main part is of another format"),
        (made.archive({"a": "b"}), "a.odt", "it has no content.xml"),
        (
            made.open_document("", parts={"META-INF/manifest.xml": ODF_ENCRYPTED}),
            "a.odt",
            "it is encrypted with a password",
        ),
        (with_body("<w:document"), "a.docx", "word/document.xml is damaged XML"),
        (with_body(""), "a.docx", "word/document.xml is damaged XML"),
        (with_body(f"<!DOCTYPE x [{LAUGHS}]><x>&l11;</x>"), "a.docx", "declares the entity"),
        (
            with_body('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'),
            "a.docx",
            "declares the entity",
        ),
        (with_body("<a>" * DEEP + "</a>" * DEEP), "a.docx", "is too complex"),
    ],
)
def test_what_cannot_be_read(content: bytes, name: str, reason: str) -> None:
    assert reason in error(content, name)


def test_members_that_share_their_bytes_are_refused() -> None:
    with pytest.raises(DataError, match=r"two members|overlap"):
        Archive(overlapping())


def test_a_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    body = made.paragraph(made.drawing("rId1")).encode()
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 10_000)
    packed = zlib.compress(bytes(10_000_000))
    assert len(packed) < 10_000
    parts = {"word/header1.xml": bytes(10_000_000)}
    content = made.word(body.decode(), parts, h="header header1.xml")
    assert "expected at most" in error(content, "a.docx")


@pytest.mark.parametrize("tag", ["w:tbl", "w:p", "w:hyperlink", "w:r", "mc:AlternateContent"])
def test_deeply_nested_parts(tag: str) -> None:
    nested = f"<{tag}>" * 190 + made.drawing("rId1") + f"</{tag}>" * 190
    assert error(made.word(nested), "a.docx") in ("", "its parts are nested too deeply")


def test_a_wrong_checksum_is_reported() -> None:
    content = bytearray(made.archive({"[Content_Types].xml": "x"} | made.members_of(WORD)))
    at = content.index(b"word/document.xml", content.index(b"PK\x01\x02")) - 46
    content[at + 16] ^= 1
    assert "wrong checksum" in error(bytes(content), "a.docx")


def damage(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 0x55
    return bytes(changed)


@pytest.mark.parametrize(("content", "name"), [(WORD, "a.docx"), (BOOK, "a.epub"), (TEXT, "a.odt")])
def test_no_damaged_byte_and_no_cut_raises(content: bytes, name: str) -> None:
    changes: list[Callable[[int], bytes]] = [
        lambda at: damage(content, at),
        lambda at: content[:at],
    ]
    for at in range(0, len(content), max(1, len(content) // 300)):
        for change in changes:
            error(change(at), name)
