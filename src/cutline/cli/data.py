"""`cutline data` and `cutline features`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutline.cli.app import app, examples, needing, writing
from cutline.cli.interrupts import interruptible
from cutline.terminal import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from cutline.data import Collection

data = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Download, build, show and check caption sets.",
)
app.add_typer(data, name="data")

DATA = typer.Argument(
    metavar="DATA",
    help="A folder or file: COCO, Karpathy's JSON, Flickr8k, Flickr30k, CSV, TSV, JSONL, or images "
    "with a .txt each.",
    show_default=False,
)
DATASETS = typer.Argument(metavar="DATA...", help=DATA.help, show_default=False)
IMAGES = typer.Option(metavar="DIR", help="The folder of the images, if not near the captions.")
SPLIT_FILE = typer.Option(
    metavar="FILE", help="File that assigns images to splits: JSON or a table."
)
IMAGE_COLUMN = typer.Option(metavar="NAME", help="The image column: its name or number.")
CAPTION_COLUMN = typer.Option(metavar="NAME", help="The caption column: its name or number.")
SPLIT_COLUMN = typer.Option(metavar="NAME", help="The split column: its name or number.")


@data.callback()
def root() -> None:
    """Download, build, show and check caption sets."""


@data.command(
    epilog=examples("cutline data prepare flickr8k", "cutline data prepare coco2014 -o /data/coco")
)
def prepare(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="flickr8k, flickr30k, coco2014 or coco2017.")
    ],
    output: Annotated[
        Path | None,
        writing("--output", "-o", metavar="DIR", help="Default: a folder named after the set."),
    ] = None,
) -> None:
    """Download and verify a public caption set. An interrupted download resumes.

    If the set cannot be downloaded, the error message lists the files to download by hand.

    Exit codes: 0 complete; 1 something is missing; 2 no such set; 130 interrupted.
    """
    with needing("train", "preparing data"):
        from cutline.data.download import prepare as download

        folder = output or Path(name)
        with _stoppable(), _downloads() as progress:
            collection = download(name, folder, progress=progress)
    print(f"{folder}: {_described(collection)}")


@data.command(
    epilog=examples(
        "cutline data build photos.csv --output mine/",
        "cutline data build captions.csv --images photos/ --output mine/",
        "cutline data build urls.txt --output mine/",
        "cutline data build reviews.csv --output products/ --min-stars 4",
    )
)
def build(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Anything `cutline data check` reads; a table with an image column and a rating "
            "with a title or review column; or a list of paths or URLs, each with TAB caption.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        writing("--output", "-o", metavar="DIR", help="The folder of the set, new or to resume."),
    ],
    images: Annotated[Path | None, IMAGES] = None,
    image_column: Annotated[str | None, IMAGE_COLUMN] = None,
    caption_column: Annotated[str | None, CAPTION_COLUMN] = None,
    split_column: Annotated[str | None, SPLIT_COLUMN] = None,
    split_file: Annotated[Path | None, SPLIT_FILE] = None,
    side: Annotated[
        int, typer.Option(min=32, metavar="PX", help="Longest side of an image.")
    ] = 640,
    captions: Annotated[int, typer.Option(min=1, help="Maximum number of captions per image.")] = 5,
    min_stars: Annotated[float, typer.Option(help="Omit reviews with fewer stars.")] = 3.0,
    near: Annotated[
        int,
        typer.Option(
            min=-1,
            max=64,
            help="Duplicates differ by at most this many of 128 bits; -1: identical.",
        ),
    ] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the split, if the source has none.")] = 0,
    licence: Annotated[str, typer.Option(help="Licence of the images and captions.")] = "unknown",
    force: Annotated[
        bool, typer.Option("--force", help="Replace a set built from another source.")
    ] = False,
) -> None:
    """Build a caption set in COCO's form: fetch, verify, resize, deduplicate, split.

    The folder contains images/, captions.json, report.json, and dropped.csv, which lists the
    omitted images and the reasons. Splits of the source are kept. Run the same command again to
    resume an interrupted build and to retry failed images. Your edits to captions.json are kept.

    Exit codes: 0 all images included; 1 some failed, or none is left; 130 interrupted.
    """
    with needing("train", "building data"):
        from cutline.data.build import BuildOptions, plan
        from cutline.data.build import build as make
        from cutline.data.tabular import ColumnNames

    options = BuildOptions(
        side_px=side,
        captions=captions,
        min_stars=min_stars,
        max_distance=near,
        seed=seed,
        licence=licence,
    )
    columns = ColumnNames(image_column, caption_column, split_column)
    planned = plan(source, options, images=images, columns=columns, split_file=split_file)
    with _stoppable(), _bar("images", len(planned.images)) as advance:
        report = make(planned, output, options, force=force, progress=advance)
    print(printable("\n".join(report.lines(output)), keep="\n"))
    raise typer.Exit(1 if report.failed else 0)


@data.command(epilog=examples("cutline data show mine/ --output look/"))
def show(
    path: Annotated[Path, DATA],
    output: Annotated[Path, writing("--output", "-o", metavar="DIR", help="The output folder.")],
    count: Annotated[int, typer.Option(min=1, help="Images on the contact sheet.")] = 24,
    seed: Annotated[int, typer.Option(help="Another seed selects other images.")] = 0,
    images: Annotated[Path | None, IMAGES] = None,
    image_column: Annotated[str | None, IMAGE_COLUMN] = None,
    caption_column: Annotated[str | None, CAPTION_COLUMN] = None,
) -> None:
    """Write a contact sheet of images with their captions, and plots of lengths and words."""
    from cutline.data import read

    with needing("train", "showing data"):
        from cutline.data.contact_sheet import show as draw

    collection = read(
        path,
        images=images,
        image_column=image_column,
        caption_column=caption_column,
        faults="keep",
    )
    print(_described(collection))
    for file in draw(collection, output, count=count, seed=seed):
        print(printable(str(file)))


@data.command(
    epilog=examples(
        "cutline data check mine/",
        "cutline data check captions.csv --images photos/",
        "cutline data check flickr8k/ mine/",
    )
)
def check(
    paths: Annotated[list[Path], DATASETS],
    images: Annotated[Path | None, IMAGES] = None,
    image_column: Annotated[str | None, IMAGE_COLUMN] = None,
    caption_column: Annotated[str | None, CAPTION_COLUMN] = None,
    split_column: Annotated[str | None, SPLIT_COLUMN] = None,
    split_file: Annotated[Path | None, SPLIT_FILE] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find missing and corrupt images, missing captions, duplicates, and leaks between splits.

    A leak is an image, or a near-duplicate of it, in two splits; train and rest count as one split.
    If you name several sets, leaks between them are found too.

    Exit codes: 0 no problems; 1 at least one problem.
    """
    from cutline.data import inspect, merge, read

    collection = merge(
        [
            read(
                path,
                images=images,
                image_column=image_column,
                caption_column=caption_column,
                split_column=split_column,
                split_file=split_file,
                faults="keep",
            )
            for path in paths
        ]
    )
    total = sum(map(len, collection.splits.values()))
    with _stoppable(), _bar("images", total) as advance:
        found = inspect(collection, progress=advance)
    text = "\n".join([_described(collection), *found.lines()])
    print(found.to_json() if json else printable(text, keep="\n"))
    raise typer.Exit(0 if found.sound else 1)


