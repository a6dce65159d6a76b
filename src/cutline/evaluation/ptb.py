"""Penn Treebank tokens of a caption, as caption metrics count them, without Java.

Published caption scores count the tokens that Stanford's PTBTokenizer (CoreNLP 3.4.1, lower-cased,
one caption a line) gives, less a list of punctuation, which pycocoevalcap runs in Java. The rules
here were found by asking that program: they give its tokens for every Flickr8k caption that was
tried (35,455) and for the hard made-up ones among the goldens. They are known to differ in

- smileys other than `:) :( ;) =) :-)` and their like, `^_^`, a lone leading underscore;
- a telephone number's area code in parentheses, apart from the rest of it by a space;
- the non-breaking hyphen, read here as a hyphen, and pictographs within a word;
- apostrophes within made-up words (`Toys'R'Us`, `gonna'Mr`), typeset ones most of all, which the
  program takes for the start of a clitic before any m, d or n;
- numbers, slashes and accented letters grown together (`2.5-café/1990s`, `5-4x4/m`);
- captions that end in `No.`, `I.` or a single letter with a stop: the program looks on to the first
  letter or digit of the next caption in its file, so its own answer depends on the neighbour.
"""

from __future__ import annotations

import re

_DROPPED = frozenset("'' ' `` ` \" . ? ! , : - -- --- ---- ... ;".split()) | {". . ."}

_ABBREVIATIONS = """
    adj adm adv al ala alex apr ariz assn assoc asst attys? aug ave bancorp bhd bldg blvd brig bros
    calif capt cf cie cmdr comdr col colo conn corp cos? cpl ct dak dec dept det drs? elec ens esq
    est etc ext feb fla fri ft ga gen govs? hon inc ind insp intl invt jan jos jr jul jun kans? ky
    lieut lt ltd maj mar md messrs mfg mich minn mlle mme mo mon mont mrs? ms msgr mt mtg natl neb
    nev nov oct okla penn pfc ph plc pp?t[ey]s? pres profs? pvt rd reps? rev rt sens? sept? seq sfc
    sgt spc sq sr ste? supts? sys tel tenn thurs? thu treas tues? univ va vs vt wed wisc? wm wyo
""".split()
_CAPITAL_ABBREVIATIONS = "Az Ark Del Ill La Mass Miss Ore Pa Tex Wash".split()
_NUMBERED_ABBREVIATIONS = "art ca fig nos? op pp".split()

