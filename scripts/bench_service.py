"""Measure `cutline serve` beside `cutline caption` on this machine, into bench/service.json.

    python scripts/bench_service.py [PHOTOS] [--output bench/service.json] [--rounds 3]

PHOTOS is a folder of JPEG photographs, sent as multipart forms. The service runs as a user would
start it but keeps no answers, the load comes from a second process, and all share the machine's
cores. Rounds follow each other, each with every measurement once; kept are the medians, and the
least and most.

What is measured:

command line  images/s of `cutline caption --format jsonl` over many files, less the time of a run
              over one, so without its start; and the processor's ms for each image.
service       images/s of requests with one image each, CONCURRENCY clients at a time, each sending
              the next as soon as the last is answered; p50, p95 and p99 of their latency; and the
              service's own processor ms for each.
at 70 %       latency when requests come at random (Poisson) at 70 % of that rate, counted from
              when each was due.
memory        MB the service occupies after so many requests, half of which find their answer kept.

`load` is the machine's load average before each measurement: other work then takes its share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SERVE = [sys.executable, "-m", "cutline", "serve"]
MARKS = (1000, 2000, 5000, 10_000, 15_000, 20_000)


def command_line(photos: list[Path], images: int) -> dict[str, float]:
    """images/s and ms of processor time for each image of `cutline caption`."""

    def run(count: int) -> tuple[float, float]:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
            listed.writelines(f"{path}\n" for path in islice(cycle(photos), count))
            listed.seek(0)
            began_s, began_cpu_s = time.perf_counter(), _children_cpu_s()
            subprocess.run(
                [sys.executable, "-m", "cutline", "caption", "-", "--format", "jsonl", "--quiet"],
                stdin=listed,
                stdout=subprocess.DEVNULL,
                check=True,
            )
            return time.perf_counter() - began_s, _children_cpu_s() - began_cpu_s

    start_s, start_cpu_s = run(1)
    seconds, cpu_s = run(images)
    return {
        "images_per_s": (images - 1) / (seconds - start_s),
        "cpu_ms": (cpu_s - start_cpu_s) / (images - 1) * 1e3,
    }


def closed(photos: list[Path], concurrency: int, seconds: float) -> dict[str, float]:
    """Clients that each send the next request as soon as the last is answered."""
    with serving("--cache", "0") as (port, process_id):
        load = {"port": port, "photos": list(map(str, photos)), "concurrency": concurrency}
        generate({**load, "seconds": 3})
        began_cpu_s = _cpu_s(process_id)
        told = generate({**load, "seconds": seconds})
        told["cpu_ms"] = (_cpu_s(process_id) - began_cpu_s) / told.pop("requests") * 1e3
        told["batch"] = _batch(port)
    return told


def arriving(photos: list[Path], rate: float, seconds: float) -> dict[str, float]:
    """Requests that come at random, so many a second."""
    with serving("--cache", "0") as (port, _):
        load = {"port": port, "photos": list(map(str, photos))}
        generate({**load, "concurrency": 4, "seconds": 3})
        told = generate({**load, "rate": rate, "seconds": seconds})
    told["p95_to_median"] = told["p95_ms"] / told["p50_ms"]
    return told


def memory(photos: list[Path], requests: int) -> dict[str, float]:
    """MB after so many requests; greedy, without labels, so that it does not take hours."""
    found = {}
    with serving("--cache", "50") as (port, process_id):
        done = 0
        for mark in [each for each in MARKS if each < requests] + [requests]:
            load = {"port": port, "photos": list(map(str, photos)), "concurrency": 16}
            generate({**load, "requests": mark - done, "options": {"beam": 1, "labels": 0}})
            done = mark
            found[f"mb_after_{mark}"] = _rss_bytes(process_id) / 1e6
    return found


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[int, int]]:
    """The service as a process: its port and its id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*SERVE, "--port", str(port), *arguments], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def generate(load: dict[str, Any]) -> dict[str, float]:
    """Run this file as the second process that makes the load."""
    run = subprocess.run(
        [sys.executable, __file__, "--generate", json.dumps(load)],
        stdout=subprocess.PIPE,
        check=True,
    )
    told: dict[str, float] = json.loads(run.stdout)
    return told


class Load:
    """Raw HTTP over asyncio, as light as it can be, since it shares the service's cores."""

    def __init__(self, load: dict[str, Any]) -> None:
        self._load = load
        options = load.get("options", {})
        self._requests = [_request(Path(path), options) for path in load["photos"]]
        self._random = random.Random(7)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._left = load.get("requests", sys.maxsize)
        self._latencies_s: list[float] = []

    async def run(self) -> dict[str, float]:
        """All of it: rate and latencies."""
        began_s = time.monotonic()
        ends_s = began_s + self._load.get("seconds", float("inf"))
        if (rate := self._load.get("rate")) is None:
            await asyncio.gather(*(self._client(ends_s) for _ in range(self._load["concurrency"])))
        else:
            await self._arrivals(rate, began_s, ends_s)
        seconds = time.monotonic() - began_s
        for _, writer in self._idle:
            writer.close()
        ordered = sorted(self._latencies_s)

        def percentile(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3

        return {
            "requests": len(ordered),
            "images_per_s": len(ordered) / seconds,
            "p50_ms": percentile(0.5),
            "p95_ms": percentile(0.95),
            "p99_ms": percentile(0.99),
            "generator_cpu_ms": time.process_time() / len(ordered) * 1e3,
        }

    async def _client(self, ends_s: float) -> None:
        while time.monotonic() < ends_s and self._left > 0:
            self._left -= 1
            await self._ask(time.monotonic())

    async def _arrivals(self, rate: float, began_s: float, ends_s: float) -> None:
        due_s, asking = began_s, []
        while (due_s := due_s + self._random.expovariate(rate)) < ends_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            asking.append(asyncio.ensure_future(self._ask(due_s)))
        await asyncio.gather(*asking)

    async def _ask(self, due_s: float) -> None:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._load["port"])
        writer.write(self._random.choice(self._requests))
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            raise RuntimeError(f"got {head[:200]!r}; expected 200")
        answer = await reader.readexactly(int(length[1]))
        if b'"status":"ok"' not in answer:
            raise RuntimeError(f"got {answer[:200]!r}; expected a caption")
        self._latencies_s.append(time.monotonic() - due_s)
        self._idle.append((reader, writer))


