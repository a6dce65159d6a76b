from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from pathlib import Path

import pytest

from cutline.site.model import Decision, Draft, Page, Purpose, Review, Verdict
from cutline.site.pages.scan import occurrences_in_html
from cutline.site.results import export
from cutline.site.store.store import Store

WP = """#!/bin/sh
# WP-CLI, as far as the script needs it: a folder of alts, one file a picture.
case $1 in
eval-file)
    cat > "$LIBRARY/lookup.php"
    echo 'Deprecated: something'
    name=${3##*/}
    case $name in *.png) id=${name%.png} ;; *) id=0 ;; esac
    [ -e "$LIBRARY/$id" ] || { echo '0 empty'; exit; }
    if [ -s "$LIBRARY/$id" ]; then echo "$id kept"; else echo "$id empty"; fi
    ;;
post) [ "$2 $3 $5" = 'meta update _wp_attachment_image_alt' ] && cat > "$LIBRARY/$4" ;;
esac
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    tags = [
        "<img src=/1.png alt='=1+1'>",
        "<img src=/2.png>",
        "<img src=/3.png>",
        "<img src=/2.png>",
    ]
    page, occurrences = occurrences_in_html(
        "".join([*tags, "<img src=/9.png>"]), page="https://a.example/"
    )
    store = Store(tmp_path / "site.cutline")
    store.put_page(page, occurrences)
    decision = Decision(Purpose.INFORMATIVE, "photo", "nothing else says it")
    store.put_draft(2, Draft(decision, "A dog", confidence=0.5, labels=("dog", "ball"), model="m"))
    for id, alt in (
        (1, "One"),
        (2, 'Tom\'s $(touch x) "dog" \\n `id` é'),
        (3, "Three"),
        (5, "Nine"),
    ):
        store.put_review(id, Review(Verdict.EDITED, alt, "ann", "2030-01-01T00:00:00+00:00"))
    return store


def test_a_table_has_every_occurrence_and_no_formula(store: Store) -> None:
    stream = io.StringIO(newline="")
    export.write_csv(store, stream)
    first, second, *others = csv.DictReader(io.StringIO(stream.getvalue(), newline=""))
    assert len(others) == 3
    assert first["alt"] == "'=1+1"
    assert (second["draft"], second["confidence"], second["labels"]) == (
        "A dog",
        "0.5",
        "dog | ball",
    )
    assert (second["decision"], second["verdict"], second["applied"]) == (
        "informative",
        "edited",
        "no",
    )
    assert second["approved_alt"].endswith("é")


def test_json_says_the_same_and_tells_missing_from_empty(store: Store) -> None:
    store.put_page(
        Page("https://a.example/b"), occurrences_in_html("<img src=x alt=''>", page="b")[1]
    )
    stream = io.StringIO()
    export.write_json(store, stream)
    record = json.loads(stream.getvalue())
    assert record["version"] == 1
    assert [occurrence["alt"] for occurrence in record["uses"]] == [
        "=1+1",
        None,
        None,
        None,
        None,
        "",
    ]
    assert [list(occurrence) for occurrence in record["uses"]] == [export.COLUMNS] * 6
    assert record["uses"][1]["labels"] == ["dog", "ball"]


def library(folder: Path, **alts: str) -> dict[str, str]:
    """The environment of a script that finds a WordPress in the folder."""
    folder.mkdir()
    (folder / "wp").write_text(WP)
    (folder / "wp").chmod(0o755)
    for id, alt in alts.items():
        (folder / id.strip("_")).write_text(alt)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "LIBRARY": str(folder)}


def run(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh"],
        input=script,
        env=environment,
        cwd=environment["LIBRARY"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_gives_alts_and_keeps_those_of_people(store: Store, tmp_path: Path) -> None:
    environment = library(tmp_path / "wp", _1="Somebody's", _2="", _3="")
    script = export.wp_cli(store)
    dry = run(script, {**environment, "DRY_RUN": "1"})
    assert (tmp_path / "wp" / "2").read_text() == ""
    done = run(script, environment)
    assert done.stdout == dry.stdout
    assert done.stdout.endswith("2 given, 1 had one, 1 not in the library\n")
    assert done.stderr == "not in the library: https://a.example/9.png\n"
    assert done.returncode == 1
    alts = [(tmp_path / "wp" / id).read_text() for id in "123"]
    assert alts == ["Somebody's", 'Tom\'s $(touch x) "dog" \\n `id` é', "Three"]
    assert not (tmp_path / "wp" / "x").exists()
    assert (tmp_path / "wp" / "lookup.php").read_text().startswith("<?php\n")
    again = run(script, environment)
    assert again.stdout.endswith("0 given, 3 had one, 1 not in the library\n")


def test_a_picture_with_two_alts_is_left_to_a_person(store: Store, tmp_path: Path) -> None:
    store.put_review(4, Review(Verdict.EDITED, "Another"))
    environment = library(tmp_path / "wp", _1="", _2="", _3="")
    script = export.wp_cli(store)
    assert "\n# give https://a.example/2.png Another\n" in script
    assert run(script, environment).stdout.endswith("2 given, 0 had one, 1 not in the library\n")
    assert (tmp_path / "wp" / "2").read_text() == ""


def test_the_script_stops_where_wp_cli_fails(store: Store, tmp_path: Path) -> None:
    environment = library(tmp_path / "wp")
    done = run(export.wp_cli(store), {**environment, "WP": "false"})
    assert done.returncode == 2
    assert "expected the id of https://a.example/1.png" in done.stderr


UPLOADS = "https://a.example/wp-content/uploads/2020/01"


@pytest.mark.parametrize(
    ("url", "known"),
    [
        (f"{UPLOADS}/a.jpg", []),
        (f"{UPLOADS}/a-300x200.jpg", []),  # the script itself takes sizes away
        (f"{UPLOADS}/a.jpg?ver=2", [f"{UPLOADS}/a.jpg"]),
        (f"{UPLOADS}/a.jpg?w=300&h=2#x", [f"{UPLOADS}/a.jpg"]),
        (f"https://i0.wp.com/{UPLOADS[8:]}/a.jpg?resize=3%2C2&ssl=1", [f"{UPLOADS}/a.jpg"]),
        (f"{UPLOADS}/%C3%A4.jpg", [f"{UPLOADS}/ä.jpg"]),
        (f"{UPLOADS}/a-scaled.jpg", [f"{UPLOADS}/a.jpg"]),
        (f"{UPLOADS}/a-rotated-300x200.jpg", [f"{UPLOADS}/a.jpg"]),
        (f"{UPLOADS}/a-300x200.jpg.webp", [f"{UPLOADS}/a-300x200.jpg"]),
        (f"{UPLOADS}/a@2x.png", [f"{UPLOADS}/a.png"]),
        (f"{UPLOADS}/b%20c.png?x", [f"{UPLOADS}/b%20c.png", f"{UPLOADS}/b c.png"]),
    ],
)
def test_other_urls_of_an_attachment(url: str, known: list[str]) -> None:
    found = export.attachment_urls(url)
    assert found[0] == url
    assert set(known) <= set(found[1:])
    assert known or found == [url]


def test_the_script_looks_for_every_url(tmp_path: Path) -> None:
    page = "https://a.example/"
    _, occurrences = occurrences_in_html(
        "<img src='https://i0.wp.com/a.example/2.png?w=3'>", page=page
    )
    with Store(tmp_path / "site.cutline") as store:
        store.put_page(Page(page), occurrences)
        store.put_review(1, Review(Verdict.EDITED, "A dog"))
        script = export.wp_cli(store)
    environment = library(tmp_path / "wp", _2="")
    (tmp_path / "wp" / "wp").write_text(WP.replace("${3##*/}", "${4##*/}"))
    assert run(script, environment).stdout.endswith("1 given, 0 had one, 0 not in the library\n")
    assert (tmp_path / "wp" / "2").read_text() == "A dog"
