import signal
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from cutline.cli import app
from cutline.errors import MissingExtraError

RECIPE = """# Tiny.
[data]
made_up = 20
min_count = 1

[encoder]
backbone = "test_resnet"
weights = "weights.pth"
side_px = 64
features = "pooled"
views = 1

[decoder]
kind = "plain-merge"
width = 16
embedding = 16

[fit]
epochs = 2
encoder_learning_rate = 0.0
warmup_steps = 1
"""


def run(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out METEOR, which reads its paraphrases for ten seconds."""
    from cutline.training import export

    def missing(*_: object) -> None:
        raise MissingExtraError("METEOR", "eval")

    monkeypatch.setattr(export, "meteor_statistics", missing)


def test_from_a_recipe_to_a_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    without_java(monkeypatch)
    torch.save(timm.create_model("test_resnet").state_dict(), "weights.pth")
    Path("mine.toml").write_text(RECIPE)
    code, out, _ = run("train", "mine.toml")
    assert code == 0
    assert "2 epochs of" in out
    assert out.splitlines()[-1] == "next: cutline export runs/mine"
    assert len(list(Path("runs/mine/pictures").iterdir())) == 20

    code, out, _ = run("export", "runs/mine")
    assert code == 0
    assert out.splitlines()[0] == "runs/mine/mine-v1"
    assert "cider" in out
    code, out, _ = run("caption", "runs/mine/pictures/0000.png", "--model", "runs/mine")
    assert code == 0
    assert out.strip()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_knows_its_data_and_one_over_regions_its_end(
    signum: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from cutline.training import trainer as module

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "photos.jsonl").write_text('{"image": "a.png", "caption": "one"}\n')
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Path("mine.toml").write_text('[encoder]\nfeatures = "regions"\nregions = "a.tsv"\nviews = 1\n')

    def stop(*_: object, **options: object) -> None:
        assert options["sources"] == [Path("photos.jsonl")]
        signal.raise_signal(signum)

    monkeypatch.setattr(module, "train", stop)
    code, _, err = run("train", "mine.toml", "--data", "photos.jsonl")
    assert code == 128 + signum
    assert "To continue, run the same command with --resume." in err

    done = module.Run(Path("runs/mine"), Path("runs/mine/best.ckpt"), 2, 1, 3.0, 0.1, 9, 0.5)
    monkeypatch.setattr(module, "train", lambda *_, **__: done)
    code, out, _ = run("train", "mine.toml", "--data", "photos.jsonl")
    assert code == 0
    assert out.endswith("but not exported\n")
    Path("mine.toml").write_text('[encoder]\nfeatures = "regions"\nviews = 1\n')
    assert run("train", "mine.toml", "--data", "photos.jsonl")[1].endswith(
        f"export {done.folder}\n"
    )


def test_sources_weights_and_overrides_reach_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from cutline.training import trainer as module

    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("one", "two")):
        Image.effect_noise((64, 64), 50 + 20 * number).save(f"{name}.png")
        Path(f"{name}.csv").write_text(f"image,split,caption\n{name}.png,train,A caption\n")
    Path("mine.toml").write_text('[data]\nsources = ["one.csv"]\n[fit]\nepochs = 1\n')
    calls: list[tuple[object, ...]] = []

    def record(*arguments: object, **options: object) -> object:
        calls.append((*arguments, options["sources"]))
        return module.Run(Path("runs/mine"), Path("runs/mine/best.ckpt"), 2, 1, 3.0, 0.1, 9, 0.5)

    monkeypatch.setattr(module, "train", record)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    code, _, err = run("train", "--recipe", "mine.toml", "--max-seconds", 5, "--start-from", "x")
    assert code == 0
    assert "--recipe is deprecated; use: cutline train mine.toml" in err
    recipe, collection = calls[0][:2]
    assert (recipe.fit.max_seconds, recipe.fit.start_from) == (5.0, "x")  # type: ignore[attr-defined]
    assert collection.name == "one"  # type: ignore[attr-defined]

    two = ("train", "mine.toml", "--data", "one.csv", "--data", "two.csv")
    code, _, _ = run(*two, "--weight", 1, "--weight", 0.25)
    assert code == 0
    collection = calls[1][1]
    assert [e.weight for e in collection.splits["train"]] == [1.0, 0.25]  # type: ignore[attr-defined]
    assert calls[1][-1] == [Path("one.csv"), Path("two.csv")]
    code, _, err = run(*two, "--weight", 1)
    assert code == 2
    assert "got 1 weights for 2 sources" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "got no recipe, or two; expected one"),
        (("smoke", "--recipe", "smoke"), "got no recipe, or two; expected one"),
        (("nothing",), "got recipe 'nothing'; expected FILE.toml or"),
        (("own-photos",), "got no data; expected --data"),
    ],
)
def test_wrong_use_of_train_exits_with_two(words: tuple[str, ...], message: str) -> None:
    pytest.importorskip("torch")
    code, _, err = run("train", *words)
    assert code == 2
    assert message in err


def test_a_card_that_is_not_there_exits_with_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a short name stays on one line of the message
    code, _, err = run("export", ".", "--card", "absent.md")
    assert code == 2
    assert "absent.md" in err


def test_exporting_what_is_no_run_exits_with_two(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    code, _, err = run("export", tmp_path)
    assert code == 2
    assert "without recipe.json; expected a folder of `train`" in err
