"""The block editor opens posts that Cutline wrote, and finds nothing wrong with their blocks."""

from __future__ import annotations

import browser
import pytest
from playwright.sync_api import Page
from real_wordpress import RealWordPress

from cutline.site.destination import AltChange

pytestmark = [pytest.mark.wordpress, pytest.mark.racy]
ALT = 'A "b" & <c> [gallery] 50%ab \\ -- it’s {x} $1 `~| Ünï 😀'
BLOCKS = ["one-image", "gallery", "old-gallery", "cover", "media-text", "nested"]
_STATE = """() => {
    const blocks = [];
    const walk = (list) => list.forEach((block) => {
        blocks.push({name: block.name, valid: block.isValid, ...block.attributes});
        walk(block.innerBlocks);
    });
    walk(wp.data.select('core/block-editor').getBlocks());
    return blocks;
}"""


def _log_in(page: Page, wordpress: RealWordPress) -> None:
    page.goto(wordpress.facts["login"])
    page.fill("#user_login", "admin")
    page.fill("#user_pass", "admin")
    page.click("#wp-submit")
    page.wait_for_url("**/wp-admin/**")


def test_block_editor_opens_written_posts(wordpress: RealWordPress) -> None:
    site = wordpress.site()
    for name in BLOCKS:
        post = site.open(wordpress.page(name))
        occurrences = post.occurrences  # type: ignore[attr-defined]
        edits = post.edits([AltChange(n, each, ALT) for n, each in enumerate(occurrences)])
        post.write(edits, lambda sha256: None)
    with browser.chromium() as chromium, chromium.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        _log_in(page, wordpress)
        for name in BLOCKS:
            page.goto(f"{wordpress.url}wp-admin/post.php?post={wordpress.posts[name]}&action=edit")
            page.wait_for_function(
                "window.wp?.data?.select('core/block-editor')?.getBlocks()?.length > 0"
            )
            blocks = page.evaluate(_STATE)
            assert [each["name"] for each in blocks if not each["valid"]] == [], name
            alts = [each.get("alt") or each.get("mediaAlt") for each in blocks]
            nested = [image["alt"] for each in blocks for image in each.get("images") or ()]
            found = [*(alt for alt in alts if alt), *nested]
            assert set(found) == {ALT}, name
            assert page.locator("text=unexpected or invalid content").count() == 0
            assert page.locator(".block-editor-warning").count() == 0
