from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import scene
from PIL import Image
from typer.testing import CliRunner

from cutline.boxes import Box, overlaps, suppress
from cutline.caption import Attention, Caption
from cutline.captioner import BundleCaptioner
from cutline.cli import app
from cutline.errors import ImageNotFoundError, OptionError
from cutline.regions.describe import best, phrase_of
from cutline.regions.grounding import ground, nouns, peak_box
from cutline.regions.model import Detection, ImageRegions, Region, RegionOptions
from cutline.regions.picture import draw_regions, regions_page
from cutline.regions.proposals import propose, windows
from cutline.runtime import Runtime


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> BundleCaptioner:
    return BundleCaptioner(Runtime(tiny.build(tmp_path_factory.mktemp("bundle"))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scene(96, 64).save(tmp_path / "a.png")
    scene(64, 96).save(tmp_path / "b.png")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "pixels"),
    [
        ("10,20,30,40", (10, 20, 30, 40)),
        (" 10 , 20 , 30 , 40 ", (10, 20, 30, 40)),
        ("10%,20%,30%,40%", (20, 20, 60, 40)),
        ("10%,20,30%,40", (20, 20, 60, 40)),
        ("-10,-10,30,30", (0, 0, 20, 20)),
        ("150,50,1000,1000", (150, 50, 50, 50)),
        ("0.5,.5,1,1", (0.5, 0.5, 1, 1)),
    ],
)
def test_a_box_is_read_in_pixels_or_percent_and_clipped(text: str, pixels: tuple[float]) -> None:
    assert Box.parse(text).within((200, 100)).xywh == pytest.approx(pixels)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,0,4", "1,2,3,-4", "nan,0,1,1", "1e9,0,1,1"]
)
def test_no_box_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OptionError, match="expected"):
        Box.parse(text)


def test_a_box_outside_the_image_is_refused() -> None:
    with pytest.raises(OptionError, match="outside"):
        Box.parse("300,0,10,10").within((200, 100))


def test_a_crop_has_the_margin_and_at_least_a_pixel() -> None:
    assert Box(100, 50, 20, 10).crop(0.5, (200, 100)) == (90, 45, 130, 65)
    left, upper, right, lower = Box(199.9, 99.9, 0.1, 0.1).crop(0, (200, 100))
    assert right > left
    assert lower > upper


def test_overlap_and_suppression() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 5, 5]], float)
    assert overlaps(boxes, boxes)[0] == pytest.approx([1, 0.5, 0])
    assert suppress(boxes, [0.1, 0.9, 0.5], 0.4) == [1, 2]
    assert suppress(boxes, [0.1, 0.9, 0.5], 0.5) == [1, 2, 0]
    assert suppress(boxes[:0], [], 0.5) == []


def test_proposals_find_the_part_that_differs() -> None:
    features = np.zeros((9, 9, 4), np.float32)
    features[..., 0] = 1
    features[2:5, 3:7] = [0, 1, 0, 0]
    boxes = propose(features, 10)
    odd = np.array([[3 / 9, 2 / 9, 4 / 9, 3 / 9]])
    assert overlaps(odd, boxes[:3]).max() == pytest.approx(1)
    assert len(boxes) <= 10
    assert overlaps(boxes, boxes)[np.triu_indices(len(boxes), 1)].max() <= 0.5


def test_windows_lie_inside_and_differ() -> None:
    boxes = windows()
    assert (boxes >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-9).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)


def test_given_boxes_are_described_exactly_and_in_order(captioner: BundleCaptioner) -> None:
    image = scene(200, 100)
    boxes = [Box.parse("50%,0%,50%,100%"), (0, 0, 40, 40)]
    found = captioner.regions(image, boxes, RegionOptions(margin=0.1))
    assert [region.box.xywh for region in found.regions] == [(100, 0, 100, 100), (0, 0, 40, 40)]
    expected = captioner.caption(image.crop((90, 0, 200, 100)))
    assert found.regions[0].phrase == phrase_of(expected.text)
    assert found.regions[0].confidence == pytest.approx(math.exp(expected.score))
    assert found.regions[0].label == expected.labels[0].name


