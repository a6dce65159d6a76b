"""The protocol of destinations, with the destination of docs/destinations.md."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import standin
from conftest import scene

from cutline import site
from cutline.chat import ChatAnswer
from cutline.errors import OptionError
from cutline.search import SearchOptions
from cutline.site.destination import ChangedByStoreError, Commit, Destination, Edit

EXAMPLE = Path(__file__).parents[2] / "docs/examples/json_destination.py"


def load_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("json_destination", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_example()


def entry(slug: str, *alts: str | None) -> dict[str, Any]:
    images = [
        {"src": f"media/{number}.png", "caption": "", "alt": alt} for number, alt in enumerate(alts)
    ]
    return {"slug": slug, "title": "Dogs", "lang": "en", "images": images}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "cms" / "media").mkdir(parents=True)
    for number in range(2):
        scene(100 + number, 70).rotate(90 * number).save(tmp_path / f"cms/media/{number}.png")
    file = tmp_path / "cms" / "entries.json"
    file.write_text(json.dumps([entry("dogs", None, None), entry("cats", "A cat sits")]))
    return file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.cutline"


def alts(file: Path) -> list[str | None]:
    return [image["alt"] for each in json.loads(file.read_bytes()) for image in each["images"]]


def approved(path: Path, destination: Destination, *texts: str) -> None:
    """Scan, draft and approve the first occurrences with these texts; "" approves the draft."""
    site.scan(path, destination)
    drafted = site.draft(path, standin.StandIn(), destination=destination)
    assert (drafted.failed, drafted.summary.fetched) == (0, 2)
    with site.open_store(path) as store:
        ids = [each.id for each in store.occurrences()]
    for id, text in zip(ids, texts, strict=False):
        site.review(path, id, "edited" if text else "approved", text or None)


def test_a_json_file_is_read_drafted_written_and_undone(
    example: ModuleType, file: Path, path: Path
) -> None:
    destination: Destination = example.JsonDestination(file)
    before = json.loads(file.read_bytes())
    approved(path, destination, "", "A red field")
    planned = site.apply(path, destination)
    assert (planned.alts, planned.files, planned.failed) == (2, 1, 0)
    assert '+"A red field"' in planned.diff()
    assert b"A red field" in planned.preview()
    with pytest.raises(OptionError, match="expected only HTML and Markdown files"):
        planned.patch()
    assert json.loads(file.read_bytes()) == before
    written = site.apply(path, destination, write=True)
    assert (written.alts, written.failed) == (2, 0)
    assert alts(file) == [alts(file)[0], "A red field", "A cat sits"]
    assert alts(file)[0]
    assert site.apply(path, destination).alts == 0, "all pages are up to date"
    assert site.status(path).applied == 2
    assert site.undo(path, destinations=[destination]).failed == 0
    assert json.loads(file.read_bytes()) == before
    assert site.status(path).applied == 0


def test_a_page_that_changed_is_found_again_and_a_persons_text_is_kept(
    example: ModuleType, file: Path, path: Path
) -> None:
    destination = example.JsonDestination(file)
    approved(path, destination, "A field", "A red field")
    entries = json.loads(file.read_bytes())
    entries[0]["images"].reverse()
    entries[0]["images"][0]["alt"] = "By hand"
    file.write_text(json.dumps(entries))
    result = site.apply(path, destination, write=True)
    assert [why for _, why in result.refused] == [
        "the page has other words (--overwrite replaces them): 'By hand'"
    ]
    assert alts(file) == ["By hand", "A field", "A cat sits"]
    file.write_text(file.read_text().replace("A field", "Another text"))
    undone = site.undo(path, destinations=[destination])
    assert undone.outcome is not None
    assert undone.outcome.failed == (
        ("dogs", "it changed since it was written; restore it by hand"),
    )


def test_a_page_that_changes_between_plan_and_write_is_left(
    example: ModuleType, file: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = example.JsonDestination(file)
    approved(path, destination, "A field")
    clean_up = destination.clean_up

    def meanwhile() -> None:
        clean_up()
        file.write_text(file.read_text().replace('"src": "media/1.png"', '"src": "media/2.png"'))

    destination.clean_up = meanwhile
    result = site.apply(path, destination, write=True)
    assert result.outcome is not None
    assert result.outcome.failed == (
        ("dogs", "dogs changed a moment ago; run the same command again"),
    )
    assert alts(file) == [None, None, "A cat sits"]


def test_undo_needs_the_destination_and_trusts_no_journal(
    example: ModuleType, file: Path, path: Path
) -> None:
    destination = example.JsonDestination(file)
    approved(path, destination, "A field")
    site.apply(path, destination, write=True)
    with pytest.raises(OptionError, match="whose pages are in a destination of the kind 'json'"):
        site.undo(path)
    journal = path.with_name(f"{path.name}-applied.jsonl")
    content = journal.read_text()
    for old, new in (("alt/0", "title"), ("alt/0", "alt/7"), ('"was": "null"', '"was": "{}"')):
        assert old in content
        journal.write_text(content.replace(old, new))
        forged = site.undo(path, destinations=[destination])
        assert forged.outcome is not None
        assert forged.outcome.failed == (
            ("dogs", "the journal asks to change more than alts; restore it by hand"),
        )
        assert alts(file)[0] == "A field"
    file.write_text(file.read_text().replace("Dogs", "Many dogs"))  # no alt
    journal.write_text(content)
    assert site.undo(path, destinations=[destination]).failed == 0
    assert alts(file)[0] is None


def test_a_page_that_cannot_be_read_is_reported(
    example: ModuleType, file: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = example.JsonDestination(file)
    monkeypatch.setattr(destination, "urls", lambda: iter(("dogs", "birds", "cats")))
    found = site.scan(path, destination)
    assert found.problems == (("birds", "there is no entry 'birds' any more"),)
    assert (found.pages, found.occurrences) == (3, 3)


def test_a_store_that_keeps_another_text_is_reported_and_undone(
    example: ModuleType, file: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As WordPress does, which removes percent signs followed by hex digits."""
    destination = example.JsonDestination(file)
    write = example.JsonPage.write

    def sanitising(self: Any, edits: Sequence[Edit], commit: Commit) -> None:
        write(self, edits, commit)
        if b"null" in edits[0].after:
            return
        file.write_text(file.read_text().replace("100%", "100"))
        page = destination.open(destination.location(next(destination.read())[0]))
        kept = [
            Edit(edits[0].occurrence, 0, edits[0].before, b'"100 wool"', "100 wool", edits[0].part)
        ]
        raise ChangedByStoreError("the store keeps '100 wool'", page.sha256, kept)

    monkeypatch.setattr(example.JsonPage, "write", sanitising)
    approved(path, destination, "100% wool")
    result = site.apply(path, destination, write=True)
    assert result.outcome is not None
    assert result.outcome.failed == (("dogs", "the store keeps '100 wool'"),)
    assert (result.alts, alts(file)[0]) == (1, "100 wool")
    assert site.undo(path, destinations=[destination]).failed == 0
    assert alts(file)[0] is None


class Judge:
    """A chat model that accepts every alt, and reads each image."""

    name, search = "judge@host", SearchOptions(beam_size=1)

    def converse(self, dialogues: Iterable[Any], limits: Any = None) -> Iterator[Any]:
        for image, dialogue in dialogues:
            assert Path(image).is_file()
            next(dialogue)
            try:
                dialogue.send(ChatAnswer('{"verdict": "good", "reason": "It fits.", "alt": ""}'))
            except StopIteration as stop:
                yield stop.value


def test_judge_opens_images_through_the_destination(
    example: ModuleType, file: Path, path: Path
) -> None:
    destination = example.JsonDestination(file)
    site.scan(path, destination)
    judged = site.judge(path, Judge(), destination=destination)
    assert judged.failed == 0
    with site.open_store(path) as store:
        [_, _, cats] = store.occurrences()
    assert cats.image is not None
    assert cats.image.status == "ok"
    assert cats.judgement is not None


def test_patterns_are_refused_for_a_destination(
    example: ModuleType, file: Path, path: Path
) -> None:
    with pytest.raises(OptionError, match="got include or exclude for a destination"):
        site.scan(path, example.JsonDestination(file), include=["a*"])
