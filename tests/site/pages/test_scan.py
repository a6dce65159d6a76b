"""Image occurrences in HTML, Markdown and folders; URLs; bytes as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cutline.errors import DataError, OutputError
from cutline.site.model import Alt, ImageOccurrence, Kind
from cutline.site.pages.alt_markup import with_alt
from cutline.site.pages.scan import (
    decode,
    normalise_url,
    occurrences_in_html,
    occurrences_in_markdown,
    scan,
    scan_unread,
)

PAGE = "https://example.org/a/b.html"


def occurrences_of(html: str, base: str | None = None) -> list[ImageOccurrence]:
    _, occurrences = occurrences_in_html(html, page=PAGE, base=base)
    for occurrence in occurrences:
        assert occurrence.markup
        assert (
            html[occurrence.offset : occurrence.offset + len(occurrence.markup)]
            == occurrence.markup
        )
    assert [occurrence.position for occurrence in occurrences] == list(range(len(occurrences)))
    return occurrences


def occurrence_of(html: str, base: str | None = None) -> ImageOccurrence:
    [occurrence] = occurrences_of(html, base)
    return occurrence


@pytest.mark.parametrize(
    ("attribute", "alt", "state"),
    [
        ("", None, Alt.MISSING),
        ("alt", "", Alt.EMPTY),
        ('alt=""', "", Alt.EMPTY),
        ('alt=" &#32;"', "  ", Alt.WHITESPACE),
        ("ALT='Caf&eacute; &lt;3'", "Café <3", Alt.PRESENT),
        ("alt=x alt=y", "x", Alt.PRESENT),
    ],
)
def test_the_four_states_of_an_alt(attribute: str, alt: str | None, state: Alt) -> None:
    occurrence = occurrence_of(f"<img src=a.png {attribute}>")
    assert (occurrence.alt, occurrence.alt_state) == (alt, state)


@pytest.mark.parametrize(
    "html",
    [
        '\ufeff<p>\r\n\t<img\r\n  src="a.png"\r\n\talt="1 > 2"\r\n/> é',
        "<p>日本語 👩‍👩‍👧 <IMG SRC=a.png ALT='a \"b\" >c'>",
        '<img src=a.png title=">" data-x=a"b>',
        "<!-- <img src=no> --><script>'<img src=no>'</script><img src=a.png><!-- <img -->",
        "<?xml version='1.0'?>\n<!DOCTYPE html><?php x ?><title>t</title><image src=a.png>",
        '<table><img src="a.png"><tr><td>x</table>',
        '<a><b><p><img src=a.png foo / bar = "q" =x></b></a>',
        '<img alt="<img src=no>" src=a.png>',
    ],
)
def test_the_start_tag_is_found_exactly(html: str) -> None:
    occurrence = occurrence_of(html)
    assert occurrence.source == "a.png"
    assert occurrence.markup.lower().startswith("<im")
    assert occurrence.markup.endswith(">")


def test_in_xhtml_elements_close_themselves() -> None:
    html = """<?xml version="1.0"?><html><head><title/><script src="x"/></head><body><!-- <b/> -->
      <a href="/x"/><p/><img src="é.png" alt="1 > 2"/><div hidden=""/><br/>
      <svg><path/></svg><img src="b.png"/></body></html>"""
    _, occurrences = occurrences_in_html(html, page="a/b.XHTML", base=PAGE)
    assert [
        (occurrence.markup, occurrence.link, occurrence.hidden) for occurrence in occurrences
    ] == [
        ('<img src="é.png" alt="1 > 2"/>', "", False),
        ("<svg>", "", False),
        ('<img src="b.png"/>', "", False),
    ]
    for occurrence in occurrences:
        assert html[occurrence.offset :].startswith(occurrence.markup)
    assert occurrences_of(html) == []


def test_a_tag_cut_off_is_none() -> None:
    assert occurrences_of('<p><img src="a.png') == []


@pytest.mark.parametrize(
    ("html", "kind"),
    [
        ("<img src=x>", Kind.IMG),
        ("<input TYPE=Image src=x>", Kind.INPUT),
        ("<map name=m><area href=/x></map>", Kind.AREA),
        ("<svg role=img><path/></svg>", Kind.SVG),
        ("<object data=x type=image/png></object>", Kind.OBJECT),
        ("<div role=img></div>", Kind.ROLE_IMG),
        ("<div style=\"background:url('x')\"></div>", Kind.CSS),
        ("<div role=img style='background-image: url(x)'></div>", Kind.ROLE_IMG),
    ],
)
def test_what_shows_an_image(html: str, kind: Kind) -> None:
    assert occurrence_of(html).kind is kind


@pytest.mark.parametrize(
    "html",
    [
        "<input type=text src=x>",
        "<area>",
        "<textarea><img></textarea>",
        "<title><img></title>",
        "<div style='color: red'></div>",
    ],
)
def test_what_shows_none(html: str) -> None:
    assert occurrences_of(html) == []


@pytest.mark.parametrize(
    ("html", "source", "candidates"),
    [
        ("<img src=s.png>", "s.png", ()),
        ("<img src=s srcset='a 320w, b 900w,c 2000w'>", "b", ("s", "a", "c")),
        ("<img src=s srcset='a 320w, b 640w'>", "b", ("s", "a")),
        ("<img src=s width=400 srcset='a 1x, b 2x, c 3x'>", "b", ("s", "a", "c")),
        ("<img src=s srcset='b 2x'>", "s", ("b",)),
        ("<img srcset='data:image/gif;base64,R0lG 1x, b 2x'>", "b", ()),
        ("<img src=s data-src=l.png>", "l.png", ("s",)),
        ("<img src=data:image/gif;base64,R0 data-srcset='a 1000w'>", "a", ()),
        ("<img src='' data-original=' l.png '>", "l.png", ()),
        ('<img src=blank.gif data-x=\'{"a":"l.png"}\'>', "l.png", ("blank.gif",)),
        ("<img src=blank.gif data-x='a.png 9w, l.png 99w'>", "l.png", ("a.png", "blank.gif")),
        ("<img src=blank.gif data-x=https://h/l>", "https://h/l", ("blank.gif",)),
        ("<img src=s.png data-x=https://h/l>", "s.png", ()),
        ("<img src=blank.gif data-src=l_%7Bw%7D.png>", "blank.gif", ()),
        ("<img src=data:image/gif;base64,R0>", "data:image/gif;base64,R0", ()),
        ("<picture><source srcset='w.webp 900w'><img src=s></picture>", "s", ("w.webp",)),
        ("<picture><source srcset='w.webp 900w'><img></picture>", "w.webp", ()),
        ("<object data=o.svg></object>", "o.svg", ()),
        ("<i role=img style='background:url(&quot;b g.png&quot;)'></i>", "b g.png", ()),
        ("<img>", "", ()),
    ],
)
def test_which_source_is_taken(html: str, source: str, candidates: tuple[str, ...]) -> None:
    occurrence = occurrence_of(html)
    assert occurrence.source == source
    assert occurrence.candidates == tuple(f"https://example.org/a/{one}" for one in candidates)
    fetched = source and not source.startswith("data:")
    assert occurrence.url == (normalise_url(source, PAGE) if fetched else "")


@pytest.mark.parametrize("source", ["{{ page.img }}", "{% static 'x' %}", "<?= $x ?>", "${x}"])
def test_a_template_is_not_fetched(source: str) -> None:
    occurrence = occurrence_of(f'<img src="{source}">')
    assert (occurrence.source, occurrence.url) == (source, "")


def test_base_counts_for_sources_and_links() -> None:
    head = "<head><base target=x><base href=/new/><base href=/no/></head>"
    occurrence = occurrence_of(f"{head}<a href='x#y'><img src=i.png></a>")
    assert occurrence.url == "https://example.org/new/i.png"
    assert occurrence.link == "https://example.org/new/x#y"


@pytest.mark.parametrize(
    ("html", "link", "text", "button"),
    [
        ("<a href=/x> <img> Read  <b>more</b></a>", "/x", "Read more", False),
        ("<a href=/x><img alt=me><img alt=Logo></a>", "/x", "Logo", False),
        ("<a href=/x aria-label=Home>more<img></a>", "/x", "Home", False),
        ("<a href=/x aria-labelledby=t><img></a><i id=t hidden>A</i>", "/x", "A", False),
        ("<a href=/x title=Home><img></a>", "/x", "Home", False),
        ("<a href=/x><img><span aria-hidden=true>★</span><i hidden>no</i></a>", "/x", "", False),
        ("<a href=/x><img><svg><title>Star</title></svg></a>", "/x", "Star", False),
        ("<a name=x>Text<img></a>", "", "", False),
        ("<button>Search<img></button>", "", "Search", True),
        ("<div role=button>Go<img></div>", "", "Go", True),
        ("<input type=image>", "", "", True),
        ("<map><area href=/x></map>", "/x", "", False),
    ],
)
def test_the_link_or_button_around(html: str, link: str, text: str, button: bool) -> None:
    occurrence = occurrences_of(html)[0]
    assert occurrence.link == (f"https://example.org{link}" if link else "")
    assert (occurrence.link_text, occurrence.button) == (text, button)


@pytest.mark.parametrize("href", ["mailto:a@example.org", "javascript:go()", "tel:+1"])
def test_a_link_keeps_its_scheme(href: str) -> None:
    assert occurrence_of(f"<a href={href}><img></a>").link == href


@pytest.mark.parametrize(
    "html",
    [
        "<div hidden><img></div>",
        "<div style='color:red; DISPLAY : none'><img></div>",
        "<img aria-hidden=true>",
        "<p style='visibility:hidden'><b><img></b></p>",
        "<template><img></template>",
        "<div inert><img></div>",
        "<div style='content-visibility: hidden'><img></div>",
        "<audio><img></audio>",
    ],
)
def test_what_is_hidden(html: str) -> None:
    assert occurrence_of(html).hidden


@pytest.mark.parametrize(
    "html",
    [
        "<img aria-hidden=false>",
        "<div hidden style='display:block'><img></div>",
        "<p style='visibility:hidden'><img style='visibility:visible'></p>",
        "<details open><img></details>",
        "<details><summary><img></summary></details>",
        "<dialog open><img></dialog>",
        "<details><summary>x</summary><img></details>",
        "<dialog><img></dialog>",
        "<div popover><img></div>",
        "<div hidden=until-found><img></div>",
        "<my-card><template shadowrootmode=open><img></template></my-card>",
        "<img role=presentation>",
        "<div style='opacity:0'><img></div>",
    ],
)
def test_what_is_not(html: str) -> None:
    assert not occurrence_of(html).hidden


def test_what_stands_around() -> None:
    html = """<html lang=en-GB><title>The  title</title><body>
      <h1>Site</h1><p>Before <script>no()</script><b>it</b></p>
      <h2>News <img id=logo alt=Logo></h2>
      <figure lang=fr><img src=a.png title=" T " role="IMG"
        style="width: 30px; height:50%" height="40px">
        <figcaption>Une <i>vue</i></figcaption></figure>
      <p>After</p><noscript><p>off<img src=n.png></p></noscript><h2>Later</h2>"""
    logo, figure, noscript = occurrences_of(html)
    assert (logo.heading, figure.heading, noscript.heading) == ("News", "News", "News")
    assert figure.before == "Site Before it News"
    assert figure.after == "Une vue After Later"
    assert (figure.caption, logo.caption) == ("Une vue", "")
    assert (figure.language, logo.language) == ("fr", "en-GB")
    assert figure.page_title == "The title"
    assert (figure.width_px, figure.height_px) == (30, 40)
    assert (figure.title, figure.role) == ("T", "IMG")
    assert (noscript.noscript, figure.noscript) == (True, False)


@pytest.mark.parametrize(
    ("html", "beside"),
    [
        ("<p>Far<p><img> Call <b>us</b><p>Away", "Call us"),
        ("<p>Far<p>Call <a href=x>us</a> <!-- --> <img><br></p>Away", "Call us"),
        ("<nav>Far</nav><div><svg><g><path/></g></svg></div><h1>Away</h1>", ""),
        ("<div>Far<div>Away</div><svg><g></g></svg> Near <ul><li>Away</ul></div>", "Near"),
        ("<table><tr><td>Far<td><img><td>Away</table>", ""),
        ("<ul><li>Far<li><label><img>Near</label></ul>", "Near"),
        ("<button>Far</button><img><button>Away</button>", ""),
        ("Near <img>", "Near"),
        ("<img>", ""),
    ],
)
def test_what_stands_in_the_same_block(html: str, beside: str) -> None:
    assert occurrence_of(html).beside == beside


def test_context_is_cut_between_words() -> None:
    occurrence = occurrence_of("word " * 100 + "<img>" + " next" * 100)
    assert occurrence.before == ("word " * 40).strip()
    assert occurrence.after == ("next " * 40).strip()


@pytest.mark.parametrize(
    ("html", "name"),
    [
        ("<img aria-label=' A  b '>", "A b"),
        ("<img aria-labelledby='y x z' aria-label=no><p id=x>X</p><p id=y>Y</p>", "Y X"),
        ("<svg><title>Star</title></svg>", "Star"),
        ("<svg aria-label=Sun><title>Star</title></svg>", "Sun"),
        ("<img alt=a title=b>", ""),
        ("<label>Find <b>it</b> <input type=image alt=a></label>", "Find it"),
        (
            "<input type=image id=q><label for=q hidden>Find</label><label for=q>it</label>",
            "Find it",
        ),
        ("<label for=other>Find <input type=image id=q></label>", ""),
        ("<object data=a.png>A dog</object>", ""),
    ],
)
def test_the_accessible_name(html: str, name: str) -> None:
    assert occurrences_of(html)[0].name == name


def test_page_and_its_checksum_are_told() -> None:
    page, _ = occurrences_in_html("<html xml:lang=de><title>a</title>", page=PAGE)
    assert (page.url, page.title, page.language, len(page.sha256)) == (PAGE, "a", "de", 64)


def test_a_deep_page_is_read() -> None:
    assert len(occurrences_of("<div>" * 5000 + "<img>" + "<a href=x>" * 300 + "<img>")) == 2


PIECES = [
    *"""<img <IMG src= a.png alt=" ' > /> <a href=x> </a> <svg> </svg> <title> <table> <td> <p> <!--
    --> <noscript> </noscript> <template> </template> <script> </script> &amp; é = < / <?x ?> <h1>
    <![CDATA[ ]]> role=img style='background:url(x)' <figure> <select> <math> <base""".split(),
    *["\r\n", "\r", "\n", "\t", "\ufeff", " "],
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join))
@example("<i role=img><p>x<i role=img><p>")
@example("<noscript><img></noscript")
def test_any_html_is_read_with_exact_places(html: str) -> None:
    occurrences_of(html)


def test_of_svgs_only_the_outermost_counts_unless_it_has_a_role() -> None:
    html = "<svg><svg></svg><g role=img></g><svg role=graphics-symbol></svg></svg>"
    assert [occurrence.markup for occurrence in occurrences_of(html)] == [
        "<svg>",
        "<g role=img>",
        "<svg role=graphics-symbol>",
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "HTTP://Ex.ORG:80/%7eA/./b/../c%2fd?q=%c3%a4#top",
            "http://ex.org/~A/c%2Fd?q=%C3%A4",
        ),
        ("https://münchen.de/ü", "https://xn--mnchen-3ya.de/%C3%BC"),
        ("//cdn.example.org/x", "https://cdn.example.org/x"),
        ("\\img\\a b.png", "https://example.org/img/a%20b.png"),
        (" x.png\n", "https://example.org/a/x.png"),
        ("?utm_source=a&id=2&fbclid=3&GCLID=4", "https://example.org/a/b.html?id=2"),
        ("x?utm_source=a", "https://example.org/a/x"),
        ("100%.png", "https://example.org/a/100%25.png"),
        ("x.png?", "https://example.org/a/x.png"),
        ("", ""),
        ("data:image/png;base64,xx", ""),
        ("javascript:go()", ""),
        ("http://[bad/", ""),
        ("http:///", ""),
        ("file:///etc/passwd", ""),
    ],
)
def test_one_spelling_for_a_url(url: str, expected: str) -> None:
    assert normalise_url(url, PAGE) == expected


URLISH = st.text(alphabet="abAZ019:/?#[]@!$&'()*+,;=%.-_~\\ |^äßم\t\ud800", max_size=40)


@example("", "??", "https://example.org/a/b.html")
@example("", "A|", "file:///a/b/c.html")
@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(["", "http://", "https://a.b", "//", "file:///", "?utm_a=1&", "%%34%31"]),
    URLISH,
    st.sampled_from(["", PAGE, "file:///a/b/c.html", "a/b.html"]),
)
def test_normalising_twice_is_normalising_once(start: str, rest: str, base: str) -> None:
    once = normalise_url(start + rest, base)
    assert normalise_url(once, base) == once
    assert normalise_url(once) == once


MARKDOWN = """---
title: "Hello: there"
lang: de
---
# A *heading*

