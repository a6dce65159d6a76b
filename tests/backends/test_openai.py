from __future__ import annotations

import io
import json
import math
import threading
import time as real_time
from pathlib import Path
from typing import Any

import chat_server
import pytest
from chat_server import DOG, Asked, ChatServer, Reply, chat, error
from conftest import scene
from PIL import Image
from PIL.ExifTags import IFD, Base

import cutline
from cutline.backends.chat_client import ConnectionOptions
from cutline.backends.retry import Budget, RetryOptions
from cutline.caption import CaptionOptions, InContext
from cutline.errors import (
    BudgetError,
    EngineError,
    ImageError,
    ImageTooLargeError,
    OptionError,
    RefusalError,
    ServerAccessError,
    ServerBusyError,
    ServerError,
)
from cutline.image import Limits
from cutline.options import SearchOptions


def test_a_server_captions_like_any_other_model(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUTLINE_API_KEY", " Bearer secret-word \n")
    scene(1600, 900).save(tmp_path / "large.jpg")
    name = server("plain", lambda asked: chat(f'"A picture\n{asked.picture.width} wide."'))
    model = cutline.load(name)
    caption = model.caption(tmp_path / "large.jpg")
    assert caption.text == "A picture 768 wide."
    assert math.isnan(caption.score)
    assert caption.model == model.name == f"plain@127.0.0.1:{server.port}/v1"
    assert caption.source == str(tmp_path / "large.jpg")
    [asked] = server.asked
    assert asked.headers["Authorization"] == "Bearer secret-word"
    assert set(asked.body) == {"model", "messages"}
    assert "at most 25 words" in asked.prompt


def test_options_that_were_set_are_sent_and_no_others(server: ChatServer, connect: Any) -> None:
    model = connect(server("params", chat()))
    search = SearchOptions(beam_size=1, temperature=0.5, seed=3, max_tokens=7, top_p=0.8)
    model.caption(InContext(scene(), "The  farm"), CaptionOptions(search, scores=True))
    body = server.asked[0].body
    assert body["temperature"] == 0.5
    assert (body["seed"], body["top_p"], body["max_tokens"]) == (3, 0.8, 28)
    assert body["logprobs"] is True
    assert "n" not in body
    assert "at most 7 words" in server.asked[0].prompt
    assert "The farm" in server.asked[0].prompt


@pytest.mark.parametrize(("seed", "sent"), [(None, None), (0, 0), (3, 3)])
def test_a_seed_is_sent_if_it_was_set_even_if_it_is_0(
    seed: int | None, sent: int | None, server: ChatServer, connect: Any
) -> None:
    model = connect(server("params", chat()))
    model.caption(scene(), CaptionOptions(SearchOptions(temperature=0.5, seed=seed)))
    assert server.asked[0].body.get("seed") == sent


def test_many_come_in_order_and_a_bad_one_is_an_item(server: ChatServer, connect: Any) -> None:
    model = connect(
        server("widths", lambda asked: chat(f"A picture {asked.picture.width} wide.")),
        concurrency=3,
    )
    pictures = [scene(40 + 10 * n, 40) for n in range(9)]
    mixed: list[Any] = [*pictures[:4], b"no picture", *pictures[4:]]
    captions = model.caption(mixed)
    widths = [40 + 10 * n for n in range(9)]
    assert [c.text for c in captions if c.ok] == [f"A picture {width} wide." for width in widths]
    assert isinstance(captions[4].error, ImageError)
    assert len(server.asked) == 9


def test_metadata_and_the_callers_picture_stay_here(server: ChatServer, connect: Any) -> None:
    picture = scene(1000, 900)
    picture.info["comment"] = b"taken at home"
    exif = Image.Exif()
    exif[Base.Artist] = "Somebody"
    exif.get_ifd(IFD.GPSInfo)[1] = "N"
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif, comment=b"taken at home", icc_profile=b"profile " * 20)
    model = connect(server("private", chat()), image_px=2000)
    model.caption(file.getvalue())
    model.caption(picture)
    assert picture.size == (1000, 900)
    for asked in server.asked:
        for secret in (b"Exif", b"Somebody", b"taken at home", b"profile", b"Adobe"):
            assert secret not in asked.jpeg
        assert not asked.picture.getexif()


