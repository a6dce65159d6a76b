"""What the `cutline site` commands print: progress, results, findings and status."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cutline.cli.progress import ProgressBar
from cutline.terminal import printable

if TYPE_CHECKING:
    from cutline.site.lint_workflow import Location
    from cutline.site.model import Finding
    from cutline.site.outcomes import (
        ApplyResult,
        CrawlResult,
        DraftResult,
        ImportResult,
        ScanResult,
        UndoResult,
        WordPressResult,
    )
    from cutline.site.pipeline import Summary
    from cutline.site.store.store import Counts, StoredOccurrence

_MOST = 20  # problems of one kind that are printed


class Steps:
    """Shows the steps of a run: a progress bar on a terminal, and a line for each result.

    Args:
        quiet: print problems only.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self.show = ProgressBar(False if quiet else None)

    def __enter__(self) -> Self:
        """Prepare the progress bar."""
        return self

    def __exit__(self, *error: Any) -> None:
        """Remove the bar."""
        self.show.__exit__(*error)

    def say(self, line: str) -> None:
        """Print a result, unless quiet."""
        if line and not self._quiet:
            self._print(line)

    def problem(self, line: str) -> None:
        """Print a problem."""
        self._print(line)

    def step(self, result: CrawlResult | ScanResult | ImportResult | DraftResult) -> None:
        """Print the result of a step of `cutline site run`."""
        from cutline.site import outcomes

        match result:
            case outcomes.CrawlResult():
                self.crawled(result)
            case outcomes.ScanResult():
                self.scanned(result)
            case outcomes.ImportResult():
                self.imported(result)
            case _:
                self.drafted(result)

    def crawled(self, result: CrawlResult) -> None:
        """Print what a crawl found."""
        for url, error in result.problems[:_MOST]:
            self.problem(f"{url}: {error}")
        if len(result.problems) > _MOST:
            more = several(len(result.problems) - _MOST, "page")
            self.problem(f"and {more} more; the report lists all")
        if result.retired:
            self.say(f"No longer there: {several(result.retired, 'page')}.")
        left = {
            "could not be read": result.failed,
            "excluded by robots.txt": result.forbidden,
            "not requested, because --max-pages is reached": result.waiting,
        }
        notes = "".join(f"; {number:,} {what}" for what, number in left.items() if number)
        where = f"on {several(result.pages, 'page')}"
        pace = result.pages / max(result.seconds, 1e-9)
        line = images_found(result.occurrences, result.images, where)
        self.say(f"{line}{notes}; {pace:.1f} pages per second.")
        self._unread(result.unread)

    def scanned(self, result: ScanResult) -> None:
        """Print what a scan found."""
        for path, error in result.problems:
            self.problem(f"{path}: {error}")
        where = f"in {several(result.pages, 'file')}"
        self.say(f"{images_found(result.occurrences, result.images, where)}.")
        self._unread(result.unread)

    def read_wordpress(self, result: WordPressResult) -> None:
        """Print what a reading of a WordPress site found."""
        if result.continued:
            self.say("Continued an interrupted reading.")
        if result.retired:
            self.say(f"No longer read: {several(result.retired, 'post or image')}.")
        posts, items = several(result.posts, "post"), several(result.library, "image")
        where = f"in {posts} and {items} of the media library"
        self.say(f"{images_found(result.occurrences, result.images, where)}.")
        if number := sum(result.unread.values()):
            self.say(f"Not written by Cutline: {several(number, 'image')}:")
            for what, count in result.unread.items():
                self.say(f"  {count:,}: {what}")

    def _unread(self, unread: Mapping[str, int]) -> None:
        if number := sum(unread.values()):
            kinds = ", ".join(several(count, what) for what, count in unread.items())
            verb = "looks like an image and was" if number == 1 else "look like images and were"
            self.say(f"{several(number, 'more thing')} {verb} not read: {kinds}.")

    def imported(self, result: ImportResult) -> None:
        """Print what an import found."""
        for number, problem in result.problems[:_MOST]:
            self.problem(f"{result.file}, row {number + 1}: {problem}")
        if len(result.problems) > _MOST:
            self.problem(f"{result.file}: and {len(result.problems) - _MOST} more rows")
        where = f"in {several(result.rows, 'row')}"
        self.say(f"{images_found(result.occurrences, result.images, where)}.")

    def drafted(self, result: DraftResult) -> None:
        """Print what a run of drafts produced."""
        for url, error in result.problems:
            self.problem(f"{url[:200]}: {error}")
        if result.blocked:
            self.problem(
                "Only public addresses, the usual ports and the host where the crawl started were "
                "allowed; if you trust where these images are, add --private"
            )
        for reason in result.summary.refusals[:_MOST]:
            self.problem(f"not captioned: {reason}")
        self.say(draft_summary(result.summary))

    def applied(self, result: ApplyResult, store: Path, patch: Path | None) -> None:
        """Print what `cutline site apply` wrote, or would write."""
        for path, why in result.outcome.failed if result.outcome else ():
            self.problem(f"{path}: {why}")
        for line in refusals(result.refused):
            self.problem(line)
        for change in result.changes:
            for note in change.notes if change.edits else ():
                self.say(f"{change.path}: {note}")
        refused = len(result.refused)
        left = f" Not changed: {several(refused, 'image')}, see above." if refused else ""
        if result.alts:
            done, hint = "To be written", " Add --write to write them."
            if patch is not None:
                hint = f" The patch: {patch}"
            elif result.outcome is not None:
                done, hint = "Written", f" To undo: {command(store, 'undo')}"
            alts, files = several(result.alts, "alt"), several(result.files, result.noun)
            self.say(f"{done}: {alts} in {files}.{left}{hint}")
        elif not result.approved:
            self.say(f"Nothing is approved yet: {command(store, 'review')}")
        elif not (result.outcome and result.outcome.failed):
            present = "" if refused else " The pages have every approved alt."
            self.say(f"Nothing to write.{present}{left}")

    def undone(self, result: UndoResult) -> None:
        """Print what `cutline site undo` restored."""
        outcome = result.outcome
        if outcome is None:
            self.say("Nothing was written, so there is nothing to undo.")
            return
        for path, why in dict.fromkeys(outcome.failed):
            self.problem(f"{path}: {why}")
            for line, alt in result.remaining.get(path, ()):
                self.problem(f'  {path}:{line}: alt="{alt}"')
        if outcome.files:
            is_site = any("://" in file for file in outcome.files)
            files = several(len(set(outcome.files)), "page" if is_site else "file")
            self.say(f"Undone: {several(outcome.occurrences, 'alt')} in {files}.")
        elif not outcome.failed:
            self.say("Everything that was written is undone already.")

    def _print(self, line: str) -> None:
        self.show.print(line)


