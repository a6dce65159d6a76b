from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cutline.data import Collection, read, read_flickr8k, write_coco
from cutline.errors import DataError

NAMES = [f"{name}.jpg" for name in "abcdef"]
SAID = {name: (f"this is {name[0]}", f"{name[0]}, again") for name in NAMES}


def said(collection: Collection) -> dict[str, tuple[str, ...]]:
    return {each.name: each.captions for some in collection.splits.values() for each in some}


def names(collection: Collection) -> dict[str, list[str]]:
    return {split: [each.name for each in some] for split, some in collection.splits.items()}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")


def table(separator: str = ",", header: str = "image,caption") -> str:
    rows = [header.replace(",", separator)]
    for name in NAMES:
        rows += [
            f'{name}{separator}"{text}"' if separator == "," else f"{name}{separator}{text}"
            for text in SAID[name]
        ]
    return "\n".join(rows) + "\n"


def coco(chosen: list[str]) -> dict[str, Any]:
    images = [{"id": 7 + i, "file_name": name} for i, name in enumerate(chosen)]
    pairs = [(7 + i, text) for i, name in enumerate(chosen) for text in SAID[name]]
    notes = [{"id": k, "image_id": i, "caption": text} for k, (i, text) in enumerate(pairs)]
    return {"images": images, "annotations": notes}


def karpathy() -> dict[str, Any]:
    splits = ["train", "train", "restval", "val", "test", "test"]
    return {
        "images": [
            {
                "filename": name,
                "filepath": "val2014",
                "split": split,
                "sentences": [{"raw": text, "tokens": text.split()} for text in SAID[name]],
            }
            for name, split in zip(NAMES, splits, strict=True)
        ]
    }


def test_kaggles_captions_with_the_release_s_lists(pictures: Path) -> None:
    write(pictures / "captions.txt", table())
    write(pictures / "Flickr_8k.trainImages.txt", "c.jpg\na.jpg\n")
    write(pictures / "Flickr_8k.devImages.txt", "e.jpg\n")
    for collection in (read(pictures), read_flickr8k(pictures), read(pictures / "captions.txt")):
        assert names(collection) == {
            "train": ["c.jpg", "a.jpg"], "dev": ["e.jpg"], "rest": ["b.jpg", "d.jpg", "f.jpg"]
        }  # fmt: skip
        assert said(collection) == SAID
    assert read_flickr8k(pictures).licence.startswith("Flickr8k: research use")
    assert names(read(pictures, unsplit=True)) == {"all": NAMES}


def test_flickr8k_without_lists_or_with_twins_in_them_is_refused(pictures: Path) -> None:
    write(pictures / "captions.txt", table())
    with pytest.raises(DataError, match="without split lists"):
        read_flickr8k(pictures)
    write(pictures / "Flickr_8k.trainImages.txt", "a.jpg\n")
    write(pictures / "Flickr_8k.testImages.txt", "a.jpg\n")
    with pytest.raises(DataError, match=r"got a\.jpg twice"):
        read_flickr8k(pictures)
    write(pictures / "Flickr_8k.testImages.txt", "z.jpg\n")
    with pytest.raises(DataError, match=r"got z\.jpg in .* without captions"):
        read(pictures / "captions.txt")


@pytest.mark.parametrize("file", ["Flickr8k.token.txt", "text/results_20130124.token"])
def test_the_original_tokens(pictures: Path, file: str) -> None:
    (pictures / "Images").rename(pictures / "Flicker8k_Dataset")
    lines = [f"{name}#{i}\t{text}" for name in NAMES for i, text in enumerate(SAID[name])]
    write(pictures / file, "\n".join([*lines, "x.jpg.1#0\tno such picture"]) + "\n")
    folder = (pictures / file).parent
    for split, chosen in (("train", "a b c"), ("val", "d"), ("test", "e f")):
        write(folder / f"{split}.txt", "\n".join(chosen.split()))
    collection = read(pictures, images=pictures / "Flicker8k_Dataset")
    assert said(collection) == SAID
    assert names(collection)["dev"] == ["d.jpg"]
    assert names(collection)["rest"] == []
    assert collection.name == ("flickr8k" if "8k" in file else "flickr30k")


