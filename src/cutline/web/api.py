"""REST: parse, one call of the service, serialise."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from cutline.captioner import Caption, CaptionOptions
from cutline.errors import OptionError
from cutline.web.problems import KINDS, ProblemError
from cutline.web.schema import (
    MAX_NAME,
    MAX_URL,
    CaptionRequest,
    CaptionResponse,
    Health,
    ImageSource,
    ModelsResponse,
    Options,
    ProblemDetails,
    UrlQuery,
    WowmeResponse,
)
from cutline.web.service import Given, Service, rounded
from cutline.web.settings import Settings

T = TypeVar("T")
router = APIRouter()


def create_app(settings: Settings | None = None, captioner: Any = None) -> FastAPI:
    """The service as an ASGI application.

    Args:
        settings: how it runs; None is all defaults.
        captioner: what to caption with; None loads what the settings name when it starts.
    """
    settings = settings or Settings()

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service = Service(settings, captioner)
        app.state.service = service
        await service.load()
        try:
            yield
        finally:
            service.close()

    app = FastAPI(
        title="Cutline",
        version="1",
        summary="Turns pictures into words people can use.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
    )
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _field_problem)
    app.include_router(router)
    if find_spec("cutline.web.pages") is not None:
        app.include_router(import_module("cutline.web.pages").router)
    return app


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return error.response()


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "not-found", 405: "method-not-allowed", 400: "bad-request"}
    code = codes.get(error.status_code, "internal")
    return ProblemError(code, KINDS[code].meaning, headers=error.headers).response()


async def _field_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _invalid(error.errors()).response()


def _invalid(errors: Sequence[Any]) -> ProblemError:
    found = [
        {"where": ".".join(map(str, each["loc"])), "message": str(each["msg"])} for each in errors
    ]
    detail = "; ".join(f"{each['where']}: {each['message']}" for each in found[:3])
    return ProblemError(
        "invalid-request", f"got fields that do not fit: {detail}", errors=found[:20]
    )


@router.post("/v1/captions", response_model=CaptionResponse)
async def caption(request: Request) -> Response:
    """Caption pictures."""
    began_s = time.monotonic()
    service: Service = request.app.state.service
    given, options = await _read(request, service.settings)
    return await _unless_gone(request, _captions(service, given, options, began_s))


@router.get("/v1/captions", response_model=CaptionResponse)
async def caption_url(request: Request, query: Annotated[UrlQuery, Query()]) -> Response:
    """Caption the picture at a URL."""
    began_s = time.monotonic()
    service: Service = request.app.state.service
    given = [Given(query.url, url=query.url, context=query.context)]
    return await _unless_gone(request, _captions(service, given, query, began_s, alone=True))


@router.get("/wowme", response_model=WowmeResponse)
async def wowme(
    request: Request, image: Annotated[str, Query(min_length=1, max_length=MAX_URL)]
) -> Response:
    """Caption the picture at a URL, in the tutorial's form: an alias of GET /v1/captions."""
    service: Service = request.app.state.service

    async def answer() -> Response:
        [found] = await service.caption([Given(image, url=image)], CaptionOptions(labels=0))
        if isinstance(found, ProblemError):
            raise found
        return _json({"image": image, "caption": found.text})

    return await _unless_gone(request, answer())


@router.get("/v1/models", response_model=ModelsResponse)
async def models(request: Request) -> Response:
    """The model that is served."""
    captioner = request.app.state.service.captioner
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


@router.get("/v1/problems")
async def problems() -> dict[str, Any]:
    """Every kind of problem there is."""
    return {"problems": [{"code": code, **asdict(kind)} for code, kind in KINDS.items()]}


@router.get("/healthz", response_model=Health)
async def healthz() -> Response:
    """Whether the process answers."""
    return _json({"status": "ok"})


@router.get("/readyz", response_model=Health, responses={503: {"model": ProblemDetails}})
async def readyz(request: Request) -> Response:
    """Whether pictures can be captioned."""
    if not request.app.state.service.ready:
        raise ProblemError("not-ready", "No model is loaded yet; try again in a moment.")
    return _json({"status": "ok"})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(
        request.app.state.service.metrics.text(), media_type="text/plain; version=0.0.4"
    )


