from __future__ import annotations

import json
import logging
import traceback

import pytest
import uvicorn

from cutline.errors import BundleNotFoundError
from cutline.service.logging import log_to_stderr


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cutline.serve", "uvicorn.error"):
        for attribute in ("handlers", "level", "propagate"):
            logger = logging.getLogger(name)
            monkeypatch.setattr(logger, attribute, getattr(logger, attribute))


@pytest.mark.parametrize("form", ["json", "text"])
def test_our_errors_at_the_start_are_a_line_and_others_a_traceback(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to_stderr(form)
    told = []
    for error in (BundleNotFoundError("got no such model; expected another"), ValueError("odd")):
        try:
            raise error
        except Exception:
            logging.getLogger("uvicorn.error").error(traceback.format_exc())
        line = capsys.readouterr().err.strip()
        told.append(json.loads(line)["event"] if form == "json" else line)
    assert told[0].endswith("got no such model; expected another")
    assert "Traceback" not in told[0]
    assert "Traceback" in told[1]


@pytest.mark.parametrize("form", ["json", "text"])
def test_private_fields_of_other_libraries_are_not_logged(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to_stderr(form)
    logging.getLogger("cutline.serve").warning("ready", extra={"_added_ns": 5, "status": 200})
    line = capsys.readouterr().err
    assert "status" in line
    assert "_added_ns" not in line


@pytest.mark.parametrize(
    ("host", "place"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")],
)
def test_the_server_tells_where_the_page_is_and_keeps_its_steps_to_itself(
    host: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to_stderr("text")
    config = uvicorn.Config("no:app", host, 8123, http="h11", log_config=None)
    config.load_app = lambda: None  # type: ignore[method-assign]
    config.load()
    server = uvicorn.Server(config)
    logger = logging.getLogger("uvicorn.error")
    logger.info("Started server process [%d]", 1)
    logger.info("Waiting for application startup.")
    server._log_started_message([])
    assert capsys.readouterr().err == f"cutline: Open http://{place}:8123/\n"
    logger.info("Shutting down")
    assert "Shutting down" in capsys.readouterr().err
    log_to_stderr("json")
    server._log_started_message([])
    assert json.loads(capsys.readouterr().err)["event"] == f"Open http://{place}:8123/"
