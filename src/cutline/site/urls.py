"""URLs: one spelling for each thing that can be fetched.

Ada, the parser of Node.js, reads them, so they mean what they mean to a browser.
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
    """One spelling for every URL that fetches the same picture.

    Read as a browser reads it (WHATWG URL Standard): case of scheme and host, IDNA, default ports,
    dot segments, backslashes, spaces. Then the fragment and tracking parameters are dropped,
    needless escapes resolved and the others written in capitals (RFC 3986, 6.2.2). Idempotent.

    Args:
        url: as it stands in a page.
        base: what a relative URL is relative to.

    Returns:
        An http, https or file URL, the last only for what is named by a file; "" for what can't be
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
    if (path := _escapes(parsed.pathname)) != parsed.pathname:  # of a bare drive, it cannot be set
        parsed.pathname = path
    query = "&".join(part for part in query.split("&") if not _TRACKING.match(part))
    parsed.search = query and f"?{query}"  # its setter takes one mark away
    return str(parsed.href)


def _escapes(text: str) -> str:
    def canonical(escape: re.Match[str]) -> str:
        letter = chr(int(escape[1], 16))
        return letter if letter in _UNRESERVED else escape[0].upper()

    return _ESCAPE.sub(canonical, _STRAY_PERCENT.sub("%25", text))


def without_surrogates(text: str) -> str:
    """A text with each surrogate, a byte that could not be decoded, replaced by U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)
