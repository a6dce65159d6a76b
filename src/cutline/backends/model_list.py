"""Which models a server has, and which of them accept images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cutline.backends.chat_client import MAX_RESPONSE_BYTES
from cutline.backends.chat_response import error_message
from cutline.backends.servers import Server, parse_model, redact
from cutline.errors import (
    MissingExtraError,
    OptionError,
    ServerAccessError,
    ServerBusyError,
    ServerError,
)

_LIST_BYTES = 20 * MAX_RESPONSE_BYTES  # OpenRouter's list has some 1 MB
_TIMEOUT_S = 15.0
_NO_IMAGES = re.compile(
    r"embed|whisper|\btts\b|-tts|speech|transcri|moderation|rerank|dall-e|imagen|veo|guard|davinci|babbage"
    r"|realtime|audio|lyria|voxtral|\bocr\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RemoteModel:
    """A model as its server lists it.

    Attributes:
        name: what the server calls it.
        vision: whether it accepts images; None if the server does not say.
    """

    name: str
    vision: bool | None = None


def list_models(server: Server, timeout_s: float = _TIMEOUT_S) -> list[RemoteModel]:
    """The models of a server, by name.

    Asks `GET /models`, and for whether they see images Ollama's `/api/show`, LM Studio's
    `/api/v1/models` and llama.cpp's `/props`, as far as the server has them.

    Raises:
        MissingExtraError: httpx is not installed.
        ServerError: the server cannot be reached, rejects the key, or lists no models.
    """
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise MissingExtraError("a model behind a server", "server") from error
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if server.key:
        headers["Authorization"] = f"Bearer {server.key}"
    with httpx.Client(
        headers=headers,
        auth=server.credentials,
        timeout=timeout_s,
        trust_env=not server.is_local,
    ) as client:
        listed = _listed(client, server)
        details = _details(client, server, [str(each["id"]) for each in listed])
    found = {
        str(each["id"]).removeprefix("models/"): _vision(each, details.get(str(each["id"])))
        for each in listed
    }
    return [RemoteModel(name, vision) for name, vision in sorted(found.items())]


def find_model(name: str, *, key: str | None = None) -> tuple[Server, str]:
    """The server and the model that a name stands for; a server's only model needs no name.

    Args:
        name: `PROVIDER:NAME` or `URL#NAME`, in which NAME may be missing.
        key: the bearer token; None reads the environment.

    Raises:
        MissingExtraError: httpx is not installed.
        OptionError: the URL or the key cannot be used, or the server has several models or none.
        ServerError: no model is named and the server cannot be asked for one.
    """
    server, model = parse_model(name, key=key)
    if model:
        return server, model
    listed = list_models(server)
    found = [each.name for each in listed if each.vision is not False]
    if len(found) != 1:
        example = f"{name}NAME" if server.provider and "#" not in name else f"{name}#NAME"
        state = f"the server has {', '.join(found[:10])}"
        if not found:
            names = ", ".join(each.name for each in listed[:10])
            state = f"no model of the server accepts images ({names})"
        raise OptionError(f"got model {name}; expected {example}; {state}")
    return server, found[0]


def _listed(client: Any, server: Server) -> list[Mapping[str, Any]]:
    import httpx

    problem = ServerError(f"{server.label}: lists no models")
    for root in server.roots:
        try:
            status, body = _get(client, f"{root}/models", server)
        except httpx.HTTPError as error:
            words = redact(f"{type(error).__name__}: {error}", server.key)
            raise ServerBusyError(
                f"{server.label}: {words}; is the server running at {root}?"
            ) from error
        if status in (401, 403):
            raise ServerAccessError(
                f"{server.label}: HTTP {status}: {redact(error_message(body), server.key)}; "
                f"check the key in {server.key_variable}",
                status,
            )
        if status == 200 and (models := list(_entries(_json(body)))):
            return models
        words = redact(error_message(body), server.key)
        problem = ServerError(f"{server.label}: HTTP {status}: {words}; expected a list", status)
    raise problem


def _get(client: Any, url: str, server: Server, content: Any = None) -> tuple[int, bytes]:
    url = f"{url}?{server.query}" if server.query else url
    method = "GET" if content is None else "POST"
    with client.stream(method, url, json=content) as response:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _LIST_BYTES:
                break
        return response.status_code, bytes(body)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _entries(content: Any) -> Iterator[Mapping[str, Any]]:
    """The list's objects with an `id`: OpenAI's form, llama.cpp's and Ollama's, or a bare list."""
    entries = content
    if isinstance(content, Mapping):
        entries = content.get("data", content.get("models", []))
    for each in entries if isinstance(entries, list) else []:
        if isinstance(each, str):
            yield {"id": each}
        elif isinstance(each, Mapping):
            name = each.get("id") or each.get("name") or each.get("model") or each.get("key")
            if isinstance(name, str) and name:
                yield {**each, "id": name}


def _details(client: Any, server: Server, names: list[str]) -> dict[str, Any]:
    """What native endpoints say of each model; those that a server lacks say nothing."""
    import httpx

    if not (server.is_local or server.provider in ("ollama", "lmstudio", "llamacpp")):
        return {}
    parts = urlsplit(server.roots[0])
    base = f"{parts.scheme}://{parts.netloc}"
    found: dict[str, Any] = {}
    try:
        for path in ("/api/v1/models", "/api/v0/models"):
            status, body = _get(client, f"{base}{path}", server)
            if status == 200 and not found:
                found.update({str(each["id"]): each for each in _entries(_json(body))})
        status, body = _get(client, f"{base}/props", server)
        props = _json(body)
        if status == 200 and isinstance(props, Mapping) and "modalities" in props:
            found.update(dict.fromkeys(names, props))
        for name in names:
            if name in found:
                continue
            status, body = _get(client, f"{base}/api/show", server, {"model": name})
            if status == 404:
                break
            shown = _json(body)
            if status == 200 and isinstance(shown, Mapping):
                found[name] = shown
    except httpx.HTTPError:
        pass
    return found


def _vision(listed: Mapping[str, Any], details: Any) -> bool | None:
    for source in (details, listed):
        if isinstance(source, Mapping) and (found := _stated_vision(source)) is not None:
            return found
    return False if _NO_IMAGES.search(str(listed["id"])) else None


def _stated_vision(source: Mapping[str, Any]) -> bool | None:
    capabilities = source.get("capabilities")
    if isinstance(capabilities, Mapping) and isinstance(capabilities.get("vision"), bool):
        return bool(capabilities["vision"])
    if isinstance(capabilities, list) and capabilities:
        return bool({"vision", "multimodal", "image"} & set(map(str, capabilities)))
    modalities = source.get("modalities")
    if isinstance(modalities, Mapping) and isinstance(modalities.get("vision"), bool):
        return bool(modalities["vision"])
    architecture = source.get("architecture")
    inputs = source.get("input_modalities")
    if isinstance(architecture, Mapping):
        inputs = architecture.get("input_modalities", inputs)
    if isinstance(inputs, list) and inputs:
        return any(str(each).lower() in ("image", "vision") for each in inputs)
    if source.get("type") in ("vlm", "llm", "embeddings"):
        return bool(source["type"] == "vlm")
    return None
