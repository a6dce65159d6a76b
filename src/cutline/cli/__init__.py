"""The command line: each command parses, makes one library call and prints."""

from cutline.cli import (
    caption,
    compare,
    data,
    explain,
    metadata,
    metrics,
    models,
    regions,
    serve,
    site,
    site_judge,
    site_review,
    site_wordpress,
    train,
    video,
    watch,
)
from cutline.cli.app import app, main

__all__ = [
    "app",
    "caption",
    "compare",
    "data",
    "explain",
    "main",
    "metadata",
    "metrics",
    "models",
    "regions",
    "serve",
    "site",
    "site_judge",
    "site_review",
    "site_wordpress",
    "train",
    "video",
    "watch",
]
