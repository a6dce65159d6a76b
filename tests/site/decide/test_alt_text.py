from __future__ import annotations

import json
import string
from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutline.caption import Alternative, Caption, Label
from cutline.errors import ImageFormatError, OptionError
from cutline.image_kind import PHOTOGRAPH, ImageKind
from cutline.site.decide import alt_text as wording
from cutline.site.decide import glossary
from cutline.site.decide.alt_text import WordingOptions, confidence, context, draft
from cutline.site.decide.decision_tree import decide
from cutline.site.decide.lint import redundant_prefix
from cutline.site.model import Decision, Draft, ImageOccurrence, Kind, Origin, Purpose

CURVE = {"sure": ((-1.0, 0.0), (0.2, 0.9))}
INFORMATIVE = Decision(Purpose.INFORMATIVE, "informative", "nothing else")


@pytest.fixture(autouse=True)
def _curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wording, "calibration", lambda: CURVE)


def occurrence(**fields: Any) -> ImageOccurrence:
    given = {
        "page": "https://www.example.org/",
        "position": 0,
        "kind": Kind.IMG,
        "source": "1.jpg",
        "url": "https://www.example.org/1.jpg",
    }
    return ImageOccurrence(**given | fields)


def said(text: str, score: float = -0.2, model: str = "sure", **fields: Any) -> Caption:
    return Caption("1.jpg", text, score, model, **fields)


def word(
    text: str, where: ImageOccurrence | None = None, score: float = -0.2, **options: Any
) -> Draft:
    where = where or occurrence()
    return draft(where, decide(where), said(text, score), WordingOptions(**options))


def test_a_caption_becomes_the_alt_with_its_confidence() -> None:
    caption = said(
        "A dog runs.", labels=(Label("dog", 0.6), Label("cat", 0.01)),
        alternatives=(Alternative("A photo of a brown dog.", -0.4),),
    )  # fmt: skip
    found = draft(occurrence(), INFORMATIVE, caption)
    assert found.alt == "A dog runs."
    assert found.words == tuple((w, Origin.PICTURE) for w in ("A", "dog", "runs."))
    assert found.confidence == pytest.approx(0.76)
    assert (found.model, found.labels) == ("sure", ("dog",))
    assert found.alternatives == ("A brown dog.",)
    assert not found.abstained
    assert not found.notes


def test_an_unsure_caption_is_only_an_alternative() -> None:
    found = word("A dog runs.", score=-0.95)
    assert (found.alt, found.abstained) == (None, True)
    assert found.alternatives == ("A dog runs.",)
    assert found.confidence == 0.24
    assert "24%" in found.notes[0]
    assert word("A dog runs.", score=-0.95, threshold=0.2).alt == "A dog runs."
    assert word("A dog runs.", score=-9, threshold=None).alt == "A dog runs."


def test_a_model_that_was_never_calibrated_is_marked_and_not_withheld() -> None:
    caption = said("A dog runs.", -9, "stranger")
    assert confidence(caption) is None
    found = draft(occurrence(), INFORMATIVE, caption)
    assert (found.alt, found.confidence, found.abstained) == ("A dog runs.", None, False)
    assert "stranger" in found.notes[0]


def test_a_captioner_of_photographs_suggests_nothing_for_a_drawing() -> None:
    drawing = Decision(Purpose.INFORMATIVE, "drawing", "even patches")
    found = draft(occurrence(), drawing, said("A dog runs."))
    assert (found.alt, found.abstained, found.confidence) == (None, True, None)
    assert found.alternatives == ("A dog runs.",)
    assert "no photograph" in found.notes[0]
    assert (
        draft(occurrence(), drawing, said("A login window.", -1, "stranger")).alt
        == "A login window."
    )


@pytest.mark.parametrize(
    ("kind", "purpose"),
    [("screenshot", Purpose.INFORMATIVE), ("icon", Purpose.INFORMATIVE),
     ("chart", Purpose.COMPLEX), ("diagram", Purpose.COMPLEX), ("map", Purpose.COMPLEX)],
)  # fmt: skip
def test_the_caption_of_what_is_no_photograph_is_only_an_alternative(
    kind: str, purpose: Purpose
) -> None:
    where = occurrence()
    caption = replace(said("a man in a window"), kind=ImageKind(kind, 0.93))
    found = draft(where, decide(where), caption)
    assert (found.alt, found.abstained, found.decision.purpose) == (None, True, purpose)
    assert found.alternatives == ("A man in a window.",)
    assert any(f"{kind} (93%)" in text for text in (*found.notes, found.decision.evidence))