@pytest.mark.parametrize("where", ["annotations", "."])
def test_coco_s_folders(pictures: Path, where: str) -> None:
    for split, chosen in (("train2017", NAMES[:4]), ("val2017", NAMES[4:])):
        (pictures / split).mkdir()
        for name in chosen:
            shutil.move(pictures / "Images" / name, pictures / split / name)
        write(pictures / where / f"captions_{split}.json", coco(chosen))
    collection = read(pictures)
    assert names(collection) == {"train": NAMES[:4], "dev": NAMES[4:], "rest": []}
    assert said(collection) == SAID
    assert collection.split("dev")[0].image == pictures / "val2017" / "e.jpg"
    one = read(pictures / where / "captions_val2017.json")
    assert names(one) == {"dev": NAMES[4:], "rest": []}


def test_karpathy_s_file_and_as_a_split_file_of_another(pictures: Path) -> None:
    (pictures / "Images").rename(pictures / "val2014")
    write(pictures / "dataset_coco.json", karpathy())
    collection = read(pictures)
    expected = {
        "train": ["a.jpg", "b.jpg"], "dev": ["d.jpg"], "test": ["e.jpg", "f.jpg"],
        "rest": ["c.jpg"],
    }  # fmt: skip
    assert names(collection) == expected
    assert said(collection) == SAID
    assert collection.licence.startswith("COCO")
    write(pictures / "mine.csv", table())
    again = read(pictures / "mine.csv", split_file=pictures / "dataset_coco.json")
    assert names(again) == expected
    write(pictures / "dataset_flickr8k.json", karpathy())
    with pytest.raises(DataError, match="expected one of them: name it"):
        read(pictures)


def test_split_files_of_other_forms(pictures: Path, tmp_path: Path) -> None:
    write(pictures / "captions.csv", table())
    write(tmp_path / "splits.json", {"train": NAMES[:3], "test": ["elsewhere/d.jpg"]})
    split = names(read(pictures, split_file=tmp_path / "splits.json"))
    assert split == {"train": NAMES[:3], "test": ["d.jpg"], "rest": NAMES[4:]}
    write(tmp_path / "splits.csv", "file_name,split\na.jpg,Validation\nb.jpg,training\n")
    split = names(read(pictures, split_file=tmp_path / "splits.csv"))
    assert split == {"train": ["b.jpg"], "dev": ["a.jpg"], "rest": NAMES[2:]}
    write(tmp_path / "splits.csv", "file_name,split\na.jpg,dev\na.jpg,train\n")
    with pytest.raises(DataError, match=r"got a\.jpg in two splits"):
        read(pictures, split_file=tmp_path / "splits.csv")


def lines(*rows: Any) -> str:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)


PAIRS = [(name, text) for name in NAMES for text in SAID[name]]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("captions.csv", table()),
        (
            "results.csv",
            lines("image_name| comment_number| comment", *(f"{n}| 0| {text}" for n, text in PAIRS)),
        ),
        ("captions.tsv", table("\t", "File Name,Text")),
        ("captions.csv", table(";", "photo,Caption")),
        (
            "metadata.csv",
            lines(
                "file_name,caption_1,caption_2", *(f'{n},{s},"{t}"' for n, (s, t) in SAID.items())
            ),
        ),
        ("metadata.jsonl", lines(*({"image": n, "captions": both} for n, both in SAID.items()))),
        ("data.jsonl", lines(*({"file_name": n, "text": text} for n, text in PAIRS), "")),
        ("data.json", [{"file_path": f"/old/{n}", "captions": both} for n, both in SAID.items()]),
        ("data.json", [{"image": f"Images/{n}", "caption": text} for n, text in PAIRS]),
    ],
)
def test_tables_in_many_forms(pictures: Path, file: str, content: Any) -> None:
    write(pictures / file, content)
    for path in (pictures, pictures / file):
        collection = read(path)
        assert said(collection) == SAID
        assert list(collection.splits) == ["train", "dev", "test", "rest"]
        assert names(collection)["rest"] == []
        assert all(each.image.is_file() for each in collection.split("train"))


