from __future__ import annotations

from pathlib import Path

import pytest

from cutline.data import Collection, Example, digest, split_by_image
from cutline.errors import DataError, OptionError

EXAMPLES = tuple(Example(Path(f"{n}.jpg"), (f"picture {n}",)) for n in range(400))
COLLECTION = Collection("numbers", "none", {"all": EXAMPLES})


def homes(collection: Collection) -> dict[str, str]:
    return {each.name: split for split, some in collection.splits.items() for each in some}


def test_a_seeded_split_has_every_image_once_and_about_the_right_sizes() -> None:
    split = split_by_image(COLLECTION, {"train": 0.7, "dev": 0.3})
    assert sorted(homes(split)) == sorted(each.name for each in EXAMPLES)
    assert sum(map(len, split.splits.values())) == 400
    assert 90 <= len(split.splits["dev"]) <= 150


def test_neither_order_nor_company_moves_an_image_to_another_split() -> None:
    whole = homes(split_by_image(COLLECTION))
    fewer = Collection("numbers", "none", {"a": EXAMPLES[300:50:-1], "b": EXAMPLES[:20]})
    part = homes(split_by_image(fewer))
    assert part == {name: whole[name] for name in part}
    assert homes(split_by_image(COLLECTION, seed=1)) != whole


def test_no_split_of_a_small_collection_is_empty() -> None:
    for count in (3, 4, 5):
        small = Collection("few", "none", {"all": EXAMPLES[:count]})
        sizes = [len(some) for some in split_by_image(small).splits.values()]
        assert min(sizes) == 1
        assert sum(sizes) == count


@pytest.mark.parametrize("fractions", [{}, {"train": 0.5}, {"train": 1.5, "dev": -0.5}])
def test_fractions_that_are_none_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="expected positive ones that sum to 1"):
        split_by_image(COLLECTION, fractions)


def test_the_digest_sees_names_captions_and_order() -> None:
    one, two, *_ = EXAMPLES
    assert digest([one, two]) == digest([Example(Path("elsewhere/0.jpg"), one.captions), two])
    others = [[two, one], [one], [one, Example(two.image, ("else",))], [one, two, two]]
    assert len({digest(each) for each in [[one, two], *others]}) == 5


def test_an_unknown_split_is_named_with_those_there_are() -> None:
    with pytest.raises(DataError, match="got split 'dev'; expected one of all of numbers"):
        COLLECTION.split("dev")