def test_the_kind_photograph_changes_nothing() -> None:
    where = occurrence()
    plain = said("a man in a window")
    marked = replace(plain, kind=ImageKind(PHOTOGRAPH, 0.93))
    assert draft(where, decide(where), marked) == draft(where, decide(where), plain)


def test_confidence_rises_with_the_score_and_ends_with_the_curve() -> None:
    at = [confidence(said("A dog.", score)) for score in (-5, -1, -0.5, 0, 1)]
    assert at == pytest.approx([0.2, 0.2, 0.55, 0.9, 0.9])
    error = ImageFormatError("1.jpg", "not a picture")
    assert confidence(said("", -np.inf, error=error)) is None


def test_the_packaged_curves_rise_and_the_default_threshold_cuts_them() -> None:
    models = json.loads(files("cutline.site.decide").joinpath("confidence.json").read_text("utf-8"))
    for curve in models["models"].values():
        assert len(curve["scores"]) == len(curve["fits"]) > 5
        assert (np.diff(curve["scores"]) > 0).all()
        assert (np.diff(curve["fits"]) >= 0).all()
        assert 0 < curve["fits"][0] < WordingOptions().threshold < curve["fits"][-1] < 1  # type: ignore[operator]


def test_what_the_rule_suggests_needs_no_caption() -> None:
    where = occurrence(link="https://www.example.org/contact-us/")
    found = word("A dog runs.", where)
    assert found.alt == "Contact us"
    assert found.words == (("Contact", Origin.PAGE), ("us", Origin.PAGE))
    assert not found.notes
    short = draft(where, decide(where), None, WordingOptions(max_chars=8))
    assert (short.alt, short.notes) == ("Contact", ('shortened from "Contact us"',))
    assert (found.confidence, found.alternatives) == (None, ("A dog runs.",))
    assert draft(where, decide(where), None).alt == "Contact us"
    outside = occurrence(link="https://other.net/")
    assert draft(outside, decide(outside), None).alt == "other.net"
    spacer = occurrence(width_px=1, height_px=1)
    assert draft(spacer, decide(spacer), None).alt == ""


def test_what_a_person_wrote_gets_no_suggestion() -> None:
    for alt in ("Our dog", ""):
        found = word("A dog runs.", occurrence(alt=alt))
        assert (found.alt, found.words, found.alternatives) == (None, (), ())


def test_complex_text_and_nameless_images_ask_a_person() -> None:
    chart = word(
        "A dog runs.", occurrence(url="https://a.net/sales-chart.png", title="Sales in 2020")
    )
    assert chart.alt is None
    assert chart.alternatives == ("A dog runs.", "Sales in 2020")
    assert any("long description" in note for note in chart.notes)
    text = draft(occurrence(), Decision(Purpose.TEXT, "text", "lines"), said("A dog runs."))
    assert text.alt is None
    read = draft(occurrence(), Decision(Purpose.TEXT, "text", "lines", "Summer sale"), None)
    assert read.alt == "Summer sale"
    link = word("A dog runs.", occurrence(link="https://a.net/?id=1"))
    assert link.alt is None
    assert any("where it leads" in note for note in link.notes)


def test_a_failed_or_absent_caption_is_said() -> None:
    error = ImageFormatError("1.jpg", "not a picture")
    failed = draft(occurrence(), INFORMATIVE, said("", -np.inf, error=error))
    assert (failed.alt, failed.model) == (None, "")
    assert failed.notes == ("not captioned: 1.jpg: not a picture",)
    assert draft(occurrence(), INFORMATIVE, None).notes == ("not captioned",)


def test_words_that_stand_beside_the_picture_are_marked() -> None:
    where = occurrence(heading="Our Labrador and the beach")
    marked = dict(word("A labrador runs on the beach.", where, context_nats=1.0).words)
    assert marked == {
        "A": Origin.PICTURE, "labrador": Origin.PAGE, "runs": Origin.PICTURE,
        "on": Origin.PICTURE, "the": Origin.PICTURE, "beach.": Origin.PAGE,
    }  # fmt: skip
    unmarked = word("A labrador runs on the beach.", where, context_nats=0)
    assert {origin for _, origin in unmarked.words} == {Origin.PICTURE}


