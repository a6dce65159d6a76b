"""Texts for translation in templates: markup in them is part of the key of their translations."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cutline.site.pages.templates import Span, SpanKind

_WORDS = "blocktrans(?:late)?|trans(?:late)?|t"
_TAG = re.compile(
    rf"""
      \{{%[-~+]?\s*(?P<block>(?:(?:filter|apply)(?=\s+(?:{_WORDS})\b)|{_WORDS}))\b[^%]{{0,500}}%\}}
    | \{{%[-~+]?\s*end(?P<block_end>filter|apply|{_WORDS})\b[^%]{{0,500}}%\}}
    | \{{\{{~?\#\s*(?P<section>{_WORDS}|i18n|_)\b[^{{}}]{{0,500}}\}}\}}
    | \{{\{{~?/\s*(?P<section_end>{_WORDS}|i18n|_)\s*~?\}}\}}
    | \{{(?P<brace>translate|t|_)(?:\s[^{{}}\n]{{0,500}})?\}}
    | \{{/(?P<brace_end>translate|t|_)\}}
    | <(?P<element>Trans|Translate)(?=[\s>])
    | </(?P<element_end>Trans|Translate)\s*>
    """,
    re.VERBOSE,
)


def translated_spans(text: str, spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Where texts for translation are in a template, in order, as pairs of start and end.

    `{% blocktrans %}` of Django, `{% trans %}` of Jinja and Twig, `{{#t}}` of Mustache, `{t}` of
    Smarty and Latte, `<Trans>` of React. A tag without an end, such as `{% trans "x" %}`, is none.

    Args:
        text: a source file.
        spans: in it, as `template_spans` gives them; tags in comments and samples do not count.
    """
    found: list[tuple[int, int]] = []
    begun: dict[tuple[str, str], int] = {}
    at = 0
    for tag in _TAG.finditer(text):
        while at < len(spans) and spans[at].end <= tag.start():
            at += 1
        in_span = at < len(spans) and spans[at].start <= tag.start()
        if in_span and spans[at].kind is not SpanKind.CODE:
            continue
        group = tag.lastgroup or ""
        kind, name = group.removesuffix("_end"), tag[group]
        if group == kind:
            begun[kind, name] = tag.start()
        elif (start := begun.pop((kind, name), None)) is not None:
            found.append((start, tag.end()))
    return sorted(found)