Text ![one](a.png) ![ö two](<b c.png> "t") [![in](c.png)](/x) `![no](x)`
> quote ![q](q.png
> "tt") ![ref][r] ![](empty.png) ![ ](blank.png)

- item ![a ![n](y)](l.png) <img src="inline.png"
  alt="1">

| ![c](1.png) | ![d \\| e](2.png) |
|---|---|
| ![c](1.png) | ![c](1.png) |

<figure><img src=block.png><!-- <img src=no> -->

![inside](in.png)
</figure>

```
![no](x)
```

    ![no](code)

- > <p><img
  >   src=deep.png></p>

[r]: /ref.png "RT"
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_markdown(newline: str, mark: str) -> None:
    text = mark + MARKDOWN.replace("\n", newline)
    page, occurrences = occurrences_in_markdown(text, page="a/b.md", base=PAGE)
    assert (page.title, page.language) == ("Hello: there", "de")
    assert [
        (occurrence.markup.replace(newline, "\n"), occurrence.alt, occurrence.source)
        for occurrence in occurrences
    ] == [
        ("![one](a.png)", "one", "a.png"),
        ('![ö two](<b c.png> "t")', "ö two", "b c.png"),
        ("![in](c.png)", "in", "c.png"),
        ('![q](q.png\n> "tt")', "q", "q.png"),
        ("![ref][r]", "ref", "/ref.png"),
        ("![](empty.png)", None, "empty.png"),
        ("![ ](blank.png)", " ", "blank.png"),
        ("![a ![n](y)](l.png)", "a n", "l.png"),
        ('<img src="inline.png"\n  alt="1">', "1", "inline.png"),
        ("![c](1.png)", "c", "1.png"),
        ("![d \\| e](2.png)", "d | e", "2.png"),
        ("![c](1.png)", "c", "1.png"),
        ("![c](1.png)", "c", "1.png"),
        ("<img src=block.png>", None, "block.png"),
        ("![inside](in.png)", "inside", "in.png"),
        ("<img\n  >   src=deep.png>", None, "deep.png"),
    ]
    for occurrence in occurrences:
        assert (
            text[occurrence.offset : occurrence.offset + len(occurrence.markup)]
            == occurrence.markup
        )
    assert len({occurrence.offset for occurrence in occurrences}) == len(occurrences)
    assert {occurrence.kind for occurrence in occurrences} == {Kind.MARKDOWN, Kind.IMG}
    assert {occurrence.heading for occurrence in occurrences} == {"A heading"}
    assert occurrences[2].link == "https://example.org/x"
    assert occurrences[1].title == "t"


