"""`cutline regions`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutline.cli.app import ENGINE, MODEL, THREADS, app, examples, wording, writing
from cutline.cli.batch import Format
from cutline.cli.server_options import Yes, confirm_upload
from cutline.errors import OptionError

if TYPE_CHECKING:
    from cutline.regions.model import ImageRegions


@app.command(
    epilog=examples(
        "cutline regions street.jpg",
        "cutline regions street.jpg --box 10%,20%,30%,40% --box 120,40,64,64",
        "cutline regions street.jpg --format json --draw street.regions.html",
        "cutline regions holiday/ --recursive --output regions.jsonl --resume",
        "cutline regions street.jpg --detector torchvision:fasterrcnn_resnet50_fpn_v2",
    )
)
def regions(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Images, folders or patterns.", show_default=False),
    ],
    box: Annotated[
        list[str] | None,
        wording("--box", metavar="X,Y,W,H", help="A region, in pixels or percentages. Repeatable."),
    ] = None,
    margin: Annotated[
        float,
        wording("--margin", min=0, metavar="PERCENT", help="Margin, % of the box. Default: 10."),
    ] = 10.0,
    most: Annotated[
        int,
        wording("--max-regions", min=1, help="Maximum number of regions per image. Default: 10."),
    ] = 10,
    least: Annotated[
        float,
        wording("--min-confidence", min=0, max=1, help="Omit regions below this confidence."),
    ] = 0.0,
    caption: Annotated[
        bool,
        wording("--caption", help="Also caption the whole image and ground its nouns (JSON)."),
    ] = False,
    detector: Annotated[
        str | None,
        wording(
            "--detector",
            metavar="FILE.onnx|torchvision:NAME",
            help="Use the boxes of a detector instead of the model's proposals.",
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Search subfolders too.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    format: Annotated[
        Format | None,
        writing("--format", help="Default: from the output file's extension, else text."),
    ] = None,
    output: Annotated[
        Path | None,
        writing(
            "--output", "-o", metavar="FILE", help="Write to this file instead of standard output."
        ),
    ] = None,
    draw: Annotated[
        list[Path] | None,
        writing(
            "--draw",
            metavar="FILE.png|FILE.html|FOLDER",
            help="Also draw the regions: to a file for one image, else to PNG and HTML files "
            "in a folder. May be repeated.",
        ),
    ] = None,
    resume: Annotated[bool, writing("--resume", help="Continue a jsonl or csv output.")] = False,
    force: Annotated[bool, writing("--force", help="Replace existing files.")] = False,
    model: Annotated[str | None, MODEL] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
    yes: Yes = False,
) -> None:
    """Describe regions of images: boxes with a phrase, a label and a confidence, best first.

    Text output has one line per region: path, box, confidence, label, phrase. A box is x, y, width
    and height in pixels of the upright image.

    Exit codes: 0 all images described; 1 some failed; 2 usage error, or no image found; 130 or 143
    interrupted.
    """
    from cutline.boxes import Box
    from cutline.cli.batch import Batch
    from cutline.regions.drawings import Drawings
    from cutline.regions.model import RegionOptions

    options = RegionOptions(
        margin=margin / 100, max_regions=most, min_confidence=least, caption=caption
    )
    boxes = [Box.parse(each) for each in box] if box else None
    output = None if output == Path("-") else output
    batch = Batch(
        lambda: _images(paths, recursive), output, _rows(format, output, paths, recursive),
        resume, force, quiet, "images",
    )  # fmt: skip
    drawings = Drawings(draw or [], several=_several(paths, recursive), force=force)
    hint = "" if recursive else "; add --recursive to look into subfolders"
    if (waiting := batch.first(hint)) is None:
        raise typer.Exit

    from cutline.backends import load, load_detector

    captioner: Any = load(model, engine=engine, threads=threads)
    batch.check_model(captioner.name)
    confirm_upload(captioner, None, yes=yes)
    finder = load_detector(detector, threads=threads) if detector else None
    found = captioner.stream_regions(waiting, boxes, options, finder)
    code = batch.deliver(map(drawings.draw, found), doing="describing", readable=_readable)
    raise typer.Exit(code)


def _images(paths: Sequence[str], recursive: bool) -> Iterator[Path]:
    from cutline.discover import find_images, is_unmatched

    if all(map(is_unmatched, paths)):
        raise OptionError(f"no file matches {' or '.join(paths)}")
    return find_images(paths, recursive)


def _several(paths: Sequence[str], recursive: bool) -> bool:
    found = _images(paths, recursive)
    next(found, None)
    return next(found, None) is not None


def _rows(format: Format | None, output: Path | None, paths: Sequence[str], recursive: bool) -> Any:
    from cutline.cli.batch import CsvGroups, JsonDocument, JsonLines, TextLines, format_of
    from cutline.regions.formats import COLUMNS, csv_rows, text_lines

    name = format or format_of(output, tuple(Format))
    if name == Format.JSON:
        return JsonDocument(_several(paths, recursive))
    if name == Format.JSONL:
        return JsonLines()
    if name == Format.CSV:
        return CsvGroups(COLUMNS, csv_rows, "region", "regions")
    return TextLines(text_lines)


def _readable(found: ImageRegions) -> Any:
    from rich.text import Text

    from cutline.terminal import printable

    text = Text(printable(found.source), "cyan")
    if found.caption:
        text.append(f"  {found.caption}", "bold")
    for region in found.regions:
        box = ", ".join(f"{value:.0f}" for value in region.box.xywh)
        text.append(f"\n  {region.confidence:.2f}  {region.phrase}")
        text.append(f"  {region.label}" if region.label else "", "italic")
        text.append(f"  [{box}]", "dim")
    return text
