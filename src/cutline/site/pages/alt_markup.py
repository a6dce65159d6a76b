"""The alt in an image's markup: the current one, and the same markup with another.

A start tag is read as the HTML standard's tokenizer reads it (13.2.5, "Tokenization"), but
strictly: a tag with template code between its attributes, or with a quote that does not close, is
refused and not repaired.
"""

from __future__ import annotations

import html
import re
from contextlib import suppress
from dataclasses import dataclass

from cutline.errors import OutputError
from cutline.site.model import ImageOccurrence, Kind
from cutline.site.pages.markdown_dialects import (
    alt_in_list,
    split_attribute_list,
    with_alt_in_list,
    without_alt_in_list,
)
from cutline.site.pages.restructured_text import (
    with_alt_in_directive,
    without_alt_in_directive,
)

NAMED = (Kind.SVG, Kind.ROLE_IMG, Kind.OBJECT)
"""The kinds that take an aria-label: HTML gives them no alt attribute."""

_ALT_KINDS = (Kind.IMG, Kind.INPUT, Kind.AREA)
_SPACE = r"\t\n\f\r "  # what HTML counts as white space
_TAG = re.compile(rf"<[A-Za-z][^{_SPACE}/>]*")
_ATTRIBUTE = re.compile(
    rf"""[{_SPACE}/]*([^{_SPACE}/>="'<{{}}]+)"""
    rf"""(?:[{_SPACE}]*=[{_SPACE}]*("[^"]*"|'[^']*'|[^{_SPACE}"'<>{{}}]+|(?=>)))?"""
)
_TAG_END = re.compile(rf"[{_SPACE}/]*>\Z")
_COMMENT = ("{#", "#}")  # not "Room {#12}"
_MARKERS = (("{{", "}}"), ("{%", "%}"), _COMMENT, ("<?", "?>"), ("<%", "%>"), ("${", "}"))
_TEMPLATE = re.compile(r"\{\{|\{%|\{#|<\?|<%|\$\{")
_BOUND_ALT = re.compile(r"(?:[:.\[*]|ng-attr-|data-th-)(?:alt|aria-label)\]?\Z")
_BINDING = re.compile(  # whose value names the attributes that a program sets
    r"(?:data-bind|(?:data-)?th[:-]attr(?:append|prepend)?|(?:data-)?tal[:-]attributes|(?:v|x)-bind)\Z"
)
_ALT_WORD = re.compile(r"\b(?:alt|aria-label)\b", re.IGNORECASE)
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
    """An alt on one line, without what a file cannot hold: controls, lone surrogates."""
    return _UNWRITABLE.sub("", _BREAKS.sub(" ", alt))


def current_alt(occurrence: ImageOccurrence) -> str | None:
    """The current text of an occurrence where an alt would be written; None if it has none.

    For an `<svg>`, an `<object>` or an element with role=img this is its accessible name, "" if
    aria-hidden marks it as decorative.
    """
    if occurrence.kind not in NAMED:
        return occurrence.alt
    if occurrence.name:
        return occurrence.name
    with suppress(OutputError):
        attributes = {each.name.lower(): each.value for each in _attributes(occurrence.markup)}
        if (attributes.get("aria-hidden") or "").strip().lower() == "true":
            return ""
    return None


def has_alt(occurrence: ImageOccurrence, alt: str) -> bool:
    """Whether an occurrence already has this alt in its page, as `with_alt` would write it."""
    alt, there = clean(alt), current_alt(occurrence)
    if occurrence.kind in NAMED:  # white space in names is collapsed
        return there is not None and there == " ".join(alt.split())
    if occurrence.kind is Kind.MARKDOWN:
        return (there or "") == alt
    return there == alt


def alt_in(tag: str, kind: Kind) -> str | None:
    """The alt (or aria-label) of a start tag, the first one; None if it has none.

    Raises:
        OutputError: the tag cannot be read safely; the message gives the reason.
    """
    for attribute in _attributes(tag):
        if attribute.name.lower() == _attribute_of(kind):
            return html.unescape(attribute.value or "")
    return None


