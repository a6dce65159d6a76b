from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cutline.errors import (
    ImageCorruptError,
    ImageError,
    ImageFormatError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUnreadableError,
)

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a process of its own compiles nothing again
sys.dont_write_bytecode = False


@pytest.fixture(autouse=True, scope="session")
def no_fsync() -> Iterator[None]:
    """Leave out `os.fsync`: files of tests need not survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Repeat a test marked `racy` once if it fails; the summary lists it."""
    for item in items:
        if item.get_closest_marker("racy"):
            item.add_marker(pytest.mark.flaky(reruns=1))


@dataclass(frozen=True)
class HostileFolder:
    path: Path
    readable: tuple[str, ...]
    refused: dict[str, type[ImageError]]


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """A smooth, lopsided picture: no two of its corners look alike."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    channels = (255 * x / width, 255 * y / height, 255 * (1 - x / width) * (1 - y / height))
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.fixture
def hostile_folder(tmp_path: Path) -> HostileFolder:
    """Ten files a folder should not hold, and two good pictures.

    Root can read any file, so for root `unreadable.jpg` is a named pipe instead of a locked file.
    """
    folder = tmp_path / "hostile"
    folder.mkdir()
    picture = scene()
    picture.save(folder / "good1.jpg")
    picture.rotate(180).save(folder / "good2.png")
    picture.resize((1, 1)).save(folder / "one.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.arange(64 * 96, dtype=np.uint16).reshape(64, 96) * 10).save(
        folder / "sixteen.png"
    )
    picture.save(folder / "animated.gif", save_all=True, append_images=[picture.rotate(90)])
    whole = (folder / "good1.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("Not a picture, though its name says so.\n")
    (folder / "bomb.png").write_bytes(png_header(30_000, 30_000))
    (folder / "broken.jpg").symlink_to(folder / "nowhere.jpg")
    locked = folder / "unreadable.jpg"
    if os.geteuid() == 0:
        os.mkfifo(locked)
    else:
        locked.write_bytes(whole)
        locked.chmod(0)
    return HostileFolder(
        path=folder,
        readable=("animated.gif", "cmyk.jpg", "good1.jpg", "good2.png", "one.png", "sixteen.png"),
        refused={
            "bomb.png": ImageTooLargeError,
            "broken.jpg": ImageNotFoundError,
            "empty.jpg": ImageCorruptError,
            "text.jpg": ImageFormatError,
            "truncated.jpg": ImageCorruptError,
            "unreadable.jpg": ImageFormatError if os.geteuid() == 0 else ImageUnreadableError,
        },
    )
