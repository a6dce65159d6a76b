"""Pictures in: a path, bytes, a Pillow image or an array becomes upright RGB, or one typed error.

Three decisions hold the file together:

- Readers are called by name, after a look at the first bytes; `PIL.Image.open` is not used. So a
  file's ending never matters, no reader outside the list below can be reached, and Pillow's own
  bomb check, a process-wide switch that cannot be set per thread, is not involved: the limits
  here are checked on the header, before a pixel is decoded.
- Pillow warns about metadata that Cutline never uses (stray TIFF and EXIF tags, animation chunks).
  Those two modules' `UserWarning`s are ignored once, on import; swapping filters around each call
  would race, since pictures are decoded in threads. No other warning is touched. Its log records
  still reach whoever configures logging, but not a bare terminal.
- Whatever a reader raises becomes one `ImageError` that names the picture.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import re
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import ExifTags, Image

from cutline.errors import (
    ImageCorruptError,
    ImageError,
    ImageFormatError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUnreadableError,
    OptionError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile
ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray"
"""Anything that holds a picture: a path, the bytes of a file, a Pillow image, an array."""
_READERS = {
    "JPEG": "JpegImagePlugin.JpegImageFile",
    "PNG": "PngImagePlugin.PngImageFile",
    "WebP": "WebPImagePlugin.WebPImageFile",
    "GIF": "GifImagePlugin.GifImageFile",
    "BMP": "BmpImagePlugin.BmpImageFile",
    "TIFF": "TiffImagePlugin.TiffImageFile",
    "AVIF": "AvifImagePlugin.AvifImageFile",
}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.(Tiff|Png)ImagePlugin$")
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Limits:
    """How much one picture may ask for before it is refused by its header."""

    max_pixels: int = 120_000_000
    """Pixels held in memory, at about four bytes each: 12,000 x 9,000 passes. A JPEG counts as it
    is decoded, reduced; a progressive one counts whole, since its coefficients are all held."""

    max_jpeg_pixels: int = 1_000_000_000
    """Pixels in a JPEG's header, however far it is reduced: it bounds the time, some seconds."""

    max_bytes: int = 1_000_000_000
    """Bytes in a file: some readers hold the whole of it."""


_DEFAULT_LIMITS = Limits()


def describe(source: object) -> str:
    """Name a source for a person: its path, or its kind and size."""
    if isinstance(source, bytes):
        return f"<bytes: {len(source)} B>"
    if isinstance(source, np.ndarray):
        return f"<array {'x'.join(map(str, source.shape))}>"
    if isinstance(source, Image.Image):
        return f"<image {source.width}x{source.height}>"
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    return f"<{type(source).__name__}>"


def load_image(
    source: ImageSource, *, around_px: int | None = None, limits: Limits = _DEFAULT_LIMITS
) -> Image.Image:
    """Read one picture as upright 8-bit RGB, its first frame, transparency over white.

    Files may be JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, or HEIC with the extra `cutline[heic]`.
    16-bit values keep their high byte; 32-bit and float files without a declared range are
    stretched between their darkest and brightest value.

    Args:
        source: a path, the bytes of a file, a Pillow image (its present frame), or an array
            HxW, HxWx1, HxWx3 or HxWx4 (RGB, alpha last) of uint8, uint16, bool, or float in 0..1.
        around_px: the side that is needed. A JPEG much larger is decoded at 1/2, 1/4 or 1/8, with
            neither side below it. None decodes in full, unless only a reduction fits the limits.
        limits: what is refused as too large.

    Returns:
        Mode RGB. A Pillow image that already is upright RGB comes back as the same object.

    Raises:
        ImageError: the one of its subclasses that says what is wrong.
        OptionError: `around_px` is less than 1.
    """
    if around_px is not None and around_px < 1:
        raise OptionError(f"got around_px={around_px}; expected at least 1 pixel")
    name = describe(source)
    if isinstance(source, bytes):
        return _decode(BytesIO(source), len(source), name, around_px, limits)
    if isinstance(source, np.ndarray):
        _check_pixels(source.shape[:2], limits.max_pixels, name)
        with _refusals(name, "array"):
            return _rgb(_from_array(source, name))
    if isinstance(source, Image.Image):
        if min(source.size) < 1:
            raise ImageFormatError(name, "got an image without pixels; expected at least 1 x 1")
        _check_pixels(source.size, limits.max_pixels, name)
        with _refusals(name, "image"):
            source.load()
            return _upright(_rgb(source), source)
    if isinstance(source, str | os.PathLike):
        with _open_file(name) as file:
            return _decode(file, os.fstat(file.fileno()).st_size, name, around_px, limits)
    raise ImageFormatError(
        name,
        f"got {type(source).__name__}; expected a path, bytes, a Pillow image or a NumPy array",
    )


