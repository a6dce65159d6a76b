"""The service under test: on a thread, or as a process of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import tiny
import uvicorn
from PIL import Image

from cutline.fetch import Resolve
from cutline.service.app import create_app
from cutline.service.protocol import Connection
from cutline.service.settings import Settings

Serve = Callable[..., AbstractContextManager[str]]


@contextmanager
def live(captioner: Any, resolve: Resolve | None = None, **chosen: Any) -> Iterator[str]:
    """The service on a thread of this process: gives its base URL."""
    config = uvicorn.Config(
        create_app(Settings(**chosen), captioner, resolve=resolve),
        port=0,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
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


@dataclass
class Running:
    """`cutline serve` as a process of its own."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def stop(self) -> int:
        """Ask it to end; gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Running]:
    """Start `cutline serve`, its log in a file of the folder, and wait until it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cutline", "serve", "--port", str(port), *arguments]
    log = folder / "serve.log"
    with log.open("wb") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            until(lambda: process.poll() is not None or answers(url), 60)
            yield Running(process, url, log)
        finally:
            if process.poll() is None:
                process.kill()


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
