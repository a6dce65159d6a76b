"""Changing the alts of EPUB, Word and PowerPoint files, and nothing else."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import made_documents as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutline.errors import OutputError
from cutline.site.destination import AltChange, Edit, edited, inverted
from cutline.site.pages.alt_markup import clean
from cutline.site.pages.formats import DocumentFormat, document_format

pytestmark = pytest.mark.documents


def of(name: str) -> DocumentFormat:
    found = document_format(Path(name))
    assert found is not None
    return found


def alts(content: bytes, name: str) -> list[str | None]:
    page, occurrences = of(name).read(content, Path("/site") / name, name)
    assert not page.error
    return [each.alt if each.kind != "svg" else each.name or None for each in occurrences]


def edits(content: bytes, name: str, new: dict[int, str]) -> tuple[Edit, ...]:
    _, occurrences = of(name).read(content, Path("/site") / name, name)
    changes = [AltChange(100 + at, occurrences[at], alt) for at, alt in new.items()]
    return of(name).edits(content, changes)


def write(content: bytes, name: str, new: dict[int, str]) -> bytes:
    """Write alts by position; check that only members with alts change, and that undo is exact."""
    made_edits = edits(content, name, new)
    after = of(name).edited(content, made_edits)
    assert all(map(of(name).only_alt, made_edits))
    assert {edit.occurrence for edit in made_edits} == {100 + at for at in new}
    assert of(name).edited(after, inverted(made_edits)) == content
    parts = {edit.part for edit in made_edits} - {""}
    old, now = (zipfile.ZipFile(io.BytesIO(each)) for each in (content, after))
    assert old.comment == now.comment
    assert now.testzip() is None
    for one, two in zip(old.infolist(), now.infolist(), strict=True):
        same = "filename date_time compress_type comment extra flag_bits external_attr".split()
        assert [getattr(one, each) for each in same] == [getattr(two, each) for each in same]
        assert (old.read(one) == now.read(two)) == (one.filename not in parts)
    found = alts(after, name)
    assert [found[at] for at in new] == [alt or found[at] for at, alt in new.items()]
    return after


def part(content: bytes, name: str) -> str:
    return made.members_of(content)[name].decode()


# Office


@pytest.mark.parametrize("alt", ["A dog", 'A "dog" & <b>cat</b> {x}', "Über 犬 🐕", "it's"])
def test_an_alt_in_word_and_powerpoint(alt: str) -> None:
    content = made.word(made.paragraph(made.drawing("rId1")))
    after = write(content, "a.docx", {0: alt})
    body = part(after, "word/document.xml")
    assert re.sub(r' descr="[^"]*"', "", body) == part(content, "word/document.xml")
    write(made.slides(made.slide(made.slide_picture("rId1"))), "a.pptx", {0: alt, 2: alt})


def test_equal_ids_and_markup_are_no_key() -> None:
    body = made.paragraph(made.drawing("rId1")) * 3
    after = write(made.word(body), "a.docx", {1: "The second"})
    assert alts(after, "a.docx") == [None, "The second", None]


def test_decorative_marks_are_written_and_removed() -> None:
    link = '<a:hlinkClick r:id="x"><a:extLst><a:ext uri="y"/></a:extLst></a:hlinkClick>'
    other = '<a:extLst><a:ext uri="{other}"><z/></a:ext></a:extLst>'
    for inner in ("", link, other, link + other, "<a:extLst/>"):
        content = made.word(made.paragraph(made.drawing("rId1", 'id="1" descr="x"', inner)))
        after = write(content, "a.docx", {0: ""})
        assert alts(after, "a.docx") == [""]
        body = part(after, "word/document.xml")
        assert body.count("decorative val") + body.count("decorative xmlns") == 1
        assert 'descr=""' in body
        again = write(after, "a.docx", {0: "A dog"})
        assert alts(again, "a.docx") == ["A dog"]


def test_the_copies_in_alternate_content_get_the_same_alt() -> None:
    body = f"""<w:p><mc:AlternateContent><mc:Choice Requires="wps">{made.drawing("rId1")}
{made.drawing("rId2")}</mc:Choice><mc:Fallback><w:r><w:pict>
<v:shape alt="old 2"><v:imagedata r:id="rId2"/></v:shape>
<v:shape alt='old 1'><v:imagedata r:id="rId1"/></v:shape></w:pict></w:r></mc:Fallback>
</mc:AlternateContent></w:p>"""
    after = part(write(made.word(body), "a.docx", {0: "One", 1: ""}), "word/document.xml")
    assert after.count('descr="One"') == 1
    assert after.count("alt='One'") == 1
    assert after.count("adec:decorative") == 1
    assert after.count('alt=""') == 1


def test_vml_cannot_mark_a_picture_as_decorative() -> None:
    shape = '<w:r><w:pict><v:shape><v:imagedata r:id="rId1"/></v:shape></w:pict></w:r>'
    content = made.word(made.paragraph(shape))
    write(content, "a.docx", {0: "A dog"})
    with pytest.raises(OutputError, match="VML has no mark for decorative pictures"):
        edits(content, "a.docx", {0: ""})


def test_strict_documents_get_strict_namespaces() -> None:
    parts = made.members_of(made.word(made.paragraph(made.drawing("rId1", 'id="1" descr="x"'))))
    text = parts["word/document.xml"].decode()
    text = text.replace(f"{made.OPEN}drawingml/2006/main", f"{made.STRICT}drawingml/main")
    parts["word/document.xml"] = text.encode()
    after = write(made.archive(parts), "a.docx", {0: ""})
    added = part(after, "word/document.xml")
    assert f'<a:extLst xmlns:a="{made.STRICT}drawingml/main">' in added


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "iso-8859-1"])
def test_parts_in_other_encodings(encoding: str) -> None:
    parts = made.members_of(made.word(made.paragraph("é") + made.paragraph(made.drawing("rId1"))))
    text = parts["word/document.xml"].decode()
    declared = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>{text}'
    parts["word/document.xml"] = declared.encode(encoding)
    after = write(made.archive(parts), "a.docx", {0: "Ein Hündchen 犬"})
    assert alts(after, "a.docx") == ["Ein Hündchen 犬"]


# EPUB


def test_alts_of_a_book_and_its_archive() -> None:
    chapters = [
        made.chapter("<p>é<img src=\"../a.png\"/><br/><img src='../a.png' alt=''/></p>"),
        made.chapter('<p><img alt="old" src="../a.png" /></p>'),
    ]
    content = made.book(*chapters)
    after = write(content, "a.epub", {0: 'A <dog> & "cat"', 1: "First", 2: "Second"})
    assert after.startswith(content[:58])  # `mimetype` is first and stored
    assert '<img src="../a.png" alt="First"/>' in part(after, "OEBPS/text/c 1.xhtml")


def test_the_order_of_a_wrong_archive_stays() -> None:
    parts = made.members_of(made.book(made.chapter('<img src="../a.png"/>')))
    mimetype = parts.pop("mimetype")
    content = made.archive(parts | {"mimetype": mimetype}, stored=(), comment=b"PK\x05\x06 no end")
    with pytest.raises(AssertionError):
        alts(content, "a.epub")  # the comment looks like the end of the archive
    content = made.archive(parts | {"mimetype": mimetype}, stored=(), comment=b"a comment")
    after = write(content, "a.epub", {0: "A dog"})
    assert list(made.members_of(after))[-1] == "mimetype"


@pytest.mark.parametrize(("version", "expected"), [("2.0", "<title>A "), ("3.0", 'aria-label="A ')])
def test_the_name_of_an_svg_cover(version: str, expected: str) -> None:
    svg = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">
<image width="9" height="9" xlink:href="../a.png"/></svg>"""
    content = made.book(made.chapter(svg), version=version)
    after = write(content, "a.epub", {0: "A <dog>"})
    assert expected in part(after, "OEBPS/text/c 1.xhtml")


