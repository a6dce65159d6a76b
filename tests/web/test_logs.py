from __future__ import annotations

import json
import logging
import traceback

import pytest

from cutline.errors import BundleNotFoundError
from cutline.web.logs import log_to_stderr


@pytest.mark.parametrize("form", ["json", "text"])
def test_our_errors_at_the_start_are_a_line_and_others_a_traceback(
    form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cutline.serve", "uvicorn.error"):
        for attribute in ("handlers", "level", "propagate"):  # put back behind the test
            logger = logging.getLogger(name)
            monkeypatch.setattr(logger, attribute, getattr(logger, attribute))
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
