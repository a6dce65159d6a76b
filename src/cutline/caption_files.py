"""Captioning many files: what `cutline caption` does, for Python.

from pathlib import Path
import cutline
from cutline.caption_files import CaptionJob, FileOptions

job = CaptionJob(["holiday/"], FileOptions(recursive=True, output=Path("captions.jsonl")))
if not job.is_finished:
    summary = job.run(cutline.load())
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from cutline.atomic import refuse_existing
from cutline.caption import Caption, Captioner, CaptionOptions
from cutline.discover import is_unmatched
from cutline.errors import OptionError, OutputError
from cutline.metadata.batch import CaptionWriter
from cutline.options import FileOptions, Format, is_address
from cutline.shards import ShardFolder, ShardRows, ShardWriter
from cutline.sources import Source, find_sources, is_absent, read_ahead
from cutline.writers import (
    Answered,
    CsvRows,
    JsonRows,
    ResultFile,
    Sidecars,
    StreamWriter,
    TextRows,
    disk_full,
    drop_failed,
    read_answered,
)

Writer: TypeAlias = ResultFile | StreamWriter | ShardWriter


def rows_for(options: FileOptions) -> TextRows | JsonRows | CsvRows | ShardRows:
    """The encoder of the rows that options ask for."""
    if options.is_sharded:
        return ShardRows(options.rows_format)
    if options.rows_format is Format.TEXT:
        return TextRows()
    if options.rows_format is Format.JSONL:
        return JsonRows()
    return CsvRows(options.n_best, options.label_count)


def caption_options(options: FileOptions, captioner: Captioner) -> CaptionOptions:
    """The options of a captioner that a run's options mean.

    Raises:
        OptionError: more captions are wanted than the search keeps hypotheses.
    """
    search = dict(options.search)
    samples = getattr(captioner, "samples_alternatives", False)
    if samples and options.n_best > 1 and search.get("temperature") is None:
        search["temperature"] = captioner.sampling_temperature  # type: ignore[attr-defined]
    hypotheses = search.get("beam_size") or captioner.search.beam_size
    if options.n_best > hypotheses and search.get("temperature") is None:
        raise OptionError(
            f"got --n-best {options.n_best}; expected at most --beam, which is {hypotheses}; "
            f"add --beam {options.n_best}, or sample with --temperature"
        )
    if options.n_best > 1:
        search["n_best"] = options.n_best
    return CaptionOptions(
        search=replace(captioner.search, **search) if search else None,
        labels=options.label_count,
        batch_size=options.batch_size,
        scores=options.rows_format is not Format.TEXT,
    )


@dataclass
class Summary:
    """The state of a run; it is up to date even when the run is interrupted.

    Attributes:
        done: images finished, those that failed included.
        failed: images without a caption, or whose sidecar could not be written.
        unwritten: captioned images whose metadata could not be written.
        elapsed_s: seconds since the run began.
        passed_over: files in folders that have no image extension, by their extension.
    """

    done: int = 0
    failed: int = 0
    unwritten: int = 0
    elapsed_s: float = 0.0
    passed_over: Counter[str] = field(default_factory=Counter)


class CaptionJob:
    """One run over many files; creating it checks everything that needs no model.

    Args:
        paths: files, folders and patterns; or an iterator of lists of them, of which each is
            captioned to its end before the next is asked for.
        options: which files and where to.

    Raises:
        OptionError: no image is found, or an output or a sidecar exists.
        OutputError: the output cannot be read, or other options wrote it.
    """

    def __init__(
        self, paths: Sequence[str] | Iterator[Sequence[str]], options: FileOptions
    ) -> None:
        self.options = options
        self.rows = rows_for(options)
        self.summary = Summary()
        self._paths = paths
        self._answered = Answered()
        self.resumable = options.output is not None and not isinstance(self.rows, TextRows)
        if isinstance(paths, Sequence) and paths and all(map(_is_absent, paths)):
            raise OptionError(f"no file matches {' or '.join(paths)}")
        self._check_output()
        if options.sidecar and options.column is not None:
            raise OptionError("got --sidecar and --column; expected one of them")
        overwrites = not (options.skip_existing or options.force or options.resume)
        if options.sidecar and overwrites and isinstance(paths, Sequence):
            self._refuse_sidecars(paths)
        images = _from_first(self._listing(paths, self.summary.passed_over))
        if images is None:
            raise OptionError(self._nothing_found())
        rest = Counter(self._answered.sources)
        self._todo = _from_first(self._unanswered(group, rest) for group in images)

    def _check_output(self) -> None:
        output, options = self.options.output, self.options
        if output is None:
            return
        if isinstance(self.rows, ShardRows):
            folder = ShardFolder(output, self.rows.format)
            if options.resume:
                self._answered = folder.read_answered()
            elif not options.force:
                folder.check_new(force=False)
            return
        assert isinstance(output, Path)
        if options.resume and not isinstance(self.rows, TextRows):
            self._answered = read_answered(output, self.rows)
        elif not options.force:
            refuse_existing(output, resumable=self.resumable)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to caption."""
        return self._todo is None

    def count(self, *, consume: bool = False) -> int | None:
        """How many images there are to caption; None if the list can be read only once.

        Args:
            consume: read such a list all the same; then nothing is left to run.
        """
        if consume:
            groups, self._todo = self._todo or iter(()), None
            return sum(1 for _ in chain.from_iterable(groups))
        if not isinstance(self._paths, Sequence):
            return None
        every = chain.from_iterable(self._listing(self._paths, None))
        return sum(1 for _ in self._unanswered(every, Counter(self._answered.sources)))

    def run(
        self,
        captioner: Captioner,
        *,
        stream: BinaryIO | None = None,
        on_caption: Callable[[Caption], None] = lambda caption: None,
        uninterrupted: Callable[[], AbstractContextManager[None]] = nullcontext,
        metadata: CaptionWriter | None = None,
    ) -> Summary:
        """Caption what is left to caption; write each caption as soon as it is there.

        Args:
            captioner: the model.
            stream: where rows go if there is no output file; None writes none.
            on_caption: called after each image, with its caption or error.
            uninterrupted: a context in which an image's sidecar and row are written together.
            metadata: also writes each caption into its image file, before its row.

        Returns:
            The job's summary.

        Raises:
            OptionError: the output was begun with another model, or search options do not fit.
            OutputError: the disk is full or gone.
            BrokenPipeError: the reader of the stream is gone.
            EngineError: inference failed.
        """
        if self._answered.model not in (None, captioner.name):
            raise OptionError(
                f"got model {captioner.name} to continue {self.options.output}, begun with "
                f"{self._answered.model}; expected the same one"
            )
        options = caption_options(self.options, captioner)
        if isinstance(self.rows, ShardRows):
            self.rows.computation = dict(computation_of(captioner))
        writer = self._writer(stream)
        sidecars = Sidecars(force=self.options.force) if self.options.sidecar else None
        groups, self._todo = self._todo or iter(()), None
        reads = getattr(captioner, "reads_references", False)

        def inputs(images: Iterable[Source]) -> Iterable[Any]:
            return images if reads else read_ahead(images, options.limits)

        captions = chain.from_iterable(
            captioner.stream(inputs(images), options) for images in groups
        )
        deliver(
            captions,
            self.rows,
            writer,
            sidecars,
            self.summary,
            on_caption,
            uninterrupted,
            metadata,
        )
        return self.summary

    def _writer(self, stream: BinaryIO | None) -> Writer | None:
        if (output := self.options.output) is None:
            return None if stream is None else StreamWriter(stream, self.rows.header)
        if isinstance(self.rows, ShardRows):
            folder = ShardFolder(output, self.rows.format)
            if self._answered.failed:
                folder.drop_failed()
            if not self.options.resume:
                folder.check_new(force=self.options.force)
            return ShardWriter(folder)
        assert isinstance(output, Path)
        kept = self._answered.whole_bytes if self.options.resume else None
        if self._answered.failed and not isinstance(self.rows, TextRows):
            kept = drop_failed(output, self.rows)
        return ResultFile(
            output,
            self.rows.header,
            resumable=self.resumable,
            force=self.options.force,
            keep_bytes=kept,
        )

    def _listing(
        self,
        paths: Sequence[str] | Iterator[Sequence[str]],
        passed_over: Counter[str] | None,
    ) -> Iterator[Iterator[Source]]:
        groups = iter([paths]) if isinstance(paths, Sequence) else paths
        recursive, column = self.options.recursive, self.options.column
        return (
            find_sources(group, recursive, column=column, passed_over=passed_over)
            for group in groups
        )

    def _unanswered(self, images: Iterable[Source], rest: Counter[str]) -> Iterator[Source]:
        key = self.rows.key if isinstance(self.rows, ShardRows) else str
        for image in images:
            if rest and (left := rest.get(key(str(image)), 0)):
                rest[key(str(image))] = left - 1
            elif not (self.options.skip_existing and _has_sidecar(image)):
                yield image

    def _refuse_sidecars(self, paths: Sequence[str]) -> None:
        images = chain.from_iterable(self._listing(paths, None))
        for image in filter(_has_sidecar, images):
            raise OptionError(
                f"got {Sidecars.path(str(image))}, which exists; add --skip-existing to skip its "
                "image, or --force to replace it"
            )

    def _nothing_found(self) -> str:
        where = " ".join(self._paths) if isinstance(self._paths, Sequence) else "the list"
        hint = "" if self.options.recursive else "; add --recursive to search subfolders"
        passed_over = describe_passed_over(self.summary.passed_over)
        note = f"; passed over {passed_over}" if passed_over else ""
        return f"got no image in {where}; expected at least one{note}{hint}"


