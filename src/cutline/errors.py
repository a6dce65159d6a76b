"""Exceptions: every exception class is also a subclass of the matching built-in exception.

CutlineError
├── ImageError (ValueError)                  one image cannot be read; `.source` says which
│   ├── ImageNotFoundError (FileNotFoundError)    no such file, or a broken link
│   ├── ImageUnreadableError (PermissionError)    there, but the system refuses to open it
│   ├── ImageFormatError                          not an image, or an unsupported format
│   ├── ImageCorruptError                         a truncated or damaged image; an empty file
│   └── ImageTooLargeError                        more pixels than allowed, known from the header
├── VideoError (ValueError)                  a video cannot be read; `.source` says which
│   ├── VideoNotFoundError (FileNotFoundError)    no such file
│   ├── VideoFormatError                          not a video, or a codec without a decoder
│   ├── VideoCorruptError                         cut short or damaged
│   └── VideoTooLargeError                        more bytes, pixels or seconds than allowed
├── OptionError (ValueError)                 an option out of its range
├── BundleError (ValueError)                 a model bundle is damaged or of an unknown kind
│   └── BundleNotFoundError (LookupError)         no bundle of that name or path
├── DataError (ValueError)                   a caption collection is missing or inconsistent
├── RecipeError (ValueError)                 a training recipe says something impossible
├── WeightsError (LookupError)               pretrained weights cannot be had, or do not fit
├── OutputError (OSError)                    results cannot be written
├── MetadataError (ValueError)             metadata of an image file cannot be read or written
├── FetchError (OSError)                     a URL cannot be had; `.code` says why
├── StoreError (OSError)                     a site's record is foreign, newer, damaged or in use
├── EngineError (RuntimeError)               an inference engine is missing or failed
│   └── ServerError                               a model's server failed, or its answer is unusable
│       ├── RefusalError                               the model declines to describe this image
│       └── ServerStoppedError                         no further request can succeed; the run ends
│           ├── ServerAccessError                          wrong key, no such model, no vision
│           ├── ServerBusyError                            rate limit, overload, unreachable
│           └── BudgetError                                --max-requests or --max-tokens-total
├── ParityError (RuntimeError)               an exported model disagrees with the trained one
└── MissingExtraError (ImportError)          an optional part is not installed
"""

from __future__ import annotations

from typing import Any


