from pathlib import Path

import pytest

from cutline.errors import DataError
from cutline.text import SPECIALS, Vocabulary, detokenise
from cutline.training.bpe import Subwords

CAPTIONS = [
    line.split()
    for line in (
        "a skateboarder rides a skateboard",
        "two skateboarders ride their boards",
        "a rider boards a surfboard",
        "the surfer is n 't riding",
    )
    * 5
]


def test_words_survive_their_pieces_even_if_they_were_never_seen() -> None:
    pieces = Subwords.build(CAPTIONS, top_k=60)
    assert pieces.words[:4] == SPECIALS
    assert len(pieces) <= 60
    for words in (*CAPTIONS, ["surfboarder", "rides"], []):
        tokens = pieces.encode(words)
        assert pieces.unk not in tokens
        assert pieces.decode([pieces.bos, *tokens, pieces.eos, 9]) == words
    assert len(pieces.encode(["skateboard"])) < len("skateboard")
    assert pieces.unk in pieces.encode(["zoo"])


def test_the_core_reads_pieces_without_their_merges(tmp_path: Path) -> None:
    pieces = Subwords.build(CAPTIONS, top_k=60)
    pieces.write(tmp_path / "vocabulary.txt")
    core = Vocabulary.read(tmp_path / "vocabulary.txt")
    assert core.checksum == pieces.checksum
    said = core.decode(pieces.encode("the skateboarder is n 't riding".split()))
    assert len(said) > 6
    assert detokenise(said) == "The skateboarder isn't riding."


def test_a_built_set_of_pieces_is_the_same_every_time_and_on_disk(tmp_path: Path) -> None:
    built = [Subwords.build(CAPTIONS, top_k=70) for _ in range(4)]
    assert len({each.checksum for each in built}) == 1
    path = tmp_path / "vocabulary.txt"
    built[0].write(path)
    again = Subwords.read(path)
    assert again.words == built[0].words
    assert [again.encode(words) for words in CAPTIONS] == [built[1].encode(w) for w in CAPTIONS]


def test_pieces_and_merges_belong_together(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    Subwords.build(CAPTIONS, top_k=60).write(path)
    Vocabulary([*SPECIALS, "else"]).write(path)
    with pytest.raises(DataError, match="of other pieces than"):
        Subwords.read(path)
    Subwords.merges(path).unlink()
    with pytest.raises(DataError, match=r"got no merges in .*vocabulary\.merges\.json"):
        Subwords.read(path)
