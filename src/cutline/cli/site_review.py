"""`cutline site` after the drafts: lint, review, apply, undo, export, report, status."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from cutline.cli.app import examples, needing, writing
from cutline.cli.site import DEFAULT_STORE, PASSWORD_FILE, QUIET, STORE, USER, site
from cutline.cli.site_messages import (
    Steps,
    command,
    next_command,
    print_diff,
    print_findings,
    print_lint,
    several,
    status_lines,
)
from cutline.errors import OptionError
from cutline.terminal import printable

if TYPE_CHECKING:
    from cutline.site.destination import Destination
    from cutline.site.store.store import Counts


class Format(StrEnum):
    """The formats of `cutline site export`."""

    CSV = "csv"
    JSON = "json"
    WP_CLI = "wp-cli"


class LintFormat(StrEnum):
    """The formats of `cutline site lint`."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


class Target(StrEnum):
    """What `cutline site apply` writes in a WordPress site."""

    LIBRARY = "library"
    CONTENT = "content"
    BOTH = "both"


TO = typer.Option(
    "--to",
    rich_help_panel="WordPress",
    show_default=False,
    help="Write into the media library, the content of posts, or both. Default: both.",
)
DEFAULT_BASELINE = Path("cutline-lint.json")


@site.command(
    epilog=examples(
        "cutline site lint",
        "cutline site lint public/ --errors-only",
        "cutline site lint docs/ --format sarif > lint.sarif",
        "cutline site lint docs/ --changed-since origin/main --format github",
        "cutline site lint docs/ --baseline lint.json --write-baseline",
    )
)
def lint(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Files or folders to check without a store."),
    ] = None,
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    drafts: Annotated[bool, typer.Option("--drafts", help="Check the drafts too.")] = False,
    errors_only: Annotated[
        bool, typer.Option("--errors-only", help="Print no warnings and no notes.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    format_: Annotated[
        LintFormat, writing("--format", help="text, json, sarif or github (annotations).")
    ] = LintFormat.TEXT,
    changed_since: Annotated[
        str,
        typer.Option(
            "--changed-since",
            metavar="REV",
            help="Check only files changed since this git revision.",
        ),
    ] = "",
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline", metavar="FILE", help="File of known findings, which are not reported."
        ),
    ] = None,
    write_baseline: Annotated[
        bool, typer.Option("--write-baseline", help="Write all findings to the baseline file.")
    ] = False,
) -> None:
    """Check the alt texts in pages against WCAG.

    With PATH, check these pages, books and documents. Without PATH, check the pages of the store:
    scanned files in their current state, other pages as they were crawled.

    Exit codes: 0 no errors; 1 at least one error; 2 usage error.
    """
    from cutline import site as library

    form = LintFormat.JSON if json else format_
    if not paths and (changed_since or baseline or form in (LintFormat.SARIF, LintFormat.GITHUB)):
        raise OptionError("--format sarif or github, --changed-since and --baseline need a PATH")
    with needing("site", "cutline site"):
        if paths:
            found = library.lint_files(paths, changed_since=changed_since)
            if write_baseline:
                number = library.Baseline.write(target := baseline or DEFAULT_BASELINE, found)
                print(f"{several(number, 'finding')} written to {target}.", file=sys.stderr)
                raise typer.Exit(0)
            known = library.Baseline.read(baseline) if baseline else library.Baseline()
            errors = print_lint(known.new(found), form, errors_only=errors_only)
            raise typer.Exit(1 if errors else 0)
        with library.open_store(store, must_exist=True) as opened:
            crawled = opened.setting("crawled_at")
            findings = library.lint(opened, drafts=drafts)
            errors = print_findings(
                findings, errors_only=errors_only, as_json=form is LintFormat.JSON
            )
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
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port of the page; 0 picks a free one.")
    ] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    who: Annotated[
        str | None, typer.Option("--who", help="The reviewer's name. Default: the login name.")
    ] = None,
    write: Annotated[
        Path | None,
        writing("--write", metavar="FILE.csv", help="Write a CSV file to review instead."),
    ] = None,
    read: Annotated[
        Path | None, writing("--read", metavar="FILE.csv", help="Read the reviewed CSV file.")
    ] = None,
    force: Annotated[bool, writing("--force", help="Replace an existing file.")] = False,
) -> None:
    """Approve, edit or reject drafts: on a local web page, or in a spreadsheet.

    In the spreadsheet, set the verdict of each row: approved, edited, decorative or skipped. Text
    in approved_alt or approved_long_description without a verdict counts as edited. The other
    columns are read-only.

    Exit codes: 0 done; 1 some rows are invalid; 2 usage error.
    """
    from cutline import site as library

    who = who or _login()
    with needing("site", "cutline site review"):
        if write is not None:
            _write_out(write, force, lambda to: library.write_reviews(store, to), "\ufeff")
            back = command(store, f"review --read {shlex.quote(str(write))}")
            print(f"Fill in verdict or approved_alt, then: {back}", file=sys.stderr)
        elif read is not None:
            sheet = library.read_reviews(store, read, who=who)
            for line, problem in sheet.problems:
                Steps().problem(f"{read}, line {line}: {problem}")
            print(f"{several(len(sheet.reviews), 'review')} read.")
            raise typer.Exit(1 if sheet.problems else 0)
        else:
            with library.open_store(store, must_exist=True) as opened:
                from cutline.review.app import serve

                serve(opened, port=port, browser=browser, who=who)


