"""`cutline site` up to the drafts: find images, draft alt texts, or both with a report."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutline.cli.app import (
    ENGINE,
    MODEL,
    THREADS,
    Commands,
    app,
    examples,
    given,
    needing,
    wording,
    writing,
)
from cutline.cli.interrupts import interruptible
from cutline.cli.server_options import (
    DryRun,
    ImagePx,
    KeyFile,
    MaxRequests,
    MaxTokensTotal,
    PromptFile,
    RetryFor,
    Timeout,
    Yes,
    connection_options,
    read_key,
    reported_usage,
    upload_check,
)
from cutline.cli.site_messages import Steps, next_command
from cutline.errors import OptionError

if TYPE_CHECKING:
    from cutline.caption import Captioner
    from cutline.site.destination import Destination
    from cutline.site.pipeline import DraftOptions

site = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(site, name="site")

DEFAULT_STORE = Path("site.cutline")
finding = partial(typer.Option, rich_help_panel="Pages", show_default=False)
fetching = partial(typer.Option, rich_help_panel="Network", show_default=False)
STORE = typer.Option("--store", metavar="FILE", help="The file that holds all data of the site.")
QUIET = typer.Option("--quiet", "-q", help="Show no progress and no summary.")
INCLUDE = finding(
    "--include", metavar="PATTERN", help="Read only these pages, such as 'blog/*'. Repeatable."
)
EXCLUDE = finding(
    "--exclude", metavar="PATTERN", help="Skip these pages, even if included. Repeatable."
)
MAX_PAGES = finding("--max-pages", min=1, help="Maximum number of pages. Default: 10,000.")
MAX_DEPTH = finding("--max-depth", min=0, help="Maximum number of links from the start page.")
SUBDOMAINS = finding("--subdomains", help="Crawl subdomains of the start's host too.")
ROBOTS = fetching("--robots/--no-robots", help="Obey robots.txt. Default: yes.")
DELAY = fetching(
    "--delay", min=0, metavar="S", help="Minimum seconds between two requests to a host."
)
AT_ONCE = fetching("--concurrency", min=1, help="Maximum concurrent requests to a host.")
PRIVATE = fetching(
    "--private/--public-only",
    help="Fetch images from private addresses too. Default: only from the host where the crawl "
    "started.",
)
USER = typer.Option(
    "--user",
    rich_help_panel="WordPress",
    show_default=False,
    metavar="NAME",
    help="A WordPress user. Default: CUTLINE_WORDPRESS_USER, or who read the site.",
)
PASSWORD_FILE = typer.Option(
    "--password-file",
    rich_help_panel="WordPress",
    show_default=False,
    metavar="FILE",
    help="A file with the user's application password. Default: CUTLINE_WORDPRESS_PASSWORD.",
)
GLOSSARY = wording(
    "--glossary", metavar="FILE", help="The site's own terms, one per line: sheep = alpaca"
)
FILL_EMPTY = wording(
    "--fill-empty/--keep-empty",
    help='Treat alt="" as missing. Default: in an imported list, but not on a page.',
)
THRESHOLD = wording("--threshold", min=0, max=1, help="Minimum confidence of a suggestion.")
MAX_CHARS = wording("--max-chars", min=1, help="Maximum length of a suggestion. Default: 125.")
LANGUAGE = wording(
    "--language",
    metavar="TAG",
    help="Language of the drafts. Default: each page's own with a chat model, else English.",
)
CONTEXT = wording(
    "--context-nats",
    min=0,
    help="How strongly words near an image bias its caption. Default: 0, which captions each image "
    "once.",
)
PICTURES = finding("--pictures", help="Read image files, whose alt is in their metadata.")
SIDECAR = finding(
    "--sidecar",
    metavar="never|auto|always",
    help="With --pictures: write XMP sidecars; auto: for formats that cannot be written.",
)
DESCRIPTION = finding("--description", help="With --pictures: also write missing descriptions.")
KEEP_TIMES = finding("--keep-times", help="With --pictures: keep the modification times.")


@site.callback(
    epilog=examples(
        "cutline site run https://example.org/",
        "cutline site scan docs/ && cutline site draft && cutline site review",
        "cutline site apply docs/ --write",
    )
)
def group() -> None:
    """Alt text for a whole website: find images, draft, review, write back.

    Results are saved in one file as they are produced. You can stop every command and run it again.
    """


@site.command(
    epilog=examples(
        "cutline site crawl https://example.org/",
        "cutline site crawl https://example.org/ --include '/blog/*' --max-pages 500",
    )
)
def crawl(
    url: Annotated[str, typer.Argument(metavar="URL", help="The URL of the start page.")],
    store: Annotated[Path, STORE] = DEFAULT_STORE,
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
    """Find the images of a website. Run the same command to continue a stopped crawl.

    Connections are direct; HTTP_PROXY is ignored.

    Exit codes: 0 all pages read; 1 some pages failed; 2 usage error; 130 or 143 interrupted.
    """
    from cutline import site as library

    with needing("site", "cutline site"), interruptible(), Steps(quiet) as steps:
        options = library.CrawlOptions(
            include=include or (),
            exclude=exclude or (),
            subdomains=subdomains,
            robots=robots,
            delay_s=delay,
            **given(max_pages=max_pages, max_depth=max_depth, per_host=concurrency),
        )
        found = library.crawl(store, url, options, progress=steps.show)
        steps.crawled(found)
        steps.say(next_command(store, "draft"))
    raise typer.Exit(1 if found.failed else 0)


@site.command(
    epilog=examples(
        "cutline site scan public/",
        "cutline site scan docs/ --exclude 'archive/*'",
        "cutline site scan photos/ --pictures",
    )
)
def scan(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A folder of pages, books and documents, or a file."),
    ],
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    include: Annotated[list[str] | None, INCLUDE] = None,
    exclude: Annotated[list[str] | None, EXCLUDE] = None,
    pictures: Annotated[bool, PICTURES] = False,
    language: Annotated[
        str | None,
        finding("--language", metavar="TAG", help="With --pictures: the language of the alts."),
    ] = None,
    sidecar: Annotated[str | None, SIDECAR] = None,
    description: Annotated[bool, DESCRIPTION] = False,
    keep_times: Annotated[bool, KEEP_TIMES] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Find the images of a folder of pages, books and documents, or of a folder of images.

    Pages and documents are HTML, Markdown, EPUB, Word, PowerPoint, OpenDocument and PDF files. A
    image's alt is the IPTC field AltTextAccessibility in its metadata.

    Exit codes: 0 all files read; 1 some files failed; 2 usage error.
    """
    from cutline import site as library

    if language and not pictures:
        raise OptionError("got --language; expected --pictures with it")
    extra = _picture_options(sidecar, description, keep_times)
    with needing("site", "cutline site"), interruptible(), Steps(quiet) as steps:
        source = _pictures(folder, pictures, language, extra)
        found = library.scan(
            store, source, include=include or (), exclude=exclude or (), progress=steps.show
        )
        steps.scanned(found)
        steps.say(next_command(store, "draft"))
    raise typer.Exit(1 if found.failed else 0)


