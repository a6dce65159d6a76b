"""Runs over several collections, from pixels, within a time budget, resumed and damaged ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from training_child import stop_after_checkpoint

from cutline.data import Collection, Example, combine
from cutline.errors import DataError, RecipeError
from cutline.preprocess import Transform
from cutline.run_log import Run, add_metrics, add_samples, read_metrics, read_recipe, rewind
from cutline.text import Vocabulary
from cutline.training import lightning_module
from cutline.training.augmentation import augment, draw_parameters, identity_parameters, normalise
from cutline.training.checkpoint import Trained, current_name, read_weights
from cutline.training.dataloader import Split, TrainingBatches
from cutline.training.decoders import DecoderOptions, build
from cutline.training.encoders import Backbone, EncoderOptions
from cutline.training.inputs import resolve, texts
from cutline.training.lightning_module import steps_in_budget
from cutline.training.recipe import DataOptions, FitOptions, Recipe
from cutline.training.trainer import train
from cutline.training.warm_start import Start

TINY = Recipe(
    name="tiny",
    data=DataOptions(train=("train",), min_count=1),
    encoder=EncoderOptions(backbone="efficientnet_lite0", features="pooled", views=1),
    decoder=DecoderOptions(kind="show-and-tell", width=16, embedding=16),
    fit=FitOptions(
        epochs=1, batch_images=8, captions_per_image=1, warmup_steps=1, dev_beam=1,
        encoder_learning_rate=0.0, learning_rate=5e-3,
    ),
)  # fmt: skip
PIXELS = replace(
    TINY,
    encoder=replace(TINY.encoder, input="pixels", features="grid", drop_path=0.1),
    decoder=DecoderOptions(kind="global-attention", width=16, embedding=16, heads=2),
    fit=replace(TINY.fit, encoder_learning_rate=1e-4, distillation_weight=0.1, batch_images=4),
)


def few(collection: Collection, train: int = 8, dev: int = 2) -> Collection:
    splits = {"train": collection.splits["train"][:train], "dev": collection.splits["dev"][:dev]}
    return replace(collection, splits=splits)


def weights(run: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    return dict(torch.load(run / name, map_location="cpu", weights_only=True)["state_dict"])


def with_captions(collection: Collection, *captions: str) -> Collection:
    return replace(
        collection,
        splits={
            split: tuple(replace(each, captions=captions) for each in some)
            for split, some in collection.splits.items()
        },
    )


def test_a_whole_backbone_learns_from_pixels(all_colours: Collection, tmp_path: Path) -> None:
    data = few(all_colours)
    train(PIXELS, data, tmp_path / "run", features=tmp_path / "features")
    found, published = weights(tmp_path / "run"), Backbone("efficientnet_lite0", 5)
    for name, module in (("trunk", published.trunk), ("tail", published.tail)):
        before = module.state_dict()
        changed = [n for n, w in before.items() if not torch.equal(w, found[f"{name}.{n}"])]
        assert len(changed) > len(before) / 2
    assert "label_loss" in read_metrics(tmp_path / "run" / "metrics.csv")
    trained = Trained.read(tmp_path / "run")
    features, embedding, *rest = trained.encoder(torch.zeros(1, 3, 224, 224))
    assert trained.labels is not None
    assert trained.labels(*rest).shape == (1, 1000)
    torch.testing.assert_close(embedding, features.mean(1))

    start = Start.read(str(tmp_path / "run"))  # and from features, with another cut
    assert start.changes_trunk
    again = replace(TINY, encoder=replace(PIXELS.encoder, input="features", cut=3))
    again = again.with_fit(start_from=str(tmp_path / "run"), learning_rate=0.0)
    train(again, data, tmp_path / "again", features=tmp_path / "features")
    kept = Trained.read(tmp_path / "again")
    for name in ("features", "labels"):
        ours, theirs = (
            (each.encoder(torch.ones(1, 3, 224, 224))[0] if name == "features"
             else each.labels(*each.encoder(torch.ones(1, 3, 224, 224))[2:]))  # type: ignore[misc]
            for each in (trained, kept)
        )  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_augmentation_crops_mirrors_and_changes_colours() -> None:
    transform = Transform(side_px=16)
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    )
    plain = normalise(images, transform)
    torch.testing.assert_close(augment(images, identity_parameters(3), transform), plain)
    mirror = identity_parameters(3).clone()
    mirror[:, 4] = -1
    torch.testing.assert_close(augment(images, mirror, transform), plain.flip(-1))
    parameters = draw_parameters(np.random.default_rng(0), 1000, min_area=0.5, colour=0.2)
    area = parameters[:, 2] * parameters[:, 3]
    assert area.min() > 0.45
    assert (np.abs(parameters[:, :2]) + parameters[:, 2:4]).max() <= 1.00001
    assert set(parameters[:, 4]) == {-1.0, 1.0}
    assert 0.8 <= parameters[:, 5:].min() < parameters[:, 5:].max() <= 1.2
    bright = identity_parameters(3).clone()
    bright[:, 5] = 2
    assert augment(images, bright, transform).mean() > plain.mean()


BUDGET = TINY.with_fit(max_seconds=0.05, batch_images=1, warmup_steps=2)


def test_a_time_budget_becomes_steps_once(all_colours: Collection, tmp_path: Path) -> None:
    data, features = few(all_colours), tmp_path / "features"
    train(BUDGET, data, tmp_path / "run", features=features)
    schedule = json.loads((tmp_path / "run" / "schedule.json").read_text())
    checkpoint = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert checkpoint["total_steps"] == schedule["steps"] == checkpoint["global_step"]
    assert schedule["steps"] > lightning_module.TIMED_STEPS
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "schedule.json").write_text(json.dumps(schedule))
    stop_after_checkpoint(BUDGET, data, tmp_path / "again", features)
    train(BUDGET, data, tmp_path / "again", features=features, resume=True)
    ours, theirs = weights(tmp_path / "run"), weights(tmp_path / "again")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_steps_in_a_budget() -> None:
    assert steps_in_budget([9.0] * 5 + [0.5] * 15, 20, 52.5, 60) == 20 + 15
    assert steps_in_budget([1.0], 20, 30.0, 10) == 21


def test_epochs_appear_once_after_a_kill(all_colours: Collection, tmp_path: Path) -> None:
    data, features, run = few(all_colours), tmp_path / "features", tmp_path / "run"
    train(TINY.with_fit(epochs=2), data, run, features=features)
    add_metrics(run / "metrics.csv", 2, {"dev_loss": 9.0, "dev_cider": 0.0})  # no checkpoint yet
    add_samples(run, 3, {"a.png": "a wall"})
    with (run / "metrics.csv").open("a") as file:
        file.write("3,1.")
    train(TINY.with_fit(epochs=4), data, run, features=features, resume=True)
    series = read_metrics(run / "metrics.csv")
    assert [epoch for epoch, _ in series["dev_cider"]] == [1, 2, 3, 4]
    lines = (run / "samples.txt").read_text().splitlines()
    assert [x for x in lines if x.startswith("epoch")] == [f"epoch {n}" for n in range(1, 5)]
    assert Run.read(run).epochs == 4


def test_resuming_with_other_data_or_options_is_refused(
    all_colours: Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, features, run = few(all_colours), tmp_path / "features", tmp_path / "run"
    train(TINY, data, run, features=features)
    other = replace(data, splits={**data.splits, "train": data.splits["train"][::-1]})
    with pytest.raises(RecipeError, match=r"8 train images with other names or captions .* 8 be"):
        train(TINY, other, run, features=features, resume=True)
    with pytest.raises(RecipeError, match=r"with fit\.learning_rate 0\.1 instead of 0\.005"):
        train(TINY.with_fit(learning_rate=0.1), data, run, features=features, resume=True)
    train(TINY.with_fit(epochs=2), data, run, features=features, resume=True)
    assert "resuming with 2 epochs instead of 1" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\x80\x02nonsense", b"PK\x03\x04" + bytes(100)])
def test_damaged_files_of_a_run_are_one_line(
    all_colours: Collection, tmp_path: Path, content: bytes
) -> None:
    data, features, run = few(all_colours), tmp_path / "features", tmp_path / "run"
    run.mkdir()
    recipe = resolve(TINY, data, None)
    (run / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    Vocabulary(["<pad>", "<bos>", "<eos>", "<unk>", "a"]).write(run / "vocabulary.txt")
    for name in ("last.ckpt", "best.ckpt"):
        (run / name).write_bytes(content)
    with pytest.raises(RecipeError, match=r"got .*last\.ckpt, which is damaged"):
        train(TINY, data, run, features=features, resume=True)
    for read in (Trained.read, lambda path: Start.read(str(path))):
        with pytest.raises(RecipeError, match=r"got .*best\.ckpt, which is damaged"):
            read(run)
    (run / "recipe.json").write_bytes(content)
    with pytest.raises(RecipeError, match=r"got .*recipe\.json, which is damaged"):
        train(TINY, data, run, features=features, resume=True)
    with pytest.raises(RecipeError, match=r"got .*recipe\.json, which is damaged"):
        Run.read(run)


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "best.ckpt")
    with pytest.raises(RecipeError, match=r"got .*best\.ckpt without weights of a decoder"):
        read_weights(tmp_path / "best.ckpt")


def test_recipes_in_utf16_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for encoding in ("utf-16", "utf-8-sig"):
        path.write_bytes("[fit]\nepochs = 3\n".encode(encoding))
        assert Recipe.read(path).fit.epochs == 3
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="unreadable recipe"):
        Recipe.read(path)


def test_too_little_data_is_said_before_anything_is_encoded(
    all_colours: Collection, tmp_path: Path
) -> None:
    cache = tmp_path / "features"
    one = replace(all_colours, splits={"train": all_colours.splits["train"][:1], "dev": ()})
    with pytest.raises(DataError, match=r"no image with words in dev of colours \(1 train, 0 dev"):
        train(TINY, one, tmp_path / "a", features=cache)
    rare = replace(TINY, data=replace(TINY.data, min_count=500))
    with pytest.raises(DataError, match="without a word that occurs 500 times"):
        train(rare, few(all_colours), tmp_path / "b", features=cache)
    assert not cache.exists()


def test_the_clean_up_and_the_longest_caption_come_from_the_data(all_colours: Collection) -> None:
    chinese = with_captions(few(all_colours), "一只狗在草地上奔跑。", "红色的墙")
    recipe = resolve(TINY, chinese, None)
    assert (recipe.data.clean_up, recipe.data.max_tokens) == ("unicode", 10)
    assert len(texts(recipe, chinese).train_words[0][0]) == 9
    english = with_captions(few(all_colours), "the man's dog", "a wall")
    assert resolve(TINY, english, None).data.clean_up == "cutline"
    given = replace(TINY, data=replace(TINY.data, clean_up="notebook", max_tokens=7))
    assert resolve(given, english, None) == given


def test_captions_are_weighted_and_left_out_by_author(all_colours: Collection) -> None:
    example = Example(Path("a.png"), ("one", "two", "three", "four"), "",
                      ("model", "person", "model", "model"))  # fmt: skip
    data = replace(few(all_colours), splits={"train": (example,), "dev": (example,)})
    options = replace(TINY.data, written_by={"model": (1.0, 0.3, 0.0)})
    recipe = replace(TINY, data=replace(options, clean_up="cutline", max_tokens=5))
    found = texts(recipe, data)
    assert found.train_words == [[["one"], ["two"], ["three"]]]
    assert found.weights == [[1.0, 1.0, 0.3]]
    assert len(found.dev_words[0]) == 4
    with pytest.raises(RecipeError, match=r"got data\.written_by model = -1"):
        Recipe.from_dict({"data": {"written_by": {"model": -1}}})


def test_weights_of_images_and_captions_reach_the_batches() -> None:
    captions = [[[5], [6]]] * 400
    split = Split(
        [np.zeros((400, 1), np.float16)], [], [[1.0, 0.25]] * 400, [2.0] * 200 + [0.5] * 200
    )
    recipe = TINY.with_fit(batch_images=50, captions_per_image=2)
    recipe = replace(recipe, data=replace(recipe.data, max_tokens=5))
    batches = list(TrainingBatches(split, captions, recipe, 0))
    images = torch.cat([batch["images"] for batch in batches])
    assert (images < 200).sum() == 400
    assert 60 < (images >= 200).sum() < 140
    for batch in batches:
        expected = torch.where(batch["tokens"][:, :, 1] == 5, 1.0, 0.25)
        torch.testing.assert_close(batch["weights"], expected)


def test_leaks_between_collections_leave_training(all_colours: Collection) -> None:
    first = few(all_colours, 4, 1)
    leak = replace(first.splits["dev"][0], captions=("another caption",))
    other = Collection("other", "CC0", {"train": (*all_colours.splits["train"][8:10], leak),
                                        "dev": (all_colours.splits["dev"][1],)})  # fmt: skip
    both = combine([first, other], [1.0, 0.5])
    assert [name for name, _ in both.left_out] == [f"other/{leak.name}"]
    assert len(both.collection.splits["train"]) == 6
    assert "left out 1 training images" in both.lines[0]
    assert {each.weight for each in both.collection.splits["train"]} == {1.0, 0.5}


def test_a_plain_state_dict_is_a_start(all_colours: Collection, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    words = ("<pad>", "<bos>", "<eos>", "<unk>", "a", "red", "wall")
    decoder = build(len(words), 1280, PIXELS.decoder)
    state = {f"enc.net.{n}": w.half() for n, w in net.state_dict().items()}
    state |= {f"dec.{n}": w.half() for n, w in decoder.state_dict().items()}
    state |= {f"labels.{n}": w for n, w in torch.nn.Linear(1280, 1000).state_dict().items()}
    torch.save({"model": state, "words": list(words), "options": {"heads": 2}}, tmp_path / "s.pt")
    start = Start.read(str(tmp_path / "s.pt"))
    assert (start.vocabulary.words, start.recipe.encoder.backbone) == (words, "efficientnet_lite0")
    backbone = Backbone("efficientnet_lite0", 2)
    start.load_backbone(backbone)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, expected = backbone(pixels)[0], net.forward_features(pixels)
    assert float((ours - expected).abs().max()) < 0.02 * float(expected.abs().max())
    torch.save({"model": {"x": torch.zeros(1)}, "words": ["a"]}, tmp_path / "t.pt")
    with pytest.raises(RecipeError, match="whose weights are of another model"):
        Start.read(str(tmp_path / "t.pt"))


def test_a_run_of_version_0_1_still_opens(all_colours: Collection, tmp_path: Path) -> None:
    options = DecoderOptions(kind="transformer", width=16, embedding=16, heads=2, layers=1)
    decoder = build(6, 1280, options)
    tail = Backbone("efficientnet_lite0", 5).tail
    old_names = {"self_attn": "read", "cross_attn": "look", "ffn": "think"}
    state = {f"top.{n}": w for n, w in tail.state_dict().items()}
    for name, tensor in decoder.state_dict().items():
        for new, old in old_names.items():
            name = name.replace(f".{new}.", f".{old}.")
        state[f"decoder.{name}"] = tensor
    torch.save({"state_dict": state, "epoch": 0}, tmp_path / "best.ckpt")
    recipe = {
        "name": "old",
        "data": {"train": ["train"], "dev": "dev", "clean_up": "cutline", "min_count": 1,
                 "top_k": 0, "subwords": False, "max_tokens": 18, "made_up": 0},
        "encoder": {"backbone": "efficientnet_lite0", "features": "grid", "cut": 5, "views": 1,
                    "weights": "", "side_px": 0, "regions": ""},
        "decoder": {"kind": "transformer", "width": 16, "embedding": 16, "heads": 2, "layers": 1,
                    "cell": "lstm", "attention": 0, "gate": True, "norm": "pre", "tied": True,
                    "dropout": 0.3, "word_dropout": 0.05},
        "fit": {"objective": "cross-entropy", "start_from": "", "epochs": 1},
    }  # fmt: skip
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    Vocabulary(["<pad>", "<bos>", "<eos>", "<unk>", "a", "wall"]).write(tmp_path / "vocabulary.txt")
    trained = Trained.read(tmp_path)
    for name, tensor in decoder.state_dict().items():
        torch.testing.assert_close(trained.decoder.state_dict()[name], tensor)
    assert trained.labels is not None
    assert Start.read(str(tmp_path)).recipe.data.max_tokens == 18
    assert current_name("decoder.looker.weight_ih_l0") == "decoder.attention_lstm.weight_ih_l0"


def test_rewinding_keeps_the_first_epochs(tmp_path: Path) -> None:
    for epoch in range(3):
        add_metrics(tmp_path / "metrics.csv", epoch, {"dev_cider": epoch / 10})
        add_samples(tmp_path, epoch + 1, {"a.png": "a wall"})
    rewind(tmp_path, 1)
    assert read_metrics(tmp_path / "metrics.csv") == {"dev_cider": [(1, 0.0)]}
    assert (tmp_path / "samples.txt").read_text() == "epoch 1\n  a.png: a wall\n"
    with pytest.raises(DataError, match=r"without metrics\.csv"):
        read_metrics(tmp_path / "none" / "metrics.csv")
    with pytest.raises(RecipeError, match=r"without recipe\.json; expected a folder of `train`"):
        read_recipe(tmp_path)
