"""`cutline site` once there are drafts: lint, review, write back, hand on, report."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cutline.cli.app import examples, needing, writing
from cutline.cli.site import QUIET, STORE, site
from cutline.cli.site_messages import Steps, print_findings, several, standing
from cutline.cli.site_steps import (
    RECORD,
    Format,
    answer_rows,
    apply_alts,
    command,
    export_record,
    journal_of,
    lint_site,
    opened,
    report_beside,
    write_out,
    write_report,
)
from cutline.errors import OptionError


@site.command(
    epilog=examples("cutline site lint", "cutline site lint --drafts --errors-only --json")
)
def lint(
    store: Annotated[Path, STORE] = RECORD,
    drafts: Annotated[bool, typer.Option("--drafts", help="Also what we suggest.")] = False,
    errors_only: Annotated[
        bool, typer.Option("--errors-only", help="No warnings, no notes.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Check the alts that stand in the pages, by the rules of WCAG.

    Files that were scanned are read as they are now, and lines named; other pages as they were
    crawled.

    Exit codes: 0 no error; 1 at least one error; 2 wrong use.
    """
    with opened(store, there=True) as record:
        crawled = record.setting("crawled_at")
        findings = lint_site(record, drafts=drafts)
        errors = print_findings(findings, errors_only=errors_only, as_json=json)
    if crawled:
        print(f"As crawled at {crawled}; crawl again to see changes.", file=sys.stderr)
    raise typer.Exit(1 if errors else 0)


