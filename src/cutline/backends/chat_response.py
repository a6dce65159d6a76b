"""Reading chat completions, in all the forms in which servers send them."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cutline.chat.answer_text import clean_characters, without_reasoning

_FILTERED = frozenset(
    """content_filter content_filtered safety image_safety recitation blocklist prohibited_content
    spii refusal sensitive guardrail_intervened moderation""".split()
)
_CUT = frozenset("length max_tokens max_output_tokens model_length max_length token_limit".split())
_TEXT_PARTS = ("text", "output_text", "")
_REASONING_PARTS = ("thinking", "reasoning", "redacted_thinking", "reasoning_text", "thought")
_QUOTED_CHARS = 300


@dataclass(frozen=True)
class Choice:
    """One answer of a chat model.

    Attributes:
        text: what it wrote, without reasoning.
        score: mean log-probability per token, nats; not a number if the server gives none.
        cut: whether it was cut off at a limit of tokens.
        reasoned: whether there was reasoning, in the text or beside it.
        refusal: why the model or a filter declined; "" if neither did.
        problem: why there is no text where that is the server's fault; "" otherwise.
    """

    text: str = ""
    score: float = math.nan
    cut: bool = False
    reasoned: bool = False
    refusal: str = ""
    problem: str = ""


@dataclass(frozen=True)
class ChatResponse:
    """A server's response to one request.

    Attributes:
        choices: the answers.
        error: the error it states although its status is 200; "" if none.
        status: the status that this error states, else 200.
        prompt_tokens, completion_tokens: as it counts them; None if it does not.
    """

    choices: tuple[Choice, ...] = ()
    error: str = ""
    status: int = 200
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def read_response(body: bytes, content_type: str = "") -> ChatResponse:
    """Read the body of a response with status 200, whatever its content type says.

    Args:
        body: the bytes.
        content_type: the header, used in messages alone.
    """
    text = _decode(body).strip()
    if not text:
        return ChatResponse(error="got an empty response; expected JSON")
    content = _parse(text)
    if content is _NO_JSON:
        kind = content_type.partition(";")[0].strip() or "text"
        return ChatResponse(error=f"got {kind} instead of JSON: {quote(text)}")
    return _read(content)


def error_message(body: bytes) -> str:
    """The message of an error response, in the server's own words, on one line."""
    text = _decode(body).strip()
    content = _parse(text)
    if content is _NO_JSON:
        return quote(text)
    return _message(content) or quote(text)


def refused_parameters(body: bytes, sent: Sequence[str]) -> list[str]:
    """Which of the optional parameters that were sent an error response complains about."""
    text = _decode(body)
    content = _parse(text)
    named: set[str] = set()
    for each in _walk(content):
        if isinstance(each.get("param"), str):
            named.add(str(each["param"]).partition(".")[0])
        place = each.get("loc")
        if isinstance(place, list):
            named.update(map(str, place))
    if found := [name for name in sent if name in named]:
        return found
    words = _message(content) if content is not _NO_JSON else text
    hints = {
        "n": r"['\"`]n['\"`]|\bn must\b|\bn ?[=>]|\bn\b(?= (?:is|should|parameter))"
        "|one completion choice"
        r"|multiple (?:choices|completions|candidates)|candidate_?count|number of (?:choices"
        r"|completions)"
        r"|best_of",
        "response_format": r"response_?format|json_?schema|structured output|guided|grammar"
        "|json mode",
        "logprobs": r"log_?prob",
        "max_tokens": r"max_tokens|max_output_tokens|maxOutputTokens",
        "max_completion_tokens": r"max_completion_tokens",
        "temperature": r"temperature",
        "top_p": r"top_?p\b|nucleus",
        "seed": r"\bseed\b",
    }
    return [name for name in sent if re.search(hints.get(name, rf"\b{name}\b"), words)]


def quote(text: str) -> str:
    """A server's words on one line, shortened; of a web page its title and headings."""
    if re.match(r"\s*(?:<!doctype html|<html|<head|<body)", text, re.IGNORECASE):
        parts = re.findall(r"<(title|h1|p)\b[^>]*>(.*?)</\1>", text, re.IGNORECASE | re.DOTALL)
        words = dict.fromkeys(re.sub(r"<[^>]+>", " ", part).strip() for _, part in parts)
        text = "a web page" + (f': "{html.unescape("; ".join(words))}"' if words else "")
    text = clean_characters(text)
    return text if len(text) <= _QUOTED_CHARS else f"{text[:_QUOTED_CHARS].rstrip()} …"


def _decode(body: bytes) -> str:
    """Text of a body: UTF-8, -16 or -32 as JSON may be, else Windows-1252."""
    try:
        return body.decode(json.detect_encoding(body))
    except UnicodeDecodeError:
        return body.decode("cp1252", "replace")


_NO_JSON = object()


