"""A WordPress site as a destination: pages are posts, and images of the media library."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from cutline.errors import FetchError, OptionError, OutputError
from cutline.site.destination import (
    AltChange,
    ChangedByStoreError,
    Commit,
    Destination,
    Edit,
    Known,
    OpenPage,
    PageBase,
    edited,
    identity,
)
from cutline.site.model import ImageOccurrence, Page
from cutline.site.wordpress.checks import check_content, check_file, check_site, language_of
from cutline.site.wordpress.client import Api
from cutline.site.wordpress.content import PostContent, only_alts_differ, page_builder
from cutline.site.wordpress.library import Attachment, Usage, raw, runs_shortcode, sanitized
from cutline.site.wordpress.save_filters import changed_when_saved, version_of
from cutline.site.writeback.patch import shown

KIND = "wordpress"
_MEDIA = "attachment"
_PATTERN = "wp_block"
_NO_PAGES = frozenset(
    "attachment nav_menu_item wp_template wp_template_part wp_navigation wp_global_styles "
    "wp_font_family wp_font_face".split()
)
_POST_FIELDS = "id,type,status,link,title,content,modified_gmt,_links"
_MEDIA_FIELDS = (
    "id,alt_text,title,caption,description,source_url,media_details,media_type,post,modified_gmt"
)
_UNFILTERED = ("wp:action-unfiltered-html", "https://api.w.org/action-unfiltered-html")


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
            "_fields": _POST_FIELDS,
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
            "_fields": _MEDIA_FIELDS,
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
                record = self.api.get(f"/wp/v2/media/{id}", context="edit", _fields=_MEDIA_FIELDS)
                return OpenAttachment(self, location, self._attachment(record))
            route = self.routes().get(type)
            if route is None:
                raise OutputError(f"the site has no type {type} (any more)")
            record = self.api.get(f"{route}/{id}", context="edit", _fields=_POST_FIELDS)
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


class OpenPost(PageBase):
    """One post as it is now."""

    def __init__(
        self,
        site: WordPress,
        url: str,
        route: str,
        content: PostContent,
        record: Mapping[str, Any],
    ) -> None:
        self.path = url
        self.sha256 = _sha256(content.raw)
        self._site, self._route, self._content, self._record = site, route, content, record
        self.page, self.occurrences = content.read()

    def locate(self, occurrence: ImageOccurrence, page: Page, known: Known) -> ImageOccurrence:
        """The same occurrence, if the content is still what was read.

        Raises:
            OutputError: it changed since.
        """
        if page.sha256 != self.sha256:
            raise OutputError("it changed since it was read; run cutline site wordpress again")
        if occurrence.position < len(self.occurrences):
            there = self.occurrences[occurrence.position]
            if identity(there) == identity(occurrence):
                return there
        raise OutputError("its place in the content is not known; run cutline site wordpress again")

    def check(self, change: AltChange) -> bool:
        """Whether the alt differs and can be written.

        Raises:
            OutputError: it cannot.
        """
        self._check_user()
        builder = page_builder(self._content.raw, self._content.rendered)
        if builder:
            raise OutputError(f"the post is made with {builder}; change the alt there")
        changed = changed_when_saved(self._content.raw, self._site.version)
        if changed:
            raise OutputError(
                f"WordPress would change {changed} too when it saves the post; save the post once "
                "in the editor, then run cutline site wordpress again"
            )
        return any(edit.before != edit.after for edit in self.edits([change]))

    def edits(self, changes: Sequence[AltChange]) -> tuple[Edit, ...]:
        """The edits of tags, and of the attributes of blocks that keep an alt there too."""
        return self._content.edits(changes, self._site.block_type)

    def only_alts(self, edits: Sequence[Edit]) -> bool:
        """Whether the edits change tags and blocks' attributes in their alts only."""
        return all(
            only_alts_differ(*(_decode(each) for each in (edit.before, edit.after)))
            for edit in edits
        )

    def diff(self, edits: Sequence[Edit]) -> str:
        """The lines that change."""
        if not edits:
            return ""
        name = f"--- {self.path}\n+++ {self.path}\n"
        return name + shown(_encode(self._content.raw), edits, "utf-8")

    def write(self, edits: Sequence[Edit], commit: Commit) -> None:
        """Write the content, if nobody changed or edits it, and read it back.

        Raises:
            OutputError: it changed, is being edited, or may not be written; it is unchanged.
            ChangedByStoreError: WordPress saved other content than it was given.
        """
        self._check_user()
        before = self._content.raw
        after = _decode(edited(_encode(before), edits))
        self._check_autosaves()
        now = self._read()
        if raw(now.get("content")) != before:
            raise OutputError("it changed a moment ago; run cutline site wordpress again")
        if now.get("modified_gmt") != self._record.get("modified_gmt"):
            raise OutputError("it was saved a moment ago; run the same command again")
        commit(_sha256(after))
        try:
            self._site.api.post(self._route, {"content": after})
        except FetchError as error:
            if error.code not in ("timeout", "connect", "protocol") and error.status < 500:
                raise OutputError(error.reason) from error
            saved = raw(self._read().get("content"))  # it may have been saved all the same
            if saved == before:
                raise OutputError(error.reason) from error
        else:
            saved = raw(self._read().get("content"))
        if saved != after:
            self._roll_back(before, after, saved, edits[0])

    def _roll_back(self, before: str, after: str, saved: str, edit: Edit) -> None:
        """Restore the content after WordPress saved something else than it was given.

        If it saves something else again, the content stays with the new alts.

        Raises:
            OutputError: the content is what it was.
            ChangedByStoreError: it is not.
        """
        where = _first_difference(after, saved)
        reason = f"WordPress changed more than the alt when it saved: {where}"
        try:
            self._site.api.post(self._route, {"content": before})
            if raw(self._read().get("content")) == before:
                raise OutputError(f"{reason}; the content was restored")
            self._site.api.post(self._route, {"content": saved})
        except FetchError as error:
            reason = f"{reason}; then {error.reason}"
        saved = raw(self._read().get("content"))
        whole = Edit(edit.occurrence, 0, _encode(before), _encode(saved), edit.alt, edit.part)
        raise ChangedByStoreError(
            f"{reason}; restore an earlier revision in the editor", _sha256(saved), [whole]
        )

    def _read(self) -> Mapping[str, Any]:
        try:
            record = self._site.api.get(self._route, context="edit", _fields=_POST_FIELDS)
        except FetchError as error:
            raise OutputError(error.reason) from error
        return record if isinstance(record, dict) else {}

    def _check_user(self) -> None:
        """Refuse a user whose content WordPress filters when it is saved.

        Raises:
            OutputError: the user lacks `unfiltered_html`.
        """
        links = self._record.get("_links")
        if not any(name in (links or {}) for name in _UNFILTERED):
            raise OutputError(
                f"{self._site.api.user!r} may not post unfiltered HTML, so that saving would "
                "change more than the alt; use an administrator or editor, or --to library"
            )

    def _check_autosaves(self) -> None:
        """Refuse a post that somebody edits, as far as autosaves show it.

        Raises:
            OutputError: an autosave is newer than the post, and has other content.
        """
        try:
            found = self._site.api.get(f"{self._route}/autosaves", context="edit")
        except FetchError as error:
            if error.status == 404:
                return  # the type has none
            raise OutputError(error.reason) from error
        modified = str(self._record.get("modified_gmt") or "")
        for each in found if isinstance(found, list) else ():
            if not isinstance(each, dict):
                continue
            when = str(each.get("modified_gmt") or "")
            if when >= modified and raw(each.get("content")) != self._content.raw:
                raise OutputError(
                    f"somebody edited it and has not saved yet (autosave of {when}, UTC); save or "
                    "discard that in the editor first"
                )