def _open_file(name: str) -> IO[bytes]:
    """Open a regular file, and only that: opening a named pipe would wait for its writer."""
    if not name:
        raise ImageNotFoundError(name, "the path is empty")
    try:
        kind = Path(name).stat().st_mode
        if stat.S_ISDIR(kind) and not os.access(name, os.R_OK):
            raise ImageUnreadableError(name, "the system refuses to open this folder")
        if stat.S_ISDIR(kind):
            raise ImageFormatError(name, "is a folder; expected a picture")
        if not stat.S_ISREG(kind):
            raise ImageFormatError(name, "is a pipe, socket or device; expected a regular file")
        return Path(name).open("rb")
    except ImageError:
        raise
    except ValueError as error:
        raise ImageNotFoundError(name, "no file can have this name") from error
    except PermissionError as error:
        raise ImageUnreadableError(name, "the system refuses to open it") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ImageNotFoundError(name, "a link that leads in a circle") from error
        if error.errno == errno.ENAMETOOLONG:
            raise ImageNotFoundError(name, "no such file: the name is too long") from error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            broken = Path(name).is_symlink()
            reason = "a link that leads nowhere" if broken else "no such file"
            raise ImageNotFoundError(name, reason) from error
        raise ImageUnreadableError(name, f"cannot be opened: {error.strerror}") from error


def _decode(
    file: IO[bytes], size_bytes: int, name: str, around_px: int | None, limits: Limits
) -> Image.Image:
    if size_bytes == 0:
        raise ImageCorruptError(name, "the file is empty")
    if size_bytes > limits.max_bytes:
        raise ImageTooLargeError(
            name, f"got {size_bytes:,} bytes; expected at most {limits.max_bytes:,}"
        )
    with _refusals(name, "file"):
        head = file.read(512)
        file.seek(0)
    kind = _kind(head, name)
    max_pixels = limits.max_pixels
    if kind in ("GIF", "TIFF") and Image.MAX_IMAGE_PIXELS:
        # These two readers consult Pillow's own limit, and warn, while they decode.
        max_pixels = min(max_pixels, Image.MAX_IMAGE_PIXELS)
    with _refusals(name, kind):
        if kind == "GIF":
            _check_pixels(_gif_extent(file), max_pixels, name)
        with _reader(kind, name)(file) as image:
            if kind == "JPEG":
                _reduce(image, around_px, limits, name)
            _check_pixels(image.size, max_pixels, name)
            image.load()
            return _upright(_rgb(image), image)


def _kind(head: bytes, name: str) -> str:
    """Tell the format from a file's first bytes."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head[4:8] == b"ftyp":
        end = int.from_bytes(head[:4], "big")
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, min(end, len(head)), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & _HEIC_BRANDS:
            return "HEIC"
    if head.startswith(b"BM"):
        return "BMP"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    what, to_do = "its first bytes are of no picture format read here", "convert it, if it is one"
    if b"<svg" in text:
        what, to_do = "it is an SVG drawing", "convert it to one of them"
    elif text.startswith((b"<!doctype html", b"<html")):
        what, to_do = "it is a web page", "save the picture itself, not its page"
    elif text.startswith(b"%pdf"):
        what, to_do = "it is a PDF document", "convert its page to one of them"
    elif text and b"\0" not in text and all(byte >= 32 or byte in b"\t\r\n\f" for byte in text):
        what, to_do = "it is text", "name a picture instead"
    *formats, last = [*_READERS, *(["HEIC"] if importlib.util.find_spec("pillow_heif") else [])]
    expected = f"{', '.join(formats)} or {last}"
    raise ImageFormatError(name, f"{what}; expected a picture: {expected}; {to_do}")


def _reader(kind: str, name: str) -> type[ImageFile]:
    if kind == "HEIC":
        try:
            heif: type[ImageFile] = importlib.import_module("pillow_heif").HeifImageFile
        except ImportError as error:
            raise ImageFormatError(
                name, 'a HEIC picture needs an extra: pip install "cutline[heic]"'
            ) from error
        return heif
    module, _, reader = _READERS[kind].partition(".")
    found: type[ImageFile] = getattr(importlib.import_module(f"PIL.{module}"), reader)
    return found


def _gif_extent(file: IO[bytes]) -> tuple[int, int]:
    """Where a GIF's first frame ends, which may lie beyond the screen that its header declares."""
    screen = file.read(13)
    if screen[10] & 0x80:
        file.seek(3 << ((screen[10] & 7) + 1), os.SEEK_CUR)
    while (mark := file.read(1)) != b",":
        if mark in (b"", b";"):
            raise EOFError("no frame")
        if mark == b"!":
            file.seek(1, os.SEEK_CUR)
            while size := file.read(1)[0]:
                file.seek(size, os.SEEK_CUR)
    left, top, width, height = struct.unpack("<4H", file.read(8))
    file.seek(0)
    return left + width, top + height


