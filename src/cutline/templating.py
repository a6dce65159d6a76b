"""HTML from templates: every page and report has one look and needs nothing from elsewhere."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

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
    environment.globals["look"] = Markup(asset("look.css"))  # our own file, never a stranger's
    return environment


def _visible(value: Any) -> Any:
    """Escape invisible characters in text that is put into a page: they could reorder it."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value, keep="\t\n\r")
    return value


def asset(name: str) -> str:
    """A file beside the templates as text, such as the style sheet "look.css"."""
    loader = PackageLoader("cutline")
    source, _, _ = loader.get_source(Environment(), name)
    return source


def render(template: str, **content: Any) -> str:
    """The page that a template of `templates/` gives, whatever is put in escaped.

    `look` is there for a page that carries its style: `<style>{{ look }}</style>`.

    Args:
        template: the file's name, such as "report.html".
        content: what the template asks for; one it asks for in vain is an error.
    """
    return _templates().get_template(template).render(**content)


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as a URI that carries them, for pages that are one file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
