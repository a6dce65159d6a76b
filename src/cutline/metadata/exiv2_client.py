"""Runs `exiv2_worker` as a process and asks it for one file at a time.

The process is started when it is first needed and serves every later request. If it crashes, the
file it was working on is refused and the next request starts a new process.
"""

from __future__ import annotations

import atexit
import json
import select
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cutline.errors import MetadataError, MissingExtraError

_TIMEOUT_S = 60
Field = tuple[str, str, Any]
"""Key, type, value; the value of a `LangAlt` field is a mapping of languages to texts."""


def read_fields(path: Path) -> list[Field]:
    """Every Exif, IPTC and XMP field of a file.

    Raises:
        MetadataError: exiv2 cannot read it.
        MissingExtraError: exiv2 is not installed.
    """
    answer = _worker.ask(path, {"read": str(path.absolute())})
    return [(key, kind, value) for key, kind, value in answer["fields"]]


def write_fields(path: Path, values: dict[str, Any], *, create: bool = False) -> None:
    """Set fields of a file, in place: a text, a mapping of languages to texts, or None to remove.

    Raises:
        MetadataError: exiv2 cannot write it.
        MissingExtraError: exiv2 is not installed.
    """
    _worker.ask(path, {"write": str(path.absolute()), "set": values, "create": create})


class _Worker:
    """One exiv2 process; safe to use from several threads, which take turns."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        atexit.register(self.close)

    def ask(self, path: Path, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return its answer.

        Raises:
            MetadataError: exiv2 refuses the file, crashes, or takes too long.
        """
        if find_spec("exiv2") is None:
            raise MissingExtraError("metadata in image files", "metadata")
        with self._turn:
            line = self._exchange(path, json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise MetadataError(str(path), f"exiv2: {answer['error']}")
        return answer

    def _exchange(self, path: Path, request: bytes) -> bytes:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            if not select.select([process.stdout], [], [], _TIMEOUT_S)[0]:
                raise MetadataError(str(path), f"exiv2 took longer than {_TIMEOUT_S} s")
            line = process.stdout.readline()
            if line.endswith(b"\n"):
                return line
        except OSError:
            pass
        except MetadataError:
            self.close()
            raise
        code = process.wait()
        self.close()
        raise MetadataError(str(path), f"exiv2 crashed on it (exit code {code})")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cutline.metadata.exiv2_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # exiv2's warnings about odd metadata
                start_new_session=True,  # Ctrl-C ends the command, which then closes this process
            )
        return self._process

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue


_worker = _Worker()
