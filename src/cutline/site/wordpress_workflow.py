"""Reading a WordPress site into its store, as a function; `review_workflow.apply` writes it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutline.errors import DataError, OutputError
from cutline.progress import OnProgress, Progress, ignore
from cutline.site.destinations import remember_destination
from cutline.site.opening import StoreOrPath, check_site, claim, open_store, remember_host
from cutline.site.outcomes import WordPressResult
from cutline.site.store.store import Store, now
from cutline.site.wordpress.opening import USER_SETTING

if TYPE_CHECKING:
    from cutline.site.wordpress.client import Api
    from cutline.site.wordpress.credentials import Credentials
    from cutline.site.wordpress.destination import WordPress

_PROGRESS = "wordpress_progress"  # what an interrupted reading has read
_RESUME_WITHIN = timedelta(days=1)


def read_wordpress(
    store: StoreOrPath,
    url: str,
    *,
    user: str | None = None,
    password_file: Path | str | None = None,
    drafts: bool = False,
    private: bool = False,
    types: Sequence[str] = (),
    connect: Callable[[str, Credentials], Api] | None = None,
    progress: OnProgress = ignore,
) -> WordPressResult:
    """Read the media library and the posts of a WordPress site into its store.

    A stopped reading continues when it is called again with the same options within a day.

    Args:
        store: the site's store, created if it does not exist.
        url: the site's address.
        user: the user's name; None takes `CUTLINE_WORDPRESS_USER`.
        password_file: a file with the application password; None takes
            `CUTLINE_WORDPRESS_PASSWORD`. The store keeps neither.
        drafts: also read drafts, pending and scheduled posts.
        private: also read private posts.
        types: read only these post types; none means all public ones and synced patterns.
        connect: opens the REST API; None uses the network.
        progress: called after every 100 records.

    Raises:
        OptionError: the credentials are missing, the address is neither HTTPS nor on this
            machine, the store belongs to another site, or there is no such type.
        DataError: the site is a network of sites, is translated, or is empty.
        FetchError: it cannot be read; the message says why.
    """
    from cutline.site.wordpress.client import Api
    from cutline.site.wordpress.credentials import Credentials, site_address
    from cutline.site.wordpress.destination import ReadOptions, WordPress

    address = site_address(url)
    credentials = Credentials.find(user, password_file)
    options = ReadOptions(drafts, private, tuple(types))
    site = WordPress(address, lambda: (connect or Api)(address, credentials), options)
    try:
        with open_store(store) as opened:
            check_site(opened, address)
            return _read(opened, site, credentials.user, progress)
    finally:
        site.close()


def _read(store: Store, site: WordPress, user: str, progress: OnProgress) -> WordPressResult:
    kept = _Kept(store, site)
    unread: Counter[str] = Counter()
    for batch in site.batches(kept.done, kept.titles()):
        if not kept.seen:
            claim(store, site.address)
            remember_destination(store, site)
            remember_host(store, site.address)
            store.put_setting("empty_alts", "missing")
            store.put_setting(USER_SETTING, user)
        for page, occurrences in batch.pages:
            store.put_page(page, occurrences)
            unread.update(dict(page.unread))
        kept.add(batch.key, [page.url for page, _ in batch.pages])
        progress(Progress("reading", len(kept.seen), None))
    if not kept.seen:
        raise DataError(f"got {site.address}, which has no image and no post; expected some")
    retired = 0 if site.options.types else store.retire_pages(kept.seen)
    kept.finish()
    library = sum(site.post_of(url)[0] == "attachment" for url in kept.seen)
    counts = store.counts()
    return WordPressResult(
        posts=len(kept.seen) - library,
        library=library,
        occurrences=counts.uses,
        images=counts.images,
        retired=retired,
        continued=kept.continued,
        unread=dict(unread.most_common()),
    )


class _Kept:
    """What an interrupted reading has read, in the store.

    Attributes:
        done: the keys of the batches that are read.
        seen: the URLs of their pages.
        continued: whether an earlier reading is continued.
    """

    def __init__(self, store: Store, site: WordPress) -> None:
        self._store, self._site = store, site
        self._options = [site.options.drafts, site.options.private, sorted(site.options.types)]
        self._started = now()
        self.done: list[tuple[str, int]] = []
        self.seen: list[str] = []
        earlier = self._earlier()
        if earlier is not None:
            self._started = earlier["started"]
            self.done = [(str(name), int(number)) for name, number in earlier["done"]]
            self.seen = [str(url) for url in earlier["seen"]]
        self.continued = bool(self.seen)

    def _earlier(self) -> dict[str, Any] | None:
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(self._store.setting(_PROGRESS) or "null")
            if record is None or record["options"] != self._options:
                return None
            age = datetime.now(UTC) - datetime.fromisoformat(record["started"])
            return dict(record) if age < _RESUME_WITHIN else None
        return None

    def titles(self) -> dict[int, str]:
        """The titles of the posts that are read already."""
        seen = set(self.seen)
        titles: dict[int, str] = {}
        for page in self._store.pages() if seen else ():
            if page.url in seen:
                with suppress(OutputError):
                    type, id = self._site.post_of(page.url)
                    titles.setdefault(id, page.title if type != "attachment" else "")
        return titles

    def add(self, key: tuple[str, int], urls: Sequence[str]) -> None:
        """Record a batch whose pages are in the store."""
        self.done.append(key)
        self.seen.extend(urls)
        record = {"options": self._options, "started": self._started}
        self._store.put_setting(
            _PROGRESS, json.dumps({**record, "done": self.done, "seen": self.seen})
        )

    def finish(self) -> None:
        """Record that everything is read."""
        self._store.put_setting(_PROGRESS, "null")
