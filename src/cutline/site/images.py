"""Downloading the images of a site: from the network, the scanned folder, or data URIs.

Each image is fetched once. Bytes from the network are written atomically into the store's cache
under their SHA-256; local files stay where they are. Near-duplicates are grouped.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from PIL import Image

from cutline.atomic import replacing
from cutline.errors import (
    FetchError,
    ImageCorruptError,
    ImageError,
    ImageFormatError,
    ImageTooLargeError,
    OptionError,
    OutputError,
)
from cutline.fetch import Fetcher, sniff
from cutline.fetch.ssrf import TRANSIENT
from cutline.http_retry import is_temporary
from cutline.image import load_image
from cutline.progress import OnProgress, Progress, ignore
from cutline.similarity import groups, signature
from cutline.site.decide.image_stats import measure
from cutline.site.model import Pixels
from cutline.site.pages.formats import open_document_image
from cutline.site.store.store import Content, Store, StoredImage

ImageOpener: TypeAlias = Callable[[str], bytes | None]

SVG = "image/svg+xml"
BLOCKED = frozenset({"address", "port"})
"""The error codes of images that are refused because they are not on the public internet."""

_TRANSIENT = TRANSIENT | {"unreadable"}
_STATUS = re.compile(r"\b(\d{3}) ")


@dataclass(frozen=True)
class DownloadOptions:
    """How images are fetched.

    Raises:
        OptionError: a number is out of its range.
    """

    threads: int = 8
    """Images fetched at once, over all hosts; see `FetchOptions` for the limit of one host."""

    max_bytes: int = 20_000_000
    """Size limit of a local file or data URI."""

    max_age_s: float = 7 * 86400.0
    """Age after which a server is asked whether an image has changed, or exists again."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, least in {"threads": 1, "max_bytes": 1, "max_age_s": 0}.items():
            if not getattr(self, name) >= least:
                raise OptionError(f"got {name} {getattr(self, name)}; expected at least {least}")


@dataclass
class Downloaded:
    """How many images were fetched or read, had not changed, and could not be fetched."""

    fetched: int = 0
    unchanged: int = 0
    failed: int = 0


def download(
    store: Store,
    wanted: Iterable[int],
    options: DownloadOptions,
    fetcher: Fetcher,
    progress: OnProgress = ignore,
    open_image: ImageOpener | None = None,
) -> Downloaded:
    """Fetch the images that are missing or out of date, and group those that look the same.

    Args:
        store: the site's store; each image is saved as soon as it is fetched.
        wanted: the ids of the images.
        options: how to fetch.
        fetcher: for images on the network.
        progress: called after every image, with the step "fetching".
        open_image: opens the images that only the site's destination can open, see
            `Destination.open_image`; called from several threads.
    """
    ids = set(wanted)
    root = store.setting("root")
    job = _Job(store, options, fetcher, Path(root).resolve() if root else None, open_image)
    due = [image.id for image in store.images() if image.id in ids and job.due(image)]
    found = Downloaded()
    progress(Progress("fetching", 0, len(due)))
    with closing(job.run(due)) as outcomes:
        for done, outcome in enumerate(outcomes, start=1):
            setattr(found, outcome, getattr(found, outcome) + 1)
            progress(Progress("fetching", done, len(due), found.failed))
    signatures = store.signatures()
    if store.setting("grouped") != str(len(signatures)):  # none is ever taken away
        store.put_groups(groups(signatures))
        store.put_setting("grouped", str(len(signatures)))
    return found


