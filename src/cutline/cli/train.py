"""`cutline train` and `cutline export`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutline.cli.app import app, examples, given, needing, wording
from cutline.errors import RecipeError

if TYPE_CHECKING:
    from cutline.data import Collection

_SOURCE = "source.txt"
"""In a run's folder: where its data was."""
_PICTURES = "pictures"
"""In a run's folder: pictures that were made up."""


@app.command(
    epilog=examples(
        "cutline train smoke",
        "cutline train own-photos --data photos.csv --run runs/mine",
        "cutline train soft-attention-lstm --data flickr8k/ --run runs/soft",
        "cutline train soft-attention-lstm --data flickr8k/ --run runs/soft --resume",
        "torchrun --nproc-per-node 4 -m cutline train up-down --data coco/ --run runs/up-down",
    )
)
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A recipe's name, or FILE.toml.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="Captioned images, as for `cutline data`; smoke draws its own.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For checkpoints, curves and records; by default runs/RECIPE.",
            show_default=False,
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Cache of what the frozen encoder sees; by default beside the run.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    devices: Annotated[
        int, typer.Option(min=1, help="GPUs, or processes without one, that share every batch.")
    ] = 1,
    named: Annotated[
        str | None,
        typer.Option("--recipe", metavar="RECIPE", help="The same as RECIPE.", show_default=False),
    ] = None,
) -> None:
    """Train a captioner from a recipe.

    After every epoch the run's folder has its checkpoints, curves.png, metrics.csv, TensorBoard's
    records, and samples.txt with what is said of ten dev pictures. Ctrl-C loses what came after
    the last whole epoch; --resume goes on.

    Exit codes: 0 trained; 1 failed; 2 wrong use; 130 stopped.
    """
    name = recipe or named
    if name is None or (recipe and named):
        raise RecipeError("got no recipe, or two; expected one: a name or FILE.toml")
    with needing("train", "training"):
        from cutline.training.recipe import Recipe
        from cutline.training.trainer import train

        chosen = Recipe.find(name)
        folder = run or Path("runs") / chosen.name
        collection = _collection(data, folder, chosen.data.made_up)
        try:
            done = train(
                chosen,
                collection,
                folder,
                features=features or folder.parent / "features",
                resume=resume,
                devices=devices,
            )
        except KeyboardInterrupt:
            _remember(data, folder)
            print("\nstopped; the same command with --resume goes on", file=sys.stderr)
            raise typer.Exit(130) from None
    if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))):
        return
    _remember(data, folder)
    if chosen.encoder.features == "regions":
        following = "a run over detected regions can be compared by its curves, but not exported"
    else:
        following = f"next: cutline export {done.folder}"
    print(
        f"{done.epochs} epochs of {done.epoch_s:.1f} s, {done.parameters:,} weights trained\n"
        f"best on {chosen.data.dev} after epoch {done.best_epoch}: loss {done.dev_loss:.4f} nats "
        f"a token, CIDEr-D {done.dev_cider:.3f}\n"
        f"{done.best}\n{following}"
    )


@app.command(
    epilog=examples(
        "cutline export runs/mine",
        "cutline export runs/mine --data photos.csv --output models/mine-v1 --length-penalty 0.7",
    )
)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A training run's folder.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="What it learnt from, if that has moved.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR/NAME-vN",
            help="The bundle's new folder; by default RUN/RUN-v1.",
            show_default=False,
        ),
    ] = None,
    summary: Annotated[str, typer.Option(help="One sentence for `cutline models`.")] = "",
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
        int | None, wording("--beam", min=1, help="Its default: hypotheses kept alive.")
    ] = None,
    length_penalty: Annotated[
        float | None,
        wording("--length-penalty", help="Its default: less favours short captions."),
    ] = None,
    word_bias: Annotated[
        float, wording("--word-bias", help="How strongly common words are held back.")
    ] = 0.0,
) -> None:
    """Turn a training run into a bundle, unless the two would caption differently.

    Exit codes: 0 written; 1 torch and the bundle disagree, or data is missing; 2 wrong use.
    """
    with needing("train", "exporting"):
        from rich.console import Console

        from cutline.options import SearchOptions
        from cutline.training.export import export
        from cutline.training.recipe import Recipe

        source = run / _SOURCE
        if data is None and source.is_file():
            data = Path(source.read_text(encoding="utf-8").strip())
        made_up = Recipe.of_run(run).data.made_up
        with Console(stderr=True).status("reading the data") as shown:
            bundle = export(
                run,
                _collection(data, run, made_up),
                output or run / f"{run.resolve().name}-v1",
                summary=summary,
                options=SearchOptions(**given(beam_size=beam, length_penalty=length_penalty)),
                card=card.read_text(encoding="utf-8") if card else "",
                word_bias=word_bias,
                doing=shown.update,
            )
    scores: dict[str, Any] = next(iter(bundle.manifest.scores.values()), {})
    figures = ", ".join(f"{n} {scores[n]:.3f}" for n in ("cider", "bleu4", "meteor") if n in scores)
    print(f"{bundle.folder}\n{figures}\nnext: cutline caption PICTURE --model {bundle.folder}")


def _remember(data: Path | None, run: Path) -> None:
    """Note where a run's data was, for `export`."""
    if data is not None and run.is_dir():
        (run / _SOURCE).write_text(f"{data.resolve()}\n", encoding="utf-8")


def _collection(data: Path | None, run: Path, made_up: int) -> Collection:
    """The captioned images that were named, or pictures made up in the run's folder."""
    if data is not None:
        from cutline.data import read

        return read(data)
    if not made_up:
        raise RecipeError("got no data; expected --data with a folder or file of captioned images")
    from cutline.data.synthetic import shapes

    return shapes(run / _PICTURES, made_up)
