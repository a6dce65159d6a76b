"""Parsing of request bodies: images, their page context and options."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from cutline.service.problems import ProblemError
from cutline.service.schema import (
    MAX_NAME,
    AltOptions,
    AltRequest,
    CaptionRequest,
    ImageSource,
    Options,
    PageContext,
    RegionOptionsModel,
    RegionRequest,
    VideoOptionsModel,
)
from cutline.service.service import ImageInput
from cutline.service.settings import Settings

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

_MAX_FIELD_BYTES = 32_768
_LARGE_BYTES = 200_000


async def read_captions(request: Request, settings: Settings) -> tuple[list[ImageInput], Options]:
    """Read the images and options of a request for captions.

    Raises:
        ProblemError: the body has an unsupported form or invalid fields.
    """
    if _is_form(request):
        fields, files = await _form(request, settings, settings.max_images)
        if not files:
            raise invalid([{"loc": ("image",), "msg": "missing; expected at least one file"}])
        with _validation(Options, "image"):
            options = Options.model_validate(fields)
        return [
            ImageInput(name, content, context=options.context) for name, content in files
        ], options
    body = await _json(request, CaptionRequest)
    if len(body.images) > settings.max_images:
        raise _too_many(settings.max_images)
    images = [
        await _image_input(
            f"images.{number}",
            f"image {number + 1}",
            image,
            body.options.context if image.context is None else image.context,
        )
        for number, image in enumerate(body.images)
    ]
    return images, body.options


async def read_alt(
    request: Request, settings: Settings
) -> tuple[ImageInput | None, PageContext, AltOptions]:
    """Read the image, its page context and the options of a request for an alt.

    Raises:
        ProblemError: as for `read_captions`.
    """
    if not _is_form(request):
        body = await _json(request, AltRequest)
        image = None if body.image is None else await _image_input("image", "image", body.image)
        return image, body.use, body.options
    fields, files = await _form(request, settings, 1)
    wording = {name: fields.pop(name) for name in AltOptions.model_fields if name in fields}
    with _validation(PageContext, "image", *AltOptions.model_fields):
        use, options = PageContext.model_validate(fields), AltOptions.model_validate(wording)
    return (ImageInput(*files[0]) if files else None), use, options


async def read_regions(
    request: Request, settings: Settings
) -> tuple[ImageInput, list[str] | None, RegionOptionsModel]:
    """The image, the boxes and the options of a request for regions.

    Raises:
        ProblemError: as for `read_captions`.
    """
    if not _is_form(request):
        body = await _json(request, RegionRequest)
        return await _image_input("image", "image", body.image), body.boxes, body.options
    fields, files = await _form(request, settings, 1)
    if not files:
        raise invalid([{"loc": ("image",), "msg": "missing; expected a file"}])
    text = fields.pop("boxes", None)
    boxes = None if text is None else [each for each in text.split(";") if each.strip()]
    with _validation(RegionOptionsModel, "image", "boxes"):
        return ImageInput(*files[0]), boxes or None, RegionOptionsModel.model_validate(fields)


async def read_video(request: Request, settings: Settings) -> tuple[str, bytes, VideoOptionsModel]:
    """The name and bytes of a video, and the options, of a form.

    Raises:
        ProblemError: as for `read_captions`.
    """
    if not _is_form(request):
        raise ProblemError("media-type", "got JSON; expected multipart/form-data")
    fields, files = await _form(request, settings, 1, ("video",))
    if not files:
        raise invalid([{"loc": ("video",), "msg": "missing; expected a file"}])
    with _validation(VideoOptionsModel, "video"):
        return *files[0], VideoOptionsModel.model_validate(fields)


def invalid(
    errors: Sequence[Any], model: type[BaseModel] = BaseModel, *others: str
) -> ProblemError:
    """Create the problem for invalid fields.

    Args:
        errors: the errors in the form of pydantic's `errors()`.
        model: the expected model; its fields are listed for an unknown field.
        others: expected fields that are not in the model.
    """
    found = []
    for each in errors[:20]:
        message = str(each["msg"])
        if each.get("type") == "extra_forbidden":
            names = [*others, *_part(model, each["loc"][:-1]).model_fields]
            message = f"no such field; expected one of {', '.join(names)}"
        where = ".".join(map(str, each["loc"])) or "body"
        found.append({"where": where[:200], "message": message[:500]})
    summary = "; ".join(f"{each['where']}: {each['message']}" for each in found[:3])
    return ProblemError("invalid-request", f"got invalid fields: {summary}", errors=found)


def _part(model: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel]:
    """The model at this location in a body."""
    for step in place:
        if isinstance(step, str) and step in model.model_fields:
            kind = model.model_fields[step].annotation
            for each in (kind, *get_args(kind)):
                if isinstance(each, type) and issubclass(each, BaseModel):
                    model = each
    return model


@contextmanager
def _validation(model: type[BaseModel], *others: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        if errors[0]["type"] == "json_invalid":
            raise ProblemError(
                "bad-request", f"got a body that cannot be read: {errors[0]['msg'][:500]}"
            ) from error
        raise invalid(errors, model, *others) from error


def refuse_repeated(request: Request) -> None:
    """Reject a query with a repeated parameter, because only one value would be used.

    Raises:
        ProblemError: a parameter is repeated.
    """
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if names.count(name) > 1:
            raise ProblemError(
                "bad-request", f"got {name[:100]!r} more than once; expected it once"
            )


def _is_form(request: Request) -> bool:
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise ProblemError(
            "media-type",
            f"got Content-Encoding {encoding[:50]}; expected a body that is not compressed",
        )
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in ("multipart/form-data", "application/json"):
        raise ProblemError(
            "media-type",
            f"got {media_type[:100] or 'no Content-Type'}; "
            "expected multipart/form-data or application/json",
        )
    return media_type == "multipart/form-data"


async def _json(request: Request, model: type[M]) -> M:
    body = (await request.body()).removeprefix(b"\xef\xbb\xbf")
    with _validation(model):
        return await _offload(len(body), lambda: model.model_validate_json(body, strict=True))


async def _image_input(where: str, name: str, image: ImageSource, context: str = "") -> ImageInput:
    if image.url is not None:
        return ImageInput(image.name or image.url, None, image.url, context)
    text = image.base64 or ""
    try:
        content = await _offload(len(text), lambda: _from_base64(text))
    except (binascii.Error, ValueError) as error:
        message = "not Base64 (RFC 4648, section 4); expected A-Z, a-z, 0-9, + and /, padded with ="
        raise invalid([{"loc": (where, "base64"), "msg": message}]) from error
    return ImageInput(image.name or name, content, "", context)


def _from_base64(text: str) -> bytes:
    """Decode Base64, which may have line breaks or the head of a data URI (RFC 2397)."""
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise ValueError("a data URI without base64")
    return base64.b64decode("".join(text.split()), validate=True)


class _FormParser(MultiPartParser):
    """Starlette's parser, but images need no file name, and a truncated form is an error."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ended = False

    def on_headers_finished(self) -> None:
        part = self._current_part
        _, options = parse_options_header(part.content_disposition)
        if options.get(b"name") in (b"image", b"images") and b"filename" not in options:
            part.content_disposition = (part.content_disposition or b"") + b'; filename=""'
        super().on_headers_finished()

    def on_end(self) -> None:
        self._ended = True

    async def parse(self) -> FormData:
        form = await super().parse()
        if not self._ended:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("it ends before its last boundary")
        return form


