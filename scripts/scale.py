"""Runs on many machines, made up on this one; results go into bench/scale.json.

    python scripts/scale.py overhead [--images 5000] [--rounds 2] [--workers 2] [--threads 1]
    python scripts/scale.py workers [--images 5000] [--rounds 1]
    python scripts/scale.py faults [--rows 5000]
    python scripts/scale.py memory [--rows 2000 20000]
    python scripts/scale.py serve [--requests 500]
    python scripts/scale.py train

overhead  plain `cutline caption` and `--ray` with as many cores caption the same images, in turns.
          Images per second in steady state count from the first result to the last; start-up is
          everything before it. Without --workers, as many workers as cores.
workers   the same for one worker with two threads, then for two workers with one.
faults    a Ray cluster of three nodes captions images in an S3 bucket (moto), 3 % of them damaged,
          from a Parquet table into Parquet. A node is killed after a quarter of the rows, the
          driver after a half; a second driver resumes. Every row must be there exactly once and
          equal to the single machine's.
memory    the resident memory of the driver and of its largest worker, for each number of rows.
train     two processes train on a cluster of three nodes; one is killed after the first checkpoint,
          and the run must finish.
serve     the Ray Serve deployment answers requests, each sent once, while a replica is killed;
          needs "ray[serve]".

Images are drawn; --size is their side in pixels. --model names another model.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "bench" / "scale.json"
sys.path.insert(0, str(ROOT / "tests"))
NODE = {"num_cpus": 1, "object_store_memory": 200_000_000}
DISTINCT = 200

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")


def draw(number: int, side_px: int) -> bytes:
    """A JPEG of smooth random color."""
    noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    content = io.BytesIO()
    picture = Image.fromarray(noise).resize((side_px * 4 // 3, side_px), Image.Resampling.BICUBIC)
    picture.save(content, "JPEG", quality=85)
    return content.getvalue()


def album(folder: Path, count: int, side_px: int, bad_share: float = 0.0) -> list[Path]:
    """Write images into a folder, `DISTINCT` different ones under many names; some are damaged."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = [draw(number, side_px) for number in range(min(count, DISTINCT))]
    chance = random.Random(0)
    paths = []
    for number in range(count):
        content = contents[number % len(contents)]
        if chance.random() < bad_share:
            content = content[:100] if number % 2 else b"words"
        path = folder / f"{number:06}.jpg"
        path.write_bytes(content)
        paths.append(path)
    return paths


def command(*words: object) -> list[str]:
    """A command line of Cutline."""
    return [sys.executable, "-m", "cutline", "caption", "--quiet", *map(str, words)]


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """Images per second, plain and through Ray, in turns."""
    from cutline.backends import load
    from cutline.caption_files import CaptionJob
    from cutline.distributed import RayCaptioner, RayOptions
    from cutline.distributed.captioner import connect
    from cutline.options import FileOptions

    cores = options.workers * options.threads
    results: dict[str, list[dict[str, float]]] = {"plain": [], "ray": []}
    with TemporaryDirectory() as folder:
        album(Path(folder, "album"), options.images, options.size)

        def measure(make: Callable[[], Any], name: str) -> dict[str, float]:
            began = time.monotonic()
            times: list[float] = []
            output = Path(folder, f"{name}-{len(results[name])}.parquet")
            job = CaptionJob([str(Path(folder, "album"))], FileOptions(output=output))
            job.run(make(), on_caption=lambda caption: times.append(time.monotonic()))
            skip = min(1024, len(times) // 4)  # the first blocks of all workers
            steady = (len(times) - skip) / (times[-1] - times[skip - 1])
            return {"startup_s": times[0] - began, "images_per_s": steady,
                    "whole_s": times[-1] - began}  # fmt: skip

        def on_ray() -> Any:
            import ray

            if not ray.is_initialized():
                ray.init(num_cpus=cores, object_store_memory=300_000_000, include_dashboard=False,
                         log_to_driver=False)  # fmt: skip
            connect()
            ray_options = RayOptions(options.threads, max_workers=options.workers)
            return RayCaptioner.load(options.model, ray_options=ray_options)

        for _ in range(options.rounds):
            for name, make in (("plain", lambda: load(options.model, threads=cores)),
                               ("ray", on_ray)):  # fmt: skip
                results[name].append(measure(make, name))
                print(name, results[name][-1], flush=True)
    best = {name: max(each["images_per_s"] for each in runs) for name, runs in results.items()}
    return {
        "images": options.images,
        "workers": options.workers,
        "threads": options.threads,
        **results,
        "overhead_share": 1 - best["ray"] / best["plain"],
    }


def workers(options: argparse.Namespace) -> dict[str, Any]:
    """`overhead` for two ways to use two cores."""
    found = {}
    for count, threads in ((1, 2), (2, 1)):
        chosen = argparse.Namespace(**{**vars(options), "workers": count, "threads": threads})
        found[f"workers: {count}, threads of each: {threads}"] = overhead(chosen)
    return found


@contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """A Ray cluster on this machine, each node with one core."""
    from ray.cluster_utils import Cluster

    config = {"health_check_initial_delay_ms": 2000, "health_check_period_ms": 1000}
    head = {**NODE, "include_dashboard": False, "_system_config": config}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes - 1):
            made.add_node(**NODE)
        yield made
    finally:
        made.shutdown()


