"""A server for tests that speaks chat completions; the model's name chooses what it does."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

DOG = "A dog runs across the grass."


@dataclass
class Asked:
    """One request."""

    model: str
    body: dict[str, Any]
    headers: dict[str, str]
    path: str
    number: int  # 1-based, among those of this model

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][-1]["content"][0]["text"])

    @property
    def jpeg(self) -> bytes:
        url = self.body["messages"][-1]["content"][1]["image_url"]["url"]
        return base64.b64decode(url.partition(",")[2])

    @property
    def picture(self) -> Image.Image:
        return Image.open(io.BytesIO(self.jpeg))


@dataclass
class Reply:
    status: int = 200
    body: Any = None
    raw: bytes | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False  # close the connection within the body
    piece_bytes: int = 0  # send the body in pieces of this size
    wait: threading.Event | None = None


Behaviour = Callable[[Asked], Reply]


def chat(content: Any = DOG, finish: str | None = "stop", **message: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}}
    usage = {"prompt_tokens": 300, "completion_tokens": 10}
    return Reply(body={"choices": [{**choice, "finish_reason": finish}], "usage": usage})


def error(status: int, message: str, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"error": {"message": message}}, headers=named)


class ChatServer:
    def __init__(self) -> None:
        self.behaviours: dict[str, Behaviour] = {}
        self.asked: list[Asked] = []
        self.lists: dict[str, Any] = {}
        self.closing = threading.Event()
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.port = 0
        self.paths = ("/v1/chat/completions",)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __call__(self, model: str, behaviour: Behaviour | Reply) -> str:
        """Give a model its behaviour; returns the name that Cutline takes."""
        if isinstance(behaviour, Reply):
            reply = behaviour
            self.behaviours[model] = lambda asked: reply
        else:
            self.behaviours[model] = behaviour
        return f"{self.root}#{model}"

    def of(self, model: str) -> list[Asked]:
        return [each for each in self.asked if each.model == model]

    def answer(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        model = str(body.get("model"))
        with self._lock:
            self._counts[model] += 1
            asked = Asked(model, body, headers, path, self._counts[model])
            self.asked.append(asked)
        if path.partition("?")[0] not in self.paths:
            return Reply(404, {"detail": "Not Found"})
        if model not in self.behaviours:
            return error(404, f'model "{model}" is not here, try pulling it first')
        return self.behaviours[model](asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: ChatServer

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        content = json.loads(self.rfile.read(size))
        if self.path in self.owner.lists:
            self._send(self.owner.lists[self.path](content))
        else:
            self._send(self.owner.answer(self.path, content, dict(self.headers)))

    def do_GET(self) -> None:
        found = self.owner.lists.get(self.path)
        self._send(Reply(body=found) if found is not None else Reply(404, {"error": "no"}))

    def _send(self, reply: Reply) -> None:
        raw = reply.raw if reply.raw is not None else json.dumps(reply.body).encode()
        if reply.wait is not None:
            reply.wait.wait(20)
        try:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(raw) + 10 * reply.drop))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            step = reply.piece_bytes or max(1, len(raw))
            for start in range(0, len(raw), step):
                self.wfile.write(raw[start : start + step])
                self.wfile.flush()
        except OSError:
            self.close_connection = True
        if reply.drop:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running() -> Iterator[ChatServer]:
    server = ChatServer()
    handler = type("Handler", (_Handler,), {"owner": server})

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

        def shutdown_request(self, request: Any) -> None:
            try:
                super().shutdown_request(request)
            except OSError:
                request.close()

    with Quiet(("127.0.0.1", 0), handler) as listening:
        server.port = listening.server_port
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            listening.shutdown()
            thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
