"""Front matter and template code in source files."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutline.site.model import ImageOccurrence
from cutline.site.pages.scan import occurrences_in_html, occurrences_in_markdown
from cutline.site.pages.template_sources import resolve_source
from cutline.site.pages.templates import (
    Protected,
    SpanKind,
    front_matter_end,
    front_matter_field,
    template_spans,
)


def sources(text: str, page: str) -> list[str]:
    read = occurrences_in_html if page.endswith(".html") else occurrences_in_markdown
    _, occurrences = read(text, page=page)
    for occurrence in occurrences:
        assert (
            text[occurrence.offset : occurrence.offset + len(occurrence.markup)]
            == occurrence.markup
        )
    return [occurrence.source for occurrence in occurrences]


MATTERS = [
    "---\ntitle: A\nhero: '<img src=fm.png>'\n---\n",
    '---\ntitle: A\nx: "![](fm.png)"\n...\n',
    "---\r\ntitle: A\r\nx: <img src=fm.png>\r\n---\r\n",
    "---yaml\ntitle: A\nx: <img src=fm.png>\n---\n",
    "---\n# a comment\ntitle: A\nlist:\n  - ![](fm.png)\n---\n",
    "+++\ntitle = 'A'\nx = '<img src=fm.png>'\n+++\n",
    '{\n "title": "A",\n "x": {"y": "<img src=\'fm.png\'>"}\n}\n',
    ';;;\n"title": "A",\n"x": "<img src=fm.png>"\n;;;\n',
    '---json\n{"title": "A", "x": "![](fm.png)"}\n---\n',
    "\ufeff---\ntitle: A\nx: <img src=fm.png>\n---\n",
    "\n\n---\ntitle: A\nx: <img src=fm.png>\n---\n",
    "--- # a comment\ntitle: A\nx: ![](fm.png)\n---\n",
    "%YAML 1.2\n---\ntitle: A\nx: ![](fm.png)\n---\n",
    '{\n "title": "A",\n "x": "<img src=\'fm.png\'>",\n}\n',
    '{\n // a comment\n "x": "![](fm.png)"\n}\n',
]


@pytest.mark.parametrize("matter", MATTERS)
@pytest.mark.parametrize("page", ["a.html", "a.md", "a.mdx", "a.qmd"])
def test_front_matter_holds_no_images(matter: str, page: str) -> None:
    body = "\n<p><img src='body.png'></p>\n" if page == "a.html" else "\n![](body.png)\n"
    assert sources(matter + body, page) == ["body.png"]


@pytest.mark.parametrize("matter", MATTERS[:3] + MATTERS[5:7])
def test_its_title_is_the_pages(matter: str) -> None:
    assert occurrences_in_markdown(f"{matter}\n![](a.png)", page="a.md")[0].title == "A"
    assert front_matter_field(matter, "title") == "A"


@pytest.mark.parametrize(
    "text",
    [
        "---\n\n![](a.png)\n\n---\n",  # two thematic breaks
        "---\ntitle: never closed\n\n![](a.png)\n",
        "{ not JSON }\n\n![](a.png)\n",
        "Note: this is a sentence\n\n![](a.png)\n",
        "text\n\n---\ntitle: x\n---\n\n![](a.png)\n",
        "\n\n---\n\n![](a.png)\n\n---\n",
        "{\nset: ![](a.png)\n",
    ],
)
def test_what_only_looks_like_front_matter(text: str) -> None:
    assert front_matter_end(text, markdown=True) == 0
    assert "a.png" in sources(text, "a.md")


@pytest.mark.parametrize(
    "matter",
    [
        "---\nabstract: |\n  ![](no.png)\n...\n",  # Pandoc
        "---\nlayout: image\nimage: '![](no.png)'\n---\n",  # Slidev
        "---\ntitle: x\n\nabstract: |\n  a\n\n  ![](no.png)\nauthors:\n- a\n---\n",
        "---\r\ntitle: x\r\n# ![](no.png)\r\n...\r\n",
        '---\n"x y": "<img src=no.png>"\n--- \n',
    ],
)
def test_metadata_anywhere_in_a_page_holds_no_images(matter: str) -> None:
    assert sources(f"# Title\n\n{matter}\n![](own.png)\n\n{matter}", "a.md") == ["own.png"]


@pytest.mark.parametrize(
    "text",
    [
        "---\nFigure: ![](a.png)\n---\n",
        "---\nSteps:\n- ![](a.png)\n- x\n---\n",
        "---\n\nx: y ![](a.png)\n\n---\n",
        "---\nNote: x\n\n![](a.png)\n\n---\n",
        "---\nhttps://example.org/![](a.png)\n---\n",
        "Text\n---\nx: y ![](a.png)\n---\n",
        "---\nx: y ![](a.png)\n",
    ],
)
def test_lines_between_thematic_breaks_are_content(text: str) -> None:
    assert sources(f"# Title\n\n{text}", "a.md") == ["a.png"]


@pytest.mark.parametrize("key", ["? x\n:", "&a x:", "<<: *a\nx:", "$x:", "@x:", "标题:"])
def test_front_matter_may_begin_with_any_key(key: str) -> None:
    assert sources(f"---\n{key} ![](no.png)\n---\n![](a.png)\n", "a.md") == ["a.png"]


def test_metadata_without_a_mark_in_front() -> None:
    text = "title: A\nteaser: ![](fm.png)\n\n![](body.png)\n"
    assert sources(text, "a.md") == ["body.png"]
    assert sources("% A ![](fm.png)\n% Ann\n\n![](body.png)\n", "a.md") == ["body.png"]


@pytest.mark.parametrize(
    "code",
    [
        "{# %s #}",
        "{#- old\n%s\n-#}",
        "{%% comment %%}%s{%% endcomment %%}",
        "{%%- comment -%%}\n%s\n{%%- endcomment -%%}",
        '{%% comment "a note" %%}%s{%% endcomment %%}',
        "{%% highlight html linenos=table %%}\n%s\n{%% endhighlight %%}",
        "{%% raw %%}%s{%% endraw %%}",
        "{%% verbatim name %%}%s{%% endverbatim name %%}",
        "{%% codeblock lang:html %%}\n%s\n{%% endcodeblock %%}",
        "{{< highlight html >}}\n%s\n{{< /highlight >}}",
        '{{%% code file="x" %%}}\n%s\n{{%% /code %%}}',
        "{{/* %s */}}",
        "{{- /* %s */ -}}",
        "{{</* card `%s` */>}}",
        "{{!-- %s --}}",
        "{{! %s }}",
        "{{-- %s --}}",
        "{{{{raw}}}}%s{{{{/raw}}}}",
        "<%%-- %s --%%>",
        "<%%# %s %%>",
        "<#-- %s -->",
        "<%%!-- %s --%%>",
        "{::comment}\n%s\n{:/comment}",
        "{::comment}\n%s\n{:/}",
        "{{< code-toggle file=x >}}\n%s\n{{< /code-toggle >}}",
        "{{< code/toggle >}}\n%s\n{{< /code/toggle >}}",
        "{%% mermaid %%}\n%s\n{%% endmermaid %%}",
        "{{~!-- %s --~}}",
        "{{!-- %s --~}}",
        "{{< snippet >}}%s{{< /snippet >}}",
        "{%% terminal %%}%s{%% endterminal %%}",
    ],
)
@pytest.mark.parametrize("image", ["<img src='code.png'>", "![](code.png)"])
@pytest.mark.parametrize("page", ["a.html", "a.md"])
def test_comments_and_code_samples_hold_no_images(code: str, image: str, page: str) -> None:
    own = "<img src=own.png>" if page == "a.html" else "![](own.png)"
    assert sources(f"<p>x</p>\n\n{code % image}\n\n{own}\n", page) == ["own.png"]


@pytest.mark.parametrize(
    ("page", "code"),
    [
        ("a.html", "{* %s *}"),
        ("a.html", "@* %s *@"),
        ("a.html", "#* %s *#"),
        ("a.md", "{/* %s */}"),
        ("a.md", ":::{code-block} html\n%s\n:::"),
        ("a.md", "\\begin{verbatim}\n%s\n\\end{verbatim}"),
        ("a.md", "\\begin{lstlisting}[language=HTML]\n%s\n\\end{lstlisting}"),
        ("a.md", "[comment]: <> (%s)"),
        ("a.md", "%%%%\n%s\n%%%%"),
        ("a.md", "%%%% %s %%%%"),
    ],
)
def test_comments_and_code_samples_of_one_format(page: str, code: str) -> None:
    image = "<img src='code.png'>"
    own = "<img src=own.png>" if page == "a.html" else "![](own.png)"
    assert sources(f"<p>x</p>\n\n{code % image}\n\n{own}\n", page) == ["own.png"]


def test_mdx_has_comments_imports_and_content_in_elements() -> None:
    text = (
        "import a from './a.png'\nexport const b = <img src='b.png' />\n\n"
        "{/* ![](no.png) */}\n\n<Tabs>\n<TabItem>\n![](yes.png)\n</TabItem>\n"
        "    ![](indented.png)\n</Tabs>\n\n<img src={require('./c.png').default} />\n"
    )
    assert sources(text, "a.mdx") == [
        "b.png",  # seen, and refused when written
        "yes.png",
        "indented.png",
        "{require('./c.png').default}",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "`{% raw %}` ![](a.png) `{% endraw %}`",
        "```\n{{< highlight >}}\n```\n\n![](a.png)\n\n```\n{{< /highlight >}}\n```\n",
        "## Heading {#an-id}\n\n![](a.png)\n\nSee {#other} #}\n",
        "{% raw %} is never closed\n\n![](a.png)\n",
        "{# is never closed\n\n![](a.png)\n",
        "100 {% and {{ more\n\n![](a.png)\n",
        "{*emphasis*} @*x *@ #* y *#\n\n![](a.png)\n",
        "100 %% of\n\n![](a.png)\n\n50 %% of\n",
        "{{< code-toggle >}}\n\n![](a.png)\n",
        ":::{note}\n![](a.png)\n:::\n",
    ],
)
def test_what_is_no_comment_or_sample(text: str) -> None:
    assert sources(text, "a.md") == ["a.png"]


def test_a_page_from_a_server_is_no_template() -> None:
    html = "---\nx: <img src=1>\n---\n{# <img src=2> #}{% raw %}<img src=3>{% endraw %}"
    _, occurrences = occurrences_in_html(html, page="https://example.org/")
    assert [occurrence.source for occurrence in occurrences] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("code", "source"),
    [
        ("![]({{ site.baseurl }}/a.png)", "{{ site.baseurl }}/a.png"),
        ('![]({{ "/a.png" | relative_url }})', '{{ "/a.png" | relative_url }}'),
        ("![]({% link img/a.png %})", "{% link img/a.png %}"),
        ("![x y]({{ a }}{{ b }}.png 'title')", "{{ a }}{{ b }}.png"),
        ("![][r]\n\n[r]: {{ site.url }}/a.png", "{{ site.url }}/a.png"),
        ('<img src="{{ url("a b", 1 > 0) }}">', '{{ url("a b", 1 > 0) }}'),
        ("<img <%= attributes %> src='a.png'>", "a.png"),
        ("<img {% if a > b %}class='x'{% endif %} src='a.png'>", "a.png"),
        ("<img style={{ width: '1px' }} src='a.png' />", "a.png"),
    ],
)
def test_template_code_in_markup_is_read_over(code: str, source: str) -> None:
    if "<img <%" in code or "<img {%" in code:  # no tag in Markdown
        page, occurrences = occurrences_in_markdown(f"Text {code}\n", page="a.md")
        assert (occurrences, page.unread) == ([], (("JSX or template tag", 1),))
    else:
        assert sources(f"Text {code}\n", "a.md") == [source]
    if code.startswith("<img") and "style=" not in code:
        assert sources(f"<p>Text {code}</p>", "a.html") == [source]


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("a.png", "a.png"),
        ("{{ site.baseurl }}/a.png", "/a.png"),
        ("{{site.url}}{{site.baseurl}}/a.png", "/a.png"),
        ('{{ "a.png" | relative_url }}', "/a.png"),
        ("{{ 'img/a.png' | absolute_url }}", "/img/a.png"),
        ("{% link img/a.png %}", "/img/a.png"),
        ("{% static 'img/a.png' %}", "/static/img/a.png"),
        ("{{ url_for('static', filename='a.png') }}", "/static/a.png"),
        ("{require('./a.png').default}", "./a.png"),
        ("@site/static/a.png", "/static/a.png"),
        ("{{ page.image }}", "{{ page.image }}"),
        ("{{ site.baseurl }}", "{{ site.baseurl }}"),
    ],
)
def test_sources_that_are_plain_to_see_are_resolved(source: str, path: str) -> None:
    assert resolve_source(source) == path


PIECES = st.sampled_from(
    """{{ }} {% %} {# #} <% %> <? ?> ``` ` ~~~ --- +++ {{< >}} {%raw%} {%endraw%} <img src=a> ![](a)
    {{/* */}} {{! x \ufeff { } " ' <script> </script> \U000f0000 import =""".split()
) | st.sampled_from(["\n", "\r\n", "\n\n", " "])


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join), st.booleans())
def test_spans_are_apart_and_protecting_keeps_places(text: str, mdx: bool) -> None:
    spans = template_spans(text, markdown=True, mdx=mdx)
    assert all(one.end <= other.start for one, other in itertools.pairwise(spans))
    assert all(span.start < span.end for span in spans)
    protected = Protected(text, spans)
    assert len(protected.text) == len(text)
    for at, letter in enumerate(text):
        if letter in "\r\n":
            assert protected.text[at] == letter
    for span in spans:
        if span.kind is SpanKind.CODE and "\n" not in text[span.start : span.end]:
            part = text[span.start : span.end]
            assert part in protected.restore(protected.text[span.start : span.end]) or len(part) < 4


