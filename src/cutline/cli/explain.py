"""`cutline explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cutline.cli.app import ENGINE, MODEL, THREADS, app, examples, given, wording, writing
from cutline.cli.server_options import Yes, confirm_upload
from cutline.errors import OptionError
from cutline.terminal import printable


@app.command(
    epilog=examples(
        "cutline explain dog.jpg",
        "cutline explain dog.jpg --output dog.png",
        "cutline explain dog.jpg --model runs/mine-v1 -o dog.png -o dog.html --force",
    )
)
def explain(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image.")],
    output: Annotated[
        list[Path] | None,
        writing(
            "--output",
            "-o",
            metavar="FILE.png|FILE.html",
            help="Write to this file. Repeatable. Default: IMAGE.attention.html.",
        ),
    ] = None,
    force: Annotated[bool, writing("--force", help="Replace existing files.")] = False,
    n_best: Annotated[
        int, wording("--n-best", min=1, help="Number of ranked candidates to list. Default: 5.")
    ] = 5,
    beam: Annotated[
        int | None, wording("--beam", min=1, help="Beam size; at least --n-best.")
    ] = None,
    model: Annotated[str | None, MODEL] = None,
    engine: Annotated[str, ENGINE] = "auto",
    threads: Annotated[int | None, THREADS] = None,
    yes: Yes = False,
) -> None:
    """Show the attention for each word, and the ranked candidate captions."""
    from dataclasses import replace

    from cutline.atomic import refuse_existing, write_whole
    from cutline.backends import load
    from cutline.caption import CaptionOptions
    from cutline.evaluation.explain import candidates, explanation, png, storyboard
    from cutline.image import load_image

    targets = output or [Path(f"{image.name}.attention.html")]
    for target in targets:
        if target.suffix.lower() not in (".png", ".html"):
            raise OptionError(f"got output {target}; expected a name ending in .png or .html")
        if not force:
            refuse_existing(target)

    captioner = load(model, engine=engine, threads=threads)
    confirm_upload(captioner, 1, yes=yes)
    width = max(n_best, beam or captioner.search.beam_size)
    search = replace(captioner.search, n_best=n_best, **given(beam_size=beam or width))
    caption = captioner.caption(image, CaptionOptions(search))
    rgb = load_image(image, around_px=1200)
    print(printable(candidates(caption), keep="\n"))
    for target in targets:
        if target.suffix.lower() == ".png":
            write_whole(target, png(storyboard(rgb, caption)))
        else:
            write_whole(target, explanation(rgb, caption))
        print(target)
