from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cutline.errors import FetchError, OptionError
from cutline.fetch import (
    Fetched,
    Fetcher,
    FetchOptions,
    PrivateHost,
    is_public,
    private_host,
    sniff,
)
from cutline.media_type import XML_PROLOG_BYTES, may_be_svg

PNG = b"\x89PNG\r\n\x1a\n" + bytes(600)
PUBLIC = "93.184.216.34"
Answer = Callable[[socket.socket, str], None]


def reply(body: bytes = PNG, status: str = "200 OK", **headers: str) -> Answer:
    def answer(connection: socket.socket, request: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    return answer


def redirect(location: str) -> Answer:
    return reply(b"", "302 Found", Location=location)


class Server:
    """Answers each path with what `routes` holds, remembering every request."""

    def __init__(self) -> None:
        self.routes: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.began_s: list[float] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ends.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def wait(self, seconds: float) -> bool:
        return self._ends.wait(seconds)

    def asked(self, path: str) -> int:
        return sum(request.split()[1] == path for request in self.requests)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            request = b""
            while b"\r\n\r\n" not in request and request[:1] != b"\x16":  # or a ClientHello
                if not (more := connection.recv(65536)):
                    break
                request += more
            text = request.decode("latin-1")
            with self._lock:
                self.requests.append(text)
                self.began_s.append(time.monotonic())
            words = text.split()
            path = words[1] if len(words) > 1 else ""
            with contextlib.suppress(OSError):
                self.routes.get(path, reply(b"", "404 Not Found"))(connection, text)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def internet(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Connections to PUBLIC reach the server; all others are refused. Lists where they went."""
    went: list[str] = []
    connect = socket.create_connection

    def create(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        went.append(address[0])
        if address[0] != PUBLIC:
            raise ConnectionRefusedError(f"no way to {address[0]}")
        return connect(("127.0.0.1", server.port), *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", create)
    return went


def get(url: str, *, resolve: Any = None, **options: Any) -> Fetched:
    with Fetcher(FetchOptions(**{"retries": 0, "timeout_s": 5, **options}), resolve=resolve) as it:
        return it.fetch(url)


def refused(url: str, **options: Any) -> FetchError:
    with pytest.raises(FetchError) as caught:
        get(url, **options)
    assert isinstance(caught.value, OSError)
    return caught.value


def test_a_picture_comes_with_its_type_and_validators(server: Server) -> None:
    server.routes["/a.jpg"] = reply(ETag='"x"', Last_Modified="Mon", Content_Type="image/jpeg; q=1")
    fetched = get(f"{server.url}/a.jpg")
    assert fetched.content == PNG
    assert (fetched.media_type, fetched.declared) == ("image/png", "image/jpeg")
    assert (fetched.etag, fetched.last_modified) == ('"x"', "Mon")
    assert server.requests[0].count("User-Agent: Cutline/") == 1
    assert f"Host: 127.0.0.1:{server.port}\r\n" in server.requests[0]


def test_what_has_not_changed_is_not_sent_again(server: Server) -> None:
    server.routes["/a"] = reply(b"", "304 Not Modified", ETag='"x"')
    with Fetcher() as fetcher:
        fetched = fetcher.fetch(f"{server.url}/a", etag='"x"', last_modified="Mon")
    assert fetched.not_modified
    assert fetched.status == 304
    assert 'If-None-Match: "x"' in server.requests[0]
    assert "If-Modified-Since: Mon" in server.requests[0]
    assert refused(f"{server.url}/a").status == 304  # nobody asked whether it had changed


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://example.com/a.jpg", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("//example.com/a.jpg", "scheme"),
        ("gopher://example.com/", "scheme"),
        ("a.jpg", "scheme"),
        ("", "scheme"),
        ("http://user:secret@example.com/", "credentials"),
        ("http://user@127.0.0.1/", "credentials"),
        ("http:///a.jpg", "url"),
        ("http://exa mple.com/", "url"),
        ("http://example.com:99999/", "url"),
        ("http://[::1", "url"),
        ("http://" + "a" * 300 + "/", "url"),
        ("http://example.com/" + "a" * 10_000, "url"),
        ("http://example.com/\x00", "url"),
        ("http://example.com:22/", "port"),
        ("http://example.com:6379/", "port"),
        ("http://127.0.0.1/", "address"),
        ("http://127.1/", "address"),
        ("http://2130706433/", "address"),
        ("http://0x7f000001/", "address"),
        ("http://0177.0.0.1/", "url"),
        ("http://0x7f.1/", "address"),
        ("http://0/", "address"),
        ("http://0.0.0.0/", "address"),
        ("http://10.0.0.1/", "address"),
        ("http://172.16.0.1/", "address"),
        ("http://192.168.1.1/", "address"),
        ("http://100.64.0.1/", "address"),
        ("http://169.254.169.254/latest/meta-data/", "address"),
        ("http://224.0.0.1/", "address"),
        ("http://255.255.255.255/", "address"),
        ("http://[::]/", "address"),
        ("http://[::1]/", "address"),
        ("http://[::ffff:127.0.0.1]/", "address"),
        ("http://[::ffff:8.8.8.8]/", "address"),
        ("http://[::127.0.0.1]/", "address"),
        ("http://[64:ff9b::a9fe:a9fe]/", "address"),
        ("http://[64:ff9b:1::1]/", "address"),
        ("http://[2002:7f00:1::]/", "address"),
        ("http://[2001::1]/", "address"),
        ("http://[fe80::1]/", "address"),
        ("http://[fe80::1%25eth0]/", "url"),
        ("http://[fc00::1]/", "address"),
        ("http://[fec0::1]/", "address"),
        ("http://[ff02::1]/", "address"),
    ],
)
def test_what_strangers_may_not_name(url: str, code: str, internet: list[str]) -> None:
    error = refused(url, public_only=True, resolve=lambda host, port: [PUBLIC])
    assert error.code == code
    assert "secret" not in str(error)
    assert not internet


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


def test_every_address_of_a_name_must_be_public(internet: list[str]) -> None:
    names = {"mixed.test": [PUBLIC, "127.0.0.1"], "v6.test": ["::1", PUBLIC], "none.test": []}
    for name, code in {"mixed.test": "address", "v6.test": "address", "none.test": "dns"}.items():
        error = refused(f"http://{name}/", public_only=True, resolve=lambda host, port: names[host])
        assert error.code == code
    assert not internet


def test_the_checked_address_is_the_connected_one(server: Server, internet: list[str]) -> None:
    """A name that is public when first asked and private ever after is asked once."""
    server.routes["/a"] = reply()
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    fetched = get(
        "http://rebind.test/a", public_only=True, resolve=lambda host, port: next(answers)
    )
    assert fetched.content == PNG
    assert internet == [PUBLIC]
    assert "Host: rebind.test\r\n" in server.requests[0]


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://127.0.0.1/", "address"),
        ("http://inner.test/", "address"),
        ("//[::1]/", "address"),
        ("http://ok.test:22/", "port"),
        ("file:///etc/passwd", "scheme"),
        ("http://a:b@ok.test/", "credentials"),
        ("http://[oops", "redirects"),
        ("/again", "redirects"),
    ],
)
def test_each_redirect_is_checked(
    location: str, code: str, server: Server, internet: list[str]
) -> None:
    server.routes["/again"] = redirect(location)
    names = {"ok.test": [PUBLIC], "inner.test": ["10.0.0.1"]}
    error = refused(
        "http://ok.test/again", public_only=True, resolve=lambda host, port: names[host]
    )
    assert error.code == code
    assert set(internet) == {PUBLIC}


def test_redirects_are_followed_as_far_as_allowed(server: Server) -> None:
    server.routes |= {"/1": redirect("2"), "/2": redirect("/3"), "/3": reply()}
    assert get(f"{server.url}/1").final_url == f"{server.url}/3"
    assert refused(f"{server.url}/1", max_redirects=1).code == "redirects"


def test_tls_asks_for_the_name_not_the_address(server: Server, internet: list[str]) -> None:
    error = refused("https://secure.test/", public_only=True, resolve=lambda *_: [PUBLIC])
    assert error.code == "tls"
    assert internet == [PUBLIC]
    assert "secure.test" in server.requests[0]  # in the clear in the ClientHello


def test_the_environment_has_no_say(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.routes["/a"] = reply(Set_Cookie="a=b")
    with Fetcher() as fetcher:
        fetcher.fetch(f"{server.url}/a")
        fetcher.fetch(f"{server.url}/a")
    assert "ookie" not in server.requests[1]
    assert "uthorization" not in server.requests[1]


def slowly(body: bytes, *, headers: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> Callable[..., Answer]:
    def answer_of(server: Server) -> Answer:
        def answer(connection: socket.socket, request: str) -> None:
            connection.sendall(headers)
            for byte in body:
                connection.sendall(bytes([byte]))
                if server.wait(0.05):
                    return

        return answer

    return answer_of


@pytest.mark.parametrize(
    "answer_of", [slowly(PNG), slowly(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 99, headers=b"")]
)
def test_a_slow_answer_ends_in_time(answer_of: Callable[..., Answer], server: Server) -> None:
    server.routes["/slow"] = answer_of(server)
    began_s = time.monotonic()
    assert refused(f"{server.url}/slow", timeout_s=0.3).code == "timeout"
    assert time.monotonic() - began_s < 2


def test_a_slow_resolver_ends_in_time() -> None:
    hangs = threading.Event()
    try:
        error = refused("http://x.test/", timeout_s=0.2, resolve=lambda *_: hangs.wait(5) or [])
    finally:
        hangs.set()
    assert error.code == "timeout"


def test_a_large_body_is_refused_by_its_header_or_while_it_comes(server: Server) -> None:
    server.routes["/told"] = reply(PNG + bytes(5000))

    def endless(connection: socket.socket, request: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + PNG)
        while True:
            connection.sendall(bytes(1000))

    server.routes["/endless"] = endless
    for path in ("/told", "/endless"):
        assert refused(server.url + path, max_bytes=5000).code == "too-large"
    assert len(get(f"{server.url}/told", max_bytes=len(PNG) + 5000).content) == len(PNG) + 5000


def test_compressed_bodies_are_opened_within_the_limit(server: Server) -> None:
    bomb = gzip.compress(PNG + bytes(50_000_000))
    server.routes["/bomb"] = reply(bomb, Content_Encoding="gzip")
    server.routes["/gzip"] = reply(gzip.compress(PNG), Content_Encoding="gzip")
    server.routes["/deflate"] = reply(zlib.compress(PNG), Content_Encoding="deflate")
    server.routes["/damaged"] = reply(b"no gzip", Content_Encoding="gzip")
    server.routes["/br"] = reply(b"x", Content_Encoding="br")
    assert len(bomb) < 100_000
    assert refused(f"{server.url}/bomb", max_bytes=1_000_000).code == "too-large"
    assert get(f"{server.url}/gzip").content == PNG
    assert get(f"{server.url}/deflate").content == PNG
    assert refused(f"{server.url}/damaged").code == "protocol"
    assert refused(f"{server.url}/br").code == "protocol"


def test_what_is_no_picture_is_refused_whatever_it_is_called(server: Server) -> None:
    page = b"<!DOCTYPE html><title>Not found</title>"
    server.routes["/a.jpg"] = reply(page, Content_Type="image/jpeg")
    server.routes["/empty"] = reply(b"")
    error = refused(f"{server.url}/a.jpg")
    assert error.code == "not-an-image"
    assert "got a web page, declared as image/jpeg" in str(error)
    assert refused(f"{server.url}/empty").code == "not-an-image"
    assert get(f"{server.url}/a.jpg", images_only=False).media_type == "text/html"


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"\0\0\0\x20ftypavif", "image/avif"),
        (b"\0\0\0\x20ftypheic", "image/heic"),
        (b"<?xml version='1.0'?>\n<!-- x -->\n<svg xmlns='a'>", "image/svg+xml"),
        (b"  <svg>", "image/svg+xml"),
        (b"<!--" + b" licence" * 400 + b"-->\n<!-- b -->\n<svg:svg>", "image/svg+xml"),
        (b"<?xml version='1.0'?><!DOCTYPE svg [<!ENTITY a 'b'>]>\n<svg/>", "image/svg+xml"),
        (b"<!-- <svg> -->\n<p>about svg </p>", ""),
        (b"<note>an svg </note>", ""),
        (b"<html><svg>", "text/html"),
        (b"PK\x03\x04", "application/zip"),
        (b"text", ""),
    ],
)
def test_types_are_told_from_the_first_bytes(content: bytes, media_type: str) -> None:
    assert sniff(content) == media_type


def test_status_and_broken_answers_are_told(server: Server) -> None:
    def cut(connection: socket.socket, request: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + PNG[:99])

    server.routes |= {"/cut": cut, "/noise": lambda connection, _: connection.sendall(b"SSH-2.0\n")}
    error = refused(f"{server.url}/gone")
    assert (error.code, error.status) == ("status", 404)
    assert "404 Not Found" in str(error)
    assert refused(f"{server.url}/cut").code == "protocol"
    assert refused(f"{server.url}/noise").code == "protocol"
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert refused(f"http://127.0.0.1:{port}/").code == "connect"


def fails_first(*answers: Answer) -> Answer:
    left = list(answers)
    return lambda connection, request: left.pop(0)(connection, request)


def test_what_may_pass_is_tried_again(server: Server) -> None:
    busy = reply(b"", "503 Service Unavailable", Retry_After="0")
    server.routes["/busy"] = fails_first(busy, lambda connection, _: None, reply())
    assert get(f"{server.url}/busy", retries=2, max_wait_s=0.01).content == PNG
    assert server.asked("/busy") == 3
    refused(f"{server.url}/gone", retries=2)
    assert server.asked("/gone") == 1


def test_retry_after_is_kept_unless_it_is_too_long(server: Server) -> None:
    server.routes["/soon"] = fails_first(
        reply(b"", "429 Too Many Requests", Retry_After="1"), reply()
    )
    server.routes["/later"] = reply(b"", "429 Too Many Requests", Retry_After="9000")
    get(f"{server.url}/soon", retries=1, max_wait_s=5)
    assert server.began_s[1] - server.began_s[0] > 0.9
    assert refused(f"{server.url}/later", retries=1, max_wait_s=5).status == 429
    assert server.asked("/later") == 1


def test_a_host_is_asked_by_few_at_a_time(server: Server) -> None:
    busy, most_busy, lock = 0, 0, threading.Lock()

    def slow(connection: socket.socket, request: str) -> None:
        nonlocal busy, most_busy
        with lock:
            busy += 1
            most_busy = max(most_busy, busy)
        server.wait(0.05)
        with lock:
            busy -= 1  # before the answer: whoever has it may ask again
        reply()(connection, request)

    server.routes["/a"] = slow
    with Fetcher(FetchOptions(host_concurrency=2)) as fetcher, ThreadPoolExecutor(6) as pool:
        list(pool.map(fetcher.fetch, [f"{server.url}/a"] * 8))
    assert most_busy == 2


def test_a_host_is_not_asked_too_often(server: Server) -> None:
    server.routes["/a"] = reply()
    options = FetchOptions(host_concurrency=6, host_delay_s=0.05)
    with Fetcher(options) as fetcher, ThreadPoolExecutor(6) as pool:
        list(pool.map(fetcher.fetch, [f"{server.url}/a"] * 8))
    assert max(server.began_s) - min(server.began_s) > 0.05 * 4  # of 7, as threads may start late


def test_robots_txt_is_asked_once_and_kept(server: Server) -> None:
    server.routes["/robots.txt"] = reply(b"User-agent: Cutline\nDisallow: /private/*.png")
    server.routes |= {"/a": reply(), "/private/a.png": reply()}
    with Fetcher(FetchOptions(robots=True, retries=0)) as fetcher:
        fetcher.fetch(f"{server.url}/a")
        with pytest.raises(FetchError, match=r"robots\.txt forbids it"):
            fetcher.fetch(f"{server.url}/private/a.png")
    assert server.asked("/robots.txt") == 1
    server.routes["/robots.txt"] = reply(b"", "500 Oops")
    assert refused(f"{server.url}/a", robots=True).code == "robots"
    del server.routes["/robots.txt"]
    assert get(f"{server.url}/a", robots=True).content == PNG


@pytest.mark.parametrize("answers", [True, False])
def test_closing_ends_every_wait(answers: bool, server: Server) -> None:
    busy = reply(b"", "503 Busy", Retry_After="20")
    server.routes["/busy"] = busy if answers else lambda *_: server.wait(20) and None
    fetcher = Fetcher()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fetcher.fetch, f"{server.url}/busy")
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.05)
        fetcher.close()
        with pytest.raises(FetchError, match="503" if answers else "broke"):
            waiting.result(5)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match="got timeout_s 0; expected more than 0"):
        FetchOptions(timeout_s=0)
    with pytest.raises(OptionError, match="got retries -1"):
        FetchOptions(retries=-1)


# The one private host that a person chose


def resolving(**names: list[str]) -> Callable[[str, int], list[str]]:
    return lambda host, port: names[host.partition(".")[0]]


@pytest.mark.parametrize(
    ("url", "addresses", "expected"),
    [
        ("http://wiki.corp/", ["10.0.0.7"], frozenset({"10.0.0.7"})),
        ("http://127.0.0.1:8000/", [], frozenset({"127.0.0.1"})),
        ("http://[::1]:8000/", [], frozenset({"::1"})),
        ("http://wiki.corp/", [PUBLIC], None),
        ("http://wiki.corp/", [PUBLIC, "127.0.0.1"], None),
        ("http://wiki.corp/", ["10.0.0.7", "169.254.169.254"], None),
        ("http://169.254.169.254/", [], None),
        ("http://[::ffff:169.254.169.254]/", [], None),
        ("http://168.63.129.16/", [], None),
        ("http://wiki.corp/", [], None),
        ("/srv/pages", [], None),
        ("http://[broken/", [], None),
    ],
)
def test_a_start_host_is_trusted_only_if_all_its_addresses_are_private(
    url: str, addresses: list[str], expected: frozenset[str] | None
) -> None:
    host = private_host(url, lambda name, port: addresses)
    assert (host and host.addresses) == expected


def test_a_name_without_an_address_is_not_trusted() -> None:
    def fails(name: str, port: int) -> list[str]:
        raise OSError("no such name")

    assert private_host("http://wiki.corp/", fails) is None


def test_azure_answers_machines_at_an_address_that_is_not_public() -> None:
    assert not is_public("168.63.129.16")
    assert is_public("168.63.129.17")


def test_only_the_start_host_is_exempt_at_the_addresses_that_it_had(server: Server) -> None:
    server.routes["/a.png"] = reply()
    start = PrivateHost("127.0.0.1", server.port, frozenset({"127.0.0.1"}))
    resolve = resolving(localhost=["127.0.0.1"], start=["127.0.0.1"])
    options = FetchOptions(public_only=True, private_host=start, retries=0)
    with Fetcher(options, resolve=resolve) as fetcher:
        assert fetcher.fetch(f"{server.url}/a.png").content == PNG
        for url in (
            f"http://localhost:{server.port}/a.png",
            f"http://127.0.0.1:{server.port + 1}/a.png",
            "http://10.0.0.1/a.png",
            "http://169.254.169.254/a.png",
        ):
            with pytest.raises(FetchError) as caught:
                fetcher.fetch(url)
            assert caught.value.code in ("address", "port")
        server.routes["/away"] = redirect("http://169.254.169.254/latest")
        with pytest.raises(FetchError, match="expected a public address"):
            fetcher.fetch(f"{server.url}/away")


def test_a_start_host_that_moves_to_another_private_address_is_refused(server: Server) -> None:
    start = PrivateHost("start.corp", server.port, frozenset({"10.0.0.7"}))
    options = FetchOptions(public_only=True, private_host=start, retries=0)
    with Fetcher(options, resolve=resolving(start=["127.0.0.1"])) as fetcher:
        with pytest.raises(FetchError) as caught:
            fetcher.fetch(f"http://start.corp:{server.port}/")
        assert caught.value.code == "address"
    assert not server.requests


def test_proxies_of_the_environment_are_ignored(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    server.routes["/a.png"] = reply()
    with Fetcher() as fetcher:
        assert fetcher.fetch(f"{server.url}/a.png").content == PNG


def test_an_svg_behind_a_long_comment_is_waited_for() -> None:
    comment = b"<?xml version='1.0'?>\n<!--" + b" licence - " * 3000 + b"-->"
    for size in (1, 5, 22, 30, 512, 5000, len(comment) - 1, len(comment)):
        assert may_be_svg(comment[:size]), size
    assert not may_be_svg(comment + b"<html>")
    assert not may_be_svg(b"<!--" + b"x" * XML_PROLOG_BYTES)
    assert not may_be_svg(b"GIF89a")
    start = time.perf_counter()
    may_be_svg(b"<!-- <?" * 9000)
    sniff(b"<!---->" * 9000)
    assert time.perf_counter() - start < 2
