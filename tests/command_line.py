"""The command line in the process of the tests, for what a process of its own does not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import standin
from typer.testing import CliRunner

from cutline import backends
from cutline.cli import app


@dataclass(frozen=True)
class Done:
    """A command that ended, with bytes as `subprocess.CompletedProcess` has them."""

    returncode: int
    stdout: bytes
    stderr: bytes


def cutline(*words: Any, stdin: bytes = b"", **env: str) -> Done:
    """Run `cutline WORDS` and return its exit code and output."""
    environment = {"NO_COLOR": "1", **env}
    found = CliRunner().invoke(
        app, [*map(str, words)], input=stdin, prog_name="cutline", env=environment
    )
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return Done(found.exit_code, found.stdout_bytes, found.stderr_bytes)


def standin_cutline(*words: Any, stdin: bytes = b"", **env: str) -> Done:
    """Run `cutline WORDS` over the stand-in captioner."""
    load = backends.load
    backends.load = standin.load
    try:
        return cutline(*words, stdin=stdin, **env)
    finally:
        backends.load = load