def deliver(
    results: Iterable[Any],
    rows: Any,
    writer: Any,
    sidecars: Sidecars | None,
    summary: Summary,
    on_result: Callable[[Any], None],
    uninterrupted: Callable[[], AbstractContextManager[None]] = nullcontext,
    metadata: CaptionWriter | None = None,
) -> None:
    """Write each result as it comes: its sidecar, its metadata, then its row; then report it.

    Args:
        results: captions, or other results with a source and an error.
        rows: how results become rows; a `footer` it may have is written last.
        writer: a `Writer` for such rows, or None; it is closed at the end, whatever happens.
        sidecars: how captions are written beside their images, if they are.
        summary: counts what is done.
        on_result: called after each result.
        uninterrupted: a context around all that is done for one result.
        metadata: writes captions into their image files. A file that is refused keeps its row.

    Raises:
        OutputError: the disk is full or gone.
        BrokenPipeError: the reader of a pipe is gone.
    """
    began_s = time.monotonic()
    writable = True
    try:
        for result in results:
            with uninterrupted():
                if sidecars is not None and result.error is None:
                    result = _with_sidecar(result, sidecars)
                if metadata is not None and result.error is None:
                    written = metadata.write(result.source, result.text)
                    summary.unwritten += not written
                if writer is not None:
                    writer.write(rows.encode(result))
                on_result(result)
                summary.done += 1
                summary.failed += result.error is not None
                summary.elapsed_s = time.monotonic() - began_s
    except (BrokenPipeError, OutputError):
        writable = False
        raise
    finally:
        if writer is not None:
            if writable and (footer := getattr(rows, "footer", b"")):
                writer.write(footer)
            writer.close()


