"""Settings of the service: flags, or environment variables named CUTLINE_SERVE_*."""

from __future__ import annotations

import ipaddress
import math
import re
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args, get_type_hints

from cutline.errors import OptionError

PREFIX = "CUTLINE_SERVE_"
RENAMED = {"CUTLINE_SERVE_WINDOW_MS": "CUTLINE_SERVE_MAX_BATCH_WAIT_MS"}
_UNITS_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}


def _setting(default: Any, help_: str, *, least: float | None = None) -> Any:
    return field(default=default, metadata={"help": help_, "least": least})


@dataclass(frozen=True)
class Settings:
    """Settings of the service; each field's metadata holds its help text.

    The field `queue` is the flag `--queue` and the variable `CUTLINE_SERVE_QUEUE`, in which commas
    separate the items of a list.

    Raises:
        OptionError: a setting is out of its range.
    """

    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(8000, "Port; 0 picks a free one.", least=0)
    workers: int = _setting(1, "Worker processes; they share the threads.", least=1)
    model: str | None = _setting(
        None, "A name from `cutline models`, a bundle's folder, URL#NAME or hub:NAME."
    )
    engine: str = _setting(
        "auto", "Inference engine: auto, onnxruntime, openvino or openvino:float32."
    )
    threads: int | None = _setting(
        None, "Images processed at once; by default one for each core.", least=1
    )
    batch_size: int = _setting(16, "Maximum decode batch, across clients.", least=1)
    max_batch_wait_ms: float = _setting(
        500.0, "Maximum time an encoded image waits for its batch, milliseconds.", least=0
    )
    queue: int = _setting(256, "Maximum images in the queue; further requests get 503.", least=1)
    cache: int = _setting(4096, "Maximum results in the cache; 0 disables it.", least=0)
    max_images: int = _setting(32, "Maximum images in one request.", least=1)
    max_body_mb: float = _setting(32.0, "Maximum size of a request body, MB.", least=0.001)
    max_image_mb: float = _setting(16.0, "Maximum size of one image, MB.", least=0.001)
    max_megapixels: float = _setting(
        64.0, "Maximum size of one image, megapixels, from its header.", least=0.001
    )
    max_video_s: float = _setting(
        300.0, "Maximum length of a video, seconds; the rest is not described.", least=0.1
    )
    max_video_megapixels: float = _setting(
        9.0, "Maximum size of a video frame, megapixels.", least=0.001
    )
    max_videos: int = _setting(1, "Maximum videos processed at once; others wait.", least=1)
    max_pending_mb: float = _setting(
        512.0,
        "Maximum memory for request bodies and fetched images, MB; more get 503.",
        least=0.001,
    )
    max_connections: int = _setting(1000, "Maximum number of connections; more get 503.", least=1)
    upload_timeout_s: float = _setting(30.0, "Timeout for a request body, seconds.", least=0.001)
    header_timeout_s: float = _setting(10.0, "Timeout for request headers, seconds.", least=0.001)
    fetch_timeout_s: float = _setting(10.0, "Timeout for fetching one URL, seconds.", least=0.001)
    fetch: bool = _setting(True, "Accept images by URL.")
    keys: tuple[str, ...] = _setting(
        (), "Accepted API keys. If empty, no authentication is required."
    )
    rate: str | None = _setting(None, 'Rate limit: images per key or address, such as "60/minute".')
    hosts: tuple[str, ...] = _setting(
        (), "Accepted host names; by default loopback names on a loopback address, else all."
    )
    cors_origins: tuple[str, ...] = _setting((), "Origins whose pages may call the API.")
    trusted_proxies: tuple[str, ...] = _setting(
        (), "Addresses of proxies whose X-Forwarded-For is trusted."
    )
    shutdown_timeout_s: float = _setting(
        30.0, "Maximum time to finish accepted requests at shutdown, seconds.", least=0
    )
    log_format: str = _setting("auto", "Log format: json, text, or auto: text on a terminal.")

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for each in fields(self):
            value, least = getattr(self, each.name), each.metadata["least"]
            if least is not None and value is not None and not least <= value < math.inf:
                raise OptionError(f"got {each.name} {value}; expected at least {least:g}")
        if self.port > 65_535:
            raise OptionError(f"got port {self.port}; expected at most 65535")
        if not all(re.fullmatch(r"[!-+\--~]{16,}", key) for key in self.keys):
            raise OptionError(
                "got an API key that is short or has odd characters; expected at least 16, ASCII, "
                "without blanks and commas; openssl rand -hex 16 makes one"
            )
        if self.queue < self.max_images:
            raise OptionError(f"got queue {self.queue}; expected at least max_images")
        if self.rate is not None:
            parse_rate(self.rate)
        if self.log_format not in ("auto", "json", "text"):
            raise OptionError(f"got log_format {self.log_format!r}; expected auto, json or text")

    @property
    def loopback(self) -> bool:
        """Whether the service can be reached from this machine only."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], chosen: Mapping[str, Any] | None = None
    ) -> Settings:
        """Read settings from environment variables; the others keep their defaults.

        Args:
            environment: all variables.
            chosen: settings that take precedence, such as flags.

        Raises:
            OptionError: a variable with the prefix names no setting, or its value does not fit.
        """
        kinds = get_type_hints(cls)
        known = {PREFIX + each.name.upper(): each.name for each in fields(cls)}
        given: dict[str, Any] = {}
        for variable, text in environment.items():
            if not variable.startswith(PREFIX):
                continue
            if variable in RENAMED:
                new = RENAMED[variable]
                warnings.warn(
                    f"{variable} is deprecated; set {new} instead", FutureWarning, stacklevel=2
                )
                if new in environment:
                    continue
                variable = new
            if variable not in known:
                raise OptionError(f"got {variable}; expected one of {', '.join(known)}")
            given[known[variable]] = _parse(variable, text, kinds[known[variable]])
        return cls(**{**given, **(chosen or {})})

    def to_environment(self) -> dict[str, str]:
        """Variables that `from_environment` reads as these settings, all that are not None.

        Defaults are among them, so that they replace variables that a flag has overridden.
        """
        return {
            PREFIX + each.name.upper(): _write(value)
            for each in fields(self)
            if (value := getattr(self, each.name)) is not None
        }


def help_of(name: str) -> str:
    """A setting's help text, with its default where that says something."""
    [field_] = [each for each in fields(Settings) if each.name == name]
    text: str = field_.metadata["help"]
    default = field_.default
    if isinstance(default, bool) or default in (None, ()) or "by default" in text:
        return text
    shown = f"{default:g}" if isinstance(default, float) else default
    return f"{text} Default: {shown}."


def parse_rate(text: str) -> tuple[int, float]:
    """Parse a rate: "60/minute" is 60 in 60 seconds.

    Raises:
        OptionError: it is no rate.
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(second|minute|hour|day)s?\s*", text)
    if match is None or int(match[1]) < 1:
        raise OptionError(f"got rate {text!r}; expected one such as 60/minute")
    return int(match[1]), _UNITS_S[match[2]]


def _parse(variable: str, text: str, kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        [kind] = [each for each in get_args(kind) if each is not types.NoneType]
    if kind is str:
        return text
    if kind is bool:
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off"):
            return False
        raise OptionError(f"got {variable}={text!r}; expected true or false")
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            raise OptionError(f"got {variable}={text!r}; expected a number") from error
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _write(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
