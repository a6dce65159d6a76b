"""What is written into source files of generators and template engines, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import markdown
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment
from justhtml import JustHTML

from cutline.site.model import Kind, Review, Verdict
from cutline.site.pages.alt_markup import with_alt
from cutline.site.pages.scan import occurrences_in_html, occurrences_in_markdown, scan
from cutline.site.store.store import Store
from cutline.site.writeback import apply as writeback

WHEN = "2030-01-01T00:00:00+00:00"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    return root


def written(root: Path, page: str, content: str | bytes, alt: str, **options: bool) -> list[str]:
    """Approve an alt for each image of a page, write them; the reasons for those refused."""
    path = root / page
    path.parent.mkdir(parents=True, exist_ok=True)
    before = content.encode() if isinstance(content, str) else content
    path.write_bytes(before)
    with Store(root.parent / "site.cutline") as store:
        for found, occurrences in scan(root):
            store.put_page(found, occurrences)
        for stored in store.occurrences(page=page):
            store.put_review(stored.id, Review(Verdict.EDITED, alt, "ann", WHEN))
        changes = writeback.plan(store, root, **options)
        writeback.apply(store, changes, journal=root.parent / "journal")
        reasons = [why for change in changes for _, why in change.refused]
        after = path.read_bytes()
        writeback.undo(store, root.parent / "journal")
        assert path.read_bytes() == before
    path.write_bytes(after)
    return reasons


def text(root: Path, page: str) -> str:
    return (root / page).read_bytes().decode()


@pytest.mark.parametrize(
    ("page", "code"),
    [
        ("a.html", "{%%\n  set y = '%s'\n%%}"),
        ("a.html", "{{ card(\n  '%s'\n) }}"),
        ("a.html", "{%% include 'x' with {\n a: \"%s\"} %%}"),
        ("a.html", "<?php\necho '%s';\n?>"),
        ("a.html", "<%%= render(\n '%s') %%>"),
        ("a.html", "{{#card\n title='%s'}}"),
        ("a.md", "{%% include x content='%s' %%}"),
        ("a.md", '{{< card "%s" >}}'),
        ("a.md", "{{< card\n  '%s' >}}"),
        ("a.mdx", "export const a = '%s'"),
    ],
)
@pytest.mark.parametrize("image", ["<img src=f.png>", "![](f.png)"])
def test_images_in_the_arguments_of_a_template_are_refused(
    root: Path, page: str, code: str, image: str
) -> None:
    if page == "a.html" and image.startswith("!"):
        return
    content = f"<p>x</p>\n\n{code % image}\n\nText\n"
    reasons = written(root, page, content, "A dog")
    assert text(root, page) == content
    assert set(reasons) <= {"it is within template code, which a quote could break"}
    assert reasons or page == "a.md" or "<?" in code, "an HTML parser may see no image there"


ALTS = [
    "Tea | Coffee",
    "About ~5 km",
    "Set {1 b}",
    "Room {#12}",
    "{{ name }} and {% if x %} {# y #}",
    "${x} <%= y %> <?php z ?>",
    r"C:\temp [1] *new* _x_ `code` \| x",
    "a < b & c > d &amp; &#65; &copy",
    "$5 and $6, 2^3, H~2~O, ~~old~~, ==mark==, ++ins++",
    "Time 12:30:45, :smile: @home #tag !x (y) 'z' \"q\"",
    "](x.png) ![a](b)",
    "http://example.org/ <http://example.org>",
    "trailing \\",
]


@pytest.mark.parametrize("alt", ALTS)
def test_alts_read_the_same_in_every_engine(alt: str) -> None:
    image = with_alt("![](a.png)", Kind.MARKDOWN, alt)
    tag = with_alt('<img src="a.png">', Kind.IMG, alt, in_markdown=True)
    for source in (image, tag):
        [occurrence] = occurrences_in_markdown(f"Text {source} more\n", page="a.md")[1]
        assert occurrence.alt == alt
        for extensions in ([], ["extra", "attr_list", "md_in_html", "tables"]):
            html = markdown.markdown(f"Text {source} more\n", extensions=extensions)
            [occurrence] = occurrences_in_html(html, page="http://a")[1]
            assert occurrence.alt == alt, extensions
        assert Environment(autoescape=False).from_string(source).render() == source
        assert "{" not in source.replace("{#", ""), "MDX would begin an expression"
    table = f"| a | b |\n|---|---|\n| {image} | {tag} |\n"
    html = markdown.markdown(table, extensions=["tables"])
    assert [occurrence.alt for occurrence in occurrences_in_html(html, page="http://a")[1]] == [
        alt,
        alt,
    ]
    assert [occurrence.alt for occurrence in occurrences_in_markdown(table, page="a.md")[1]] == [
        alt,
        alt,
    ]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab \\`*_[](){}#+-.!|~<>&;:$^=@'\"%/?\n é", max_size=16))
def test_any_alt_reads_the_same_in_python_markdown(alt: str) -> None:
    alt = " ".join(alt.split())
    image = with_alt("![](a.png)", Kind.MARKDOWN, alt)
    listed = with_alt('![c](a.png){ alt="x" }', Kind.MARKDOWN, alt)
    for source in (image, listed):
        html = markdown.markdown(f"Text {source} more", extensions=["attr_list", "tables"])
        [element] = JustHTML(html, sanitize=False).query("img")
        assert element.attrs["alt"] == alt


@pytest.mark.parametrize(
    ("page", "before", "after"),
    [
        ("a.md", '![c](a.png){fig-alt="x"}', '![c](a.png){fig-alt="A &#42;dog&#42;"}'),
        ("a.md", "![c](a.png){ alt='x' .y }", '![c](a.png){ alt="A &#42;dog&#42;" .y }'),
        ("a.md", "![c](a.png){: alt=x}", '![c](a.png){: alt="A &#42;dog&#42;"}'),
        ("a.md", "![c](a.png){.y}", r"![A \*dog\*](a.png){.y}"),
        ("a.qmd", "![c](a.png)", '![c](a.png){fig-alt="A &#42;dog&#42;"}'),
        ("a.qmd", "![](a.png){#fig-1}", '![](a.png){#fig-1 fig-alt="A &#42;dog&#42;"}'),
        ("a.qmd", "![c][r]\n\n[r]: a.png", '![c][r]{fig-alt="A &#42;dog&#42;"}\n\n[r]: a.png'),
        ("a.mdx", "![c](a.png)", r"![A \*dog\*](a.png)"),
    ],
)
def test_the_alt_is_written_where_the_format_has_it(
    root: Path, page: str, before: str, after: str
) -> None:
    assert written(root, page, f"Text\n\n{before}\n", "A *dog*", overwrite=True) == []
    assert text(root, page) == f"Text\n\n{after}\n"


@pytest.mark.parametrize(
    ("page", "content"),
    [
        ("a.md", '![]({{ site.baseurl }}/a.png) ![]({{ "/b.png" | relative_url }})'),
        ("a.md", '!!! note\n\n    ![](a.png)\n\n=== "Tab"\n\n    ![](b.png)\n'),
        ("a.md", '<figure markdown="span">\n  ![](a.png){ width="300" }\n</figure>\n![](b.png)'),
        ("a.html", "<my-card><template shadowrootmode=open><img src=a><img src=b></template>"),
        ("a.html", "<amp-img src=a width=1></amp-img><amp-anim src=b></amp-anim>"),
        ("a.html", "---\nx: <img src=no>\n---\n<img src=a>{# <img src=no> #}<img src=b>"),
    ],
)
def test_images_of_dialects_are_written(root: Path, page: str, content: str) -> None:
    assert written(root, page, content, "A dog") == []
    after = text(root, page)
    read = occurrences_in_markdown if page == "a.md" else occurrences_in_html
    assert [occurrence.alt for occurrence in read(after, page=page)[1]] == ["A dog", "A dog"]
    assert "no>" not in after or "<img src=no>" in after


@pytest.mark.parametrize(
    ("page", "content", "expected"),
    [
        (
            "a.xhtml",
            '<?xml version="1.0" encoding="iso-8859-1"?><p>é<img src="a"/></p>',
            "&#24859;",
        ),
        ("a.html", '<meta charset="shift_jis"><p>日<img src="a">', "&#24859;"),
        ("a.md", "Gr\u00fc\u00dfe ![](a.png) <img src=b>", "&#24859;"),
    ],
)
def test_characters_that_an_encoding_lacks_become_references(
    root: Path, page: str, content: str, expected: str
) -> None:
    encoding = "cp932" if "shift" in content else "latin-1"
    (root / "b.html").write_text("<img src=c>")
    assert written(root, page, content.encode(encoding), "愛") == []
    after = (root / page).read_bytes().decode(encoding)
    assert expected in after
    read = occurrences_in_markdown if page.endswith("md") else occurrences_in_html
    assert {occurrence.alt for occurrence in read(after, page=page)[1]} == {"愛"}


def test_the_reason_stays_true_after_our_own_write(root: Path) -> None:
    page = "<img src=a.png><img {{ attributes }} src=b.png>{{ card('<img src=c.png>') }}"
    (root / "a.html").write_text(page)
    with Store(root.parent / "site.cutline") as store:
        for found, occurrences in scan(root):
            store.put_page(found, occurrences)
        assert [each.occurrence.source for each in store.occurrences()] == [
            "a.png",
            "b.png",
            "c.png",
        ]
        for stored in store.occurrences():
            store.put_review(stored.id, Review(Verdict.EDITED, "A dog", "ann", WHEN))
        reasons = []
        for _ in range(2):
            changes = writeback.plan(store, root)
            reasons.append([why for change in changes for _, why in change.refused])
            writeback.apply(store, changes, journal=root.parent / "journal")
    assert reasons[0] == reasons[1]
    assert reasons[0] == [
        "template code is between its attributes, so it cannot be read safely",
        "it is within template code, which a quote could break",
    ]


def test_a_record_without_the_attribute_list_is_read_again(root: Path) -> None:
    (root / "a.md").write_text('![c](a.png){fig-alt="x"}\n')
    with Store(root.parent / "site.cutline") as store:
        [(found, [occurrence])] = scan(root)
        store.put_page(
            found, [replace(occurrence, markup="![c](a.png)", alt="c")]
        )  # as in version 0.1
        store.put_review(1, Review(Verdict.EDITED, "A dog", "ann", WHEN))
        changes = writeback.plan(store, root, overwrite=True)
        assert [change.edits for change in changes] == [()]
        assert len(changes[0].refused) == 1


def test_backticks_of_an_alt_do_not_end_a_code_span_before_the_image(root: Path) -> None:
    content = "` ---\n- x\n![](p.png)\n"
    assert written(root, "a.md", content, "a`b") == []
    html = markdown.markdown(text(root, "a.md"))
    [occurrence] = occurrences_in_html(html, page="http://a")[1]
    assert occurrence.alt == "a`b"


def test_an_alt_ends_no_comment_before_the_image(root: Path) -> None:
    content = "    <!--\n\n<div markdown>\n![](p.png)\n</div>\n"
    before = markdown.markdown(content, extensions=["extra"])
    assert written(root, "a.md", content, "a --> b") == []
    html = markdown.markdown(text(root, "a.md"), extensions=["extra"])
    assert html == before.replace('alt=""', 'alt="a --&gt; b"')


@pytest.mark.parametrize("alt", ["A cat", "Tea | Coffee"])
@pytest.mark.parametrize(
    "block", ["Text\n<figure>\n\nx </figure>", "Text\n\n<?php x ?>", "<code>\n<style>\n\n</style>"]
)
def test_character_references_behind_the_end_of_a_block_are_refused(
    root: Path, alt: str, block: str
) -> None:
    content = f"{block} and ![](p.png)\n"
    reasons = written(root, "a.md", content, alt)
    html = markdown.markdown(text(root, "a.md"), extensions=["extra"])
    assert "&#124;" not in html.replace("&amp;", "&")
    if alt == "A cat":
        assert not reasons
        assert 'alt="A cat"' in html
    else:
        assert [each for each in reasons if "end of a block is in front of it" in each]
        assert text(root, "a.md") == content


@pytest.mark.parametrize("code", ["{!! '%s' !!}", "@include('x', ['c' => '%s'])", "${ `%s` }"])
def test_images_that_are_strings_of_programs_are_refused(root: Path, code: str) -> None:
    content = f"<p>x</p>\n{code % '<img src=f.png>'}\n"
    reasons = written(root, "a.html", content, "A dog")
    assert text(root, "a.html") == content
    [reason] = reasons
    assert "template code" in reason or "string of program code" in reason


def test_attribute_lists_over_two_lines_are_written(root: Path) -> None:
    content = '> ![c](f.png){.x\n> alt="a \\"b\\""}\n'
    assert written(root, "a.qmd", content, 'A "dog"', overwrite=True) == []
    assert text(root, "a.qmd") == '> ![c](f.png){.x\n> alt="A &#34;dog&#34;"}\n'


@pytest.mark.parametrize(
    "template",
    [
        "{%% blocktrans %%}a %s b{%% endblocktrans %%}",
        "{%%- blocktranslate count n=x -%%}%s{%% plural %%}b{%%- endblocktranslate -%%}",
        "{%% trans with {'x': y} from 'app' %%}%s{%% endtrans %%}",
        "{%% filter trans %%}%s{%% endfilter %%}",
        "{{#t}}%s{{/t}}",
        "{translate}%s{/translate}",
        "<Trans>%s</Trans>",
    ],
)
@pytest.mark.parametrize("page", ["a.html", "a.md"])
def test_images_in_a_text_for_translation_are_refused(root: Path, page: str, template: str) -> None:
    image = "<img src=a.png>"
    content = f"<p>x</p>\n\n{template % image}\n\n{{% trans 'x' %}}<img src=b.png>{{# {{/t}} #}}\n"
    [reason] = written(root, page, content, "A dog")
    assert "a text for translation" in reason
    after = text(root, page)
    assert after.count("A dog") == 1
    assert template % image in after


@pytest.mark.parametrize("label", ["iso-8859-8-i", "x-user-defined", "utf-7", "nonsense"])
def test_a_label_that_is_not_utf_8_gives_references(root: Path, label: str) -> None:
    assert written(root, "a.html", f"<meta charset={label}><img src=a>", "愛") == []
    assert "&#24859;" in text(root, "a.html")


@pytest.mark.parametrize("encoding", ["latin-1", "shift_jis", "utf-16"])
def test_restructured_text_in_other_encodings(root: Path, encoding: str) -> None:
    content = "日" if encoding == "shift_jis" else "é"
    content = f"{content}\n\n.. image:: a.png\n"
    assert written(root, "a.rst", content.encode(encoding), "A dog") == []
    reasons = written(root, "a.rst", content.encode(encoding), "愛")
    if encoding == "utf-16":
        assert reasons == []
        assert (root / "a.rst").read_bytes().decode(encoding).endswith(":alt: 愛\n")
    else:
        assert ["not in UTF-8" in each for each in reasons] == [True]


@pytest.mark.parametrize(
    "attributes", ['{ title="alt=x" }', "{.x }", "{: .x\n}", '{ alt="b" }', '{.x alt="b" }']
)
def test_attribute_lists_with_white_space_are_undone(root: Path, attributes: str) -> None:
    assert written(root, "a.qmd", f"![c](f.png){attributes}\n", "A dog", overwrite=True) == []
    assert 'alt="A dog"' in text(root, "a.qmd")


def test_a_tab_at_the_end_of_the_line_makes_no_line_break(root: Path) -> None:
    reasons = {
        written(root, "a.md", f"{'x' * n} ![](a.png)\t\ny\n", "A")[:1] == [] for n in range(4)
    }
    assert reasons == {True, False}


def test_a_malformed_attribute_list_is_refused(root: Path) -> None:
    content = "![c](a.png){alt='it''s'}\n"
    assert len(written(root, "a.md", content, "A dog", overwrite=True)) == 1
    assert text(root, "a.md") == content


def test_an_image_below_an_empty_link_definition_is_refused(root: Path) -> None:
    content = "[x]:\n![a b](p.png)\n"
    assert len(written(root, "a.md", content, "(", overwrite=True)) == 1
    assert text(root, "a.md") == content
