"""The whole path against Debian's WordPress: read, draft, review, write, read back, undo."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import command_line
import httpx
import pytest
import standin
from real_wordpress import RealWordPress

from cutline import site
from cutline.errors import FetchError, OptionError, OutputError
from cutline.site.destination import AltChange, ChangedByStoreError, Edit, inverted
from cutline.site.store.store import Store
from cutline.site.wordpress.library import sanitized

pytestmark = pytest.mark.wordpress
ALT = 'A "b" & <c> [gallery] 50%ab \\ -- it’s {x} $1 `~| Ünï 😀'
SAFE = 'Tom & "Jerry" in it’s {place}, 50% — Ünï 😀'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.cutline"


def read(wordpress: RealWordPress, path: Path, **options: Any) -> site.WordPressResult:
    return site.read_wordpress(
        path, wordpress.url, user="admin", password_file=wordpress.password_file(), **options
    )


def write(wordpress: RealWordPress, path: Path, user: str = "admin", **options: Any) -> Any:
    return site.apply(path, wordpress.site(user), **options)


def ids(path: Path) -> dict[tuple[str, int], int]:
    with site.open_store(path) as store:
        return {
            (each.occurrence.page, each.occurrence.position): each.id
            for each in store.occurrences()
        }


def review(path: Path, page: str, alt: str, position: int = 0) -> None:
    site.review(path, ids(path)[page, position], "edited", alt, who="Ann")


def test_library_posts_pages_and_patterns_are_read(wordpress: RealWordPress, path: Path) -> None:
    found = read(wordpress, path)
    assert (found.posts, found.library, found.continued) == (28, 60, False)
    assert found.unread == {
        "fixed or repeated cover, whose alt is set in the editor": 1,
        "gallery shortcode, which shows the alts of the media library": 1,
        "image in a post made with Divi": 1,
    }
    with Store(path) as store:
        alts: dict[str, list[str | None]] = {}
        for each in store.occurrences():
            alts.setdefault(each.occurrence.page, []).append(each.occurrence.alt)
        pages = {page.url: page for page in store.pages()}
        boats = next(store.occurrences(page=wordpress.item("boats"))).occurrence
    assert alts[wordpress.page("gallery")] == ["", "Sheep on a hill", ""]
    assert alts[wordpress.page("other-alt")] == ["The view from our hut"]
    assert alts[wordpress.item("alps")] == ["Snow on a row of mountains"]
    assert alts[wordpress.item("boats")] == [None]
    assert (boats.caption, boats.after) == ("The harbour in May", "Taken from the pier.")
    pattern = f"{wordpress.url}wp-admin/post.php?post={wordpress.posts['pattern']}&action=edit"
    assert alts[pattern] == [""]
    assert pages[wordpress.page("cover")].language == "en-US"
    assert wordpress.page("draft") not in pages
    assert wordpress.page("private") not in pages
    assert wordpress.page("password") in pages
    again = read(wordpress, path, drafts=True, private=True)
    assert (again.posts, again.retired) == (30, 0)
    assert read(wordpress, path).retired == 2
    content = path.read_bytes()
    for secret in wordpress.password_file().read_text().split():
        assert secret.encode() not in content


def test_alts_are_drafted_written_read_back_and_undone(
    wordpress: RealWordPress, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUTLINE_WORDPRESS_PASSWORD", raising=False)
    read(wordpress, path)
    drafted = site.draft(path, standin.StandIn())  # without the password
    assert drafted.problems == ()
    assert drafted.summary.captioned > 50
    before = wordpress.contents()
    names = ["one-image", "gallery", "old-gallery", "cover", "media-text", "custom-html"]
    names += ["classic-caption", "classic-none"]
    for name in names:
        review(path, wordpress.page(name), ALT)
    review(path, wordpress.item("cup"), SAFE)

    planned = write(wordpress, path)
    assert (planned.alts, planned.files) == (9, 9)
    assert {why.partition(" as ")[0] for _, why in planned.refused} == {"WordPress would save it"}
    assert wordpress.contents() == before
    assert "+++ " + wordpress.page("cover") in planned.diff()
    done = write(wordpress, path, write=True)
    assert (done.alts, done.outcome.failed) == (9, ())
    api = wordpress.api()
    for name in names:
        raw = api.get(f"/wp/v2/posts/{wordpress.posts[name]}", context="edit")["content"]["raw"]
        assert raw == wordpress.content(name)
        assert raw.count("&#91;gallery&#93;") == 1
        assert wordpress.revisions(name) == 1
    assert api.get(f"/wp/v2/media/{wordpress.media['cup']}")["alt_text"] == SAFE
    with Store(path) as store:
        assert store.counts().applied == 9

    assert write(wordpress, path, write=True).alts == 0
    undone = site.undo(path, destinations=[wordpress.site()])
    assert undone.failed == 0
    assert wordpress.contents() == before
    assert wordpress.revisions("cover") >= 1
    with Store(path) as store:
        assert store.counts().applied == 0
    assert write(wordpress, path).alts == 9


def test_brackets_do_not_run_as_shortcodes(wordpress: RealWordPress, path: Path) -> None:
    alt = "before [gallery ids=1] [caption]x[/caption] after"
    read(wordpress, path, types=["post"])
    for name in ("one-image", "classic-caption", "cover"):
        review(path, wordpress.page(name), alt)
    assert write(wordpress, path, to="content", write=True).alts == 3
    for name in ("one-image", "classic-caption", "cover"):
        shown = httpx.get(wordpress.page(name), follow_redirects=True).text
        [found] = re.findall(r'alt="(before [^"]*)"', shown)
        assert (
            found.replace("&#091;", "[")
            .replace("&#093;", "]")
            .replace("&#91;", "[")
            .replace("&#93;", "]")
            == alt
        )
        assert 'class="gallery' not in shown


def test_only_the_library_or_only_content(wordpress: RealWordPress, path: Path) -> None:
    read(wordpress, path)
    for name in ("one-image", "twice"):
        review(path, wordpress.page(name), "Boats in a harbour")
    review(path, wordpress.page("twice"), "Boats in a harbour", position=1)
    review(path, wordpress.page("media-text"), "An astronaut")
    review(path, wordpress.item("astronaut"), "A woman in a spacesuit")
    library = write(wordpress, path, to="library", write=True)
    assert library.alts == 2  # of "boats", which nobody reviewed in the library
    sql = "SELECT meta_value FROM wp_postmeta WHERE meta_key = '_wp_attachment_image_alt'"
    for name, alt in {"boats": "Boats in a harbour", "astronaut": "A woman in a spacesuit"}.items():
        assert wordpress.sql(f"{sql} AND post_id = {wordpress.media[name]}").strip() == alt
    assert 'alt=""' in wordpress.content("one-image")
    assert write(wordpress, path, to="content", write=True).alts == 4
    assert 'alt="An astronaut"' in wordpress.content("media-text")
    with pytest.raises(OptionError, match="got --to everything"):
        write(wordpress, path, to="everything")


def test_content_that_changed_or_is_being_edited_is_left(
    wordpress: RealWordPress, path: Path
) -> None:
    read(wordpress, path, types=["post"])
    for name in ("one-image", "thumbnail", "nested"):
        review(path, wordpress.page(name), "An image")
    wordpress.put_content("one-image", wordpress.content("one-image") + "<p>More.</p>")
    editor = wordpress.api("editor")
    draft = wordpress.content("thumbnail") + "<p>Not saved yet.</p>"
    editor.post(f"/wp/v2/posts/{wordpress.posts['thumbnail']}/autosaves", {"content": draft})
    before = wordpress.contents()
    result = write(wordpress, path, to="content", write=True)
    reasons = [why for _, why in (*result.refused, *result.outcome.failed)]
    assert ["changed since it was read" in why for why in reasons] == [True, False]
    assert "has not saved yet" in reasons[1]
    assert result.alts == 1
    changed = wordpress.contents().splitlines()
    assert sum(line not in before.splitlines() for line in changed) == 1


def test_change_between_plan_and_write_is_noticed(wordpress: RealWordPress) -> None:
    page = wordpress.site().open(wordpress.page("one-image"))
    edits = page.edits([AltChange(1, page.occurrences[0], "An image")])  # type: ignore[attr-defined]
    wordpress.put_content("one-image", "<p>New.</p>")
    committed: list[str] = []
    with pytest.raises(OutputError, match="changed a moment ago"):
        page.write(edits, committed.append)
    assert committed == []
    assert wordpress.content("one-image") == "<p>New.</p>"


def test_user_without_unfiltered_html_writes_no_content(
    wordpress: RealWordPress, path: Path
) -> None:
    own = '<!-- wp:html --><div onclick="x()"></div><img src="/a.jpg"><!-- /wp:html -->'
    wordpress.put_content("by-the-author", own)
    site.read_wordpress(
        path, wordpress.url, user="author", password_file=wordpress.password_file("author")
    )
    review(path, wordpress.page("by-the-author"), "A wren")
    result = write(wordpress, path, "author", write=True)
    refused = {each.occurrence.page: why for each, why in result.refused}
    assert "may not post unfiltered HTML" in refused[wordpress.page("by-the-author")]
    assert wordpress.content("by-the-author") == own
    assert result.alts == 0
    page = wordpress.site("author").page_url("attachment", wordpress.media["wren"])
    with pytest.raises(OutputError, match="'author' has no permission"):
        wordpress.site("author").open(page)


def test_users_who_may_not_read_get_plain_words(wordpress: RealWordPress, path: Path) -> None:
    def attempt(user: str, file: Path) -> str:
        with pytest.raises(FetchError) as error:
            site.read_wordpress(path, wordpress.url, user=user, password_file=file)
        return str(error.value)

    wrong = path.with_name("password")
    wrong.write_text("abcd efgh ijkl mnop qrst uvwx")
    assert "application password is wrong" in attempt("admin", wrong)
    assert "application password is wrong" in attempt("nobody", wrong)
    reason = attempt("subscriber", wordpress.password_file("subscriber"))
    assert "'subscriber' has no permission for this; use an editor" in reason
    assert not path.exists()


def test_plain_permalinks(wordpress: RealWordPress, path: Path) -> None:
    wordpress.sql(
        "UPDATE wp_options SET option_value = '' WHERE option_name IN "
        "('permalink_structure', 'rewrite_rules')"
    )
    found = read(wordpress, path)
    assert (found.posts, found.library) == (28, 60)
    review(path, wordpress.page("cover"), "A canyon")
    assert write(wordpress, path, to="content", write=True).alts == 1
    assert 'alt="A canyon"' in wordpress.content("cover")


def test_what_wordpress_makes_of_alts_in_the_library_is_reported(
    wordpress: RealWordPress,
) -> None:
    texts = ["100%ab", "50%25", "%a%ab%bb", "a <b>c</b> d", "a < b", "a > b", "<"]
    texts += ["x <script>y</script>", "back\\slash", "two\\\\", " a  b ", "tab\tend"]
    texts += ["&amp; &lt;", "quotes \"'", "[gallery]"]
    destination = wordpress.site()
    url = wordpress.item("cup")
    for text in texts:
        page = destination.open(url)
        before = page.occurrences[0].alt or ""  # type: ignore[attr-defined]
        edit = Edit(1, 0, before.encode(), text.encode(), text)
        kept = sanitized(text)
        if kept == text:
            page.write([edit], lambda sha256: None)
        else:
            with pytest.raises(OutputError, match="WordPress would save it as"):
                page.check(AltChange(1, page.occurrences[0], text))  # type: ignore[attr-defined]
            with pytest.raises(ChangedByStoreError, match="instead of") as error:
                page.write([edit], lambda sha256: None)
            assert error.value.edits[0].after.decode() == kept
        stored = destination.api.get(f"/wp/v2/media/{wordpress.media['cup']}")["alt_text"]
        assert stored == kept


KEPT = [
    '<p>C:\\new\\\\ \\" %2520</p>\r\n<b>open <img src="/a.jpg" alt=x>\t\n ',
    "<script>if (a && b) {}</script><iframe src=/x></iframe><img src=/a.jpg onclick=x>",
    '<a href="/x" target="_blank" rel="noreferrer noopener">x</a><img src="/a.jpg">',
    "<style><a target=x></style>&#160;&#200;&nbsp;&bogus; \U0001f600<img src='/a.jpg'>",
]
CHANGED = [
    '<a href="/x" target="_blank">x</a><img src="/a.jpg">',
    '<a href="/x"  target="_blank" rel="noopener">x</a><img src="/a.jpg">',
    "<a href=/x target=_blank rel=noopener>x</a><img src='/a.jpg'>",
    '&#150; <img src="/a.jpg">',
]


def test_content_that_wordpress_changes_when_it_saves(wordpress: RealWordPress) -> None:
    destination = wordpress.site()
    for content in [*KEPT, *CHANGED]:
        wordpress.put_content("words", content)
        post = destination.open(wordpress.page("words"))
        change = AltChange(1, post.occurrences[0], "New [x]")  # type: ignore[attr-defined]
        edits = post.edits([change])
        if content in CHANGED:
            with pytest.raises(OutputError, match="WordPress would change"):
                post.check(change)
            with pytest.raises(ChangedByStoreError, match="changed more than the alt"):
                post.write(edits, lambda sha256: None)
            assert "New" in wordpress.content("words")
            continue
        assert post.check(change)
        post.write(edits, lambda sha256: None)
        destination.open(wordpress.page("words")).write(inverted(edits), lambda sha256: None)
        assert wordpress.content("words") == content


def test_lint_report_and_export_of_a_wordpress_site(wordpress: RealWordPress, path: Path) -> None:
    read(wordpress, path)
    findings = list(site.lint(path))
    assert any("IMG_1234.jpg" in finding.message for _, finding in findings)
    review(path, wordpress.page("cover"), "A canyon")
    report = site.report(path).to_html()
    assert wordpress.page("cover").replace("&", "&amp;") in report
    rows = io.StringIO()
    site.export(path, rows, "json")
    assert len(json.loads(rows.getvalue())["uses"]) == 85


def test_credentials_of_the_environment(
    wordpress: RealWordPress, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUTLINE_WORDPRESS_PASSWORD", raising=False)
    read(wordpress, path, types=["page"])
    with pytest.raises(OptionError, match="got no application password"):
        site.apply(path)
    monkeypatch.setenv("CUTLINE_WORDPRESS_PASSWORD", wordpress.password_file().read_text())
    review(path, wordpress.item("cup"), "A cup")
    assert site.apply(path, write=True).alts == 1
    assert site.undo(path).failed == 0


def test_command_line(wordpress: RealWordPress, path: Path) -> None:
    access = ["--store", path, "--user", "admin", "--password-file", wordpress.password_file()]

    def run(*words: Any) -> tuple[int, str]:
        done = command_line.cutline("site", *words, *access)
        return done.returncode, (done.stdout + done.stderr).decode()

    code, text = run("wordpress", wordpress.url, "--type", "page")
    assert code == 0
    assert "in 2 posts and 60 images of the media library." in text
    assert run("apply", "--to", "content")[0] == 0
    review(path, wordpress.item("cup"), "A cup")
    _, text = run("apply", "--to", "library")
    assert "\n+A cup\n" in text
    assert "To be written: 1 alt in 1 page." in text
    assert "Written: 1 alt in 1 page." in run("apply", "--write")[1]
    assert "Undone: 1 alt in 1 page." in run("undo")[1]
    code, text = run("wordpress", "http://example.org/")
    assert code == 2
    assert "expected HTTPS" in text
