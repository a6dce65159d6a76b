"""A store and a journal that version 0.1 wrote."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from cutline import site
from cutline.site.model import Purpose, Verdict
from cutline.site.store.store import Store

PAGE = """<!doctype html><html lang="en"><title>Trip</title><h1>Our trip</h1>
<p>On Monday.</p><img src="1.png">
<p>On Tuesday.</p><img src="2.png" alt="">
<p>On Wednesday.</p><img src="3.png" alt="Three ducks on a pond">
<p>Gone.</p><img src="none.png">
<p>On Thursday.</p><img src="4.png">
"""
DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for name in ("site-0.1.cutline", "site-0.1.cutline-applied.jsonl"):
        shutil.copy(DATA / name, tmp_path / name)
    return tmp_path / "site-0.1.cutline"


def test_a_store_of_version_0_1_opens_with_everything_in_it(store: Path) -> None:
    counts = site.status(store)
    assert (counts.pages, counts.uses, counts.failed, counts.applied) == (3, 8, 1, 1)
    assert counts.reviewed[Verdict.EDITED] == counts.reviewed[Verdict.SKIPPED] == 1
    assert counts.by_purpose == {Purpose.INFORMATIVE: 4, Purpose.KEPT: 3}
    with Store(store) as opened:
        [first, *_] = opened.occurrences(page="index.html")
        assert first.review is not None
        assert first.review.alt == "A path in the woods"
        assert first.review.who == "Ann"
        assert [each.occurrence.source for each in opened.occurrences(origin="images.csv")] == [
            "https://shop.example/x.png"
        ]


def test_its_drafts_are_reviewed_reported_and_exported(store: Path) -> None:
    with Store(store) as opened:
        [drafted, *_] = opened.occurrences(stage="drafted")
    assert site.review(store, drafted.id, "approved").alt == drafted.draft.alt  # type: ignore[union-attr]
    table = io.StringIO()
    site.export(store, table)
    assert table.getvalue().count("\n") >= 9
    assert "A path in the woods" in site.report(store).to_html()


def test_its_journal_is_read_by_undo(store: Path, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    written = PAGE.replace('src="1.png"', 'src="1.png" alt="A path in the woods"')
    page.write_text(written, newline="")
    journal = store.with_name(f"{store.name}-applied.jsonl")
    text = journal.read_text().replace("/tmp/cutline-0.1/pages/index.html", str(page))
    journal.write_text(text)
    result = site.undo(store, root=tmp_path)
    assert result.outcome is not None
    assert result.outcome.files == ("index.html",)
    assert page.read_text() == PAGE
