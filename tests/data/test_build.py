from __future__ import annotations

import csv
import io
import json
import os
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cutline.data import inspect, read
from cutline.data.build import BuildOptions, BuildReport, build, plan
from cutline.data.tabular import ColumnNames
from cutline.errors import DataError, FetchError


def picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """A picture of coarse blocks that looks like no other seed's."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(seed: int, **size: int) -> bytes:
    content = io.BytesIO()
    picture(seed, **size).save(content, "JPEG")
    return content.getvalue()


class Web:
    """Pictures by URL; a URL with `bad` in it fails, until it is repaired."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.broken = True
        self._lock = threading.Lock()

    def fetch(self, url: str) -> bytes:
        with self._lock:
            self.asked[url] += 1
        if "bad" in url and self.broken:
            raise FetchError(url, "status", "the server answers 404", 404)
        return jpeg(int(url.rpartition("/")[2].partition(".")[0]))


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def made(source: Path, output: Path, web: Web | None = None, **options: object) -> BuildReport:
    chosen = BuildOptions(**options)  # type: ignore[arg-type]
    return build(plan(source, chosen), output, chosen, fetch=web.fetch if web else None)


def said(folder: Path) -> dict[tuple[str, ...], int]:
    """Captions -> which picture, told by its first seed, they belong to."""
    content = json.loads((folder / "captions.json").read_text())
    by_id: dict[int, list[str]] = {each["id"]: [] for each in content["images"]}
    for each in content["annotations"]:
        by_id[each["image_id"]].append(each["caption"])
    return {tuple(captions): number for number, captions in by_id.items()}


