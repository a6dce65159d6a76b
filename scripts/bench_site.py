"""Measure `cutline site` on a made-up website, into bench/site.json.

    python scripts/bench_site.py [--pages 2000] [--images 400] [--kill] [--output bench/site.json]

The site has so many pages, five image uses on each, of so many different small JPEGs, all from one
seed; a process of its own serves it on loopback. Every command is a process of its own too, as a
person would start it:

crawl      `cutline site crawl`: pages/s, and the uses found.
draft      `cutline site draft`: fetches, decides, captions with the embedded model, words.
           images/s are distinct pictures, each fetched, measured and captioned once; uses/s are
           drafts written.
again      both once more: nothing is fetched but pages, and nothing is captioned.
seconds    by the clock; cpu_s is what all processes of a command computed, on whichever core, which
           other work on the machine changes less.
peak_mb    the most that any one process of a command occupied.
small      crawl and draft of a tenth of the pages that show the same pictures: what memory is when
           there is less to do.

With --kill, crawl and draft run once more into another record, are killed by SIGKILL in the middle
three times each and started again; `same` says whether the record then holds what the undisturbed
one holds (pages, uses, pictures, captions and drafts; not ids and times).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench import ROOT, machine

USES_A_PAGE = 5
KILLS = 3
WORDS = (
    "river market garden evening street harbour winter meadow children festival train old".split()
)
CONTENTS = {
    "pages": "SELECT url, record FROM pages WHERE gone = 0",
    "uses": """SELECT p.url, u.position, u.record, i.url, d.record, d.model
        FROM uses u JOIN pages p ON p.id = u.page_id
        LEFT JOIN images i ON i.id = u.image_id LEFT JOIN drafts d ON d.use_id = u.id
        WHERE u.gone = 0""",
    "images": """SELECT i.url, i.status, i.code, i.error, c.sha256, c.width_px, c.height_px,
        c.flat, c.text_like, c.chart_like, g.sha256 FROM images i
        LEFT JOIN contents c ON c.id = i.content_id LEFT JOIN contents g ON g.id = c.group_id""",
    "captions": """SELECT c.sha256, k.model, k.recipe, k.record
        FROM captions k JOIN contents c ON c.id = k.content_id""",
}

Figures = dict[str, float]


def generate(folder: Path, pages: int, images: int, seed: int = 0) -> None:
    """Write the site: an index that links to lists of 50 pages, which link to the pages."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    for number in range(images):
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        picture = coarse.resize((240, 180), Image.Resampling.BICUBIC)
        picture.save(folder / f"images/{number}.jpg", quality=80)
    lists = range(0, pages, 50)
    links = "".join(f'<li><a href="list{first}.html">from {first}</a>' for first in lists)
    (folder / "index.html").write_text(f"<!doctype html><title>Site</title><ul>{links}</ul>")
    for first in lists:
        numbers = range(first, min(first + 50, pages))
        links = "".join(f'<li><a href="page{number}.html">{number}</a>' for number in numbers)
        page = f"<!doctype html><title>From {first}</title><ul>{links}</ul>"
        (folder / f"list{first}.html").write_text(page)
    for number in range(pages):
        parts = [f'<!doctype html><html lang="en"><title>Page {number}</title><h1>{number}</h1>']
        for place in range(USES_A_PAGE):
            image = (number * USES_A_PAGE + place) % images
            text = " ".join(random.choice(WORDS, 12))
            alt = f' alt="{text[:40]}"' if random.random() < 0.1 else ""
            parts.append(f'<p>{text}.</p><img src="images/{image}.jpg" width="240"{alt}>')
        (folder / f"page{number}.html").write_text("\n".join(parts))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The site's address, while another process serves it."""
    command = [sys.executable, __file__, "--serve", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
        finally:
            process.terminate()


def serve(folder: str) -> None:
    """Serve a folder on a free port of loopback, and say which."""

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a killed client

    server = Server(("127.0.0.1", 0), partial(Handler, directory=folder))
    print(server.server_port, flush=True)
    server.serve_forever()


def run(*words: object, kill_after_s: float | None = None) -> Figures:
    """Run a command of `cutline site`: what it took."""
    command = [sys.executable, "-m", "cutline", "site", *map(str, words)]
    began_s = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    if kill_after_s is not None:
        try:
            process.communicate(timeout=kill_after_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return {"killed": 1.0}
        return {"killed": 0.0}
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{said}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": time.monotonic() - began_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss * unit / 1e6,
    }


def contents(store: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What a record holds, without ids and times."""
    connection = sqlite3.connect(store)
    try:
        return {
            name: sorted(map(tuple, connection.execute(sql)), key=repr)
            for name, sql in CONTENTS.items()
        }
    finally:
        connection.close()


def status(store: Path) -> dict[str, Any]:
    """The figures of `cutline site status`."""
    command = [sys.executable, "-m", "cutline", "site", "status", "--json", "--store", str(store)]
    found: dict[str, Any] = json.loads(subprocess.check_output(command))
    return found


def measure(folder: Path, store: Path, pages: int) -> dict[str, Any]:
    """Crawl and draft the served folder, twice."""
    with served(folder) as url:
        crawled, drafted = _both(url, store, pages)
        counts = status(store)
        before = contents(store)
        again = _both(url, store, pages)
        read = counts["pages"]
        return {
            "pages": read,
            "uses": counts["uses"],
            "images": counts["images"],
            "drafts": counts["uses"] - counts["found"],
            "captions": counts["captions"],
            "crawl": crawled | {"pages_per_s": read / crawled["seconds"]},
            "draft": drafted
            | {
                "images_per_s": counts["images"] / drafted["seconds"],
                "uses_per_s": counts["uses"] / drafted["seconds"],
            },
            "again": {"crawl": again[0], "draft": again[1], "same": contents(store) == before},
        }


def interrupt(folder: Path, whole: Path, store: Path, pages: int, took: Any) -> dict[str, Any]:
    """Crawl and draft with kills in the middle; whether it comes out the same as undisturbed.

    The ports differ from run to run, so both records are made here, one after the other.
    """
    with served(folder) as url:
        _both(url, whole, pages)
        kills = 0
        for words in _commands(url, store, pages):
            for _ in range(KILLS):
                after_s = took[words[0]]["seconds"] / (KILLS + 1)
                kills += int(run(*words, kill_after_s=after_s)["killed"])
            run(*words)
    found, expected = contents(store), contents(whole)
    differing = {
        name: sum(a != b for a, b in zip(found[name], expected[name], strict=False))
        + abs(len(found[name]) - len(expected[name]))
        for name in CONTENTS
    }
    return {"kills": kills, "same": found == expected, "differing": differing}


def _commands(url: str, store: Path, pages: int) -> list[tuple[object, ...]]:
    return [
        ("crawl", url, "--store", store, "--max-pages", 2 * pages + 100),
        ("draft", "--store", store, "--concurrency", 8),
    ]


def _both(url: str, store: Path, pages: int) -> tuple[Figures, Figures]:
    crawl, draft = _commands(url, store, pages)
    return run(*crawl), run(*draft)


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--kill", action="store_true", help="also kill and go on, and compare")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "site.json")
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        small = max(1, options.pages // 10)
        generate(home / "large", options.pages, options.images)
        generate(home / "small", small, options.images)
        results: dict[str, Any] = {
            "machine": machine(os.cpu_count() or 1),
            "load_before": os.getloadavg()[0],  # other work on the machine
        }
        results["small"] = measure(home / "small", home / "small.cutline", small)
        results["large"] = measure(home / "large", home / "large.cutline", options.pages)
        results["memory_large_to_small"] = {
            name: results["large"][name]["peak_mb"] / results["small"][name]["peak_mb"]
            for name in ("crawl", "draft")
        }
        write(options.output, results)
        if options.kill:
            results["kill"] = interrupt(
                home / "large",
                home / "whole.cutline",
                home / "killed.cutline",
                options.pages,
                results["large"],
            )
            write(options.output, results)
    print(json.dumps(results, indent=1))


def write(output: Path, results: dict[str, Any]) -> None:
    """Write what is known so far."""
    output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
