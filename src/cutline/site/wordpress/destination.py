"""A WordPress site as a destination: pages are posts, and images of the media library."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from cutline.errors import FetchError, OptionError, OutputError
from cutline.site.destination import Destination, OpenPage
from cutline.site.model import ImageOccurrence, Page
from cutline.site.wordpress.checks import check_content, check_file, check_site, language_of
from cutline.site.wordpress.client import Api
from cutline.site.wordpress.content import PostContent
from cutline.site.wordpress.library import Attachment, Usage, raw
from cutline.site.wordpress.pages import MEDIA_FIELDS, POST_FIELDS, OpenAttachment, OpenPost
from cutline.site.wordpress.save_filters import version_of

KIND = "wordpress"
_MEDIA = "attachment"
_PATTERN = "wp_block"
_NO_PAGES = frozenset(
    "attachment nav_menu_item wp_template wp_template_part wp_navigation wp_global_styles "
    "wp_font_family wp_font_face".split()
)


class Target(StrEnum):
    """Where approved alts are written."""

    LIBRARY = "library"
    CONTENT = "content"
    BOTH = "both"


@dataclass(frozen=True)
class ReadOptions:
    """What is read of a WordPress site.

    Attributes:
        drafts: also posts that are drafts, pending or scheduled.
        private: also private posts.
        types: only these post types, such as "post"; none means all public ones and patterns.
    """

    drafts: bool = False
    private: bool = False
    types: tuple[str, ...] = ()

    @property
    def statuses(self) -> tuple[str, ...]:
        """The statuses to ask for."""
        drafts = ("draft", "pending", "future") if self.drafts else ()
        return ("publish", *drafts, *(("private",) if self.private else ()))


@dataclass(frozen=True)
class Batch:
    """Some pages of a reading, which is complete when no batch follows.

    Attributes:
        key: of the collection, and of its page, to continue after it.
        done, total: pages of the collection that are read, and all of them.
        pages: what was read.
    """

    key: tuple[str, int]
    done: int
    total: int
    pages: tuple[tuple[Page, list[ImageOccurrence]], ...]


class WordPress(Destination):
    """A WordPress site for one user.

    Args:
        address: the site's address.
        connect: opens its REST API, when it is first needed.
        options: what is read.
    """

    def __init__(
        self, address: str, connect: Callable[[], Api], options: ReadOptions = ReadOptions()
    ) -> None:
        self._address, self._open_api = address, connect
        self.options = options
        self._block_types: dict[str, Mapping[str, Any] | None] = {}
        self._routes: dict[str, str] | None = None

    @property
    def kind(self) -> str:
        """The name of this kind of destination."""
        return KIND

    @property
    def address(self) -> str:
        """The site's address."""
        return self._address

    @cached_property
    def api(self) -> Api:
        """The REST API, which is opened at the first use.

        Raises:
            DataError: it is a network of sites (multisite), or is translated.
            FetchError: there is no API, or the user is not accepted.
        """
        api = self._open_api()
        try:
            check_site(api)
            api.get("/wp/v2/users/me", context="edit", _fields="id,name")
        except BaseException:
            api.close()
            raise
        return api

    @cached_property
    def language(self) -> str:
        """The language of the site's home page."""
        return language_of(self.api.home_page)

    @cached_property
    def version(self) -> tuple[int, int] | None:
        """The version of WordPress that the home page names; None if it names none."""
        return version_of(self.api.home_page)

    def connect(self) -> None:
        """Open the REST API now; raises as `api` does."""
        _ = self.api

    def close(self) -> None:
        """Close the connections."""
        if "api" in vars(self):
            self.api.close()

    # Reading

    def read(self) -> Iterator[tuple[Page, list[ImageOccurrence]]]:
        """Every image of the library and every post."""
        for batch in self.batches():
            yield from batch.pages

    def batches(
        self,
        done: Collection[tuple[str, int]] = (),
        titles: Mapping[int, str] = MappingProxyType({}),
    ) -> Iterator[Batch]:
        """As `read`, in pages of 100 records, without those that are done.

        Args:
            done: the keys of batches that an earlier reading saved.
            titles: of the posts in these batches, by their numbers.

        Raises:
            FetchError: a request failed.
        """
        known = dict(titles)
        for type, route in self.routes().items():
            if not self.options.types or type in self.options.types:
                yield from self._posts(type, route, done, known)
        yield from self._media(done, known, self._products())

    def routes(self) -> dict[str, str]:
        """The routes of the post types that are read, by the type's name.

        Raises:
            OptionError: a type of the options does not exist.
            FetchError: the user may not edit posts.
        """
        if self._routes is None:
            types = self.api.get("/wp/v2/types", context="edit")
            if not isinstance(types, dict):
                raise FetchError(self.address, "protocol", "got no list of post types")
            self._routes = {}
            for name, record in types.items():
                if not isinstance(record, dict):
                    continue
                is_shown = record.get("viewable") or name == _PATTERN
                if name in _NO_PAGES or not is_shown or not record.get("rest_base"):
                    continue
                space = record.get("rest_namespace") or "wp/v2"
                self._routes[name] = f"/{space}/{record['rest_base']}"
            unknown = set(self.options.types) - set(self._routes)
            if unknown:
                raise OptionError(
                    f"got type {min(unknown)}; expected one of {', '.join(sorted(self._routes))}"
                )
        return self._routes

    def _posts(
        self,
        type: str,
        route: str,
        done: Collection[tuple[str, int]],
        titles: dict[int, str],
    ) -> Iterator[Batch]:
        wanted: dict[str, Any] = {
            "context": "edit",
            "orderby": "id",
            "order": "asc",
            "status": self.options.statuses,
            "_fields": POST_FIELDS,
        }
        for number, total, records in self.api.pages(route, first=_first(done, type), **wanted):
            pages = []
            for record in records:
                content = self._content(type, record)
                titles[int(record["id"])] = content.title
                check_content(self.address, content.raw)
                pages.append(content.read())
            yield Batch((type, number), number, total, tuple(pages))

    def _media(
        self,
        done: Collection[tuple[str, int]],
        titles: Mapping[int, str],
        products: Mapping[int, str],
    ) -> Iterator[Batch]:
        wanted: dict[str, Any] = {
            "context": "edit",
            "orderby": "id",
            "order": "asc",
            "media_type": "image",
            "_fields": MEDIA_FIELDS,
        }
        first = _first(done, _MEDIA)
        for number, total, records in self.api.pages("/wp/v2/media", first=first, **wanted):
            pages = []
            for attachment in map(self._attachment, records):
                check_file(self.address, attachment.source)
                usage = Usage(titles.get(attachment.parent, ""), products.get(attachment.id, ""))
                url = self.page_url(_MEDIA, attachment.id)
                pages.append(attachment.read(url, usage, self.language))
            yield Batch((_MEDIA, number), number, total, tuple(pages))

    def _products(self) -> dict[int, str]:
        """The names of WooCommerce's products by the images that show them."""
        found: dict[int, str] = {}
        if "wc/v3" not in self.api.namespaces:
            return found
        try:
            wanted: dict[str, Any] = {
                "orderby": "id",
                "order": "asc",
                "_fields": "id,name,images,status",
            }
            for _, _, records in self.api.pages("/wc/v3/products", **wanted):
                for record in records:
                    images = record.get("images")
                    for image in images if isinstance(images, list) else ():
                        number = image.get("id") if isinstance(image, dict) else None
                        if isinstance(number, int):
                            found.setdefault(number, str(record.get("name") or ""))
        except FetchError as error:
            if error.status not in (401, 403, 404):
                raise
        return found

    def _attachment(self, record: Any) -> Attachment:
        """An image of the library from the API's answer.

        Raises:
            FetchError: it is none.
        """
        try:
            return Attachment.from_json(record)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FetchError(
                self.address, "protocol", "the API's answer is no image of the library"
            ) from error

    def _content(self, type: str, record: Any) -> PostContent:
        """A post from the API's answer.

        Raises:
            FetchError: it is none, or lacks the content to edit.
        """
        content = record.get("content") if isinstance(record, dict) else None
        is_post = isinstance(record, dict) and isinstance(record.get("id"), int)
        if not (is_post and isinstance(content, dict) and isinstance(content.get("raw"), str)):
            raise FetchError(
                self.address, "protocol", f"the API does not give the content of {type}s to edit"
            )
        return PostContent(
            content["raw"],
            str(content.get("rendered") or ""),
            self.page_url(type, int(record["id"])),
            str(record.get("link") or ""),
            raw(record.get("title")),
            self.language,
            type == _PATTERN,
        )

    # Pages

    def page_url(self, type: str, id: int) -> str:
        """The URL of a post or image in the record of the site, without its slug."""
        if type == _PATTERN:
            return f"{self.address}wp-admin/post.php?{urlencode({'post': id, 'action': 'edit'})}"
        if type == _MEDIA:
            return f"{self.address}?{urlencode({'attachment_id': id})}"
        if type == "page":
            return f"{self.address}?{urlencode({'page_id': id})}"
        query = {"p": id} if type == "post" else {"post_type": type, "p": id}
        return f"{self.address}?{urlencode(query)}"

    def post_of(self, url: str) -> tuple[str, int]:
        """The type and number of a page's URL.

        Raises:
            OutputError: it is no page of this site.
        """
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        names = {"attachment_id": _MEDIA, "page_id": "page", "post": _PATTERN, "p": "post"}
        for name, type in names.items():
            if query.get(name, "").isdecimal():
                found = (query.get("post_type", type) if name == "p" else type, int(query[name]))
                if self.page_url(*found) == url:
                    return found
        raise OutputError(f"it is no page of {self.address}")

    def is_target(self, url: str, to: Target) -> bool:
        """Whether a page is among those that are to be written."""
        if not self.owns(url):
            return True  # it is refused with a reason
        is_library = self.post_of(url)[0] == _MEDIA
        return to is Target.BOTH or is_library == (to is Target.LIBRARY)

    def read_page(self, url: str) -> tuple[Page, list[ImageOccurrence]]:
        """One page as it is now.

        Raises:
            OutputError: it is not there, or may not be edited.
        """
        page = self.open(url)
        assert isinstance(page, OpenPost | OpenAttachment)
        return page.page, list(page.occurrences)

    def location(self, page: Page) -> str:
        """The page's URL.

        Raises:
            OutputError: it is no page of this site.
        """
        self.post_of(page.url)
        return page.url

    def owns(self, location: str) -> bool:
        """Whether it is a page of this site."""
        try:
            self.post_of(location)
        except OutputError:
            return False
        return True

    def open_image(self, url: str) -> bytes | None:
        """None: images are fetched from the network."""
        return None

    def open(self, location: str) -> OpenPage:
        """Read a post or image as it is now.

        Raises:
            OutputError: it is not there, or may not be edited.
        """
        type, id = self.post_of(location)
        try:
            if type == _MEDIA:
                record = self.api.get(f"/wp/v2/media/{id}", context="edit", _fields=MEDIA_FIELDS)
                return OpenAttachment(self, location, self._attachment(record))
            route = self.routes().get(type)
            if route is None:
                raise OutputError(f"the site has no type {type} (any more)")
            record = self.api.get(f"{route}/{id}", context="edit", _fields=POST_FIELDS)
            return OpenPost(self, location, f"{route}/{id}", self._content(type, record), record)
        except FetchError as error:
            raise OutputError(error.reason) from error

    def block_type(self, name: str) -> Mapping[str, Any] | None:
        """The attributes of a block type, as the site registered it; None if it did not."""
        if name not in self._block_types:
            attributes = None
            try:
                record = self.api.get(f"/wp/v2/block-types/{name}", context="edit")
                if isinstance(record, dict) and isinstance(record.get("attributes"), dict):
                    attributes = record["attributes"]
            except FetchError as error:
                if error.status not in (401, 403, 404):
                    raise OutputError(error.reason) from error
            self._block_types[name] = attributes
        return self._block_types[name]

    def clean_up(self) -> None:
        """Nothing: a write is one request."""


def _first(done: Collection[tuple[str, int]], key: str) -> int:
    """The number of the first page of a collection that is not done."""
    return max((number for name, number in done if name == key), default=0) + 1
