from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import httpx
import pytest
import tiny
from serving import Serve, metric, png, pngs, running, until
from typer.testing import CliRunner

from cutline.caption import BaseCaptioner, Caption, CaptionOptions, InContext
from cutline.captioner import BundleCaptioner
from cutline.cli import app
from cutline.errors import EngineError, OptionError
from cutline.options import SearchOptions
from cutline.service.middleware import TokenBuckets
from cutline.service.schema import AltOptions, ImageSource, Options, PageContext
from cutline.service.service import ImageInput, Service
from cutline.service.settings import Settings
from cutline.site.model import ImageOccurrence

SAMPLES = Path(__file__).parents[2] / "samples"
KEY = "correct-horse-battery-staple"


def form(contents: Sequence[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"{number}.png", content)) for number, content in enumerate(contents)]


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_a_form_and_json_get_what_the_captioner_says(
    client: httpx.Client, captioner: BundleCaptioner
) -> None:
    pictures = pngs(5)
    options = CaptionOptions(SearchOptions(**{**tiny.SEARCH, "beam_size": 4, "n_best": 3}), 2)
    expected = captioner.caption(pictures, options)
    asked = {"beam": 4, "n_best": 3, "labels": 2}
    by_form = client.post("/v1/captions", files=form(pictures), data=asked).json()
    images = [
        {"base64": encoded(content), "name": f"{number}.png"}
        for number, content in enumerate(pictures)
    ]
    by_json = client.post("/v1/captions", json={"images": images, "options": asked}).json()
    assert by_form == {"model": tiny.NAME, "results": ANY, "took_ms": ANY}
    assert by_form["results"] == by_json["results"]
    for number, (result, caption) in enumerate(zip(by_form["results"], expected, strict=True)):
        told = caption.to_dict()
        assert result == {
            "index": number,
            "source": f"{number}.png",
            **{name: told[name] for name in ("status", "caption", "score", "alternatives")},
            "labels": told["labels"],
            "kind": told["kind"],
        }
        assert len(result["alternatives"]) == 2
        assert len(result["labels"]) == 2


@pytest.mark.parametrize("seed", [0, 3])
def test_draws_are_those_of_the_captioner(
    client: httpx.Client, captioner: BundleCaptioner, seed: int
) -> None:
    pictures = pngs(6)
    search = SearchOptions(**{**tiny.SEARCH, "temperature": 1.5, "top_p": 0.9, "seed": seed})
    expected = [each.text for each in captioner.caption(pictures, CaptionOptions(search))]
    assert len(set(expected)) > 1
    asked = {"temperature": 1.5, "top_p": 0.9, "seed": seed}
    for _ in range(2):  # the second time from the answers kept
        results = client.post("/v1/captions", files=form(pictures), data=asked).json()["results"]
        assert [result["caption"] for result in results] == expected


def test_attention_comes_if_asked_for(client: httpx.Client, captioner: BundleCaptioner) -> None:
    [picture] = pngs(1)
    expected = captioner.caption(picture).attention
    assert expected is not None
    answer = client.post("/v1/captions", files=form([picture]), data={"attention": "true"})
    attention = answer.json()["results"][0]["attention"]
    assert attention["grid"] == [3, 3]
    assert attention["words"] == list(expected.words)
    assert len(attention["weights"]) == len(expected.words)
    for row, weights in zip(attention["weights"], expected.weights, strict=True):
        assert row == pytest.approx(weights.tolist(), abs=1e-4)
    again = client.post("/v1/captions", files=form([picture])).json()["results"][0]
    assert "attention" not in again


def test_context_is_that_of_the_picture_or_else_of_the_request(
    client: httpx.Client, captioner: BundleCaptioner
) -> None:
    words = "bird woman sand"
    with_words, without = next(
        (said, plain)
        for content in pngs(20)
        if (said := captioner.caption(InContext(content, words)).text)
        != (plain := captioner.caption(content).text)
        and (picture := content)
    )
    images = [{"base64": encoded(picture)}, {"base64": encoded(picture), "context": ""}]
    asked = {"images": images, "options": {"context": words}}
    results = client.post("/v1/captions", json=asked).json()["results"]
    assert [result["caption"] for result in results] == [with_words, without]
    by_form = client.post("/v1/captions", files=form([picture]), data={"context": words}).json()
    assert by_form["results"][0]["caption"] == with_words