def with_alt(
    markup: str,
    kind: Kind,
    alt: str,
    *,
    ascii_only: bool = False,
    in_markdown: bool = False,
    in_quarto: bool = False,
) -> str:
    """The same markup with this alt.

    The text is escaped so that HTML, CommonMark, Python-Markdown, MDX and template engines read the
    same. An `<svg>`, an `<object>` or an element with role=img is named by aria-label (SVG
    accessibility API mappings 1.0), or hidden by aria-hidden for an alt of "".

    Args:
        markup: a whole start tag, a whole Markdown image with its attribute list, or a whole
            directive with its options.
        kind: which element it is.
        alt: on one line; "" for a decorative image.
        ascii_only: write other characters as numeric references, where the file's encoding is
            uncertain or lacks them.
        in_markdown: the tag is in a Markdown file.
        in_quarto: the brackets of a Markdown image are its caption; the alt is an attribute.

    Raises:
        OutputError: the markup cannot be changed safely; the message gives the reason.
    """
    if kind is Kind.EMBED:
        what = "a wiki link" if markup.startswith("![[") else "a shortcode"
        raise OutputError(f"{what} shows it; change its alt by hand")
    if kind is Kind.RST:
        return with_alt_in_directive(markup, alt)
    if kind is Kind.MARKDOWN:
        return _markdown_with_alt(markup, alt, ascii_only, in_quarto)
    text = re.sub(r"[{}]", _numeric, html.escape(alt, quote=False))
    if in_markdown:
        text = re.sub(r"[`\\\[\]|~$]", _numeric, text)
    text = _references(text, ascii_only)
    name = _attribute_of(kind)
    if name == "alt":
        return _with_attribute(markup, name, text)
    names = {attribute.name.lower(): attribute.value for attribute in _attributes(markup)}
    if "aria-labelledby" in names:
        raise OutputError("another element names it (aria-labelledby); change that element by hand")
    if not alt:
        return _with_attribute(markup, "aria-hidden", "true")
    if (names.get("aria-hidden") or "").lower() == "true":
        raise OutputError("it is hidden from screen readers (aria-hidden); remove that by hand")
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
    markers = [each for each in _MARKERS if each != _COMMENT or each[1] in markup]
    while (match := _ATTRIBUTE.match(markup, position)) is not None:
        raw = match[2]
        quote = raw[0] if raw and raw[0] in "\"'" else ""
        value = raw[1:-1] if raw is not None and quote else raw
        attributes.append(_Attribute(match[1], match.end(), value, match.start(2), quote))
        if any((value or "").rfind(opens) > (value or "").rfind(ends) for opens, ends in markers):
            raise OutputError("template code crosses its quotes, so it cannot be read safely")
        name = match[1].lower()
        if _BOUND_ALT.search(name) or (_BINDING.match(name) and _ALT_WORD.search(value or "")):
            raise OutputError(f"a program sets its alt ({match[1]}); change that by hand")
        position = match.end()
    if _TAG_END.match(markup, position) is None:
        rest = markup[position:].strip()
        what = "template code" if _TEMPLATE.search(rest) else repr(rest[:20])
        what = "a JSX expression" if rest.startswith(("={", "{")) and what[0] in "'\"" else what
        raise OutputError(f"{what} is between its attributes, so it cannot be read safely")
    return attributes


def _opening(markup: str) -> re.Match[str]:
    opening = _TAG.match(markup)
    if opening is None:
        raise OutputError(f"got {markup[:40]!r}; expected a start tag")
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
    markers = [each for each in _MARKERS if each != _COMMENT or each[1] in value]
    if any(opens in value for opens, _ in markers):
        raise OutputError(f"a template sets its {name}; change the template by hand")


def _quoted(text: str, quote: str) -> str:
    return quote + text.replace(quote, "&quot;" if quote == '"' else "&#39;") + quote


def _references(text: str, ascii_only: bool) -> str:
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii") if ascii_only else text