@site.command(
    epilog=examples(
        "cutline site review",
        "cutline site review --write sheet.csv",
        "cutline site review --read sheet.csv --who Ann",
    )
)
def review(
    store: Annotated[Path, STORE] = RECORD,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open it in a browser.")] = True,
    who: Annotated[
        str | None, typer.Option("--who", help="Who reviews; by default the login's name.")
    ] = None,
    write: Annotated[
        Path | None, writing("--write", metavar="FILE.csv", help="For a spreadsheet instead.")
    ] = None,
    read: Annotated[
        Path | None, writing("--read", metavar="FILE.csv", help="Back from the spreadsheet.")
    ] = None,
    force: Annotated[bool, writing("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Approve, change or refuse suggestions: on a page on this machine, or in a spreadsheet.

    In the spreadsheet, give each row a verdict: approved, edited, decorative or skipped; words in
    approved_alt without a verdict count as edited. What else it says is for reading only.

    Exit codes: 0 done; 1 some rows were not understood; 2 wrong use.
    """
    who = who or _login()
    with opened(store, there=True) as record:
        if write is not None:
            from cutline.site.results.review_csv import write_sheet

            write_out(write, force, partial(write_sheet, record), encoding="utf-8-sig")
            back = command(store, f"review --read {shlex.quote(str(write))}")
            print(f"Fill in verdict or approved_alt, then: {back}", file=sys.stderr)
        elif read is not None:
            from cutline.site.results.review_csv import read_reviews

            sheet = read_reviews(record, read, who)
            record.put_reviews(sheet.reviews)
            for line, problem in sheet.problems:
                print(f"{read}, line {line}: {problem}", file=sys.stderr)
            print(f"{several(len(sheet.reviews), 'review')} taken over.")
            raise typer.Exit(1 if sheet.problems else 0)
        else:
            with needing("site", "cutline site review"):
                from cutline.review.app import serve
            serve(record, port=port, browser=browser, who=who)


@site.command(
    epilog=examples(
        "cutline site apply public/",
        "cutline site apply public/ --write",
        "cutline site apply public/ --patch alts.patch",
    )
)
def apply(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with the pages.")],
    store: Annotated[Path, STORE] = RECORD,
    write: Annotated[bool, writing("--write", help="Write; without it, only show.")] = False,
    patch: Annotated[
        Path | None, writing("--patch", metavar="FILE", help="Write a patch for `git apply`.")
    ] = None,
    overwrite: Annotated[
        bool, writing("--overwrite", help="Also where other words stand now.")
    ] = False,
    fill_empty: Annotated[
        bool, writing("--fill-empty", help='Also where alt="" stands now.')
    ] = False,
    force: Annotated[bool, writing("--force", help="Replace a patch that exists.")] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Write approved alts into the pages; without --write, show what would change.

    Nothing else in a file is touched. Nothing is written where the page changed since it was read,
    or where a person's words stand. `cutline site undo` takes it back.

    Exit codes: 0 all written; 1 some were refused; 2 wrong use.
    """
    with opened(store, there=True) as record, Steps(quiet) as steps:
        failed = apply_alts(
            record,
            root,
            steps,
            write=write,
            patch=patch,
            force=force,
            overwrite=overwrite,
            fill_empty=fill_empty,
        )
    raise typer.Exit(1 if failed else 0)


@site.command(epilog=examples("cutline site undo"))
def undo(
    store: Annotated[Path, STORE] = RECORD,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Take back all that `cutline site apply --write` wrote, however many times it ran.

    A file that was changed by hand since then is left as it is, and the alts that were written
    into it and still stand there are named.

    Exit codes: 0 all taken back; 1 some files were left; 2 wrong use.
    """
    from cutline.site.writeback.apply import undo as take_back
    from cutline.site.writeback.journal import standing as still_there

    with opened(store, there=True) as record, Steps(quiet) as steps:
        journal = journal_of(store)
        if not journal.is_file():
            steps.say("Nothing was written, so there is nothing to take back.")
            return
        outcome = take_back(record, journal, progress=partial(steps.show, "undoing"))
        for path, why in dict.fromkeys(outcome.failed):
            steps.problem(f"{path}: {why}")
            for line, alt in still_there(journal, path):
                steps.problem(f'  {path}:{line}: alt="{alt}"')
        files = several(len(set(outcome.files)), "file")
        if outcome.files:
            steps.say(f"Taken back: {several(outcome.uses, 'alt')} in {files}.")
        elif not outcome.failed:
            steps.say("All that was written is taken back already.")
    raise typer.Exit(1 if outcome.failed else 0)


@site.command(
    epilog=examples(
        "cutline site export -o alts.csv",
        "cutline site export -o alts.json",
        "cutline site export --format wp-cli -o alts.sh",
        "cutline site export --rows images_missing_alt_text.csv -o images_with_alt_text.csv",
    )
)
def export(
    store: Annotated[Path, STORE] = RECORD,
    format: Annotated[
        Format | None, writing("--format", help="By default as the output's name ends, else csv.")
    ] = None,
    output: Annotated[
        Path | None, writing("--output", "-o", metavar="FILE", help="Not to standard output.")
    ] = None,
    rows: Annotated[
        Path | None,
        writing("--rows", metavar="FILE.csv", help="This imported file, new columns beside it."),
    ] = None,
    force: Annotated[bool, writing("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Hand the record on: as a table, as JSON, for WordPress, or as the imported file's rows."""
    ending = output.suffix.lower() if output else ""
    format = format or {".json": Format.JSON, ".sh": Format.WP_CLI}.get(ending, Format.CSV)
    if rows is not None and (output is None or format is not Format.CSV):
        raise OptionError("got --rows; expected --output FILE.csv with it")
    with opened(store, there=True) as record:
        if rows is not None and output is not None:
            answer_rows(record, rows, output, force)
        else:
            export_record(record, format, output, force)
    if output is not None:
        print(f"Exported: {output}", file=sys.stderr)


@site.command(epilog=examples("cutline site report -o report.html", "cutline site report --json"))
def report(
    store: Annotated[Path, STORE] = RECORD,
    output: Annotated[
        Path | None,
        writing("--output", "-o", metavar="FILE.html", help="By default as the record is named."),
    ] = None,
    json: Annotated[bool, writing("--json", help="JSON for machines.")] = False,
    force: Annotated[bool, writing("--force", help="Replace a file that exists.")] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Say how a site stands: coverage before and after, kinds of images, problems, a gallery.

    The report of site.cutline is site-report.html, one file with all in it; an earlier one there is
    replaced.
    """
    from cutline.atomic import refuse_existing

    with opened(store, there=True) as record, Steps(quiet) as steps:
        if output is None and not json:
            output = store.with_name(f"{store.stem}-report.html") if force else report_beside(store)
        elif output is not None and not force:
            refuse_existing(output)
        write_report(record, steps, output, as_json=json)


@site.command(epilog=examples("cutline site status", "cutline site status --json"))
def status(
    store: Annotated[Path, STORE] = RECORD,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say how far a site has come."""
    from dataclasses import asdict
    from json import dumps

    with opened(store, there=True) as record:
        counts = record.counts()
        source = record.setting("start") or ""
    if json:
        print(dumps({"source": source} | asdict(counts), indent=2))
        return
    for line in standing(source, counts):
        print(line)
    step = "review" if counts.drafted or counts.asked else ""
    step = "draft" if counts.found or counts.stale else step
    if step:
        print(f"Next: {command(store, step)}")


def _login() -> str:
    """The login's name; "" where the system knows none, as in some containers."""
    import getpass

    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return ""