class _Job:
    def __init__(
        self,
        store: Store,
        options: DownloadOptions,
        fetcher: Fetcher,
        root: Path | None,
        open_image: ImageOpener | None,
    ) -> None:
        self._store = store
        self._options = options
        self._fetcher = fetcher
        self._root = root
        self._open_image = open_image
        self._stop = threading.Event()
        self._decoding = threading.BoundedSemaphore(2)  # whole images in memory

    def due(self, image: StoredImage) -> bool:
        """Whether an image must be fetched or read (again)."""
        if image.status == "new":
            return True
        if image.url.startswith("file:"):
            return image.etag != _stamp(_local(image.url))
        if image.status == "failed" and _is_temporary(image):
            return True
        if image.code in BLOCKED and self._allows_private():
            return True
        if image.status == "ok" and not self._has_bytes(image):
            return True
        return self._is_old(image) and not image.url.startswith("data:")

    def _allows_private(self) -> bool:
        options = self._fetcher.options
        return options.private_host is not None or not options.public_only

    def run(self, ids: list[int]) -> Generator[str, None, None]:
        """Fetch images, a few at a time; closing the iterator stops it soon."""
        pool = ThreadPoolExecutor(self._options.threads, thread_name_prefix="download")
        pending: deque[Future[str]] = deque()
        finished = False
        try:
            for id in ids:
                pending.append(pool.submit(self._one, id))
                if len(pending) == 4 * self._options.threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
            finished = True
        finally:
            if not finished:
                self._stop.set()
                self._fetcher.close()
            pool.shutdown(cancel_futures=True)

    def _one(self, id: int) -> str:
        image = self._store.image(id)
        try:
            return self._fetch(image)
        except FetchError as error:
            code, reason = error.code, error.reason
        except ImageError as error:
            codes = {ImageTooLargeError: "too-large", ImageCorruptError: "corrupt"}
            codes[ImageFormatError] = "not-an-image"
            code, reason = codes.get(type(error), "unreadable"), error.reason
        if self._stop.is_set():
            return "unchanged"
        if image.status == "ok" and code in _TRANSIENT and self._has_bytes(image):
            return "unchanged"  # the image in the cache is better than none
        etag = _stamp(_local(image.url)) if image.url.startswith("file:") else ""
        self._store.put_failure(id, code, reason, etag=etag)
        return "failed"

    def _fetch(self, image: StoredImage) -> str:
        opened = self._opened(image.url)
        if opened is not None:
            etag = _stamp(_local(image.url)) if image.url.startswith("file:") else ""
            self._save(image, opened, etag=etag)
        elif image.url.startswith("file:"):
            path = _local(image.url)
            content = self._read(image.url, path)
            self._save(image, content, path=str(path), etag=_stamp(path))
        elif image.url.startswith("data:"):
            sources = [
                each.occurrence.source for each in self._store.occurrences(image=image.id, limit=1)
            ]
            if not sources:
                raise FetchError(image.url, "missing", "its page is gone")
            content = _data(sources[0], self._options.max_bytes)
            self._save(image, content)
        else:
            asked = {"etag": image.etag, "last_modified": image.last_modified}
            fetched = self._fetcher.fetch(image.url, **(asked if self._has_bytes(image) else {}))
            if fetched.not_modified:
                self._store.put_unchanged(image.id)
                return "unchanged"
            self._save(
                image, fetched.content, etag=fetched.etag, last_modified=fetched.last_modified
            )
        return "fetched"

    def _save(
        self,
        image: StoredImage,
        content: bytes,
        *,
        path: str = "",
        etag: str = "",
        last_modified: str = "",
    ) -> None:
        """Save an image, if the content is one."""
        sha256 = hashlib.sha256(content).hexdigest()
        media_type = sniff(content)
        if media_type == SVG:
            found = Content(sha256, SVG, len(content), _svg_pixels(content))
        else:
            with self._decoding:
                pixels, signature = _measured(content)
            found = Content(sha256, media_type, len(content), pixels, signature)
        if not path:
            _cache(self._store.cached(sha256), content)
        self._store.put_content(image.id, found, path=path, etag=etag, last_modified=last_modified)

    def _opened(self, url: str) -> bytes | None:
        """The bytes of an image that the destination or a document holds; None for others."""
        content = self._open_image(url) if self._open_image else None
        if content is None and url.startswith("file:") and "#" in url:
            self._check_inside(url, _local(url))
            content = open_document_image(url)
        if content is not None and len(content) > self._options.max_bytes:
            raise self._too_large(url, len(content))
        return content

    def _check_inside(self, url: str, path: Path) -> Path:
        """The path with all symbolic links followed; it must be in the scanned folder."""
        real = path.resolve()
        if self._root is None or not real.is_relative_to(self._root):
            raise FetchError(
                url, "outside", "lies outside the folder scanned; scan one that holds both"
            )
        return real

    def _too_large(self, url: str, size: int) -> FetchError:
        expected = f"expected at most {self._options.max_bytes:,}"
        return FetchError(url, "too-large", f"got {size:,} bytes; {expected}")

    def _read(self, url: str, path: Path) -> bytes:
        try:
            real = self._check_inside(url, path)
            if not real.is_file():
                raise FetchError(url, "missing", "no such file")
            if (size := real.stat().st_size) > self._options.max_bytes:
                raise self._too_large(url, size)
            return real.read_bytes()
        except FetchError:
            raise
        except (OSError, ValueError) as error:
            raise FetchError(url, "unreadable", f"cannot be read: {error}") from error

    def _has_bytes(self, image: StoredImage) -> bool:
        """Whether the bytes of an image from the network are in the cache."""
        try:
            return image.path is not None and image.path.stat().st_size == image.bytes
        except OSError:
            return False

    def _is_old(self, image: StoredImage) -> bool:
        try:
            checked_s = datetime.fromisoformat(image.checked_at).timestamp()
        except ValueError:
            return True
        return time.time() - checked_s > self._options.max_age_s


