"""Log lines as JSON or text; captions and the sources of images are never logged."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

# After a failed start Starlette logs the whole traceback as the message.
_OURS = re.compile(r"Traceback .*\ncutline\.errors\.\w+: ([^\n]+)\n?", re.DOTALL)

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


# Messages of Uvicorn about its own processes, which are omitted.
_INSIDE = re.compile(r"(Started|Finished) server process|(Waiting for a|A)pplication (start|shut)")


def _worth_reading(record: logging.LogRecord) -> bool:
    return not _INSIDE.match(str(record.msg))


def _page(record: logging.LogRecord) -> str | None:
    """The URL of the page, if this record says that the server listens."""
    if not str(record.msg).startswith("Uvicorn running on %s:"):
        return None
    assert isinstance(record.args, tuple)
    scheme, host, port = record.args
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(host), str(host))
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


class _Lines(logging.Formatter):
    def __init__(self, form: str) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        fields = {  # other libraries, such as Ray, add private fields to every record
            name: value
            for name, value in vars(record).items()
            if name not in _USUAL and not name.startswith("_")
        }
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event = record.getMessage()
        if ours := _OURS.fullmatch(event):
            event = ours[1]
        if page := _page(record):
            event = f"Open {page}"
            if self._form == "text":
                return f"cutline: {event}"
        error = self.formatException(record.exc_info) if record.exc_info else ""
        if self._form == "json":
            line = {"time": time, "level": record.levelname.lower(), "event": event}
            return json.dumps(line | fields | ({"error": error} if error else {}), default=str)
        words = " ".join(f"{name}={value}" for name, value in fields.items())
        text = f"{time} {record.levelname.lower()} {event} {words}".rstrip()
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
        return f"{text}\n{error}" if error else text


def log_to_stderr(form: str) -> None:
    """Send the log of the service and of Uvicorn to standard error.

    Args:
        form: "json", "text", or "auto", which is text for a terminal.
    """
    if form == "auto":
        form = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(form))
    handler.addFilter(_worth_reading)
    for name in ("cutline.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