def differs_in_alt_only(one: str, other: str) -> bool:
    """Whether two markups are the same start tag or Markdown image with different alts.

    Of a tag also aria-label, aria-hidden="true" and role="img" may differ, which name elements that
    have no alt.
    """
    try:
        if one.startswith("![") and other.startswith("!["):
            return _images_but_for_alt(one, other)
        if one.lstrip().startswith("..") and other.lstrip().startswith(".."):
            return without_alt_in_directive(one) == without_alt_in_directive(other)
        return _tag_but_for_alt(one) == _tag_but_for_alt(other)
    except OutputError:
        return False


def _tag_but_for_alt(tag: str) -> tuple[str, list[tuple[str, str | None]]]:
    kept: list[tuple[str, str | None]] = []
    for each in _attributes(tag):
        name = each.name.lower()
        helper = (name, (each.value or "").lower()) in (("aria-hidden", "true"), ("role", "img"))
        if name not in ("alt", "aria-label") and not helper:
            kept.append((name, each.value))
    if not tag.endswith(">"):
        raise OutputError(f"got {tag[:40]!r}; expected a start tag")
    return _opening(tag)[0].lower(), kept


def _images_but_for_alt(one: str, other: str) -> bool:
    parts = [split_attribute_list(markup) for markup in (one, other)]
    if any(alt_in_list(attributes) is not None for _, attributes in parts):
        bare = [(image, without_alt_in_list(attributes)) for image, attributes in parts]
        return bare[0] == bare[1]
    kept = []
    for image, attributes in parts:
        end = _label_end(image)
        rest = image[end + 1 :]  # where it is missing, the label is the reference
        kept.append((f"[{image[2:end]}]" if rest in ("", "[]") else rest, attributes))
    return kept[0] == kept[1]


def _markdown_with_alt(markup: str, alt: str, ascii_only: bool, in_quarto: bool) -> str:
    image, attributes = split_attribute_list(markup)
    end = _label_end(image)
    if in_quarto or alt_in_list(attributes) is not None:
        _refuse_template(attributes, "alt")
        value = _references(_escape_attribute(alt), ascii_only)
        return image + with_alt_in_list(attributes, value)
    label, rest = image[2:end], image[end + 1 :]
    _refuse_template(label, "alt")
    if rest in ("", "[]"):  # the alt was the reference, too
        rest = f"[{label}]"
    return f"![{_references(_escape_markdown(alt), ascii_only)}]{rest}{attributes}"


def _escape_markdown(alt: str) -> str:
    """Plain text as the label of an image.

    Backslashes only where Python-Markdown knows them, too; numeric references for what extensions
    (tables, strikethrough, superscript, math), MDX and template engines would read, and for
    backticks and "-->", which could close a code span or a comment that begins before the image.
    """
    text = re.sub(r"&(?=#?\w+;)", "&amp;", alt).replace("<", "&lt;")
    text = re.sub(r"(?<=[-?%*/\]])>", "&gt;", text)
    text = re.sub(r"([\\*_\[\]])", r"\\\1", text)
    text = re.sub(r"[`|~{}^]|(?<!\w)@(?=\w)", _numeric, text)
    text = re.sub(r"==|\+\+|::|(?<!\w):(?=[\w+-]+:)", lambda found: _numeric(found), text)
    return text.replace("$", "&#36;") if text.count("$") > 1 else text


def _escape_attribute(alt: str) -> str:
    """Plain text as a quoted value of an attribute list."""
    return re.sub(r"[<>\"'`*_\[\]|~{}\\^$]", _numeric, alt.replace("&", "&amp;"))


def _numeric(found: re.Match[str]) -> str:
    return "".join(f"&#{ord(letter)};" for letter in found[0])


def _label_end(markup: str) -> int:
    """The offset of the bracket that closes `![`; escapes and code are skipped, pairs nest."""
    if not markup.startswith("!["):
        raise OutputError(f"got {markup[:40]!r}; expected a Markdown image")
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