MARKDOWN_PIECES = [
    *"""![ ] ( ) a.png <img src=x> [r] > - * 1. # | --- ` ``` \\ <!-- --> <div> </div> ![a](b) [r]:x
    é &amp; :""".split(),
    *["\n", "\n\n", "\t", "\r", "    "],
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(MARKDOWN_PIECES) | st.text(max_size=2), max_size=30).map(" ".join))
@example("| ![a](b) | ![a](b) |\n|---|---|\n")
@example("<!--cutline:0--><img src=x cutline='0'>")
def test_any_markdown_is_read_with_exact_places(text: str) -> None:
    _, occurrences = occurrences_in_markdown(text, page="a.md")
    for occurrence in occurrences:
        assert occurrence.offset == -1 or text[occurrence.offset :].startswith(occurrence.markup)
        if occurrence.kind is Kind.MARKDOWN and occurrence.offset >= 0:
            assert occurrence.markup.startswith("![")


@pytest.mark.parametrize(
    ("content", "declared", "encoding", "text"),
    [
        ("é".encode(), "", "utf-8", "é"),
        ("é".encode("cp1252"), "", "cp1252", "é"),
        ("é".encode("cp1252"), "iso-8859-1", "cp1252", "é"),
        (b"\xef\xbb\xbf<p>", "iso-8859-1", "utf-8", "\ufeff<p>"),
        ("\ufeffé".encode("utf-16-le"), "", "utf-16-le", "\ufeffé"),
        ("<meta charset=shift_jis>日".encode("cp932"), "", "cp932", "<meta charset=shift_jis>日"),
        (b"<meta charset=utf-16>\xc3\xa9", "", "utf-8", "<meta charset=utf-16>é"),
        (b"<meta charset=nonsense>\xe9", "", "cp1252", "<meta charset=nonsense>é"),
    ],
)
def test_bytes_become_text(content: bytes, declared: str, encoding: str, text: str) -> None:
    assert decode(content, declared) == (text, encoding)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"<meta charset=gb18030>"]),
    st.binary(max_size=40),
    st.sampled_from(["", "utf-8", "utf-7", "big5", "euc-jp", "iso-2022-jp", "rot13", "ascii"]),
)
def test_text_becomes_the_same_bytes_again(mark: bytes, rest: bytes, declared: str) -> None:
    text, encoding = decode(mark + rest, declared)
    assert text.encode(encoding, "surrogateescape") == mark + rest


