from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from conftest import HostileFolder
from PIL import Image

from cutline import bundle as bundles
from cutline import runtime as runtimes
from cutline.bundle import Bundle, write_bundle
from cutline.caption import (
    Attention,
    Caption,
    Captioner,
    CaptionOptions,
    InContext,
    Label,
)
from cutline.captioner import BundleCaptioner, load
from cutline.discover import find_images
from cutline.errors import (
    BundleError,
    BundleNotFoundError,
    EngineError,
    ImageCorruptError,
    ImageError,
    ImageFormatError,
    ImageNotFoundError,
    MissingExtraError,
    OptionError,
)
from cutline.image import load_image
from cutline.image_kind import PHOTOGRAPH, KindClassifier
from cutline.options import SearchOptions
from cutline.runtime import Encoded, Runtime
from cutline.search import search
from cutline.text import detokenise


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny.build(tmp_path_factory.mktemp("bundles"))


def captioner(bundle: Bundle, threads: int = 2, engine: str = "onnxruntime") -> BundleCaptioner:
    return BundleCaptioner(Runtime(bundle, engine, threads))


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> BundleCaptioner:
    return captioner(bundle)


def working() -> list[str]:
    """The threads of captioners' pools; others, such as the HTTP client's, live on."""
    return [each.name for each in threading.enumerate() if each.name.startswith("cutline_")]


def test_captions_are_those_of_the_reference(model: Captioner) -> None:
    pictures = tiny.pictures(20)
    reference: Any = tiny.Reference()
    pixels = np.stack([tiny.TRANSFORM(load_image(picture)) for picture in pictures])
    found = search(
        reference,
        reference.start(reference.encode(pixels)[0]),
        len(pictures),
        SearchOptions(**tiny.SEARCH),
        bos=1,
        eos=2,
        banned=(0, 1, 3),
    )
    captions = model.caption(pictures)
    words = tiny.VOCABULARY.decode
    assert [c.text for c in captions] == [detokenise(words(h[0].tokens)) for h in found]
    assert [c.score for c in captions] == pytest.approx([h[0].score for h in found], abs=1e-4)
    assert len({c.text for c in captions}) > 5


def test_one_picture_gives_one_caption_with_all_its_parts(model: Captioner) -> None:
    [picture] = tiny.pictures(1)
    caption = model.caption(picture)
    assert caption.ok
    assert caption.source == "<array 48x48x3>"
    assert caption.model == tiny.NAME
    assert caption.text.endswith(".")
    assert caption.score < 0
    assert caption.alternatives == ()
    assert caption.embedding is not None
    assert caption.embedding.shape == (1280,)

    attention = caption.attention
    assert attention is not None
    assert attention.grid == (3, 3)
    assert detokenise(attention.words) == caption.text
    assert attention.weights.shape == (len(attention.words), 9)
    np.testing.assert_allclose(attention.weights.sum(axis=1), 1, atol=1e-5)

    reference = tiny.Reference()
    logits = reference.logits(reference.encode(tiny.TRANSFORM(load_image(picture))[None])[2])[0]
    order = np.argsort(-logits)[:5]
    assert [label.name for label in caption.labels] == [f"thing {i}" for i in order]
    probabilities = np.exp(logits)[order] / np.exp(logits).sum()
    assert [label.probability for label in caption.labels] == pytest.approx(probabilities, abs=1e-5)