def test_columns_can_be_named_and_splits_stand_in_one(pictures: Path) -> None:
    rows = [f"{name},{name[0]} said,noise,{'val' if name < 'c' else 'train'}" for name in NAMES]
    write(pictures / "mine.csv", "\n".join(["wo,was,caption,split", *rows]))
    collection = read(pictures, image_column="wo", caption_column="was")
    assert names(collection) == {"train": NAMES[2:], "dev": NAMES[:2], "rest": []}
    assert said(collection)["a.jpg"] == ("a said",)
    with pytest.raises(DataError, match=r"got columns wo, was, caption, split in .*: name them"):
        read(pictures / "mine.csv")
    with pytest.raises(DataError, match=r"expected one for the image .*wie"):
        read(pictures / "mine.csv", image_column="wie", caption_column="was")


def test_pictures_beside_texts(pictures: Path) -> None:
    write(pictures / "Images" / "notes.txt", "Taken in May, by me\nall, but one, at noon\n")
    for name in NAMES:
        write((pictures / "Images" / name).with_suffix(".txt"), "\n".join([*SAID[name], ""]))
    assert said(read(pictures / "Images")) == SAID
    for split, chosen in (("train", NAMES[:3]), ("validation", NAMES[3:])):
        for name in chosen:
            for ending in (".jpg", ".txt"):
                target = pictures / split / name
                target.parent.mkdir(exist_ok=True)
                (pictures / "Images" / name).with_suffix(ending).rename(target.with_suffix(ending))
    assert names(read(pictures)) == {"train": NAMES[:3], "dev": NAMES[3:], "rest": []}


def test_images_of_one_name_in_two_folders_stay_apart(pictures: Path) -> None:
    for place, letter in (("one", "a"), ("two", "b")):
        (pictures / place).mkdir()
        (pictures / "Images" / f"{letter}.jpg").rename(pictures / place / "x.jpg")
    write(pictures / "mine.csv", "image,caption\none/x.jpg,first\ntwo/x.jpg,second\n")
    collection = read(pictures, unsplit=True)
    assert said(collection) == {"one/x.jpg": ("first",), "two/x.jpg": ("second",)}
    assert [each.image.parent.name for each in collection.splits["all"]] == ["one", "two"]
    (pictures / "x.jpg").write_bytes((pictures / "one" / "x.jpg").read_bytes())
    (pictures / "two" / "x.jpg").unlink()
    with pytest.raises(DataError, match=r"two/x\.jpg has no picture"):
        read(pictures)


def test_rows_that_are_not_as_the_others_are_not_lost(pictures: Path) -> None:
    write(pictures / "mine.csv", table() + ",\n,of no picture\n")
    with pytest.raises(DataError, match=r"got 1 of 7 .*: row 14, which names no image, has no pic"):
        read(pictures)
    assert said(read(pictures, faults="drop")) == SAID
    write(pictures / "mine.csv", table() + "a.jpg,a dog, running\n")
    with pytest.raises(DataError, match=r"got line 14 of .* more cells .* expected 2: put a cell"):
        read(pictures)
    write(pictures / "mine.csv", "image,caption,Split\na.jpg,one,train\na.jpg,two,test\n")
    with pytest.raises(DataError, match=r"got a\.jpg in the splits train and test"):
        read(pictures)


def test_what_is_missing_is_refused_dropped_or_kept(pictures: Path) -> None:
    write(pictures / "mine.csv", table() + "z.jpg,no picture\nb.jpg,\ng.jpg,\n")
    (pictures / "Images" / "g.jpg").write_bytes((pictures / "Images" / "a.jpg").read_bytes())
    with pytest.raises(DataError, match=r"got 2 of 8 images .*: z\.jpg has no picture"):
        read(pictures)
    assert said(read(pictures, faults="drop")) == SAID
    kept = said(read(pictures, faults="keep"))
    assert kept["z.jpg"] == ("no picture",)
    assert kept["b.jpg"] == (*SAID["b.jpg"], "")
    assert kept["g.jpg"] == ("",)


