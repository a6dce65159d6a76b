from __future__ import annotations

import functools
import json
import math
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import scene
from PIL import Image
from typer.testing import CliRunner

import cutline
from cutline.backends import huggingface as hub
from cutline.caption import CaptionOptions, InContext
from cutline.cli import app
from cutline.cli.doctor import examine
from cutline.errors import (
    BundleError,
    BundleNotFoundError,
    EngineError,
    ImageFormatError,
    ImageNotFoundError,
    MissingExtraError,
    OptionError,
)
from cutline.options import SearchOptions

hf = pytest.importorskip("transformers")
import tokenizers  # noqa: E402  both come with transformers
import torch  # noqa: E402

END = "[END]"
WORDS = [END, *"a dog cat runs sits on the grass water in red".split(), "<image>"]
IDS = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id"), 0)
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
EYE = {**SIZES, "image_size": 32, "patch_size": 16}
SQUARE = {"height": 32, "width": 32}
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def tokenizer() -> Any:
    words = {word: number for number, word in enumerate(WORDS)}
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="a"))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    fast.add_tokens(["<image>"])  # found also where no space is
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token=END, bos_token=END, eos_token=END, unk_token=None
    )


def blip() -> list[Any]:
    text = {**SIZES, **IDS, "vocab_size": len(WORDS), "encoder_hidden_size": 16}
    config = hf.BlipConfig(text_config=text, vision_config=EYE)
    return [hf.BlipForConditionalGeneration(config), hf.BlipImageProcessor(size=SQUARE)]


def blip2() -> list[Any]:
    words = {"vocab_size": len(WORDS), "word_embed_proj_dim": 16, "ffn_dim": 16}
    config = hf.Blip2Config(
        vision_config=EYE,
        qformer_config={**SIZES, "vocab_size": len(WORDS), "encoder_hidden_size": 16},
        text_config=hf.OPTConfig(**words, **SIZES, **IDS).to_dict(),
        num_query_tokens=2,
        image_token_index=WORDS.index("<image>"),
    )
    return [hf.Blip2ForConditionalGeneration(config), hf.BlipImageProcessor(size=SQUARE)]


def git() -> list[Any]:
    config = hf.GitConfig(vision_config=EYE, vocab_size=len(WORDS), **SIZES, **IDS)
    eye = hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE)
    return [hf.GitForCausalLM(config), eye]


def encoder_decoder() -> list[Any]:
    text = hf.GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, **IDS)
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(hf.ViTConfig(**EYE), text)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 0, 0, 0
    return [hf.VisionEncoderDecoderModel(config), hf.ViTImageProcessor(size=SQUARE)]


def chat() -> list[Any]:
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**EYE),
        text_config=hf.LlamaConfig(vocab_size=len(WORDS), **SIZES, **IDS),
        image_token_index=WORDS.index("<image>"),
        vision_feature_layer=-1,
    )
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE),
        tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return [hf.LlavaForConditionalGeneration(config), processor]


