"""Addresses of model servers: `ollama:llava`, `openai:gpt-5-mini` or `http://HOST/v1#NAME`."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from cutline.errors import OptionError

KEY_VARIABLE = "CUTLINE_API_KEY"
"""The environment variable for the key of a server that is named by its URL."""

KEY_FILE_VARIABLE = "CUTLINE_API_KEY_FILE"
"""The environment variable for the path of a file that holds the key."""

_ENDPOINT = re.compile(
    r"/+(?:chat/completions|completions|responses|models|messages|api/(?:chat|generate|tags))/*$",
    re.IGNORECASE,
)
_VERSION = re.compile(r"/v\d+[a-z]*\d*(?:/|$)", re.IGNORECASE)
_KEY_PARAMETER = re.compile(
    r"(?:^|[&_.-])(?:key|api_?key|token|secret|password|sig)=", re.IGNORECASE
)
_LOCAL_NAMES = ("localhost", "host.docker.internal", "host.containers.internal")


@dataclass(frozen=True)
class Provider:
    """A kind of server with a usual address.

    Attributes:
        name: the prefix of a model's name, as in `ollama:llava`.
        title: what people call it.
        url: the root of its OpenAI-compatible API.
        key_variables: environment variables that may hold its key, in order.
        address_variable: an environment variable that replaces `url`; "" if there is none.
        needs_key: whether it refuses requests without a key.
    """

    name: str
    title: str
    url: str
    key_variables: tuple[str, ...] = ()
    address_variable: str = ""
    needs_key: bool = True


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            "ollama",
            "Ollama",
            "http://localhost:11434/v1",
            ("OLLAMA_API_KEY",),
            "OLLAMA_HOST",
            needs_key=False,
        ),
        Provider(
            "lmstudio",
            "LM Studio",
            "http://localhost:1234/v1",
            ("LM_API_TOKEN", "LMSTUDIO_API_KEY"),
            needs_key=False,
        ),
        Provider(
            "llamacpp",
            "llama.cpp",
            "http://localhost:8080/v1",
            ("LLAMA_API_KEY",),
            needs_key=False,
        ),
        Provider("vllm", "vLLM", "http://localhost:8000/v1", ("VLLM_API_KEY",), needs_key=False),
        Provider(
            "openai",
            "OpenAI",
            "https://api.openai.com/v1",
            ("OPENAI_API_KEY",),
            "OPENAI_BASE_URL",
        ),
        Provider(
            "openrouter", "OpenRouter", "https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)
        ),
        Provider(
            "gemini",
            "Gemini",
            "https://generativelanguage.googleapis.com/v1beta/openai",
            ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        ),
        Provider("mistral", "Mistral", "https://api.mistral.ai/v1", ("MISTRAL_API_KEY",)),
        Provider("groq", "Groq", "https://api.groq.com/openai/v1", ("GROQ_API_KEY",)),
    )
}
"""The servers that have a short name."""


@dataclass(frozen=True)
class Server:
    """Where a server is and how to reach its API.

    Attributes:
        roots: URLs below which `chat/completions` may be, in the order in which they are tried.
        query: the URL's query, sent with every request; "" if there is none.
        credentials: user and password of the URL, for basic authentication; None if it has none.
        key: the bearer token; "" if there is none. Never part of a message, name or record.
        key_variable: the environment variable to name when the server asks for a key.
        provider: the provider's name; "" for a server that is named by its URL.
    """

    roots: tuple[str, ...]
    query: str = ""
    credentials: tuple[str, str] | None = None
    key: str = ""
    key_variable: str = KEY_VARIABLE
    provider: str = ""

    def __repr__(self) -> str:
        return f"Server({self.roots[0]!r})"

    @property
    def host(self) -> str:
        """Host and port as in the URL."""
        return urlsplit(self.roots[0]).netloc

    @property
    def label(self) -> str:
        """Host, port and path, as in a model's name."""
        return self.roots[0].partition("//")[2]

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this machine, so that images do not leave it."""
        name = (urlsplit(self.roots[0]).hostname or "").rstrip(".")
        if name in _LOCAL_NAMES or name.endswith(".localhost"):
            return True
        try:
            address = ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback or address.is_unspecified


def is_server(model: object) -> bool:
    """Whether a model's name is that of a model behind a server."""
    if not isinstance(model, str):
        return False
    prefix, colon, _ = model.lstrip().partition(":")
    return bool(colon) and prefix.lower() in ("http", "https", *PROVIDERS)


def parse_model(
    name: str, *, key: str | None = None, environment: Mapping[str, str] | None = None
) -> tuple[Server, str]:
    """Split a model's name into the server and what the server calls the model.

    Args:
        name: `PROVIDER:NAME` or `URL#NAME`.
        key: the bearer token; None reads the environment.
        environment: the environment variables; None takes the process's own.

    Returns:
        The server and the model. The model is "" if the name has none.

    Raises:
        OptionError: the URL or the key cannot be used.
    """
    environment = os.environ if environment is None else environment
    name = name.strip()
    prefix, _, rest = name.partition(":")
    provider = PROVIDERS.get(prefix.lower())
    if provider is not None:
        url, model = provider.url, rest.strip()
        if provider.address_variable and (
            address := environment.get(provider.address_variable, "")
        ):
            url = _with_default_port(address.strip(), provider.url)
    else:
        url, _, model = name.partition("#")
        model = model.strip()
        provider = _provider_at(url)
        if provider is not None and prefix.lower() in PROVIDERS:
            provider = None
    server = parse_url(url)
    variables = (*(provider.key_variables if provider else ()), KEY_VARIABLE)
    if provider is None or prefix.lower() not in PROVIDERS:
        variables = (KEY_VARIABLE, *variables[:-1])
    found = read_key(variables, environment) if key is None else clean_key(key, "the key")
    return (
        Server(
            server.roots,
            server.query,
            server.credentials,
            found,
            variables[0],
            provider.name if provider else "",
        ),
        model,
    )