class CutlineError(Exception):
    """The root of the tree: catch this to catch them all.

    Attributes:
        code: a short, stable name of the kind of error, for programs.
    """

    code = "error"

    @property
    def message(self) -> str:
        """What is wrong; errors of images and videos leave out the source."""
        return str(self)

    def to_dict(self) -> dict[str, str]:
        """The "type", a class name, and the "message", as results in JSON have them."""
        return {"type": type(self).__name__, "message": self.message}

    def __reduce__(self) -> Any:
        """Pickle the error as it is: subclasses take other arguments than `args`."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[CutlineError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ImageError(CutlineError, ValueError):
    """One image cannot be read.

    Attributes:
        source: the path, or a short description of the bytes or array, that was refused.
    """

    code = "image"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason

    @property
    def message(self) -> str:
        """What is wrong, without the source."""
        return self.reason


class ImageNotFoundError(ImageError, FileNotFoundError):
    """There is no file at the path, or the link is broken."""

    code = "image-not-found"


class ImageUnreadableError(ImageError, PermissionError):
    """The file is there, but the system refuses to open or read it."""

    code = "image-unreadable"


class ImageFormatError(ImageError):
    """The bytes are no image, or one of a format that has no reader here."""

    code = "image-format"


class ImageCorruptError(ImageError):
    """The image is cut short or damaged, or the file is empty."""

    code = "image-corrupt"


class ImageTooLargeError(ImageError):
    """The header declares more pixels than allowed."""

    code = "image-too-large"


class VideoError(CutlineError, ValueError):
    """A video cannot be read.

    Attributes:
        source: the path, or a short description of the bytes.
        reason: the message without the source.
    """

    code = "video"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason

    @property
    def message(self) -> str:
        """What is wrong, without the source."""
        return self.reason


class VideoNotFoundError(VideoError, FileNotFoundError):
    """There is no such file."""

    code = "video-not-found"


class VideoFormatError(VideoError):
    """The file is no video, or its codec has no decoder."""

    code = "video-format"


class VideoCorruptError(VideoError):
    """The video is cut short or damaged."""

    code = "video-corrupt"


class VideoTooLargeError(VideoError):
    """The video has more bytes, pixels or seconds than allowed."""

    code = "video-too-large"


class OptionError(CutlineError, ValueError):
    """An option is out of its range."""

    code = "option"


class BundleError(CutlineError, ValueError):
    """A model bundle is damaged, incomplete or of an unknown kind."""

    code = "bundle"


class BundleNotFoundError(BundleError, LookupError):
    """No bundle has that name, and there is none at that path."""

    code = "bundle-not-found"


class DataError(CutlineError, ValueError):
    """A caption collection is missing or inconsistent."""

    code = "data"


class RecipeError(CutlineError, ValueError):
    """A training recipe is unreadable or says something impossible."""

    code = "recipe"


class WeightsError(CutlineError, LookupError):
    """The pretrained weights of a backbone cannot be had, or do not fit it."""

    code = "weights"


class OutputError(CutlineError, OSError):
    """Results cannot be written: a full disk, a missing folder, a foreign file."""

    code = "output"


class MetadataError(CutlineError, ValueError):
    """Metadata of an image file cannot be read or written.

    Attributes:
        source: the path of the file.
        reason: why, as a sentence without the path.
    """

    code = "metadata"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class FetchError(CutlineError, OSError):
    """A URL cannot be had, or may not be.

    Attributes:
        url: what was asked for.
        code: a short, stable word: scheme, url, address, port, credentials, dns, connect, tls,
            timeout, protocol, redirects, status, robots, too-large, not-an-image, closed; of local
            files and data URIs also outside, missing, unreadable, data.
        reason: a sentence without the URL.
        status: the HTTP status; 0 if there was none.
    """

    def __init__(self, url: str, code: str, reason: str, status: int = 0) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.code = code
        self.reason = reason
        self.status = status


class StoreError(CutlineError, OSError):
    """A site's record is some other file, of a newer Cutline, damaged, in use, or out of room."""

    code = "store"


class EngineError(CutlineError, RuntimeError):
    """An inference engine is missing, or failed on a model."""

    code = "engine"


class ServerError(EngineError):
    """A model's server failed on one image, or gave an answer that holds no caption.

    Attributes:
        status: the HTTP status, or the status that an error inside a 200 response states; 502 for
            a broken connection, 504 for a timeout, 0 if there is none.
        retry_after_s: how long the server asks clients to wait, seconds; None if it does not say.
    """

    code = "server"

    def __init__(self, message: str, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class RefusalError(ServerError):
    """The model, or its server's content filter, declines to describe an image."""

    code = "refusal"


class ServerStoppedError(ServerError):
    """No further request of this run can succeed; captions received so far are kept."""

    code = "server-stopped"


class ServerAccessError(ServerStoppedError):
    """The server rejects the key or the model, or the model does not accept images."""

    code = "server-access"


class ServerBusyError(ServerStoppedError):
    """The server is overloaded, limits the rate or cannot be reached, for longer than we wait."""

    code = "server-busy"


class BudgetError(ServerStoppedError):
    """The run reached its limit of requests or tokens."""

    code = "budget"


class ParityError(CutlineError, RuntimeError):
    """An exported model disagrees with the one that was trained."""

    code = "parity"


class MissingExtraError(CutlineError, ImportError):
    """An optional part of Cutline is not installed."""

    code = "missing-extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs an extra: pip install "cutline[{extra}]"')
        self.extra = extra
