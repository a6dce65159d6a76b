from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from onnx import helper, numpy_helper

from cutline import bundle as module
from cutline.bundle import DEFAULT, Bundle, find, models, write_bundle
from cutline.errors import BundleError, BundleNotFoundError, EngineError, OutputError
from cutline.onnx_file import check_onnx
from cutline.runtime import Runtime


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's models folder, with nothing embedded."""
    monkeypatch.setenv("CUTLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "_EMBEDDED", tmp_path / "embedded")
    return tmp_path / "home" / "models"


def edit(bundle: Bundle, **changes: Any) -> None:
    """Change entries of a manifest on disk; None removes one."""
    path = bundle.path("manifest.json")
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_what_is_written_is_what_is_opened(tmp_path: Path) -> None:
    written = tiny.build(tmp_path, word_bias=0.5)
    opened = Bundle.open(str(tmp_path / tiny.NAME))
    assert opened == written
    assert opened.name == tiny.NAME
    assert replace(opened.manifest, files={}) == tiny.manifest(word_bias=0.5)
    assert opened.manifest.files.keys() == tiny.files().keys()
    assert opened.vocabulary().words == tiny.VOCABULARY.words
    assert opened.labels() == tiny.LABELS
    assert [path.name for path in tmp_path.iterdir()] == [tiny.NAME]


def test_the_bias_raises_rare_words_by_tau(tmp_path: Path) -> None:
    bias = tiny.build(tmp_path, word_bias=0.5).bias()
    assert bias is not None
    np.testing.assert_allclose(bias, -0.5 * np.log(tiny.PRIOR), rtol=1e-6)
    assert bias.dtype == np.float32
    assert tiny.build(tmp_path, name="plain-v1").bias() is None


@pytest.mark.parametrize("name", sorted(tiny.files()))
def test_a_changed_byte_in_any_file_is_found(tmp_path: Path, name: str) -> None:
    path = tiny.build(tmp_path).path(name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: got SHA-256 .*; expected .*install or copy"):
        Bundle.open(path.parent)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    bundle = tiny.build(tmp_path)
    bundle.path("step.onnx").unlink()
    with pytest.raises(BundleError, match=r"step\.onnx: No such file"):
        Bundle.open(bundle.folder)


@pytest.mark.parametrize("number", [4, None, "1"])
def test_another_format_is_refused(tmp_path: Path, number: Any) -> None:
    bundle = tiny.build(tmp_path)
    edit(bundle, format=number)
    with pytest.raises(BundleError, match=f"got bundle format {number!r}; expected 1 to 3"):
        Bundle.open(bundle.folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licence": None}, "got nothing unknown, licence missing"),
        ({"colour": "red"}, "got colour unknown, nothing missing"),
        ({"grid": [3]}, "grid: got .*3.*; expected tuple"),
        ({"grid": [3, 3.5]}, "grid: got 3.5; expected int"),
        ({"word_bias": "much"}, "word_bias: got 'much'; expected float"),
        ({"word_bias": True}, "word_bias: got True; expected float"),
        ({"vocabulary": {"size": 9}}, "vocabulary: got nothing unknown, sha256 missing"),
        ({"preprocessing": 260}, "preprocessing: got nothing unknown, mean, scale, side_px"),
        ({"search": []}, "search: got .*; expected dict"),
        ({"files": {"encoder.onnx": 1}}, r"files\.encoder\.onnx: got 1; expected str"),
        ({"files": {"encoder.onnx": "0"}}, "got no README.md, start.onnx, .*; expected all"),
        ({"word_bias": 1, "files": dict.fromkeys(tiny.files().keys() - {"prior.npy"}, "")},
         "got no prior.npy"),
        ({"files": dict.fromkeys([*tiny.files(), "../secret"], "")}, "expected"),
    ],
)  # fmt: skip
def test_a_manifest_with_too_much_or_too_little_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    bundle = tiny.build(tmp_path)
    edit(bundle, **changes)
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle.folder)


def test_a_file_outside_the_folder_is_never_read(tmp_path: Path) -> None:
    bundle = tiny.build(tmp_path)
    (tmp_path / "secret").write_bytes(b"")
    edit(bundle, files={**bundle.manifest.files, "../secret": "0"})
    with pytest.raises(BundleError, match=r"got file '\.\./secret'; expected a plain name"):
        Bundle.open(bundle.folder)