def test_one_bad_picture_spoils_nothing(client: httpx.Client) -> None:
    good, other = pngs(2)
    results = client.post("/v1/captions", files=form([good, b"no picture", other])).json()[
        "results"
    ]
    assert [result["status"] for result in results] == ["ok", "error", "ok"]
    assert results[1]["caption"] is None
    assert results[1]["error"] == {
        "type": "/v1/problems#image-format",
        "title": ANY,
        "status": 415,
        "code": "image-format",
        "detail": ANY,
    }


def test_a_picture_in_a_link_gets_the_links_purpose(client: httpx.Client) -> None:
    page = {"kind": "img", "source": "/logo.png", "link": "https://example.org/contact"}
    by_form = client.post("/v1/alt", files=form(pngs(1)), data=page).json()
    image = {"base64": encoded(pngs(1)[0])}
    by_json = client.post("/v1/alt", json={"image": image, "use": page}).json()
    by_page = client.post("/v1/alt", json={"use": page}).json()
    for answer in (by_form, by_json, by_page):
        assert answer["purpose"] == "functional"
        assert answer["rule"] == "link-without-text"
        assert answer["alt"] == "Contact"
        assert answer["words"] == [{"word": "Contact", "origin": "page"}]
        assert (answer["caption"], answer["confidence"]) == (None, None)


def test_base64_may_have_line_breaks_and_the_head_of_a_data_uri(client: httpx.Client) -> None:
    text = encoded(pngs(1)[0])
    broken = "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76)) + "\n"
    page = {"source": "/rex.png"}
    for form_of in (text, broken, f"data:image/png;base64,{text}", f"DATA:;BASE64,{broken}"):
        answer = client.post("/v1/alt", json={"image": {"base64": form_of}, "use": page})
        assert answer.status_code == 200, answer.json()
    for wrong in ("?!", f"data:image/png,{text}", text[:-3] + "?"):
        answer = client.post("/v1/alt", json={"image": {"base64": wrong}, "use": page})
        assert answer.status_code == 422
        assert "not Base64 (RFC 4648" in answer.text


def test_an_icon_beside_text_is_decorative_as_in_a_scanned_page(client: httpx.Client) -> None:
    fields = set(ImageOccurrence.__dataclass_fields__)
    assert fields - set(PageContext.model_fields) == {
        *("position", "url", "candidates", "markup", "offset", "noscript", "part", "place"),
        "long_description",
    }
    page = {"source": "/i.png", "width_px": 16, "height_px": 16, "beside": "Call us"}
    answer = client.post("/v1/alt", json={"use": page}).json()
    assert (answer["rule"], answer["alt"]) == ("icon-beside-text", "")


def test_what_would_have_to_be_seen_gets_no_alt_from_the_page_alone(client: httpx.Client) -> None:
    for page, purpose in (({"source": "/rex.jpg"}, "informative"), ({}, "unknown")):
        answer = client.post("/v1/alt", json={"use": {"heading": "Rex", **page}})
        assert answer.status_code == 200
        assert (answer.json()["purpose"], answer.json()["alt"]) == (purpose, None)


def test_a_persons_alt_is_kept_and_an_unreadable_picture_is_a_problem(client: httpx.Client) -> None:
    kept = client.post("/v1/alt", files=form(pngs(1)), data={"alt": "Rex at the lake"}).json()
    assert (kept["purpose"], kept["alt"], kept["caption"]) == ("kept", None, None)
    refused = client.post("/v1/alt", files=form([b"no picture"]))
    assert (refused.status_code, refused.json()["code"]) == (415, "image-format")
    odd = client.post("/v1/alt", json={"options": {"glossary": "sheep alpaca"}})
    assert (odd.status_code, odd.json()["code"]) == (422, "invalid-request")


def test_an_informative_picture_is_described_in_the_pages_words(
    client: httpx.Client, captioner: BundleCaptioner
) -> None:
    rng = tiny.np.random.default_rng(1)
    picture = png(rng.integers(0, 256, (90, 120, 3), dtype=tiny.np.uint8))
    page = {"source": "/a.jpg", "heading": "A bird and a woman on red sand"}
    favoured = {**page, "threshold": 0, "context_nats": 1}
    answer = client.post("/v1/alt", files=form([picture]), data=favoured).json()
    assert answer["purpose"] == "informative"
    assert answer["caption"] == captioner.caption(InContext(picture, page["heading"])).text
    plain = client.post("/v1/alt", files=form([picture]), data={**page, "threshold": 0}).json()
    assert plain["caption"] == captioner.caption(picture).text  # as `cutline site` has it
    assert answer["model"] == tiny.NAME
    assert {word["origin"] for word in answer["words"]} <= {"picture", "page"}
    drafts = client.post("/v1/captions", files=form([picture]), data={"alt": "true"}).json()
    draft = drafts["results"][0]["alt"]
    assert draft["purpose"] == "informative"
    assert draft["alt"].casefold().rstrip(".") == drafts["results"][0]["caption"].casefold().rstrip(
        "."
    )


