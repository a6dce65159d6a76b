"""SSRF checks: whether a connection to an address is allowed."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from cutline.http_retry import BUSY, GATEWAY

Resolve: TypeAlias = Callable[[str, int], Iterable[str]]
"""A name and a port to the addresses it has; raises OSError if there are none."""

TRANSIENT = frozenset({"dns", "connect", "timeout", "protocol"})
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
        192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24
        168.63.129.16/32 224.0.0.0/3 2001::/23 2001:db8::/32 2002::/16 3fff::/20""".split(),
    )
)
"""Not public: the special networks of the IANA registries, and the address at which a virtual
machine in Azure reaches its host."""
_NEVER = tuple(map(ipaddress.ip_network, "169.254.0.0/16 168.63.129.16/32 fe80::/10".split()))
"""Where cloud providers answer with credentials: no name makes these trusted."""
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


class Refusal(Exception):  # noqa: N818, it says no before anything went wrong
    """What becomes a FetchError, once it is clear for which URL and that no retry helps."""

    def __init__(
        self, code: str, reason: str, status: int = 0, wait_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.code, self.reason, self.status, self.wait_s = code, reason, status, wait_s

    @property
    def transient(self) -> bool:
        """Whether another attempt may help."""
        return self.code in TRANSIENT or self.status in BUSY | GATEWAY


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet.

    Not so are the special ones of the IANA registries, IPv6 outside of 2000::/3, and IPv6 that
    carries an IPv4 address (mapped, compatible, 6to4, Teredo, NAT64).
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if parsed.version == 6 and (parsed not in _GLOBAL_UNICAST or parsed.scope_id):
        return False
    special = any(parsed in network for network in _NOT_PUBLIC if network.version == parsed.version)
    return parsed.is_global and not special


@dataclass(frozen=True)
class PrivateHost:
    """A host that may be connected to although its addresses are not public.

    Attributes:
        name: as in a URL, lower case.
        port: of the URL that was trusted; the usual ports are allowed too.
        addresses: the only ones that it is trusted at.
    """

    name: str
    port: int
    addresses: frozenset[str]


def private_host(url: str, resolve: Resolve | None = None) -> PrivateHost | None:
    """The host of a URL that a person chose, with the addresses that it has now.

    Args:
        url: absolute, http or https.
        resolve: for names, instead of the system's resolver.

    Returns:
        None unless every address is a private one: a name with a public address among them is not
        trusted, since its owner could add the addresses of other people's machines.
    """
    try:
        parts = urlsplit(url)
        name, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return None
    port = port or (443 if parts.scheme == "https" else 80)
    addresses = [name] if is_address(name) else []
    if name and not addresses:
        with suppress(OSError):
            addresses = list((resolve or system_resolver)(name, port))
    if not addresses or any(is_public(each) or _is_never_trusted(each) for each in addresses):
        return None
    return PrivateHost(name, port, frozenset(addresses))


def _is_never_trusted(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(parsed in network for network in _NEVER if network.version == parsed.version)


class Clock(threading.local):
    """When the attempt that this thread makes must be over, seconds on the monotonic clock."""

    ends_s: float = 0.0

    def left_s(self) -> float:
        """Seconds left; raises TimeoutError if there are none."""
        left_s = self.ends_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("out of time")
        return left_s


class Backend:
    """How connections are made: an httpcore network backend."""

    def __init__(
        self,
        resolve: Resolve,
        clock: Clock,
        public_only: bool,
        trusted: PrivateHost | None = None,
    ) -> None:
        from httpcore import SyncBackend

        self._resolve = resolve
        self._clock = clock
        self._public_only = public_only
        self._trusted = trusted
        self._connect = SyncBackend().connect_tcp

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> _Stream:
        """Connect to one of a host's addresses, all of which must be allowed."""
        import httpcore

        addresses = self._addresses(host, port)
        for number, address in enumerate(addresses, start=1):
            left_s = self._clock.left_s()
            try:
                stream = self._connect(
                    address, port, timeout=left_s if number == len(addresses) else left_s / 2
                )
                return _Stream(stream, self._clock)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise Refusal("dns", f"{host} has no address")

    def _addresses(self, host: str, port: int) -> list[str]:
        """Where a host may be connected to: all it resolves to, or a refusal."""
        addresses = [host] if is_address(host) else self._resolved(host, port)
        if self._public_only:
            for address in addresses:
                if not (is_public(address) or self._is_trusted(host, address)):
                    raise Refusal(
                        "address", f"{host} is at {address}; expected a public address only"
                    )
        return addresses

    def _is_trusted(self, host: str, address: str) -> bool:
        trusted = self._trusted
        return trusted is not None and (
            host.lower() == trusted.name and address in trusted.addresses
        )

    def _resolved(self, host: str, port: int) -> list[str]:
        """Resolve within the time left; the system's resolver knows no limit of its own."""
        found: list[list[str] | Exception] = []

        def resolve() -> None:
            try:
                found.append(list(dict.fromkeys(self._resolve(host, port))))
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=resolve, daemon=True)
        thread.start()
        thread.join(self._clock.left_s())
        if not found:
            raise TimeoutError(f"{host} does not resolve in time")
        if isinstance(found[0], Exception):
            raise Refusal("dns", f"{host} has no address ({found[0]})") from found[0]
        return found[0]


class _Stream:
    """A connection whose every wait ends with the attempt: an httpcore network stream."""

    def __init__(self, stream: Any, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self.get_extra_info = stream.get_extra_info

    def close(self) -> None:
        """Close it, and wake whoever waits for it in another thread."""
        with suppress(OSError):
            self.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._stream.close()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = self._stream.read(max_bytes, self._clock.left_s())
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.left_s())

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> _Stream:
        secure = self._stream.start_tls(ssl_context, server_hostname, self._clock.left_s())
        return _Stream(secure, self._clock)


def system_resolver(host: str, port: int) -> Iterable[str]:
    """What the system says the addresses of a name are."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_address(host: str) -> bool:
    """Whether a host is an IP address in its usual spelling."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
