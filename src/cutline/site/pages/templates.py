"""Front matter and template code in the source of a page: where they are, and reading around them.

Source files of static site generators and template engines are not yet HTML or Markdown. Front
matter, template comments and code samples hold no images of the page. Template tags and expressions
may hold some, in their arguments, but nothing can be written there: a quote in the text could end
an argument. All functions run in linear time.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class SpanKind(StrEnum):
    """What a part of a source file is, other than page content."""

    FRONT_MATTER = "front matter"
    COMMENT = "template comment"
    SAMPLE = "code sample"
    CODE = "template code"
    MARKDOWN_CODE = "Markdown code"


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a source file.

    Attributes:
        start, end: offsets in the text, the end exclusive.
        kind: what it is.
    """

    start: int
    end: int
    kind: SpanKind


_SAMPLES = (
    "console d2 doc dot fence graphviz highlight javascript katex latex listing literal math"
    " mermaid noformat plantuml pre prism raw schema snippet source sourcecode style stylesheet"
    " terminal verbatim"
)
_COMMENTS = "comment comments"
_NAMES = rf"(?:{'|'.join((*_SAMPLES.split(), *_COMMENTS.split()))})(?![\w/-])|code[\w/-]{{0,50}}"
_CODE_DIRECTIVES = "code code-block code-cell literal math mermaid raw sourcecode"
_TEX = r"(?:[BL]?[Vv]erbatim|lstlisting|minted|alltt|comment)\*?"
_OPENERS = re.compile(
    rf"""
      (?P<fence>^[ \t>]*(?:(?:[-*+]|\d{{1,9}}[.)])[ \t]+)*(?P<marks>`{{3,}}|~{{3,}}))
    | (?P<ticks>`+)
    | (?P<script><(?P<raw>script|style)(?=[\s/>]))
    | (?P<jsx>(?<=[\w-]=)\{{(?!\{{)[^{{}}<>\n]{{0,500}}\}})
    | (?P<esm>^(?:import|export)[ \t{{*])
    | (?P<block>\{{%[-~+]?\s*(?P<name>{_NAMES})[^%]{{0,500}}%\}})
    | (?P<shortcode>\{{\{{(?P<delimiter>[<%])\s*(?P<short>{_NAMES})[^{{}}]{{0,1000}}?[>%]\}}\}})
    | (?P<handlebars>\{{\{{\{{\{{\s*(?P<bars>[\w-]{{1,50}})[^{{}}]{{0,500}}\}}\}}\}}\}})
    | (?P<kramdown>\{{::comment\b[^{{}}\n]{{0,100}}\}})
    | (?P<directive>^[ \t>]*(?P<colons>:{{3,}})\{{(?:{_CODE_DIRECTIVES.replace(" ", "|")})\}})
    | (?P<tex>\\begin\{{(?P<environment>{_TEX})\}})
    | (?P<metadata>^---[ \t]*(?=(?:\r\n?|\n)(?:\#[^\r\n]*(?:\r\n?|\n))*["'\w]))
    | (?P<percents>^[ \t>]*%%(?=[ \t]*$|[^%\n]+%%))
    | (?P<opener>
        \{{\{{[<%]/\* | \{{\{{[-~]?\s*/\* | \{{\{{~?!-- | \{{\{{-- | \{{\{{~?! | \{{\# | <%-- | <%\#
      | <\#-- | <%doc> | <%!-- | \{{!! | \[% | [{{@\#]\*(?=\s) | \{{%[-~]?\s*\# | \{{/\*
      | \{{\{{< | \{{\{{% | \{{\{{\{{ | \{{\{{ | \{{% | <\?(?:php\b|=|(?=\s)) | <%
      )
    """,
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)
_CLOSERS = {  # what ends a comment, by how it begins
    "{{</*": "*/>}}",
    "{{%/*": "*/%}}",
    "{{--": "--}}",
    "{{!": "}}",
    "{{~!": "}}",
    "{#": "#}",
    "<%--": "--%>",
    "<%#": "%>",
    "<%!--": "--%>",
    "{*": "*}",
    "@*": "*@",
    "#*": "*#",
    "<#--": "-->",
    "<%doc>": "</%doc>",
    "{/*": "*/}",
}
_CODE_CLOSERS = {
    "{{<": ">}}",
    "{{%": "%}}",
    "{{{": "}}}",
    "{{": "}}",
    "{%": "%}",
    "<%": "%>",
    "{!!": "!!}",
    "[%": "%]",
}
_NOT_IN_MARKDOWN = ("[%", "{*", "@*", "#*")  # of Template Toolkit, Smarty, Razor, Velocity
_HEADING_ID = re.compile(r"\{#[\w:.-]+[ \t]*[}.]")
_METADATA = re.compile(  # a value of YAML does not begin with "![", so that is Markdown
    r"""
    ---[ \t]*+
    (?:
      (?:[ \t]*+(?:\r\n?|\n))++  # with blank lines, but not before the end
      (?!(?:---|\.\.\.)[ \t]*+(?:[\r\n]|\Z))
      (?:["'\w][^\r\n:]{0,60}:(?!\S|[ \t]+!\[) | [ \t]+(?!-[ \t]+!\[)\S | -[ \t]+(?!!\[) | \#)
      [^\r\n]*+
    )++
    (?:\r\n?|\n)(?:---|\.\.\.)[ \t]*+(?=[\r\n]|\Z)
    """,
    re.VERBOSE,
)
_BLANK_LINE = re.compile(r"(?:\r\n|\r|\n)[ \t>]*(?=\r|\n|\Z)")


