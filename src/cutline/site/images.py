"""Every picture a site shows, fetched once and kept: from the network, the folder, or the page.

Bytes from the network go into the store's cache under their digest, by a temporary name, so that
a file there is whole. Local files stay where they are. What looks the same is grouped.
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
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray
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
from cutline.image import load_image
from cutline.site.decide.image_stats import measure
from cutline.site.model import Pixels
from cutline.site.store.store import Content, Store, StoredImage

SVG = "image/svg+xml"
GUARDED = frozenset({"address", "port"})
"""Why only a public fetcher fails."""

_TRANSIENT = frozenset({"dns", "connect", "timeout", "protocol", "unreadable"})
_BUSY = re.compile(r"\b(429|5\d\d) ")
_ALIKE_PX = 64
_ALIKE_BITS, _ALIKE_MEAN, _ALIKE_MOST = 12, 4, 24


@dataclass(frozen=True)
class GatherOptions:
    """How pictures are had.

    Raises:
        OptionError: a number is out of its range.
    """

    threads: int = 8
    """How many are fetched or read at once, from different hosts; see `FetchOptions` for one."""

    max_bytes: int = 20_000_000
    """The largest local file or data URI."""

    max_age_s: float = 7 * 86400.0
    """After so long a server is asked whether a picture has changed, or is back."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, least in {"threads": 1, "max_bytes": 1, "max_age_s": 0}.items():
            if not getattr(self, name) >= least:
                raise OptionError(f"got {name} {getattr(self, name)}; expected at least {least}")


@dataclass
class Gathered:
    """How many pictures were fetched or read, were still what they had been, could not be had."""

    fetched: int = 0
    unchanged: int = 0
    failed: int = 0


def gather(
    store: Store,
    wanted: Iterable[int],
    options: GatherOptions,
    fetcher: Fetcher,
    progress: Callable[[int, int, int], None],
) -> Gathered:
    """Have each wanted picture's bytes, unless they are there and fresh; then group those alike.

    Args:
        store: the site's; it is told of each picture at once.
        wanted: ids of images.
        options: how.
        fetcher: for what is on the network.
        progress: called with how many are done, of how many, and how many of these failed.
    """
    ids = set(wanted)
    root = store.setting("root")
    job = _Job(store, options, fetcher, Path(root).resolve() if root else None)
    due = [image.id for image in store.images() if image.id in ids and job.due(image)]
    found = Gathered()
    progress(0, len(due), 0)
    with closing(job.run(due)) as outcomes:
        for done, outcome in enumerate(outcomes, start=1):
            setattr(found, outcome, getattr(found, outcome) + 1)
            progress(done, len(due), found.failed)
    signatures = store.signatures()
    if store.setting("grouped") != str(len(signatures)):  # none is ever taken away
        store.put_groups(groups(signatures))
        store.setting("grouped", str(len(signatures)))
    return found


class _Job:
    def __init__(
        self, store: Store, options: GatherOptions, fetcher: Fetcher, root: Path | None
    ) -> None:
        self._store = store
        self._options = options
        self._fetcher = fetcher
        self._root = root
        self._stop = threading.Event()
        self._decoding = threading.BoundedSemaphore(2)  # whole pictures in memory

    def due(self, image: StoredImage) -> bool:
        """Whether a picture must be looked at (again)."""
        if image.status == "new":
            return True
        if image.url.startswith("file:"):
            return image.etag != _stamp(_local(image.url))
        if image.status == "failed" and _may_pass(image):
            return True
        if image.code in GUARDED and not self._fetcher.options.public_only:
            return True
        if image.status == "ok" and not self._kept(image):
            return True
        return self._old(image) and not image.url.startswith("data:")

    def run(self, ids: list[int]) -> Generator[str, None, None]:
        """Look at pictures, a few at a time; closing the iterator ends it soon."""
        pool = ThreadPoolExecutor(self._options.threads, thread_name_prefix="gather")
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
            return self._look(image)
        except FetchError as error:
            code, reason = error.code, error.reason
        except ImageError as error:
            codes = {ImageTooLargeError: "too-large", ImageCorruptError: "corrupt"}
            codes[ImageFormatError] = "not-an-image"
            code, reason = codes.get(type(error), "unreadable"), error.reason
        if self._stop.is_set():
            return "unchanged"
        if image.status == "ok" and code in _TRANSIENT and self._kept(image):
            return "unchanged"  # better the picture we have than none
        etag = _stamp(_local(image.url)) if image.url.startswith("file:") else ""
        self._store.put_failure(id, code, reason, etag=etag)
        return "failed"

    def _look(self, image: StoredImage) -> str:
        if image.url.startswith("file:"):
            path = _local(image.url)
            content = self._read(image.url, path)
            self._put(image, content, path=str(path), etag=_stamp(path))
        elif image.url.startswith("data:"):
            sources = [each.use.source for each in self._store.uses(image=image.id, limit=1)]
            if not sources:
                raise FetchError(image.url, "missing", "its page is gone")
            content = _data(sources[0], self._options.max_bytes)
            self._put(image, content)
        else:
            asked = {"etag": image.etag, "last_modified": image.last_modified}
            fetched = self._fetcher.fetch(image.url, **(asked if self._kept(image) else {}))
            if fetched.not_modified:
                self._store.put_unchanged(image.id)
                return "unchanged"
            self._put(
                image, fetched.content, etag=fetched.etag, last_modified=fetched.last_modified
            )
        return "fetched"

    def _put(
        self,
        image: StoredImage,
        content: bytes,
        *,
        path: str = "",
        etag: str = "",
        last_modified: str = "",
    ) -> None:
        """Keep a picture, if it is one."""
        sha256 = hashlib.sha256(content).hexdigest()
        media_type = sniff(content)
        if media_type == SVG:
            found = Content(sha256, SVG, len(content), _svg_pixels(content))
        else:
            with self._decoding:
                pixels, signature = _seen(content)
            found = Content(sha256, media_type, len(content), pixels, signature)
        if not path:
            _keep(self._store.cached(sha256), content)
        self._store.put_content(image.id, found, path=path, etag=etag, last_modified=last_modified)

    def _read(self, url: str, path: Path) -> bytes:
        try:
            real = path.resolve()
            if self._root is None or not real.is_relative_to(self._root):
                raise FetchError(
                    url, "outside", "lies outside the folder scanned; scan one that holds both"
                )
            if not real.is_file():
                raise FetchError(url, "missing", "no such file")
            if (size := real.stat().st_size) > self._options.max_bytes:
                raise FetchError(
                    url,
                    "too-large",
                    f"got {size:,} bytes; expected at most {self._options.max_bytes:,}",
                )
            return real.read_bytes()
        except FetchError:
            raise
        except (OSError, ValueError) as error:
            raise FetchError(url, "unreadable", f"cannot be read: {error}") from error

    def _kept(self, image: StoredImage) -> bool:
        """Whether we have the bytes of a picture from the network."""
        try:
            return image.path is not None and image.path.stat().st_size == image.bytes
        except OSError:
            return False

    def _old(self, image: StoredImage) -> bool:
        age_s = time.time() - datetime.fromisoformat(image.checked_at).timestamp()
        return age_s > self._options.max_age_s


