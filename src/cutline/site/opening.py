"""Opening a site's store, and which site it belongs to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from cutline.errors import CutlineError, OptionError, StoreError
from cutline.http_retry import is_temporary
from cutline.site.model import Page
from cutline.site.store.store import Store

if TYPE_CHECKING:
    from cutline.fetch import PrivateHost
    from cutline.site.pages.crawl_types import CrawlOptions, CrawlSummary

_PUBLIC = "public"  # a start host that needs no exception
TABLE_SUFFIXES = frozenset({"", ".csv", ".tsv", ".txt"})
_HOST = re.compile(r"(localhost|\[[0-9a-f:.]+\]|[\w-]+(\.[\w-]+)+)(:\d+)?([/?#].*)?", re.IGNORECASE)


StoreOrPath: TypeAlias = "Store | Path | str"
DEFAULT_STORE = Path("site.cutline")
"""The file that holds a site's store unless another is named."""


@contextmanager
def open_store(store: StoreOrPath, *, must_exist: bool = False) -> Iterator[Store]:
    """A site's store, open for the time of a `with` block.

    An open `Store` is passed through and stays open. A file that this function created is removed
    again if an error ends the block before any page was read.

    Args:
        store: an open store, or the path of its file.
        must_exist: refuse to create the file.

    Raises:
        OptionError: the file must exist and does not.
        StoreError: it is some other file, damaged, or was written by a newer Cutline.
    """
    if isinstance(store, Store):
        yield store
        return
    path = Path(store)
    is_new = not path.exists()
    if must_exist and not path.is_file():
        raise OptionError(
            f"got no {path}; expected a site's store: start with cutline site run, crawl, scan or "
            "import, or name the file with --store"
        )
    unused = False
    try:
        with Store(path) as opened:
            try:
                yield opened
            except CutlineError:
                unused = is_new and opened.setting("start") is None
                raise
    finally:
        if unused:
            path.unlink(missing_ok=True)


def url_of(source: str | Path) -> str:
    """The URL of a source of `run`; "" for a file or folder.

    Raises:
        OptionError: it is neither a URL nor an existing file or folder.
    """
    text = str(source)
    if "://" in text:
        return text
    path = Path(source)
    if path.exists():
        return ""
    looks_like_file = path.suffix.lower() in TABLE_SUFFIXES - {""} or is_page(path)
    if isinstance(source, str) and _HOST.fullmatch(text) and not looks_like_file:
        return f"https://{text}"
    raise OptionError(
        f"got {text}; expected a URL such as https://example.org/, or an existing folder or file"
    )


def is_page(file: Path) -> bool:
    """Whether a file's name says that it is HTML, Markdown or a document that can be read."""
    from cutline.site.pages.formats import document_suffixes
    from cutline.site.pages.restructured_text import RST_SUFFIXES
    from cutline.site.pages.scan import HTML_SUFFIXES, MARKDOWN_SUFFIXES

    known = HTML_SUFFIXES | MARKDOWN_SUFFIXES | RST_SUFFIXES | document_suffixes()
    return file.suffix.lower() in known


def claim(store: Store, source: str) -> None:
    """Make a store belong to a site, unless it belongs to one already."""
    if store.setting("start") is None:
        store.put_setting("start", source)


def check_site(store: Store, source: str) -> None:
    """Check that a store belongs to this site, or to none yet.

    Raises:
        OptionError: it belongs to another.
    """

    def site_of(name: str) -> str:
        return urlsplit(name).netloc if _is_url(name) else name

    start = store.setting("start")
    if start is not None and site_of(start) != site_of(source):
        raise OptionError(
            f"got {source}; {store.path} is the store of {start}: name another with --store"
        )


def check_hosts(store: Store, file: Path, pages: Sequence[str]) -> None:
    """Check that an export lists pages of the site that a store belongs to.

    Raises:
        OptionError: the export and the store have pages, and no host in common.
    """
    listed = {_host(page) for page in pages if _is_url(page)}
    start = store.setting("start") or ""
    known = {_host(start)} if _is_url(start) else set()
    known |= {_host(page.url) for page in store.pages() if _is_url(page.url)}
    if listed and known and not any(_related(one, other) for one in listed for other in known):
        raise OptionError(
            f"got {file}, which lists pages of {min(listed)}; {store.path} is the store of "
            f"{min(known)}: name another with --store"
        )


def _host(url: str) -> str:
    with suppress(ValueError):
        return (urlsplit(url).hostname or "").removeprefix("www.")
    return ""


def _related(one: str, other: str) -> bool:
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


# How much of a site a crawl covers


class CrawlScope:
    """Decides which pages of earlier crawls no longer exist.

    Args:
        store: the site's store, before this crawl.
        options: this crawl's.
    """

    def __init__(self, store: Store, options: CrawlOptions) -> None:
        self._store = store
        self._options = options
        self._obeyed_robots = store.setting("robots") != "no"
        self._temporary = False

    def failed(self, page: Page) -> None:
        """Note a page that could not be read, so that its links are unknown."""
        self._temporary |= is_temporary(page.status)

    def is_complete(self, summary: CrawlSummary, seen: set[str]) -> bool:
        """Whether a crawl would have found every page that still exists on its hosts."""
        options = self._options
        limited = options.include or options.exclude or options.max_depth is not None
        newly_forbidden = summary.forbidden and not self._obeyed_robots
        whole = len(seen) >= summary.pages + summary.dead  # all of it in this call
        return whole and not (limited or summary.waiting or newly_forbidden or self._temporary)

    def outside(self, hosts: Sequence[str]) -> set[str]:
        """The URLs of the store's pages that this crawl could not have found."""
        from cutline.site.pages.crawl_types import on_site

        return {
            page.url
            for page in self._store.pages()
            if not on_site(page.url, hosts, self._options.subdomains)
        }


# The start host


def remember_host(store: Store, url: str) -> None:
    """Save the start host of a crawl with its addresses, if all of them are private."""
    from cutline.fetch import private_host

    host = private_host(url)
    value = json.dumps([host.name, host.port, sorted(host.addresses)]) if host else _PUBLIC
    store.put_setting("private_host", value)


def trusted_host(store: Store) -> PrivateHost | None:
    """The private host where the crawl started, as it was then; None if the start was public.

    A store of version 0.1 has none. Then a start by IP address or "localhost" counts, because
    no name has to be resolved for these.

    Raises:
        StoreError: the setting is damaged.
    """
    from cutline.fetch import PrivateHost, is_address, private_host

    text = store.setting("private_host")
    if text is None:
        start = store.setting("start") or ""
        host = _host(start) if _is_url(start) else ""
        return private_host(start) if host == "localhost" or is_address(host) else None
    if text == _PUBLIC:
        return None
    try:
        name, port, addresses = json.loads(text)
        return PrivateHost(str(name), int(port), frozenset(map(str, addresses)))
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"{store.path}: the setting private_host is damaged; crawl again, or add --private"
        ) from error
