"""Atomic file writes: a file is replaced, or a record appended, as a whole or not at all."""

from __future__ import annotations

import errno
import math
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from cutline.errors import OptionError, OutputError

_PREFIX, _SUFFIX = ".cutline-", ".tmp"


@contextmanager
def replacing(path: Path, *, synced: bool = True, keep_owner: bool = False) -> Iterator[BinaryIO]:
    """Write a file's next content beside it, and put it in place if the block ends well.

    A symbolic link stays one, and a file keeps its mode. What is no regular file, such as
    /dev/null, is written to directly.

    Args:
        path: the file to write; its folder exists.
        synced: whether it must survive a power cut, and not only the end of the process.
        keep_owner: also keep the owner and the extended attributes of the file that is there.

    Raises:
        OSError: the folder or the disk refuses; the old file is unchanged.
        OutputError: the owner cannot be kept; the old file is unchanged.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    target = path.resolve()
    temporary = target.with_name(f"{_PREFIX}{os.getpid()}-{secrets.token_hex(8)}{_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            yield file
            if keep_owner and target.exists():
                _copy_ownership(target, file.fileno())
            if synced:
                file.flush()
                os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def check_replaceable(path: Path) -> None:
    """Check that a file may be replaced, or created, without a surprise for its owner.

    The system would allow to replace a read-only file, and a file with several names would differ
    from its other names afterwards.

    Args:
        path: the file; symbolic links are followed.

    Raises:
        OutputError: the file or its folder is read-only, or the file has several hard links.
        OSError: its status cannot be read.
    """
    target = path.resolve()
    try:
        status = target.stat()
    except FileNotFoundError:
        status = None
    if status is not None and not (status.st_mode & stat.S_IWUSR and os.access(target, os.W_OK)):
        raise OutputError("it is read-only")
    if status is not None and status.st_nlink > 1:
        raise OutputError(f"it has {status.st_nlink} hard links, which a write would separate")
    if not os.access(target.parent, os.W_OK):
        raise OutputError("its folder is read-only")


def _copy_ownership(old: Path, descriptor: int) -> None:
    status = old.stat()
    try:
        os.fchown(descriptor, status.st_uid, status.st_gid)
    except PermissionError as error:
        raise OutputError("it belongs to somebody else; run this as its owner") from error
    with suppress(OSError, AttributeError):  # not every system has or keeps them
        for attribute in os.listxattr(old):
            os.setxattr(descriptor, attribute, os.getxattr(old, attribute))


def remove_leftovers(folder: Path) -> int:
    """Delete the temporary files that killed processes left in a folder and the folders in it.

    Those of a process that still runs stay; so do those without a process in their name that are
    less than an hour old.

    Args:
        folder: hidden folders and node_modules in it are not searched.

    Returns:
        How many files were deleted.
    """
    deleted = 0
    for current, folders, names in os.walk(folder):
        folders[:] = [n for n in folders if not n.startswith(".") and n != "node_modules"]
        for name in names:
            if not (name.startswith(_PREFIX) and name.endswith(_SUFFIX)):
                continue
            file = Path(current, name)
            with suppress(OSError):
                if stat.S_ISREG(file.lstat().st_mode) and _is_leftover(file):
                    file.unlink()
                    deleted += 1
    return deleted


def _is_leftover(file: Path) -> bool:
    process, dash, _ = file.name[len(_PREFIX) :].partition("-")
    if not (dash and process.isdecimal()) or os.name != "posix":
        return time.time() - file.lstat().st_mtime > 3600
    if int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def read_regular(path: Path, *, max_bytes: int | None = None) -> bytes:
    """Read a regular file, without waiting for a pipe or reading a device without end.

    Args:
        path: symbolic links are followed.
        max_bytes: size of the largest file read; None for no limit.

    Raises:
        OSError: it is missing, unreadable, too large, or no regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if max_bytes is not None and status.st_size > max_bytes:
            raise OSError(
                errno.EFBIG, f"got {status.st_size} bytes; expected at most {max_bytes}", str(path)
            )
        content: bytes | None = file.read()
        if content is None:  # a file of /proc that waits for data
            raise OSError(errno.EAGAIN, "not a regular file", str(path))
        return content


def write_whole(path: Path, content: str | bytes, *, synced: bool = True) -> None:
    """Write a file as by `replacing`.

    Raises:
        OutputError: the folder is missing or the disk refuses.
    """
    try:
        with replacing(path, synced=synced) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        refusal = OutputError(f"{path}: {error.strerror}; expected a place to write")
        refusal.errno = error.errno
        raise refusal from error


class AppendFile:
    """Appends records to a file; a record that cannot be written whole is taken back.

    A pipe or a device is written to as well, but keeps what it took.

    Args:
        path: the file, which is created if it is absent.
        keep_bytes: how much of it to keep; None keeps all of it.
        sync_every_s: seconds after which a write also brings the file to the disk, so that it
            survives a power cut; 0 at every write, infinity only at `close`.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self, path: Path, *, keep_bytes: int | None = None, sync_every_s: float = math.inf
    ) -> None:
        self.path = path
        self._sync_every_s = sync_every_s
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._regular = path.is_file()
        self._whole_bytes = 0
        if self._regular:
            if keep_bytes is not None:
                self._file.truncate(keep_bytes)
            self._whole_bytes = self._file.seek(0, os.SEEK_END)
        self._synced_s = time.monotonic()

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; raises as `close` does."""
        self.close()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written so far."""
        return not self._whole_bytes

    def write(self, record: bytes) -> None:
        """Append one record.

        Raises:
            OSError: the disk is full or gone; the file then ends with the record before.
        """
        rest = memoryview(record)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            if time.monotonic() - self._synced_s >= self._sync_every_s:
                self._sync()
        except OSError:
            if self._regular:
                self._file.truncate(self._whole_bytes)
            raise
        self._whole_bytes += len(record)

    def close(self) -> None:
        """Bring the file to the disk and close it.

        Raises:
            OSError: the disk is full or gone; the file is closed.
        """
        with self._file:
            self._sync()

    def _sync(self) -> None:
        if self._regular:
            os.fsync(self._file.fileno())
        self._synced_s = time.monotonic()


def refuse_existing(path: Path, *, resumable: bool = False) -> None:
    """Check that writing to a path replaces nothing: it is absent, empty, or no regular file.

    Args:
        path: where something is to be written.
        resumable: whether `--resume` could continue it.

    Raises:
        OptionError: a file with content exists there.
    """
    if path.is_file() and path.stat().st_size:
        resume = "--resume to continue it, or " if resumable else ""
        raise OptionError(f"got {path}, which exists; add {resume}--force to replace it")
