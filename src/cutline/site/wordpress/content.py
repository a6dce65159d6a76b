"""The images in a post's content, in blocks and in classic HTML, and the edits of their alts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from cutline.errors import OutputError
from cutline.site.destination import AltChange, Edit
from cutline.site.model import ImageOccurrence, Kind, Page
from cutline.site.pages.alt_markup import differs_in_alt_only, with_alt
from cutline.site.pages.html import occurrences_in_html
from cutline.site.wordpress.blocks import Block, Span, block_at, parse_blocks, with_string

BlockTypes: TypeAlias = Callable[[str], Mapping[str, Any] | None]
"""The attributes of a block type by its name, as the site registered it; None if it did not."""

ALT_KEYS = ("alt", "mediaAlt")
"""The attributes in which WordPress's own blocks keep an alt."""

_BUILDERS = {
    "Elementor": (r"\bdata-elementor-type=", r"\belementor-element\b"),
    "Divi": (r"\[et_pb_(?:section|row|image|text)\b", r"<!--\s+wp:divi/"),
    "WPBakery Page Builder": (r"\[vc_(?:row|column|single_image)\b",),
    "Beaver Builder": (r"\bfl-builder-content\b", r"<!--\s+wp:fl-builder/"),
    "Bricks": (r"\bclass=\"[^\"]*\bbrxe-",),
    "Oxygen": (r"\[(?:oxygen|ct_section)\b", r"\bclass=\"[^\"]*\bct-section\b"),
    "Avada Builder": (r"\[fusion_(?:builder_container|builder_row|imageframe)\b",),
    "SiteOrigin Page Builder": (r"\bpanel-grid-cell\b", r"<!--\s+wp:siteorigin-panels/"),
    "Themify Builder": (r"\bthemify_builder_content\b",),
    "Brizy": (r"\bclass=\"[^\"]*\bbrz-root\b",),
    "Breakdance": (r"\bclass=\"[^\"]*\bbde-section",),
    "Cornerstone": (r"\[cs_(?:content|section)\b",),
    "Thrive Architect": (r"\bclass=\"[^\"]*\bthrv_wrapper\b",),
    "Visual Composer": (r"\bdata-vce-",),
}
_IMAGE_TAG = re.compile(r"<img\b", re.IGNORECASE)
_BUILDER_IMAGE = re.compile(r"<img\b|\[\w*(?:image|imageframe|slide)\b", re.IGNORECASE)
_GALLERY = re.compile(r"(?<!\[)\[(gallery|playlist)\b[^\]]*\]", re.IGNORECASE)
_IMAGE_FILE = re.compile(r"\.(?:jpe?g|png|gif|webp|avif)\b", re.IGNORECASE)
_ALT_KEY = re.compile(r"(?:\A|[_-])alt(?:[A-Z_-]|text|\Z)|[a-z]Alt(?:[A-Z_-]|\Z)")
_COVER_BACKGROUND = "wp-block-cover__image-background"
_MEDIA_TEXT = "wp-block-media-text__media"
_OVERRIDES = "core/pattern-overrides"


def page_builder(raw: str, rendered: str) -> str:
    """The page builder that made a post; "" if none did.

    Args:
        raw: the post's content as it is stored.
        rendered: as it is shown.
    """
    for name, patterns in _BUILDERS.items():
        for pattern in patterns:
            if re.search(pattern, raw) or re.search(pattern, rendered):
                return name
    return ""


