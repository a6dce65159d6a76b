from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cutline

ENGINES = {"torch", "onnxruntime", "openvino"}


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh Python has loaded after running some code."""
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    heavy = ENGINES | {"numpy", "PIL", "rich", "typer", "json"}
    assert not heavy & loaded_after("import cutline")


def test_every_public_name_is_there_without_an_engine() -> None:
    loaded = loaded_after("import cutline\nfor name in cutline.__all__: getattr(cutline, name)")
    assert {"numpy", "PIL"} <= loaded
    assert not ENGINES & loaded


def test_one_engine_at_most_is_loaded(tmp_path: Path) -> None:
    tests = Path(__file__).parent
    code = f"""
sys.path.insert(0, {str(tests)!r})
import pathlib, tiny, cutline
tiny.build(pathlib.Path({str(tmp_path)!r}))
print(cutline.load({str(tmp_path / "tiny-v1")!r}, engine="onnxruntime").name)
"""
    loaded = loaded_after(code)
    assert ENGINES & loaded == {"onnxruntime"}
    assert "tiny-v1" in loaded


def test_names_are_listed_and_unknown_ones_refused() -> None:
    assert set(cutline.__all__) <= set(dir(cutline))
    with pytest.raises(AttributeError, match="module 'cutline' has no attribute 'beam'"):
        cutline.beam  # noqa: B018


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert cutline.__version__ == project["project"]["version"]


def test_the_caption_command_loads_no_evaluation() -> None:
    code = (
        "import cutline.cli.caption, cutline.caption_files, cutline.cli.progress\n"
        "loaded = [name for name in sys.modules if name.startswith('cutline.evaluation')]\n"
        "assert not loaded, loaded"
    )
    loaded_after(code)