class _Scanner:
    """Finds the spans of one text from left to right."""

    def __init__(self, text: str, begin: int, markdown: bool, mdx: bool) -> None:
        self._text, self._begin, self._markdown, self._mdx = text, begin, markdown, mdx
        self._absent: set[str] = set()  # closers that do not occur any more
        self._runs: dict[int, list[int]] = {}  # of backticks: starts by length
        self._blank: list[int] = []
        if markdown:
            for run in re.finditer("`+", text):
                self._runs.setdefault(len(run[0]), []).append(run.start())
            self._blank = [found.start() for found in _BLANK_LINE.finditer(text)]

    def spans(self) -> Iterator[Span]:
        text, position = self._text, self._begin
        while found := _OPENERS.search(text, position):
            end, kind = self._close(found)
            if end <= found.start():
                position = found.start() + self._skipped(found)
                continue
            if kind:
                yield Span(found.start(), end, kind)
            position = end

    def _skipped(self, found: re.Match[str]) -> int:
        """How much to pass over of what opens nothing."""
        if found["fence"] or found["ticks"]:
            return len(found[0])
        return 2 if found["opener"] or found["block"] or found["shortcode"] else 1

    def _close(self, found: re.Match[str]) -> tuple[int, SpanKind | None]:
        """Where a thing that begins ends, -1 if it does not; and what it is, None for nothing."""
        if found["fence"] or found["ticks"]:
            if not self._markdown:
                return -1, None
            end = self._fence_end(found) if found["fence"] else self._ticks_end(found)
            return end, SpanKind.MARKDOWN_CODE
        if found["script"]:
            return self._find(f"</{found['raw'].lower()}", found.end(), any_case=True), None
        if found["jsx"]:
            return found.end() if self._markdown else -1, SpanKind.CODE
        if found["esm"]:
            return (self._block_end(found.start()), SpanKind.CODE) if self._mdx else (-1, None)
        if found["kramdown"]:
            ends = (self._find(each, found.end()) for each in ("{:/comment}", "{:/}"))
            return min((each for each in ends if each >= 0), default=-1), SpanKind.COMMENT
        if found["tex"] or found["metadata"] or found["directive"] or found["percents"]:
            if not self._markdown:
                return -1, None
            if found["tex"]:
                end = self._find(rf"\end{{{found['environment']}}}", found.end())
                return end, SpanKind.SAMPLE
            if found["metadata"]:
                return self._metadata_end(found.start()), SpanKind.FRONT_MATTER
            if found["percents"]:
                return self._find("%%", found.end()), SpanKind.COMMENT
            return self._marked_end(found["colons"], found.end()), SpanKind.SAMPLE
        for group in ("name", "short", "bars"):
            if found[group]:
                return self._paired(found, group)
        return self._delimited(found)

    def _paired(self, found: re.Match[str], group: str) -> tuple[int, SpanKind | None]:
        name = found[group].lower()
        kind = SpanKind.COMMENT if name in _COMMENTS.split() else SpanKind.SAMPLE
        if group == "name":
            closer = rf"\{{%[-~+]?\s*end{re.escape(name)}\b[^%]*%\}}"
        elif group == "short":
            closer = rf"\{{\{{[<%]\s*/\s*{re.escape(name)}\s*[>%]\}}\}}"
        else:
            closer = rf"\{{\{{\{{\{{\s*/\s*{re.escape(name)}\s*\}}\}}\}}\}}"
        if closer not in self._absent:
            end = re.compile(closer, re.IGNORECASE).search(self._text, found.end())
            if end:
                return end.end(), kind
            self._absent.add(closer)
        return found.end(), SpanKind.CODE  # a tag without an end, such as an include

    def _delimited(self, found: re.Match[str]) -> tuple[int, SpanKind | None]:
        opener, start = found["opener"].lower(), found.start()
        if opener.startswith("<?"):
            end = self._find("?>", found.end())
            return len(self._text) if end < 0 else end, SpanKind.CODE
        if opener == "{#" and _HEADING_ID.match(self._text, start):
            return -1, None
        if opener == "{/*" and not self._markdown:
            return -1, None
        if opener in _NOT_IN_MARKDOWN and self._markdown:
            return -1, None
        bare = re.sub(r"[\s~-]", "", opener) if opener.endswith(("/*", "#")) else opener
        if bare == "{{/*":
            return self._go_type_comment(found.end()), SpanKind.COMMENT
        if bare == "{%#":
            return self._find("%}", found.end()), SpanKind.COMMENT
        if opener in ("{{!--", "{{~!--"):
            ends = (self._find(each, found.end()) for each in ("--}}", "--~}}"))
            return min((each for each in ends if each >= 0), default=-1), SpanKind.COMMENT
        if opener in _CLOSERS:
            return self._find(_CLOSERS[opener], found.end()), SpanKind.COMMENT
        end = self._find(_CODE_CLOSERS[opener], found.end())
        if end < 0 and opener in ("{{<", "{{%", "{{{"):  # "{{%d}}" and the like
            end = self._find("}}", found.end())
        return end, SpanKind.CODE

    def _go_type_comment(self, begin: int) -> int:
        end = self._find("*/", begin)
        return self._find("}}", end) if end >= 0 else -1

    def _find(self, closer: str, begin: int, any_case: bool = False) -> int:
        """Where a closer ends; -1 if there is none. A closer is sought in vain only once."""
        if closer in self._absent:
            return -1
        if any_case:
            found = re.compile(re.escape(closer), re.IGNORECASE).search(self._text, begin)
            at = found.start() if found else -1
        else:
            at = self._text.find(closer, begin)
        if at < 0:
            self._absent.add(closer)
            return -1
        return at + len(closer)

    def _fence_end(self, found: re.Match[str]) -> int:
        marks = found["marks"]
        line_end = self._text.find("\n", found.end())
        if line_end < 0:
            return -1
        if marks[0] == "`" and "`" in self._text[found.end() : line_end]:
            return -1  # an inline code span
        return self._marked_end(marks, line_end)

    def _marked_end(self, marks: str, begin: int) -> int:
        """Where a line of at least as many of the same marks ends; -1 if there is none."""
        closer = rf"^[ \t>]*{re.escape(marks[0])}{{{len(marks)},}}[ \t]*$"
        if closer in self._absent:
            return -1
        end = re.compile(closer, re.MULTILINE).search(self._text, begin)
        if end is None:
            self._absent.add(closer)
            return -1
        return end.end()

    def _ticks_end(self, found: re.Match[str]) -> int:
        length = len(found["ticks"])
        if self._text[found.start() - 1 : found.start()] == "\\" and length == 1:
            return -1
        starts = self._runs.get(length, [])
        after = bisect_right(starts, found.start())
        if after == len(starts):
            return -1
        blank = bisect_left(self._blank, found.start())
        if blank < len(self._blank) and self._blank[blank] < starts[after]:
            return -1
        return starts[after] + length

    def _metadata_end(self, start: int) -> int:
        """Where a block of metadata ends, as Pandoc and Slidev have them anywhere in a page."""
        before = re.split(r"\r\n?|\n", self._text[max(0, start - 200) : start])
        if len(before) < 2 or before[-2].strip():
            return -1
        found = _METADATA.match(self._text, start)
        return found.end() if found else -1

    def _block_end(self, start: int) -> int:
        blank = bisect_left(self._blank, start)
        before = self._blank[blank - 1] if blank else -1
        if self._text[before + 1 : start].strip() and start > self._begin:
            return -1  # in the middle of a paragraph
        return self._blank[blank] if blank < len(self._blank) else len(self._text)


