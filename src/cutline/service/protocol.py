"""HTTP protocol with header timeouts, a connection limit and graceful draining."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cutline.service.problems import MEDIA_TYPE, ProblemError
from cutline.service.settings import Settings

log = logging.getLogger("cutline.serve")

LINGER_S = 1.0
"""How long a connection may still deliver a request that was under way at shutdown."""


class Connection(H11Protocol):
    """A client connection.

    In addition to Uvicorn's protocol it limits the time for request headers and the number of
    connections, responds to invalid HTTP with a problem, and finishes open requests at shutdown.
    """

    _timer: asyncio.TimerHandle | None = None
    _closing = False

    @property
    def _settings(self) -> Settings:
        settings: Settings = self.app_state["service"].settings
        return settings

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection and start the header timeout."""
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            self._refuse(
                ProblemError("busy", "Too many connections.", headers={"Retry-After": "1"})
            )
        else:
            self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timeout."""
        self._awaited()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process data; the header timeout starts with the first byte of a request."""
        if not self._busy and self._timer is None:
            self._await_headers()
        super().data_received(data)
        if self._busy:
            self._awaited()
            if self._closing:
                self._close_after()

    def send_400_response(self, msg: str) -> None:
        """Respond to invalid HTTP with a problem."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        error = sys.exception()
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            self._refuse(ProblemError("headers-too-large", "got larger headers than are accepted"))
        else:
            self._refuse(ProblemError("bad-request", f"got no valid HTTP: {error}"))

    def shutdown(self) -> None:
        """Finish requests that have begun or are under way, then close."""
        self._closing = True
        if self._busy:
            self._close_after()
        else:
            self.loop.call_later(LINGER_S, self._close_idle)

    @property
    def _busy(self) -> bool:
        """Whether a request is being processed."""
        return self.cycle is not None and not self.cycle.response_complete

    def _close_after(self) -> None:
        self.cycle.keep_alive = False
        self.scope["state"]["closing"] = True

    def _close_idle(self) -> None:
        if not self._busy and not self.transport.is_closing():
            super().shutdown()

    def _await_headers(self) -> None:
        self._timer = self.loop.call_later(self._settings.header_timeout_s, self.transport.close)

    def _awaited(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, problem: ProblemError) -> None:
        body = problem.response().body
        headers: list[tuple[str, Any]] = [
            ("Content-Type", MEDIA_TYPE),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *problem.headers.items(),
        ]
        client = self.client[0] if self.client else ""
        log.info("connection refused", extra={"code": problem.code, "client": client})
        for event in (
            h11.Response(status_code=problem.status, headers=headers),
            h11.Data(data=bytes(body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
