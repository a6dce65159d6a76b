"""The REST API: routes that parse, call the service and serialize."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from cutline.caption import Caption, CaptionOptions
from cutline.errors import OptionError
from cutline.fetch import Resolve
from cutline.options import SearchOptions
from cutline.service import media, openapi
from cutline.service import try_page as pages
from cutline.service.disconnect import unless_gone
from cutline.service.logging import log_to_stderr
from cutline.service.middleware import HEAD_TOO, RequestMiddleware
from cutline.service.openapi import ALWAYS, FETCHING, GUARDED, MODEL, PICTURE, PROBED, UPLOAD
from cutline.service.problems import KINDS, MODEL_SERVER, ProblemError
from cutline.service.requests import invalid, read_alt, read_captions, refuse_repeated
from cutline.service.schema import (
    MAX_URL,
    AltResponse,
    CaptionResponse,
    Health,
    ModelsResponse,
    Options,
    PageContext,
    ProblemsResponse,
    UrlQuery,
    WowmeResponse,
)
from cutline.service.server import end_with_parent
from cutline.service.service import ImageInput, ImageResult, Service
from cutline.service.settings import Settings
from cutline.site.decide import glossary
from cutline.site.decide.alt_text import WordingOptions
from cutline.site.model import Draft, ImageOccurrence

T = TypeVar("T")
router = APIRouter()


def create_app(
    settings: Settings | None = None, captioner: Any = None, *, resolve: Resolve | None = None
) -> FastAPI:
    """Create the service as an ASGI application.

    Args:
        settings: the settings of the service; None uses the defaults.
        captioner: any captioner; None loads the model from the settings at startup.
        resolve: resolves host names in URLs; None uses the system's resolver.
    """
    settings = settings or Settings()

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        service = Service(settings, captioner, resolve)
        try:
            await service.load()
            with _reload_on_hangup(service):
                yield {"service": service}
        finally:
            await service.close()

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=life)
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _field_problem)
    app.add_middleware(RequestMiddleware, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    app.include_router(router)
    app.include_router(media.router)
    app.include_router(pages.router)
    document = openapi.document(app, settings)
    app.openapi = lambda: document  # type: ignore[method-assign]
    return app


def from_environment() -> FastAPI:
    """Create the application from the variables CUTLINE_SERVE_*, for Uvicorn's `--factory`."""
    settings = Settings.from_environment(os.environ)
    log_to_stderr(settings.log_format)
    end_with_parent(settings.shutdown_timeout_s)
    sys.setswitchinterval(0.0005)  # keeps the latency of the event loop low
    return create_app(settings)


@contextlib.contextmanager
def _reload_on_hangup(service: Service) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def reload() -> None:
        tasks.add(task := loop.create_task(service.reload()))
        task.add_done_callback(tasks.discard)

    try:
        loop.add_signal_handler(signal.SIGHUP, reload)
    except (AttributeError, NotImplementedError, RuntimeError, ValueError):  # not the main thread
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    request.state.code = error.code
    return error.response()


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {400: "bad-request", 404: "not-found", 405: "method-not-allowed"}
    code = codes.get(error.status_code, "internal")
    headers = dict(error.headers or {})
    if code == "method-not-allowed":  # the framework lists the methods of one route only
        methods = set(request.app.openapi()["paths"].get(request.url.path, {}))
        if request.url.path in HEAD_TOO:
            methods.add("head")
        headers["Allow"] = ", ".join(sorted(map(str.upper, methods))) or headers["Allow"]
    return await _problem(request, ProblemError(code, KINDS[code].meaning, headers=headers))


async def _field_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _problem(request, invalid(error.errors(), UrlQuery))


@router.post(
    "/v1/captions",
    tags=["captions"],
    summary="Caption images",
    response_model=CaptionResponse,
    responses=openapi.problems(*GUARDED, *UPLOAD, *MODEL),
    openapi_extra=openapi.body("CaptionForm", "CaptionRequest"),
)
async def caption(request: Request) -> Response:
    """Caption one or many images: files in a form, or URLs and Base64 in JSON.

    The response has a result for each image, in order. An image that cannot be captioned has status
    `error` and a problem; the other images are captioned.
    """
    began_s = time.monotonic()
    service = _service(request)
    with service.incoming():
        images, options = await read_captions(request, service.settings)
    return await _captions(request, images, options, began_s)