def describe_passed_over(passed_over: Counter[str]) -> str:
    """Files that were passed over: "12 files (9 .txt, 3 .mov)", "1 .md file"; "" for none."""
    if not passed_over:
        return ""
    count = passed_over.total()
    files = "file" if count == 1 else "files"
    if len(passed_over) == 1:
        [extension] = passed_over
        return f"{count} {extension} {files}" if extension else f"{count} {files} without extension"
    parts = [f"{n} {extension or 'without extension'}" for extension, n in
             sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))]  # fmt: skip
    shown, others = parts[:8], sum(sorted(passed_over.values(), reverse=True)[8:])
    if others:
        shown.append(f"{others} others")
    return f"{count} {files} ({', '.join(shown)})"


def computation_of(captioner: Captioner) -> dict[str, Any]:
    """How a captioner computes: "engine", "precision" and "threads"; for rows that record it."""
    described = getattr(captioner, "computation", None)
    return dict(described) if described is not None else {}


def _is_absent(path: str) -> bool:
    return is_absent(path) if is_address(path) else is_unmatched(path)


def _has_sidecar(image: Source) -> bool:
    return isinstance(image, Path) and Sidecars.stands_beside(image)


def _from_first(groups: Iterator[Iterator[Source]]) -> Iterator[Iterator[Source]] | None:
    """The groups from the first one that has an image in it; None if none has."""
    for group in groups:
        for first in group:
            return chain([chain([first], group)], groups)
    return None


def _with_sidecar(caption: Caption, sidecars: Sidecars) -> Caption:
    try:
        sidecars.write(caption)
    except OutputError as error:
        if disk_full(error):
            raise
        return replace(caption, error=error)
    return caption
