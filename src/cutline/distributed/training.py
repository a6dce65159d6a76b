"""Training on a Ray cluster: Ray Train starts the processes, and starts them again after a loss."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutline.distributed.captioner import connect
from cutline.distributed.ray_import import import_ray
from cutline.errors import EngineError, MissingExtraError, RecipeError
from cutline.run_log import RECIPE, Run

if TYPE_CHECKING:
    from cutline.data import Collection
    from cutline.training.recipe import Recipe

MAX_FAILURES = 10
"""How often lost processes are replaced before the run ends as failed."""


def train_on_ray(
    recipe: Recipe,
    collection: Collection,
    run: Path,
    *,
    features: Path,
    resume: bool = False,
    devices: int = 2,
    sources: Sequence[Path] = (),
    address: str | None = None,
    max_failures: int = MAX_FAILURES,
) -> Run:
    """Train a captioner in several processes of a Ray cluster.

    If a process or a node is lost, all processes start again from the last whole epoch.

    Args:
        recipe, collection, sources: as for `cutline.training.trainer.train`.
        run, features: folders at the same place on every node, such as on a network file system.
        resume: continue from the run's last checkpoint.
        devices: how many processes share every batch; each has a GPU if the cluster has so many.
        address: as for `connect`.
        max_failures: how often lost processes are replaced.

    Raises:
        MissingExtraError: Ray is not installed.
        RecipeError: the run folder holds a run already.
        EngineError: processes were lost too often, or training failed.
    """
    if (run / RECIPE).exists() and not resume:
        raise RecipeError(
            f"got run folder {run} of an earlier run; resume it with --resume, or name another"
        )
    connect(address)
    ray = import_ray()
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise MissingExtraError("training on Ray", "ray,train] ray[train") from error
    run, features = run.absolute(), features.absolute()
    gpus = ray.cluster_resources().get("GPU", 0) >= devices
    trainer = TorchTrainer(
        _train_process,
        train_loop_config={
            "recipe": recipe,
            "collection": collection,
            "run": run,
            "features": features,
            "sources": tuple(sources),
        },
        scaling_config=ScalingConfig(num_workers=devices, use_gpu=gpus),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
        run_config=RunConfig(
            name="ray",
            storage_path=str(run),
            failure_config=FailureConfig(max_failures=max_failures),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise EngineError(f"training on Ray failed: {error}") from error
    return Run.read(run)


def _train_process(options: dict[str, Any]) -> None:
    """What each process runs: Ray has set up the process group and torchrun's variables."""
    from cutline.training.trainer import train

    os.environ["TORCHELASTIC_RUN_ID"] = "ray"  # by which Lightning joins the group
    train(
        options["recipe"],
        options["collection"],
        options["run"],
        features=options["features"],
        sources=options["sources"],
        resume=True,  # the first attempt finds no checkpoint
    )