@app.command(
    epilog=examples(
        "cutline features flickr8k/ --output features/",
        "cutline features mine/ --backbone densenet201 --pooled --weights densenet201.safetensors",
        "cutline features coco/ --backbone inception_v3 --split train --output features/",
        "cutline features coco/ --backbone faster-rcnn --output features/",
    )
)
def features(
    path: Annotated[Path, DATA],
    output: Annotated[
        Path, writing("--output", "-o", metavar="DIR", help="The folder of the feature cache.")
    ] = Path("features"),
    backbone: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="efficientnet_lite0 to 2, any name of timm's (vgg16, inception_v3, resnet101, "
            "densenet201, vit_base_patch16_224, vit_small_patch14_dinov2 ...), or a detector: "
            "faster-rcnn, or a Faster R-CNN of torchvision's.",
        ),
    ] = "efficientnet_lite2",
    pooled: Annotated[
        bool, typer.Option("--pooled", help="One vector per image instead of one per region.")
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The backbone's weights. Default: from PyPI or the hub."),
    ] = None,
    side: Annotated[
        int | None,
        typer.Option(min=32, metavar="PX", help="Input size. Default: as in pretraining."),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Use only this split. Repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N images.")] = None,
    images: Annotated[Path | None, IMAGES] = None,
    regions: Annotated[
        Path | None,
        typer.Option(metavar="TSV|DIR", help="Import bottom-up-attention features instead."),
    ] = None,
    view: Annotated[int, typer.Option(min=0, help="Deprecated.", hidden=True)] = 0,
) -> None:
    """Compute the image features of a frozen backbone, for use in training.

    The name of the cache file depends on the backbone, weights, preprocessing and images. An
    interrupted run resumes. Unreadable images are listed, and their rows are NaN.

    Exit codes: 0 all images; 1 some unreadable, or no weights; 130 interrupted.
    """
    from cutline.data import read

    with needing("train", "features"):
        from cutline.training.encoders import EncoderOptions
        from cutline.training.extraction import extract

    if view:
        print("cutline: --view is deprecated; training computes its views itself", file=sys.stderr)
    collection = read(path, images=images, faults="drop")
    chosen = collection.split(*(split or collection.splits))[:limit]
    options = EncoderOptions(
        backbone=backbone,
        features="pooled" if pooled else "grid",
        weights=str(weights or ""),
        side_px=side or 0,
    )
    with _stoppable(), _bar("images", len(chosen)) as advance:
        done = extract(options, chosen, output, regions=regions, view=view, progress=advance)
    for error in done.unreadable.values():
        print(f"cutline: {printable(str(error))}", file=sys.stderr)
    shape = " x ".join(map(str, done.features.shape))
    speed = f"{done.images_per_s:.1f} images/s" if done.images_per_s else "there already"
    print(f"{getattr(done.features, 'filename', output)}: {shape} float16, {speed}")
    raise typer.Exit(1 if done.unreadable else 0)


def _stoppable() -> AbstractContextManager[None]:
    """Turn Ctrl-C and SIGTERM into a line that says how to continue."""
    return interruptible(f"To continue: {shlex.join(['cutline', *sys.argv[1:]])}")


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, for callbacks that get the number of new items."""
    from cutline.cli.progress import ProgressBar
    from cutline.progress import Progress

    done = 0
    with ProgressBar() as bar:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bar(Progress(what, done, total))

        yield advance


@contextmanager
def _downloads() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars of downloads, if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    name, console = TextColumn("{task.description}"), Console(stderr=True)
    columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name)
            progress.update(tasks[name], completed=done, total=total or None)

        yield tell


def _described(collection: Collection) -> str:
    counts = ", ".join(f"{len(some):,} {name}" for name, some in collection.splits.items() if some)
    captions = sum(len(each.captions) for some in collection.splits.values() for each in some)
    return f"{collection.name}: {counts}; {captions:,} captions"