def test_every_kind_of_source_gives_the_same_caption(model: Captioner, tmp_path: Path) -> None:
    [picture] = tiny.pictures(1)
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    sources = [picture, Image.fromarray(picture), path, str(path), path.read_bytes()]
    expected = model.caption(picture)
    for source in sources:
        alone = model.caption(source)
        assert isinstance(alone, Caption)
        assert (alone.text, alone.score) == (expected.text, expected.score)
    together = model.caption(sources)
    assert [c.text for c in together] == [expected.text] * 5
    assert [c.source for c in together[2:4]] == [str(path)] * 2


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    "search",
    [None, SearchOptions(beam_size=1), SearchOptions(temperature=1.0, n_best=2, seed=3)],
)
def test_batches_and_threads_change_no_caption(
    bundle: Bundle, engine: str, search: SearchOptions | None
) -> None:
    sources: list[Any] = tiny.pictures(23)
    for place in (3, 4, 11, 22):
        sources[place] = b"no picture"

    def said(threads: int, batch_size: int) -> list[Caption]:
        options = CaptionOptions(search, batch_size=batch_size)
        return captioner(bundle, threads, engine).caption(sources, options)

    expected = said(1, 1)
    assert [i for i, caption in enumerate(expected) if not caption.ok] == [3, 4, 11, 22]
    for threads, batch_size in ((1, 16), (2, 3), (3, 7), (4, 100)):
        got = said(threads, batch_size)
        assert [c.text for c in got] == [c.text for c in expected]
        assert [c.labels for c in got] == [c.labels for c in expected]
        assert [[a.text for a in c.alternatives] for c in got] == [
            [a.text for a in c.alternatives] for c in expected
        ]
        for one, other in zip(got, expected, strict=True):
            assert one.ok == other.ok
            assert one.score == other.score  # to the last bit


def test_draws_depend_on_the_picture_and_the_seed_alone(model: Captioner) -> None:
    def drawn(pictures: list[Any], seed: int = 3) -> list[str]:
        options = CaptionOptions(SearchOptions(temperature=1.5, seed=seed))
        return [caption.text for caption in model.caption(pictures, options)]

    pictures = tiny.pictures(9)
    whole = drawn(pictures)
    assert drawn(pictures[4:]) == whole[4:]
    assert drawn([b"no picture", *reversed(pictures)])[1:] == whole[::-1]
    assert drawn(pictures, seed=4) != whole


def test_a_grid_other_than_the_encoders_is_refused(bundle: Bundle) -> None:
    wrong = replace(bundle, manifest=replace(bundle.manifest, grid=(2, 2)))
    with pytest.raises(BundleError, match="got 9 regions; expected the manifest's grid of 2 x 2"):
        captioner(wrong).caption(tiny.pictures(1)[0])


