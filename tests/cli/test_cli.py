from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
import tiny
from command_line import standin_cutline as cutline
from conftest import HostileFolder, scene

from cutline.discover import find_images

STANDIN = Path(__file__).parents[1] / "standin.py"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **more}


def in_a_process(*words: Any, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run `cutline WORDS` over the stand-in captioner, in a process of its own."""
    command = [sys.executable, STANDIN, *map(str, words)]
    return subprocess.run(command, capture_output=True, timeout=60, env=environment(**env))


def real(*words: Any, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `cutline WORDS` over the models in a folder."""
    done = command_line.cutline(*words, CUTLINE_HOME=str(home), **env)
    out, err = done.stdout.decode(), done.stderr.decode()
    return subprocess.CompletedProcess(words, done.returncode, out, err)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny.build(home / "models")
    return home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(1, 31):
        scene(number, 4).save(folder / f"{number}.png")
    (folder / "17.png").write_bytes(b"no picture")
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def captioned(log: Path) -> list[str]:
    return log.read_bytes().decode().split("\0")[:-1]


def test_a_pipe_gets_plain_lines_in_order_and_errors_apart(folder: Path) -> None:
    done = cutline("caption", folder)
    lines = done.stdout.decode().splitlines()
    assert [line.split("\t") for line in lines] == [
        [str(folder / f"{n}.png"), f'a "picture", {n} by 4'] for n in range(1, 31) if n != 17
    ]
    (problem,) = done.stderr.decode().splitlines()
    assert problem.startswith(f"{folder / '17.png'}: ")
    assert done.returncode == 1


def test_all_good_exits_with_zero_and_says_nothing_else(folder: Path) -> None:
    done = cutline("caption", folder / "1.png", folder / "2.png")
    assert (done.returncode, done.stderr) == (0, b"")


def test_jsonl_holds_every_field(folder: Path) -> None:
    done = cutline(
        "caption", folder / "7.png", folder / "17.png", "--format", "jsonl", "--n-best", 2
    )
    good, bad = map(json.loads, done.stdout.splitlines())
    assert good == {
        "source": str(folder / "7.png"),
        "status": "ok",
        "caption": 'a "picture", 7 by 4',
        "score": -1.0,
        "alternatives": [{"caption": "another 2", "score": -9.0}],
        "labels": [{"name": f"thing, {n}", "probability": round(0.5**n, 4)} for n in range(1, 6)],
        "kind": None,
        "model": "stand-in",
        "error": None,
    }
    assert (bad["status"], bad["caption"], bad["score"]) == ("error", None, None)
    assert bad["error"]["type"] == "ImageFormatError"
    assert bad["error"]["message"]
    assert str(folder) not in bad["error"]["message"]


def test_csv_is_the_same_flattened(folder: Path) -> None:
    words = ("--format", "csv", "--n-best", 2, "--labels", 1)
    done = cutline("caption", folder / "7.png", folder / "17.png", *words)
    good, bad = csv.DictReader(io.StringIO(done.stdout.decode(), newline=""))
    assert (good["status"], good["caption"]) == ("ok", 'a "picture", 7 by 4')
    assert (good["caption_2"], good["score_2"]) == ("another 2", "-9.0")
    assert (good["label_1"], good["probability_1"]) == ("thing, 1", "0.5")
    assert (bad["status"], bad["error_type"], bad["label_1"]) == ("error", "ImageFormatError", "")


def test_text_adds_a_field_for_each_alternative_and_label(folder: Path) -> None:
    done = cutline("caption", folder / "7.png", "--n-best", 2, "--labels", 1)
    assert done.stdout.decode().split("\t")[1:] == [
        'a "picture", 7 by 4', "another 2", "thing, 1 0.50\n"
    ]  # fmt: skip


@pytest.mark.racy
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_an_interrupted_run_resumes_to_the_undisturbed_file(
    folder: Path, tmp_path: Path, signum: signal.Signals, ending: str
) -> None:
    whole, cut, log = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}", tmp_path / "log"
    assert cutline("caption", folder, "--output", whole).returncode == 1

    run = subprocess.Popen(
        [sys.executable, STANDIN, "caption", folder, "-o", cut],
        stderr=subprocess.PIPE,
        env=environment(STANDIN_LOG=str(log), STANDIN_DELAY="0.05"),
    )
    while not (log.exists() and len(captioned(log)) > 5):
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signum)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 128 + signum
    assert whole.read_bytes().startswith(cut.read_bytes())
    assert cut.read_bytes().endswith(b"\n")
    assert b"--resume" in told
    assert b"Traceback" not in told

    answered = cut.read_bytes().count(b"\n") - (ending == "csv")
    log.unlink()
    again = cutline("caption", folder, "-o", cut, "--resume", STANDIN_LOG=str(log))
    assert again.returncode == 1
    assert cut.read_bytes() == whole.read_bytes()
    assert captioned(log) == [str(folder / f"{n}.png") for n in range(answered + 1, 31)]


