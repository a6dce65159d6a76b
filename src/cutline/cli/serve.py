"""`cutline serve`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cutline.cli.app import MODELS, app, examples, given
from cutline.errors import OptionError
from cutline.options import ENGINE_FORMS
from cutline.service.settings import Settings, help_of

_MODEL, _THROUGHPUT, _LIMITS, _ACCESS = "Model", "Throughput", "Limits", "Access"

_PLURALS = {
    "allow_host": "hosts",
    "cors_origin": "cors_origins",
    "trusted_proxy": "trusted_proxies",
}


def _setting(panel: str, flag: str, name: str, *, repeatable: bool = False, **options: Any) -> Any:
    """A flag for a field of `Settings`, with its help."""
    text = help_of(name) + (" Repeatable." if repeatable else "")
    return typer.Option(flag, rich_help_panel=panel, show_default=False, help=text, **options)


@app.command(
    epilog=examples(
        "cutline serve",
        "cutline serve --port 9000 --model runs/mine/bundle --rate 600/minute",
        "CUTLINE_SERVE_KEYS=$(openssl rand -hex 16) cutline serve --host 0.0.0.0",
        "curl -F image=@dog.jpg http://127.0.0.1:8000/v1/captions",
    )
)
def serve(
    host: Annotated[str | None, _setting(_ACCESS, "--host", "host")] = None,
    port: Annotated[
        int | None,
        _setting(_ACCESS, "--port", "port", min=0, max=65535),
    ] = None,
    keys_file: Annotated[
        Path | None,
        typer.Option(
            "--keys-file",
            rich_help_panel=_ACCESS,
            show_default=False,
            metavar="FILE",
            help="Read the accepted API keys from this file, one per line.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        _setting(_ACCESS, "--allow-host", "hosts", repeatable=True),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        _setting(_ACCESS, "--cors-origin", "cors_origins", repeatable=True),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        _setting(_ACCESS, "--trusted-proxy", "trusted_proxies", repeatable=True),
    ] = None,
    rate: Annotated[
        str | None,
        _setting(_LIMITS, "--rate", "rate", metavar="N/UNIT"),
    ] = None,
    max_images: Annotated[int | None, _setting(_LIMITS, "--max-images", "max_images")] = None,
    max_body_mb: Annotated[float | None, _setting(_LIMITS, "--max-body-mb", "max_body_mb")] = None,
    max_image_mb: Annotated[
        float | None, _setting(_LIMITS, "--max-image-mb", "max_image_mb")
    ] = None,
    max_megapixels: Annotated[
        float | None, _setting(_LIMITS, "--max-megapixels", "max_megapixels")
    ] = None,
    max_video_s: Annotated[float | None, _setting(_LIMITS, "--max-video-s", "max_video_s")] = None,
    max_video_megapixels: Annotated[
        float | None, _setting(_LIMITS, "--max-video-megapixels", "max_video_megapixels")
    ] = None,
    max_videos: Annotated[int | None, _setting(_LIMITS, "--max-videos", "max_videos")] = None,
    fetch: Annotated[bool | None, _setting(_LIMITS, "--fetch/--no-fetch", "fetch")] = None,
    threads: Annotated[int | None, _setting(_THROUGHPUT, "--threads", "threads")] = None,
    workers: Annotated[int | None, _setting(_THROUGHPUT, "--workers", "workers")] = None,
    batch_size: Annotated[int | None, _setting(_THROUGHPUT, "--batch-size", "batch_size")] = None,
    queue: Annotated[int | None, _setting(_THROUGHPUT, "--queue", "queue")] = None,
    cache: Annotated[int | None, _setting(_THROUGHPUT, "--cache", "cache")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", rich_help_panel=_MODEL, show_default=False, metavar="MODEL", help=MODELS
        ),
    ] = None,
    engine: Annotated[
        str | None,
        _setting(_MODEL, "--engine", "engine", metavar=ENGINE_FORMS),
    ] = None,
    log_format: Annotated[
        str | None,
        _setting(_MODEL, "--log-format", "log_format", metavar="auto|json|text"),
    ] = None,
) -> None:
    """Serve captions over HTTP, with a page to try the service.

    Accepts connections from this machine only, unless you pass --host. Every flag is also an
    environment variable, such as [bold]CUTLINE_SERVE_MAX_BODY_MB[/bold] for --max-body-mb; the
    documentation lists more variables. Flags take precedence over environment variables.

    On Ctrl-C or SIGTERM, the service finishes accepted requests and exits. On SIGHUP, it reloads
    the model without losing requests.

    Exit codes: 0 stopped; 1 could not start; 2 usage error, or the port is taken.
    """
    flags = given(**locals())
    flags.pop("keys_file", None)
    for flag, setting in _PLURALS.items():
        if flag in flags:
            flags[setting] = tuple(flags.pop(flag))
    if keys_file is not None:
        flags["keys"] = _read_keys(keys_file)
    settings = Settings.from_environment(os.environ, flags)
    from cutline.service.server import serve as run

    if not run(settings, notify=lambda text: print(f"cutline: {text}", file=sys.stderr)):
        raise typer.Exit(1)


def _read_keys(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"got --keys-file {path}, which cannot be read: {error}") from error
    stripped = [line.removeprefix("\ufeff").strip() for line in lines]
    keys = tuple(line for line in stripped if line and not line.startswith("#"))
    if not keys:
        raise OptionError(f"got --keys-file {path} without a key; expected one a line")
    return keys
