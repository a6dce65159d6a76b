from __future__ import annotations

import pytest

from cutline.site.wordpress.library import (
    Attachment,
    Usage,
    file_name,
    image_id,
    runs_shortcode,
    sanitized,
    without_size,
)


def attachment(**more: object) -> Attachment:
    record = {
        "id": 3,
        "alt_text": "",
        "title": {"raw": "IMG_1"},
        "caption": {"raw": "At <em>sea</em> &amp; ashore"},
        "description": {"raw": "<p>Two</p><p>parts</p>"},
        "source_url": "https://example.org/u/2024/05/img_1-scaled.jpg",
        "media_details": {
            "file": "2024/05/img_1-scaled.jpg",
            "original_image": "IMG_1.jpg",
            "sizes": {"medium": {"file": "img_1-300x200.jpg"}, "odd": "x"},
        },
        "post": None,
    }
    return Attachment.from_json({**record, **more})


def test_context_of_an_image() -> None:
    page, [occurrence] = attachment().read("https://x/?attachment_id=3", Usage("A trip"), "de")
    assert (occurrence.alt, occurrence.caption) == (None, "At sea & ashore")
    assert (occurrence.after, occurrence.heading) == ("Two parts", "A trip")
    assert occurrence.before == ""  # the title is the file's name
    assert page.language == occurrence.language == "de"
    _, [named] = attachment(title="Our boat").read("https://x/", Usage("A trip", "Oars, 2 m"))
    assert (named.before, named.heading) == ("Our boat", "Oars, 2 m")


def test_digest_covers_what_saving_could_change() -> None:
    digests = {
        attachment(**change).sha256
        for change in (
            {},
            {"alt_text": "x"},
            {"title": "x"},
            {"caption": "x"},
            {"description": "x"},
        )
    }
    assert len(digests) == 5
    assert attachment(modified_gmt="2030").sha256 == attachment().sha256


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ('<img class="a wp-image-12 b">', 12),
        ("<img CLASS='wp-image-7'>", 7),
        ('<img class="my-wp-image-7">', None),
        ('<img class="wp-image-7x" alt="wp-image-3">', None),
        ("<img>", None),
    ],
)
def test_number_in_the_class(markup: str, expected: int | None) -> None:
    assert image_id(markup) == expected


def test_names_of_files() -> None:
    assert file_name("https://x/a%20B.JPG?x#y") == "a b.jpg"
    assert without_size("a-scaled-300x200.jpg") == "a.jpg"
    assert without_size("img_1-e1700000000000-300x200.jpg") == "img_1.jpg"
    assert without_size("a-300x200") == "a-300x200"


@pytest.mark.parametrize("text", ["A dog", "50 %", "100 % wool", "a & b", "it’s 3 > 2", '"x"'])
def test_plain_texts_are_kept(text: str) -> None:
    assert sanitized(text) == text


def test_brackets() -> None:
    assert runs_shortcode("a [gallery ids=1] b")
    assert runs_shortcode("[/caption]")
    assert not runs_shortcode("interval [ 1, 2 )")
