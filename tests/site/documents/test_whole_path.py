"""Books and documents beside pages: scan, lint, draft, review, apply, undo, report."""

from __future__ import annotations

import io
from pathlib import Path

import made_documents as made
import pytest
import standin
from conftest import scene

from cutline import site
from cutline.site.model import ImageOccurrence, Kind, Purpose, Verdict
from cutline.site.results.lint_formats import to_github, to_sarif
from cutline.site.store.store import Store

pytestmark = pytest.mark.documents

GENERATED = "A dog\nDescription automatically generated"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A page, a book, a document and a presentation, each with pictures."""
    folder = tmp_path / "site"
    folder.mkdir()
    scene(80, 60).save(folder / "a.png")
    (folder / "a.html").write_text("<html lang=en><title>Page</title><img src=a.png>")
    properties = f'id="1" name="P" descr="{GENERATED}"'.replace("\n", "&#10;")
    body = made.paragraph(made.drawing("rId1")) + made.paragraph(made.drawing("rId2", properties))
    (folder / "b.docx").write_bytes(made.word(body))
    (folder / "c.epub").write_bytes(made.book(made.chapter('<p><img src="../a.png"/></p>')))
    (folder / "d.pptx").write_bytes(made.slides(made.slide(made.slide_picture("rId1"))))
    (folder / "~$b.docx").write_bytes(b"a lock file of Word")
    (folder / "e.docx").write_bytes(b"no document")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_documents_are_treated_like_pages(folder: Path, tmp_path: Path) -> None:
    store, before = tmp_path / "site.cutline", contents(folder)
    scanned = site.scan(store, folder)
    assert (scanned.pages, scanned.occurrences) == (5, 7)
    assert scanned.problems == (("e.docx", "it is not a ZIP archive"),)
    drafted = site.draft(store, standin.StandIn())
    assert (drafted.failed, drafted.summary.drafts, drafted.summary.kept) == (0, 7, 0)
    with site.open_store(store) as opened:
        assert all(each.draft and each.draft.alt for each in opened.occurrences())
        for each in opened.occurrences():
            site.review(opened, each.id, Verdict.EDITED, f"Words {each.id}")
    planned = site.apply(store, folder)
    assert (planned.alts, planned.files, planned.refused) == (7, 4, ())
    diff = planned.diff()
    assert '+<p:cNvPr id="4" name="Picture 3" descr="Words' in diff
    assert "PK" not in diff
    assert contents(folder) == before
    written = site.apply(store, folder, write=True)
    assert (written.alts, written.files, written.failed) == (7, 4, 0)
    assert site.apply(store, folder).alts == 0
    changed = [name for name, content in contents(folder).items() if content != before[name]]
    assert changed == ["a.html", "b.docx", "c.epub", "d.pptx"]
    assert site.scan(store, folder).occurrences == 7
    assert site.status(store).applied == 7
    report = site.report(store)
    assert report.after.missing == 0
    assert b"Words" in report.to_html().encode()
    undone = site.undo(store)
    assert (undone.failed, undone.remaining) == (0, {})
    assert contents(folder) == before


def test_a_document_that_changed_is_matched_again(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "site.cutline"
    site.scan(store, folder, include=["b.docx"])
    with site.open_store(store) as opened:
        first, _ = opened.occurrences()
        site.review(opened, first.id, Verdict.EDITED, "The first")
    body = "".join(made.paragraph(made.drawing(each)) for each in ("rId2", "rId1"))
    (folder / "b.docx").write_bytes(made.word(made.paragraph("New text") + body))
    assert site.apply(store, folder, write=True).alts == 1
    [_, (_, occurrences)] = [*enumerate(_read(folder / "b.docx"))]
    assert [each.alt for each in occurrences] == [None, "The first"]
    (folder / "b.docx").write_bytes(made.word(made.paragraph("Again")))
    undone = site.undo(store)
    assert undone.outcome is not None
    assert undone.outcome.failed == (
        ("b.docx", "it changed since it was written; restore it by hand"),
    )
    assert undone.remaining == {"b.docx": ()}


def _read(file: Path) -> tuple[str, list[ImageOccurrence]]:
    from cutline.site.pages.scan import read_file

    page, occurrences, _ = read_file(file, file.parent)
    return page.url, occurrences


def test_lint_names_the_place_in_a_document(folder: Path, tmp_path: Path) -> None:
    found = [(str(location), finding.rule) for location, finding in site.lint_files([folder])]
    places = [(place.rpartition("/")[2], rule) for place, rule in found]
    assert ("a.html:1", "image-alt") in places
    assert ("b.docx", "document-alt") in places
    assert ("b.docx", "generated") in places
    assert ("c.epub, Chapter 1", "image-alt") in places
    assert ("d.pptx, slide 1", "document-alt") in places
    assert ("d.pptx, slide master", "document-alt") in places
    assert ("e.docx", "unreadable") in places
    store = tmp_path / "site.cutline"
    site.scan(store, folder)
    assert ("d.pptx, slide 1", "document-alt") in [
        (place, finding.rule) for place, finding in site.lint(store)
    ]


def test_pictures_that_are_not_in_the_document_wait_for_a_person(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    chart = """<w:r><w:drawing><wp:inline><wp:docPr id="1" name="C"/><a:graphic><a:graphicData>
<c:chart r:id="rId7"/></a:graphicData></a:graphic></wp:inline></w:drawing></w:r>"""
    linked = made.drawing("rId8").replace("r:embed", "r:link")
    body = made.paragraph(chart) + made.paragraph(linked)
    links = {"rId7": "chart c.xml", "rId8": "image https://example.org/a.png External"}
    (folder / "a.docx").write_bytes(made.word(body, **links))
    store = tmp_path / "site.cutline"
    site.scan(store, folder)
    assert site.draft(store, standin.StandIn()).summary.fetched == 0
    with Store(store) as opened:
        [one, two] = opened.occurrences()
    assert one.draft is not None
    assert two.draft is not None
    assert (one.occurrence.kind, one.draft.decision.purpose) == (Kind.CHART, Purpose.COMPLEX)
    assert two.draft.decision.purpose is Purpose.UNKNOWN
    assert two.draft.decision.evidence == "a linked image, which is not fetched"
    assert one.draft.alt is two.draft.alt is None


def test_findings_for_continuous_integration_name_the_slide(folder: Path) -> None:
    findings = list(site.lint_files([folder / "d.pptx"]))
    assert '"slide 1: ppt/media/image1.png: the picture has no alt text' in to_sarif(findings)
    assert any("::slide 1: ppt/media/image1.png" in line for line in to_github(findings))


def test_reviewers_see_the_place_and_the_name_of_the_picture(folder: Path, tmp_path: Path) -> None:
    store, sheet = tmp_path / "site.cutline", io.StringIO()
    site.scan(store, folder)
    site.draft(store, standin.StandIn())
    site.write_reviews(store, sheet)
    assert "slide 1 / [picture]" in sheet.getvalue()
    assert "Chapter 1 / [picture]" in sheet.getvalue()
    names = {card.name for card in site.report(store).cards}
    assert names <= {"a.png", "image1.png", "image2.png"}
