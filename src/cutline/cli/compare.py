"""`cutline compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutline.cli.app import ENGINE, THREADS, app, examples, writing
from cutline.errors import DataError

if TYPE_CHECKING:
    from cutline.compare import Entry
    from cutline.data import Collection


@app.command(
    epilog=examples(
        "cutline compare flickr8k-lite2-v1 models/mine-v1 --data flickr8k/ -o compare.html",
        "cutline compare models/a-v1=runs/a models/b-v1=runs/b --data flickr8k/ -o compare.html",
        "cutline compare a.json b.json --data flickr8k/ -o compare.html --json compare.json",
        "cutline compare flickr8k-lite2-v1 template --data flickr8k/ -o compare.html",
    )
)
def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL[=RUN]...",
            help="Models, baselines (nearest-neighbour, template, most-common), or reports that "
            "`evaluate` wrote; after = the training run to show the learning curve of.",
            show_default=False,
        ),
    ],
    data: Annotated[Path, typer.Option(metavar="DATA", help="Captioned images.")],
    output: Annotated[
        Path, writing("--output", "-o", metavar="FILE.html", help="Write the page here.")
    ],
    split: Annotated[str, typer.Option(help="Which images.")] = "dev",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many.", show_default=False)
    ] = None,
    json: Annotated[
        Path | None, writing("--json", metavar="FILE", help="Write the figures as JSON.")
    ] = None,
    markdown: Annotated[
        Path | None, writing("--markdown", metavar="FILE", help="Write the table as Markdown.")
    ] = None,
    force: Annotated[bool, writing("--force", help="Replace files that exist.")] = False,
    meteor: Annotated[
        bool | None, typer.Option(help="Score METEOR in Java; by default if it is installed.")
    ] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
) -> None:
    """Judge captioners on the same images, side by side, on one page with pictures."""
    from cutline.compare import compare as put_side_by_side
    from cutline.data import read
    from cutline.output import refuse_existing, write_whole

    for path in filter(None, (output, json, markdown)):
        if not force:
            refuse_existing(path)
    collection = read(data)
    files = {example.name: example.image for example in collection.split(split)[:limit]}

    entries: list[Entry] = []
    for spec in models:
        model, _, run = spec.partition("=")
        told = Path(run) if run else None
        entries.append(
            _judge(model, told, collection, split, limit, meteor, engine, threads, bool(entries))
        )

    compared = put_side_by_side(entries)
    write_whole(output, compared.to_html(files.get))
    if json is not None:
        write_whole(json, compared.to_json() + "\n")
    if markdown is not None:
        write_whole(markdown, compared.to_markdown())
    print(compared.to_markdown(), end="")
    print(output)


def _judge(
    model: str,
    run: Path | None,
    collection: Collection,
    split: str,
    limit: int | None,
    meteor: bool | None,
    engine: str,
    threads: int | None,
    later: bool,
) -> Entry:
    from cutline.backends import load
    from cutline.baselines import NAMES, baseline
    from cutline.captioner import BundleCaptioner
    from cutline.compare import entry
    from cutline.evaluate import Report, evaluate
    from cutline.terminal import Watched

    if model.endswith(".json"):
        try:
            return entry(Report.from_json(Path(model).read_text(encoding="utf-8")), None, run)
        except OSError as error:
            raise DataError(f"got no report {model}: {error.strerror}") from error
    train = collection.splits.get("train", ())
    eyes = load(None if model in NAMES else model, engine=engine, threads=threads)
    captioner = eyes
    if model in NAMES:
        captioner = baseline(
            model,
            eyes,
            [example.captions for example in train],
            lambda: Watched(eyes).embed([example.image for example in train]),
        )
    watched = Watched(captioner)
    report = evaluate(
        watched,
        collection.split(split),
        limit=limit,
        meteor=meteor,
        baselines=not later,
        train=train or None,
    )
    manifest = None
    if isinstance(captioner, BundleCaptioner):
        manifest = captioner.runtime.bundle.manifest
    return entry(report, manifest, run)
