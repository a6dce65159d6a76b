"""Limits on the structure of the code that no linter checks."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "cutline"
MAX_FUNCTION_LINES = 110
MAX_COMMAND_BODY_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(folder: Path) -> Iterator[tuple[str, Function]]:
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                yield f"{path.relative_to(SOURCE)}:{node.name}", node


def lines(function: Function) -> int:
    first = min([function.lineno, *(each.lineno for each in function.decorator_list)])
    assert function.end_lineno is not None
    return function.end_lineno - first + 1


def body_lines(function: Function) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    assert body[-1].end_lineno is not None
    return body[-1].end_lineno - body[0].lineno + 1


def test_no_function_is_too_long() -> None:
    long = {name: n for name, each in functions(SOURCE) if (n := lines(each)) > MAX_FUNCTION_LINES}
    assert not long


def test_no_command_does_more_than_parse_call_and_print() -> None:
    long = {
        name: n
        for name, each in functions(SOURCE / "cli")
        if (n := body_lines(each)) > MAX_COMMAND_BODY_LINES
    }
    assert not long


def test_every_module_is_in_a_layer_and_on_the_map() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {each["name"]: each for each in project["tool"]["importlinter"]["contracts"]}
    layers = [each for each in contracts.values() if each["type"] == "layers"]
    assert [each["containers"] for each in layers] == [["cutline"], ["cutline.site"]]
    assert all(each["exhaustive"] for each in layers)
    assert any(each["type"] == "acyclic_siblings" for each in contracts.values())
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    for path in SOURCE.rglob("*.py"):
        if not path.name.startswith("_"):
            assert f"`{path.relative_to(SOURCE).as_posix()}`" in text, path


def test_every_function_is_annotated() -> None:
    for name, each in functions(SOURCE):
        arguments = [*each.args.posonlyargs, *each.args.args, *each.args.kwonlyargs]
        bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        assert not bare, (name, bare)
        assert each.returns is not None, name
