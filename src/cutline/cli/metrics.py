"""`cutline metrics`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cutline.cli.app import app, examples, writing

metrics = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Metrics, and whether to trust them."
)
app.add_typer(metrics, name="metrics")


@metrics.callback()
def root() -> None:
    """Metrics, and whether to trust them."""


@metrics.command(epilog=examples("cutline metrics verify --flickr8k-judgements Flickr8k_text/"))
def verify(
    folder: Annotated[
        Path,
        typer.Option(
            "--flickr8k-judgements",
            metavar="DIR",
            help="Holds Flickr8k.token.txt, ExpertAnnotations.txt, CrowdFlowerAnnotations.txt.",
        ),
    ],
    meteor: Annotated[bool, typer.Option(help="METEOR too, in Java.")] = True,
    markdown: Annotated[
        Path | None, writing("--markdown", metavar="FILE", help="Write the table here too.")
    ] = None,
    force: Annotated[bool, writing("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Correlate each metric with people's judgements, beside the published figures."""
    from cutline.atomic import refuse_existing, write_whole
    from cutline.evaluation.human_correlation import read_judgements, to_markdown
    from cutline.evaluation.human_correlation import verify as correlate

    if markdown is not None and not force:
        refuse_existing(markdown)
    table = to_markdown(correlate(*read_judgements(folder), meteor=meteor))
    if markdown is not None:
        write_whole(markdown, table)
    print(table, end="")