def test_a_table_becomes_a_sound_set_in_coco_s_form(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    rows = [["image", "caption"]]
    for seed in range(20):
        picture(seed, 900, 300).save(tmp_path / "photos" / f"{seed}.png")
        rows += [[f"photos/{seed}.png", f"picture  {seed}, said\n{n} "] for n in range(2)]
    report = made(write(tmp_path / "mine.csv", rows), tmp_path / "set", licence="CC0")
    assert (report.images, report.captions, report.uncaptioned) == (20, 40, 0)
    assert report.dropped == ()
    collection = read(tmp_path / "set")
    assert (collection.name, collection.licence) == ("set", "CC0")
    assert {name: len(some) for name, some in collection.splits.items() if some} == report.splits
    assert inspect(collection).sound
    for example in collection.split(*collection.splits):
        with Image.open(example.image) as image:
            assert (image.format, image.size) == ("JPEG", (640, 213))
        assert example.captions[0].endswith("said 0")
        assert example.captions[1] == example.captions[0].replace("said 0", "said 1")


def test_what_is_left_out_is_named_with_its_reason(tmp_path: Path) -> None:
    rows = [["image", "caption"], *([f"{n}.jpg", f"caption {n}"] for n in range(4))]
    for seed in range(3):
        (tmp_path / f"{seed}.jpg").write_bytes(jpeg(seed))
    (tmp_path / "3.jpg").write_bytes(jpeg(3)[:200])
    (tmp_path / "copy.jpg").write_bytes(jpeg(0))
    picture(1).resize((40, 32)).save(tmp_path / "small.jpg", quality=50)
    rows += [["copy.jpg", "of a copy"], ["small.jpg", "of a small one"], ["gone.jpg", "gone"]]
    rows += [["=1+1.jpg", "a formula"]]
    rows += [["0.jpg", "Caption 0"], ["", "nothing"], ["2.jpg", ""]]
    rows += [["2.jpg", f"another, number {n}"] for n in range(6)]
    source = write(tmp_path / "mine.csv", rows)
    report = made(source, tmp_path / "set")
    assert report.images == 3
    assert set(said(tmp_path / "set")) == {
        ("caption 0", "of a copy"),
        ("caption 1",),
        ("caption 2", *(f"another, number {n}" for n in range(4))),
    }
    assert report.reasons == {
        "caption: beyond the first 5": 2,
        "image: cannot be had or read": 3,
        "image: no image in its row": 1,
        "image: identical to another": 1,
        "image: nearly another": 1,
    }
    with (tmp_path / "set" / "dropped.csv").open(newline="") as file:
        dropped = {row["source"]: row for row in csv.DictReader(file)}
    assert "'=1+1.jpg" in dropped
    assert "cut short" in dropped["3.jpg"]["detail"]
    assert "no such file" in dropped["gone.jpg"]["detail"]
    assert dropped["small.jpg"]["detail"].startswith("1.jpg: nearly another")
    assert len(list((tmp_path / "set" / "images").iterdir())) == 3
    assert made(source, tmp_path / "all", max_distance=-1).images == 4


def test_reviews_give_their_titles_or_first_sentences(tmp_path: Path) -> None:
    rows = [
        ["Image URL", "rating", "title", "review text"],
        ["http://x/1.jpg", "5", "A <b>bright</b> red scarf &amp; hat", "Lovely. It is warm."],
        ["http://x/1.jpg", "4.0", "Great!", "The soft wool scarf is warm. I love it."],
        ["http://x/1.jpg", "2", "A scarf full of holes", "Do not buy."],
        ["http://x/2.jpg", "3", "", "Good"],
        ["http://x/3.jpg", "1", "An ugly pair of shoes", "No."],
        ["http://x/4.jpg", "3", "Blue shoes with laces", ""],
        ["http://x/4.jpg", "none", "Green shoes with laces", ""],
    ]
    report = made(write(tmp_path / "reviews.csv", rows), tmp_path / "set", Web())
    assert set(said(tmp_path / "set")) == {
        ("A bright red scarf & hat", "The soft wool scarf is warm."),
        ("Blue shoes with laces",),
    }
    assert report.reasons == {
        "caption: not 3 to 5 stars": 3,
        "image: no caption": 2,
        "caption: title and sentence not of 3 to 40 words": 1,
    }


def test_a_list_of_urls_with_and_without_captions(tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text("# mine\nhttp://x/1.jpg\n\nhttp://x/2.jpg\n")
    report = made(tmp_path / "urls.txt", tmp_path / "bare", Web())
    assert (report.images, report.captions, report.uncaptioned) == (2, 0, 2)
    captions = tmp_path / "bare" / "captions.json"
    content = json.loads(captions.read_text())
    content["annotations"] = [{"id": 1, "image_id": 2, "caption": "written by hand"}]
    captions.write_text(json.dumps(content))
    again = made(tmp_path / "urls.txt", tmp_path / "bare", Web())
    assert (again.captions, again.uncaptioned) == (1, 1)
    assert set(said(tmp_path / "bare")) == {("written by hand",), ()}
    (tmp_path / "urls.txt").write_text("http://x/1.jpg\tA one\nhttp://x/2.jpg\tA two, or more\n")
    assert made(tmp_path / "urls.txt", tmp_path / "told", Web()).captions == 2
    assert set(said(tmp_path / "told")) == {("A one",), ("A two, or more",)}


def test_whatever_can_be_read_can_be_built_from(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg(1))
    content = [{"file_path": "1.jpg", "captions": ["one", "the first"]}]
    (tmp_path / "mine.json").write_text(json.dumps(content))
    assert made(tmp_path / "mine.json", tmp_path / "a").captions == 2
    (tmp_path / "1.txt").write_text("one\n")
    (tmp_path / "mine.json").unlink()
    (tmp_path / "a").rename(tmp_path.parent / "elsewhere")
    assert made(tmp_path, tmp_path.parent / "b").captions == 1
    row = json.dumps({"image": "1.jpg", "captions": ["one", "first", "ONE"]})
    (tmp_path / "mine.jsonl").write_text(row)
    assert made(tmp_path / "mine.jsonl", tmp_path / "c").captions == 2


def test_an_interrupted_build_goes_on_and_failures_are_tried_again(tmp_path: Path) -> None:
    names = [f"http://x/{n}.jpg" for n in range(12)] + ["http://x/bad/99.jpg"]
    source = write(tmp_path / "mine.csv", [["image", "caption"], *([n, f"of {n}"] for n in names)])
    options, web = BuildOptions(), Web()
    done: list[int] = []

    def impatient(count: int) -> None:
        done.append(count)
        if sum(done) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(
            plan(source, options), tmp_path / "set", options, fetch=web.fetch, workers=1,
            progress=impatient,
        )  # fmt: skip
    journal = tmp_path / "set" / "build.jsonl"
    assert len(journal.read_bytes().splitlines()) == 6
    with journal.open("ab") as file:
        file.write(b'{"source": "http://x/9.jpg", "sha')
    report = made(source, tmp_path / "set", web)
    assert (report.images, report.reasons) == (12, {"image: cannot be had or read": 1})
    before, web.broken = web.asked.copy(), False
    assert all(before[name] == 1 for name in names[:5])
    assert made(source, tmp_path / "set", web).images == 13
    assert web.asked - before == Counter({"http://x/bad/99.jpg": 1})


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg(1))
    source = write(tmp_path / "mine.csv", [["image", "caption"], ["1.jpg", "one"]])
    with pytest.raises(DataError, match="holds something else; expected a new folder"):
        made(source, tmp_path)
    made(source, tmp_path / "set")
    with pytest.raises(DataError, match=r"'side_px': 320.* begun with .*'side_px': 640"):
        made(source, tmp_path / "set", side_px=320)


def test_sources_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        plan(tmp_path / "absent.csv", BuildOptions())
    source = write(tmp_path / "mine.csv", [["image", "price"], ["1.jpg", "3"]])
    with pytest.raises(DataError, match=r"got columns image, price .* and one for the caption"):
        plan(source, BuildOptions())
    source = write(tmp_path / "mine.csv", [["image", "caption"], ["gone.jpg", "gone"]])
    with pytest.raises(DataError, match=r"got no image out of 1; gone\.jpg: no such file"):
        made(source, tmp_path / "set")


def table(folder: Path, rows: str, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_text(rows, "utf-8")
    for seed in range(6):
        (folder / f"{seed}.jpg").write_bytes(jpeg(seed))
    return path


def split_captions(folder: Path) -> dict[str, list[str]]:
    splits = read(folder).splits
    return {name: [e.captions[0] for e in some] for name, some in splits.items() if some}


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("mine.csv", "image,caption_1,caption_2\n0.jpg,One,Two\n1.jpg,Three,\n"),
        ("mine.token", "0.jpg#0\tOne\n0.jpg#1\tTwo\n1.jpg#0\tThree\n"),
        ("mine.csv", '0.jpg,"One"\n0.jpg,Two\n1.jpg,Three\n'),
        ("mine.csv", "image_id,caption\n0,One\n0,Two\n1,Three\n"),
        ("mine.csv", "sep=;\nimage;caption\n0.JPG;One\n0.JPG;Two\nC:\\x\\1.jpg;Three\n"),
        ("mine.json", '{"0.jpg": ["One", "Two"], "1.jpg": "Three"}'),
        ("mine.tsv", "image\tcaptions\n0.jpg\t['One', 'Two']\n1.jpg\tThree\n"),
        ("mine.txt", "0.jpg\t['One', 'Two']\n1.jpg\tThree\n"),
        ("mine.csv", "One,0.jpg\nTwo,0.jpg\nThree,1.jpg\n"),
        ("mine.csv", "image,caption\n0.jpg#0,One\n0.jpg#1,Two\n1.jpg#0,Three\n"),
    ],
)
def test_every_form_that_is_checked_is_built_from(tmp_path: Path, name: str, rows: str) -> None:
    made(table(tmp_path, rows, name), tmp_path / "set")
    assert set(said(tmp_path / "set")) == {("One", "Two"), ("Three",)}


