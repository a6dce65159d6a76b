"""The commands about models: `models`, `doctor`, `evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cutline.backends.probe import ServerReport

from cutline.cli.app import (
    ENGINE,
    MODEL,
    THREADS,
    app,
    examples,
    running,
    writing,
)
from cutline.cli.server_options import KeyFile, Yes, confirm_upload, read_key
from cutline.errors import BundleError, BundleNotFoundError
from cutline.terminal import printable

_JSON = typer.Option("--json", help="Print JSON.")


@app.command(
    epilog=examples("cutline models", "cutline models --json", "cutline models --server ollama")
)
def models(
    json: Annotated[bool, _JSON] = False,
    server: Annotated[
        str | None,
        running(
            "--server",
            metavar="SERVER",
            help="List the models of a server instead, and whether they accept images: a name "
            "such as ollama or openai, or a URL.",
        ),
    ] = None,
    key_file: KeyFile = None,
) -> None:
    """List the installed models with their scores, sizes, licences and folders.

    Exit codes: 0 all is well; 1 a model's manifest cannot be read.
    """
    if server is not None:
        _server_models(server, read_key(key_file), json)
        return
    from cutline.bundle import DEFAULT, Manifest
    from cutline.bundle import models as installed

    found = []
    damaged = []
    for name, folder in installed().items():
        try:
            manifest = Manifest.read(folder / "manifest.json")
        except BundleError as error:
            damaged.append(error)
            continue
        scores: dict[str, float] = next(iter(manifest.scores.values()), {})
        found.append(
            {
                "name": name,
                "default": name == DEFAULT,
                "parameters": sum(manifest.parameters.values()),
                "bytes": sum(path.stat().st_size for path in folder.iterdir()),
                "scores": manifest.scores,
                "cider": scores.get("cider"),
                "bleu4": scores.get("bleu4"),
                "vocabulary": manifest.vocabulary.size,
                "licence": manifest.licence,
                "summary": manifest.summary,
                "path": str(folder),
            }
        )
    for problem in damaged:
        print(f"cutline: {printable(str(problem))}", file=sys.stderr)
    if json:
        _print_json(found)
        raise typer.Exit(1 if damaged else 0)
    if not found:
        raise BundleNotFoundError("got no model; expected one in the package: reinstall it")
    header = ["name", "parameters", "size", "CIDEr", "BLEU-4", "words", "licence", "path"]
    lines = [
        [
            f"{model['name']}{' (default)' if model['default'] else ''}",
            f"{model['parameters'] / 1e6:.1f} M",
            f"{model['bytes'] / 1e6:.1f} MB",
            _figure(model["cider"]),
            _figure(model["bleu4"]),
            str(model["vocabulary"]),
            str(model["licence"]),
            str(model["path"]),
        ]
        for model in found
    ]
    _print_table([header, *lines])
    raise typer.Exit(1 if damaged else 0)


def _server_models(name: str, key: str | None, json: bool) -> None:
    from dataclasses import asdict

    from cutline.backends.model_list import list_models
    from cutline.backends.servers import PROVIDERS, parse_model

    if name.lower() in PROVIDERS:
        name = f"{name}:"
    found = list_models(parse_model(name, key=key)[0])
    if json:
        _print_json([asdict(model) for model in found])
    else:
        words = {True: "yes", False: "no", None: "unknown"}
        _print_table([["model", "images"], *([m.name, words[m.vision]] for m in found)])


@app.command(epilog=examples("cutline doctor", "cutline doctor --engine onnxruntime --json"))
def doctor(
    json: Annotated[bool, _JSON] = False,
    model: Annotated[str | None, MODEL] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
) -> None:
    """Check the installation: versions, engines, checksums and speed. Takes some seconds.

    Exit codes: 0 all is well; 1 something is broken.
    """
    from dataclasses import asdict

    from cutline.cli.doctor import examine

    health = examine(model, engine, threads)
    if json:
        _print_json(asdict(health))
    else:
        missing = [name for name, there in health.formats.items() if not there]
        lines = [["python", f"{health.python} on {health.system}, {health.threads} threads"]]
        lines += [[name, version or "not installed"] for name, version in health.packages.items()]
        lines.append(["images", f"without {', '.join(missing)}" if missing else "every format"])
        lines += [[f"model {name}", state] for name, state in health.models.items()]
        if (speed := health.speed) is not None:
            lines.append(
                [
                    "speed",
                    f"{speed.images_per_s:.1f} images a second on {speed.engine}; loaded in "
                    f"{speed.load_s:.2f} s, the first caption {speed.first_caption_s:.2f} s later",
                ]
            )
        if (server := health.server) is not None:
            lines += _server_lines(server)
        _print_table(lines)
    for problem in health.problems:
        print(f"cutline: {printable(str(problem))}", file=sys.stderr)
    raise typer.Exit(1 if health.problems else 0)


@app.command(
    epilog=examples(
        "cutline evaluate everyday-lite2-v2 flickr8k/ --output report.json",
        "cutline evaluate runs/first/bundle flickr8k/ --split test --limit 200 --no-baselines",
    )
)
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The name or folder of a model.")],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A caption set, as for `cutline data check`.")
    ],
    split: Annotated[str, typer.Option(help="The split to use.")] = "dev",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only the first N images.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        writing("--output", "-o", metavar="FILE", help="Write the report as JSON."),
    ] = None,
    markdown: Annotated[
        Path | None,
        writing("--markdown", metavar="FILE", help="Write the table as Markdown."),
    ] = None,
    force: Annotated[bool, writing("--force", help="Replace existing files.")] = False,
    baselines: Annotated[
        bool, typer.Option(help="Also score baselines and human captions.")
    ] = True,
    meteor: Annotated[
        bool | None,
        typer.Option(help="Compute METEOR and SPICE, which need Java. Default: if installed."),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the random baseline and of the confidence intervals.")
    ] = 0,
    regions: Annotated[
        bool,
        typer.Option(
            "--regions",
            help="Evaluate regions; DATA is Visual Genome, RefCOCO or Flickr30k Entities.",
        ),
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="The folder of the images, with --regions.", show_default=False),
    ] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
    yes: Yes = False,
) -> None:
    """Caption a split, score the captions, and compare them with baselines.

    Exit codes: 0 all captioned; 1 some images failed; 2 usage error.
    """
    from cutline.atomic import refuse_existing, write_whole
    from cutline.data import read

    for path in filter(None, (output, markdown)):
        if not force:
            refuse_existing(path)
    if regions:
        described = load_model(model, engine, threads)
        confirm_upload(described, None, yes=yes)
        _evaluate_regions(described, data, images, split, limit, markdown)
        return
    collection = read(data)
    examples = collection.split(split)

    from cutline.backends import load
    from cutline.cli.partial import keep_captions
    from cutline.cli.progress import ProgressBar
    from cutline.evaluation.baselines import embed
    from cutline.evaluation.evaluate import evaluate as judge

    captioner = load(model, engine=engine, threads=threads)
    confirm_upload(captioner, len(examples[:limit]), yes=yes)
    with keep_captions(output or markdown or Path("evaluation")) as partial:
        with ProgressBar() as bar:
            report = judge(
                captioner,
                examples,
                limit=limit,
                meteor=meteor,
                baselines=baselines,
                train=collection.splits.get("train"),
                embed=(lambda images: embed(captioner, images, bar)) if baselines else None,
                seed=seed,
                partial=partial,
                on_progress=bar,
            )
        table = report.to_markdown()
        if output is not None:
            write_whole(output, report.to_json() + "\n")
        if markdown is not None:
            write_whole(markdown, table)
    print(table, end="")
    raise typer.Exit(1 if report.failed else 0)


def load_model(model: str, engine: str, threads: int | None) -> Any:
    """Load a captioner when a command needs it."""
    from cutline.backends import load

    return load(model, engine=engine, threads=threads)


def _evaluate_regions(
    captioner: Any,
    data: Path,
    images: Path | None,
    split: str,
    limit: int | None,
    markdown: Path | None,
) -> None:
    """Score descriptions of regions and print the table."""
    from cutline.atomic import write_whole
    from cutline.data.region_readers import read_regions
    from cutline.evaluation.regions import evaluate_regions

    examples = read_regions(data, images)
    chosen = [each for each in examples if each.split in (split, "")] or examples
    first = dict.fromkeys(each.image for each in chosen)
    kept = set(list(first)[:limit])
    report = evaluate_regions(captioner, [each for each in chosen if each.image in kept])
    if markdown is not None:
        write_whole(markdown, report.to_markdown())
    print(report.to_markdown(), end="")
    raise typer.Exit(1 if report.failed else 0)


def _server_lines(server: ServerReport) -> list[list[str]]:
    words = {True: "yes", False: "no", None: "unknown"}
    where = "on this machine" if server.local else "on another machine"
    lines = [
        ["server", f"{server.name}, {where}"],
        [
            "listed",
            f"{words[server.listed]}; accepts images according to it: {words[server.vision]}",
        ],
    ]
    if server.problem:
        return lines
    count = f"{server.prompt_tokens:,} tokens" if server.prompt_tokens else "tokens not counted"
    lines += [
        ["answer", f'"{server.answer}" after {server.seconds:.1f} s; {count}'],
        ["sees images", words[server.sees]],
        ["JSON answers", words[server.json]],
        ["several answers", "in one request" if server.several else "by repeated requests"],
        ["scores", words[server.log_probabilities]],
        ["refuses", ", ".join(server.refused) or "no parameter"],
    ]
    return lines


def _print_json(content: Any) -> None:
    import json

    print(json.dumps(content, indent=2))


def _print_table(lines: list[list[str]]) -> None:
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(printable("  ".join(cells).rstrip()))


def _figure(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"
