"""A WordPress REST API in memory, for what the real site of the tests does not do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from cutline.site.wordpress.client import Api, RetryOptions
from cutline.site.wordpress.credentials import Credentials
from cutline.site.wordpress.destination import ReadOptions, WordPress

SITE = "https://example.org/"


@dataclass
class FakeWordPress:
    """Posts and media by id, with the fields of the API's answers.

    Attributes:
        before: called with every request; what it returns is the response.
        save: what is stored of the content that is saved.
        blocks: the attributes of block types.
        requests: every request that came, oldest first.
    """

    posts: dict[int, dict[str, Any]] = field(default_factory=dict)
    media: dict[int, dict[str, Any]] = field(default_factory=dict)
    products: list[dict[str, Any]] = field(default_factory=list)
    autosaves: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    blocks: dict[str, dict[str, Any]] = field(default_factory=dict)
    namespaces: list[str] = field(default_factory=lambda: ["wp/v2"])
    routes: dict[str, Any] = field(default_factory=dict)
    home: str = '<html lang="en-GB"><head></head></html>'
    pretty: bool = True
    may_post_html: bool = True
    passwords: bool = True
    before: Callable[[httpx.Request], httpx.Response | None] = lambda request: None
    save: Callable[[str], str] = lambda content: content
    requests: list[httpx.Request] = field(default_factory=list)
    clock: int = 0

    def add_post(self, id: int, content: str, *, type: str = "post", **more: Any) -> None:
        self.posts[id] = {
            "id": id,
            "type": type,
            "status": "publish",
            "link": f"{SITE}{type}-{id}/",
            "title": {"raw": f"Title {id}"},
            "content": {"raw": content, "rendered": content},
            "modified_gmt": "2024-05-01T10:00:00",
            **more,
        }

    def add_image(self, id: int, name: str, alt: str = "", **more: Any) -> None:
        self.media[id] = {
            "id": id,
            "alt_text": alt,
            "title": {"raw": name.partition(".")[0]},
            "caption": {"raw": ""},
            "description": {"raw": ""},
            "source_url": f"{SITE}wp-content/uploads/{name}",
            "media_details": {"file": name, "sizes": {}},
            "post": 0,
            "modified_gmt": "2024-05-01T10:00:00",
            **more,
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """The response to a request."""
        self.requests.append(request)
        made = self.before(request)
        if made is not None:
            return made
        path, query = request.url.path, request.url.params
        if not self.pretty and path.startswith("/wp-json"):
            return httpx.Response(404, text="not found")
        if "rest_route" in query:
            path = "/wp-json" + query["rest_route"]
        if not path.startswith("/wp-json"):
            root = "wp-json/" if self.pretty else "?rest_route=/"
            link = f'<{SITE}{root}>; rel="https://api.w.org/"'
            return httpx.Response(200, text=self.home, headers={"Link": link})
        route = path.removeprefix("/wp-json")
        if route in ("", "/"):
            methods = {"application-passwords": {}} if self.passwords else {}
            index = {"namespaces": self.namespaces, "authentication": methods}
            return httpx.Response(200, json={**index, "routes": self.routes})
        return self._answer(request, route.split("/")[1:])

    def _answer(self, request: httpx.Request, names: list[str]) -> httpx.Response:
        match names:
            case ["wp", "v2", "users", "me"]:
                return httpx.Response(200, json={"id": 1, "name": "Ada"})
            case ["wp", "v2", "types"]:
                types = {
                    name: {"rest_base": base, "viewable": name != "wp_block"}
                    for name, base in _BASES.items()
                }
                return httpx.Response(200, json=types)
            case ["wp", "v2", "block-types", space, name]:
                attributes = self.blocks.get(f"{space}/{name}")
                if attributes is None:
                    return _problem(404, "rest_block_type_invalid")
                return httpx.Response(200, json={"attributes": attributes})
            case ["wc", "v3", "products"]:
                return self._list(request, self.products)
            case ["wp", "v2", "media"]:
                return self._list(request, list(self.media.values()))
            case ["wp", "v2", base]:
                type = next(name for name, each in _BASES.items() if each == base)
                allowed = request.url.params["status"].split(",")
                found = [self._post(each) for each in self.posts.values() if each["type"] == type]
                return self._list(request, [each for each in found if each["status"] in allowed])
            case ["wp", "v2", _, id, "autosaves"]:
                return httpx.Response(200, json=self.autosaves.get(int(id), []))
            case ["wp", "v2", "media", id]:
                return self._item(request, self.media, int(id))
            case ["wp", "v2", _, id]:
                return self._item(request, self.posts, int(id))
        return _problem(404, "rest_no_route")

    def _item(
        self, request: httpx.Request, items: dict[int, dict[str, Any]], id: int
    ) -> httpx.Response:
        if id not in items:
            return _problem(404, "rest_post_invalid_id")
        if request.method == "POST":
            sent = json.loads(request.content)
            self.clock += 1
            items[id]["modified_gmt"] = f"2024-05-01T11:00:{self.clock:02d}"
            if "content" in sent:
                saved = self.save(sent["content"])
                items[id]["content"] = {"raw": saved, "rendered": saved}
            if "alt_text" in sent:
                items[id]["alt_text"] = self.save(sent["alt_text"])
        return httpx.Response(200, json=self._post(items[id]))

    def _post(self, record: dict[str, Any]) -> dict[str, Any]:
        links = {"wp:action-unfiltered-html": []} if self.may_post_html else {}
        return {**record, "_links": links}

    def _list(self, request: httpx.Request, items: list[dict[str, Any]]) -> httpx.Response:
        size, number = (int(request.url.params[name]) for name in ("per_page", "page"))
        total = max(1, -(-len(items) // size))
        if number > total:
            return _problem(400, "rest_post_invalid_page_number")
        part = items[(number - 1) * size : number * size]
        return httpx.Response(200, json=part, headers={"X-WP-TotalPages": str(total)})

    def api(self, url: str = SITE, **options: Any) -> Api:
        """The API of this site; it does not wait."""
        self.waits: list[float] = []
        return Api(
            url,
            Credentials("ada", "secret word"),
            RetryOptions(**options),
            transport=httpx.MockTransport(self),
            sleep=self.waits.append,
        )

    def site(self, **options: Any) -> WordPress:
        """The site as a destination."""
        return WordPress(SITE, self.api, ReadOptions(**options))


_BASES = {
    "post": "posts",
    "page": "pages",
    "wp_block": "blocks",
    "attachment": "media",
    "movie": "movies",
}


def _problem(status: int, code: str, message: str = "") -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": message})
