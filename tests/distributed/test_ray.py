from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from chat_server import DOG, chat, running
from pyarrow import parquet
from ray_machines import IMAGES, Machines, SlowServer, train_with_a_loss

import cutline
from cutline.backends.chat_client import ConnectionOptions
from cutline.backends.retry import Budget
from cutline.caption import Caption
from cutline.caption_files import CaptionJob, computation_of
from cutline.distributed import ModelSource, RayCaptioner, RayOptions, caption_dataset
from cutline.distributed.captioner import room_for
from cutline.errors import BudgetError, EngineError, OptionError
from cutline.options import FileOptions, Format
from cutline.run_log import METRICS
from cutline.shards import ShardFolder
from cutline.sources import ImageReference

pytestmark = [
    pytest.mark.ray,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="session")
def expected(album: Path, model: str) -> dict[str, dict[str, Any]]:
    """What one machine says and how, by the image's file name; without the source."""
    images = [album / f"{number}.png" for number in range(IMAGES)]
    captioner = cutline.load(model, threads=1)
    computation = computation_of(captioner)
    return {
        Path(each.source).name: comparable({**each.to_dict(), **computation})
        for each in captioner.stream(images)
    }


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "source" and value is not None}


def check(rows: list[dict[str, Any]], expected: dict[str, dict[str, Any]], count: int) -> None:
    """Every image has exactly one row, equal to the single machine's."""
    assert Counter(row["source"] for row in rows).most_common(1)[0][1] == 1
    assert len(rows) == count
    for row in rows:
        assert comparable(row) == expected[Path(row["source"]).name]


def test_a_bucket_becomes_parquet_as_on_one_machine(
    machines: Machines, album: Path, model: str, expected: dict[str, dict[str, Any]]
) -> None:
    s3 = machines.s3
    s3.files.put(f"{album}/", f"{s3.address}/album/", recursive=True)
    output = f"{s3.address}/captions.parquet"
    captioner = RayCaptioner.load(model)
    job = CaptionJob([f"{s3.address}/album/"], FileOptions(output=output))
    assert job.run(captioner).failed == 2
    folder = ShardFolder(output, Format.PARQUET)
    check(list(folder.rows()), expected, IMAGES)
    again = CaptionJob([f"{s3.address}/album/"], FileOptions(output=output, resume=True))
    assert again.count() == 2
    again.run(captioner)
    check(list(folder.rows()), expected, IMAGES)


