"""`cutline site` up to the drafts: find images, draft their alts, all at once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cutline.cli.app import (
    ENGINE,
    MODEL,
    THREADS,
    Commands,
    app,
    examples,
    given,
    wording,
    writing,
)
from cutline.cli.site_messages import Steps, interruptible
from cutline.cli.site_steps import (
    RECORD,
    command,
    crawl_site,
    draft_alts,
    import_rows,
    is_page,
    opened,
    report_beside,
    scan_site,
    write_report,
)
from cutline.errors import OptionError

site = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(site, name="site")

finding = partial(typer.Option, rich_help_panel="Pages", show_default=False)
fetching = partial(typer.Option, rich_help_panel="Network", show_default=False)
STORE = typer.Option("--store", metavar="FILE", help="The site's record.")
QUIET = typer.Option("--quiet", "-q", help="No progress and no closing lines.")
INCLUDE = finding("--include", metavar="PATTERN", help="Only these, such as 'blog/*'; repeatable.")
EXCLUDE = finding("--exclude", metavar="PATTERN", help="Not these; they win. Repeatable.")
MAX_PAGES = finding("--max-pages", min=1, help="At most so many pages; by default 10,000.")
MAX_DEPTH = finding("--max-depth", min=0, help="At most so many links away from the start.")
SUBDOMAINS = finding("--subdomains", help="Hosts under the start's host belong to the site too.")
ROBOTS = fetching("--robots/--no-robots", help="Obey robots.txt; by default yes.")
DELAY = fetching("--delay", min=0, metavar="S", help="Seconds between two requests to a host.")
AT_ONCE = fetching("--concurrency", min=1, help="Requests to a host at a time.")
PRIVATE = fetching(
    "--private/--public-only",
    help="Fetch pictures from private addresses too; by default as the crawl's start is.",
)
GLOSSARY = wording(
    "--glossary", metavar="FILE", help="The site's own words, a line each: sheep = alpaca"
)
FILL_EMPTY = wording(
    "--fill-empty/--keep-empty",
    help='Is alt="" a gap? By default in an imported list, not on a page that was read.',
)
THRESHOLD = wording("--threshold", min=0, max=1, help="Suggest nothing less sure than this.")
MAX_CHARS = wording("--max-chars", min=1, help="The longest suggestion; by default 125.")
LANGUAGE = wording("--language", metavar="TAG", help="What the model speaks; by default en.")
CONTEXT = wording(
    "--context-nats",
    min=0,
    help="Favour words near a picture as its caption is made; by default 0, once for each picture.",
)


@site.callback(
    epilog=examples(
        "cutline site run https://example.org/",
        "cutline site scan docs/ && cutline site draft && cutline site review",
        "cutline site apply docs/ --write",
    )
)
def group() -> None:
    """Alt text for a whole website: find, draft, review, write back.

    Everything is kept in one file as it is made. Any command may be stopped and run again.
    """


@site.command(
    epilog=examples(
        "cutline site crawl https://example.org/",
        "cutline site crawl https://example.org/ --include '/blog/*' --max-pages 500",
    )
)
def crawl(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to begin.")],
    store: Annotated[Path, STORE] = RECORD,
    include: Annotated[list[str] | None, INCLUDE] = None,
    exclude: Annotated[list[str] | None, EXCLUDE] = None,
    max_pages: Annotated[int | None, MAX_PAGES] = None,
    max_depth: Annotated[int | None, MAX_DEPTH] = None,
    subdomains: Annotated[bool, SUBDOMAINS] = False,
    robots: Annotated[bool, ROBOTS] = True,
    delay: Annotated[float, DELAY] = 0.0,
    concurrency: Annotated[int | None, AT_ONCE] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Find the images of a website; stopped, the same command goes on.

    Exit codes: 0 all read; 1 some pages could not be read; 2 wrong use; 130 or 143 interrupted.
    """
    with opened(store) as record, interruptible(), Steps(quiet) as steps:
        failed = crawl_site(
            record,
            url,
            steps,
            include=include or (),
            exclude=exclude or (),
            subdomains=subdomains,
            robots=robots,
            delay_s=delay,
            **given(max_pages=max_pages, max_depth=max_depth, per_host=concurrency),
        )
        steps.say(f"Next: {command(store, 'draft')}")
    raise typer.Exit(1 if failed else 0)


@site.command(
    epilog=examples("cutline site scan public/", "cutline site scan docs/ --exclude 'archive/*'")
)
def scan(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="HTML and Markdown files.")],
    store: Annotated[Path, STORE] = RECORD,
    include: Annotated[list[str] | None, INCLUDE] = None,
    exclude: Annotated[list[str] | None, EXCLUDE] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Find the images of a folder of HTML or Markdown files.

    Exit codes: 0 all read; 1 some files could not be read; 2 wrong use.
    """
    with opened(store) as record, interruptible(), Steps(quiet) as steps:
        failed = scan_site(record, folder, steps, include=include or (), exclude=exclude or ())
        steps.say(f"Next: {command(store, 'draft')}")
    raise typer.Exit(1 if failed else 0)


@site.command(
    "import",
    epilog=examples(
        "cutline site import images_missing_alt_text.csv",
        "cutline site import tags.csv && cutline site draft && cutline site export -o tags-new.csv",
    ),
)
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="A crawler's export.")],
    store: Annotated[Path, STORE] = RECORD,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Take the images from a crawler's export: Screaming Frog, Lumar, or any column of URLs.

    Exit codes: 0 all rows understood; 1 some were not; 2 wrong use.
    """
    with opened(store) as record, Steps(quiet) as steps:
        failed = import_rows(record, file, steps)
        steps.say(f"Next: {command(store, 'draft')}")
    raise typer.Exit(1 if failed else 0)


