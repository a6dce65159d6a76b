r"""One image's markup with another alt, and nothing else in it changed. Pure functions.

A start tag is read as the HTML standard's tokenizer reads it (13.2.5, "Tokenization"), but
strictly: where a template language stands between the attributes, or a quote does not close,
nobody can say what the tag will be, and it is refused rather than repaired.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from cutline.errors import OutputError
from cutline.site.model import Kind

TEMPLATE = re.compile(
    r"\{\{[^\n]*?\}\}|\{%[^\n]*?%\}|<\?(?:php\b|=|\s).*?(?:\?>|\Z)|<%.*?%>", re.DOTALL
)
"""What a template language, PHP or ASP puts into a page."""

NAMED = (Kind.SVG, Kind.ROLE_IMG, Kind.OBJECT)
"""The kinds that have an aria-label for an alt."""

_ALT_KINDS = (Kind.IMG, Kind.INPUT, Kind.AREA)
_SPACE = r"\t\n\f\r "  # what HTML counts as white space
_TAG = re.compile(rf"<[A-Za-z][^{_SPACE}/>]*")
_ATTRIBUTE = re.compile(
    rf"""[{_SPACE}/]*([^{_SPACE}/>="'<{{}}]+)"""
    rf"""(?:[{_SPACE}]*=[{_SPACE}]*("[^"]*"|'[^']*'|[^{_SPACE}"'<>{{}}]+|(?=>)))?"""
)
_TAG_END = re.compile(rf"[{_SPACE}/]*>\Z")
_MARKERS = (("{{", "}}"), ("{%", "%}"), ("<?", "?>"), ("<%", "%>"), ("${", "}"))
_BOUND_ALT = re.compile(r"(?:[:.\[*]|ng-attr-|data-th-)(?:alt|aria-label)\]?\Z")
_LABEL_PART = re.compile(r"\\.|`+|\[|\]", re.DOTALL)
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+")
_BREAKS = re.compile("[\t\n\x0b\x0c\r\x85\u2028\u2029]+ *")


@dataclass(frozen=True)
class _Attribute:
    name: str
    end: int
    value: str | None  # raw, without its quotes; None if there is no "="
    value_start: int  # of the value, quotes included
    quote: str


def clean(alt: str) -> str:
    """An alt on one line, without what a file cannot carry: controls, lone surrogates."""
    return _UNWRITABLE.sub("", _BREAKS.sub(" ", alt))


def alt_in(tag: str, kind: Kind) -> str | None:
    """The alt (or aria-label) that a start tag carries, the first one; None if it has none.

    Raises:
        OutputError: the tag cannot be read safely; the message says why.
    """
    for attribute in _attributes(tag):
        if attribute.name.lower() == _attribute_of(kind):
            return html.unescape(attribute.value or "")
    return None


def with_alt(
    markup: str, kind: Kind, alt: str, *, ascii_only: bool = False, in_markdown: bool = False
) -> str:
    """The same markup with this alt.

    An `<svg>`, an `<object>` or an element with role=img is named by aria-label (SVG accessibility
    API mappings 1.0), or hidden by aria-hidden for an alt of "".

    Args:
        markup: a whole start tag, or a whole Markdown image, as it stands in the file.
        kind: which element it is.
        alt: on one line; "" for a decorative image.
        ascii_only: write other characters as numeric references, where the file's encoding is in
            doubt or has no room for them.
        in_markdown: the tag stands in a Markdown file, where a pipe could end a table's cell.

    Raises:
        OutputError: the markup cannot be changed safely; the message says why.
    """
    if kind is Kind.MARKDOWN:
        end = _label_end(markup)
        label, rest = markup[2:end], markup[end + 1 :]
        _refuse_template(label, "alt")
        if rest in ("", "[]"):  # the alt was the reference, too
            rest = f"[{label}]"
        return f"![{_references(_escape_markdown(alt), ascii_only)}]{rest}"

    text = html.escape(alt, quote=False).replace("{{", "{&#123;").replace("{%", "{&#37;")
    if in_markdown:
        text = text.replace("|", "&#124;")
    text = _references(text, ascii_only)
    name = _attribute_of(kind)
    if name == "alt":
        return _with_attribute(markup, name, text)
    names = {attribute.name.lower(): attribute.value for attribute in _attributes(markup)}
    if "aria-labelledby" in names:
        raise OutputError("another element names it (aria-labelledby); change that one by hand")
    if not alt:
        return _with_attribute(markup, "aria-hidden", "true")
    if (names.get("aria-hidden") or "").lower() == "true":
        raise OutputError("it is hidden from screen readers (aria-hidden); take that away by hand")
    if kind is Kind.SVG and (names.get("role") or "") != "img":
        markup = _with_attribute(markup, "role", "img")
    return _with_attribute(markup, name, text)


def _attribute_of(kind: Kind) -> str:
    if kind in _ALT_KINDS:
        return "alt"
    if kind in NAMED:
        return "aria-label"
    what = "a CSS background" if kind is Kind.CSS else "a row of an export"
    raise OutputError(f"{what} has no alt to write; export it as a table instead")


def _attributes(markup: str) -> list[_Attribute]:
    attributes: list[_Attribute] = []
    position = _opening(markup).end()
    while (match := _ATTRIBUTE.match(markup, position)) is not None:
        raw = match[2]
        quote = raw[0] if raw and raw[0] in "\"'" else ""
        value = raw[1:-1] if raw is not None and quote else raw
        attributes.append(_Attribute(match[1], match.end(), value, match.start(2), quote))
        if any((value or "").rfind(opens) > (value or "").rfind(ends) for opens, ends in _MARKERS):
            raise OutputError("template code stands across its quotes, so it cannot be read safely")
        if _BOUND_ALT.search(match[1].lower()):
            raise OutputError(f"a program makes its alt ({match[1]}); change that by hand")
        position = match.end()
    if _TAG_END.match(markup, position) is None:
        rest = markup[position:].strip()
        what = "template code" if TEMPLATE.search(rest) else repr(rest[:20])
        raise OutputError(f"{what} stands between its attributes, so it cannot be read safely")
    return attributes


def _opening(markup: str) -> re.Match[str]:
    opening = _TAG.match(markup)
    if opening is None:
        raise OutputError(f"got {markup[:40]!r}, which is no start tag")
    return opening


def _with_attribute(markup: str, name: str, text: str) -> str:
    """The tag with the first attribute of that name set, added behind the last if need be."""
    attributes = _attributes(markup)
    quote = next((each.quote for each in reversed(attributes) if each.quote), '"')
    for attribute in attributes:
        if attribute.name.lower() != name:
            continue
        _refuse_template(attribute.value or "", name)
        value = _quoted(text, attribute.quote or quote)
        if attribute.value is None:
            return f"{markup[: attribute.end]}={value}{markup[attribute.end :]}"
        return f"{markup[: attribute.value_start]}{value}{markup[attribute.end :]}"
    if attributes and all(each.name.isupper() for each in attributes):
        name = name.upper()
    end = attributes[-1].end if attributes else _opening(markup).end()
    if attributes and attributes[-1].value == "" and not attributes[-1].quote:
        end = _opening(markup).end()  # behind a bare "=", it would become that one's value
    return f"{markup[:end]} {name}={_quoted(text, quote)}{markup[end:]}"


def _refuse_template(value: str, name: str) -> None:
    if any(opens in value for opens, _ in _MARKERS):
        raise OutputError(f"a template makes its {name}; change the template by hand")


def _quoted(text: str, quote: str) -> str:
    return quote + text.replace(quote, "&quot;" if quote == '"' else "&#39;") + quote


def _references(text: str, ascii_only: bool) -> str:
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii") if ascii_only else text


def _escape_markdown(alt: str) -> str:
    """Plain text as Markdown inline text (CommonMark 0.31, 2.4, 2.5; GFM tables, strikethrough)."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", alt).replace("<", "&lt;")
    text = re.sub(r"([\\`*_\[\]~|])", r"\\\1", text)
    return text.replace("{{", r"{\{").replace("{%", r"{\%")


def _label_end(markup: str) -> int:
    """Where the bracket closes that `![` opens: escapes and code are passed over, pairs nest."""
    if not markup.startswith("!["):
        raise OutputError(f"got {markup[:40]!r}, which is no Markdown image")
    depth, position = 0, 1
    while (match := _LABEL_PART.search(markup, position)) is not None:
        position = match.end()
        if match[0] in "[]":
            depth += 1 if match[0] == "[" else -1
            if depth == 0:
                return match.start()
        elif match[0].startswith("`"):
            closing = re.compile(rf"(?<!`){match[0]}(?!`)").search(markup, position)
            position = closing.end() if closing else position
    raise OutputError("its brackets do not close, so it cannot be read safely")
