from __future__ import annotations

import hashlib
import random
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from cutline.errors import DataError, OptionError
from cutline.text import (
    CLEAN_UPS,
    CleanUp,
    Vocabulary,
    choose_clean_up,
    detokenise,
    normalise,
    whole_words,
)

SPECIALS = ["<pad>", "<bos>", "<eos>", "<unk>"]
PIECES = [
    *[
        "a",
        "dog",
        "Dogs",
        "T-shirt",
        "close-up",
        "3.5",
        "2",
        "man's",
        "isn't",
        "can\u2019t",
        "it\u2019s",
    ],
    *["we'll", "they've", "I'm", "he'd", "'s", "'", "\u2019", "-", ".", ",", "!", '"'],
    *["U.S.", "café", "naïve", "İ", "ß", "犬", "🐕", "½", "…", "_", "x_y", "<eos>", "<pad>", "\t"],
    *["\n", "\u0301", "\x00", "--", "...", "rock'n'roll", "o'clock", "dogs'", "ﬁ"],
]


@pytest.fixture
def nonsense() -> list[str]:
    """Pieces of captions glued together at random, the same every time."""
    rng = random.Random(0)
    glue = ["", " ", "  "]
    return [
        "".join(rng.choice(PIECES) + rng.choice(glue) for _ in range(rng.randrange(12)))
        for _ in range(3000)
    ]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A child in a pink dress .", "a child in a pink dress"),
        ("The man's dog, running!", "the man 's dog running"),
        ("It\u2019s a T-shirt; he isn't cold.", "it 's a t-shirt he is n 't cold"),
        ('Two dogs play "fetch" with 2.5 balls', "two dogs play fetch with 2.5 balls"),
        ("the dogs' rock'n'roll at 5 o'clock", "the dogs rock n roll at 5 o clock"),
        ("A café, a naïve Ångström", "a cafe a naive angstrom"),
        ("x- -y --z-- a--b a...b", "x y z a b a b"),
        ("<eos> <pad>", "eos pad"),
        ("犬 🐕 !?", ""),
        ("", ""),
    ],
)
def test_normalise(caption: str, words: str) -> None:
    assert normalise(caption) == words.split()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("a man 's dog", "A man's dog."),
        ("he is n 't here and ca n 't come", "He isn't here and can't come."),
        ("rock n roll", "Rock n roll."),
        ("we 'll see what they 've got", "We'll see what they've got."),
        ("'s", "'s."),
        ("3 dogs", "3 dogs."),
        ("", ""),
    ],
)
def test_detokenise(words: str, sentence: str) -> None:
    assert detokenise(words.split()) == sentence


def test_any_caption_becomes_plain_words(nonsense: list[str]) -> None:
    letters = set("abcdefghijklmnopqrstuvwxyz0123456789-.'")
    for caption in nonsense:
        for word in normalise(caption):
            assert word
            assert set(word) <= letters
            assert word not in SPECIALS
            assert word[-1] not in "-.'"


def test_normalise_undoes_detokenise(nonsense: list[str]) -> None:
    for caption in nonsense:
        words = normalise(caption)
        assert normalise(detokenise(words)) == words, caption


def test_case_accents_and_spaces_do_not_matter(nonsense: list[str]) -> None:
    for caption in nonsense:
        words = normalise(caption)
        assert normalise(caption.lower()) == words
        assert normalise(f"  {caption}\n") == words
    assert normalise("20 \u2103") == ["20", "c"]
    assert normalise("cafe\u0301") == normalise("café") == normalise("CAFÉ")


def test_a_vocabulary_is_built_by_count_then_alphabet() -> None:
    captions = [["b", "a", "c"], ["a", "b", "d"], ["b", "e", "a", "e"]]
    vocabulary = Vocabulary.build(captions, min_count=2)
    assert vocabulary.words == (*SPECIALS, "a", "b", "e")
    assert len(vocabulary) == 7
    assert Vocabulary.build(reversed(captions), min_count=2).words == vocabulary.words
    assert len(Vocabulary.build([])) == 4


def test_a_vocabulary_may_have_a_largest_size() -> None:
    captions = [["b", "a", "c"], ["a", "b", "d"], ["b", "e", "a", "e"]]
    assert Vocabulary.build(captions, min_count=1, top_k=6).words == (*SPECIALS, "a", "b")
    assert len(Vocabulary.build(captions, min_count=1, top_k=5000)) == 9
    with pytest.raises(OptionError, match="got top_k=4; expected more than 4"):
        Vocabulary.build(captions, top_k=4)


