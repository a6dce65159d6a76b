from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from typer.testing import CliRunner

pytest.importorskip("av")
pytest.importorskip("scenedetect")
import av
import clips
from PIL import Image

from cutline.caption import BaseCaptioner, Caption, CaptionOptions
from cutline.captioner import BundleCaptioner
from cutline.cli import app
from cutline.errors import (
    OptionError,
    VideoCorruptError,
    VideoError,
    VideoFormatError,
    VideoNotFoundError,
    VideoTooLargeError,
)
from cutline.options import SearchOptions
from cutline.runtime import Runtime
from cutline.video.decode import VideoReader
from cutline.video.describe import VideoRun, agreed, describe_video
from cutline.video.formats import clock, subrip, webvtt
from cutline.video.model import Shot, VideoDescription, VideoLimits, VideoOptions
from cutline.video.shots import cut_shots
from cutline.video.storyboard import storyboard
from cutline.video.tone_mapping import to_srgb

UNMERGED = VideoOptions(merge=2)


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> BundleCaptioner:
    return BundleCaptioner(Runtime(tiny.build(tmp_path_factory.mktemp("bundle"))))


class Reader(BaseCaptioner):
    """A captioner that says the mean colour of a picture."""

    name = "reader"
    search = SearchOptions()

    def stream(self, images: Any, options: CaptionOptions | None = None) -> Iterator[Caption]:
        for image in images:
            red, green, blue = np.asarray(image.convert("RGB")).reshape(-1, 3).mean(axis=0)
            yield Caption("x", f"{red:.0f} {green:.0f} {blue:.0f}", -1.0, self.name)


def times(found: VideoDescription) -> list[tuple[float, float]]:
    return [(shot.start, shot.end) for shot in found.shots]


def close(
    found: VideoDescription, expected: list[tuple[float, float]], within: float = 0.3
) -> bool:
    return len(found.shots) == len(expected) and all(
        abs(a - b) <= within
        for got, wanted in zip(times(found), expected, strict=True)
        for a, b in zip(got, wanted, strict=True)
    )


THREE = [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0)]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "mpeg4"),
        ("a.mkv", "mpeg4"),
        ("a.avi", "mjpeg"),
        ("a.ts", "mpeg2video"),
        ("a.mov", "png"),
    ],
)
def test_three_shots_give_three_sentences_with_their_times(
    captioner: BundleCaptioner, tmp_path: Path, name: str, codec: str
) -> None:
    pixels = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
    rate = 25 if codec == "mpeg2video" else 10
    path = clips.write(
        tmp_path / name, clips.shots(1, 2, 3, rate=rate), codec=codec, pixels=pixels, rate=rate
    )
    found = describe_video(captioner, path, UNMERGED)
    assert found.ok
    assert close(found, THREE), times(found)
    assert all(shot.caption for shot in found.shots)
    assert found.duration == pytest.approx(6, abs=0.11)