def faults(options: argparse.Namespace) -> dict[str, Any]:
    """Kill a node and the driver; count and compare the rows."""
    import pyarrow as pa
    from pyarrow import parquet
    from s3 import running_s3

    import cutline
    from cutline.options import Format
    from cutline.shards import ShardFolder

    rows = options.rows
    with TemporaryDirectory() as name, running_s3() as s3:
        folder = Path(name)
        paths = album(folder / "album", rows, options.size, bad_share=0.03)
        for at in range(0, rows, 500):
            batch = {
                f"{s3.address}/album/{path.name}": path.read_bytes()
                for path in paths[at : at + 500]
            }
            s3.files.pipe(batch)
        addresses = [f"{s3.address}/album/{path.name}" for path in paths]
        parquet.write_table(pa.table({"image": addresses}), folder / "list.parquet")
        s3.files.put_file(str(folder / "list.parquet"), f"{s3.address}/list.parquet")
        output = f"{s3.address}/captions.parquet"
        results = ShardFolder(output, Format.PARQUET)
        with cluster(3) as nodes:
            run = command(f"{s3.address}/list.parquet", "--column", "image", "-o", output,
                          "--ray-address", nodes.address,
                          *(["--model", options.model] if options.model else []))  # fmt: skip
            began = time.monotonic()
            driver = subprocess.Popen([*run], stderr=subprocess.DEVNULL)
            killed_node = False
            while True:
                done = sum(results.read_answered().sources.values())
                if driver.poll() is not None:
                    raise SystemExit(f"the driver ended with {driver.returncode} at {done} rows")
                if done >= rows // 8 and not killed_node:
                    nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
                    killed_node = True
                    print(
                        f"killed a node at {done} rows, {time.monotonic() - began:.0f} s",
                        flush=True,
                    )
                elif done >= rows // 2:
                    break
                time.sleep(2)
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            before = results.read_answered()
            kept = sum(before.sources.values()) + before.failed
            print(
                f"killed the driver with {kept} rows, {time.monotonic() - began:.0f} s", flush=True
            )
            resumed = subprocess.run([*run, "--resume"], stderr=subprocess.DEVNULL, check=False)
            seconds = time.monotonic() - began
        found = list(results.rows())
        counts = Counter(row["source"] for row in found)
        print(
            f"{len(found)} rows of {len(counts)} sources, {seconds:.0f} s; comparing with one "
            "machine",
            flush=True,
        )
        captions = cutline.load(options.model, threads=2).stream(paths)
        expected = {Path(each.source).name: each.to_dict() for each in captions}
        different = sum(
            any(row[key] != value for key, value in expected[Path(row["source"]).name].items()
                if key != "source")
            for row in found
        )  # fmt: skip
        return {
            "rows": rows,
            "damaged": sum(row["status"] == "error" for row in expected.values()),
            "kept_when_the_driver_was_killed": kept,
            "exit_code_of_the_second_driver": resumed.returncode,
            "rows_in_the_output": len(found),
            "sources_in_the_output": len(counts),
            "errors_in_the_output": sum(row["status"] == "error" for row in found),
            "most_rows_of_one_source": max(counts.values()),
            "rows_that_differ_from_one_machine": different,
            "seconds": round(seconds),
        }


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak resident memory of the driver and of the largest worker."""
    import ray  # noqa: F401, brings psutil

    import psutil  # isort: skip

    figures = {}
    for rows in options.rows_list:
        with TemporaryDirectory() as name:
            folder = Path(name)
            album(folder / "album", rows, options.size)
            words = [folder / "album", "-o", folder / "out.parquet", "--ray", "--ray-workers", 1]
            run = command(*words, *(["--model", options.model] if options.model else []))
            driver = psutil.Popen(
                run, env={**os.environ, "RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION": "0.02"}
            )
            peaks: dict[str, float] = {"driver": 0.0, "worker": 0.0}
            while driver.poll() is None:
                time.sleep(1)
                for process in [driver, *_children(driver)]:
                    kind = "driver" if process == driver else _kind(process)
                    if kind:
                        peaks[kind] = max(peaks[kind], _private_mb(process))
            figures[str(rows)] = {key: round(value) for key, value in peaks.items()}
            print(rows, figures[str(rows)], flush=True)
    return figures


def _children(process: Any) -> list[Any]:
    import psutil

    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _kind(process: Any) -> str | None:
    import psutil

    try:
        return "worker" if "MapWorker" in " ".join(process.cmdline()) else None
    except psutil.Error:
        return None


def _private_mb(process: Any) -> float:
    """Resident memory without pages shared with the object store, MB."""
    import psutil

    try:
        info = process.memory_info()
    except psutil.Error:
        return 0.0
    return float(info.rss - info.shared) / 1e6


def serve(options: argparse.Namespace) -> dict[str, Any]:
    """Send requests while a replica is killed."""
    import httpx
    import ray
    from ray import serve as ray_serve

    from cutline.distributed.serve import build_deployment
    from cutline.service.settings import Settings

    with cluster(3) as nodes:
        ray.init(address=nodes.address, log_to_driver=False)
        ray_serve.start(http_options={"host": "127.0.0.1", "port": options.port})
        settings = Settings(model=options.model)
        ray_serve.run(build_deployment(settings, min_replicas=2, max_replicas=2), name="cutline")
        image, lock, statuses = draw(0, options.size), threading.Lock(), Counter[str]()

        async def ask(client: Any, number: int) -> None:
            if number == options.requests // 3:
                _kill_replica()
            try:
                answer = await client.post("/v1/captions", files={"image": draw(number % 50, 64)})
                status = str(answer.status_code)
            except httpx.HTTPError as error:
                status = type(error).__name__
            with lock:
                statuses[status] += 1

        async def load_it() -> None:
            url = f"http://127.0.0.1:{options.port}"
            async with httpx.AsyncClient(base_url=url, timeout=120) as client:
                waiting = asyncio.Semaphore(8)

                async def one(number: int) -> None:
                    async with waiting:
                        await ask(client, number)

                first = await client.post("/v1/captions", files={"image": image})
                if first.status_code != 200:
                    raise SystemExit(f"got {first.status_code}: {first.text}")
                await asyncio.gather(*(one(number) for number in range(options.requests)))

        began = time.monotonic()
        try:
            asyncio.run(load_it())
            seconds = time.monotonic() - began
            ray_serve.shutdown()
        finally:
            ray.shutdown()
    return {"requests": options.requests, "statuses": dict(statuses),
            "seconds": round(seconds, 1)}  # fmt: skip


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Kill one of two training processes."""
    import ray
    from ray_machines import train_with_a_loss

    with TemporaryDirectory() as name, cluster(3) as nodes:
        ray.init(address=nodes.address, log_to_driver=False)
        began = time.monotonic()
        try:
            done, killed, _ = train_with_a_loss(Path(name), epochs=6)
        finally:
            ray.shutdown()
        return {
            "processes_when_one_was_killed": killed,
            "epochs": done.epochs,
            "dev_loss": done.dev_loss,
            "seconds": round(time.monotonic() - began),
        }


def _kill_replica() -> None:
    """Kill the process of one replica."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        if "ray::ServeReplica:cutline:Captions" in " ".join(process.cmdline()):
            print("killing replica", process.pid, flush=True)
            process.kill()
            return
    raise SystemExit("got no replica to kill")


def main() -> None:
    """Run one measurement and keep its result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "what", choices=["overhead", "workers", "faults", "memory", "serve", "train"]
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rows", type=int, nargs="+", default=None)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--model", default=None)
    options = parser.parse_args()
    options.rows_list = options.rows or [2000, 20_000]
    options.rows = (options.rows or [5000])[0]
    measure = {
        "overhead": overhead,
        "workers": workers,
        "faults": faults,
        "memory": memory,
        "serve": serve,
        "train": train,
    }
    result = measure[options.what](options)
    result["machine"] = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    result["load_average"] = os.getloadavg()[0]
    print(json.dumps(result, indent=1))
    kept = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    OUTPUT.write_text(json.dumps({**kept, options.what: result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
