from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("installed", "installs"),
    [
        ('{"dir_info": {"editable": true}, "url": "file:///x"}', False),
        ('{"dir_info": {}, "url": "file:///x"}', True),  # a copy, by pip install .
        (None, True),
    ],
    ids=["linked", "copied", "gone"],
)
def test_the_demo_installs_unless_what_is_there_is_this_folder(
    tmp_path: Path, installed: str | None, installs: bool
) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    about = tmp_path / ".venv/lib/python3.12/site-packages/cutline-1.0.dist-info"
    about.mkdir(parents=True)
    if installed:
        (about / "direct_url.json").write_text(installed)
    (tmp_path / ".venv/.cutline-demo").touch()
    steps = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert ("pip install" in steps) == installs
    assert steps.endswith("cutline caption samples/\n")