class Stream(io.RawIOBase):
    """A file that cannot be rewound, as in a pipe: zipfile then writes data descriptors."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, content: Any) -> int:
        self.content += bytes(content)
        return len(content)


@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_archives_with_descriptors_and_zip64_fields(zip64: bool, streamed: bool) -> None:
    members = made.members_of(made.word(made.paragraph(made.drawing("rId1"))))
    target: Any = Stream() if streamed else io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            with file.open(zipfile.ZipInfo(name), "w", force_zip64=zip64) as member:
                member.write(content)
    content = target.content if streamed else target.getvalue()
    write(content, "a.docx", {0: "A dog"})


# OpenDocument


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ("", "<svg:desc>A</svg:desc></draw:frame>"),
        ("<svg:desc/>", "<svg:desc>A</svg:desc></draw:frame>"),
        ("<svg:title>T</svg:title>", "<svg:title>T</svg:title><svg:desc>A</svg:desc></draw:frame>"),
        ("<draw:contour-path/>", "<svg:desc>A</svg:desc><draw:contour-path/></draw:frame>"),
    ],
)
def test_the_description_of_a_frame(inner: str, expected: str) -> None:
    content = made.open_document(f"<text:p>{made.frame(inner)}</text:p>")
    after = write(content, "a.odt", {0: "A"})
    assert expected in part(after, "content.xml")
    assert after.startswith(content[:60])  # `mimetype` is first and stored
    with pytest.raises(OutputError, match="mark it as decorative in LibreOffice"):
        edits(content, "a.odt", {0: ""})


# Refusals


def test_signed_documents_are_read_and_not_written() -> None:
    body = made.paragraph(made.drawing("rId1"))
    signed = made.word(body, {"_xmlsignatures/origin.sigs": b"x"})
    chapter = made.chapter('<img src="../a.png"/>')
    book = made.book(chapter, parts={"META-INF/signatures.xml": "<signatures/>"})
    for content, name in ((signed, "a.docx"), (book, "a.epub")):
        assert alts(content, name) == [None]
        with pytest.raises(OutputError, match="it has a digital signature"):
            edits(content, name, {0: "A dog"})


def test_a_macro_stays_as_it_is() -> None:
    macro = {"word/vbaProject.bin": b"macro" * 99}
    content = made.word(made.paragraph(made.drawing("rId1")), macro)
    after = write(content, "a.docm", {0: "A dog"})
    assert made.members_of(after)["word/vbaProject.bin"] == macro["word/vbaProject.bin"]


def test_forged_edits_are_refused() -> None:
    content = made.word(made.paragraph("Text") + made.paragraph(made.drawing("rId1")))
    good = edits(content, "a.docx", {0: "A dog"})
    after = of("a.docx").edited(content, good)
    with pytest.raises(OutputError, match="more than its alts"):  # without the alts that change
        of("a.docx").edited(content, [edit for edit in good if not edit.part])
    other = made.word(made.paragraph("Other") + made.paragraph(made.drawing("rId1")))
    whole = Edit(1, 0, content, other, "A dog")
    for forged in ([whole], [whole, *(edit for edit in good if edit.part)]):
        with pytest.raises(OutputError, match="more than its alts"):
            of("a.docx").edited(content, forged)
    [alt] = [edit for edit in good if edit.part]
    for new in (b'<wp:docPr id="2" name="Picture 1"/>', alt.after + b"<w:p/>", b""):
        assert not of("a.docx").only_alt(Edit(1, alt.start, alt.before, new, "x", alt.part))
    assert edited(content, [edit for edit in good if not edit.part]) == after


# Any alt


@settings(max_examples=60, deadline=None)
@given(alt=st.text(min_size=1).map(clean).filter(str.strip))
def test_any_alt_can_be_written_and_read(alt: str) -> None:
    write(made.word(made.paragraph(made.drawing("rId1"))), "a.docx", {0: alt})
    write(made.book(made.chapter('<p><img src="../a.png"/></p>')), "a.epub", {0: alt})