@site.command(
    epilog=examples(
        "cutline site apply public/",
        "cutline site apply public/ --write",
        "cutline site apply public/ --patch alts.patch",
    )
)
def apply(
    root: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]", help="The folder with the pages. Default: the one that was scanned."
        ),
    ] = None,
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    write: Annotated[
        bool, writing("--write", help="Change the files. Without it, show the changes.")
    ] = False,
    patch: Annotated[
        Path | None, writing("--patch", metavar="FILE", help="Write a patch for `git apply`.")
    ] = None,
    overwrite: Annotated[
        bool, writing("--overwrite", help="Also replace existing alt text.")
    ] = False,
    fill_empty: Annotated[bool, writing("--fill-empty", help='Replace alt="", too.')] = False,
    force: Annotated[bool, writing("--force", help="Replace an existing patch.")] = False,
    to: Annotated[Target | None, TO] = None,
    user: Annotated[str | None, USER] = None,
    password_file: Annotated[Path | None, PASSWORD_FILE] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Write approved alts into the pages; without --write, show the changes.

    Nothing else in a file changes. An alt is not written where the page changed since it was read,
    or where a person wrote other text. `cutline site undo` restores the files.

    Exit codes: 0 all written; 1 some alts were refused; 2 usage error.
    """
    from cutline import site as library
    from cutline.atomic import refuse_existing, write_whole

    if patch is not None:
        if write:
            raise OptionError("got --write and --patch; expected one of them")
        if not force:
            refuse_existing(patch)
    with needing("site", "cutline site"), Steps(quiet) as steps:
        result = library.apply(
            store,
            _wordpress(store, user, password_file) or root,
            write=write,
            overwrite=overwrite,
            fill_empty=fill_empty,
            to=to,
            progress=steps.show,
        )
        if patch is not None:
            write_whole(patch, result.patch())
        elif not write and sys.stdout.isatty():
            print_diff(result.diff())
        elif not write:
            sys.stdout.buffer.write(result.preview())
            sys.stdout.flush()
        steps.applied(result, store, patch)
    raise typer.Exit(1 if result.failed else 0)


@site.command(epilog=examples("cutline site undo"))
def undo(
    root: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]", help="The folder with the pages. Default: the one given to apply."
        ),
    ] = None,
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    user: Annotated[str | None, USER] = None,
    password_file: Annotated[Path | None, PASSWORD_FILE] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Undo everything that `cutline site apply --write` wrote, in all its runs.

    A file that was edited since then does not change, and the alts in it that Cutline wrote are
    listed.

    Exit codes: 0 all undone; 1 some files were left; 2 usage error.
    """
    from cutline import site as library

    with needing("site", "cutline site"), Steps(quiet) as steps:
        site = _wordpress(store, user, password_file)
        result = library.undo(
            store, root=root, destinations=[site] if site else [], progress=steps.show
        )
        steps.undone(result)
    raise typer.Exit(1 if result.failed else 0)


