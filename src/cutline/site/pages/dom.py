"""Questions about one element: its attributes, its style, its image, whether it is hidden."""

from __future__ import annotations

import re

from justhtml import Element

from cutline.site.model import Kind
from cutline.site.urls import without_surrogates

_WANTED_WIDTH_PX = 800  # more than a captioner needs, and small enough to fetch
_UNRENDERED = frozenset(
    "datalist head noembed noframes rp script style template textarea title".split()
)
_IMAGE_ELEMENTS = frozenset({"img", "amp-img", "amp-anim"})  # with an alt attribute
_NO_ADDRESSES = frozenset(
    "alt class content href id longdesc name rel sizes src srcset style title usemap width height"
    " aria-label data-caption data-alt data-title onclick".split()
)
_LINKS = frozenset({"data-href", "data-link", "data-url"})  # they may lead to another image
_IMAGES = frozenset({"img", "image"})  # roles for one image; "image" is ARIA 1.3's
_GRAPHICS = _IMAGES | {"graphics-document", "graphics-symbol"}
_CONTROLS = frozenset({"button", "link", "menuitem", "tab", "switch", "checkbox", "radio"})

_NOT_REMOTE = re.compile(r"(?:data|javascript|about|blob):|.*(?:\{\{|\{%|<[?%]|\$\{)", re.I | re.S)
_CANDIDATE = re.compile(r"[\s,]*+(\S*[^\s,])(?:,|\s++((?:[^,(]|\([^)]*+\)?)*+)(?:,|$)|$)")
_PICTURE_ADDRESS = re.compile(
    r"[^\s<>\"'{}]+\.(?:apng|avif|bmp|gif|jfif|jpe?g|jxl|png|svg|webp)(?:[?#][^\s{}]*)?",
    re.IGNORECASE,
)
_ADDRESS_IN_JSON = re.compile(
    r"\"([^\s\"'{}<>]+\.(?:apng|avif|bmp|gif|jfif|jpe?g|jxl|png|svg|webp)(?:[?#][^\s\"{}]*)?)\"",
    re.IGNORECASE,
)
_LIKE_SRCSET = re.compile(r"\S\s+\d+(?:\.\d+)?[wx]\s*(?:,|\Z)")
_ABSOLUTE = re.compile(r"(?:https?:)?//[^\s<>\"'{}]+", re.IGNORECASE)
_CSS_URL = re.compile(r"""url\(\s*(?:"([^"]*)"|'([^']*)'|([^"')\s][^)]*+))\s*\)""", re.IGNORECASE)
_PIXELS = re.compile(r"\s*(\d{1,6})(?:\.\d*)?\s*(?:px)?\s*", re.IGNORECASE)


def attribute_of(element: Element, name: str) -> str:
    """An attribute's value without white space around it; "" if there is none."""
    value = element.attrs.get(name)
    return without_surrogates(value).strip() if value else ""


def role_of(element: Element) -> str:
    """The first of its roles; "" if it has none."""
    return next(iter(attribute_of(element, "role").lower().split()), "")


def language_of(element: Element) -> str | None:
    """Its lang attribute; None if it has none."""
    for name in ("lang", "xml:lang"):
        if name in element.attrs:
            return attribute_of(element, name)
    return None


def style_of(element: Element) -> dict[str, str]:
    """The declarations of its inline style, without URLs."""
    style = element.attrs.get("style")
    if not style:
        return {}
    head, end, tail = style.lower().rpartition(")")
    pairs = (one.partition(":") for one in f"{_CSS_URL.sub('', head + end)}{tail}".split(";"))
    return {name.strip(): value.partition("!")[0].strip() for name, _, value in pairs}


def backgrounds_of(element: Element) -> list[str]:
    """The URLs in its inline style."""
    head, end, _ = (element.attrs.get("style") or "").rpartition(")")
    style = head + end  # otherwise each URL would search for the end again
    return ["".join(found.groups(default="")).strip() for found in _CSS_URL.finditer(style)]


def is_hidden(element: Element) -> bool:
    """Whether the element hides its content, at least from assistive technology.

    What a click reveals is not hidden: closed `<details>` and `<dialog>`, popovers,
    `hidden=until-found`. Neither is the content of a declarative shadow root.
    """
    name, attributes = element.name, element.attrs
    if name in _UNRENDERED and element.namespace == "html":
        return name != "template" or not is_shadow_root(element)
    if (name, "controls" in attributes) == ("audio", False):
        return True
    if not attributes:
        return False
    if "inert" in attributes or attribute_of(element, "aria-hidden").lower() == "true":
        return True
    declared = style_of(element)
    if declared.get("content-visibility") == "hidden":
        return True
    if "display" in declared:
        return declared["display"] == "none"
    return "hidden" in attributes and attribute_of(element, "hidden").lower() != "until-found"


def is_shadow_root(template: Element) -> bool:
    """Whether a <template> is a declarative shadow root (HTML Standard, 4.12.3)."""
    names = ("shadowrootmode", "shadowroot")  # the second is an earlier draft's
    return any(attribute_of(template, name).lower() in ("open", "closed") for name in names)


def is_control(element: Element) -> bool:
    """Whether it is a link or a button."""
    if element.name == "a" and ("href" in element.attrs or "xlink:href" in element.attrs):
        return True
    return element.name in ("button", "summary") or role_of(element) in _CONTROLS


