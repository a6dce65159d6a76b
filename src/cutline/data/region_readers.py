"""Readers of described regions: Visual Genome, RefCOCO/+/g and Flickr30k Entities.

Each reads the files as they were published and yields (image, box, phrase).
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cutline.boxes import Box
from cutline.data.collection import Collection, Example, split_by_image
from cutline.errors import DataError, OptionError

_SPLITS = {"val": "dev", "testA": "test", "testB": "test"}
_ENTITY = re.compile(r"\[/EN#(\d+)(?:/\S+)*\s+([^\]]+)\]")


@dataclass(frozen=True)
class RegionExample:
    """A region that people described.

    Attributes:
        image: the image's file.
        box: pixels of the upright image.
        phrase: one description.
        split: such as "train"; "" if the data names none.
        region: identifies the region among those of its data set.
    """

    image: Path
    box: Box
    phrase: str
    split: str = ""
    region: str = ""


def read_regions(path: Path, images: Path | None = None) -> list[RegionExample]:
    """Read described regions in any of the published formats.

    Args:
        path: `region_descriptions.json` of Visual Genome; a folder of RefCOCO, RefCOCO+ or
            RefCOCOg with `refs(...).p` and `instances.json`; or a folder of Flickr30k Entities
            with `Sentences/` and `Annotations/`.
        images: where the images are, in any subfolder; by default beside the annotations.

    Raises:
        DataError: the files are missing or of another form, or no image of theirs is found.
    """
    if path.is_file():
        examples = visual_genome(path, images or path.parent)
    elif (path / "Sentences").is_dir() and (path / "Annotations").is_dir():
        examples = flickr30k_entities(path, images or path)
    elif any(path.glob("refs*.p")):
        examples = refcoco(path, images or path)
    else:
        raise DataError(
            f"got {path}; expected region_descriptions.json, a folder with refs(...).p and "
            "instances.json, or one with Sentences/ and Annotations/"
        )
    found = list(examples)
    if not found:
        raise DataError(f"got no region of an image in {images or path}; expected at least one")
    return found


def region_collection(path: Path, images: Path | None = None) -> Collection:
    """Described regions as a collection: one example for each box, with all its phrases.

    RefCOCO's and Flickr30k Entities' own splits are used, with "val" as "dev". Data sets without
    splits are divided by image.

    Args:
        path: as for `read_regions`.
        images: as for `read_regions`.

    Raises:
        DataError: as for `read_regions`.
    """
    found: dict[tuple[Path, Box], list[RegionExample]] = {}
    for each in read_regions(path, images):
        found.setdefault((each.image, each.box), []).append(each)
    splits = {image: regions[0].split for (image, _), regions in found.items()}
    if not all(splits.values()):
        whole = {"all": tuple(Example(image, ("",)) for image in sorted(splits))}
        divided = split_by_image(Collection("", "", whole))
        splits = {each.image: name for name, some in divided.splits.items() for each in some}
    examples: dict[str, list[Example]] = {}
    for (image, box), regions in found.items():
        name = _SPLITS.get(splits[image], splits[image])
        key = f"{image.name}#{','.join(f'{value:g}' for value in box.xywh)}"
        phrases = tuple(dict.fromkeys(each.phrase for each in regions))
        examples.setdefault(name, []).append(Example(image, phrases, key, box=box))
    order = sorted(examples, key=lambda name: (name != "train", name != "dev", name))
    return Collection(path.stem, "unknown", {name: tuple(examples[name]) for name in order})


def visual_genome(path: Path, images: Path) -> Iterator[RegionExample]:
    """Regions of Visual Genome (Krishna et al., 2017), from `region_descriptions.json`.

    Args:
        path: the file.
        images: a folder with `ID.jpg` in any subfolder; regions of absent images are left out.

    Raises:
        DataError: the file is of another form.
    """
    places = _images(images)
    with _form(path):
        for entry in _json(path):
            for region in entry["regions"]:
                image = places.get(str(region.get("image_id", entry.get("id"))))
                numbers = [region[name] for name in ("x", "y", "width", "height")]
                example = _example(image, numbers, region["phrase"], "", str(region["region_id"]))
                if example is not None:
                    yield example


def refcoco(folder: Path, images: Path) -> Iterator[RegionExample]:
    """Referring expressions of RefCOCO, RefCOCO+ (Yu et al., 2016) or RefCOCOg (Mao et al., 2016).

    Only dictionaries, lists, numbers and texts are unpickled; a file with anything else is refused.

    Args:
        folder: with `refs(...).p` and `instances.json`.
        images: COCO's images, in any subfolder.

    Raises:
        DataError: a file is missing or of another form.
    """
    [*files] = sorted(folder.glob("refs*.p"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise DataError(f"got {found} in {folder}; expected one refs(...).p")
    instances = folder / "instances.json"
    places = _images(images)
    with _form(instances):
        content = _json(instances)
        stems = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
        boxes = {each["id"]: each["bbox"] for each in content["annotations"]}
    with _form(files[0]):
        for reference in _Builtins(io.BytesIO(_bytes(files[0])), encoding="latin-1").load():
            image = places.get(stems[reference["image_id"]])
            for sentence in reference["sentences"]:
                text = sentence.get("raw") or sentence["sent"]
                number = str(reference["ref_id"])
                box = boxes[reference["ann_id"]]
                example = _example(image, box, text, reference.get("split", ""), number)
                if example is not None:
                    yield example


def flickr30k_entities(folder: Path, images: Path) -> Iterator[RegionExample]:
    """Phrases of Flickr30k Entities (Plummer et al., 2015) with the boxes of their entities.

    A phrase of several boxes gets the box around all of them; phrases without a box are left out.

    Args:
        folder: with `Sentences/ID.txt` and `Annotations/ID.xml`; `train.txt`, `val.txt` and
            `test.txt` beside them name the splits.
        images: Flickr30k's images, in any subfolder.

    Raises:
        DataError: a file is of another form.
    """
    places = _images(images)
    splits: dict[str, str] = {}
    for name in ("train", "val", "test"):
        if (listing := folder / f"{name}.txt").is_file():
            lines = _bytes(listing).decode("utf-8", "replace").split()
            splits |= dict.fromkeys((Path(line).stem for line in lines), name)
    for sentences in sorted((folder / "Sentences").glob("*.txt")):
        number = sentences.stem
        annotation = folder / "Annotations" / f"{number}.xml"
        boxes = _entity_boxes(annotation) if annotation.is_file() else {}
        for line in _bytes(sentences).decode("utf-8", "replace").splitlines():
            for entity, phrase in _ENTITY.findall(line):
                if entity in boxes:
                    split = splits.get(number, "")
                    region = f"{number}/{entity}"
                    example = _example(places.get(number), boxes[entity], phrase, split, region)
                    if example is not None:
                        yield example


def _entity_boxes(path: Path) -> dict[str, list[float]]:
    """x, y, width, height around all boxes of each entity."""
    content = _bytes(path)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise DataError(f"got {path} with a document type; expected plain XML")
    corners: dict[str, list[list[float]]] = {}
    with _form(path):
        for element in ElementTree.fromstring(content).iter("object"):
            box = element.find("bndbox")
            if box is None:
                continue
            sides = [float(box.findtext(side) or "") for side in ("xmin", "ymin", "xmax", "ymax")]
            for entity in element.iter("name"):
                corners.setdefault(entity.text or "", []).append(sides)
    around = {}
    for name, each in corners.items():
        left, upper = min(box[0] for box in each), min(box[1] for box in each)
        right, lower = max(box[2] for box in each), max(box[3] for box in each)
        around[name] = [left, upper, right - left, lower - upper]
    return around


def _example(
    image: Path | None, numbers: list[Any], phrase: Any, split: str, region: str
) -> RegionExample | None:
    """An example; None without an image, a phrase or an area."""
    text = " ".join(str(phrase).split())
    if image is None or not text:
        return None
    try:
        return RegionExample(image, Box.of(numbers), text, split, region)
    except OptionError:
        return None


def _images(folder: Path) -> dict[str, Path]:
    """Image files by name without the extension."""
    endings = {".jpg", ".jpeg", ".png", ".webp"}
    found = (file for file in folder.rglob("*") if file.suffix.lower() in endings)
    return {file.stem: file for file in found}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a file that can be read") from error


def _json(path: Path) -> Any:
    return json.loads(_bytes(path))


@contextmanager
def _form(path: Path) -> Iterator[None]:
    """Turn whatever a file of another form causes into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except (
        *(LookupError, TypeError, ValueError, AttributeError, EOFError),
        *(pickle.UnpicklingError, ElementTree.ParseError),
    ) as error:
        raise DataError(
            f"{path}: got another form ({error}); expected the one that was published"
        ) from error


class _Builtins(pickle.Unpickler):
    """Loads containers, numbers and texts, and nothing that runs code."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class."""
        raise pickle.UnpicklingError(f"it holds {module}.{name}")