def _reduce(image: ImageFile, around_px: int | None, limits: Limits, name: str) -> None:
    """Ask a JPEG reader for 1/2, 1/4 or 1/8 of its size, and refuse what cannot be helped so."""
    width, height = image.size
    if image.info.get("progressive"):
        _check_pixels(image.size, limits.max_pixels, name, "a progressive JPEG of ")
    _check_pixels(image.size, limits.max_jpeg_pixels, name)
    if around_px is not None:
        image.draft(None, (around_px, around_px))
    elif width * height > limits.max_pixels:
        by = next((by for by in (2, 4) if width * height <= by * by * limits.max_pixels), 8)
        image.draft(None, (max(1, width // by), max(1, height // by)))


def _check_pixels(size: tuple[int, ...], most: int, name: str, what: str = "") -> None:
    if len(size) == 2 and size[0] * size[1] > most:
        raise ImageTooLargeError(
            name,
            f"got {what}{size[0]:,} x {size[1]:,} pixels; expected at most {most:,} in all;"
            " make it smaller",
        )


def _rgb(image: Image.Image) -> Image.Image:
    """Turn any mode into 8-bit RGB."""
    if image.mode.startswith(("I", "F")):
        image = _eight_bit(image)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGB", over.size, "white")
        white.paste(over, mask=over)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.dtype.kind == "u":
        return Image.fromarray((values >> 8).astype(np.uint8))
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low):
        raise ValueError("it holds values that are not finite")
    if low >= 0:
        for full in (255, 65535) if values.dtype.kind == "i" else (1,):
            if high <= full:
                low, high = 0, full
                break
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / ((high - low) or 1))
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _upright(image: Image.Image, original: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(original.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata costs the turn, not the picture
        turn = None
    return image if turn is None else image.transpose(turn)


def _from_array(array: NDArray[np.generic], name: str) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        hint = "; move the channels last: array.transpose(1, 2, 0)"
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        raise ImageFormatError(
            name,
            f"got an array of shape {array.shape}; expected HxW, HxWx1, HxWx3 or HxWx4"
            + (hint if first else ""),
        )
    if array.size == 0:
        raise ImageFormatError(name, f"got an empty array of shape {array.shape}; expected pixels")
    if array.dtype == np.bool_:
        levels = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint8:
        levels = array.astype(np.uint8, copy=False)
    elif array.dtype == np.uint16:
        levels = (array.astype(np.uint16, copy=False) >> 8).astype(np.uint8)
    elif array.dtype.kind == "f":
        values = array.astype(np.float32)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise ImageFormatError(
                name,
                f"got floats from {low:g} to {high:g}; expected 0 to 1; divide by their largest",
            )
        levels = np.rint(values * 255).astype(np.uint8)
    else:
        raise ImageFormatError(
            name,
            f"got an array of {array.dtype}; expected uint8, uint16, bool, or float in 0..1;"
            " if its values are 0 to 255: array.astype(numpy.uint8)",
        )
    if levels.ndim == 3 and channels == 1:
        levels = levels[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(levels))


@contextmanager
def _refusals(name: str, kind: str) -> Iterator[None]:
    """Turn whatever a reader raises into the one error that says what is wrong."""
    try:
        yield
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = f"this {kind} needs more memory than it may have; make it smaller"
        raise ImageTooLargeError(name, reason) from error
    except OSError as error:
        if error.errno is None:
            raise _refusal(name, kind, error) from error
        raise ImageUnreadableError(name, f"cannot be read: {error.strerror}") from error
    except Exception as error:
        raise _refusal(name, kind, error) from error


def _refusal(name: str, kind: str, error: Exception) -> ImageError:
    detail = str(error)
    if re.search(
        r"unsupported|not supported|not installed|not available|unknown (pixel|data)", detail, re.I
    ):
        return ImageFormatError(name, f"a variant of {kind} without a reader here ({detail})")
    if "MAX_TEXT" in detail:
        return ImageTooLargeError(
            name, f"this {kind} holds too much text; save it without ({detail})"
        )
    cut = re.search(r"truncated|end of|eof|not enough", detail, re.I)
    if cut or isinstance(error, EOFError | IndexError | struct.error):
        return ImageCorruptError(name, f"this {kind} is cut short")
    if isinstance(error, KeyError) or not detail:
        detail = f"{type(error).__name__} {detail}".strip()
    return ImageCorruptError(name, f"this {kind} is damaged ({detail})")