@site.command(
    "import",
    epilog=examples(
        "cutline site import images_missing_alt_text.csv",
        "cutline site import tags.csv && cutline site draft && cutline site export -o tags-new.csv",
    ),
)
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="A crawler's CSV export.")],
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Import images from a crawler's export: Screaming Frog, Lumar, or any column of URLs.

    Exit codes: 0 all rows valid; 1 some rows invalid; 2 usage error.
    """
    from cutline import site as library

    with needing("site", "cutline site"), Steps(quiet) as steps:
        found = library.import_export(store, file)
        steps.imported(found)
        steps.say(next_command(store, "draft"))
    raise typer.Exit(1 if found.failed else 0)


@site.command(
    epilog=examples(
        "cutline site draft",
        "cutline site draft --glossary words.txt --threshold 0.5",
        "cutline site draft --model runs/mine/bundle",
    )
)
def draft(
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    glossary: Annotated[Path | None, GLOSSARY] = None,
    threshold: Annotated[float | None, THRESHOLD] = None,
    max_chars: Annotated[int | None, MAX_CHARS] = None,
    language: Annotated[str | None, LANGUAGE] = None,
    context_nats: Annotated[float, CONTEXT] = 0.0,
    fill_empty: Annotated[bool | None, FILL_EMPTY] = None,
    redo: Annotated[bool, wording("--redo", help="Redraft every unreviewed image.")] = False,
    refresh: Annotated[
        bool, fetching("--refresh", help="Check whether downloaded images have changed.")
    ] = False,
    delay: Annotated[float, DELAY] = 0.0,
    concurrency: Annotated[int | None, AT_ONCE] = None,
    private: Annotated[bool | None, PRIVATE] = None,
    model: Annotated[str | None, MODEL] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
    image_px: ImagePx = None,
    timeout: Timeout = None,
    retry_for: RetryFor = None,
    max_requests: MaxRequests = None,
    max_tokens_total: MaxTokensTotal = None,
    key_file: KeyFile = None,
    prompt: PromptFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Fetch each image once, decide its purpose, and draft an alt text where one is missing.

    A second run drafts only images without a draft, and images whose draft another model or other
    options would change. Reviewed images do not change. The model is loaded only if an image needs
    a caption.

    Exit codes: 0 all drafted; 1 some images failed; 2 usage error; 130 or 143 interrupted.
    """
    from cutline import site as library

    words = given(threshold=threshold, max_chars=max_chars)
    captioner = _captioner(
        model,
        engine,
        threads,
        key_file,
        image_px=image_px,
        timeout=timeout,
        retry_for=retry_for,
        max_requests=max_requests,
        max_tokens_total=max_tokens_total,
    )
    with (
        needing("site", "cutline site draft"),
        interruptible(),
        Steps(quiet) as steps,
        reported_usage(captioner, quiet=quiet),
    ):
        options = _drafting(words | {"context_nats": context_nats}, fill_empty, redo, refresh)
        done = library.draft(
            store,
            captioner,
            _for_chat(options, captioner, language, prompt),
            before_captions=upload_check(yes=yes, dry_run=dry_run),
            glossary=glossary,
            private=private,
            network=_network(delay, concurrency),
            progress=steps.show,
        )
        steps.drafted(done)
        if done.waiting:
            steps.say(next_command(store, "review"))
    raise typer.Exit(1 if done.failed else 0)


