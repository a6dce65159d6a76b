"""A model from Hugging Face's hub, or a folder in its form, run by transformers, as a captioner.

Two kinds are supported: captioners whose only input is an image (BLIP, BLIP-2, GIT, a vision
encoder with a text decoder), and chat models whose template accepts images. A model is downloaded
once, into the cache of transformers. Images stay on the machine, and code in a model's repository
is not run.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cutline.caption import Alternative, Caption, CaptionOptions, InContext, Picture
from cutline.chat.answer_text import to_sentence
from cutline.errors import (
    BundleError,
    BundleNotFoundError,
    EngineError,
    ImageError,
    MissingExtraError,
    OptionError,
)
from cutline.image import describe, load_image
from cutline.options import SearchOptions
from cutline.parallel import map_in_order
from cutline.prompts import packaged
from cutline.regions.describe import RegionCaptioner

_ALONE = ("blip", "blip-2", "git", "vision-encoder-decoder")
_EXPECTED = (
    "expected BLIP, BLIP-2, GIT, a vision encoder with a text decoder, or a chat model that is "
    "shown images"
)
_SIDES = ("encoder", "decoder")
_READ_TEXT = {"donut-swin", "trocr"}
_READERS = 2
_SLIMMEST = 16
_LOGITS_BYTES = 256_000_000
_CHECKED_BYTES = 65_536


@dataclass(frozen=True)
class Ready:
    """One image as the input of its model.

    Attributes:
        source: as in `Caption.source`.
        inputs: tensors by name; the first axis is the image.
        shapes: of each of these; images with the same shapes are decoded together.
        checksum: of the pixels; with the seed it determines sampling.
    """

    source: str
    inputs: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    checksum: int


class HubCaptioner(RegionCaptioner):
    """A model that transformers can run.

    It uses the search options, in tokens of the model, which may be shorter than words; the prompt
    of a chat model contains `max_tokens` as a number of words. It has no labels, attention or
    embedding. Its score is the mean log-probability per token, with the end. The prompt of a chat
    model contains the words of an `InContext`; other models ignore them.

    Args:
        model: a name on the hub, as in "Salesforce/blip-image-captioning-base", or a folder.
        side_px: images are scaled down until neither side is longer.
        threads: torch's, in the whole process; None leaves them alone.

    Raises:
        BundleNotFoundError: there is no such folder, or the name cannot be had.
        BundleError: the model is damaged or of another kind.
        MissingExtraError: transformers or torch is not installed.
        OptionError: less than one thread.
    """

    language = "en"  # its prompts ask for English

    def __init__(self, model: str, *, side_px: int = 1024, threads: int | None = None) -> None:
        try:
            import torch
            import transformers
        except ModuleNotFoundError as error:
            raise MissingExtraError("a model from the hub", "hub") from error
        if threads is not None:
            if threads < 1:
                raise OptionError(f"got threads={threads}; expected at least 1")
            torch.set_num_threads(threads)
        if "TRANSFORMERS_VERBOSITY" not in os.environ:
            transformers.logging.set_verbosity_error()
        if not sys.stderr.isatty():
            transformers.logging.disable_progress_bar()

        folder = Path(model).expanduser()
        local = folder.is_dir()
        named = local or folder.is_absolute() or model.startswith(".")
        if named and not (folder / "config.json").is_file():
            raise BundleNotFoundError(f"got hub:{model}; expected a folder with config.json in it")
        self.name = _local_name(folder.resolve()) if local else model
        self._side_px = side_px
        self._network, self._processor, self._tokenizer = _load(
            str(folder) if local else model, torch.cuda.is_available()
        )
        config, own = self._network.config, self._network.generation_config
        self._chats = config.model_type not in _ALONE
        self.search = SearchOptions(beam_size=1, max_tokens=25) if self._chats else _search(own)
        text, ends = config.get_text_config(decoder=True), own.eos_token_id
        if config.model_type == "blip":
            ends = text.sep_token_id
        elif ends is None:
            ends = text.eos_token_id
        self._ends = torch.tensor([] if ends is None else ends).reshape(-1)
        self._processing, self._generating = threading.Lock(), threading.Lock()

    @property
    def computation(self) -> dict[str, Any]:
        """How captions are computed: "engine", "precision" and "threads"."""
        import torch

        return {
            "engine": "transformers",
            "precision": str(self._network.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }

    def _one(self, image: Picture, options: CaptionOptions | None) -> Caption:
        options = options or CaptionOptions()
        [caption] = self.decode([self.encode(image, options)], options)
        return caption

    def stream(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of images in order, in little memory: see `Captioner.stream`.

        Batches grow from one image to `batch_size`, so that the first captions are soon there;
        the next is read while the model captions one.
        """
        options = options or CaptionOptions()
        length = 1
        work = partial(self._encode, options=options)
        encoded = map_in_order(work, images, threads=_READERS, ahead=lambda: length + 1)
        with closing(encoded):
            while batch := list(islice(encoded, length)):
                for failed, run in groupby(batch, lambda each: isinstance(each, Caption)):
                    if failed:
                        captions = [each for each in run if isinstance(each, Caption)]
                    else:
                        ready = [each for each in run if isinstance(each, Ready)]
                        captions = self.decode(ready, options)
                    yield from captions
                length = min(2 * length, options.batch_size)

    def _encode(self, image: Picture, options: CaptionOptions) -> Ready | Caption:
        try:
            return self.encode(image, options)
        except (ImageError, EngineError) as error:
            bare = image.image if isinstance(image, InContext) else image
            return Caption(describe(bare), model=self.name, error=error)

    def encode(self, image: Picture, options: CaptionOptions) -> Ready:
        """Read one image and prepare it for the model: the first step of captioning.

        Raises:
            ImageError: it cannot be read.
            EngineError: the model's own preprocessing refuses it.
        """
        bare, near = (image.image, image.words) if isinstance(image, InContext) else (image, "")
        picture = load_image(bare, around_px=self._side_px, limits=options.limits)
        picture = _within(picture, self._side_px)
        with self._processing, self._guarded():  # tokenizers may not be shared by threads
            if self._chats:
                search = options.search or self.search
                context = " ".join(near.split())[:500] if options.context_nats else ""
                _, text = packaged("caption").render(
                    words=search.max_tokens, language="English", context=context
                )
                content = [{"type": "image", "image": picture}, {"type": "text", "text": text}]
                inputs = self._processor.apply_chat_template(
                    [{"role": "user", "content": content}],
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=True,
                    return_tensors="pt",
                )
            else:
                inputs = self._processor(picture, return_tensors="pt")
            shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
            return Ready(describe(bare), dict(inputs), shapes, zlib.crc32(picture.tobytes()))

    def decode(self, encoded: Sequence[Ready], options: CaptionOptions) -> list[Caption]:
        """Caption encoded images, in batches of equal shapes: the second step of captioning.

        Args:
            encoded: from `encode`, with the same options.
            options: how.

        Returns:
            A caption each; where the model failed, its error.
        """
        search = options.search or self.search
        rows = search.n_best if search.temperature is not None else search.beam_size
        row_bytes = 4 * self._most_tokens(search) * len(self._tokenizer)
        most = max(1, _LOGITS_BYTES // (rows * row_bytes))
        captions: list[Caption] = []
        for _, run in groupby(encoded, lambda each: each.shapes):
            alike = list(run)
            for start in range(0, len(alike), most):
                some = alike[start : start + most]
                try:
                    with self._generating, self._guarded():
                        captions += self._generate(some, search)
                except EngineError as error:
                    captions += [Caption(e.source, model=self.name, error=error) for e in some]
        return captions

    def _generate(self, encoded: Sequence[Ready], search: SearchOptions) -> list[Caption]:
        import torch
        from transformers import TemperatureLogitsWarper, TopPLogitsWarper

        network = self._network
        inputs = {}
        for name in encoded[0].inputs:
            tensor = torch.cat([each.inputs[name] for each in encoded])
            kind = network.dtype if tensor.is_floating_point() else tensor.dtype
            inputs[name] = tensor.to(network.device, kind)
        how: dict[str, Any] = {"num_beams": search.beam_size, "do_sample": False}
        if search.temperature is not None:
            warpers = TemperatureLogitsWarper(search.temperature), TopPLogitsWarper(search.top_p)
            keys = [each.checksum for each in encoded]
            how = {
                "num_beams": 1,
                "do_sample": True,
                "logits_processor": [*warpers, _Draw(search, keys)],
            }
        with torch.inference_mode():
            found = network.generate(
                **inputs,
                **how,
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                num_return_sequences=search.n_best,
                min_new_tokens=search.min_tokens,
                max_new_tokens=self._most_tokens(search),
                length_penalty=search.length_penalty,
                no_repeat_ngram_size=search.no_repeat_ngram,
                return_dict_in_generate=True,
                output_logits=True,
            )
            tokens, scores = _scored(found, self._ends.to(network.device))
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        alternatives = [
            Alternative(to_sentence(t) if self._chats else one_line(t), s)
            for t, s in zip(texts, scores, strict=True)
        ]
        captions, width = [], search.n_best
        for number, each in enumerate(encoded):
            group = [
                other for other in alternatives[number * width : (number + 1) * width] if other.text
            ]
            if search.temperature is not None:
                group.sort(key=lambda drawn: -drawn.score)
            if group:
                best, *others = group
                captions.append(
                    Caption(each.source, best.text, best.score, self.name, tuple(others))
                )
            else:
                empty = EngineError(f"{self.name}: got an empty answer; expected a sentence")
                captions.append(Caption(each.source, model=self.name, error=empty))
        return captions

    def _most_tokens(self, search: SearchOptions) -> int:
        return search.max_tokens * (4 if self._chats else 1)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever a model's own code raises becomes one error of ours."""
        try:
            yield
        except Exception as error:
            raise EngineError(f"{self.name}: {_told(error)}") from error


class _Draw:
    """Leaves of each row's words one, drawn by the image's own key, so that no batch changes it.

    The likeliest after Gumbel noise is a draw from the softmax (Maddison et al., 2014, section 2).
    """

    def __init__(self, search: SearchOptions, keys: Iterable[int]) -> None:
        ranks = range(search.n_best)
        seeds = [(search.seed or 0, key, rank) for key in keys for rank in ranks]
        self._rows = [np.random.default_rng(seed) for seed in seeds]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        noise = np.stack([row.gumbel(size=scores.shape[1]) for row in self._rows])
        drawn = (scores.double() + scores.new_tensor(noise)).argmax(dim=1, keepdim=True)
        return scores.new_full(scores.shape, -np.inf).scatter(1, drawn, 0.0)


def _local_name(folder: Path) -> str:
    """The folder's name and a checksum, so that two models in folders of one name differ.

    The checksum covers the configuration and, of each file of weights, its size and both ends.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".bin"):
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                digest.update(file.read(_CHECKED_BYTES))
                file.seek(max(0, size - _CHECKED_BYTES))
                digest.update(file.read(_CHECKED_BYTES))
    return f"{folder.name}-{digest.hexdigest()[:8]}"


def _load(model: str, on_card: bool) -> tuple[Any, Any, Any]:
    """The network, what makes images ready for it, and its tokenizer.

    Raises:
        BundleNotFoundError: there is no such model, or it cannot be had.
        BundleError: it is damaged or of another kind.
    """
    import transformers as hf

    try:
        config = hf.AutoConfig.from_pretrained(model, trust_remote_code=False)
    except OSError as error:
        raise BundleNotFoundError(
            f"got hub:{model}, which cannot be had: {_told(error)}; expected a name on the hub "
            "and a network, one fetched before (HF_HUB_OFFLINE=1 then asks no network), or a "
            "folder that a model was saved to, as hub:/the/folder"
        ) from error
    except Exception as error:
        raise BundleError(f"got hub:{model}: {_told(error)}; {_EXPECTED}") from error
    wanted = hf.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    [built, *_] = config.architectures or [config.model_type if wanted is None else wanted.__name__]
    parts = {getattr(getattr(config, side, None), "model_type", "") for side in _SIDES}
    if wanted is None or built != wanted.__name__ or parts & _READ_TEXT:
        raise BundleError(f"got hub:{model}, a {built}; {_EXPECTED}")
    try:
        if config.model_type in _ALONE:
            processor = hf.AutoImageProcessor.from_pretrained(model, trust_remote_code=False)
            tokenizer = hf.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        else:
            processor = hf.AutoProcessor.from_pretrained(model, trust_remote_code=False)
            tokenizer = getattr(processor, "tokenizer", None)
            if getattr(processor, "chat_template", None) is None:
                raise BundleError(f"it is a {built} without a chat template; {_EXPECTED}")
        network, how = hf.AutoModelForImageTextToText.from_pretrained(
            model,
            trust_remote_code=False,
            dtype="auto" if on_card else "float32",
            output_loading_info=True,
        )
    except Exception as error:
        raise BundleError(f"got hub:{model}: {_told(error)}") from error
    if missing := sorted(key for key in how["missing_keys"] if "pooler" not in key):
        raise BundleError(
            f"got hub:{model}, which lacks {len(missing)} of its weights, such as "
            f"{missing[0]}; expected them all"
        )
    return network.to("cuda" if on_card else "cpu").eval(), processor, tokenizer


def _search(own: Any) -> SearchOptions:
    """A captioner's own way to search, as far as it says."""
    return SearchOptions(
        beam_size=own.num_beams or 1,
        length_penalty=1.0 if own.length_penalty is None else max(own.length_penalty, 0.0),
        max_tokens=own.max_new_tokens or own.max_length or 30,
        no_repeat_ngram=own.no_repeat_ngram_size or 0,
    )


def _within(picture: Image.Image, side_px: int) -> Image.Image:
    """Scaled down until neither side is longer; a very slim one is widened.

    So that nothing that scales the shorter side to a given length makes the longer one immense.
    """
    longest = min(max(picture.size), side_px)
    scale = longest / max(picture.size)
    width, height = (max(round(side * scale), -(-longest // _SLIMMEST)) for side in picture.size)
    if (width, height) == picture.size:
        return picture
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _scored(found: Any, ends: Any) -> tuple[list[list[int]], list[float]]:
    """What was added to each row, its end included, and the mean log-probability of these tokens.

    Args:
        found: what `generate` returns for R rows, with logits.
        ends: (E,) ids that end a caption.
    """
    import torch

    beams = getattr(found, "beam_indices", None)
    if beams is None:
        beams = torch.arange(len(found.sequences), device=ends.device)[:, None]
        beams = beams.expand(-1, len(found.logits))
    steps = int((beams >= 0).sum(dim=1).max())
    tokens, beams = found.sequences[:, -steps:], beams[:, :steps].clamp(min=0)
    gained = [
        logits.float().log_softmax(dim=-1)[beams[:, step]].gather(1, tokens[:, step, None])
        for step, logits in enumerate(found.logits[:steps])
    ]
    ended = torch.isin(tokens, ends).cumsum(dim=1)
    lengths = (steps - (ended > 0).sum(dim=1) + 1).clamp(max=steps)
    before = torch.arange(steps, device=ends.device) < lengths[:, None]
    scores = (torch.cat(gained, dim=1) * before).sum(dim=1) / lengths
    rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
    return [row[:length] for row, length in rows], scores.tolist()


def _told(error: Exception) -> str:
    """The first of what an error says, on one line."""
    return " ".join(str(error).partition("\n")[0].split()).rstrip(".") or type(error).__name__


def one_line(text: str) -> str:
    """An answer without line breaks and quotes around it."""
    return " ".join(text.split()).strip("\"'“”")