def test_a_link_within_the_folder_scanned_is_a_path_in_it(tmp_path: Path) -> None:
    (tmp_path / "new shop").mkdir()
    links = ["../index.html", "/", "b.html?x#y", "#top", "../../other.html", "https://a.net/"]
    html = "".join(f"<a href='{link}'><img src=1.png></a>" for link in links)
    (tmp_path / "new shop/a.html").write_text(html)
    [(_, occurrences)] = scan(tmp_path)
    assert [occurrence.link for occurrence in occurrences] == [
        "./index.html",
        "./",
        "./new%20shop/b.html?x#y",
        "./new%20shop/a.html#top",
        f"{tmp_path.resolve().parent.as_uri()}/other.html",
        "https://a.net/",
    ]


def test_a_folder_is_scanned(tmp_path: Path) -> None:
    files = {
        "index.html": b"<img src=/img/a.png><img src='b c.png'><img src=//cdn.example.org/x.png>",
        "blog/one.md": b"![](../img/a.png)",
        "blog/two.HTM": "<title>\u00e9</title><img alt=\u00e9>".encode("cp1252"),
        "drafts/no.html": b"<img>",
        ".git/no.html": b"<img>",
        "node_modules/no.md": b"![](x)",
        "readme.txt": b"<img>",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "broken.html").symlink_to(tmp_path / "nowhere")
    found = {
        page.url: (page, occurrences) for page, occurrences in scan(tmp_path, exclude=["drafts"])
    }
    assert list(found) == ["broken.html", "index.html", "blog/one.md", "blog/two.HTM"]
    root = tmp_path.resolve().as_uri()
    assert [occurrence.url for occurrence in found["index.html"][1]] == [
        f"{root}/img/a.png",
        f"{root}/b%20c.png",
        "https://cdn.example.org/x.png",
    ]
    assert [occurrence.url for occurrence in found["blog/one.md"][1]] == [f"{root}/img/a.png"]
    assert found["blog/two.HTM"][0].title == "é"
    assert found["blog/two.HTM"][1][0].alt == "é"
    assert "No such file" in found["broken.html"][0].error
    assert [page.url for page, _ in scan(tmp_path, include=["blog/*.md"])] == ["blog/one.md"]
    with pytest.raises(DataError, match="expected a folder"):
        list(scan(tmp_path / "index.html"))


