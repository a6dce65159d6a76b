"""The try page and its static files."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import Response

from cutline import templating as page
from cutline.service.problems import ProblemError
from cutline.service.schema import MAX_CONTEXT, MAX_URL

router = APIRouter(include_in_schema=False)

_CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src blob:; "
    "img-src 'self' blob: data: http: https:; "  # the picture behind a URL that one has typed
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_MEDIA = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


@router.head("/")
@router.get("/")
async def try_it(request: Request) -> Response:
    """The page itself; its pictures go to this service alone."""
    service = request.state.service
    settings = service.settings
    html = page.render(
        "try.html",
        model=service.captioner.name,
        fetch=settings.fetch,
        max_images=settings.max_images,
        max_image_mb=settings.max_image_mb,
        max_url=MAX_URL,
        max_context=MAX_CONTEXT,
    )
    headers = {"Content-Security-Policy": _CONTENT_SECURITY, "Cache-Control": "no-cache"}
    return Response(html, media_type="text/html", headers=headers)


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """A script or a style sheet."""
    if name not in ("look.css", "try.css", "try.js", "regions.js", "videos.js"):
        raise ProblemError("not-found", "There is no such file.")
    headers = {"Cache-Control": "no-cache"}
    return Response(_content(name), media_type=_MEDIA[name.partition(".")[2]], headers=headers)


@cache
def _content(name: str) -> str:
    if name == "look.css":
        return page.asset(name)
    return (files("cutline.service") / "static" / name).read_text(encoding="utf-8")
