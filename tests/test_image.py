from __future__ import annotations

import inspect
import io
import os
import random
import re
import socket
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import HostileFolder, png_header, scene
from PIL import Image, ImageFile

from cutline import image as image_module
from cutline.discover import find_images
from cutline.errors import (
    ImageCorruptError,
    ImageError,
    ImageFormatError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUnreadableError,
    OptionError,
)
from cutline.image import Limits, decode_image, describe, load_image
from cutline.preprocess import Transform

SAVED = {
    "jpeg": ("JPEG", {"quality": 95}),
    "progressive": ("JPEG", {"quality": 95, "progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 95}),
    "webp-lossless": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff-jpeg": ("TIFF", {"compression": "jpeg"}),
    "avif": ("AVIF", {"quality": 95}),
}


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def heic(image: Image.Image) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=95)
    return file.getvalue()


def difference(got: Image.Image, expected: Image.Image) -> float:
    assert got.mode == "RGB"
    assert got.size == expected.size
    one, other = (np.asarray(i.convert("RGB"), dtype=np.float32) for i in (got, expected))
    return float(np.abs(one - other).mean())


@pytest.mark.parametrize("name", SAVED)
def test_every_format_gives_the_same_picture(name: str, tmp_path: Path) -> None:
    format, options = SAVED[name]
    data = encode(scene(), format, **options)
    path = tmp_path / "picture.of-no-known-ending"
    path.write_bytes(data)
    for source in (data, path, str(path)):
        assert difference(load_image(source), scene()) < 6


def test_heic_with_the_extra() -> None:
    assert difference(load_image(heic(scene())), scene()) < 6


@pytest.mark.parametrize("extra", [True, False])
def test_what_is_no_picture_gets_advice_that_fits(
    extra: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not extra:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
    advice = {
        b"a shopping list": "name an image instead",
        b"<svg></svg>": "convert it to one of them",
        b"<!doctype html>": "save the image itself, not its page",
        b"\0\1\2": "convert it, if it is one",
        b"P6 2 2 255\n": "convert it first",
        b"%PDF-1.7": "convert its page to one of them",
    }
    for content, to_do in advice.items():
        with pytest.raises(ImageFormatError) as error:
            load_image(content)
        formats = "TIFF, AVIF or HEIC" if extra else "BMP, TIFF or AVIF"
        assert str(error.value).endswith(f"{formats}; {to_do}")


def test_heic_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(64)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageFormatError, match=r"cutline\[heic\]"):
        load_image(data)


def test_result_outlives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [scene().rotate(90)]
    path.write_bytes(encode(scene(), "GIF", save_all=True, append_images=frames))
    loaded = load_image(path)
    path.unlink()
    assert difference(loaded.copy(), scene()) < 6


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_many(format: str) -> None:
    rest = [scene().rotate(180), scene().rotate(180)]
    data = encode(scene(), format, save_all=True, append_images=rest)
    assert difference(load_image(data), scene()) < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_undone(orientation: int, format: str) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that makes the stored form
    upright = scene()
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert difference(load_image(encode(stored, format, exif=exif)), upright) < 8


def test_orientation_of_a_pillow_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lazy = Image.open(io.BytesIO(encode(scene().rotate(90, expand=True), "JPEG", exif=exif)))
    assert difference(load_image(lazy), scene()) < 8


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
def test_damaged_exif_costs_the_turn_only() -> None:
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x05\x01\x12\0\x03"
    assert difference(load_image(encode(scene(), "JPEG", exif=exif)), scene()) < 8


def test_cmyk_plain_and_inverted_by_adobe() -> None:
    data = encode(scene().convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert difference(load_image(data), scene()) < 12


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    levels = np.linspace(0, 65535, 96 * 64).astype(np.uint16).reshape(64, 96)
    expected = Image.fromarray((levels >> 8).astype(np.uint8))
    png = encode(Image.fromarray(levels), "PNG")
    tiff = encode(Image.fromarray(levels), "TIFF")
    wide = Image.fromarray(levels.astype(np.int32))
    big_endian = Image.frombytes("I;16B", (96, 64), levels.byteswap().tobytes())
    for source in (png, tiff, Image.fromarray(levels), big_endian, wide, levels):
        assert difference(load_image(source), expected) < 1


def test_values_without_a_declared_range_are_stretched() -> None:
    ramp = np.linspace(-3, 9, 96 * 64, dtype=np.float32).reshape(64, 96)
    expected = Image.fromarray(np.rint((ramp + 3) * (255 / 12)).astype(np.uint8))
    assert difference(load_image(encode(Image.fromarray(ramp), "TIFF")), expected) < 1
    unit = Image.fromarray((ramp + 3) / 24)
    assert np.asarray(load_image(unit)).max() == 128
    flat = load_image(Image.new("F", (4, 4), 7.0))
    assert len(flat.getcolors() or []) == 1
    with pytest.raises(ImageCorruptError, match="not finite"):
        load_image(Image.new("F", (4, 4), float("nan")))


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_transparency_lies_over_white(mode: str) -> None:
    image = Image.new(mode, (4, 2), 0)
    image.putalpha(Image.frombytes("L", (4, 2), bytes([0, 0, 255, 255] * 2)))
    assert image.mode == {"RGB": "RGBA", "L": "LA", "P": "PA"}[mode]
    loaded = load_image(image)
    assert loaded.getpixel((0, 0)) == (255, 255, 255)
    assert loaded.getpixel((3, 0)) == (0, 0, 0)


def test_half_transparency_is_blended() -> None:
    data = encode(Image.new("RGBA", (3, 3), (255, 0, 0, 128)), "PNG")
    assert load_image(data).getpixel((1, 1)) == pytest.approx((255, 127, 127), abs=1)


@pytest.mark.parametrize(
    ("format", "transparency"), [("PNG", 0), ("PNG", bytes([0, 255])), ("GIF", 0)]
)
def test_transparent_palette(format: str, transparency: int | bytes) -> None:
    image = Image.new("P", (4, 2), 1)
    image.putpalette([9, 9, 9, 0, 200, 0])
    image.putpixel((0, 0), 0)
    loaded = load_image(encode(image, format, transparency=transparency))
    assert loaded.getpixel((0, 0)) == (255, 255, 255)
    assert loaded.getpixel((3, 1)) == (0, 200, 0)


def test_transparent_colour_of_a_png() -> None:
    data = encode(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert load_image(data).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV", "CMYK", "RGBX"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = scene().convert(mode)
    assert difference(load_image(image), image) == 0


def test_upright_rgb_is_not_copied() -> None:
    image = scene()
    assert load_image(image) is image


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_, np.float16, np.float64])
def test_arrays(shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    assert load_image(np.ones(shape, dtype)[::-1]).size == (7, 5)
    full = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    assert load_image(np.full(shape, full, dtype)).getpixel((6, 4)) == (255, 255, 255)


def test_array_values_arrive_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    assert (np.asarray(load_image(pixels)) == pixels).all()
    assert (np.asarray(load_image(pixels.transpose(1, 0, 2))) == pixels.transpose(1, 0, 2)).all()
    assert (np.asarray(load_image(pixels / 255)) == pixels).all()


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((0, 4, 3), np.uint8), "empty array"),
        (np.zeros((4, 0), np.uint8), "empty array"),
        (np.zeros(7, np.uint8), "shape"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((3, 8, 8), np.uint8), "transpose"),
        (np.zeros((2, 8, 8, 3), np.uint8), "shape"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.zeros((8, 8, 3), np.complex64), "complex64"),
        (np.zeros((8, 8), object), "object"),
        (np.full((8, 8), 255.0), "0 to 1"),
        (np.full((8, 8), -0.1), "0 to 1"),
        (np.full((8, 8), np.nan), "0 to 1"),
    ],
)
def test_arrays_refused(array: np.ndarray, says: str) -> None:
    with pytest.raises(ImageFormatError, match=says):
        load_image(array)


