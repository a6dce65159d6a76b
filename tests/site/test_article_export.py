"""A crawler's export of 144 tags that show 44 images, some dead, corrupt or no image at all."""

from __future__ import annotations

import csv
import io
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin
from PIL import Image
from typer.testing import CliRunner

from cutline import captioner, cli

FAILURES = {
    36: "404 Not Found",
    37: "410 Gone",
    38: "Connection refused",
    39: "cut short",
    40: "cut short",
    41: "got a web page",
    42: "more than 5 redirects",
}
BUSY = 43  # answers 503 once, then well
HOPS = 6  # what the loop is asked for before it is given up


@dataclass
class Shop:
    """A server, what it was asked for, and the addresses of its 44 images."""

    asked: Counter[str] = field(default_factory=Counter)
    images: list[str] = field(default_factory=list)


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    random = np.random.default_rng(3)

    def picture(number: int) -> bytes:
        if number == 41:
            return b"<!DOCTYPE html>\n<title>Not found</title><p>We moved."
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        file = io.BytesIO()
        coarse.resize((160, 120)).save(file, "PNG" if number == 40 else "JPEG")
        return file.getvalue()[: 900 if number in (39, 40) else None]

    pictures = {f"/{number}.jpg": picture(number) for number in range(44)}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shop.asked[self.path] += 1
            statuses = {"/36.jpg": 404, "/37.jpg": 410, "/42.jpg": 302}
            if self.path == f"/{BUSY}.jpg" and shop.asked[self.path] == 1:
                statuses[self.path] = 503
            status = statuses.get(self.path, 200)
            body = pictures.get(self.path, b"") if status == 200 else b""
            self.send_response(status)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            if status == 302:
                self.send_header("Location", self.path)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    ports = {38: nobody}
    shop.images = [
        f"http://127.0.0.1:{ports.get(number, server.server_port)}/{number}.jpg"
        for number in range(44)
    ]
    yield shop
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def captioned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the captioner; lists the pictures it was shown."""
    shown: list[str] = []

    class Listing(standin.StandIn):
        def stream(self, images: Iterable[Any], options: Any = None) -> Iterator[Any]:
            for image in images:
                shown.append(str(image))
                yield self._caption(image, options)

    monkeypatch.setattr(captioner, "load", lambda *_, **__: Listing())
    return shown


def cutline(*words: Any) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli.app, ["site", *map(str, words)], prog_name="cutline")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_each_row_of_the_articles_export_gets_an_answer(
    shop: Shop, captioned: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    numbers = [*range(44), *range(44), *range(44), *range(12)]
    tag = '<img style="border: 0; width: 90%" src="{}" alt="" />'
    rows = [[tag.format(shop.images[number]), f"note {row}"] for row, number in enumerate(numbers)]
    with Path("tags.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["Image Tag", "Note"], *rows])

    code, _, said = cutline("import", "tags.csv")
    assert code == 0
    assert "Found 144 images (44 different) in 144 rows." in said

    code, _, said = cutline("draft", "--private")
    assert code == 1
    told = dict(line.split(": ", 1) for line in said.splitlines() if line.startswith("http"))
    assert told.keys() == {shop.images[number] for number in FAILURES}
    assert all(why in told[shop.images[number]] for number, why in FAILURES.items())
    once = {f"/{number}.jpg": 1 for number in range(44) if number != 38}
    assert shop.asked == once | {f"/{BUSY}.jpg": 2, "/42.jpg": HOPS}
    assert len(captioned) == len(set(captioned)) == 44 - len(FAILURES)

    assert cutline("export", "--rows", "tags.csv", "-o", "new.csv")[0] == 0
    with Path("new.csv").open(newline="", encoding="utf-8-sig") as file:
        answers = list(csv.DictReader(file))
    assert [[answer["Image Tag"], answer["Note"]] for answer in answers] == rows
    for number, answer in zip(numbers, answers, strict=True):
        failed = number in FAILURES
        assert answer["cutline_status"] == ("failed" if failed else "drafted")
        assert FAILURES.get(number, "") in answer["cutline_why"]
        assert bool(answer["cutline_draft"]) is not failed

    report = json.loads(cutline("report", "--json")[1])
    assert {each["url"]: each["error"] for each in report["failures"]} == told

    shop.asked.clear()
    captioned.clear()
    assert cutline("draft", "--private")[0] == 1
    assert not shop.asked
    assert not captioned

    cutline("draft", "--private", "--keep-empty")
    status = json.loads(cutline("status", "--json")[1])
    assert status["by_purpose"] == {"kept": 144}
