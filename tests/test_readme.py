import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

from typer.core import TyperGroup as Group
from typer.main import get_command

from cutline.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    shells = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = "\n".join(shells).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("cutline ")]


def figures() -> Any:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "scripts" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_those_of_their_files(tmp_path: Path) -> None:
    renewed = figures().renewed
    assert "<!-- figures: docs/dev.md -->" in README
    assert renewed(README) == README
    assert README.count("| METEOR |") == 1
    assert renewed(README.replace("| METEOR |", "| Meteor |")) == README
    (tmp_path / "two.md").write_text("# Two\n\n| a |\n| - |\n\nand\n\n| b |\n| - |\n| 1 |\n")
    second = renewed("<!-- figures: two.md, table 2 -->\n<!-- end -->", tmp_path)
    assert second == "<!-- figures: two.md, table 2 -->\n\n| b |\n| - |\n| 1 |\n\n<!-- end -->"


def test_the_map_of_modules_is_up_to_date() -> None:
    drawn = figures().drawn_map()
    assert "- `search.py`: Search: next-word log-probabilities" in drawn
    assert (ROOT / "docs" / "map.md").read_text(encoding="utf-8") == drawn


def test_every_command_of_the_readme_exists_with_its_options() -> None:
    found = commands()
    assert len(found) >= 18
    for _, *words in found:
        command = get_command(app)
        while isinstance(command, Group) and words:
            name = words.pop(0)
            assert name in command.commands, name
            command = command.commands[name]
        known = {option for each in command.params for option in each.opts}
        for word in words:
            if word.startswith("-") and word != "-":
                assert word.partition("=")[0] in known, (command.name, word)


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
        code = block.replace('"dog.jpg"', repr(str(ROOT / "samples" / "cat.jpg")))
        code = code.replace('"holiday/"', repr(str(ROOT / "samples")))
        exec(compile(code, "README.md", "exec"), {})