async def _captions(
    service: Service,
    given: Sequence[Given],
    options: Options,
    began_s: float,
    *,
    alone: bool = False,
) -> Response:
    model = service.captioner.name
    found = await service.caption(given, caption_options(options, service))
    if alone and isinstance(found[0], ProblemError):
        raise found[0]
    results = [_result(*each, options) for each in enumerate(zip(given, found, strict=True))]
    took_ms = round((time.monotonic() - began_s) * 1e3, 1)
    return _json({"model": model, "results": results, "took_ms": took_ms})


def caption_options(options: Options, service: Service) -> CaptionOptions:
    """The captioner's options for a client's.

    Raises:
        ProblemError: they contradict each other.
    """
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
        search = replace(service.captioner.search, **chosen) if chosen else None
    except OptionError as error:
        raise ProblemError("invalid-request", str(error)) from error
    return CaptionOptions(search, options.labels)


def _result(
    index: int, pair: tuple[Given, Caption | ProblemError], options: Options
) -> dict[str, Any]:
    given, found = pair
    result: dict[str, Any] = {"index": index, "source": given.source}
    if isinstance(found, ProblemError):
        return result | {
            "status": "error",
            "caption": None,
            "score": None,
            "alternatives": [],
            "labels": [],
            "error": found.to_dict(),
        }
    told = found.to_dict()
    result |= {
        name: told[name] for name in ("status", "caption", "score", "alternatives", "labels")
    }
    return result | {"attention": rounded(found)} if options.attention else result


async def _read(request: Request, settings: Settings) -> tuple[list[Given], Options]:
    """The pictures and options of a POST, whichever form it has."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return await _read_form(request, settings)
    if media_type == "application/json":
        return _read_json(await request.body(), settings)
    raise ProblemError(
        "media-type",
        f"got {media_type or 'no Content-Type'}; expected multipart/form-data or application/json",
    )


def _read_json(body: bytes, settings: Settings) -> tuple[list[Given], Options]:
    try:
        asked = CaptionRequest.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False, include_context=False)) from error
    _check_count(len(asked.images), settings)
    given = []
    for number, image in enumerate(asked.images):
        context = asked.options.context if image.context is None else image.context
        given.append(_given(number, image, context))
    return given, asked.options


def _given(number: int, image: ImageSource, context: str) -> Given:
    if image.url is not None:
        return Given(image.name or image.url, None, image.url, context)
    try:
        content = base64.b64decode(image.base64 or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid([{"loc": ("images", number, "base64"), "msg": "no Base64"}]) from error
    return Given(image.name or f"image {number + 1}", content, "", context)


async def _read_form(request: Request, settings: Settings) -> tuple[list[Given], Options]:
    parser = MultiPartParser(
        request.headers,
        request.stream(),
        max_files=settings.max_images,
        max_fields=len(Options.model_fields) + settings.max_images,
        max_part_size=64 * 1024,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many(settings) from error
        raise ProblemError(
            "bad-request", f"got multipart that cannot be read: {error.message}"
        ) from error
    try:
        fields: dict[str, Any] = {}
        files: list[UploadFile] = []
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name not in ("image", "images"):
                    raise _invalid([{"loc": (name,), "msg": "no such file field; expected image"}])
                files.append(value)
            elif name in fields:
                raise _invalid([{"loc": (name,), "msg": "given twice"}])
            else:
                fields[name] = value
        if not files:
            raise _invalid([{"loc": ("image",), "msg": "missing; expected at least one file"}])
        try:
            options = Options.model_validate(fields)
        except ValidationError as error:
            raise _invalid(error.errors(include_url=False, include_context=False)) from error
        given = [
            Given(
                (file.filename or f"image {number + 1}")[:MAX_NAME],
                await file.read(),
                "",
                options.context,
            )
            for number, file in enumerate(files)
        ]
        return given, options
    finally:
        await form.close()


def _check_count(count: int, settings: Settings) -> None:
    if count > settings.max_images:
        raise _too_many(settings)


def _too_many(settings: Settings) -> ProblemError:
    return ProblemError(
        "too-many-images",
        f"got more than {settings.max_images} images; expected at most so many in one request",
    )


def _json(content: Any) -> Response:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(text, media_type="application/json")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do the work; stop it when the client goes away, so that its place is free."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
