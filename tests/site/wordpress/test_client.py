from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fake_wordpress import SITE, FakeWordPress

from cutline.errors import FetchError, OptionError
from cutline.site.wordpress.credentials import Credentials, origin, site_address


@pytest.mark.parametrize("pretty", [True, False])
def test_routes_with_and_without_pretty_permalinks(pretty: bool) -> None:
    fake = FakeWordPress(pretty=pretty)
    with fake.api() as api:
        assert api.get("/wp/v2/users/me", context="edit")["name"] == "Ada"
    url = fake.requests[-1].url
    assert (url.path, url.params.get("rest_route")) == (
        ("/wp-json/wp/v2/users/me", None) if pretty else ("/", "/wp/v2/users/me")
    )
    assert url.params["context"] == "edit"


def test_api_is_found_without_link_header_and_in_a_folder() -> None:
    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/blog/":
            return httpx.Response(200, text="<html></html>")
        if request.url.path == "/blog/wp-json/":
            index = {"namespaces": ["wp/v2"], "authentication": {"application-passwords": {}}}
            return httpx.Response(200, json=index)
        return httpx.Response(404)

    fake = FakeWordPress(before=answer)
    with fake.api("https://example.org/blog") as api:
        assert api.site == "https://example.org/blog/"


def test_api_that_is_hidden_from_visitors() -> None:
    def hide(request: httpx.Request) -> httpx.Response | None:
        if "wp-json" in request.url.path and "authorization" not in request.headers:
            return httpx.Response(401, json={"code": "rest_login_required"})
        return None

    with FakeWordPress(before=hide).api() as api:
        assert api.get("/wp/v2/users/me")["id"] == 1
    with pytest.raises(FetchError, match="switched off or only for members"):
        FakeWordPress(
            before=lambda request: httpx.Response(403 if "wp-json" in request.url.path else 200)
        ).api()


