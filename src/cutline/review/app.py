"""The review page: a web application for one reviewer on this machine.

Security: the page's URL holds a random token, the server listens on the loopback interface only,
and requests that another website in the browser could have made are refused. Every action is saved
before it is answered (`actions`).
"""

from __future__ import annotations

import hmac
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from importlib.resources import files
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Query
from pydantic import BaseModel, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cutline import templating
from cutline.errors import ImageError, OptionError, StoreError
from cutline.review.actions import Action, NotFoundError, ReviewActions, findings, row, thumbnail
from cutline.site.decide.lint import MAX_CHARS
from cutline.site.images import SVG
from cutline.site.model import AltVerdict, Purpose, Verdict
from cutline.site.store.store import Stage, Store
from cutline.site.url_words import tail

HOST = "127.0.0.1"
MAX_ROWS = 60  # rows in one response
_MAX_BODY_BYTES = 4_000_000
_THUMBNAIL_PX, _PICTURE_PX = 192, 1280
_FILTERS: dict[str, Any] = {
    "waiting": {"stage": Stage.WAITING},
    "asked": {"stage": Stage.ASKED},
    "drafted": {"stage": Stage.DRAFTED},
    "reviewed": {"stage": Stage.REVIEWED},
    **{str(verdict): {"verdict": verdict} for verdict in Verdict},
    "kept": {"purpose": Purpose.KEPT},
    "faulty": {"purpose": Purpose.KEPT},  # narrowed by `ReviewActions.faulty`
    **{f"judged-{verdict}": {"judged": verdict} for verdict in AltVerdict},
    "failed": {"stage": Stage.FAILED},
    "stale": {"stage": Stage.STALE},
    "found": {"stage": Stage.FOUND},
    "all": {},
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_STATIC = {
    "look.css": "text/css",
    "review.css": "text/css",
    "review.js": "text/javascript",
    "review-article.js": "text/javascript",
    "review-parts.js": "text/javascript",
}


def serve(
    store: Store,
    *,
    port: int = 0,
    browser: bool = True,
    who: str = "",
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the review page until Ctrl-C.

    Args:
        store: the site's store.
        port: on the loopback interface; 0 takes a free one.
        browser: open the page in the browser.
        who: the reviewer's name.
        on_ready: called with the page's URL when the server is ready; None prints the URL to
            standard error.

    Raises:
        OptionError: the port is taken.
    """
    token = secrets.token_urlsafe(18)
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise OptionError(
            f"got port {port}: {error.strerror or error}; expected a free one, or 0 to take any"
        ) from error
    url = f"http://{HOST}:{listening.getsockname()[1]}/{token}/"

    def ready() -> None:
        (on_ready or _print_url)(url)
        if browser:
            webbrowser.open(url)

    config = uvicorn.Config(
        review_app(store, token=token, who=who),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    with listening:
        try:
            _Server(config, ready).run(sockets=[listening])
        except KeyboardInterrupt:
            return


def _print_url(url: str) -> None:
    print(
        f"Review: {url}\nEvery action is saved at once. Press Ctrl-C to stop.",
        file=sys.stderr,
        flush=True,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        threading.Thread(target=self._ready, daemon=True).start()


def review_app(store: Store, *, token: str, who: str = "") -> ASGIApp:
    """The review page as an application.

    Args:
        store: the site's store.
        token: the first segment of every path; it grants read and write access.
        who: the reviewer's name.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(_routes(ReviewActions(store, who)), prefix=f"/{token}")

    def respond(status: int) -> Callable[[Any, Exception], Response]:
        return lambda _, error: JSONResponse({"detail": str(error)}, status)

    app.add_exception_handler(NotFoundError, respond(404))
    app.add_exception_handler(ImageError, respond(404))
    app.add_exception_handler(OptionError, respond(422))
    app.add_exception_handler(StoreError, respond(503))
    return TokenMiddleware(app, token)


class _Filter(BaseModel):
    show: Literal[
        "waiting", "asked", "drafted", "reviewed", "approved", "edited", "decorative", "skipped",
        "kept", "faulty", "judged-good", "judged-change", "judged-decorative",
        "failed", "stale", "found", "all",
    ] = "waiting"  # fmt: skip
    purpose: Purpose | None = None
    page: str | None = None
    group: int | None = None
    search: Annotated[str, Field(max_length=200)] = ""
    least: Annotated[float | None, Field(ge=0, le=1)] = None
    most: Annotated[float | None, Field(ge=0, le=1)] = None


class _Action(BaseModel):
    """See `Action`; `there` is the alt that the page was shown to have."""

    verdict: Verdict
    alt: Annotated[str | None, Field(max_length=10_000)] = None
    long_description: Annotated[str | None, Field(max_length=50_000)] = None
    seen: str = ""
    there: Annotated[str | None, Field(max_length=100_000)] = None


class _Bulk(BaseModel):
    """The same for many occurrences without a review; `alt` None takes each draft."""

    ids: Annotated[list[int], Field(max_length=200_000)]
    verdict: Literal[Verdict.APPROVED, Verdict.DECORATIVE, Verdict.SKIPPED]
    alt: Annotated[str | None, Field(max_length=10_000)] = None
    long_description: Annotated[str | None, Field(max_length=50_000)] = None
    least: Annotated[float | None, Field(ge=0, le=1)] = None


class _Text(BaseModel):
    alt: Annotated[str, Field(max_length=10_000)]


def _routes(actions: ReviewActions) -> APIRouter:
    routes = APIRouter()
    store = actions.store

    @routes.get("/")
    def index() -> Response:
        site = urlsplit(store.site).netloc or tail(store.site) or store.site
        html = templating.render(
            "review.html", site=site, max_chars=MAX_CHARS, purposes=list(Purpose)
        )
        return Response(html, media_type="text/html")

    @routes.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC:
            raise HTTPException(404, "no such file")
        text = templating.asset(name) if name == "look.css" else _asset(name)
        return Response(text, media_type=_STATIC[name])

    @routes.get("/list")
    def listing(only: Annotated[_Filter, Query()]) -> dict[str, Any]:
        given = only.model_dump(exclude={"show"}, exclude_none=True) | _FILTERS[only.show]
        index = store.index(**given)
        if only.show == "faulty":
            faulty = actions.faulty(given)
            index = [each for each in index if each[0] in faulty]
        return {"ids": [id for id, _ in index], "sure": [sure for _, sure in index]}

    @routes.get("/rows")
    def rows(ids: Annotated[str, Query(max_length=2000)]) -> list[dict[str, Any]]:
        numbers = [int(id) for id in ids.split(",") if id.isdecimal()][:MAX_ROWS]
        return [row(stored) for stored in actions.occurrences(numbers)]

    @routes.get("/uses/{id}")
    def occurrence(id: int) -> dict[str, Any]:
        return actions.detail(actions.occurrence(id))

    @routes.post("/uses/{id}/lint")
    def lint(id: int, text: _Text) -> list[dict[str, str]]:
        return findings(text.alt, actions.occurrence(id).occurrence)

    @routes.post("/uses/{id}/review")
    def review(id: int, action: _Action) -> Response:
        decision = Action(
            action.verdict, action.alt, action.seen, action.there, action.long_description
        )
        done = actions.review(id, decision)
        return JSONResponse({"row": row(actions.occurrence(id))}, 200 if done else 409)

    @routes.post("/reviews")
    def bulk(action: _Bulk) -> dict[str, Any]:
        done = actions.review_all(
            action.ids, action.verdict, action.alt, action.least, action.long_description
        )
        return {"done": done, "left": len(action.ids) - done}

    @routes.post("/undo")
    def undo() -> dict[str, Any]:
        return {"ids": actions.undo()}

    @routes.get("/progress")
    def progress() -> dict[str, Any]:
        return actions.progress()

    @routes.get("/pages")
    def pages(like: Annotated[str, Query(max_length=200)] = "") -> list[str]:
        wanted = like.casefold()
        matching = (each.url for each in store.pages() if wanted in each.url.casefold())
        return [url for url, _ in zip(matching, range(20), strict=False)]

    @routes.get("/pictures/{id}")
    def picture(id: int, size: Literal["small", "large"] = "large") -> Response:
        image = actions.image(id)
        assert image.path is not None
        headers = {"Cache-Control": "private, max-age=3600"}
        if image.media_type == SVG:  # an <img> shows it; opened on its own it can run nothing
            policy = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
            headers["Content-Security-Policy"] = policy
            return FileResponse(image.path, media_type=image.media_type, headers=headers)
        side_px = _THUMBNAIL_PX if size == "small" else _PICTURE_PX
        content, media_type = thumbnail(image.path, image.sha256, side_px)
        return Response(content, media_type=media_type, headers=headers)

    return routes


def _asset(name: str) -> str:
    return (files("cutline.review") / "static" / name).read_text("utf-8")


class TokenMiddleware:
    """Refuses requests without the token or from another site; adds security headers.

    Args:
        app: the application.
        token: the first segment of every path.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def respond(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope))
        await (refusal or self._app)(scope, receive, respond)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            name = None
        if name not in (HOST, "localhost", "::1"):
            return PlainTextResponse("This page is available on this machine only.", 421)
        first = scope["path"].split("/")[1].encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(first, self._token):
            return PlainTextResponse("This is not the URL that cutline site review printed.", 404)
        if scope["method"] in ("GET", "HEAD"):
            return None
        if headers.get("origin") != f"http://{host}" or headers.get(
            "sec-fetch-site", "same-origin"
        ) not in ("same-origin", "none"):
            return PlainTextResponse("Only the review page itself may change anything.", 403)
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            return PlainTextResponse("The request is too large, or has no Content-Length.", 413)
        return None
