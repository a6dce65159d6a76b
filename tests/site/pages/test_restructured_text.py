from __future__ import annotations

from pathlib import Path

import docutils.core
import docutils.nodes
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutline.site.model import ImageOccurrence, Kind, Review, Verdict
from cutline.site.pages.alt_markup import clean, differs_in_alt_only, has_alt, with_alt
from cutline.site.pages.restructured_text import occurrences_in_restructured_text
from cutline.site.pages.scan import scan
from cutline.site.store.store import Store
from cutline.site.writeback import apply as writeback

PAGE = """Harbour
=======

The *old* :ref:`harbour <h>` at night.

.. image:: a.png
   :alt: Boats at
      a pier
   :width: 320px

Boats leave at six.

.. figure:: /img/b.png
   :target: https://example.org/

   The lighthouse,
   built in 1890.

   A legend.

* In a list:

  .. image:: c.png

.. |logo| image:: d.png
"""


def read(text: str) -> list[ImageOccurrence]:
    _, occurrences = occurrences_in_restructured_text(text, page="a.rst")
    for each in occurrences:
        assert text.startswith(each.markup, each.offset)
    return occurrences


def in_docutils(text: str) -> list[tuple[str, str | None]]:
    settings = {"report_level": 5, "halt_level": 5, "_disable_config": True}
    tree = docutils.core.publish_doctree(text, settings_overrides=settings)
    found = [(each["uri"], each.get("alt")) for each in tree.findall(docutils.nodes.image)]
    return [(uri, alt.replace("\n", " ") if alt else alt) for uri, alt in found]


def test_images_and_figures_are_read_as_docutils_reads_them() -> None:
    occurrences = read(PAGE)
    assert [(each.source, each.alt) for each in occurrences] == in_docutils(PAGE)
    first, figure, _, logo = occurrences
    assert (first.alt, first.width_px, first.kind) == ("Boats at a pier", 320, Kind.RST)
    assert first.before.endswith("The old harbour at night.")
    assert first.after.startswith("Boats leave at six.")
    assert (figure.caption, figure.link) == (
        "The lighthouse, built in 1890.",
        "https://example.org/",
    )
    assert {each.page_title for each in occurrences} == {"Harbour"}
    assert (first.heading, logo.alt) == ("Harbour", "logo")


@pytest.mark.parametrize(
    "text",
    [
        "An example::\n\n   .. image:: code.png\n\n",
        ".. code-block:: rst\n\n   .. image:: code.png\n\n",
        ".. a comment\n   .. image:: code.png\n\n",
        "..\n   .. image:: code.png\n\n",
        ".. raw:: html\n\n   <img src=code.png>\n\n",
    ],
)
def test_code_and_comments_hold_no_images(text: str) -> None:
    page, occurrences = occurrences_in_restructured_text(
        f"{text}.. image:: own.png\n", page="a.rst"
    )
    assert [each.source for each in occurrences] == ["own.png"]
    assert page.unread == ((("image in raw HTML", 1),) if "raw" in text else ())


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (".. image:: a.png\n", ".. image:: a.png\n   :alt: A | *b*\n"),
        (".. image:: a.png", ".. image:: a.png\n   :alt: A | *b*"),
        (
            " .. figure:: a.png\n    :alt: x\n      y\n    :width: 9\n\n    Text\n",
            " .. figure:: a.png\n    :alt: A | *b*\n    :width: 9\n\n    Text\n",
        ),
        (".. image::\n   a.png\n", ".. image::\n   a.png\n   :alt: A | *b*\n"),
    ],
)
def test_writing_changes_the_option_alone(
    tmp_path: Path, before: str, after: str, newline: str
) -> None:
    root = tmp_path / "site"
    root.mkdir()
    source = before.replace("\n", newline).encode()
    (root / "a.rst").write_bytes(source)
    with Store(tmp_path / "x.cutline") as store:
        for page, occurrences in scan(root):
            store.put_page(page, occurrences)
        [stored] = store.occurrences()
        review = Review(Verdict.EDITED, "A | *b*", "ann", "2030-01-01T00:00:00+00:00")
        store.put_review(stored.id, review)
        plan = writeback.plan(store, root, overwrite=True)
        writeback.apply(store, plan, journal=tmp_path / "journal")
        written = (root / "a.rst").read_bytes().decode()
        expected = after if "\n" not in before else after.replace("\n", newline)
        assert written == expected
        assert in_docutils(written) == [("a.png", "A | *b*")]
        writeback.undo(store, tmp_path / "journal")
    assert (root / "a.rst").read_bytes() == source


@given(st.text(alphabet="ab \\`*_|:.<>{}[]é\"'#=-", max_size=12))
def test_any_alt_is_read_back_by_docutils(alt: str) -> None:
    alt = clean(alt).strip()
    [before] = read(".. image:: a.png\n")
    markup = with_alt(before.markup, Kind.RST, alt)
    [after] = read(markup)
    assert has_alt(after, alt)
    assert in_docutils(markup) == [("a.png", alt)]
    assert differs_in_alt_only(before.markup, markup)


def test_an_image_of_any_format_is_the_one_that_exists(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg/>")
    (tmp_path / "p.rst").write_text(".. image:: a.*\n")
    [(_, [occurrence])] = scan(tmp_path)
    assert occurrence.url == (tmp_path.resolve() / "a.svg").as_uri()
