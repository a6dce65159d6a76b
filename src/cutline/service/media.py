"""The REST API for regions of images and for videos."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from cutline.boxes import Box
from cutline.errors import CutlineError, MissingExtraError
from cutline.regions.describe import RegionCaptioner
from cutline.regions.model import RegionOptions
from cutline.service import openapi
from cutline.service.disconnect import unless_gone
from cutline.service.openapi import FETCHING, GUARDED, PICTURE, UPLOAD, VIDEO
from cutline.service.problems import ProblemError, problem_of
from cutline.service.requests import read_regions, read_video
from cutline.service.schema import RegionsResponse, VideoOptionsModel
from cutline.service.service import ImageInput, Service
from cutline.video.describe import VideoRun, require_video
from cutline.video.model import Shot, VideoLimits, VideoOptions

router = APIRouter()

_KEEP_ALIVE_S = 10.0


@router.post(
    "/v1/regions",
    tags=["regions"],
    summary="Describe regions of an image",
    response_model=RegionsResponse,
    responses=openapi.problems(*GUARDED, *UPLOAD, *FETCHING, *PICTURE),
    openapi_extra=openapi.body("RegionForm", "RegionRequest"),
)
async def regions(request: Request) -> Response:
    """Find regions of an image, or take given boxes, and describe each with a phrase and a label.

    In a form, `boxes` holds boxes separated by semicolons.
    """
    began_s = time.monotonic()
    service: Service = request.state.service
    image, texts, fields = await read_regions(request, service.settings)
    options = RegionOptions(
        margin=fields.margin,
        max_regions=fields.max_regions,
        caption=fields.caption,
        limits=service.limits,
    )
    cost = len(texts) if texts else 1
    request.state.images = cost
    request.state.charge(cost)
    found = await unless_gone(request, _regions(service, image, texts, options))
    row = {name: value for name, value in found.to_dict().items() if name in _REGION_FIELDS}
    row["source"] = image.source
    row["took_ms"] = round((time.monotonic() - began_s) * 1e3, 1)
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), media_type="application/json")


_REGION_FIELDS = ("source", "width", "height", "caption", "regions", "groundings", "model")


async def _regions(
    service: Service, image: ImageInput, texts: list[str] | None, options: RegionOptions
) -> Any:
    captioner = service.captioner
    if not isinstance(captioner, RegionCaptioner):
        raise ProblemError("internal", f"{captioner.name} does not describe regions.")
    try:
        boxes = None if texts is None else [Box.parse(text) for text in texts]
        with service.reserve(1):
            async with service.content(image) as content, service.region_slots:
                return await asyncio.to_thread(captioner.regions, content, boxes, options)
    except CutlineError as error:
        raise problem_of(error) from error


@router.post(
    "/v1/videos",
    tags=["videos"],
    summary="Describe a video over time",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: `shot` for each shot with `start`, `end` and "
            "`caption`; `progress` with the seconds read; at last `end`, or `problem` with what is "
            "wrong, which may come after shots.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **openapi.problems(*GUARDED, *UPLOAD, *VIDEO),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": {"$ref": "#/components/schemas/VideoForm"}}
            },
        }
    },
)
async def videos(request: Request) -> Response:
    """Describe each shot of a video, as soon as it is known.

    Closing the connection stops the work.
    """
    service: Service = request.state.service
    name, content, fields = await read_video(request, service.settings)
    request.state.images = 1
    request.state.charge(1)
    captioner = service.captioner
    try:
        require_video()
    except MissingExtraError as error:
        raise ProblemError("no-video", str(error)) from error
    stream = _events(service, captioner, name, content, fields)
    first = await anext(stream)  # a full queue or a file that is no video is a plain problem

    async def events() -> AsyncIterator[bytes]:
        try:
            yield first
            async for event in stream:
                yield event
        finally:
            await stream.aclose()

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


async def _events(
    service: Service, captioner: Any, name: str, content: bytes, fields: VideoOptionsModel
) -> Any:
    """Server-sent events of one video.

    Raises:
        ProblemError: the queue is full, or nothing of the video can be read; before any event.
    """
    settings = service.settings
    limits = VideoLimits(
        max_bytes=settings.max_body_mb * 1e6,
        max_seconds=settings.max_video_s,
        max_pixels=int(settings.max_video_megapixels * 1e6),
    )
    options = VideoOptions(frames=fields.frames, summary=fields.summary, limits=limits)
    with service.reserve(1):
        async with service.video_slots:
            try:
                run = await asyncio.to_thread(VideoRun, captioner, content, options)
            except CutlineError as error:
                raise problem_of(error) from error
            async for event in _run(run, name, captioner.name):
                yield event


async def _run(run: VideoRun, name: str, model: str) -> Any:
    """Yield the events of a run on another thread; closing the generator stops the run."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[Shot | CutlineError | str] = asyncio.Queue()

    def put(item: Shot | CutlineError | str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(waiting.put_nowait, item)

    def work() -> None:
        summary = ""
        try:
            for shot in run.shots():
                put(shot)
            summary = run.summary()
            if run.error is not None:
                put(run.error)
        except CutlineError as error:
            put(error)
        finally:
            run.close()
            put(summary)

    thread = threading.Thread(target=work, name="cutline-video-events", daemon=True)
    thread.start()
    try:
        yield _event("start", {"source": name, "model": model})
        while True:
            try:
                item = await asyncio.wait_for(waiting.get(), _KEEP_ALIVE_S)
            except TimeoutError:
                yield _event("progress", {"seconds": round(run.seconds, 1)})
                continue
            if isinstance(item, Shot):
                yield _event("shot", item.to_dict())
            elif isinstance(item, CutlineError):
                yield _event("problem", problem_of(item).to_dict())
            else:
                found = {"duration": round(run.seconds, 3), "summary": item or None}
                yield _event("end", found)
                return
    finally:
        run.stop()


def _event(kind: str, content: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(content, ensure_ascii=False)}\n\n".encode()
