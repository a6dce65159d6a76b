"""`cutline watch`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutline.cli.app import ENGINE, MODEL, THREADS, app, examples, given, writing
from cutline.cli.caption import (
    Journal,
    MetadataLanguage,
    Overwrite,
    WriteMetadata,
    XmpSidecar,
    caption_writer,
    report_metadata,
)
from cutline.cli.metadata import DEFAULT_JOURNAL
from cutline.cli.server_options import (
    ImagePx,
    KeyFile,
    MaxRequests,
    MaxTokensTotal,
    PromptFile,
    RetryFor,
    Timeout,
    Yes,
    confirm_upload,
    connection_options,
    read_key,
    read_prompt,
    reported_usage,
)
from cutline.terminal import printable

if TYPE_CHECKING:
    from cutline.caption import Caption


@app.command(
    epilog=examples(
        "cutline watch inbox/ -o captions.jsonl",
        "cutline watch inbox/ -o captions.jsonl --write-metadata",
    )
)
def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to watch.")],
    output: Annotated[
        Path,
        writing("--output", "-o", metavar="FILE", help="A .jsonl or .csv file, also to continue."),
    ],
    recursive: Annotated[
        bool, typer.Option("--recursive/--no-recursive", help="Watch subfolders too.")
    ] = True,
    interval: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="S", help="Seconds between two listings. Default: 1."),
    ] = None,
    settle: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="S", help="Seconds in which a file must not change. Default: 2."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no captions.")] = False,
    write_metadata: WriteMetadata = False,
    overwrite: Overwrite = False,
    metadata_language: MetadataLanguage = None,
    xmp_sidecar: XmpSidecar = None,
    journal: Journal = DEFAULT_JOURNAL,
    model: Annotated[str | None, MODEL] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
    image_px: ImagePx = None,
    timeout: Timeout = None,
    retry_for: RetryFor = None,
    max_requests: MaxRequests = None,
    max_tokens_total: MaxTokensTotal = None,
    key_file: KeyFile = None,
    prompt: PromptFile = None,
    yes: Yes = False,
) -> None:
    """Caption each image that is in a folder or arrives there, once, until you press Ctrl-C.

    A file is captioned when it has stopped changing and can be decoded. Hidden files and files with
    temporary names are ignored. Run the same command again to continue: images in the output are
    not captioned again, and images that failed are tried again.

    Exit codes: 1 the model's server failed; 2 usage error; 130 or 143 interrupted.
    """
    from cutline.backends import load
    from cutline.cli.interrupts import until_stopped
    from cutline.watch import WatchOptions
    from cutline.watch import watch as watch_folder

    options = WatchOptions(recursive, **given(interval_s=interval, settle_s=settle))
    metadata = caption_writer(write_metadata, overwrite, metadata_language, xmp_sidecar, journal)
    connection = connection_options(
        image_px=image_px,
        timeout=timeout,
        retry_for=retry_for,
        max_requests=max_requests,
        max_tokens_total=max_tokens_total,
    )
    captioner = load(
        model,
        engine=engine,
        threads=threads,
        connection=connection,
        prompt=read_prompt("caption", prompt),
        key=read_key(key_file),
    )
    if not getattr(captioner, "is_local", True):
        confirm_upload(captioner, None, yes=yes)

    def show(caption: Caption) -> None:
        report_metadata(metadata)
        if caption.error is not None:
            print(f"cutline: {printable(str(caption.error))}", file=sys.stderr)
        elif not quiet:
            print(f"{printable(caption.source)}\t{printable(caption.text)}", flush=True)

    if not quiet:
        print(f"Watching {printable(str(folder))}; stop with Ctrl-C.", file=sys.stderr)
    with reported_usage(captioner, quiet=quiet), until_stopped() as interrupts:
        watch_folder(
            folder,
            captioner,
            output=output,
            options=options,
            metadata=metadata,
            on_caption=show,
            uninterrupted=interrupts.held,
        )
    if interrupts.exit_code in (130, 143):
        print("Stopped; all captions are saved. Run the same command to continue.", file=sys.stderr)
    raise typer.Exit(interrupts.exit_code)
