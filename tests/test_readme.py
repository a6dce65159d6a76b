import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup as Group
from typer.main import get_command

from cutline.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(page.relative_to(ROOT) for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))


OTHER_OPTIONS = {"--help", "--mmproj"}
"""Options of every command, and of other programs that a page names."""


def commands(text: str) -> list[list[str]]:
    """What a page tells to type: in blocks, behind a prompt or not, and within its sentences."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines = [line.removeprefix("$ ") for line in lines] + in_prose(text)
    return [shlex.split(line, comments=True) for line in lines if line.startswith("cutline ")]


def in_prose(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def options(command: Any) -> set[str]:
    """Those of a command, or of all commands of a group."""
    own = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    return own.union(*map(options, command.commands.values())) if is_group(command) else own


@cache
def root() -> Any:
    """The command `cutline`; Typer builds it anew for each call."""
    return get_command(app)


def is_group(command: Any) -> bool:
    return isinstance(command, Group)


def figures() -> Any:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "scripts" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_those_of_their_files(tmp_path: Path) -> None:
    renewed = figures().renewed
    assert "<!-- figures: docs/compare-flickr8k.md -->" in README
    assert renewed(README) == README
    assert README.count("| METEOR |") == 2
    assert renewed(README.replace("| METEOR |", "| Meteor |")) == README
    (tmp_path / "two.md").write_text("# Two\n\n| a |\n| - |\n\nand\n\n| b |\n| - |\n| 1 |\n")
    second = renewed("<!-- figures: two.md, table 2 -->\n<!-- end -->", tmp_path)
    assert second == "<!-- figures: two.md, table 2 -->\n\n| b |\n| - |\n| 1 |\n\n<!-- end -->"


def test_the_map_of_modules_is_up_to_date() -> None:
    drawn = figures().drawn_map()
    assert "- `search.py`: Search: next-word log-probabilities" in drawn
    assert (ROOT / "docs" / "map.md").read_text(encoding="utf-8") == drawn


def test_commands_are_found() -> None:
    page = (
        "```sh\ncutline models  # all\n```\n`cutline data`, `--all`\n```\n$ cutline doctor\n```\n"
    )
    assert commands(page) == [["cutline", "models"], ["cutline", "doctor"], ["cutline", "data"]]
    assert len(commands(README)) >= 18


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_and_option_of_a_page_exists(page: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for _, *words in commands(text):
        command = root()
        while is_group(command) and words:
            name = words.pop(0)
            assert name in command.commands, name
            command = command.commands[name]
        for word in words:
            if word.startswith("-") and word != "-":
                assert word.partition("=")[0] in options(command), (command.name, word)
    known = options(root()) | OTHER_OPTIONS
    for code in in_prose(text):
        if code.startswith("--"):
            assert re.split(r"[\s=]", code)[0] in known, code


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_file_that_a_page_leads_to_exists(page: Path) -> None:
    prose = re.sub("`[^`]*`", "", (ROOT / page).read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)", prose):
        path = (ROOT / page).parent.joinpath(target).resolve()
        if ":" not in target and path.parent != ROOT / "docs" / "reference":  # generated
            assert path.exists(), target


def test_every_file_of_the_map_exists_and_every_folder_and_floor_is_on_it() -> None:
    block = re.search(r"```\nsrc/cutline/\n(.*?)```", README, re.DOTALL)
    assert block is not None
    listed, folder = set(), Path()
    for line in block[1].splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folder = Path(*folder.parts[: depth - 1])
        listed.add(folder / name)
        if name.endswith("/"):
            folder = folder / name
    source = ROOT / "src" / "cutline"
    for path in listed:
        assert (source / path).exists(), path
    for path in source.iterdir():
        module = path.suffix == ".py" and not path.name.startswith("_")
        if module or (path / "__init__.py").exists():
            assert Path(path.name) in listed, path


def test_its_python_runs() -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        code = block.replace('"samples/', f'"{ROOT}/samples/')
        exec(compile(code, "README.md", "exec"), {})
