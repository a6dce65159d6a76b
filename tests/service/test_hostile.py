"""Whatever strangers send gets its documented problem, and the others go on being served."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from conftest import png_header, scene
from serving import Serve, metric, pngs

from cutline.captioner import BundleCaptioner
from cutline.fetch import ssrf as guard
from cutline.service.problems import KINDS, MEDIA_TYPE

PUBLIC = "127.0.0.2"  # stands for the public internet
[GOOD] = pngs(1)
JSON = {"Content-Type": "application/json"}


class Stranger(BaseHTTPRequestHandler):
    """A server somewhere on the internet, up to no good."""

    def do_GET(self) -> None:
        kind, _, rest = self.path[1:].partition("?")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.end_headers()
            return
        if kind == "missing":
            self.send_error(404)
            return
        headers = {"Content-Type": "image/jpeg"}
        content = {
            "good.png": GOOD,
            "page.jpg": b"<!doctype html><title>Not a picture</title>",
            "large.png": GOOD + bytes(600_000),
            "bomb.gz": gzip.compress(GOOD + bytes(50_000_000)),
            "pixels.png": png_header(30_000, 30_000),
            "slow.png": GOOD,
            "cut.png": GOOD,
        }[kind]
        if kind == "bomb.gz":
            headers["Content-Encoding"] = "gzip"
        if kind != "large.png":
            headers["Content-Length"] = str(len(content))
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if kind == "cut.png":
            content = content[:20]
        try:
            if kind == "slow.png":
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.2)
            self.wfile.write(content)
        except OSError:
            pass

    def log_message(self, *_: Any) -> None: ...


NAMES: dict[str, list[list[str]]] = {
    "good.example": [[PUBLIC]],
    "localhost": [["127.0.0.1"]],
    "localhost.": [["127.0.0.1"]],
    "inside.example": [["10.0.0.7"]],
    "both.example": [[PUBLIC, "127.0.0.1"]],
    "mapped.example": [["::ffff:127.0.0.1"]],
    "rebinding.example": [[PUBLIC], ["127.0.0.1"]],
}


def resolve(host: str, port: int) -> Iterable[str]:
    """The test's own resolver; a name with several lists gives one after the other."""
    if host not in NAMES:
        raise OSError("no such name")
    answers = NAMES[host]
    return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture(scope="module")