@router.get(
    "/v1/captions",
    tags=["captions"],
    summary="Caption the image at a URL",
    response_model=CaptionResponse,
    responses=openapi.problems(*GUARDED, "invalid-request", *FETCHING, *PICTURE),
)
async def caption_url(request: Request, query: Annotated[UrlQuery, Query()]) -> Response:
    """Caption one image by URL, with the options of POST as parameters.

    If the image cannot be fetched or read, the response is a problem.
    """
    refuse_repeated(request)
    images = [ImageInput(query.url, url=query.url, context=query.context)]
    return await _captions(request, images, query, time.monotonic(), alone=True)


@router.get(
    "/wowme",
    tags=["captions"],
    summary="Caption the image at a URL, in the tutorial's form",
    response_model=WowmeResponse,
    responses=openapi.problems(*GUARDED, "invalid-request", *FETCHING, *PICTURE),
)
async def wowme(
    request: Request,
    image: Annotated[
        str,
        Query(min_length=1, max_length=MAX_URL, description="An http or https URL."),
    ],
) -> Response:
    """An alias of GET /v1/captions with the shortest response: the URL and its caption."""
    refuse_repeated(request)
    _charge(request, 1)
    service = _service(request)
    work = service.caption(
        service.captioner, [ImageInput(image, url=image)], CaptionOptions(labels=0)
    )
    [found] = await unless_gone(request, work)
    if isinstance(found, ProblemError):
        raise found
    assert found.caption is not None
    return _json({"image": image, "caption": found.caption.text})


@router.post(
    "/v1/alt",
    tags=["alt"],
    summary="Draft an alt text",
    response_model=AltResponse,
    responses=openapi.problems(*GUARDED, *UPLOAD, *FETCHING, *PICTURE),
    openapi_extra=openapi.body("AltForm", "AltRequest"),
)
async def alt(request: Request) -> Response:
    """Decide the purpose of an image on a page and draft its alt by the W3C decision tree.

    Decorative images get `""`, linked images the destination of the link, and informative images a
    caption in the vocabulary of the page. Charts and captions of low confidence are left to a
    person. An existing alt is kept.
    """
    began_s = time.monotonic()
    service = _service(request)
    image, page, alt_options = await read_alt(request, service.settings)
    _charge(request, 1)
    try:
        wording = WordingOptions(
            max_chars=alt_options.max_chars,
            threshold=alt_options.threshold,
            sentence=alt_options.sentence,
            glossary=glossary.parse(alt_options.glossary),
            context_nats=alt_options.context_nats,
        )
    except OptionError as error:
        raise ProblemError("invalid-request", str(error)) from error
    found = await unless_gone(request, service.alt(image, _occurrence(page), wording))
    assert found.draft is not None
    return _json(
        {
            **_draft(found.draft),
            "caption": None if found.caption is None else found.caption.text,
            "labels": list(found.draft.labels),
            "model": found.draft.model,
            "took_ms": _since_ms(began_s),
        }
    )


@router.get(
    "/v1/models",
    tags=["service"],
    summary="The loaded model",
    response_model=ModelsResponse,
    responses=openapi.problems(*GUARDED),
)
async def models(request: Request) -> Response:
    """The model: its name, its measured scores and its default search options."""
    captioner = _service(request).captioner
    model = {"name": captioner.name, "default": True, "search": asdict(captioner.search)}
    if (runtime := getattr(captioner, "runtime", None)) is not None:
        manifest = runtime.bundle.manifest
        model |= {
            "summary": manifest.summary,
            "licence": manifest.licence,
            "created": manifest.created,
            "vocabulary": manifest.vocabulary.size,
            "scores": manifest.scores,
        }
    return _json({"models": [model]})


@router.get(
    "/v1/problems",
    tags=["service"],
    summary="Every kind of problem",
    response_model=ProblemsResponse,
    responses=openapi.problems(*ALWAYS),
)
async def problems() -> Response:
    """The meaning of each problem `code`; codes are stable."""
    return _json({"problems": [{"code": code, **asdict(kind)} for code, kind in KINDS.items()]})


@router.get("/v1/openapi.json", include_in_schema=False)
async def description(request: Request) -> Response:
    """This API's description."""
    return _json(request.app.openapi())


