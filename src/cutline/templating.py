"""Self-contained HTML pages from Jinja templates with a shared style."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from PIL import Image

from cutline.terminal import printable


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("cutline"),
        autoescape=select_autoescape(("html",), default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.globals["look"] = Markup(asset("look.css"))  # trusted: part of the package
    return environment


def _visible(value: Any) -> Any:
    """Escape invisible characters in text that is put into a page: they could reorder it."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value, keep="\t\n\r")
    return value


def asset(name: str) -> str:
    """Read a file beside the templates, such as the style sheet "look.css"."""
    loader = PackageLoader("cutline")
    source, _, _ = loader.get_source(Environment(), name)
    return source


def render(template: str, **content: Any) -> str:
    """Render a template of `templates/`; all content is escaped.

    The variable `look` holds the style sheet: `<style>{{ look }}</style>`.

    Args:
        template: the file's name, such as "report.html".
        content: the template's variables; a missing one is an error.
    """
    return _templates().get_template(template).render(**content)


def data_uri(content: bytes, media_type: str) -> str:
    """Encode bytes as a data URI (RFC 2397), for pages that are one file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def thumbnail(image: Image.Image, side_px: int, *, quality: int = 85) -> tuple[bytes, Image.Image]:
    """Scale an image down for a page.

    Args:
        image: RGB; it is not changed.
        side_px: the longer side of the result; a smaller image keeps its size.
        quality: of the JPEG, 1 to 95.

    Returns:
        A JPEG file, and the scaled image.
    """
    small = image.copy()
    small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=quality)
    return file.getvalue(), small