@pytest.mark.parametrize(
    ("caption", "ours"),
    [
        ("A sheep stands.", "An alpaca stands."),
        ("The sheep stands.", "The alpaca stands."),
        ("Two sheep near a fence.", "Two alpacas near a fence."),
        ("A herd of sheep.", "A herd of alpacas."),
        ("Sheep are grazing.", "Alpacas are grazing."),
        ("A sheepdog barks.", "A sheepdog barks."),
        ("A sheep's wool, a dog's bone.", "An alpaca's wool, an Airedale's bone."),
        ("Dogs and a (dog).", "Airedales and an (Airedale)."),
        ("A man and men.", "Alexander and men."),
        ("The man sits.", "The man sits."),
        ("A girl runs.", "The mayor's daughter runs."),
        ("A city bus stops.", "A unicycle stops."),
    ],
)
def test_the_glossary_speaks_the_sites_language(caption: str, ours: str) -> None:
    words = {
        "sheep": "alpaca",
        "Dog": "Airedale",
        "a man": "Alexander",
        "girl": "the mayor's daughter",
        "city bus": "unicycle",
    }
    found = word(caption, glossary=words)
    assert found.alt == ours
    assert " ".join(text for text, _ in found.words) == ours
    changed = [text for text, origin in found.words if origin is Origin.GLOSSARY]
    assert bool(changed) == (caption != ours)


def test_a_glossary_is_read_line_by_line() -> None:
    text = "# ours\nsheep = alpaca\n\n a  man=Alexander  # the owner\n"
    assert glossary.parse(text) == {"sheep": "alpaca", "a man": "Alexander"}
    for bad in ("sheep", "sheep =", "= alpaca"):
        with pytest.raises(OptionError, match="line 2"):
            glossary.parse(f"dog = hound\n{bad}")


def test_a_product_whose_name_page_and_file_agree_on_stands_before_the_caption() -> None:
    where = occurrence(
        heading="Roadster 300 Classic", url="https://a.net/roadster-300-classic-front.jpg"
    )
    found = word("A red bicycle leans on a wall.", where)
    assert found.alt == "Roadster 300 Classic: a red bicycle leans on a wall."
    assert found.words[:4] == (
        ("Roadster", Origin.PAGE), ("300", Origin.PAGE), ("Classic:", Origin.PAGE),
        ("a", Origin.PICTURE),
    )  # fmt: skip
    assert found.alternatives[0] == "A red bicycle leans on a wall."
    same = "A red bicycle leans on a wall."
    assert word(same, replace(where, url="https://a.net/1.jpg")).alt == same
    assert word(same, replace(where, heading="All about the roadster 300 classic")).alt == same
    assert word(same, where, max_chars=40).alt == same
    assert word("A man on a bicycle.", where).alt == "A man on a bicycle."


def test_a_persons_name_is_offered_and_never_put_in() -> None:
    for where in (
        occurrence(caption="Anna Schmidt, head of sales"),
        occurrence(after="Meet Anna Schmidt today", url="https://a.net/anna-schmidt.jpg"),
        occurrence(heading="Anna Schmidt"),
    ):
        found = word("A young woman in a red shirt smiles.", where)
        assert found.alt == "A young woman in a red shirt smiles."
        assert found.alternatives[0] == "Anna Schmidt in a red shirt smiles."
    assert "Anna" not in str(
        word("A young woman smiles.", occurrence(before="Buy now")).alternatives
    )


def test_what_the_text_beside_it_says_is_not_said_twice() -> None:
    where = occurrence(caption="Our brown dog running across a wide field of wheat")
    found = word("A brown dog runs across a field.", where)
    assert (found.decision.purpose, found.decision.rule) == (Purpose.REDUNDANT, "said-beside")
    assert (found.alt, found.words) == ("", ())
    assert found.alternatives[0] == "A brown dog runs across a field."
    assert word("A black dog runs across a field.", where).alt
    assert word("A dog runs.", occurrence(caption="The dog runs")).alt  # too little to be sure


LONG = (
    "A brown dog runs across a very green field with a ball in its mouth while another dog in the "
    "snow looks at a man with a red hat and more"
)


@pytest.mark.parametrize(
    ("max_chars", "short"),
    [
        (125, "A brown dog runs across a very green field with a ball in its mouth while another "
              "dog in the snow looks at a man."),
        (43, "A brown dog runs across a very green field."),
        (42, "A brown dog runs."),
        (12, "A brown dog."),
        (11, "A brown."),
        (3, None),
    ],
)  # fmt: skip
def test_a_long_caption_is_cut_where_a_phrase_ends(max_chars: int, short: str | None) -> None:
    assert word(LONG, max_chars=max_chars).alt == short


def test_sentence_or_fragment() -> None:
    assert word("a dog runs").alt == "A dog runs."
    assert word("A dog runs.", sentence=False).alt == "A dog runs"
    assert word("Who runs?").alt == "Who runs?"
    assert word("iPhones on a table.").alt == "iPhones on a table."


