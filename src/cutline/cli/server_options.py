"""Options of every command that may use a model behind a server, and consent to uploads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutline.cli.app import given, running
from cutline.errors import OptionError

if TYPE_CHECKING:
    from cutline.backends.chat_client import ConnectionOptions
    from cutline.prompts import Prompt

ImagePx = Annotated[
    int | None,
    running(
        "--image-px",
        min=32,
        help="Longest side of images sent to a server, pixels. Default: 768.",
    ),
]
Timeout = Annotated[
    float | None,
    running(
        "--timeout", min=0.1, help="Timeout of one request to a server, seconds. Default: 120."
    ),
]
RetryFor = Annotated[
    float | None,
    running(
        "--retry-for",
        min=0,
        help="Stop after this many seconds without an answer from a busy server. Default: 300.",
    ),
]
MaxRequests = Annotated[
    int | None, running("--max-requests", min=1, help="Stop after this many requests to a server.")
]
MaxTokensTotal = Annotated[
    int | None,
    running("--max-tokens-total", min=1, help="Stop after this many tokens, as the server counts."),
]
KeyFile = Annotated[
    Path | None,
    running(
        "--key-file",
        metavar="FILE",
        help="A file with the server's API key. Default: an environment variable, such as "
        "OPENAI_API_KEY or CUTLINE_API_KEY.",
    ),
]
PromptFile = Annotated[
    Path | None,
    running(
        "--prompt", metavar="FILE", help="Your own prompt for a chat model; see docs/servers.md."
    ),
]
Yes = Annotated[
    bool,
    running("--yes", "-y", help="Send images to a remote server without asking."),
]
DryRun = Annotated[
    bool,
    running(
        "--dry-run",
        help="Show the number of images and estimated tokens; send nothing.",
    ),
]


def connection_options(
    *,
    image_px: int | None = None,
    timeout: float | None = None,
    retry_for: float | None = None,
    max_requests: int | None = None,
    max_tokens_total: int | None = None,
) -> ConnectionOptions:
    """The connection that the options describe."""
    from cutline.backends.chat_client import ConnectionOptions
    from cutline.backends.retry import Budget, RetryOptions

    return ConnectionOptions(
        **given(image_px=image_px, timeout_s=timeout),
        retry=RetryOptions(**given(wait_s=retry_for)),
        budget=Budget(max_requests, max_tokens_total),
    )


def read_prompt(name: str, path: Path | None) -> Prompt | None:
    """The user's own prompt; None if there is none."""
    from cutline.prompts import read

    return None if path is None else read(name, path)


def read_key(path: Path | None) -> str | None:
    """The key in a file; None if no file is named."""
    from cutline.backends.servers import key_from_file

    return None if path is None else key_from_file(path)


def is_remote(captioner: Any) -> bool:
    """Whether images are sent to a server, be it on this machine."""
    return hasattr(captioner, "is_local")


def describe_upload(captioner: Any, images: int | None) -> str:
    """How many images a run sends where, and about how many tokens that takes."""
    count = "images" if images is None else f"{images:,} image{'' if images == 1 else 's'}"
    if not is_remote(captioner):
        return f"{count} would be processed on this machine by {captioner.name}"
    tokens = captioner.estimated_tokens(images or 1)
    each = "" if images is not None else " each"
    return f"{count} to {captioner.host} for {captioner.name}, about {tokens:,} tokens{each}"


def confirm_upload(captioner: Any, images: int | None, *, yes: bool) -> None:
    """Ask before images are sent to a server that does not run on this machine.

    Args:
        captioner: who captions.
        images: how many images; None if that is not known.
        yes: whether consent was given by an option.

    Raises:
        OptionError: there is no terminal to ask, or the answer is no.
    """
    if getattr(captioner, "is_local", True) or images == 0:
        return
    upload = describe_upload(captioner, images)
    print(f"Sends {upload}.", file=sys.stderr)
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise OptionError(f"got no consent to send {upload}; add --yes to send")
    if not typer.confirm("Send?", err=True):
        raise OptionError("nothing was sent")


def upload_check(*, yes: bool, dry_run: bool) -> Callable[[Any, int], None]:
    """What is called before the first image is sent: asks, or ends a dry run."""

    def check(captioner: Any, images: int) -> None:
        if dry_run:
            print(f"Would send {describe_upload(captioner, images)}; nothing was sent.")
            raise typer.Exit
        confirm_upload(captioner, images, yes=yes)

    return check


@contextmanager
def reported_usage(captioner: Any, *, quiet: bool = False) -> Iterator[None]:
    """Report requests and tokens when the block ends, however it ends."""
    try:
        yield
    finally:
        usage = getattr(captioner, "usage", None)
        if usage is not None and usage.requests and not quiet:
            print(f"{captioner.name}: {usage.summary()}", file=sys.stderr)
