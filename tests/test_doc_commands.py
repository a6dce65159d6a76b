"""Run the commands of the README and the tutorials as a reader would, one after the other."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
NOT_RUN = {
    "serve": "a server that runs until it is stopped",
    "site review": "a server that runs until it is stopped",
    "train": "takes minutes; tests/training runs it",
    "export": "needs a trained run; tests/training runs it",
    "compare": "needs two trained models; tests/evaluation runs it",
    "evaluate": "needs a data set; tests/evaluation runs it",
    "data prepare": "downloads a data set",
    "data build": "needs dozens of images; tests/data runs it",
    "data check": "needs the result of data build",
    "video": "needs a clip; tests/video runs it",
    "doctor": "measures speed; tests/cli runs it",
    "site judge": "needs a server",
    "watch": "runs until it is stopped; tests/test_watch.py runs it",
}
SITE = """<!doctype html><html lang="en"><head><title>Walks</title></head><body>
<h1>Walks</h1><p>Spring in the hills.</p><img src="sheep.jpg">
<p>The office.</p><img src="cat.jpg" alt="Minka, the office cat"></body></html>"""


def commands(page: Path) -> list[list[str]]:
    """The cutline commands in a page's shell blocks, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("cutline ")]


def is_run(words: list[str]) -> bool:
    elsewhere = ("hub:", "http://", "models/", "ollama:", "s3://", "products.")
    if any(word.startswith(elsewhere) for word in words):
        return False
    return not ({words[0], " ".join(words[:2])} & NOT_RUN.keys())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A reader's folder: a photograph, a folder of photographs, and a small website."""
    samples = ROOT / "samples"
    (tmp_path / "samples").mkdir()
    for name in ("cat.jpg", "sheep.jpg"):
        shutil.copy(samples / name, tmp_path / "samples" / name)
    shutil.copy(samples / "cat.jpg", tmp_path / "2.png")
    shutil.copy(samples / "sheep.jpg", tmp_path / "street.jpg")
    (tmp_path / "photos").mkdir()
    shutil.copy(samples / "sheep.jpg", tmp_path / "photos" / "1.jpg")
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "index.html").write_text(SITE, encoding="utf-8")
    for name in ("sheep.jpg", "cat.jpg"):
        shutil.copy(samples / name, tmp_path / "public" / name)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_works(page: Path, home: Path) -> None:
    ran = 0
    for words in filter(is_run, commands(page)):
        words = ["public/" if word == "https://example.org/" else word for word in words]
        expected = (0, 1) if words[0] == "site" else (0,)  # 1: lint found an error
        done = subprocess.run(
            [sys.executable, "-m", "cutline", *words],
            cwd=home,
            env={**os.environ, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode in expected, (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        ran += 1
    if page.name in ("README.md", "captions.md", "website.md"):
        assert ran >= 4
