"""Caption files as people write them, each read without loss or refused with its line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cutline.data import inspect, merge, read, write_coco
from cutline.errors import DataError, OptionError


def captions(path: Path, **options: Any) -> dict[str, tuple[str, ...]]:
    collection = read(path, unsplit=True, **options)
    return {example.name: example.captions for example in collection.splits["all"]}


def splits(path: Path, **options: Any) -> dict[str, list[str]]:
    collection = read(path, **options)
    return {name: [e.name for e in some] for name, some in collection.splits.items() if some}


def write(path: Path, text: str | bytes | Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text if isinstance(text, str) else json.dumps(text), "utf-8")
    return path


ONE_EACH = {"a.jpg": ("A dog, running",), "b.jpg": ("Two men",)}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("x.csv", 'a.jpg,"A dog, running"\nb.jpg,Two men\n'),
        ("x.tsv", "a.jpg\tA dog, running\nb.jpg\tTwo men\n"),
        ("x.csv", "a.jpg;A dog, running\nb.jpg;Two men\n"),
        ("x.csv", "sep=;\nimage;caption\na.jpg;A dog, running\nb.jpg;Two men\n"),
        ("x.csv", 'image_id,caption\na,"A dog, running"\nb,Two men\n'),
        ("x.csv", 'Image Name;Comment\na.jpg;"A dog, running"\nb.jpg;Two men\n'),
        ("x.csv", 'imageName,caption\na.JPG,"A dog, running"\nB.jpeg,Two men\n'),
        ("x.csv", 'image,caption\nC:\\Users\\me\\a.jpg,"A dog, running"\nphotos\\b.jpg,Two men\n'),
        ("x.csv", 'image,caption\n.\\Images\\a.jpg,"A dog, running"\n./b.jpg,Two men\n'),
        ("x.csv", 'caption,image\n"A dog, running",a.jpg\nTwo men,b.jpg\n'.encode("utf-16")),
        ("x.csv", '\ufeffimage,caption\r\na.jpg,"A dog, running"\r\nb.jpg,Two men\r\n'),
        ("x.token", "a.jpg#0\tA dog, running\nb.jpg#0\tTwo men\n"),
        ("x.json", {"a.jpg": "A dog, running", "b.jpg": ["Two men"]}),
        ("x.jsonl", '{"img": "a", "text": "A dog, running"}\n{"img": "b", "text": "Two men"}'),
    ],
)
def test_small_differences_of_form_do_not_matter(pictures: Path, file: str, text: Any) -> None:
    assert captions(write(pictures / file, text)) == ONE_EACH
    assert captions(pictures) == ONE_EACH


def test_commas_in_every_caption_are_no_delimiter(pictures: Path) -> None:
    write(pictures / "x.csv", "a.jpg;A dog, running\nb.jpg;Two men, again\n")
    assert captions(pictures) == {"a.jpg": ("A dog, running",), "b.jpg": ("Two men, again",)}


def test_numbered_captions_and_lists_in_cells_are_several(pictures: Path) -> None:
    path = pictures / "x.csv"
    write(path, "image,caption_1,caption_2\na.jpg,One,Two\nb.jpg,Three,\n")
    assert captions(path) == {"a.jpg": ("One", "Two"), "b.jpg": ("Three",)}
    write(path, 'a.jpg,"One","Two words"\nb.jpg,Three,Four\n')
    assert captions(path) == {"a.jpg": ("One", "Two words"), "b.jpg": ("Three", "Four")}
    cells = {
        "a.jpg": '"[""One"", ""Two, too""]"',  # JSON
        "b.jpg": '''"['One', ""It's two""]"''',  # Python
        "c.jpg": '''"['One' 'Two']"''',  # NumPy
        "d.jpg": "[sic] a sign",
        "e.jpg": "[1]",
        "f.jpg": "(a dog)",
    }
    write(path, "image,captions\n" + "".join(f"{k},{v}\n" for k, v in cells.items()))
    assert captions(path) == {
        "a.jpg": ("One", "Two, too"), "b.jpg": ("One", "It's two"), "c.jpg": ("One", "Two"),
        "d.jpg": ("[sic] a sign",), "e.jpg": ("[1]",), "f.jpg": ("(a dog)",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("header", "cell"),
    [
        ("caption", '[["One"], ["Two, too"]]'),
        ("caption", "['One', None, 'Two, too', nan]"),
        ("caption", "{'One', 'Two, too'}"),
        ("caption", "[{'raw': 'One'}, {'raw': 'Two, too'}]"),
        ("caption", '{"captions": ["One", "Two, too"]}'),
        ("caption", "array(['One', 'Two, too'], dtype=object)"),
        ("caption", "One || Two, too"),
        ("captions", "One; Two, too"),
        ("captions", "One\nTwo, too"),
    ],
)
def test_a_cell_of_several_captions(pictures: Path, header: str, cell: str) -> None:
    quoted = cell.replace('"', '""')
    path = write(pictures / "x.csv", f'image,{header}\na.jpg,"{quoted}"\n')
    assert captions(path) == {"a.jpg": ("One", "Two, too")}


def test_separators_in_some_captions_are_text(pictures: Path) -> None:
    write(pictures / "x.csv", 'image,caption\na.jpg,One; two\nb.jpg,"A dog\nruns"\nc.jpg,Three\n')
    assert [*captions(pictures).values()] == [("One; two",), ("A dog runs",), ("Three",)]


@pytest.mark.parametrize(
    "names", ["caption,caption", "captions/0,captions/1", "caption[0],caption[1]", "text_1,text_2"]
)
def test_names_of_columns_with_one_caption_each(pictures: Path, names: str) -> None:
    path = write(pictures / "x.csv", f"image,{names}\na.jpg,One,Two\nb.jpg,Three,\n")
    assert captions(path) == {"a.jpg": ("One", "Two"), "b.jpg": ("Three",)}


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_an_open_quotation_mark_is_named_with_its_line(pictures: Path, separator: str) -> None:
    rows = ["image,caption", "a.jpg,A dog", 'b.jpg,"Two men', "c.jpg,A bus", 'd.jpg,"A tram"']
    text = "\n".join(rows).replace(",", separator)
    path = write(pictures / ("x.tsv" if separator == "\t" else "x.csv"), text)
    with pytest.raises(DataError, match=r"got line 3 of .* quotation mark"):
        read(path)
    found = captions(path, faults="drop")
    assert found.keys() == {"a.jpg", "b.jpg", "c.jpg", "d.jpg"}
    assert found["c.jpg"] == ("A bus",)
    collection = read(path, faults="keep")
    assert inspect(collection).notes == collection.notes


def test_a_caption_of_thousands_of_characters_is_suspicious(pictures: Path) -> None:
    write(pictures / "x.jsonl", json.dumps({"image": "a.jpg", "captions": ["x " * 1500, "A dog"]}))
    with pytest.raises(DataError, match=r"a caption of 2,999 characters for a\.jpg"):
        read(pictures)
    assert captions(pictures, faults="drop") == {"a.jpg": ("A dog",)}
    assert inspect(read(pictures, faults="keep")).too_long == ("a.jpg",)


def test_coco_ids_of_any_type_match_and_twins_are_refused(pictures: Path) -> None:
    path = pictures / "captions.json"
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": "2", "file_name": "b.jpg"}]
    notes: list[dict[str, Any]] = [
        {"image_id": "1", "caption": "A dog"},
        {"image_id": 2.0, "caption": "Two men"},
        {"image_id": "0001", "caption": None},
    ]
    write(path, {"images": images, "annotations": notes})
    assert captions(path) == {"a.jpg": ("A dog",), "b.jpg": ("Two men",)}
    write(path, {"images": images, "annotations": [*notes, {"image_id": 77, "caption": "Stray"}]})
    assert captions(path) == {"a.jpg": ("A dog",), "b.jpg": ("Two men",)}
    assert "got 1 of 4 annotations" in read(path).notes[0]
    assert "first id 77" in read(path).notes[0]
    images.append({"id": "1", "file_name": "c.jpg"})
    write(path, {"images": images, "annotations": notes})
    with pytest.raises(DataError, match=r"got image id 1 twice in .*, for a\.jpg and c\.jpg"):
        read(path)


def test_files_of_several_splits_are_read_together(pictures: Path) -> None:
    write(pictures / "train.csv", "image,caption\na.jpg,One\nb.jpg,Two\n")
    write(pictures / "val.csv", "image,caption\nc.jpg,Three\n")
    write(pictures / "test.tsv", "image\tcaption\nd.jpg\tFour\n")
    assert splits(pictures) == {"train": ["a.jpg", "b.jpg"], "dev": ["c.jpg"], "test": ["d.jpg"]}
    write(pictures / "val.csv", "image,caption\nc.jpg,Three\nb.jpg,Also\n")
    with pytest.raises(DataError, match=r"got b\.jpg in the splits train and dev"):
        read(pictures)
    assert splits(pictures, faults="drop")["train"] == ["a.jpg"]
    [leak] = inspect(read(pictures, faults="keep")).leaks
    assert set(leak.splits) == {"train", "dev"}
    assert leak.identical


def test_files_of_two_languages_are_not_mixed(pictures: Path) -> None:
    for language, text in (("en", "A dog"), ("de", "Ein Hund")):
        content = {
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "annotations": [{"image_id": 1, "caption": text}],
        }
        write(pictures / f"captions_{language}.json", content)
    with pytest.raises(DataError, match=r"captions_de\.json, captions_en\.json .* name the one"):
        read(pictures)
    assert captions(pictures / "captions_de.json") == {"a.jpg": ("Ein Hund",)}


def test_leaks_between_caption_files_are_found(pictures: Path) -> None:
    for split, chosen in (("train", "abc"), ("val", "cd")):
        content = {
            "images": [{"id": i, "file_name": f"{name}.jpg"} for i, name in enumerate(chosen)],
            "annotations": [{"image_id": i, "caption": f"In {split}"} for i in range(len(chosen))],
        }
        write(pictures / f"captions_{split}.json", content)
    found = inspect(read(pictures, faults="keep"))
    assert [(pair.splits, pair.identical) for pair in found.leaks] == [(("train", "dev"), True)]
    with pytest.raises(DataError, match=r"c\.jpg in the splits"):
        read(pictures)
    for split in ("train", "val"):  # now they are two images of one name
        (pictures / split).mkdir()
    shutil.copy(pictures / "Images" / "c.jpg", pictures / "train" / "c.jpg")
    shutil.copy(pictures / "Images" / "e.jpg", pictures / "val" / "c.jpg")
    collection = read(pictures)
    assert [each.captions for each in collection.split("train")][2] == ("In train",)
    assert collection.split("dev")[0].image == pictures / "val" / "c.jpg"
    assert inspect(collection).sound


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("x.csv", "image,split,caption\na.jpg,train,One\nb.jpg,val,Two\nc.jpg,test,Three\n"),
        ("x.tsv", "image\tset\tcaption\na.jpg\tTRAIN\tOne\nb.jpg\tdev\tTwo\nc.jpg\tTest\tThree\n"),
        ("x.csv", "a.jpg,train,One\nb.jpg,validation,Two\nc.jpg,test,Three\n"),
        (
            "metadata.jsonl",
            '{"file_name":"a.jpg","text":"One","split":"train"}\n'
            '{"file_name":"b.jpg","text":"Two","split":"val2017"}\n'
            '{"file_name":"c.jpg","text":"Three","split":"test"}\n',
        ),
        (
            "metadata.jsonl",
            '{"file_name":"a.jpg","text":"One"}\n{"file_name":"a.jpg","text":"I","fold":"train"}\n'
            '{"file_name":"b.jpg","text":"Two","fold":"validation set"}\n'
            '{"file_name":"c.jpg","text":"Three","fold":"Testing"}\n',
        ),
        ("x.csv", "image,phase,caption\na.jpg,train,One\nb.jpg,val,Two\nc.jpg,test,Three\n"),
        ("x.csv", "image,caption,Dataset\na.jpg,1,Train\nb.jpg,2,Val\nc.jpg,3,test-dev\n"),
        (
            "x.json",
            {
                "train": [{"image": "a.jpg", "caption": "One"}],
                "val": [{"image": "b.jpg", "caption": "Two"}],
                "test": [{"image": "c.jpg", "caption": "Three"}],
            },
        ),
        (
            "captions.json",
            {
                "images": [
                    {"id": i, "file_name": f"{name}.jpg", "split": split}
                    for i, (name, split) in enumerate([("a", "train"), ("b", "val"), ("c", "test")])
                ],
                "annotations": [{"image_id": i, "caption": f"Text {i}"} for i in range(3)],
            },
        ),
    ],
)
def test_a_split_in_any_format_is_kept(pictures: Path, file: str, text: Any) -> None:
    path = write(pictures / file, text)
    assert splits(path) == {"train": ["a.jpg"], "dev": ["b.jpg"], "test": ["c.jpg"]}


def test_splits_of_unusual_names_are_kept_apart(pictures: Path) -> None:
    rows = "image,subset,caption\na.jpg,train,One\nb.jpg,val,Two\nc.jpg,public-7k,Three\n"
    assert splits(write(pictures / "x.csv", rows))["public-7k"] == ["c.jpg"]


def test_columns_of_other_values_are_no_splits(pictures: Path) -> None:
    rows = "image,subset,phase,caption\na.jpg,cats,train,One\nb.jpg,dogs,moving,Two\n"
    path = write(pictures / "x.csv", rows)
    assert not {"cats", "dogs", "moving"} & set(splits(path))
    with pytest.raises(DataError, match=r"got columns image, .* expected part"):
        read(path, split_column="part")


def test_tables_named_like_lists_of_splits(pictures: Path) -> None:
    for split, name in (("train", "a"), ("val", "b")):
        write(pictures / "captions" / f"{split}.txt", f"image,caption\n{name}.jpg,A text\n")
    assert splits(pictures) == {"train": ["a.jpg"], "dev": ["b.jpg"]}


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("val.json", '[{"image": "b.jpg", "cap', "val.json, which is no JSON"),
        ("val.jsonl", '{"image": "b.jpg", "caption": "A"}\n{"im', "line 2 of .*val.jsonl"),
        (
            "captions_val.json",
            {
                "images": [{"id": 1, "file_name": "b.jpg"}],
                "annotations": [{"image_id": 1, "caption": "A dog"}],
            },
            "captions_val.json and train.csv .* captions a.jpg",
        ),
        ("captions.json", {"b.jpg": "A dog"}, "captions.json and train.csv .* captions a.jpg"),
        ("x.token", "b.jpg#0\tA dog", "x.token and train.csv .* captions a.jpg"),
    ],
)
def test_files_beside_a_table_are_not_lost(
    pictures: Path, file: str, text: Any, reason: str
) -> None:
    write(pictures / "train.csv", "image,caption\na.jpg,One\n")
    write(pictures / file, text)
    with pytest.raises(DataError, match=reason):
        read(pictures)


def test_an_empty_table_of_a_split_is_reported(pictures: Path) -> None:
    write(pictures / "train.csv", "image,caption\na.jpg,One\n")
    write(pictures / "val.csv", "")
    assert "val.csv, which is empty" in read(pictures).notes[0]


def test_tables_in_folders_of_splits(pictures: Path) -> None:
    for split, name in (("train", "a"), ("validation", "b")):
        write(pictures / split / "metadata.csv", f"file_name,text\n{name}.jpg,A text\n")
        shutil.move(pictures / "Images" / f"{name}.jpg", pictures / split / f"{name}.jpg")
    assert splits(pictures) == {"train": ["a.jpg"], "dev": ["b.jpg"]}


def test_a_token_file_of_ones_own_is_not_flickr30k(pictures: Path) -> None:
    write(pictures / "mine.token", "a.jpg#0\tA dog\n")
    collection = read(pictures)
    assert (collection.name, collection.licence) == ("mine", "unknown")
    (pictures / "mine.token").rename(pictures / "coco-like.csv")
    assert read(pictures).licence == "unknown"


def test_two_spellings_of_one_image_are_one(pictures: Path) -> None:
    write(pictures / "x.csv", "image,caption\na.jpg,One\nA.JPG,Two\nImages/a.jpg,Three\n")
    assert list(captions(pictures).values()) == [("One", "Two", "Three")]


def test_columns_can_be_named_by_number(pictures: Path) -> None:
    write(pictures / "x.csv", "wo,was\na.jpg,One\n")
    assert captions(pictures, image_column="1", caption_column="was") == {"a.jpg": ("One",)}


def test_authors_are_read_and_written(pictures: Path, tmp_path: Path) -> None:
    write(pictures / "x.csv", "image,caption,written_by\na.jpg,One,person\na.jpg,Two,model\n")
    collection = read(pictures, unsplit=True)
    assert collection.splits["all"][0].written_by == ("person", "model")
    write_coco(collection, tmp_path / "coco")
    assert read(tmp_path / "coco", unsplit=True).splits["all"][0].written_by == ("person", "model")


def test_collections_merge_with_weights_and_unique_names(pictures: Path, tmp_path: Path) -> None:
    write(pictures / "x.csv", "image,split,caption\na.jpg,train,One\nb.jpg,dev,Two\n")
    shutil.copytree(pictures, tmp_path / "more")
    one, two = read(pictures), read(tmp_path / "more")
    both = merge([one, two], [1.0, 0.5])
    assert [e.name for e in both.splits["train"]] == ["x-1/a.jpg", "x-2/a.jpg"]
    assert [e.weight for e in both.splits["train"]] == [1.0, 0.5]
    assert merge([one]) is one
    shutil.copy(pictures / "Images" / "a.jpg", tmp_path / "more" / "Images" / "b.jpg")
    assert len(inspect(merge([one, read(tmp_path / "more")])).leaks) == 2
    with pytest.raises(OptionError, match="expected numbers that are at least 0"):
        merge([one, two], [1.0, -1.0])
    with pytest.raises(OptionError, match="expected one weight for each"):
        merge([one, two], [1.0])
