"""Model bundles: a folder of graphs and words with a manifest, under a name that never changes.

A bundle is found by name among those inside the package (`_models/`) and those in the user's own
folder (`$CUTLINE_HOME/models`, by default `~/.cache/cutline/models`), or by its path. Every file is
checked against the manifest whenever one is opened: that costs some 20 ms for 40 MB.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from cutline.errors import (
    BundleError,
    BundleNotFoundError,
    DataError,
    OptionError,
    OutputError,
)
from cutline.image_kind import KindClassifier
from cutline.preprocess import DetectorTransform, Transform
from cutline.text import Vocabulary

FORMAT = 3
"""Format 1 has a separate graph for labels; only format 3 has an `input` other than "image"."""
_READABLE = (1, 2, 3)
INPUTS = ("image", "detector", "box")
DEFAULT = "everyday-lite2-v2"
"""The newest of the embedded bundles."""

MAX_BYTES = 45_000_000
GRAPHS = ("encoder.onnx", "start.onnx", "step.onnx")
WORDS = "vocabulary.txt"
LABEL_NAMES = "labels.txt"
LABEL_GRAPH = "labels.onnx"
"""Only in bundles of format 1; later encoders compute the labels themselves."""
CARD = "README.md"
PRIOR = "prior.npy"
KINDS = "kinds.npz"

_SUCCESSORS = {"flickr8k-lite2-v1": DEFAULT}
"""Models that earlier versions included, and what replaced them."""

_EMBEDDED = Path(__file__).with_name("_models")


@dataclass(frozen=True)
class VocabularyEntry:
    """Which vocabulary the graphs speak: how many words, and `Vocabulary.checksum`."""

    size: int
    sha256: str


@dataclass(frozen=True)
class DataEntry:
    """What a model learnt from: the collection's `digest`, and how much of it."""

    name: str
    licence: str
    sha256: str
    images: int
    captions: int


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    Attributes:
        name: immutable and versioned; new weights get a new one.
        created: the day, as 2030-12-31.
        summary: one sentence.
        preprocessing: from an image to the encoder's pixels.
        grid: rows and columns of the regions that captions attend to.
        vocabulary: the words the graphs were made for.
        search: defaults for `SearchOptions`, by field name.
        word_bias: tau; -tau * log(prior) is added to every word's log-probability, nats.
        recipe: how it was trained.
        data: what it was trained on.
        licence: of the weights, an SPDX name.
        parameters: how many, by part.
        scores: measured quality, by split.
        speed: measured speed, by engine.
        files: SHA-256 of every file, by name; `write_bundle` fills it in.
        input: the features that the decoder takes. "image": the cells of an image; "detector":
            the boxes that the encoder, a detector, finds in one; "box": the cells of a box, then
            the embedding of the whole image and `cutline.boxes.place_vector` of the box.
    """

    name: str
    created: str
    summary: str
    preprocessing: Transform | DetectorTransform
    grid: tuple[int, int]
    vocabulary: VocabularyEntry
    search: dict[str, Any]
    word_bias: float
    recipe: dict[str, Any]
    data: DataEntry
    licence: str
    parameters: dict[str, Any]
    scores: dict[str, Any]
    speed: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    input: str = "image"

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Parse a manifest.json.

        Raises:
            BundleError: it is unreadable, of another format, or has too much or too little in it.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"{path}: got no readable JSON ({error}); expected one") from error
        number = content.pop("format", None) if isinstance(content, dict) else None
        if number not in _READABLE:
            raise BundleError(
                f"{path}: got bundle format {number!r}; expected {_READABLE[0]} to "
                f"{_READABLE[-1]}; "
                "a newer Cutline may read it: pip install --upgrade cutline"
            )
        if number < FORMAT:
            content["input"] = "image"
        manifest: Manifest = _parse(cls, content, str(path))
        if manifest.input not in INPUTS:
            raise BundleError(f"{path}: got input {manifest.input!r}; expected {', '.join(INPUTS)}")
        return manifest

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        content = {"format": FORMAT, **asdict(self)}
        if self.input == "image":
            content |= {"format": 2}
            del content["input"]
        text = json.dumps(content, indent=1, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8", newline="\n")


@dataclass(frozen=True)
class Bundle:
    """A checked folder: graphs, words and the manifest that describes them.

    Attributes:
        folder: where it is.
        manifest: what it says about itself.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """Read a bundle's manifest and compare every file with it.

        Raises:
            BundleNotFoundError: there is no bundle in that folder.
            BundleError: a file is missing or differs, or the manifest is of an unknown kind.
        """
        folder = Path(folder)
        path = folder / "manifest.json"
        if not path.is_file():
            raise BundleNotFoundError(f"got {folder}; expected a folder with a manifest.json")
        manifest = Manifest.read(path)
        needed = {*GRAPHS, WORDS, CARD} | ({PRIOR} if manifest.word_bias else set())
        needed |= {LABEL_NAMES} if LABEL_GRAPH in manifest.files else set()
        if missing := sorted(needed - manifest.files.keys()):
            raise BundleError(f"{path}: got no {', '.join(missing)} under files; expected all")
        for name, expected in manifest.files.items():
            if Path(name).name != name or not name.isprintable():
                raise BundleError(f"{path}: got file {name!r}; expected a plain name")
            _refuse_elsewhere(folder, name)
            if (got := _sha256(folder / name)) != expected:
                raise BundleError(
                    f"{folder / name}: got SHA-256 {got}; expected {expected}; "
                    "the bundle is damaged: install or copy it again"
                )
        return cls(folder, manifest)

    @property
    def name(self) -> str:
        """The manifest's name."""
        return self.manifest.name

    def path(self, file: str) -> Path:
        """Where one of the bundle's files is."""
        return self.folder / file

    def vocabulary(self) -> Vocabulary:
        """The words by id.

        Raises:
            BundleError: they are not the ones the manifest names.
        """
        try:
            vocabulary = Vocabulary.read(self.path(WORDS))
        except (DataError, UnicodeDecodeError) as error:
            raise BundleError(f"{self.path(WORDS)}: {error}") from error
        got, expected = (
            VocabularyEntry(len(vocabulary), vocabulary.checksum),
            self.manifest.vocabulary,
        )
        if got != expected:
            raise BundleError(f"{self.folder}: got {got}; expected {expected}, as in the manifest")
        return vocabulary

    def labels(self) -> tuple[str, ...]:
        """The ImageNet names, in the order of the label logits; none if it tells no labels.

        Raises:
            BundleError: they are not 1,000 lines of UTF-8.
        """
        path = self.path(LABEL_NAMES)
        if path.name not in self.manifest.files:
            return ()
        try:
            names = tuple(path.read_text(encoding="utf-8").splitlines())
        except UnicodeDecodeError as error:
            raise BundleError(f"{path}: {error}") from error
        if len(names) != 1000:
            raise BundleError(f"{path}: got {len(names)} names; expected 1,000")
        return names

    def kinds(self) -> KindClassifier | None:
        """The classifier of image kinds; None if the bundle has none.

        Raises:
            BundleError: it is damaged.
        """
        return KindClassifier.read(self.path(KINDS)) if KINDS in self.manifest.files else None

    def bias(self) -> NDArray[np.float32] | None:
        """(V,) added to words' log-probabilities in search, -word_bias * log(prior), nats.

        Raises:
            BundleError: the prior is no positive float32 number for each word.
        """
        tau, size = self.manifest.word_bias, self.manifest.vocabulary.size
        if not tau:
            return None
        if not math.isfinite(tau):
            raise BundleError(f"{self.folder}: got word_bias {tau}; expected a finite number")
        try:
            _refuse_large_array(self.path(PRIOR), 4 * size + 4096)
            prior = np.load(self.path(PRIOR), allow_pickle=False)
        except (ValueError, EOFError, MemoryError) as error:
            raise BundleError(f"{self.path(PRIOR)}: {error}; expected a float32 array") from error
        above = (prior > 0) & (prior < np.inf)
        if prior.shape != (size,) or prior.dtype != np.float32 or not above.all():
            raise BundleError(
                f"{self.path(PRIOR)}: got {prior.dtype} {prior.shape}; "
                f"expected float32 ({size},), all finite and above 0"
            )
        bias: NDArray[np.float32] = np.float32(-tau) * np.log(prior)
        return bias


