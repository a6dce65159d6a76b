from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cutline.errors import DataError
from cutline.site.model import (
    Decision,
    Draft,
    ImageOccurrence,
    Kind,
    Page,
    Purpose,
    Review,
    Verdict,
)
from cutline.site.results.review_csv import COLUMNS, read_reviews, write_sheet
from cutline.site.store.store import Store

DRAFTS = ("A dog.", "", None, "=1+1 is two", 'The "old" town; by night')


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "site.cutline") as store:
        occurrences = [
            ImageOccurrence(
                "a.html",
                n,
                Kind.IMG,
                f"{n}.jpg",
                heading="Heading",
                before="Before,\nit",
                caption="C",
            )
            for n in range(len(DRAFTS))
        ]
        store.put_page(Page("a.html"), occurrences)
        for stored, alt in zip(store.occurrences(), DRAFTS, strict=True):
            decision = Decision(Purpose.INFORMATIVE, "informative", "it shows something")
            store.put_draft(
                stored.id, Draft(decision, alt, confidence=0.4967, notes=("look twice",))
            )
        yield store


def written(store: Store) -> list[dict[str, str]]:
    stream = io.StringIO(newline="")
    write_sheet(store, stream)
    stream.seek(0)
    return list(csv.DictReader(stream))


def saved(rows: list[dict[str, str]], path: Path, encoding: str = "utf-8", **dialect: Any) -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        table = csv.DictWriter(file, list(rows[0]), **dialect)
        table.writeheader()
        table.writerows(rows)
    return path


def reviews(store: Store) -> list[tuple[str, str | None] | None]:
    return [
        (str(each.review.verdict), each.review.alt) if each.review else None
        for each in store.occurrences()
    ]


def test_a_row_says_what_a_reviewer_needs(store: Store) -> None:
    row = written(store)[0]
    assert list(row) == COLUMNS
    assert row["page"] == "a.html"
    assert row["image"] == "0.jpg"
    assert row["context"] == "Heading / Before,\nit / [picture] / C"
    assert (row["draft"], row["confidence"]) == ("A dog.", "0.5")
    assert row["decision"] == "informative: it shows something"
    assert row["notes"] == "look twice"
    assert (row["verdict"], row["approved_alt"]) == ("", "")


def test_a_failure_is_told_once(store: Store) -> None:
    store.put_page(
        Page("b.html"), [ImageOccurrence("b.html", 0, Kind.IMG, "x.jpg", "http://a.b/x.jpg")]
    )
    [image] = store.images()
    store.put_failure(image.id, "missing", "no such file")
    assert written(store)[-1]["notes"] == "no such file"
    decision = Decision(Purpose.UNKNOWN, "failed", "no picture")
    note = "its picture could not be had: no such file"
    [stored] = store.occurrences(page="b.html")
    store.put_draft(stored.id, Draft(decision, None, notes=(note,)))
    assert written(store)[-1]["notes"] == note


@pytest.mark.parametrize(
    ("encoding", "dialect"),
    [
        ("utf-8-sig", {}),
        ("utf-8-sig", {"delimiter": ";", "lineterminator": "\r\n", "quoting": csv.QUOTE_ALL}),
        ("utf-16", {"delimiter": "\t", "lineterminator": "\n"}),
        ("cp1252", {"delimiter": ";"}),
    ],
)
def test_it_comes_back_however_a_spreadsheet_saved_it(
    store: Store, tmp_path: Path, encoding: str, dialect: dict[str, Any]
) -> None:
    rows = written(store)
    rows[0]["verdict"] = "Approved "
    rows[1]["verdict"] = "decorative"
    rows[2]["approved_alt"] = 'Café;\r\n "Zürich", 2'
    rows[3]["verdict"] = "approved"
    rows[4]["verdict"] = "skipped"
    sheet = read_reviews(store, saved(rows, tmp_path / "s.csv", encoding, **dialect), "Ann")
    assert sheet.problems == []
    store.put_reviews(sheet.reviews)
    assert reviews(store) == [
        ("approved", "A dog."),
        ("decorative", ""),
        ("edited", 'Café; "Zürich", 2'),
        ("approved", "=1+1 is two"),
        ("skipped", None),
    ]
    again = read_reviews(store, tmp_path / "s.csv", "Ben")
    assert (again.reviews, again.problems) == ([], [])


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx", "'=1", "'it's"])
def test_no_cell_is_a_formula_and_every_word_comes_back(
    store: Store, tmp_path: Path, text: str
) -> None:
    store.put_draft(1, Draft(Decision(Purpose.TEXT, "text", text), text))
    row = written(store)[0]
    assert not row["draft"].startswith(("=", "+", "-", "@", "\t"))
    row["verdict"] = "approved"
    [(_, review)] = read_reviews(store, saved([row], tmp_path / "s.csv"), "Ann").reviews
    assert review.alt == text.strip()


def test_bad_rows_are_named_and_the_others_count(store: Store, tmp_path: Path) -> None:
    rows = written(store)
    rows[0]["verdict"] = "perhaps"
    rows[1]["id"] = "77"
    rows[2]["verdict"] = "approved"  # there is no draft
    rows[3]["page"] = "b.html"
    rows[3]["verdict"] = "skipped"
    rows[4]["verdict"] = "approved"
    sheet = read_reviews(store, saved(rows, tmp_path / "s.csv"), "Ann")
    assert [id for id, _ in sheet.reviews] == [5]
    said = [problem for _, problem in sheet.problems]
    assert "got verdict 'perhaps'; expected approved, edited" in said[0]
    assert "got id '77'" in said[1]
    assert "got no text" in said[2]
    assert "got page 'b.html'; expected 'a.html'" in said[3]
    assert sorted(line for line, _ in sheet.problems) == [2, 4, 6, 8]  # where each row begins


