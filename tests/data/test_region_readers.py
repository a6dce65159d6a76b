from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from conftest import scene

from cutline.data.region_readers import read_regions
from cutline.errors import DataError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images" / "deep"
    folder.mkdir(parents=True)
    for name in ("1.jpg", "COCO_train2014_000000000009.jpg", "36979.jpg"):
        scene(100, 80).save(folder / name)
    return tmp_path / "images"


def test_visual_genome(tmp_path: Path, images: Path) -> None:
    path = tmp_path / "region_descriptions.json"
    region = {
        "region_id": 7,
        "x": 1,
        "y": 2,
        "width": 30,
        "height": 40,
        "image_id": 1,
        "phrase": " a  dog ",
    }
    broken = {**region, "region_id": 8, "width": 0}
    absent = {**region, "region_id": 9, "image_id": 2}
    path.write_text(json.dumps([{"id": 1, "regions": [region, broken, absent]}]))
    [found] = read_regions(path, images)
    assert (found.image.name, found.box.xywh, found.phrase) == ("1.jpg", (1, 2, 30, 40), "a dog")


def refs(folder: Path, content: object) -> Path:
    folder.mkdir()
    name = "COCO_train2014_000000000009"
    instances = {
        "images": [{"id": 9, "file_name": f"{name}.jpg"}],
        "annotations": [{"id": 5, "bbox": [1.5, 2, 30, 40]}],
    }
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / "refs(unc).p").write_bytes(pickle.dumps(content, protocol=2))
    return folder


def test_refcoco(tmp_path: Path, images: Path) -> None:
    sentences = [{"raw": "Left dog", "sent": "left dog"}, {"sent": "the dog"}]
    reference = {"ref_id": 3, "ann_id": 5, "image_id": 9, "split": "testA", "sentences": sentences}
    found = read_regions(refs(tmp_path / "refcoco", [reference]), images)
    assert [each.phrase for each in found] == ["Left dog", "the dog"]
    assert {(each.split, each.region, each.box.xywh) for each in found} == {
        ("testA", "3", (1.5, 2, 30, 40))
    }


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_a_pickle_cannot_run_code(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match="print"):
        read_regions(refs(tmp_path / "refcoco", [Evil()]), images)
    assert "executed" not in capsys.readouterr().out


def test_flickr30k_entities(tmp_path: Path, images: Path) -> None:
    folder = tmp_path / "entities"
    (folder / "Sentences").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    (folder / "val.txt").write_text("36979\n")
    (folder / "Sentences" / "36979.txt").write_text(
        "[/EN#11/people Two young guys] look at [/EN#12/bodyparts/other their hands] "
        "in [/EN#13/scene the yard] .\n"
    )
    boxes = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>5</ymin>"
        f"<xmax>{x + 10}</xmax><ymax>25</ymax></bndbox></object>"
        for name, x in ((11, 10), (11, 40), (12, 0))
    )
    nothing = "<object><name>13</name><scene>1</scene><nobndbox>1</nobndbox></object>"
    (folder / "Annotations" / "36979.xml").write_text(f"<annotation>{boxes}{nothing}</annotation>")
    found = read_regions(folder, images)
    assert [(each.phrase, each.box.xywh, each.split) for each in found] == [
        ("Two young guys", (10, 5, 40, 20), "val"),
        ("their hands", (0, 5, 10, 20), "val"),
    ]


@pytest.mark.parametrize("content", ["{", "[1]", '[{"regions": [{"x": 1}]}]', "[]"])
def test_another_form_is_one_error(tmp_path: Path, images: Path, content: str) -> None:
    path = tmp_path / "region_descriptions.json"
    path.write_text(content)
    with pytest.raises(DataError):
        read_regions(path, images)
    with pytest.raises(DataError, match="expected"):
        read_regions(tmp_path / "nothing", images)
