from __future__ import annotations

import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import scene
from serving import Serve

from cutline.boxes import Box
from cutline.captioner import BundleCaptioner

PNG = io.BytesIO()
scene(120, 80).save(PNG, "PNG")


def picture() -> dict[str, Any]:
    return {"image": ("a.png", PNG.getvalue())}


def test_given_boxes_are_described_as_in_python(
    client: httpx.Client, captioner: BundleCaptioner
) -> None:
    answer = client.post(
        "/v1/regions", files=picture(), data={"boxes": "10,20,30,40;50%,0%,50%,50%"}
    )
    assert answer.status_code == 200, answer.text
    found = answer.json()
    boxes = [Box(10, 20, 30, 40), Box.parse("50%,0%,50%,50%")]
    expected = captioner.regions(PNG.getvalue(), boxes).to_dict()
    assert found["regions"] == expected["regions"]
    assert (found["source"], found["width"], found["height"]) == ("a.png", 120, 80)


def test_regions_are_found_from_json(client: httpx.Client) -> None:
    image = {"base64": base64.b64encode(PNG.getvalue()).decode(), "name": "b.png"}
    body = {"image": image, "options": {"max_regions": 2, "caption": True}}
    found = client.post("/v1/regions", json=body).json()
    assert 1 <= len(found["regions"]) <= 2
    assert found["caption"]
    assert found["source"] == "b.png"


@pytest.mark.parametrize(
    ("files", "data", "code"),
    [
        (picture(), {"boxes": "1,2,3"}, "invalid-request"),
        (picture(), {"boxes": "500,0,10,10"}, "invalid-request"),
        (picture(), {"margin": "-1"}, "invalid-request"),
        (picture(), {"nonsense": "1"}, "invalid-request"),
        ({"image": ("a.png", b"no picture")}, {}, "image-format"),
        ({"file": ("a.png", b"x")}, {}, "invalid-request"),
    ],
)
def test_what_does_not_fit_is_a_problem(
    client: httpx.Client, files: dict[str, Any], data: dict[str, str], code: str
) -> None:
    answer = client.post("/v1/regions", files=files, data=data)
    assert answer.json()["code"] == code, answer.text


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.split("\n\n"):
        if block:
            kind, data = block.split("\n")
            found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.fixture
def clip(tmp_path: Path) -> bytes:
    pytest.importorskip("av")
    pytest.importorskip("scenedetect")
    import clips

    return clips.write(tmp_path / "a.mp4", clips.shots(1, 2)).read_bytes()


def test_a_video_comes_as_events(client: httpx.Client, clip: bytes) -> None:
    answer = client.post("/v1/videos", files={"video": ("a.mp4", clip)}, data={"summary": "true"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    first, *rest, last = events(answer.text)
    assert first == ("start", {"source": "a.mp4", "model": "tiny-v1"})
    assert {kind for kind, _ in rest} == {"shot"}
    assert rest[0][1]["start"] == 0
    assert last[0] == "end"
    assert last[1]["duration"] == pytest.approx(4, abs=0.2)
    assert last[1]["summary"]


def test_a_video_that_is_none_is_a_problem(client: httpx.Client) -> None:
    pytest.importorskip("av")
    answer = client.post("/v1/videos", files={"video": ("a.mp4", b"no video" * 99)})
    assert (answer.status_code, answer.json()["code"]) == (415, "video-format")
    answer = client.post("/v1/videos", files={"image": ("a.mp4", b"x")})
    assert answer.json()["code"] == "invalid-request"
    answer = client.post("/v1/videos", json={})
    assert answer.json()["code"] == "media-type"


def test_a_video_cut_short_ends_with_its_problem(
    client: httpx.Client, tmp_path: Path, clip: bytes
) -> None:
    import clips

    path = clips.write(tmp_path / "b.mkv", clips.shots(1, 2), codec="mjpeg", pixels="yuvj420p")
    content = path.read_bytes()
    found = events(
        client.post("/v1/videos", files={"video": ("b.mkv", content[: len(content) * 2 // 3])}).text
    )
    kinds = [kind for kind, _ in found]
    assert kinds[0] == "start"
    assert "shot" in kinds
    assert kinds[-2:] == ["problem", "end"]
    assert found[-2][1]["code"] == "video-corrupt"


def test_limits_of_length_and_pixels_hold(serve: Serve, clip: bytes) -> None:
    with serve(max_video_s=1, max_video_megapixels=1) as url:
        found = events(
            httpx.post(f"{url}/v1/videos", files={"video": ("a.mp4", clip)}, trust_env=False).text
        )
        assert found[-2][1]["code"] == "video-too-large"
    with serve(max_video_megapixels=0.001) as url:
        answer = httpx.post(f"{url}/v1/videos", files={"video": ("a.mp4", clip)}, trust_env=False)
        assert answer.json()["code"] == "video-too-large"


def test_leaving_frees_the_place_of_a_video(serve: Serve, tmp_path: Path, clip: bytes) -> None:
    import clips

    long = clips.write(
        tmp_path / "c.mp4", clips.shots(*range(60), seconds=1, rate=25), rate=25
    ).read_bytes()
    with serve() as url:
        with httpx.stream(
            "POST", f"{url}/v1/videos", files={"video": ("c.mp4", long)}, trust_env=False
        ) as answer:
            next(answer.iter_lines())
        began = time.monotonic()
        found = httpx.post(
            f"{url}/v1/videos", files={"video": ("a.mp4", clip)}, trust_env=False, timeout=60
        )
        assert events(found.text)[-1][0] == "end"
        assert time.monotonic() - began < 30