def test_bytes_are_read_as_a_file_is(captioner: BundleCaptioner, tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", clips.shots(1, 2))
    assert times(describe_video(captioner, path.read_bytes(), UNMERGED)) == times(
        describe_video(captioner, path, UNMERGED)
    )


def test_times_count_from_the_first_frame(captioner: BundleCaptioner, tmp_path: Path) -> None:
    path = clips.write(
        tmp_path / "a.ts", clips.shots(1, 2, rate=25), codec="mpeg2video", rate=25, offset=3600
    )
    assert close(describe_video(captioner, path, UNMERGED), THREE[:2])


def test_a_variable_frame_rate_keeps_times(captioner: BundleCaptioner, tmp_path: Path) -> None:
    stamps = [*np.arange(0, 2, 0.04), *np.arange(2, 4, 0.25), *np.arange(4, 6, 0.1)]
    pictures = [clips.scene(1 + int(stamp // 2)) for stamp in stamps]
    path = clips.write(tmp_path / "a.mkv", pictures, times=stamps, rate=25)
    assert close(describe_video(captioner, path, UNMERGED), THREE)


class StubFrame:
    """A frame at a time that the detector's time base cannot represent."""

    duration = 0.04

    def __init__(self, time: float, seed: int) -> None:
        self.time, self.pixels = time, clips.scene(seed)

    def thumbnail_bgr(self, _: int) -> np.ndarray:
        return self.pixels[..., ::-1].copy()

    def picture(self, _: int) -> Image.Image:
        return Image.fromarray(self.pixels)


def test_no_frame_of_the_next_shot_describes_the_one_before() -> None:
    late = 19.919999999999998  # the detector says 19.92
    frames = [StubFrame(0.04 * n, 1) for n in range(50)]
    frames += [StubFrame(late + 0.04 * n, 2) for n in range(50)]
    first, second = cut_shots(iter(frames), VideoOptions())  # type: ignore[arg-type]
    assert first.end == second.start == late
    assert max(sample.time for sample in first.samples) < 2


def test_black_between_shots_belongs_to_none(captioner: BundleCaptioner, tmp_path: Path) -> None:
    pictures = [*clips.shots(1), *[clips.plain(0)] * 15, *clips.shots(2)]
    found = describe_video(captioner, clips.write(tmp_path / "a.mp4", pictures), UNMERGED)
    assert close(found, [(0, 2), (3.5, 5.5)])


def test_a_fade_and_a_flash_are_no_shots(captioner: BundleCaptioner, tmp_path: Path) -> None:
    fading = [np.uint8(clips.scene(1) * share) for share in np.linspace(1, 0, 8)]
    pictures = [*clips.shots(1), clips.plain(255), clips.plain(255), *clips.shots(1), *fading]
    found = describe_video(captioner, clips.write(tmp_path / "a.mp4", pictures))
    assert len(found.shots) == 1


def test_a_video_of_black_has_no_shots(captioner: BundleCaptioner, tmp_path: Path) -> None:
    found = describe_video(captioner, clips.write(tmp_path / "a.mp4", [clips.plain(0)] * 20))
    assert found.ok
    assert found.shots == ()


def test_a_single_frame_is_a_shot(captioner: BundleCaptioner, tmp_path: Path) -> None:
    found = describe_video(captioner, clips.write(tmp_path / "a.mp4", [clips.scene(1)]))
    assert len(found.shots) == 1


def test_neighbours_with_the_same_content_are_merged(
    captioner: BundleCaptioner, tmp_path: Path
) -> None:
    path = clips.write(tmp_path / "a.mp4", clips.shots(1, 2))
    assert len(describe_video(captioner, path, VideoOptions(merge=0)).shots) == 1
    assert len(describe_video(captioner, path, UNMERGED).shots) == 2


def first(path: Path) -> Image.Image:
    with VideoReader(path) as reader:
        return next(reader.frames()).picture(1000)


LEFT_RED = np.concatenate(
    [np.full((64, 48, 3), (250, 10, 10)), np.full((64, 48, 3), (10, 10, 250))], 1
).astype(np.uint8)


@pytest.mark.parametrize(
    ("rotation", "mirrored", "red_at"),
    [
        (0, False, (5, 30)),
        (90, False, (30, 90)),
        (180, False, (90, 30)),
        (270, False, (30, 5)),
        (0, True, (90, 30)),
    ],
)
def test_frames_are_upright(
    tmp_path: Path, rotation: int, mirrored: bool, red_at: tuple[int, int]
) -> None:
    path = clips.write(tmp_path / "a.mp4", [LEFT_RED] * 3, rotation=rotation, mirrored=mirrored)
    picture = first(path)
    assert picture.size == ((64, 96) if rotation % 180 else (96, 64))
    red, _, blue = picture.getpixel(red_at)
    assert red > 180 > blue


def test_pixels_become_square(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", clips.shots(1), aspect=Fraction(2, 1))
    assert first(path).size == (192, 64)


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    clear = np.dstack([clips.plain(0), np.zeros((64, 96), np.uint8)])
    path = clips.write(tmp_path / "a.mov", [clear] * 2, codec="png", pixels="rgba")
    assert min(first(path).getpixel((40, 30))) > 250


def test_high_dynamic_range_is_mapped_to_the_usual_one(tmp_path: Path) -> None:
    grey = np.repeat(np.linspace(0, 255, 96).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    path = clips.write(
        tmp_path / "a.mkv", [grey] * 2, codec="ffv1", pixels="yuv420p10le", transfer=16
    )
    row = np.asarray(first(path).convert("L"))[30].astype(int)
    assert (np.diff(row) >= -2).all()
    assert row[0] < 10
    assert row[55] > 180  # PQ 0.58 is the reference white
    assert row[24] > 15


def test_tone_mapping_keeps_order_and_grey() -> None:
    light = np.array([0.0, 1, 50, 203, 1000, 10000], np.float32)[:, None].repeat(3, 1)
    mapped = to_srgb(light).astype(int)
    assert (np.diff(mapped[:, 0]) >= 0).all()
    assert abs(mapped - mapped[:, :1]).max() <= 3
    assert 200 <= mapped[3, 0] <= 250


def test_a_file_cut_short_gives_what_can_be_read_and_an_error(
    captioner: BundleCaptioner, tmp_path: Path
) -> None:
    path = clips.write(tmp_path / "a.mkv", clips.shots(1, 2, 3), codec="mjpeg", pixels="yuvj420p")
    content = path.read_bytes()
    found = describe_video(captioner, content[: round(0.6 * len(content))], UNMERGED)
    assert isinstance(found.error, VideoCorruptError)
    assert "cut short" in str(found.error)
    assert len(found.shots) == 2
    assert 3 < found.duration < 4.2
    assert found.to_dict()["status"] == "error"


def test_a_damaged_packet_costs_little(captioner: BundleCaptioner, tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mov", clips.shots(1, 2), codec="png", pixels="rgb24")
    content = bytearray(path.read_bytes())
    place = content.find(b"\x89PNG", len(content) // 2)
    content[place : place + 60] = bytes(60)
    found = describe_video(captioner, bytes(content), UNMERGED)
    assert isinstance(found.error, VideoCorruptError)
    assert found.duration == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.mp4", b"", VideoCorruptError),
        ("a.mp4", b"hello, this is no video\n" * 50, VideoFormatError),
        (
            "a.m3u8",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n/etc/passwd\n#EXT-X-ENDLIST\n",
            VideoFormatError,
        ),
        ("a.ffconcat", b"ffconcat version 1.0\nfile /etc/passwd\n", VideoFormatError),
        (
            "a.sdp",
            b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
            VideoFormatError,
        ),
    ],
)
def test_what_is_no_video_is_refused(
    captioner: BundleCaptioner, tmp_path: Path, name: str, content: bytes, kind: type[VideoError]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(kind):
        describe_video(captioner, tmp_path / name)


def test_a_picture_and_a_missing_file_and_a_folder_are_refused(
    captioner: BundleCaptioner, tmp_path: Path
) -> None:
    Image.fromarray(clips.scene(1)).save(tmp_path / "a.jpg")
    with pytest.raises(VideoFormatError):
        describe_video(captioner, tmp_path / "a.jpg")
    with pytest.raises(VideoNotFoundError):
        describe_video(captioner, tmp_path / "none.mp4")
    with pytest.raises(VideoFormatError, match="folder"):
        describe_video(captioner, tmp_path)


def test_an_audio_file_with_a_cover_is_no_video(captioner: BundleCaptioner, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", format="mp4") as container:
        sound: Any = container.add_stream("aac", rate=8000)
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(clips.scene(1), format="rgb24")
        container.mux(cover.encode(frame.reformat(format="yuvj420p")))
        container.mux(cover.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    with pytest.raises(VideoFormatError, match="cover"):
        describe_video(captioner, path)


def test_limits_are_kept(captioner: BundleCaptioner, tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", clips.shots(1, 2))
    for limits in (VideoLimits(max_bytes=100), VideoLimits(max_pixels=100)):
        with pytest.raises(VideoTooLargeError):
            describe_video(captioner, path, VideoOptions(limits=limits))
    found = describe_video(
        captioner, path, VideoOptions(merge=2, limits=VideoLimits(max_seconds=1))
    )
    assert isinstance(found.error, VideoTooLargeError)
    assert found.duration <= 1.2
    assert len(found.shots) == 1


def test_frames_agree_or_are_averaged(captioner: BundleCaptioner, tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", clips.shots(1))
    sentences = {
        method: describe_video(captioner, path, VideoOptions(method=method)).shots[0].caption
        for method in ("auto", "average", "agreement", "middle")
    }
    assert len(set(sentences.values())) == 1  # all frames are alike
    with pytest.raises(OptionError, match="agreement"):
        describe_video(Reader(), path, VideoOptions(method="average"))
    assert re.fullmatch(r"\d+ \d+ \d+", describe_video(Reader(), path).shots[0].caption)


def test_the_caption_most_like_the_others_is_agreed_on() -> None:
    texts = ["a dog runs", "a dog runs fast", "two cats", "a dog runs on grass"]
    captions = [Caption("x", text, -float(number)) for number, text in enumerate(texts)]
    assert agreed(captions).text == "a dog runs"
    with pytest.raises(VideoError):
        agreed([Caption("x", error=VideoError("x", "y"))])


def test_a_summary_is_made_on_demand(captioner: BundleCaptioner, tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", clips.shots(1, 2, seconds=1))
    assert describe_video(captioner, path, VideoOptions(summary=True)).summary
    assert not describe_video(captioner, path).summary


def test_shots_come_one_by_one_and_can_be_abandoned(
    captioner: BundleCaptioner, tmp_path: Path
) -> None:
    path = clips.write(tmp_path / "a.mp4", clips.shots(*range(12), seconds=1))
    run = VideoRun(captioner, path, UNMERGED)
    stream = run.shots()
    assert next(stream).start == 0
    run.stop()
    assert len(list(stream)) < 11
    run.close()


def description(*captions: str) -> VideoDescription:
    shots = tuple(Shot(3599.9999 + n, 360_001.5 + n, text) for n, text in enumerate(captions))
    return VideoDescription("a.mp4", 9.0, 96, 64, shots, model="m")


def test_cues_are_escaped_and_hours_may_exceed_99() -> None:
    found = description("a <b>dog</b> & cat --> x\n\nNOTE y")
    assert webvtt(found) == (
        "WEBVTT\n\n1\n01:00:00.000 --> 100:00:01.500\n"
        "a &lt;b&gt;dog&lt;/b&gt; &amp; cat --&gt; x NOTE y\n"
    )
    assert subrip(found).startswith("1\n01:00:00,000 --> 100:00:01,500\na &lt;b&gt;")
    assert clock(0.0004) == "00:00:00.000"
    assert clock(59.9996) == "00:01:00.000"


def test_a_storyboard_is_one_page(captioner: BundleCaptioner, tmp_path: Path) -> None:
    path = clips.write(tmp_path / "a.mp4", clips.shots(1, 2))
    page = storyboard(describe_video(captioner, path, UNMERGED))
    assert page.count("data:image/jpeg") == 2
    assert "http" not in page


def run(folder: Path, *words: Any) -> tuple[int, str, str]:
    bundle = folder / "models" / tiny.NAME
    if not bundle.exists():
        tiny.build(folder / "models")
    result = CliRunner().invoke(app, ["video", *map(str, words), "--model", str(bundle)])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_lines_errors_and_exit_code(tmp_path: Path) -> None:
    good = clips.write(tmp_path / "a.mp4", clips.shots(1, 2))
    bad = tmp_path / "b.mp4"
    bad.write_bytes(b"no video at all " * 100)
    code, out, err = run(tmp_path, good, bad, "--merge", 2)
    assert code == 1
    assert [line.split("\t")[:2] for line in out.splitlines()] == [
        [str(good), "00:00:00.000"], [str(good), "00:00:02.000"],
    ]  # fmt: skip
    assert err.count("\n") == 1


@pytest.mark.parametrize("ending", ["vtt", "srt", "json", "jsonl", "csv"])
def test_formats_follow_the_name(tmp_path: Path, ending: str) -> None:
    good = clips.write(tmp_path / "a.mp4", clips.shots(1, 2))
    target = tmp_path / f"out.{ending}"
    assert run(tmp_path, good, "-o", target, "--merge", 2)[0] == 0
    text = target.read_text(encoding="utf-8")
    if ending.startswith("json"):
        assert len(json.loads(text)["shots"]) == 2
    elif ending == "csv":
        assert [row["shot"] for row in csv.DictReader(io.StringIO(text))] == ["1", "2"]
    else:
        assert text.count(" --> ") == 2


def test_a_folder_resumes_to_the_undisturbed_output(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        clips.write(folder / f"{number}.mp4", clips.shots(number, number + 5, seconds=1))
    (folder / "notes.txt").write_text("x")
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    assert run(tmp_path, folder, "-o", whole, "--merge", 2)[0] == 0
    lines = whole.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(lines[:4]))
    assert run(tmp_path, folder, "-o", cut, "--merge", 2, "--resume")[0] == 0
    assert cut.read_bytes() == whole.read_bytes()


def test_several_videos_do_not_fit_in_one_track(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        clips.write(tmp_path / name, clips.shots(1))
    assert run(tmp_path, tmp_path, "--format", "vtt")[0] == 2
    assert run(tmp_path, tmp_path / "a.mp4", "--storyboard", tmp_path / "x.html")[0] == 0
    assert (tmp_path / "x.html").is_file()