@pytest.mark.parametrize(
    "prefix",
    [
        "A photo of ", "An image of ", "a picture of a photo of ", "Photograph: ",
        "The image shows ", "This is a picture of ", "A close-up photo of ", "Picture showing ",
        "A photography of ",
    ],
)  # fmt: skip
def test_nothing_begins_with_what_screen_readers_say_already(prefix: str) -> None:
    assert word(f"{prefix}a dog.").alt == "A dog."
    assert word(f"{prefix}").alt is None


def test_a_page_in_another_language_gets_a_note() -> None:
    assert "translate" in word("A dog.", occurrence(language="de-AT")).notes[0]
    assert not word("A dog.", occurrence(language="en-GB")).notes
    assert not word("Ein Hund.", occurrence(language="de-AT"), language="de").notes
    linked = occurrence(language="de-AT", link="https://www.example.org/")
    assert "check" in draft(linked, decide(linked), None).notes[0]


def test_an_alt_of_spaces_gets_a_note() -> None:
    assert "spaces" in word("A dog.", occurrence(alt=" ")).notes[0]


def test_drafts_are_linted_too() -> None:
    where = occurrence(title="Cheap bikes, best bikes, new bikes, red bikes")
    assert "keywords" in str(draft(where, decide(where), None).notes)


def test_context_is_what_stands_near_and_bounded() -> None:
    where = occurrence(
        url="https://a.net/red-bicycle-DSC0012.jpg",
        caption="Figure 3: A rider's bicycle",
        heading="Touring",
        before=" ".join(f"before{n}" for n in range(50)),
        after="Read more",
        page_title="Shop | Home",
    )
    near = context(where, [occurrence(alt="Bianchi racer"), occurrence()]).split()
    assert near[:4] == ["Bianchi", "racer", "3", "rider's"]
    assert {"red", "Touring", "before38", "before49"} <= set(near)
    assert not {"before37", "Read", "more", "Figure", "A", "Home"} & set(near)
    assert near.count("bicycle") == 1
    assert len(context(occurrence(caption=" ".join(map(str, range(99))))).split()) == 40


@pytest.mark.parametrize(
    "options",
    [
        {"max_chars": 0},
        {"threshold": 1.1},
        {"threshold": -0.1},
        {"context_nats": float("inf")},
        {"context_nats": -1},
        {"glossary": {"": "x"}},
        {"glossary": {"x": " "}},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"got .*; expected "):
        WordingOptions(**options)


texts = st.text(max_size=30) | st.lists(
    st.sampled_from(
        "a an the photo of image picture: showing man dog's in with sheep Anna Schmidt, red. ! ... "
        "This is Bicycle 300 \t".split(" ")
    ),
    max_size=30,
).map(" ".join)
occurrences = st.builds(
    occurrence,
    kind=st.sampled_from(Kind),
    url=texts | st.sampled_from(["https://a.net/red-bicycle-300.jpg", "https://a.net/logo.png"]),
    alt=st.none() | st.just(" "),
    title=texts,
    link=st.sampled_from(["", "https://a.net/photo-of-us", "mailto:image of", "https://a.net/"]),
    caption=texts,
    heading=texts,
    before=texts,
    after=texts,
    page_title=texts,
    language=st.sampled_from(["", "en", "de"]),
)


@given(
    occurrences,
    texts,
    st.lists(texts, max_size=3),
    st.integers(1, 140),
    st.booleans(),
    st.dictionaries(
        st.sampled_from(["sheep", "a man", "dog", "red"]),
        st.text(string.ascii_letters + " '", min_size=1).filter(str.strip),
    ),
)
def test_no_suggestion_is_too_long_or_begins_image_of(
    where: ImageOccurrence,
    text: str,
    others: list[str],
    max_chars: int,
    sentence: bool,
    words: dict[str, str],
) -> None:
    caption = said(text, alternatives=tuple(Alternative(other, -1.0) for other in others))
    options = WordingOptions(max_chars=max_chars, sentence=sentence, glossary=words)
    found = draft(where, decide(where), caption, options)
    for each in (found.alt or "", *found.alternatives):
        assert len(each) <= max_chars
        assert not redundant_prefix(each)
        assert each == " ".join(each.split())
    assert " ".join(text for text, _ in found.words) == (found.alt or "")


def test_a_page_s_title_names_no_picture_and_a_full_stop_makes_no_other_alternative() -> None:
    assert draft(occurrence(page_title="Wren Hotel"), INFORMATIVE, None).alternatives == ()
    found = draft(occurrence(title="Lena dancing", caption="Lena dancing."), INFORMATIVE, None)
    assert found.alternatives == ("Lena dancing",)