@pytest.mark.parametrize(
    ("size", "px", "sent"),
    [
        ((3000, 1000), 600, (600, 200)),
        ((1, 1), 600, (32, 32)),
        ((2000, 2), 1000, (1000, 32)),
        ((50, 40), 600, (50, 40)),
    ],
)
def test_size_of_the_picture_that_is_sent(
    server: ChatServer, connect: Any, size: tuple[int, int], px: int, sent: tuple[int, int]
) -> None:
    connect(server("sizes", chat()), image_px=px).caption(scene(*size))
    assert server.asked[0].picture.size == sent


def test_limits_hold_before_anything_is_sent(server: ChatServer, connect: Any) -> None:
    model = connect(server("limits", chat()))
    with pytest.raises(ImageTooLargeError):
        model.caption(scene(200, 200), CaptionOptions(limits=Limits(max_pixels=100)))
    assert server.asked == []


# What servers answer instead of a caption. Each item is one model of the server.

ANSWERS: dict[str, tuple[Reply, str]] = {
    "reasoning-beside": (chat(DOG, reasoning="I look at the picture."), DOG),
    "reasoning-content-beside": (chat(DOG, reasoning_content="Hm."), DOG),
    "reasoning-inside": (chat(f"<reflection>Grass?</reflection>\n{DOG}"), DOG),
    "parts": (chat([{"type": "text", "text": "A dog runs "}, {"text": "across the grass."}]), DOG),
    "parts-of-strings": (chat(["A dog runs ", "across the grass."]), DOG),
    "parts-with-reasoning": (
        chat([{"type": "reasoning", "text": "x"}, {"type": "output_text", "text": DOG}]),
        DOG,
    ),
    "label": (chat(f"**Alternative text:** {DOG}"), DOG),
    "cut-with-a-sentence": (chat(f"{DOG} It is brown and its", "max_tokens"), DOG),
    "old-completion": (Reply(body={"choices": [{"text": DOG, "finish_reason": "stop"}]}), DOG),
    "ollama-native": (Reply(body={"message": {"content": DOG}, "done": True}), DOG),
    "octet-stream": (
        Reply(body=chat().body, content_type="application/octet-stream"),
        DOG,
    ),
    "no-content-type": (Reply(body=chat().body, content_type=""), DOG),
    "byte-order-mark": (Reply(raw=b"\xef\xbb\xbf" + json.dumps(chat().body).encode()), DOG),
    "events": (
        Reply(
            raw=b": ping\n\n"
            + b"".join(
                b"data: "
                + json.dumps({"choices": [{"delta": {"content": part}}]}).encode()
                + b"\n\n"
                for part in ("<think>x</think>", "A dog runs ", "across the grass.")
            )
            + b'data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\ndata: [DONE]\n\n',
            content_type="text/event-stream",
        ),
        DOG,
    ),
    "json-lines": (
        Reply(
            raw=b'{"message": {"content": "A dog runs "}}\n'
            b'{"message": {"content": "across the grass."}, "done": true}\n'
        ),
        DOG,
    ),
    "surrogate": (chat("A dog runs \ud83d across the grass."), DOG),
    "invisible": (chat("A dog\u200b runs\u202e across\x1b[1m the\u2066 grass.\U000e0041"), DOG),
    "list-of-one": (Reply(body=[chat().body]), DOG),
    "in-pieces": (Reply(body=chat().body, piece_bytes=7), DOG),
    "several-choices": (Reply(body={"choices": chat(DOG).body["choices"] * 3}), DOG),
    "reasoning-and-box": (chat(f"<think>x</think><|begin_of_box|>{DOG}<|end_of_box|>"), DOG),
    "null-finish": (chat(DOG, None), DOG),
    "delta": (Reply(body={"choices": [{"delta": {"content": DOG}}]}), DOG),
    "utf-16": (Reply(raw=json.dumps(chat().body).encode("utf-16")), DOG),
    "windows-1252": (
        Reply(raw='{"choices": [{"message": {"content": "A café."}}]}'.encode("cp1252")),
        "A café.",
    ),
    "comments-before": (
        Reply(raw=b": PROCESSING\n\n: PROCESSING\n\n" + json.dumps(chat().body).encode()),
        DOG,
    ),
}

