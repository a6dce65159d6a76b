import contextlib
import importlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from cutline.bundle import Bundle, find
from cutline.caption import CaptionOptions
from cutline.captioner import load
from cutline.data import Collection, Example
from cutline.errors import (
    BundleError,
    DataError,
    MissingExtraError,
    OutputError,
    ParityError,
    RecipeError,
)
from cutline.image import load_image
from cutline.image_kind import KindClassifier
from cutline.options import SearchOptions
from cutline.preprocess import Transform
from cutline.runtime import Runtime, engines
from cutline.search import Hypothesis, search
from cutline.text import CleanUp, Vocabulary
from cutline.training import export as module
from cutline.training.bpe import Subwords
from cutline.training.checkpoint import Trained
from cutline.training.decoders import DECODERS, DecoderOptions, build
from cutline.training.export import (
    _pixels,
    _stages,
    export,
    log_prior,
)
from cutline.training.graphs import compress, strip_metadata, write_decoder, write_encoder
from cutline.training.parity import check_decoder, check_parity
from cutline.training.recipe import DataOptions, EncoderOptions, FitOptions, Recipe
from cutline.training.trainer import train
from cutline.training.warm_start import Start, _matched, _weights

WORDS = Vocabulary(["<pad>", "<bos>", "<eos>", "<unk>", *"a the dog cat runs sits on sand".split()])
RECIPE = Recipe(
    name="colours",
    data=DataOptions(train=("train",), dev="dev", min_count=1),
    encoder=EncoderOptions(backbone="efficientnet_lite0", views=1),
    decoder=DecoderOptions(kind="global-attention", width=32, embedding=16, heads=2),
    fit=FitOptions(
        epochs=3, batch_images=8, captions_per_image=2, warmup_steps=2, ema_decay=0.8,
        learning_rate=5e-3,
    ),
)  # fmt: skip


class Eye(nn.Module):
    """A tiny encoder: 3 x 3 regions of 12 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, 8)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        mid = self.patches(pixels)
        features = mid.flatten(2).transpose(1, 2)
        return features, features.mean(1), mid


class Labels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.told = nn.Linear(12, 1000)

    def forward(self, mid: Tensor) -> Tensor:
        logits: Tensor = self.told(mid.mean((2, 3)))
        return logits


def tiny(kind: str, **options: object) -> Trained:
    torch.manual_seed(0)
    chosen = DecoderOptions(
        kind=kind, **{"width": 16, "embedding": 16, "heads": 2, "layers": 2, **options}
    )  # type: ignore[arg-type]
    decoder = build(len(WORDS), 12, chosen).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():  # no two alike, as in a trained one
            parameter.add_(0.1 * torch.randn_like(parameter))
    eye, labels = Eye().eval(), Labels().eval()
    return Trained(RECIPE, WORDS, eye, labels, decoder, Transform(24, 32), (3, 3))


def pixels(images: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((images, 3, 24, 24)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def operators_read_once() -> Iterator[None]:
    """Parse the source of onnxscript's 500 operators once, not for every graph: a third less."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, AttributeError):
            name = "torch.onnx._internal.exporter._registration"
            interface = importlib.import_module(name).onnxscript_apis
            operators = interface.get_torchlib_ops()
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(interface, "get_torchlib_ops", lambda: operators)
        yield


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder's graphs, which are the same for every decoder here."""
    folder = tmp_path_factory.mktemp("eyes")
    write_encoder(tiny("merge"), folder)
    return folder