def _measured(content: bytes) -> tuple[Pixels, bytes]:
    image = load_image(content)
    width, height = image.size
    small = image
    if max(width, height) > 800:
        small = image.copy()
        small.thumbnail((800, 800), Image.Resampling.BOX)
    pixels = replace(measure(small), width_px=width, height_px=height)
    return pixels, b"" if pixels.flat else signature(small)


def _cache(path: Path, content: bytes) -> None:
    """Write a file of the cache atomically."""
    with suppress(OSError):
        if path.stat().st_size == len(content):
            return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, synced=False) as file:
            file.write(content)
    except OSError as error:
        refusal = OutputError(f"{path}: {error.strerror}; make room, then run the same again")
        refusal.errno = error.errno
        raise refusal from error


def _data(source: str, max_bytes: int) -> bytes:
    """The content of a data URI (RFC 2397)."""
    shown = source[:40]
    if len(source) > 3 * max_bytes:
        raise FetchError(shown, "too-large", f"expected at most {max_bytes:,} bytes")
    head, comma, body = source.partition(",")
    if not comma:
        raise FetchError(shown, "data", "got a data URI without a comma; expected data:TYPE,DATA")
    content = unquote_to_bytes(body)
    if head.rstrip().lower().endswith(";base64"):
        letters = re.sub(rb"[^A-Za-z0-9+/]", b"", content.translate(bytes.maketrans(b"-_", b"+/")))
        try:
            content = base64.b64decode(letters + b"=" * (-len(letters) % 4))
        except ValueError as error:
            raise FetchError(shown, "data", f"its base64 is damaged ({error})") from error
    if not sniff(content).startswith("image/"):
        raise FetchError(shown, "not-an-image", "holds no image")
    return content


def _svg_pixels(content: bytes) -> Pixels:
    """The size that an SVG's root element declares; it is not rasterised."""
    tag = re.search(rb"<(?:\w+:)?svg\b[^>]*>", content)
    text = tag[0].decode("utf-8", "replace") if tag else ""
    sizes = [
        re.search(rf"\s{name}\s*=\s*[\"']\s*(\d+)(?:\.\d+)?(?:px)?\s*[\"']", text)
        for name in ("width", "height")
    ]
    if all(sizes):
        width, height = (int(size[1]) for size in sizes if size)
        return Pixels(min(width, 10**6), min(height, 10**6))
    box = re.search(r"viewBox\s*=\s*[\"'](?:[-\d.]+[\s,]+){2}([\d.]+)[\s,]+([\d.]+)", text)
    try:
        width, height = (round(float(side)) for side in box.groups()) if box else (0, 0)
    except ValueError:
        width = height = 0
    return Pixels(min(width, 10**6), min(height, 10**6))


def _local(url: str) -> Path:
    return Path(url2pathname(urlsplit(url).path))


def _stamp(path: Path) -> str:
    """A string that changes when a local file changes; "" if it does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_mtime_ns}-{status.st_size}"


def _is_temporary(image: StoredImage) -> bool:
    if image.code != "status":
        return image.code in _TRANSIENT
    status = _STATUS.search(image.error)
    return status is not None and is_temporary(int(status[1]))