def as_the_notebook(caption: str) -> list[str]:
    """Its own steps, then those of Keras' Tokenizer with its default filters, spelt out."""
    text = " ".join(word for word in caption.lower().split() if len(word) > 1)
    text = f"startseq {text} endseq"
    for character in '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n':
        text = text.replace(character, " ")
    return text.split()


def as_the_tutorial(caption: str) -> list[str]:
    """Keras' Tokenizer: lower case, filters become the separator, split at it."""
    text = caption.lower()
    for character in '!"#$%&()*+.,-/:;=?@[\\]^_`{|}~ ':
        text = text.replace(character, " ")
    return ["<start>", *(word for word in text.split(" ") if word), "<end>"]


def test_the_tutorials_clean_ups_are_reproduced(nonsense: list[str]) -> None:
    captions = [*nonsense, "A child's 2 T-shirts , in-line ( red ) !", "two\tdogs\nrun"]
    for caption in captions:
        assert CleanUp.named("notebook").marked(caption) == as_the_notebook(caption)
        assert CleanUp.named("tensorflow-tutorial").marked(caption) == as_the_tutorial(caption)
        assert CleanUp.named("cutline").words(caption) == normalise(caption)
    meant = CleanUp.named("notebook-as-meant").marked("A girl's 2 T-shirts , in 1 box .")
    assert meant == "startseq girls tshirts in box endseq".split()
    with pytest.raises(OptionError, match=r"got clean-up 'keras'; expected one of cutline, "):
        CleanUp.named("keras")


BARE = CleanUp(fold_accents=False, lower=False, squeeze_spaces=False, latin_words=False)


@pytest.mark.parametrize(
    ("switch", "words"),
    [
        ({}, ["A", "b-c\td", "Caf\u00e9", "d'or", "x2", "'s"]),
        ({"lower": True}, ["a", "b-c\td", "caf\u00e9", "d'or", "x2", "'s"]),
        ({"fold_accents": True}, ["A", "b-c\td", "Cafe", "d'or", "x2", "'s"]),
        ({"strip_specials": True}, ["A", "bc\td", "Caf\u00e9", "dor", "x2", "s"]),
        ({"strip_digits": True}, ["A", "b-c\td", "Caf\u00e9", "d'or", "x", "'s"]),
        ({"squeeze_spaces": True}, ["A", "b-c", "d", "Caf\u00e9", "d'or", "x2", "'s"]),
        ({"drop_single": True}, ["b-c\td", "Caf\u00e9", "d'or", "x2", "'s"]),
        ({"filters": "-'"}, ["A", "b", "c\td", "Caf\u00e9", "d", "or", "x2", "s"]),
        ({"latin_words": True}, ["A", "b-c", "d", "Caf", "d", "or", "x2", "'s"]),
    ],
)
def test_every_switch_does_one_thing(switch: dict[str, object], words: list[str]) -> None:
    assert replace(BARE, **switch).words("A b-c\td  Caf\u00e9 d'or x2 's") == words


def test_presets_differ_and_marks_are_optional() -> None:
    assert len(set(CLEAN_UPS.values())) == len(CLEAN_UPS)
    assert CleanUp(start="<s>").marked("Two dogs.") == ["<s>", "two", "dogs"]
    assert CleanUp().marked("Two dogs.") == ["two", "dogs"]


def test_pieces_become_words_and_sentences() -> None:
    pieces = "a skate ##board ##er is n ' ##t here".split()
    assert whole_words(pieces) == "a skateboarder is n 't here".split()
    assert detokenise(pieces) == "A skateboarder isn't here."
    assert whole_words([]) == []


def test_encode_and_decode_are_each_others_inverse(nonsense: list[str]) -> None:
    captions = [normalise(caption) for caption in nonsense]
    vocabulary = Vocabulary.build(captions, min_count=1)
    for words in captions:
        tokens = vocabulary.encode(words)
        assert all(token > vocabulary.unk for token in tokens)
        assert vocabulary.decode(tokens) == words


def test_decode_stops_at_eos_and_passes_over_pad_and_bos() -> None:
    vocabulary = Vocabulary([*SPECIALS, "a", "dog"])
    assert (vocabulary.pad, vocabulary.bos, vocabulary.eos, vocabulary.unk) == (0, 1, 2, 3)
    assert vocabulary.decode([1, 4, 0, 5, 2, 4, 5]) == ["a", "dog"]
    assert vocabulary.encode(["a", "cat"]) == [4, 3]
    assert vocabulary.decode([4, 3]) == ["a", "<unk>"]
    assert vocabulary.decode([]) == []


