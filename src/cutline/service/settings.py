"""What the service is told: by flags, or by environment variables named CUTLINE_SERVE_*."""

from __future__ import annotations

import ipaddress
import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args, get_type_hints

from cutline.errors import OptionError

PREFIX = "CUTLINE_SERVE_"
_UNITS_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}


def _setting(default: Any, help_: str, *, least: float | None = None) -> Any:
    return field(default=default, metadata={"help": help_, "least": least})


@dataclass(frozen=True)
class Settings:
    """How the service runs; each field's metadata holds its help text.

    A field `queue` is the flag `--queue` and the variable `CUTLINE_SERVE_QUEUE`; lists are
    separated by commas there.

    Raises:
        OptionError: a setting is out of its range.
    """

    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(8000, "Port; 0 is any that is free.", least=0)
    workers: int = _setting(1, "Processes, which share the threads.", least=1)
    model: str | None = _setting(
        None, "A name from `cutline models`, a bundle's folder, URL#NAME or hub:NAME."
    )
    engine: str = _setting("auto", "What runs the model: auto, onnxruntime or openvino.")
    threads: int | None = _setting(
        None, "Pictures worked on at once; by default one a core.", least=1
    )
    batch_size: int = _setting(16, "Captions told together, of whichever clients.", least=1)
    window_ms: float = _setting(
        500.0, "How long a picture may wait for others to be told with.", least=0
    )
    queue: int = _setting(256, "Pictures accepted and not yet answered; more get 503.", least=1)
    cache: int = _setting(4096, "Answers kept, by content and options; 0 shares none.", least=0)
    max_images: int = _setting(32, "Images in one request.", least=1)
    max_body_mb: float = _setting(32.0, "Size of a request's body, MB.", least=0.001)
    max_image_mb: float = _setting(16.0, "Size of one image, MB.", least=0.001)
    max_megapixels: float = _setting(
        64.0, "Pixels of one image by its header, millions.", least=0.001
    )
    max_video_s: float = _setting(
        300.0, "Length of one video, seconds; only its beginning is described.", least=0.1
    )
    max_video_megapixels: float = _setting(
        9.0, "Pixels of one frame of a video, millions.", least=0.001
    )
    max_videos: int = _setting(1, "Videos described at once; others wait.", least=1)
    max_pending_mb: float = _setting(
        512.0, "Bodies and fetched images held at once, MB; more get 503.", least=0.001
    )
    max_connections: int = _setting(1000, "Connections at once; more get 503.", least=1)
    upload_timeout_s: float = _setting(30.0, "How long a body may take to arrive.", least=0.001)
    header_timeout_s: float = _setting(10.0, "How long a request's headers may take.", least=0.001)
    fetch_timeout_s: float = _setting(10.0, "How long fetching one URL may take.", least=0.001)
    fetch: bool = _setting(True, "Whether images may be given by URL.")
    keys: tuple[str, ...] = _setting((), "API keys, any of which is asked for; none asks for none.")
    rate: str | None = _setting(None, 'Images for each key or address, such as "60/minute".')
    hosts: tuple[str, ...] = _setting((), "Host names answered to; by default loopback's, or all.")
    cors_origins: tuple[str, ...] = _setting((), "Origins of pages that may call the API.")
    trusted_proxies: tuple[str, ...] = _setting((), "Addresses whose X-Forwarded-For is believed.")
    shutdown_timeout_s: float = _setting(
        30.0, "How long accepted requests may take at the end.", least=0
    )
    log_format: str = _setting("auto", "Log lines: json, text, or auto, text for a terminal.")

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
        """Whether only this machine is served."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], chosen: Mapping[str, Any] | None = None
    ) -> Settings:
        """The settings that variables name; the others keep their defaults.

        Args:
            environment: all variables.
            chosen: settings that go before, such as flags.

        Raises:
            OptionError: a variable with the prefix is no setting, or does not fit it.
        """
        kinds = get_type_hints(cls)
        known = {PREFIX + each.name.upper(): each.name for each in fields(cls)}
        given: dict[str, Any] = {}
        for variable, text in environment.items():
            if not variable.startswith(PREFIX):
                continue
            if variable not in known:
                raise OptionError(f"got {variable}; expected one of {', '.join(known)}")
            given[known[variable]] = _parse(variable, text, kinds[known[variable]])
        return cls(**{**given, **(chosen or {})})

    def to_environment(self) -> dict[str, str]:
        """Variables that `from_environment` takes for these settings; defaults are left out."""
        return {
            PREFIX + each.name.upper(): _write(value)
            for each in fields(self)
            if (value := getattr(self, each.name)) != each.default
        }


def parse_rate(text: str) -> tuple[int, float]:
    """How many in how many seconds: "60/minute" is 60 in 60.

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