def models() -> dict[str, Path]:
    """The folders of all installed bundles by name; embedded ones go before the user's."""
    folders = (*_bundles_in(_user_models()), *_bundles_in(_EMBEDDED))
    return {folder.name: folder for folder in folders}


def find(model: str | Path | None = None) -> Bundle:
    """Open a bundle by name or path.

    Args:
        model: a name among `models()`, a bundle's folder, or a training run's with one bundle in
            it; None is the embedded default.

    Raises:
        BundleNotFoundError: it is none of these.
        BundleError: it is there, but damaged or of an unknown kind.
    """
    installed = models()
    wanted = DEFAULT if model is None else os.fspath(model)
    if wanted in installed:
        return Bundle.open(installed[wanted])
    if model is not None and _is_folder(wanted):
        inside = sorted(Path(wanted).glob("*-v*/manifest.json"))
        if len(inside) == 1 and not (Path(wanted) / "manifest.json").is_file():
            return Bundle.open(inside[0].parent)
        return Bundle.open(wanted)
    names = ", ".join(installed) or "none is installed"
    if wanted in _SUCCESSORS:
        raise BundleNotFoundError(
            f"got model {wanted!r}, which this version no longer includes; expected its successor "
            f"{_SUCCESSORS[wanted]!r}, or the folder of a copy"
        )
    raise BundleNotFoundError(
        f"got model {wanted!r}; expected a bundle's folder or one of these names: {names}"
    )