@pytest.mark.parametrize(
    ("page", "folder", "file"),
    [
        ("content/a.md", "static", "img/a.png"),
        ("a.html", "public", "img/a.png"),
        ("_posts/a.md", "assets", "img/a.png"),
        ("source/_posts/a.md", "source", "img/a.png"),
        ("website/docs/a.md", "website/static", "img/a.png"),
        ("docs/a.md", "website/static", "img/a.png"),
        ("docs/en/a.md", "docs", "img/a.png"),
    ],
)
def test_root_relative_pictures_of_generators(
    tmp_path: Path, page: str, folder: str, file: str
) -> None:
    for path in (tmp_path / page, tmp_path / folder / file):
        path.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / file).write_bytes(b"x")
    image = "<img src=/{}>" if page.endswith("html") else "![](/{})"
    (tmp_path / page).write_text(f"{image.format(file)}\n\n{image.format('no.png')}")
    [(_, occurrences)] = scan(tmp_path)
    root = tmp_path.resolve()
    assert [occurrence.url for occurrence in occurrences] == [
        (root / folder / file).as_uri(),
        (root / "no.png").as_uri(),
    ]


def test_a_picture_of_a_page_that_is_published_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "page.md").write_text("<img src=../a.png>")
    [(_, [occurrence])] = scan(tmp_path)
    assert occurrence.url == (tmp_path.resolve() / "a.png").as_uri()