class OpenAttachment(PageBase):
    """One image of the media library as it is now."""

    def __init__(self, site: WordPress, url: str, attachment: Attachment) -> None:
        self.path = url
        self.sha256 = attachment.sha256
        self._site, self._attachment = site, attachment
        self.page, self.occurrences = attachment.read(url, language=site.language)

    def check(self, change: AltChange) -> bool:
        """Whether the alt differs and can be written.

        Raises:
            OutputError: WordPress would change it, or could not restore the present one.
        """
        old = self._attachment.alt
        if change.alt == old:
            return False
        kept = sanitized(change.alt)
        if kept != change.alt:
            raise OutputError(f"WordPress would save it as {kept!r}; change the text")
        if runs_shortcode(change.alt):
            raise OutputError(
                "its brackets could run as a shortcode where themes show it; use parentheses"
            )
        if sanitized(old) != old:
            raise OutputError(
                f"undo could not restore the present text, because WordPress would save it as "
                f"{sanitized(old)!r}; change it by hand"
            )
        return True

    def edits(self, changes: Sequence[AltChange]) -> tuple[Edit, ...]:
        """One edit: the whole alt."""
        [change] = changes
        return (Edit(change.id, 0, _encode(self._attachment.alt), _encode(change.alt), change.alt),)

    def only_alts(self, edits: Sequence[Edit]) -> bool:
        """Whether it is one edit of the whole alt: nothing else of an image is ever written."""
        return len(edits) == 1

    def diff(self, edits: Sequence[Edit]) -> str:
        """The old and the new alt."""
        return "".join(
            f"--- {self.path}\n+++ {self.path}\n@@ alt in the media library @@\n"
            f"-{_decode(edit.before)}\n+{_decode(edit.after)}\n"
            for edit in edits
        )

    def write(self, edits: Sequence[Edit], commit: Commit) -> None:
        """Write the alt and read it back.

        Raises:
            OutputError: it changed, or may not be written; it is unchanged.
            ChangedByStoreError: WordPress saved another text than it was given.
        """
        [edit] = edits
        before, after = _decode(edit.before), _decode(edit.after)
        now = self._read()
        if now.sha256 != self.sha256 or now.alt != before:
            raise OutputError("it changed a moment ago; run cutline site wordpress again")
        commit(replace(now, alt=after).sha256)
        try:
            self._site.api.post(f"/wp/v2/media/{now.id}", {"alt_text": after})
        except FetchError as error:
            if error.code not in ("timeout", "connect", "protocol") and error.status < 500:
                raise OutputError(error.reason) from error
            saved = self._read()  # it may have been saved all the same
            if saved.sha256 == self.sha256:
                raise OutputError(error.reason) from error
        else:
            saved = self._read()
        if saved.sha256 == replace(now, alt=after).sha256:
            return
        changed = Edit(edit.occurrence, 0, edit.before, _encode(saved.alt), edit.alt)
        if saved.alt != after:
            reason = f"WordPress saved {saved.alt!r} instead of {after!r}"
        else:
            reason = "WordPress changed its title, caption or description when it saved the alt"
        raise ChangedByStoreError(reason, saved.sha256, [changed])

    def _read(self) -> Attachment:
        try:
            record = self._site.api.get(
                f"/wp/v2/media/{self._attachment.id}", context="edit", _fields=_MEDIA_FIELDS
            )
            return Attachment.from_json(record)
        except FetchError as error:
            raise OutputError(error.reason) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OutputError("the API's answer is no image of the library") from error


def _first(done: Collection[tuple[str, int]], key: str) -> int:
    """The number of the first page of a collection that is not done."""
    return max((number for name, number in done if name == key), default=0) + 1


def _first_difference(one: str, other: str) -> str:
    """The first place in which saved content differs from what was sent."""
    same = next(
        (n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )
    start = max(0, same - 10)
    return f"{one[start : same + 30]!r} became {other[start : same + 30]!r}"


def _sha256(text: str) -> str:
    return hashlib.sha256(_encode(text)).hexdigest()


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")