def template_spans(
    text: str, *, markdown: bool = False, mdx: bool = False, front_matter: bool = True
) -> list[Span]:
    """Front matter, template comments, code samples and template code, in order, apart.

    Args:
        text: a source file.
        markdown: whether it is Markdown; its code spans and fenced code blocks are spans, too.
        mdx: whether it is MDX; its imports, exports and comments are spans, too.
        front_matter: whether it may begin with front matter.
    """
    end = front_matter_end(text, markdown=markdown) if front_matter else 0
    matter = [Span(0, end, SpanKind.FRONT_MATTER)] if end else []
    return [*matter, *_Scanner(text, end, markdown or mdx, mdx).spans()]


# Front matter

_FENCED_MATTER = re.compile(
    r"\ufeff?(\s*\n|%YAML[^\n]*\n)?(---|\+\+\+|;;;)[ \t]*([a-z]*)[ \t]*(?:#[^\r\n]*)?(?:\r\n?|\n)"
)
_MATTER_ENDS = {
    "---": re.compile(r"^(?:---|\.\.\.)[ \t]*(?=\r|\n|\Z)", re.MULTILINE),
    "+++": re.compile(r"^\+\+\+[ \t]*(?=\r|\n|\Z)", re.MULTILINE),
    ";;;": re.compile(r"^;;;[ \t]*(?=\r|\n|\Z)", re.MULTILINE),
}
_YAML_LINE = re.compile(r"""(?:[\w"'$@&*<.][^\r\n]*:(?:[ \t]|$)|[#\-{%\[]|\?[ \t])""", re.MULTILINE)
_BARE_MATTER = re.compile(
    r"\ufeff?(?:title|layout|date|authors?|tags|categor(?:y|ies)|description|summary|template|slug"
    r"|lang|permalink):[ \t]*\S[^\r\n]*(?:\r\n?|\n)"
    r"(?:(?:[A-Za-z][\w -]*:|[ \t]+\S|- )[^\r\n]*(?:\r\n?|\n))*"
    r"(?:---[ \t]*(?=\r|\n|\Z)|(?=\r|\n|\Z))",
    re.IGNORECASE,
)
_LOOSE_JSON = re.compile(  # with comments or a comma too many
    r"""\ufeff?\{[ \t]*\n(?:[ \t]*(?://[^\n]*)?\n)*[ \t]*["']?[\w$-]+["']?[ \t]*:"""
    r"""[^\0]*?^\}[ \t]*(?=\n|\Z)""",
    re.MULTILINE,
)
_TITLE_BLOCK = re.compile(r"\ufeff?%[ \t]+[^\n]*(?:\n(?:%|[ \t]+\S)[^\n]*)*(?=\n|\Z)")


