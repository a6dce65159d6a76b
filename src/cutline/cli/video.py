"""`cutline video`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutline.cli.app import ENGINE, MODEL, THREADS, app, examples, wording, writing
from cutline.cli.server_options import Yes, confirm_upload
from cutline.errors import OptionError

if TYPE_CHECKING:
    from cutline.video.model import VideoDescription


class VideoFormat(StrEnum):
    """How descriptions of videos are written."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    VTT = "vtt"
    SRT = "srt"


@app.command(
    epilog=examples(
        "cutline video clip.mp4",
        "cutline video clip.mp4 --output clip.vtt",
        "cutline video clip.mp4 --summary --format json --storyboard clip.html",
        "cutline video archive/ --recursive --output archive.jsonl --resume",
    )
)
def video(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Videos, folders or patterns.", show_default=False),
    ],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Search subfolders too.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    format: Annotated[
        VideoFormat | None,
        writing("--format", help="Default: from the output file's extension, else text."),
    ] = None,
    output: Annotated[
        Path | None,
        writing(
            "--output", "-o", metavar="FILE", help="Write to this file instead of standard output."
        ),
    ] = None,
    storyboard: Annotated[
        Path | None,
        writing(
            "--storyboard",
            metavar="FILE.html|FOLDER",
            help="Also write a page with a thumbnail for each shot; for several videos, a folder.",
        ),
    ] = None,
    resume: Annotated[bool, writing("--resume", help="Continue a jsonl or csv output.")] = False,
    force: Annotated[bool, writing("--force", help="Replace existing files.")] = False,
    summary: Annotated[
        bool, wording("--summary", help="Add a sentence for the whole video.")
    ] = False,
    frames: Annotated[
        int, wording("--frames", min=1, max=64, help="Frames per sentence. Default: 4.")
    ] = 4,
    method: Annotated[
        str,
        wording(
            "--method",
            metavar="auto|average|agreement|middle",
            help="How the frames of a shot are combined. Default: auto.",
        ),
    ] = "auto",
    min_shot: Annotated[
        float, wording("--min-shot", min=0, help="Shortest shot, seconds. Default: 0.6.")
    ] = 0.6,
    threshold: Annotated[
        float,
        wording(
            "--threshold", min=0.1, help="Threshold of a cut; lower finds more cuts. Default: 3."
        ),
    ] = 3.0,
    merge: Annotated[
        float,
        wording("--merge", min=0, help="Similarity at which shots are merged. Default: 0.5."),
    ] = 0.5,
    model: Annotated[str | None, MODEL] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
    yes: Yes = False,
) -> None:
    """Describe videos: one sentence per shot, with start and end in seconds.

    Text output has one line per shot: path, start, end, sentence. The formats vtt and srt take one
    video. Times are relative to the first frame.

    Exit codes: 0 all videos described; 1 some failed or are damaged; 2 usage error, or no video
    found; 130 or 143 interrupted.
    """
    from cutline.cli.batch import Batch
    from cutline.video.describe import require_video, stream_videos
    from cutline.video.model import VideoOptions

    options = VideoOptions(
        frames=frames, method=method, min_shot=min_shot, threshold=threshold,
        summary=summary, merge=merge,
    )  # fmt: skip
    output = None if output == Path("-") else output
    several = _several(paths, recursive)
    batch = Batch(
        lambda: _videos(paths, recursive), output, _rows(format, output, several),
        resume, force, quiet, "videos",
    )  # fmt: skip
    boards = _Storyboards(storyboard, several, force)
    hint = "" if recursive else "; add --recursive to look into subfolders"
    if (waiting := batch.first(hint)) is None:
        raise typer.Exit
    require_video()

    from cutline.backends import load

    captioner = load(model, engine=engine, threads=threads)
    batch.check_model(captioner.name)
    confirm_upload(captioner, None, yes=yes)
    found = stream_videos(captioner, waiting, options)
    code = batch.deliver(map(boards.write, found), doing="describing", readable=_readable)
    raise typer.Exit(code)


def _videos(paths: Sequence[str], recursive: bool) -> Iterator[Path]:
    from cutline.discover import VIDEO_EXTENSIONS, find_images, is_unmatched

    if all(map(is_unmatched, paths)):
        raise OptionError(f"no file matches {' or '.join(paths)}")
    return find_images(paths, recursive, extensions=VIDEO_EXTENSIONS)


def _several(paths: Sequence[str], recursive: bool) -> bool:
    found = _videos(paths, recursive)
    next(found, None)
    return next(found, None) is not None


def _rows(format: VideoFormat | None, output: Path | None, several: bool) -> Any:
    from cutline.cli.batch import CsvGroups, Document, JsonDocument, JsonLines, TextLines, format_of
    from cutline.video import formats

    name = format or format_of(output, tuple(VideoFormat))
    if name in (VideoFormat.VTT, VideoFormat.SRT):
        if several:
            raise OptionError(f"got several videos for --format {name}; expected one")
        return Document(formats.webvtt if name == VideoFormat.VTT else formats.subrip)
    if name == VideoFormat.JSON:
        return JsonDocument(several)
    if name == VideoFormat.JSONL:
        return JsonLines()
    if name == VideoFormat.CSV:
        return CsvGroups(formats.COLUMNS, formats.csv_rows, "shot", "shots")
    return TextLines(formats.text_lines)


class _Storyboards:
    """Writes a page for each video."""

    def __init__(self, target: Path | None, several: bool, force: bool) -> None:
        from cutline.atomic import refuse_existing

        self._target = target
        self._force = force
        self._file = target is not None and target.suffix.lower() in (".html", ".htm")
        if target is not None and self._file:
            if several:
                raise OptionError(f"got {target} for several videos; expected a folder")
            if not force:
                refuse_existing(target)

    def write(self, found: VideoDescription) -> VideoDescription:
        """Write the page of a video that has shots, and return the description."""
        from cutline.atomic import refuse_existing, write_whole
        from cutline.video.storyboard import storyboard

        if self._target is not None and found.width:
            path = self._target
            if not self._file:
                path.mkdir(parents=True, exist_ok=True)
                path = path / f"{Path(found.source).name}.html"
                if not self._force:
                    refuse_existing(path)
            write_whole(path, storyboard(found))
        return found


def _readable(found: VideoDescription) -> Any:
    from rich.text import Text

    from cutline.terminal import printable
    from cutline.video.formats import clock

    text = Text(printable(found.source), "cyan")
    if found.summary:
        text.append(f"  {found.summary}", "bold")
    for shot in found.shots:
        text.append(f"\n  {clock(shot.start)} to {clock(shot.end)}", "dim")
        text.append(f"  {shot.caption}")
    return text