def test_password_is_not_sent_before_the_api_is_known_nor_shown() -> None:
    fake = FakeWordPress()
    with fake.api() as api:
        assert all("authorization" not in request.headers for request in fake.requests)
        api.get("/wp/v2/users/me")
        assert fake.requests[-1].headers["authorization"].startswith("Basic ")
    credentials = Credentials("ada", "secret word")
    assert "secret" not in repr(credentials) + str(credentials)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://localhost.example.org/",
        "http://127.0.0.1.example.org/",
        "http://192.168.1.4/",
        "ftp://example.org/",
        "https://ada:secret@example.org/",
        "https:///",
    ],
)
def test_addresses_that_get_no_password(url: str) -> None:
    with pytest.raises(OptionError) as error:
        site_address(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("example.org", "https://example.org/"),
        ("https://example.org/blog/wp-admin/edit.php?x=1", "https://example.org/blog/"),
        ("https://example.org/index.php", "https://example.org/"),
        ("http://localhost:8080", "http://localhost:8080/"),
        ("http://127.0.0.1/wp", "http://127.0.0.1/wp/"),
        ("http://[::1]:81/", "http://[::1]:81/"),
    ],
)
def test_site_addresses(url: str, expected: str) -> None:
    assert site_address(url) == expected


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "https://example.org:8443/", "http://example.org/x"]
)
def test_password_is_not_sent_to_where_the_api_redirects(target: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith("/users/me"):
            return httpx.Response(307, headers={"Location": target})
        return None

    fake = FakeWordPress(before=answer)
    with fake.api() as api, pytest.raises(FetchError, match="redirects to"):
        api.get("/wp/v2/users/me")
    assert {origin(str(request.url)) for request in fake.requests} == {"https://example.org"}


def test_site_that_redirects_to_another_host_is_refused_and_www_is_not() -> None:
    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.host == "example.org":
            return httpx.Response(301, headers={"Location": target})
        return None

    target = "https://other.example/"
    with pytest.raises(FetchError, match="redirects to https://other"):
        FakeWordPress(before=answer).api()
    target = "https://www.example.org/"
    with FakeWordPress(before=answer).api() as api:
        assert api.site == target


def test_api_at_another_origin_is_refused() -> None:
    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/":
            link = '<https://evil.example/wp-json/>; rel="https://api.w.org/"'
            return httpx.Response(200, text="", headers={"Link": link})
        return httpx.Response(404)

    with pytest.raises(FetchError, match="its API is at another address"):
        FakeWordPress(before=answer).api()


def test_sites_without_wordpress_or_application_passwords() -> None:
    with pytest.raises(FetchError, match="no WordPress REST API"):
        FakeWordPress(before=lambda request: httpx.Response(200, text="hello")).api()
    with pytest.raises(FetchError, match="accepts no application passwords; they need HTTPS"):
        FakeWordPress(passwords=False).api()


def test_busy_servers_are_asked_again_when_they_say() -> None:
    answers = [
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(503),
        httpx.ConnectError("refused"),
    ]

    def answer(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/users/me") or not answers:
            return None
        made = answers.pop(0)
        if isinstance(made, Exception):
            raise made
        return made

    fake = FakeWordPress(before=answer)
    with fake.api() as api:
        assert api.get("/wp/v2/users/me")["id"] == 1
        assert fake.waits[0] == 7
        assert len(fake.waits) == 3
        assert fake.waits[1] < fake.waits[2]


def test_server_that_asks_for_an_hour_ends_the_run() -> None:
    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith("/me"):
            return httpx.Response(429, headers={"Retry-After": "3600"})
        return None

    fake = FakeWordPress(before=answer)
    with fake.api() as api, pytest.raises(FetchError, match="come back in 3600 s"):
        api.get("/wp/v2/users/me")
    assert fake.waits == []


def test_write_is_not_repeated_after_a_timeout() -> None:
    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST":
            raise httpx.ReadTimeout("late", request=request)
        return None

    fake = FakeWordPress(before=answer)
    with fake.api() as api, pytest.raises(FetchError) as error:
        api.post("/wp/v2/posts/1", {"content": "x"})
    assert error.value.code == "timeout"
    assert [request.method for request in fake.requests].count("POST") == 1


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "incorrect_password", "the login password does not work"),
        (401, "rest_not_logged_in", "drops the Authorization header"),
        (403, "rest_cannot_edit", "'ada' has no permission"),
        (404, "rest_post_invalid_id", "not there"),
        (400, "rest_invalid_param", "leave out --drafts and --private"),
        (403, "", "firewall before WordPress"),
        (500, "", "server failed"),
    ],
)
def test_errors_in_plain_words(status: int, code: str, expected: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith("/me"):
            message = "<b>Sorry</b>, no: status."
            return httpx.Response(status, json={"code": code, "message": message})
        return None

    fake = FakeWordPress(before=answer)
    with fake.api() as api, pytest.raises(FetchError, match=expected) as error:
        api.get("/wp/v2/users/me")
    assert error.value.status == status
    assert "secret" not in str(error.value)
    assert "<b>" not in str(error.value)


def test_pages_of_100_and_one_that_vanishes() -> None:
    fake = FakeWordPress()
    for id in range(1, 251):
        fake.add_image(id, f"{id}.jpg")
    with fake.api() as api:
        found = [(number, total, len(items)) for number, total, items in api.pages("/wp/v2/media")]
        assert found == [(1, 3, 100), (2, 3, 100), (3, 3, 50)]
        assert [number for number, _, _ in api.pages("/wp/v2/media", first=3)] == [3]
        assert list(api.pages("/wp/v2/media", first=4)) == []


def test_text_that_a_plugin_prints_before_the_json_is_ignored() -> None:
    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith("/me"):
            return httpx.Response(200, text='\ufeff<br>Notice: old plugin\n{"id": 3}')
        return None

    with FakeWordPress(before=answer).api() as api:
        assert api.get("/wp/v2/users/me") == {"id": 3}


def test_credentials_from_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("\ufeffabcd efgh ijkl\n\n", "utf-8")
    environment = {"CUTLINE_WORDPRESS_USER": "bob", "CUTLINE_WORDPRESS_PASSWORD": "other"}
    assert Credentials.find("ada", file, {}) == Credentials("ada", "abcd efgh ijkl")
    assert Credentials.find(None, None, environment) == Credentials("bob", "other")
    assert Credentials.find("ada", file, environment) == Credentials("ada", "abcd efgh ijkl")
    file.write_text("zebra\nyak\n")
    for user, path in [("ada", file), ("ada", tmp_path / "none"), ("ada", None), (None, file)]:
        with pytest.raises(OptionError) as error:
            Credentials.find(user, path, {})
        assert "zebra" not in str(error.value)


def test_the_site_is_the_address_that_was_given() -> None:
    assert FakeWordPress().api().site == SITE