PROBLEMS: dict[str, tuple[Reply, type[Exception], str]] = {
    "declined-field": (chat(None, refusal="No people."), RefusalError, "declined: No people"),
    "filtered": (chat("", "SAFETY"), RefusalError, "content filter.*safety"),
    "filtered-natively": (
        Reply(body={"choices": [{"message": {"content": ""}, "native_finish_reason": "SAFETY"}]}),
        RefusalError,
        "content filter.*safety",
    ),
    "filtered-by-results": (
        Reply(
            body={
                "choices": [
                    {
                        "message": {"content": None},
                        "native_finish_reason": ["odd"],
                        "content_filter_results": {"violence": {"filtered": True}},
                    }
                ]
            }
        ),
        RefusalError,
        "content filter.*violence",
    ),
    "declined-part": (
        chat([{"type": "refusal", "refusal": "No people."}]),
        RefusalError,
        "declined: No people",
    ),
    "tool-call": (chat(None, tool_calls=[{"function": {}}]), ServerError, "call of a tool"),
    "loop": (chat("A dog " * 400), ServerError, "repeats itself: A dog"),
    "location-is-no-url": (
        Reply(307, raw=b"", headers={"Location": "http://[::1"}),
        ServerAccessError,
        "redirects",
    ),
    "filtered-part": (chat("A dog", "content_filter"), RefusalError, "content_filter"),
    "filter-400": (
        Reply(400, {"error": {"message": "filtered", "code": "content_policy_violation"}}),
        RefusalError,
        "HTTP 400",
    ),
    "flagged-403": (error(403, "Input was flagged for: violence"), RefusalError, "flagged"),
    "blocked-prompt": (
        Reply(body={"promptFeedback": {"blockReason": "SAFETY"}}),
        RefusalError,
        "blocked: SAFETY",
    ),
    "apology": (chat("I apologize, but I won't describe this."), RefusalError, "declined: I apol"),
    "apology-german": (chat("Es tut mir leid, das geht nicht."), RefusalError, "Es tut mir"),
    "apology-after-reasoning": (
        chat("<think>hm</think>I can't help with that."),
        RefusalError,
        "can't help",
    ),
    "blind": (chat("It seems there is no image attached."), ServerError, "did not see"),
    "empty": (chat(" \n "), ServerError, "empty answer"),
    "null": (chat(None), ServerError, "empty answer"),
    "placeholder": (chat("N/A"), ServerError, "empty answer"),
    "only-quotes": (chat("“”"), ServerError, "empty answer"),
    "only-reasoning": (chat("", reasoning="Okay"), ServerError, "reasoning alone"),
    "unclosed-reasoning": (chat("<think>A dog?", "length"), ServerError, "tokens on reasoning"),
    "cut-in-a-sentence": (chat("A dog runs across", "length"), ServerError, "first sentence"),
    "boolean": (chat(True), ServerError, "no text.*True"),
    "audio": (chat([{"type": "audio", "data": "x"}]), ServerError, "no text.*audio"),
    "message-null": (
        Reply(body={"choices": [{"message": None}]}),
        ServerError,
        "empty answer",
    ),
    "choice-of-text": (Reply(body={"choices": ["A dog"]}), ServerError, "another form"),
    "error-string": (Reply(body={"error": "GPU lost"}), ServerError, "GPU lost"),
    "error-in-list": (
        Reply(400, [{"error": {"message": "Bad image", "status": "INVALID_ARGUMENT"}}]),
        ServerError,
        "Bad image",
    ),
    "error-detail": (Reply(400, {"detail": [{"msg": "bad field"}]}), ServerError, "bad field"),
    "error-in-json-in-text": (
        Reply(400, {"error": {"message": '{"error": {"message": "inner words"}}'}}),
        ServerError,
        "inner words",
    ),
    "error-event": (
        Reply(raw=b'data: {"error": {"message": "stream broke"}}\n\n'),
        ServerError,
        "stream broke",
    ),
    "empty-body": (Reply(raw=b""), ServerError, "empty response"),
    "json-null": (Reply(body=None), ServerError, "another form.*null"),
    "choices-null": (Reply(body={"choices": None}), ServerError, "no choices"),
    "choices-empty": (Reply(body={"choices": []}), ServerError, "no choices"),
    "content-object": (chat({"text": DOG}), ServerError, "no text.*dict"),
    "content-number": (chat(1.5), ServerError, "no text.*1.5"),
    "error-in-a-choice": (
        Reply(
            body={
                "choices": [{"error": {"code": 400, "message": "Upstream said no"}, "message": {}}]
            }
        ),
        ServerError,
        "HTTP 400: Upstream said no",
    ),
    "daily-quota-inside-200": (
        Reply(body={"error": {"code": 429, "message": "Limit: requests per day"}}),
        ServerBusyError,
        "per day",
    ),
    "choices-empty-object": (Reply(body={}), ServerError, "no choices"),
    "number": (Reply(body=7), ServerError, "another form"),
    "csv": (Reply(raw=b"a,b", content_type="text/csv"), ServerError, "got text/csv.*a,b"),
    "cut-json": (Reply(raw=b'{"choices": [{"mess'), ServerError, "instead of JSON"),
    "nested": (Reply(raw=b"[" * 50_000), ServerError, "instead of JSON"),
    "long": (Reply(raw=b"x" * 1_100_000), ServerError, "more than 1,000,000 bytes"),
    "html-error": (
        Reply(400, raw=b"<html><h1>Bad &amp; odd</h1></html>", content_type="text/html"),
        ServerError,
        'HTTP 400: a web page: "Bad & odd"',
    ),
    "start-page": (Reply(raw=b"<html><title>Chat UI</title>"), ServerAccessError, "Chat UI.*v1"),
    "wrong-path-200": (
        Reply(body={"error": "Unexpected endpoint or method. (POST /chat)"}),
        ServerAccessError,
        "Unexpected endpoint",
    ),
    "forbidden": (
        error(403, "Your account is suspended"),
        ServerAccessError,
        "check the key|no key",
    ),
    "key-400": (
        error(400, "API key not valid."),
        ServerAccessError,
        "no key was sent: set CUTLINE",
    ),
    "unpaid": (error(402, "Insufficient credits"), ServerAccessError, "Insufficient credits"),
    "unpaid-429": (error(429, "You exceeded your insufficient_quota"), ServerBusyError, "quota"),
    "model-400": (error(400, "dogs is not a valid model ID"), ServerError, "valid model ID"),
    "model-404": (error(404, "The model `m` does not exist"), ServerAccessError, "cutline models"),
    "no-vision": (
        error(400, "Invalid: unknown variant `image_url`, expected `text`"),
        ServerAccessError,
        "accepts no images",
    ),
    "no-vision-500": (error(500, "this model is not multimodal"), ServerAccessError, "no images"),
    "other-server": (
        Reply(308, headers={"Location": "http://example.org/v1/chat/completions"}),
        ServerAccessError,
        "another server.*example.org",
    ),
    "moved": (
        Reply(302, headers={"Location": "/login"}),
        ServerAccessError,
        "HTTP 302: moved to .*/login",
    ),
    "nowhere": (Reply(307), ServerAccessError, "without a location"),
    "always-500": (Reply(500, {"detail": "no memory"}), ServerError, "HTTP 500: no memory"),
    "always-dropped": (Reply(body=chat().body, drop=True), ServerError, "RemoteProtocolError"),
    "always-413": (Reply(413, raw=b"too big"), ServerError, "HTTP 413: too big"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_in_many_forms(server: ChatServer, connect: Any, name: str) -> None:
    reply, text = ANSWERS[name]
    assert connect(server(name, reply)).caption(scene()).text == text


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_is_no_caption_is_one_line(server: ChatServer, connect: Any, name: str) -> None:
    reply, kind, words = PROBLEMS[name]
    model = connect(server(name, reply))
    with pytest.raises(kind, match=words) as caught:
        model.caption(scene())
    assert isinstance(caught.value, EngineError)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(model.name)
    [caption] = model.decode([scene()], CaptionOptions())
    assert isinstance(caption.error, kind)


@pytest.mark.parametrize(
    ("logprobs", "score"),
    [
        ({"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}]}, -1.0),
        ([{"token": "a", "logprob": -0.5}], -0.5),
        ({"tokens": ["a"], "token_logprobs": [-2.0]}, -2.0),
        ({"content": [{"token": "a", "logprob": None}]}, None),
        ({"content": [{"token": "a"}]}, None),
        ({"content": "x"}, None),
        ({"content": []}, None),
        ({"content": [{"token": "a", "logprob": -math.inf}]}, None),
        ({"content": [{"token": "a", "logprob": math.nan}]}, None),
        ([], None),
        (True, None),
        (None, None),
        ("text", None),
    ],
)
def test_log_probabilities_become_the_score(
    server: ChatServer, connect: Any, logprobs: Any, score: float | None
) -> None:
    reply = chat()
    reply.body["choices"][0]["logprobs"] = logprobs
    caption = connect(server("scores", reply)).caption(scene())
    assert caption.text == DOG
    assert caption.to_dict()["score"] == score


# Parameters that servers refuse.


def _refuses(names: tuple[str, ...], say: Any) -> Any:
    def behaviour(asked: Asked) -> Reply:
        refused = [name for name in names if name in asked.body]
        return say(refused) if refused else chat(f"{DOG} {asked.number}")

    return behaviour


@pytest.mark.parametrize(
    ("names", "say"),
    [
        (
            ("seed", "n", "logprobs"),
            lambda names: Reply(
                422, {"detail": [{"loc": ["body", n], "msg": "Extra inputs"} for n in names]}
            ),
        ),
        (("top_p",), lambda _: Reply(400, {"error": {"message": "no", "param": "top_p"}})),
        (("temperature",), lambda _: error(400, "temperature does not support 0.5; only 1")),
        (("n",), lambda _: error(400, "Only one completion choice is allowed")),
        (("n",), lambda _: error(500, "n must be 1")),
        (("logprobs", "seed"), lambda _: error(400, "request malformed")),
    ],
)
def test_a_refused_parameter_is_dropped_and_remembered(
    server: ChatServer, connect: Any, names: tuple[str, ...], say: Any
) -> None:
    model = connect(server("strict", _refuses(names, say)))
    search = SearchOptions(temperature=0.5, seed=3, top_p=0.9, n_best=2)
    options = CaptionOptions(search, scores=True)
    assert model.caption(scene(), options).text.startswith(DOG)
    first = len(server.asked)
    model.caption(scene(), options)
    assert all(not set(names) & set(asked.body) for asked in server.asked[first:])
    assert set(names) <= model.refused_parameters


def test_one_rejected_image_costs_the_others_no_parameter(server: ChatServer, connect: Any) -> None:
    def behaviour(asked: Asked) -> Reply:
        return error(400, "cannot decode it") if asked.picture.width == 41 else chat()

    model = connect(server("picky", behaviour))
    options = CaptionOptions(SearchOptions(beam_size=1, temperature=0.5))
    captions = model.caption([scene(40, 40), scene(41, 40), scene(42, 40)], options)
    assert [caption.ok for caption in captions] == [True, False, True]
    assert server.asked[-1].body["temperature"] == 0.5
    assert model.refused_parameters == frozenset()


def test_a_limit_of_tokens_takes_its_newer_name(server: ChatServer, connect: Any) -> None:
    def behaviour(asked: Asked) -> Reply:
        if "max_tokens" in asked.body:
            return error(400, "'max_tokens' is not supported. Use 'max_completion_tokens' instead.")
        return chat()

    model = connect(server("newer", behaviour))
    options = CaptionOptions(SearchOptions(beam_size=1, max_tokens=9))
    model.caption(scene(), options)
    model.caption(scene(), options)
    assert [asked.body.get("max_completion_tokens") for asked in server.asked] == [None, 36, 36]


def test_a_model_that_spends_its_tokens_on_reasoning_gets_more(
    server: ChatServer, connect: Any
) -> None:
    def behaviour(asked: Asked) -> Reply:
        if asked.body.get("max_tokens", 0) < 1000:
            return chat(None, "length", reasoning_content="Let me look")
        return chat()

    assert connect(server("thinker", behaviour)).caption(scene()).text == DOG
    assert len(server.asked) == 2


# Several captions.


def test_n_best_repeats_the_request_and_drops_duplicates(server: ChatServer, connect: Any) -> None:
    texts = {1: "A dog runs.", 2: "a dog runs", 3: "A brown dog."}
    model = connect(server("single", lambda asked: chat(texts[asked.number])))
    options = CaptionOptions(SearchOptions(n_best=3, seed=5))
    caption = model.caption(scene(), options)
    assert [caption.text, *(a.text for a in caption.alternatives)] == [
        "A dog runs.",
        "A brown dog.",
    ]
    assert caption.note == "got 2 different captions instead of 3"
    assert caption.to_dict()["note"] == caption.note
    assert [asked.body["temperature"] for asked in server.asked] == [0.7] * 3
    assert [asked.body.get("n") for asked in server.asked] == [3, None, None]
    assert [asked.body["seed"] for asked in server.asked] == [5, 6, 7]


def test_n_best_takes_all_choices_of_one_response(server: ChatServer, connect: Any) -> None:
    def behaviour(asked: Asked) -> Reply:
        [choice] = chat().body["choices"]
        numbered = [{**choice, "message": {"content": f"Dog {n}."}} for n in range(asked.body["n"])]
        return Reply(body={"choices": numbered})

    caption = connect(server("many", behaviour)).caption(
        scene(), CaptionOptions(SearchOptions(n_best=3))
    )
    assert [caption.text, *(a.text for a in caption.alternatives)] == ["Dog 0.", "Dog 1.", "Dog 2."]
    assert len(server.asked) == 1
    assert caption.note == ""


def test_an_answer_in_another_language_is_kept_with_a_note(
    server: ChatServer, connect: Any
) -> None:
    caption = connect(server("german", chat("Ein Hund läuft auf der Wiese mit dem Ball."))).caption(
        scene()
    )
    assert caption.text == "Ein Hund läuft auf der Wiese mit dem Ball."
    assert caption.note == "the answer seems to be in German, not in English"


# Waiting, and when to stop.


@pytest.mark.parametrize(
    ("failing", "slept"),
    [
        (error(429, "slow down", Retry_After="7"), [7.1]),
        (error(503, "busy", retry_after_ms="2500"), [2.6]),
        (error(429, "Please try again in 1m2.5s"), [62.6]),
        (error(503, "Loading model"), [0.5]),
        (error(500, "the model is still loading"), [0.5]),
        (error(529, "Overloaded"), [0.5]),
        (error(408, "Request timeout"), [0.5]),
        (error(409, "Conflict"), [0.5]),
        (error(502, "Bad gateway"), [0.5]),
        (error(524, "A timeout occurred"), [0.5]),
        (Reply(body={"error": {"code": 429, "message": "Rate limit"}}), [0.5]),
        (Reply(body={"error": {"code": "502", "message": "Upstream"}}), [0.5]),
        (Reply(body=chat().body, drop=True), [0.5]),
    ],
)
def test_a_failed_request_is_repeated(
    server: ChatServer, connect: Any, time: Any, failing: Reply, slept: list[float]
) -> None:
    model = connect(server("once", lambda asked: failing if asked.number == 1 else chat()))
    assert model.caption(scene()).text == DOG
    assert time.slept == pytest.approx(slept)
    assert (model.usage.requests, model.usage.repeated) == (2, 1)


def test_waits_grow_and_end_with_the_run(server: ChatServer, connect: Any, time: Any) -> None:
    model = connect(server("busy", error(429, "slow down")), retry=RetryOptions(wait_s=20))
    with pytest.raises(ServerBusyError, match="HTTP 429: slow down; no answer for 16 s"):
        list(model.stream([scene()] * 3))
    assert [wait for wait in time.slept if wait > 0.4][:3] == pytest.approx([0.5, 1, 2])


def test_a_wait_longer_than_the_limit_ends_the_run_at_once(
    server: ChatServer, connect: Any, time: Any
) -> None:
    model = connect(server("tomorrow", error(429, "later", Retry_After="86400")))
    with pytest.raises(ServerBusyError, match="later") as caught:
        model.caption(scene())
    assert caught.value.retry_after_s == pytest.approx(86400.1)
    assert time.slept == []


def test_one_busy_answer_pauses_the_whole_run(server: ChatServer, connect: Any, time: Any) -> None:
    """Other images wait too: none of them spends a request while the server is busy."""
    lock, busy_until = threading.Lock(), [0.0]

    def behaviour(asked: Asked) -> Reply:
        with lock:
            if asked.number == 5:
                busy_until[0] = time.now_s + 30
            if time.now_s < busy_until[0]:
                return error(429, "slow down", Retry_After="30")
        return chat(f"A picture {asked.picture.width} wide.")

    model = connect(server("limited", behaviour), concurrency=4)
    captions = list(model.stream([scene(40 + n, 40) for n in range(30)]))
    assert [c.text for c in captions] == [f"A picture {40 + n} wide." for n in range(30)]
    assert len(server.asked) <= 30 + 4


def test_many_pictures_through_a_bad_connection(server: ChatServer, connect: Any) -> None:
    """429 for every second request, a broken connection for every tenth: all once, in order."""
    done: list[int] = []
    lock = threading.Lock()
    count = [0]

    def behaviour(asked: Asked) -> Reply:
        with lock:
            count[0] += 1
            number = count[0]
        if number % 2:
            return error(429, "slow down", Retry_After="1")
        if number % 10 == 0:
            return Reply(body=chat().body, drop=True)
        with lock:
            done.append(asked.picture.width)
        return chat(f"A picture {asked.picture.width} wide.")

    model = connect(server("bad", behaviour), concurrency=4)
    captions = list(model.stream([scene(32 + n, 32) for n in range(60)]))
    assert [c.text for c in captions] == [f"A picture {32 + n} wide." for n in range(60)]
    assert sorted(done) == [32 + n for n in range(60)]


def test_a_server_that_starts_again_is_waited_for(connect: Any, time: Any) -> None:
    with chat_server.running() as first:
        closing = Reply(body=chat().body, headers={"Connection": "close"})
        model = connect(first("restarted", closing), retry=RetryOptions(wait_s=100))
        assert model.caption(scene()).text == DOG
    with pytest.raises(ServerBusyError, match=r"ConnectError.*no answer for \d+ s"):
        model.caption(scene())
    assert 60 < sum(time.slept) <= 100


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_rejected_key_or_model_ends_the_run(
    server: ChatServer, connect: Any, status: int
) -> None:
    def behaviour(asked: Asked) -> Reply:
        if asked.picture.width == 43:
            return error(status, "the model or key is unknown: model not found")
        return chat()

    model = connect(server("gone", behaviour))
    captions = model.stream([scene(40 + n, 40) for n in range(20)])
    assert [next(captions).text for _ in range(3)] == [DOG] * 3
    with pytest.raises(ServerAccessError, match=f"HTTP {status}"):
        next(captions)
    assert len(server.asked) <= 6


def test_a_server_that_fails_every_image_ends_the_run(server: ChatServer, connect: Any) -> None:
    model = connect(server("broken", Reply(500, {"detail": "out of memory"})))
    with pytest.raises(ServerBusyError, match="5 images in a row"):
        list(model.stream([scene()] * 50))


def test_a_server_that_does_not_run_is_named(connect: Any) -> None:
    with pytest.raises(ServerBusyError, match=r"ConnectError.*is the server running"):
        connect(f"http://127.0.0.1:{chat_server.free_port()}/v1#m").caption(scene())


@pytest.mark.parametrize("limit", [{"max_requests": 3}, {"max_tokens_total": 900}])
def test_a_budget_ends_the_run(server: ChatServer, connect: Any, limit: dict[str, int]) -> None:
    model = connect(server("cheap", chat()), budget=Budget(**limit))
    captions = model.stream([scene()] * 10)
    assert [next(captions).text for _ in range(3)] == [DOG] * 3
    with pytest.raises(BudgetError, match="the limit that was set"):
        next(captions)
    assert len(server.asked) == 3
    assert model.usage.summary() == "3 requests, 900 tokens in, 30 out"


# Connections.


def test_a_request_times_out_as_a_whole(server: ChatServer, connect: Any) -> None:
    event = threading.Event()
    model = connect(
        server("stuck", lambda asked: Reply(body=chat().body, wait=event)),
        timeout_s=0.05,
        retry=RetryOptions(attempts=2),
    )
    try:
        with pytest.raises(ServerError, match=r"no answer within 0.05 s \(--timeout\)"):
            model.caption(scene())
    finally:
        event.set()
    assert model.usage.requests == 2


def test_closing_the_stream_waits_for_no_server(server: ChatServer, connect: Any) -> None:
    event = threading.Event()
    model = connect(
        server(
            "hanging",
            lambda asked: chat() if asked.number == 1 else Reply(body=chat().body, wait=event),
        )
    )
    captions = model.stream([scene()] * 5)
    assert next(captions).text == DOG
    began_s = real_time.monotonic()
    captions.close()
    assert real_time.monotonic() - began_s < 1
    event.set()


def test_redirects_on_the_same_origin_keep_the_request(server: ChatServer, connect: Any) -> None:
    server.paths = ("/v1/chat/completions", "/new/chat/completions")

    def behaviour(asked: Asked) -> Reply:
        if asked.path.startswith("/v1"):
            return Reply(307, headers={"Location": "/new/chat/completions"})
        return chat()

    assert connect(server("redirected", behaviour)).caption(scene()).text == DOG
    server("loop", Reply(308, headers={"Location": "/v1/chat/completions"}))
    with pytest.raises(ServerAccessError, match="more than 5 redirects"):
        connect(f"{server.root}#loop").caption(scene())


def test_a_large_picture_is_sent_once_more_at_half_the_size(
    server: ChatServer, connect: Any
) -> None:
    def behaviour(asked: Asked) -> Reply:
        if asked.picture.width > 400:
            return Reply(413, raw=b"<html><title>413 Too Large</title></html>")
        return chat()

    model = connect(server("small", behaviour))
    assert model.caption(scene(900, 900)).text == DOG
    assert [asked.picture.width for asked in server.asked] == [768, 384]


@pytest.mark.parametrize(
    "path", ["/chat/completions", "/v1/chat/completions", "/x/v1/chat/completions"]
)
def test_the_path_of_the_api_is_found(server: ChatServer, connect: Any, path: str) -> None:
    server.paths = (path,)
    server("found", chat())
    root = f"http://127.0.0.1:{server.port}" + ("/x" if path.startswith("/x") else "")
    model = connect(f"{root}#found")
    assert model.caption(scene()).text == DOG
    count = len(server.asked)
    model.caption(scene())
    assert len(server.asked) == count + 1


def test_a_key_is_in_no_message(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("CUTLINE_API_KEY", "very-secret-word")
    name = server(
        "echo", lambda asked: error(401, f"bad: {asked.headers['Authorization']} or sk-12345abc")
    )
    with pytest.raises(ServerAccessError) as caught:
        cutline.load(name).caption(scene())
    assert "very-secret" not in f"{caught.value}{caught.value!r}{caplog.text}"
    assert "12345" not in str(caught.value)


def test_credentials_in_a_url_are_sent_and_not_shown(server: ChatServer) -> None:
    server("basic", chat())
    name = f"http://user:pass%40word@127.0.0.1:{server.port}/v1#basic"
    model = cutline.load(name)
    caption = model.caption(scene())
    assert "pass" not in caption.model + repr(caption)
    assert server.asked[0].headers["Authorization"].startswith("Basic ")


def test_no_model_is_named(server: ChatServer) -> None:
    server.lists["/v1/models"] = {"data": [{"id": "only-one"}, {"id": "text-embedding-3"}]}
    server("only-one", chat())
    assert cutline.load(server.root).caption(scene()).model.startswith("only-one@")
    server.lists["/v1/models"] = {"data": [{"id": "one"}, {"id": "two"}]}
    with pytest.raises(OptionError, match=r"expected .*#NAME; the server has one, two"):
        cutline.load(server.root)
    server.lists["/v1/models"] = {"data": [{"id": "text-embedding-3"}]}
    with pytest.raises(OptionError, match=r"no model .* accepts images \(text-embedding-3\)"):
        cutline.load(server.root)


def test_threads_below_one_are_refused() -> None:
    for threads in (0, -1):
        with pytest.raises(OptionError, match="at least 1"):
            cutline.load("ollama:llava", threads=threads)
        with pytest.raises(OptionError, match="at least 1"):
            ConnectionOptions(concurrency=threads)
