"""Captioning a Ray data set, and a `Captioner` whose work is done by a Ray cluster."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutline import errors
from cutline.caption import (
    Alternative,
    BaseCaptioner,
    Caption,
    CaptionOptions,
    InContext,
    Label,
    Picture,
)
from cutline.distributed.model import ModelSource
from cutline.distributed.ray_import import import_ray
from cutline.distributed.worker import REFERENCE, CaptionWorker
from cutline.errors import CutlineError, EngineError, ImageError, OptionError
from cutline.image_kind import ImageKind
from cutline.options import is_address
from cutline.sources import ImageReference, row_groups

if TYPE_CHECKING:
    import pyarrow
    import ray.data

    from cutline.backends.chat_client import ConnectionOptions
    from cutline.backends.retry import Usage
    from cutline.prompts import Prompt

BLOCK_ROWS = 256
"""A worker takes so many images at a time; a killed worker loses at most two such blocks."""

_WAVE_ROWS = 50_000
_WAVE_ROWS_PER_WORKER = 10_000
_LEAST_BLOCK_ROWS = 4
_BLOCKS_PER_WORKER = 4


@dataclass(frozen=True)
class RayOptions:
    """How work is spread over a cluster.

    Raises:
        OptionError: an option is out of its range.
    """

    cpus_per_worker: int = 1
    """Processor cores, and threads, of each worker."""

    gpus_per_worker: float = 0.0
    """GPUs of each worker, for models from Hugging Face; a fraction shares one."""

    max_workers: int | None = None
    """Workers at most; None is as many as the cluster has room for now."""

    ordered: bool = False
    """Whether results come in the order of the images, which may keep workers waiting."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if self.cpus_per_worker < 1:
            raise OptionError(f"got cpus_per_worker {self.cpus_per_worker}; expected at least 1")
        if self.gpus_per_worker < 0:
            raise OptionError(f"got gpus_per_worker {self.gpus_per_worker}; expected at least 0")
        if self.max_workers is not None and self.max_workers < 1:
            raise OptionError(f"got max_workers {self.max_workers}; expected at least 1")