def parse_url(url: str) -> Server:
    """The server at a URL: with or without `/v1`, a full endpoint's path, IPv6, in any case.

    Raises:
        OptionError: it is not an HTTP URL with a host, or it holds a key.
    """
    url = url.strip()
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise OptionError(f"got the server {_shown(url)}: {error}; expected a URL") from error
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f]", url):
        raise OptionError(f"got the server {_shown(url)}; expected a URL such as http://HOST/v1")
    if _KEY_PARAMETER.search(parts.query):
        raise OptionError(
            f"got a key in the URL of {host}; expected it in the environment: set {KEY_VARIABLE} "
            "and remove it from the URL"
        )
    credentials = None
    if parts.username is not None:
        credentials = unquote(parts.username), unquote(parts.password or "")
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != {"http": 80, "https": 443}[scheme]:
        netloc = f"{netloc}:{port}"
    path = re.sub(r"/{2,}", "/", parts.path)
    endpoint = _ENDPOINT.search(path)
    path = (path[: endpoint.start()] if endpoint else path).rstrip("/")
    path = re.sub(r"/(v\d)$", lambda found: found[0].lower(), path, flags=re.IGNORECASE)
    paths = [path]
    if not path:
        paths = ["/v1", ""]
    elif not _VERSION.search(path):
        paths = [path, f"{path}/v1"]
    roots = tuple(urlunsplit((scheme, netloc, each, "", "")) for each in paths)
    return Server(roots, parts.query, credentials)


def read_key(variables: tuple[str, ...], environment: Mapping[str, str]) -> str:
    """The key from the first of these variables, or from the file that `NAME_FILE` names.

    Raises:
        OptionError: the file cannot be read, or the key is not one word.
    """
    for variable in variables:
        if value := environment.get(variable, "").strip():
            return clean_key(value, variable)
        if path := environment.get(f"{variable}_FILE", "").strip():
            return key_from_file(Path(path))
    return ""


def key_from_file(path: Path) -> str:
    """The key in a file: its only line that is neither empty nor a comment.

    Raises:
        OptionError: the file cannot be read, or holds no single key.
    """
    try:
        text = path.expanduser().read_text("utf-8-sig")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise OptionError(f"got the key file {path}: {why}; expected one line, the key") from error
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if len(keys) != 1:
        raise OptionError(f"got the key file {path} with {len(keys)} lines; expected one, the key")
    return clean_key(keys[0], str(path))


def clean_key(text: str, where: str) -> str:
    """A key without spaces, quotes and "Bearer" around it.

    Raises:
        OptionError: what is left is not one word of printable ASCII. The message never shows it.
    """
    key = text.strip().strip("\"'").strip()
    key = re.sub(r"^(?:export\s+)?[A-Z][A-Z0-9_]*=[\"']?", "", key)
    key = re.sub(r"^bearer\s+", "", key, flags=re.IGNORECASE).strip()
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise OptionError(f"got a key in {where} with spaces or odd characters; expected one word")
    return key


def redact(text: str, key: str = "") -> str:
    """A server's words without the key or anything that looks like one."""
    if key:
        text = text.replace(key, "***")
    return _KEY_LIKE.sub("***", text)


_KEY_LIKE = re.compile(
    r"\b(?:sk|gsk|xai)[-_][\w*.…-]{2,}"
    r"|\b(?:hf|pk|rk)[-_][\w*-]{8,}|\bAIza[\w*-]{3,}|(?<=Bearer )\S+"
)


def _provider_at(url: str) -> Provider | None:
    """The hosted provider at a URL's host; None for local ports."""
    host = (urlsplit(url).hostname or "") if "://" in url else ""
    for provider in PROVIDERS.values():
        if provider.needs_key and urlsplit(provider.url).hostname == host.lower():
            return provider
    return None


def _with_default_port(address: str, usual: str) -> str:
    """An address as in OLLAMA_HOST: a host or a port may be missing; 0.0.0.0 is this machine."""
    scheme, separator, rest = address.rpartition("://")
    scheme = scheme or "http"
    if rest.startswith(":") and not rest.startswith("::"):
        rest = f"127.0.0.1{rest}"
    host, slash, path = rest.partition("/")
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    if not separator and not re.search(r":\d+$", host):
        host = f"{host}:{urlsplit(usual).port or 80}"
    host = re.sub(r"^0\.0\.0\.0(?=:|$)", "127.0.0.1", host)
    return f"{scheme}://{host}{slash}{path}"


def _shown(url: str) -> str:
    """A URL for a message, without credentials and query."""
    return repr(re.sub(r"//[^/@]*@", "//", url.partition("?")[0]))