def kind_of(element: Element) -> Kind | None:
    """What kind of image an element is; None if it is none."""
    name, role = element.name, role_of(element)
    if element.namespace == "svg":
        outermost = name == "svg" and not (
            isinstance(element.parent, Element) and element.parent.namespace == "svg"
        )
        return Kind.SVG if outermost or role in _GRAPHICS else None
    if name in _IMAGE_ELEMENTS:
        return Kind.IMG
    if name == "input" and attribute_of(element, "type").lower() == "image":
        return Kind.INPUT
    if name == "area" and "href" in element.attrs:
        return Kind.AREA
    if name == "object" and "data" in element.attrs:
        return Kind.OBJECT
    if role in _IMAGES:
        return Kind.ROLE_IMG
    return Kind.CSS if "style" in element.attrs and backgrounds_of(element) else None


def only_image_of(svg: Element) -> str:
    """The URL of the image that an SVG only wraps, as for the cover of a book; "" if it draws."""
    found = ""
    stack = list(svg.children or [])
    while stack:
        node = stack.pop()
        name = getattr(node, "name", "")
        if not isinstance(node, Element) or name in ("title", "desc", "metadata", "defs", "style"):
            continue
        if name == "image" and not found:
            found = attribute_of(node, "href") or attribute_of(node, "xlink:href")
        elif name != "g":
            return ""
        stack += node.children or []
    return found


def own_name(element: Element) -> str:
    """The name that an element adds to that of a link around it."""
    if label := one_line(attribute_of(element, "aria-label")):
        return label
    if element.namespace == "svg":
        return next(
            (one_line(c.to_text()) for c in element.children or [] if c.name == "title"), ""
        )
    if element.name in _IMAGE_ELEMENTS or element.name in ("area", "input"):
        alt = element.attrs.get("alt")
        return (
            one_line(without_surrogates(alt)) if alt is not None else attribute_of(element, "title")
        )
    return ""


def in_pixels(length: str | None) -> int | None:
    """A length in px; None for any other, such as "50%"."""
    matched = _PIXELS.fullmatch(length or "")
    return int(matched[1]) if matched else None


def is_remote(source: str) -> bool:
    """Whether a source is a URL to fetch, not a data URI or a template's variable."""
    return bool(source) and not _NOT_REMOTE.match(source)


def is_picture_address(text: str) -> bool:
    """Whether a text is the URL or path of an image, by its file name extension."""
    return _PICTURE_ADDRESS.fullmatch(text) is not None


def other_addresses(element: Element, *, placeholder: bool = False) -> list[str]:
    """Image URLs in non-standard attributes, as lazy-loading scripts use them.

    An attribute may hold a URL or path, a srcset, or JSON with paths.

    Args:
        element: an image.
        placeholder: whether its own source is a placeholder; then any other absolute URL in a
            `data-` attribute counts, even without the ending of an image file.
    """
    found: dict[str, None] = {}
    attributes = sorted(element.attrs.items(), key=lambda each: each[0] in _LINKS)
    for name, raw in attributes:
        value = (raw or "").strip()
        if name in _LINKS and not (placeholder and is_picture_address(value)):
            continue
        if name in _NO_ADDRESSES or name.startswith(("on", "aria-")) or not value:
            continue
        if is_picture_address(value):
            found[value] = None
        elif value.startswith(("{", "[")):
            found.update(dict.fromkeys(_ADDRESS_IN_JSON.findall(value.replace("\\/", "/"))))
        elif _LIKE_SRCSET.search(value):
            sized = sorted(parse_srcset(value, None), key=lambda one: -(one[1] or 0))
            best = best_of(sized)
            listed = [best, *(url for url, _ in sized if url != best)]
            found.update(dict.fromkeys(url for url in listed if is_picture_address(url)))
        elif placeholder and name.startswith("data-") and _ABSOLUTE.fullmatch(value):
            found[value] = None
    urls = map(without_surrogates, found)
    return [one for one in urls if is_remote(one) and "%7b" not in one.lower()]


def parse_srcset(value: str, width_px: int | None) -> list[tuple[str, int | None]]:
    """The URLs of a srcset, each with its width in px if known (HTML Standard, 4.8.4.2.1).

    Args:
        value: the attribute.
        width_px: the displayed width, for densities such as "2x".
    """
    found: list[tuple[str, int | None]] = []
    position = 0
    while candidate := _CANDIDATE.match(value, position):
        position = candidate.end()
        url, descriptor = candidate[1], (candidate[2] or "").split()
        width = None
        for one in descriptor:
            if re.fullmatch(r"\d{1,6}w", one):
                width = int(one[:-1])
            elif width_px and re.fullmatch(r"\d{1,3}(?:\.\d{1,3})?x", one):
                width = round(float(one[:-1]) * width_px)
        if is_remote(url):
            found.append((url, width))
    return found


def best_of(candidates: list[tuple[str, int | None]]) -> str:
    """The smallest source wide enough to describe, else the widest; "" if no width is known."""
    sized = [(width, url) for url, width in candidates if width]
    enough = [one for one in sized if one[0] >= _WANTED_WIDTH_PX]
    return min(enough)[1] if enough else max(sized, default=(0, ""))[1]


def one_line(text: str) -> str:
    """Text with its white space collapsed, as a browser shows it."""
    return " ".join(without_surrogates(text).split())