@pytest.mark.parametrize(
    "piece",
    [
        "`",
        "---\na: b\n\n",
        "{{",
        "{%",
        "{% raw %}",
        "<script",
        "<?",
        "```\n",
        "{#",
        "{{<",
        "{{!--",
        "{{ a }}",
        "<%",
    ],
)
def test_time_grows_with_length_alone(piece: str) -> None:
    text = piece * (300_000 // len(piece))
    start = time.process_time()
    Protected(text, template_spans(text, markdown=True, mdx=True))
    assert time.process_time() - start < 10


@pytest.mark.parametrize("piece", ["{{ a }}", "{{#t}}", "{% trans %}", "x{{ a }} *y* "])
def test_a_long_paragraph_of_code_takes_linear_time(piece: str) -> None:
    took = []
    for size in (30_000, 240_000):
        start = time.process_time()
        occurrences_in_markdown(piece * (size // len(piece)), page="a.md")
        took.append(time.process_time() - start)
    assert took[1] < 8 * 3 * max(took[0], 0.02)


def only(occurrences: list[ImageOccurrence]) -> ImageOccurrence:
    [occurrence] = occurrences
    return occurrence


@pytest.mark.parametrize(
    ("text", "alt", "markup"),
    [
        ('![c](a.png){fig-alt="A dog" width=50%}', "A dog", None),
        ("![c](a.png){: alt='A dog' }", "A dog", None),
        ('![c](a.png){ .x alt="A &amp; B" }', "A & B", None),
        ('![](a.png){alt=""}', "", None),
        ('![c](a.png){:alt="A dog"}', "A dog", None),
        (r'![c](a.png){alt="A \"big\" dog"}', 'A "big" dog', None),
        ('![c](a.png){.x\n  alt="A dog"}', "A dog", None),
        ('![c](a.png){fig.align="center"}', "c", None),
        ('![c](a.png){ width="300" }', "c", None),
        ("![](a.png){ loading=lazy }", None, None),
        ("![c](a.png){.center}", "c", None),
        ('![c][r]{title="alt=x"}\n\n[r]: a.png', "c", '![c][r]{title="alt=x"}'),
        ("![c](a.png){not a list}", "c", "![c](a.png)"),
        ("![c](a.png) {alt=x}", "c", "![c](a.png)"),
        ('![c](a.png){:.x}{: alt="A dog"}', "A dog", None),
    ],
)
def test_attribute_lists_behind_images(text: str, alt: str | None, markup: str | None) -> None:
    occurrence = only(occurrences_in_markdown(text, page="a.md")[1])
    assert occurrence.alt == alt
    assert occurrence.markup == (text if markup is None else markup)
    assert (occurrence.before, occurrence.after.startswith("{")) == ("", markup == "![c](a.png)")


@pytest.mark.parametrize("comments", ["", "# c\n", "# c\n# d\n", "# c\r\n"])
def test_metadata_in_the_middle_may_begin_with_comments(comments: str) -> None:
    block = f"---\n{comments}title: x\n---"
    (span,) = template_spans(f"a\n\n{block}\n\nb\n", markdown=True)
    assert (span.start, span.end) == (3, 3 + len(block))
    assert not template_spans("a\n\n---\n# Slide\n\n![a](b.png)\n\n---\n", markdown=True)