def test_a_vocabulary_survives_its_file(tmp_path: Path) -> None:
    vocabulary = Vocabulary([*SPECIALS, "a", "t-shirt", "'s", "2.5"])
    path = tmp_path / "vocabulary.txt"
    vocabulary.write(path)
    assert path.read_bytes() == b"<pad>\n<bos>\n<eos>\n<unk>\na\nt-shirt\n's\n2.5\n"
    for ending in ("\n", ""):
        path.write_text("\n".join(vocabulary.words) + ending, encoding="utf-8")
        assert Vocabulary.read(path).words == vocabulary.words
    path.write_bytes("\r\n".join(vocabulary.words).encode())
    assert Vocabulary.read(path).checksum == vocabulary.checksum


def test_the_checksum_sees_words_and_their_order() -> None:
    words = [*SPECIALS, "a", "dog"]
    expected = hashlib.sha256(b"<pad>\n<bos>\n<eos>\n<unk>\na\ndog").hexdigest()
    assert Vocabulary(words).checksum == expected
    assert Vocabulary([*SPECIALS, "dog", "a"]).checksum != expected
    assert Vocabulary(words[:-1]).checksum != expected


@pytest.mark.parametrize(
    "words", [[], ["a"], SPECIALS[:3], ["<bos>", "<pad>", "<eos>", "<unk>"], [*SPECIALS, "a", "a"]]
)
def test_a_vocabulary_without_its_specials_or_with_twins_is_refused(words: list[str]) -> None:
    with pytest.raises(DataError, match="got a vocabulary starting"):
        Vocabulary(words)


LANGUAGES = {
    "German": ("Ein weißer Hund läuft über die Straße.", "weißer straße"),
    "Danish": ("En hund løber på en æblemark", "løber æblemark"),
    "Polish": ("Pies biegnie przez łąkę.", "łąkę"),
    "Vietnamese": ("Một con chó đang chạy trên cỏ.", "đang cỏ"),
    "Turkish": ("KIRMIZI bir ışık İstanbul'da", "kırmızı ışık istanbul'da"),
    "Icelandic": ("Maður með þung bók", "maður þung"),
    "Russian": ("Собака бежит по траве.", "собака траве"),
    "Greek": ("Ένας σκύλος τρέχει", "ένας σκύλος"),
    "Arabic": ("كلب يجري على العشب", "كلب العشب"),
    "Hebrew": ("כלב רץ על הדשא", "כלב הדשא"),
    "Persian": ("سگ می‌دود", "می‌دود"),
    "Hindi": ("कुत्ता घास पर दौड़ रहा है।", "कुत्ता दौड़"),
    "Korean": ("강아지가 잔디 위를 달린다", "강아지가"),
    "Chinese": ("一只狗在草地上奔跑。", "一 狗 跑"),
    "Japanese": ("犬が公園を走る", "犬 公"),
    "Thai": ("สุนัขวิ่ง", "สุ นั วิ่"),
}


@pytest.mark.parametrize(("caption", "words"), LANGUAGES.values(), ids=LANGUAGES)
def test_words_of_every_script_keep_their_letters(caption: str, words: str) -> None:
    chosen = CleanUp.named(choose_clean_up([caption]))
    assert set(words.split()) <= set(chosen.words(caption))
    text = unicodedata.normalize("NFC", caption.lower().replace("i\u0307", "i"))
    letters = {c for c in text if unicodedata.category(c)[0] in "LM"}
    lost = letters - set("".join(chosen.words(caption)))
    assert not lost


@pytest.mark.parametrize(
    "caption",
    [
        "一只狗在草地上奔跑。",
        "犬が走る。",
        "कुत्ता दौड़ रहा है।",
        "Собака бежит.",
        "สุนัขวิ่ง",
        "நாய் ஓடுகிறது.",
    ],
)
def test_sentences_are_joined_as_their_script_is_written(caption: str) -> None:
    assert detokenise(CLEAN_UPS["unicode"].words(caption)) == caption


def test_english_keeps_its_clean_up() -> None:
    assert choose_clean_up(["A dog runs.", "Two men"]) == "cutline"
    assert choose_clean_up(["The man with a beret sits near the café."] * 3) == "cutline"
    assert choose_clean_up([]) == "cutline"
    assert detokenise(["a", "man", "'s", "dog"]) == "A man's dog."
