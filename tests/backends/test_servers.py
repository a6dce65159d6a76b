from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Reply

from cutline.backends import is_bundle
from cutline.backends.model_list import RemoteModel, list_models
from cutline.backends.retry import RetryOptions, backoff, retry_after
from cutline.backends.servers import (
    PROVIDERS,
    key_from_file,
    parse_model,
    parse_url,
    redact,
)
from cutline.errors import OptionError, ServerAccessError, ServerError


@pytest.mark.parametrize(
    ("name", "roots", "model"),
    [
        ("ollama:llava:7b", ("http://localhost:11434/v1",), "llava:7b"),
        ("OLLAMA:llava", ("http://localhost:11434/v1",), "llava"),
        ("lmstudio:qwen2.5-vl", ("http://localhost:1234/v1",), "qwen2.5-vl"),
        ("llamacpp:", ("http://localhost:8080/v1",), ""),
        ("vllm:Qwen/Qwen2.5-VL-3B", ("http://localhost:8000/v1",), "Qwen/Qwen2.5-VL-3B"),
        ("openai:gpt-5-mini", ("https://api.openai.com/v1",), "gpt-5-mini"),
        ("openrouter:a/b:free", ("https://openrouter.ai/api/v1",), "a/b:free"),
        (
            "gemini:gemini-2.5-flash",
            ("https://generativelanguage.googleapis.com/v1beta/openai",),
            "gemini-2.5-flash",
        ),
        ("mistral:pixtral", ("https://api.mistral.ai/v1",), "pixtral"),
        ("groq:llama", ("https://api.groq.com/openai/v1",), "llama"),
        ("http://h:1/v1#m", ("http://h:1/v1",), "m"),
        ("http://h:1/v1/#m", ("http://h:1/v1",), "m"),
        (" http://h:1/v1 # m ", ("http://h:1/v1",), "m"),
        ("http://h:1#a/b#c", ("http://h:1/v1", "http://h:1"), "a/b#c"),
        ("HTTP://HOST.Example:1/V1#M", ("http://host.example:1/v1",), "M"),
        ("https://h:443/v1#m", ("https://h/v1",), "m"),
        ("http://[::1]:8080#m", ("http://[::1]:8080/v1", "http://[::1]:8080"), "m"),
        ("http://h/v1/chat/completions#m", ("http://h/v1",), "m"),
        ("http://h/v1//chat/completions/#m", ("http://h/v1",), "m"),
        ("http://h/api/chat#m", ("http://h/v1", "http://h"), "m"),
        ("http://h/proxy#m", ("http://h/proxy", "http://h/proxy/v1"), "m"),
        ("http://h/v1/models#m", ("http://h/v1",), "m"),
    ],
)
def test_names_give_a_server_and_a_model(name: str, roots: tuple[str, ...], model: str) -> None:
    server, found = parse_model(name, environment={})
    assert (server.roots, found) == (roots, model)
    assert not is_bundle(name)


@pytest.mark.parametrize("name", ["flickr8k-lite2-v1", "./ollama", "C:/models/x", "ftp:x", None])
def test_other_names_are_bundles(name: str | None) -> None:
    assert is_bundle(name)


@pytest.mark.parametrize(
    ("address", "root"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000/v1"),
        (":8000", "http://127.0.0.1:8000/v1"),
        ("box", "http://box:11434/v1"),
        ("::1", "http://[::1]:11434/v1"),
        ("https://box.example/ollama", "https://box.example/ollama"),
    ],
)
def test_the_variable_ollama_host_sets_the_address(address: str, root: str) -> None:
    server, _ = parse_model("ollama:llava", environment={"OLLAMA_HOST": address})
    assert server.roots[0] == root


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:1", True),
        ("http://LOCALHOST.:1", True),
        ("http://127.0.0.1", True),
        ("http://127.1.2.3", True),
        ("http://[::1]", True),
        ("http://[::ffff:127.0.0.1]", True),
        ("http://0.0.0.0:1", True),
        ("http://ollama.localhost", True),
        ("http://host.docker.internal", True),
        ("http://192.168.1.5", False),
        ("http://localhost.example.org", False),
        ("http://127.0.0.1.example.org", False),
        ("https://api.openai.com", False),
        ("http://localhost@example.org", False),
    ],
)
def test_which_servers_are_on_this_machine(url: str, local: bool) -> None:
    assert parse_url(url).is_local is local