def test_where_nothing_is_known_it_says_what_was_looked_for(tmp_path: Path) -> None:
    for content in ({}, {"notes.csv": "x,y\n1,2\n"}, {"list.json": "[1]"}):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for file, text in content.items():
            write(folder / file, text)
        with pytest.raises(DataError, match=r"looked for COCO annotations .* same name") as refusal:
            read(folder)
        assert all(file in str(refusal.value) for file in content)
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "absent")
    write(tmp_path / "latin.csv", "")
    (tmp_path / "latin.csv").write_bytes("image,caption\na.jpg,caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match="no UTF-8 text"):
        read(tmp_path / "latin.csv")
    write(tmp_path / "captions.json", {"images": [{"id": 1}], "annotations": []})
    with pytest.raises(DataError, match="lacks 'file_name'; expected COCO captions"):
        read(tmp_path / "captions.json")


@pytest.mark.parametrize("inside", [True, False])
def test_coco_that_was_written_is_read_back(pictures: Path, tmp_path: Path, inside: bool) -> None:
    write(pictures / "dataset_flickr8k.json", karpathy())
    original = read(pictures)
    folder = tmp_path / "written"
    if inside:
        shutil.copytree(pictures / "Images", folder / "images")
        original = read(pictures / "dataset_flickr8k.json", images=folder / "images")
    path = write_coco(original, folder)
    again = read(folder)
    assert (again.name, again.licence) == (original.name, original.licence)
    assert names(again) == names(original)
    assert said(again) == SAID
    content = json.loads(path.read_text())
    assert content["images"][0].keys() >= {"id", "file_name", "width", "height"}
    assert {each["image_id"] for each in content["annotations"]} == {1, 2, 3, 4, 5, 6}
    assert content["images"][0]["file_name"] == ("a.jpg" if inside else "../set/Images/a.jpg")


@pytest.mark.parametrize(
    ("table", "splits"),
    [
        (
            "image,caption,is_train\na.jpg,A,1\nb.jpg,B,0\n",
            {"train": ["a.jpg"], "test": ["b.jpg"]},
        ),
        (
            "image,caption,is_test\na.jpg,A,true\nb.jpg,B,False\n",
            {"train": ["b.jpg"], "test": ["a.jpg"]},
        ),
        (
            "image,caption,train,val,test\na.jpg,A,1,0,0\nb.jpg,B,0,1,0\n",
            {"train": ["a.jpg"], "dev": ["b.jpg"]},
        ),
    ],
)
def test_columns_that_flag_the_images_of_a_split(
    tmp_path: Path, table: str, splits: dict[str, list[str]]
) -> None:
    (tmp_path / "c.csv").write_text(table)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    collection = read(tmp_path / "c.csv")
    found = {split: [one.name for one in each] for split, each in collection.splits.items()}
    assert {split: names for split, names in found.items() if names} == splits


def test_a_column_named_test_without_yes_and_no_is_no_split(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("image,caption,test\na.jpg,A,foo\nb.jpg,B,bar\n")
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert "dev" in read(tmp_path / "c.csv").splits


def test_annotations_without_caption_or_image_are_reported_and_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    whole = {"image_id": 1, "caption": "A dog"}
    content: dict[str, Any] = {"images": [{"id": 1, "file_name": "a.jpg"}]}
    for stray in ({"image_id": 1}, {"caption": "B"}):
        content["annotations"] = [whole, stray]
        (tmp_path / "c.json").write_text(json.dumps(content))
        collection = read(tmp_path / "c.json", unsplit=True)
        assert [list(one.captions) for one in collection.splits["all"]] == [["A dog"]]
        assert "1 of 2 annotations" in collection.notes[0]
    content["annotations"] = [{"image_id": 1}, {"image_id": 1}]
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="lacks 'caption'"):
        read(tmp_path / "c.json")
