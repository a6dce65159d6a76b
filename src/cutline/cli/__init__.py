"""The command line: each command parses, makes one library call and prints."""

from cutline.cli import (  # noqa: F401
    alts,
    caption,
    compare,
    data,
    explain,
    lab,
    metrics,
    model,
    serve,
    site,
)
from cutline.cli.app import app, main

__all__ = ["app", "main"]