@pytest.mark.parametrize("kind", [*DECODERS, "soft-attention/gru"])
def test_graphs_say_what_torch_says_and_can_be_read_back(
    kind: str, eyes: Path, tmp_path: Path
) -> None:
    kind, _, cell = kind.partition("/")
    trained = with_eyes(tiny(kind, cell=cell or "lstm"))
    folder = shutil.copytree(eyes, tmp_path / "graphs")
    write_decoder(trained, folder)
    bundle = Bundle(folder, None)  # type: ignore[arg-type]
    check_parity(trained, Runtime(bundle, "onnxruntime"), pixels(3))
    features = torch.randn(3, 9, 12)
    for engine in ("onnxruntime", "openvino:float32"):
        runtime = Runtime(bundle, engine)
        check_decoder(trained.decoder, runtime, features, features.numpy())
        for options in (SearchOptions(), SearchOptions(beam_size=1)):
            together = found_by(runtime, features.numpy(), options)
            alone = [found_by(runtime, each[None], options)[0] for each in features.numpy()]
            assert alone == together, engine  # log-probabilities to the last bit

    found = _weights(folder / "start.onnx") | _weights(folder / "step.onnx")
    wanted = trained.decoder.state_dict()
    read = _matched(wanted, found, "decoder.", bundle)
    assert read.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(read[name], tensor, msg=name)


def found_by(
    runtime: Runtime, features: np.ndarray, options: SearchOptions
) -> list[list[Hypothesis]]:
    state = runtime.start(features)
    return search(runtime, state, len(features), options, bos=WORDS.bos, eos=WORDS.eos)


def with_eyes(trained: Trained) -> Trained:
    """With the encoder of the module's fixture."""
    other = tiny("merge")
    return replace(trained, encoder=other.encoder, labels=other.labels)


@pytest.mark.parametrize(("int8", "share", "apart"), [(False, 0.6, 1e-3), (True, 0.35, 2e-2)])
def test_compressed_weights_are_smaller_and_nearly_the_same(
    tmp_path: Path, int8: bool, share: float, apart: float
) -> None:
    weight = np.random.default_rng(1).standard_normal((128, 256)).astype(np.float32)
    weight *= np.logspace(-3, 1, 256, dtype=np.float32)  # each output unit has its own scale
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"], doc_string="File /home/me/train.py")],
        "product",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ("B", 128))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ("B", 256))],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for file in files:
        onnx.save(model, file)
        strip_metadata(file)
        compress(file, int8=int8)
    content = files[0].read_bytes()
    assert content == files[1].read_bytes()
    assert b"/home/me" not in content
    assert len(content) < share * weight.nbytes
    found = _weights(files[0])["weight"]
    assert (np.abs(found - weight).max(axis=0) <= apart * np.abs(weight).max(axis=0)).all()


def test_graphs_that_differ_are_refused(eyes: Path, tmp_path: Path) -> None:
    trained = with_eyes(tiny("show-and-tell"))
    folder = shutil.copytree(eyes, tmp_path / "graphs")
    write_decoder(trained, folder)
    runtime = Runtime(Bundle(folder, None), "onnxruntime")  # type: ignore[arg-type]
    check_parity(trained, runtime, pixels(2))
    with torch.no_grad():
        trained.decoder.bias[5] += 0.1
    with pytest.raises(ParityError, match="got logprobs"):
        check_parity(trained, runtime, pixels(2))
    with pytest.raises(ParityError, match="got features"):
        check_parity(replace(trained, encoder=Eye().eval()), runtime, pixels(2))
    with pytest.raises(BundleError, match=r"without a name for the weights decoder\.bias"):
        _matched(trained.decoder.state_dict(), {}, "decoder.", runtime.bundle)


def missing(*_: object) -> np.ndarray:
    """METEOR where `cutline[eval]` is not installed."""
    raise MissingExtraError("METEOR", "eval")


class Journey:
    """A tiny run over a real backbone, and the bundle it became."""

    def __init__(self, folder: Path, collection: Collection) -> None:
        self.collection, self.run, self.features = collection, folder / "run", folder / "features"
        self.done = train(RECIPE, collection, self.run, features=self.features)
        self.options = SearchOptions(beam_size=3, length_penalty=0.7)
        self.steps: list[str] = []
        self.output = self.run / "colours-v1"
        self.bundle = export(
            self.run, collection, self.output,
            summary="Colours.", options=self.options, card="# Mine", word_bias=0.1,
            doing=self.steps.append,
        )  # fmt: skip


