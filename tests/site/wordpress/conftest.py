"""A real WordPress for the tests: one for all of them, set back before each."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from real_wordpress import SCRIPT, RealWordPress


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, command, folder],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def _end_with_tests(folder: Path) -> None:
    """End the servers and delete the folder when the test run ends, even if it is killed."""
    run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    wait = 'tail --pid="$1" -f /dev/null; [ -d "$3" ] && "$2" stop "$3" && rm -rf "$3"'
    subprocess.run(
        ["sh", "-c", f"({wait}) </dev/null >/dev/null 2>&1 &", "sh", str(run), SCRIPT, folder],
        start_new_session=True,
        check=True,
    )


@pytest.fixture(scope="session")
def wordpress_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealWordPress]:
    """The site, started by the first worker that needs it and stopped by the last."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    lock, users, place = (shared / f"wordpress.{name}" for name in ("lock", "users", "folder"))
    with _locked(lock):
        if not place.exists():  # its path is short, because it holds a socket
            place.write_text(tempfile.mkdtemp(prefix="cutline-wordpress-"))
            _end_with_tests(Path(place.read_text()))
        folder = Path(place.read_text())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        started = _run("start", folder, PORT=str(port))
        if started.returncode:
            if os.geteuid() == 0:
                pytest.fail(f"scripts/wordpress-demo failed: {started.stderr[-2000:]}")
            pytest.skip(f"there is no WordPress: {started.stderr.strip()[-500:]}")
        users.write_text(str(int(users.read_text()) + 1 if users.exists() else 1))
    yield RealWordPress(folder)
    with _locked(lock):
        left = int(users.read_text()) - 1
        users.write_text(str(left))
        if left == 0:
            _run("stop", folder)
            place.unlink()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def wordpress(wordpress_server: RealWordPress) -> Iterator[RealWordPress]:
    """The site for one test at a time, as the script created it."""
    with _locked(wordpress_server.folder / "test.lock"):
        done = _run("reset", wordpress_server.folder)
        assert done.returncode == 0, done.stderr
        yield wordpress_server
