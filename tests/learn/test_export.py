import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cutline.bundle import Bundle, find
from cutline.captioner import load
from cutline.data import Collection
from cutline.errors import OutputError, ParityError
from cutline.image import load_image
from cutline.learn.decoders import DecoderOptions
from cutline.learn.export import Trained, check_parity, export, log_prior, write_graphs
from cutline.learn.recipe import DataOptions, EncoderOptions, FitOptions, Recipe
from cutline.learn.train import train
from cutline.runtime import Runtime
from cutline.search import SearchOptions
from cutline.text import Vocabulary

RECIPE = Recipe(
    name="colours",
    data=DataOptions(train=("train",), dev="dev", min_count=1),
    encoder=EncoderOptions(backbone="efficientnet_lite0", views=2),
    decoder=DecoderOptions(width=32, embedding=16, heads=2),
    fit=FitOptions(epochs=4, batch_images=8, captions_per_image=2, warmup_steps=2),
)


@pytest.fixture(params=["global-attention", "soft-attention"])
def run(request: pytest.FixtureRequest, colours: Collection, tmp_path: Path) -> Path:
    decoder = replace(RECIPE.decoder, kind=request.param)
    fit = replace(RECIPE.fit, learning_rate=5e-3, ema_decay=0.8)
    train(
        replace(RECIPE, decoder=decoder, fit=fit),
        colours,
        tmp_path / "run",
        features=tmp_path / "features",
    )
    return tmp_path / "run"


def test_a_run_becomes_a_bundle_that_says_the_same(run: Path, colours: Collection) -> None:
    output = run.parent / "colours-v1"
    options = SearchOptions(beam_size=3, length_penalty=0.7)
    bundle = export(
        run, colours, output, summary="Colours.", options=options, card="# Mine", word_bias=0.1
    )
    assert find(output).manifest == bundle.manifest
    assert bundle.manifest.search["length_penalty"] == 0.7
    assert bundle.manifest.recipe["stages"][0]["name"] == "colours"
    assert 0 <= bundle.manifest.scores["dev"]["bleu4"] <= 1
    assert (output / "README.md").read_text().startswith("# Mine\n\n## Measured")

    sources = [example.image for example in colours.splits["dev"]]
    captions = load(output, engine="onnxruntime").caption(sources)
    assert all(caption.ok for caption in captions)
    trained = Trained.read(run)
    features = torch.from_numpy(_pixels(trained, colours))
    with torch.no_grad():
        mid = trained.backbone.trunk(features)
        embedding = trained.top(mid).mean((2, 3)).numpy()
    for caption, expected in zip(captions, embedding, strict=True):
        assert caption.embedding is not None
        assert np.abs(caption.embedding - expected).max() < 0.02 * np.abs(expected).max()

    with pytest.raises(OutputError, match="exists"):
        export(run, colours, output, summary="", options=options)


@pytest.mark.parametrize("run", ["global-attention"], indirect=True)
def test_graphs_that_differ_are_refused(run: Path, colours: Collection, tmp_path: Path) -> None:
    trained = Trained.read(run)
    folder = tmp_path / "graphs"
    folder.mkdir()
    write_graphs(trained, folder)
    runtime = Runtime(Bundle(folder, None), "onnxruntime")  # type: ignore[arg-type]
    pixels = _pixels(trained, colours)
    check_parity(trained, runtime, pixels)
    with torch.no_grad():
        trained.decoder.bias[5] += 0.1
    with pytest.raises(ParityError, match="got logprobs"):
        check_parity(trained, runtime, pixels)
    with torch.no_grad():
        trained.top[-1][-1] = torch.nn.Identity()
    with pytest.raises(ParityError, match="got features"):
        check_parity(trained, runtime, pixels)


def test_common_words_have_a_prior_above_rare_ones(colours: Collection) -> None:
    vocabulary = Vocabulary(["<pad>", "<bos>", "<eos>", "<unk>", "wall", "the", "red"])
    prior = log_prior(vocabulary, colours.splits["train"])
    assert prior[:4].tolist() == [0, 0, 0, 0]
    assert prior[4] > prior[5] > prior[6]
    shares = np.array([48, 24, 16]) / 88
    assert abs(float(shares @ prior[4:])) < 1e-6


def _pixels(trained: Trained, colours: Collection) -> np.ndarray:
    images = [load_image(example.image) for example in colours.splits["dev"]]
    return np.stack([trained.transform(image) for image in images])


def test_stages_are_told_in_order(tmp_path: Path) -> None:
    from cutline.learn.export import _stages

    for name, start in (("one", ""), ("two", "one/best.ckpt")):
        (tmp_path / name).mkdir()
        start_from = str(tmp_path / start) if start else ""
        recipe = {"name": name, "fit": {"start_from": start_from}}
        (tmp_path / name / "recipe.json").write_text(json.dumps(recipe))
    assert [stage["name"] for stage in _stages(tmp_path / "two")] == ["one", "two"]
