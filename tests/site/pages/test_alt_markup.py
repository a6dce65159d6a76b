from __future__ import annotations

import pytest

from cutline.errors import OutputError
from cutline.site.model import Kind
from cutline.site.pages.alt_markup import alt_in, clean, current_alt, has_alt, with_alt
from cutline.site.pages.scan import occurrences_in_html


@pytest.mark.parametrize(
    ("tag", "after"),
    [
        ('<img src="a.png">', '<img src="a.png" alt="A dog">'),
        ("<img src='a.png'>", "<img src='a.png' alt='A dog'>"),
        ("<img src=a.png>", '<img src=a.png alt="A dog">'),
        ("<img src=a/>", '<img src=a/ alt="A dog">'),
        ('<img src="a.png"/>', '<img src="a.png" alt="A dog"/>'),
        ('<img src="a.png" />', '<img src="a.png" alt="A dog" />'),
        ("<img>", '<img alt="A dog">'),
        ('<IMG SRC="A.PNG">', '<IMG SRC="A.PNG" ALT="A dog">'),
        ('<Img Src="A.PNG">', '<Img Src="A.PNG" alt="A dog">'),
        ('<img alt="" src="a.png">', '<img alt="A dog" src="a.png">'),
        ("<img  ALT = ' '\n src=a>", "<img  ALT = 'A dog'\n src=a>"),
        ("<img alt=cat src=a>", '<img alt="A dog" src=a>'),
        ("<img alt src='a'>", "<img alt='A dog' src='a'>"),
        ("<img src=a alt=>", '<img src=a alt="A dog">'),
        ("<img alt=` src=a>", '<img alt="A dog" src=a>'),
        ("<img src=>", '<img alt="A dog" src=>'),
        ('<img src="a"class="b">', '<img src="a"class="b" alt="A dog">'),
        ('<img alt="" src="a" ALT="x">', '<img alt="A dog" src="a" ALT="x">'),
        (
            '<img :src="a" @click="b > c" [x]="y">',
            '<img :src="a" @click="b > c" [x]="y" alt="A dog">',
        ),
        ('<img src="{{ url }}?w=1">', '<img src="{{ url }}?w=1" alt="A dog">'),
        ('<img src="<?= $url ?>">', '<img src="<?= $url ?>" alt="A dog">'),
        ("""<img data-x='{"a":{"b":1}}'>""", """<img data-x='{"a":{"b":1}}' alt='A dog'>"""),
        ('<img data-alt="x" title="alt">', '<img data-alt="x" title="alt" alt="A dog">'),
    ],
)
def test_only_the_alt_changes(tag: str, after: str) -> None:
    assert with_alt(tag, Kind.IMG, "A dog") == after
    assert alt_in(after, Kind.IMG) == "A dog"
    assert with_alt(after, Kind.IMG, "A dog") == after


@pytest.mark.parametrize(
    "tag",
    [
        '<img {{ attributes }} src="a">',
        '<img src="{{ url("a") }}">',
        "<img src={{ url }}>",
        '<img {% if x %}alt="y"{% endif %} src="a">',
        '<img src="a" <?php echo $alt ?>>',
        '<img src="<?php echo "a" ?>">',
        "<img src=<?= $x ?>>",
        '<img alt="{{ title }}" src="a">',
        '<img alt="<?= $title ?>" src="a">',
        '<img src="a" :alt="title">',
        '<img src="a" v-bind:alt="title">',
        '<img src="a" th:alt="#{title}">',
        '<img src="a" [attr.alt]="title">',
        "<img src={logo} />",
        "<img {...props} />",
        '<img src="a" alt="b',
        "<img src=\"a' alt='b'>",
        "img",
        "",
    ],
)
def test_a_tag_that_cannot_be_read_safely_is_refused(tag: str) -> None:
    with pytest.raises(OutputError, match=r"template|read safely|program|a start tag"):
        with_alt(tag, Kind.IMG, "A dog")


