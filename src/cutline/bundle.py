"""Model bundles: a folder of graphs, words and a manifest that says what they are and how good."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutline.errors import BundleError, BundleNotFoundError, OutputError
from cutline.image import Transform
from cutline.text import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 1
DEFAULT = "flickr8k-lite2-v1"
MAX_BYTES = 45_000_000
FILES = ("encoder.onnx", "labels.onnx", "start.onnx", "step.onnx", "vocabulary.txt", "labels.txt")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*-v[0-9]+")


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        name: immutable and versioned: other weights get another name.
        summary: one sentence for a list of models.
        created: when it was exported, ISO 8601.
        preprocessing: the fields of `image.Transform`.
        grid: rows and columns of the regions that attention falls on.
        vocabulary: its `size` and `sha256`.
        search: the fields of `search.SearchOptions` that suit this model.
        word_bias: nats per nat: how strongly common words are held back (0: not at all).
        files: SHA-256 by file name.
        recipe, data: what it was trained on and how, with the data's licence.
        licence: of the weights.
        parameters: counts by part.
        scores, speed: measured figures by name.
    """

    name: str
    summary: str
    created: str
    preprocessing: dict[str, Any]
    grid: tuple[int, int]
    vocabulary: dict[str, Any]
    search: dict[str, Any]
    word_bias: float
    files: dict[str, str]
    recipe: dict[str, Any]
    data: dict[str, Any]
    licence: str
    parameters: dict[str, int]
    scores: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """A manifest from its file's text.

        Raises:
            BundleError: it is not JSON, of an unknown format, or lacks a field.
        """
        try:
            fields = json.loads(text)
            if (version := fields.pop("format", None)) != FORMAT:
                raise BundleError(
                    f"got format {version} in {where}; expected {FORMAT}; update cutline"
                )
            return cls(**{**fields, "grid": tuple(fields["grid"])})
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise BundleError(f"got a damaged manifest in {where}: {error}") from error


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, its files checked against the manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Read a bundle's manifest and check that every file is the one it names.

        Raises:
            BundleNotFoundError: there is no manifest.
            BundleError: the manifest is damaged, or a file is missing or another.
        """
        try:
            text = (path / "manifest.json").read_text(encoding="utf-8")
        except OSError as error:
            raise BundleNotFoundError(f"got no bundle at {path}: {error.strerror}") from error
        bundle = cls(path, Manifest.from_json(text, str(path)))
        for name in FILES:
            if name not in bundle.manifest.files:
                raise BundleError(f"got no {name} in the manifest of {path}; expected it there")
        for name, expected in bundle.manifest.files.items():
            try:
                with (path / name).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise BundleError(f"got no {name} in {path}: {error.strerror}") from error
            if found != expected:
                raise BundleError(
                    f"got {path / name} with another checksum than its manifest says; "
                    "install the bundle anew"
                )
        if bundle.vocabulary.checksum != bundle.manifest.vocabulary["sha256"]:
            raise BundleError(f"got another vocabulary in {path} than its manifest says")
        return bundle

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words that the decoder knows."""
        return Vocabulary.read(self.path / "vocabulary.txt")

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The names of the encoder's classes, in the order of its logits."""
        return tuple((self.path / "labels.txt").read_text(encoding="utf-8").splitlines())

    @property
    def transform(self) -> Transform:
        """What a picture goes through before the encoder."""
        return Transform(**self.manifest.preprocessing)

    @cached_property
    def bias(self) -> NDArray[np.float32] | None:
        """(V,) nats added to the log-probabilities in ranking, or None.

        That of a word is -word_bias times its centred log-prior in the training captions, so that
        the commonest words lose a little against the rest (Menon et al., 2021, section 4.1).
        """
        if not self.manifest.word_bias:
            return None
        import numpy as np

        prior = np.load(self.path / "prior.npy", allow_pickle=False)
        bias: NDArray[np.float32] = (-self.manifest.word_bias * prior).astype(np.float32)
        return bias

    @property
    def size_bytes(self) -> int:
        """What its files weigh together."""
        return sum((self.path / name).stat().st_size for name in self.manifest.files)


def home() -> Path:
    """Where bundles of one's own lie: `models` in $CUTLINE_HOME, or in ~/.cutline."""
    return Path(os.environ.get("CUTLINE_HOME") or Path.home() / ".cutline") / "models"


def installed() -> Iterator[Path]:
    """The folders of all bundles that have a name here: those that came along, then one's own."""
    for root in (Path(__file__).parent / "_models", home()):
        if root.is_dir():
            yield from sorted(p.parent for p in root.glob("*/manifest.json"))


def find(model: str | Path | None = None) -> Bundle:
    """The bundle of a name or path; None is the default one.

    Raises:
        BundleNotFoundError: there is none; the message lists the names there are.
        BundleError: it is damaged.
    """
    model = DEFAULT if model is None else model
    if (Path(model) / "manifest.json").is_file():
        return Bundle.open(Path(model))
    paths = {path.name: path for path in installed()}
    if str(model) not in paths:
        names = ", ".join(paths) or "none installed"
        raise BundleNotFoundError(
            f"got model {str(model)!r}; expected a bundle's folder, or one of: {names}"
        )
    return Bundle.open(paths[str(model)])


def write_bundle(
    folder: Path, files: Mapping[str, Path], manifest: Mapping[str, Any]
) -> Bundle:
    """Write a bundle whole or not at all.

    Args:
        folder: where it will stand; its last part is the bundle's name.
        files: the file to copy under each name in the bundle.
        manifest: the fields of `Manifest` but for `name` and `files`.

    Raises:
        BundleError: the name is taken or not like NAME-vN, a file is missing, it is too heavy.
        OutputError: the disk refuses.
    """
    if not _NAME.fullmatch(folder.name):
        raise BundleError(f"got bundle name {folder.name!r}; expected one like flickr8k-lite2-v1")
    if folder.exists():
        raise BundleError(f"got {folder}, which exists; new weights take a new name")
    if missing := [name for name in FILES if name not in files]:
        raise BundleError(f"got no {', '.join(missing)}; expected every file of a bundle")
    if (weight := sum(path.stat().st_size for path in files.values())) > MAX_BYTES:
        raise BundleError(f"got {weight / 1e6:.1f} MB; expected at most {MAX_BYTES / 1e6:.0f} MB")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        sums = {}
        for name, source in files.items():
            shutil.copyfile(source, partial / name)
            with (partial / name).open("rb") as file:
                os.fsync(file.fileno())
                sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
        fields = {"format": FORMAT, "name": folder.name, **manifest, "files": sums}
        with (partial / "manifest.json").open("w", encoding="utf-8") as out:
            json.dump(fields, out, indent=2)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        Bundle.open(partial)
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError as error:
        raise OutputError(f"got {error.strerror} writing the bundle {folder}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Bundle.open(folder)