def groups(found: Iterable[tuple[int, str, int, int, bytes]]) -> dict[int, int]:
    """Which pictures look the same: each id -> that of the first, and largest, of its group.

    Two are alike if of the 128 signs of their brightness gradients (dHash, Krawetz 2013, "Kind of
    like that", along rows and columns) at most 12 differ, and if the colours of 8 x 8 patches are
    4 levels apart on average and 24 at most. Of 60 photographs shrunk to between 800 and 64 px at
    JPEG or WebP qualities of 90 to 30, 99 % are known again; of the 18 million pairs of 6,000
    Flickr8k photographs only two identical ones are taken for each other.

    Args:
        found: id, sha256, width, height and signature of each.

    Returns:
        The ids of those that are alike another one, and of the first of each group.
    """
    ordered = sorted(found, key=lambda row: (-row[2] * row[3], row[1]))
    firsts: list[tuple[int, float]] = []
    bits = np.empty((len(ordered), 128), np.uint8)
    patches = np.empty((len(ordered), 192), np.int16)
    same: dict[int, int] = {}
    for id, _, width, height, signature in ordered:
        code = np.frombuffer(signature, np.uint8)
        own_bits, own_patches = np.unpackbits(code[:16]), code[16:].astype(np.int16)
        number = len(firsts)
        near = np.flatnonzero((bits[:number] != own_bits).sum(axis=1) <= _ALIKE_BITS)
        for other in near:
            first, shape = firsts[other]
            apart = np.abs(patches[other] - own_patches)
            if (
                apart.mean() <= _ALIKE_MEAN
                and apart.max() <= _ALIKE_MOST
                and abs(width / height / shape - 1) < 0.03
            ):
                same[id] = same[first] = first
                break
        else:
            bits[number], patches[number] = own_bits, own_patches
            firsts.append((id, width / height))
    return same


def signature(image: Image.Image) -> bytes:
    """What pictures alike are known by, 208 bytes; b"" if one is too small or too plain to tell.

    Args:
        image: RGB.
    """
    if min(image.size) < _ALIKE_PX:
        return b""
    gray: NDArray[np.int16] = np.asarray(
        image.convert("L").resize((9, 9), Image.Resampling.BOX), np.int16
    )
    if np.ptp(gray) < 16:
        return b""
    along = (gray[:8, 1:] > gray[:8, :8]).ravel()
    down = (gray[1:, :8] > gray[:8, :8]).ravel()
    colours = np.asarray(image.resize((8, 8), Image.Resampling.BOX), np.uint8)
    return np.packbits(np.concatenate([along, down])).tobytes() + colours.tobytes()


def _seen(content: bytes) -> tuple[Pixels, bytes]:
    image = load_image(content)
    width, height = image.size
    small = image
    if max(width, height) > 800:
        small = image.copy()
        small.thumbnail((800, 800), Image.Resampling.BOX)
    pixels = replace(measure(small), width_px=width, height_px=height)
    return pixels, b"" if pixels.flat else signature(small)


def _keep(path: Path, content: bytes) -> None:
    """Put bytes into the cache: whole under their name, or not at all."""
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
    """The bytes within a data URI (RFC 2397)."""
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
        raise FetchError(shown, "not-an-image", "holds no picture")
    return content


def _svg_pixels(content: bytes) -> Pixels:
    """The size an SVG's root element states; drawings are not rasterised."""
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
    """What tells whether a local file has changed; "" if it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{status.st_mtime_ns}-{status.st_size}"


def _may_pass(image: StoredImage) -> bool:
    return image.code in _TRANSIENT or (image.code == "status" and bool(_BUSY.search(image.error)))
