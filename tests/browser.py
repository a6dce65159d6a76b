"""A real browser for tests of pages: Chromium as the system has it, driven by Playwright.

Where there is none the tests say that they were skipped, unless CUTLINE_REQUIRE_BROWSER is set.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, or the test is skipped."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if path is None and not os.environ.get("CUTLINE_REQUIRE_BROWSER"):
        pytest.skip("there is no Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page(browser: Browser, **context: Any) -> Iterator[Page]:
    """A fresh page that must neither complain nor ask another host for anything.

    What it may complain of all the same is what a test takes out of `page.complaints`.
    """
    with browser.new_context(**context) as fresh:
        opened = fresh.new_page()
        complaints: list[str] = []
        hosts: set[str] = set()
        opened.on("console", lambda said: complaints.extend([said.text][: said.type == "error"]))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("request", lambda asked: hosts.add(asked.url.split("/")[2]))
        opened.complaints = complaints  # type: ignore[attr-defined]
        yield opened
        assert not complaints, complaints
        assert {host for host in hosts if host} <= {opened.url.split("/")[2]}


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with the page as it stands, a line each."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run()")
    return [
        f"{each['id']}: {node['html']}" for each in found["violations"] for node in each["nodes"]
    ]
