"""The OpenAPI document: the routes as FastAPI describes them, with forms, problems and limits."""

from __future__ import annotations

import importlib.metadata
from collections import defaultdict
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from cutline.fetch import FetchOptions
from cutline.service.problems import KINDS, MEDIA_TYPE
from cutline.service.schema import (
    AltOptions,
    AltRequest,
    CaptionRequest,
    Options,
    PageContext,
    ProblemDetails,
    RegionOptionsModel,
    RegionRequest,
    VideoOptionsModel,
)
from cutline.service.settings import Settings

_REFERENCE = "#/components/schemas/{model}"
PROBED = ("bad-request", "headers-too-large", "internal")
ALWAYS = (*PROBED, "host-refused")
GUARDED = (*ALWAYS, "unauthorized", "rate-limited", "busy", "not-ready")
FETCHING = ("url-invalid", "url-refused", "fetch-failed", "fetch-timeout")
MODEL = ("content-refused", "model-failed", "model-unavailable")
PICTURE = ("image-too-large", "image-format", "image-corrupt", *MODEL)
VIDEO = ("video-too-large", "video-format", "video-corrupt", "no-video")
UPLOAD = ("body-too-large", "upload-too-slow", "media-type", "too-many-images", "invalid-request")


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may return these problems."""
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in codes:
        by_status[KINDS[code].status].append(code)
    return {
        status: {
            "description": " ".join(f"`{code}`: {KINDS[code].meaning}" for code in found),
            "content": {
                MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(model="ProblemDetails")}}
            },
        }
        for status, found in sorted(by_status.items())
    }


def body(form: str, json: str) -> dict[str, Any]:
    """The `openapi_extra` of a route whose body is a form or JSON."""
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": {"$ref": _REFERENCE.format(model=form)}},
                "application/json": {"schema": {"$ref": _REFERENCE.format(model=json)}},
            },
        }
    }


def document(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """Build the document, with the limits of these settings."""
    schema = get_openapi(
        title="Cutline",
        version=importlib.metadata.version("cutline"),
        summary="Turns images into words people can use.",
        description=_description(settings),
        routes=app.routes,
        tags=[
            {"name": "captions", "description": "A sentence for every image."},
            {"name": "alt", "description": "Alt text for an image on a page."},
            {"name": "regions", "description": "Phrases for parts of an image."},
            {"name": "videos", "description": "Sentences for the shots of a video."},
            {"name": "service", "description": "Model, health and metrics."},
        ],
    )
    schemas = schema["components"]["schemas"]
    for model in (CaptionRequest, AltRequest, RegionRequest, ProblemDetails):
        _add(schemas, model)
    schemas["CaptionRequest"]["properties"]["images"]["maxItems"] = settings.max_images
    file = {
        "type": "string",
        "format": "binary",
        "description": f"An image file, at most {settings.max_image_mb:g} MB and "
        f"{settings.max_megapixels:g} megapixels.",
    }
    files = {"type": "array", "items": file, "minItems": 1, "maxItems": settings.max_images}
    schemas["CaptionForm"] = _form(
        "Files and options as a form.", {"image": files}, ["image"], Options
    )
    schemas["AltForm"] = _form(
        "A file, its page context and wording options as a form.",
        {"image": file},
        [],
        PageContext,
        AltOptions,
    )
    boxes = {"type": "string", "description": "X,Y,WIDTH,HEIGHT; several are separated by `;`."}
    schemas["RegionForm"] = _form(
        "A file, boxes and options as a form.",
        {"image": file, "boxes": boxes},
        ["image"],
        RegionOptionsModel,
    )
    video = {
        "type": "string",
        "format": "binary",
        "description": f"A video file, at most {settings.max_body_mb:g} MB and "
        f"{settings.max_video_s:g} seconds.",
    }
    schemas["VideoForm"] = _form(
        "A file and options as a form.", {"video": video}, ["video"], VideoOptionsModel
    )
    if settings.keys:
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"key": []}]
    return schema


def _form(
    description: str, own: dict[str, Any], required: list[str], *models: type[BaseModel]
) -> dict[str, Any]:
    properties = dict(own)
    for model in models:
        properties |= model.model_json_schema(ref_template=_REFERENCE)["properties"]
    for field in properties.values():  # a form has no null; the field is omitted
        if (choices := field.get("anyOf")) is not None:
            [choice] = [each for each in choices if each != {"type": "null"}]
            del field["anyOf"]
            field |= choice
        if field.get("default", "") is None:
            del field["default"]
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _add(schemas: dict[str, Any], model: type[BaseModel]) -> None:
    schema = model.model_json_schema(ref_template=_REFERENCE)
    schemas |= schema.pop("$defs", {})
    schemas[model.__name__] = schema


def _description(settings: Settings) -> str:
    limits = {
        "Body of a request": f"{settings.max_body_mb:g} MB, within {settings.upload_timeout_s:g} s",
        "Headers of a request": f"64 KiB, within {settings.header_timeout_s:g} s",
        "Images in a request": f"{settings.max_images}",
        "One image": f"{settings.max_image_mb:g} MB, {settings.max_megapixels:g} megapixels",
        "Images in the queue": f"{settings.queue}; more get 503 with Retry-After",
        "Memory for all images": f"{settings.max_pending_mb:g} MB; more get 503",
        "One video": f"{settings.max_body_mb:g} MB, {settings.max_video_s:g} s, "
        f"{settings.max_video_megapixels:g} megapixels; {settings.max_videos} at once",
        "Connections": f"{settings.max_connections}; more get 503",
        "Images by URL": f"{settings.fetch_timeout_s:g} s each, {FetchOptions.max_redirects} "
        "redirects, http and https, public hosts only"
        if settings.fetch
        else "none",
        "Rate": f"{settings.rate} images for each key or address" if settings.rate else "no limit",
        "API key": "required" if settings.keys else "not required",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in limits.items())
    return f"""Captions for images, and alt texts for images on pages.

Every error is a problem in the form of RFC 9457, `{MEDIA_TYPE}`, with a stable `code`;
`/v1/problems` lists them all. A request with several images returns 200 and a status for each
image, so that one damaged image does not affect the others. The first bytes of a file decide its
format, never its name.

| Limit | Here |
| --- | --- |
{table}
"""