def test_a_column_of_bytes_is_read_by_workers_in_order(
    machines: Machines, album: Path, model: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    names = [f"{number}.png" for number in range(IMAGES)]
    table = str(tmp_path / "images.parquet")
    cells = [(album / name).read_bytes() for name in names]
    parquet.write_table(pa.table({"image": cells}), table, row_group_size=20)
    captioner = RayCaptioner.load(model, ray_options=RayOptions(ordered=True))
    captions: list[Caption] = []
    job = CaptionJob([table], FileOptions(column="image"))
    job.run(captioner, on_caption=captions.append)
    assert [each.source for each in captions] == [f"{table}#{row}" for row in range(IMAGES)]
    for name, each in zip(names, captions, strict=True):
        row = {**each.to_dict(), "labels": expected[name]["labels"]}  # text output has no labels
        assert comparable(row) == expected[name]


def test_a_data_set_keeps_its_other_columns(
    machines: Machines, album: Path, model: str, expected: dict[str, Any]
) -> None:
    import ray

    rows = [
        {"id": number, "photo": str(album / f"{number}.png"), "status": "sold"}
        for number in range(10)
    ]
    source = ModelSource.of(model)
    captioned = caption_dataset(ray.data.from_items(rows), source, column="photo").take_all()
    assert sorted(row["id"] for row in captioned) == list(range(10))
    for row in captioned:
        assert row["source"] == str(album / f"{row.pop('id')}.png")
    check(captioned, expected, 10)
    images = [{"image": (album / f"{n}.png").read_bytes(), "n": f"{n}.png"} for n in range(6)]
    named = caption_dataset(ray.data.from_items(images), source, name_column="n").take_all()
    assert {row.pop("n") for row in named} == {row["source"] for row in named}
    check(named, expected, 6)


def test_a_killed_node_loses_nothing_and_repeats_nothing(
    machines: Machines, slow_server: SlowServer, model: str, expected: dict[str, Any]
) -> None:
    urls = slow_server.urls(240)
    captioner = RayCaptioner.load(model)
    assert room_for(RayOptions()) == 3
    rows = []
    for caption in captioner.stream([ImageReference(url, url) for url in urls]):
        rows.append(caption.to_dict())
        if len(rows) == 40:
            machines.kill_node()
    check(rows, expected, 240)


def test_a_killed_driver_is_resumed(
    machines: Machines,
    slow_server: SlowServer,
    model: str,
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    table, output = tmp_path / "urls.csv", tmp_path / "captions.jsonl"
    urls = slow_server.urls(180)
    table.write_text("\n".join(["url", *urls, ""]))
    options = ["--column", "url", "--model", model, "--ray-address", machines.address]
    command = [sys.executable, "-m", "cutline", "caption", str(table), *options, "-q"]
    command += ["-o", str(output)]
    driver = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while not (output.exists() and output.read_bytes().count(b"\n") >= 30):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = output.read_bytes().count(b"\n")
    assert 30 <= before < 180
    assert subprocess.run([*command, "--resume"], check=False).returncode == 1
    check(list(map(json.loads, output.read_bytes().splitlines())), expected, 180)
    asked = [slow_server.requests[url.removeprefix(slow_server.url)] for url in urls]
    assert sum(asked) < 2 * 180


def test_requests_of_all_workers_share_one_limit(machines: Machines, album: Path) -> None:
    import ray

    images = [album / f"{number}.png" for number in range(24) if number != 3]
    with running() as server:
        server.behaviours["dog"] = lambda asked: chat()
        connection = ConnectionOptions(concurrency=2)
        source = ModelSource.of(f"{server.root}#dog", connection=connection)
        captions = list(RayCaptioner(source).stream(images))
        usage, most = ray.get(source.limiter.usage.remote())
    assert {each.text for each in captions} == {DOG}
    assert {each.to_dict()["engine"] for each in captions} == {"server"}
    assert usage.requests == len(images)
    assert most == 2

    with running() as server:
        server.behaviours["dog"] = lambda asked: chat()
        connection = ConnectionOptions(budget=Budget(max_requests=5))
        source = ModelSource.of(f"{server.root}#dog", connection=connection)
        with pytest.raises(BudgetError, match="stopped after 5 requests"):
            list(RayCaptioner(source).stream(images))


def test_errors_are_those_of_one_machine(machines: Machines, album: Path, model: str) -> None:
    captioner = RayCaptioner.load(model)
    older = RayCaptioner(replace(ModelSource.of(model), version="0.0.1"))
    with pytest.raises(EngineError, match=r"on a worker; expected 0\.0\.1, as on the driver"):
        list(older.stream([album / "0.png"]))
    with pytest.raises(OptionError, match="expected a path or an address"):
        list(captioner.stream([b"bytes"]))
    with pytest.raises(OptionError, match="lower --threads"):
        list(RayCaptioner.load(model, ray_options=RayOptions(cpus_per_worker=9)).stream(["a"]))


def test_training_continues_after_a_lost_process(machines: Machines, tmp_path: Path) -> None:
    run, processes, first = train_with_a_loss(tmp_path, epochs=4)
    assert (run.epochs, processes) == (4, 2)
    lines = (run.folder / METRICS).read_text().splitlines()
    assert len(lines) == 1 + 4
    assert lines[:2] == first  # with its duration: the first epoch was not repeated


def test_an_address_without_a_cluster_is_refused(album: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cutline", "caption", str(album), "--ray-address", "127.0.0.1:9"],
        env={**os.environ, "RAY_gcs_rpc_server_reconnect_timeout_s": "1"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert b"expected a running cluster" in done.stderr.splitlines()[-1]
