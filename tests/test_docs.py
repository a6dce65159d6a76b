from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cutline.cli import app
from cutline.service.schema import AltOptions, PageContext
from cutline.service.settings import Settings
from cutline.site.decide.decision_tree import RULES
from cutline.site.decide.lint_rules import LINT_RULES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated reference pages."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("reference")
    module.write(folder)
    return folder


def walk(command: Any, name: str = "cutline") -> dict[str, Any]:
    if hasattr(command, "commands"):
        return {
            path: each
            for key, child in command.commands.items()
            for path, each in walk(child, f"{name} {key}").items()
        }
    return {name: command}


def test_the_documentation_builds_without_warnings(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*build, "-d", str(tmp_path / "cache"), str(ROOT / "docs"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "reference" / "cli.html").exists()


def test_the_reference_has_every_command_and_option_with_its_help(reference: Path) -> None:
    text = (reference / "cli.md").read_text(encoding="utf-8")
    for name, command in walk(get_command(app)).items():
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert command.help, name
        assert section, name
        for option in command.params:
            if option.param_type_name == "option" and not option.hidden and option.name != "help":
                assert option.help, (name, option.name)
                assert f"`{option.opts[0]}`" in section, (name, option.name)


def test_the_reference_has_every_setting_rule_and_field(reference: Path) -> None:
    settings = (reference / "settings.md").read_text(encoding="utf-8")
    for each in fields(Settings):
        assert f"`CUTLINE_SERVE_{each.name.upper()}`" in settings
    rules = (reference / "rules.md").read_text(encoding="utf-8")
    positions = [rules.index(f"| `{rule.name}` |") for rule in RULES]
    assert positions == sorted(positions)
    for name in LINT_RULES:
        assert f"| `{name}` |" in rules
    rest = (reference / "rest.md").read_text(encoding="utf-8")
    for model in (PageContext, AltOptions):
        for name in model.model_fields:
            assert f"| `{name}` |" in rest
