from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
from serving import Serve

from cutline.service.problems import KINDS

# A URL that leads nowhere is 502, a picture that is none 415 or 422; all are documented.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "502"]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "403", "413", "415", "422", "502"]
[checks.negative_data_rejection]
expected-statuses = ["400", "403", "404", "405", "413", "415", "422"]
# Any bytes are a valid file in a form, so an image that is no string is only a failed image.
[[operations]]
include-name = "POST /v1/captions"
checks.negative_data_rejection.enabled = false
"""


def nowhere(host: str, port: int) -> Iterable[str]:
    raise OSError("no such name")


def test_the_live_service_is_what_its_document_says(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with serve(resolve=nowhere) as url:
        run = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/v1/openapi.json"),
                *("--url", url, "--seed", "1", "--generation-database", "none"),
                *("--phases", "examples,coverage,fuzzing", "--max-examples", "10"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
    assert re.search(r"\b11 selected / 11 total|Selected: 11/11", run.stdout)


def test_every_limit_and_problem_is_in_the_document(serve: Serve) -> None:
    chosen: dict[str, Any] = {
        "max_images": 7,
        "max_body_mb": 3,
        "max_image_mb": 2.5,
        "max_megapixels": 5.5,
        "upload_timeout_s": 11,
        "header_timeout_s": 12,
        "fetch_timeout_s": 13,
        "queue": 99,
        "max_pending_mb": 501,
        "max_connections": 88,
        "rate": "77/minute",
    }
    with serve(**chosen) as url:
        told = httpx.get(f"{url}/v1/openapi.json").json()
    limits = told["info"]["description"].partition("| Limit |")[2]
    for value in chosen.values():
        assert str(value) in limits
    schemas = told["components"]["schemas"]
    assert schemas["CaptionRequest"]["properties"]["images"]["maxItems"] == 7
    assert schemas["CaptionForm"]["properties"]["image"]["maxItems"] == 7
    text = json.dumps(told["paths"])
    unheard = {"not-found", "method-not-allowed"}  # of paths and methods that are not in it
    assert {code for code in KINDS if f"`{code}`" not in text} == unheard
    for path in told["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["tags"]
            for status, answer in operation["responses"].items():
                types = set(answer["content"])
                assert types == {"application/problem+json"} or status == "200"


def test_every_field_is_described(serve: Serve) -> None:
    with serve() as url:
        schemas = httpx.get(f"{url}/v1/openapi.json").json()["components"]["schemas"]
    for name in ("Options", "ImageSource", "PageContext", "AltOptions", "CaptionForm", "AltForm"):
        for field, schema in schemas[name]["properties"].items():
            described = schema.get("description") or schema.get("items", {}).get("description")
            assert described, f"{name}.{field}"