def test_models_and_problems_and_health(client: httpx.Client) -> None:
    [model] = client.get("/v1/models").json()["models"]
    assert model["name"] == tiny.NAME
    assert model["licence"] == "Apache-2.0"
    assert model["search"]["beam_size"] == 3
    problems = client.get("/v1/problems").json()["problems"]
    assert {"code": "busy", "status": 503, "title": "Busy", "meaning": ANY} in problems
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}


def test_what_is_not_served_is_a_problem_too(client: httpx.Client) -> None:
    missing = client.get("/v2/captions")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.json()["code"] == "not-found"
    wrong = client.delete("/v1/captions")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method-not-allowed")
    assert wrong.headers["allow"] == "GET, POST"


def test_every_answer_has_security_headers_and_an_id(client: httpx.Client) -> None:
    for answer in (client.get("/healthz"), client.get("/nothing"), client.post("/v1/captions")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
        assert len(answer.headers["x-request-id"]) == 16
    given = client.get("/healthz", headers={"X-Request-ID": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    odd = client.get("/healthz", headers={"X-Request-ID": "a b"})
    assert odd.headers["x-request-id"] != "a b"


def test_keys_are_asked_for(serve: Serve) -> None:
    with serve(keys=(KEY, "another-key-of-someone")) as url, httpx.Client(base_url=url) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            refused = client.get("/v1/models", headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
            assert refused.headers["www-authenticate"] == "Bearer"
        for headers in (
            {"Authorization": f"Bearer {KEY}"},
            {"X-API-Key": "another-key-of-someone"},
        ):
            assert client.get("/v1/models", headers=headers).status_code == 200
            assert client.get("/metrics", headers=headers).status_code == 200
        assert client.get("/metrics").status_code == 401
        assert client.post("/v1/captions", files=form(pngs(1))).status_code == 401
        for path in ("/healthz", "/readyz", "/v1/problems", "/v1/openapi.json"):
            assert client.get(path).status_code == 200
        assert client.get("/v1/openapi.json").json()["security"] == [{"key": []}]


def test_rates_count_images(serve: Serve) -> None:
    with serve(rate="4/hour") as url, httpx.Client(base_url=url) as client:
        assert client.post("/v1/captions", files=form(pngs(3))).status_code == 200
        refused = client.post("/v1/captions", files=form(pngs(2)))
        assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
        assert 0 < int(refused.headers["retry-after"]) <= 3600
        assert client.post("/v1/captions", files=form(pngs(1))).status_code == 200
        never = client.post("/v1/captions", files=form(pngs(5)))
        assert never.status_code == 429
        assert client.get("/healthz").status_code == 200


def test_a_bucket_fills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    buckets = TokenBuckets(6, 60.0, clients=2)
    assert buckets.take("a", 6) == 0
    assert buckets.take("a", 1) == 10
    assert buckets.take("a", 0) == 10
    assert buckets.take("b", 1) == 0
    now_s[0] += 10
    assert buckets.take("a", 0) == 0
    assert buckets.take("a", 1) == 0
    assert buckets.take("a", 7) is None
    assert buckets.take("c", 1) == 0
    assert buckets.take("b", 6) == 0  # forgotten for c


def test_only_hosts_that_were_named_are_answered_to(serve: Serve) -> None:
    with serve(hosts=("captions.example",)) as url, httpx.Client(base_url=url) as client:
        named = {"Host": "captions.example:80"}
        assert client.get("/v1/problems", headers=named).status_code == 200
        refused = client.get("/v1/problems")
        assert (refused.status_code, refused.json()["code"]) == (403, "host-refused")
        for probe in ("/healthz", "/readyz"):  # whoever asks these knows the address alone
            assert client.get(probe).status_code == 200


def test_pages_of_allowed_origins_may_call(serve: Serve) -> None:
    origin = {"Origin": "https://cms.example"}
    asked = {**origin, "Access-Control-Request-Method": "POST"}
    with (
        serve(cors_origins=("https://cms.example",), keys=(KEY,)) as url,
        httpx.Client(base_url=url) as client,
    ):
        preflight = client.options("/v1/captions", headers=asked)
        assert preflight.headers["access-control-allow-origin"] == "https://cms.example"
        refused = client.get("/v1/models", headers=origin)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://cms.example"
        other = client.get("/v1/models", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_answers_are_kept_by_content_and_options(serve: Serve) -> None:
    one, other = pngs(2)
    with serve(cache=1) as url, httpx.Client(base_url=url) as client:

        def ask(content: bytes, **options: Any) -> tuple[str, float]:
            answer = client.post("/v1/captions", files=form([content]), data=options).json()
            hits = metric(client, 'cutline_cache_total{result="hit"}')
            return answer["results"][0]["caption"], hits

        caption, hits = ask(one)
        assert hits == 0
        assert ask(one) == (caption, 1)
        assert ask(one, attention=True) == (caption, 1 + 1)
        assert ask(one, labels=1)[1] == 2
        assert ask(one)[1] == 2  # the one place went to the other options
        assert ask(other)[1] == 2
        assert ask(one) == (caption, 2)


def test_a_form_field_of_another_name_is_told_the_right_one(client: httpx.Client) -> None:
    answer = client.post("/v1/captions", files={"img": ("dog.png", pngs(1)[0])})
    assert answer.status_code == 422
    assert "img: no form field for files; expected image=@FILE" in answer.json()["detail"]


def test_a_body_that_is_no_json_is_a_bad_request(client: httpx.Client) -> None:
    for path in ("/v1/captions", "/v1/alt"):
        answer = client.post(path, content=b"{bad", headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")
        assert "Invalid JSON" in answer.json()["detail"]


def test_metrics_tell_requests_images_batches_and_errors(serve: Serve) -> None:
    with serve(cache=0) as url, httpx.Client(base_url=url) as client:
        client.post("/v1/captions", files=form([*pngs(3), b"text"]))
        client.post("/v1/captions", content=b"{", headers={"Content-Type": "application/json"})
        route = 'method="POST",route="/v1/captions"'
        assert metric(client, f'cutline_requests_total{{{route},status="200"}}') == 1
        assert metric(client, f'cutline_requests_total{{{route},status="400"}}') == 1
        assert metric(client, 'cutline_request_seconds_count{route="/v1/captions"}') == 2
        assert metric(client, "cutline_batch_images_sum") == 3
        assert metric(client, 'cutline_images_total{status="ok"}') == 3
        assert metric(client, 'cutline_images_total{status="error"}') == 1
        assert metric(client, 'cutline_errors_total{code="image-format"}') == 1
        assert metric(client, 'cutline_errors_total{code="bad-request"}') == 1
        assert metric(client, "cutline_queue_images") == 0


class Slow(BaseCaptioner):
    """A captioner that returns nothing until it may."""

    name = "slow"
    search = SearchOptions()

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.captioned = 0

    def stream(self, images: Any, options: Any = None) -> Iterator[Caption]:
        assert self.gate.wait(20)
        for _ in images:
            self.captioned += 1
            yield Caption("", "a slow caption", -1.0, self.name)


def test_clients_who_ask_the_same_at_once_share_the_work(serve: Serve) -> None:
    slow = Slow()
    [picture] = pngs(1)
    with (
        serve(captioner=slow, threads=1) as url,
        httpx.Client(base_url=url, timeout=20) as client,
        concurrent.futures.ThreadPoolExecutor(3) as pool,
    ):

        def ask(timeout_s: float) -> httpx.Response:
            return httpx.post(f"{url}/v1/captions", files=form([picture]), timeout=timeout_s)

        leaves = pool.submit(ask, 0.5)
        until(lambda: metric(client, "cutline_queue_images") == 1)
        stay = [pool.submit(ask, 20) for _ in range(2)]
        until(lambda: metric(client, 'cutline_cache_total{result="shared"}') == 2)
        with pytest.raises(httpx.ReadTimeout):
            leaves.result()
        until(lambda: metric(client, "cutline_queue_images") == 2)
        slow.gate.set()
        for answer in stay:
            assert answer.result().json()["results"][0]["caption"] == "a slow caption"
        assert ask(20).json()["results"][0]["caption"] == "a slow caption"
        assert metric(client, 'cutline_cache_total{result="hit"}') == 1
    assert slow.captioned == 1


def test_a_failure_is_not_kept(serve: Serve) -> None:
    class Moody(Slow):
        def stream(self, images: Any, options: Any = None) -> Iterator[Caption]:
            self.captioned += 1
            error = EngineError("not now") if self.captioned == 1 else None
            yield from (Caption("", "a caption", -1.0, self.name, error=error) for _ in images)

    with serve(captioner=Moody()) as url, httpx.Client(base_url=url) as client:
        results = [
            client.post("/v1/captions", files=form(pngs(1))).json()["results"][0] for _ in range(2)
        ]
    assert [result["status"] for result in results] == ["error", "ok"]
    assert results[0]["error"]["code"] == "internal"


def test_a_full_queue_says_when_to_come_back(serve: Serve) -> None:
    slow = Slow()
    with (
        serve(captioner=slow, queue=4, max_images=4, threads=1) as url,
        httpx.Client(base_url=url, timeout=20) as client,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        accepted = [
            pool.submit(httpx.post, f"{url}/v1/captions", files=form(pngs(2)), timeout=30)
            for _ in range(2)
        ]
        until(lambda: metric(client, "cutline_queue_images") == 4)
        refused = client.post("/v1/captions", files=form(pngs(1)))
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        slow.gate.set()
        for answer in accepted:
            assert answer.result().json()["results"][0]["caption"] == "a slow caption"
        assert client.post("/v1/captions", files=form(pngs(1))).status_code == 200


def test_a_client_that_goes_away_frees_its_place(serve: Serve) -> None:
    slow = Slow()
    with (
        serve(captioner=slow, threads=1, cache=0) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        for _ in range(3):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{url}/v1/captions", files=form(pngs(5)), timeout=0.3)
        until(lambda: metric(client, "cutline_queue_images") == 0)
        slow.gate.set()
        assert client.post("/v1/captions", files=form(pngs(1))).status_code == 200
        assert slow.captioned <= 1 + 5 + 1  # one batch was under way; of the others nothing
        gone = 'cutline_requests_total{method="POST",route="/v1/captions",status="499"}'
        assert metric(client, gone) == 3


def test_a_body_that_comes_with_a_get_is_limited_too(serve: Serve) -> None:
    found = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        assert found.wait(20)
        raise OSError("no such name")

    with serve(resolve=resolve, max_body_mb=0.01) as url, httpx.Client(base_url=url) as client:
        asked = {"url": "http://slow.example/a.jpg"}
        answer = client.request("GET", "/v1/captions", params=asked, content=iter([b"a" * 20_000]))
        found.set()
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


def test_pictures_that_are_fetched_count_as_held_until_they_are_captioned() -> None:
    async def main() -> None:
        slow = Slow()
        service = Service(Settings(max_pending_mb=0.001, cache=0), slow)
        service._fetch = fetch  # type: ignore[method-assign]
        try:
            await service.load()
            given = [ImageInput(name, url=name) for name in "abc"]
            work = service.caption(service.captioner, given, CaptionOptions())
            asked = asyncio.ensure_future(work)
            await asyncio.sleep(0.05)
            assert service.held.bytes == 800  # two of them; the third was too much
            slow.gate.set()
            found = await asked
        finally:
            await service.close()
        assert [getattr(each, "code", "ok") for each in found] == ["ok", "ok", "busy"]
        assert service.held.bytes == 0

    async def fetch(url: str) -> bytes:
        return bytes(400)

    asyncio.run(main())


def test_settings_come_from_the_environment_and_flags_go_before() -> None:
    environment = {
        "CUTLINE_SERVE_MAX_BODY_MB": "8",
        "CUTLINE_SERVE_FETCH": "no",
        "CUTLINE_SERVE_KEYS": f"{KEY}, another-key-of-someone",
        "CUTLINE_SERVE_PORT": "9000",
        "HOME": "/nowhere",
    }
    settings = Settings.from_environment(environment, {"port": 9001})
    assert settings == Settings(
        max_body_mb=8.0, fetch=False, keys=(KEY, "another-key-of-someone"), port=9001
    )
    assert Settings.from_environment(settings.to_environment()) == settings


def test_an_unknown_field_is_told_those_there_are(client: httpx.Client) -> None:
    image = {"base64": encoded(pngs(1)[0])}
    alt = {"image", "use", "options"}
    of_alt_form = {"image", *PageContext.model_fields, *AltOptions.model_fields}
    for expected, path, sent in (
        (of_alt_form, "/v1/alt", {"files": form(pngs(1)), "data": {"no": "1"}}),
        (
            {"image", *Options.model_fields},
            "/v1/captions",
            {"files": form(pngs(1)), "data": {"no": "1"}},
        ),
        (alt, "/v1/alt", {"json": {"no": 1}}),
        (set(PageContext.model_fields), "/v1/alt", {"json": {"use": {"no": 1}}}),
        (
            set(Options.model_fields),
            "/v1/captions",
            {"json": {"images": [image], "options": {"no": 1}}},
        ),
        (set(ImageSource.model_fields), "/v1/captions", {"json": {"images": [{**image, "no": 1}]}}),
    ):
        answer = client.post(path, **sent)
        [error] = answer.json()["errors"]
        told, _, names = error["message"].partition("; expected one of ")
        assert (answer.status_code, told) == (422, "no such field")
        assert set(names.split(", ")) == expected
    by_url = client.get("/v1/captions", params={"url": "http://x.example/", "no": "1"}).json()
    assert by_url["detail"].endswith(", context, url")


def test_too_many_pictures_are_told_how_many_there_may_be(client: httpx.Client) -> None:
    answer = client.post("/v1/alt", files=form(pngs(2)))
    assert (answer.status_code, answer.json()["code"]) == (413, "too-many-images")
    assert (
        answer.json()["detail"] == "got more than 1 image; expected at most 1 image in one request"
    )


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CUTLINE_SERVE_QEUE", "3", "expected one of"),
        ("CUTLINE_SERVE_QUEUE", "many", "expected a number"),
        ("CUTLINE_SERVE_QUEUE", "3", "expected at least max_images"),
        ("CUTLINE_SERVE_FETCH", "perhaps", "expected true or false"),
        ("CUTLINE_SERVE_WORKERS", "0", "expected at least 1"),
        ("CUTLINE_SERVE_KEYS", "short", "expected at least 16"),
        ("CUTLINE_SERVE_LOG_FORMAT", "xml", "expected auto, json or text"),
        ("CUTLINE_SERVE_RATE", "often", "expected one such as 60/minute"),
        ("CUTLINE_SERVE_KEYS", "blanks in an API key", "without blanks and commas"),
        ("CUTLINE_SERVE_PORT", "65536", "expected at most 65535"),
        ("CUTLINE_SERVE_MAX_IMAGE_MB", "inf", "expected at least"),
        ("CUTLINE_SERVE_UPLOAD_TIMEOUT_S", "nan", "expected at least"),
    ],
)
def test_settings_that_do_not_fit_are_refused(variable: str, value: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Settings.from_environment({variable: value})


def cutline(*words: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cutline", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_serves_the_very_captions_of_the_command_line(tmp_path: Path) -> None:
    pictures = [SAMPLES / name for name in ("moose.jpg", "boats.jpg", "cat.jpg")]
    lines = cutline("caption", *pictures, "--format", "jsonl", "--n-best", "3", "--labels", "3")
    expected = [json.loads(line) for line in lines.stdout.splitlines()]
    with running(tmp_path) as served:
        files = [("image", (str(path), path.read_bytes())) for path in pictures]
        asked = {"n_best": 3, "labels": 3}
        results = httpx.post(f"{served.url}/v1/captions", files=files, data=asked).json()["results"]
        assert served.stop() == 0
    told, *logged_lines = served.log.read_text().splitlines()
    for result, line in zip(results, expected, strict=True):
        for name in ("status", "caption", "alternatives", "labels"):
            assert result[name] == line[name]
        assert result["score"] == pytest.approx(line["score"], abs=2e-4)
    assert "Only this machine is served" in told
    requests = [line for text in logged_lines if (line := json.loads(text))["event"] == "request"]
    [logged] = [line for line in requests if line["route"] == "/v1/captions"]
    assert (logged["status"], logged["images"], logged["method"]) == (200, 3, "POST")


@pytest.mark.racy
def test_sigterm_under_load_answers_all_that_was_accepted(
    bundle_folder: Path, tmp_path: Path
) -> None:
    pictures = pngs(16)
    codes: list[int] = []
    during: list[int] = []
    stop = threading.Event()

    async def client(url: str, number: int) -> None:
        while not stop.is_set():
            async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
                try:
                    for _ in range(3):
                        content = pictures[number % len(pictures)]
                        answer = await http.post(f"{url}/v1/captions", files=form([content]))
                        codes.append(answer.status_code)
                        assert answer.json()["results"][0]["status"] == "ok"
                except (httpx.NetworkError, httpx.RemoteProtocolError):
                    return  # nobody listens any more; the log tells whether it was accepted

    with running(tmp_path, "--model", str(bundle_folder), "--cache", "0") as served:

        async def load() -> None:
            clients = [asyncio.ensure_future(client(served.url, number)) for number in range(12)]
            while len(codes) < 100:
                await asyncio.sleep(0.01)
            served.process.send_signal(signal.SIGTERM)
            during.append(len(codes))
            await asyncio.wait_for(asyncio.gather(*clients), 30)

        try:
            asyncio.run(load())
        finally:
            stop.set()
        assert served.process.wait(30) == 0
    lines = [json.loads(line) for line in served.log.read_text().splitlines()[1:]]
    accepted = [line["status"] for line in lines if line.get("route") == "/v1/captions"]
    assert len(codes) > during[0]  # some were under way
    assert set(codes) == set(accepted) == {200}
    assert len(accepted) == len(codes)


@pytest.mark.racy
def test_sighup_loads_the_model_anew_without_losing_a_request(tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.symlink_to(tiny.build(tmp_path / "old", name="old-v1").folder)
    other = tiny.build(tmp_path / "new", name="new-v2").folder
    names: list[str] = []
    stop = threading.Event()

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, trust_env=False) as client:
            while not stop.is_set():
                answer = client.post("/v1/captions", files=form(pngs(1)))
                assert answer.json()["results"][0]["status"] == "ok"
                names.append(answer.json()["model"])

    with running(tmp_path, "--model", str(folder)) as served:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(ask, served.url) for _ in range(2)]
            until(lambda: len(names) > 5)
            folder.unlink()
            folder.symlink_to(other)
            served.process.send_signal(signal.SIGHUP)
            until(lambda: "new-v2" in names)
            folder.unlink()  # nothing to load: the present model stays
            served.process.send_signal(signal.SIGHUP)
            count = len(names)
            until(lambda: len(names) > count + 20)
            stop.set()
            for each in asking:
                each.result()
        assert served.stop() == 0
    assert names[0] == "old-v1"
    assert names[-1] == "new-v2"
    assert names == sorted(names, reverse=True)  # old, then new


def test_workers_share_a_port_and_ask_for_the_keys_of_a_file(
    bundle_folder: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"\ufeff# ours\n  # theirs\n\t{KEY}\n\n")
    words = ["--model", str(bundle_folder), "--workers", "2", "--host", "0.0.0.0"]
    with running(tmp_path, *words, "--keys-file", str(keys)) as served:
        asked = {"Authorization": f"Bearer {KEY}"}
        for picture in pngs(4):
            files = form([picture])
            assert httpx.post(f"{served.url}/v1/captions", files=files).status_code == 401
            answer = httpx.post(f"{served.url}/v1/captions", files=files, headers=asked)
            assert answer.json()["results"][0]["status"] == "ok"
        with httpx.Client(base_url=served.url, headers=asked) as client:
            assert metric(client, 'cutline_images_total{status="ok"}') == 4  # of both together
            assert metric(client, "cutline_queue_images") == 0
        assert served.stop() == 0
    assert "no API key" not in served.log.read_text()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Uvicorn would have been started with."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("uvicorn.run", lambda app, **chosen: calls.append(chosen))
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr("cutline.service.logging.log_to_stderr", lambda form: None)
    monkeypatch.setattr("cutline.service.server._check_address", lambda host, port: None)
    return calls


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nothing-v1"], "nothing-v1"),
        (["--engine", "steam"], "expected auto"),
        (["--rate", "often"], "expected one such as 60/minute"),
        (["--keys-file", "nothing"], "cannot be read"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(
    started: list[dict[str, Any]], words: list[str], message: str
) -> None:
    run = CliRunner().invoke(app, ["serve", *words])
    assert run.exit_code == 2
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert started == []


def test_flags_reach_the_server_and_the_workers(started: list[dict[str, Any]]) -> None:
    words = "--host 0.0.0.0 --port 9000 --workers 2 --trusted-proxy 10.0.0.2 --rate 60/minute"
    run = CliRunner().invoke(app, ["serve", *words.split(), "--no-fetch"])
    assert run.exit_code == 0
    assert "no API key is required" in " ".join(run.stderr.split())
    [chosen] = started
    assert (chosen["host"], chosen["port"], chosen["workers"]) == ("0.0.0.0", 9000, 2)
    assert (chosen["proxy_headers"], chosen["forwarded_allow_ips"]) == (True, ["10.0.0.2"])
    settings = Settings.from_environment(os.environ)
    assert (settings.rate, settings.fetch, settings.workers) == ("60/minute", False, 2)


def test_an_address_that_cannot_be_had_is_said_in_one_line_before_a_model_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = cutline("serve", "--port", port)
    foreign = cutline("serve", "--host", "192.0.2.1")  # RFC 5737: nobody's address
    assert (run.returncode, foreign.returncode) == (2, 2)
    assert run.stderr == (
        f"cutline: got port {port}, which is taken; name another with --port, 0 picks a free one\n"
    )
    assert len(foreign.stderr.splitlines()) == 1
    assert "192.0.2.1" in foreign.stderr


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_many_requests_leave_memory_flat(bundle_folder: Path, tmp_path: Path) -> None:
    pictures = pngs(40)
    with (
        running(tmp_path, "--model", str(bundle_folder), "--cache", "20") as served,
        httpx.Client(base_url=served.url, trust_env=False) as client,
    ):

        def ask(count: int) -> int:
            for number in range(count):
                content = pictures[number % len(pictures)]
                assert client.post("/v1/captions", files=form([content])).status_code == 200
            pages = int(Path(f"/proc/{served.process.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")

        before = ask(300)
        assert ask(600) - before < 8_000_000


def test_a_flag_that_equals_its_default_goes_before_its_variable() -> None:
    environment = {"CUTLINE_SERVE_MAX_IMAGES": "4", "CUTLINE_SERVE_FETCH": "false"}
    flags = {"max_images": 32, "fetch": True}
    settings = Settings.from_environment(environment, flags)
    workers = Settings.from_environment(environment | settings.to_environment())
    assert (workers.max_images, workers.fetch) == (32, True)
    assert workers == settings


def test_the_old_name_of_a_variable_works_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="CUTLINE_SERVE_MAX_BATCH_WAIT_MS instead"):
        settings = Settings.from_environment({"CUTLINE_SERVE_WINDOW_MS": "20"})
    assert settings.max_batch_wait_ms == 20


def test_an_upload_needs_no_file_name(client: httpx.Client) -> None:
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + pngs(1)[0] + b"\r\n"
        for _ in range(2)
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/v1/captions", content=body + b"--x--\r\n", headers=headers)
    assert answer.status_code == 200
    assert [each["source"] for each in answer.json()["results"]] == ["image 1", "image 2"]
    assert {each["status"] for each in answer.json()["results"]} == {"ok"}


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz"])
def test_head_answers_as_get_without_a_body(client: httpx.Client, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "content-security-policy"):
        assert head.headers[name] == got.headers[name]
    assert "HEAD" in client.post(path).headers["allow"]


@pytest.mark.parametrize("path", ["/v1/captions", "/v1/alt"])
def test_a_compressed_body_is_named(client: httpx.Client, path: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = client.post(path, content=b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415
    assert "got Content-Encoding gzip; expected a body that is not" in answer.json()["detail"]


def test_a_byte_order_mark_before_json_is_ignored(client: httpx.Client) -> None:
    content = b"\xef\xbb\xbf" + json.dumps({"images": [{"base64": encoded(pngs(1)[0])}]}).encode()
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/captions", content=content, headers=headers)
    assert answer.json()["results"][0]["status"] == "ok"


@pytest.mark.parametrize("path", ["/v1/captions?url=a&url=b", "/wowme?image=a&image=b"])
def test_a_parameter_given_twice_is_refused(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")
    assert "more than once" in answer.json()["detail"]


def test_base64_may_be_wrapped_or_a_data_uri(client: httpx.Client) -> None:
    text = encoded(pngs(1)[0])
    wrapped = "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    forms = [text, wrapped, f"data:image/jpeg;base64,{text}"]
    asked = {"images": [{"base64": form} for form in forms]}
    results = client.post("/v1/captions", json=asked).json()["results"]
    assert len({each["caption"] for each in results}) == 1
    for wrong in ("data:image/jpeg,abc", "no-base64!"):
        answer = client.post("/v1/captions", json={"images": [{"base64": wrong}]})
        assert answer.status_code == 422
        assert "expected A-Z, a-z, 0-9" in answer.json()["detail"]


def test_workers_end_with_a_parent_that_is_killed(bundle_folder: Path, tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(bundle_folder), "--workers", "2") as served:
        served.process.kill()
        served.process.wait(10)
        port = int(served.url.rpartition(":")[2])

        def is_free() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) != 0

        until(is_free)