def test_what_looks_like_an_image_and_is_not_read_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        '{{< gallery src="a.jpg" >}}\n\n{% include figure.html src="b.jpg" %}\n\n![[c.png]]\n\n'
        "`![[code.png]]`\n\n```{figure} d.png\n```\n\n<Hero image='e.png' />\n\n![](own.png)\n"
    )
    (tmp_path / "b.html").write_text(
        "<iframe srcdoc='<img src=a><img src=b>'></iframe><embed src=a.png alt=x>"
        "<?php echo '<img src=c>' ?>"
    )
    (tmp_path / "m.md").write_text("<div>\n![](a.png)\n</div>\n\n<pre>\n![](b.png)\n</pre>\n")
    (tmp_path / "c.adoc").write_text("image::a.png[]\n\nimage:b.png[]\n")
    (tmp_path / "d.njk").write_text("<img src=a>")
    pages = {page.url: dict(page.unread) for page, _ in scan(tmp_path)}
    assert pages == {
        "a.md": {
            "shortcode or template tag": 2,
            "directive": 1,
            "component": 1,
        },
        "b.html": {
            "image in an iframe's srcdoc": 2,
            "image in an embed element": 1,
            "image in program code": 1,
        },
        "m.md": {"Markdown within HTML": 1},
    }
    assert scan_unread(tmp_path) == {"image in a .adoc file": 2, "image in a .njk file": 1}
    assert scan_unread(tmp_path, exclude=["*.adoc"]) == {"image in a .njk file": 1}


