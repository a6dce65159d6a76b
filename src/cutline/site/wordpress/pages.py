"""Posts and images of a WordPress site as pages that are open for writing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from cutline.errors import FetchError, OutputError
from cutline.site.destination import (
    AltChange,
    ChangedByStoreError,
    Commit,
    Edit,
    Known,
    PageBase,
    edited,
    identity,
)
from cutline.site.model import ImageOccurrence, Page
from cutline.site.wordpress.client import Api
from cutline.site.wordpress.content import PostContent, only_alts_differ, page_builder
from cutline.site.wordpress.library import Attachment, raw, runs_shortcode, sanitized
from cutline.site.wordpress.save_filters import changed_when_saved
from cutline.site.writeback.patch import shown

POST_FIELDS = "id,type,status,link,title,content,modified_gmt,_links"
MEDIA_FIELDS = (
    "id,alt_text,title,caption,description,source_url,media_details,media_type,post,modified_gmt"
)
"""The fields of the API that a post and an image of the library are made of."""

_UNFILTERED = ("wp:action-unfiltered-html", "https://api.w.org/action-unfiltered-html")


class Site(Protocol):
    """What an open page needs of its site."""

    @property
    def api(self) -> Api:
        """The REST API."""
        ...

    @property
    def language(self) -> str:
        """The language of the home page."""
        ...

    @property
    def version(self) -> tuple[int, int] | None:
        """The version of WordPress; None if it is not known."""
        ...

    def block_type(self, name: str) -> Mapping[str, Any] | None:
        """The attributes of a block type; None if the site did not register it."""
        ...


class OpenPost(PageBase):
    """One post as it is now."""

    def __init__(
        self,
        site: Site,
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
        """Write the content if it is unchanged and not being edited, and read it back.

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
            record = self._site.api.get(self._route, context="edit", _fields=POST_FIELDS)
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
        """Refuse a post that is being edited, as far as autosaves show it.

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

    def __init__(self, site: Site, url: str, attachment: Attachment) -> None:
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
                f"/wp/v2/media/{self._attachment.id}", context="edit", _fields=MEDIA_FIELDS
            )
            return Attachment.from_json(record)
        except FetchError as error:
            raise OutputError(error.reason) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise OutputError("the API's answer is no image of the library") from error


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