@dataclass(frozen=True)
class WorkerCaption(Caption):
    """A caption from a worker.

    Attributes:
        computation: "engine", "precision" and "threads" of the worker.
    """

    computation: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The object that `--format jsonl` writes, with how it was computed."""
        return {**super().to_dict(), **self.computation}


def connect(address: str | None = None) -> None:
    """Connect to a Ray cluster, unless this process is connected already.

    Args:
        address: of an existing cluster, "auto" for one on this machine, or "ray://HOST:PORT"; None
            is RAY_ADDRESS, or else a new one on this machine.

    Raises:
        MissingExtraError: Ray is not installed.
        OptionError: there is no such cluster.
    """
    ray = import_ray()
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if found := re.fullmatch(r"(?:ray://)?([\w.-]+):(\d+)", address or ""):
        try:  # Ray ends the whole process if nothing listens there
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise OptionError(
                f"got Ray address {address}; expected a running cluster: {error}"
            ) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"got Ray address {address or 'RAY_ADDRESS'}; expected a running cluster: {error}"
        ) from error


def caption_dataset(
    dataset: ray.data.Dataset,
    model: ModelSource | str | Path | None = None,
    options: CaptionOptions | None = None,
    *,
    column: str = "image",
    name_column: str | None = None,
    ray_options: RayOptions | None = None,
) -> ray.data.Dataset:
    """Caption the images of a Ray data set.

    Args:
        dataset: its rows have a column of paths that every node can read, URLs, fsspec addresses,
            or bytes, also as the field "bytes" of a struct.
        model: as for `cutline.load`, or a `ModelSource`, which takes more options.
        options: how images are captioned; None is the default.
        column: the column of images.
        name_column: the column whose value is the `source` of a caption; None is `column`.
        ray_options: how work is spread; None is the default.

    Returns:
        A data set, executed when it is consumed, with a row for each row: the columns of
        `shards.caption_schema`, and the other columns of the input. An image that cannot be
        captioned is a row with the status "error".

    Raises:
        MissingExtraError: Ray, or what the model needs, is not installed.
        BundleError, OptionError: as for `cutline.load`.
    """
    ray_options = ray_options or RayOptions()
    if not isinstance(model, ModelSource):
        model = ModelSource.of(model, threads=ray_options.cpus_per_worker)
    result: ray.data.Dataset = _map(
        dataset, model, options, ray_options, column, name_column, least_workers=1
    )
    return result


class RayCaptioner(BaseCaptioner):
    """A captioner whose work is done by the workers of a Ray cluster.

    Images must be paths that every node can read, or `ImageReference`s. Captions have no attention
    and no embedding. If a worker or a node dies, its images are captioned by others.

    Args:
        source: the model.
        ray_options: how work is spread; None is the default.

    Attributes:
        is_local, host: of a model behind a server; other models lack them.
    """

    reads_references = True
    """Workers read images, not the driver."""

    def __init__(self, source: ModelSource, ray_options: RayOptions | None = None) -> None:
        self._source = source
        self._ray_options = ray_options or RayOptions()
        described = source.describe()
        self.name, self.search = described.name, described.search
        self.samples_alternatives = described.samples_alternatives
        self.sampling_temperature = described.sampling_temperature
        self._tokens_per_image = described.tokens_per_image
        if described.host is not None:
            self.is_local, self.host = described.is_local, described.host

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        address: str | None = None,
        ray_options: RayOptions | None = None,
        engine: str = "auto",
        connection: ConnectionOptions | None = None,
        prompt: Prompt | None = None,
        key: str | None = None,
    ) -> RayCaptioner:
        """Connect to a cluster and choose a model.

        Args:
            model, engine, connection, prompt, key: as for `cutline.load`.
            address: as for `connect`.
            ray_options: how work is spread; None is the default.

        Raises:
            MissingExtraError: Ray, or what the model needs, is not installed.
            OptionError: there is no such cluster or engine.
            BundleError: as for `cutline.load`.
        """
        connect(address)
        ray_options = ray_options or RayOptions()
        source = ModelSource.of(
            model,
            engine=engine,
            threads=ray_options.cpus_per_worker,
            connection=connection,
            prompt=prompt,
            key=key,
        )
        return cls(source, ray_options)

    @property
    def usage(self) -> Usage | None:
        """Requests and tokens of all workers so far; None for a model without a server."""
        if self._source.limiter is None:
            return None
        usage: Usage = import_ray().get(self._source.limiter.usage.remote())[0]
        return usage

    def estimated_tokens(self, images: int) -> int:
        """About how many tokens so many captions take."""
        return images * self._tokens_per_image

    def stream(
        self, images: Iterable[Picture | ImageReference], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of images: see `Captioner.stream`.

        Captions come in the order of the images only with `RayOptions.ordered`.

        Raises:
            OptionError: an image is neither a path nor a reference, or the cluster has no room.
            EngineError: inference failed.
        """
        ray = import_ray()
        workers = room_for(self._ray_options)
        rows_at_once = max(_WAVE_ROWS, _WAVE_ROWS_PER_WORKER * workers)
        waiting = iter(images)
        while wave := [_reference(each) for each in islice(waiting, rows_at_once)]:
            share = math.ceil(len(wave) / (workers * _BLOCKS_PER_WORKER))
            size = min(BLOCK_ROWS, max(_LEAST_BLOCK_ROWS, share))
            with _data_context(ordered=self._ray_options.ordered):
                dataset = ray.data.from_arrow(list(_blocks(wave, size)))
                del wave
                dataset = _map(
                    dataset,
                    self._source,
                    options,
                    self._ray_options,
                    None,
                    None,
                    least_workers=workers,
                )
                with _unwrapped():
                    tables = dataset.iter_batches(
                        batch_size=None, batch_format="pyarrow", prefetch_batches=1
                    )
                    for table in tables:
                        yield from map(_caption, table.to_pylist())


def gpus_for(model: str | Path | None) -> float:
    """GPUs of each worker: one for a model from Hugging Face if the cluster has any, else none."""
    hub = isinstance(model, str) and model.startswith("hub:")
    return 1.0 if hub and import_ray().cluster_resources().get("GPU", 0) >= 1 else 0.0


def room_for(options: RayOptions) -> int:
    """How many workers the cluster has room for.

    Raises:
        OptionError: none.
    """
    room = 0
    for node in import_ray().nodes():
        if node["Alive"]:
            resources = node["Resources"]
            fits = resources.get("CPU", 0) // options.cpus_per_worker
            if options.gpus_per_worker:
                fits = min(fits, resources.get("GPU", 0) / options.gpus_per_worker)
            room += int(fits)
    if not room:
        raise OptionError(
            f"got a cluster without a node that has {options.cpus_per_worker} free cores and "
            f"{options.gpus_per_worker:g} GPUs; expected at least one; lower --threads"
        )
    return min(room, options.max_workers or room)