def test_the_format_of_version_0_1_is_read(tmp_path: Path) -> None:
    bundle = tiny.build(tmp_path)
    edit(bundle, format=1)
    assert Bundle.open(bundle.folder).manifest == bundle.manifest


def test_a_former_model_names_its_successor() -> None:
    with pytest.raises(BundleNotFoundError, match=f"successor {DEFAULT!r}"):
        find("flickr8k-lite2-v1")


def test_a_former_model_that_is_installed_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUTLINE_HOME", str(tmp_path))
    tiny.build(tmp_path / "models", name="flickr8k-lite2-v1")
    assert find("flickr8k-lite2-v1").folder == tmp_path / "models" / "flickr8k-lite2-v1"


def test_a_damaged_classifier_of_kinds_is_named(tmp_path: Path) -> None:
    files = {**tiny.files(), "kinds.npz": b"nothing"}
    bundle = write_bundle(tmp_path / tiny.NAME, files, tiny.manifest())
    with pytest.raises(BundleError, match=r"kinds\.npz: "):
        bundle.kinds()


def test_a_manifest_that_is_no_json_is_refused(tmp_path: Path) -> None:
    bundle = tiny.build(tmp_path)
    bundle.path("manifest.json").write_text("{")
    with pytest.raises(BundleError, match="no readable JSON"):
        Bundle.open(bundle.folder)
    bundle.path("manifest.json").write_text("[]")
    with pytest.raises(BundleError, match="format None"):
        Bundle.open(bundle.folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"via_px": 0}, "preprocessing: got sides of 0 and 24 px"),
        ({"side_px": -1}, "preprocessing: got sides of 32 and -1 px"),
        ({"scale": 0.0}, "preprocessing: got mean 127.0 and scale 0.0"),
        ({"mean": float("nan")}, "preprocessing: got mean nan"),
    ],
)
def test_a_preprocessing_that_cannot_be_is_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    bundle = tiny.build(tmp_path)
    edit(bundle, preprocessing={**asdict(tiny.TRANSFORM), **changes})
    with pytest.raises(BundleError, match=told):
        Bundle.open(bundle.folder)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("vocabulary.txt", b"\xff\n", "vocabulary.txt: .*can't decode"),
        ("labels.txt", b"\xff\n", "labels.txt: .*can't decode"),
        ("labels.txt", b"cat\ndog\n", "labels.txt: got 2 names; expected 1,000"),
        ("prior.npy", b"", "prior.npy: .*expected a float32 array"),
        ("prior.npy", b"no array", "prior.npy: .*expected a float32 array"),
    ],
)
def test_a_file_that_is_none_of_its_kind_is_refused(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    bundle = tiny.build(tmp_path, word_bias=0.5)
    bundle.path(name).write_bytes(content)
    with pytest.raises(BundleError, match=told):
        bundle.vocabulary(), bundle.labels(), bundle.bias()


@pytest.mark.parametrize("tau", [float("nan"), float("inf")])
def test_a_word_bias_that_is_no_number_is_refused(tmp_path: Path, tau: float) -> None:
    bundle = tiny.build(tmp_path, word_bias=0.5)
    with pytest.raises(BundleError, match=f"got word_bias {tau}; expected a finite number"):
        replace(bundle, manifest=replace(bundle.manifest, word_bias=tau)).bias()


def test_a_prior_without_end_is_refused(tmp_path: Path) -> None:
    bundle = tiny.build(tmp_path, word_bias=0.5)
    np.save(bundle.path("prior.npy"), np.full_like(tiny.PRIOR, np.inf))
    with pytest.raises(BundleError, match="all finite and above 0"):
        bundle.bias()


def test_a_user_without_a_home_has_no_bundles_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUTLINE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    assert models() == {}


def test_a_home_that_cannot_be_listed_has_no_bundles(home: Path, tmp_path: Path) -> None:
    tiny.build(tmp_path / "embedded")
    home.parent.mkdir()
    home.write_text("not a folder")
    assert [*models()] == [tiny.NAME]


def test_a_name_longer_than_any_file_is_not_found() -> None:
    with pytest.raises(BundleNotFoundError, match="expected a bundle's folder or one of"):
        find("x" * 300)


def test_a_vocabulary_other_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    files = tiny.files()
    files["vocabulary.txt"] = b"<pad>\n<bos>\n<eos>\n<unk>\ndog\n"
    with pytest.raises(BundleError, match=r"VocabularyEntry.*expected VocabularyEntry"):
        write_bundle(tmp_path / tiny.NAME, files, tiny.manifest())
    files["vocabulary.txt"] = b"dog\n"
    with pytest.raises(BundleError, match=r"vocabulary\.txt: got a vocabulary starting"):
        write_bundle(tmp_path / tiny.NAME, files, tiny.manifest())


def test_a_prior_of_another_shape_is_refused(tmp_path: Path) -> None:
    files = tiny.files()
    np.save(tmp_path / "prior.npy", tiny.PRIOR[:-1])
    files["prior.npy"] = tmp_path / "prior.npy"
    with pytest.raises(BundleError, match=r"prior\.npy: got float32 .*; expected float32"):
        write_bundle(tmp_path / tiny.NAME, files, tiny.manifest(word_bias=1.0))


def test_a_name_is_written_once(tmp_path: Path) -> None:
    before = tiny.build(tmp_path).path("manifest.json").stat()
    with pytest.raises(OutputError, match=r"which exists; .* write to a new name"):
        tiny.build(tmp_path)
    assert Bundle.open(tmp_path / tiny.NAME).path("manifest.json").stat() == before
    (tmp_path / "empty-v1").mkdir()
    with pytest.raises(OutputError, match="which exists"):
        tiny.build(tmp_path, name="empty-v1")


def test_a_refused_bundle_leaves_nothing_behind(tmp_path: Path) -> None:
    files = tiny.files()
    del files["step.onnx"]
    with pytest.raises(BundleError, match=r"got no step\.onnx"):
        write_bundle(tmp_path / tiny.NAME, files, tiny.manifest())
    with pytest.raises(BundleError, match="expected it to be named tiny-v1"):
        write_bundle(tmp_path / "other-v1", tiny.files(), tiny.manifest())
    with pytest.raises(BundleError, match=r"got 45,0.* bytes in all; expected at most 45,000,000"):
        write_bundle(
            tmp_path / tiny.NAME, {**tiny.files(), "more": bytes(45_000_000)}, tiny.manifest()
        )
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="Not a directory"):
        tiny.build(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_bundles_are_found_by_name_and_by_path(home: Path, tmp_path: Path) -> None:
    mine = tiny.build(home, name="mine-v1")
    elsewhere = tiny.build(tmp_path / "elsewhere")
    assert models() == {"mine-v1": mine.folder}
    assert find("mine-v1") == mine
    assert find(str(elsewhere.folder)) == find(elsewhere.folder) == elsewhere


def test_a_runs_only_bundle_is_found_in_its_folder(home: Path, tmp_path: Path) -> None:
    only = tiny.build(tmp_path / "run")
    assert find(tmp_path / "run").folder == only.folder
    tiny.build(tmp_path / "run", name="tiny-v2")
    with pytest.raises(BundleNotFoundError, match="expected a folder with a manifest"):
        find(tmp_path / "run")


def test_a_bundle_may_tell_no_labels_but_not_half(tmp_path: Path) -> None:
    whole = tiny.files()
    none = {name: content for name, content in whole.items() if not name.startswith("labels")}
    assert write_bundle(tmp_path / tiny.NAME, none, tiny.manifest()).labels() == ()
    half = none | {"labels.onnx": whole["labels.onnx"]}
    with pytest.raises(BundleError, match=r"got no labels\.txt under files"):
        write_bundle(tmp_path / "tiny-v2", half, tiny.manifest("tiny-v2"))


def test_an_embedded_bundle_goes_before_the_users_of_that_name(home: Path, tmp_path: Path) -> None:
    tiny.build(home)
    tiny.build(home, name="mine-v1")
    embedded = tiny.build(tmp_path / "embedded")
    (tmp_path / "embedded" / "not-a-bundle").mkdir()
    shutil.copytree(embedded.folder, tmp_path / "embedded" / ".half-written")
    assert models().keys() == {"mine-v1", tiny.NAME}
    assert find(tiny.NAME).folder == embedded.folder


def test_the_default_is_found_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleNotFoundError, match=f"got model '{module.DEFAULT}'"):
        find()
    monkeypatch.setattr(module, "DEFAULT", tiny.NAME)
    tiny.build(tmp_path / "embedded")
    assert find().name == tiny.NAME