def statistics(candidates: list[list[str]], references: list[list[list[str]]]) -> np.ndarray:
    """Statistics of METEOR without Java, which reads its paraphrases for ten seconds."""
    assert len(candidates) == len(references)
    return np.array([[*[5.0, 5.0, 2.0, 2.0], *[1.0] * 16, 1.0, 4.0, 4.0] for _ in candidates])


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory, all_colours: Collection) -> Journey:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "meteor_statistics", statistics)
        return Journey(tmp_path_factory.mktemp("journey"), all_colours)


def test_a_run_becomes_a_bundle_that_says_the_same(journey: Journey) -> None:
    manifest = find(journey.run).manifest  # the one bundle in the run's folder
    assert manifest == journey.bundle.manifest
    assert manifest.search["length_penalty"] == 0.7
    assert journey.steps[1:4] == [
        "writing the graphs", "comparing them with torch", "captioning 6 images of dev",
    ]  # fmt: skip
    assert manifest.recipe["stages"][0]["name"] == "colours"
    for scores in (manifest.scores["dev"], manifest.scores["dev, before compression"]):
        assert 0 <= scores["bleu4"] <= 1
        assert 0 < scores["meteor"] < 1
    assert manifest.speed["images_per_s"] > 0
    assert (journey.output / "README.md").read_text().startswith("# Mine\n\n## Measured")

    sources = [example.image for example in journey.collection.splits["dev"]]
    captions = load(journey.output, engine="onnxruntime").caption(sources)
    assert all(caption.ok and len(caption.labels) == 5 for caption in captions)
    trained = Trained.read(journey.run)
    seen = np.stack([trained.transform(load_image(source)) for source in sources])
    with torch.no_grad():
        _, embedding, _ = trained.encoder(torch.from_numpy(seen))
    for caption, expected in zip(captions, embedding.numpy(), strict=True):
        assert caption.embedding is not None
        assert np.abs(caption.embedding - expected).max() < 0.02 * np.abs(expected).max()

    with pytest.raises(OutputError, match="exists"):
        export(journey.run, journey.collection, journey.output, summary="", options=SearchOptions())


def test_training_goes_on_from_a_bundle(journey: Journey, tmp_path: Path) -> None:
    start = Start.read(str(journey.output))
    assert start.vocabulary.words == Trained.read(journey.run).vocabulary.words
    state = torch.load(journey.run / "best.ckpt", weights_only=True)["state_dict"]
    for name, tensor in start.weights.items():
        torch.testing.assert_close(tensor, state[name], atol=2e-3, rtol=2e-3, msg=name)

    fit = replace(RECIPE.fit, start_from=str(journey.output), epochs=1, encoder_learning_rate=0.0)
    recipe = replace(RECIPE, decoder=DecoderOptions(kind="merge"), fit=fit)
    done = train(recipe, journey.collection, tmp_path / "run", features=journey.features)
    assert done.dev_loss < journey.done.dev_loss + 0.5
    assert [stage["name"] for stage in _stages(done.folder)] == ["colours", "colours"]
    kept = Trained.read(done.folder).encoder.get_submodule("tail").state_dict()
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, start.weights[f"tail.{name}"], msg=name)


