"""The Ray Serve deployment without a cluster: what its two classes do with a request."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from starlette.requests import Request

from cutline.distributed.serve import Captions, Ingress
from cutline.service.settings import Settings

SCOPE = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/readyz",
    "raw_path": b"/readyz",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"localhost")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 8000),
}


class DyingReplicas:
    """A handle whose first replicas die at a request."""

    def __init__(self, deaths: int) -> None:
        self.deaths, self.asked = deaths, 0
        self.answer = self

    async def remote(self, scope: dict[str, Any], body: bytes) -> Any:
        self.asked += 1
        if self.asked <= self.deaths:
            raise ActorDiedError
        return 200, [(b"x-body", body)], scope["path"].encode()


async def ask(replicas: DyingReplicas) -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"picture", "more_body": False}

    return await Ingress(replicas)(Request({**SCOPE, "app": object()}, receive))


def test_a_request_whose_replica_died_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cutline.distributed.serve._PAUSE_S", 0.0)
    replicas = DyingReplicas(2)
    response = asyncio.run(ask(replicas))
    assert (response.status_code, response.body) == (200, b"/readyz")
    assert response.raw_headers == [(b"x-body", b"picture")]
    assert replicas.asked == 3
    with pytest.raises(ActorDiedError):
        asyncio.run(ask(DyingReplicas(100)))


def test_a_replica_answers_as_the_service(model: str) -> None:
    async def answers() -> tuple[Any, Any]:
        replica = object.__new__(Captions)
        await replica.__init__(Settings(model=model))  # type: ignore[misc]
        unknown = {**SCOPE, "path": "/nothing", "raw_path": b"/nothing"}
        return await replica.answer(SCOPE, b""), await replica.answer(unknown, b"")

    ready, unknown = asyncio.run(answers())
    assert ready[0] == 200
    assert unknown[0] == 404
    assert json.loads(unknown[2])["status"] == 404
