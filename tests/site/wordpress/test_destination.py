"""Reading and writing against an API in memory: conflicts, failures, networks, shops."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_wordpress import SITE, FakeWordPress
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutline import site
from cutline.errors import DataError, FetchError, OptionError, OutputError
from cutline.progress import Progress
from cutline.site.destination import AltChange, ChangedByStoreError, inverted
from cutline.site.store.store import Store
from cutline.site.wordpress.client import Api, RetryOptions
from cutline.site.wordpress.content import PostContent
from cutline.site.wordpress.credentials import Credentials

IMAGE = '<!-- wp:image {"id":3} --><img src="/a.jpg" alt=""/><!-- /wp:image -->'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.cutline"


@pytest.fixture
def fake() -> FakeWordPress:
    made = FakeWordPress()
    made.add_post(1, IMAGE)
    made.add_image(3, "a.jpg")
    return made


def read(fake: FakeWordPress, path: Path, **options: Any) -> site.WordPressResult:
    def connect(url: str, credentials: Credentials) -> Api:
        transport = httpx.MockTransport(fake)
        return Api(url, credentials, RetryOptions(), transport=transport, sleep=lambda s: None)

    password = path.with_name("password")
    password.write_text("secret word")
    return site.read_wordpress(
        path, SITE, user="ada", password_file=password, connect=connect, **options
    )


def review(path: Path, page: str, alt: str) -> None:
    with Store(path) as store:
        [found] = [each.id for each in store.occurrences(page=page)]
    site.review(path, found, "edited" if alt else "decorative", alt or None)


def write_first(fake: FakeWordPress, url: str, alt: str = "New") -> list[str]:
    """Write an alt into a page; returns what was committed to the journal."""
    page = fake.site().open(url)
    committed: list[str] = []
    [occurrence] = page.occurrences  # type: ignore[attr-defined]
    page.write(page.edits([AltChange(1, occurrence, alt)]), committed.append)
    return committed


def test_digest_of_what_is_read_is_that_of_the_open_page(fake: FakeWordPress) -> None:
    fake.add_post(2, "<p></p>", type="wp_block")
    fake.add_post(5, "<p></p>", type="movie")
    destination = fake.site()
    pages = [page for page, _ in destination.read()]
    assert [page.url.removeprefix(SITE) for page in pages] == [
        "?p=1",
        "wp-admin/post.php?post=2&action=edit",
        "?post_type=movie&p=5",
        "?attachment_id=3",
    ]
    for page in pages:
        assert destination.owns(page.url)
        assert destination.open(destination.location(page)).sha256 == page.sha256


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/?p=1",
        SITE,
        f"{SITE}?p=1&x=2",
        f"{SITE}?p=../../users/1",
        f"{SITE}?p=²",
        f"{SITE}?post_type=../users&p=1",
        "/etc/passwd",
    ],
)
def test_locations_of_a_forged_journal_are_not_opened(fake: FakeWordPress, location: str) -> None:
    destination = fake.site()
    if destination.owns(location):
        with pytest.raises(OutputError, match="has no type"):
            destination.open(location)
    else:
        with pytest.raises(OutputError, match="no page of"):
            destination.open(location)


def test_only_drafts_and_private_posts_that_are_asked_for(fake: FakeWordPress, path: Path) -> None:
    for id, status in enumerate(("draft", "pending", "future", "private"), 10):
        fake.add_post(id, IMAGE, status=status)
    assert read(fake, path).posts == 1
    assert read(fake, path, drafts=True).posts == 4
    assert read(fake, path, private=True).posts == 2
    assert read(fake, path, types=["wp_block", "post"]).posts == 1
    with pytest.raises(OptionError, match="got type nothing; expected one of movie, page, post"):
        read(fake, path, types=["nothing"])


def test_interrupted_reading_continues(fake: FakeWordPress, path: Path) -> None:
    for id in range(100, 350):
        fake.add_post(id, IMAGE)

    def fail(request: httpx.Request) -> httpx.Response | None:
        if request.url.params.get("page") == "3" and request.url.path.endswith("/posts"):
            return httpx.Response(403, json={"code": "blocked", "message": "Firewall"})
        return None

    fake.before = fail
    with pytest.raises(FetchError, match="no permission"):
        read(fake, path)
    fake.before = lambda request: None
    fake.requests.clear()
    told: list[Progress] = []
    found = read(fake, path, progress=told.append)
    assert (found.posts, found.library, found.continued) == (251, 1, True)
    asked = [each.url.params.get("page") for each in fake.requests if "/posts" in each.url.path]
    assert asked == ["3"]
    assert told[-1].done == 252
    fake.requests.clear()
    assert not read(fake, path).continued
    asked = [each.url.params.get("page") for each in fake.requests if "/posts" in each.url.path]
    assert asked == ["1", "2", "3"]


def test_posts_that_are_gone_are_left_out(fake: FakeWordPress, path: Path) -> None:
    fake.add_post(2, IMAGE)
    read(fake, path)
    del fake.posts[2]
    assert read(fake, path).retired == 1
    with Store(path) as store:
        assert store.count_occurrences() == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {
                "routes": {
                    "/wp/v2/plugins": {"endpoints": [{"args": {"s": {"enum": ["network-active"]}}}]}
                }
            },
            "network (multisite); expected a single site",
        ),
        ({"namespaces": ["wp/v2", "pll/v1"]}, "several languages (Polylang is installed)"),
        ({"namespaces": ["wp/v2", "wpml/tm/v1"]}, "several languages (WPML is installed)"),
        (
            {
                "home": '<link rel="alternate" hreflang="en" href="/">'
                "<link href='/de/' hreflang='de-DE' rel=alternate>"
            },
            "its home page names de-de, en",
        ),
    ],
)
def test_networks_and_translated_sites_are_refused(
    fake: FakeWordPress, path: Path, change: dict[str, Any], reason: str
) -> None:
    for name, value in change.items():
        setattr(fake, name, value)
    with pytest.raises(DataError) as error:
        read(fake, path)
    assert reason in str(error.value)
    assert not path.exists()


def test_network_and_translations_that_only_the_content_shows(
    fake: FakeWordPress, path: Path
) -> None:
    fake.posts[1]["content"]["raw"] = "[:en]Hello[:de]Hallo[:]"
    with pytest.raises(DataError, match="a post holds several languages"):
        read(fake, path)
    fake.posts[1]["content"]["raw"] = IMAGE
    fake.media[3]["source_url"] = f"{SITE}wp-content/uploads/sites/4/2024/a.jpg"
    with pytest.raises(DataError, match="multisite"):
        read(fake, path)


def test_one_language_in_the_home_page_is_no_translation(fake: FakeWordPress, path: Path) -> None:
    fake.home = (
        '<html lang="de"><link rel="alternate" hreflang="de" href="/"><link hreflang="x-default">'
    )
    read(fake, path)
    with Store(path) as store:
        assert {page.language for page in store.pages()} == {"de"}


def test_images_of_products_name_the_product(fake: FakeWordPress, path: Path) -> None:
    fake.namespaces = ["wp/v2", "wc/v3"]
    fake.products = [{"id": 8, "name": "Oars, 2 m", "images": [{"id": 3, "alt": ""}]}]
    read(fake, path)
    with Store(path) as store:
        [found] = store.occurrences(page=f"{SITE}?attachment_id=3")
    assert found.occurrence.heading == "Oars, 2 m"


def test_products_that_this_user_may_not_read_are_left_out(fake: FakeWordPress, path: Path) -> None:
    def forbid(request: httpx.Request) -> httpx.Response | None:
        if "/wc/" in request.url.path:
            return httpx.Response(403, json={"code": "woocommerce_rest_cannot_view"})
        return None

    fake.namespaces, fake.before = ["wp/v2", "wc/v3"], forbid
    assert read(fake, path).library == 1


def test_alt_that_wordpress_saves_differently_is_reported_and_content_restored(
    fake: FakeWordPress,
) -> None:
    def add_rel(content: str) -> str:
        return content.replace("<a>", '<a rel="noopener">') if "New" in content else content

    fake.posts[1]["content"]["raw"] = before = f"<a>x</a>{IMAGE}"
    fake.save = add_rel
    with pytest.raises(OutputError, match="changed more than the alt") as error:
        write_first(fake, f"{SITE}?p=1")
    assert "the content was restored" in str(error.value)
    assert not isinstance(error.value, ChangedByStoreError)
    assert fake.posts[1]["content"]["raw"] == before


def test_content_that_cannot_be_restored_is_reported(fake: FakeWordPress) -> None:
    fake.save = lambda content: content.replace('id":3', 'id":4')
    with pytest.raises(ChangedByStoreError, match="restore an earlier revision") as error:
        write_first(fake, f"{SITE}?p=1")
    [edit] = error.value.edits
    assert edit.before.decode() == IMAGE
    assert edit.after.decode() == fake.posts[1]["content"]["raw"]
    assert fake.posts[1]["content"]["raw"] == IMAGE.replace('id":3', 'id":4').replace(
        'alt=""', 'alt="New"'
    )


def test_timeout_of_a_write_that_was_carried_out_is_a_success(fake: FakeWordPress) -> None:
    def late(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST":
            fake.before = lambda request: None
            fake(request)
            raise httpx.ReadTimeout("late", request=request)
        return None

    fake.before = late
    assert len(write_first(fake, f"{SITE}?p=1")) == 1
    assert 'alt="New"' in fake.posts[1]["content"]["raw"]
    fake.before = late
    write_first(fake, f"{SITE}?attachment_id=3")
    assert fake.media[3]["alt_text"] == "New"


def test_write_that_was_not_carried_out_is_an_error(fake: FakeWordPress) -> None:
    def refuse(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST":
            raise httpx.ConnectError("refused", request=request)
        return None

    fake.before = refuse
    for url in (f"{SITE}?p=1", f"{SITE}?attachment_id=3"):
        with pytest.raises(OutputError, match="no answer"):
            write_first(fake, url)


@pytest.mark.parametrize(
    ("saved", "when", "refused"),
    [
        ("<p>typing</p>", "2024-05-01T10:00:00", True),
        ("<p>typing</p>", "2024-05-01T09:59:59", False),
        (IMAGE, "2024-05-01T12:00:00", False),
    ],
)
def test_autosaves(fake: FakeWordPress, saved: str, when: str, refused: bool) -> None:
    fake.autosaves[1] = [{"content": {"raw": saved}, "modified_gmt": when}]
    if not refused:
        write_first(fake, f"{SITE}?p=1")
        return
    with pytest.raises(OutputError, match="somebody edited it and has not saved yet"):
        write_first(fake, f"{SITE}?p=1")
    assert fake.posts[1]["content"]["raw"] == IMAGE


def _another_content(fake: FakeWordPress) -> None:
    fake.posts[1]["content"] = {"raw": f"{IMAGE}<p>New</p>"}


def _another_date(fake: FakeWordPress) -> None:
    fake.posts[1]["modified_gmt"] = "2024-05-01T10:00:01"


@pytest.mark.parametrize("edit", [_another_content, _another_date])
def test_post_that_is_saved_while_it_is_written_is_left(
    fake: FakeWordPress, edit: Callable[[FakeWordPress], None]
) -> None:
    def meanwhile(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith("/autosaves"):
            edit(fake)
        return None

    fake.before = meanwhile
    with pytest.raises(OutputError, match="a moment ago"):
        write_first(fake, f"{SITE}?p=1")
    assert not [request for request in fake.requests if request.method == "POST"]


def test_user_without_unfiltered_html_sends_no_content(fake: FakeWordPress) -> None:
    fake.may_post_html = False
    page = fake.site().open(f"{SITE}?p=1")
    change = AltChange(1, page.occurrences[0], "New")  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match="'ada' may not post unfiltered HTML"):
        page.check(change)
    with pytest.raises(OutputError, match="'ada' may not post unfiltered HTML"):
        page.write(page.edits([change]), lambda sha256: None)
    assert not [request for request in fake.requests if request.method == "POST"]


def test_present_alt_that_undo_could_not_restore_is_kept(fake: FakeWordPress) -> None:
    fake.add_image(4, "b.jpg", "100%ab wool")
    page = fake.site().open(f"{SITE}?attachment_id=4")
    with pytest.raises(OutputError, match="undo could not restore the present text"):
        page.check(AltChange(1, page.occurrences[0], "Wool"))  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match="could run as a shortcode"):
        page.check(AltChange(1, page.occurrences[0], "A [gallery]"))  # type: ignore[attr-defined]


def test_saving_an_alt_that_changes_the_caption_is_reported(fake: FakeWordPress) -> None:
    def strip(alt: str) -> str:
        fake.media[3]["caption"] = {"raw": "filtered"}
        return alt

    fake.save = strip
    with pytest.raises(ChangedByStoreError, match="changed its title, caption or description"):
        write_first(fake, f"{SITE}?attachment_id=3")


def test_inverted_edits_restore(fake: FakeWordPress) -> None:
    destination = fake.site()
    for url, alt in ((f"{SITE}?p=1", "New"), (f"{SITE}?attachment_id=3", "New")):
        page = destination.open(url)
        edits = page.edits([AltChange(1, page.occurrences[0], alt)])  # type: ignore[attr-defined]
        page.write(edits, lambda sha256: None)
        changed = destination.open(url)
        assert changed.sha256 != page.sha256
        assert changed.only_alts(inverted(edits))
        changed.write(inverted(edits), lambda sha256: None)
        assert destination.open(url).sha256 == page.sha256


def test_image_of_the_library_takes_the_alt_on_which_all_posts_agree(
    fake: FakeWordPress, path: Path
) -> None:
    uploads = f"{SITE}wp-content/uploads"
    fake.media.clear()
    for id in range(3, 7):
        fake.add_image(id, f"{id}.jpg")
    texts = {
        # the number in the class is another site's: the file decides
        10: f'<img class="wp-image-3" src="{uploads}/4-300x200.jpg">',
        11: f'<img class="wp-image-4" src="{uploads}/4.jpg">',
        12: f'<img class="wp-image-5" src="{uploads}/5.jpg">',
        13: f'<img class="wp-image-5" src="{uploads}/5.jpg">',
        14: '<img class="wp-image-6" src="https://other.example/wp-content/uploads/6.jpg">',
    }
    for id, content in texts.items():
        fake.add_post(id, content)
    read(fake, path)
    for id, alt in {10: "Four", 11: "Four", 12: "Five", 13: "V", 14: "Other"}.items():
        review(path, f"{SITE}?p={id}", alt)
    planned = site.apply(path, fake.site(), to="library")
    assert [(each.path, [edit.alt for edit in each.edits]) for each in planned.changes] == [
        (f"{SITE}?attachment_id=4", ["Four"])
    ]
    with Store(path) as store:
        assert store.counts().reviewed["edited"] == 5  # a dry run records nothing
    assert site.apply(path, fake.site(), to="library", write=True).alts == 1
    assert {id: each["alt_text"] for id, each in fake.media.items()} == {
        3: "",
        4: "Four",
        5: "",
        6: "",
    }


def test_decorative_images_and_empty_alts(fake: FakeWordPress, path: Path) -> None:
    fake.add_post(2, '<img src="/b.jpg">')
    read(fake, path)
    for page in (f"{SITE}?p=1", f"{SITE}?p=2", f"{SITE}?attachment_id=3"):
        review(path, page, "")
    result = site.apply(path, fake.site(), write=True)
    assert (result.alts, result.failed) == (1, 0)
    assert fake.posts[2]["content"]["raw"] == '<img src="/b.jpg" alt="">'
    assert fake.posts[1]["content"]["raw"] == IMAGE


def test_broken_answers(fake: FakeWordPress, path: Path) -> None:
    fake.posts[1]["content"] = {"rendered": "x"}
    with pytest.raises(FetchError, match="does not give the content of posts to edit"):
        read(fake, path)


def test_password_is_in_no_file_and_no_error(fake: FakeWordPress, path: Path) -> None:
    read(fake, path)
    review(path, f"{SITE}?p=1", "New")
    site.apply(path, fake.site(), write=True)
    secret = Credentials("ada", "secret word").header.removeprefix("Basic ")
    for file in path.parent.glob("site.cutline*"):
        if file.is_file():
            assert b"secret" not in file.read_bytes()
            assert secret.encode() not in file.read_bytes()
    journal = path.with_name("site.cutline-applied.jsonl").read_text()
    assert json.loads(journal.splitlines()[1])["path"] == f"{SITE}?p=1"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
_FIELDS = "id title content raw sizes file media_details source_url images alt_text".split()
_ROUTES = "posts pages blocks movies media products types me".split()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(_ROUTES),
        _JSON | st.lists(st.dictionaries(st.sampled_from(_FIELDS), _JSON), max_size=2),
        max_size=3,
    )
)
def test_any_answers_are_read_or_refused(answers: dict[str, Any]) -> None:
    def answer(request: httpx.Request) -> httpx.Response | None:
        name = request.url.path.rpartition("/")[2]
        return httpx.Response(200, json=answers[name]) if name in answers else None

    fake = FakeWordPress(before=answer, namespaces=["wp/v2", "wc/v3"])
    fake.add_post(1, IMAGE)
    with suppress(FetchError):
        list(fake.site().read())


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_JSON)
def test_any_block_attributes_are_read(attributes: Any) -> None:
    text = json.dumps(attributes).replace("--", "")
    content = f"<!-- wp:cover {text} --><img src=x alt=y><!-- /wp:cover -->"
    post = PostContent(content, "", f"{SITE}?p=1", SITE)
    for occurrence in post.read()[1]:
        with suppress(OutputError):
            post.edits([AltChange(1, occurrence, "New")], lambda name: None)
