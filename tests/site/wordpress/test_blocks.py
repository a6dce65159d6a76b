from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutline.site.wordpress.blocks import block_at, encode_string, parse_blocks, with_string

NESTED = (
    "<p>classic</p>\n"
    '<!-- wp:cover {"url":"a.jpg","id":3,"style":{"alt":"no"}} -->\n<div>'
    '<!-- wp:paragraph -->\n<p>Text</p>\n<!-- /wp:paragraph --><img src="a.jpg"></div>\n'
    "<!-- /wp:cover -->\n"
    '<!-- wp:acme/slide {"n":1} /-->'
)


def test_blocks_nest_and_name_their_attributes() -> None:
    blocks = parse_blocks(NESTED)
    assert [(block.name, block.parent.name if block.parent else "") for block in blocks] == [
        ("core/cover", ""),
        ("core/paragraph", "core/cover"),
        ("acme/slide", ""),
    ]
    cover, paragraph, slide = blocks
    assert cover.attributes["id"] == 3
    assert NESTED[cover.start : cover.end].endswith("<!-- /wp:cover -->")
    assert NESTED[slide.start : slide.end] == '<!-- wp:acme/slide {"n":1} /-->'
    assert block_at(blocks, NESTED.index("<p>Text")) is paragraph
    assert block_at(blocks, NESTED.index("<img")) is cover
    assert block_at(blocks, 2) is None
    assert list(paragraph.ancestors()) == [paragraph, cover]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("", []),
        ("<!-- wp:group --><p>", ["core/group"]),
        ("<!-- /wp:group --><!-- wp:image /-->", ["core/image"]),
        ("<!-- wp:group --><!-- wp:image --><!-- /wp:group -->", ["core/group", "core/image"]),
        ('<!-- wp:image {"a":"} -->"} /-->', ["core/image"]),
        ("<!-- wp:image {damaged} /-->", ["core/image"]),
        ("<!-- wp:Image /--><!--wp:image /--><!-- more -->", []),
    ],
)
def test_odd_comments(content: str, names: list[str]) -> None:
    blocks = parse_blocks(content)
    assert [block.name for block in blocks] == names
    assert all(0 <= block.start < block.end <= len(content) for block in blocks)


def _set(content: str, key: str, value: str) -> str:
    span = with_string(content, parse_blocks(content)[0], key, value)
    return content[: span.start] + span.text + content[span.end :]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<!-- wp:cover {"alt":"old","id":3} /-->', '<!-- wp:cover {"alt":"new","id":3} /-->'),
        ('<!-- wp:cover {"id":3} /-->', '<!-- wp:cover {"id":3,"alt":"new"} /-->'),
        ('<!-- wp:cover { "id" : 1e2 } /-->', '<!-- wp:cover { "id" : 1e2,"alt":"new" } /-->'),
        ("<!-- wp:cover {} /-->", '<!-- wp:cover {"alt":"new"} /-->'),
        ("<!-- wp:cover /-->", '<!-- wp:cover {"alt":"new"} /-->'),
        (
            '<!-- wp:cover {"x":{"alt":"a"},"al\\u0074":"b","y":["alt","}"]} /-->',
            '<!-- wp:cover {"x":{"alt":"a"},"al\\u0074":"new","y":["alt","}"]} /-->',
        ),
    ],
)
def test_one_string_is_set_and_all_else_keeps_its_bytes(before: str, after: str) -> None:
    assert _set(before, "alt", "new") == after


@pytest.mark.parametrize(
    "content",
    [
        '<!-- wp:cover {"alt":3} /-->',
        '<!-- wp:cover {"alt":"a","alt":"b"} /-->',
        "<!-- wp:cover {damaged} /-->",
    ],
)
def test_attributes_that_cannot_be_edited_safely(content: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        _set(content, "alt", "new")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_and_cannot_end_the_comment(value: str) -> None:
    content = _set('<!-- wp:cover {"id":3,"alt":"old","n":1} -->x<!-- /wp:cover -->', "alt", value)
    [block] = parse_blocks(content)
    assert block.attributes == {"id": 3, "alt": value, "n": 1}
    assert content.endswith("-->x<!-- /wp:cover -->")
    written = encode_string(value)
    assert json.loads(written) == value
    assert not set(written) & set("<>&[]")
    assert "--" not in written
