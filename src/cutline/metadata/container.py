"""The structure of image files: which parts hold pixels, which hold metadata.

A write of metadata must leave every other part unchanged, byte for byte. `parts` cuts a file into
its segments, chunks or boxes; `content` leaves out those that hold Exif, IPTC or XMP.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_C2PA_JUMBF_TYPE = b"c2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71"
_C2PA_BOX_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_C2PA_TIFF_TAG = 0xCD41
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP, _MPF, _ICC = b"Photoshop 3.0\0", b"MPF\0", b"ICC_PROFILE\0"
_HEIF_HEAD_BYTES, _LARGEST_ALTT_BYTES = 1 << 20, 1 << 16
_PNG = b"\x89PNG\r\n\x1a\n"


_XMP_END = b"</x:xmpmeta>"


@dataclass(frozen=True)
class Part:
    """One segment, chunk or box.

    Attributes:
        tag: its marker, chunk type or box type; "trailer" for bytes after the image ends.
        data: its payload.
        start: offset of the payload in the file, bytes.
    """

    tag: str
    data: bytes
    start: int


def kind(data: bytes) -> str | None:
    """Tell the container format: JPEG, PNG, WebP, TIFF, BigTIFF, HEIF (AVIF too), or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(_PNG):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if data[:4] in (b"II+\0", b"MM\0+"):
        return "BigTIFF"
    if data[4:8] == b"ftyp":
        return "HEIF"
    return None


def parts(data: bytes) -> list[Part]:
    """Cut a JPEG, PNG, WebP or HEIF file into its parts.

    Raises:
        ValueError: the file is damaged, or of another format.
    """
    readers = {"JPEG": _jpeg, "PNG": _png, "WebP": _webp, "HEIF": _boxes}
    reader = readers.get(kind(data) or "")
    if reader is None:
        raise ValueError("not a JPEG, PNG, WebP or HEIF file")
    try:
        return list(reader(data))
    except (struct.error, IndexError) as error:
        raise ValueError("the file ends within one of its parts") from error


def content(found: list[Part]) -> list[tuple[str, bytes]]:
    """The parts that hold no Exif, IPTC or XMP: a write of metadata must not change them.

    Comments and colour profiles of a JPEG come last, as a write may move them, and exiv2 ends a
    comment with a zero byte.
    """
    kept, movable = [], []
    for part in found:
        if part.tag == "FE":
            movable.append((part.tag, part.data.rstrip(b"\0")))
            continue
        if part.tag == "APP2" and part.data.startswith(_ICC):
            movable.append((part.tag, part.data))
            continue
        if part.tag == "APP1" and part.data.startswith((_EXIF, _XMP)):
            continue
        if part.tag == "APP13" and part.data.startswith(_PHOTOSHOP):
            continue
        if part.tag in ("EXIF", "XMP ", "eXIf", "VP8X"):
            continue
        if part.tag in ("iTXt", "zTXt", "tEXt") and part.data.startswith(
            (b"XML:com.adobe.xmp", b"Raw profile type")
        ):
            continue
        if part.tag == "APP2" and part.data.startswith(_MPF):
            kept.append((part.tag, b""))  # offsets in it may change; `mpf_images` compares them
            continue
        kept.append((part.tag, part.data))
    return kept + movable


def has_content_credentials(data: bytes, found: list[Part]) -> bool:
    """Whether the file carries a C2PA manifest, whose signature a write would invalidate.

    Source: C2PA specification 2.1, section A.3 (embedding manifests in files).
    """
    jumbf = b"".join(part.data for part in found if part.tag == "APP11")
    if _C2PA_JUMBF_TYPE in jumbf:
        return True
    if any(part.tag in ("caBX", "C2PA") for part in found):
        return True
    return any(part.tag == "uuid" and part.data[:16] == _C2PA_BOX_UUID for part in found)


