"""Tagged PDF files: figures read, written by an appended update, and undone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import scene

from cutline import site
from cutline.errors import OutputError
from cutline.site.destination import AltChange, Edit, inverted
from cutline.site.model import ImageOccurrence, Page, Verdict
from cutline.site.pages.documents.pdf import PdfFormat

pikepdf = pytest.importorskip("pikepdf")
pytestmark = pytest.mark.documents

FORMAT, FILE = PdfFormat(), Path("/site/a.pdf")


def tagged(
    alts: Sequence[str | None] = (None, "A cat"), *, streams: bool = False, **root: Any
) -> bytes:
    """A PDF of one page with a figure for each alt."""
    pdf = pikepdf.new()
    pdf.add_blank_page()
    page = pdf.pages[0].obj
    stream = io.BytesIO()
    scene().save(stream, "JPEG")
    image = pikepdf.Stream(
        pdf,
        stream.getvalue(),
        Type=pikepdf.Name.XObject,
        Subtype=pikepdf.Name.Image,
        Width=96,
        Height=64,
        BitsPerComponent=8,
        ColorSpace=pikepdf.Name.DeviceRGB,
        Filter=pikepdf.Name.DCTDecode,
    )
    page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(Im0=pdf.make_indirect(image)))
    page.Contents = pikepdf.Stream(
        pdf,
        b"".join(
            b"/Span <</MCID %d>> BDC q 9 0 0 9 0 0 cm /Im0 Do Q EMC\n" % number
            for number in range(len(alts))
        ),
    )
    tree = pdf.make_indirect(pikepdf.Dictionary(Type=pikepdf.Name.StructTreeRoot))
    kids = []
    for number, alt in enumerate(alts):
        figure = pikepdf.Dictionary(S=pikepdf.Name("/Picture"), P=tree, Pg=page, K=number)
        if alt is not None:
            figure.Alt = pikepdf.String(alt)
        kids.append(pdf.make_indirect(figure))
    section = pdf.make_indirect(pikepdf.Dictionary(S=pikepdf.Name.Sect, P=tree, K=kids))
    section.Lang = pikepdf.String("de")
    tree.K = section
    tree.RoleMap = pikepdf.Dictionary(Picture=pikepdf.Name.Figure)
    pdf.Root.StructTreeRoot = tree
    for name, value in root.items():
        pdf.Root[f"/{name}"] = value
    pdf.docinfo["/Title"] = "A report"
    mode = pikepdf.ObjectStreamMode.generate if streams else pikepdf.ObjectStreamMode.disable
    written = io.BytesIO()
    pdf.save(written, object_stream_mode=mode, static_id=True)
    return written.getvalue()


def read(content: bytes) -> tuple[Page, list[ImageOccurrence]]:
    return FORMAT.read(content, FILE, "a.pdf")


def edits(content: bytes, *alts: str) -> tuple[Edit, ...]:
    _, occurrences = read(content)
    changes = [AltChange(9, each, alt) for each, alt in zip(occurrences, alts, strict=False)]
    return FORMAT.edits(content, changes)


def test_figures_are_read() -> None:
    page, [one, two] = read(tagged())
    assert (page.title, page.error) == ("A report", "")
    assert (one.alt, two.alt) == (None, "A cat")
    assert (one.place, one.language, one.page_title) == ("page 1", "de", "A report")
    assert one.url == two.url
    assert one.url.startswith("file:///site/a.pdf#")


@pytest.mark.parametrize("streams", [False, True])
def test_alts_are_appended_and_taken_back(streams: bool) -> None:
    content = tagged(streams=streams)
    made = edits(content, "A dog (brown) \\ 犬", "Another cat")
    after = FORMAT.edited(content, made)
    assert after.startswith(content)
    assert [each.alt for each in read(after)[1]] == ["A dog (brown) \\ 犬", "Another cat"]
    again = edits(after, "A third text")
    twice = FORMAT.edited(after, again)
    assert [each.alt for each in read(twice)[1]] == ["A third text", "Another cat"]
    with pikepdf.open(io.BytesIO(twice)) as pdf:
        assert not pdf.check_pdf_syntax()
    for edit in (made, inverted(made)):
        assert all(map(FORMAT.only_alt, edit))
    assert FORMAT.edited(twice, inverted(again)) == after
    assert FORMAT.edited(after, inverted(made)) == content


def test_what_is_refused() -> None:
    with pytest.raises(OutputError, match="cannot be marked as decorative"):
        edits(tagged(), "")
    with pytest.raises(OutputError, match="digital signature"):
        edits(tagged(AcroForm=pikepdf.Dictionary(SigFlags=3)), "A dog")
    with pikepdf.open(io.BytesIO(tagged())) as pdf:
        stream = io.BytesIO()
        pdf.save(stream, encryption=pikepdf.Encryption(owner="o", user=""))
    assert read(stream.getvalue())[1][1].alt == "A cat"
    with pytest.raises(OutputError, match="it is encrypted"):
        edits(stream.getvalue(), "A dog")
    with pikepdf.open(io.BytesIO(tagged())) as pdf:
        stream = io.BytesIO()
        pdf.save(stream, encryption=pikepdf.Encryption(owner="o", user="u"))
    assert "encrypted with a password" in read(stream.getvalue())[0].error


def test_forged_edits_are_refused() -> None:
    content = tagged()
    [whole, alt] = edits(content, "A dog")
    with pytest.raises(OutputError, match="more than its alts"):
        FORMAT.edited(content, [whole])
    other = Edit(9, 0, content, tagged(["x"]), "A dog")
    with pytest.raises(OutputError, match="more than its alts"):
        FORMAT.edited(content, [other, alt])
    evil = alt.after.replace(b"/S /Picture", b"/S /P")
    assert evil != alt.after
    assert not FORMAT.only_alt(Edit(9, 0, alt.before, evil, "x", alt.part))
    assert not FORMAT.only_alt(Edit(9, 0, alt.before, b"damaged", "x", alt.part))


def test_untagged_and_damaged_files() -> None:
    with pikepdf.open(io.BytesIO(tagged())) as pdf:
        del pdf.Root.StructTreeRoot
        stream = io.BytesIO()
        pdf.save(stream)
    assert read(stream.getvalue())[0].unread == (("picture in an untagged PDF", 1),)
    assert "no PDF" in read(b"no PDF at all")[0].error
    content = tagged()
    for at in range(0, len(content), 97):
        read(content[:at])
        read(content[:at] + b"\xff" + content[at + 1 :])
    loop = pikepdf.open(io.BytesIO(content))
    loop.Root.StructTreeRoot.K.K = loop.Root.StructTreeRoot.K
    stream = io.BytesIO()
    loop.save(stream)
    assert read(stream.getvalue())[1] == []


def test_pdf_files_are_treated_like_pages(tmp_path: Path) -> None:
    folder, store = tmp_path / "site", tmp_path / "site.cutline"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(content := tagged())
    assert site.scan(store, folder).occurrences == 2
    with site.open_store(store) as opened:
        first, _ = opened.occurrences()
        site.review(opened, first.id, Verdict.EDITED, "A dog")
    assert "A dog" in site.apply(store, folder).diff()
    assert site.apply(store, folder, write=True).failed == 0
    assert (folder / "a.pdf").read_bytes().startswith(content)
    assert site.status(store).applied == 1
    assert site.undo(store).failed == 0
    assert (folder / "a.pdf").read_bytes() == content


def test_without_pikepdf_pdf_files_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.html").write_text("<img src=a.png>")
    (tmp_path / "a.pdf").write_bytes(tagged())
    monkeypatch.setattr("cutline.site.pages.documents.pdf.find_spec", lambda name: None)
    scanned = site.scan(tmp_path / "site.cutline", tmp_path)
    assert scanned.pages == 1
    assert scanned.unread == {"PDF file (install cutline[documents])": 1}
