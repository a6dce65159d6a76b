"""Words from URLs: file names and link destinations."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from cutline.media_type import ENDINGS

_MAX_URL = 2000
_DOWNLOADS = frozenset(
    "csv doc docx dmg epub exe gz ics mp3 mp4 odp ods odt pdf ppt pptx rtf tar xls xlsx zip".split()
)
_PAGES = frozenset("asp aspx cfm cgi htm html jsp jsf md php php5 phtml pl shtml xhtml".split())
_NETWORKS = {
    "bsky.app": "Bluesky",
    "discord.com": "Discord",
    "discord.gg": "Discord",
    "facebook.com": "Facebook",
    "flickr.com": "Flickr",
    "github.com": "GitHub",
    "gitlab.com": "GitLab",
    "instagram.com": "Instagram",
    "linkedin.com": "LinkedIn",
    "mastodon.social": "Mastodon",
    "medium.com": "Medium",
    "pinterest.com": "Pinterest",
    "reddit.com": "Reddit",
    "snapchat.com": "Snapchat",
    "soundcloud.com": "SoundCloud",
    "spotify.com": "Spotify",
    "t.me": "Telegram",
    "threads.net": "Threads",
    "tiktok.com": "TikTok",
    "tumblr.com": "Tumblr",
    "twitch.tv": "Twitch",
    "twitter.com": "Twitter",
    "vimeo.com": "Vimeo",
    "wa.me": "WhatsApp",
    "whatsapp.com": "WhatsApp",
    "x.com": "X",
    "xing.com": "XING",
    "youtu.be": "YouTube",
    "youtube.com": "YouTube",
}
_SHARES = ("/share", "/intent/", "/submit", "/pin/create", "/sharer", "/sharearticle")
_INDEX = re.compile(r"(index|default|home|main)(\.\w+)?", re.IGNORECASE)
_NUMBERED = re.compile(
    r"(?i)(?<![a-z])(img|dsc[fn]?|dcim|pxl|image|photo|screenshot|pic|picture|bild|foto)[-_ ]?\d+"
)
_NAME_NOISE = re.compile(
    r"""(?ix)
      \d+x\d+ | @?\dx | \d{5,} | [0-9a-f]{8,} | (?=[a-z]*\d)(?=\d*[a-z])[a-z0-9]{12,}
    | img | dsc[fn]? | dcim | pxl | image | images | photo | photos | pic | picture | bild | foto
    | screenshot | thumb | thumbnail | small | medium | large | scaled | cropped | copy | final
    | min | full | default | untitled | unnamed | file | upload | bg | btn | ico
    """
)


def name_words(url: str) -> list[str]:
    """The words of a file name, without those that cameras and programs add.

    Args:
        url: a URL or path; a data URI has no name.

    Returns:
        Words with their case kept: ".../IMG_2031-red_BicycleShed-300x200.jpg" -> red Bicycle Shed.
    """
    if url[:5].lower() == "data:":
        return []
    stem = re.sub(r"(\.[A-Za-z][A-Za-z0-9]{1,4})+$", "", tail(url))
    stem = _NUMBERED.sub(" ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem))
    parts = re.split(r"[\W_]+", stem)
    return [part for part in parts if part and not _NAME_NOISE.fullmatch(part)]


def destination(link: str, page: str = "") -> str:
    """The target of a link as an alt text; "" if its URL has no words for it.

    Args:
        link: absolute; mailto: and tel: too; "./..." is relative to the folder scanned.
        page: the page with the link; its host decides which link is "Home".
    """
    parts = split(link)
    scheme, host = parts.scheme, (parts.hostname or "").removeprefix("www.")
    if scheme == "mailto" and parts.path:
        return f"Email {unquote(parts.path)}"
    if scheme in ("tel", "sms") and parts.path:
        return f"{'Call' if scheme == 'tel' else 'Text'} {unquote(parts.path)}"
    if scheme not in ("http", "https", "file", ""):
        return ""
    if parts.fragment.lower() in ("top", "page-top", "back-to-top"):
        return "Back to top"
    if parts.fragment and _page(parts) == _page(split(page)):
        return capital(" ".join(name_words(parts.fragment)))
    network = next((n for h, n in _NETWORKS.items() if host == h or host.endswith(f".{h}")), "")
    if network and parts.path.lower().startswith(_SHARES):
        return f"Share on {network}"
    own = host == (split(page).hostname or "").removeprefix("www.")
    if network and not own:
        return network
    return _named(parts, own, host)


def _page(parts: SplitResult) -> tuple[str, str, str]:
    return parts.scheme, parts.netloc, unquote(parts.path).removeprefix("./")


def _named(parts: SplitResult, own: bool, host: str) -> str:
    segments = [unquote(one) for one in parts.path.split("/") if one not in ("", ".")]
    query = parse_qs(parts.query)
    if searched := query.get("q") or query.get("s"):
        return f"Search for {searched[0]}"
    if segments and _INDEX.fullmatch(segments[-1]):
        segments.pop()
        if parts.scheme == "file":
            return ""  # the root folder of the site is not known
    if not segments:
        if parts.query or parts.fragment:
            return ""
        return "Home" if (own and host) or parts.path.startswith("./") else host
    ending = extension(segments[-1])
    words = name_words(segments[-1])
    if (parts.query and ending in _PAGES) or not any(len(w) > 1 and w.isalpha() for w in words):
        return ""
    text = " ".join(map(uncapital, words))
    return f"Download {text} ({ending.upper()})" if ending in _DOWNLOADS else capital(text)


def is_picture(url: str) -> bool:
    """Whether a URL has the file name extension of an image."""
    return extension(tail(url)) in ENDINGS


def extension(name: str) -> str:
    """The file name extension, lower case, without the dot; "" if there is none."""
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    return ending if re.fullmatch(r"[a-z][a-z0-9]{1,4}", ending) else ""


def tail(url: str) -> str:
    """The last part of a URL's path, unquoted; of an image in a document, its name there."""
    parts = split(url)
    path = parts.fragment if parts.scheme == "file" and parts.fragment else parts.path
    return unquote(path.rstrip("/").rsplit("/", 1)[-1])


def split(url: str) -> SplitResult:
    """The parts of a URL; all empty if it is not a URL."""
    try:
        parts = urlsplit(url[:_MAX_URL])
        _ = parts.hostname
    except ValueError:
        return SplitResult("", "", "", "", "")
    return parts


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def uncapital(word: str) -> str:
    """The word in lower case, unless it has further capitals, as in PDF."""
    return word if word[1:] != word[1:].lower() else word[:1].lower() + word[1:]
