"""Classification of error responses: which fail the image, which end the run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from cutline.backends.retry import is_busy, is_transient


class Failure(Enum):
    """What follows from an error response."""

    REFUSED = auto()
    """The model or a filter declines this image."""
    NO_VISION = auto()
    """The model accepts no images; the run ends."""
    ACCESS = auto()
    """The key is missing or wrong, or the account cannot pay; the run ends."""
    NO_MODEL = auto()
    """The server does not have the model; the run ends."""
    NO_PATH = auto()
    """There is no chat API at this path; another root may have it."""
    QUOTA = auto()
    """A quota is used up that no short wait restores; the run ends."""
    TOO_LARGE = auto()
    """The image is too large; a smaller one may do."""
    BUSY = auto()
    """The server asks to come back later; the whole run slows down."""
    TRANSIENT = auto()
    """The server failed; the same request may succeed in a moment."""
    REJECTED = auto()
    """The server rejects this request, perhaps for one of its optional parameters."""


@dataclass(frozen=True)
class ErrorResponse:
    """An error response, or an error stated inside a response with status 200.

    Attributes:
        status: the HTTP status.
        message: the server's own words on one line.
        retry_after_s: how long it asks to wait, seconds; None if it does not say.
        body: the response's body, which may name the parameters that it refuses.
    """

    status: int
    message: str
    retry_after_s: float | None = None
    body: bytes = b""


_CONTENT = re.compile(
    r"content[_ ]?(?:policy|management policy|filter)|responsible_?ai|safety system|moderation"
    r"|flagged"
    r"|prohibited (?:use|content)|violat\w+ (?:our |the )?(?:usage |content |safety )?polic"
    r"|not allowed by our safety|inappropriate content|data_inspection_failed|blocked (?:by"
    r"|due to|for) "
    r"(?:safety|content)|sensitive (?:content|words)|image_safety",
    re.IGNORECASE,
)
_VISION = re.compile(
    r"image input (?:is )?not supported|(?:does|do)(?:es)?(?: not"
    r"|n['’]t) support (?:the )?(?:image|vision|multi"
    r"|visual)|image(?:_url|s)? (?:is|are) (?:not supported|only supported by)"
    r"|not (?:a )?multi-?modal"
    r"|at most 0 image|no endpoints found that support image|unknown variant `?image_url"
    r"|content['\"`]? must be a string|expected (?:a )?string.{0,40}content"
    r"|vision (?:is )?not (?:supported|enabled)"
    r"|mmproj|(?:no|without|missing) (?:vision|multimodal|image) (?:support|projector|capabilit)"
    r"|not support (?:image|vision|multimodal)|cannot (?:process|read|accept) images\b"
    r"|text-only model"
    r"|image_url is only supported|only supports text|is not a vision model"
    r"|unsupported content type.{0,20}image",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"api[_ -]?key (?:not valid|not found|is (?:missing|invalid|required)|invalid|missing|expired)"
    r"|invalid[_ ](?:api[_ -]?key|authentication|token)|incorrect api key|unauthori[sz]ed"
    r"|authentication (?:failed"
    r"|error|required)|pass a valid api key|no auth credentials|permission[_ ]denied"
    r"|billing (?:hard|has not)",
    re.IGNORECASE,
)
_MODEL = re.compile(
    r"no endpoints found|model[_ ]not[_ ](?:found|exist\w*|available|loaded)|(?:no|unknown"
    r"|invalid|unsupported) model\b"
    r"|models?\b.{0,120}?(?:not found|does(?: not|n['’]t) exist|not exist|is not (?:a )?valid"
    r"|was not found"
    r"|not available|not loaded|no longer|has been (?:deprecated|removed|decommissioned)"
    r"|unavailable for"
    r"|is not supported for|is not installed|could not be found|cannot be found)"
    r"|no models? (?:is |are )?loaded"
    r"|invalid model|(?:pull|load) (?:it|the model|a model) first|no such model",
    re.IGNORECASE | re.DOTALL,
)
_QUOTA = re.compile(
    r"per[- ]?day|daily|insufficient[_ ](?:quota|balance|credits|funds)"
    r"|exceeded your current quota|billing"
    r"|out of credits|more credits|credit balance|monthly|payment required",
    re.IGNORECASE,
)
_LARGE = re.compile(
    r"too large|payload|exceeds? (?:the )?(?:maximum|max|limit|available context|context)"
    r"|context (?:length|size"
    r"|window)|too many tokens|maximum (?:image|size|allowed size)|image (?:size|dimensions?"
    r"|exceeds)"
    r"|prompt is too long|input (?:is )?too long|larger than",
    re.IGNORECASE,
)
_NO_PATH = re.compile(r"a web page|unexpected endpoint|unknown (?:path|route|endpoint)", re.I)
"""What programs answer with status 200 at a path that is not their API's."""


def classify(error: ErrorResponse) -> Failure:
    """What an error response means; optional parameters are not looked at here."""
    status, words = error.status, error.message
    stated = error.body[:4000].decode("utf-8", "replace") if error.body[:1] in (b"{", b"[") else ""
    if status in (200, 400, 403, 422, 451, 500) and _CONTENT.search(f"{words} {stated}"):
        return Failure.REFUSED
    if _VISION.search(words):
        return Failure.NO_VISION
    if status in (401, 402, 403, 407) or (status in (200, 400, 500) and _KEY.search(words)):
        return Failure.ACCESS
    if (
        status in (200, 400, 404, 410, 422, 500)
        and _MODEL.search(words)
        and not _LARGE.search(words)
    ):
        return Failure.NO_MODEL
    if status in (404, 405, 410) or 300 <= status < 400:
        return Failure.NO_PATH
    if status == 200 and _NO_PATH.search(words):
        return Failure.NO_PATH
    if status in (402, 429) and _QUOTA.search(words) and error.retry_after_s is None:
        return Failure.QUOTA
    if status == 413 or (status in (200, 400, 422, 500) and _LARGE.search(words)):
        return Failure.TOO_LARGE
    if is_busy(status, words):
        return Failure.BUSY
    if is_transient(status, words):
        return Failure.TRANSIENT
    return Failure.REJECTED
