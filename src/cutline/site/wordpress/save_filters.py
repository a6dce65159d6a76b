"""What WordPress itself changes in content when it saves it, besides the alt that is written.

Two filters run for every user: `wp_targeted_link_rel` adds `rel="noopener"` to links that open in
another tab (until WordPress 6.7), and `convert_invalid_entities` replaces references such as
`&#150;`. Old content may hold such links and references; neither a write nor undo could keep them.
"""

from __future__ import annotations

import re

_SCRIPT_OR_STYLE = re.compile(r"<(script|style).*?</\1>", re.IGNORECASE | re.DOTALL)
_TARGETED_LINK = re.compile(r"<a\s([^>]*target\s*=[^>]*)>", re.IGNORECASE)
_ATTRIBUTE = r"[A-Za-z][\w:-]*(?:=\"[^\"]*\"|='[^']*')?"
_REGULAR = re.compile(rf"{_ATTRIBUTE}(?: {_ATTRIBUTE})*")
_REL = re.compile(r'(?:\A| )rel="([^"\']*)"')
_INVALID_REFERENCE = re.compile(r"&#1(?:2[89]|[34]\d|5\d);")
_GENERATOR = re.compile(r"<meta\b[^>]*content=[\"']WordPress (\d+)\.(\d+)", re.IGNORECASE)
_WITHOUT_LINK_FILTER = (6, 7)


def version_of(page: str) -> tuple[int, int] | None:
    """The version of WordPress that a page names in its generator; None if it names none."""
    found = _GENERATOR.search(page)
    return (int(found[1]), int(found[2])) if found else None


def changed_when_saved(content: str, version: tuple[int, int] | None = None) -> str:
    """What WordPress would change in content that is saved as it is; "" if nothing.

    Args:
        content: as it is stored.
        version: of WordPress; None if it is not known.
    """
    found = _INVALID_REFERENCE.search(content)
    if found:
        return f"the reference {found[0]}"
    if version is not None and version >= _WITHOUT_LINK_FILTER:
        return ""
    for part in _SCRIPT_OR_STYLE.sub("\0", content).split("\0"):
        for link in _TARGETED_LINK.finditer(part):
            if not _is_kept(link[1]):
                return f"the link {link[0][:80]}"
    return ""


def _is_kept(attributes: str) -> bool:
    """Whether the filter for links writes these attributes as they are."""
    rel = _REL.search(attributes)
    if rel is None or _REGULAR.fullmatch(attributes) is None:
        return False
    values = rel[1].split()
    return "noopener" in values and rel[1] == " ".join(dict.fromkeys(values))