def url(serve: Serve, captioner: BundleCaptioner) -> Iterator[str]:
    stranger = ThreadingHTTPServer((PUBLIC, 0), Stranger)
    port = stranger.server_address[1]
    thread = threading.Thread(target=stranger.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        real = guard.is_public
        patch.setattr(guard, "is_public", lambda address: address == PUBLIC or real(address))
        patch.setattr("cutline.fetch.PUBLIC_PORTS", frozenset({80, 443, port}))
        NAMES["port"] = [[str(port)]]
        try:
            with serve(
                max_body_mb=1.0,
                max_image_mb=0.5,
                max_megapixels=4.0,
                max_images=4,
                upload_timeout_s=2.0,
                header_timeout_s=2.0,
                fetch_timeout_s=3.0,
                resolve=resolve,
            ) as url:
                yield url
        finally:
            stranger.shutdown()
            thread.join()
            stranger.server_close()


Answer = tuple[int, str]


def told(status: int, content: bytes) -> Answer:
    """The status, and the code of the problem, which may be that of the only image."""
    answer = json.loads(content)
    if status == 200:
        [result] = answer["results"]
        answer = result.get("error") or {"code": "ok"}
    if answer["code"] != "ok":
        kind = KINDS[answer["code"]]
        assert (answer["status"], answer["title"]) == (kind.status, kind.title)
        assert answer["type"] == f"/v1/problems#{answer['code']}"
        assert answer["detail"]
    return status, answer["code"]


def http(answer: httpx.Response) -> Answer:
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == MEDIA_TYPE
    return told(answer.status_code, answer.content)


def from_url(target: str) -> Callable[[str], Answer]:
    """Ask for the picture at a URL, in which PORT is the stranger's."""

    def send(url: str) -> Answer:
        asked = target.replace("PORT", NAMES["port"][0][0])
        by_json = httpx.post(f"{url}/v1/captions", json={"images": [{"url": asked}]})
        answer = http(httpx.get(f"{url}/v1/captions", params={"url": asked}))
        assert http(by_json) in ((200, answer[1]), answer)
        return answer

    return send


def from_url_once(target: str) -> Callable[[str], Answer]:
    return lambda url: http(
        httpx.get(f"{url}/v1/captions", params={"url": target.replace("PORT", NAMES["port"][0][0])})
    )


def post(content: Any = None, path: str = "/v1/captions", **chosen: Any) -> Callable[[str], Answer]:
    return lambda url: http(httpx.post(f"{url}{path}", content=content, **chosen))


def as_json(asked: Any, path: str = "/v1/captions") -> Callable[[str], Answer]:
    return post(json.dumps(asked).encode(), path, headers=JSON)


def as_file(
    content: bytes, name: str = "a.jpg", count: int = 1, **fields: str
) -> Callable[[str], Answer]:
    files = [("image", (name, content))] * count
    return lambda url: http(httpx.post(f"{url}/v1/captions", files=files, data=fields))


def multipart(body: bytes, boundary: str = "; boundary=B") -> Callable[[str], Answer]:
    return post(body, headers={"Content-Type": f"multipart/form-data{boundary}"})


def part(name: str, content: bytes, extra: bytes = b"") -> bytes:
    head = f'--B\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
    return head.encode() + extra + b"\r\n" + content + b"\r\n"


def raw(*pieces: bytes, pause_s: float = 0.0, leave: bool = False) -> Callable[[str], Answer]:
    """Bytes over a socket, a pause between them; a connection closed without a word is (0, "")."""

    def send(url: str) -> Answer:
        parts = urlsplit(url)
        address = (parts.hostname or "", parts.port or 0)
        answer = head = body = b""
        with socket.create_connection(address, timeout=10) as connection:
            try:
                for piece in pieces:
                    connection.sendall(piece.replace(b"HOST", parts.netloc.encode()))
                    time.sleep(pause_s)
                if leave:
                    return 0, ""
                while chunk := connection.recv(65536):
                    answer += chunk
                    head, found, body = answer.partition(b"\r\n\r\n")
                    if found and len(body) >= length(head):
                        break
            except (BrokenPipeError, ConnectionResetError):
                pass
        if not answer:
            return 0, ""
        assert MEDIA_TYPE.encode() in head
        return told(int(head.split()[1]), body)

    return send


def length(head: bytes) -> int:
    [line] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(line.partition(b":")[2])


def chunks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(100_000)


def zipped() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", GOOD)
    return file.getvalue()


def jpeg(*size: int) -> bytes:
    file = BytesIO()
    scene(*size).save(file, "JPEG")
    return file.getvalue()


HEAD = b"POST /v1/captions HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\n"
GET = b"GET /v1/captions?url=x HTTP/1.1\r\nHost: HOST\r\n"
EVIL = b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n"
CLIMB = b"GET /../../etc/passwd HTTP/1.1\r\nHost: HOST\r\n\r\n"
LONG = b"Content-Length: 1" + b"0" * 15 + b"\r\n\r\n"
DRIPS = [b"{"] * 12
FIELD = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
HEAVY = part("a.png", GOOD, b"X-A: " + b"a" * 100_000 + b"\r\n") + b"--B--"
UTF_7 = part("+2AA-", GOOD) + b"--B--"  # half a surrogate pair
REFUSED, INVALID = (403, "url-refused"), (422, "invalid-request")
BAD, FORMAT = (400, "bad-request"), (415, "image-format")
TOO_LARGE, TOO_SLOW = (413, "body-too-large"), (408, "upload-too-slow")
HEADERS = (431, "headers-too-large")
AT = "http://good.example:PORT"


@dataclass(frozen=True)
class Case:
    """What is sent, and what comes back."""

    name: str
    send: Callable[[str], Answer]
    expected: Answer


CASES = [
    # URLs that lead inside, however they are written.
    *(
        Case(f"URL {target}", from_url(target), REFUSED)
        for target in (
            "http://127.0.0.1/",
            "http://127.0.0.1:PORT/good.png",
            "http://localhost/",
            "http://localhost./",
            "http://LOCALHOST/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.0.0.1/",
            "http://017700000001/",
            "http://0/",
            "http://0.0.0.0/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://[fe80::1]/",
            "http://[fd00::1]/",
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://192.168.1.1/",
            "http://100.64.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://inside.example/",
            "http://both.example:PORT/good.png",
            "http://mapped.example/",
            "http://good.example@127.0.0.1/",
            "http://user:secret@good.example/",
            "http://good.example:22/",
            "http://good.example:6379/",
            "file:///etc/passwd",
            "ftp://good.example/a.jpg",
            "gopher://127.0.0.1:6379/_FLUSHALL",
            "javascript:alert(1)",
            "data:image/png;base64,AAAA",
            f"{AT}/to?http://127.0.0.1/",
            f"{AT}/to?http://169.254.169.254/latest/meta-data/",
            f"{AT}/to?http://[::ffff:127.0.0.1]/",
            f"{AT}/to?http://2130706433/",
            f"{AT}/to?//localhost/",
            f"{AT}/to?file:///etc/passwd",
        )
    ),
    Case(
        "a name that changes its mind between a redirect",
        from_url_once("http://rebinding.example:PORT/to?http://rebinding.example:PORT/good.png"),
        REFUSED,
    ),
    Case("an octal address", from_url("http://0177.0.0.1/"), (422, "url-invalid")),
    Case("a URL without a host", from_url("http:///a.jpg"), (422, "url-invalid")),
    Case("no URL", from_url("a dog"), (403, "url-refused")),
    Case("a URL of 9,000 characters", from_url("http://a/" + "a" * 9000), INVALID),
    Case("a name that is none", from_url("http://nowhere.example/"), (502, "fetch-failed")),
    # Servers up to no good.
    Case("a good URL", from_url(f"{AT}/good.png"), (200, "ok")),
    Case("redirects in a circle", from_url(f"{AT}/to?/to?/to"), (502, "fetch-failed")),
    Case("404", from_url(f"{AT}/missing"), (502, "fetch-failed")),
    Case("a web page called a.jpg", from_url(f"{AT}/page.jpg"), (415, "image-format")),
    Case("a body without end", from_url(f"{AT}/large.png"), (413, "image-too-large")),
    Case("a gzip bomb", from_url(f"{AT}/bomb.gz"), (413, "image-too-large")),
    Case("a bomb of pixels by URL", from_url(f"{AT}/pixels.png"), (413, "image-too-large")),
    Case("a byte every 0.2 s", from_url(f"{AT}/slow.png"), (504, "fetch-timeout")),
    Case("a body cut short", from_url(f"{AT}/cut.png"), (502, "fetch-failed")),
    # Bodies that are none of those described.
    Case("no body, no type", post(), (415, "media-type")),
    Case("a bare picture", post(GOOD, headers={"Content-Type": "image/png"}), (415, "media-type")),
    Case("an odd type", post(b"", headers={"Content-Type": b"\x80" * 99}), (415, "media-type")),
    Case("empty JSON", post(b"", headers=JSON), BAD),
    Case("broken JSON", post(b'{"images": [', headers=JSON), BAD),
    Case("JSON that is no UTF-8", post(b'{"images": "\xff"}', headers=JSON), BAD),
    Case("JSON 100,000 deep", post(b"[" * 100_000, headers=JSON), BAD),
    Case("an array", as_json([]), INVALID),
    Case("null", as_json(None), INVALID),
    Case("no images", as_json({"images": []}), INVALID),
    Case("images of a wrong type", as_json({"images": "a.jpg"}), INVALID),
    Case("an image that is empty", as_json({"images": [{}]}), INVALID),
    Case("both", as_json({"images": [{"url": "http://a/", "base64": "AAAA"}]}), INVALID),
    Case("no Base64", as_json({"images": [{"base64": "?!"}]}), INVALID),
    Case("five images", as_json({"images": [{"base64": "AAAA"}] * 5}), (413, "too-many-images")),
    Case("an unknown field", as_json({"images": [{"path": "/etc/passwd"}]}), INVALID),
    *(
        Case(
            f"options {options}",
            as_json({"images": [{"base64": "AAAA"}], "options": options}),
            INVALID,
        )
        for options in (
            {"beam": 0},
            {"beam": 10**30},
            {"beam": "3"},
            {"beam": True},
            {"n_best": 9},
            {"temperature": float("nan")},
            {"temperature": float("inf")},
            {"seed": -1},
            {"labels": 1001},
            {"context": "a" * 5000},
            {"no such": 1},
        )
    ),
    Case("an odd role", as_json({"use": {"width_px": -1}}, "/v1/alt"), INVALID),
    Case("a glossary that is none", as_json({"options": {"glossary": "?"}}, "/v1/alt"), INVALID),
    Case("an alt of no picture", as_json({"image": {"base64": "AAAA"}}, "/v1/alt"), FORMAT),
    # Forms that are none.
    Case("no boundary", multipart(part("a.png", GOOD), ""), BAD),
    Case("an empty form", multipart(b""), BAD),
    Case("a name that is no Unicode", multipart(UTF_7, "; boundary=B; charset=utf-7"), (200, "ok")),
    Case("no form at all", multipart(b"no form at all"), BAD),
    Case("a form cut in its headers", multipart(part("a.png", GOOD)[:40]), BAD),
    Case("a form cut in its file", multipart(part("a.png", GOOD)[:-30]), BAD),
    Case("a part without a name", multipart(b"--B\r\n\r\nx\r\n--B--"), BAD),
    Case("a part's header of 100 kB", multipart(HEAVY), BAD),
    Case("10,000 parts", multipart(FIELD * 10_000), BAD),
    Case("a field of 100 kB", as_file(GOOD, context="a" * 100_000), BAD),
    Case("five files", as_file(GOOD, count=5), (413, "too-many-images")),
    Case("no file", post(files={"beam": (None, "3")}), INVALID),
    Case("another file", post(files={"exe": ("a", GOOD)}), INVALID),
    Case("a field that is none", as_file(GOOD, beams="3"), INVALID),
    Case("a word for a number", as_file(GOOD, beam="many"), INVALID),
    # Files that are no pictures, or too much of one.
    Case("a name of 10,000 characters", as_file(GOOD, "a" * 10_000 + ".png"), BAD),
    Case("a name that climbs", as_file(GOOD, "../../../etc/passwd"), (200, "ok")),
    Case("an empty file", as_file(b""), (200, "image-corrupt")),
    Case("a ZIP named .jpg", as_file(zipped()), (200, "image-format")),
    Case("an SVG", as_file(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), (200, "image-format")),
    Case("a page", as_file(b"<!doctype html><script>alert(1)</script>"), (200, "image-format")),
    Case("half a JPEG", as_file(jpeg(96, 64)[:600]), (200, "image-corrupt")),
    Case("a PNG of 900 megapixels", as_file(png_header(30_000, 30_000)), (200, "image-too-large")),
    Case("a JPEG of 5 megapixels", as_file(jpeg(2500, 2000)), (200, "image-too-large")),
    Case("0.6 MB", as_file(GOOD + bytes(600_000)), (200, "image-too-large")),
    # Bodies too large, too slow, or no HTTP.
    Case("1.1 MB", post(bytes(1_100_000), headers=JSON), TOO_LARGE),
    Case("1.1 MB without a length", post(chunks(11), headers=JSON), TOO_LARGE),
    Case("a length of 10^15", raw(HEAD + LONG), TOO_LARGE),
    Case("a length below 0", raw(HEAD + b"Content-Length: -1\r\n\r\n"), BAD),
    Case("two lengths", raw(HEAD + b"Content-Length: 1\r\n" + b"Content-Length: 2\r\n\r\n"), BAD),
    Case("chunks that are none", raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), BAD),
    Case("a body that never comes", raw(HEAD + b"Content-Length: 9\r\n\r\n"), TOO_SLOW),
    Case(
        "a body byte by byte",
        raw(HEAD + b"Content-Length: 99\r\n\r\n", *DRIPS, pause_s=0.2),
        TOO_SLOW,
    ),
    Case("headers that never come", raw(b""), (0, "")),
    Case("headers byte by byte", raw(b"GET / HTTP/1.1\r\n", *DRIPS, pause_s=0.2), (0, "")),
    Case("headers of 1 MB", raw(GET + b"X-A: " + b"a" * 1_000_000 + b"\r\n\r\n"), HEADERS),
    Case("20,000 headers", raw(GET + b"A: b\r\n" * 20_000 + b"\r\n"), HEADERS),
    Case("no HTTP", raw(b"\x16\x03\x01\x02\x00\x01\r\n\r\n"), BAD),
    Case("no host", raw(b"GET /healthz HTTP/1.1\r\n\r\n"), BAD),
    Case("another host", raw(EVIL), (403, "host-refused")),
    Case("a client that leaves", raw(HEAD + b"Content-Length: 999\r\n\r\n{", leave=True), (0, "")),
    Case("a path that climbs", raw(CLIMB), (404, "not-found")),
    Case(
        "another method",
        raw(b"BREW /v1/captions HTTP/1.1\r\nHost: HOST\r\n\r\n"),
        (405, "method-not-allowed"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name[:60])
def test_each_gets_its_problem_and_others_are_served(
    case: Case, url: str, client: httpx.Client
) -> None:
    assert case.send(url) == case.expected
    good = client.post("/v1/captions", files={"image": ("good.png", GOOD)})
    assert http(good) == (200, "ok")


def test_all_together_leave_no_place_taken(url: str, client: httpx.Client) -> None:
    slow = [case for case in CASES if "byte by byte" in case.name or "never" in case.name]
    threads = [threading.Thread(target=case.send, args=(url,)) for case in slow * 5]
    for thread in threads:
        thread.start()
    began_s = time.monotonic()
    for _ in range(5):
        assert http(client.post("/v1/captions", files={"image": ("good.png", GOOD)}))[0] == 200
    assert time.monotonic() - began_s < 5
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert metric(client, "cutline_queue_images") == 0


def test_inner_addresses_are_not_told(client: httpx.Client) -> None:
    answer = client.get("/v1/captions", params={"url": "http://inside.example/"})
    assert "10.0.0.7" not in answer.text


def test_too_many_connections_are_refused(serve: Serve) -> None:
    with serve(max_connections=3) as url:
        parts = urlsplit(url)
        held = [socket.create_connection((parts.hostname or "", parts.port or 0)) for _ in range(3)]
        try:
            assert raw(b"", pause_s=0.1)(url) == (503, "busy")
        finally:
            for connection in held:
                connection.close()
