"""Alts that a program wrote: reported, and replaced like missing ones."""

from __future__ import annotations

import pytest

from cutline.site.decide.decision_tree import decide
from cutline.site.decide.lint import lint_alt
from cutline.site.model import ImageOccurrence, Kind, Review, Verdict
from cutline.site.pages.write_rules import may_write


def occurrence(alt: str) -> ImageOccurrence:
    return ImageOccurrence("a.html", 0, Kind.IMG, "a.png", "https://example.org/a.png", alt=alt)


@pytest.mark.parametrize(
    ("alt", "generated"),
    [
        ("A dog on a beach\n\nDescription automatically generated", True),
        ("Ein Bild, das Hund enthält.\n\nAutomatisch generierte Beschreibung", True),
        ("Une image contenant chien\nDescription générée automatiquement", True),
        ("A dog AI-generated content may be incorrect.", True),
        ("A close up of a dog. Description generated with very high confidence", True),
        ("May be an image of 2 people and beach", True),
        ("Image may contain: 1 person, smiling", True),
        ("No photo description available.", True),
        ("A form whose description is automatically generated on each visit", False),
        ("It may be an image of a dog", False),
        ("A dog", False),
    ],
)
def test_alts_that_a_program_wrote(alt: str, generated: bool) -> None:
    assert ("generated" in [each.rule for each in lint_alt(alt, occurrence(alt))]) == generated
    assert (decide(occurrence(alt)).rule == "has-alt") != generated
    review = Review(Verdict.EDITED, "A dog on a beach")
    assert may_write(occurrence(alt), [review]).allowed == generated
