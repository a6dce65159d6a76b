from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cutline.cli import app
from cutline.errors import DataError
from cutline.evaluation.human_correlation import metric_table, read_judgements, to_markdown, verify

CAPTIONS = """\
one.jpg#0\tA brown dog runs over the grass .
one.jpg#1\tA dog is running .
two.jpg#0\tTwo men climb a rock .
two.jpg#1\tMen on a rock wall .
three.jpg#0\tA child swims in a pool .
three.jpg#1\tA boy in the water .
"""
# The more a candidate shares with the image's own captions, the better it is rated here.
EXPERT = """\
one.jpg\tone.jpg#0\t1\t1\t1
one.jpg\ttwo.jpg#0\t1\t1\t2
one.jpg\tthree.jpg#0\t2\t2\t2
two.jpg\tone.jpg#1\t1\t1\t1
two.jpg\tthree.jpg#1\t1\t2\t2
three.jpg\ttwo.jpg#1\t1\t1\t1
three.jpg\tone.jpg#0\t2\t3\t3
"""
CROWD = """\
one.jpg\tone.jpg#1\t1\t3\t0
one.jpg\ttwo.jpg#0\t0\t0\t3
two.jpg\ttwo.jpg#1\t0.667\t2\t1
three.jpg\ttwo.jpg#1\t0\t0\t3
"""


def words(text: str) -> list[str]:
    return text.lower().replace(" .", "").split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Flickr8k.token.txt").write_text(CAPTIONS)
    (tmp_path / "ExpertAnnotations.txt").write_text(EXPERT)
    (tmp_path / "CrowdFlowerAnnotations.txt").write_text(CROWD)
    return tmp_path


def test_a_candidate_is_never_its_own_reference(folder: Path) -> None:
    expert, crowd = read_judgements(folder)
    assert [each.own for each in expert] == [True] + [False] * 6
    assert expert[0].references == ("A dog is running .",)
    assert expert[1].references == ("A brown dog runs over the grass .", "A dog is running .")
    assert [each.ratings for each in crowd] == [(1,), (0,), (0.667,), (0,)]
    assert crowd[0].references == ("A brown dog runs over the grass .",)


def test_experts_judge_by_tau_c_three_rows_a_pair_and_own_captions_left_out(folder: Path) -> None:
    expert, crowd = read_judgements(folder)
    found = {each.metric: each for each in verify(expert, crowd, meteor=False)}
    assert list(found) == [*(f"BLEU-{n}" for n in range(1, 5)), "ROUGE-L", "CIDEr-D"]
    assert {each.expert_ratings for each in found.values()} == {18}
    assert {each.crowd_ratings for each in found.values()} == {4}

    fair = [each for each in expert if not each.own]
    scores = metric_table(meteor=False)["ROUGE-L"](
        [words(each.candidate) for each in fair],
        [[words(text) for text in each.references] for each in fair],
    )
    rows = [(s, r) for s, each in zip(scores, fair, strict=True) for r in each.ratings]
    order = sum(np.sign(a - c) * np.sign(b - d) for (a, b), (c, d) in combinations(rows, 2))
    kinds = min(len({s for s, _ in rows}), len({r for _, r in rows}))
    tau_c = 2 * order / (len(rows) ** 2 * (kinds - 1) / kinds)  # Stuart (1953)
    assert found["ROUGE-L"].expert == pytest.approx(tau_c)
    assert tau_c > 0.2


def test_the_crowd_judges_by_tau_b(folder: Path) -> None:
    _, crowd = read_judgements(folder)
    [rouge] = [each for each in verify([], crowd, meteor=False) if each.metric == "ROUGE-L"]
    assert rouge.expert is None
    scores = metric_table(meteor=False)["ROUGE-L"](
        [words(each.candidate) for each in crowd],
        [[words(text) for text in each.references] for each in crowd],
    )
    pairs = list(
        combinations([(s, each.ratings[0]) for s, each in zip(scores, crowd, strict=True)], 2)
    )
    order = sum(np.sign(a - c) * np.sign(b - d) for (a, b), (c, d) in pairs)
    untied = np.prod([sum(x[side] != y[side] for x, y in pairs) for side in (0, 1)])
    assert rouge.crowd == pytest.approx(order / untied**0.5)  # Kendall (1945)
    assert rouge.crowd > 0.5


def test_the_command_prints_our_figures_beside_the_published(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    arguments = ["metrics", "verify", "--flickr8k-judgements", str(folder), "--no-meteor"]
    done = CliRunner().invoke(app, [*arguments, "--markdown", str(out)])
    assert done.exit_code == 0, done.output
    assert done.output == out.read_text()
    expert, crowd = read_judgements(folder)
    assert done.output == to_markdown(verify(expert, crowd, meteor=False))
    [line] = [line for line in done.output.splitlines() if line.startswith("| CIDEr-D")]
    assert "| 43.9 |" in line
    assert "18 expert and 4 crowd ratings." in done.output


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("Flickr8k.token.txt", None, "no Flickr8k.token.txt"),
        ("Flickr8k.token.txt", "one.jpg A dog\n", "got 1 columns; expected 2"),
        ("ExpertAnnotations.txt", "one.jpg\tnine.jpg#0\t1\t1\t1\n", "got one.jpg, nine.jpg#0"),
        ("ExpertAnnotations.txt", "one.jpg\tone.jpg#0\t1\t1\n", "got 4 columns; expected 5"),
        ("CrowdFlowerAnnotations.txt", "one.jpg\tone.jpg#0\tyes\t1\t1\n", "expected numbers"),
    ],
)
def test_what_is_wrong_with_the_files_is_said(
    folder: Path, name: str, content: str | None, says: str
) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(DataError, match=says):
        read_judgements(folder)


def test_one_kind_of_judgement_is_enough_and_none_is_not(folder: Path) -> None:
    (folder / "CrowdFlowerAnnotations.txt").unlink()
    expert, crowd = read_judgements(folder)
    assert expert
    assert crowd == []
    (folder / "ExpertAnnotations.txt").unlink()
    with pytest.raises(DataError, match="neither"):
        read_judgements(folder)
