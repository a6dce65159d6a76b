import csv
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_child import kill_after_checkpoint

from cutline.data import Collection, Example
from cutline.data.synthetic import shapes
from cutline.errors import DataError, RecipeError
from cutline.run_log import read_sources
from cutline.text import Vocabulary
from cutline.training.dataloader import Split, TrainingBatches, dev_batches, pad
from cutline.training.decoders import DecoderOptions
from cutline.training.lightning_module import Learner
from cutline.training.recipe import DataOptions, EncoderOptions, FitOptions, Recipe
from cutline.training.trainer import Run, train
from cutline.training.warm_start import Start, word_vectors

RECIPE = Recipe(
    name="colours",
    data=DataOptions(train=("train",), dev="dev", min_count=1, max_tokens=18),
    encoder=EncoderOptions(backbone="efficientnet_lite0", views=2, cut=7),
    decoder=DecoderOptions(kind="global-attention", width=32, embedding=16, heads=2),
    fit=FitOptions(epochs=3, batch_images=8, captions_per_image=2, warmup_steps=2),
)
FROZEN = replace(
    RECIPE,
    encoder=replace(RECIPE.encoder, features="pooled", views=1),
    decoder=DecoderOptions(kind="show-and-tell", width=16, embedding=16),
    fit=replace(RECIPE.fit, encoder_learning_rate=0.0, dev_beam=1, learning_rate=5e-3),
)
"""Half a second an epoch."""


def fitted(recipe: Recipe, **options: Any) -> Recipe:
    return replace(recipe, fit=replace(recipe.fit, **options))