def test_given_splits_are_kept_and_duplicates_leave_training(tmp_path: Path) -> None:
    rows = "image,split,caption\n0.jpg,train,A\n1.jpg,val,B\n2.jpg,test,C\n3.jpg,train,D\n"
    source = table(tmp_path, rows)
    (tmp_path / "3.jpg").write_bytes(jpeg(2))  # the test image, in train
    report = made(source, tmp_path / "set")
    assert report.given_splits
    assert split_captions(tmp_path / "set") == {"train": ["A"], "dev": ["B"], "test": ["C"]}
    assert report.reasons == {"image: identical to another": 1}


def test_text_between_angle_brackets_is_kept(tmp_path: Path) -> None:
    made(table(tmp_path, 'image,caption\n0.jpg,"I <3 it, 5 > 3 & <all>"\n'), tmp_path / "set")
    assert set(said(tmp_path / "set")) == {("I <3 it, 5 > 3 & <all>",)}
    rows = "image,rating,title\n0.jpg,5,I <3 this <b>red</b> scarf 5 > 3\n"
    made(table(tmp_path, rows, "reviews.csv"), tmp_path / "reviews")
    assert set(said(tmp_path / "reviews")) == {("I <3 this red scarf 5 > 3",)}


def test_images_and_columns_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    table(tmp_path / "elsewhere", "")
    (tmp_path / "mine.csv").write_text("wo,was\n0.jpg,One\n")
    options = BuildOptions()
    planned = plan(
        tmp_path / "mine.csv",
        options,
        images=tmp_path / "elsewhere",
        columns=ColumnNames("wo", "was"),
    )
    build(planned, tmp_path / "set", options)
    assert set(said(tmp_path / "set")) == {("One",)}


