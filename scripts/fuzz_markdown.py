"""Fuzz reading and writing of Markdown pages against two reference renderers.

    python scripts/fuzz_markdown.py SEED MINUTES

Random pages are read, and random alts are written into them. Checked are: each occurrence is where
the reader says; reading takes bounded time; a write changes the alt of one occurrence in Cutline's
own reading; and what markdown-it (CommonMark with tables) and Python-Markdown render differs only
in that alt. A page that breaks a rule is printed. Pictures that a renderer does not see, because
its dialect takes them for text or code, are counted as "unseen". Needs `markdown`.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import markdown
from markdown_it import MarkdownIt

from cutline.errors import OutputError
from cutline.site.destination import AltChange
from cutline.site.model import ImageOccurrence, Kind
from cutline.site.pages.alt_markup import clean, has_alt
from cutline.site.pages.scan import occurrences_in_markdown
from cutline.site.writeback.locate import PageText

# "~" stands for a space, "@" for the name of an image that occurs once.
PIECES = [
    piece.replace("~", " ") if len(piece) > 1 else piece
    for piece in r"""
    ![](@) ![x](@~"t") ![y~z](<@>) ![y][r] ![r] ![r][] [r]:~r.png ![a*b*](@) ![`c`](@) ![\]](@)
    ![x~[y]](@) ![](@){.a} ![x](@){:~alt="w"} ![](@){fig-alt='w'~#i} ![](@){width=50%}
    <img~src=@> <img~src='@'~alt='z'/> <IMG~SRC="@"~ALT> <img~src=@~alt=a&amp;b~title="x>y">
    <img\nsrc=@\nalt=""> <div> </div> <p> </p> <figure> </figure> <details> <summary>
    <div~markdown> <figure~markdown="1"> <p~markdown="block"> <br> <hr/> <table><tr><td> </table>
    !!!~note ???+~tip~"T" ===~"Tab" ::: :::{figure}~@ [^1] [^1]:~ *[HTML]:~Hyper HTML Term\n:~~~Def
    ``` ~~~~~ `` ` ```html - * + 1. > # ## ###### | --- |---|---| |~a~|~b~| : === ---
    {.a} {:~.a} {#id} {{ }} {{x}} {%~x~%} {%~raw~%} {%~endraw~%} {{<~a~>}} {{%~b~%}} {#~c~#}
    <%~x~%> <?php~x~?> <!-- --> <!--~c~--> <![CDATA[x]]> <script> </script> <style> </style>
    <pre> </pre> <code> </code> <textarea> &amp; &#65; &copy &lt; \ \! \[ \| \` [ ] ( ) ! < > " ' =
    é 日本 👩‍👩‍👧 word long~words~here \r \t \ufeff \x0c \u2028 \u00a0
    [![](@)](/x) [![a](@)~b](<y~z>) [![c](@)][r] <a~href=x> </a> <a~href="y"><img~src=@></a>
    <svg> </svg> <picture> <source~srcset=s.png> </picture> <noscript> </noscript> <template>
    *a* **b** *** _ __ ~~c~~ $x$ $$ ^a^ ==m== ++i++ www.a.org <http://a> :smile: +++ ... ;;;
    title:~x {"a":1} import~a export~b ${x} [x]: [x]:~<y~z>~'t'
    """.split()
]
PIECES = [
    piece.replace(r"\n", "\n")
    .replace(r"\r", "\r")
    .replace(r"\t", "\t")
    .replace(r"\ufeff", "\ufeff")
    .replace(r"\x0c", "\x0c")
    .replace(r"\u2028", "\u2028")
    .replace(r"\u00a0", "\u00a0")
    for piece in PIECES
]
SEPARATORS = ["\n", "\n\n", "\n\n", " ", "", "\n    ", "\n\n    ", "\n  ", "\r\n", "\n> ", "\n- "]
ALTS = [
    "A dog",
    "Tea | Coffee",
    "Room {#12}, {{x}}, {% y %}, about ~5 km, ~~not~~",
    "a`b`c*d*_e_ [f](g) ![h](i.png) \\",
    "<b> & \"q\" 'r' &lt; &amp;copy; <!-- --> -->",
    "$5 and $6, H~2~O, x^2^, ==m==, ++i++, :smile: www.a.org <http://a>",
    "1. One; # two; - three; > four; | --- |",
    "日本 é 👩‍👩‍👧 \u00a0 \u200b",
    'x"y>z{.a}',
    "ends with backslash \\",
    "]",
    "(",
    "",
]
EXTENSIONS = ["extra", "admonition", "sane_lists"]
_UNCLOSED = re.compile(r"<\?(?!.*\?>)|<!(?!--)(?!.*>)", re.DOTALL)
_NAME = re.compile(r"p\d+\.png|r\.png")
_SLOW_S = 2.0  # of processor time, for a page of at most 2,000 characters
_LARGEST_WRITTEN = 4000
_MOST_WRITTEN = 4
_MOST_FAILURES = 30


class _Events(HTMLParser):
    """What an HTML page shows, in order; the alts of its images apart."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._events: list[Any] = []
        self.images: list[tuple[str, str | None]] = []

    def events(self) -> list[Any]:
        """Tags, comments and text; white space collapsed, as a tab's width depends on its place."""
        spaced = (
            " ".join(each.split()) if isinstance(each, str) else each for each in self._events
        )
        return [each for each in spaced if each]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            names = dict(reversed(attrs))
            self.images.append((names.get("src") or "", names.get("alt")))
            attrs = [each for each in attrs if each[0] != "alt"]
        self._events.append((tag, attrs))

    def handle_endtag(self, tag: str) -> None:
        self._events.append(("/" + tag,))

    def handle_data(self, data: str) -> None:
        if self._events and isinstance(self._events[-1], str):
            self._events[-1] += data
        else:
            self._events.append(data)

    def handle_comment(self, data: str) -> None:
        self._events.append(("!", data))

    def handle_decl(self, decl: str) -> None:
        self._events.append(("!", decl))

    def unknown_decl(self, data: str) -> None:
        self._events.append(("!", data))

    def handle_pi(self, data: str) -> None:
        self._events.append(("?", data))


def _shown(html: str) -> _Events:
    parser = _Events()
    parser.feed(html)
    parser.close()
    return parser


def _python_markdown(text: str) -> str:
    return markdown.markdown(text, extensions=EXTENSIONS)


RENDERERS: dict[str, Callable[[str], str]] = {
    "markdown-it": MarkdownIt("commonmark").enable("table").render,
    "python-markdown": _python_markdown,
}


class Fuzzer:
    """Random pages and what is checked in each.

    Attributes:
        counts: of what was done.
        failures: the number of pages that broke a rule.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.failures = 0
        self.slowest = 0.0

    def text(self) -> str:
        """A random page; each image has a name of its own, apart from r.png."""
        pick = self._random
        text = "".join(
            pick.choice(PIECES) + pick.choice(SEPARATORS) for _ in range(pick.randrange(1, 40))
        )
        if pick.random() < 0.02:
            text *= pick.randrange(20, 200)
        numbers = iter(range(len(text)))
        return re.sub("@", lambda _: f"p{next(numbers)}.png", text)

    def step(self) -> None:
        """Make a page and check it; print its smallest part that breaks a rule."""
        text = self.text()
        page = self._random.choice(["a.md", "a.md", "a.md", "a.mdx", "a.qmd"])
        alt = self._random.choice(ALTS)
        self.counts["pages"] += 1
        counts = self.counts.copy()
        if self.failure(text, page, alt) is None:
            return
        self.failures += 1
        shrunk = True
        while shrunk:
            shrunk = False
            lines = re.split(r"(?<=[\n ])", text)
            for at in range(len(lines)):
                shorter = "".join(lines[:at] + lines[at + 1 :])
                if shorter != text and self.failure(shorter, page, alt) is not None:
                    text, shrunk = shorter, True
                    break
        self.counts = counts
        print(
            f"FAILED {page} alt {alt!r}: {text!r}\n    {self.failure(text, page, alt)}", flush=True
        )

    def failure(self, text: str, page: str, alt: str) -> str | None:
        """Why a page breaks a rule when an alt is written into its images; None if it does not."""
        try:
            self._check(text, page, alt)
        except BrokenRuleError as broken:
            return str(broken)
        except Exception:
            return traceback.format_exc()
        return None

    def _check(self, text: str, page: str, alt: str) -> None:
        began = time.process_time()
        _, occurrences = occurrences_in_markdown(text, page=page)
        took = time.process_time() - began
        self.slowest = max(self.slowest, took / (1 + len(text) / 2000))
        _require(took < _SLOW_S * (1 + len(text) / 2000), "slow", took)
        self.counts["occurrences"] += len(occurrences)
        for each in occurrences:
            there = each.offset == -1 or text.startswith(each.markup, each.offset)
            _require(there, "place", each)
        if len(text) > _LARGEST_WRITTEN:
            return
        source = PageText(text.encode("utf-8", "surrogatepass"), Path(page))
        if source.text != text:
            return
        for each in occurrences[:_MOST_WRITTEN]:
            if each.offset >= 0 and each.markup and each.kind is not Kind.CSS:
                self._write(source, page, each, occurrences, alt)

    def _write(
        self,
        source: PageText,
        page: str,
        one: ImageOccurrence,
        before: list[ImageOccurrence],
        alt: str,
    ) -> None:
        try:
            there = source.locate(one, True, lambda: before)
            after = source.with_alt(there.markup, there.kind, clean(alt))
            source.edits([AltChange(1, there, alt)])
        except OutputError:
            self.counts["refused"] += 1
            return
        self.counts["written"] += 1
        start, end = there.offset, there.offset + len(there.markup)
        new = source.text[:start] + after + source.text[end:]
        now = occurrences_in_markdown(new, page=page)[1]
        _require(len(now) == len(before), "number of occurrences", one)
        for was, is_ in zip(before, now, strict=True):
            if was.offset == one.offset:
                _require(has_alt(is_, alt), "own alt", was, is_)
            else:
                same = (was.alt, was.source) == (is_.alt, is_.source)
                _require(same, "another alt", was, is_)
        if page == "a.md" and one.kind in (Kind.MARKDOWN, Kind.IMG):
            self._compare(source.text, new, one, clean(alt), before)

    def _compare(
        self, text: str, new: str, one: ImageOccurrence, alt: str, known: list[ImageOccurrence]
    ) -> None:
        """What the renderers make of a page before and after a write."""
        name = next(iter(re.findall(_NAME, one.source)), "")
        text_images = [found for each in known for found in re.findall(_NAME, each.source)]
        for renderer, render in RENDERERS.items():
            try:
                rendered = render(text)
                before = _shown(rendered)
            except Exception:  # of the renderer, or of html.parser on its output
                self.counts[f"{renderer} failed"] += 1
                continue
            if renderer == "python-markdown" and _UNCLOSED.search(text):
                continue  # Python-Markdown reads on to the end of the page
            if re.search(r"\{[^}]*alt=[^}]*\}(?:\{[^}]*\})*\Z", one.markup) and (
                renderer == "markdown-it" or "fig-alt" in one.markup
            ):
                continue  # the renderer does not read this attribute list
            shown = sum(name == source for source, _ in before.images)
            if not shown or not name or shown != text_images.count(name):
                self.counts[f"{renderer} unseen"] += 1
                continue
            new_html = render(new)
            after = _shown(new_html)
            where = (renderer, one.markup, rendered, new_html)
            _require(after.events() == before.events(), "rendered", *where)
            changed = [
                is_ for was, is_ in zip(before.images, after.images, strict=True) if was != is_
            ]
            _require(all(name == source for source, _ in changed), "another image", *where)
            alts = [now for source, now in after.images if name == source]
            _require(alt in alts, "alt as rendered", alts, *where)
            self.counts[f"{renderer} equal"] += 1


class BrokenRuleError(Exception):
    """A page broke a rule."""


def _require(holds: bool, *what: object) -> None:
    if not holds:
        raise BrokenRuleError("; ".join(str(each) for each in what))


def main() -> None:
    """Fuzz for as long as the command line says; exit status 1 if a page broke a rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("minutes", type=float)
    options = parser.parse_args()
    fuzzer = Fuzzer(options.seed)
    end = time.monotonic() + 60 * options.minutes
    while time.monotonic() < end and fuzzer.failures < _MOST_FAILURES:
        fuzzer.step()
    counts = ", ".join(f"{number} {what}" for what, number in sorted(fuzzer.counts.items()))
    print(f"seed {options.seed}: {counts}; {fuzzer.failures} failed")
    print(f"slowest: {fuzzer.slowest:.3f} s per 2,000 characters")
    sys.exit(fuzzer.failures > 0)


if __name__ == "__main__":
    main()
