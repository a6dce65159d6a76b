from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import chat_server
import httpx
import pytest
from chat_server import DOG, ChatServer, Reply, chat, error
from conftest import scene
from serving import live

from cutline.backends.chat_client import ConnectionOptions
from cutline.backends.openai import RemoteCaptioner
from cutline.backends.retry import RetryOptions


@pytest.fixture(scope="module")
def model_server() -> Iterator[ChatServer]:
    with chat_server.running() as server:
        yield server


@pytest.fixture(scope="module")
def service(model_server: ChatServer) -> Iterator[httpx.Client]:
    name = model_server("model", chat())
    options = ConnectionOptions(
        timeout_s=0.5, retry=RetryOptions(wait_s=0.1, attempts=1, first_s=0.01)
    )
    captioner = RemoteCaptioner.from_name(name, options)
    with (
        live(captioner, cache=0) as url,
        httpx.Client(base_url=url, timeout=20, trust_env=False) as client,
    ):
        yield client


def jpeg() -> bytes:
    file = io.BytesIO()
    scene().save(file, "JPEG")
    return file.getvalue()


def caption(client: httpx.Client, path: str = "/v1/captions", **data: str) -> httpx.Response:
    return client.post(path, files={"image": ("x.jpg", jpeg(), "image/jpeg")}, data=data)


@pytest.mark.parametrize(
    ("reply", "status", "words"),
    [
        (error(429, "slow down", Retry_After="30"), 503, "slow down"),
        (error(503, "overloaded"), 503, "overloaded"),
        (error(500, "out of memory"), 502, "out of memory"),
        (error(401, "wrong key"), 502, "wrong key"),
        (error(404, "model not found"), 502, "model not found"),
        (Reply(body=[1]), 502, "another form"),
        (Reply(raw=b"<html>", content_type="text/html"), 502, "web page"),
        (Reply(body=chat().body, drop=True), 502, "RemoteProtocolError"),
        (chat(None, refusal="No people."), 422, "No people"),
        (chat("I'm sorry, I can't help with that."), 422, "declined"),
        (chat("I cannot see the image."), 502, "did not see"),
        (chat(" "), 502, "empty answer"),
    ],
)
def test_failures_of_a_models_server(
    model_server: ChatServer, service: httpx.Client, reply: Reply, status: int, words: str
) -> None:
    model_server("model", reply)
    found = caption(service)
    assert found.status_code == status
    assert words in found.json()["detail"]
    assert ("Retry-After" in found.headers) == (status == 503)
    if reply.headers:
        assert found.headers["Retry-After"] in ("30", "31")


def test_a_timeout_of_a_models_server(model_server: ChatServer, service: httpx.Client) -> None:
    model_server("model", lambda asked: Reply(body=chat().body, wait=model_server.closing))
    found = caption(service)
    assert (found.status_code, found.headers["Retry-After"]) == (503, "10")
    model_server("model", chat())
    assert caption(service).json()["results"][0]["caption"] == DOG


def test_alt_is_asked_for_with_its_page(model_server: ChatServer, service: httpx.Client) -> None:
    answer: dict[str, Any] = {"alt": "A brown dog", "decorative": False, "confidence": 0.7}
    model_server("model", chat(json.dumps(answer)))
    page = {"heading": "Our dogs", "language": "en"}
    found = caption(service, "/v1/alt", **page)
    assert found.status_code == 200, found.text
    assert found.json()["alt"] == "A brown dog."
    assert '"heading": "Our dogs"' in model_server.asked[-1].prompt
    model_server("model", chat("I'm sorry, I can't help with that."))
    assert caption(service, "/v1/alt", **page).status_code == 422