@router.head("/healthz", include_in_schema=False)
@router.get(
    "/healthz",
    tags=["service"],
    summary="Liveness",
    response_model=Health,
    responses=openapi.problems(*PROBED),
)
async def healthz() -> Response:
    """Always ok while the process responds."""
    return _json({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    tags=["service"],
    summary="Readiness",
    response_model=Health,
    responses=openapi.problems(*PROBED, "not-ready"),
)
async def readyz(request: Request) -> Response:
    """Ok once the model is loaded and until the service shuts down."""
    if not _service(request).ready or getattr(request.state, "closing", False):
        raise ProblemError("not-ready", KINDS["not-ready"].meaning)
    return _json({"status": "ok"})


@router.get(
    "/metrics",
    tags=["service"],
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **openapi.problems(*ALWAYS, "unauthorized"),
    },
)
async def metrics(request: Request) -> Response:
    """Requests, latency, images, the queue, batches, errors and the cache."""
    return Response(_service(request).metrics.text(), media_type="text/plain; version=0.0.4")


async def _captions(
    request: Request,
    images: Sequence[ImageInput],
    options: Options,
    began_s: float,
    *,
    alone: bool = False,
) -> Response:
    """The response for some images; with `alone`, a problem of the one image is the response.

    The first problem is also the response if the model's server fails on every image.
    """
    service = _service(request)
    _charge(request, len(images))
    captioner = service.captioner
    chosen = _caption_options(options, captioner.search)
    work = service.caption(captioner, images, chosen, drafts=options.alt)
    found = await unless_gone(request, work)
    problems = [each for each in found if isinstance(each, ProblemError)]
    failed = len(problems) == len(found) and all(each.code in MODEL_SERVER for each in problems)
    if problems and (alone or failed):
        raise problems[0]
    for each in found:
        if isinstance(each, ProblemError):
            service.metrics.errors.labels(each.code).inc()
    results = [
        _result(*each, options) for each in zip(range(len(images)), images, found, strict=True)
    ]
    return _json({"model": captioner.name, "results": results, "took_ms": _since_ms(began_s)})


def _caption_options(options: Options, usual: SearchOptions) -> CaptionOptions:
    chosen: dict[str, Any] = {
        "beam_size": options.beam,
        "n_best": options.n_best if options.n_best > 1 else None,
        "length_penalty": options.length_penalty,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
    }
    chosen = {name: value for name, value in chosen.items() if value is not None}
    try:
        search = replace(usual, **chosen) if chosen else None
    except OptionError as error:
        raise ProblemError("invalid-request", str(error)) from error
    return CaptionOptions(search, options.labels)


def _result(
    index: int, image: ImageInput, found: ImageResult | ProblemError, options: Options
) -> dict[str, Any]:
    result: dict[str, Any] = {"index": index, "source": image.source}
    if isinstance(found, ProblemError):
        result |= {"status": "error", "caption": None, "score": None}
        return result | {"alternatives": [], "labels": [], "error": found.to_dict()}
    assert found.caption is not None
    caption = found.caption.to_dict()
    for name in ("status", "caption", "score", "alternatives", "labels", "kind"):
        result[name] = caption[name]
    if options.attention:
        result["attention"] = _attention(found.caption)
    if found.draft is not None:
        result["alt"] = _draft(found.draft)
    return result


def _attention(caption: Caption) -> dict[str, Any]:
    attention = caption.attention
    if attention is None:
        return {"grid": None, "words": [], "weights": []}
    return {
        "grid": list(attention.grid),
        "words": list(attention.words),
        "weights": [[round(weight, 4) for weight in row] for row in attention.weights.tolist()],
    }


def _draft(draft: Draft) -> dict[str, Any]:
    return {
        "purpose": draft.decision.purpose,
        "rule": draft.decision.rule,
        "evidence": draft.decision.evidence,
        "alt": draft.alt,
        "confidence": None if draft.confidence is None else round(draft.confidence, 4),
        "abstained": draft.abstained,
        "words": [{"word": word, "origin": origin} for word, origin in draft.words],
        "alternatives": list(draft.alternatives),
        "notes": list(draft.notes),
    }


def _occurrence(page: PageContext) -> ImageOccurrence:
    return ImageOccurrence(position=0, url=page.source, **page.model_dump())


def _service(request: Request) -> Service:
    service: Service = request.state.service
    return service


def _charge(request: Request, images: int) -> None:
    """Count images against their client's rate limit."""
    request.state.images = images
    request.state.charge(images)


def _since_ms(began_s: float) -> float:
    return round((time.monotonic() - began_s) * 1e3, 1)


def _json(content: Any) -> Response:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), media_type="application/json")