@dataclass(frozen=True)
class PostContent:
    """A post's content as it was read.

    Attributes:
        raw: as it is stored.
        rendered: as it is shown; "" if that is not known.
        url: the page's URL in the record of the site.
        link: the post's address, which relative URLs are relative to.
        title: of the post.
        language: of the site.
        is_pattern: whether it is a synced pattern.
    """

    raw: str
    rendered: str
    url: str
    link: str
    title: str = ""
    language: str = ""
    is_pattern: bool = False

    def read(self) -> tuple[Page, list[ImageOccurrence]]:
        """The page, and its images; of a page builder's post none, because it cannot be written."""
        page, occurrences = occurrences_in_html(
            self.raw, page=self.url, base=self.link or self.url, template=False
        )
        page = replace(page, title=self.title, language=self.language)
        builder = page_builder(self.raw, self.rendered)
        if builder:
            count = max(
                len(_BUILDER_IMAGE.findall(self.raw)), len(_IMAGE_TAG.findall(self.rendered))
            )
            unread = ((f"image in a post made with {builder}", count),) if count else ()
            return replace(page, unread=unread), []
        counts = Counter(dict(page.unread))
        counts.update(_unread(self.raw))
        found = [
            replace(
                each,
                position=number,
                page_title=self.title,
                heading=each.heading or self.title,
                language=each.language or self.language,
            )
            for number, each in enumerate(_writable(occurrences, counts))
        ]
        return replace(page, unread=tuple(counts.items())), found

    def edits(
        self, changes: Sequence[AltChange], block_types: BlockTypes, part: str = ""
    ) -> tuple[Edit, ...]:
        """The edits that write these alts: of the tag, and of the block's attributes if need be.

        Raises:
            OutputError: one of them cannot be written.
        """
        blocks = parse_blocks(self.raw)
        edits: list[tuple[Span, AltChange]] = []
        for change in changes:
            edits += [(span, change) for span in self._spans(blocks, change, block_types)]
        edits.sort(key=lambda each: each[0].start)
        found: list[Edit] = []
        position, start = 0, 0
        for span, change in edits:
            if span.start < position:
                raise OutputError("another change overlaps it; change it in the editor")
            start += len(_encode(self.raw[position : span.start]))
            before = _encode(self.raw[span.start : span.end])
            after = _encode(span.text)
            found.append(Edit(change.id, start, before, after, change.alt, part))
            start += len(before)
            position = span.end
        return tuple(found)

    def _spans(
        self, blocks: Sequence[Block], change: AltChange, block_types: BlockTypes
    ) -> list[Span]:
        """The places that a change touches, with their new text.

        Raises:
            OutputError: it cannot be written.
        """
        occurrence = change.occurrence
        start, end = occurrence.offset, occurrence.offset + len(occurrence.markup)
        if start < 0 or self.raw[start:end] != occurrence.markup:
            raise OutputError("its place in the content is not known; change it in the editor")
        tag = Span(start, end, _with_alt(occurrence, change.alt))
        block = block_at(blocks, start)
        if block is None:
            return [tag]
        spans = [tag]
        for key in keys_with_alt(block, occurrence, change.alt, block_types, self.is_pattern):
            others = [each for each in blocks if each.parent is block]
            images = [
                match.start()
                for match in _IMAGE_TAG.finditer(self.raw, block.start, block.end)
                if not any(other.start <= match.start() < other.end for other in others)
            ]
            if len(images) > 1:
                raise OutputError(f"its block ({block.name}) has several images; use the editor")
            try:
                edit = with_string(self.raw, block, key, change.alt)
            except ValueError as error:
                raise OutputError(f"its block ({block.name}): {error}; use the editor") from error
            spans.append(self._whole_attributes(block, edit))
        return spans

    def _whole_attributes(self, block: Block, edit: Span) -> Span:
        """An edit of a block's attributes, widened to all of them."""
        start, end = block.json_start, block.json_end
        text = self.raw[start : edit.start] + edit.text + self.raw[edit.end : end]
        return Span(start, end, text)


def keys_with_alt(
    block: Block,
    occurrence: ImageOccurrence,
    alt: str,
    block_types: BlockTypes,
    is_pattern: bool = False,
) -> tuple[str, ...]:
    """The attributes in a block's comment that have to change together with an alt.

    Args:
        block: the innermost block around the image.
        occurrence: the image as it is in the content.
        alt: the new alt.
        block_types: what the site registered.
        is_pattern: whether the content is a synced pattern, in which overrides have their defaults.

    Raises:
        OutputError: the block takes its alt from elsewhere, or may keep it where it is not known.
    """
    _check_bindings(block, is_pattern)
    attributes = block.attributes
    registered = block_types(block.name)
    if block.name == "core/cover" and (
        attributes.get("hasParallax") or attributes.get("isRepeated")
    ):
        what = "fixed" if attributes.get("hasParallax") else "repeated"
        if not (alt and "alt" in attributes and "aria-label" in occurrence.markup):
            raise OutputError(f"it is a {what} cover; set its alt in the editor")
        return ("alt",)
    if block.name.startswith("core/"):
        names = [key for key in ALT_KEYS if isinstance(attributes.get(key), str)]
        if block.name in ("core/cover", "core/media-text"):
            names += [key for key in ALT_KEYS if key not in names and _is_in_json(registered, key)]
        return tuple(names)
    return _plugin_keys(block, occurrence, registered)


