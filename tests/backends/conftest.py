from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import chat_server
import pytest
from chat_server import ChatServer

from cutline.backends.chat_client import ChatClient, ConnectionOptions
from cutline.backends.openai import RemoteCaptioner
from cutline.backends.servers import parse_model


class Time:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[ChatServer]:
    with chat_server.running() as server:
        yield server


@pytest.fixture
def server(shared_server: ChatServer) -> ChatServer:
    shared_server.asked.clear()
    shared_server.lists.clear()
    shared_server.paths = ("/v1/chat/completions",)
    shared_server._counts.clear()
    return shared_server


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUTLINE_API_KEY", "OPENAI_API_KEY", "OLLAMA_HOST", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def connect(time: Time) -> Any:
    def connected(name: str, **options: Any) -> RemoteCaptioner:
        server, model = parse_model(name)
        client = ChatClient(
            server,
            model,
            ConnectionOptions(**options),
            clock=time,
            sleep=time.sleep,
            jitter=lambda: 1.0,
        )
        return RemoteCaptioner(server, model, client=client)

    return connected