_REWRITTEN = {
    **dict.fromkeys("\u2018\u2019\u201b\u2039\u203a", "'"),
    **dict.fromkeys("\u201c\u201d«»", '"'),
    **dict.fromkeys("\u2013\u2014\u2015", "--"),
    **{"…": " ... ", "\u2011": "-", "\u00a0": " ", "\ufeff": " ", "\u200b": " "},
    **{mark: f" {mark} " for mark in "²³"},
    **{"¢": " cents ", "£": " # ", "€": " $ ", "½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 "},
}
_REWRITE = re.compile("|".join(_REWRITTEN) + "|[\U00010000-\U0010ffff]")
_ENTITIES = {
    "&amp;": "&",
    "&lt;": " < ",
    "&gt;": " > ",
    "&quot;": '"',
    "&apos;": "'",
    "&nbsp;": " ",
}
_BRACKETS = {"[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

_JOINED = r"(?:can(?=not)|(?:gon|wan)(?=na)|got(?=ta)|(?:lem|gim)(?=me)|more(?='n))"
_END = r"(?!\w|[./!?-]\w)"
_CLITIC = r"'(?:[smd]|re|ve|ll)(?![a-z])"
_HOST = r"(?:[a-z0-9][\w-]*\.)+"
_PATH = r"(?:/[^\s\"<>|()]*[^\s\"<>|.!?,;:()-])?"
_TOKEN = re.compile(
    rf"""
    (?!{_JOINED})[a-z]+(?!\S)                                              # most words
  | </?[a-z][^<>]*>                                                        # markup, addresses
  | https?://[^\s"<>|()]*[^\s"<>|.!?,;:()'-]
  | {_HOST}(?:com|net|org|edu)(?![a-z0-9]){_PATH} | www\.{_HOST}[a-z]{{2,4}}(?![a-z0-9]){_PATH}
  | [a-z0-9][\w.-]*@(?:[\w-]+\.)*[\w-]+ | @[a-z_]\w* | \#[^\W\d_]+
  | (?:can(?=not{_END})|(?:gon|wan)(?=na{_END})|got(?=ta{_END})|(?:lem|gim)(?=me{_END}))
  | more(?='n{_END}) | 't(?=(?:is|was){_END})
  | (?-i:[A-Z]+)\$ | c(?:\+\+|\#) | [a-z0-9]+(?:_[a-z0-9]+)+ | &\#\d+; | [:;=]-?[()]
  | cont'd\. | [a-z]+?(?=n't(?![a-z])) | n't(?![a-z]) | {_CLITIC} | [a-z]+(?={_CLITIC})   # clitics
  | o'clock{_END} | 'n' | 'n(?![a-z]) | '(?:em|til|cause)(?![a-z]) | y'(?=[a-z]) | c'mon
  | (?:nor'easter|s'mores|li'l|ol'|ev'ry|dunkin'|somethin'|ma'ams?|n?e'er)(?![a-z])
  | '\d0s(?![a-z']) | '\d\d(?!\S)
  | (?:{"|".join(_NUMBERED_ABBREVIATIONS)})\.(?=\ ?\d)                     # abbreviations
  | (?:(?-i:{"|".join(_CAPITAL_ABBREVIATIONS)})|{"|".join(_ABBREVIATIONS)})\.(?![a-z-])
  | (?:ph|ed)\.d\.?(?![a-z0-9]) | [a-z](?:\.[a-z])*\.(?![a-z-])
  | [^\W_](?:[^\W_]|[.,])*(?:-[^\W_]+)+(?:/[a-z0-9]+(?:-[a-z]+)*)*          # hyphens, slashes
  | \d{{1,2}}[/-]\d{{1,2}}[/-]\d{{2,4}} | (?:\d{{1,4}}-)?\d{{1,4}}/\d{{1,4}}(?![\d/a-z-])
  | [a-z0-9]+(?:-[a-z]+){{0,2}}(?:/[a-z0-9]+(?:-[a-z]+){{0,2}}){{1,2}}
  | (?-i:[A-Z]+(?:[+&][A-Z]+)+)
  | [-+]?(?:\d+(?:[.:,]\d+)+|\d*(?:[.,:]\d+)+) | [-+]\d+                   # numbers
  | [a-z]+[aeiouy]'(?-i:[aeiouA-Z])[a-z]* | (?-i:[A-HJ-XZ]|[no])'[a-z]{{2,}} | [dl]'[a-z]+
  | [^\W\d_][^\W_]*(?:[.!?][^\W\d_][^\W_]*)*       # words
  | \w+ | \.(?:\ ?\.){{2}} | [!?]+ | -{{5,}} | -{{1,4}} | \*+ | ``|'' | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)


def tokenize(caption: str) -> list[str]:
    """The lower-case Penn Treebank words of a caption, punctuation dropped.

    Args:
        caption: one caption; a line break counts as a space.

    Returns:
        The tokens: `A man can't swim.` -> `a man ca n't swim`.
    """
    if not caption.isascii():
        caption = _REWRITE.sub(lambda found: _REWRITTEN.get(found[0], " "), caption)
    if "&" in caption:
        caption = re.sub(r"&\w+;", lambda found: _ENTITIES.get(found[0], found[0]), caption)
    tokens = (
        _BRACKETS.get(token, token).replace("(", "-lrb-").replace(")", "-rrb-").lower()
        for token in _TOKEN.findall(caption)
    )
    return [token for token in tokens if token not in _DROPPED]