def _parse(text: str) -> Any:
    """JSON, a stream of server-sent events, or lines of JSON; `_NO_JSON` if it is none of them."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    lines = [line.strip() for line in text.splitlines() if not line.startswith(":")]
    if text.startswith(":") and not any(line.startswith("data:") for line in lines):
        return _parse("\n".join(lines).strip())  # comments of a stream before a plain response
    events = [line[5:].strip() for line in lines if line.startswith("data:")]
    if not events and len(lines) > 1 and lines[0].startswith("{"):
        events = [line for line in lines if line]
    chunks = []
    for event in events:
        if event == "[DONE]":
            break
        try:
            chunks.append(json.loads(event))
        except (ValueError, RecursionError):
            continue
    return _joined([chunk for chunk in chunks if isinstance(chunk, dict)]) if chunks else _NO_JSON


def _joined(chunks: list[dict[str, Any]]) -> Any:
    """One response from the parts of a stream."""
    text: dict[str, str] = {}
    finish, usage = None, None
    for chunk in chunks:
        if chunk.get("error"):
            return chunk
        usage = chunk.get("usage") or usage
        choices = chunk.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else chunk
        if not isinstance(first, dict):
            continue
        finish = first.get("finish_reason") or chunk.get("done_reason") or finish
        delta = first.get("delta") or first.get("message") or first
        if isinstance(delta, dict):
            for name in ("content", "refusal", "reasoning", "reasoning_content"):
                part = delta.get(name)
                part = _flat(part)[0] if isinstance(part, list) else part
                if isinstance(part, str):
                    text[name] = text.get(name, "") + part
    return {"choices": [{"message": dict(text), "finish_reason": finish}], "usage": usage}


def _read(content: Any) -> ChatResponse:
    if isinstance(content, list) and len(content) == 1:
        [content] = content
    if not isinstance(content, dict):
        kind = "null" if content is None else type(content).__name__
        return ChatResponse(
            error=f"got JSON of another form ({kind}); expected an object with choices"
        )
    choices = content.get("choices")
    if choices is None and isinstance(content.get("message"), dict):  # Ollama's own API
        choices = [{"message": content["message"], "finish_reason": content.get("done_reason")}]
    prompt, completion = _usage(content.get("usage"))
    if not isinstance(choices, list) or not choices:
        if message := _message(content):
            return ChatResponse(error=message, status=_status(content))
        blocked = content.get("promptFeedback") or content.get("prompt_feedback")
        if isinstance(blocked, dict):
            reason = f"the prompt was blocked: {blocked.get('blockReason', 'no reason given')}"
            return ChatResponse((Choice(refusal=quote(reason)),), "", 200, prompt, completion)
        what = (
            "no choices"
            if "choices" in content
            else f"no choices among {', '.join(content) or 'nothing'}"
        )
        return ChatResponse(error=quote(f"got {what}; expected an answer"))
    if content.get("error") and not any(_has_text(each) for each in choices):
        return ChatResponse(error=_message(content), status=_status(content))
    for each in choices:
        if isinstance(each, dict) and each.get("error") and not _has_text(each):
            return ChatResponse(error=_message(each), status=_status(each))
    return ChatResponse(tuple(map(_choice, choices)), "", 200, prompt, completion)


def _has_text(choice: Any) -> bool:
    message = choice.get("message") if isinstance(choice, dict) else None
    return isinstance(message, dict) and bool(message.get("content"))


def _choice(choice: Any) -> Choice:
    if not isinstance(choice, dict):
        return Choice(problem="got a choice of another form; expected a message")
    message = choice.get("message")
    if message is None:
        message = choice.get("delta")
    if not isinstance(message, dict):
        content: Any = choice.get("text", message)
        message = {}
    else:
        content = message.get("content")
    finish = str(choice.get("finish_reason") or "").lower()
    declined = message.get("refusal")
    reasoned = any(message.get(name) for name in ("reasoning", "reasoning_content", "thinking"))
    if isinstance(content, list):
        declined = declined or _refusal_part(content)
        content, reasoned_part, odd = _flat(content)
        reasoned = reasoned or reasoned_part
        odd = "" if declined else odd
        if odd and not content:
            return Choice(problem=f"got content that is no text ({odd}); expected text")
    if content is not None and not isinstance(content, str):
        kind = type(content).__name__
        return Choice(
            problem=f"got content that is no text ({kind}: {quote(str(content))}); expected text"
        )
    text, reasoning_inside = without_reasoning(content or "")
    refusal = quote(declined if isinstance(declined, str) else _message(declined) or "refused")
    refusal = refusal if declined and refusal.strip() else ""
    if not refusal and (reason := _filtered(choice, finish, bool(text.strip()))):
        refusal = f"the server's content filter stopped the answer ({reason})"
    problem = ""
    if finish == "error" and not text:
        problem = "got finish_reason error; expected an answer"
    elif message.get("tool_calls") and not text.strip():
        problem = "got a call of a tool instead of text; expected an answer"
    return Choice(
        text,
        _score(choice.get("logprobs")),
        finish in _CUT,
        reasoned or reasoning_inside,
        refusal,
        problem,
    )


def _filtered(choice: Mapping[str, Any], finish: str, answered: bool) -> str:
    """What a content filter says of a choice; "" if it let the choice pass."""
    for reason in (finish, str(choice.get("native_finish_reason") or "").lower()):
        if reason in _FILTERED:
            return reason
    results = choice.get("content_filter_results")
    for name, result in results.items() if isinstance(results, dict) and not answered else ():
        if isinstance(result, dict) and result.get("filtered") is True:
            return quote(str(name))
    return ""


def _refusal_part(parts: Sequence[Any]) -> str:
    """The text of a part of the type "refusal"; "" if there is none."""
    for part in parts:
        if isinstance(part, dict) and part.get("type") == "refusal":
            return str(part.get("refusal") or part.get("text") or "refused")
    return ""


def _flat(parts: Sequence[Any]) -> tuple[str, bool, str]:
    """Parts of content -> their text, whether some are reasoning, and a kind that is no text."""
    texts, reasoned, odd = [], False, ""
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            kind = str(part.get("type", ""))
            value = part.get("text", part.get("content"))
            if kind in _REASONING_PARTS:
                reasoned = True
            elif kind in _TEXT_PARTS and isinstance(value, str):
                texts.append(value)
            else:
                odd = kind or "object"
        else:
            odd = type(part).__name__
    return "".join(texts), reasoned, odd


def _score(logprobs: Any) -> float:
    """The mean of the tokens' log-probabilities; not a number unless every one is usable."""
    values: list[Any] = []
    if isinstance(logprobs, dict):
        tokens = logprobs.get("content")
        if isinstance(tokens, list):
            values = [each.get("logprob") if isinstance(each, dict) else None for each in tokens]
        elif isinstance(logprobs.get("token_logprobs"), list):
            values = list(logprobs["token_logprobs"])
    elif isinstance(logprobs, list):
        values = [each.get("logprob") if isinstance(each, dict) else each for each in logprobs]
    usable = all(
        isinstance(value, int | float) and not isinstance(value, bool) and -1e6 < value <= 0.01
        for value in values
    )
    return math.fsum(values) / len(values) if values and usable else math.nan


