from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import scene
from typer.testing import CliRunner

from cutline.caption import BaseCaptioner, Caption
from cutline.cli import app
from cutline.cli.compare import model_and_run
from cutline.data import Example
from cutline.errors import DataError
from cutline.evaluation.compare import Compared, Entry, History, compare, entry, history
from cutline.evaluation.evaluate import Report, evaluate

IMAGES = 30
KINDS = ("dog", "girl", "boat")
EXAMPLES = [
    Example(Path(f"{n}.jpg"), (f"a {KINDS[n % 3]} on sand {n}", f"the {KINDS[n % 3]} sits {n}"))
    for n in range(IMAGES)
]


@dataclass
class Parrot(BaseCaptioner):
    """Knows what people said of the first so many images."""

    name: str
    knows: int

    def stream(self, images: Iterable[Any], options: Any = None) -> Iterator[Caption]:
        for n, _ in enumerate(images):
            text = EXAMPLES[n].captions[0] if n < self.knows else "a <cat> & more"
            yield Caption("", text, -0.5)


def report(name: str, knows: int, **options: Any) -> Report:
    return evaluate(Parrot(name, knows), EXAMPLES, meteor=False, baselines=False, **options)


@pytest.fixture
def compared() -> Compared:
    good = Entry(report("good", 24), 9_000_000, 60.0, ((1, 0.1), (2, 0.4)))
    twin = Entry(report("twin", 23))
    return compare([Entry(report("poor", 3)), twin, good])


def test_the_best_comes_first_and_chance_is_told_from_difference(compared: Compared) -> None:
    assert [entry.name for entry in compared.entries] == ["good", "twin", "poor"]
    pairs = {(pair.first, pair.second): pair.cider_d for pair in compared.pairs}
    assert list(pairs) == [("good", "twin"), ("good", "poor"), ("twin", "poor")]
    assert pairs["good", "poor"].p < 0.01
    assert pairs["good", "poor"].low > 0
    assert pairs["good", "twin"].p > 0.05
    assert pairs["good", "twin"].difference >= 0


def test_the_table_and_the_json_say_what_the_reports_say(compared: Compared) -> None:
    content = json.loads(compared.to_json())
    first = content["captioners"][0]
    value = compared.entries[0].report.captioner.scores["CIDEr-D"]
    assert first["scores"]["CIDEr-D"]["value"] == value.value
    assert (first["parameters"], first["seconds_per_epoch"]) == (9_000_000, 60.0)
    assert content["images"] == IMAGES
    [line] = [line for line in compared.to_markdown().splitlines() if line.startswith("| good")]
    assert f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]" in line
    assert "| 9.0 M | 60 |" in line


def test_the_page_is_one_escaped_file_with_a_gallery(compared: Compared, tmp_path: Path) -> None:
    scene().save(tmp_path / "0.jpg")
    (tmp_path / "1.jpg").write_bytes(b"broken")
    html = compared.to_html(lambda name: tmp_path / name, examples=30)
    assert "a &lt;cat&gt; &amp; more" in html
    assert "<cat>" not in html
    assert html.count("<img") == 1
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)', html))
    assert html.count("<polyline") == 1
    few = compared.to_html(lambda name: None, examples=2)
    galleries = re.split("<h2>", few)[-3:]
    assert [part.count("<article") for part in galleries] == [2, 2, 2]
    assert "Captioned best" in galleries[0]
    names = re.findall(r"References of (\S+)</summary>", few)
    assert len(set(names)) == 6
    for name in names[:2]:
        assert int(name.partition(".")[0]) < 3  # all three knew these


def test_a_single_image_is_shown_once() -> None:
    html = compare([Entry(report("good", 3, limit=1)), Entry(report("poor", 0, limit=1))]).to_html(
        lambda name: None
    )
    assert "1 image, the same for all" in html
    assert "Captioned best" in html
    assert "Captioned worst" not in html


def test_what_cannot_be_compared_is_refused(compared: Compared) -> None:
    with pytest.raises(DataError, match="different images"):
        compare([Entry(report("a", 3)), Entry(report("b", 3, limit=5))])
    with pytest.raises(DataError, match="each with a different name"):
        compare([compared.entries[0], compared.entries[0]])
    with pytest.raises(DataError, match="at least one"):
        compare([])