@site.command(
    epilog=examples(
        "cutline site run https://example.org/",
        "cutline site run public/ --output report.html",
        "cutline site run photos/ --pictures",
        "cutline site run images_missing_alt_text.csv --glossary words.txt",
    )
)
def run(
    source: Annotated[
        str,
        typer.Argument(metavar="URL|DIR|FILE", help="A website, a page, or a crawler's export."),
    ],
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    output: Annotated[
        Path | None,
        writing("--output", "-o", metavar="FILE.html", help="Default: named after the store."),
    ] = None,
    include: Annotated[list[str] | None, INCLUDE] = None,
    exclude: Annotated[list[str] | None, EXCLUDE] = None,
    pictures: Annotated[bool, PICTURES] = False,
    sidecar: Annotated[str | None, SIDECAR] = None,
    description: Annotated[bool, DESCRIPTION] = False,
    keep_times: Annotated[bool, KEEP_TIMES] = False,
    max_pages: Annotated[int | None, MAX_PAGES] = None,
    robots: Annotated[bool, ROBOTS] = True,
    delay: Annotated[float, DELAY] = 0.0,
    private: Annotated[bool | None, PRIVATE] = None,
    glossary: Annotated[Path | None, GLOSSARY] = None,
    threshold: Annotated[float | None, THRESHOLD] = None,
    language: Annotated[str | None, LANGUAGE] = None,
    model: Annotated[str | None, MODEL] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
    image_px: ImagePx = None,
    timeout: Timeout = None,
    retry_for: RetryFor = None,
    max_requests: MaxRequests = None,
    max_tokens_total: MaxTokensTotal = None,
    key_file: KeyFile = None,
    prompt: PromptFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Find images, draft alt texts and write a report in one command.

    With --pictures, --language is also the language of the alts in the metadata.

    Exit codes: 0 no failures; 1 some pages or images failed; 2 usage error; 130 or 143 interrupted.
    """
    from cutline import site as library

    only: dict[str, Any] = {"include": include or (), "exclude": exclude or ()}
    extra = _picture_options(sidecar, description, keep_times)
    captioner = _captioner(
        model,
        engine,
        threads,
        key_file,
        image_px=image_px,
        timeout=timeout,
        retry_for=retry_for,
        max_requests=max_requests,
        max_tokens_total=max_tokens_total,
    )
    with (
        needing("site", "cutline site run"),
        interruptible(),
        Steps(quiet) as steps,
        reported_usage(captioner, quiet=quiet),
    ):
        drafting = _drafting(given(threshold=threshold))
        done = library.run(
            _pictures(source, pictures, language, extra),
            captioner,
            store,
            report=output,
            crawling=library.CrawlOptions(
                robots=robots, delay_s=delay, **only, **given(max_pages=max_pages)
            ),
            drafting=_for_chat(drafting, captioner, language, prompt),
            before_captions=upload_check(yes=yes, dry_run=dry_run),
            glossary=glossary,
            private=private,
            network=_network(delay),
            progress=steps.show,
            on_step=steps.step,
        )
        steps.say(f"Report: {done.report}")
        steps.say(next_command(store, "review"))
    raise typer.Exit(1 if done.failed else 0)


def _picture_options(sidecar: str | None, description: bool, keep_times: bool) -> dict[str, Any]:
    """The options of `MetadataOptions` that were given on the command line."""
    return given(sidecar=sidecar, description=description or None, keep_times=keep_times or None)


def _pictures(
    source: str | Path, pictures: bool, language: str | None, options: dict[str, Any]
) -> str | Path | Destination:
    """The source, as a destination if it is a folder of pictures.

    Raises:
        OptionError: options of pictures are given for something else.
        DataError: there is no such folder.
    """
    if not pictures:
        if options:
            name = min(options).replace("_", "-")
            raise OptionError(f"got --{name}; expected --pictures with it")
        return source
    from cutline.metadata import MetadataOptions
    from cutline.site import PicturesDestination

    return PicturesDestination(Path(source), MetadataOptions(**options, **given(language=language)))


def _captioner(
    model: str | None, engine: str, threads: int | None, key_file: Path | None, **connection: Any
) -> Captioner:
    from cutline.backends.lazy import load_lazily

    return load_lazily(
        model,
        engine=engine,
        threads=threads,
        connection=connection_options(**connection),
        key=read_key(key_file),
    )


def _for_chat(
    options: DraftOptions, captioner: Captioner, language: str | None, prompt: Path | None
) -> DraftOptions:
    """The options with a language and a prompt, as far as the captioner can use them.

    Raises:
        OptionError: the captioner writes English alone, or takes no prompt.
    """
    from cutline.bundle import models
    from cutline.chat import is_chat_model
    from cutline.chat.language import primary
    from cutline.prompts import packaged, read

    if is_chat_model(captioner):
        return replace(options, language=language or "", prompt=read("alt", prompt))
    if prompt is not None:
        raise OptionError(f"got --prompt for {captioner.name}; expected a chat model")
    english = captioner.name in models() or getattr(captioner, "language", "") == "en"
    if language and primary(language) != "en" and english:
        raise OptionError(
            f"got --language {language} for {captioner.name}, which writes English; expected a "
            "chat model, such as --model ollama:NAME"
        )
    wording = replace(options.wording, **given(language=language))
    return replace(options, wording=wording, prompt=packaged("alt"))


def _drafting(
    words: dict[str, Any],
    fill_empty: bool | None = None,
    redo: bool = False,
    refresh: bool = False,
) -> DraftOptions:
    from cutline.site.decide.alt_text import WordingOptions
    from cutline.site.images import DownloadOptions
    from cutline.site.pipeline import DraftOptions

    download = DownloadOptions(max_age_s=0.0) if refresh else DownloadOptions()
    return DraftOptions(WordingOptions(**words), download, fill_empty=fill_empty, redo=redo)


def _network(delay: float, concurrency: int | None = None) -> Any:
    from cutline.fetch import FetchOptions

    return FetchOptions(**given(host_delay_s=delay, host_concurrency=concurrency))
