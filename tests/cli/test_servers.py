from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chat_server
import pytest
from chat_server import DOG, ChatServer, Reply, chat, error
from conftest import scene
from typer.testing import CliRunner, Result

from cutline.backends.servers import Server
from cutline.cli import app


@pytest.fixture(scope="module")
def shared() -> Iterator[ChatServer]:
    with chat_server.running() as server:
        yield server


@pytest.fixture
def server(shared: ChatServer, monkeypatch: pytest.MonkeyPatch) -> ChatServer:
    for name in ("CUTLINE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    shared.asked.clear()
    shared.lists.clear()
    shared._counts.clear()
    return shared


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server counts as one on another machine."""
    monkeypatch.setattr(Server, "is_local", False)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        scene(50 + number, 40).save(folder / f"{number}.png")
    return folder


def run(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.read_text("utf-8").splitlines()]


def test_captions_usage_and_options(server: ChatServer, pictures: Path, tmp_path: Path) -> None:
    output, prompt = tmp_path / "out.jsonl", tmp_path / "prompt.txt"
    prompt.write_text("Name it in {{ words }} words.")
    model = server("plain", chat())
    done = run(
        "caption", pictures, "-o", output, "--model", model, "--prompt", prompt, "--image-px", 32,
        "--timeout", 30, "--retry-for", 5,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert [row["caption"] for row in rows(output)] == [DOG] * 4
    assert "4 requests, 1,200 tokens in, 40 out" in done.stderr
    assert [asked.prompt for asked in server.asked] == ["Name it in 25 words."] * 4
    assert {asked.picture.size for asked in server.asked} == {(32, 32)}
    assert all(asked.body["logprobs"] is True for asked in server.asked)  # JSON has a score


def test_n_best_samples_without_a_beam(server: ChatServer, pictures: Path, tmp_path: Path) -> None:
    model = server("several", lambda asked: chat(f"A dog {asked.number}."))
    done = run("caption", pictures / "0.png", "--n-best", 2, "--model", model, "-o", tmp_path / "o")
    assert done.exit_code == 0, done.output
    assert [asked.body["temperature"] for asked in server.asked] == [0.7, 0.7]


def test_a_budget_stops_and_resume_continues(
    server: ChatServer, pictures: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    words = ["caption", pictures, "-o", output, "--model", server("cheap", chat())]
    done = run(*words, "--max-requests", 3)
    assert done.exit_code == 1
    assert "stopped after 3 requests, the limit that was set" in done.stderr
    assert "--resume" in done.stderr
    assert len(rows(output)) == 3
    done = run(*words, "--resume")
    assert done.exit_code == 0, done.output
    assert len(rows(output)) == 4
    assert len(server.asked) == 4


def test_a_wrong_key_ends_a_run_with_one_line(
    server: ChatServer, pictures: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("my-very-own-key\n")
    model = server("closed", lambda asked: error(401, f"bad {asked.headers['Authorization']}"))
    done = run("caption", pictures, "-o", tmp_path / "o.csv", "--model", model, "--key-file", key)
    assert done.exit_code == 1
    assert server.asked[0].headers["Authorization"] == "Bearer my-very-own-key"
    assert "HTTP 401" in done.stderr
    assert "my-very" not in done.output + done.stderr
    assert len(server.asked) == 1


@pytest.mark.usefixtures("elsewhere")
def test_nothing_leaves_the_machine_without_consent(
    server: ChatServer, pictures: Path, tmp_path: Path
) -> None:
    words = ["caption", pictures, "--model", server("far", chat()), "-o", tmp_path / "o.jsonl"]
    done = run(*words)
    assert done.exit_code == 2
    assert f"Sends 4 images to 127.0.0.1:{server.port}" in done.stderr
    assert "about 2," in done.stderr
    assert "add --yes" in done.stderr
    dry = run(*words, "--dry-run")
    assert dry.exit_code == 0
    assert dry.stdout.startswith(f"Would send 4 images to 127.0.0.1:{server.port}")
    assert server.asked == []
    done = run(*words, "--yes")
    assert done.exit_code == 0, done.output
    assert len(server.asked) == 4


@pytest.mark.usefixtures("elsewhere")
def test_a_site_asks_too(server: ChatServer, pictures: Path, tmp_path: Path) -> None:
    (pictures / "page.html").write_text('<html lang="en"><img src="0.png"><img src="1.png">')
    store = tmp_path / "site.cutline"
    assert run("site", "scan", pictures, "--store", store).exit_code == 0
    answer = json.dumps({"alt": "A brown dog", "decorative": False, "confidence": 0.5})
    words = ["site", "draft", "--store", store, "--model", server("far", chat(answer))]
    assert run(*words).exit_code == 2
    dry = run(*words, "--dry-run")
    assert dry.exit_code == 0
    assert "Would send" in dry.output
    assert server.asked == []
    done = run(*words, "--yes", "--language", "en")
    assert done.exit_code == 0, done.output
    assert server.asked
    assert all("lang" not in asked.body for asked in server.asked)


def test_judging_the_alts_of_a_site(server: ChatServer, pictures: Path, tmp_path: Path) -> None:
    (pictures / "page.html").write_text(
        '<html lang="en"><img src="0.png" alt="A dog on a beach"><img src="1.png" alt="1.png">'
    )
    store = tmp_path / "site.cutline"
    run("site", "scan", pictures, "--store", store)
    answer = json.dumps({"verdict": "change", "reason": "It is a cat.", "alt": "A cat"})
    words = ["site", "judge", "--store", store, "--model", server("judge", chat(answer))]
    assert "Would send 1 image" in run(*words, "--dry-run").output
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert "2 alts judged: 0 good, 2 to change" in done.output
    assert "1 by the model" in done.output
    done = run(*words)
    assert "0 by rule, 0 by the model" in done.output
    assert len(server.asked) == 1


def test_a_bundle_writes_english_and_takes_no_prompt(pictures: Path, tmp_path: Path) -> None:
    (pictures / "page.html").write_text('<img src="0.png">')
    store = tmp_path / "site.cutline"
    run("site", "scan", pictures, "--store", store)
    for model in ((), ("--model", "hub:example/model")):
        done = run("site", "draft", "--store", store, "--language", "de", *model)
        assert done.exit_code == 2
        assert "writes English" in done.stderr
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("{{ task }}")
    assert run("site", "draft", "--store", store, "--prompt", prompt).exit_code == 2


def test_models_of_a_server(server: ChatServer) -> None:
    server.lists["/v1/models"] = {
        "data": [{"id": "llava", "capabilities": ["vision"]}, {"id": "text-embed"}, {"id": "m"}]
    }
    done = run("models", "--server", server.root)
    assert done.exit_code == 0
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["model", "images"],
        ["llava", "yes"],
        ["m", "unknown"],
        ["text-embed", "no"],
    ]
    listed = json.loads(run("models", "--server", server.root, "--json").stdout)
    assert listed[0] == {"name": "llava", "vision": True}
    nobody = run("models", "--server", f"http://127.0.0.1:{chat_server.free_port()}")
    assert nobody.exit_code == 1
    assert "is the server running" in nobody.stderr


def test_doctor_sends_one_picture(server: ChatServer) -> None:
    def behaviour(asked: Any) -> Reply:
        if "n" in asked.body:
            return error(400, "n must be 1")
        return chat('{"colour": "red"}')

    done = run("doctor", "--json", "--model", server("seer", behaviour))
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["server"]
    assert (found["sees"], found["json"], found["several"]) == (True, True, False)
    assert found["refused"] == ["n"]
    assert found["prompt_tokens"] == 300
    server.lists["/v1/models"] = {"data": [{"id": "seer"}]}  # the only one needs no name
    done = run("doctor", "--json", "--model", server.root)
    assert json.loads(done.stdout)["server"]["name"].startswith("seer@")
    server("talker", chat("A red circle. " + "It is round and red. Very much so. " * 90))
    assert len(run("doctor", "--model", f"{server.root}#talker").stdout) < 3000
    done = run("doctor", "--model", server("dead", error(401, "no key")))
    assert done.exit_code == 1
    assert "HTTP 401" in done.stderr


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_an_evaluation_that_a_server_ends_is_continued(
    server: ChatServer, pictures: Path, tmp_path: Path, command: str
) -> None:
    captions = "".join(f"{number}.png,dev,A picture\n" for number in range(4))
    (pictures / "captions.csv").write_text("image,split,caption\n" + captions)
    broken = True

    def behaviour(asked: Any) -> Reply:
        if broken and asked.picture.width == 52:
            return error(401, "no credit left")
        return chat("A picture.")

    output = tmp_path / "report.json"
    model = server("ends", behaviour)
    words = {
        "evaluate": ("evaluate", model, pictures, "-o", output),
        "compare": ("compare", model, "--data", pictures, "-o", output),
    }[command]
    failed = run(*words, "--no-meteor", "--threads", 1)
    assert failed.exit_code == 1
    assert "Kept 2 captions in" in failed.stderr
    assert "no credit left" in failed.stderr
    partial = tmp_path / "report.json.partial.jsonl"
    assert [Path(row["source"]).name for row in rows(partial)] == ["0.png", "1.png"]
    assert not output.exists()

    with partial.open("ab") as file:
        file.write(b'{"model": "cut short')
    broken = False
    server.asked.clear()
    done = run(*words, "--no-meteor", "--threads", 1)
    assert done.exit_code == 0, done.output
    assert "Found 2 captions" in done.stderr
    # the first run's request ahead for the last image may arrive late, and so be seen here too
    assert {asked.picture.width for asked in server.asked} == {52, 53}
    assert not partial.exists()
    assert "A picture." in output.read_text("utf-8")

    partial.write_text("{}\n")
    refused = run(*words, "--no-meteor", "--force")
    assert refused.exit_code == 1
    assert "move it away" in refused.stderr
    assert partial.exists()
