"""Folders of pictures as sites, and the text that image files carry as drafts."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import standin
from conftest import HostileFolder, scene
from typer.testing import CliRunner

from cutline import site
from cutline.cli import app
from cutline.errors import DataError, OptionError
from cutline.image import load_image
from cutline.metadata import MetadataOptions, read_text
from cutline.metadata.exiv2_client import read_fields, write_fields
from cutline.metadata.read import (
    ALT,
    DESCRIPTION,
    EXIF_DESCRIPTION,
    IIM_CAPTION,
    LONG_DESCRIPTION,
)
from cutline.site.model import Decision, Draft, Purpose, Review, Verdict

pytest.importorskip("exiv2")
pytestmark = pytest.mark.metadata


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.cutline"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.png", "c.webp", "d.gif", "sub/e.tif")):
        scene(100 + number, 70).rotate(90 * number).save(folder / name)
    return folder


def review_all(path: Path, alt: str = "Approved {page}") -> None:
    with site.open_store(path) as store:
        for each in list(store.occurrences()):
            text = alt.format(page=each.occurrence.page)
            site.review(store, each.id, "edited", text, who="Ann")


def fields(path: Path) -> list[Any]:
    return [each for each in read_fields(path) if each[0] != "comment"]


def test_a_folder_of_pictures_goes_the_whole_way(folder: Path, path: Path) -> None:
    before = {file: fields(file) for file in folder.rglob("*.*") if file.suffix != ".gif"}
    found = site.scan(path, site.PicturesDestination(folder))
    assert (found.pages, found.occurrences, found.failed) == (5, 5, 0)
    assert site.draft(path, standin.StandIn()).failed == 0
    review_all(path, "A red field")
    planned = site.apply(path)
    assert (planned.alts, planned.failed) == (5, 0)
    assert "+AltTextAccessibility [x-default]: A red field" in planned.diff()
    assert [(change.path, note) for change in planned.changes for note in change.notes] == [
        ("d.gif", "this format cannot hold embedded text here; the text is in d.gif.xmp")
    ]
    assert site.apply(path, folder, write=True).alts == 5
    texts = {file.name: read_text(file).alt for file in folder.rglob("*.*")}
    assert texts["a.jpg"] == texts["e.tif"] == "A red field"
    assert (folder / "d.gif.xmp").is_file()
    assert site.apply(path).alts == 0
    assert site.report(path).after.words == 5
    assert [each[0] for each in site.lint(path)]
    assert site.undo(path).failed == 0
    assert not (folder / "d.gif.xmp").exists()
    assert {file: fields(file) for file in before} == before


def chart(text: str = "Sales rose.\nFrom 2 to 5.") -> Draft:
    decision = Decision(Purpose.COMPLEX, "chart", "it looks like a chart")
    return Draft(decision, "Sales by year", long_description=text, model="vision")


def long_description_of(file: Path) -> str | None:
    return read_text(file).long_description


def test_a_long_description_is_approved_written_and_undone(folder: Path, path: Path) -> None:
    write_fields(folder / "b.png", {LONG_DESCRIPTION: {"x-default": "By hand", "de": "Lang"}})
    text = {"x-default": "Sales by year"}
    write_fields(folder / "c.webp", {ALT: text, LONG_DESCRIPTION: text})
    before = {file.name: fields(file) for file in folder.glob("[abc].*")}
    site.scan(path, site.PicturesDestination(folder))
    with site.open_store(path) as store:
        ids = {each.occurrence.page: each.id for each in store.occurrences()}
        for id in ids.values():
            store.put_draft(id, chart())
    assert site.review(path, ids["a.jpg"], "approved").verdict is Verdict.APPROVED
    edited = site.review(path, ids["d.gif"], "approved", long_description=" From 2\n\nto 6. ")
    assert (edited.verdict, edited.alt) == (Verdict.EDITED, "Sales by year")
    site.review(path, ids["sub/e.tif"], "approved", long_description="")
    site.review(path, ids["b.png"], "approved")
    site.review(path, ids["c.webp"], "approved")

    stream = io.StringIO(newline="")
    site.export(path, stream, "json")
    exported = json.loads(stream.getvalue())["uses"]
    assert {row["page"]: row["approved_long_description"] for row in exported} == {
        **dict.fromkeys(("a.jpg", "b.png", "c.webp"), "Sales rose.\nFrom 2 to 5."),
        "d.gif": "From 2\nto 6.",
        "sub/e.tif": None,
    }
    result = site.apply(path, write=True)
    assert {stored.occurrence.page: why for stored, why in result.refused} == {
        "b.png": "it has another long description (--overwrite replaces it): 'By hand'",
        "c.webp": "it has another long description (--overwrite replaces it): 'Sales by year'",
    }
    assert result.outcome is not None
    assert result.outcome.files == ("a.jpg", "b.png", "d.gif", "sub/e.tif")
    assert {name: long_description_of(folder / name) for name in ids} == {
        "a.jpg": "Sales rose. From 2 to 5.",
        "b.png": "By hand",
        "c.webp": "Sales by year",
        "d.gif": "From 2 to 6.",
        "sub/e.tif": None,
    }
    assert read_text(folder / "b.png").alt == "Sales by year"
    assert site.apply(path).alts == 0
    assert site.apply(path, write=True, overwrite=True).alts == 2
    assert long_description_of(folder / "c.webp") == "Sales rose. From 2 to 5."
    assert read_text(folder / "b.png", "de").long_description == "Lang"
    site.review(path, ids["a.jpg"], "approved", long_description="Shorter")  # replaces our own text
    assert site.apply(path, write=True).alts == 1
    assert long_description_of(folder / "a.jpg") == "Shorter"
    assert site.undo(path).failed == 0
    assert {file.name: fields(file) for file in folder.glob("[abc].*")} == before


def test_a_review_of_version_0_1_approves_the_long_description_of_the_draft(
    folder: Path, path: Path
) -> None:
    site.scan(path, site.PicturesDestination(folder))
    with site.open_store(path) as store:
        store.put_draft(1, chart())
        store.put_review(1, Review(Verdict.APPROVED, "Sales by year"))
        assert store.occurrence(1).approved_long_description == "Sales rose.\nFrom 2 to 5."
        store.put_review(1, Review(Verdict.SKIPPED, None))
        assert store.occurrence(1).approved_long_description == ""


def test_an_edited_picture_keeps_its_edits_and_loses_only_our_text(
    folder: Path, path: Path
) -> None:
    site.scan(path, site.PicturesDestination(folder))
    review_all(path)
    site.apply(path, write=True)
    write_fields(folder / "a.jpg", {DESCRIPTION: {"x-default": "By hand"}})
    write_fields(folder / "d.gif.xmp", {DESCRIPTION: {"x-default": "By hand"}})
    write_fields(folder / "b.png", {ALT: {"x-default": "Another text"}})
    undone = site.undo(path)
    assert undone.outcome is not None
    assert {name for name, _ in undone.outcome.failed} == {"a.jpg", "b.png", "d.gif"}
    assert read_text(folder / "a.jpg").description == "By hand"
    assert read_text(folder / "b.png").alt == "Another text"
    assert read_text(folder / "c.webp").alt is None


def test_a_persons_alt_is_kept_and_other_languages_too(folder: Path, path: Path) -> None:
    write_fields(folder / "a.jpg", {ALT: {"x-default": "By hand"}})
    write_fields(folder / "b.png", {ALT: {"x-default": "By hand"}})
    options = MetadataOptions(language="de")
    german = path.with_name("german.cutline")
    site.scan(path, site.PicturesDestination(folder))
    site.scan(german, site.PicturesDestination(folder, options))
    review_all(path, "English")
    review_all(german, "Deutsch")
    result = site.apply(path, write=True)
    assert [why for _, why in result.refused] == [
        "the page has other words (--overwrite replaces them): 'By hand'"
    ] * 2
    assert site.apply(german, write=True).alts == 5
    assert read_text(folder / "a.jpg").alt == "By hand"
    assert read_text(folder / "a.jpg", "de").alt == "Deutsch"
    assert read_text(folder / "c.webp").alt == "English"
    assert site.undo(german).failed == 0
    assert read_text(folder / "a.jpg", "de").alt == "By hand"


def test_sidecars_on_request(folder: Path, path: Path) -> None:
    content = (folder / "a.jpg").read_bytes()
    site.scan(path, site.PicturesDestination(folder, MetadataOptions(sidecar="always")))
    review_all(path)
    assert site.apply(path, write=True).alts == 5
    assert (folder / "a.jpg").read_bytes() == content
    assert read_text(folder / "a.jpg").alt == "Approved a.jpg"
    assert site.undo(path).failed == 0
    assert not list(folder.rglob("*.xmp"))


def test_descriptions_on_request_replace_none(folder: Path, path: Path) -> None:
    write_fields(folder / "a.jpg", {DESCRIPTION: {"x-default": "By hand"}})
    os.utime(folder / "b.png", (1_000_000_000, 1_000_000_000))
    options = MetadataOptions(description=True, keep_times=True)
    site.scan(path, site.PicturesDestination(folder, options))
    review_all(path, "A red field")
    assert site.apply(path, write=True).alts == 5
    assert read_text(folder / "a.jpg").description == "By hand"
    assert read_text(folder / "b.png").description == "A red field"
    assert (folder / "b.png").stat().st_mtime == 1_000_000_000
    assert site.undo(path).failed == 0
    assert read_text(folder / "b.png").description is None
    assert read_text(folder / "a.jpg").description == "By hand"


def test_odd_files_are_refused_with_a_reason(folder: Path, path: Path) -> None:
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    os.link(folder / "a.jpg", folder / "linked.jpg")
    (folder / "b.png").chmod(0o444)
    found = site.scan(path, site.PicturesDestination(folder))
    review_all(path, "A red field")
    result = site.apply(path, write=True)
    linked = "it has 2 hard links, which a write would separate"
    assert {stored.occurrence.page: why for stored, why in result.refused} == {
        "a.jpg": linked,
        "linked.jpg": linked,
        "b.png": "it is read-only",
    }
    assert result.outcome is not None
    assert result.outcome.failed == ()
    assert dict(found.problems) == {
        "empty.jpg": "it is not an image",
        "text.png": "it is not an image",
    }
    assert site.undo(path).failed == 0


def test_hostile_files_end_in_a_reason_and_change_nothing_else(
    hostile_folder: HostileFolder, path: Path
) -> None:
    folder = hostile_folder.path
    before = set(folder.iterdir())
    pixels = {name: load_image(folder / name).tobytes() for name in hostile_folder.readable}
    found = site.scan(path, site.PicturesDestination(folder))
    assert {"broken.jpg", "empty.jpg", "text.jpg", "unreadable.jpg"} <= dict(found.problems).keys()
    site.draft(path, standin.StandIn())
    review_all(path, "A red field")
    result = site.apply(path, write=True)
    assert result.alts >= len(pixels)
    assert {name: load_image(folder / name).tobytes() for name in pixels} == pixels
    assert {read_text(folder / name).alt for name in pixels} == {"A red field"}
    assert site.undo(path).failed == 0
    assert set(folder.iterdir()) == before
    assert {read_text(folder / name).alt for name in pixels} == {None}


def test_a_forged_journal_changes_no_other_field_and_no_other_file(
    folder: Path, path: Path
) -> None:
    site.scan(path, site.PicturesDestination(folder))
    review_all(path)
    site.apply(path, write=True)
    journal = path.with_name(f"{path.name}-applied.jsonl")
    text = journal.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines[1:]:
        for edit in line["edits"]:
            edit["was"] = json.dumps({"Exif.Image.Artist": "Mallory"})
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert site.undo(path).failed == 5
    assert not any(key == "Exif.Image.Artist" for key, _, _ in read_fields(folder / "a.jpg"))
    other = folder / "sub" / "other.jpg.xmp"
    write_fields(other, {ALT: {"x-default": "A text"}}, create=True)
    journal.write_text(text.replace("d.gif.xmp", "sub/other.jpg.xmp"))
    assert site.undo(path).failed == 1
    assert other.is_file()


def test_decorative_and_missing_pictures_are_refused(folder: Path, path: Path) -> None:
    site.scan(path, site.PicturesDestination(folder))
    with site.open_store(path) as store:
        first, second = [each.id for each in store.occurrences()][:2]
    site.review(path, first, "decorative")
    site.review(path, second, "edited", "A text")
    (folder / "b.png").unlink()
    reasons = [why for _, why in site.apply(path).refused]
    assert reasons[0] == "the metadata of an image file cannot say that it is decorative"
    assert reasons[1].startswith("there is no b.png in ")


def test_another_folder_and_no_folder_are_refused(folder: Path, path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder with pictures"):
        site.PicturesDestination(tmp_path / "nowhere")
    site.scan(path, site.PicturesDestination(folder))
    with pytest.raises(OptionError, match="or no folder"):
        site.apply(path, tmp_path)


@pytest.mark.parametrize(
    ("values", "alt", "source"),
    [
        ({ALT: {"x-default": "Own alt"}, DESCRIPTION: {"x-default": "D"}}, "Own alt", "AltText"),
        ({DESCRIPTION: {"x-default": "A long walk"}}, "A long walk", "dc:description"),
        ({EXIF_DESCRIPTION: "A long walk"}, "A long walk", "Exif ImageDescription"),
        ({IIM_CAPTION: "A long walk."}, "A long walk.", "Caption-Abstract"),
        ({EXIF_DESCRIPTION: "OLYMPUS DIGITAL CAMERA"}, None, ""),
        ({DESCRIPTION: {"x-default": "IMG_1234.jpg"}}, None, ""),
    ],
)
def test_the_text_of_a_web_picture_is_offered_before_a_model_is_asked(
    tmp_path: Path, path: Path, values: dict[str, Any], alt: str | None, source: str
) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    scene(100, 70).save(pages / "a.jpg")
    write_fields(pages / "a.jpg", values)
    (pages / "index.html").write_text('<h1>Trip</h1><img src="a.jpg"><img src="a.jpg" alt="x y">')
    site.scan(path, pages)
    captioner = standin.StandIn()
    drafted = site.draft(path, captioner)
    with site.open_store(path) as store:
        first, second = store.occurrences()
    assert first.draft is not None
    assert second.draft is not None
    assert second.draft.alt is None
    assert drafted.summary.captioned == (alt is None)
    if alt is not None:
        assert (first.draft.alt, first.draft.decision.rule) == (alt, "metadata")
        assert source in first.draft.decision.evidence
        assert first.draft.model == ""
    else:
        assert first.draft.decision.rule == "informative"


def test_the_command_line_scans_pictures(folder: Path, path: Path) -> None:
    runner = CliRunner()
    options = ["--store", str(path), "--quiet"]
    wrong = runner.invoke(app, ["site", "scan", str(folder), "--language", "de", *options])
    assert wrong.exit_code == 2
    scanned = runner.invoke(
        app, ["site", "scan", str(folder), "--pictures", "--sidecar", "always", *options]
    )
    assert scanned.exit_code == 0
    review_all(path)
    written = runner.invoke(app, ["site", "apply", "--write", *options])
    assert written.exit_code == 0
    assert len(list(folder.rglob("*.xmp"))) == 5
    assert runner.invoke(app, ["site", "undo", *options]).exit_code == 0
    assert not list(folder.rglob("*.xmp"))


def test_the_command_line_runs_pictures_up_to_the_report(folder: Path, path: Path) -> None:
    for name in ("b.png", "c.webp", "d.gif", "sub/e.tif"):
        (folder / name).unlink()
    write_fields(folder / "a.jpg", {DESCRIPTION: {"x-default": "A ewe and her lamb"}})
    runner = CliRunner()
    options = ["--store", str(path), "--quiet"]
    wrong = runner.invoke(app, ["site", "run", str(folder), "--keep-times", *options])
    assert (wrong.exit_code, "expected --pictures" in wrong.output) == (2, True)
    ran = runner.invoke(
        app, ["site", "run", str(folder), "--pictures", "--sidecar", "always", *options]
    )
    assert ran.exit_code == 0, ran.output
    assert path.with_name("site-report.html").is_file()
    site.review(path, 1, "approved")
    assert runner.invoke(app, ["site", "apply", "--write", *options]).exit_code == 0
    assert read_text(folder / "a.jpg").alt == "A ewe and her lamb"
    assert [file.name for file in folder.rglob("*.xmp")] == ["a.jpg.xmp"]