@pytest.mark.parametrize(
    ("tag", "kind", "alt", "after"),
    [
        ("<svg>", Kind.SVG, "Logo", '<svg role="img" aria-label="Logo">'),
        ('<svg role="img">', Kind.SVG, "Logo", '<svg role="img" aria-label="Logo">'),
        ("<svg viewBox='0 0 1 1'/>", Kind.SVG, "", "<svg viewBox='0 0 1 1' aria-hidden='true'/>"),
        ('<i role="img">', Kind.ROLE_IMG, "Star", '<i role="img" aria-label="Star">'),
        ("<object data=a>", Kind.OBJECT, "Map", '<object data=a aria-label="Map">'),
        ("<input type=image>", Kind.INPUT, "Go", '<input type=image alt="Go">'),
        ('<area href="b">', Kind.AREA, "North", '<area href="b" alt="North">'),
    ],
)
def test_every_element_has_its_own_way_to_be_named(
    tag: str, kind: Kind, alt: str, after: str
) -> None:
    assert with_alt(tag, kind, alt) == after


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ('<svg aria-labelledby="t">', Kind.SVG),
        ('<svg aria-hidden="true">', Kind.SVG),
        ("<div style='background: url(a)'>", Kind.CSS),
        ("<img>", Kind.ROW),
    ],
)
def test_what_is_named_elsewhere_or_not_at_all_is_refused(tag: str, kind: Kind) -> None:
    with pytest.raises(OutputError):
        with_alt(tag, kind, "Logo")


def test_text_is_escaped_for_its_quotes() -> None:
    alt = """Tom's "5 < 6" & <b> {{ x }} {% y %} café"""
    assert with_alt('<img src="a">', Kind.IMG, alt).endswith(
        """alt="Tom's &quot;5 &lt; 6&quot; &amp; &lt;b&gt; """
        """&#123;&#123; x &#125;&#125; &#123;% y %&#125; café">"""
    )
    assert "alt='Tom&#39;s \"5" in with_alt("<img src='a'>", Kind.IMG, alt)
    assert "caf&#233;" in with_alt("<img>", Kind.IMG, alt, ascii_only=True)
    assert with_alt("<img>", Kind.IMG, "a|b", in_markdown=True) == '<img alt="a&#124;b">'
    assert alt_in(with_alt("<img>", Kind.IMG, alt, ascii_only=True), Kind.IMG) == alt


@pytest.mark.parametrize(
    ("image", "after"),
    [
        ("![](a.png)", "![A *dog*](a.png)".replace("*", "\\*")),
        ('![cat [x] \\] `]` y](a.png "t")', '![A \\*dog\\*](a.png "t")'),
        ("![cat][ref]", "![A \\*dog\\*][ref]"),
        ("![cat][]", "![A \\*dog\\*][cat]"),
        ("![cat]", "![A \\*dog\\*][cat]"),
    ],
)
def test_markdown_keeps_what_its_image_refers_to(image: str, after: str) -> None:
    assert with_alt(image, Kind.MARKDOWN, "A *dog*") == after


def test_markdown_is_escaped() -> None:
    alt = r"[a](b) `c` <d> &amp; e_f | ~g~ \ {{ h }}"
    assert with_alt("![](x)", Kind.MARKDOWN, alt) == (
        r"![\[a\](b) &#96;c&#96; &lt;d> &amp;amp; e\_f &#124; &#126;g&#126; \\ "
        "&#123;&#123; h &#125;&#125;](x)"
    )


@pytest.mark.parametrize("image", ["![a(x)", "[a](x)", "![{{ title }}](x)"])
def test_markdown_that_cannot_be_read_safely_is_refused(image: str) -> None:
    with pytest.raises(OutputError):
        with_alt(image, Kind.MARKDOWN, "A dog")


def test_an_alt_is_one_line_that_a_file_can_carry() -> None:
    assert clean("two\r\n  lines\x00\x1b[1m \udcff\ufffe\u2028x") == "two lines[1m  x"


@pytest.mark.parametrize(
    ("html", "alt"),
    [
        ("<img src=a>", None),
        ("<img src=a alt>", ""),
        ("<img src=a alt='A  dog'>", "A  dog"),
        ("<svg aria-label='A  dog'></svg>", "A dog"),
        ("<svg><title>Dog</title></svg>", "Dog"),
        ("<svg aria-hidden=true></svg>", ""),
        ("<svg alt=Dog></svg>", None),
        ("<div role=img alt=Dog></div>", None),
        ("<object data=a alt=Dog></object>", None),
    ],
)
def test_the_current_alt(html: str, alt: str | None) -> None:
    [occurrence] = occurrences_in_html(html, page="a.html")[1]
    assert current_alt(occurrence) == alt
    assert alt is None or has_alt(occurrence, alt)
    assert not has_alt(occurrence, "Another")