@site.command(
    epilog=examples(
        "cutline site draft",
        "cutline site draft --glossary words.txt --threshold 0.5",
        "cutline site draft --model runs/mine/bundle",
    )
)
def draft(
    store: Annotated[Path, STORE] = RECORD,
    glossary: Annotated[Path | None, GLOSSARY] = None,
    threshold: Annotated[float | None, THRESHOLD] = None,
    max_chars: Annotated[int | None, MAX_CHARS] = None,
    language: Annotated[str | None, LANGUAGE] = None,
    context_nats: Annotated[float, CONTEXT] = 0.0,
    fill_empty: Annotated[bool | None, FILL_EMPTY] = None,
    redo: Annotated[bool, wording("--redo", help="Draft all anew that nobody reviewed.")] = False,
    refresh: Annotated[bool, fetching("--refresh", help="Ask whether pictures changed.")] = False,
    delay: Annotated[float, DELAY] = 0.0,
    concurrency: Annotated[int | None, AT_ONCE] = None,
    private: Annotated[bool | None, PRIVATE] = None,
    model: Annotated[str | None, MODEL] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Fetch each picture once, decide what it is for, and suggest an alt where one is missing.

    A second run makes only what is missing, or what another model or wording would say otherwise.
    What a person reviewed is left alone.

    Exit codes: 0 all drafted; 1 some pictures failed; 2 wrong use; 130 or 143 interrupted.
    """
    with opened(store, there=True) as record, interruptible(), Steps(quiet) as steps:
        failed = draft_alts(
            record,
            steps,
            glossary=glossary,
            words=given(threshold=threshold, max_chars=max_chars, language=language)
            | {"context_nats": context_nats},
            fill_empty=fill_empty,
            redo=redo,
            refresh=refresh,
            network=given(host_delay_s=delay, host_concurrency=concurrency),
            private=private,
            load=partial(_load, model, engine, threads),
        )
        if record.count_uses(stage="waiting"):
            steps.say(f"Next: {command(store, 'review')}")
    raise typer.Exit(1 if failed else 0)


@site.command(
    epilog=examples(
        "cutline site run https://example.org/",
        "cutline site run public/ --output report.html",
        "cutline site run images_missing_alt_text.csv --glossary words.txt",
    )
)
def run(
    source: Annotated[
        str,
        typer.Argument(metavar="URL|DIR|FILE", help="The site, one page, or a crawler's export."),
    ],
    store: Annotated[Path, STORE] = RECORD,
    output: Annotated[
        Path | None,
        writing("--output", "-o", metavar="FILE.html", help="By default as the record is named."),
    ] = None,
    include: Annotated[list[str] | None, INCLUDE] = None,
    exclude: Annotated[list[str] | None, EXCLUDE] = None,
    max_pages: Annotated[int | None, MAX_PAGES] = None,
    robots: Annotated[bool, ROBOTS] = True,
    delay: Annotated[float, DELAY] = 0.0,
    private: Annotated[bool | None, PRIVATE] = None,
    glossary: Annotated[Path | None, GLOSSARY] = None,
    threshold: Annotated[float | None, THRESHOLD] = None,
    model: Annotated[str | None, MODEL] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Find, draft and report at once; then review what it suggests.

    Exit codes: 0 all well; 1 some pages or pictures failed; 2 wrong use; 130 or 143 interrupted.
    """
    output = output or report_beside(store)
    is_url = "://" in source
    if not is_url and not Path(source).exists():
        raise OptionError(f"got {source}; expected https://..., or a folder or file that is there")
    only = {"include": include or (), "exclude": exclude or ()}
    with opened(store) as record, interruptible(), Steps(quiet) as steps:
        if is_url:
            about = {"robots": robots, "delay_s": delay, **only, **given(max_pages=max_pages)}
            failed = crawl_site(record, source, steps, **about)
        elif Path(source).is_dir() or is_page(Path(source)):
            failed = scan_site(record, Path(source), steps, **only)
        else:
            failed = import_rows(record, Path(source), steps)
        failed += draft_alts(
            record,
            steps,
            glossary=glossary,
            words=given(threshold=threshold) | {"context_nats": 0.0},
            network=given(host_delay_s=delay),
            private=private,
            load=partial(_load, model, engine, threads),
        )
        write_report(record, steps, output)
        steps.say(f"Next: {command(store, 'review')}")
    raise typer.Exit(1 if failed else 0)


def _load(model: str | None, engine: str, threads: int | None) -> Any:
    from cutline.backends import load

    return load(model, engine=engine, threads=threads)