def test_an_unknown_name_is_answered_with_the_known_ones(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match="these names: none is installed"):
        find("what-v1")
    tiny.build(home, name="mine-v1")
    tiny.build(home)
    with pytest.raises(LookupError, match=r"got model 'what-v1'; .*: mine-v1, tiny-v1"):
        find("what-v1")
    with pytest.raises(BundleNotFoundError, match=r"expected a folder with a manifest\.json"):
        find(tmp_path)


# Hostile bundles


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    bundle = tiny.build(tmp_path)
    for name in ("a\0b", "a\nb", "a\x1b[31mb"):
        edit(bundle, files={**bundle.manifest.files, name: "0" * 64})
        with pytest.raises(BundleError, match="expected a plain name"):
            Bundle.open(bundle.folder)


def test_a_manifest_nested_too_deep_is_refused(tmp_path: Path) -> None:
    bundle = tiny.build(tmp_path)
    bundle.path("manifest.json").write_text("[" * 100_000)
    with pytest.raises(BundleError, match="no readable JSON"):
        Bundle.open(bundle.folder)


def test_an_array_that_announces_too_much_takes_no_memory(tmp_path: Path) -> None:
    bundle = tiny.build(tmp_path, word_bias=0.5)
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**11,)}
    with bundle.path("prior.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(100))
    with pytest.raises(BundleError, match="array of 400,000,000,000 bytes"):
        bundle.bias()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_file_elsewhere_is_neither_read_nor_quoted(kind: str, tmp_path: Path) -> None:
    bundle = tiny.build(tmp_path)
    secret = tmp_path / "secret.txt"
    secret.write_text("my password\n")
    path = bundle.path("vocabulary.txt")
    path.unlink()
    if kind == "link":
        path.symlink_to(secret)
    else:
        os.mkfifo(path)
    with pytest.raises(BundleError, match=r"out of the bundle|no regular file") as caught:
        Bundle.open(bundle.folder)
    assert "password" not in str(caught.value)


def graph(*nodes: onnx.NodeProto, external: bool = False) -> bytes:
    weights = numpy_helper.from_array(np.ones(4, np.float32), "weights")
    if external:
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.ClearField("raw_data")
        entry = weights.external_data.add()
        entry.key, entry.value = "location", "../elsewhere.bin"
    port = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4])
    made = helper.make_graph(list(nodes), "g", [port], [port], [weights])
    model: bytes = helper.make_model(made).SerializeToString()
    return model