@pytest.mark.parametrize(
    "url", ["http://", "ftp://h", "http://h:port", "http://h:99999", "http://[::1", "http://a b"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(OptionError, match="expected a URL"):
        parse_url(url)


def test_a_key_in_a_url_is_refused_and_not_shown() -> None:
    for query in ("key=abcdef", "a=1&api_key=abcdef", "access_token=abcdef"):
        with pytest.raises(OptionError, match="CUTLINE_API_KEY") as caught:
            parse_url(f"https://h/v1?{query}")
        assert "abcdef" not in str(caught.value)
    server = parse_url("https://h/openai/deployments/x?api-version=2024-10-21")
    assert server.query == "api-version=2024-10-21"
    assert "2024" not in server.label


@pytest.mark.parametrize(
    ("name", "environment", "key"),
    [
        ("openai:m", {"OPENAI_API_KEY": "sk-1\n", "CUTLINE_API_KEY": "other"}, "sk-1"),
        ("openai:m", {"CUTLINE_API_KEY": "other"}, "other"),
        ("https://api.openai.com/v1#m", {"OPENAI_API_KEY": "sk-1"}, "sk-1"),
        ("http://h#m", {"CUTLINE_API_KEY": "'Bearer abc'", "OPENAI_API_KEY": "sk-1"}, "abc"),
        ("http://h#m", {"OPENAI_API_KEY": "sk-1"}, ""),
        ("https://api.openai.com.evil.example/v1#m", {"OPENAI_API_KEY": "sk-1"}, ""),
        ("gemini:m", {"GOOGLE_API_KEY": "g-1"}, "g-1"),
        ("ollama:m", {}, ""),
    ],
)
def test_keys_come_from_the_variables_of_the_provider(
    name: str, environment: dict[str, str], key: str
) -> None:
    server, _ = parse_model(name, environment=environment)
    assert server.key == key
    assert not key or key not in repr(server)


def test_a_key_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text('\ufeff# mine\n\n  OPENAI_API_KEY="sk-abc"  \n', "utf-8")
    assert key_from_file(file) == "sk-abc"
    server, _ = parse_model("openai:m", environment={"OPENAI_API_KEY_FILE": str(file)})
    assert server.key == "sk-abc"
    file.write_text("one\ntwo\n")
    with pytest.raises(OptionError, match="2 lines"):
        key_from_file(file)
    file.write_text("two words\n")
    with pytest.raises(OptionError, match="expected one word") as caught:
        key_from_file(file)
    assert "two words" not in str(caught.value)
    with pytest.raises(OptionError, match="No such file"):
        key_from_file(tmp_path / "none")


def test_words_of_a_server_lose_keys() -> None:
    words = "Incorrect API key provided: sk-proj-abc***xyz. Bearer abc.def and mine"
    assert redact(words, "mine") == "Incorrect API key provided: *** Bearer *** and ***"


def test_every_provider_is_reached_by_https_or_is_local() -> None:
    for provider in PROVIDERS.values():
        server, _ = parse_model(f"{provider.name}:m", environment={})
        assert server.is_local != provider.url.startswith("https://")


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after": "3"}, "", 3),
        ({"retry-after": "0.5"}, "", 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, "", 0.25),
        ({"retry-after": "Mon, 02 Jan 2040 00:00:10 GMT"}, "", 10),
        ({"retry-after": "Sun, 01 Jan 2040 00:00:10 GMT"}, "", 0),
        ({"retry-after": "-5"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "soon"}, "", None),
        ({}, "Please try again in 7.66s.", 7.66),
        ({}, "Please try again in 250ms.", 0.25),
        ({}, "try again in 1m2.5s", 62.5),
        ({}, "retry in 2 minutes", 120),
        ({}, '"retryDelay": "32s"', 32),
        ({}, "try again later", None),
    ],
)
def test_how_long_a_server_asks_to_wait(
    headers: dict[str, str], message: str, seconds: float | None
) -> None:
    now = datetime(2040, 1, 2, tzinfo=UTC)
    assert retry_after(headers, message, now) == seconds


def test_waits_double_up_to_a_limit() -> None:
    options = RetryOptions(first_s=1, longest_s=5)
    assert [backoff(n, options, lambda: 1.0) for n in range(5)] == [1, 2, 4, 5, 5]
    assert backoff(1, options, lambda: 0.0) == 1
    with pytest.raises(OptionError):
        RetryOptions(attempts=0)


# Lists of models.


@pytest.mark.parametrize(
    ("entries", "vision"),
    [
        ([{"id": "m"}], None),
        ([{"id": "m", "capabilities": {"vision": True}}], True),
        ([{"id": "m", "capabilities": ["completion"]}], False),
        ([{"id": "m", "architecture": {"input_modalities": ["text", "image"]}}], True),
        ([{"id": "m", "input_modalities": ["text"]}], False),
        ([{"id": "m", "type": "vlm"}], True),
    ],
)
def test_models_of_a_server(server: ChatServer, entries: Any, vision: bool | None) -> None:
    server.lists["/v1/models"] = {"data": entries}
    assert list_models(parse_url(server.root)) == [RemoteModel("m", vision)]


def test_what_ollama_says_of_its_models(server: ChatServer) -> None:
    server.lists["/v1/models"] = {"data": [{"id": "sees"}, {"id": "reads"}]}
    server.lists["/api/show"] = lambda asked: Reply(
        body={"capabilities": ["completion", "vision"] if asked["model"] == "sees" else ["tools"]}
    )
    assert list_models(parse_url(server.root)) == [
        RemoteModel("reads", False),
        RemoteModel("sees", True),
    ]


def test_what_llamacpp_says_of_its_model(server: ChatServer) -> None:
    server.lists["/v1/models"] = {"models": [{"name": "m.gguf"}]}
    server.lists["/props"] = {"modalities": {"vision": True}}
    assert list_models(parse_url(server.root)) == [RemoteModel("m.gguf", True)]


def test_servers_without_a_list(server: ChatServer) -> None:
    with pytest.raises(ServerError, match="HTTP 404"):
        list_models(parse_url(server.root))
    with pytest.raises(ServerError, match="is the server running"):
        list_models(parse_url("http://127.0.0.1:9"), timeout_s=2)


def test_a_list_that_needs_a_key(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from cutline.backends import model_list

    monkeypatch.setattr(model_list, "_get", lambda *_: (401, b'{"error": "no key"}'))
    with pytest.raises(ServerAccessError, match="HTTP 401: no key; check the key in CUTLINE"):
        list_models(parse_url(server.root))
