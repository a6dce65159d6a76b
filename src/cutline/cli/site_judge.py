"""`cutline site judge`: a chat model's judgement of the alts that pages have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cutline.cli.app import THREADS, examples, needing, running, wording
from cutline.cli.interrupts import interruptible
from cutline.cli.server_options import (
    DryRun,
    ImagePx,
    KeyFile,
    MaxRequests,
    MaxTokensTotal,
    PromptFile,
    RetryFor,
    Timeout,
    Yes,
    connection_options,
    read_key,
    reported_usage,
    upload_check,
)
from cutline.cli.site import DEFAULT_STORE, PRIVATE, QUIET, STORE, site
from cutline.cli.site_messages import Steps, next_command


@site.command(
    epilog=examples(
        "cutline site judge --model ollama:qwen2.5vl --sample 20",
        "cutline site judge --model openai:gpt-5-mini --max-requests 500 --yes",
    )
)
def judge(
    model: Annotated[
        str,
        running("--model", metavar="MODEL", help="A chat model: ollama:NAME, openai:NAME, ..."),
    ],
    store: Annotated[Path, STORE] = DEFAULT_STORE,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            min=1,
            help="Judge at most this many alts with the model.",
            show_default=False,
        ),
    ] = None,
    language: Annotated[
        str | None,
        wording(
            "--language",
            metavar="TAG",
            help="Language of the suggested alts. Default: each page's own.",
        ),
    ] = None,
    private: Annotated[bool | None, PRIVATE] = None,
    threads: Annotated[int | None, THREADS] = None,
    image_px: ImagePx = None,
    timeout: Timeout = None,
    retry_for: RetryFor = None,
    max_requests: MaxRequests = None,
    max_tokens_total: MaxTokensTotal = None,
    key_file: KeyFile = None,
    prompt: PromptFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Judge the existing alts with a chat model: good, to change, or decorative.

    Rules decide first; the model judges the other alts. A second run judges only what is
    missing or has changed. The review page, the report and the exports show the judgements.

    Exit codes: 0 all judged; 1 some failed; 2 usage error; 130 or 143 interrupted.
    """
    from cutline import site as library
    from cutline.backends import load
    from cutline.prompts import read

    captioner = load(
        model,
        threads=threads,
        key=read_key(key_file),
        connection=connection_options(
            image_px=image_px,
            timeout=timeout,
            retry_for=retry_for,
            max_requests=max_requests,
            max_tokens_total=max_tokens_total,
        ),
    )
    with (
        needing("site", "cutline site judge"),
        interruptible(),
        Steps(quiet) as steps,
        reported_usage(captioner, quiet=quiet),
    ):
        found = library.judge(
            store,
            captioner,  # type: ignore[arg-type]  # the function says if it is no chat model
            language=language or "",
            prompt=read("judge", prompt),
            sample=sample,
            private=private,
            progress=steps.show,
            before_requests=upload_check(yes=yes, dry_run=dry_run),
        )
        for reason in found.refusals:
            steps.problem(f"not judged: {reason}")
        steps.say(found.summary())
        if found.verdicts:
            steps.say(next_command(store, "review"))
    raise typer.Exit(1 if found.failed else 0)
