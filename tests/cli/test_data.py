from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

pytest.importorskip("torch")

from cutline.cli import app
from cutline.training import encoders, features


def run(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Eight photographs in a folder, and a table with a caption for each."""
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = ["image,caption"]
    for seed in range(8):
        blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((80, 60), 3).save(folder / f"{seed}.jpg")
        rows.append(f"{seed}.jpg,picture number {seed}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_own_photographs_are_built_checked_and_shown(mine: Path, tmp_path: Path) -> None:
    built = run("data", "build", mine / "captions.csv", "-o", tmp_path / "set", "--side", 48)
    assert built.exit_code == 0, built.output
    assert "8 images" in built.stdout
    assert "8 captions" in built.stdout
    checked = run("data", "check", tmp_path / "set")
    assert checked.exit_code == 0, checked.output
    assert "leaks: none" in checked.stdout
    shown = run("data", "show", tmp_path / "set", "-o", tmp_path / "look", "--count", 2)
    assert shown.exit_code == 0, shown.output
    assert all(Path(line).is_file() for line in shown.stdout.splitlines()[1:])


def test_a_check_names_what_is_wrong_and_fails(mine: Path) -> None:
    (mine / "3.jpg").write_bytes((mine / "2.jpg").read_bytes())
    (mine / "4.jpg").write_bytes(b"")
    (mine / "5.jpg").unlink()
    splits = {"train": ["0.jpg", "1.jpg", "2.jpg"], "test": ["3.jpg", "4.jpg"]}
    (mine / "splits.json").write_text(json.dumps(splits))
    words = ("data", "check", mine / "captions.csv", "--split-file", mine / "splits.json")
    found = run(*words)
    assert found.exit_code == 1
    for lines in (
        "missing: 1\n  5.jpg",
        "corrupt: 1\n  4.jpg: the file is empty",
        "leaks: 1\n  2.jpg (train) and 3.jpg (test), identical",
    ):
        assert lines in found.stdout
    as_json = run(*words, "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["leaks"][0]["splits"] == ["train", "test"]


def test_a_build_with_a_failure_says_so(mine: Path, tmp_path: Path) -> None:
    (mine / "4.jpg").write_bytes(b"no picture")
    built = run("data", "build", mine / "captions.csv", "-o", tmp_path / "set")
    assert built.exit_code == 1
    assert "dropped 1 x image: cannot be had or read" in built.stdout
    assert "dropped.csv" in built.stdout
    refused = run("data", "build", tmp_path / "absent.csv", "-o", tmp_path / "other")
    assert refused.exit_code == 1
    assert "does not exist" in refused.stderr


def test_build_takes_folders_columns_and_force(mine: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("wo,was\n" + "".join(f"{i}.jpg,Number {i}\n" for i in range(4)))
    words = ("data", "build", table, "-o", tmp_path / "set", "--images", mine)
    refused = run(*words)
    assert refused.exit_code == 1
    assert "--image-column" in refused.stderr
    built = run(*words, "--image-column", "wo", "--caption-column", "2")
    assert built.exit_code == 0, built.output
    assert "4 captions" in built.stdout
    other = ("data", "build", mine / "captions.csv", "-o", tmp_path / "set")
    refused = run(*other)
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert run(*other, "--force").exit_code == 0
    checked = run("data", "check", table, "--images", mine, "--image-column", "wo",
                  "--caption-column", "was")  # fmt: skip
    assert checked.exit_code == 0, checked.output


def test_several_sets_are_checked_for_leaks_between_them(mine: Path, tmp_path: Path) -> None:
    for name, split in (("one", "train"), ("two", "dev")):
        table = tmp_path / name / "captions.csv"
        table.parent.mkdir()
        table.write_text(f"image,split,caption\n0.jpg,{split},A caption\n")
        (tmp_path / name / "0.jpg").write_bytes((mine / "0.jpg").read_bytes())
    found = run("data", "check", tmp_path / "one", tmp_path / "two")
    assert found.exit_code == 1
    assert "leaks: 1\n  one/0.jpg (train) and two/0.jpg (dev), identical" in found.stdout


def test_a_public_set_of_another_name_is_wrong_use(tmp_path: Path) -> None:
    refused = run("data", "prepare", "flickr9k", "-o", tmp_path / "set")
    assert refused.exit_code == 2
    assert "expected one of flickr8k" in refused.stderr


def test_ctrl_c_says_how_to_go_on(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cutline.data.build.build", interrupted)
    stopped = run("data", "build", mine / "captions.csv", "-o", tmp_path / "set")
    assert stopped.exit_code == 130
    assert "To continue: cutline" in stopped.stderr


def test_features_are_written_and_found_again(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    import torch

    def tiny(name: str, *, pooled: bool, weights: Path | None, side_px: int | None) -> object:
        torch.manual_seed(0)
        net = timm.create_model(name, pretrained=False)
        return encoders.Encoder(net, name, pooled=pooled, side_px=side_px)

    monkeypatch.setattr(encoders, "load_encoder", tiny)
    (mine / "6.jpg").write_bytes(b"no picture")
    words = ("features", mine, "--backbone", "test_resnet", "--pooled", "--side", 64)
    for told in ("images/s", "there already"):
        done = run(*words, "-o", tmp_path / "kept")
        assert done.exit_code == 1, done.output
        assert "6.jpg: " in done.stderr
        assert told in done.stdout
    path = Path(done.stdout.partition(": ")[0])
    stored = np.load(path)
    assert stored.shape[:2] == (8, 1)
    assert features.readable(stored).sum() == 7
    fewer = run(*words, "-o", tmp_path / "kept", "--split", "train", "--limit", 1)
    assert fewer.exit_code == 0, fewer.output
    assert ": 1 x 1 x " in fewer.stdout


def test_an_unknown_backbone_is_wrong_use(mine: Path) -> None:
    refused = run("features", mine, "--backbone", "resnet5")
    assert refused.exit_code == 2
    assert "resnet50" in refused.stderr


def test_names_of_files_reach_no_terminal_raw(tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text("image,caption\nphoto\u202egpj.exe,A dog runs.\n", encoding="utf-8")
    found = run("data", "check", table)
    assert "photo\\u202egpj.exe" in found.output
    assert "\u202e" not in found.output