def command(store: Path, name: str) -> str:
    """A command on a store, as a person would type it."""
    named = "" if store == Path("site.cutline") else f" --store {shlex.quote(str(store))}"
    return f"cutline site {name}{named}"


def next_command(store: Path, name: str) -> str:
    """The line that says which command comes next."""
    return f"Next: {command(store, name)}"


def several(number: int, what: str) -> str:
    """A number and its noun."""
    if number == 1:
        return f"{number:,} {what}"
    noun, preposition, rest = what.partition(" in ")
    return f"{number:,} {noun}s{preposition}{rest}"


def images_found(images: int, different: int, where: str) -> str:
    """How many images were found, and where."""
    apart = f" ({different:,} different)" if different < images else ""
    return f"Found {several(images, 'image')}{apart} {where}"


def draft_summary(summary: Summary) -> str:
    """The summary of a run of drafts."""
    if not (summary.drafts or summary.fetched or summary.failed or summary.uncaptioned):
        return "Nothing left to draft."
    suggested = summary.drafts - summary.asked - summary.kept
    asked = f"{summary.asked:,} {'needs' if summary.asked == 1 else 'need'} your words"
    if summary.abstained:
        asked += f" ({summary.abstained:,} because the captioner was not confident enough)"
    done = [f"{several(summary.fetched, 'image')} fetched"]
    if summary.failed:
        done.append(f"{summary.failed:,} could not be fetched")
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


def status_lines(site: str, counts: Counts) -> Iterator[str]:
    """The lines of `cutline site status`."""
    reviewed = sum(counts.reviewed.values())
    decided = counts.uses - counts.found
    backgrounds = counts.uses - sum(counts.by_alt.values())

    def kinds(numbers: Mapping[Any, int]) -> str:
        return ", ".join(f"{n:,} {_LABELS.get(kind, kind)}" for kind, n in numbers.items() if n)

    def note(number: int, what: str) -> str:
        return f"{number:,} {what}" if number else ""

    rows = [
        ("pages", counts.pages, note(counts.failed_pages, "could not be read")),
        ("images in them", counts.uses, kinds({**counts.by_alt, "css": backgrounds})),
        ("distinct", counts.distinct, note(counts.failed, "could not be fetched")),
        ("decided", decided, kinds(counts.by_purpose)),
        ("suggested", counts.drafted, "to approve or change" if counts.drafted else ""),
        (
            "need text",
            counts.asked,
            note(counts.abstained, "with an unsure caption"),
        ),
        ("reviewed", reviewed, kinds(counts.reviewed)),
        ("written", counts.applied, ""),
    ]
    if counts.stale:
        rows.append(("out of date", counts.stale, "would be drafted differently now"))
    yield f"{'site':<16}{site}"
    for name, number, more in rows:
        yield f"{name:<16}{number:>7,}  {more}".rstrip()


_LABELS = {
    "missing": "without alt",
    "empty": 'with alt=""',
    "whitespace": "with only spaces as alt",
    "present": "with text",
    "css": "in CSS, which has no alt",
    "kept": "left as they are",
}


