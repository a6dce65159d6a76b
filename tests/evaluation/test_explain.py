from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from conftest import scene
from PIL import Image
from typer.testing import CliRunner

from cutline.caption import Alternative, Attention, Caption, Label
from cutline.captioner import BundleCaptioner
from cutline.cli import app
from cutline.errors import OptionError
from cutline.evaluation.explain import candidates, explanation, storyboard, veil
from cutline.runtime import Runtime


def caption(words: str = "a dog & a <cat>", **changes: object) -> Caption:
    weights = np.eye(9, dtype=np.float32)[: len(words.split())]
    attention = Attention(weights, (3, 3), tuple(words.split()))
    return replace(Caption("it.jpg", "A dog & a <cat>.", -0.5, "m", attention=attention), **changes)


def brightness(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"), dtype=float)


def test_a_veil_is_clear_where_the_model_looked_and_dark_elsewhere() -> None:
    weights = np.zeros(6, np.float32)
    weights[4] = 0.2  # row 1, column 1 of 2 x 3
    over = Image.new("RGBA", (90, 60), "white")
    over.alpha_composite(veil(weights, (2, 3), (90, 60)))
    seen = brightness(over)
    assert np.unravel_index(seen.argmax(), seen.shape)[0] >= 35
    assert seen[45, 45] > 200
    assert seen[10, 10] < 100
    assert seen[45, 5] < seen[45, 45]


def test_a_veil_does_not_mind_the_scale_of_attention_nor_none_at_all() -> None:
    weights = np.random.default_rng(0).random(9, dtype=np.float32)
    small, large = (np.asarray(veil(weights * k, (3, 3), (30, 30)), int) for k in (0.01, 7.0))
    assert abs(small - large).max() <= 1
    nothing = np.asarray(veil(np.zeros(9, np.float32), (3, 3), (30, 30)))
    assert len(np.unique(nothing.reshape(-1, 4), axis=0)) == 1


def test_a_storyboard_has_the_photograph_and_a_lit_copy_for_each_word() -> None:
    picture = scene(160, 120)
    one_row = storyboard(picture, caption("a dog"), columns=3, cell_px=80)
    two_rows = storyboard(picture, caption("a dog sits"), columns=3, cell_px=80)
    assert two_rows.width == one_row.width
    assert two_rows.height - one_row.height > 60
    copy = brightness(one_row)
    cell = 80 + 14
    top = next(y for y in range(copy.shape[0]) if copy[y, 14 : 14 + 80].std() > 20)
    first = copy[top + 20 : top + 60, 14 : 14 + 80].mean()
    dark = copy[top + 20 : top + 60, 14 + cell + 40 : 14 + cell + 80].mean()
    assert dark < 0.6 * first


def test_a_page_escapes_what_it_shows_and_needs_nothing_from_elsewhere() -> None:
    html = explanation(
        scene(),
        caption(
            alternatives=(Alternative("A <b>bird</b>.", -0.75),), labels=(Label("tripod", 0.5),)
        ),
    )
    assert "<li>A &lt;b&gt;bird&lt;/b&gt;.</li>" in html
    spelled = re.findall(r'data-word="\d">([^<]*)<', html)
    assert spelled == ["A", "dog", "&amp;", "a", "&lt;cat&gt;."]
    assert html.index("Point at a word") < html.index("data-word") < html.index('class="stage"')
    assert "0.75" not in html  # it does not rank
    assert "<b>" not in html
    assert html.count('class="veil"') == html.count("data-word=") == 5
    assert "tripod" in html
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)', html))


def test_a_captioner_without_attention_is_refused() -> None:
    for bare in (caption(attention=None), Caption("x")):
        with pytest.raises(OptionError, match="no attention"):
            storyboard(scene(), bare)
        with pytest.raises(OptionError, match="no attention"):
            explanation(scene(), bare)


def test_candidates_are_whole_sentences() -> None:
    said = caption(text="A dog runs.", alternatives=(Alternative("A dog sits.", -0.6),))
    assert candidates(said).splitlines()[1:] == [
        " 1   -0.500  A dog runs.",
        " 2   -0.600  A dog sits.",
    ]


def test_the_command_writes_a_picture_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = tiny.build(tmp_path)
    scene(200, 100).save("it.jpg")
    run = CliRunner().invoke
    model = ["--model", str(bundle.folder)]
    shown = run(app, ["explain", "it.jpg", *model, "--n-best", "3", "-o", "a.png", "-o", "a.html"])
    assert shown.exit_code == 0, shown.output
    says = BundleCaptioner(Runtime(bundle)).caption("it.jpg")
    assert f" 1  {says.score:7.3f}  {says.text}" in shown.output
    assert "ranked with the length penalty" in shown.output
    with Image.open("a.png") as picture:
        assert picture.width > 200
    assert says.text in Path("a.html").read_text()

    again = run(app, ["explain", "it.jpg", *model, "-o", "a.png"])
    assert (again.exit_code, "--force" in again.output) == (2, True)
    assert run(app, ["explain", "it.jpg", *model]).exit_code == 0
    assert says.text in Path("it.jpg.attention.html").read_text()
    assert run(app, ["explain", "it.jpg", *model, "-o", "a.gif"]).exit_code == 2
    Path("broken.jpg").write_bytes(b"no picture")
    assert run(app, ["explain", "broken.jpg", *model]).exit_code == 1
    assert not Path("broken.jpg.attention.html").exists()