def _request(photo: Path, options: dict[str, Any]) -> bytes:
    parts = [
        b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
        + photo.read_bytes()
    ]
    for name, value in options.items():
        field = f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'
        parts.append(field.encode())
    body = b"\r\n".join([*parts, b"--B--\r\n"])
    head = (
        "POST /v1/captions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: multipart/form-data; boundary=B\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _batch(port: int) -> float:
    """Images told together on average, from the service's own figures."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    images, batches = (
        float(re.findall(rf"^cutline_batch_images_{name} (\S+)$", text, re.MULTILINE)[0])
        for name in ("sum", "count")
    )
    return images / batches


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu_s(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_bytes(process_id: int) -> int:
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _summary(rounds: list[dict[str, float]]) -> dict[str, list[float]]:
    """Median, least and most of each figure."""
    return {
        name: [
            round(value, 2)
            for values in [[each[name] for each in rounds]]
            for value in (statistics.median(values), min(values), max(values))
        ]
        for name in rounds[0]
    }


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""

    def figure(of: str, name: str, digits: int = 0) -> str:
        middle, least, most = results[of][name]
        return f"{middle:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"

    lines = [
        "Written by `scripts/bench_service.py`, which says what each figure means. "
        f"{results['cores']} cores, {results['concurrency']} clients, median of "
        f"{results['rounds']} rounds (least to most); the machine's load average was "
        f"{results['load'][0]:.1f} before the first and at most {max(results['load']):.1f}.",
        "",
        "| What | images/s | p50, ms | p95, ms | p99, ms | CPU, ms an image |",
        "| --- | --: | --: | --: | --: | --: |",
        f"| command line | {figure('command_line', 'images_per_s', 1)} | | | | "
        f"{figure('command_line', 'cpu_ms', 1)} |",
    ]
    for name, title in (("service", "service, as fast as it goes"), ("at_70", "service, at 70 %")):
        cpu = figure(name, "cpu_ms", 1) if "cpu_ms" in results[name] else ""
        lines.append(
            f"| {title} | {figure(name, 'images_per_s', 1)} | {figure(name, 'p50_ms')} | "
            f"{figure(name, 'p95_ms')} | {figure(name, 'p99_ms')} | {cpu} |"
        )
    lines += [
        "",
        f"The service reaches {results['to_command_line']:.0%} of the command line; at 70 % its "
        f"p95 is {results['at_70']['p95_to_median'][0]:.1f} times its median.",
    ]
    if results["memory"]:
        marks = ", ".join(
            f"{value:.0f} MB after {int(name.rpartition('_')[2]):,}"
            for name, value in results["memory"].items()
        )
        lines += ["", f"Memory over requests: {marks}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", nargs="?", type=Path, default=ROOT / "samples")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "service.json")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--requests", type=int, default=20_000, help="for memory; 0 is none")
    parser.add_argument("--generate", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.generate:
        print(json.dumps(asyncio.run(Load(asked.generate).run())))
        return
    photos = sorted(asked.photos.glob("*.jpg"))
    if not photos:
        parser.error(f"got no .jpg in {asked.photos}; expected some photographs")
    rounds: dict[str, list[dict[str, float]]] = {"command_line": [], "service": [], "at_70": []}
    loads = []

    def measure(name: str, figures: dict[str, float]) -> None:
        rounds[name].append(figures)
        told = ", ".join(f"{key} {value:.1f}" for key, value in figures.items())
        print(f"{name}: {told}", file=sys.stderr)

    for _ in range(asked.rounds):
        loads.append(os.getloadavg()[0])
        measure("command_line", command_line(photos, int(40 * asked.seconds)))
        loads.append(os.getloadavg()[0])
        measure("service", closed(photos, asked.concurrency, asked.seconds))
        rate = 0.7 * rounds["service"][-1]["images_per_s"]
        measure("at_70", arriving(photos, rate, asked.seconds))
    results: dict[str, Any] = {
        "cores": len(os.sched_getaffinity(0)),
        "concurrency": asked.concurrency,
        "rounds": asked.rounds,
        "load": [round(load, 2) for load in loads],
        **{name: _summary(found) for name, found in rounds.items()},
        "memory": memory(photos, asked.requests) if asked.requests else {},
    }
    results["to_command_line"] = round(
        statistics.median(
            service["images_per_s"] / line["images_per_s"]
            for service, line in zip(rounds["service"], rounds["command_line"], strict=True)
        ),
        3,
    )
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(results, indent=1) + "\n")
    text = table(results)
    asked.output.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