@site.command(
    epilog=examples(
        "cutline site export -o alts.csv",
        "cutline site export -o alts.json",
        "cutline site export --format wp-cli -o alts.sh",
        "cutline site export --rows images_missing_alt_text.csv -o images_with_alt_text.csv",
    )
)
def export(
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    format: Annotated[
        Format | None,
        writing("--format", help="Default: from the output file's extension, else csv."),
    ] = None,
    output: Annotated[
        Path | None,
        writing("--output", "-o", metavar="FILE", help="Default: standard output."),
    ] = None,
    rows: Annotated[
        Path | None,
        writing("--rows", metavar="FILE.csv", help="Add the results to this imported file's rows."),
    ] = None,
    force: Annotated[bool, writing("--force", help="Replace an existing file.")] = False,
) -> None:
    """Export all data as CSV, JSON or WP-CLI commands, or as new columns of an imported file."""
    from cutline import site as library
    from cutline.atomic import refuse_existing

    suffix = output.suffix.lower() if output else ""
    format = format or {".json": Format.JSON, ".sh": Format.WP_CLI}.get(suffix, Format.CSV)
    if rows is not None and (output is None or format is not Format.CSV):
        raise OptionError("got --rows; expected --output FILE.csv with it")
    with needing("site", "cutline site export"):
        if rows is not None and output is not None:
            if not force:
                refuse_existing(output)
            library.export_rows(store, rows, output)
        else:
            _write_out(output, force, lambda to: library.export(store, to, format))
    if format is Format.WP_CLI and not _any_approved(library.status(store)):
        print("The script sets no alt, because none is approved yet.", file=sys.stderr)
    if output is not None:
        print(f"Exported: {output}", file=sys.stderr)


@site.command(epilog=examples("cutline site report -o report.html", "cutline site report --json"))
def report(
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    output: Annotated[
        Path | None,
        writing("--output", "-o", metavar="FILE.html", help="Default: named after the store."),
    ] = None,
    json: Annotated[bool, writing("--json", help="Write JSON instead of HTML.")] = False,
    force: Annotated[bool, writing("--force", help="Replace an existing file.")] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Report coverage before and after, kinds of images, problems, and a gallery.

    The report of site.cutline is site-report.html, a single file. An earlier report is replaced.
    """
    from cutline import site as library
    from cutline.atomic import refuse_existing, write_whole

    with needing("site", "cutline site"), Steps(quiet) as steps:
        if output is None and not json:
            default = store.with_name(f"{store.stem}-report.html")
            output = default if force else library.report_path(store)
        elif output is not None and not force:
            refuse_existing(output)
        if output is None:
            print(library.report(store, progress=steps.show).to_json())
            return
        if json:
            write_whole(output, library.report(store, progress=steps.show).to_json())
        else:
            library.write_report(store, output, progress=steps.show)
        steps.say(f"Report: {output}")


@site.command(epilog=examples("cutline site status", "cutline site status --json"))
def status(
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how many images are found, drafted, reviewed and written."""
    from dataclasses import asdict
    from json import dumps

    from cutline import site as library

    with needing("site", "cutline site"), library.open_store(store, must_exist=True) as opened:
        counts = library.status(opened)
        source = opened.setting("start") or ""
    if json:
        print(dumps({"source": source} | asdict(counts), indent=2))
        return
    for line in status_lines(source, counts):
        print(printable(line))
    step = "review" if counts.drafted or counts.asked else ""
    step = "draft" if counts.found or counts.stale else step
    if step:
        print(next_command(store, step))


def _write_out(
    output: Path | None, force: bool, write: Callable[[TextIO], None], mark: str = ""
) -> None:
    """Write to a file atomically, or to standard output; `mark` begins a file."""
    from cutline.atomic import refuse_existing, write_whole

    if output is None:
        sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="")  # type: ignore[union-attr]
        write(_Escaping(sys.stdout) if sys.stdout.isatty() else sys.stdout)
        return
    if not force:
        refuse_existing(output)
    text = io.StringIO(newline="")
    write(text)
    write_whole(output, mark + text.getvalue())


class _Escaping(io.StringIO):
    """Writes to a terminal, with the control characters of the pages as escapes."""

    def __init__(self, terminal: TextIO) -> None:
        super().__init__()
        self._terminal = terminal

    def write(self, text: str) -> int:
        self._terminal.write(printable(text, keep="\t\n\r"))
        return len(text)


def _any_approved(counts: Counts) -> bool:
    from cutline.site.model import Verdict

    return bool(counts.reviewed[Verdict.APPROVED] or counts.reviewed[Verdict.EDITED])


def _login() -> str:
    """The login name; "" if the system has none, as in some containers."""
    import getpass

    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return ""


def _wordpress(store: Path, user: str | None, password_file: Path | None) -> Destination | None:
    """The WordPress site of a store, for the user that the options name; None without options."""
    from cutline import site as library

    if user is None and password_file is None:
        return None
    with library.open_store(store, must_exist=True) as opened:
        return library.open_wordpress(opened, user=user, password_file=password_file)