def test_a_bad_picture_in_many_is_an_item_and_alone_an_error(
    model: Captioner, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.jpg"
    good, *others = model.caption([tiny.pictures(1)[0], missing, b"", b"text"])
    assert good.ok
    for caption, kind in zip(
        others, (ImageNotFoundError, ImageCorruptError, ImageFormatError), strict=True
    ):
        assert not caption.ok
        assert type(caption.error) is kind
        assert (caption.text, caption.score) == ("", -math.inf)
        assert (caption.labels, caption.attention) == ((), None)
    assert others[0].source == str(missing)
    with pytest.raises(FileNotFoundError, match=r"missing\.jpg"):
        model.caption(missing)


def test_a_thing_that_is_no_source_is_an_image_error(model: Captioner) -> None:
    odd: Any = 7
    with pytest.raises(ImageFormatError, match="got int; expected a path"):
        model.caption(odd)


def test_a_hostile_folder_has_an_item_each(model: Captioner, hostile_folder: HostileFolder) -> None:
    captions = {
        Path(c.source).name: c for c in model.stream(find_images([hostile_folder.path], True))
    }
    for name in hostile_folder.readable:
        assert captions[name].ok
    for name, kind in hostile_folder.refused.items():
        if name in captions:
            assert type(captions[name].error) is kind
    assert sum(not caption.ok for caption in captions.values()) >= 6


def test_nothing_gives_nothing(model: Captioner) -> None:
    assert model.caption([]) == []
    assert list(model.stream(iter(()))) == []


def test_options_choose_search_and_labels(
    model: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    [picture] = tiny.pictures(1)
    search = SearchOptions(beam_size=5, n_best=4, max_tokens=3)
    caption = model.caption(picture, CaptionOptions(search, labels=2))
    assert len(caption.alternatives) == 3
    assert len(caption.labels) == 2
    assert len({caption.text, *(other.text for other in caption.alternatives)}) == 4
    assert len(model.caption(picture, CaptionOptions(labels=5000)).labels) == 1000

    def never(self: Runtime, mid: Any) -> Any:
        raise AssertionError("labels were not asked for")

    monkeypatch.setattr(Runtime, "logits", never)
    assert model.caption(picture, CaptionOptions(labels=0)).labels == ()


@pytest.mark.parametrize("wrong", [{"labels": -1}, {"batch_size": 0}, {"context_nats": -1.0}])
def test_options_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=f"got {next(iter(wrong))} {next(iter(wrong.values()))};"):
        CaptionOptions(**wrong)


def test_search_that_allows_no_caption_says_so(model: Captioner) -> None:
    long = SearchOptions(min_tokens=30, max_tokens=30, no_repeat_ngram=1)
    with pytest.raises(OptionError, match="no caption can satisfy"):
        model.caption(tiny.pictures(1)[0], CaptionOptions(long))


def test_the_word_bias_is_in_use(model: Captioner, tmp_path: Path) -> None:
    biased = captioner(tiny.build(tmp_path, word_bias=3.0))
    pictures = tiny.pictures(8)
    plain, rare = model.caption(pictures), biased.caption(pictures)
    assert [c.text for c in plain] != [c.text for c in rare]
    assert np.mean([c.score for c in rare]) < np.mean([c.score for c in plain])


def test_words_near_a_picture_are_favoured_in_its_caption_alone(model: Captioner) -> None:
    first, second = tiny.pictures(2)
    options = CaptionOptions(context_nats=20.0)
    plain = model.caption([first, second])
    near = model.caption([InContext(first, "The Grass, and unheard-of words"), second], options)
    assert "grass" not in plain[0].text.lower()
    assert "grass" in near[0].text.lower()
    assert near[0].source == plain[0].source
    assert near[0].score < plain[0].score  # the score is the model's own, without the favour
    assert near[1] == plain[1]
    indifferent = CaptionOptions(context_nats=0)
    assert model.caption(InContext(first, "grass"), indifferent) == plain[0]
    function_words = InContext(first, "the on near 's unheard-of")
    assert model.caption(InContext(first, "the on 's unheard-of"), options) == plain[0]
    assert model.caption(function_words, options) != plain[0]  # "near" is a word of its own


def test_a_stream_reads_a_few_batches_ahead_and_no_more(model: BundleCaptioner) -> None:
    [picture] = tiny.pictures(1)
    asked = 0

    def endless() -> Iterator[Any]:
        nonlocal asked
        while True:
            asked += 1
            yield picture

    stream = model.stream(endless(), CaptionOptions(batch_size=4))
    for given in range(1, 60):
        assert next(stream).ok
        assert asked <= given + 2 * model.runtime.threads * 4
    stream.close()
    assert not working()


def test_a_short_run_occupies_every_thread(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pictures can only pass together, each in its own thread."""
    gate = threading.Barrier(3, timeout=20)
    encode = Runtime.encode

    def together(self: Runtime, pixels: Any) -> Encoded:
        gate.wait()
        return encode(self, pixels)

    monkeypatch.setattr(Runtime, "encode", together)
    captions = captioner(bundle, threads=3).caption(tiny.pictures(3))
    assert all(caption.ok for caption in captions)


def test_closing_a_stream_drops_what_nobody_waits_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, seen = Runtime.encode, 0

    def count(self: Runtime, pixels: Any) -> Encoded:
        nonlocal seen
        seen += 1
        return encode(self, pixels)

    monkeypatch.setattr(Runtime, "encode", count)
    stream = captioner(bundle, threads=1).stream(tiny.pictures(2) * 500)
    next(stream)
    stream.close()
    assert not working()
    ended = seen
    assert ended < 40
    assert list(stream) == []
    assert seen == ended


def test_a_failing_engine_ends_the_run_and_its_threads(
    model: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Runtime, features: Any) -> Any:
        raise EngineError("out of order")

    monkeypatch.setattr(Runtime, "start", fail)
    with pytest.raises(EngineError, match="out of order"):
        model.caption(tiny.pictures(9))
    assert not working()


def test_many_threads_may_share_a_captioner(model: Captioner) -> None:
    pictures = tiny.pictures(6)
    expected = [c.text for c in model.caption(pictures)]
    with ThreadPoolExecutor(6) as pool:
        alone = pool.map(lambda i: model.caption(pictures[i % 6]).text, range(60))
        together = pool.map(lambda _: [c.text for c in model.caption(pictures)], range(10))
        assert list(alone) == expected * 10
        assert list(together) == [expected] * 10


def test_a_caption_tells_the_kind_of_image(tmp_path: Path) -> None:
    always_chart = KindClassifier(
        (PHOTOGRAPH, "chart"), np.zeros((1280, 2), np.float32), np.array([0, 5], np.float32)
    )
    always_chart.write(tmp_path / "kinds.npz")
    files = {**tiny.files(), "kinds.npz": tmp_path / "kinds.npz"}
    bundle = write_bundle(tmp_path / tiny.NAME, files, tiny.manifest())
    caption = load(bundle.folder).caption(tiny.pictures(1)[0])
    assert caption.kind is not None
    assert caption.kind.name == "chart"
    assert caption.to_dict()["kind"] == {"name": "chart", "probability": 0.9933}


def test_a_caption_becomes_json(model: Captioner, tmp_path: Path) -> None:
    options = CaptionOptions(SearchOptions(beam_size=3, n_best=2), labels=1)
    good, bad = model.caption([tiny.pictures(1)[0], tmp_path / "gone.jpg"], options)
    row = json.loads(json.dumps(good.to_dict()))
    assert row == {
        "source": "<array 48x48x3>",
        "status": "ok",
        "caption": good.text,
        "score": round(good.score, 4),
        "alternatives": [
            {
                "caption": good.alternatives[0].text,
                "score": round(good.alternatives[0].score, 4),
            }
        ],
        "labels": [
            {"name": good.labels[0].name, "probability": round(good.labels[0].probability, 4)}
        ],
        "kind": None,
        "model": tiny.NAME,
        "error": None,
    }
    assert json.loads(json.dumps(bad.to_dict(), allow_nan=False)) == {
        "source": str(tmp_path / "gone.jpg"),
        "status": "error",
        "caption": None,
        "score": None,
        "alternatives": [],
        "labels": [],
        "kind": None,
        "model": tiny.NAME,
        "error": {"type": "ImageNotFoundError", "message": "no such file"},
    }


def test_load_opens_by_name_path_or_default(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "_EMBEDDED", bundle.folder.parent)
    monkeypatch.setattr(bundles, "DEFAULT", tiny.NAME)
    for model in (None, tiny.NAME, bundle.folder, str(bundle.folder)):
        loaded = load(model, engine="onnxruntime", threads=1)
        assert (loaded.name, loaded.runtime.threads) == (tiny.NAME, 1)
        assert loaded.search == SearchOptions(**tiny.SEARCH)
    with pytest.raises(BundleNotFoundError, match=r"got model 'large'; .*tiny-v1"):
        load("large")


def test_load_says_which_extra_an_engine_needs(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"cutline\[openvino\]") as caught:
        load(bundle.folder, engine="openvino")
    assert caught.value.extra == "openvino"


@pytest.mark.parametrize("search", [{"beams": 3}, {"beam_size": 0}])
def test_search_defaults_that_do_not_fit_are_refused(
    tmp_path: Path, search: dict[str, Any]
) -> None:
    with pytest.raises(BundleError, match="search defaults: "):
        load(tiny.build(tmp_path, search=search).folder, engine="onnxruntime")


def test_captions_with_arrays_can_be_compared(model: Captioner) -> None:
    pictures = tiny.pictures(4)
    first, again = model.caption(pictures), model.caption(pictures)
    assert first == again
    assert all(one != other for one, other in pairwise(first))
    assert ImageError.__name__ not in repr(first[0])


def test_attention_is_by_word_not_by_piece() -> None:
    weights = np.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0], [0.2, 0.8]], np.float32)
    attention = Attention.of_pieces(weights, (1, 2), ["a", "skate", "##boarder", "jumps"])
    assert attention.words == ("a", "skateboarder", "jumps")
    assert attention.weights.tolist() == [[0.5, 0.5], [0.5, 0.5], weights[3].tolist()]
    whole = Attention.of_pieces(weights[:1], (1, 2), ["a"])
    assert (whole.words, whole.weights.tolist()) == (("a",), [[0.5, 0.5]])


def test_numbers_that_json_lacks_are_null() -> None:
    row = Caption("a", "A.", math.nan, labels=(Label("dog", math.nan),)).to_dict()
    assert (row["score"], row["labels"][0]["probability"]) == (None, None)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
