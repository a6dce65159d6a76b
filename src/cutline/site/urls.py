"""URL normalisation.

Ada, the URL parser of Node.js, implements the WHATWG URL Standard, as browsers do.
"""

from __future__ import annotations

import re

import ada_url

_SURROGATE = re.compile("[\ud800-\udfff]")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_TRACKING = re.compile(r"(?:utm_[^=]*|gclid|fbclid|msclkid|dclid)(?:=|$)", re.IGNORECASE)


def normalise_url(url: str, base: str = "") -> str:
    """The normalised form of a URL; one form for all URLs of the same image.

    Parses the URL as browsers do (WHATWG URL Standard): case of scheme and host, IDNA, default
    ports, dot segments, backslashes, spaces. Then drops the fragment and tracking parameters,
    decodes unneeded escapes and writes the others in capitals (RFC 3986, 6.2.2). Idempotent.

    Args:
        url: as written in the page.
        base: the base of a relative URL.

    Returns:
        An http, https or file URL; a file URL only if the base is one. "" if the URL cannot be
        fetched.
    """
    url, base = without_surrogates(url).strip(), without_surrogates(base)
    local = base[:5].lower() == "file:"
    if local and url[:2] in ("//", "\\\\"):
        url = f"https:{url}"
    try:
        parsed = ada_url.URL(url, base=base or None) if url else None
    except ValueError:
        return ""
    if parsed is None or parsed.protocol not in ("http:", "https:", "file:"):
        return ""
    if parsed.protocol == "file:" and base and not local:
        return ""
    query = "" if parsed.protocol == "file:" else _escapes(parsed.search[1:])
    parsed.hash = ""
    if (
        path := _escapes(parsed.pathname)
    ) != parsed.pathname:  # the path of a bare drive cannot be set
        parsed.pathname = path
    query = "&".join(part for part in query.split("&") if not _TRACKING.match(part))
    parsed.search = query and f"?{query}"  # the setter removes one question mark
    return str(parsed.href)


def _escapes(text: str) -> str:
    def canonical(escape: re.Match[str]) -> str:
        letter = chr(int(escape[1], 16))
        return letter if letter in _UNRESERVED else escape[0].upper()

    return _ESCAPE.sub(canonical, _STRAY_PERCENT.sub("%25", text))


def without_surrogates(text: str) -> str:
    """A text with every surrogate (an undecodable byte) replaced by U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)
