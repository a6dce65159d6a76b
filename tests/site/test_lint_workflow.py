from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cutline.cli import app
from cutline.errors import OptionError
from cutline.site import Baseline, changed_files, lint_files

PAGE = """<!doctype html><html lang="en"><body>
<img src="a.jpg">
<img src="b.jpg" alt="b.jpg">
</body></html>"""
GOOD = '<html lang="en"><body><img src="c.jpg" alt="A dog asleep on a red sofa"></body></html>'


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "old page.html").write_text(PAGE)
    (tmp_path / "docs" / "good.html").write_text(GOOD)
    git("init", "-q")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "one")
    return tmp_path


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["site", "lint", *arguments])
    return done.exit_code, done.stdout


def test_files_and_folders_are_checked_without_a_store(repository: Path) -> None:
    code, out = run("docs")
    assert code == 1
    assert "docs/old page.html:2: error: a.jpg" in out
    assert "docs/old page.html:3: error: b.jpg" in out
    assert run("docs/good.html") == (0, "")
    (repository / "notes.txt").write_text("no page")
    assert run("notes.txt") == (0, "")
    with pytest.raises(OptionError, match="expected an existing file"):
        list(lint_files(["gone.html"]))


def test_a_baseline_hides_known_findings_and_no_new_ones(repository: Path) -> None:
    assert run("docs", "--baseline", "lint.json", "--write-baseline") == (0, "")
    assert run("docs", "--baseline", "lint.json") == (0, "")
    page = repository / "docs" / "old page.html"
    page.write_text("\n\n" + PAGE.replace("</body>", '<img src="new.jpg"></body>'))
    code, out = run("docs", "--baseline", "lint.json")
    assert code == 1
    assert out.count(": error:") == 1
    assert "new.jpg" in out
    page.write_text(PAGE.replace("</body>", '<img src="a.jpg"></body>'))
    assert run("docs", "--baseline", "lint.json")[1].count("a.jpg") == 1
    (repository / "lint.json").write_text("[]")
    with pytest.raises(OptionError, match="not a baseline"):
        Baseline.read(repository / "lint.json")


def test_a_baseline_knows_findings_by_their_alt_and_not_by_their_message(repository: Path) -> None:
    found = list(lint_files(["docs"]))
    Baseline.write(Path("lint.json"), found)
    known = Baseline.read(Path("lint.json"))
    reworded = [(place, replace(finding, message="other words")) for place, finding in found]
    assert not list(known.new(reworded))
    page = repository / "docs" / "old page.html"
    page.write_text(PAGE.replace('alt="b.jpg"', 'alt="c.jpg"'))
    [(_, finding)] = Baseline.read(Path("lint.json")).new(lint_files(["docs"]))
    assert finding.occurrence is not None
    assert finding.occurrence.alt == "c.jpg"


def test_only_changed_and_new_files_are_checked(repository: Path) -> None:
    assert run("docs", "--changed-since", "HEAD") == (0, "")
    (repository / "docs" / "good.html").write_text(PAGE)
    (repository / "docs" / "neu.html").write_text(PAGE.replace("a.jpg", "other.jpg"))
    code, out = run("docs", "--changed-since", "HEAD")
    assert code == 1
    assert "docs/good.html:2" in out
    assert "docs/neu.html:2" in out
    assert "old page" not in out
    with pytest.raises(OptionError, match="git: "):
        changed_files("no-such-revision")
    assert run("docs", "--changed-since", "no-such-revision")[0] == 2
    assert run("docs", "--changed-since", "--output=written.txt")[0] == 2
    assert not (repository / "written.txt").exists()
    assert run("gone", "--changed-since", "HEAD")[0] == 2
    assert run("docs", "--baseline", "gone.json")[0] == 2


def test_the_repository_is_that_of_the_files(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("config", "diff.relative", "true")
    git("mv", "docs/old page.html", "docs/new page.html")
    (repository / "docs" / "sub").mkdir()
    (repository / "docs" / "sub" / "neu.html").write_text(PAGE.replace("a.jpg", "new.jpg"))
    monkeypatch.chdir(repository / "docs" / "sub")
    assert run("neu.html", "--changed-since", "HEAD")[0] == 1
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    _, out = run(str(repository / "docs"), "--changed-since", "HEAD")
    found = {line.partition(":")[0] for line in out.splitlines() if line.startswith("/")}
    assert {Path(each).name for each in found} == {"new page.html", "neu.html"}
    with pytest.raises(OptionError, match="not a git repository"):
        changed_files("HEAD")


def test_sarif_is_valid_and_names_places(repository: Path) -> None:
    code, out = run("docs", "--format", "sarif")
    assert code == 1
    log = json.loads(out)
    assert log["version"] == "2.1.0"
    for result in log["runs"][0]["results"]:
        assert result["level"] in ("note", "warning", "error")
        assert result["message"]["text"]
    [first, *_] = log["runs"][0]["results"]
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "docs/old%20page.html"
    assert place["region"]["startLine"] == 2
    assert {each["ruleId"] for each in log["runs"][0]["results"]} <= {
        each["id"] for each in log["runs"][0]["tool"]["driver"]["rules"]
    }


def test_github_annotations_escape_what_a_page_holds(repository: Path) -> None:
    (repository / "docs" / "a,b.html").write_text('<img src="x%0A::error::y.jpg">')
    code, out = run("docs/a,b.html", "--format", "github")
    assert code == 1
    assert out.startswith("::error file=docs/a%2Cb.html,line=1,title=alt text%3A image-alt::")
    assert "x%250A" in out


def test_options_for_files_need_a_path(repository: Path) -> None:
    assert run("--format", "sarif")[0] == 2
    assert run("--changed-since", "HEAD")[0] == 2
