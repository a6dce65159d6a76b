"""Training runs that end early: killed in a process of their own, or stopped in this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import lightning
import pytest

from cutline.data import Collection
from cutline.training.recipe import Recipe
from cutline.training.trainer import train


def run(recipe: Recipe, collection: Collection, folder: Path, features: Path) -> None:
    """Train: the target of the process, which has to find it by its module's name."""
    train(recipe, collection, folder, features=features)


def kill_after_checkpoint(
    recipe: Recipe, collection: Collection, folder: Path, features: Path
) -> None:
    """Start a run and kill it as soon as it has written its first checkpoint."""
    process = multiprocessing.get_context("spawn").Process(
        target=run, args=(recipe, collection, folder, features)
    )
    process.start()
    deadline = time.monotonic() + 300
    while not (folder / "last.ckpt").exists():
        assert process.is_alive(), "the run ended without a checkpoint"
        assert time.monotonic() < deadline, "the run wrote no checkpoint in time"
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


class Stopped(BaseException):
    """Ends a run where a kill would."""


def stop_after_checkpoint(
    recipe: Recipe, collection: Collection, folder: Path, features: Path
) -> None:
    """Start a run in this process and end it as soon as it has written its first checkpoint."""
    save = lightning.Trainer.save_checkpoint

    def save_and_stop(self: lightning.Trainer, path: Any, *arguments: Any, **options: Any) -> None:
        save(self, path, *arguments, **options)
        if (folder / "last.ckpt").exists():
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning.Trainer, "save_checkpoint", save_and_stop)
        with pytest.raises(Stopped):
            train(recipe, collection, folder, features=features)
