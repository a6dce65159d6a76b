"""Write the reference documentation from the code: commands, REST API, settings, rules, Python API.

    python scripts/reference.py [FOLDER]     default: docs/reference

`make docs` runs this script. The generated pages are not in the repository.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

FUNCTIONS = ("cutline.load", "cutline.models", "cutline.find_images")
PYTHON_API = {
    "cutline.caption": "Caption types",
    "cutline.errors": "Errors",
    "cutline.search": "Search",
    "cutline.site": "Alt text for websites",
    "cutline.site.destination": "Destinations of alt text",
    "cutline.metadata": "Alt text in image files",
    "cutline.watch": "Watching a folder",
    "cutline.data": "Data sets",
    "cutline.evaluation.evaluate": "Evaluation",
    "cutline.evaluation.metrics": "Metrics",
    "cutline.evaluation.explain": "Attention pictures",
    "cutline.training.recipe": "Training recipes",
    "cutline.training.trainer": "Training",
    "cutline.training.export": "Export",
}


def write(folder: Path) -> None:
    """Write every page of the reference into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "cli.md": cli(),
        "python.md": python(),
        "rest.md": rest(),
        "settings.md": settings(),
        "rules.md": rules(),
    }
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def cli() -> str:
    """Every command with its usage, arguments, options and examples."""
    from typer.main import get_command

    from cutline.cli import app

    lines = ["# Command line", ""]
    for name, command in _commands(get_command(app), "cutline"):
        lines += [f"## {name}", "", _paragraphs(command.help or ""), ""]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
        usage = " ".join([name, *(p.make_metavar(_context(command)) for p in arguments)])
        lines += ["```text", usage + (" [OPTIONS]" if options else ""), "```", ""]
        if options:
            lines += ["| Option | Default | Description |", "| --- | --- | --- |"]
            lines += [_option_row(option) for option in options if option.name != "help"]
            lines.append("")
        lines += _examples(command.epilog or "")
    return "\n".join(lines)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for key, each in sorted(command.commands.items()):
            if not each.hidden:
                yield from _commands(each, f"{name} {key}")
    else:
        yield name, command


def _context(command: Any) -> Any:
    return command.context_class(command)


def _option_row(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    default = option.default
    shown = "" if default in (None, False, "", (), [], ...) or callable(default) else f"`{default}`"
    return f"| {names} | {shown} | {_cell(option.help or '')} |"


def python() -> str:
    """The public Python API, by autodoc."""
    lines = ["# Python API", "", "```{eval-rst}", ".. automodule:: cutline", "   :no-members:", ""]
    for name in FUNCTIONS:
        lines += [f".. autofunction:: {name}", ""]
    lines += ["```", ""]
    for module, title in PYTHON_API.items():
        lines += [f"## {title}", "", "```{eval-rst}", f".. automodule:: {module}", "```", ""]
    return "\n".join(lines)


def rest() -> str:
    """Every path of the service with its parameters and problems, from its OpenAPI document."""
    from cutline.service.app import create_app
    from cutline.service.problems import KINDS
    from cutline.service.settings import Settings

    document = create_app(Settings()).openapi()
    lines = ["# REST API", "", "The service serves this document as `/v1/openapi.json`.", ""]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines += [f"## {method.upper()} {path}", "", operation.get("summary", ""), ""]
            lines += [operation.get("description", ""), ""]
            if operation.get("parameters"):
                lines += ["| Parameter | Description |", "| --- | --- |"]
                lines += [
                    f"| `{each['name']}` | {_cell(each.get('description', ''))} |"
                    for each in operation["parameters"]
                ]
                lines.append("")
            for media, content in operation.get("requestBody", {}).get("content", {}).items():
                name = content["schema"].get("$ref", "").rpartition("/")[2]
                if name:
                    lines += [f"Body `{media}`: [{name}](#{name.lower()}).", ""]
    lines += ["## Schemas", ""]
    for name, schema in document["components"]["schemas"].items():
        lines += [f"### {name}", "", schema.get("description", ""), ""]
        if schema.get("properties"):
            lines += ["| Field | Type | Description |", "| --- | --- | --- |"]
            lines += [
                f"| `{key}` | {_type(value)} | {_cell(value.get('description', ''))} |"
                for key, value in schema["properties"].items()
            ]
            lines.append("")
    lines += ["## Problems", "", "| Code | Status | Meaning |", "| --- | --- | --- |"]
    lines += [f"| `{code}` | {k.status} | {_cell(k.meaning)} |" for code, k in KINDS.items()]
    return "\n".join([*lines, ""])


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    return str(schema.get("type", "any"))


def settings() -> str:
    """Every setting of the service."""
    from cutline.service.settings import PREFIX, Settings

    lines = [
        "# Service settings",
        "",
        "Set each as a flag of `cutline serve` or as an environment variable. "
        "Flags take precedence over environment variables. Separate the items of lists by commas.",
        "",
        "| Flag | Environment variable | Default | Description |",
        "| --- | --- | --- | --- |",
    ]
    for each in fields(Settings):
        default = "" if each.default in (None, ()) else f"`{each.default}`"
        flag = each.name.replace("_", "-")
        help_ = _cell(each.metadata.get("help", ""))
        lines.append(f"| `--{flag}` | `{PREFIX}{each.name.upper()}` | {default} | {help_} |")
    return "\n".join([*lines, ""])


def rules() -> str:
    """The rules of the decision tree, in their order, and the lint rules."""
    from cutline.site.decide.decision_tree import RULES
    from cutline.site.decide.lint_rules import LINT_RULES

    lines = [
        "# Rules",
        "",
        "## Decision rules",
        "",
        "Cutline applies these rules in order; the first that matches decides.",
        "See [how Cutline decides](../explanation/decision-tree.md).",
        "",
        "| Rule | Condition | Source |",
        "| --- | --- | --- |",
    ]
    for rule in RULES:
        source = f"[source]({rule.reference})" if rule.reference.startswith("http") else ""
        lines.append(f"| `{rule.name}` | {_cell(rule.condition)} | {source or rule.reference} |")
    lines += ["| `informative` | None of the above. | |", ""]
    lines += [
        "## Lint rules",
        "",
        "`cutline site lint` and drafts use these rules. An error fails WCAG, a warning is "
        "probably a problem, and a note is about style.",
        "",
        "| Rule | Severity | Reported if | WCAG |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| `{rule.name}` | {rule.severity.value} | {_cell(rule.condition)} "
        f"| {rule.reference.removeprefix('WCAG ')} |"
        for rule in LINT_RULES.values()
    ]
    lines.append("")
    return "\n".join(lines)


def _paragraphs(text: str) -> str:
    """A command's help as Markdown: Rich's markup becomes bold text."""
    return re.sub(r"\[/?bold\]", "**", text.replace("\b\n", "")).strip()


def _examples(epilog: str) -> list[str]:
    """The examples at the end of a help page, as a block of shell commands."""
    commands = re.findall(r"\[cyan\]\$\[/cyan\] (.*)", epilog)
    return ["```sh", *commands, "```", ""] if commands else []


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "reference")
