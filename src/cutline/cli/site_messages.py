"""What a person sees of the `cutline site` commands: progress, outcomes, how a site stands."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer

if TYPE_CHECKING:
    from cutline.site.model import Finding
    from cutline.site.pipeline import Summary
    from cutline.site.store.store import Counts, StoredUse


class Steps:
    """What a person sees of a run: a bar for each step on a terminal, its outcome in a line.

    Args:
        quiet: only problems.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._step = ""

    def __enter__(self) -> Self:
        """Make a bar ready, if there is a terminal."""
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description:<10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[failed]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True, highlight=False),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, step: str, done: int, total: int | None, failed: int = 0) -> None:
        """A step has come so far."""
        if self._bar is None:
            return
        if step != self._step:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._step = step
            self._task = self._bar.add_task(step, total=total, failed="")
        note = f"{failed} failed" if failed else ""
        self._bar.update(self._task, completed=done, total=total, failed=note)

    def say(self, line: str) -> None:
        """A plain sentence on how a step ended."""
        if not self._quiet:
            self._print(line)

    def problem(self, line: str) -> None:
        """Something that a person should know in any case."""
        self._print(line)

    def _print(self, line: str) -> None:
        from cutline.terminal import printable

        text = printable(line).encode("utf-8", "replace").decode()
        if self._bar is not None:
            self._bar.console.print(text, soft_wrap=True, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """End a stopped command with a word on how to go on; all up to there is kept."""
    from cutline.cli.interrupts import Interrupted, Interrupts

    try:
        with Interrupts():
            yield
    except (Interrupted, KeyboardInterrupt) as stopped:
        print("Stopped; all up to here is kept. To go on: the same command.", file=sys.stderr)
        raise typer.Exit(getattr(stopped, "exit_code", 130)) from stopped


def several(number: int, what: str) -> str:
    """A number and its noun."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def found(images: int, different: int, where: str) -> str:
    """What a search for images has found."""
    apart = f" ({different:,} different)" if different < images else ""
    return f"Found {several(images, 'image')}{apart} {where}"


def drafted(summary: Summary) -> str:
    """What came of a run of drafts."""
    if not (summary.drafts or summary.fetched or summary.failed or summary.uncaptioned):
        return "Nothing left to draft."
    suggested = summary.drafts - summary.asked - summary.kept
    asked = f"{summary.asked:,} {'needs' if summary.asked == 1 else 'need'} your words"
    if summary.abstained:
        asked += f" ({summary.abstained:,} since the captioner was not sure enough)"
    done = [f"{several(summary.fetched, 'picture')} fetched"]
    if summary.failed:
        done.append(f"{summary.failed:,} could not be had")
    if summary.uncaptioned:
        done.append(f"{summary.uncaptioned:,} could not be captioned")
    done.append(f"{summary.captioned:,} captioned")
    kept = f"{summary.kept:,} left as they are"
    if summary.faulty:
        kept += f" ({summary.faulty:,} with errors: cutline site lint --errors-only)"
    return (
        f"{several(summary.drafts, 'image')} decided: {several(suggested, 'suggestion')}, {asked}, "
        f"{kept}. {', '.join(done)}, in {summary.elapsed_s:.1f} s."
    )


def standing(site: str, counts: Counts) -> Iterator[str]:
    """How far a site has come, a line each."""
    reviewed = sum(counts.reviewed.values())
    decided = counts.uses - counts.found
    backgrounds = counts.uses - sum(counts.by_alt.values())

    def kinds(numbers: Mapping[Any, int]) -> str:
        return ", ".join(f"{n:,} {_SAID.get(kind, kind)}" for kind, n in numbers.items() if n)

    def note(number: int, what: str) -> str:
        return f"{number:,} {what}" if number else ""

    rows = [
        ("pages", counts.pages, note(counts.failed_pages, "could not be read")),
        ("images in them", counts.uses, kinds({**counts.by_alt, "css": backgrounds})),
        ("different ones", counts.distinct, note(counts.failed, "could not be had")),
        ("decided", decided, kinds(counts.by_purpose)),
        ("suggested", counts.drafted, "to approve or change" if counts.drafted else ""),
        ("need words", counts.asked, note(counts.abstained, "since the captioner was not sure")),
        ("reviewed", reviewed, kinds(counts.reviewed)),
        ("written", counts.applied, ""),
    ]
    if counts.stale:
        rows.append(("out of date", counts.stale, "would be suggested otherwise today"))
    yield f"{'site':<16}{site}"
    for name, number, more in rows:
        yield f"{name:<16}{number:>7,}  {more}".rstrip()


_SAID = {
    "missing": "without alt",
    "empty": 'with alt=""',
    "whitespace": "with blanks for an alt",
    "present": "with words",
    "css": "in CSS, which takes none",
    "kept": "left as they are",
}


def print_findings(
    findings: Iterable[tuple[str, Finding]], *, errors_only: bool = False, as_json: bool = False
) -> int:
    """Print what lint found, and how much; returns how many errors.

    As JSON it is a line each. For people, what is wrong with one image is a line, also where
    several pages show it.
    """
    from cutline.site.model import Severity
    from cutline.terminal import printable

    number: Counter[str] = Counter()
    told: list[tuple[str, Finding]] = []
    for place, finding in findings:
        number[finding.severity] += 1
        if errors_only and finding.severity is not Severity.ERROR:
            continue
        if as_json:
            use = finding.use
            source = (use.source or use.markup)[:200] if use else ""
            about = {"page": use.page if use else place, "place": place, "source": source}
            about |= {"severity": finding.severity, "rule": finding.rule}
            about |= {"message": finding.message, "reference": finding.reference}
            print(json.dumps(about, ensure_ascii=True))
        else:
            told.append((place, finding))
    for line in _folded(told):
        print(printable(line).encode("utf-8", "replace").decode())
    said = ", ".join(several(number[severity], severity) for severity in Severity)
    print(f"{said}.", file=sys.stderr)
    return number[Severity.ERROR]


def _folded(findings: Iterable[tuple[str, Finding]]) -> Iterator[str]:
    """A line for each gap, though two rules may tell of it, and for each image of many pages."""
    gaps: list[tuple[str, Finding]] = []
    for place, finding in findings:
        last = gaps[-1][1] if gaps else finding
        nameless = last.use is finding.use and last.severity == finding.severity
        if finding.rule == "link-name" and last is not finding and nameless:
            gaps.pop()
            both = f"{last.reference}; {finding.reference}"
            finding = replace(finding, rule=f"{last.rule}, {finding.rule}", reference=both)
        gaps.append((place, finding))

    pages: dict[tuple[Finding, str], dict[str, None]] = {}  # of each, in their order
    lines: list[tuple[str, dict[str, None]]] = []
    for place, finding in gaps:
        by = f" ({finding.reference})" if finding.reference else ""
        use = finding.use
        source = use.source or use.markup if use else ""
        where = f"{source[:80]}: " if source else ""
        line = f"{place}: {finding.severity}: {where}{finding.message}{by} [{finding.rule}]"
        page = use.page if use else place
        same = pages.setdefault((finding, source), {})
        if not same:
            lines.append((line, same))
        elif page == next(iter(same)):
            lines.append((line, {}))
        same[page] = None
    for line, same in lines:
        more = len(same) - 1
        yield line + (f" (also on {several(more, 'other page')})" if more > 0 else "")


def refusals(refused: Sequence[tuple[StoredUse, str]]) -> Iterator[str]:
    """What was not written and why: each by itself, or of many the first for each reason."""
    groups: dict[str, list[str]] = {}
    for each, why in refused:
        line = f"{each.use.page}: {(each.use.source or 'svg')[:80]}: {why}"
        groups.setdefault(why.partition(": ")[0], []).append(line)
    for lines in groups.values():
        shown = lines if len(refused) <= 20 else lines[:1]
        yield from shown
        if len(lines) > len(shown):
            yield f"and {several(len(lines) - len(shown), 'use')} more for the same reason"


def print_diff(diff: str) -> None:
    """A unified diff on a terminal, in colours if it may."""
    if os.environ.get("NO_COLOR"):
        print(diff.encode("utf-8", "replace").decode(), end="")
        return
    from rich.console import Console
    from rich.text import Text

    styles = {"+++": "bold", "---": "bold", "@@": "cyan", "+": "green", "-": "red"}
    console = Console(highlight=False)
    for line in diff.splitlines():
        style = next((styles[mark] for mark in styles if line.startswith(mark)), "")
        console.print(Text(line.encode("utf-8", "replace").decode(), style=style), soft_wrap=True)
