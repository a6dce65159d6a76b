from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import tiny
from serving import Serve, live

from cutline.bundle import find
from cutline.captioner import BundleCaptioner
from cutline.runtime import Runtime


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("bundle")).folder


@pytest.fixture(scope="session")
def captioner(bundle_folder: Path) -> BundleCaptioner:
    return BundleCaptioner(Runtime(find(str(bundle_folder)), threads=2))


@pytest.fixture(scope="session")
def serve(captioner: BundleCaptioner) -> Serve:
    return lambda **chosen: live(chosen.pop("captioner", captioner), **chosen)


@pytest.fixture(scope="module")
def url(serve: Serve) -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        yield client