def front_matter_end(text: str, *, markdown: bool = False) -> int:
    """Where front matter ends that a file begins with; 0 if it begins with none.

    YAML between `---` and `---` or `...`, TOML between `+++`, JSON in braces or between `;;;`, with
    the name of the language behind the first mark or not; in Markdown also the metadata of
    MultiMarkdown and Hexo, which has no mark in front, and Pandoc's title block.
    """
    # A carriage return alone ends a line, too, but not for "^".
    lined = text.replace("\r\n", " \n").replace("\r", "\n") if "\r" in text[:4096] else text
    if fence := _FENCED_MATTER.match(lined):
        end = _MATTER_ENDS[fence[2]].search(lined, fence.end())
        if end is None:
            return 0
        fields = lined[fence.end() : end.start()].strip()
        bare = not fields and not fence[1]
        looks_like = fence[2] != "---" or fence[3] or bare or _YAML_LINE.match(fields)
        return end.end() if looks_like else 0
    begin = int(text.startswith("\ufeff"))
    if text.startswith("{", begin):
        _, end_at = _json_at(text, begin)
        loose = None if end_at else _LOOSE_JSON.match(lined)
        return loose.end() if loose else end_at
    if markdown and (matter := _BARE_MATTER.match(lined) or _TITLE_BLOCK.match(lined)):
        return matter.end()
    return 0


