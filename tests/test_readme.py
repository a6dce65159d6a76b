import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from cutline.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    shells = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = "\n".join(shells).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("cutline ")]


def test_figures_are_those_of_their_files() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("figures", ROOT / "scripts" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    assert "<!-- figures: docs/dev.md -->" in README
    assert figures.renewed(README) == README
    assert README.count("| METEOR |") == 1
    assert figures.renewed(README.replace("| METEOR |", "| Meteor |")) == README


def test_every_command_of_the_readme_exists_with_its_options() -> None:
    found = commands()
    assert len(found) >= 8
    for _, name, *words in found:
        shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, name
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in shown.output, (name, word)


def test_every_file_of_the_map_exists_and_every_module_is_on_it() -> None:
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
    for module in source.rglob("*.py"):
        if module.name not in ("__init__.py", "__main__.py"):
            assert module.relative_to(source) in listed, module


def test_its_python_runs() -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        code = block.replace('"dog.jpg"', repr(str(ROOT / "samples" / "cat.jpg")))
        code = code.replace('"holiday/"', repr(str(ROOT / "samples")))
        exec(compile(code, "README.md", "exec"), {})