def test_boxes_are_in_pixels_of_the_upright_image(
    captioner: BundleCaptioner, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(200, 100).save(tmp_path / "turned.jpg", exif=exif)
    found = captioner.regions(tmp_path / "turned.jpg", [Box.parse("0%,0%,100%,100%")])
    assert (found.width, found.height) == (100, 200)
    assert found.regions[0].box.xywh == (0, 0, 100, 200)


def test_found_regions_are_ordered_and_do_not_overlap(captioner: BundleCaptioner) -> None:
    found = captioner.regions(scene(200, 150), options=RegionOptions(max_regions=4, caption=True))
    assert 0 < len(found.regions) <= 4
    sure = [region.confidence for region in found.regions]
    assert sure == sorted(sure, reverse=True)
    boxes = np.array([region.box.xywh for region in found.regions])
    assert overlaps(boxes, boxes)[np.triu_indices(len(boxes), 1)].max(initial=0) <= 0.5
    assert found.caption


def test_regions_with_one_phrase_are_merged_and_weak_ones_left_out() -> None:
    def region(x: float, phrase: str, sure: float) -> Region:
        return Region(Box(x, 0, 10, 10), phrase, confidence=sure)

    given = [
        region(0, "a dog", 0.5),
        region(9, "a dog", 0.9),
        region(5, "a black dog", 0.4),
        region(14, "a cat", 0.35),
        region(50, "a dog", 0.3),
        region(90, "a dog", 0.1),
    ]
    kept = best(given, RegionOptions(min_confidence=0.2))
    assert [(each.box.x, each.phrase) for each in kept] == [
        (9, "a dog"),
        (14, "a cat"),
        (50, "a dog"),
    ]


def test_a_detector_gives_boxes_and_labels(captioner: BundleCaptioner) -> None:
    def detector(image: Image.Image) -> list[Detection]:
        box = Box(10, 10, 50, 50)
        outside = Box(5000, 0, 10, 10)
        return [Detection(box, "dog", 0.8), Detection(box, "cat", 0.9), Detection(outside, "x", 1)]

    found = captioner.regions(scene(200, 150), detector=detector)
    [region] = found.regions
    assert (region.label, region.confidence) == ("cat", 0.9)


def test_an_unreadable_image_raises_alone_and_is_an_item_among_several(
    captioner: BundleCaptioner, tmp_path: Path
) -> None:
    with pytest.raises(ImageNotFoundError):
        captioner.regions(tmp_path / "none.jpg")
    bad, good = captioner.stream_regions([tmp_path / "none.jpg", scene(50, 40)])
    assert isinstance(bad.error, ImageNotFoundError)
    assert good.ok
    assert bad.to_dict()["status"] == "error"


@pytest.mark.parametrize(
    "changes", [{"margin": -1}, {"max_regions": 0}, {"max_overlap": 2}, {"proposals": 0}]
)
def test_options_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="expected"):
        RegionOptions(**changes)


def test_phrases_have_no_capital_and_no_stop() -> None:
    assert phrase_of("A dog runs.") == "a dog runs"
    assert phrase_of("BMW on a road.") == "BMW on a road"
    assert phrase_of("") == ""


def test_nouns_of_a_caption() -> None:
    words = "a brown dog is running through the tall grass next to a brick building".split()
    assert [words[place] for place in nouns(words)] == ["dog", "grass", "building"]


def test_a_noun_gets_the_box_of_its_attention() -> None:
    weights = np.full((2, 9), 0.01, np.float32)
    weights[1, [4, 5]] = 0.4
    weights[1, 0] = 0.3  # as strong, but apart
    caption = Caption("x", "A dog.", attention=Attention(weights, (3, 3), ("a", "dog")))
    [grounding] = ground(caption, (300, 150))
    assert grounding.word == "dog"
    assert grounding.box.xywh == pytest.approx((100, 50, 200, 50))
    assert ground(Caption("x", "A dog."), (300, 150)) == ()
    assert peak_box(np.ones(9, np.float32), (3, 3)) == pytest.approx([0, 0, 1, 1])


