"""Extracting the caption from the answer of a chat model."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable

# Reasoning, special tokens and wrappers.

_REASONING = (
    r"(?!end_)[\w:.-]*(?:think|thought|reason|reflect|monologue|scratch_?pad|deliberat|analys[ei]"
    r"|internal|chain_of|planning)[\w:.-]*"
)
_OPEN = re.compile(
    rf"[<◁](?:\|\s*)?{_REASONING}(?:\s[^<>▷]*)?(?:\s*\|)?[>▷]|\[(?:think(?:ing)?|reasoning)\]",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    rf"[<◁](?:/\s*{_REASONING}|\|\s*(?:/\s*|end_(?:of_)?){_REASONING}\s*\|)\s*[>▷]"
    r"|\[/(?:think(?:ing)?|reasoning)\]",
    re.IGNORECASE,
)
_TOLD_REASONING = re.compile(
    r"^\s*Thinking\s*\.\.\..*?\.\.\.\s*done thinking\.?|<details\b.*?(?:</details>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_CHANNEL = re.compile(r"<\|channel\|?>\s*([\w-]+)[^<]*?(?:<\|message\|>|\n|(?=\s))")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>|<channel\|>")
_BARE_CHANNEL = re.compile(r"^\s*analysis.*?assistant\s*final(?=[A-Z\"'“\s])", re.DOTALL)
_MARKED_THOUGHT = re.compile(r"<unused94>.*?(?:<unused95>|\Z)", re.DOTALL)
_END = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|end|endoftext|end_of_text|eos|return|end_of_turn|eot"
    r"|END_OF_TURN_TOKEN|user|im_start|start|end_of_sentence)\|>"
    r"|</s>|<end_of_turn>|<end_of_utterance>|<eos>|<eot>"
    r"|<｜end▁of▁sentence｜>|\[/?INST\]|<turn\|>",
    re.IGNORECASE,
)
_SPECIAL = re.compile(
    r"<[|｜][^<>|｜\n]{1,40}[|｜]>|</?s>|<(?:bos|pad|unk|mask|image|img|start_of_turn"
    r"|row_\d+_col_\d+"
    r"|global-img|fake_token_around_image|0x[0-9A-F]{2}|unused\d+)>|<start_of_turn>",
    re.IGNORECASE,
)
_TOOL_CALL = re.compile(r"<tool_call>.*?(?:</tool_call>|\Z)", re.DOTALL)
_TURNS = re.compile(r"^\s*(?:user|human)\s*:.*\n\s*assistant\s*:", re.IGNORECASE | re.DOTALL)
_ROLE = re.compile(r"^\s*(?:assistant|model|ai|bot|gpt)\s*(?::|\n)\s*", re.IGNORECASE)
_ANSWER_TAG = re.compile(
    r"<(answer|caption|alt|alt[-_]?text|output|response|final|final_answer|result|text"
    r"|description)>"
    r"(.*?)(?:</\1>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_HTML_ALT = re.compile(r"<img\b[^>]*?\balt\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE)
_BREAK = re.compile(r"<(?:/?(?:p|div|li|ul|ol|h[1-6])\b|br\b)", re.IGNORECASE)
"""Tags that separate words; the others, such as <b>, may be within one."""
_HTML = re.compile(
    r"</?(?:p|b|i|em|strong|span|div|br|q|li|ul|ol|h[1-6]|u|small|figcaption|html|body)\b[^<>]*>",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:amp|quot|apos|lt|gt|nbsp|#\d{2,5}|#x[0-9a-f]{2,5});", re.IGNORECASE)
_RULE = re.compile(r"\n\s*(?:-{3,}|\*{3,}|_{3,}|={3,})\s*(?:\n|\Z)")
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_FENCE = re.compile(r"(?:```|~~~)[^\n`]*\n(.*?)(?:\n\s*(?:```|~~~)|\Z)", re.DOTALL)

# Lead-ins, labels and what follows an answer.

_LABEL = re.compile(
    r"""^[\W_]*(?:
    (?:(?:suggested|final|proposed|recommended|possible|short|concise|revised|the|image|picture
    |photo)\s+)*
    (?:alt(?:ernat(?:e|ive))?[\s_-]*(?:text|tag|attribute|description)?|caption|description
    |answer|response|output|result|sentence)
    (?:\s+(?:of|for)\s+(?:the|this)\s+(?:image|picture|photo))?(?:\s*\(\s*[^()\n]{1,30}\))?
    |alternativ-?\s?text|alt-?text|bildbeschreibung|beschreibung|antwort
    |texte\s+(?:alternatif|alt)|légende|description\s+de\s+l['’]image|réponse
    |texto\s+alternativo|descripción|respuesta|descrição|resposta
    |testo\s+alternativo|descrizione|risposta
    |tekst\s+alternatywny|opis|альтернативный\s+текст|описание|alternativ\s+text|bildbeskrivning
    |alternatif\s+metin|alternatieve\s+tekst|beschrijving|alternatív\s+szöveg|alternativní\s+text
    |替代文本|替代文字|描述|答案|代替テキスト|説明|대체\s?텍스트|설명|النص\s+البديل
    )[*_`"']*\s*(?::|：|=|\s[-–—]\s|\n)[*_`]*\s*""",
    re.IGNORECASE | re.VERBOSE,
)
_FINAL = re.compile(
    r"^[\W_]*(?:final\s+|suggested\s+)?(?:answer|alt(?:ernative)?[\s_-]*text|caption|description|response)"
    r"[*_`\"']*\s*:[*_`]*\s*",
    re.IGNORECASE,
)
"""A label behind other lines: what follows it is the answer."""

_INTERJECTION = re.compile(
    r"^\W*(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|alright|got it|no problem|great"
    r"|gladly|definitely|yes|understood|i(?:'|’)?d be happy to(?: help)?|happy to help|here you go"
    r"|natürlich|gerne|klar|bien sûr|claro|certo|naturalmente)\s*[!,.:…\n]+\s*",
    re.IGNORECASE,
)
_OFFER = re.compile(
    r"^\W*(?:you (?:could|can|might) (?:use|write|try)"
    r"|i(?:['’]d| would) (?:go with|use|write|suggest))"
    r"\s*:?\s*(?=[\"“'‘«])",
    re.IGNORECASE,
)
_LEAD_IN = re.compile(
    r"^\W*(?:(?:so|well|now|and)[,\s]+)?(?:"
    r"here(?:'s|’s| is| are)|below (?:is|are)|the following|this is|that is|my|based on"
    r"|for this"
    r"|i (?:would )?(?:suggest|propose|recommend|describe)"
    r"|i(?:'d|’d) (?:suggest|use|write|describe)"
    r"|an? (?:possible|suitable|good|concise|short|appropriate|descriptive)"
    r"|the (?:\w+ )?(?=alt\b|alternative|caption|description|answer)"
    r"|hier (?:ist|sind)|voici|aquí (?:está|tienes)|ecco|aqui está)\b[^:\n]{0,160}?"
    r"\b(?:alt|alternative|alternativ\w*|text\w*|caption|description|sentence|answer|suggest\w*"
    r"|beschreibung|description|descripción|descrizione|descrição)\b"
    r"[^:\n]{0,80}:\s*",
    re.IGNORECASE,
)
_CHATTER = re.compile(
    r"^\W*(?:let me know|i hope|hope this|please let|if you|would you like|do you want|feel free"
    r"|is there anything|note\b|note:|this (?:alt|caption|description|sentence|text)|word count"
    r"|words?:|\d+ words|characters?:|\d+ characters|explanation|reasoning|rationale|why:"
    r"|\(\s*\d+ (?:words|characters)|the (?:alt text|caption|description) (?:above|is)"
    r"|alternatively|or:|you can|confidence)",
    re.IGNORECASE,
)
_COUNT = re.compile(
    r"\s*[(\[]\s*(?:~?\d+\s*(?:words?|characters?|chars|w|wörter|zeichen)"
    r"|(?:word|character|char)s?(?:\ count)?\s*[:=]\s*~?\d+)\s*[)\]]\s*$",
    re.I,
)
_ITEM = re.compile(
    r"^\s*(?:\*{0,2}(?:option|alternative|caption|version|suggestion)\s*\w{1,2}\*{0,2}\s*[:.)-]"
    r"|\d{1,2}[.)]"
    r"|[-*•+]\s)\s*(?P<text>\S.*)$",
    re.IGNORECASE,
)
_PAIRS = {
    '"': '"',
    "'": "'",
    "“": "”",
    "‘": "’",
    "«": "»",
    "»": "«",
    "„": "“”",
    "‚": "‘’",
    "‹": "›",
    "「": "」",
    "『": "』",
    "《": "》",
    "`": "`",
    "”": "”",
    "＂": "＂",
}
_SENTENCE_END = re.compile(
    r"[.!?…](?=[\"'”’»)\]]*(?:\s|$))[\"'”’»)\]]*"
    r"|[。！？][」』”]?"
)
_ABBREVIATION = re.compile(
    r"\b(?:[A-Z]|Mr|Mrs|Ms|Dr|St|Prof|No|vs|etc|e\.g|i\.e|approx|Jr|Sr|Mt|Ave|Fig|z\.B|ca|bzw"
    r"|Nr)\.$"
)

_NOTHING = re.compile(
    r"^\W*(?:n/?a|none|null|nil|undefined|nan|true|false|unknown|no (?:answer|caption"
    r"|description|output)"
    r"|\[?(?:your )?(?:alt[ -]?text|caption|description|image description"
    r"|insert(?: \w+){1,5})\]?|todo|tbd"
    r"|empty|error)?\W*$",
    re.IGNORECASE,
)
_MOST_CHARS = 4000  # of an answer that should be one sentence
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_KEPT_FORMAT = "\u200c\u200d"  # joiners, which Persian, Indic scripts and emoji need


def without_reasoning(text: str) -> tuple[str, bool]:
    """A model's answer without its reasoning.

    Returns:
        What is left, and whether any reasoning was there. Reasoning that was never closed takes
        everything behind it along; a closing tag alone, everything before it.
    """
    whole = text
    text = _TOLD_REASONING.sub("", _MARKED_THOUGHT.sub("", text))
    if "<|channel" in text:
        text = _final_channel(text)
    text = _BARE_CHANNEL.sub("", text)
    kept, place = [], 0
    while opened := _OPEN.search(text, place):
        kept.append(text[place : opened.start()])
        closed = _CLOSE.search(text, opened.end())
        place = closed.end() if closed else len(text)
    text = "".join([*kept, text[place:]])
    closings = list(_CLOSE.finditer(text))
    if closings:
        text = text[closings[-1].end() :]
    return text, text != whole


def _final_channel(text: str) -> str:
    """The text of the channel "final" where a model writes into named channels."""
    starts = list(_CHANNEL.finditer(text))
    before = text[: starts[0].start()] if starts else ""
    final = ""
    for number, start in enumerate(starts):
        end = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        body = text[start.end() : end]
        cut = _CHANNEL_END.search(body)
        rest = body[cut.end() :] if cut and cut[0] == "<channel|>" else ""
        body = body[: cut.start()] if cut else body
        if start[1].lower() == "final":
            final = body
        elif rest.strip():
            final = rest
    return final or re.sub(r"<\|start\|>\s*assistant\s*$", "", before)


def to_sentence(text: str) -> str:
    """An answer without reasoning, lead-ins, labels, Markdown, quotes around it and controls.

    Returns:
        One line; "" if nothing is left of it.
    """
    text, _ = without_reasoning(text)
    text = _without_tokens(text[:_MOST_CHARS])
    text, _ = without_reasoning(_unwrapped(text))  # tags may have been written as entities
    text = _first_item(text)
    previous = None
    while text != previous:
        previous = text
        for strip in _STRIPS:
            text = strip(text)
    text = clean_characters(text)
    text = _COUNT.sub("", text)
    return "" if _NOTHING.match(text) else _unquoted(text)


def _without_tokens(text: str) -> str:
    text = _TURNS.sub("", _TOOL_CALL.sub("", _ANSI.sub("", text)))
    _, prompted, answer = text.rpartition("[/INST]")
    text = answer if prompted and answer.strip() else text
    text = _ROLE.sub("", _SPECIAL.sub(lambda m: m[0] if _END.fullmatch(m[0]) else "", text))
    for part in _END.split(text):
        part = _ROLE.sub("", _SPECIAL.sub("", part))
        if part.strip():
            return part.strip()
    return ""


def _unwrapped(text: str) -> str:
    """What is inside a code fence, a box, an answer tag, an `<img>` or a JSON object."""
    if found := _FENCE.search(text):
        text = found[1]
    if found := _BOXED.search(text):
        text = re.sub(r"^\\text\{(.*)\}$", r"\1", found[1].strip())
    if found := _ANSWER_TAG.search(text):
        text = found[2]
    if found := _HTML_ALT.search(text):
        text = html.unescape(found[1] or found[2] or "")
    text = _HTML.sub(lambda tag: " " if _BREAK.match(tag[0]) else "", text)
    if _ENTITY.search(text):
        text = html.unescape(text)
    if re.search(r"\w", first := _RULE.split(text)[0]):
        text = first
    text = _escaped(text.strip())
    if text.startswith(("{", "[", '"{')) and (inner := _from_json(text)) is not None:
        return inner.strip()
    if (start := text.find("{")) >= 0 and re.match(r"\{\s*[\"'{}]", text[start:]):
        parsed = _from_json(text[start : text.rfind("}") + 1])
        sentence = _from_broken_json(text[start:]) if parsed is None else parsed
        return (sentence if start == 0 or sentence else text).strip()
    return text


def _escaped(text: str) -> str:
    """Text without the backslashes of a string within JSON."""
    if re.search(r'\\["n]', text) and '"' not in text.replace('\\"', ""):
        text = re.sub(r'\\(["\\])|\\n', lambda found: found[1] or " ", text)
    return text


_JSON_NAMES = (
    "alt alt_text alttext alternative_text caption description answer text sentence response output"
    " result content final_answer"
).split()


def _from_json(text: str) -> str | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(content, list) and content:
        content = content[0]
    if isinstance(content, str):
        return (_from_json(content) if content.lstrip()[:1] == "{" else None) or content
    if isinstance(content, dict):
        keys = {str(key).lower().replace("-", "_").replace(" ", "_"): key for key in content}
        for name in _JSON_NAMES:
            value = content.get(keys.get(name))
            if isinstance(value, str):
                return value
            if isinstance(value, dict | list) and (inner := _from_json(json.dumps(value))):
                return inner
        objects = [value for value in content.values() if isinstance(value, dict | list)]
        strings = [value for value in content.values() if isinstance(value, str)]
        if len(objects) == 1 and not strings:
            return _from_json(json.dumps(objects[0]))
        return strings[0] if len(strings) == 1 and not objects else ""
    return None


_BROKEN_JSON = re.compile(
    rf"[\"'](?:{'|'.join(_JSON_NAMES)})[\"']\s*:\s*(?:\"((?:[^\"\\]|\\.)*)|'((?:[^'\\]|\\.|'(?=\w))*))",
    re.IGNORECASE,
)


def _from_broken_json(text: str) -> str:
    """The alt in JSON that is cut, has comments, single quotes or a comma too many; "" if none."""
    found = _BROKEN_JSON.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text))
    found = _BROKEN_JSON.search(text) or found
    return re.sub(r"\\(.)", r"\1", found[1] or found[2] or "") if found else ""


def _first_item(text: str) -> str:
    """The first of several suggestions, and no closing remark."""
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text) if block.strip()]
    while len(blocks) > 1 and _CHATTER.match(blocks[-1]):
        blocks.pop()
    lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    while len(lines) > 1 and _CHATTER.match(lines[-1]):
        lines.pop()
    for number in range(len(lines) - 1, 0, -1):
        if found := _FINAL.match(f"{lines[number]}\n"):
            rest = [f"{lines[number]}\n"[found.end() :], *lines[number + 1 :]]
            lines = [line.strip() for line in rest if line.strip()] or lines
            break
    items = [found for line in lines if (found := _ITEM.match(line))]
    if len(items) > 1 or (items and len(lines) == 1):
        return str(items[0]["text"])
    if len(lines) > 1 and lines[0].startswith("#"):
        lines = lines[1:]
    if len(lines) > 1 and len(items) == 1:
        return str(items[0]["text"])
    return "\n".join(lines)


def _unmarked(text: str) -> str:
    """Text without Markdown: emphasis, headings, quotes, links, inline code."""
    text = re.sub(r"^\s*(?:#{1,6}|>)\s+", "", text)
    text = re.sub(r"!?\[([^\]\n]*)\]\((?:[^()\n]|\([^()\n]*\))*\)", r"\1", text)
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", text, flags=re.DOTALL)
    text = re.sub(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])", r"\1", text)
    text = re.sub(r"^_(?=\S)([^_\n]+?)(?<=\S)_$", r"\1", text)
    text = re.sub(r"^(?:\*\*|__)\s*|\s*(?:\*\*|__)$", "", text)
    return text.strip()


def _without_label(text: str) -> str:
    shorter = _LABEL.sub("", text, count=1)
    return shorter if re.search(r"\w", shorter) or not re.search(r"\w", text) else text


def _without_lead_in(text: str) -> str:
    for pattern in (_INTERJECTION, _OFFER, _LEAD_IN):
        shorter = pattern.sub("", text, count=1)
        if shorter != text and re.search(r"\w", shorter):
            text = shorter
    return text


def _unquoted(text: str) -> str:
    """Text without a pair of quotes around the whole of it; quotes inside stay."""
    text = re.sub(r"^\[([^\[\]]+)\]$|^\(([^()]+)\)$", r"\1\2", text.strip()).strip()
    while len(text) >= 2 and text[0] in _PAIRS:
        end = len(text) - 1
        stop = ""
        if text[-1] in ".!?" and len(text) > 2 and text[-2] in _PAIRS[text[0]]:
            end, stop = end - 1, text[-1]
        inner = text[1:end]
        if text[end] not in _PAIRS[text[0]] or not _is_pair(text[0], text[end], inner):
            break
        text = inner.strip()
        text += stop if text and text[-1] not in ".!?" else ""
    return text


def _is_pair(opening: str, closing: str, inner: str) -> bool:
    """Whether the first quote is closed by the last one, not by one in between."""
    if opening != closing:
        depth = 1
        for letter in inner:
            depth += (letter == opening) - (letter == closing)
            if depth == 0:
                return False
        return True
    places = [i for i, letter in enumerate(inner) if letter == opening]
    if opening == "'":
        places = [
            i for i in places if not (inner[i - 1 : i].isalnum() and inner[i + 1 : i + 2].isalnum())
        ]
    return not places or (len(places) % 2 == 0 and not inner[max(0, places[0] - 1)].isalnum())


_STRIPS: tuple[Callable[[str], str], ...] = (
    _unmarked,
    _without_lead_in,
    _without_label,
    _unquoted,
)


def clean_characters(text: str) -> str:
    """One line without control, bidirectional and invisible characters and lone surrogates."""
    text = _ANSI.sub("", text)
    kept = []
    for letter in text:
        kind = unicodedata.category(letter)
        if kind in ("Zs", "Zl", "Zp") or letter in "\t\n\r\v\f\x85":
            kept.append(" ")
        elif kind in ("Cc", "Cs", "Co", "Cn") or (kind == "Cf" and letter not in _KEPT_FORMAT):
            continue
        else:
            kept.append(letter)
    return " ".join("".join(kept).split())


def whole_sentences(text: str) -> str:
    """A cut answer up to the end of its last whole sentence; "" if it has none."""
    for found in reversed(list(_SENTENCE_END.finditer(text))):
        kept = text[: found.end()]
        if not _ABBREVIATION.search(kept):
            return kept.strip()
    return ""


_REPEATED = re.compile(r"(?=(\b\w.{0,80}?\W+)\1{7})", re.DOTALL)


def repeated_phrase(text: str) -> str:
    """The words that a text repeats eight times in a row, as models in a loop do; "" if none."""
    found = _REPEATED.search(text)
    return found[1].strip() if found else ""
