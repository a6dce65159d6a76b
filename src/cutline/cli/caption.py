"""`cutline caption`."""

from __future__ import annotations

import codecs
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutline.cli.app import ENGINE, MODEL, THREADS, app, examples, field_option, given, needing
from cutline.cli.metadata import DEFAULT_JOURNAL
from cutline.cli.server_options import (
    DryRun,
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
    describe_upload,
    read_key,
    read_prompt,
    reported_usage,
)
from cutline.errors import MissingExtraError, OptionError, ServerStoppedError
from cutline.options import FileOptions, Format, SearchOptions
from cutline.terminal import printable

if TYPE_CHECKING:
    from cutline.caption import Captioner
    from cutline.caption_files import CaptionJob
    from cutline.metadata.batch import CaptionWriter

_Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...",
        help="Images, folders, patterns, URLs or addresses such as s3://bucket/folder/; - reads a "
        "list of them from standard input.",
        show_default=False,
    ),
]
_Recursive = Annotated[bool, field_option(FileOptions, "--recursive", "-r")]
_Null = Annotated[
    bool, typer.Option("--null", "-0", help="The list on standard input is NUL-separated.")
]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print no progress and no closing line.")
]
_FormatOption = Annotated[Format | None, field_option(FileOptions, "--format", panel="Output")]
_Column = Annotated[str | None, field_option(FileOptions, "--column", metavar="NAME")]
_Output = Annotated[
    str | None,
    field_option(FileOptions, "--output", "-o", panel="Output", metavar="FILE"),
]
_Resume = Annotated[bool, field_option(FileOptions, "--resume", panel="Output")]
_Force = Annotated[bool, field_option(FileOptions, "--force", panel="Output")]
_Sidecar = Annotated[bool, field_option(FileOptions, "--sidecar", panel="Output")]
_SkipExisting = Annotated[bool, field_option(FileOptions, "--skip-existing", panel="Output")]
WriteMetadata = Annotated[
    bool,
    typer.Option(
        "--write-metadata",
        help="Also write each caption into its image file, as AltTextAccessibility (IPTC).",
        rich_help_panel="Metadata",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace the alt text that an image file has.",
        rich_help_panel="Metadata",
    ),
]
MetadataLanguage = Annotated[
    str | None,
    typer.Option(
        "--metadata-language",
        metavar="TAG",
        help="Language of the written text, such as en. Default: x-default.",
        rich_help_panel="Metadata",
        show_default=False,
    ),
]
XmpSidecar = Annotated[
    str | None,
    typer.Option(
        "--xmp-sidecar",
        metavar="never|auto|always",
        help="Write XMP sidecars. Default: auto, for formats that cannot be written.",
        rich_help_panel="Metadata",
        show_default=False,
    ),
]
Journal = Annotated[
    Path,
    typer.Option(
        "--journal",
        metavar="FILE",
        help="Records the writes for `cutline metadata undo`.",
        rich_help_panel="Metadata",
    ),
]
_NBest = Annotated[int, field_option(FileOptions, "--n-best", panel="Words", min=1)]
_Labels = Annotated[int | None, field_option(FileOptions, "--labels", panel="Words", min=0)]
_Beam = Annotated[
    int | None,
    field_option(SearchOptions, "--beam", name="beam_size", panel="Words", min=1),
]
_LengthPenalty = Annotated[
    float | None, field_option(SearchOptions, "--length-penalty", panel="Words")
]
_Temperature = Annotated[float | None, field_option(SearchOptions, "--temperature", panel="Words")]
_TopP = Annotated[float | None, field_option(SearchOptions, "--top-p", panel="Words")]
_Seed = Annotated[int | None, field_option(SearchOptions, "--seed", panel="Words")]
_Ray = Annotated[
    bool,
    typer.Option(
        "--ray",
        help="Caption on all machines of a Ray cluster; without --ray-address, on a new one here. "
        "--threads is then the cores of each worker.",
        rich_help_panel="Cluster",
    ),
]
_RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help="A running cluster: auto for one on this machine, or ray://HOST:PORT. Implies --ray.",
        rich_help_panel="Cluster",
        show_default=False,
    ),
]
_RayWorkers = Annotated[
    int | None,
    typer.Option(
        "--ray-workers",
        min=1,
        help="Workers at most. Default: as many as the cluster has room for.",
        rich_help_panel="Cluster",
        show_default=False,
    ),
]
_Ordered = Annotated[
    bool,
    typer.Option(
        "--ordered",
        help="Write results in the order of the images. Default: as they are ready.",
        rich_help_panel="Cluster",
    ),
]
_BatchSize = Annotated[
    int | None, field_option(FileOptions, "--batch-size", panel="Machine", min=1)
]


