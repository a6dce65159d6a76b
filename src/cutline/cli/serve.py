"""`cutline serve`."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from cutline.cli.app import MODELS, app, examples, given
from cutline.errors import MissingExtraError, OptionError

_model = partial(typer.Option, rich_help_panel="Model", show_default=False)
_work = partial(typer.Option, rich_help_panel="Throughput", show_default=False)
_limit = partial(typer.Option, rich_help_panel="Limits", show_default=False)
_access = partial(typer.Option, rich_help_panel="Access", show_default=False)


@app.command(
    epilog=examples(
        "cutline serve",
        "cutline serve --port 9000 --model runs/mine/bundle --rate 600/minute",
        "CUTLINE_SERVE_KEYS=$(openssl rand -hex 16) cutline serve --host 0.0.0.0",
        "curl -F image=@dog.jpg http://127.0.0.1:8000/v1/captions",
    )
)
def serve(
    host: Annotated[
        str | None, _access("--host", help="Address to listen on; by default 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None,
        _access("--port", min=0, max=65535, help="Port; by default 8000, 0 is any that is free."),
    ] = None,
    keys_file: Annotated[
        Path | None,
        _access("--keys-file", metavar="FILE", help="API keys, one a line; then one is needed."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        _access("--allow-host", help="A host name to answer to, and no other; repeatable."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        _access("--cors-origin", help="An origin whose pages may call the API; repeatable."),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        _access("--trusted-proxy", help="An address whose X-Forwarded-For is believed."),
    ] = None,
    rate: Annotated[
        str | None,
        _limit("--rate", metavar="N/UNIT", help="Images for each key or address: 60/minute."),
    ] = None,
    max_images: Annotated[
        int | None, _limit("--max-images", help="Images in a request; by default 32.")
    ] = None,
    max_body_mb: Annotated[
        float | None, _limit("--max-body-mb", help="Size of a request, MB; by default 32.")
    ] = None,
    max_image_mb: Annotated[
        float | None, _limit("--max-image-mb", help="Size of an image, MB; by default 16.")
    ] = None,
    max_megapixels: Annotated[
        float | None, _limit("--max-megapixels", help="Size of an image; by default 64.")
    ] = None,
    fetch: Annotated[
        bool | None, _limit("--fetch/--no-fetch", help="Whether images may be given by URL.")
    ] = None,
    threads: Annotated[
        int | None, _work("--threads", help="Pictures worked on at once; by default one a core.")
    ] = None,
    workers: Annotated[
        int | None, _work("--workers", help="Processes, which share the threads; by default 1.")
    ] = None,
    batch_size: Annotated[
        int | None, _work("--batch-size", help="Pictures told together; by default 16.")
    ] = None,
    queue: Annotated[
        int | None, _work("--queue", help="Images waiting, more get 503; by default 256.")
    ] = None,
    cache: Annotated[
        int | None, _work("--cache", help="Answers kept; by default 4096, 0 keeps none.")
    ] = None,
    model: Annotated[
        str | None,
        _model("--model", metavar="MODEL", help=MODELS),
    ] = None,
    engine: Annotated[
        str | None,
        _model("--engine", metavar="auto|onnxruntime|openvino", help="By default auto."),
    ] = None,
    log_format: Annotated[
        str | None,
        _model("--log-format", metavar="auto|json|text", help="auto is text for a terminal."),
    ] = None,
) -> None:
    """Serve captions over HTTP, and a page to try them on, until stopped.

    Only this machine is served unless --host says otherwise. Every setting can also be an
    environment variable, [bold]CUTLINE_SERVE_MAX_BODY_MB[/bold] for --max-body-mb, and some only
    that: docs/service.md lists them. A flag goes before its variable.

    Ctrl-C or SIGTERM answers what was accepted, then ends. SIGHUP loads the model anew; no request
    is lost.

    Exit codes: 0 stopped; 1 it could not start; 2 wrong use, or the port is taken.
    """
    from cutline.backends import is_bundle
    from cutline.bundle import find
    from cutline.runtime import ENGINES

    try:
        import uvicorn

        from cutline.service.logging import log_to_stderr
        from cutline.service.settings import Settings
    except ModuleNotFoundError as error:
        raise MissingExtraError("cutline serve", "serve") from error

    chosen = given(
        host=host,
        port=port,
        keys=None if keys_file is None else _read_keys(keys_file),
        hosts=allow_host and tuple(allow_host),
        cors_origins=cors_origin and tuple(cors_origin),
        trusted_proxies=trusted_proxy and tuple(trusted_proxy),
        rate=rate,
        max_images=max_images,
        max_body_mb=max_body_mb,
        max_image_mb=max_image_mb,
        max_megapixels=max_megapixels,
        fetch=fetch,
        threads=threads,
        workers=workers,
        batch_size=batch_size,
        queue=queue,
        cache=cache,
        model=model,
        engine=engine,
        log_format=log_format,
    )
    settings = Settings.from_environment(os.environ, chosen)
    if is_bundle(settings.model):
        find(settings.model)
    if settings.engine not in ("auto", *ENGINES):
        raise OptionError(f"got engine {settings.engine!r}; expected auto, {' or '.join(ENGINES)}")
    _try_address(settings.host, settings.port)
    os.environ |= settings.to_environment()  # for the workers
    if not settings.loopback and not settings.keys:
        _say(
            f"Warning: {settings.host} can be reached from other machines and no API key is asked "
            "for; set CUTLINE_SERVE_KEYS or --keys-file, or let a reverse proxy guard it."
        )
    elif settings.loopback:
        _say("Only this machine is served; --host 0.0.0.0 opens it to others.")
    log_to_stderr(settings.log_format)
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, _stopped)  # Uvicorn repeats the signal when all is answered
    with TemporaryDirectory(prefix="cutline-") as figures:
        if settings.workers > 1:  # here they put their metrics together
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = figures
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
            raise typer.Exit(1 if end.code else 0) from end


def _read_keys(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"got --keys-file {path}, which cannot be read: {error}") from error
    keys = tuple(line.strip() for line in lines if line.strip() and line[0] != "#")
    if not keys:
        raise OptionError(f"got --keys-file {path} without a key; expected one a line")
    return keys


def _try_address(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, before a model is loaded for it."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OptionError(
                f"got port {port}, which is taken; name another with --port, 0 for any that is free"
            ) from error
        why = str(error.strerror).partition(" (while")[0]
        raise OptionError(
            f"got host {host} and port {port}: {why}; expected an address of this machine and a "
            "port that may be opened on it"
        ) from error


def _say(text: str) -> None:
    print(f"cutline: {text}", file=sys.stderr)


def _stopped(number: int, frame: Any) -> None:
    pass
