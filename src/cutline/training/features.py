"""What a frozen encoder sees of every image, once, to disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from cutline.atomic import write_whole
from cutline.data import Example
from cutline.errors import ImageError
from cutline.image import load_image
from cutline.preprocess import Transform
from cutline.training.encoders import Backbone, Encoder, load_encoder, weights_file

BATCH = 32
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_LARGEST = float(np.finfo(np.float16).max)

Looked = TypeVar("Looked")
Pixels = NDArray[np.float32]
Progress = Callable[[int], None]
"""Called with the number of images done since the last call."""
Unreadable = Callable[[int, ImageError], object]
"""Called with the position and the error of an image that cannot be read."""


@dataclass(frozen=True)
class View:
    """One way of looking at every image: view 0 is plain, 1 mirrored, the others are crops."""

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


@dataclass(frozen=True)
class FeatureOptions:
    """What looks at the images."""

    backbone: str = "efficientnet_lite2"
    """`efficientnet_lite0` to `2`, or a name of `timm.list_models()`."""

    pooled: bool = False
    """One vector for each image, not one for each region."""

    weights: Path | None = None
    """A file with the backbone's weights; by default PyPI's or the hub's."""

    side_px: int | None = None
    """The side of the square it sees; by default what it was trained with."""


def frozen(
    options: FeatureOptions,
    examples: Sequence[Example],
    folder: Path,
    *,
    view: int = 0,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
    encoder: Encoder | None = None,
) -> NDArray[np.float16]:
    """The features of every example, from `folder` if they were written before.

    The file's name is keyed by the backbone, its weights, the transform, the view and the images'
    names and sizes in bytes; where one differs, all are looked at anew. A .json of the same name
    says what is in it. A killed run goes on behind its last whole batch, and a second process waits
    for the first.

    Args:
        options: what looks at the images.
        examples: whose images.
        folder: where features are kept; made if need be.
        view: 0 plain, 1 mirrored, others random crops, see `View`.
        progress: told how many images are done.
        unreadable: told of each image that cannot be read, whose row then is NaN (`readable` tells
            them apart); without it the first such image raises.
        encoder: the encoder of these options, if it is loaded already.

    Returns:
        (len(examples), N, D) float16, memory-mapped, row i of example i; N = 1 if pooled.

    Raises:
        ImageError: an image cannot be read, and nobody listens to `unreadable`.
        RecipeError, WeightsError, MissingExtraError: as `load_encoder`.
    """
    encoder = encoder or load_encoder(
        options.backbone, pooled=options.pooled, weights=options.weights, side_px=options.side_px
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
    return store.fill(_look(encoder.transform, View(view)), _see(net), progress, unreadable)


def readable(features: NDArray[np.float16]) -> NDArray[np.bool_]:
    """(I, ...) features -> (I,): which images could be read."""
    return ~np.isnan(features.reshape(len(features), -1)[:, 0])


def extract(
    backbone: Backbone,
    transform: Transform,
    examples: Sequence[Example],
    view: View,
    folder: Path,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
) -> NDArray[np.float16]:
    """The trunk's output for one view of every example, kept as `frozen` keeps features.

    Returns:
        (len(examples), C, H, W) float16, memory-mapped.

    Raises:
        ImageError: an image cannot be read, and nobody listens to `unreadable`.
    """
    side = transform.side_px
    what = {
        "backbone": backbone.name,
        "weights": hashlib.sha256(weights_file(backbone.name).read_bytes()).hexdigest(),
        "cut": len(backbone.trunk),
        "transform": asdict(transform),
        "view": asdict(view),
    }
    shape = tuple(backbone.trunk(torch.zeros(1, 3, side, side)).shape[1:])
    store = FeatureStore(folder, what, examples, shape)
    trunk = backbone.trunk.to(memory_format=torch.channels_last).to(DEVICE)
    try:
        return store.fill(_look(transform, view), _see(trunk), progress, unreadable)
    finally:
        trunk.cpu()


def _look(transform: Transform, view: View) -> Callable[[Example], Pixels]:
    def look(example: Example) -> Pixels:
        image = load_image(example.image, around_px=transform.via_px)
        return transform.normalise(view(transform.squash(image), example.name))

    return look


def _see(net: torch.nn.Module) -> Callable[[list[Pixels]], Pixels]:
    def see(batch: list[Pixels]) -> Pixels:
        pixels = torch.from_numpy(np.stack(batch)).to(DEVICE, memory_format=torch.channels_last)
        with torch.inference_mode():
            seen: Pixels = net(pixels).float().cpu().numpy()
        return seen

    return see


class FeatureStore:
    """One file with a row of features for each example; it knows how far it has come.

    Args:
        folder: where it is kept.
        what: what looks at the images and how; with their names and sizes it makes the key.
        examples: whose images.
        shape: of a row.
    """

    def __init__(
        self,
        folder: Path,
        what: dict[str, Any],
        examples: Sequence[Example],
        shape: tuple[int, ...],
    ) -> None:
        images = [[example.name, _size_bytes(example.image)] for example in examples]
        about = json.dumps([what, images], sort_keys=True)
        key = hashlib.sha256(about.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        self.examples, self.shape = examples, (len(examples), *shape)
        self.final, self.partial = folder / f"{key}.npy", folder / f"{key}.partial.npy"
        self.notes, self.lock = folder / f"{key}.json", folder / f"{key}.lock"
        self.record: dict[str, Any] = {**what, "shape": self.shape, "done": 0, "unreadable": {}}

    def fill(
        self,
        look: Callable[[Example], Looked],
        see: Callable[[list[Looked]], Pixels],
        progress: Progress | None = None,
        unreadable: Unreadable | None = None,
    ) -> NDArray[np.float16]:
        """Write the rows that are missing, batch by batch, and hand out all.

        Args:
            look: decodes an image, in a thread; may raise ImageError.
            see: turns a list of those into rows.
            progress: told how many images are done.
            unreadable: told of images that raised, whose rows then are NaN.

        Returns:
            (len(examples), *shape) float16, memory-mapped.

        Raises:
            ImageError: an image cannot be read, and nobody listens to `unreadable`.
        """
        progress = progress or (lambda _: None)
        with FileLock(self.lock):
            if self.notes.exists() and (self.final.exists() or self.partial.exists()):
                self.record = json.loads(self.notes.read_text())
            for position, problem in self.record["unreadable"].items():
                self._report(int(position), ImageError(*problem), unreadable)
            progress(self.record["done"])
            if not self.final.exists():
                self._go_on(look, see, progress, unreadable)
        return np.load(self.final, mmap_mode="r")

    def _go_on(
        self,
        look: Callable[[Example], Looked],
        see: Callable[[list[Looked]], Pixels],
        progress: Progress,
        unreadable: Unreadable | None,
    ) -> None:
        done = int(self.record["done"])
        mode: Literal["r+", "w+"] = "r+" if done else "w+"
        store = np.lib.format.open_memmap(self.partial, mode, np.float16, self.shape)
        for batch in _looked_at(look, self.examples[done:]):
            good = {i: each for i, each in enumerate(batch) if not isinstance(each, ImageError)}
            rows = np.full((len(batch), *self.shape[1:]), np.nan, np.float16)
            if good:
                rows[[*good]] = see([*good.values()]).clip(-_LARGEST, _LARGEST)
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

    def _note(self, done: int) -> None:
        """Say how far the file has come; whole at any moment."""
        self.record["done"] = done
        write_whole(self.notes, json.dumps(self.record, indent=1) + "\n", synced=False)

    @staticmethod
    def _report(position: int, error: ImageError, unreadable: Unreadable | None) -> None:
        if unreadable is None:
            raise error
        unreadable(position, error)


def _looked_at(
    look: Callable[[Example], Looked], examples: Sequence[Example]
) -> Iterator[list[Looked | ImageError]]:
    """Batches in order; while one is worked on, the next is decoded."""

    def attempt(example: Example) -> Looked | ImageError:
        try:
            return look(example)
        except ImageError as error:
            return error

    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(attempt, example) for example in examples[:BATCH]]
        for start in range(BATCH, len(examples) + BATCH, BATCH):
            coming = [pool.submit(attempt, each) for each in examples[start : start + BATCH]]
            yield [each.result() for each in waiting]
            waiting = coming


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