def test_drawings_show_boxes_and_escape_phrases() -> None:
    region = Region(Box(10, 10, 30, 20), "a <b>dog</b>", "dog", 0.5, 0.5)
    found = ImageRegions("<x>.png", 96, 64, (region,), model="m")
    sheet = draw_regions(scene(96, 64), found)
    assert sheet.getpixel((20, 29)) == Image.new("RGB", (1, 1), "#0072b2").getpixel((0, 0))
    page = regions_page(scene(96, 64), found)
    assert "a &lt;b&gt;dog" in page
    assert "<x>" not in page
    assert "http" not in page.replace("http-equiv", "")


def run(folder: Path, *words: str) -> tuple[int, str, str]:
    bundle = folder / "models" / tiny.NAME
    if not bundle.exists():
        tiny.build(folder / "models")
    result = CliRunner().invoke(app, ["regions", *words, "--model", str(bundle)])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_lines_and_one_error_a_line(folder: Path) -> None:
    code, out, err = run(
        folder, str(folder / "a.png"), str(folder / "none.png"), "--box", "0,0,20,20"
    )
    assert code == 1
    [line] = out.splitlines()
    assert line.split("\t")[:2] == [str(folder / "a.png"), "0,0,20,20"]
    assert err.count("\n") == 1
    assert "no such file" in err


def test_json_is_an_object_for_one_and_an_array_for_several(folder: Path) -> None:
    _, one, _ = run(folder, str(folder / "a.png"), "--format", "json")
    assert json.loads(one)["width"] == 96
    _, many, _ = run(folder, str(folder / "a.png"), str(folder / "b.png"), "--format", "json")
    assert [each["height"] for each in json.loads(many)] == [64, 96]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_an_output_that_was_cut_short_resumes_to_the_undisturbed_one(
    folder: Path, ending: str
) -> None:
    whole, cut = folder / f"whole.{ending}", folder / f"cut.{ending}"
    assert run(folder, str(folder), "-o", str(whole), "--format", ending)[0] == 0
    content = whole.read_bytes()
    lines = content.splitlines(keepends=True)
    for kept in (0, 1, len(lines) // 2, len(lines) - 1):
        cut.write_bytes(b"".join(lines[:kept]) + lines[min(kept, len(lines) - 1)][:9])
        assert run(folder, str(folder), "-o", str(cut), "--format", ending, "--resume")[0] == 0
        assert cut.read_bytes() == content


def test_csv_has_a_row_for_each_region(folder: Path) -> None:
    _, out, _ = run(folder, str(folder / "a.png"), "--format", "csv", "--max-regions", "3")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["region"] for row in rows] == [str(n) for n in range(1, len(rows) + 1)]
    assert {row["regions"] for row in rows} == {str(len(rows))}


def test_drawings_go_to_files_or_a_folder_and_nothing_is_overwritten(folder: Path) -> None:
    png, page = folder / "out.png", folder / "out.html"
    assert run(folder, str(folder / "a.png"), "--draw", str(png), "--draw", str(page))[0] == 0
    with Image.open(png) as drawn:
        assert drawn.size[0] >= 96
    assert run(folder, str(folder / "a.png"), "--draw", str(png))[0] == 2
    assert run(folder, str(folder / "a.png"), str(folder / "b.png"), "--draw", str(png))[0] == 2
    many = folder / "drawn"
    assert run(folder, str(folder / "a.png"), str(folder / "b.png"), "--draw", str(many))[0] == 0
    assert sorted(each.name for each in many.iterdir()) == [
        "a.png.regions.html", "a.png.regions.png", "b.png.regions.html", "b.png.regions.png",
    ]  # fmt: skip
