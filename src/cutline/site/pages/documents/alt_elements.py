"""The elements of Office documents that hold an alt: their current alt, and the same with another.

DrawingML has the attribute `descr` and, for decorative pictures, the extension `adec:decorative`
(Microsoft's [MS-ODRAWXML] 2.30). VML has the attribute `alt` and nothing for decorative pictures.
An OpenDocument frame has the child elements `svg:title` and `svg:desc` (OpenDocument 1.3, 19.8).
"""

from __future__ import annotations

import re

from cutline.errors import OutputError
from cutline.site.pages.documents.xml_part import attributes_of, start_tag, with_attribute

STRICT_DRAWING = "http://purl.oclc.org/ooxml/drawingml/main"
DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
DECORATIVE = "http://schemas.microsoft.com/office/drawing/2017/decorative"
DECORATIVE_ID = "{C183D7F6-B498-43B3-948B-1728B52AA6E4}"

_NAME = r"(?:[\w.-]+:)?"
_MARK = re.compile(rf"<{_NAME}decorative(?:\s[^<>]*)?/?>")
_EXTENSION = re.compile(
    rf"""<{_NAME}ext\s[^<>]*uri=["']{re.escape(DECORATIVE_ID)}["'][^<>]*>\s*"""
    rf"<{_NAME}decorative(?:\s[^<>]*)?(?:/>|>\s*</{_NAME}decorative\s*>)\s*</{_NAME}ext\s*>",
    re.IGNORECASE,
)
_EMPTY_LIST = re.compile(rf"<{_NAME}extLst(?:\s[^<>]*)?(?:/>|>\s*</{_NAME}extLst\s*>)\s*\Z")
_LIST_END = re.compile(rf"</({_NAME})extLst\s*>\s*\Z")
_PROPERTIES = re.compile(r"(?:\A|:)(?:docPr|cNvPr)\Z")


def is_decorative(element: str) -> bool:
    """Whether a DrawingML element marks its picture as decorative."""
    found = _MARK.search(element)
    value = dict(attributes_of(found[0])).get("val", "") if found else ""
    return value.strip().lower() in ("1", "true", "on")


def alt_of(element: str) -> str | None:
    """The alt of an element; "" if it marks the picture as decorative, None without an alt.

    An empty `descr` or `alt` alone is what programs write for a picture that has no alt.
    """
    if _is_drawing(element) and is_decorative(element):
        return ""
    name = "descr" if _is_drawing(element) else "alt"
    return dict(attributes_of(start_tag(element))).get(name) or None


def with_alt(element: str, alt: str, *, strict: bool = False, is_copy: bool = False) -> str:
    """The same element with this alt.

    Args:
        element: the whole element of a well-formed part.
        alt: on one line; "" marks the picture as decorative.
        strict: whether the document uses the namespaces of Office Open XML Strict.
        is_copy: whether another element has the mark for a decorative picture, too.

    Raises:
        OutputError: the element has no way to mark a picture as decorative.
    """
    tag = start_tag(element)
    if not _is_drawing(element):
        if not alt and not is_copy:
            raise OutputError(
                "VML has no mark for decorative pictures; replace the picture in a current program"
            )
        return with_attribute(tag, "alt", alt) + element[len(tag) :]
    if alt or "descr" in dict(attributes_of(tag)):
        element = with_attribute(tag, "descr", alt) + element[len(tag) :]
    if bool(alt) == is_decorative(element):
        element = _marked(element, not alt, strict)
    return element


def without_alt(element: str) -> tuple[str, ...]:
    """An element's name, attributes and content without the alt, for comparisons."""
    tag = start_tag(element)
    drawing = _is_drawing(element)
    kept = [
        f"{name}={value}"
        for name, value in attributes_of(tag)
        if name != ("descr" if drawing else "alt")
    ]
    inner = element[len(tag) :]
    if drawing and not tag.endswith("/>"):
        inner = re.sub(rf"</{re.escape(_name(element))}\s*>\Z", "", inner)
        inner = _EMPTY_LIST.sub("", _EXTENSION.sub("", inner))
    return (_name(element), *kept, inner.strip())


def _name(element: str) -> str:
    return re.split(r"[\s/>]", element[1:], maxsplit=1)[0]


def _is_drawing(element: str) -> bool:
    return _PROPERTIES.search(_name(element)) is not None


def _marked(element: str, decorative: bool, strict: bool) -> str:
    """A DrawingML element with the mark for decorative pictures set or cleared."""
    value = "1" if decorative else "0"
    if found := _MARK.search(element):
        tag = with_attribute(found[0], "val", value)
        return element[: found.start()] + tag + element[found.end() :]
    mark = f'<adec:decorative xmlns:adec="{DECORATIVE}" val="{value}"/>'
    tag = start_tag(element)
    if tag.endswith("/>"):
        head, inner, end = f"{tag[:-2].rstrip()}>", "", f"</{_name(element)}>"
    else:
        at = element.rindex("</")
        head, inner, end = tag, element[len(tag) : at], element[at:]
    inner = _EMPTY_LIST.sub("", inner)
    if found := _LIST_END.search(inner):
        prefix = found[1]
        extension = f'<{prefix}ext uri="{DECORATIVE_ID}">{mark}</{prefix}ext>'
        return f"{head}{inner[: found.start()]}{extension}{inner[found.start() :]}{end}"
    namespace = STRICT_DRAWING if strict else DRAWING
    extension = (
        f'<a:extLst xmlns:a="{namespace}"><a:ext uri="{DECORATIVE_ID}">{mark}</a:ext></a:extLst>'
    )
    return f"{head}{inner}{extension}{end}"
