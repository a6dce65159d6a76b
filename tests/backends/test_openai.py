from __future__ import annotations

import base64
import io
import json
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import scene
from PIL import Image

import cutline
from cutline.caption import CaptionOptions, InContext
from cutline.errors import EngineError, ImageError, OptionError
from cutline.search import SearchOptions


@dataclass
class Server:
    """Answers chat completions by what `answer` makes of the request."""

    url: str = ""
    status: int = 200
    body: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def answer(self, asked: dict[str, Any]) -> str:
        if self.body is not None:
            return self.body
        picture = self.picture(asked)
        says = f'"A picture\n{picture.width} wide."'
        tokens = [{"token": "x", "logprob": -0.5}, {"token": "y", "logprob": -1.5}]
        choice = {"message": {"content": says}, "logprobs": {"content": tokens}}
        return json.dumps({"choices": [choice] * asked["n"]})

    @staticmethod
    def picture(asked: dict[str, Any]) -> Image.Image:
        url = asked["messages"][0]["content"][1]["image_url"]["url"]
        return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


@pytest.fixture
def server() -> Iterator[Server]:
    fake = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fake.asked.append(asked)
            fake.keys.append(self.headers["Authorization"])
            answer = fake.answer(asked).encode()
            self.send_response(fake.status if self.path == "/v1/chat/completions" else 404)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        fake.url = f"http://127.0.0.1:{listening.server_port}/v1#looker"
        yield fake
        listening.shutdown()
        thread.join()


def test_a_server_captions_like_any_other_model(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUTLINE_API_KEY", "secret")
    scene(1600, 900).save(tmp_path / "large.jpg")
    model = cutline.load(server.url)
    caption = model.caption(tmp_path / "large.jpg")
    assert caption.text == "A picture 768 wide."
    assert caption.score == pytest.approx(-1.0)
    assert caption.model == model.name == f"looker@{server.url[7:].partition('#')[0]}"
    assert caption.source == str(tmp_path / "large.jpg")
    assert server.keys == ["Bearer secret"]
    assert server.asked[0]["model"] == "looker"

    options = CaptionOptions(SearchOptions(temperature=0.5, n_best=2, seed=3, max_tokens=7))
    two = model.caption(InContext(scene(), "The  farm"), options)
    assert [other.text for other in two.alternatives] == ["A picture 96 wide."]
    said = server.asked[1]
    assert (said["n"], said["temperature"], said["seed"]) == (2, 0.5, 3)
    prompt = said["messages"][0]["content"][0]["text"]
    assert "at most 7 words" in prompt
    assert prompt.endswith("The farm")


def test_many_come_in_order_and_a_bad_one_is_an_item(server: Server) -> None:
    pictures = [scene(40 + 10 * n, 40) for n in range(9)]
    mixed: list[Any] = [*pictures[:4], b"no picture", *pictures[4:]]
    captions = cutline.load(server.url, threads=3).caption(mixed)
    widths = [40 + 10 * n for n in range(9)]
    said = [c.text for c in captions if c.ok]
    assert said == [f"A picture {width} wide." for width in widths]
    assert isinstance(captions[4].error, ImageError)
    assert len(server.asked) == 9


def test_a_picture_given_is_left_as_it_was(server: Server) -> None:
    picture = scene(1000, 900)
    cutline.load(server.url).caption(picture)
    assert picture.size == (1000, 900)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, '{"error": "no key"}', "HTTP 401.*no key"),
        (200, "<html>", "JSONDecodeError"),
        (200, '{"choices": []}', "empty answer"),
        (200, '{"choices": [{"message": {"content": null}}]}', "empty answer"),
        (200, '{"no": 1}', "another form.*choices"),
        (200, "[]", "another form"),
    ],
)
def test_what_a_server_does_wrong_is_said(
    server: Server, status: int, body: str, says: str
) -> None:
    server.status, server.body = status, body
    model = cutline.load(server.url)
    with pytest.raises(EngineError, match=says):
        model.caption(scene())
    assert [c.ok for c in model.caption([scene(), scene()])] == [False, False]


def test_without_log_probabilities_the_score_is_unknown(server: Server) -> None:
    server.body = '{"choices": [{"message": {"content": "A dog."}}]}'
    caption = cutline.load(server.url).caption(scene())
    assert math.isnan(caption.score)
    assert caption.to_dict()["score"] is None


def test_nobody_there_and_no_name_are_clear() -> None:
    with pytest.raises(EngineError, match="ConnectError"):
        cutline.load("http://127.0.0.1:9/v1#m").caption(scene())
    with pytest.raises(OptionError, match="then # and a name"):
        cutline.load("http://127.0.0.1:9/v1")
