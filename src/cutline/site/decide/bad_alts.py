"""Texts that are not alternatives: file names, placeholders, general nouns, icons, keyword lists.

Each question looks at the words of one alt. WCAG's failure F30 describes file names and
placeholders, the W3C's images tutorial functional images and vague alts. The word lists are our
own, checked against alts of Debian's documentation packages.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from importlib.resources import files

from cutline.media_type import ENDINGS
from cutline.site.model import Severity
from cutline.site.url_words import destination, tail

MAX_REPEATS = 4  # so often in one alt, a word is not there for the reader
_LISTED = 6  # entries of a list of keywords
_LITTLE_GRAMMAR = 0.12  # share of function words; sentences of our samples have 0.2 and more


def names_file(alt: str, url: str = "") -> Severity | None:
    """Whether an alt is a file's name: an error, a warning if it may be a word, or None.

    Args:
        alt: the text.
        url: of the picture, whose own name counts even if nothing else looks like one.
    """
    text = unicodedata.normalize("NFC", alt).strip().rstrip(".")
    if not text:
        return None
    if _is_filename(text, url) or _CAMERA.fullmatch(text) or _TIMESTAMP.fullmatch(text):
        return Severity.ERROR
    if re.fullmatch(r"\d{8,}", text):  # else a telephone number or an ISBN
        dated = re.match(r"(?:19|20)\d\d(?:0\d|1[0-2])[0-3]\d", text)
        return Severity.ERROR if dated or text in tail(url) else Severity.WARNING
    if re.fullmatch(r"\w+(?:_\w+){2,}", text) and _has_file_word(re.split(r"_", text)):
        return Severity.ERROR
    if _RANDOM.fullmatch(text) and re.search(r"\d", text) and not text.isupper():
        return Severity.ERROR
    if re.match(r"(?:file|data):\S+\Z", text, re.IGNORECASE) or re.search(r"%[0-9a-f]{2}", text):
        return Severity.ERROR
    if re.fullmatch(r"https?://\S+", text, re.IGNORECASE):
        return Severity.WARNING
    return _is_own_name(text, url)


def is_template(alt: str) -> bool:
    """Whether an alt is nothing but template code, such as `{{ page.title }}`."""
    return bool(_TEMPLATE.fullmatch(alt.strip()))


def is_placeholder(alt: str, url: str = "") -> bool:
    """Whether an alt is a placeholder: "alt text", "TODO", "-", "jpg", "Photo by Jo Doe".

    Args:
        alt: the text.
        url: of the picture. "None" may be what a picture called "mode-none.png" shows.
    """
    text = alt.strip()
    if re.fullmatch(
        r"[.\u2026\u00b7 ]+|(?:&#?\w+;\s*)+|[-_=~\u2013\u2014]+|\?+|\*+|\[object \w+\]", text
    ):
        return True
    if _CREDIT.fullmatch(text):
        return True
    plain = words_of(text)
    if plain in _NOTHING:
        bare = re.fullmatch(r"\.?\w+\.?", text) is not None
        stem = re.sub(r"\.\w{1,5}\Z", "", tail(url))
        return bare and plain not in re.findall(r"[^\W_]+", stem.lower())
    return bool(_PLACEHOLDER.fullmatch(plain))


def is_generated(alt: str) -> bool:
    """Whether an alt says that a program wrote it, as Office, Facebook and Instagram state it."""
    return _GENERATED.search(" ".join(alt.split())) is not None


def is_vague(alt: str) -> bool:
    """Whether an alt could be that of any picture: "image", "Click here", "A chart."."""
    words = words_of(alt).split()
    if words and all(word in _VAGUE for word in words):
        return True
    if len(words) == 2 and words[0] in _ARTICLES and words[1] in _GENERAL | _PICTURED:
        return True
    if len(words) in (2, 3) and words[-1] in _IMAGES and set(words[:-1]) <= _IMAGE_USES:
        return True
    return len(words) == 1 and words[0] in _PICTURED


def icon_shown(alt: str, link: str = "", page: str = "") -> bool:
    """Whether an alt says what an icon shows ("Magnifying glass", "W3C logo"), not what it does.

    Args:
        alt: of the only content of a link or button.
        link, page: where the link leads and from where; what names the destination is right.
    """
    plain = words_of(alt)
    leads_to = words_of(destination(link, page))
    if plain and plain in (leads_to, leads_to.removesuffix("s")):
        return False
    if _FLAG.fullmatch(plain) and _LANGUAGE_PATH.search(link):
        return True
    return bool(_DEPICTED.fullmatch(plain)) or _LOOKS.sub("", plain) in _ICONS


def lists_keywords(alt: str) -> bool:
    """Whether an alt is made for search engines: it repeats a word, or lists words.

    A sentence with a list in it is none: it has function words, or joins the last entry by one.
    """
    words = words_of(alt).split()
    if len(words) < _LISTED or re.search(r"[\d=\\{}()^_:\u2026]", alt):  # figures, formulas, titles
        return False
    grammar = sum(word in _FUNCTION_WORDS for word in words) / len(words)
    if grammar > _LITTLE_GRAMMAR:
        return False
    counts = Counter(word for word in words if len(word) > 2 and word not in _FUNCTION_WORDS)
    if max(counts.values(), default=0) >= MAX_REPEATS:
        return True
    entries = [words_of(entry).split() for entry in re.split(r"[,;|]", alt.rstrip(".,;| "))]
    short = all(1 <= len(entry) <= 3 for entry in entries)
    joined = bool(entries) and any(word in _FUNCTION_WORDS for word in entries[-1])
    return len(entries) >= _LISTED and short and not joined


def words_of(text: str) -> str:
    """The words of a text in lower case, without punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def spoken(text: str) -> str:
    """A text for comparison: in lower case, without punctuation around words.

    Signs that are read out stay: C, C++ and C# are three texts, and so are those with different
    emoji.
    """
    return " ".join(filter(None, (word.strip(_PUNCTUATION) for word in text.casefold().split())))