def write_bundle(
    folder: Path,
    files: Mapping[str, bytes | Path],
    manifest: Manifest,
    max_bytes: int | None = MAX_BYTES,
) -> Bundle:
    """Write a new bundle, whole or not at all.

    Args:
        folder: where it will be; its last part is the manifest's name.
        files: contents by name, as bytes or as the file to copy; all but manifest.json.
        manifest: what it says about itself; its checksums are filled in here.
        max_bytes: how much it may be in all; by default what may be embedded.

    Raises:
        BundleError: the name differs, a file is missing, or it is more than `max_bytes`.
        OutputError: something of that name is there already, or the disk refuses.
    """
    folder = Path(folder)
    if folder.name != manifest.name:
        raise BundleError(f"got folder {folder}; expected it to be named {manifest.name}")
    refuse_taken(folder)
    size_bytes = sum(
        len(content) if isinstance(content, bytes) else content.stat().st_size
        for content in files.values()
    )
    if max_bytes is not None and size_bytes > max_bytes:
        raise BundleError(f"got {size_bytes:,} bytes in all; expected at most {max_bytes:,}")
    temporary = folder.with_name(f".{folder.name}-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        try:
            for name, content in files.items():
                if isinstance(content, bytes):
                    (temporary / name).write_bytes(content)
                else:
                    shutil.copyfile(content, temporary / name)
            sums = {name: _sha256(temporary / name) for name in sorted(files)}
            replace(manifest, files=sums).write(temporary / "manifest.json")
            written = Bundle.open(temporary)
            written.vocabulary()
            written.bias()
            for path in (*temporary.iterdir(), temporary):
                _sync(path)
            temporary.rename(folder)
            if os.name == "posix":
                _sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}; expected a place to write") from error
    return Bundle(folder, written.manifest)


def refuse_taken(folder: Path) -> None:
    """Refuse to write a bundle where something is.

    Raises:
        OutputError: something of that name is there already.
    """
    if os.path.lexists(folder):
        raise OutputError(
            f"got {folder}, which exists; a bundle's name never changes what it means: "
            "write to a new name"
        )


def _user_models() -> Path:
    """The folder of the user's bundles; a folder that does not exist for a user without a home."""
    home = os.environ.get("CUTLINE_HOME") or "~/.cache/cutline"
    return Path(os.path.expanduser(home), "models")  # noqa: PTH111, the other one raises


def _bundles_in(home: Path) -> list[Path]:
    try:
        return [
            folder
            for folder in sorted(home.iterdir())
            if not folder.name.startswith(".") and (folder / "manifest.json").is_file()
        ]
    except OSError:  # it is not there, or not for this user
        return []


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def _refuse_elsewhere(folder: Path, name: str) -> None:
    """Refuse a file that is no regular file within the bundle's folder.

    Raises:
        BundleError: it is a link that leads elsewhere, a device, a pipe or a folder.
    """
    path = folder / name
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{path}: got a link that leads out of the bundle; expected a file in it")
    if path.exists() and not path.is_file():
        raise BundleError(f"{path}: got no regular file; expected one")


def _refuse_large_array(path: Path, most_bytes: int) -> None:
    """Refuse a .npy file whose header announces a larger array, before memory is taken for it.

    Raises:
        ValueError: the header is damaged, or the array is larger.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    size_bytes = math.prod(shape) * dtype.itemsize
    if size_bytes > most_bytes:
        raise ValueError(f"an array of {size_bytes:,} bytes")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(
            f"{path}: {error.strerror}; expected a file that the manifest names"
        ) from error


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _parse(kind: Any, value: Any, where: str) -> Any:
    """JSON -> the type a field declares, with nothing missing and nothing left over."""
    if isinstance(kind, types.UnionType):  # of dataclasses: the first one with these names
        names = value.keys() if isinstance(value, dict) else set()
        choices = get_args(kind)
        kind = next((each for each in choices if get_type_hints(each).keys() == names), choices[0])
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        names = value.keys() if isinstance(value, dict) else set()
        if names != hints.keys():
            missing = ", ".join(sorted(hints.keys() - names)) or "nothing"
            unknown = ", ".join(sorted(names - hints.keys())) or "nothing"
            raise BundleError(f"{where}: got {unknown} unknown, {missing} missing")
        parsed = {
            name: _parse(hint, value[name], f"{where}: {name}") for name, hint in hints.items()
        }
        try:
            return kind(**parsed)
        except OptionError as error:
            raise BundleError(f"{where}: {error}") from error
    outer, inner = get_origin(kind) or kind, get_args(kind)
    if outer is tuple and isinstance(value, list) and len(value) == len(inner):
        return tuple(_parse(hint, item, where) for hint, item in zip(inner, value, strict=True))
    if outer is dict and isinstance(value, dict):
        return {name: _parse(inner[1], item, f"{where}.{name}") for name, item in value.items()}
    if outer is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if outer is not Any and (not isinstance(value, outer) or isinstance(value, bool)):
        raise BundleError(f"{where}: got {value!r}; expected {outer.__name__}")
    return value
