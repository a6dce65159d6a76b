"""Problem details (RFC 9457) with a stable code for each kind."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from cutline.errors import (
    CutlineError,
    ImageError,
    ImageFormatError,
    ImageTooLargeError,
    OptionError,
    RefusalError,
    ServerBusyError,
    ServerError,
    VideoError,
    VideoFormatError,
    VideoTooLargeError,
)
from cutline.http_retry import BUSY

_UNAVAILABLE = BUSY | {504}
_RETRY_S = 10.0
_LONGEST_RETRY_S = 86_400.0
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Kind:
    """One kind of problem: its HTTP status, its title, and what it means."""

    status: int
    title: str
    meaning: str


KINDS: Mapping[str, Kind] = {
    "bad-request": Kind(400, "Bad request", "The request is not valid HTTP, JSON or multipart."),
    "unauthorized": Kind(401, "API key required", "The request has no valid API key."),
    "host-refused": Kind(
        403, "Host refused", "This service does not serve the host in the Host header."
    ),
    "url-refused": Kind(
        403,
        "URL refused",
        "The URL, or a URL it redirects to, resolves to an address that is not public.",
    ),
    "not-found": Kind(404, "Not found", "This path does not exist."),
    "method-not-allowed": Kind(
        405, "Method not allowed", "This path does not support this method; see the Allow header."
    ),
    "upload-too-slow": Kind(408, "Upload too slow", "The body did not arrive in time."),
    "body-too-large": Kind(413, "Body too large", "The request body exceeds the limit."),
    "image-too-large": Kind(
        413,
        "Image too large",
        "The image exceeds the limit in bytes, or in pixels by its header.",
    ),
    "too-many-images": Kind(413, "Too many images", "The request has more images than allowed."),
    "image-format": Kind(
        415, "Unsupported image format", "The file is not an image, or its format is not supported."
    ),
    "media-type": Kind(
        415, "Unsupported media type", "The body is neither multipart/form-data nor JSON."
    ),
    "invalid-request": Kind(
        422, "Invalid request", "A field is missing, unknown, or out of its range; see `errors`."
    ),
    "url-invalid": Kind(422, "Invalid URL", "The URL is malformed, or its host is not valid."),
    "image-corrupt": Kind(422, "Damaged image", "The image is empty, truncated or damaged."),
    "content-refused": Kind(
        422, "Content refused", "The model, or its server's filter, declines to describe the image."
    ),
    "rate-limited": Kind(
        429, "Too many requests", "This client exceeded the rate limit; see Retry-After."
    ),
    "headers-too-large": Kind(431, "Headers too large", "The request's headers are too large."),
    "internal": Kind(
        500, "Internal error", "The service failed; its log contains the request's id."
    ),
    "fetch-failed": Kind(
        502, "Fetch failed", "The URL could not be fetched, or its server returned an error."
    ),
    "model-failed": Kind(
        502, "Model failed", "The server that runs the model returned an error; see `detail`."
    ),
    "model-unavailable": Kind(
        503,
        "Model unavailable",
        "The server that runs the model is busy, limits the rate or does not respond; see "
        "Retry-After.",
    ),
    "busy": Kind(503, "Busy", "The queue is full; see Retry-After."),
    "not-ready": Kind(503, "Not ready", "No model is loaded yet, or the service is shutting down."),
    "video-too-large": Kind(
        413, "Video too large", "The video has more bytes, pixels or seconds than allowed."
    ),
    "video-format": Kind(
        415, "Unsupported video format", "The file is not a video, or its codec is not supported."
    ),
    "video-corrupt": Kind(422, "Damaged video", "The video is empty, truncated or damaged."),
    "no-video": Kind(501, "Videos not supported", "cutline[video] is not installed."),
    "fetch-timeout": Kind(504, "Fetch timed out", "The URL's server did not respond in time."),
}
"""All problem codes."""

MODEL_SERVER = frozenset({"content-refused", "model-failed", "model-unavailable"})
"""The codes of a model behind another server."""


class ProblemError(Exception):
    """A request, or one image of it, cannot be captioned.

    Args:
        code: one of `KINDS`.
        detail: what is wrong and what to do, for a person.
        errors: which fields, each with `where` and `message`.
        headers: for the answer.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        errors: list[dict[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = KINDS[code].status
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """Return the members of the problem's JSON object."""
        members: dict[str, Any] = {
            "type": f"/v1/problems#{self.code}",
            "title": KINDS[self.code].title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        return members if self.errors is None else {**members, "errors": self.errors}

    def response(self) -> Response:
        """Return the response to a request that ends with this problem."""
        content = json.dumps(self.to_dict(), ensure_ascii=False)
        return Response(content, self.status, self.headers, MEDIA_TYPE)


def problem_of(error: CutlineError) -> ProblemError:
    """Convert an error of Cutline to the problem that a client sees."""
    if isinstance(error, ImageError):
        code = "image-corrupt"
        if isinstance(error, ImageTooLargeError):
            code = "image-too-large"
        elif isinstance(error, ImageFormatError):
            code = "image-format"
        return ProblemError(code, error.reason)
    if isinstance(error, VideoError):
        code = "video-corrupt"
        if isinstance(error, VideoTooLargeError):
            code = "video-too-large"
        elif isinstance(error, VideoFormatError):
            code = "video-format"
        return ProblemError(code, error.reason)
    if isinstance(error, OptionError):
        return ProblemError("invalid-request", str(error))
    if isinstance(error, RefusalError):
        return ProblemError("content-refused", str(error))
    if isinstance(error, ServerError):
        unreachable = isinstance(error, ServerBusyError) and error.status == 0
        if unreachable or error.status in _UNAVAILABLE:
            wait_s = math.ceil(min(max(1.0, error.retry_after_s or _RETRY_S), _LONGEST_RETRY_S))
            headers = {"Retry-After": str(wait_s)}
            return ProblemError("model-unavailable", str(error), headers=headers)
        return ProblemError("model-failed", str(error))
    return ProblemError("internal", "The model failed on this image.")