def test_a_checkpoint_becomes_an_int8_bundle_that_training_can_start_from(
    journey: Journey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    kinds = KindClassifier(("photograph", "chart"), np.ones((1280, 2), np.float32), np.ones(2))
    kinds.write(tmp_path / "kinds.npz")
    bundle = export(
        journey.run / "best.ckpt", journey.collection, tmp_path / "colours-v2", summary="",
        options=journey.options, int8=True, kinds=tmp_path / "kinds.npz",
    )  # fmt: skip
    assert bundle.manifest.created == "2023-11-14"
    assert bundle.manifest.recipe == journey.bundle.manifest.recipe
    assert bundle.manifest.data == journey.bundle.manifest.data
    source = journey.collection.splits["dev"][0].image
    for engine in engines():
        caption = load(bundle.folder, engine=engine).caption(source)
        assert caption.text
        assert caption.kind is not None
    start = Start.read(str(bundle.folder))
    float_weights = Start.read(str(journey.output)).weights
    assert start.weights.keys() >= float_weights.keys()
    for name, tensor in float_weights.items():
        torch.testing.assert_close(start.weights[name], tensor, atol=0.05, rtol=0.05, msg=name)


def test_a_backbone_without_labels_makes_a_bundle_without_labels(
    all_colours: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "meteor_statistics", missing)
    torch.manual_seed(0)
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), weights)
    encoder = EncoderOptions(
        backbone="test_resnet", features="pooled", views=1, weights=str(weights), side_px=64
    )
    decoder = DecoderOptions(kind="plain-merge", width=16, embedding=16)
    fit = replace(RECIPE.fit, epochs=1, encoder_learning_rate=0.0)
    recipe = replace(RECIPE, encoder=encoder, decoder=decoder, fit=fit)
    done = train(recipe, all_colours, tmp_path / "run", features=tmp_path / "features")
    bundle = export(
        done.folder, all_colours, tmp_path / "other-v1", summary="", options=SearchOptions()
    )
    assert bundle.manifest.grid == (1, 1)
    assert "meteor" not in bundle.manifest.scores["dev"]
    assert bundle.labels() == ()
    source = all_colours.splits["dev"][0].image
    caption = load(bundle.folder, engine="onnxruntime").caption(source, CaptionOptions(labels=5))
    assert caption.text
    assert caption.labels == ()
    assert caption.attention is None


def test_runs_over_feature_files_and_no_runs_are_refused(
    all_colours: Collection, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"without best\.ckpt"):
        Trained.read(tmp_path)
    for split in all_colours.splits.values():
        for example in split:
            boxes, features = np.ones((2, 4), np.float32), np.ones((2, 8), np.float32)
            np.savez(tmp_path / f"{example.image.stem}.npz", features=features, boxes=boxes)
    recipe = replace(
        RECIPE,
        encoder=EncoderOptions(features="regions", regions=str(tmp_path), views=1),
        decoder=DecoderOptions(kind="up-down", width=16, embedding=16),
        fit=replace(RECIPE.fit, epochs=1),
    )
    done = train(recipe, all_colours, tmp_path / "run", features=tmp_path / "features")
    with pytest.raises(RecipeError, match="whose detector is unknown; expected one with"):
        export(done.folder, all_colours, tmp_path / "a-v1", summary="", options=SearchOptions())


def test_common_words_have_a_prior_above_rare_ones(colours: Collection) -> None:
    vocabulary = Vocabulary(["<pad>", "<bos>", "<eos>", "<unk>", "wall", "the", "red"])
    prior = log_prior(vocabulary, colours.splits["train"], CleanUp())
    assert prior[:4].tolist() == [0, 0, 0, 0]
    assert prior[4] > prior[5] > prior[6]
    shares = np.array([48, 24, 16]) / 88
    assert abs(float(shares @ prior[4:])) < 1e-6

    letters = Subwords.build([["wall"]], min_count=99)
    prior = log_prior(letters, colours.splits["train"], CleanUp())
    assert prior[letters.words.index("##l")] > prior[letters.words.index("w")] != 0


def test_pictures_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = Example(tmp_path / "broken.png", ("a wall",))
    sound = Example(Path(__file__).parents[2] / "samples" / "cat.jpg", ("a cat",))
    [pixels] = _pixels(Transform(24, 32), [broken, sound, sound], 1)
    assert pixels.shape == (3, 24, 24)
    with pytest.raises(DataError, match="got 1 images of which none can be read"):
        _pixels(Transform(24, 32), [broken])


def test_stages_are_told_in_order(tmp_path: Path) -> None:
    for name, start in (("one", ""), ("two", "one/best.ckpt"), ("three", "two")):
        (tmp_path / name).mkdir()
        start_from = str(tmp_path / start) if start else ""
        recipe = {"name": name, "fit": {"start_from": start_from}}
        (tmp_path / name / "recipe.json").write_text(json.dumps(recipe))
    assert [stage["name"] for stage in _stages(tmp_path / "three")] == ["one", "two", "three"]