def weights(run: Path, checkpoint: str = "last.ckpt") -> dict[str, torch.Tensor]:
    state = torch.load(run / checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    return dict(state)


def metrics(run: Path) -> dict[str, list[float]]:
    """By name, the values by epoch."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def learner(recipe: Recipe, words: list[list[list[str]]], width: int = 12) -> Learner:
    """A learner of random features."""
    torch.manual_seed(0)
    vocabulary = Vocabulary.build((c for image in words for c in image), 1)
    view = np.random.default_rng(0).standard_normal((len(words), 4, width)).astype(np.float16)
    split = Split([view], words)
    return Learner(recipe, vocabulary, split, split)


def test_learns_colours_and_keeps_its_books(colours: Collection, tmp_path: Path) -> None:
    recipe = fitted(RECIPE, epochs=10, learning_rate=5e-3, ema_decay=0.8, concept_weight=0.1)
    done = train(recipe, colours, tmp_path / "run", features=tmp_path / "features")
    last = (tmp_path / "run" / "samples.txt").read_text().split("epoch ")[-1]
    for example in colours.splits["dev"]:
        colour = example.captions[0].split()[1]
        line = next(line for line in last.splitlines() if example.name in line)
        assert colour in line, last
    assert (tmp_path / "run" / "curves.png").stat().st_size > 10_000
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    assert done == Run.read(tmp_path / "run")
    seen = metrics(tmp_path / "run")
    assert done.epochs == len(seen["train_loss"]) == 10
    assert done.dev_cider == max(seen["dev_cider"])
    assert seen["dev_loss"][done.best_epoch - 1] == done.dev_loss < seen["dev_loss"][0]
    assert done.best.is_file()
    assert done.epoch_s > 0


def test_self_critical_training_goes_on_from_a_run(colours: Collection, tmp_path: Path) -> None:
    features = tmp_path / "features"
    recipe = fitted(RECIPE, epochs=1)
    train(recipe, colours, tmp_path / "first", features=features)
    second = fitted(
        replace(RECIPE, decoder=DecoderOptions(kind="merge")),  # the start's decoder stays
        objective="self-critical", start_from=str(tmp_path / "first"), epochs=1, samples=3,
    )  # fmt: skip
    train(second, colours, tmp_path / "second", features=features)
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert Recipe.of_run(tmp_path / "second").decoder == RECIPE.decoder
    assert len(metrics(tmp_path / "second")["reward"]) == 1


@pytest.mark.racy
def test_a_killed_run_ends_as_an_undisturbed_one(colours: Collection, tmp_path: Path) -> None:
    features = tmp_path / "features"
    train(RECIPE, colours, tmp_path / "whole", features=features)

    kill_after_checkpoint(RECIPE, colours, tmp_path / "killed", features)
    train(RECIPE, colours, tmp_path / "killed", features=features, resume=True)
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, killed[name], atol=1e-6, rtol=1e-5, msg=name)


TOGETHER = """
import pickle, sys
from pathlib import Path
from cutline.training.trainer import train

if __name__ == "__main__":
    recipe, collection, folder = pickle.loads(Path(sys.argv[1]).read_bytes())
    train(recipe, collection, folder / "two", features=folder / "features", devices=2)
"""


def test_two_processes_learn_what_one_does(colours: Collection, tmp_path: Path) -> None:
    decoder = replace(FROZEN.decoder, dropout=0.0, word_dropout=0.0)
    recipe = fitted(replace(FROZEN, decoder=decoder), epochs=2, batch_images=7)
    train(recipe, colours, tmp_path / "one", features=tmp_path / "features")
    script, task = tmp_path / "together.py", tmp_path / "task"
    script.write_text(TOGETHER)
    task.write_bytes(pickle.dumps((recipe, colours, tmp_path)))
    command = [sys.executable, str(script), str(task)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    for name in ("train_loss", "dev_loss", "dev_cider"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, err_msg=name)
    ours, theirs = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-4, rtol=1e-3, msg=name)


def test_training_ends_early_and_slows_down_without_progress(
    colours: Collection, tmp_path: Path
) -> None:
    recipe = fitted(
        FROZEN, epochs=9, learning_rate=1e-5, ema_decay=0.0, schedule="plateau", plateau=0,
        monitor="dev_cider", patience=2,
    )  # fmt: skip
    done = train(recipe, colours, tmp_path / "run", features=tmp_path / "features")
    assert (done.epochs, done.best_epoch) == (3, 1)
    checkpoint = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] < 2e-6


def test_goes_on_with_new_words_and_without_broken_pictures(
    colours: Collection, tmp_path: Path
) -> None:
    features = tmp_path / "features"
    train(fitted(FROZEN, epochs=1), colours, tmp_path / "first", features=features)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    train_split = (
        Example(tmp_path / "broken.png", ("a broken wall",)),
        *(replace(e, captions=("a zebra stands there",)) for e in colours.splits["train"]),
    )
    own = replace(colours, splits={**colours.splits, "train": train_split})
    recipe = fitted(FROZEN, epochs=1, learning_rate=0.0, start_from=str(tmp_path / "first"))
    train(recipe, own, tmp_path / "second", features=features)
    old = Vocabulary.read(tmp_path / "first" / "vocabulary.txt").words
    new = Vocabulary.read(tmp_path / "second" / "vocabulary.txt").words
    assert new[: len(old)] == old
    assert sorted(new[len(old) :]) == ["stands", "there", "zebra"]
    before = weights(tmp_path / "first", "best.ckpt")["decoder.embedding.weight"]
    after = weights(tmp_path / "second")["decoder.embedding.weight"]
    torch.testing.assert_close(after[: len(old)], before)
    assert (tmp_path / "second" / "data.json").read_text().count('"images": 24') == 1


def test_a_start_that_is_nowhere_is_refused() -> None:
    with pytest.raises(RecipeError, match="got start_from 'nowhere'; expected a checkpoint"):
        Start.read("nowhere")


def test_a_run_folder_is_not_overwritten(colours: Collection, tmp_path: Path) -> None:
    run, features = tmp_path / "run", tmp_path / "features"
    train(fitted(FROZEN, epochs=1), colours, run, features=features, sources=[tmp_path / "a.csv"])
    assert read_sources(run) == [tmp_path / "a.csv"]
    with pytest.raises(RecipeError, match="resume it with --resume, or name another"):
        train(fitted(FROZEN, epochs=1), colours, run, features=features)
    with pytest.raises(RecipeError, match=r"with fit\.seed 2 instead of 1; expected the same"):
        train(fitted(FROZEN, epochs=1, seed=2), colours, run, features=features, resume=True)


def test_without_usable_pictures_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    example = Example(tmp_path / "broken.png", ("a wall",))
    collection = Collection("broken", "CC0-1.0", {"train": (example,), "dev": (example,)})
    with pytest.raises(DataError, match="got 1 images of train of which none can be read"):
        train(FROZEN, collection, tmp_path / "run", features=tmp_path / "features")


def test_penalties_join_the_loss() -> None:
    words = [[["a", "red", "wall"]], [["the", "wall"]]]
    decoder = DecoderOptions(width=16, embedding=16, dropout=0.0, word_dropout=0.0)
    plain = learner(fitted(replace(RECIPE, decoder=decoder), attention_weight=0.0), words)
    looking = learner(fitted(replace(RECIPE, decoder=decoder), attention_weight=0.5), words)
    features = torch.randn(2, 4, 12)
    tokens = pad(plain.train_captions, 18)
    loss, nothing = plain.cross_entropy_step(features, tokens)
    same, penalty = looking.cross_entropy_step(features, tokens)
    assert nothing == 0
    torch.testing.assert_close(loss, same)
    output = looking.decoder(features, tokens[:, :, :-1])
    said = (tokens[:, :, 1:] != 0).unsqueeze(-1)
    expected = 0.5 * (1 - (output.attention * said).sum(2)).square().sum() / said.sum()
    torch.testing.assert_close(penalty, expected)

    nats, count = plain.nll(features, tokens)
    assert count == 7  # with an end each
    torch.testing.assert_close(nats / count, loss)


def test_scheduled_sampling_becomes_more_frequent() -> None:
    words = [[["a", "red", "wall"]]]
    model = learner(fitted(RECIPE, scheduled_sampling=0.4, epochs=5), words)
    np.testing.assert_allclose(
        [model.scheduled_sampling_rate(e) for e in range(5)], [0, 0.1, 0.2, 0.3, 0.4]
    )


def test_hard_attention_learns_where_to_look_by_its_reward() -> None:
    words = [[["a", "red", "wall"]], [["the", "wall"]], [["a", "wall"]]]
    decoder = DecoderOptions(kind="hard-attention", width=16, embedding=16, dropout=0.0)
    model = learner(replace(RECIPE, decoder=decoder), words).train()
    tokens = pad(model.train_captions, 18)
    loss, penalty = model.cross_entropy_step(torch.randn(3, 4, 12), tokens)
    (loss + penalty).backward()
    assert model.decoder.get_parameter("query.weight").grad.abs().sum() > 0  # type: ignore[union-attr]


def test_word_vectors_come_first(tmp_path: Path) -> None:
    vocabulary = Vocabulary(["<pad>", "<bos>", "<eos>", "<unk>", "dog", "cat", "zebra"])
    path = tmp_path / "vectors.txt"
    path.write_text("cat 1 0 0\ndog 0 2 0\nhouse 1 1 1\n")
    table = torch.randn(7, 3)
    filled, count = word_vectors(path, vocabulary, table)
    assert count == 2
    torch.testing.assert_close(filled[[0, 1, 2, 3, 6]], table[[0, 1, 2, 3, 6]])
    apart = filled[4] - filled[5]
    torch.testing.assert_close(apart / apart[1], torch.tensor([-0.5, 1.0, 0.0]))
    torch.testing.assert_close(filled[4:6].norm(dim=1).square().mean(),
                               table[4:].square().sum(1).mean())  # fmt: skip
    with pytest.raises(RecipeError, match=r"got vectors of width 3 .* expected 4"):
        word_vectors(path, vocabulary, torch.randn(7, 4))
    with pytest.raises(RecipeError, match="unreadable word vectors"):
        word_vectors(tmp_path / "absent.txt", vocabulary, table)


def test_made_up_pictures_are_the_same_each_time(tmp_path: Path) -> None:
    first, again = shapes(tmp_path / "first", 10), shapes(tmp_path / "again", 10)
    assert [len(first.splits[name]) for name in ("train", "dev")] == [8, 2]
    for one, two in zip(first.split("train", "dev"), again.split("train", "dev"), strict=True):
        assert one.captions == two.captions
        assert one.image.read_bytes() == two.image.read_bytes()
    stamp = first.splits["dev"][0].image.stat().st_mtime_ns
    shapes(tmp_path / "first", 10)
    assert first.splits["dev"][0].image.stat().st_mtime_ns == stamp


def test_batches_show_every_image_once_and_repeat_by_epoch() -> None:
    views = [np.full((10, 1), view, np.float16) for view in range(3)]
    captions = [[[10 + i], [30 + i], [50 + i]] for i in range(10)]
    fit = replace(RECIPE.fit, batch_images=4, captions_per_image=2)
    recipe = replace(RECIPE, fit=fit)

    def epoch(number: int) -> list[list[int]]:
        batches = list(TrainingBatches(Split(views, []), captions, recipe, number))
        assert sorted(int(i) for b in batches for i in b["images"]) == list(range(10))
        for batch in batches:
            said = batch["tokens"][:, :, 1] % 20
            assert torch.equal(said[:, 0], (batch["images"] + 10) % 20)
            assert (batch["tokens"][:, 0, 1] != batch["tokens"][:, 1, 1]).all()
        return [b["tokens"].flatten().tolist() + b["inputs"].flatten().tolist() for b in batches]

    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)


def test_processes_share_every_batch() -> None:
    views = [np.arange(10, dtype=np.float16)[:, None]]
    captions = [[[4] * (i + 1)] for i in range(10)]
    recipe = fitted(RECIPE, batch_images=3, captions_per_image=1)
    whole = list(TrainingBatches(Split(views, []), captions, recipe, 0))
    parts = [
        list(TrainingBatches(Split(views, []), captions, recipe, 0, rank, 2)) for rank in range(2)
    ]
    for batch, *shared in zip(whole, *parts, strict=True):
        assert batch["share"] == 1
        tokens = int((batch["tokens"][:, :, 1:] != 0).sum())
        mine = [int((part["tokens"][:, :, 1:] != 0).sum()) for part in shared]
        shares = [float(part["share"]) for part in shared]
        if len(batch["images"]) == 1:
            assert shares == [2.0, 0.0]
            continue
        assert sorted(i for part in shared for i in part["images"].tolist()) == sorted(
            batch["images"].tolist()
        )
        np.testing.assert_allclose(shares, [2 * count / tokens for count in mine], rtol=1e-6)


def test_dev_images_keep_their_order_and_all_their_captions() -> None:
    view = np.arange(120, dtype=np.float16)[:, None]
    captions = [[[5]] * (1 + i % 2) for i in range(120)]
    dealt = [dev_batches(Split([view], []), captions, 18, rank, 2) for rank in range(2)]
    assert [int(b["first"]) for part in dealt for b in part] == [0, 100, 50]
    batch = dealt[1][0]
    assert batch["inputs"][:, 0].tolist() == list(range(50, 100))
    assert (batch["tokens"][0, 1] == 0).all()  # image 50 has one caption
    assert batch["tokens"][1].tolist() == [[1, 5, 2], [1, 5, 2]]
    few = [dev_batches(Split([view[:3]], []), captions[:3], 18, rank, 4) for rank in range(4)]
    assert [len(part) for part in few] == [1, 1, 1, 1]
    assert (few[3][0]["tokens"] == 0).all()


def test_captions_are_padded_and_cut() -> None:
    tokens = pad([[[7, 8, 9], [5]], [[6, 6], [4]]], max_tokens=2)
    assert tokens.tolist() == [[[1, 7, 8], [1, 5, 2]], [[1, 6, 6], [1, 4, 2]]]


def test_recipes_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[decoder]\nkind = "soft-attention"\n[data]\ntrain = ["train"]\n')
    recipe = Recipe.read(path)
    assert (recipe.name, recipe.decoder.kind, recipe.data.train) == (
        "mine", "soft-attention", ("train",),
    )  # fmt: skip
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    path.write_text("[fit]\nepoch = 3\n")
    with pytest.raises(RecipeError, match=r"got fit\.epoch; expected one of .*epochs"):
        Recipe.read(path)
    with pytest.raises(RecipeError, match="unreadable recipe"):
        Recipe.read(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "src/cutline/recipes").glob("*.toml"))
)
def test_every_recipe_says_something_possible(path: Path) -> None:
    recipe = Recipe.find(path.stem)
    recipe.check()
    assert recipe == Recipe.read(path)
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"fit": {"schedule": "linear"}}, "got fit.schedule 'linear'; expected one of cosine"),
        ({"fit": {"epochs": "10"}}, "got fit.epochs '10'; expected such as 20"),
        ({"decoder": {"tied": 1}}, "got decoder.tied 1; expected such as true"),
        ({"data": {"train": "train"}}, "got data.train 'train'; expected such as ["),
        ({"fit": {"epochs": 0}}, "got fit.epochs 0; expected at least 1"),
        ({"decoder": {"dropout": 1.5}}, "got decoder.dropout 1.5; expected 0 to 1"),
        (
            {"encoder": {"features": "regions"}},
            "got 2 views of regions; expected encoder.views = 1",
        ),
        (
            {"decoder": {"kind": "hard-attention"}, "fit": {"scheduled_sampling": 0.1}},
            "got fit.scheduled_sampling with hard attention; expected 0",
        ),
        (
            {"fit": {"start_from": "a", "vectors": "b"}},
            "got fit.vectors and fit.start_from; expected one of them",
        ),
    ],
)
def test_recipes_that_cannot_be_trained_are_refused(tables: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        Recipe.from_dict(tables).check()


def test_unknown_recipes_are_named() -> None:
    with pytest.raises(RecipeError, match=r"got recipe 'nothing'; expected FILE\.toml or"):
        Recipe.find("nothing")
