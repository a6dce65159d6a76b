"""The review page: one site's record in a browser, for one person on this machine.

The page's address holds a random token, the server listens on the loopback interface only, and a
request that another site in the browser could have made is refused. Every action is written to
the record before it is answered. An action says which review of the use it was made upon; if
another tab or a spreadsheet has reviewed it since, it is refused and the present state sent back.
"""

from __future__ import annotations

import hmac
import io
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Query
from PIL import Image
from pydantic import BaseModel, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cutline import templating as page
from cutline.errors import ImageError, OptionError, StoreError
from cutline.image import load_image
from cutline.site.decide.lint import MAX_CHARS, lint
from cutline.site.images import SVG
from cutline.site.model import Draft, ImageUse, Purpose, Review, Verdict
from cutline.site.pipeline import is_faulty
from cutline.site.store.rows import stands
from cutline.site.store.store import Stage, Store, StoredUse
from cutline.site.url_words import tail

HOST = "127.0.0.1"
MAX_ROWS = 60  # rows in one answer
MAX_CANDIDATES = 9  # one key each
_MAX_BODY_BYTES = 4_000_000
_OTHERS = 60  # uses of the same picture that are asked for their alts
_THUMBNAIL_PX, _PICTURE_PX = 192, 1280
_CHANGES = (Verdict.EDITED, Verdict.DECORATIVE)  # may replace the alt that was shown
_DECODING = threading.Semaphore(2)  # pictures decoded at a time: the largest take 480 MB
_SHOWN: dict[str, Any] = {
    "waiting": {"stage": Stage.WAITING},
    "asked": {"stage": Stage.ASKED},
    "drafted": {"stage": Stage.DRAFTED},
    "reviewed": {"stage": Stage.REVIEWED},
    **{str(verdict): {"verdict": verdict} for verdict in Verdict},
    "kept": {"purpose": Purpose.KEPT},
    "faulty": {"purpose": Purpose.KEPT},  # of these, what `desk.faulty` says
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
    told: Callable[[str], None] | None = None,
) -> None:
    """Serve the review page until Ctrl-C.

    Args:
        store: the site's record.
        port: to listen on, on the loopback interface; 0 takes a free one.
        browser: open the page in the person's browser.
        who: the person.
        told: hears the page's address once it answers; None prints it to standard error.

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
        (told or _tell)(url)
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


def _tell(url: str) -> None:
    print(f"Review: {url}\nEvery action is kept at once. Ctrl-C ends.", file=sys.stderr, flush=True)


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
        store: the site's record.
        token: the first part of every path; who knows it may read and write.
        who: the person, as the record names them.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(_routes(_Desk(store, who)), prefix=f"/{token}")

    @app.exception_handler(StoreError)
    def refuse(_: Any, error: StoreError) -> Response:
        return JSONResponse({"detail": str(error)}, 503)

    return _Gate(app, token)


class _Filter(BaseModel):
    show: Literal[
        "waiting", "asked", "drafted", "reviewed", "approved", "edited", "decorative", "skipped",
        "kept", "faulty", "failed", "stale", "found", "all",
    ] = "waiting"  # fmt: skip
    purpose: Purpose | None = None
    page: str | None = None
    group: int | None = None
    search: Annotated[str, Field(max_length=200)] = ""
    least: Annotated[float | None, Field(ge=0, le=1)] = None
    most: Annotated[float | None, Field(ge=0, le=1)] = None


class _Action(BaseModel):
    """`alt` as the person saw or wrote it; `seen` is the review it was made upon, "" is none;
    `there` is what the person was shown as standing in the page."""

    verdict: Verdict
    alt: Annotated[str | None, Field(max_length=10_000)] = None
    seen: str = ""
    there: Annotated[str | None, Field(max_length=100_000)] = None


class _Bulk(BaseModel):
    """The same for many: uses that have a review are left; `alt` None takes what is suggested."""

    ids: Annotated[list[int], Field(max_length=200_000)]
    verdict: Literal[Verdict.APPROVED, Verdict.DECORATIVE, Verdict.SKIPPED]
    alt: Annotated[str | None, Field(max_length=10_000)] = None
    least: Annotated[float | None, Field(ge=0, le=1)] = None


class _Words(BaseModel):
    alt: Annotated[str, Field(max_length=10_000)]


def _routes(desk: _Desk) -> APIRouter:
    routes = APIRouter()
    store = desk.store

    @routes.get("/")
    def index() -> Response:
        site = urlsplit(store.site).netloc or tail(store.site) or store.site
        html = page.render("review.html", site=site, max_chars=MAX_CHARS, purposes=list(Purpose))
        return Response(html, media_type="text/html")

    @routes.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC:
            raise HTTPException(404, "there is no such file")
        text = page.asset(name) if name == "look.css" else _asset(name)
        return Response(text, media_type=_STATIC[name])

    @routes.get("/list")
    def listing(only: Annotated[_Filter, Query()]) -> dict[str, Any]:
        given = only.model_dump(exclude={"show"}, exclude_none=True) | _SHOWN[only.show]
        found = store.index(**given)
        if only.show == "faulty":
            faulty = desk.faulty(given)
            found = [each for each in found if each[0] in faulty]
        return {"ids": [id for id, _ in found], "sure": [sure for _, sure in found]}

    @routes.get("/rows")
    def rows(ids: Annotated[str, Query(max_length=2000)]) -> list[dict[str, Any]]:
        numbers = [int(id) for id in ids.split(",") if id.isdecimal()][:MAX_ROWS]
        return [_row(stored) for stored in desk.uses(numbers)]

    @routes.get("/uses/{id}")
    def use(id: int) -> dict[str, Any]:
        return desk.detail(desk.use(id))

    @routes.post("/uses/{id}/lint")
    def check(id: int, words: _Words) -> list[dict[str, str]]:
        return _findings(words.alt, desk.use(id).use)

    @routes.post("/uses/{id}/review")
    def review(id: int, action: _Action) -> Response:
        done = desk.review(id, action)
        return JSONResponse({"row": _row(desk.use(id))}, 200 if done else 409)

    @routes.post("/reviews")
    def bulk(action: _Bulk) -> dict[str, Any]:
        done = desk.review_all(action)
        return {"done": done, "left": len(action.ids) - done}

    @routes.post("/undo")
    def undo() -> dict[str, Any]:
        return {"ids": desk.undo()}

    @routes.get("/progress")
    def progress() -> dict[str, Any]:
        return desk.progress()

    @routes.get("/pages")
    def pages(like: Annotated[str, Query(max_length=200)] = "") -> list[str]:
        wanted = like.casefold()
        found = (each.url for each in store.pages() if wanted in each.url.casefold())
        return [url for url, _ in zip(found, range(20), strict=False)]

    @routes.get("/pictures/{id}")
    def picture(id: int, size: Literal["small", "large"] = "large") -> Response:
        return desk.picture(id, _THUMBNAIL_PX if size == "small" else _PICTURE_PX)

    return routes


class _Desk:
    """What the page asks of the record and does to it."""

    def __init__(self, store: Store, who: str) -> None:
        self.store = store
        self.who = who
        self._writing = threading.Lock()  # looking and writing are one step, over all tabs

    def use(self, id: int) -> StoredUse:
        try:
            return self.store.use(id)
        except StoreError as error:
            raise HTTPException(404, str(error)) from error

    def uses(self, ids: Iterable[int]) -> Iterable[StoredUse]:
        for id in ids:
            try:
                yield self.store.use(id)
            except StoreError:  # its page is gone since the list was made
                continue

    def faulty(self, only: dict[str, Any]) -> set[int]:
        """The ids of the uses that nobody has reviewed and lint finds an error at."""
        return {
            stored.id
            for stored in self.store.uses(**only)
            if stored.review is None and is_faulty(stored.use)
        }

    def review(self, id: int, action: _Action) -> bool:
        """Write one review; False if the use has another than the action was made upon."""
        with self._writing:
            stored = self.use(id)
            review = self._review(stored, action.verdict, action.alt)
            if review.verdict in _CHANGES and action.there == stands(stored.use):
                review = replace(review, replaces=action.there)
            old = stored.review
            if old is not None and replace(review, who=old.who, when=old.when) == old:
                return True  # asked for again, since the first answer was lost
            if action.seen != (old.when if old else ""):
                return False
            self.store.put_review(id, review)
            return True

    def review_all(self, action: _Bulk) -> int:
        """Write many reviews at once, where none stands; returns how many."""
        with self._writing:
            when = _now()
            reviews = []
            for stored in self.uses(dict.fromkeys(action.ids)):
                draft = stored.draft
                if stored.review is not None:
                    continue
                alt = draft.alt if draft and action.alt is None else action.alt
                if action.verdict is Verdict.APPROVED and alt is None:
                    continue
                if action.least is not None and not (
                    draft and draft.confidence is not None and draft.confidence >= action.least
                ):
                    continue
                review = self._review(stored, action.verdict, alt)
                reviews.append((stored.id, replace(review, when=when)))
            self.store.put_reviews(reviews)
            return len(reviews)

    def undo(self) -> list[int]:
        with self._writing:
            return self.store.undo_newest()

    def progress(self) -> dict[str, Any]:
        counts = self.store.counts()
        reviewed = sum(counts.reviewed.values())
        return {
            "reviewed": reviewed,
            "total": reviewed + counts.drafted + counts.asked,
            "asked": counts.asked,
            "drafted": counts.drafted,
            "skipped": counts.reviewed[Verdict.SKIPPED],
            "failed": counts.failed,
            "uses": counts.uses,
        }

    def detail(self, stored: StoredUse) -> dict[str, Any]:
        use, draft, image = stored.use, stored.draft, stored.image
        known = {name: getattr(use, name) for name in _CONTEXT}
        known["link"] = self.store.named(use.link)
        known["stands"] = stands(use)
        decision = draft.decision if draft else None
        alt = _alt(stored)
        same, candidates = self._candidates(stored)
        return _row(stored) | {
            "context": known,
            "size": [image.width_px, image.height_px, image.bytes] if image and image.bytes else [],
            "error": self.store.named(image.error) if image else "",
            "draft": draft.alt if draft else None,
            "words": draft.words if draft else (),
            "purpose": decision.purpose if decision else "",
            "rule": decision.rule if decision else "",
            "evidence": self.store.named(decision.evidence) if decision else "",
            "abstained": bool(draft and draft.abstained),
            "labels": draft.labels if draft else (),
            "model": draft.model if draft else "",
            "notes": [self.store.named(note) for note in _notes(draft, use)],
            "review": stored.review and vars(stored.review),
            "same": same,
            "candidates": candidates,
            "findings": [] if alt is None else _findings(alt, use),
        }

    def picture(self, id: int, side_px: int) -> Response:
        try:
            image = self.store.image(id)
        except StoreError as error:
            raise HTTPException(404, str(error)) from error
        if image.path is None or not image.path.is_file():
            raise HTTPException(
                404, self.store.named(image.error) or "the picture was not fetched yet"
            )
        headers = {"Cache-Control": "private, max-age=3600"}
        if image.media_type == SVG:  # shown by <img>; opened by itself it can do nothing
            policy = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
            headers["Content-Security-Policy"] = policy
            return FileResponse(image.path, media_type=image.media_type, headers=headers)
        try:
            content, media_type = _reduced(image.path, image.sha256, side_px)
        except ImageError as error:
            raise HTTPException(404, str(error)) from error
        return Response(content, media_type=media_type, headers=headers)

    def _review(self, stored: StoredUse, verdict: Verdict, alt: str | None) -> Review:
        if verdict is Verdict.SKIPPED:
            return Review(verdict, None, self.who, _now())
        if verdict is Verdict.DECORATIVE:
            return Review(verdict, "", self.who, _now())
        words = " ".join((alt or "").split())
        draft = stored.draft.alt if stored.draft else None
        if words == draft:
            return Review(Verdict.APPROVED, draft, self.who, _now())
        if not words:
            raise HTTPException(422, 'got no words; expected some, or "decorative"')
        return Review(Verdict.EDITED, words, self.who, _now())

    def _candidates(self, stored: StoredUse) -> tuple[int, list[dict[str, str]]]:
        """How many other uses the picture has; what else could be said, best first."""
        image, draft = stored.image, stored.draft
        found: dict[str, str] = {}
        same = 0
        if image is not None:
            key: dict[str, Any] = {"image": image.id}
            if image.content is not None:
                key = {"group": image.group or image.content}
            others = [each for each in self.store.uses(limit=_OTHERS, **key) if each != stored]
            same = self.store.count_uses(**key) - 1
            for other in others:
                if other.review and other.review.alt:
                    found.setdefault(other.review.alt, f"approved on {_page_name(other.use)}")
            for other in others:
                if other.use.alt and other.use.alt.strip():
                    found.setdefault(
                        " ".join(other.use.alt.split()), f"stands on {_page_name(other.use)}"
                    )
        for text in draft.alternatives if draft else ():
            found.setdefault(text, "also suggested")
        if stored.use.alt and stored.use.alt.strip():
            found.setdefault(" ".join(stored.use.alt.split()), "stands there today")
        found.pop(draft.alt if draft and draft.alt else "", None)
        return same, [
            {"text": text, "from": where} for text, where in list(found.items())[:MAX_CANDIDATES]
        ]


_CONTEXT = """page position kind source alt alt_state name title role hidden link link_text button
    caption heading before after page_title language markup noscript""".split()


def _row(stored: StoredUse) -> dict[str, Any]:
    use, draft, review, image = stored.use, stored.draft, stored.review, stored.image
    state = "found"
    if review is not None:
        state = str(review.verdict)
    elif draft is not None and draft.decision.purpose is Purpose.KEPT:
        state = "kept"
    elif draft is not None:
        state = "asked" if draft.alt is None else "drafted"
    return {
        "id": stored.id,
        "name": tail(use.url or use.source)[:120] or f"{use.kind} {use.position + 1}",
        "page": use.page,
        "picture": image.id if image is not None and image.status == "ok" else None,
        "group": image and (image.group or image.content),
        "whole": bool(image and not 0.5 < image.width_px / max(image.height_px, 1) < 2),
        "state": state,
        "alt": _alt(stored),
        "sure": draft.confidence if draft else None,
        "stale": stored.stale,
        "applied": stored.applied,
        "failed": bool(image and image.status == "failed"),
        "seen": review.when if review else "",
    }


def _alt(stored: StoredUse) -> str | None:
    """What stands to be written, or is suggested, or is there and left alone."""
    if stored.review is not None and stored.review.verdict is not Verdict.SKIPPED:
        return stored.review.alt
    if stored.draft is not None and stored.draft.decision.purpose is not Purpose.KEPT:
        return stored.draft.alt
    return stored.use.alt


def _findings(alt: str, use: ImageUse) -> list[dict[str, str]]:
    return [
        {
            "rule": finding.rule,
            "severity": finding.severity,
            "message": finding.message,
            "reference": finding.reference,
        }
        for finding in lint([replace(use, alt=alt)])
    ]


def _notes(draft: Draft | None, use: ImageUse) -> list[str]:
    """The draft's notes but for what lint says anyway, beside the words themselves."""
    if draft is None:
        return []
    said = {finding["message"] for finding in _findings(draft.alt or "", use)}
    return [note for note in draft.notes if note not in said]