def test_resuming_tries_again_what_failed(folder: Path, tmp_path: Path) -> None:
    output, log = tmp_path / "captions.jsonl", tmp_path / "log"
    assert cutline("caption", folder, "-o", output).returncode == 1
    before = rows(output)
    again = cutline("caption", folder, "-o", output, "--resume")
    assert (again.returncode, again.stderr.count(b"17.png")) == (1, 1)

    scene(17, 4).save(folder / "17.png")
    words = ("caption", folder, "-o", output, "--resume")
    assert cutline(*words, STANDIN_LOG=str(log)).returncode == 0
    assert captioned(log) == [str(folder / "17.png")]
    *others, last = rows(output)
    assert others == before[:16] + before[17:]
    assert (last["source"], last["status"]) == (str(folder / "17.png"), "ok")


@pytest.mark.racy
def test_an_interrupt_while_waiting_for_the_list_counts(folder: Path, tmp_path: Path) -> None:
    output, log = tmp_path / "captions.jsonl", tmp_path / "log"
    run = subprocess.Popen(
        [sys.executable, STANDIN, "caption", "-", "-o", output, "--batch-size", "1"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(STANDIN_LOG=str(log)),
    )
    assert run.stdin is not None
    run.stdin.write(os.fsencode(folder / "1.png") + b"\n")
    run.stdin.flush()
    while not (output.exists() and output.stat().st_size):
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=60) == 130
    run.stdin.close()
    assert run.stderr is not None
    assert b"with the same list: cutline caption -" in run.stderr.read()
    run.stderr.close()
    assert len(rows(output)) == 1


@pytest.mark.racy
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_killed_run_resumes_to_the_undisturbed_file(
    folder: Path, tmp_path: Path, ending: str
) -> None:
    whole, cut, log = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}", tmp_path / "log"
    cutline("caption", folder, "--output", whole)
    killed = in_a_process("caption", folder, "-o", cut, "--sidecar", STANDIN_KILL="20.png")
    assert killed.returncode == -signal.SIGKILL
    assert cut.read_bytes().count(b"\n") - (ending == "csv") == 19
    cut.write_bytes(cut.read_bytes()[:-9])

    again = cutline("caption", folder, "-o", cut, "--sidecar", "--resume", STANDIN_LOG=str(log))
    assert again.returncode == 1
    assert sorted(cut.read_bytes().split(b"\n")) == sorted(whole.read_bytes().split(b"\n"))
    assert captioned(log)[:2] == [str(folder / "17.png"), str(folder / "19.png")]
    assert len(captioned(log)) == 13


