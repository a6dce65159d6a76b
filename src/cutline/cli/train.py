"""`cutline train` and `cutline export`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cutline.cli.app import app, examples, given, needing, wording
from cutline.cli.interrupts import interruptible
from cutline.errors import RecipeError

DATA = typer.Option(
    metavar="DATA",
    help="A caption set, as for `cutline data check`. Repeatable. Default: the recipe's "
    "sources; smoke generates its images.",
    show_default=False,
)
WEIGHT = typer.Option(
    min=0,
    help="How often an image of each --data is drawn per epoch, on average. Default: 1.",
    show_default=False,
)
RUN = typer.Option(
    metavar="DIR",
    help="Folder of the checkpoints, curves and logs. Default: runs/RECIPE.",
    show_default=False,
)
FEATURES = typer.Option(
    metavar="DIR",
    help="Cache of features and decoded images. Default: next to the run.",
    show_default=False,
)
START_FROM = typer.Option(
    metavar="MODEL",
    help="Run, bundle or checkpoint to initialise from. Default: from the recipe.",
    show_default=False,
)
MAX_SECONDS = typer.Option(
    min=0,
    help="Time budget of the training steps. Default: from the recipe.",
    show_default=False,
)

KINDS = typer.Option(
    metavar="FILE",
    help="A classifier of image kinds to include.",
    exists=True,
    dir_okay=False,
    show_default=False,
)
RECIPE = typer.Option(
    metavar="RECIPE",
    help="For a checkpoint without a run: the recipe of its training. Repeatable, in order.",
    show_default=False,
)


RAY_ADDRESS = typer.Option(
    metavar="ADDRESS",
    help="A running Ray cluster, as for `cutline caption`. Implies --ray.",
    show_default=False,
)


@app.command(
    epilog=examples(
        "cutline train smoke",
        "cutline train own-photos --data photos.csv --run runs/mine",
        "cutline train soft-attention-lstm --data flickr8k/ --run runs/soft",
        "cutline train soft-attention-lstm --data flickr8k/ --run runs/soft --resume",
        "cutline train everyday --data flickr8k/ --data coco/ --weight 1 --weight 0.5",
        "torchrun --nproc-per-node 4 -m cutline train up-down --data coco/ --run runs/up-down",
    )
)
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE", help="The name of a recipe, or a TOML file.", show_default=False
        ),
    ] = None,
    data: Annotated[list[Path] | None, DATA] = None,
    weight: Annotated[list[float] | None, WEIGHT] = None,
    run: Annotated[Path | None, RUN] = None,
    features: Annotated[Path | None, FEATURES] = None,
    start_from: Annotated[str | None, START_FROM] = None,
    max_seconds: Annotated[float | None, MAX_SECONDS] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint.")
    ] = False,
    devices: Annotated[
        int, typer.Option(min=1, help="Number of GPUs, or of CPU processes, that share each batch.")
    ] = 1,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Train in --devices processes of a Ray cluster. If one is lost, all start again "
            "from the last whole epoch.",
        ),
    ] = False,
    ray_address: Annotated[str | None, RAY_ADDRESS] = None,
    named: Annotated[
        str | None,
        typer.Option("--recipe", metavar="RECIPE", help="Deprecated: RECIPE.", hidden=True),
    ] = None,
) -> None:
    """Train a captioner from a recipe.

    After every epoch, the run folder contains checkpoints, curves.png, metrics.csv, TensorBoard
    logs, and samples.txt with captions of ten dev images. After Ctrl-C, --resume continues from the
    last complete epoch.

    Exit codes: 0 trained; 1 failed; 2 usage error; 130 stopped.
    """
    name = _recipe_name(recipe, named)
    with (
        needing("train", "training"),
        interruptible("To continue, run the same command with --resume."),
    ):
        from cutline.training import trainer
        from cutline.training.recipe import Recipe
        from cutline.training.sources import load_collection

        train_run: Callable[..., Any] = trainer.train
        chosen = Recipe.find(name)
        chosen = chosen.with_fit(**given(start_from=start_from, max_seconds=max_seconds))
        folder = run or Path("runs") / chosen.name
        collection, sources = load_collection(
            chosen, folder, data or (), weight or (), report=_report
        )
        if ray or ray_address is not None:
            train_run = _on_ray(ray_address)
        done = train_run(
            chosen,
            collection,
            folder,
            features=features or folder.parent / "features",
            resume=resume,
            devices=devices,
            sources=sources,
        )
    if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))):
        return
    if chosen.encoder.features == "regions" and chosen.encoder.regions:
        following = "a run over region features from files can be compared, but not exported"
    else:
        following = f"next: cutline export {done.folder}"
    print(
        f"{done.epochs} epochs of {done.epoch_s:.1f} s, {done.parameters:,} weights trained\n"
        f"best on {chosen.data.dev} after epoch {done.best_epoch}: loss {done.dev_loss:.4f} nats "
        f"per token, CIDEr-D {done.dev_cider:.3f}\n"
        f"{done.best}\n{following}"
    )


@app.command(
    epilog=examples(
        "cutline export runs/mine",
        "cutline export runs/mine --data photos.csv --output models/mine-v1 --length-penalty 0.7",
        "cutline export start.pt --recipe everyday --data flickr8k/ --data coco/ --int8 -o mine-v1",
    )
)
def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a training run, or a checkpoint.")
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DATA", help="The training data, if it has moved.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR/NAME-vN",
            help="The folder of the new bundle. Default: RUN/RUN-v1.",
            show_default=False,
        ),
    ] = None,
    summary: Annotated[str, typer.Option(help="One sentence, shown by `cutline models`.")] = "",
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A model card in Markdown.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    beam: Annotated[
        int | None, wording("--beam", min=1, help="Default beam size of the bundle.")
    ] = None,
    length_penalty: Annotated[
        float | None,
        wording(
            "--length-penalty",
            help="Default length penalty of the bundle; lower favors short captions.",
        ),
    ] = None,
    word_bias: Annotated[
        float, wording("--word-bias", help="How strongly frequent words are penalised.")
    ] = 0.0,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Compute in int8: a smaller bundle, with slightly different captions."
        ),
    ] = False,
    kinds: Annotated[Path | None, KINDS] = None,
    recipe: Annotated[list[str] | None, RECIPE] = None,
) -> None:
    """Export a training run as a bundle, and check that both give the same output.

    Exit codes: 0 written; 1 torch and the bundle disagree, or data is missing; 2 usage error.
    """
    with needing("train", "exporting"):
        from rich.console import Console

        from cutline.options import SearchOptions
        from cutline.training.export import export as export_run
        from cutline.training.recipe import Recipe
        from cutline.training.sources import load_collection

        recipes = [Recipe.find(name) for name in recipe or ()]
        folder = run.parent if run.is_file() else run
        chosen = recipes[-1] if recipes else Recipe.of_run(folder)
        tokens = max(SearchOptions().max_tokens, chosen.data.max_tokens)
        with Console(stderr=True).status("reading the data") as shown:
            bundle = export_run(
                run,
                load_collection(chosen, folder, data or (), report=_report)[0],
                output or folder / f"{folder.resolve().name}-v1",
                summary=summary,
                options=SearchOptions(
                    max_tokens=tokens, **given(beam_size=beam, length_penalty=length_penalty)
                ),
                card=card.read_text(encoding="utf-8") if card else "",
                word_bias=word_bias,
                int8=int8,
                kinds=kinds,
                recipes=recipes,
                doing=shown.update,
            )
    scores: dict[str, Any] = next(iter(bundle.manifest.scores.values()), {})
    figures = ", ".join(f"{n} {scores[n]:.3f}" for n in ("cider", "bleu4", "meteor") if n in scores)
    print(f"{bundle.folder}\n{figures}\nnext: cutline caption IMAGE --model {bundle.folder}")


def _on_ray(address: str | None) -> Callable[..., Any]:
    """What trains on a Ray cluster."""
    with needing("ray", "--ray"):
        from cutline.distributed.training import train_on_ray
    return partial(train_on_ray, address=address)


def _recipe_name(recipe: str | None, named: str | None) -> str:
    """The recipe; `--recipe` is a deprecated way to name it.

    Raises:
        RecipeError: there is none, or there are two.
    """
    name = recipe or named
    if name is None or (recipe and named):
        raise RecipeError("got no recipe, or two; expected one: a name or FILE.toml")
    if named:
        print(f"cutline: --recipe is deprecated; use: cutline train {named}", file=sys.stderr)
    return name


def _report(line: str) -> None:
    """Print a line for the user, from the first of several processes only."""
    if not int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))):
        print(f"cutline: {line}", file=sys.stderr)