def _is_filename(text: str, url: str) -> bool:
    """Whether a text ends like a picture's file, and is not a sentence that names one."""
    stem, dot, ending = text.rpartition(".")
    if not (dot and stem.strip()) or ending.lower() not in ENDINGS:
        return False
    return len(text.split()) <= 3 or text.casefold() == tail(url).casefold()


def _is_own_name(text: str, url: str) -> Severity | None:
    """Whether a text is the name of the picture's file, as a file system would have it."""
    name = tail(url)
    stems = {name, re.sub(r"\.\w{1,5}\Z", "", name)}
    stems |= {_SIZE_SUFFIX.sub("", stem) for stem in stems}
    if text.casefold() not in {stem.casefold() for stem in stems}:
        return None
    if re.search(r"\s", text):
        return Severity.ERROR if _LEFTOVERS.search(text) else None
    if "_" in text:
        return Severity.ERROR
    if text not in stems:  # somebody wrote it again, in other letters
        return None
    parts = text.split("-")
    noise = _has_file_word(parts)
    camel = re.split(r"(?<=[a-z])(?=[A-Z])", text)
    if (len(parts) > 1 and noise) or (
        len(camel) > 1 and any(part.lower() in _FILE_WORDS for part in camel)
    ):
        return Severity.ERROR
    if len(parts) > 2:
        return Severity.ERROR if text == text.lower() else Severity.WARNING
    if text != text.lower():
        return None
    if len(parts) == 2:
        return Severity.WARNING if min(map(len, parts)) > 2 else None
    if re.fullmatch(r"[a-z]+\d+", text) and len(text) > 4:
        return Severity.WARNING
    return Severity.ERROR if re.fullmatch(r"\d{5,}", text) else None


def _has_file_word(parts: list[str]) -> bool:
    """Whether one of the parts of a name is a word of files, such as "final" or "v2"."""
    return any(re.sub(r"\d+\Z", "", part.lower()) in _FILE_WORDS for part in parts)