def _map(
    dataset: ray.data.Dataset,
    source: ModelSource,
    options: CaptionOptions | None,
    ray_options: RayOptions,
    column: str | None,
    name_column: str | None,
    *,
    least_workers: int,
) -> Any:
    ray = import_ray()
    most = max(least_workers, ray_options.max_workers or room_for(ray_options))
    extra: dict[str, Any] = (
        {"num_gpus": ray_options.gpus_per_worker} if ray_options.gpus_per_worker else {}
    )
    return dataset.map_batches(
        CaptionWorker,
        fn_constructor_kwargs={
            "source": source,
            "options": options,
            "column": column,
            "name_column": name_column,
        },
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=ray_options.cpus_per_worker,
        compute=ray.data.ActorPoolStrategy(min_size=least_workers, max_size=most),
        **extra,
    )


def _reference(image: object) -> ImageReference:
    """An image as workers find it.

    Raises:
        OptionError: it is neither a path nor a reference.
    """
    bare = image.image if isinstance(image, InContext) else image
    if isinstance(bare, ImageReference):
        return bare
    if isinstance(bare, str | Path):
        name = str(bare)
        return ImageReference(name, name if is_address(name) else str(Path(name).absolute()))
    raise OptionError(
        f"got {type(bare).__name__} to caption on a cluster; expected a path or an address"
    )


def _blocks(images: list[ImageReference], size: int) -> Iterator[pyarrow.Table]:
    """Tables of references; those into one row group of a table stay together."""
    import pyarrow as pa

    block: list[ImageReference] = []
    group: tuple[str, int] | None = None
    for image in images:
        now = None if image.row is None else (image.location, _row_group(image))
        if block and (now != group or (len(block) >= size and now is None)):
            yield pa.table({REFERENCE: [asdict(each) for each in block]}, _schema())
            block = []
        group = now
        block.append(image)
        if now is not None and len(block) >= 8 * size:
            yield pa.table({REFERENCE: [asdict(each) for each in block]}, _schema())
            block = []
    if block:
        yield pa.table({REFERENCE: [asdict(each) for each in block]}, _schema())


def _row_group(image: ImageReference) -> int:
    assert image.row is not None
    return bisect_right(row_groups(image.location), image.row)


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    fields = [
        ("name", pa.string()),
        ("location", pa.string()),
        ("row", pa.int64()),
        ("column", pa.string()),
        ("size_bytes", pa.int64()),
    ]
    return pa.schema([(REFERENCE, pa.struct(fields))])


def _caption(row: dict[str, Any]) -> WorkerCaption:
    """The caption in a row that a worker sent."""
    error = _error(row["source"], row["error"]) if row["error"] else None
    score = row["score"]
    if score is None:
        score = -math.inf if error else math.nan
    return WorkerCaption(
        row["source"],
        row["caption"] or "",
        score,
        row["model"],
        tuple(Alternative(each["caption"], _number(each["score"])) for each in row["alternatives"]),
        tuple(Label(each["name"], _number(each["probability"])) for each in row["labels"]),
        error=error,
        note=row["note"] or "",
        kind=row["kind"] and ImageKind(row["kind"]["name"], row["kind"]["probability"]),
        computation={name: row[name] for name in ("engine", "precision", "threads")},
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _error(source: str, described: dict[str, str]) -> CutlineError:
    kind = getattr(errors, described["type"], CutlineError)
    if not (isinstance(kind, type) and issubclass(kind, CutlineError)):
        kind = CutlineError
    if issubclass(kind, ImageError):
        return kind(source, described["message"])
    error: CutlineError = kind.__new__(kind, described["message"])
    error.args = (described["message"],)
    return error


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Raise Cutline's own error that a worker raised, instead of Ray's around it."""
    ray = import_ray()
    try:
        yield
    except ray.exceptions.RayError as error:
        inner: BaseException | None = error
        while inner is not None:
            if isinstance(inner, CutlineError):
                raise inner from error
            cause = getattr(inner, "cause", None)
            inner = cause if isinstance(cause, BaseException) else inner.__cause__
        raise EngineError(f"the cluster failed: {error}") from error


@contextmanager
def _data_context(*, ordered: bool) -> Iterator[None]:
    """Ray Data in or out of order, without its own progress bars: the command shows progress."""
    ray = import_ray()
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.execution_options.preserve_order
    context.enable_progress_bars = False
    context.execution_options.preserve_order = ordered
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars, context.execution_options.preserve_order = before
        logger.setLevel(level)
