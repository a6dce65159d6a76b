"""Draw the pictures of pages that the README shows, in headless Chromium.

    python scripts/screenshots.py            docs/page.png, docs/review.png, docs/report.png

A small site is made of the photographs in samples/, taken through `cutline site`, and looked at.
Needs the extras site and serve, Playwright, and Chromium on the path.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
WIDTH_PX = 1000
CUTLINE = [sys.executable, "-m", "cutline"]
SITE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Wren &amp; Alder, walking holidays</title></head>
<body>
<h1>Wren &amp; Alder</h1>
<h2>Walks</h2>
<p>Four days below the summits, from hut to hut.</p><img src="alps.jpg">
<h2>By the water</h2>
<p>The Nagasaki walk follows the river down to the harbour, where the boatmen wait for the tide.</p>
<img src="boats.jpg"><p>From there a ferry brings you back in an hour.</p>
<a href="booking.html"><img src="canyon.jpg"></a>
<figure><img src="sheep.jpg"><figcaption>Spring pasture, painted by Karl Lens</figcaption></figure>
<h2>Who we are</h2>
<p>Ann takes the pictures.</p><img src="photographer.jpg">
<p>Coffee at the hut.</p><img src="coffee.jpg">
<p>Whom you may meet on the way.</p><img src="moose.jpg"> <img src="wren.jpg">
<img src="rocket.jpg" width="1" height="1"> <img src="cat.jpg" alt="Minka, who runs the office">
</body></html>
"""


@contextmanager
def running(*arguments: str, cwd: Path) -> Iterator[str]:
    """A cutline server as a process; gives the address that it says it listens on."""
    command = [*CUTLINE, *arguments]
    with subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"http://127\.0\.0\.1:\d+[\w/-]*", line):
                    yield found[0]
                    break
        finally:
            process.terminate()


def shoot(page: Page, target: Path, height: int) -> None:
    """Save the top of what the page shows, as a palette PNG of a README's width."""
    assert page.viewport_size is not None
    width = page.viewport_size["width"]
    page.screenshot(path=target, clip={"x": 0, "y": 0, "width": width, "height": height})
    with Image.open(target) as picture:
        size = (WIDTH_PX, round(height * WIDTH_PX / width))
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    small.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(target, optimize=True)


def main() -> None:
    """Draw all three."""
    samples = ROOT / "samples"
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        site = Path(scratch) / "wren-and-alder"
        shutil.copytree(samples, site, ignore=shutil.ignore_patterns("*.md"))
        (site / "index.html").write_text(SITE, encoding="utf-8")
        work = Path(scratch)
        run = [*CUTLINE, "site", "run", site.name, "--output", "report.html", "--quiet"]
        subprocess.run(run, cwd=work, check=True)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1100, "height": 820})
        with running("serve", "--port", "0", cwd=work) as address:
            page.goto(address)
            page.set_input_files("#files", samples / "sheep.jpg")
            page.locator(".sentence button", has_text="sheep").focus()
            page.wait_for_timeout(500)
            shoot(page, ROOT / "docs" / "page.png", 820)
        report = work / "report.html"
        text = report.read_text(encoding="utf-8")
        report.write_text(text.replace(f"{work.resolve()}/", "/srv/"), encoding="utf-8")
        page.goto(report.as_uri())
        shoot(page, ROOT / "docs" / "report.png", 820)
        page = browser.new_page(viewport={"width": 1360, "height": 820})
        with running("site", "review", "--no-browser", cwd=work) as address:
            page.goto(address)
            page.locator("button.primary:enabled").first.wait_for()
            page.wait_for_timeout(2000)
            page.locator("button.primary:enabled").first.click()
            page.wait_for_timeout(4000)
            shoot(page, ROOT / "docs" / "review.png", 820)
        browser.close()


if __name__ == "__main__":
    main()