def _plugin_keys(
    block: Block, occurrence: ImageOccurrence, registered: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """As `keys_with_alt`, for a block that a plugin or theme registered."""
    known = {key for key in (*(registered or {}), *block.attributes) if _ALT_KEY.search(key)}
    in_json = {
        key
        for key in known
        if isinstance(block.attributes.get(key), str) or _is_in_json(registered, key)
    }
    if known and not in_json and registered is not None:
        return ()  # the site says that all of them are read from the HTML
    present = occurrence.alt or ""
    if len(in_json) == 1:
        [key] = in_json
        if block.attributes.get(key, "") == present:
            return (key,)
    raise OutputError(
        f"its block ({block.name}) belongs to a plugin that may keep the alt elsewhere; change it "
        "in the editor"
    )


def only_alts_differ(before: str, after: str) -> bool:
    """Whether two versions of a tag, or of a block's attributes, differ in alts only."""
    if before.lstrip().startswith("{") or after.lstrip().startswith("{"):
        try:
            pair = [json.loads(text) if text.strip() else {} for text in (before, after)]
        except (ValueError, RecursionError):
            return False
        if not all(isinstance(each, dict) for each in pair):
            return False
        one, other = ({k: v for k, v in each.items() if not _is_alt(k, v)} for each in pair)
        return one == other
    return differs_in_alt_only(before, after)


def _is_alt(key: str, value: Any) -> bool:
    return isinstance(value, str) and _ALT_KEY.search(key) is not None


def _check_bindings(block: Block, is_pattern: bool) -> None:
    """Refuse an alt that a block binding supplies (WordPress 6.5 and later)."""
    for each in block.ancestors():
        metadata = each.attributes.get("metadata")
        bindings = metadata.get("bindings") if isinstance(metadata, dict) else None
        if not isinstance(bindings, dict) or each is not block:
            continue
        for key in (*ALT_KEYS, "__default"):
            binding = bindings.get(key)
            if binding is None:
                continue
            source = str(binding.get("source", "")) if isinstance(binding, dict) else ""
            if source == _OVERRIDES and is_pattern:
                continue  # the pattern's own alt, where a post that shows it has no other
            raise OutputError(f"its alt is bound to {source or 'another source'}; change it there")


def _is_in_json(registered: Mapping[str, Any] | None, key: str) -> bool:
    """Whether a block type keeps a text in the comment, not in the HTML."""
    schema = (registered or {}).get(key)
    return isinstance(schema, dict) and schema.get("type") == "string" and "source" not in schema


def _writable(
    occurrences: Sequence[ImageOccurrence], counts: Counter[str]
) -> Iterator[ImageOccurrence]:
    """Without backgrounds of blocks; those that show an image of their own are counted."""
    for each in occurrences:
        is_background = each.kind is not Kind.IMG and _COVER_BACKGROUND in each.markup
        if is_background and "aria-label" not in each.markup:
            counts["fixed or repeated cover, whose alt is set in the editor"] += 1
            continue
        if each.kind is Kind.CSS and _MEDIA_TEXT in each.markup:
            continue  # the same image as the <img> in it
        yield each


def _unread(raw: str) -> Counter[str]:
    """What shows images and is not written: shortcodes, overrides and plugins' data."""
    found: Counter[str] = Counter()
    galleries = len(_GALLERY.findall(raw))
    if galleries:
        found["gallery shortcode, which shows the alts of the media library"] = galleries
    for block in parse_blocks(raw):
        overrides = block.attributes.get("content") if block.name == "core/block" else None
        if isinstance(overrides, dict):
            alts = sum(
                isinstance(value, dict) and any(key in value for key in (*ALT_KEYS, "url", "id"))
                for value in overrides.values()
            )
            if alts:
                found["image in the overrides of a synced pattern"] += alts
        if not block.name.startswith("core/") and raw[: block.end].endswith("/-->"):
            text = raw[block.json_start : block.json_end]
            if _IMAGE_FILE.search(text) or re.search(r'"(?:image|media)\w*"\s*:', text):
                found[f"image in the data of a block ({block.name})"] += 1
        if block.attributes.get("useFeaturedImage"):
            found["cover with the featured image, which shows the media library's alt"] += 1
    return found


def _with_alt(occurrence: ImageOccurrence, alt: str) -> str:
    """The tag with an alt in which no bracket can start a shortcode."""
    return with_alt(occurrence.markup, occurrence.kind, alt, in_markdown=True)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
