from pathlib import Path

import pytest
from drawn import draw

from cutline.data import Collection


@pytest.fixture
def colours(tmp_path: Path) -> Collection:
    """Thirty noisy pictures of one colour each, every one with two captions that say which."""
    return draw(tmp_path)


@pytest.fixture(scope="session")
def all_colours(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """The same, for those who change nothing about them."""
    return draw(tmp_path_factory.mktemp("colours"))
