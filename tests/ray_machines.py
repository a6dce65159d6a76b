"""A Ray cluster on this machine, and a slow web server, for tests."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import tiny
from PIL import Image
from s3 import S3, running_s3

from cutline.run_log import METRICS, Run

IMAGES = 60
NODE = {"num_cpus": 1, "object_store_memory": 150_000_000}


@dataclass
class Machines:
    """A Ray cluster on this machine: the head and two workers, of one core each."""

    cluster: Any
    s3: S3

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def kill_node(self) -> None:
        """Kill the youngest node, without a farewell."""
        self.cluster.remove_node(self.cluster.list_all_nodes()[-1], allow_graceful=False)

    def mend(self) -> None:
        """Have three nodes again."""
        while len(self.cluster.list_all_nodes()) < 3:
            self.cluster.add_node(**NODE)
        self.cluster.wait_for_nodes()


@pytest.fixture(scope="session")
def started() -> Iterator[Machines]:
    import ray
    from ray.cluster_utils import Cluster

    quiet = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}
    with running_s3() as s3, patch.dict(os.environ, quiet):
        config = {"health_check_initial_delay_ms": 2000, "health_check_period_ms": 1000}
        head = {**NODE, "include_dashboard": False, "_system_config": config}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        machines = Machines(cluster, s3)
        machines.mend()
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield machines
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def machines(started: Machines) -> Machines:
    started.mend()
    return started


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.build(tmp_path_factory.mktemp("model")).folder)


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small images, a few of which are none."""
    folder = tmp_path_factory.mktemp("album")
    for number, picture in enumerate(tiny.pictures(IMAGES)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    for number in (3, 30):
        (folder / f"{number}.png").write_bytes(b"words")
    return folder


@dataclass
class SlowServer:
    """Serves images, each after a while, under any number of names: /NUMBER/NAME.png."""

    url: str
    requests: Counter[str] = field(default_factory=Counter)

    def urls(self, count: int) -> list[str]:
        return [f"{self.url}/{i // IMAGES}/{i % IMAGES}.png" for i in range(count)]


@pytest.fixture
def slow_server(album: Path) -> Iterator[SlowServer]:
    slow = SlowServer("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            slow.requests[self.path] += 1
            time.sleep(0.2)
            content = (album / Path(self.path).name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        slow.url = f"http://127.0.0.1:{server.server_port}"
        yield slow
        server.shutdown()


def train_with_a_loss(folder: Path, epochs: int) -> tuple[Run, int, list[str]]:
    """Train in two processes of the cluster, and kill one after the first checkpoint.

    Returns:
        the run, how many processes there were when one was killed, and the header and the first
        epoch in the run's metrics then.
    """
    import psutil
    from drawn import draw

    from cutline.distributed.training import train_on_ray
    from cutline.training.decoders import DecoderOptions
    from cutline.training.encoders import EncoderOptions
    from cutline.training.recipe import DataOptions, FitOptions, Recipe

    recipe = Recipe(
        name="colours",
        data=DataOptions(train=("train",), dev="dev", min_count=1, max_tokens=18),
        encoder=EncoderOptions(backbone="efficientnet_lite0", cut=7, features="pooled"),
        decoder=DecoderOptions(kind="show-and-tell", width=16, embedding=16),
        fit=FitOptions(
            epochs=epochs, batch_images=8, captions_per_image=2, warmup_steps=2,
            encoder_learning_rate=0.0, dev_beam=1,
        ),
    )  # fmt: skip
    killed: list[int] = []
    first: list[str] = []

    def kill() -> None:
        while not (folder / "run" / "last.ckpt").exists():
            time.sleep(0.02)
        busy = [
            process
            for process in psutil.Process().children(recursive=True)
            if "RayTrainWorker" in " ".join(process.cmdline())
        ]
        killed.append(len(busy))
        busy[-1].kill()
        first.extend((folder / "run" / METRICS).read_text().splitlines()[:2])

    threading.Thread(target=kill, daemon=True).start()
    run = train_on_ray(
        recipe, draw(folder), folder / "run", features=folder / "features", devices=2
    )
    return run, sum(killed), first