def print_findings(
    findings: Iterable[tuple[str, Finding]], *, errors_only: bool = False, as_json: bool = False
) -> int:
    """Print findings and their number; returns the number of errors.

    As JSON, each finding is a line. As text, each problem of one image is a line, even if several
    pages show it.
    """
    from cutline.site.model import Severity

    number: Counter[str] = Counter()
    printed: list[tuple[str, Finding]] = []
    for place, finding in findings:
        number[finding.severity] += 1
        if errors_only and finding.severity is not Severity.ERROR:
            continue
        if as_json:
            occurrence = finding.occurrence
            source = (occurrence.source or occurrence.markup)[:200] if occurrence else ""
            about = {
                "page": occurrence.page if occurrence else place,
                "place": place,
                "source": source,
            }
            about |= {"severity": finding.severity, "rule": finding.rule}
            about |= {"message": finding.message, "reference": finding.reference}
            print(json.dumps(about, ensure_ascii=True))
        else:
            printed.append((place, finding))
    for line in _folded(printed):
        print(printable(line).encode("utf-8", "replace").decode())
    totals = ", ".join(several(number[severity], severity) for severity in Severity)
    print(f"{totals}.", file=sys.stderr)
    return number[Severity.ERROR]


def print_lint(
    findings: Iterable[tuple[Location, Finding]], form: str, *, errors_only: bool = False
) -> int:
    """Print the findings of files as text, json, sarif or github; returns the number of errors."""
    from cutline.site.model import Severity
    from cutline.site.results.lint_formats import to_github, to_sarif

    if form in ("text", "json"):
        pairs = ((str(location), finding) for location, finding in findings)
        return print_findings(pairs, errors_only=errors_only, as_json=form == "json")
    listed = [each for each in findings if not errors_only or each[1].severity is Severity.ERROR]
    if form == "sarif":
        print(to_sarif(listed))
    else:
        for line in to_github(listed):
            print(printable(line))
    return sum(finding.severity is Severity.ERROR for _, finding in listed)


def _folded(findings: Iterable[tuple[str, Finding]]) -> Iterator[str]:
    """A line for each problem, also where two rules report it or many pages show the image."""
    gaps: list[tuple[str, Finding]] = []
    for place, finding in findings:
        last = gaps[-1][1] if gaps else finding
        nameless = last.occurrence is finding.occurrence and last.severity == finding.severity
        if finding.rule == "link-name" and last is not finding and nameless:
            gaps.pop()
            both = f"{last.reference}; {finding.reference}"
            finding = replace(finding, rule=f"{last.rule}, {finding.rule}", reference=both)
        gaps.append((place, finding))

    pages: dict[tuple[Finding, str], dict[str, None]] = {}  # of each, in their order
    lines: list[tuple[str, dict[str, None]]] = []
    for place, finding in gaps:
        by = f" ({finding.reference})" if finding.reference else ""
        occurrence = finding.occurrence
        source = occurrence.source or occurrence.markup if occurrence else ""
        where = f"{source[:80]}: " if source else ""
        line = f"{place}: {finding.severity}: {where}{finding.message}{by} [{finding.rule}]"
        page = occurrence.page if occurrence else place
        same = pages.setdefault((finding, source), {})
        if not same:
            lines.append((line, same))
        elif page == next(iter(same)):
            lines.append((line, {}))
        same[page] = None
    for line, same in lines:
        more = len(same) - 1
        yield line + (f" (also on {several(more, 'other page')})" if more > 0 else "")


def refusals(refused: Sequence[tuple[StoredOccurrence, str]]) -> Iterator[str]:
    """What was not written and why: each one, or if there are many the first for each reason."""
    groups: dict[str, list[str]] = {}
    for each, why in refused:
        shown_as = each.occurrence.source or each.occurrence.kind
        line = f"{each.occurrence.page}: {shown_as[:80]}: {why}"
        groups.setdefault(why.partition(": ")[0], []).append(line)
    for lines in groups.values():
        shown = lines if len(refused) <= 20 else lines[:1]
        yield from shown
        if len(lines) > len(shown):
            yield f"and {several(len(lines) - len(shown), 'image')} more for the same reason"


def print_diff(diff: str) -> None:
    """Print a unified diff on a terminal, in colours unless NO_COLOR is set."""
    lines = [
        printable(line.removesuffix("\r"), keep="\t").encode("utf-8", "replace").decode()
        for line in diff.removesuffix("\n").split("\n")
        if diff
    ]
    if os.environ.get("NO_COLOR"):
        print("".join(f"{line}\n" for line in lines), end="")
        return
    from rich.console import Console
    from rich.text import Text

    styles = {"+++": "bold", "---": "bold", "@@": "cyan", "+": "green", "-": "red"}
    console = Console(highlight=False)
    for line in lines:
        style = next((styles[mark] for mark in styles if line.startswith(mark)), "")
        console.print(Text(line, style=style), soft_wrap=True)
