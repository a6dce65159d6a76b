"""Paths that template code in an image's source stands for, where that is plain to see."""

from __future__ import annotations

import re
from functools import partial

_VARIABLE = re.compile(
    r"(?:\{\{[-~]?\s*(?:site\.url|(?:(?:site|config|page)\.)?(?:base_?url|relative_root|path_?prefix))"
    r"""\s*(?:\|\s*(?:url|safe|escape)\s*)?[-~]?\}\}|\$\{(?:base_?url|baseurl)\})""",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"""\{\{[-~]?\s*(["'])([^"'{}]+)\1\s*(?:\|\s*(?:relative_url|absolute_url|url|relURL|absURL|"""
    r"""prepend:\s*site\.\w+|safe|escape|asset)\s*)*[-~]?\}\}""",
    re.IGNORECASE,
)
_FUNCTION = re.compile(
    r"""\{\{[-~]?\s*(?:relURL|absURL|asset|url|pathto)\s*\(?\s*(["'])([^"'{}]+)\1\s*\)?\s*"""
    r"""(?:\|\s*safe\s*)?[-~]?\}\}""",
    re.IGNORECASE,
)
_LINK = re.compile(r"\{%[-~]?\s*link\s+([^\s%]+)\s*[-~]?%\}")
_STATIC = re.compile(
    r"""\{%[-~]?\s*static\s+(["'])([^"'{}%]+)\1\s*[-~]?%\}"""
    r"""|\{\{[-~]?\s*url_for\(\s*["']static["']\s*,\s*filename\s*=\s*(["'])([^"'{}]+)\3\s*\)"""
    r"""\s*[-~]?\}\}"""
)


_JSX = re.compile(
    r"""\{\s*(?:require|useBaseUrl)\(\s*(["'])([^"'{}]+)\1\s*\)(?:\.default)?\s*\}"""
    r"""|\{\s*(["'`])([^"'`{}]+)\3\s*\}"""
)


def resolve_source(source: str) -> str:
    """The path that a template makes of a source, where that is plain to see.

    The site's base URL counts as the root of the folder. Other template code is left as it is.
    """
    if source.startswith("@site/"):  # Docusaurus: the folder of the website
        return source[5:]
    if "{" not in source:
        return source
    if expression := _JSX.fullmatch(source):
        path = expression[2] or expression[4]
        return resolve_source(path)
    if source.startswith("{") and not source.startswith(("{{", "{%")):
        return ""
    for pattern, group in ((_FILTERED, 2), (_FUNCTION, 2), (_LINK, 1)):
        source = pattern.sub(partial(_rooted_group, group), source)
    source = _STATIC.sub(lambda found: f"/static/{(found[2] or found[4]).lstrip('/')}", source)
    bare = _VARIABLE.sub("", source)
    return _rooted(bare) if bare not in (source, "") else source


def _rooted_group(group: int, found: re.Match[str]) -> str:
    return _rooted(found[group])


def _rooted(path: str) -> str:
    return path if "://" in path[:12] else f"/{path.lstrip('/')}"
