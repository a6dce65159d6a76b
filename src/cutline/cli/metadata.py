"""`cutline metadata`: alt text in image files."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutline.cli.app import Commands, app, examples, writing
from cutline.terminal import printable

if TYPE_CHECKING:
    from cutline.metadata import MetadataOptions

metadata = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Read and write alt text in image files (IPTC, XMP)."
)
app.add_typer(metadata, name="metadata")

LANGUAGE = writing(
    "--language", metavar="TAG", help="Language of the text, such as de; default x-default."
)
OVERWRITE = writing("--overwrite", help="Replace existing text in that language.")
DESCRIPTION = writing(
    "--description", help="Also write dc:description, Exif ImageDescription and an IIM caption."
)
SIDECAR = writing(
    "--sidecar",
    metavar="never|auto|always",
    help="Write an XMP sidecar; auto: for formats that cannot be written.",
)
KEEP_TIMES = writing("--keep-times", help="Keep the modification times of the files.")
JOURNAL = writing("--journal", metavar="FILE", help="Records the writes for `metadata undo`.")
DEFAULT_JOURNAL = Path("cutline-metadata.jsonl")


@metadata.command(
    epilog=examples("cutline metadata show dog.jpg", "cutline metadata show *.jpg --json")
)
def show(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    language: Annotated[
        str | None, writing("--language", metavar="TAG", help="Preferred language.")
    ] = None,
    as_json: Annotated[bool, writing("--json", help="Print one JSON object per image.")] = False,
) -> None:
    """Print the alt text and the descriptions that images carry."""
    from cutline.errors import ImageNotFoundError, MetadataError
    from cutline.metadata import read_text

    failed = False
    for path in images:
        try:
            found = read_text(path, language)
        except (MetadataError, ImageNotFoundError) as error:
            print(f"cutline: {printable(str(error))}", file=sys.stderr)
            failed = True
            continue
        if as_json:
            print(json.dumps({"source": str(path), **asdict(found)}, ensure_ascii=False))
        else:
            text = found.alt or found.description or ""
            print(f"{printable(str(path))}\t{printable(text)}\t{found.alt_source}")
    raise typer.Exit(int(failed))


@metadata.command(
    epilog=examples(
        'cutline metadata write dog.jpg "A dog on a beach"',
        'cutline metadata write dog.jpg "Ein Hund am Strand" --language de',
    )
)
def write(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The alt text.")],
    long_description: Annotated[
        str, writing("--long-description", metavar="TEXT", help="Also write a long description.")
    ] = "",
    language: Annotated[str, LANGUAGE] = "x-default",
    overwrite: Annotated[bool, OVERWRITE] = False,
    description: Annotated[bool, DESCRIPTION] = False,
    sidecar: Annotated[str, SIDECAR] = "auto",
    keep_times: Annotated[bool, KEEP_TIMES] = False,
    journal: Annotated[Path, JOURNAL] = DEFAULT_JOURNAL,
) -> None:
    """Write alt text into one image; its pixels and all other metadata stay unchanged."""
    from cutline.metadata import MetadataJournal, write_text

    options = _options(language, overwrite, description, sidecar, keep_times)
    written = write_text(
        image,
        text,
        long_description=long_description,
        options=options,
        journal=MetadataJournal(journal),
    )
    if written.note:
        print(f"{printable(str(image))}: {printable(written.note)}", file=sys.stderr)
    print(f"{'Written' if written.changed else 'Unchanged'}: {printable(str(written.target))}")


@metadata.command(
    name="apply",
    epilog=examples(
        "cutline caption photos/ -o captions.jsonl",
        "cutline metadata apply captions.jsonl --keep-times",
        "cutline metadata undo",
    ),
)
def apply_captions(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="A .jsonl or .csv file of cutline caption.")
    ],
    language: Annotated[str, LANGUAGE] = "x-default",
    overwrite: Annotated[bool, OVERWRITE] = False,
    description: Annotated[bool, DESCRIPTION] = False,
    sidecar: Annotated[str, SIDECAR] = "auto",
    keep_times: Annotated[bool, KEEP_TIMES] = False,
    journal: Annotated[Path, JOURNAL] = DEFAULT_JOURNAL,
) -> None:
    """Write the captions of a result file into the images they describe.

    Review the captions first: edit the file, or remove rows. An image that already has alt text is
    refused unless you pass --overwrite. The exit code is 1 if an image was refused.
    """
    from cutline.metadata import MetadataJournal
    from cutline.metadata.batch import read_captions, write_captions

    result = write_captions(
        read_captions(results),
        options=_options(language, overwrite, description, sidecar, keep_times),
        journal=MetadataJournal(journal),
    )
    for path, reason in result.failed:
        print(f"{printable(str(path))}: {printable(reason)}", file=sys.stderr)
    for written in result.written:
        if written.note:
            print(f"{printable(str(written.path))}: {printable(written.note)}", file=sys.stderr)
    print(
        f"Written: {len(result.written):,} files. Unchanged: {len(result.unchanged):,}. "
        f"Refused: {len(result.failed):,}."
    )
    raise typer.Exit(int(bool(result.failed)))


@metadata.command(epilog=examples("cutline metadata undo"))
def undo(
    journal: Annotated[
        Path, typer.Argument(metavar="JOURNAL", help="The journal of the writes.")
    ] = DEFAULT_JOURNAL,
) -> None:
    """Restore the fields that `write` and `apply` changed; skip files that changed since."""
    from cutline.metadata import MetadataJournal
    from cutline.metadata import undo as undo_writes

    restored, refused = undo_writes(MetadataJournal(journal))
    for path, reason in refused:
        print(f"{printable(str(path))}: {printable(reason)}", file=sys.stderr)
    print(f"Restored: {len(restored):,} files. Not restored: {len(refused):,}.")
    raise typer.Exit(int(bool(refused)))


def _options(
    language: str, overwrite: bool, description: bool, sidecar: str, keep_times: bool
) -> MetadataOptions:
    from typing import cast

    from cutline.metadata import MetadataOptions
    from cutline.metadata.write import Sidecar

    return MetadataOptions(language, overwrite, description, cast(Sidecar, sidecar), keep_times)