def _page_name(use: ImageUse) -> str:
    return tail(use.page) or urlsplit(use.page).netloc or use.page


@lru_cache(maxsize=400)
def _reduced(path: Path, sha256: str, side_px: int) -> tuple[bytes, str]:
    """A picture no larger than a square, for the page; `sha256` tells a changed file apart."""
    with _DECODING:
        picture = load_image(path, around_px=side_px)
    picture.thumbnail((side_px, side_px), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    if picture.width * picture.height <= 128 * 128:
        picture.save(file, "PNG")
        return file.getvalue(), "image/png"
    picture.save(file, "JPEG", quality=86)
    return file.getvalue(), "image/jpeg"


def _asset(name: str) -> str:
    return (files("cutline.review") / "static" / name).read_text("utf-8")


def _now() -> str:
    """To the microsecond: what was done in one action shares it, and is undone in one."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class _Gate:
    """Lets in who knows the token, from the page itself; says how answers are to be treated."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope))
        await (refusal or self._app)(scope, receive, answer)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            name = None
        if name not in (HOST, "localhost", "::1"):
            return PlainTextResponse("This page answers to this machine only.", 421)
        first = scope["path"].split("/")[1].encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(first, self._token):
            return PlainTextResponse("Not the address that cutline site review gave.", 404)
        if scope["method"] in ("GET", "HEAD"):
            return None
        if headers.get("origin") != f"http://{host}" or headers.get(
            "sec-fetch-site", "same-origin"
        ) not in ("same-origin", "none"):
            return PlainTextResponse("Only the review page itself may change anything.", 403)
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            return PlainTextResponse("Too much, or of a length not said.", 413)
        return None
