"""`cutline caption`."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutline.cli.app import (
    ENGINE,
    MODEL,
    THREADS,
    app,
    examples,
    given,
    running,
    wording,
    writing,
)
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
from cutline.errors import OptionError, ServerStoppedError

if TYPE_CHECKING:
    from cutline.cli.writers import CsvRows, JsonRows, ResultFile, StandardOutput, TextRows


class Format(StrEnum):
    """How captions are written."""

    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"


@app.command(
    epilog=examples(
        "cutline caption dog.jpg",
        "cutline caption holiday/ --recursive --output captions.jsonl",
        "cutline caption holiday/ --recursive --output captions.jsonl --resume",
        "cutline caption *.png --sidecar --skip-existing",
        "cutline caption dog.jpg --model hub:Salesforce/blip-image-captioning-base",
        "find . -name '*.jpg' -print0 | cutline caption - --null --format csv > captions.csv",
    )
)
def caption(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Pictures, folders or patterns; - reads a list of them from standard input.",
            show_default=False,
        ),
    ],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Look into subfolders too.")
    ] = False,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="The list on standard input is NUL-separated.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no closing line.")
    ] = False,
    format: Annotated[
        Format | None,
        writing("--format", help="By default as the output's name ends, else text."),
    ] = None,
    output: Annotated[
        Path | None,
        writing("--output", "-o", metavar="FILE", help="Write here, not to standard output."),
    ] = None,
    resume: Annotated[
        bool,
        writing(
            "--resume",
            help="Continue a jsonl or csv output: what it lacks and what failed.",
        ),
    ] = False,
    force: Annotated[
        bool, writing("--force", help="Replace an output or sidecars that exist.")
    ] = False,
    sidecar: Annotated[
        bool,
        writing("--sidecar", help="Also write each caption to a .txt beside its picture."),
    ] = False,
    skip_existing: Annotated[
        bool, writing("--skip-existing", help="Leave out pictures with a .txt beside them.")
    ] = False,
    n_best: Annotated[
        int,
        wording(
            "--n-best",
            min=1,
            help="Captions for each picture, best first by score and length penalty.",
        ),
    ] = 1,
    labels: Annotated[
        int | None,
        wording("--labels", min=0, help="Labels for each picture: by default 5, none in text."),
    ] = None,
    beam: Annotated[
        int | None, wording("--beam", min=1, help="Hypotheses kept alive; 1 is greedy search.")
    ] = None,
    length_penalty: Annotated[
        float | None,
        wording("--length-penalty", help="Less than 1 favours short captions, more long ones."),
    ] = None,
    temperature: Annotated[
        float | None,
        wording("--temperature", help="Draw at random instead: below 1 safer, above 1 wilder."),
    ] = None,
    top_p: Annotated[
        float | None,
        wording("--top-p", help="Draw from the likeliest words of this much probability."),
    ] = None,
    seed: Annotated[
        int | None, wording("--seed", help="The same seed draws the same captions.")
    ] = None,
    model: Annotated[str | None, MODEL] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
    batch_size: Annotated[
        int | None, running("--batch-size", min=1, help="Pictures worked on together.")
    ] = None,
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
    """Caption pictures: a sentence for each, in the order given, as soon as it is there.

    A terminal shows readable lines and progress. A pipe gets [bold]path TAB caption[/bold], then a
    field for each further caption and label; control characters become escapes. jsonl and csv hold
    everything, and a row of status [bold]error[/bold] for a picture that failed, which is also
    reported on standard error. --resume takes such rows out and tries their pictures again, so that
    their new rows stand behind those already there.

    Exit codes: 0 all captioned; 1 some failed; 2 wrong use, or no picture found; 130 or 143
    interrupted; 141 the reader of a pipe left.
    """
    from cutline.atomic import refuse_existing
    from cutline.cli.writers import Answered, Sidecars, TextRows, read_answered
    from cutline.discover import find_images, is_unmatched

    if all(map(is_unmatched, paths)):
        raise OptionError(f"no file matches {' or '.join(paths)}")
    output = None if output == Path("-") else output
    format = format or _format_of(output)
    labels = labels if labels is not None else 0 if format is Format.TEXT else 5
    rows = _rows(format, n_best, labels)
    answered = Answered()
    if resume:
        if force or output is None or isinstance(rows, TextRows):
            raise OptionError("got --resume; expected a jsonl or csv --output, and no --force")
        answered = read_answered(output, rows)
    elif output is not None and not force:
        refuse_existing(output, resumable=not isinstance(rows, TextRows))

    def listing() -> Iterator[Iterator[Path]]:
        return (find_images(group, recursive) for group in _groups(paths, null))

    def waiting(pictures: Iterable[Path], rest: Counter[str]) -> Iterator[Path]:
        for picture in pictures:
            if rest[str(picture)]:
                rest[str(picture)] -= 1
            elif not (skip_existing and Sidecars.stands_beside(picture)):
                yield picture

    if sidecar and not (skip_existing or force or resume or "-" in paths):
        for picture in filter(Sidecars.stands_beside, chain.from_iterable(listing())):
            raise OptionError(
                f"got {Sidecars.path(picture)}, which exists; add --skip-existing to leave its "
                "picture out, or --force to replace it"
            )
    if (found := _peeked(listing())) is None:
        hint = "" if recursive else "; add --recursive to look into subfolders"
        raise OptionError(f"got no picture in {' '.join(paths)}; expected at least one{hint}")
    rest = Counter(answered.sources)
    if (todo := _peeked(waiting(pictures, rest) for pictures in found)) is None:
        if not quiet and sys.stderr.isatty():
            print("Nothing left to caption.", file=sys.stderr)
        raise typer.Exit

    from cutline.backends import load
    from cutline.caption import CaptionOptions
    from cutline.cli.interrupts import deliver
    from cutline.cli.progress import View, is_file
    from cutline.cli.writers import ResultFile, StandardOutput, drop_failed
    from cutline.terminal import printable

    captioner = load(
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
    if answered.model not in (None, captioner.name):
        raise OptionError(
            f"got model {captioner.name} to continue {output}, begun with {answered.model}; "
            "expected the same one"
        )
    options = CaptionOptions(
        labels=labels,
        batch_size=batch_size or CaptionOptions().batch_size,
        scores=format is not Format.TEXT,
    )
    if n_best > 1 and temperature is None and getattr(captioner, "samples_alternatives", False):
        temperature = captioner.sampling_temperature  # type: ignore[attr-defined]
    chosen = given(
        beam_size=beam,
        n_best=n_best if n_best > 1 else None,
        length_penalty=length_penalty,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    hypotheses = beam or captioner.search.beam_size
    if n_best > hypotheses and temperature is None:
        raise OptionError(
            f"got --n-best {n_best}; expected at most --beam, which is {hypotheses}; "
            f"add --beam {n_best}, or draw with --temperature"
        )
    if chosen:
        options = replace(options, search=replace(captioner.search, **chosen))

    readable = format is Format.TEXT and output is None and sys.stdout.isatty()
    bar = not quiet and sys.stderr.isatty() and (readable or output is not None or is_file(1))
    total = None
    if dry_run or ("-" not in paths and (bar or not getattr(captioner, "is_local", True))):
        every = chain.from_iterable(todo if "-" in paths else listing())
        total = sum(1 for _ in waiting(every, Counter(answered.sources)))
    if dry_run:
        print(f"Would send {describe_upload(captioner, total)}; nothing was sent.")
        raise typer.Exit
    confirm_upload(captioner, total, yes=yes)
    sink: ResultFile | StandardOutput | None = None
    if output is not None:
        kept = answered.whole_bytes if resume else None
        if answered.failed and not isinstance(rows, TextRows):
            kept = drop_failed(output, rows)
        sink = ResultFile(
            output,
            rows.header,
            resumable=not isinstance(rows, TextRows),
            force=force,
            keep_bytes=kept,
        )
    elif not readable:
        sink = StandardOutput(rows.header)
    try:
        with reported_usage(captioner, quiet=quiet):
            outcome = deliver(
                chain.from_iterable(captioner.stream(pictures, options) for pictures in todo),
                rows,
                sink,
                Sidecars(force=force) if sidecar else None,
                View(total=total, bar=bar, lines=readable),
            )
    except ServerStoppedError as error:
        resumable = output is not None and not isinstance(rows, TextRows)
        again = "--resume" if resumable else "--skip-existing" if sidecar else None
        print(f"cutline: {printable(str(error))}", file=sys.stderr)
        if again is not None:
            print(_how_to_go_on("Stopped.", again), file=sys.stderr)
        raise typer.Exit(1) from error
    if outcome.stopped in (130, 143):
        resumable = output is not None and not isinstance(rows, TextRows)
        again = "--resume" if resumable else "--skip-existing" if sidecar else None
        print(_how_to_go_on(f"Stopped; done: {outcome.done}.", again), file=sys.stderr)
    elif bar and not outcome.stopped:
        speed = outcome.done / max(outcome.elapsed_s, 1e-9)
        failed = f"; {outcome.failed} failed" if outcome.failed else ""
        pictures = "1 picture" if outcome.done == 1 else f"{outcome.done} pictures"
        print(f"{pictures}, {speed:.1f} a second{failed}", file=sys.stderr)
    raise typer.Exit(outcome.stopped or (1 if outcome.failed else 0))


def _rows(format: Format, n_best: int, labels: int) -> TextRows | JsonRows | CsvRows:
    from cutline.cli.writers import CsvRows, JsonRows, TextRows

    if format is Format.TEXT:
        return TextRows()
    return JsonRows() if format is Format.JSONL else CsvRows(n_best, labels)


def _format_of(output: Path | None) -> Format:
    ending = output.suffix.lower().lstrip(".") if output else ""
    return Format(ending) if ending in ("jsonl", "csv") else Format.TEXT


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
    stdin: Any = sys.stdin.buffer
    rest = b""
    while chunk := stdin.read1(65536):
        if b"\0" in chunk and separator != b"\0":
            raise OptionError(
                "got binary data on standard input, such as a picture itself; expected a list of "
                "paths, one a line; add --null if NUL separates them"
            )
        *names, rest = (rest + chunk).split(separator)
        yield _decoded(names, separator)
    yield _decoded([rest], separator)


def _decoded(names: Iterable[bytes], separator: bytes) -> list[str]:
    if separator == b"\n":
        names = (name.removesuffix(b"\r") for name in names)
    return [os.fsdecode(name) for name in names if name]


def _peeked(groups: Iterator[Iterator[Path]]) -> Iterator[Iterator[Path]] | None:
    """The groups from the first one that has a picture in it; None if none has."""
    for group in groups:
        for first in group:
            return chain([chain([first], group)], groups)
    return None


def _how_to_go_on(stopped: str, again: str | None) -> str:
    if again is None:
        return stopped
    words = [word for word in sys.argv[1:] if word not in ("--force", again)]
    same = " with the same list" if "-" in words else ""
    return f"{stopped} To go on{same}: {shlex.join(['cutline', *words, again])}"