@app.command(
    epilog=examples(
        "cutline caption dog.jpg",
        "cutline caption holiday/ --recursive --output captions.jsonl",
        "cutline caption holiday/ --recursive --output captions.jsonl --resume",
        "cutline caption *.png --sidecar --skip-existing",
        "cutline caption holiday/ --output captions.jsonl --write-metadata",
        "cutline caption dog.jpg --model hub:Salesforce/blip-image-captioning-base",
        "cutline caption s3://bucket/photos/ --recursive --output s3://bucket/captions.parquet",
        "find . -name '*.jpg' -print0 | cutline caption - --null --format csv > captions.csv",
    )
)
def caption(
    paths: _Paths,
    recursive: _Recursive = False,
    null: _Null = False,
    column: _Column = None,
    quiet: _Quiet = False,
    format: _FormatOption = None,
    output: _Output = None,
    resume: _Resume = False,
    force: _Force = False,
    sidecar: _Sidecar = False,
    skip_existing: _SkipExisting = False,
    write_metadata: WriteMetadata = False,
    overwrite: Overwrite = False,
    metadata_language: MetadataLanguage = None,
    xmp_sidecar: XmpSidecar = None,
    journal: Journal = DEFAULT_JOURNAL,
    n_best: _NBest = 1,
    labels: _Labels = None,
    beam: _Beam = None,
    length_penalty: _LengthPenalty = None,
    temperature: _Temperature = None,
    top_p: _TopP = None,
    seed: _Seed = None,
    model: Annotated[str | None, MODEL] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
    batch_size: _BatchSize = None,
    ray: _Ray = False,
    ray_address: _RayAddress = None,
    ray_workers: _RayWorkers = None,
    ordered: _Ordered = False,
    image_px: ImagePx = None,
    timeout: Timeout = None,
    retry_for: RetryFor = None,
    max_requests: MaxRequests = None,
    max_tokens_total: MaxTokensTotal = None,
    key_file: KeyFile = None,
    prompt: PromptFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Caption images, and print each caption as soon as it is ready, in order.

    A terminal shows captions and progress. A pipe gets [bold]path TAB caption[/bold], then one
    field per additional caption and label; control characters are escaped. The formats jsonl, csv
    and parquet contain all results; parquet is a folder of files. An image that failed has a row
    with the status [bold]error[/bold], and is also reported on standard error. --resume removes
    these rows, retries their images and appends the new rows.

    Exit codes: 0 all captioned; 1 some failed; 2 usage error, or no image found; 130 or 143
    interrupted; 141 broken pipe.
    """
    from cutline.caption_files import CaptionJob

    search = given(
        beam_size=beam,
        length_penalty=length_penalty,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    options = FileOptions(
        recursive=recursive,
        output=None if output == "-" else output,
        resume=resume,
        force=force,
        sidecar=sidecar,
        skip_existing=skip_existing,
        n_best=n_best,
        search=search,
        **given(labels=labels, batch_size=batch_size, format=format, column=column),
    )
    metadata = caption_writer(write_metadata, overwrite, metadata_language, xmp_sidecar, journal)
    cluster = _Cluster.chosen(ray, ray_address, ray_workers, ordered)
    job = CaptionJob(_all_paths(paths, null, whole=cluster is not None), options)
    if job.is_finished:
        if not quiet and sys.stderr.isatty():
            print("Nothing left to caption.", file=sys.stderr)
        raise typer.Exit

    captioner = _load(
        cluster,
        model,
        engine=engine,
        threads=threads,
        connection=connection_options(
            image_px=image_px,
            timeout=timeout,
            retry_for=retry_for,
            max_requests=max_requests,
            max_tokens_total=max_tokens_total,
        ),
        prompt=read_prompt("caption", prompt),
        key=read_key(key_file),
    )
    _check_upload(job, captioner, yes, dry_run)
    raise typer.Exit(_run(job, captioner, quiet, metadata))


def _check_upload(job: CaptionJob, captioner: Any, yes: bool, dry_run: bool) -> None:
    """Ask before images are sent to another machine; end a dry run with what would be sent."""
    if dry_run:
        print(
            f"Would send {describe_upload(captioner, job.count(consume=True))}; nothing was sent."
        )
        raise typer.Exit
    if not getattr(captioner, "is_local", True):
        confirm_upload(captioner, job.count(), yes=yes)


@dataclass(frozen=True)
class _Cluster:
    """Which Ray cluster captions, and how."""

    address: str | None
    workers: int | None
    ordered: bool

    @classmethod
    def chosen(
        cls, ray: bool, address: str | None, workers: int | None, ordered: bool
    ) -> _Cluster | None:
        """What the options choose; None for this process alone.

        Raises:
            OptionError: an option needs --ray.
        """
        if ray or address is not None:
            return cls(address, workers, ordered)
        if workers is not None or ordered:
            raise OptionError("got --ray-workers or --ordered; expected --ray with it")
        return None


def _load(
    cluster: _Cluster | None, model: str | None, *, threads: int | None, **options: Any
) -> Captioner:
    """Load a captioner here or on a cluster."""
    from cutline.backends import load

    if cluster is None:
        return load(model, threads=threads, **options)
    with needing("ray", "--ray"):
        from cutline.distributed import RayCaptioner, RayOptions
        from cutline.distributed.captioner import connect, gpus_for

    connect(cluster.address)
    ray_options = RayOptions(
        threads or 1, gpus_for(model), max_workers=cluster.workers, ordered=cluster.ordered
    )
    return RayCaptioner.load(model, ray_options=ray_options, **options)


def caption_writer(
    wanted: bool,
    overwrite: bool,
    language: str | None,
    sidecar: str | None,
    journal: Path,
) -> CaptionWriter | None:
    """What writes captions into image files; None if that is not wanted.

    Raises:
        OptionError: an option needs --write-metadata, or is out of its range.
        MissingExtraError: exiv2 is not installed.
    """
    if not wanted:
        if overwrite or language or sidecar:
            raise OptionError(
                "got --overwrite, --metadata-language or --xmp-sidecar; expected --write-metadata "
                "with it"
            )
        return None
    from importlib.util import find_spec

    from cutline.metadata import MetadataJournal, MetadataOptions
    from cutline.metadata.batch import CaptionWriter

    if find_spec("exiv2") is None:
        raise MissingExtraError("--write-metadata", "metadata")
    chosen: dict[str, Any] = given(language=language, sidecar=sidecar)
    return CaptionWriter(MetadataOptions(overwrite=overwrite, **chosen), MetadataJournal(journal))


def report_metadata(metadata: CaptionWriter | None) -> None:
    """Print which image files were not written, and why; each is printed once."""
    if metadata is None:
        return
    result, metadata.result = metadata.result, type(metadata.result)()
    for path, reason in result.failed:
        print(
            f"cutline: {printable(str(path))}: not written into the file: {printable(reason)}",
            file=sys.stderr,
        )
    for written in result.written:
        if written.note:
            print(f"{printable(str(written.path))}: {printable(written.note)}", file=sys.stderr)


def _run(
    job: CaptionJob, captioner: Any, quiet: bool, metadata: CaptionWriter | None = None
) -> int:
    """Run a job with progress on the terminal; return the exit code."""
    from cutline.caption_files import describe_passed_over
    from cutline.cli.interrupts import until_stopped
    from cutline.cli.progress import View, is_file

    to_file, text = job.options.output is not None, job.options.rows_format is Format.TEXT
    lines = text and not to_file and sys.stdout.isatty()
    bar = not quiet and sys.stderr.isatty() and (lines or to_file or is_file(1))
    view = View(total=job.count() if bar else None, bar=bar, lines=lines)
    stream = None if lines else sys.stdout.buffer

    summary = job.summary
    again = "--resume" if job.resumable else "--skip-existing" if job.options.sidecar else None
    try:
        with reported_usage(captioner, quiet=quiet), until_stopped() as interrupts, view:
            job.run(
                captioner,
                stream=stream,
                on_caption=view.show,
                uninterrupted=interrupts.held,
                metadata=metadata,
            )
    except ServerStoppedError as error:
        print(f"cutline: {printable(str(error))}", file=sys.stderr)
        if again is not None:
            print(_how_to_continue("Stopped.", again), file=sys.stderr)
        return 1
    stopped = interrupts.exit_code
    report_metadata(metadata)
    if not quiet and (passed_over := describe_passed_over(summary.passed_over)):
        print(f"Passed over {passed_over}.", file=sys.stderr)
    if stopped in (130, 143):
        print(_how_to_continue(f"Stopped; done: {summary.done}.", again), file=sys.stderr)
    elif bar and not stopped:
        speed = summary.done / max(summary.elapsed_s, 1e-9)
        failed = f"; {summary.failed} failed" if summary.failed else ""
        images = "1 image" if summary.done == 1 else f"{summary.done} images"
        print(f"{images}, {speed:.1f} per second{failed}", file=sys.stderr)
    return stopped or (1 if summary.failed or summary.unwritten else 0)


def _all_paths(paths: list[str], null: bool, *, whole: bool) -> list[str] | Iterator[Sequence[str]]:
    """The paths and those on standard input, which is read to its end if `whole`."""
    if "-" not in paths:
        return paths
    groups = _groups(paths, null)
    return list(chain.from_iterable(groups)) if whole else groups


def _groups(paths: Sequence[str], null: bool) -> Iterator[Sequence[str]]:
    """The paths, in groups of those that are there at the same time.

    A group is captioned to its end before the next is waited for, however slowly a list comes.
    """
    if "-" not in paths:
        yield paths
        return
    place = paths.index("-")
    if place:
        yield paths[:place]
    yield from _listed(b"\0" if null else b"\n")
    if place + 1 < len(paths):
        yield from _groups(paths[place + 1 :], null)


def _listed(separator: bytes) -> Iterator[list[str]]:
    """The paths of the list on standard input, as they come."""
    rest = b""
    for chunk in _utf8_chunks(sys.stdin.buffer):
        if b"\0" in chunk and separator != b"\0":
            raise OptionError(
                "got binary data on standard input, such as an image itself; expected a list of "
                "paths, one on each line; add --null if NUL separates them"
            )
        *names, rest = (rest + chunk).split(separator)
        yield _decoded(names, separator)
    yield _decoded([rest], separator)


def _utf8_chunks(stdin: Any) -> Iterator[bytes]:
    """Standard input in chunks, without a byte order mark and, if it is UTF-16, as UTF-8."""
    head = b""
    while len(head) < 3 and (chunk := stdin.read1(65536)):
        head += chunk
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        decoder = codecs.getincrementaldecoder("utf-16")("replace")
        yield decoder.decode(head).encode()
        while chunk := stdin.read1(65536):
            yield decoder.decode(chunk).encode()
        return
    yield head.removeprefix(codecs.BOM_UTF8)
    while chunk := stdin.read1(65536):
        yield chunk


def _decoded(names: Iterable[bytes], separator: bytes) -> list[str]:
    if separator == b"\n":
        names = (name.removesuffix(b"\r") for name in names)
    return [os.fsdecode(name) for name in names if name]


def _how_to_continue(stopped: str, again: str | None) -> str:
    if again is None:
        return stopped
    words = [word for word in sys.argv[1:] if word not in ("--force", again)]
    same = " with the same list" if "-" in words else ""
    return f"{stopped} To continue{same}: {shlex.join(['cutline', *words, again])}"