_WORDS: dict[str, list[str]] = json.loads(
    files("cutline.site.decide").joinpath("words.json").read_text("utf-8")
)
_PUNCTUATION = ".,;:!?\u2026\"'()[]{}\u00ab\u00bb\u201c\u201d\u201e\u2018\u2019\u201a|\u2013\u2014"
_SIZE_SUFFIX = re.compile(r"(?:-\d{1,5}x\d{1,5}|-scaled|-rotated|-e\d{10,}|@\dx|_\d{2,5}x)+\Z")
_LEFTOVERS = re.compile(
    r"\(\d+\)\Z|\bcopy(?: \d+)?\Z|\b\d{2,5} ?x ?\d{2,5}\b|\bfinal\b.*\d|\bv\d+\Z|^copy of\b",
    re.IGNORECASE,
)
_FILE_WORDS = frozenset(
    """banner bg background btn copy cover default file final footer full header hero icon image
    img large medium min new old photo pic picture scaled small thumb thumbnail untitled v web
    foto bild""".split()
)
# A device's or program's word, then numbers, then what macOS and phones add to a time.
_CAMERA = re.compile(
    rf"""(?ix)
    (?:copy\ of\ )?_?
    (?:{"|".join(re.escape(word) for word in (*_WORDS["cameras"], *_WORDS["screenshots"]))})
    [-_ #(]*(?:(?:from|vom|du|de|del|da|van|fr\u00e5n|fra|\u043e\u0442)\ )?
    (?: e?\d[\d\s.:_,()@x-]* | \(\d+\) )
    (?: (?:at|um|alle|om|kl\.?|o|\u00e0|a\ las|\u0432|wa|am|pm|uhr|edited|copy|original|mvimg|burst)
        [\d\s.:_,()@x-]* )*
    | (?: \d{{3}}_\d{{4}} | p\d{{7}} | [a-z]{{2,4}}_\d{{4,}} | unnamed
        | untitled(?:\ design)?(?:[-\ ]\(?\d+\)?)? )
    """
)
_TIMESTAMP = re.compile(r"\d{4}[-_.]?\d\d[-_.]?\d\d[ _tT-]+\d\d[-_.:h]?\d\d[\d\s_.:()-]*")
_RANDOM = re.compile(
    r"(?i:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{12,})"
    r"|(?=\S*[a-z])(?=\S*[A-Z])(?=\S*\d)[A-Za-z0-9_-]{20,}"
    r"|[\w+-]{10,12}\._[A-Z]{2}[\w,]*_?"
)
_TEMPLATE = re.compile(r"\{\{.*\}\}|\{%.*%\}|<[%?].*[%?]>|\$\{.*\}|%\w+%|\{\w+\}", re.DOTALL)
_NOTHING = frozenset("none null nil undefined nan true false file".split()) | frozenset(ENDINGS)
# Who made the picture, without what it shows. A name has two words or more: "Photo by Night" and
# "Photo by the door" have another sense.
_CREDIT = re.compile(
    r"""(?x)
    (?i:(?:photo(?:graph)?|image|picture)\ credits?:)\ ?[^.!?,;]{1,60}\.?
    | (?i:(?:photo(?:graph)?|image|picture)\ by:?)\ (?!(?:The|A|An|Lake|Mount|River)\ )
      [A-Z][\w'.\u2019-]*(?:\ [A-Z][\w'.\u2019-]*){1,3}
      (?:\ (?:on|via|from|at|/)\ [A-Z]\w+)?\.?
    """
)
_PLACEHOLDER = re.compile(
    r"""(?x)
    (?:(?:insert|enter|add|your|no|image|the|write|missing|default|some)\ )*
      alt(?:ernative|ernate)?(?:\ (?:text|tag|attribute|description))?
      (?:\ (?:goes|missing|provided|available|found))?(?:\ here|\ for\ this\ image)?
    | (?:kein|sans|sin|senza|geen)\ (?:alternativ(?:er\ )?text|texte?\ alternatif|texto\ alternativo
      |testo\ alternativo|alternatieve\ tekst)
    | (?:jpe?g|png|gif|webp|svg|bmp)\ (?:image|file|photo|picture)
    | image\ (?:jpe?g|png|gif|webp|svg)
    | background | bg
    | (?:(?:enter|insert|add|your|no|an?|the|image|describe|write)\ )*description
      (?:\ (?:of|for)\ (?:the\ |this\ |an?\ )?(?:image|picture|photo))?(?:\ goes)?(?:\ here)?
    | (?:describe|caption|title\ (?:of|for))\ (?:(?:this|the|your)\ )?(?:image|picture|photo)
    | (?:image|photo|picture|img)\ (?:alt|title|name|caption|text|goes\ here|here|placeholder)
    | (?:image|images|picture|photo|figure|fig|bild|abb|abbildung|foto|grafik|imagen|slide)
      (?:\ \d+[a-z]?)+
    | (?:image|picture|photo)\ (?:is\ )?(?:missing|not\ (?:found|available)|unavailable)
    | (?:missing|no)\ (?:image|picture|photo)(?:\ (?:found|available|yet))? | decorative | default
    | (?:un|ohne\ )titel | sans\ titre | sin\ t[ií]tulo | sem\ t[ií]tulo | senza\ titolo
    | (?:image\ |picture\ |photo\ )?(?:is\ )?loading
    | (?:loading|decorative)\ (?:image|picture|photo)
    | (?:undefined|null|nan)(?:\ (?:undefined|null|nan))+
    | lorem\ ipsum.* | xxx+ | asdf\w* | qwert[yz] | foo(?:\ ?bar)? | n\ a | tbd | tba | change\ ?me
    | (?:to\ ?do|fixme)(?:\ .*)? | test(?:ing)?(?:\ ?(?:image|img|alt|\d+))?
    | (?:sample|dummy)\ (?:text|image|alt) | placeholder(?:\ (?:image|text))?
    """
)
# Office ends its alts with such a sentence, in the language of the program.
_GENERATED = re.compile(
    r"""(?ix)
    (?: descriptions?\ (?:was\ |is\ )?automatically\ generated
    | automatically\ generated\ description
    | description\ generated\ (?:automatically|with\ (?:very\ )?(?:high|low|medium)?\ ?confidence)
    | ai-generated\ content\ may\ be\ incorrect
    | automatisch\ generierte\ beschreibung
    | ki-generierte\ inhalte\ k\u00f6nnen\ fehlerhaft\ sein
    | description\ g\u00e9n\u00e9r\u00e9e\ automatiquement
    | contenu\ g\u00e9n\u00e9r\u00e9\ par\ l.ia\ peut\ \u00eatre\ incorrect
    | descripci\u00f3n\ generada\ autom\u00e1ticamente
    | contenido\ generado\ por\ ia\ puede\ ser\ incorrecto
    | descrizione\ generata\ automaticamente
    | descri\u00e7\u00e3o\ gerada\ automaticamente
    | automatisch\ gegenereerde\ beschrijving
    | beskrivning\ genererad\ automatiskt | automatiskt\ genererad\ beskrivning
    | opis\ wygenerowany\ automatycznie | automatycznie\ generowany\ opis
    | \u81ea\u52a8\u751f\u6210\u7684?\u8bf4\u660e | \u63cf\u8ff0\u5df2\u81ea\u52a8\u751f\u6210
    | \u81ea\u52d5\u7684\u306b\u751f\u6210\u3055\u308c\u305f\u8aac\u660e
    | \uc790\ub3d9\ \uc0dd\uc131\ub41c\ \uc124\uba85 )\W*\Z
    | \A(?:(?:this\ )?(?:image|photo)\ )?may\ be\ (?:an?\ )?
      (?:image|photo|closeup|cartoon|graphic)\ of
    | \Aimage\ may\ contain:
    | \Ano\ photo\ description\ available\W*\Z
    """
)
_VAGUE = frozenset(_WORDS["vague"])
_ARTICLES = frozenset(_WORDS["articles"])
_PICTURED = frozenset(_WORDS["depictions"])  # as vague without an article
_IMAGE_USES = frozenset(_WORDS["image_uses"]) | _ARTICLES  # "hero image"
_IMAGES = frozenset("avatar graphic icon image img photo pic picture thumbnail visual".split())
_GENERAL = frozenset(_WORDS["general_nouns"])
_FUNCTION_WORDS = frozenset(_WORDS["function_words"])  # sentences have them, lists lack them
_ICONS = frozenset(_WORDS["icons"])
# What an icon may look like, before its name.
_LOOKS = re.compile(
    r"""(?x)^(?:(?:an?|the|small|little|big|large|tiny|simple|stylized|round|solid|filled|outlined
    |black|white|grey|gray|red|green|blue|yellow|orange|purple|pink|dark|light)\ (?=.*\w))+"""
)
_FLAG = re.compile(r"(?:the )?flag of .+|.+ flag")
_LANGUAGE_PATH = re.compile(r"(?:^|[/=.?])[a-z]{2}(?:[-_][a-z]{2})?(?:[/&]|$)", re.IGNORECASE)
_DEPICTED = re.compile(
    r"(?:.+ )?(?:icon|logo|symbol|pictogram|glyph|emoji|logotype|icone|icono|ic\u00f4ne|icona)"
    r"|(?:an? |the )?(?:icon|logo|symbol|pictogram|picture|drawing) of .+"
)
