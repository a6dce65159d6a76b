"""Running the service in a Uvicorn server: checks, worker processes, signals."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

from cutline.backends import is_bundle
from cutline.bundle import find
from cutline.errors import MissingExtraError, OptionError
from cutline.runtime import choose_engine
from cutline.service.settings import RENAMED, Settings

PARENT = "_CUTLINE_SERVE_PARENT"
"""The variable that tells worker processes the id of the process that started them."""
_PARENT_POLL_S = 0.5


def serve(settings: Settings, *, notify: Callable[[str], None] = lambda text: None) -> bool:
    """Serve captions over HTTP until SIGINT or SIGTERM; must run on the main thread.

    Sets the environment variables `CUTLINE_SERVE_*`, which worker processes read.

    Args:
        settings: how the service runs.
        notify: called with each message for the person who starts the service.

    Returns:
        Whether the service ended in order; False if it could not start.

    Raises:
        OptionError: the engine is unknown, or the address is taken or not of this machine.
        BundleError: the model is missing or damaged.
        MissingExtraError: `cutline[serve]` is not installed.
    """
    try:
        import uvicorn

        from cutline.service.logging import log_to_stderr
    except ModuleNotFoundError as error:
        raise MissingExtraError("cutline serve", "serve") from error
    if is_bundle(settings.model):
        find(settings.model)
    choose_engine(settings.engine)
    _check_address(settings.host, settings.port)
    if not settings.loopback and not settings.keys:
        notify(
            f"Warning: {settings.host} can be reached from other machines and no API key is "
            "required; set CUTLINE_SERVE_KEYS or --keys-file, or use a reverse proxy that does."
        )
    elif settings.loopback:
        notify("Only this machine is served; --host 0.0.0.0 opens the service to others.")
    log_to_stderr(settings.log_format)
    for renamed in RENAMED:
        os.environ.pop(renamed, None)
    os.environ |= settings.to_environment()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, _ignore)  # Uvicorn raises the signal again once all is answered
    with TemporaryDirectory(prefix="cutline-") as figures:
        if settings.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = figures  # where workers merge their metrics
            os.environ[PARENT] = str(os.getpid())
        try:
            uvicorn.run(
                "cutline.service.app:from_environment",
                factory=True,
                host=settings.host,
                port=settings.port,
                workers=settings.workers,
                http="cutline.service.protocol:Connection",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=list(settings.trusted_proxies),
                timeout_keep_alive=75,
                timeout_graceful_shutdown=int(settings.shutdown_timeout_s),
            )
        except SystemExit as end:
            return not end.code
        finally:
            os.environ.pop(PARENT, None)
    return True


def end_with_parent(shutdown_timeout_s: float) -> None:
    """End this worker process once the process that started it is gone, even if it was killed.

    Otherwise the worker would go on and keep the port. Does nothing outside a worker.

    Args:
        shutdown_timeout_s: how long accepted requests may take before the process is ended.
    """
    parent = int(os.environ.get(PARENT, 0))
    if not parent or os.getpid() == parent:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(shutdown_timeout_s + 5)
        os._exit(1)

    threading.Thread(target=watch, name="cutline-parent", daemon=True).start()


def _check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, before a model is loaded for it."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OptionError(
                f"got port {port}, which is taken; name another with --port, 0 picks a free one"
            ) from error
        why = str(error.strerror).partition(" (while")[0]
        raise OptionError(
            f"got host {host} and port {port}: {why}; expected an address of this machine and a "
            "port that may be opened on it"
        ) from error


def _ignore(number: int, frame: Any) -> None:
    pass