def test_rows_left_as_they_were_take_nothing_back(store: Store, tmp_path: Path) -> None:
    early, late = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
    for occurrence in (1, 2):
        store.put_review(occurrence, Review(Verdict.EDITED, "First words", "Ann", early))
    rows = written(store)
    for occurrence in (1, 2, 3):
        store.put_review(occurrence, Review(Verdict.EDITED, "Later words", "Ben", late))
    rows[1]["approved_alt"] = "Words of the sheet"
    rows[2]["approved_alt"] = "Words of the sheet"
    sheet = read_reviews(store, saved(rows, tmp_path / "s.csv"), "Ann")
    assert sheet.reviews == []
    assert len(sheet.problems) == 2
    assert (
        "occurrence 2 was reviewed since the table was written (edited: 'Later words')"
        in (sheet.problems[0][1])
    )


def test_what_is_approved_is_the_draft_that_stood_in_the_row(store: Store, tmp_path: Path) -> None:
    rows = written(store)
    rows[0]["verdict"] = "approved"
    store.put_draft(1, Draft(Decision(Purpose.INFORMATIVE, "informative", ""), "Something else."))
    [(_, review)] = read_reviews(store, saved(rows, tmp_path / "s.csv"), "Ann").reviews
    assert (review.verdict, review.alt) == (Verdict.EDITED, "A dog.")


def test_a_text_without_a_verdict_approves_the_draft_or_edits_it(
    store: Store, tmp_path: Path
) -> None:
    rows = written(store)
    rows[0]["approved_alt"], rows[3]["approved_alt"] = "A dog.", "A sum"
    sheet = read_reviews(store, saved(rows, tmp_path / "rows.csv"), "ann")
    assert [(each.verdict, each.alt) for _, each in sheet.reviews] == [
        (Verdict.APPROVED, "A dog."),
        (Verdict.EDITED, "A sum"),
    ]


def test_a_long_description_is_approved_edited_or_removed_in_a_sheet(
    store: Store, tmp_path: Path
) -> None:
    complex_image = Decision(Purpose.COMPLEX, "chart", "a chart")
    for id in range(1, 6):
        store.put_draft(id, Draft(complex_image, f"Chart {id}", long_description="One\nTwo"))
    rows = written(store)
    assert [row["long_description"] for row in rows] == ["One\nTwo"] * 5
    rows[0]["verdict"] = "approved"
    rows[1]["approved_long_description"] = "Three"
    rows[2] |= {"verdict": "approved", "approved_long_description": "None"}
    rows[3] |= {"verdict": "decorative", "approved_long_description": "Three"}
    sheet = read_reviews(store, saved(rows, tmp_path / "rows.csv"), "ann")
    assert sheet.problems == []
    assert [(id, each.verdict, each.alt) for id, each in sheet.reviews] == [
        (1, Verdict.APPROVED, "Chart 1"),
        (2, Verdict.EDITED, "Chart 2"),
        (3, Verdict.EDITED, "Chart 3"),
        (4, Verdict.DECORATIVE, ""),
    ]
    store.put_reviews(sheet.reviews)
    approved = [each.approved_long_description for each in store.occurrences()]
    assert approved == ["One\nTwo", "Three", "", "", ""]
    again = written(store)
    cells = [row["approved_long_description"] for row in again]
    assert cells == ["One\nTwo", "Three", "none", "", ""]
    assert read_reviews(store, saved(again, tmp_path / "again.csv"), "ann").reviews == []
    again[0]["approved_long_description"] = "Four"
    [(id, review)] = read_reviews(store, saved(again, tmp_path / "again.csv"), "ann").reviews
    assert (id, review.long_description) == (1, "Four")


def test_a_table_of_something_else_is_refused(store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("id,name\n1,x\n")
    with pytest.raises(DataError, match="without approved_alt, verdict"):
        read_reviews(store, other, "Ann")
    with pytest.raises(DataError, match="No such file"):
        read_reviews(store, tmp_path / "none.csv", "Ann")


def test_cells_of_any_size_come_back_and_pictures_in_the_page_are_cut_short(
    store: Store, tmp_path: Path
) -> None:
    picture = "data:image/png;base64," + "A" * 200_000
    store.put_page(Page("b.html"), [ImageOccurrence("b.html", 0, Kind.IMG, picture)])
    rows = written(store)
    assert rows[-1]["image"] == picture[:200]
    rows[0] |= {"context": "x" * 200_000, "approved_alt": "A cat"}
    sheet = read_reviews(store, saved(rows, tmp_path / "sheet.csv"), "ann")
    assert [review.alt for _, review in sheet.reviews] == ["A cat"]
    assert sheet.problems == []


def test_a_table_with_a_title_or_an_open_quote_loses_no_row(store: Store, tmp_path: Path) -> None:
    rows = written(store)
    rows[1]["verdict"] = "decorative"
    path = saved(rows, tmp_path / "s.csv")
    text = path.read_text("utf-8-sig")
    lines = text.splitlines(keepends=True)
    broken = '1,"a.html,never closed\n'
    path.write_text("Reviews of May\n\n" + "".join([lines[0], broken, *lines[1:]]), "utf-8")
    sheet = read_reviews(store, path, "Ann")
    assert [verdict.verdict for _, verdict in sheet.reviews] == [Verdict.DECORATIVE]
    assert sheet.problems == [(4, "got a quotation mark that nothing closes; expected a pair")]