def test_resuming_what_is_complete_does_nothing(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "captions.jsonl"
    cutline("caption", folder / "1.png", folder / "1.png", "-o", output)
    before = output.read_bytes()
    assert before.count(b"\n") == 2
    log = tmp_path / "log"
    words = ("caption", folder / "1.png", folder / "1.png", "-o", output, "--resume")
    assert cutline(*words, STANDIN_LOG=str(log)).returncode == 0
    assert output.read_bytes() == before
    assert not log.exists()


def test_resuming_with_another_model_or_other_columns_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "captions.csv"
    cutline("caption", folder / "1.png", "-o", output)
    before = output.read_bytes()
    other = cutline("caption", folder, "-o", output, "--resume", "--model", "other")
    assert other.returncode == 2
    assert b"stand-in" in other.stderr
    more = cutline("caption", folder, "-o", output, "--resume", "--n-best", 3)
    assert more.returncode == 1
    assert b"--n-best" in more.stderr
    assert output.read_bytes() == before


def test_an_existing_output_is_refused_unless_forced(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine.txt"
    output.write_text("my notes\n")
    refused = cutline("caption", folder / "1.png", "-o", output)
    assert refused.returncode == 2
    assert b"--force" in refused.stderr
    assert output.read_text() == "my notes\n"
    assert cutline("caption", folder / "1.png", "-o", output, "--force").returncode == 0
    assert output.read_text() == f'{folder / "1.png"}\ta "picture", 1 by 4\n'


def test_a_reader_that_leaves_ends_it_quietly(folder: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, STANDIN, "caption", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(STANDIN_DELAY="0.02"),
    )
    assert run.stdout is not None
    assert run.stdout.readline()
    run.stdout.close()
    assert run.stderr is not None
    assert run.stderr.read() == b""
    assert run.wait(timeout=60) == 141
    run.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_clear_line(folder: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, STANDIN, "caption", folder],
            stdout=full, stderr=subprocess.PIPE, timeout=60, env=environment(),
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.decode() == "cutline: standard output: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("format", "resumable"), [("text", False), ("csv", True)])
def test_a_full_disk_offers_to_resume_only_what_can(
    folder: Path, format: str, resumable: bool
) -> None:
    done = cutline("caption", folder, "-o", "/dev/full", "--format", format)
    assert done.returncode == 1
    assert b"make room" in done.stderr
    assert (b"--resume" in done.stderr) == resumable


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_streams_that_are_closed_are_left_alone(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "captions.jsonl"
    command = [sys.executable, STANDIN, "caption", folder / "1.png", tmp_path / "no.png"]
    line = f"{shlex.join(map(str, [*command, '-o', output]))} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], env=environment(), timeout=60).returncode == 1
    assert [row["status"] for row in rows(output)] == ["ok", "error"]
    line = f"{shlex.join(map(str, command))} >&-"
    done = subprocess.run(["sh", "-c", line], env=environment(), timeout=60, capture_output=True)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)


@pytest.mark.parametrize(("separator", "words"), [(b"\n", ()), (b"\0", ("--null",))])
def test_a_list_on_standard_input(folder: Path, separator: bytes, words: tuple[str, ...]) -> None:
    names = [folder / "3.png", folder / "1.png"]
    stdin = separator.join(map(os.fsencode, names)) + separator
    done = cutline("caption", folder / "2.png", "-", *words, stdin=stdin)
    sources = [line.split("\t")[0] for line in done.stdout.decode().splitlines()]
    assert sources == [str(folder / f"{n}.png") for n in (2, 3, 1)]


def test_a_list_that_comes_slowly_is_captioned_as_it_comes(folder: Path) -> None:
    command = [sys.executable, STANDIN, "caption", folder / "2.png", "-", folder / "3.png"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        alarm = threading.Timer(30, run.kill)
        alarm.start()
        assert b"2.png" in run.stdout.readline()
        for number in (5, 4):
            run.stdin.write(os.fsencode(folder / f"{number}.png") + b"\n")
            run.stdin.flush()
            assert b"%d.png" % number in run.stdout.readline()
        run.stdin.close()
        assert b"3.png" in run.stdout.read()
        alarm.cancel()


def test_a_list_may_come_from_windows(folder: Path) -> None:
    listed = os.fsencode(folder / "1.png") + b"\r\n\r\n" + os.fsencode(folder / "2.png") + b"\r"
    assert len(cutline("caption", "-", stdin=listed).stdout.splitlines()) == 2


@pytest.mark.parametrize("what", [b"a\0/*\n", b"1.png\0" + b"2.png\0"], ids=["pattern", "null"])
def test_binary_standard_input_is_wrong_use_said_once(what: bytes) -> None:
    done = cutline("caption", "-", stdin=what)
    assert (done.returncode, done.stdout) == (2, b"")
    (problem,) = done.stderr.decode().splitlines()
    assert "an image itself" in problem
    assert "--null" in problem


def test_names_of_any_bytes_survive(tmp_path: Path) -> None:
    picture = tmp_path / "1.png"
    scene().save(picture)
    names = ["Übung, «naïve» 猫.png", "two\nlines\r.png", 'quo"te,.png', "tab\t\x1b[31m.png"]
    raw = [os.fsencode(tmp_path) + b"/" + os.fsencode(name) for name in names]
    if sys.platform == "linux":
        raw.append(os.fsencode(tmp_path) + b"/not-utf8-\xff.png")
    for name in raw:
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(picture.read_bytes())
    stdin = b"\0".join(raw)
    text = cutline("caption", "-", "-0", stdin=stdin).stdout
    assert text.count(b"\n") == len(raw)
    assert b"\x1b" not in text
    assert b"two\\nlines\\r.png\ta" in text
    for ending in ("jsonl", "csv"):
        output = tmp_path / f"out.{ending}"
        log = tmp_path / f"log.{ending}"
        assert cutline("caption", "-", "-0", "-o", output, stdin=stdin).returncode == 0
        before = output.read_bytes()
        words = ("caption", "-", "-0", "-o", output, "--resume")
        assert cutline(*words, stdin=stdin, STANDIN_LOG=str(log)).returncode == 0
        assert output.read_bytes() == before
        assert not log.exists()
    lines = (tmp_path / "out.jsonl").read_bytes().split(b"\n")[:-1]
    assert [os.fsencode(json.loads(line)["source"]) for line in lines] == raw


def test_sidecars_stand_beside_their_pictures(folder: Path) -> None:
    assert cutline("caption", folder, "--sidecar", "--n-best", 2).returncode == 1
    assert (folder / "7.txt").read_text() == 'a "picture", 7 by 4\nanother 2\n'
    assert len(list(folder.glob("*.txt"))) == 29
    assert not (folder / "17.txt").exists()
    assert not list(folder.glob(".cutline*"))


def test_a_sidecar_is_never_overwritten_unasked(folder: Path, tmp_path: Path) -> None:
    (folder / "3.txt").write_text("Mine.\n")
    refused = cutline("caption", folder, "--sidecar")
    assert refused.returncode == 2
    assert b"--skip-existing" in refused.stderr
    assert not (folder / "1.txt").exists()

    listed = b"\n".join(os.fsencode(folder / f"{n}.png") for n in (1, 3, 4))
    some = cutline("caption", "-", "--sidecar", "--format", "jsonl", stdin=listed)
    statuses = [json.loads(line)["status"] for line in some.stdout.splitlines()]
    assert (some.returncode, statuses) == (1, ["ok", "error", "ok"])
    assert (folder / "3.txt").read_text() == "Mine.\n"

    log = tmp_path / "log"
    cutline("caption", folder, "--sidecar", "--skip-existing", STANDIN_LOG=str(log))
    assert len(captioned(log)) == 27
    assert (folder / "3.txt").read_text() == "Mine.\n"

    cutline("caption", folder / "3.png", "--sidecar", "--force")
    assert (folder / "3.txt").read_text() == 'a "picture", 3 by 4\n'


def test_two_pictures_of_one_name_do_not_share_a_sidecar(tmp_path: Path) -> None:
    scene(5, 5).save(tmp_path / "a.jpg")
    scene(6, 6).save(tmp_path / "a.png")
    done = cutline("caption", tmp_path, "--sidecar", "--force")
    assert done.returncode == 1
    assert b"a.png: " in done.stderr
    assert (tmp_path / "a.txt").read_text() == 'a "picture", 5 by 5\n'


def test_ten_bad_files_get_their_own_line_and_the_rest_are_captioned(
    hostile_folder: HostileFolder,
) -> None:
    done = cutline("caption", hostile_folder.path, "--format", "jsonl")
    assert done.returncode == 1
    found = {Path(row["source"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    assert {name for name, row in found.items() if row["status"] == "ok"} == set(
        hostile_folder.readable
    )
    for name, kind in hostile_folder.refused.items():
        assert found[name]["error"]["type"] == kind.__name__
        assert f"/{name}: ".encode() in done.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["caption"], b"PATH"),
        (["caption", "EMPTY"], b"--recursive"),
        (["caption", "EMPTY", "-r"], b"no image"),
        (["caption", "x.png", "--beam", "0"], b"--beam"),
        (["caption", "x.png", "--top-p", "2"], b"top_p"),
        (["caption", "x.png", "--n-best", "6"], b"add --beam 6"),
        (["caption", "x.png", "--resume"], b"--output"),
        (["caption", "x.png", "--resume", "-o", "x.txt"], b"jsonl"),
        (["caption", "x.png", "--format", "xml"], b"xml"),
        (["nonsense"], b"nonsense"),
    ],
)
def test_wrong_use_exits_with_two(tmp_path: Path, words: list[str], hint: bytes) -> None:
    done = cutline(*(tmp_path if word == "EMPTY" else word for word in words))
    assert done.returncode == 2
    assert hint in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_missing_picture_is_a_failure_of_its_own(tmp_path: Path, folder: Path) -> None:
    done = cutline("caption", folder / "gone.png", folder / "1.png")
    assert done.returncode == 1
    assert done.stdout.count(b"\n") == 1
    assert b"gone.png: " in done.stderr


def test_a_pattern_without_a_match_is_wrong_use_if_nothing_else_is_given(
    tmp_path: Path, folder: Path
) -> None:
    pattern = str(tmp_path / "*.webp")
    done = cutline("caption", pattern)
    assert done.returncode == 2
    assert done.stderr.decode() == f"cutline: no file matches {pattern}\n"
    assert cutline("caption", pattern, folder / "1.png").returncode == 1


def test_nothing_is_written_where_nothing_is_found(tmp_path: Path) -> None:
    output = tmp_path / "old.jsonl"
    output.write_text("precious\n")
    assert cutline("caption", tmp_path, "-o", output, "--force").returncode == 2
    assert output.read_text() == "precious\n"


def test_help_and_version_load_no_arrays_and_no_engine() -> None:
    script = (
        "import sys, cutline.cli\n"
        "loaded = {'numpy', 'PIL', 'torch', 'onnxruntime', 'rich'} & sys.modules.keys()\n"
        "sys.exit(f'{loaded} loaded' if loaded else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=environment())


def test_help_fills_the_lines_of_a_narrow_terminal() -> None:
    told = cutline("caption", "--help", COLUMNS="80").stdout.decode()
    paragraphs = told.partition("Exit codes")[0].split("\n" + " " * 80 + "\n")
    [about] = [each.splitlines() for each in paragraphs if "A terminal shows" in each]
    for line, following in pairwise(about):
        assert len(f"{line.rstrip()} {following.split()[0]}") > 79


def test_every_command_helps_with_an_example() -> None:
    for words in ([], ["caption"], ["models"], ["doctor"], ["evaluate"], ["train"], ["export"]):
        done = cutline(*words, "--help")
        assert done.returncode == 0
        assert "$ cutline" in done.stdout.decode()
    assert cutline("--version").stdout.startswith(b"cutline ")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_person_at_a_terminal_reads_lines_and_sees_progress(folder: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, STANDIN, "caption", folder, "--n-best", "2", "--labels", "1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(STANDIN_DELAY="0.01", TERM="xterm", COLUMNS="120"),
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:
        pass
    os.close(ours)
    assert run.wait(timeout=60) == 1
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert '7.png  a "picture", 7 by 4' in text
    assert re.search(r"^    another 2\s*$", text, re.MULTILINE)
    assert "thing, 1 50%" in text
    assert "/30" in text
    assert "30 images, " in text
    assert "1 failed" in text


def test_a_real_model_captions_the_hostile_folder(
    hostile_folder: HostileFolder, home: Path, tmp_path: Path
) -> None:
    output = tmp_path / "captions.jsonl"
    words = ("--model", tiny.NAME, "-o", output, "--labels", 2, "--n-best", 2, "--batch-size", 3)
    done = real("caption", hostile_folder.path, *words, home=home)
    assert done.returncode == 1
    found = {Path(row["source"]).name: row for row in rows(output)}
    assert list(found) == [path.name for path in find_images([hostile_folder.path], False)]
    for name in hostile_folder.readable:
        assert found[name]["caption"]
        assert len(found[name]["labels"]) == 2
        assert len(found[name]["alternatives"]) == 1
        assert found[name]["model"] == tiny.NAME
    for name, kind in hostile_folder.refused.items():
        assert found[name]["error"]["type"] == kind.__name__

    one = real("caption", hostile_folder.path / "good1.jpg", "--model", tiny.NAME, home=home)
    assert one.stdout == f"{hostile_folder.path / 'good1.jpg'}\t{found['good1.jpg']['caption']}\n"
    greedy = real(
        "caption", hostile_folder.path / "good1.jpg", "--beam", 1, "--model", tiny.NAME, home=home
    )
    assert greedy.returncode == 0


def test_a_real_model_resumes_after_a_kill(folder: Path, home: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    words = ("caption", folder, "--model", tiny.NAME, "--batch-size", 4)
    real(*words, "-o", whole, home=home)
    cut.write_bytes(whole.read_bytes()[:3000])
    assert real(*words, "-o", cut, "--resume", home=home).returncode == 1
    assert cut.read_bytes() == whole.read_bytes()


def test_models_lists_what_is_there(home: Path) -> None:
    listed = {
        model["name"]: model for model in json.loads(real("models", "--json", home=home).stdout)
    }
    model = listed[tiny.NAME]
    assert model["path"] == str(home / "models" / tiny.NAME)
    assert (model["licence"], model["vocabulary"]) == ("Apache-2.0", len(tiny.VOCABULARY))
    assert model["bytes"] > 1000
    assert tiny.NAME in real("models", home=home).stdout


def test_a_damaged_model_hides_no_other(tmp_path: Path) -> None:
    tiny.build(tmp_path / "models")
    damaged = tmp_path / "models" / "damaged-v1"
    damaged.mkdir()
    (damaged / "manifest.json").write_text("{}")
    for words in (("models",), ("models", "--json")):
        done = real(*words, home=tmp_path)
        assert done.returncode == 1
        assert tiny.NAME in done.stdout
        assert "damaged-v1/manifest.json: got bundle format None" in done.stderr


def test_a_letter_that_the_terminal_lacks_ends_nothing(tmp_path: Path) -> None:
    manifest = tiny.build(tmp_path / "models").path("manifest.json")
    manifest.write_text(manifest.read_text().replace("Apache-2.0", "Licence à moi"))
    env = environment(CUTLINE_HOME=str(tmp_path), PYTHONIOENCODING="ascii")
    command = [sys.executable, "-m", "cutline", "models"]
    done = subprocess.run(command, capture_output=True, timeout=60, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Licence ? moi" in done.stdout


def test_an_unknown_model_is_wrong_use(folder: Path, home: Path) -> None:
    done = real("caption", folder, "--model", "nonsense-v9", home=home)
    assert done.returncode == 2
    assert "nonsense-v9" in done.stderr
    assert tiny.NAME in done.stderr
    assert done.stderr.count("\n") == 1


def test_doctor_finds_a_damaged_model(tmp_path: Path) -> None:
    tiny.build(tmp_path / "models")
    words = ("doctor", "--model", tiny.NAME, "--json")
    health = json.loads(real(*words, home=tmp_path).stdout)
    assert health["models"][tiny.NAME] == "sound"
    assert health["packages"]["numpy"] == np.__version__
    assert health["formats"]["JPEG"] is True
    assert health["speed"]["images_per_s"] > 0
    assert not any(tiny.NAME in problem for problem in health["problems"])

    damaged = tmp_path / "models" / tiny.NAME / "step.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    done = real("doctor", "--model", tiny.NAME, home=tmp_path)
    assert done.returncode == 1
    assert "SHA-256" in done.stderr


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A Flickr8k of twelve pictures."""
    root = tmp_path / "flickr8k"
    (root / "Images").mkdir(parents=True)
    names = [f"{number}.jpg" for number in range(12)]
    for number, name in enumerate(names):
        scene(64 + 8 * number, 64).save(root / "Images" / name)
    lines = [f"{name},A dog number {k} runs on {name[0]} .\n" for name in names for k in range(5)]
    (root / "captions.txt").write_text("image,caption\n" + "".join(lines))
    (root / "Flickr_8k.trainImages.txt").write_text("\n".join(names[:8]))
    (root / "Flickr_8k.devImages.txt").write_text("\n".join(names[8:]))
    return root


def test_evaluate_writes_a_report(collection: Path, home: Path, tmp_path: Path) -> None:
    report, table = tmp_path / "report.json", tmp_path / "report.md"
    words = ("evaluate", tiny.NAME, collection, "-o", report, "--markdown", table, "--no-meteor")
    done = real(*words, home=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout == table.read_text()
    found = json.loads(report.read_text())
    assert len(found["images"]) == 4
    assert [result["name"] for result in found["baselines"]] == [
        "human", "nearest neighbour", "most common", "random"
    ]  # fmt: skip
    assert "CIDEr-D" in found["captioner"]["scores"]

    again = real(*words, home=home)
    assert again.returncode == 2
    assert "--force" in again.stderr
    few = real(
        "evaluate", tiny.NAME, collection, "--limit", 2, "--no-baselines", "--no-meteor", home=home
    )
    assert few.returncode == 0
    assert few.stdout.count("human") == 0
    other = real("evaluate", tiny.NAME, collection, "--split", "tset", home=home)
    assert other.returncode == 1
    assert "train, dev" in other.stderr


def test_training_without_its_extra_says_which(collection: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['lightning'] = None\n"
        "from cutline.cli import main; main()"
    )
    for words in (
        ["train", "x.toml", "--data", collection, "--run", tmp_path / "run"],
        ["export", tmp_path / "run", "--data", collection, "--output", tmp_path / "x-v1"],
    ):
        command = [sys.executable, "-c", script, *map(str, words)]
        done = subprocess.run(command, capture_output=True, timeout=60, env=environment())
        assert done.returncode == 1
        assert b'pip install "cutline[train]"' in done.stderr
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_a_list_may_begin_with_a_byte_order_mark(folder: Path, encoding: str) -> None:
    names = "\r\n".join(str(folder / f"{number}.png") for number in (1, 2)) + "\r\n"
    done = cutline("caption", "-", stdin=names.encode(encoding))
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2


def test_a_folder_says_what_it_passed_over(tmp_path: Path) -> None:
    scene().save(tmp_path / "a.png")
    for name in ("a.txt", "b.cr2", "c.cr2", "notes.txt"):
        (tmp_path / name).write_bytes(b"words")
    done = cutline("caption", tmp_path)
    assert done.returncode == 0
    assert done.stderr == b"Passed over 3 files (2 .cr2, 1 .txt).\n"
    assert cutline("caption", tmp_path, "--quiet").stderr == b""
    (tmp_path / "a.png").unlink()
    assert b"no image in" in (none := cutline("caption", tmp_path)).stderr
    assert b"passed over 4 files (2 .cr2, 2 .txt)" in none.stderr


def test_a_url_is_no_missing_file() -> None:
    done = cutline("caption", "http://127.0.0.1:9/a.jpg?size=[1]")
    assert done.returncode == 1
    assert done.stderr.startswith(b"http://127.0.0.1:9/a.jpg?size=[1]: no connection")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["caption", "--help"], ["models"]])
def test_a_full_disk_behind_standard_output_is_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cutline", *words], stdout=full, stderr=-1, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"cutline: standard output: No space left on device\n"


@pytest.mark.parametrize(
    "words",
    [
        ["data", "check", "URL"],
        ["data", "build", "URL", "-o", "set"],
        ["features", "URL"],
        ["watch", "URL", "-o", "out.csv"],
        ["metadata", "show", "URL"],
        ["site", "lint", "URL"],
        ["video", "URL"],
    ],
)
def test_commands_that_read_files_say_that_a_url_is_none(words: list[str]) -> None:
    url = "https://example.org/a.jpg"
    done = cutline(*(url if word == "URL" else word for word in words), COLUMNS="200")
    assert done.returncode in (1, 2)
    assert b"a URL; expected a" in done.stderr
