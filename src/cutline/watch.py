"""Captioning the images of a folder as they arrive.

    from pathlib import Path
    import cutline
    from cutline.watch import watch

    watch(Path("inbox"), cutline.load(), output=Path("captions.jsonl"))

The folder is listed at intervals. Notifications of the operating system are not used: they do not
report files that another machine writes to a network share, files in many container mounts, and
the files of a folder that is moved in, and they do not say when a file is complete.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from cutline.caption import Caption, Captioner
from cutline.caption_files import CaptionJob, Summary
from cutline.discover import find_images
from cutline.errors import DataError, ImageError, OptionError
from cutline.image import load_image
from cutline.metadata.batch import CaptionWriter
from cutline.options import FileOptions

_TEMPORARY = re.compile(
    r"~.*|.*~|.*\.(part|partial|tmp|crdownload|download|filepart)(\.[^.]+)?", re.IGNORECASE
)


@dataclass(frozen=True)
class WatchOptions:
    """How a folder is watched.

    Raises:
        OptionError: an option is out of its range.
    """

    recursive: bool = True
    """Watch subfolders too."""

    interval_s: float = 1.0
    """Seconds between two listings of the folder."""

    settle_s: float = 2.0
    """Seconds in which the size and the modification time of a file must not change."""

    incomplete_s: float = 60.0
    """Seconds in which they must not change if the file cannot be decoded, because a part of it
    may be missing. Then it is captioned all the same, and the result is an error."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, least in {"interval_s": 0.01, "settle_s": 0, "incomplete_s": 0}.items():
            if not getattr(self, name) >= least:
                raise OptionError(f"got {name} {getattr(self, name)}; expected at least {least}")


def watch(
    folder: Path,
    captioner: Captioner,
    *,
    output: Path,
    options: WatchOptions | None = None,
    metadata: CaptionWriter | None = None,
    on_caption: Callable[[Caption], None] = lambda caption: None,
    uninterrupted: Callable[[], AbstractContextManager[None]] = nullcontext,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Summary:
    """Caption each image of a folder once: those in it, and those that arrive, until stopped.

    An image whose path is in the output is not captioned again, also after a restart. Images that
    failed are tried again after a restart. Paths are compared as they are written, so use the same
    spelling of the folder.

    Args:
        folder: the folder.
        captioner: the model.
        output: a .jsonl or .csv file, created or continued.
        options: None is the default.
        metadata: also writes each caption into its image file, before its row.
        on_caption: called after each image, with its caption or error.
        uninterrupted: a context in which an image's metadata and row are written together.
        is_stopped: asked before each listing; if it returns True, the function returns.

    Raises:
        DataError: there is no such folder.
        OptionError: the output has another format, or was begun with another model.
        OutputError: the output cannot be read or written.
        EngineError: inference failed.
    """
    if output.suffix.lower() not in (".jsonl", ".csv"):
        raise OptionError(f"got output {output}; expected a .jsonl or .csv file")
    if not folder.is_dir():
        raise DataError(f"got {folder}; expected a folder to watch")
    groups = arrivals(folder, options or WatchOptions(), is_stopped)
    files = FileOptions(output=output, resume=True, batch_size=1)
    try:
        job = CaptionJob(groups, files)
    except OptionError:
        if is_stopped():  # before any image arrived
            return Summary()
        raise
    return job.run(captioner, on_caption=on_caption, uninterrupted=uninterrupted, metadata=metadata)


def arrivals(
    folder: Path, options: WatchOptions, is_stopped: Callable[[], bool] = lambda: False
) -> Iterator[list[str]]:
    """The complete images of a folder, each once, in lists of those that are ready together.

    Hidden files, files with temporary names and empty files are ignored until they are renamed or
    filled. A folder that cannot be listed for a while is listed again.

    Args:
        folder: the folder.
        options: how it is watched.
        is_stopped: asked before each listing; if it returns True, the iterator ends.
    """
    waiting: dict[str, _Waiting] = {}
    done: set[str] = set()
    while not is_stopped():
        began_s = time.monotonic()
        ready: list[str] = []
        listed: set[str] = set()
        for file in find_images([folder], options.recursive):
            path = str(file)
            if path in done or _TEMPORARY.fullmatch(file.name):
                continue
            listed.add(path)
            found = waiting.setdefault(path, _Waiting())
            if found.is_ready(file, options):
                ready.append(path)
        for path in waiting.keys() - listed:
            del waiting[path]
        for path in ready:
            done.add(path)
            del waiting[path]
        if ready:
            yield ready
        else:  # a large folder takes at most half of the time
            time.sleep(max(options.interval_s, time.monotonic() - began_s))


@dataclass
class _Waiting:
    """A file that is not known to be complete yet."""

    state: tuple[int, int] | None = None  # size and modification time
    since_s: float = field(default_factory=time.monotonic)
    is_damaged: bool = False  # in this state

    def is_ready(self, file: Path, options: WatchOptions) -> bool:
        """Whether the file has settled and can be decoded, or has not changed for long."""
        now_s = time.monotonic()
        try:
            status = file.stat()
            if not file.is_file() or not status.st_size:
                return False
        except OSError:
            return False
        state = (status.st_size, status.st_mtime_ns)
        if state != self.state:
            self.state, self.since_s, self.is_damaged = state, now_s, False
        unchanged_s = now_s - self.since_s
        if unchanged_s < options.settle_s:
            return False
        if unchanged_s >= options.incomplete_s or time.time() - status.st_mtime > max(
            options.incomplete_s, options.settle_s
        ):
            return True
        if not self.is_damaged:
            self.is_damaged = not _is_complete(file)
        return not self.is_damaged


def _is_complete(file: Path) -> bool:
    try:
        load_image(file)
    except ImageError:
        return False
    return True