def test_a_run_tells_its_curve_and_its_pace(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "dev_cider,epoch,train_loss\n0.1,0,\n,0,4.0\n0.2,1,\n,1,3.0\n0.25,1,\n"  # begun again
    )
    judged = report("good", 24)
    assert history(tmp_path) == History(None, None, ((1, 0.1), (2, 0.25)))
    (tmp_path / "summary.json").write_text('{"seconds_per_epoch": 12.5, "parameters": 7}')
    manifest = replace(tiny.manifest(), parameters={"encoder": 5, "decoder": 9})
    told = entry(judged, manifest, history(tmp_path))
    assert (told.seconds_per_epoch, told.parameters) == (12.5, 9)
    assert told.curve == ((1, 0.1), (2, 0.25))
    assert entry(judged, run=history(tmp_path)).parameters == 7
    with pytest.raises(DataError, match=r"without metrics\.csv"):
        history(tmp_path / "nowhere")


def test_the_command_compares_models_baselines_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "set"
    (folder / "Images").mkdir(parents=True)
    lines = ["image,caption"]
    for number, picture in enumerate(tiny.pictures(8)):
        scene().rotate(40 * number).save(folder / "Images" / f"{number}.jpg")
        assert picture is not None
        lines += [f"{number}.jpg,the dog runs near water", f"{number}.jpg,a cat sits {number}"]
    (folder / "captions.txt").write_text("\n".join(lines))
    for split, names in {"train": range(4), "dev": range(4, 8)}.items():
        listed = "".join(f"{n}.jpg\n" for n in names)
        (folder / f"Flickr_8k.{split}Images.txt").write_text(listed)
    bundle = str(tiny.build(tmp_path).folder)
    run = CliRunner().invoke
    wrote = run(app, ["evaluate", bundle, str(folder), "-o", "a.json", "--no-meteor"])
    assert wrote.exit_code == 0, wrote.output
    saved = Report.from_json(Path("a.json").read_text())
    renamed = replace(saved, captioner=replace(saved.captioner, name="earlier"))
    Path("a.json").write_text(renamed.to_json())

    arguments = ["compare", bundle, "a.json", "--data", str(folder), "--no-meteor"]
    done = run(app, [*arguments, "-o", "c.html", "--json", "c.json", "--markdown", "c.md"])
    assert done.exit_code == 0, done.output
    content = json.loads(Path("c.json").read_text())
    assert {each["name"] for each in content["captioners"]} == {tiny.NAME, "earlier"}
    assert content["pairs"][0]["cider_d"]["difference"] == 0
    assert {each["name"] for each in content["baselines"]} >= {"human", "most common"}
    assert Path("c.md").read_text() in done.output
    assert Path("c.html").read_text().count("<img") > 0
    assert run(app, [*arguments, "-o", "c.html"]).exit_code == 2

    def judge(*_: object, **__: object) -> None:
        raise AssertionError("judged before all were known")

    monkeypatch.setattr("cutline.evaluation.evaluate.evaluate", judge)
    for name, message in (
        ("absent.json", "got no report absent"),
        ("c.json", "is no report"),
        (f"{bundle}=nowhere", "got nowhere without metrics.csv"),
        (bundle, "each with a different name"),
    ):
        refused = run(app, ["compare", bundle, name, "--data", str(folder), "-o", "d.html"])
        assert refused.exit_code == 1
        assert message in refused.stderr


def test_a_run_follows_the_last_equals_sign_that_a_folder_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a=b-v1", "runs/c=d"):
        Path(folder).mkdir(parents=True)
    url = "http://127.0.0.1/v1?key=a#m"
    assert model_and_run("a-v1") == ("a-v1", "")
    assert model_and_run("a=b-v1") == ("a=b-v1", "")
    assert model_and_run("a=b-v1=runs/c=d") == ("a=b-v1", "runs/c=d")
    assert model_and_run(url) == (url, "")
    assert model_and_run(f"{url}=runs/c=d") == (url, "runs/c=d")
    assert model_and_run("a-v1=none") == ("a-v1", "none")
