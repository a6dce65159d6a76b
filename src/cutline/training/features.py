"""Features of images by a frozen encoder, computed once and cached on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from cutline.atomic import write_whole
from cutline.data import Example
from cutline.errors import DataError, ImageError
from cutline.image import load_image
from cutline.parallel import map_in_order
from cutline.preprocess import Transform
from cutline.training.encoders import (
    STEM_MODULES,
    Backbone,
    Encoder,
    EncoderOptions,
    checksum,
    load_encoder,
    weights_file,
)

BATCH = 32
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_LARGEST = float(np.finfo(np.float16).max)

Decoded = TypeVar("Decoded")
Pixels = NDArray[np.float32]
Progress = Callable[[int], None]
"""Called with the number of images done since the last call."""
Unreadable = Callable[[int, ImageError], object]
"""Called with the position and the error of an image that cannot be read."""


@dataclass(frozen=True)
class View:
    """A fixed augmentation of every image: view 0 is plain, 1 mirrored, the others are crops."""

    number: int
    min_area: float = 0.7
    max_stretch: float = 1.25

    def __call__(self, image: Image.Image, name: str) -> Image.Image:
        """The view of one image; its randomness depends on name and number alone."""
        if self.number == 0:
            return image
        if self.number == 1:
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        seed = hashlib.sha256(f"{self.number}/{name}".encode()).digest()
        rng = np.random.default_rng(list(seed))
        area = rng.uniform(self.min_area, 1.0)
        stretch = self.max_stretch ** rng.uniform(-1, 1)
        w = min(1.0, (area * stretch) ** 0.5)
        h = min(1.0, (area / stretch) ** 0.5)
        x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
        box = (x * image.width, y * image.height, (x + w) * image.width, (y + h) * image.height)
        crop = image.resize(image.size, Image.Resampling.BICUBIC, box=box)
        return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def extract_features(
    options: EncoderOptions,
    examples: Sequence[Example],
    folder: Path,
    *,
    view: int = 0,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
    encoder: Encoder | None = None,
) -> NDArray[np.float16]:
    """The features of every example, read from `folder` if they were written before.

    The file's name is a key of the backbone, its weights, the transform, the view, and the images'
    names and sizes in bytes. A .json of the same name describes the content. A killed run resumes
    after its last whole batch, and a second process waits for the first.

    Args:
        options: the backbone, its weights and side, and whether features are pooled.
        examples: whose images.
        folder: the cache; created if it is missing.
        view: 0 plain, 1 mirrored, others random crops, see `View`.
        progress: called with the number of images done since the last call.
        unreadable: called for each unreadable image, whose row is NaN then (`readable` tells them
            apart); without it the first such image raises.
        encoder: the encoder of these options, if it is loaded already.

    Returns:
        (len(examples), N, D) float16, memory-mapped, row i of example i; N = 1 if pooled.

    Raises:
        ImageError: an image is unreadable, and there is no `unreadable`.
        RecipeError, WeightsError, MissingExtraError: as `load_encoder`.
    """
    encoder = encoder or load_encoder(
        options.backbone,
        pooled=options.pooled,
        weights=Path(options.weights) if options.weights else None,
        side_px=options.side_px or None,
    )
    rows, columns = encoder.grid
    what = {
        "backbone": encoder.name,
        "weights": encoder.checksum,
        "pooled": encoder.pooled,
        "transform": asdict(encoder.transform),
        "view": asdict(View(view)),
    }
    store = FeatureStore(folder, what, examples, (rows * columns, encoder.width))
    net = encoder.to(DEVICE)
    return store.fill(
        _decode(encoder.transform, View(view)), forward_features(net), progress, unreadable
    )


def readable(features: NDArray[np.float16]) -> NDArray[np.bool_]:
    """(I, ...) features -> (I,): which images could be read."""
    return ~np.isnan(features.reshape(len(features), -1)[:, 0])


def extract_trunk_output(
    backbone: Backbone,
    transform: Transform,
    examples: Sequence[Example],
    view: View,
    folder: Path,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
) -> NDArray[np.float16]:
    """The trunk's output for one view of every example, cached like `extract_features`.

    Returns:
        (len(examples), C, H, W) float16, memory-mapped.

    Raises:
        ImageError: an image is unreadable, and there is no `unreadable`.
    """
    side = transform.side_px
    what = {
        "backbone": backbone.name,
        "weights": hashlib.sha256(weights_file(backbone.name).read_bytes()).hexdigest(),
        "cut": len(backbone.trunk),
        "transform": asdict(transform),
        "view": asdict(view),
    }
    trained = checksum(backbone.trunk)
    if trained != _published_checksum(backbone.name, len(backbone.trunk) - STEM_MODULES):
        what["weights"] = trained
    shape = tuple(backbone.trunk(torch.zeros(1, 3, side, side)).shape[1:])
    store = FeatureStore(folder, what, examples, shape)
    trunk = backbone.trunk.to(memory_format=torch.channels_last).to(DEVICE)
    try:
        return store.fill(_decode(transform, view), forward_features(trunk), progress, unreadable)
    finally:
        trunk.cpu()


@cache
def _published_checksum(name: str, cut: int) -> str:
    """The checksum of a trunk with the published weights."""
    return checksum(Backbone(name, cut).trunk)


def extract_labels(
    backbone: Backbone,
    transform: Transform,
    examples: Sequence[Example],
    folder: Path,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
) -> NDArray[np.float16]:
    """ImageNet logits of the untouched backbone, the target of distillation.

    Returns:
        (len(examples), 1000) float16, memory-mapped.
    """
    what = {
        "teacher": backbone.name,
        "weights": hashlib.sha256(weights_file(backbone.name).read_bytes()).hexdigest(),
        "transform": asdict(transform),
    }
    store = FeatureStore(folder, what, examples, (backbone.classifier.out_features,))
    net = backbone.to(memory_format=torch.channels_last).to(DEVICE)

    def logits(batch: list[Pixels]) -> Pixels:
        pixels = torch.from_numpy(np.stack(batch)).to(DEVICE, memory_format=torch.channels_last)
        with torch.inference_mode():
            found: Pixels = net(pixels)[1].float().cpu().numpy()
        return found

    try:
        return store.fill(_decode(transform, View(0)), logits, progress, unreadable)
    finally:
        net.cpu()


def load_pixels(
    transform: Transform,
    examples: Sequence[Example],
    folder: Path,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
) -> NDArray[np.uint8]:
    """The images as squares of the side that the backbone takes, for training from pixels.

    Returns:
        (len(examples), S, S, 3) uint8, memory-mapped; 0 for an unreadable image.
    """
    side = transform.side_px
    what = {"pixels": "uint8", "transform": asdict(transform)}
    store = FeatureStore(folder, what, examples, (side, side, 3), np.uint8)

    def decode(example: Example) -> NDArray[np.uint8]:
        image = transform.squash(load_image(example.image, around_px=transform.via_px))
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))

    return store.fill(decode, np.stack, progress, unreadable)


def _decode(transform: Transform, view: View) -> Callable[[Example], Pixels]:
    def decode(example: Example) -> Pixels:
        image = load_image(example.image, around_px=transform.via_px)
        return transform.normalise(view(transform.squash(image), example.name))

    return decode


def forward_features(net: torch.nn.Module) -> Callable[[list[Pixels]], Pixels]:
    """A function from decoded images to the features of a network for them."""

    def forward(batch: list[Pixels]) -> Pixels:
        pixels = torch.from_numpy(np.stack(batch)).to(DEVICE, memory_format=torch.channels_last)
        with torch.inference_mode():
            rows: Pixels = net(pixels).float().cpu().numpy()
        return rows

    return forward


class FeatureStore:
    """A file with a row of features for each example, written batch by batch.

    Args:
        folder: the cache.
        what: the encoder and its options; with the images' names and sizes they are the key.
        examples: whose images.
        shape: of a row.
        dtype: of the rows; rows of unreadable images are NaN, or 0 if they are integers.
    """

    def __init__(
        self,
        folder: Path,
        what: dict[str, Any],
        examples: Sequence[Example],
        shape: tuple[int, ...],
        dtype: type[np.float16] | type[np.uint8] = np.float16,
    ) -> None:
        images = [[example.name, _size_bytes(example.image)] for example in examples]
        about = json.dumps([what, images], sort_keys=True)
        key = hashlib.sha256(about.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        self.examples, self.shape, self.dtype = examples, (len(examples), *shape), dtype
        self.final, self.partial = folder / f"{key}.npy", folder / f"{key}.partial.npy"
        self.notes, self.lock = folder / f"{key}.json", folder / f"{key}.lock"
        self.record: dict[str, Any] = {**what, "shape": self.shape, "done": 0, "unreadable": {}}

    def fill(
        self,
        decode: Callable[[Example], Decoded],
        forward: Callable[[list[Decoded]], NDArray[Any]],
        progress: Progress | None = None,
        unreadable: Unreadable | None = None,
    ) -> NDArray[Any]:
        """Write the missing rows, batch by batch, and return all.

        Args:
            decode: decodes an image, in a thread; may raise ImageError.
            forward: turns a list of those into rows.
            progress: called with the number of images done since the last call.
            unreadable: called for each image that raised, whose row is NaN then.

        Returns:
            (len(examples), *shape), memory-mapped.

        Raises:
            ImageError: an image is unreadable, and there is no `unreadable`.
            DataError: there are no examples.
        """
        if not self.examples:
            raise DataError("got no images; expected at least one")
        progress = progress or (lambda _: None)
        with FileLock(self.lock):
            if self.notes.exists() and (self.final.exists() or self.partial.exists()):
                self._read_notes()
            for position, problem in self.record["unreadable"].items():
                self._report(int(position), ImageError(*problem), unreadable)
            progress(self.record["done"])
            if not self.final.exists():
                self._resume(decode, forward, progress, unreadable)
        return np.load(self.final, mmap_mode="r")

    def _resume(
        self,
        decode: Callable[[Example], Decoded],
        forward: Callable[[list[Decoded]], NDArray[Any]],
        progress: Progress,
        unreadable: Unreadable | None,
    ) -> None:
        done = int(self.record["done"])
        mode: Literal["r+", "w+"] = "r+" if done else "w+"
        store = np.lib.format.open_memmap(self.partial, mode, self.dtype, self.shape)
        for batch in _decoded_batches(decode, self.examples[done:]):
            good = {i: each for i, each in enumerate(batch) if not isinstance(each, ImageError)}
            empty = np.nan if self.dtype is np.float16 else 0
            rows = np.full((len(batch), *self.shape[1:]), empty, self.dtype)
            if good:
                rows[[*good]] = forward([*good.values()]).clip(-_LARGEST, _LARGEST)
            for i, each in enumerate(batch):
                if isinstance(each, ImageError):
                    self._report(done + i, each, unreadable)
                    self.record["unreadable"][done + i] = [each.source, each.reason]
            store[done : done + len(batch)] = rows
            store.flush()
            done += len(batch)
            self._note(done)
            progress(len(batch))
        del store
        self._note(done)
        self.partial.replace(self.final)

    def _read_notes(self) -> None:
        """Read how much was written before; nothing if the record is damaged."""
        try:
            record = json.loads(self.notes.read_bytes())
            if isinstance(record["done"], int) and isinstance(record["unreadable"], dict):
                self.record = record
        except (OSError, ValueError, LookupError, TypeError):
            self.final.unlink(missing_ok=True)

    def _note(self, done: int) -> None:
        """Record how many rows are written, in one step."""
        self.record["done"] = done
        write_whole(self.notes, json.dumps(self.record, indent=1) + "\n", synced=False)

    @staticmethod
    def _report(position: int, error: ImageError, unreadable: Unreadable | None) -> None:
        if unreadable is None:
            raise error
        unreadable(position, error)


def _decoded_batches(
    decode: Callable[[Example], Decoded], examples: Sequence[Example]
) -> Iterator[list[Decoded | ImageError]]:
    """Batches in order; the next ones are decoded while the caller processes one."""

    def attempt(example: Example) -> Decoded | ImageError:
        try:
            return decode(example)
        except ImageError as error:
            return error

    with closing(map_in_order(attempt, examples, ahead=BATCH + 1)) as results:
        while batch := list(islice(results, BATCH)):
            yield batch


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
