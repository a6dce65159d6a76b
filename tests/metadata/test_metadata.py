from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from typer.testing import CliRunner

from cutline.cli import app
from cutline.errors import ImageNotFoundError, MetadataError, OptionError
from cutline.metadata import (
    MetadataJournal,
    MetadataOptions,
    container,
    exiv2_client,
    read_text,
    undo,
    write_text,
)
from cutline.metadata.exiv2_client import read_fields, write_fields
from cutline.metadata.read import ALT, DESCRIPTION, is_camera_default

pytest.importorskip("exiv2")
pytestmark = pytest.mark.metadata

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
C2PA = b"JP\0\1\0\0\0\1" + struct.pack(">I", 60) + b"jumb" + struct.pack(">I", 36) + b"jumd"
C2PA += b"c2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71\x03c2pa\0"


def noise(seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(values)


def saved(folder: Path, name: str, **options: Any) -> Path:
    path = folder / name
    noise().save(path, **options)
    return path


def with_segment(path: Path, marker: int, payload: bytes) -> None:
    data = path.read_bytes()
    head = struct.pack(">BBH", 0xFF, marker, len(payload) + 2)
    path.write_bytes(data[:2] + head + payload + data[2:])


def pages(path: Path) -> list[bytes]:
    with Image.open(path) as image:
        found = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(image.tobytes())
        return found


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_text_is_embedded_and_read_back_with_equal_pixels(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name)
    before = pages(path)
    written = write_text(path, "A  cat\non a mat", long_description="Long words")
    assert written.changed
    assert written.target == path
    found = read_text(path)
    assert (found.alt, found.long_description) == ("A cat on a mat", "Long words")
    assert found.alt_source == ALT
    assert pages(path) == before
    assert not write_text(path, "A cat on a mat").changed


def test_the_sidecar_of_a_bigtiff_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.tif", big_tiff=True)
    assert read_text(path).alt is None
    assert write_text(path, "A cat").target.name == "a.tif.xmp"
    assert read_text(path).alt == "A cat"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_undo_removes_the_only_field(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name)
    journal = MetadataJournal(tmp_path / "journal.jsonl")
    write_text(path, "A cat", journal=journal)
    assert undo(journal) == ([path], [])
    assert read_text(path).alt is None


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_every_frame_and_page_is_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    more = [noise(seed) for seed in (1, 2)]
    options = {"lossless": True} if "webp" in name else {}
    noise().save(path, save_all=True, append_images=more, **options)
    before = pages(path)
    assert len(before) == 3
    write_text(path, "Three pages")
    assert pages(path) == before


def test_a_language_is_added_and_the_others_are_kept(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg")
    write_text(path, "A cat")
    write_text(path, "Eine Katze", options=MetadataOptions(language="de"))
    assert read_text(path).alt == "A cat"
    assert read_text(path, "de").alt == "Eine Katze"
    assert read_text(path, "de-AT").alt == "Eine Katze"
    assert read_text(path, "fr").alt == "A cat"
    with pytest.raises(OptionError, match="expected a tag"):
        MetadataOptions(language="d e")


def test_existing_text_is_replaced_only_on_request(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg")
    write_text(path, "A person wrote this")
    data = path.read_bytes()
    with pytest.raises(MetadataError, match="has a text already: 'A person wrote this'"):
        write_text(path, "A cat")
    assert path.read_bytes() == data
    write_text(path, "A cat", options=MetadataOptions(overwrite=True))
    assert read_text(path).alt == "A cat"


def test_camera_defaults_are_no_description(tmp_path: Path) -> None:
    for text in (
        "OLYMPUS DIGITAL CAMERA",
        "SONY DSC",
        "DCIM\\100MEDIA\\DJI_0042.JPG",
        "Created with GIMP",
        "KONICA MINOLTA DIGITAL CAMERA",
        "Exif_JPEG_PICTURE",
        "IMG_1234.jpg",
        "sdr",
    ):
        assert is_camera_default(text), text
    for text in ("A camera on a table", "Picture of Anna at sea", "Smart dog", "Norway"):
        assert not is_camera_default(text), text
    exif = Image.Exif()
    exif[0x010E] = "OLYMPUS DIGITAL CAMERA"
    path = saved(tmp_path, "a.jpg", exif=exif)
    assert read_text(path).description is None
    exif[0x010E] = "Anna at the lake"
    path = saved(tmp_path, "b.jpg", exif=exif)
    assert read_text(path).description == "Anna at the lake"
    assert read_text(path).alt is None


def test_the_description_follows_in_exif_and_in_existing_iim(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg")
    write_fields(path, {"Iptc.Application2.City": "Bern"})
    write_text(path, "Ein Bär", options=MetadataOptions(description=True))
    fields = {key: value for key, _, value in read_fields(path)}
    assert fields[DESCRIPTION] == {"x-default": "Ein Bär"}
    assert fields["Exif.Image.ImageDescription"] == "Ein Bär"
    assert fields["Iptc.Application2.Caption"] == "Ein Bär"
    assert fields["Iptc.Application2.City"] == "Bern"


def test_other_metadata_and_trailing_bytes_are_kept(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    path = saved(tmp_path, "a.jpg", exif=exif, comment=b"hello", icc_profile=SRGB)
    with path.open("ab") as file:
        file.write(b"motion photo" * 50)
    before = [field for field in read_fields(path) if not field[0].endswith("Offset")]
    write_text(path, "A cat")
    after = [field for field in read_fields(path) if not field[0].endswith("Offset")]
    assert [each for each in after if each[0] != ALT] == before
    assert path.read_bytes().endswith(b"motion photo" * 50)


def test_extended_xmp_is_kept(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg")
    extension = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 9, 0)
    with_segment(path, 0xE1, extension + b"<rdf:RDF>")
    write_text(path, "A cat")
    assert extension + b"<rdf:RDF>" in path.read_bytes()
    assert read_text(path).alt == "A cat"


@pytest.mark.parametrize("where", ["jpeg", "png", "tiff", "heif", "webp"])
def test_signed_files_are_refused_and_unchanged(tmp_path: Path, where: str) -> None:
    if where == "jpeg":
        path = saved(tmp_path, "a.jpg")
        with_segment(path, 0xEB, C2PA)
    elif where == "png":
        path = saved(tmp_path, "a.png")
        data = path.read_bytes()
        path.write_bytes(data[:33] + b"\0\0\0\4caBXabcd\0\0\0\0" + data[33:])
    elif where == "tiff":
        path = saved(tmp_path, "a.tif", tiffinfo={0xCD41: b"c2pa"})
    elif where == "heif":
        path = saved(tmp_path, "a.avif")
        box = bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + b"manifest"
        data = path.read_bytes()
        path.write_bytes(data + struct.pack(">I", len(box) + 8) + b"uuid" + box)
    else:
        path = saved(tmp_path, "a.webp", lossless=True)
        data = path.read_bytes() + b"C2PA\4\0\0\0abcd"
        path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    data = path.read_bytes()
    with pytest.raises(MetadataError, match="Content Credentials"):
        write_text(path, "A cat")
    assert path.read_bytes() == data
    written = write_text(path, "A cat", options=MetadataOptions(sidecar="always"))
    assert written.target == path.with_name(path.name + ".xmp")
    assert path.read_bytes() == data
    assert read_text(path).alt == "A cat"


def test_an_app11_segment_without_credentials_is_no_signature(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg")
    with_segment(path, 0xEB, b"JP\0\1\0\0\0\1" + b"jumb of another kind")
    assert write_text(path, "A cat").target == path


def test_formats_without_embedded_text_get_a_sidecar(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.gif")
    written = write_text(path, "A cat")
    assert written.target.name == "a.gif.xmp"
    assert "a.gif.xmp" in written.note
    assert read_text(path).alt == "A cat"
    with pytest.raises(MetadataError, match="cannot hold"):
        write_text(saved(tmp_path, "b.gif"), "x", options=MetadataOptions(sidecar="never"))


def test_a_raw_file_is_not_changed(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.dng", "TIFF")
    noise().save(tmp_path / "b.NEF", "TIFF")
    write_fields(tmp_path / "b.xmp", {"Xmp.xmp.Rating": "5"}, create=True)
    for name, sidecar in (("a.dng", "a.dng.xmp"), ("b.NEF", "b.xmp")):
        data = (tmp_path / name).read_bytes()
        written = write_text(tmp_path / name, "A cat")
        assert written.target.name == sidecar
        assert written.note == f"a raw file stays as the camera wrote it; the text is in {sidecar}"
        assert (tmp_path / name).read_bytes() == data
        assert read_text(tmp_path / name).alt == "A cat"


def test_a_sidecar_keeps_its_other_fields(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg")
    sidecar = tmp_path / "a.jpg.xmp"
    write_fields(sidecar, {"Xmp.xmp.Rating": "5"}, create=True)
    write_text(path, "A cat", options=MetadataOptions(sidecar="always"))
    fields = {key: value for key, _, value in read_fields(sidecar)}
    assert fields["Xmp.xmp.Rating"] == "5"
    assert fields[ALT] == {"x-default": "A cat"}


def test_a_sidecar_of_a_raw_file_is_not_the_picture_s(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg")
    shared = tmp_path / "a.xmp"
    write_fields(shared, {ALT: {"x-default": "From the sidecar"}}, create=True)
    assert read_text(path).alt == "From the sidecar"
    (tmp_path / "a.NEF").write_bytes(b"raw")
    assert read_text(path).alt is None
    data = shared.read_bytes()
    write_text(path, "A cat", options=MetadataOptions(sidecar="always"))
    assert shared.read_bytes() == data
    assert (tmp_path / "a.jpg.xmp").exists()


def multi_picture(tmp_path: Path, *, index_first: bool) -> Path:
    """A JPEG with a second image after it, found by offset from its MPF segment (CIPA DC-007).

    Cameras put the index behind the Exif segment; elsewhere a write moves the second image.
    """
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    one = saved(tmp_path, "one.jpg", exif=exif).read_bytes()
    two = saved(tmp_path, "two.jpg").read_bytes()
    [start] = [part.start for part in container.parts(one) if part.tag == "DB"][:1]
    at = 2 if index_first else start - 4

    def segment(offset: int) -> bytes:
        index = struct.pack("<HHHI4s", 2, 0xB001, 4, 1, struct.pack("<I", 2))
        index += struct.pack("<HHII", 0xB002, 7, 32, 8 + 2 + 24 + 4) + struct.pack("<I", 0)
        entries = struct.pack("<IIIHH", 0x20030000, len(one), 0, 0, 0)
        entries += struct.pack("<IIIHH", 0, len(two), offset, 0, 0)
        body = b"MPF\0II*\0" + struct.pack("<I", 8) + index + entries
        return struct.pack(">BBH", 0xFF, 0xE2, len(body) + 2) + body

    offset = len(one) - at + len(segment(0)) - len(b"....MPF\0")
    path = tmp_path / "mpo.jpg"
    path.write_bytes(one[:at] + segment(offset) + one[at:] + two)
    return path


@pytest.mark.parametrize("index_first", [False, True])
def test_a_second_image_stays_where_it_is_or_the_file_is_refused(
    tmp_path: Path, index_first: bool
) -> None:
    path = multi_picture(tmp_path, index_first=index_first)
    data = path.read_bytes()
    [before] = container.mpf_images(data, container.parts(data))
    if index_first:
        with pytest.raises(MetadataError, match="MPF"):
            write_text(path, "A cat", options=MetadataOptions(sidecar="never"))
        assert path.read_bytes() == data
        assert write_text(path, "A cat").target.name == "mpo.jpg.xmp"
        assert path.read_bytes() == data
    else:
        write_text(path, "A cat", options=MetadataOptions(sidecar="never"))
        after = path.read_bytes()
        assert container.mpf_images(after, container.parts(after)) == [before]


def test_bad_files_are_refused_and_unchanged(tmp_path: Path) -> None:
    path = saved(tmp_path, "cut.jpg")
    data = path.read_bytes()[:300]
    path.write_bytes(data)
    with pytest.raises(MetadataError, match="damaged"):
        write_text(path, "x", options=MetadataOptions(sidecar="never"))
    assert path.read_bytes() == data
    with pytest.raises(ImageNotFoundError):
        write_text(tmp_path / "no.jpg", "x")
    with pytest.raises(MetadataError, match="not a regular file"):
        write_text(tmp_path, "x")
    with pytest.raises(MetadataError, match="empty text"):
        write_text(saved(tmp_path, "b.jpg"), " ")
    linked = saved(tmp_path, "c.jpg")
    os.link(linked, tmp_path / "d.jpg")
    with pytest.raises(MetadataError, match="hard links"):
        write_text(linked, "x")
    locked = saved(tmp_path, "e.jpg")
    locked.chmod(0o444)
    with pytest.raises(MetadataError, match="read-only"):
        write_text(locked, "x")


def test_a_symbolic_link_stays_one_and_times_are_kept(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    link = tmp_path / "link.jpg"
    link.symlink_to(path)
    write_text(link, "A cat", options=MetadataOptions(keep_times=True))
    assert link.is_symlink()
    assert path.stat().st_mtime == 1_000_000_000
    assert read_text(path).alt == "A cat"


def test_undo_restores_fields_and_removes_new_sidecars(tmp_path: Path) -> None:
    journal = MetadataJournal(tmp_path / "journal.jsonl")
    embedded, beside = saved(tmp_path, "a.jpg"), saved(tmp_path, "b.gif")
    changed = saved(tmp_path, "c.png")
    write_text(embedded, "By a person")
    overwrite = MetadataOptions(overwrite=True)
    write_text(embedded, "One", options=overwrite, journal=journal)
    write_text(embedded, "Two", options=overwrite, journal=journal)
    write_text(beside, "Three", journal=journal)
    write_text(changed, "Four", journal=journal)
    write_text(changed, "Five", options=overwrite)
    journal.path.write_bytes(journal.path.read_bytes() + b'{"target": "cut sh')
    restored, refused = undo(journal)
    assert read_text(embedded).alt == "By a person"
    assert not (tmp_path / "b.gif.xmp").exists()
    assert sorted(path.name for path in restored) == ["a.jpg", "b.gif.xmp"]
    assert [(path.name, reason) for path, reason in refused] == [
        ("c.png", "changed since it was written")
    ]


def test_time_of_a_write_is_recorded(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jpg")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    write_text(path, "A cat")
    assert path.stat().st_mtime > time.time() - 100


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_avif_is_written_by_exiftool(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.avif")
    before = pages(path)
    assert write_text(path, "Ein Bär & Co").target == path
    write_text(path, "A bear", options=MetadataOptions(language="en"))
    assert (read_text(path).alt, read_text(path, "en").alt) == ("Ein Bär & Co", "A bear")
    assert pages(path) == before


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_heic_whose_locations_precede_its_items_is_written(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), "red")).save(path)
    assert read_text(path).alt is None
    assert write_text(path, "Ein Bär & Co").target == path
    assert read_text(path).alt == "Ein Bär & Co"
    write_text(path, "A bear", options=MetadataOptions(language="en"))
    assert (read_text(path).alt, read_text(path, "en").alt) == ("Ein Bär & Co", "A bear")


def test_the_alt_text_of_heif_is_a_box_and_not_any_bytes(tmp_path: Path) -> None:
    words = b"Ein Schaf\0de\0"
    box = struct.pack(">I", 12 + len(words)) + b"altt" + bytes(4) + words
    head = b"\0\0\0\x10ftypmif1" + bytes(4)
    assert container.heif_alt_text(head + box) == "Ein Schaf"
    assert container.heif_alt_text(head + b"the word saltten" + box) == "Ein Schaf"
    assert container.heif_alt_text(head + b"the word saltten, and more words") is None
    assert container.heif_alt_text(head + box[:-6]) is None
    path = saved(tmp_path, "a.avif")
    path.write_bytes(path.read_bytes() + box)
    assert read_text(path).alt == "Ein Schaf"
    written = write_text(path, "A sheep")
    assert (written.target.name, "HEIF's own" in written.note) == ("a.avif.xmp", True)
    assert read_text(path).alt == "A sheep"


def test_avif_without_exiftool_gets_a_sidecar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    written = write_text(saved(tmp_path, "a.avif"), "A cat")
    assert written.target.name == "a.avif.xmp"
    assert "exiftool" in written.note


def test_a_crash_of_exiv2_refuses_one_file_only(tmp_path: Path) -> None:
    good, bad = saved(tmp_path, "a.jpg"), saved(tmp_path, "b.jpg")
    read_text(good)
    process = exiv2_client._worker._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    killer = threading.Timer(0.3, process.kill)
    killer.start()
    with pytest.raises(MetadataError, match="exiv2 crashed"):
        read_text(bad)
    assert read_text(good).alt is None


def test_captions_of_a_result_file_are_written_and_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, "a.jpg"), saved(tmp_path, "b.png")
    rows = [
        {"source": "a.jpg", "status": "ok", "caption": "A cat"},
        {"source": "b.png", "status": "error", "caption": None},
        {"source": "gone.png", "status": "ok", "caption": "A ghost"},
    ]
    Path("captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = CliRunner()
    done = run.invoke(app, ["metadata", "apply", "captions.jsonl"])
    assert done.exit_code == 1
    assert "Written: 1 files. Unchanged: 0. Refused: 1." in done.output
    assert "gone.png: no such file" in done.output
    shown = run.invoke(app, ["metadata", "show", "a.jpg", "--json"])
    assert json.loads(shown.output)["alt"] == "A cat"
    assert run.invoke(app, ["metadata", "undo"]).exit_code == 0
    assert read_text("a.jpg").alt is None
    Path("other.jsonl").write_text('{"image": "a.jpg"}\n')
    assert "expected a file" in run.invoke(app, ["metadata", "apply", "other.jsonl"]).output
