"""`cutline serve`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cutline.cli.app import ENGINE, MODEL, THREADS, app, examples
from cutline.errors import MissingExtraError


@app.command(epilog=examples("cutline serve", "cutline serve --port 9000 --model runs/mine/bundle"))
def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port.")] = 8000,
    model: Annotated[str | None, MODEL] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
) -> None:
    """Serve captions over HTTP."""
    try:
        import uvicorn

        from cutline.web.api import create_app
        from cutline.web.settings import Settings
    except ModuleNotFoundError as error:
        raise MissingExtraError("cutline serve", "serve") from error
    chosen: dict[str, Any] = {"model": model, "engine": engine, "threads": threads}
    uvicorn.run(create_app(Settings(**chosen)), host=host, port=port, http="h11", access_log=False)