async def _form(
    request: Request,
    settings: Settings,
    most: int,
    names: tuple[str, ...] = ("image", "images"),
) -> tuple[dict[str, str], list[tuple[str, bytes]]]:
    """Read the fields, and the files by name."""
    known = {*Options.model_fields, *PageContext.model_fields, *AltOptions.model_fields}
    parser = _FormParser(
        request.headers,
        request.stream(),
        max_files=most,
        max_fields=len(known),
        max_part_size=_MAX_FIELD_BYTES,
    )
    parser.spool_max_size = int(settings.max_body_mb * 1e6)  # never spool images to disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many(most) from error
        raise ProblemError(
            "bad-request", f"got multipart that cannot be read: {error.message}"
        ) from error
    try:
        fields: dict[str, str] = {}
        files: list[tuple[str, bytes]] = []
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name not in names:
                    message = f"no form field for files; expected {names[0]}=@FILE"
                    raise invalid([{"loc": (name,), "msg": message}])
                source = (value.filename or f"{names[0]} {len(files) + 1}")[:MAX_NAME]
                files.append((source, await value.read()))
            elif name in fields:
                raise invalid([{"loc": (name,), "msg": "repeated; expected it once"}])
            else:
                fields[name] = value
        return fields, files
    finally:
        await form.close()


def _too_many(most: int) -> ProblemError:
    images = "1 image" if most == 1 else f"{most} images"
    return ProblemError(
        "too-many-images", f"got more than {images}; expected at most {images} in one request"
    )


async def _offload(size: int, work: Callable[[], T]) -> T:
    """Run the work, on a thread if it is large."""
    return await asyncio.to_thread(work) if size > _LARGE_BYTES else work()
