"""The Typer application, and the options that several commands share."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from inspect import cleandoc
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cutline.errors import (
    BundleNotFoundError,
    CutlineError,
    MissingExtraError,
    OptionError,
    RecipeError,
)
from cutline.options import ENGINE_FORMS, help_of

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
WRONG_USE = (OptionError, BundleNotFoundError, RecipeError)


class Commands(TyperGroup):
    """Ends every error of ours as one line: exit code 2 for wrong use, else 1.

    Help flows to the terminal's width: a line's end within a paragraph means nothing.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: D102
        command = super().get_command(ctx, cmd_name)
        for each in (command, *getattr(command, "commands", {}).values()):
            if each and each.help:
                each.help = re.sub(r"(?<!\n)\n(?!\n)", " ", cleandoc(each.help))
            for param in each.params if each else ():
                if hasattr(param.type, "resolve_path") and "convert" not in vars(param.type):
                    param.type.convert = partial(_to_path, param.type)
        return command

    def invoke(self, ctx: Any) -> Any:  # noqa: D102
        try:
            return super().invoke(ctx)
        except CutlineError as error:
            from cutline.terminal import printable

            print(f"cutline: {printable(str(error))}", file=sys.stderr)
            raise typer.Exit(2 if isinstance(error, WRONG_USE) else 1) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _to_path(path_type: Any, value: Any, param: Any, ctx: Any) -> Any:
    """Convert an argument to a path; URLs, from which `Path` takes a slash, are refused."""
    if isinstance(value, str) and re.match(r"(https?|ftp)://", value, re.IGNORECASE):
        path_type.fail(f"got {value}, a URL; expected a path: download it first", param, ctx)
    return type(path_type).convert(path_type, value, param, ctx)


writing = partial(typer.Option, rich_help_panel="Output", show_default=False)
wording = partial(typer.Option, rich_help_panel="Words", show_default=False)
running = partial(typer.Option, rich_help_panel="Machine", show_default=False)
MODELS = (
    "A name from `cutline models`, the folder of a bundle, a model on a server (ollama:NAME, "
    "lmstudio:, llamacpp:, vllm:, openai:, openrouter:, gemini:, mistral:, groq: or URL#NAME), or "
    "a model in Hugging Face's format (hub:NAME or hub:FOLDER)."
)
MODEL = running("--model", metavar="MODEL", help=MODELS)
ENGINE = running(
    "--engine",
    metavar=ENGINE_FORMS,
    help="Inference engine and precision. Default: auto, which depends on the processor.",
)
THREADS = running("--threads", min=1, help="Processor threads. Default: one per core.")


def main() -> None:
    """Run the command that the arguments name."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")  # a terminal may lack a letter
    try:
        try:
            app(prog_name="cutline")
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter fails on it again
        with suppress(OSError):
            print(f"cutline: standard output: {error.strerror}", file=sys.stderr)
        sys.exit(1)


def examples(*commands: str) -> str:
    """The end of a help page."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"[cyan]$[/cyan] {each}" for each in commands)])


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"cutline {version('cutline')}")
        raise typer.Exit


@app.callback(
    epilog=examples("cutline caption holiday/", "cutline models", "cutline COMMAND --help")
)
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Caption photographs, folders and websites, offline."""


def field_option(
    options: type, *flags: str, name: str = "", panel: str | None = None, **settings: Any
) -> Any:
    """A flag whose help is that of an options class's field.

    Args:
        options: a dataclass whose fields' metadata holds "help".
        flags: such as "--output" and "-o".
        name: the field's name; by default the first flag's.
        panel: the panel of the help page.
        settings: further arguments of `typer.Option`.
    """
    name = name or flags[0].lstrip("-").replace("-", "_")
    text = help_of(options, name)
    return typer.Option(*flags, help=text, rich_help_panel=panel, show_default=False, **settings)


def given(**options: Any) -> dict[str, Any]:
    """Drop the options that were not given, so that defaults apply to them."""
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Name the extra to install if one of its packages is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "cutline").partition(".")[0] == "cutline":
            raise
        raise MissingExtraError(what, extra) from error