def tiff_tags(data: bytes) -> set[int]:
    """The tags of a TIFF's first directory; empty if it is damaged."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        return {struct.unpack_from(order + "H", data, start + 2 + 12 * i)[0] for i in range(count)}
    except struct.error:
        return set()


def tiff_has_content_credentials(data: bytes) -> bool:
    """Whether a TIFF carries a C2PA manifest."""
    return _C2PA_TIFF_TAG in tiff_tags(data)


def mpf_images(data: bytes, found: list[Part]) -> list[bytes]:
    """The further images of a multi-picture JPEG (CIPA DC-007), each as the bytes it points to.

    Raises:
        ValueError: an offset leads outside the file.
    """
    images = []
    for part in found:
        if part.tag != "APP2" or not part.data.startswith(_MPF):
            continue
        header = part.start + len(_MPF)
        order = "<" if data[header : header + 2] == b"II" else ">"
        try:
            (start,) = struct.unpack_from(order + "I", data, header + 4)
            (count,) = struct.unpack_from(order + "H", data, header + start)
            for i in range(count):
                tag, _, length, value = struct.unpack_from(
                    order + "HHII", data, header + start + 2 + 12 * i
                )
                if tag != 0xB002:
                    continue
                for entry in range(length // 16):
                    _, size, offset = struct.unpack_from(
                        order + "III", data, header + value + 16 * entry
                    )
                    if offset == 0:  # the first image, which is the file itself
                        continue
                    image = data[header + offset : header + offset + size]
                    if len(image) != size or not image.startswith(b"\xff\xd8"):
                        raise ValueError("a multi-picture offset leads outside the file")
                    images.append(image)
        except struct.error as error:
            raise ValueError("the multi-picture index is damaged") from error
    return images


def heif_alt_text(data: bytes) -> str | None:
    """The text of HEIF's own `altt` property (ISO/IEC 23008-12, 6.5.20), if there is one."""
    at = data.find(b"altt", 0, _HEIF_HEAD_BYTES)
    while at >= 4:
        size = int.from_bytes(data[at - 4 : at], "big")
        is_box = 12 < size <= _LARGEST_ALTT_BYTES and not any(data[at + 4 : at + 8])
        content = data[at + 8 : at - 4 + size]
        if is_box and len(content) == size - 12:
            text = content.split(b"\0")[0].decode("utf-8", "replace").strip()
            return text or None
        at = data.find(b"altt", at + 1, _HEIF_HEAD_BYTES)
    return None


def heif_xmp(data: bytes) -> bytes | None:
    """The XMP packet of a HEIF file, found by its tags (XMP Specification, part 3, section 1.1)."""
    begin = data.find(b"<x:xmpmeta")
    end = data.find(_XMP_END, begin)
    return data[begin : end + len(_XMP_END)] if 0 <= begin < end else None


def _jpeg(data: bytes) -> Iterator[Part]:
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("bytes between two segments")
        while data[at + 1] == 0xFF:
            at += 1
        marker = data[at + 1]
        if marker == 0xD9:
            if data[at + 2 :]:
                yield Part("trailer", data[at + 2 :], at + 2)
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        payload = data[at + 4 : at + 2 + length]
        if len(payload) != length - 2:
            raise ValueError("the file ends within a segment")
        name = f"APP{marker - 0xE0}" if 0xE0 <= marker <= 0xEF else f"{marker:02X}"
        yield Part(name, payload, at + 4)
        at += 2 + length
        if marker == 0xDA:  # the coded scan follows, up to the next marker that is no restart
            end = at
            while True:
                end = data.find(b"\xff", end)
                if end < 0 or end + 1 >= len(data):
                    yield Part("scan", data[at:], at)
                    return
                if data[end + 1] == 0 or 0xD0 <= data[end + 1] <= 0xD7:
                    end += 2
                    continue
                break
            yield Part("scan", data[at:end], at)
            at = end


def _png(data: bytes) -> Iterator[Part]:
    at = len(_PNG)
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        tag = data[at + 4 : at + 8].decode("latin-1")
        if at + 12 + length > len(data):
            raise ValueError("the file ends within a chunk")
        yield Part(tag, data[at + 8 : at + 8 + length], at + 8)
        at += 12 + length
        if tag == "IEND":
            if data[at:]:
                yield Part("trailer", data[at:], at)
            return
    raise ValueError("the file has no end chunk")


def _webp(data: bytes) -> Iterator[Part]:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ValueError("the file is shorter than its header says")
    at = 12
    while at + 8 <= end:
        tag = data[at : at + 4].decode("latin-1")
        (length,) = struct.unpack_from("<I", data, at + 4)
        yield Part(tag, data[at + 8 : at + 8 + length], at + 8)
        at += 8 + length + length % 2
    if data[end:].strip(b"\0"):
        yield Part("trailer", data[end:], end)


def _boxes(data: bytes) -> Iterator[Part]:
    at = 0
    while at + 8 <= len(data):
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        tag = data[at + 4 : at + 8].decode("latin-1")
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif size == 0:
            size = len(data) - at
        if size < head or at + size > len(data):
            raise ValueError("the file ends within a box")
        yield Part(tag, data[at + head : at + size], at + head)
        at += size
