"""`cutline compare`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutline.cli.app import ENGINE, THREADS, app, examples, writing
from cutline.cli.server_options import Yes, confirm_upload
from cutline.errors import DataError
from cutline.terminal import printable

if TYPE_CHECKING:
    from cutline.bundle import Manifest
    from cutline.caption import Captioner
    from cutline.data import Example
    from cutline.evaluation.compare import Entry, History
    from cutline.evaluation.evaluate import Report
    from cutline.evaluation.partial import PartialCaptions


@app.command(
    epilog=examples(
        "cutline compare everyday-lite2-v2 models/mine-v1 --data flickr8k/ -o compare.html",
        "cutline compare models/a-v1=runs/a models/b-v1=runs/b --data flickr8k/ -o compare.html",
        "cutline compare a.json b.json --data flickr8k/ -o compare.html --json compare.json",
        "cutline compare everyday-lite2-v2 template --data flickr8k/ -o compare.html",
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
    data: Annotated[
        Path, typer.Option(metavar="DATA", help="A caption set, as for `cutline data check`.")
    ],
    output: Annotated[
        Path, writing("--output", "-o", metavar="FILE.html", help="Write the page here.")
    ],
    split: Annotated[str, typer.Option(help="The split to use.")] = "dev",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only the first N images.", show_default=False)
    ] = None,
    json: Annotated[
        Path | None, writing("--json", metavar="FILE", help="Write the figures as JSON.")
    ] = None,
    markdown: Annotated[
        Path | None, writing("--markdown", metavar="FILE", help="Write the table as Markdown.")
    ] = None,
    force: Annotated[bool, writing("--force", help="Replace existing files.")] = False,
    meteor: Annotated[
        bool | None, typer.Option(help="Compute METEOR, which needs Java. Default: if installed.")
    ] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
    yes: Yes = False,
) -> None:
    """Evaluate several captioners on the same images and write an HTML page."""
    from cutline.atomic import refuse_existing, write_whole
    from cutline.cli.partial import keep_captions
    from cutline.data import read
    from cutline.evaluation.compare import check_names
    from cutline.evaluation.compare import compare as put_side_by_side

    for path in filter(None, (output, json, markdown)):
        if not force:
            refuse_existing(path)
    collection = read(data)
    examples, train = collection.split(split), collection.splits.get("train", ())
    contenders = [_contender(model, engine, threads, yes) for model in models]
    check_names([each.name for each in contenders])

    with keep_captions(output) as partial:
        compared = put_side_by_side(_entries(contenders, examples, train, limit, meteor, partial))
        files = {example.name: example.image for example in examples[:limit]}
        write_whole(output, compared.to_html(files.get))
        if json is not None:
            write_whole(json, compared.to_json() + "\n")
        if markdown is not None:
            write_whole(markdown, compared.to_markdown())
    print(printable(compared.to_markdown(), keep="\n"), end="")
    print(output)


@dataclass(frozen=True)
class _Contender:
    """One of those compared, known to be there before the first is judged.

    Attributes:
        source: what it was judged by before, or what makes it from the training examples.
    """

    name: str
    history: History
    source: Report | Callable[[Sequence[Example]], Captioner]
    manifest: Manifest | None = None


def _entries(
    contenders: Sequence[_Contender],
    examples: Sequence[Example],
    train: Sequence[Example],
    limit: int | None,
    meteor: bool | None,
    partial: PartialCaptions,
) -> list[Entry]:
    """Evaluate each contender that has no report; the first one with the baselines."""
    from cutline.cli.progress import ProgressBar
    from cutline.evaluation.baselines import NAMES
    from cutline.evaluation.compare import entry
    from cutline.evaluation.evaluate import Report, evaluate

    entries: list[Entry] = []
    for each in contenders:
        report = each.source
        if not isinstance(report, Report):
            with ProgressBar() as bar:
                report = evaluate(
                    report(train),
                    examples,
                    limit=limit,
                    meteor=meteor,
                    baselines=not entries,
                    train=train or None,
                    partial=None if each.name in NAMES else partial,
                    on_progress=bar,
                )
        entries.append(entry(report, each.manifest, each.history))
    return entries


def model_and_run(spec: str) -> tuple[str, str]:
    """Split MODEL=RUN; a model's URL, name or folder may hold `=` too.

    The run is what follows the last `=` that an existing folder follows; a spec without such a
    folder is split at its last `=`, unless all of it is a path or a URL.
    """
    from cutline.backends import is_bundle

    places = [match.start() for match in re.finditer("=", spec)]
    for place in reversed(places):
        if Path(spec[place + 1 :]).is_dir() and spec[place + 1 :]:
            return spec[:place], spec[place + 1 :]
    if not places or Path(spec).exists() or not is_bundle(spec):
        return spec, ""
    return spec[: places[-1]], spec[places[-1] + 1 :]


def _contender(spec: str, engine: str, threads: int | None, yes: bool) -> _Contender:
    from cutline.backends import load
    from cutline.captioner import BundleCaptioner
    from cutline.cli.progress import ProgressBar
    from cutline.evaluation.baselines import NAMES, baseline, embed
    from cutline.evaluation.compare import History, history
    from cutline.evaluation.evaluate import Report

    model, run = model_and_run(spec)
    curves = history(Path(run)) if run else History()
    if model.endswith(".json"):
        try:
            report = Report.from_json(Path(model).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"got no report {model}: {error.strerror}") from error
        return _Contender(report.captioner.name, curves, report)
    if model in NAMES:

        def rival(train: Sequence[Example]) -> Captioner:
            encoder = load(engine=engine, threads=threads)
            images, captions = [each.image for each in train], [each.captions for each in train]
            with ProgressBar() as bar:
                return baseline(model, encoder, captions, lambda: embed(encoder, images, bar))

        return _Contender(model, curves, rival)
    loaded = load(model, engine=engine, threads=threads)
    confirm_upload(loaded, None, yes=yes)
    known = loaded.runtime.bundle.manifest if isinstance(loaded, BundleCaptioner) else None
    return _Contender(loaded.name, curves, lambda _: loaded, known)