def _usage(usage: Any) -> tuple[int | None, int | None]:
    if not isinstance(usage, dict):
        return None, None

    def count(*names: str) -> int | None:
        for name in names:
            value = usage.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9:
                return value
        return None

    return count("prompt_tokens", "input_tokens"), count("completion_tokens", "output_tokens")


def _message(content: Any) -> str:
    """The message of an error object, from any of the usual places."""
    found = _find_message(content)
    return quote(found) if found else ""


def _find_message(content: Any, depth: int = 0) -> str:
    if depth > 6:
        return ""
    if isinstance(content, str):
        if content[:1] in "{[" and (inner := _parse(content)) is not _NO_JSON:
            return _find_message(inner, depth + 1) or content
        return content
    if isinstance(content, list):
        found = [_find_message(each, depth + 1) for each in content[:5]]
        return "; ".join(filter(None, found))
    if not isinstance(content, Mapping):
        return ""
    for name in ("error", "errors", "message", "detail", "msg", "error_message", "title", "reason"):
        if found_here := _find_message(content.get(name), depth + 1):
            place = content.get("loc")
            where = f"{'.'.join(map(str, place))}: " if isinstance(place, list) else ""
            more = ""
            metadata = content.get("metadata")
            if isinstance(metadata, Mapping) and isinstance(metadata.get("raw"), str):
                more = _find_message(metadata["raw"], depth + 1)
            retry = next(
                (d["retryDelay"] for d in _walk(content) if isinstance(d.get("retryDelay"), str)),
                "",
            )
            delay = f" (try again in {retry})" if retry and depth == 1 else ""
            return f"{where}{found_here}{f': {more}' if more and more != found_here else ''}{delay}"
    code = content.get("code") or content.get("type")
    return str(code) if isinstance(code, str) else ""


def _status(content: Any) -> int:
    """The status that an error inside a 200 states: a number in `code` or `status`."""
    for each in _walk(content):
        for name in ("code", "status", "status_code", "http_status"):
            value = each.get(name)
            if isinstance(value, str) and value.isdigit():
                value = int(value)
            if isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600:
                return value
    words = _message(content).lower()
    if "rate limit" in words or "too many requests" in words:
        return 429
    return 503 if "overloaded" in words else 200


def _walk(content: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Every object inside, outermost first."""
    if depth > 6:
        return
    if isinstance(content, Mapping):
        yield content
        for value in content.values():
            yield from _walk(value, depth + 1)
    elif isinstance(content, list):
        for value in content[:20]:
            yield from _walk(value, depth + 1)