FAMILIES: list[Callable[[], list[Any]]] = [blip, blip2, git, encoder_decoder, chat]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each family, with weights drawn at random."""
    folder = tmp_path_factory.mktemp("hub")
    hf.logging.disable_progress_bar()
    torch.set_num_threads(1)  # more only wait for each other where cores are busy
    for build in FAMILIES:
        network, *parts = build()
        torch.manual_seed(1)
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.5)
        for part in (network, tokenizer(), *parts):
            part.save_pretrained(folder / build.__name__)
    return folder


@pytest.fixture(scope="module", params=[build.__name__ for build in FAMILIES])
def model(request: pytest.FixtureRequest, folder: Path) -> Any:
    return cutline.load(f"hub:{folder / request.param}")


@pytest.fixture(scope="module")
def decoder(folder: Path) -> Any:
    return cutline.load(f"hub:{folder / 'encoder_decoder'}")


def pictures(count: int) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (40, 60, 3), np.uint8)) for _ in range(count)]


def told(captions: list[Any]) -> list[Any]:
    return [
        (each.text, pytest.approx(each.score, abs=1e-4), len(each.alternatives))
        for each in captions
    ]


def test_every_family_captions_alone_and_in_batches(model: Any) -> None:
    several = pictures(5)
    alone = [model.caption(picture) for picture in several]
    assert told(alone) == [(each.text, each.score, 0) for each in model.caption(several)]
    assert len({each.score for each in alone}) == 5  # it does look
    assert {each.model for each in alone} == {model.name}
    assert {each.source for each in alone} == {"<image 60x40>"}
    assert all(set(each.text.split()) <= set(WORDS) and each.text for each in alone)
    assert all(-10 < each.score < 0 for each in alone)
    assert not any(each.labels or each.attention or each.embedding for each in alone)


def test_a_bad_picture_is_an_item_and_the_others_keep_their_places(model: Any) -> None:
    several = pictures(4)
    mixed = [several[0], b"no picture", *several[1:], "missing.jpg"]
    captions = model.caption(mixed, CaptionOptions(batch_size=3))
    good = [each for each in captions if each.ok]
    assert told(good) == [(each.text, each.score, 0) for each in model.caption(several)]
    assert isinstance(captions[1].error, ImageFormatError)
    assert isinstance(captions[5].error, ImageNotFoundError)
    assert captions[5].source == "missing.jpg"
    with pytest.raises(ImageNotFoundError):
        model.caption("missing.jpg")


def test_search_options_are_heeded(model: Any) -> None:
    [picture] = pictures(1)
    search = SearchOptions(beam_size=4, n_best=3, min_tokens=5, max_tokens=6, no_repeat_ngram=2)
    caption = model.caption(picture, CaptionOptions(search))
    said = [caption, *caption.alternatives]
    assert len(said) == len({each.text for each in said}) == 3
    scores = [each.score for each in said]
    assert scores == sorted(scores, reverse=True)
    for words in (each.text.split() for each in said):
        assert 5 <= len(words) <= (24 if model.name.startswith("chat-") else 6)
        assert len(set(pairwise(words))) == len(words) - 1


@pytest.mark.parametrize(
    "search",
    [
        SearchOptions(beam_size=1, max_tokens=5),
        SearchOptions(beam_size=4, n_best=4, max_tokens=5, length_penalty=0.0),
        SearchOptions(temperature=1.5, n_best=4, max_tokens=12, no_repeat_ngram=0),
    ],
)
def test_scores_are_those_of_whole_captions(
    decoder: Any, search: SearchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, found = decoder._network.generate, []

    def watched(**options: Any) -> Any:
        found.append((options["pixel_values"], generate(**options)))
        return found[-1][1]

    monkeypatch.setattr(decoder._network, "generate", watched)
    rather_end = {(WORDS.index(END),): 3.0}
    monkeypatch.setattr(decoder._network.generation_config, "sequence_bias", rather_end)
    seen = [decoder.encode(picture, CaptionOptions()) for picture in pictures(6)]
    captions = decoder.decode(seen, CaptionOptions(search))
    [(pixels, out)] = found
    expected, lengths = [], set()
    for row, tokens in enumerate(out.sequences):
        ids = tokens.tolist()
        ids = ids[: ids.index(0, 1) + 1] if 0 in ids[1:] else ids
        lengths.add(len(ids) - 1)
        tokens, pixel = torch.tensor([ids]), pixels[row // search.n_best][None]
        with torch.inference_mode():
            logits = decoder._network(pixel_values=pixel, decoder_input_ids=tokens).logits
        gained = logits.log_softmax(-1)[0, :-1].gather(1, tokens[0, 1:, None])
        expected.append(float(gained.mean()))
    for number, caption in enumerate(captions):
        said = [caption.score, *(other.score for other in caption.alternatives)]
        wanted = expected[number * search.n_best : (number + 1) * search.n_best]
        assert sorted(said) == pytest.approx(sorted(wanted), abs=1e-4)
    assert search.beam_size == 1 or min(lengths) < search.max_tokens  # some end early


def test_draws_depend_on_the_seed_and_the_picture_alone(model: Any) -> None:
    five = pictures(5)
    drawing = SearchOptions(temperature=1.0, n_best=3, max_tokens=6, seed=7)

    def drawn(images: list[Image.Image], batch_size: int = 16, **search: Any) -> list[list[str]]:
        options = CaptionOptions(
            SearchOptions(**{**vars(drawing), **search}), batch_size=batch_size
        )
        captions = model.caption(images, options)
        return [[each.text, *(other.text for other in each.alternatives)] for each in captions]

    torch.manual_seed(1)
    first = drawn(five)
    torch.manual_seed(2)
    assert drawn(five, batch_size=1) == first
    assert drawn(five[3:]) == first[3:]
    assert len({text for texts in first for text in texts}) > 5
    assert drawn(five, seed=8) != first
    greedy = model.caption(five[0], CaptionOptions(SearchOptions(beam_size=1, max_tokens=6)))
    assert drawn(five[:1], top_p=1e-6) == [[greedy.text] * 3]


def test_words_nearby_are_told_to_a_chat_model_and_no_other(model: Any) -> None:
    [picture] = pictures(1)
    near = InContext(picture, "red  water")
    ready = model.encode(near, CaptionOptions())
    if not model.name.startswith("chat-"):
        assert model.caption(near).score == model.caption(picture).score
        return
    [ids] = ready.inputs["input_ids"].tolist()
    assert "red water" in model._tokenizer.decode(ids)
    [ids] = model.encode(near, CaptionOptions(context_nats=0)).inputs["input_ids"].tolist()
    assert "red" not in model._tokenizer.decode(ids)


def test_memory_is_bounded(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    several = pictures(6)
    together = decoder.caption(several)
    rows: list[int] = []
    generate = decoder._network.generate

    def watched(**options: Any) -> Any:
        rows.append(len(options["pixel_values"]))
        return generate(**options)

    monkeypatch.setattr(decoder._network, "generate", watched)
    monkeypatch.setattr(hub, "_LOGITS_BYTES", 4 * 30 * len(WORDS) * 2)  # of two pictures
    seen = [decoder.encode(picture, CaptionOptions()) for picture in several[:5]]
    assert told(decoder.decode(seen, CaptionOptions())) == [
        (c.text, c.score, 0) for c in together[:5]
    ]
    assert rows == [2, 2, 1]

    asked = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal asked
        while True:
            asked += 1
            yield several[0]

    captions = decoder.stream(endless(), CaptionOptions(batch_size=4))
    for _ in range(20):
        assert next(captions).ok
    assert asked <= 20 + 2 * 4
    captions.close()
    assert not any(thread.name.startswith("cutline") for thread in threading.enumerate())


@pytest.mark.parametrize("size", [(4000, 1), (1, 1), (3000, 2000)])
def test_pictures_of_any_shape_are_made_to_fit(folder: Path, size: tuple[int, int]) -> None:
    model = cutline.load(f"hub:{folder / 'git'}")  # it scales the shorter side
    picture = scene(*size)
    assert model.caption(picture).ok
    assert picture.size == size


def test_a_model_that_fails_fails_its_pictures_alone(
    decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = decoder._network.generate

    def failing(**options: Any) -> Any:
        if len(options["pixel_values"]) == 2:
            raise RuntimeError("out of memory\nand more")
        return generate(**options)

    monkeypatch.setattr(decoder._network, "generate", failing)
    captions = decoder.caption(pictures(3))  # one, then two
    assert [each.ok for each in captions] == [True, False, False]
    assert isinstance(captions[1].error, EngineError)
    assert re.fullmatch(r"encoder_decoder-\w{8}: out of memory", str(captions[1].error))


def write(folder: Path, **config: Any) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return f"hub:{folder}"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "bert", "architectures": ["BertModel"]}, "a BertModel; expected BLIP"),
        ({"model_type": "gpt2"}, "a gpt2; expected BLIP"),
        (
            {"model_type": "blip", "architectures": ["BlipForQuestionAnswering"]},
            "a BlipForQuestionAnswering; expected BLIP",
        ),
        ({"model_type": "never heard of"}, "never heard of"),
        ({"model_type": "llava"}, "got hub:.*own"),
        (
            {"model_type": "x", "auto_map": {"AutoConfig": "code.Config"}},
            "code",
        ),
    ],
)
def test_models_of_another_kind_are_refused(
    tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    with pytest.raises(BundleError, match=says):
        cutline.load(write(tmp_path / "own", **config))


def test_readers_of_text_and_models_without_a_chat_template_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    reader = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        hf.ViTConfig(**EYE), hf.TrOCRConfig()
    )
    reader.save_pretrained(tmp_path / "reader")
    with pytest.raises(BundleError, match="a VisionEncoderDecoderModel; expected BLIP"):
        cutline.load(f"hub:{tmp_path / 'reader'}")

    shutil.copytree(folder / "chat", tmp_path / "mute")
    (tmp_path / "mute" / "chat_template.jinja").unlink()
    with pytest.raises(BundleError, match="LlavaForConditionalGeneration without a chat template"):
        cutline.load(f"hub:{tmp_path / 'mute'}")


def test_damaged_and_missing_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder / "git", tmp_path / "git")
    file = tmp_path / "git" / "model.safetensors"
    weights = load_file(file)
    lost = next(name for name in weights if "attention" in name)
    save_file(
        {name: each for name, each in weights.items() if name != lost}, file, {"format": "pt"}
    )
    with pytest.raises(BundleError, match=f"lacks 1 of its weights, such as {lost}"):
        cutline.load(f"hub:{tmp_path / 'git'}")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BundleError, match="got hub:"):
        cutline.load(f"hub:{tmp_path / 'git'}")


def test_models_that_cannot_be_had_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleNotFoundError, match="nowhere; expected a folder with config"):
        cutline.load(f"hub:{tmp_path / 'nowhere'}")
    with pytest.raises(BundleNotFoundError, match="expected a folder with config"):
        cutline.load(f"hub:{tmp_path}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BundleNotFoundError, match=r"nobody/nothing, which cannot.*HF_HUB_OFFLINE"):
        cutline.load("hub:nobody/nothing")
    with pytest.raises(OptionError, match="threads=0"):
        cutline.load("hub:nobody/nothing", threads=0)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cutline\[hub\]"'):
        cutline.load("hub:any/thing")


def test_threads_are_torch_s(folder: Path) -> None:
    before = torch.get_num_threads()
    try:
        cutline.load(f"hub:{folder / 'blip'}", threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_command_line_takes_one(folder: Path, tmp_path: Path) -> None:
    scene().save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    model = f"hub:{folder / 'blip'}"
    words = ["caption", str(tmp_path), "--model", model, "--format", "jsonl", "--n-best", "2"]
    ran = CliRunner().invoke(app, [*words, "--beam", "2"])
    assert ran.exit_code == 1, ran.output
    bad, good = map(json.loads, ran.stdout.splitlines())
    assert (bad["status"], bad["error"]["type"]) == ("error", "ImageFormatError")
    assert (good["status"], len(good["alternatives"])) == ("ok", 1)
    assert re.fullmatch("blip-[0-9a-f]{8}", good["model"])
    assert math.isfinite(good["score"])


def test_the_service_takes_one(folder: Path, tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    from cutline.service.app import create_app
    from cutline.service.settings import Settings

    scene().save(tmp_path / "good.png")
    settings = Settings(model=f"hub:{folder / 'blip'}")
    with TestClient(create_app(settings), base_url="http://127.0.0.1:9") as client:
        files = [("image", ("good.png", (tmp_path / "good.png").read_bytes()))] * 2
        answer = client.post("/v1/captions", files=files).json()
    assert re.fullmatch("blip-[0-9a-f]{8}", answer["model"])
    assert [each["status"] for each in answer["results"]] == ["ok", "ok"]


def test_local_models_in_folders_of_one_name_have_different_names(
    folder: Path, tmp_path: Path
) -> None:
    for family in ("blip", "git"):
        shutil.copytree(folder / family, tmp_path / family / "model")
    shutil.copytree(folder / "blip", tmp_path / "copy" / "model")
    names = [
        cutline.load(f"hub:{tmp_path / each / 'model'}").name for each in ("blip", "git", "copy")
    ]
    assert names[0] != names[1]
    assert names[0] == names[2]


def test_doctor_measures_a_hub_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = functools.partial(examine, seconds=0.1)
    monkeypatch.setattr("cutline.cli.doctor.examine", speed)
    ran = CliRunner().invoke(app, ["doctor", "--json", "--model", f"hub:{folder / 'blip'}"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["speed"]["engine"].startswith("blip")
