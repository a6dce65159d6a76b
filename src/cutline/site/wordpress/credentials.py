"""Application passwords, and the addresses to which they may be sent."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from cutline.errors import OptionError

USER_VARIABLE = "CUTLINE_WORDPRESS_USER"
PASSWORD_VARIABLE = "CUTLINE_WORDPRESS_PASSWORD"


@dataclass(frozen=True)
class Credentials:
    """A user's name and application password; the password is in no representation.

    Raises:
        OptionError: one of them is empty, or the name has a colon.
    """

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be sent."""
        if not self.user or ":" in self.user:
            raise OptionError(f"got user {self.user!r}; expected a WordPress user name or e-mail")
        if not self.password.strip():
            raise OptionError("got an empty application password; expected 24 letters and digits")

    @property
    def header(self) -> str:
        """The value of the Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    @classmethod
    def find(
        cls,
        user: str | None = None,
        password_file: Path | str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Credentials:
        """The credentials from arguments, a file or the environment.

        Args:
            user: the user's name; None takes `CUTLINE_WORDPRESS_USER`.
            password_file: a file whose only line is the application password; None takes
                `CUTLINE_WORDPRESS_PASSWORD`.
            environment: the environment variables.

        Raises:
            OptionError: the name or the password is missing, or the file cannot be read.
        """
        name = user or environment.get(USER_VARIABLE, "")
        if not name:
            raise OptionError(f"got no user; expected --user NAME, or {USER_VARIABLE}")
        if password_file is None:
            password = environment.get(PASSWORD_VARIABLE, "")
            if not password.strip():
                raise OptionError(
                    f"got no application password; expected --password-file FILE, or "
                    f"{PASSWORD_VARIABLE} (create one in WordPress under Users, Profile, "
                    "Application Passwords)"
                )
            return cls(name, password.strip())
        file = Path(password_file).expanduser()
        try:
            lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise OptionError(
                f"got the password file {file}: {why}; expected one line, the password"
            ) from error
        lines = [line for line in lines if line]
        if len(lines) != 1:
            raise OptionError(
                f"got the password file {file} with {len(lines)} lines; expected one, the password"
            )
        return cls(name, lines[0])


def site_address(url: str) -> str:
    """A site's address: https if it has no scheme, with a slash at the end, without a query.

    Raises:
        OptionError: it is no address to which a password may be sent, or contains a password.
    """
    url = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise OptionError(f"got {url!r}; expected the address of a WordPress site") from error
    if not host or parts.scheme not in ("http", "https"):
        raise OptionError(f"got {url!r}; expected the address of a WordPress site")
    if parts.username or parts.password:
        raise OptionError("got an address with a password; expected it in a file, not in the URL")
    check_transport(url)
    path = re.sub(r"/(?:wp-admin|wp-json|index\.php)(?:/.*)?\Z", "/", parts.path)
    netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    return urlunsplit((parts.scheme, netloc, path.rstrip("/") + "/", "", ""))


def is_safe(url: str) -> bool:
    """Whether a password may be sent to a URL: HTTPS, or this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    host = (parts.hostname or "").lower()
    if parts.scheme != "http":
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_transport(url: str) -> None:
    """Check that a password may be sent to a URL.

    Raises:
        OptionError: it is neither HTTPS nor on this machine.
    """
    if not is_safe(url):
        raise OptionError(
            f"got {origin(url)}; expected HTTPS, because the application password is sent only "
            "with HTTPS or to this machine"
        )


def origin(url: str) -> str:
    """The scheme, host and port of a URL."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{parts.scheme}://{(parts.hostname or '').lower()}{port}"