def front_matter_field(matter: str, *names: str) -> str:
    """A text field of front matter; "" if it has none of these names."""
    text = matter.removeprefix("\ufeff")
    fields, end = _json_at(text, 0) if text.startswith("{") else ({}, 0)
    if end:
        return next((one for name in names if isinstance(one := fields.get(name), str)), "")
    for name in names:
        found = re.search(
            rf"""^{name}[ \t]*[:=][ \t]*(["']?)(.*?)\1[ \t]*$""",
            "\n".join(text.splitlines()),
            re.MULTILINE | re.IGNORECASE,
        )
        if found:
            return found[2]
    return ""


def _json_at(text: str, begin: int) -> tuple[dict[str, Any], int]:
    """A JSON object and where it ends; nothing and 0 if there is none."""
    try:
        fields, end = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        return {}, 0
    line_end = re.compile(r"[ \t]*(?=\r|\n|\Z)").match(text, end)
    return (fields, end) if line_end and isinstance(fields, dict) and fields else ({}, 0)


# Reading around them

_LEAST, _DIGITS = 3, 4096
_PLANES = (0xF0000, 0x100000)  # private use
_HAS_IMAGE = re.compile(r"<[A-Za-z]|!\[")
_NOT_LINE_END = re.compile(r"[^\r\n]")


class Protected:
    """A source text that can be read as HTML or Markdown, and the way back.

    Attributes:
        text: of the same length, with lines of the same lengths: front matter, comments and samples
            are blank, and template code that holds no image is replaced by private characters.
        spans: as `template_spans` gives them.
    """

    def __init__(self, source: str, spans: Sequence[Span]) -> None:
        self.spans = list(spans)
        self._codes: list[str] = []
        base = next((p for p in _PLANES if not _private(p).search(source)), None)
        self._base = base or 0
        pieces, reached = [], 0
        for span in spans:
            part = source[span.start : span.end]
            if span.kind is SpanKind.CODE:
                inner = part[3:-3] if part.startswith("{{<") else part[2:-2]
                if base is None or _HAS_IMAGE.search(inner):
                    continue
                part = self._opaque(part)
            elif span.kind is not SpanKind.MARKDOWN_CODE:
                part = _NOT_LINE_END.sub(" ", part)
            else:
                continue
            pieces += [source[reached : span.start], part]
            reached = span.end
        self.text = "".join([*pieces, source[reached:]])
        lead, first, filler = (chr(self._base + n) for n in (0, 1, _DIGITS + 1))
        digit = f"[{first}-{chr(self._base + _DIGITS)}]"
        self._code = re.compile(rf"{lead}({digit})({digit})(?:\s*{filler}+)*")
        self._rest = _private(self._base)

    def restore(self, text: str) -> str:
        """Text with the template code that it has in the source."""
        if not self._codes or not self._rest.search(text):
            return text
        return self._rest.sub("", self._code.sub(self._original, text))

    def code_at(self, text: str, position: int) -> tuple[str, int] | None:
        """The template code at a position of a part of `text`, and where it ends there."""
        found = self._code.match(text, position) if self._codes else None
        return (self._original(found), found.end()) if found else None

    @property
    def code_mark(self) -> str:
        """The character with which replaced template code begins."""
        return chr(self._base)

    def _opaque(self, code: str) -> str:
        filler = chr(self._base + _DIGITS + 1)
        opaque = _NOT_LINE_END.sub(filler, code)
        head = code[:_LEAST]
        number = len(self._codes)
        if len(head) < _LEAST or "\n" in head or "\r" in head or number >= _DIGITS**2:
            return opaque
        self._codes.append(code)
        digits = (chr(self._base + 1 + digit) for digit in divmod(number, _DIGITS))
        return chr(self._base) + "".join(digits) + opaque[_LEAST:]

    def _original(self, found: re.Match[str]) -> str:
        high, low = (ord(found[n]) - self._base - 1 for n in (1, 2))
        number = high * _DIGITS + low
        return self._codes[number] if number < len(self._codes) else ""


def _private(base: int) -> re.Pattern[str]:
    return re.compile(f"[{chr(base)}-{chr(base + _DIGITS + 1)}]")
