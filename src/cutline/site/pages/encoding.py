"""The character encoding of a page: decoding that can be reversed exactly."""

from __future__ import annotations

from w3lib.encoding import html_body_declared_encoding, read_bom, resolve_encoding


def decode(content: bytes, declared: str = "") -> tuple[str, str]:
    """Decode a page's bytes to text that encodes back to the same bytes.

    A byte order mark (kept in the text) wins, then what was declared, then the page's own
    declaration, then UTF-8 if it is valid, else Windows-1252 (HTML Standard, 13.2.3).

    Args:
        content: the page.
        declared: the charset of its Content-Type; "" if there was none.

    Returns:
        text and encoding, such that `text.encode(encoding, "surrogateescape") == content`.
    """
    marked, _ = read_bom(content)
    own = html_body_declared_encoding(content)
    own = "utf-8" if own and own.startswith("utf-16") else own  # else it could not be read
    for encoding in (marked, resolve_encoding(declared) if declared else None, own):
        if encoding and (text := _exactly(content, encoding)) is not None:
            return text, encoding
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("cp1252", "surrogateescape"), "cp1252"


def _exactly(content: bytes, encoding: str) -> str | None:
    if encoding in ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "utf-7"):
        return None  # no browser reads these
    try:
        text = content.decode(encoding, "surrogateescape")
        return text if text.encode(encoding, "surrogateescape") == content else None
    except (LookupError, UnicodeError):
        return None
