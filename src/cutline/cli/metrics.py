"""`cutline metrics`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cutline.cli.app import app, examples, writing

metrics = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Verify the evaluation metrics."
)
app.add_typer(metrics, name="metrics")


@metrics.callback()
def root() -> None:
    """Verify the evaluation metrics."""


@metrics.command(epilog=examples("cutline metrics verify --flickr8k-judgements Flickr8k_text/"))
def verify(
    folder: Annotated[
        Path,
        typer.Option(
            "--flickr8k-judgements",
            metavar="DIR",
            help="Has Flickr8k.token.txt, ExpertAnnotations.txt, CrowdFlowerAnnotations.txt.",
        ),
    ],
    meteor: Annotated[bool, typer.Option(help="Include METEOR, which needs Java.")] = True,
    markdown: Annotated[
        Path | None,
        writing("--markdown", metavar="FILE", help="Also write the table to this file."),
    ] = None,
    force: Annotated[bool, writing("--force", help="Replace an existing file.")] = False,
) -> None:
    """Compare each metric's correlation with human judgements to published figures."""
    from cutline.atomic import refuse_existing, write_whole
    from cutline.evaluation.human_correlation import read_judgements, to_markdown
    from cutline.evaluation.human_correlation import verify as correlate

    if markdown is not None and not force:
        refuse_existing(markdown)
    table = to_markdown(correlate(*read_judgements(folder), meteor=meteor))
    if markdown is not None:
        write_whole(markdown, table)
    print(table, end="")
