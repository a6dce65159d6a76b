from __future__ import annotations

import unicodedata

import pytest

from cutline.terminal import printable

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_controls_and_invisible_characters_are_escaped() -> None:
    assert printable("a\x1b]0;x\x07\u2028\x85b") == "a\\x1b]0;x\\x07\\u2028\\x85b"
    assert printable("photo\u202egnp.exe") == "photo\\u202egnp.exe"
    assert printable("\ufeff") == "\\ufeff"


@pytest.mark.parametrize("character", [*BIDI, *map(chr, range(32)), *map(chr, range(127, 160))])
def test_no_control_or_bidi_character_is_left(character: str) -> None:
    shown = printable(f"a{character}b")
    assert character not in shown
    assert all(unicodedata.category(each) not in ("Cc", "Cf") for each in shown)


def test_text_of_every_script_stays() -> None:
    text = "Füße 猫 مرحبا שלום नमस्ते 👩‍🚀 ก็"
    assert printable(text) == text
