"""The command line: each command parses, makes one library call and prints."""

from cutline.cli import caption, compare, data, explain, metrics, model, serve, site  # noqa: F401
from cutline.cli.app import app, main

__all__ = ["app", "main"]
