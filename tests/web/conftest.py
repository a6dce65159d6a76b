from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
import uvicorn
from PIL import Image

from cutline.captioner import BundleCaptioner
from cutline.runtime import Runtime
from cutline.web.api import create_app
from cutline.web.server import Connection
from cutline.web.settings import Settings

Serve = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("bundle")).folder


@pytest.fixture(scope="session")
def captioner(bundle_folder: Path) -> BundleCaptioner:
    from cutline.bundle import find

    return BundleCaptioner(Runtime(find(str(bundle_folder)), threads=2))


@contextmanager
def live(captioner: Any, **chosen: Any) -> Iterator[str]:
    """The service on a thread of this process: gives its base URL."""
    config = uvicorn.Config(
        create_app(Settings(**chosen), captioner),
        port=0,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        [listening] = server.servers[0].sockets
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


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


@contextmanager
def process(*arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`cutline serve` as a process of its own: gives it and its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cutline", "serve", "--port", str(port), *arguments]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, env={**os.environ, **variables}
    ) as running:
        url = f"http://127.0.0.1:{port}"
        try:
            until(lambda: running.poll() is not None or answers(url), 60)
            yield running, url
        finally:
            if running.poll() is None:
                running.kill()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def until(holds: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.01)


def png(picture: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def pngs(count: int) -> list[bytes]:
    return [png(picture) for picture in tiny.pictures(count)]


def metric(client: httpx.Client, name: str) -> float:
    """One figure of /metrics; 0 if it is not there yet."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0
