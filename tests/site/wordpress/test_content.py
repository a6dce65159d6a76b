"""Content that Debian's WordPress does not have: newer blocks, patterns, plugins, page builders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cutline.errors import OutputError
from cutline.site.destination import AltChange, edited
from cutline.site.wordpress.content import PostContent, only_alts_differ, page_builder

# As WordPress 6.8 registers them; without "source" an attribute is kept in the comment.
SCHEMAS: dict[str, dict[str, Any]] = {
    "core/cover": {"alt": {"type": "string", "default": ""}, "url": {"type": "string"}},
    "core/image": {"alt": {"type": "string", "source": "attribute", "selector": "img"}},
    "core/media-text": {"mediaAlt": {"type": "string", "source": "attribute"}},
    "acme/photo": {"alt": {"type": "string", "source": "attribute"}, "id": {"type": "number"}},
    "acme/banner": {"imageAlt": {"type": "string"}, "imageUrl": {"type": "string"}},
    "acme/pair": {"altLeft": {"type": "string"}, "altRight": {"type": "string"}},
    "acme/frame": {"width": {"type": "number"}},
}
OLD_COVER = {"core/cover": {"alt": {"type": "string", "source": "attribute", "selector": "img"}}}


def content(raw: str, **more: Any) -> PostContent:
    values = {"rendered": raw, "url": "https://example.org/?p=1", "link": "https://example.org/a/"}
    return PostContent(raw, **{**values, **more})


def write(post: PostContent, *alts: str, schemas: Mapping[str, dict[str, Any]] = SCHEMAS) -> str:
    """The content with these alts, in the order of its images."""
    _, occurrences = post.read()
    assert len(occurrences) == len(alts)
    changes = [AltChange(n, each, alts[n]) for n, each in enumerate(occurrences)]
    edits = post.edits(changes, schemas.get)
    for edit in edits:
        assert only_alts_differ(edit.before.decode(), edit.after.decode())
    written = edited(post.raw.encode(), edits).decode()
    after = PostContent(written, written, post.url, post.link, is_pattern=post.is_pattern)
    assert [each.alt or each.name for each in after.read()[1]] == list(alts)
    return written


def cover(json: str, alt: str = "") -> str:
    return (
        f'<!-- wp:cover {{"url":"https://example.org/a.jpg","id":7{json},"dimRatio":50}} -->\n'
        '<div class="wp-block-cover"><img class="wp-block-cover__image-background wp-image-7" '
        f'alt="{alt}" src="https://example.org/a.jpg" data-object-fit="cover"/>'
        '<span aria-hidden="true" class="wp-block-cover__background has-background-dim"></span>'
        '<div class="wp-block-cover__inner-container"><!-- wp:paragraph -->\n<p>Tea &amp; it’s</p>'
        "\n<!-- /wp:paragraph --></div></div>\n<!-- /wp:cover -->"
    )


def test_cover_changes_in_the_comment_and_in_the_tag() -> None:
    old = cover(',"alt":"Old"', "Old")
    assert write(content(old), "New") == cover(',"alt":"New"', "New")


def test_cover_without_alt_gets_one_where_the_version_keeps_it_in_the_comment() -> None:
    new = write(content(cover("")), "New")
    assert '"dimRatio":50,"alt":"New"} -->' in new
    assert 'alt="New"' in new
    assert write(content(cover("")), "New", schemas=OLD_COVER) == cover("", "New")
    assert write(content(cover("")), "New", schemas={}) == cover("", "New")


def test_quotes_and_brackets_in_both_places() -> None:
    written = write(content(cover(',"alt":"Old"', "Old")), 'a "b" --> [gallery] <c> é\\')
    quoted = '"alt":"a \\u0022b\\u0022 \\u002d\\u002d\\u003e '
    assert quoted + '\\u005bgallery\\u005d \\u003cc\\u003e é\\u005c"' in written
    assert 'alt="a &quot;b&quot; --&gt; &#91;gallery&#93; &lt;c&gt; é&#92;"' in written


def test_images_inside_a_cover_do_not_change_the_cover() -> None:
    inner = (
        '<!-- wp:image {"id":9} --><figure><img src="/b.jpg" alt=""/></figure><!-- /wp:image -->'
    )
    raw = cover(',"alt":"Old"', "Old").replace(
        "<!-- wp:paragraph -->", inner + "<!-- wp:paragraph -->"
    )
    written = write(content(raw), "Outer", "Inner")
    assert '"alt":"Outer"' in written
    assert '<!-- wp:image {"id":9} -->' in written


@pytest.mark.parametrize("key", ["hasParallax", "isRepeated"])
def test_fixed_and_repeated_covers(key: str) -> None:
    def background(json: str, name: str) -> str:
        return (
            f'<!-- wp:cover {{"url":"/a.jpg","{key}":true{json}}} --><div class="wp-block-cover">'
            f'<div {name}class="wp-block-cover__image-background wp-image-7" '
            'style="background-image:url(/a.jpg)"></div></div><!-- /wp:cover -->'
        )

    named = content(background(',"alt":"Old"', 'role="img" aria-label="Old" '))
    expected = background(',"alt":"New"', 'role="img" aria-label="New" ')
    assert write(named, "New") == expected
    with pytest.raises(OutputError, match="cover; set its alt in the editor"):
        write(named, "")
    for name in ('role="img" ', ""):
        page, occurrences = content(background("", name)).read()
        assert occurrences == []
        assert page.unread == (("fixed or repeated cover, whose alt is set in the editor", 1),)


def test_cover_with_the_featured_image_is_reported() -> None:
    raw = '<!-- wp:cover {"useFeaturedImage":true,"dimRatio":50} --><div></div><!-- /wp:cover -->'
    page, occurrences = content(raw).read()
    assert (len(page.unread), occurrences) == (1, [])


IMAGE = (
    '<!-- wp:image {"id":3,"metadata":{"bindings":{%s},"name":"Photo"}} -->\n<figure>'
    '<img src="/a.jpg" alt="Old"/></figure>\n<!-- /wp:image -->'
)


@pytest.mark.parametrize(
    "bindings",
    [
        '"alt":{"source":"core/post-meta","args":{"key":"x"}}',
        '"alt":{"source":"acme/fields"}',
        '"__default":{"source":"core/pattern-overrides"}',
        '"alt":"damaged"',
    ],
)
def test_bound_alts_are_refused(bindings: str) -> None:
    with pytest.raises(OutputError, match="its alt is bound to"):
        write(content(IMAGE % bindings), "New")


def test_other_bindings_and_the_alt_of_a_pattern_itself_are_written() -> None:
    url = IMAGE % '"url":{"source":"core/post-meta"}'
    assert write(content(url), "New") == url.replace("Old", "New")
    default = IMAGE % '"__default":{"source":"core/pattern-overrides"}'
    assert write(content(default, is_pattern=True), "New") == default.replace("Old", "New")


def test_overrides_of_a_pattern_are_reported() -> None:
    raw = '<!-- wp:block {"ref":5,"content":{"Photo":{"alt":"x"},"Text":{"content":"y"}}} /-->'
    page, occurrences = content(raw).read()
    assert page.unread == (("image in the overrides of a synced pattern", 1),)
    assert occurrences == []


def test_galleries_of_all_ages() -> None:
    nested = (
        '<!-- wp:gallery {"linkTo":"none"} --><figure class="wp-block-gallery has-nested-images">'
        '<!-- wp:image {"id":1} --><figure><img src="/1.jpg" alt=""/></figure><!-- /wp:image -->'
        '<!-- wp:image {"id":2} --><figure><img src="/2.jpg" alt=""/></figure><!-- /wp:image -->'
        "</figure><!-- /wp:gallery -->"
    )
    listed = (
        '<!-- wp:gallery {"ids":[1,2]} --><ul class="w"><li><img src="/1.jpg" alt="" '
        'data-id="1"/></li><li><img src="/2.jpg" alt="" data-id="2"/></li></ul><!-- /wp:gallery -->'
    )
    for raw in (nested, listed):
        written = write(content(raw), "One", "Two")
        assert written == raw.replace('alt=""', 'alt="One"', 1).replace('alt=""', 'alt="Two"')


def test_media_text_with_filled_image_has_one_occurrence() -> None:
    raw = (
        '<!-- wp:media-text {"mediaId":3,"imageFill":true} --><div class="wp-block-media-text">'
        '<figure class="wp-block-media-text__media" style="background-image:url(/a.jpg)">'
        '<img src="/a.jpg" alt="" class="wp-image-3"/></figure></div><!-- /wp:media-text -->'
    )
    assert write(content(raw), "New") == raw.replace('alt=""', 'alt="New"')


def block(name: str, json: str, tag: str) -> str:
    return f"<!-- wp:{name} {json} --><figure>{tag}</figure><!-- /wp:{name} -->"


def test_blocks_of_plugins_whose_alt_is_known() -> None:
    html = block("acme/photo", '{"id":3}', '<img src="/a.jpg" alt="Old">')
    assert write(content(html), "New") == html.replace("Old", "New")
    both = block("acme/banner", '{"imageAlt":"Old","x":1}', '<img src="/a.jpg" alt="Old">')
    assert write(content(both), "New") == both.replace("Old", "New")
    unregistered = block("other/one", '{"alt":"Old"}', '<img src="/a.jpg" alt="Old">')
    assert write(content(unregistered), "New") == unregistered.replace("Old", "New")


@pytest.mark.parametrize(
    "raw",
    [
        block("acme/frame", '{"width":3}', '<img src="/a.jpg" alt="Old">'),
        block("acme/pair", '{"altLeft":"Old","altRight":"x"}', '<img src="/a.jpg" alt="Old">'),
        block("acme/banner", '{"imageAlt":"Other"}', '<img src="/a.jpg" alt="Old">'),
        block("other/one", '{"id":3}', '<img src="/a.jpg" alt="Old">'),
        block("other/one", '{"alt":["Old"]}', '<img src="/a.jpg" alt="Old">'),
    ],
)
def test_blocks_of_plugins_that_may_keep_the_alt_elsewhere(raw: str) -> None:
    with pytest.raises(OutputError, match="belongs to a plugin"):
        write(content(raw), "New")


def test_two_images_of_one_block_with_one_alt_are_refused() -> None:
    tags = '<img src="/a.jpg" alt="Old"><img src="/b.jpg" alt="Old">'
    with pytest.raises(OutputError, match="has several images"):
        write(content(block("acme/banner", '{"imageAlt":"Old"}', tags)), "New", "Newer")


def test_classic_content_and_shortcodes() -> None:
    raw = (
        'First line\n\n[caption id="attachment_3"]<a href=\'x\'><img class="wp-image-3" '
        'src="/a.jpg" alt="" width="300" /></a> A caption[/caption]\n\n'
        '<img src=/b.jpg>\n[gallery ids="1,2"] [[gallery]]'
    )
    post = content(raw)
    assert post.read()[0].unread == (
        ("gallery shortcode, which shows the alts of the media library", 1),
    )
    written = write(post, "One", "Two [x]")
    assert written == raw.replace('alt=""', 'alt="One"').replace(
        "<img src=/b.jpg>", '<img src=/b.jpg alt="Two &#91;x&#93;">'
    )


def test_relative_urls_are_relative_to_the_permalink() -> None:
    _, [found] = content('<img src="img/a.jpg">').read()
    assert found.url == "https://example.org/a/img/a.jpg"


@pytest.mark.parametrize(
    ("raw", "rendered", "name"),
    [
        ("<h2>x</h2>", '<div data-elementor-type="wp-page"><img src="/a.jpg"></div>', "Elementor"),
        ("[et_pb_section][et_pb_image src='/a.jpg' /][/et_pb_section]", "", "Divi"),
        ('<!-- wp:divi/section --><img src="/a.jpg"><!-- /wp:divi/section -->', "", "Divi"),
        ("[vc_row][vc_single_image image=3][/vc_row]", "", "WPBakery Page Builder"),
        ("", '<div class="fl-builder-content"><img src="/a.jpg"></div>', "Beaver Builder"),
        ("[fusion_builder_container][fusion_imageframe]/a.jpg[/fusion_imageframe]", "", "Avada"),
    ],
)
def test_posts_of_page_builders_are_reported(raw: str, rendered: str, name: str) -> None:
    assert page_builder(raw, rendered).startswith(name)
    page, occurrences = content(raw, rendered=rendered).read()
    assert occurrences == []
    [(what, count)] = page.unread
    assert name in what
    assert count == 1


def test_words_about_page_builders_are_no_page_builder() -> None:
    raw = "<p>We left Elementor and Divi (et_pb_section) for blocks.</p><img src='/a.jpg'>"
    assert page_builder(raw, raw) == ""
    assert len(content(raw).read()[1]) == 1


def test_data_of_dynamic_blocks_is_reported() -> None:
    raw = '<!-- wp:acf/hero {"data":{"image":12}} /--><!-- wp:acme/map {"zoom":3} /-->'
    assert content(raw).read()[0].unread == (("image in the data of a block (acf/hero)", 1),)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<img src="/a.jpg" alt="x">', '<img src="/b.jpg" alt="x">'),
        ('{"alt":"x","url":"/a"}', '{"alt":"x","url":"/b"}'),
        ('{"alt":"x"}', '{"alt":{"x":1}}'),
        ("<p>", "<script>"),
        ("", '{"url":"x"}'),
        ('{"alt":"x"}', "damaged"),
    ],
)
def test_forged_edits_change_more_than_alts(before: str, after: str) -> None:
    assert not only_alts_differ(before, after)
