import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cutline.data import Collection
from cutline.errors import RecipeError
from cutline.learn.decoders import DecoderOptions
from cutline.learn.recipe import DataOptions, EncoderOptions, FitOptions, Recipe
from cutline.learn.train import Batches, pad, train

RECIPE = Recipe(
    name="colours",
    data=DataOptions(train=("train",), dev="dev", min_count=1),
    encoder=EncoderOptions(backbone="efficientnet_lite0", views=2),
    decoder=DecoderOptions(kind="global-attention", width=32, embedding=16, heads=2),
    fit=FitOptions(epochs=3, batch_images=8, captions_per_image=2, warmup_steps=2),
)


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    return dict(state)


def run_training(collection: Collection, run: Path, features: Path, resume: bool) -> None:
    train(RECIPE, collection, run, features=features, resume=resume)


def test_learns_colours(colours: Collection, tmp_path: Path) -> None:
    fit = replace(RECIPE.fit, epochs=12, learning_rate=5e-3, ema_decay=0.8, concept_weight=0.1)
    train(replace(RECIPE, fit=fit), colours, tmp_path / "run", features=tmp_path / "features")
    last = (tmp_path / "run" / "samples.txt").read_text().split("epoch ")[-1]
    for example in colours.splits["dev"]:
        colour = example.captions[0].split()[1]
        line = next(line for line in last.splitlines() if example.name in line)
        assert colour in line, last
    assert (tmp_path / "run" / "curves.png").stat().st_size > 10_000


def test_self_critical_training_goes_on_from_a_run(colours: Collection, tmp_path: Path) -> None:
    features = tmp_path / "features"
    best = train(RECIPE, colours, tmp_path / "first", features=features)
    fit = replace(RECIPE.fit, objective="self-critical", start_from=str(best), epochs=1, samples=3)
    train(replace(RECIPE, fit=fit), colours, tmp_path / "second", features=features)
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    header, *rows = (tmp_path / "second" / "metrics.csv").read_text().splitlines()
    rewards = [row.split(",")[header.split(",").index("reward")] for row in rows]
    assert any(rewards)


def test_a_killed_run_ends_as_an_undisturbed_one(colours: Collection, tmp_path: Path) -> None:
    features = tmp_path / "features"
    train(RECIPE, colours, tmp_path / "whole", features=features)

    context = multiprocessing.get_context("spawn")
    arguments = (colours, tmp_path / "killed", features, False)
    process = context.Process(target=run_training, args=arguments)
    process.start()
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    train(RECIPE, colours, tmp_path / "killed", features=features, resume=True)
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, killed[name], atol=1e-6, rtol=1e-5, msg=name)


def test_a_run_folder_is_not_overwritten(colours: Collection, tmp_path: Path) -> None:
    run, features = tmp_path / "run", tmp_path / "features"
    fit = replace(RECIPE.fit, epochs=1)
    train(replace(RECIPE, fit=fit), colours, run, features=features)
    with pytest.raises(RecipeError, match="resume it, or name another"):
        train(replace(RECIPE, fit=fit), colours, run, features=features)
    with pytest.raises(RecipeError, match="resume it, or name another"):
        train(RECIPE, colours, run, features=features, resume=True)


def test_batches_show_every_image_once_and_repeat_by_epoch() -> None:
    views = [np.full((10, 1), view, np.float16) for view in range(3)]
    captions = [[[10 + i], [30 + i], [50 + i]] for i in range(10)]
    fit = replace(RECIPE.fit, batch_images=4, captions_per_image=2)
    recipe = replace(RECIPE, fit=fit)

    def epoch(number: int) -> list[list[int]]:
        batches = list(Batches(views, captions, recipe, number))
        assert sorted(int(i) for b in batches for i in b["images"]) == list(range(10))
        for batch in batches:
            said = batch["tokens"][:, :, 1] % 20
            assert torch.equal(said[:, 0], (batch["images"] + 10) % 20)
            assert (batch["tokens"][:, 0, 1] != batch["tokens"][:, 1, 1]).all()
        return [b["tokens"].flatten().tolist() + b["mid"].flatten().tolist() for b in batches]

    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)


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