def test_a_graph_may_not_load_weights_from_elsewhere_or_loop(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    body = helper.make_graph([], "body", [], [])
    loop = helper.make_node("Loop", ["", ""], ["y"], body=body)
    within = helper.make_node(
        "If", ["c"], ["y"], then_branch=helper.make_graph([loop], "then", [], []), else_branch=body
    )
    tensor = numpy_helper.from_array(np.ones(2, np.float32))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    constant = helper.make_node("Constant", [], ["y"], value=tensor)
    add = helper.make_node("Add", ["x", "weights"], ["y"])
    path.write_bytes(graph(add))
    check_onnx(path)
    for content, says in {
        graph(add, external=True): "weights in another file",
        graph(constant): "weights in another file",
        graph(loop): "a loop",
        graph(within): "a loop",
    }.items():
        path.write_bytes(content)
        with pytest.raises(BundleError, match=says):
            check_onnx(path)
    path.write_bytes(graph(add)[:-9])
    with pytest.raises(EngineError, match="no ONNX graph"):
        check_onnx(path)


def test_the_runtime_checks_graphs_before_it_opens_them(tmp_path: Path) -> None:
    files = {**tiny.files(), "step.onnx": graph(external=True)}
    bundle = write_bundle(tmp_path / tiny.NAME, files, tiny.manifest())
    with pytest.raises(BundleError, match="weights in another file"):
        Runtime(bundle)