def test_a_set_of_another_source_is_replaced_only_by_force(tmp_path: Path) -> None:
    made(table(tmp_path, "image,caption\n0.jpg,One\n1.jpg,Two\n", "a.csv"), tmp_path / "set")
    (tmp_path / "set" / "images" / "notes").mkdir()
    (tmp_path / "set" / "images" / "mine.jpg").write_bytes(jpeg(9))
    other = table(tmp_path, "image,caption\n2.jpg,Three\n", "b.csv")
    with pytest.raises(DataError, match=r"was built from .*a\.csv; expected the same source"):
        made(other, tmp_path / "set")
    assert set(said(tmp_path / "set")) == {("One",), ("Two",)}
    options = BuildOptions()
    build(plan(other, options), tmp_path / "set", options, force=True)
    assert set(said(tmp_path / "set")) == {("Three",)}
    assert len(list((tmp_path / "set" / "images").iterdir())) == 3  # with the two of our own


def test_corrections_by_hand_survive_the_same_command(tmp_path: Path) -> None:
    source = table(tmp_path, "image,split,caption\n" + "".join(
        f"{i}.jpg,{split},Text {i}\n" for i, split in enumerate(["train", "train", "val", "test"])
    ))  # fmt: skip
    made(source, tmp_path / "set")
    path = tmp_path / "set" / "captions.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["caption"] = "Corrected"
    content["images"][1]["split"] = "dev"
    content["images"].pop(3)
    content["annotations"].pop(3)
    content["annotations"][2]["written_by"] = "Ann"
    (path.parent / "images" / "own.jpg").write_bytes(jpeg(9))
    content["images"].append({"id": 9, "file_name": "own.jpg", "split": "train"})
    content["annotations"].append({"id": 9, "image_id": 9, "caption": "Added"})
    path.write_text(json.dumps(content))
    source.write_text(source.read_text().replace("Text 1", "New text"))
    for _ in range(2):
        report = made(source, tmp_path / "set")
        assert report.edited == 4
        assert split_captions(tmp_path / "set") == {
            "train": ["Corrected", "Added"], "dev": ["New text", "Text 2"]
        }  # fmt: skip
        assert '"written_by": "Ann"' in path.read_text()
        assert report.reasons == {"image: deleted from captions.json by hand": 1}


@pytest.mark.parametrize("damage", [b"", b"\xff\xd8\xff"])
def test_damaged_pictures_and_journals_are_made_again(tmp_path: Path, damage: bytes) -> None:
    source = table(tmp_path, "image,caption\n0.jpg,One\n1.jpg,Two\n2.jpg,Three\n")
    made(source, tmp_path / "set")
    first, *_ = sorted((tmp_path / "set" / "images").iterdir())
    sound = first.read_bytes()
    first.write_bytes(damage)
    journal = tmp_path / "set" / "build.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(
        b"".join([*lines[:2], b'{"source": "x"}\n', b"\xff{\n", b"[]\n", *lines[2:]])
    )
    report = made(source, tmp_path / "set")
    assert (report.images, report.repaired) == (3, 4)
    assert first.read_bytes() == sound


def test_sources_and_images_that_are_no_regular_text_or_file(tmp_path: Path) -> None:
    source = tmp_path / "mine.csv"
    source.write_bytes(b"PAR1\0\1\2" * 9)
    with pytest.raises(DataError, match=r"which is no .*text"):
        made(source, tmp_path / "set")
    os.mkfifo(tmp_path / "pipe.jpg")
    table(tmp_path, "image,caption\n0.jpg,One\npipe.jpg,Two\n")
    assert made(source, tmp_path / "set").failed
    assert said(tmp_path / "set").keys() == {("One",)}


def test_a_journal_of_version_0_1_still_opens(tmp_path: Path) -> None:
    source = table(tmp_path, "image,caption\n0.jpg,One\n1.jpg,Two\n")
    made(source, tmp_path / "set")
    journal = tmp_path / "set" / "build.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    old = [{k: v for k, v in row.items() if k not in ("from", "jpeg")} for row in rows]
    journal.write_text("".join(json.dumps(row) + "\n" for row in old))
    (tmp_path / "set" / "built.json").unlink()
    for seed in range(2):
        (tmp_path / f"{seed}.jpg").unlink()
    report = made(source, tmp_path / "set")
    assert (report.images, report.repaired) == (2, 0)
    other = table(tmp_path, "image,caption\n5.jpg,Five\n", "other.csv")
    journal.write_text("".join(json.dumps(row) + "\n" for row in old))
    with pytest.raises(DataError, match=r"an earlier version built from another source"):
        made(other, tmp_path / "set")