@pytest.mark.parametrize(
    ("text", "source", "alt"),
    [
        ("Text ![[b.png]] more", "b.png", None),
        ("![[x/b.png|A dog|300x200]]", "x/b.png", "A dog"),
        ("![[b.png|300]]", "b.png", None),
        ('Text {{< figure src="b.png" alt="A dog" >}} more', "b.png", "A dog"),
        ('{{<figure src="b.png" caption="A \\"big\\" dog" />}}', "b.png", 'A "big" dog'),
        ('{{% figure\n  src="b.png"\n  alt="A\n  dog"\n%}}', "b.png", "A dog"),
    ],
)
def test_wiki_links_and_figure_shortcodes_are_read(
    tmp_path: Path, text: str, source: str, alt: str | None
) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "b.png").write_bytes(b"x")
    (tmp_path / "a.md").write_text(f"# Title\n\n{text}\n\n`{text}`\n\n![own](own.png)\n")
    [(page, [embed, own])] = scan(tmp_path)
    assert (embed.kind, embed.source, embed.alt) == (Kind.EMBED, source, alt)
    assert embed.markup == text.removeprefix("Text ").removesuffix(" more")
    assert embed.heading == "Title"
    assert embed.url == (tmp_path.resolve() / "img" / "b.png").as_uri()
    assert (own.alt, page.unread) == ("own", ())
    with pytest.raises(OutputError, match="change its alt by hand"):
        with_alt(embed.markup, embed.kind, "A cat")


@pytest.mark.parametrize("name", ["data-url", "data-href", "data-link", "data-any"])
def test_any_attribute_may_hold_the_address_behind_a_placeholder(name: str) -> None:
    html = f'<p><img src="data:image/gif;base64,R0lGODlhAQAB" {name}="a.png">'
    [placeholder] = occurrences_in_html(html, page="https://example.org/")[1]
    assert placeholder.url == "https://example.org/a.png"
    html = f'<p><img src="b.png" {name}="/page"><img src="c.png" data-url="c-large.png">'
    assert [each.source for each in occurrences_in_html(html, page="https://example.org/")[1]] == [
        "b.png",
        "c.png",
    ]