@pytest.mark.parametrize("source", [None, 3, ["a.jpg"], bytearray(b"x"), Image.new("RGB", (0, 4))])
def test_things_that_are_no_source(source: object) -> None:
    with pytest.raises(ImageFormatError, match="expected"):
        load_image(source)  # type: ignore[arg-type]


def test_describe() -> None:
    assert describe(Path("a") / "b.jpg") == str(Path("a") / "b.jpg")
    assert describe("b.jpg") == "b.jpg"
    assert describe(bytes(12)) == "<bytes: 12 B>"
    assert describe(np.zeros((480, 640, 3))) == "<array 480x640x3>"
    assert describe(Image.new("L", (640, 480))) == "<image 640x480>"
    assert describe(None) == "<NoneType>"


# What is refused


def test_hostile_folder(hostile_folder: HostileFolder) -> None:
    listed = [path.name for path in find_images([hostile_folder.path], recursive=False)]
    assert listed == sorted([*hostile_folder.readable, *hostile_folder.refused])
    for name in hostile_folder.readable:
        assert load_image(hostile_folder.path / name).mode == "RGB"
    for name, expected in hostile_folder.refused.items():
        path = hostile_folder.path / name
        with pytest.raises(ImageError) as caught:
            load_image(path)
        assert type(caught.value) is expected
        assert caught.value.source == str(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_a_file_the_system_refuses(tmp_path: Path) -> None:
    path = tmp_path / "locked.jpg"
    path.write_bytes(encode(scene(), "JPEG"))
    path.chmod(0)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(ImageUnreadableError, match="refuses") as caught:
            load_image(path)
    finally:
        if was == 0:
            os.seteuid(was)
    assert isinstance(caught.value, PermissionError)


def test_paths_that_lead_to_no_file(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file.jpg").touch()
    cases = {
        "": "empty",
        str(tmp_path / "none.jpg"): "no such file",
        str(tmp_path / "broken.jpg"): "broken link",
        str(tmp_path / "loop.jpg"): "circle",
        str(tmp_path / "file.jpg" / "below.jpg"): "no such file",
        str(tmp_path / ("long" * 100 + ".jpg")): "too long",
        "nul\0inside.jpg": "name",
    }
    for path, says in cases.items():
        with pytest.raises(ImageNotFoundError, match=says) as caught:
            load_image(path)
        assert isinstance(caught.value, FileNotFoundError)


def test_things_that_are_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageFormatError, match="is a folder"):
        load_image(tmp_path / "folder.jpg")
    with pytest.raises(ImageFormatError, match="pipe"):
        load_image(tmp_path / "pipe.jpg")
    with pytest.raises(ImageFormatError, match="device"):
        load_image("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        path = os.path.relpath(tmp_path / "s.jpg")
        server.bind(path)
        with pytest.raises(ImageFormatError, match="socket"):
            load_image(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\n<!DOCTYPE html><title>404</title>", "web page"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        ("plain words, größer".encode(), "text"),
        ("\ufeffplain words".encode("utf-16"), "text"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "a video"),
        (b"\x7fELF\0\0", "no known image format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"P6\n2 2\n255\n" + bytes(12), "a PPM image"),
        (b"P2 # made by hand\n2 2\n255\n1 2 3 4\n", "a PGM image"),
        (b"SIMPLE  =                    T / conforms", "a FITS image"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "a Radiance HDR image"),
        (b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {1};", "an XBM image"),
        (b"/* XPM */\nstatic char *a[] = {", "an XPM image"),
        (b"\0\0\0\x18ftypavci\0\0\0\0miafavci", "a HEIF image"),
        (b"farbfeld\0\0\0\1\0\0\0\1", "a farbfeld image"),
        (b"SDPX\0\0", "a DPX image"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\0\0\1\0\1\0\x10\x10", "an ICO icon"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"\xff\x4f\xff\x51\0\x2f", "a JPEG 2000 image"),
        (b"\xff\xd8\xff\xf7\0\x0b", "a JPEG-LS image"),
        (b"PK\3\4\x14\0", "a ZIP archive"),
        (b"\x1a\x45\xdf\xa3\1\0", "a video"),
        (b"FUJIFILMCCD-RAW 0201", "camera RAW"),
        (b"IIU\0\x18\0\0\0", "camera RAW"),
        (b"IIRO\x08\0\0\0", "camera RAW"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "camera RAW"),
        (b"II*\0\x10\0\0\0CR\2\0", "camera RAW"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, says: str) -> None:
    with pytest.raises(ImageFormatError, match=says):
        load_image(data)


def test_empty_bytes() -> None:
    with pytest.raises(ImageCorruptError, match="empty"):
        load_image(b"")


@pytest.mark.parametrize("name", sorted(SAVED.keys() - {"progressive"}))
def test_half_a_picture_is_refused(name: str) -> None:
    format, options = SAVED[name]
    data = encode(scene(), format, **options)
    with pytest.raises(ImageCorruptError):
        load_image(data[: len(data) // 2])


def test_out_of_memory_is_one_picture_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ImageFile.ImageFile) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(ImageTooLargeError, match="memory"):
        load_image(encode(scene(), "PNG"))


# Size


def test_limits_hold_for_every_kind_of_source(tmp_path: Path) -> None:
    few = Limits(max_pixels=96 * 64 - 1)
    files = [encode(scene(), format, **options) for format, options in SAVED.values()]
    for source in [data for data in files if not data.startswith(b"\xff\xd8")]:
        with pytest.raises(ImageTooLargeError, match="96 x 64"):
            load_image(source, limits=few)
    for source in (scene(), np.asarray(scene())):
        with pytest.raises(ImageTooLargeError):
            load_image(source, limits=few)
    with pytest.raises(ImageTooLargeError, match="bytes"):
        load_image(files[0], limits=Limits(max_bytes=100))


def test_a_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(ImageTooLargeError, match=r"30,000 x 30,000 pixels; expected at most"):
        load_image(png_header(30_000, 30_000))


def test_above_the_size_at_which_pillow_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    for name in ("jpeg", "png", "webp", "bmp", "avif"):
        format, options = SAVED[name]
        assert load_image(encode(scene(), format, **options)).size == (96, 64)
    for name in ("gif", "tiff", "tiff-lzw"):
        format, options = SAVED[name]
        with pytest.raises(ImageTooLargeError, match="4,000"):
            load_image(encode(scene(), format, **options))
    assert Image.MAX_IMAGE_PIXELS == 4000


def test_a_gif_frame_larger_than_its_screen() -> None:
    data = bytearray(encode(Image.new("P", (8, 8)), "GIF"))
    frame = data.index(b",", 13)
    data[frame + 5 : frame + 9] = struct.pack("<HH", 12_000, 12_000)
    with pytest.raises(ImageTooLargeError, match="12,000 x 12,000"):
        load_image(bytes(data))


@pytest.mark.parametrize(
    ("around_px", "side"), [(None, 400), (400, 400), (201, 400), (200, 200), (60, 100), (1, 50)]
)
def test_a_jpeg_is_reduced_but_never_below(around_px: int | None, side: int) -> None:
    data = encode(scene(600, 400), "JPEG")
    loaded = load_image(data, around_px=around_px)
    assert min(loaded.size) == side
    assert difference(loaded, scene(600, 400).resize(loaded.size)) < 3


def test_a_jpeg_counts_as_it_is_decoded() -> None:
    data = encode(scene(600, 400), "JPEG")
    assert load_image(data, around_px=100, limits=Limits(max_pixels=20_000)).size == (150, 100)
    assert load_image(data, limits=Limits(max_pixels=60_000)).size == (300, 200)
    assert load_image(data, limits=Limits(max_pixels=59_999)).size == (150, 100)
    assert load_image(data, limits=Limits(max_pixels=4_000)).size == (75, 50)
    for limits in (Limits(max_pixels=3_000), Limits(max_jpeg_pixels=239_999)):
        with pytest.raises(ImageTooLargeError):
            load_image(data, around_px=10, limits=limits)
    progressive = encode(scene(600, 400), "JPEG", progressive=True)
    with pytest.raises(ImageTooLargeError, match="progressive"):
        load_image(progressive, around_px=10, limits=Limits(max_pixels=239_999))


@pytest.mark.parametrize("around_px", [0, -1])
def test_around_px_out_of_range(around_px: int) -> None:
    with pytest.raises(OptionError, match="around_px"):
        load_image(scene(), around_px=around_px)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_of_a_hundred_megapixels(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    Image.new("L", (12_500, 8_000), 99).save(path)
    script = """
import sys
from pathlib import Path
from cutline.image import load_image
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
load_image(bytes(sys.stdin.buffer.read()))
before = peak()
size = load_image(sys.argv[1], around_px=260).size
print(*size, peak() - before)
"""
    done = run_python(script, str(path), stdin=encode(scene(), "JPEG"))
    width, height, grown_kb = map(int, done.stdout.split())
    assert (width, height) == (1563, 1000)
    assert grown_kb < 50_000


def run_python(script: str, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    # VmHWM and not getrusage: the latter starts from the peak of the process that forked.
    environment = {**os.environ, "PYTHONPATH": str(Path(image_module.__file__).parents[1])}
    command = [sys.executable, "-W", "always", "-c", script, *args]
    done = subprocess.run(command, input=stdin, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return subprocess.CompletedProcess(command, 0, done.stdout.decode(), "")


# Damage


def damaged_pictures() -> Iterator[tuple[str, bytes]]:
    """A few hundred small pictures, each cut short or with some bytes changed, the same always."""
    chance = random.Random(7)
    picture, exif = scene(24, 16), Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    whole = {name: encode(picture, format, **options) for name, (format, options) in SAVED.items()}
    whole["jpeg-exif"] = encode(picture, "JPEG", exif=exif, dpi=(0, 0))
    whole["png-palette"] = encode(picture.convert("P"), "PNG", transparency=3)
    whole["png-animated"] = encode(picture, "PNG", save_all=True, append_images=[picture.rotate(9)])
    whole["png-16"] = encode(Image.fromarray(np.full((16, 24), 999, np.uint16)), "PNG")
    whole["webp-animated"] = encode(
        picture, "WEBP", save_all=True, append_images=[picture.rotate(9)]
    )
    whole["tiff-palette"] = encode(picture.convert("P"), "TIFF", compression="packbits")
    for name, data in whole.items():
        for i in range(8):
            yield f"{name}-cut{i}", data[: chance.randrange(1, len(data))]
        for i in range(24):
            changed = bytearray(data)
            reach = len(data) if i % 2 else min(len(data), 200)
            for _ in range(chance.choice([1, 2, 8])):
                changed[chance.randrange(reach)] = chance.randrange(256)
            yield f"{name}-changed{i}", bytes(changed)


def test_damage_gives_a_picture_or_an_image_error() -> None:
    read, refused = [], []
    for _, data in damaged_pictures():
        try:
            read.append(load_image(data, around_px=8, limits=Limits(max_pixels=1_000_000)))
        except ImageError as error:
            refused.append(error)
    assert {image.mode for image in read} == {"RGB"}
    expected = {ImageCorruptError, ImageFormatError, ImageTooLargeError}
    assert {type(error) for error in refused} == expected
    assert all(error.source.startswith("<bytes: ") for error in refused)
    assert len(read) > 100
    assert len(refused) > 150


def test_damage_makes_no_noise(tmp_path: Path) -> None:
    for name, data in damaged_pictures():
        if not name.startswith("tiff-"):  # about compressed ones libtiff itself prints
            (tmp_path / f"{name}.jpg").write_bytes(data)
    tiff, samples = encode(scene(), "TIFF"), struct.pack("<HHI", 277, 3, 1)
    logged = tiff.replace(samples + b"\3", samples + b"\xc8")
    assert logged != tiff
    (tmp_path / "logged.tif").write_bytes(logged)
    script = """
import sys
from cutline.errors import ImageError
from cutline.discover import find_images
from cutline.image import Limits, load_image
seen = 0
for path in find_images([sys.argv[1]], recursive=False):
    seen += 1
    try:
        load_image(path, limits=Limits(max_pixels=1_000_000))
    except ImageError:
        pass
print(seen)
"""
    assert int(run_python(script, str(tmp_path)).stdout) > 350


def test_threads_decode_side_by_side() -> None:
    sources = [data for _, data in damaged_pictures()][::4]
    limits = Limits(max_pixels=1_000_000)

    def outcome(data: bytes) -> bytes | str:
        try:
            return load_image(data, limits=limits).tobytes()
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(outcome, sources)) == [outcome(data) for data in sources]


# Damaged metadata


def png_chunk(name: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(name + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png_with(*chunks: bytes, image: Image.Image | None = None) -> bytes:
    """A PNG with more chunks before its first IDAT chunk."""
    data = encode(image or scene(), "PNG")
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunks) + data[at:]


def jpeg_with(*segments: bytes, **options: object) -> bytes:
    data = encode(scene(), "JPEG", quality=95, **options)
    return data[:2] + b"".join(segments) + data[2:]


def webp_with_length(extra: int) -> bytes:
    data = encode(scene(), "WEBP", quality=95)
    return data[:4] + struct.pack("<I", len(data) - 8 + extra) + data[8:]


def png_with_pixel_checksum(checksum: bytes) -> bytes:
    rows = b"".join(b"\0" + scene().tobytes()[at : at + 288] for at in range(0, 288 * 64, 288))
    pixels = zlib.compress(rows)[:-4] + checksum
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 64, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def bmp_with_colours(count: int, image: Image.Image) -> bytes:
    data = encode(image, "BMP")
    return data[:46] + struct.pack("<I", count) + data[50:]


TEXT_BOMB = zlib.compress(b"x" * 2_000_000)
DAMAGED_METADATA = {
    "png zTXt bomb": png_with(png_chunk(b"zTXt", b"Comment\0\0" + TEXT_BOMB)),
    "png iTXt bomb": png_with(png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + TEXT_BOMB)),
    "png text with a wrong checksum": png_with(png_chunk(b"tEXt", b"Comment\0words", 7)),
    "png ICC bomb": png_with(png_chunk(b"iCCP", b"icc\0\0" + TEXT_BOMB)),
    "png ICC of an unknown method": png_with(png_chunk(b"iCCP", b"icc\0\1" + TEXT_BOMB)),
    "png short gAMA": png_with(png_chunk(b"gAMA", b"\0\1")),
    "png short cHRM": png_with(png_chunk(b"cHRM", b"\0\0\1")),
    "png short pHYs": png_with(png_chunk(b"pHYs", b"\0\0\1")),
    "png short tRNS": png_with(png_chunk(b"tRNS", b"\0")),
    "png empty tRNS": png_with(png_chunk(b"tRNS", b"")),
    "png short acTL": png_with(png_chunk(b"acTL", b"\0\0")),
    "png short sRGB": png_with(png_chunk(b"sRGB", b"")),
    "png unknown chunk with a wrong checksum": png_with(png_chunk(b"juNk", b"words", 7)),
    "png damaged eXIf": png_with(png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff\1\x12")),
    "png wrong checksum of the pixels": png_with_pixel_checksum(b"\1\2\3\4"),
    "png without IEND": encode(scene(), "PNG")[:-12],
    "jpeg short JFIF": jpeg_with(b"\xff\xe0\0\x07JFIF\0"),
    "jpeg short Adobe": jpeg_with(b"\xff\xee\0\x08Adobe\0"),
    "jpeg short ICC": jpeg_with(b"\xff\xe2\0\x0eICC_PROFILE\0"),
    "jpeg short Photoshop": jpeg_with(b"\xff\xed\0\x16Photoshop 3.0\0" + b"8BIM\4"),
    "jpeg short EXIF": jpeg_with(b"\xff\xe1\0\x0aExif\0\0MM"),
    "jpeg without its end": jpeg_with()[:-2],
    "jpeg without half of its end": jpeg_with()[:-1],
    "progressive jpeg without its end": jpeg_with(progressive=True)[:-2],
    "bmp with too many colours": bmp_with_colours(1 << 28, scene()),
    "bmp with a palette that is too large": bmp_with_colours(
        300, scene().quantize(256, method=Image.Quantize.FASTOCTREE)
    ),
    "webp length too long": webp_with_length(4096),
    "webp length much too long": webp_with_length(1 << 30),
}


@pytest.mark.parametrize("name", DAMAGED_METADATA)
def test_damaged_metadata_does_not_cost_the_image(name: str) -> None:
    decoded = decode_image(DAMAGED_METADATA[name])
    assert difference(decoded.image, scene()) < 6
    assert decoded.note == ""


@pytest.mark.parametrize(("share", "note"), [(0.999, "2%"), (0.9, "11%")])
def test_a_bmp_that_lacks_few_rows_is_read(share: float, note: str) -> None:
    content = encode(scene(), "BMP")
    decoded = decode_image(content[: int(len(content) * share)])
    assert decoded.note == f"the file is cut short; {note} of the image are missing"
    kept = (0, 8, 96, 64)  # rows are stored from the bottom up
    assert difference(decoded.image.crop(kept), scene().crop(kept)) < 1
    with pytest.raises(ImageCorruptError, match="cut short"):
        decode_image(content[: len(content) // 3])


def test_orientation_survives_damage_elsewhere() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = scene().transpose(Image.Transpose.ROTATE_90)
    jpeg = encode(stored, "JPEG", quality=95, exif=exif)
    short = b"\xff\xe0\0\x07JFIF\0"
    assert difference(load_image(jpeg[:2] + short + jpeg[2:]), scene()) < 8
    png = encode(stored, "PNG", exif=exif)
    at = png.index(b"IDAT") - 4
    assert difference(load_image(png[:at] + png_chunk(b"gAMA", b"") + png[at:]), scene()) < 1


def test_a_valid_transparency_survives_damage_elsewhere() -> None:
    transparent = png_chunk(b"tRNS", b"\0\1\0\2\0\3")
    bad = png_chunk(b"gAMA", b"")
    data = png_with(transparent, bad, image=Image.new("RGB", (2, 2), (1, 2, 3)))
    assert load_image(data).getpixel((0, 0)) == (255, 255, 255)


def test_half_a_progressive_jpeg_is_coarse_and_noted() -> None:
    data = encode(scene(600, 400), "JPEG", quality=95, progressive=True)
    for share in (0.4, 0.6, 0.9):
        decoded = decode_image(data[: int(len(data) * share)], around_px=100)
        assert difference(decoded.image, scene(600, 400).resize(decoded.image.size)) < 30
        assert "coarse" in decoded.note
    with pytest.raises(ImageCorruptError, match="cut short"):
        load_image(data[: len(data) // 20])


def test_a_jpeg_that_lacks_its_last_rows_is_noted() -> None:
    data = encode(scene(600, 400), "JPEG", quality=95)
    decoded = decode_image(data[: int(len(data) * 0.93)])
    assert re.search(r"the last \d+% of the image are missing", decoded.note)


def raw_tiff(order: str = "<", *, sub_directory: bool, tag: int, value: int) -> bytes:
    """A TIFF whose first directory is a small RGB preview, and one of another kind."""
    preview = encode(Image.new("RGB", (2, 2)), "TIFF")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    other = struct.pack(order + "HHHII", 1, tag, 3, 1, value << (16 if order == ">" else 0))
    at = 8 + 2 + 12 + 4
    entry = struct.pack(order + "HHII", 330 if sub_directory else 254, 4, 1, at)
    first = struct.pack(order + "H", 1) + entry
    return head + first + struct.pack(order + "I", 0 if sub_directory else at) + other + preview


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("sub_directory", [True, False])
@pytest.mark.parametrize(("tag", "value"), [(262, 32803), (262, 34892), (259, 34713), (50706, 1)])
def test_a_raw_file_is_not_captioned_by_its_preview(
    order: str, sub_directory: bool, tag: int, value: int
) -> None:
    data = raw_tiff(order, sub_directory=sub_directory, tag=tag, value=value)
    with pytest.raises(ImageFormatError, match=r"camera RAW file; expected an image: .*; export"):
        load_image(data)


def test_a_tiff_of_an_unknown_compression_is_not_called_damaged() -> None:
    data = encode(scene(), "TIFF")
    compression = struct.pack("<HHI", 259, 3, 1)
    at = data.index(compression) + len(compression)
    with pytest.raises(ImageFormatError, match="variant of TIFF"):
        load_image(data[:at] + struct.pack("<H", 34712) + data[at + 2 :])


def test_values_that_are_not_finite_are_left_out_of_the_range() -> None:
    ramp = np.linspace(0, 8, 96 * 64, dtype=np.float32).reshape(64, 96)
    ramp[0, :9] = np.nan
    ramp[1, 0], ramp[1, 1] = np.inf, -np.inf
    expected = np.rint(np.nan_to_num(np.clip(ramp, 0, 8)) * (255 / 8)).astype(np.uint8)
    assert difference(load_image(Image.fromarray(ramp)), Image.fromarray(expected)) < 1


def test_a_url_is_named_as_one() -> None:
    for url in ("https://example.org/a.jpg?x=[1]", "file:///a.jpg", "data:image/png;base64,xx"):
        [path] = find_images([url], recursive=False)
        for source in (url, path):
            with pytest.raises(ImageNotFoundError, match="is a URL; expected a file: download"):
                load_image(source)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("kind", ["F", "I;16", "LA", "RGBA", "float array"])
def test_memory_of_a_wide_pixel_is_bounded(kind: str, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from cutline.image import load_image
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
kind, side = sys.argv[1], 3000
load_image(np.zeros((9, 9, 3)))
small = Image.new("F" if "a" in kind else kind, (9, 9))
load_image(small)
source = np.ones((side, side, 3)) if "a" in kind else Image.new(kind, (side, side))
before = peak()
load_image(source)
print((peak() - before) * 1024 / side**2)
"""
    beside_the_source = float(run_python(script, kind).stdout)
    assert beside_the_source < (14 if kind == "float array" else 8)


# Finding


def test_files_passed_over_in_folders_are_counted(album: Path) -> None:
    (album / "img1.txt").touch()  # a sidecar
    (album / "b" / "c.DOC").touch()
    (album / "README").touch()
    passed_over: Counter[str] = Counter()
    found = [*find_images([album, album / "notes.txt"], True, passed_over=passed_over)]
    assert len(found) == 8
    assert passed_over == {".txt": 1, ".doc": 2, "": 1}


def names(found: Iterator[Path], below: Path) -> list[str]:
    return [str(path.relative_to(below)) for path in found]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    flat = ("img10.jpg", "img2.JPG", "img1.png", "notes.txt", ".hidden.jpg", "._img2.jpg")
    deep = ("b/x.webp", "b/y.doc", "b/deep/z.avif", ".git/c.png", "B10/a.heic", "B9/a.tiff")
    for name in flat + deep:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_folder_in_natural_order(album: Path) -> None:
    flat = ["img1.png", "img2.JPG", "img10.jpg"]
    assert names(find_images([album], False), album) == flat
    deep = ["b/x.webp", "b/deep/z.avif", "B9/a.tiff", "B10/a.heic"]
    assert names(find_images([album], True), album) == flat + deep


def test_files_come_as_given(album: Path) -> None:
    given = [album / "notes.txt", str(album / ".hidden.jpg"), album / "none.jpg", album / "b"]
    expected = ["notes.txt", ".hidden.jpg", "none.jpg", "b/x.webp"]
    assert names(find_images(given, False), album) == expected


def test_patterns(album: Path) -> None:
    def found(pattern: str, recursive: bool = False) -> list[str]:
        return names(find_images([f"{album}/{pattern}"], recursive), album)

    assert found("img*") == ["img1.png", "img2.JPG", "img10.jpg"]
    assert found("*.txt") == ["notes.txt"]
    assert found("B*") == ["B9/a.tiff", "B10/a.heic"]
    assert found("b*", recursive=True) == ["b/x.webp", "b/deep/z.avif"]
    assert found("**/*.avif") == ["b/deep/z.avif"]
    assert found("b/**") == ["b/deep/z.avif", "b/x.webp", "b/y.doc"]
    assert found("*.nothing") == ["*.nothing"]
    (album / "odd[1].jpg").touch()
    assert found("odd[1].jpg") == ["odd[1].jpg"]


def test_links_in_a_circle(album: Path) -> None:
    (album / "b" / "up").symlink_to(album)
    (album / "b" / "self.jpg").symlink_to(album / "b" / "self.jpg")
    found = names(find_images([album], True), album)
    assert found.count("img1.png") == 1
    assert "b/self.jpg" in found
    assert len(found) == len(set(found)) == 8


def test_a_deep_pattern_enters_each_folder_once(album: Path) -> None:
    for name in ("up", "again"):
        (album / "b" / name).symlink_to(album)
    pattern = f"{album}/**/*.avif"
    assert names(find_images([pattern], False), album) == ["b/deep/z.avif"]
    assert "b/deep/z.avif" in names(find_images([f"{album}/**/**/*.avif"], False), album)


def test_a_deep_pattern_may_stand_anywhere(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album)
    for pattern in ("**/*.avif", "*/**/z.*", "b/**/deep/*.avif", "./**/z.avif", "**/deep/**"):
        assert [*find_images([pattern], False)] == [Path("b/deep/z.avif")], pattern
    assert [*find_images(["b**/x.webp"], False)] == [Path("b/x.webp")]


def test_folders_may_be_deeper_than_python_recurses(tmp_path: Path) -> None:
    folder = tmp_path / "/".join("a" * 150)
    folder.mkdir(parents=True)
    (folder / "z.png").touch()
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        assert [*find_images([tmp_path], True)] == [folder / "z.png"]
        assert [*find_images([f"{tmp_path}/**/*.png"], False)] == [folder / "z.png"]
    finally:
        sys.setrecursionlimit(before)


def test_a_pattern_and_a_walk_choose_the_same_of_two_links(tmp_path: Path) -> None:
    shared, album = tmp_path / "shared", tmp_path / "album"
    shared.mkdir()
    album.mkdir()
    (shared / "z.png").touch()
    for link in ("link10", "link2"):
        (album / link).symlink_to(shared)
    expected = [album / "link2" / "z.png"]
    assert [*find_images([album], True)] == expected
    assert [*find_images([f"{album}/**/*.png"], False)] == expected


def test_listing_is_lazy(album: Path) -> None:
    def paths() -> Iterator[Path]:
        yield album / "img1.png"
        raise AssertionError("asked for more than was taken")

    assert next(find_images(paths(), False)) == album / "img1.png"


def test_paths_that_cannot_be() -> None:
    assert list(find_images(["nul\0inside"], True)) == [Path("nul\0inside")]
    assert list(find_images(["x" * 5000], True)) == [Path("x" * 5000)]
    with pytest.raises(OptionError, match="empty path"):
        list(find_images([""], False))


def test_a_pattern_that_no_file_can_have_is_given_as_it_is() -> None:
    assert list(find_images(["a\0/*"], False)) == [Path("a\0/*")]


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert list(find_images([tmp_path], True)) == [tmp_path]
    with pytest.raises(ImageUnreadableError, match="folder"):
        load_image(tmp_path)


# To pixels


def test_squash_keeps_what_already_fits() -> None:
    transform = Transform()
    image = scene(224, 224)
    assert transform.squash(image) is image
    assert transform.squash(scene(31, 500)).size == (224, 224)


def test_normalise_is_exact() -> None:
    for transform in (Transform(), Transform(side_px=32, via_px=16, mean=123.675, scale=58.4)):
        image = transform.squash(scene(50, 70))
        pixels = transform.normalise(image)
        side = transform.side_px
        resized = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), np.float32)
        expected = ((resized - transform.mean) / transform.scale).transpose(2, 0, 1)
        assert pixels.dtype == np.float32
        assert pixels.shape == (3, side, side)
        assert pixels.flags.c_contiguous
        assert (pixels == expected).all()
        assert (transform(scene(50, 70)) == pixels).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_a_png_that_lacks_few_rows_is_decoded_with_a_note(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 80, 3), np.uint8)
    whole = Image.fromarray(noise).convert(mode)
    file = io.BytesIO()
    whole.save(file, "PNG")
    content = file.getvalue()
    decoded = decode_image(content[: len(content) * 9 // 10])
    assert re.fullmatch(
        r"the file is cut short; the last \d+% of the image are missing", decoded.note
    )
    top = np.asarray(decoded.image)[:60]
    assert np.array_equal(top, np.asarray(decode_image(content).image)[:60])
    with pytest.raises(ImageCorruptError, match="cut short"):
        decode_image(content[: len(content) // 2])


def test_a_webp_that_lacks_its_end_is_said_to_be_cut_short() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 80, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "WEBP")
    with pytest.raises(ImageCorruptError, match="this WebP is cut short"):
        decode_image(file.getvalue()[:-500])
