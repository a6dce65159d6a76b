"""Copies of damaged image files without their metadata, for a second attempt at decoding.

Decoders give up on metadata that browsers ignore: a text chunk with a wrong checksum, a short JFIF
segment, a length field that is too large. These functions keep what the pixels need.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TRNS_BYTES = {0: 2, 2: 6}  # by colour type; a palette has up to one byte an entry
_MAX_EXIF_BYTES = 1 << 16
_MAX_PIXEL_BYTES = 1 << 29
END_OF_IMAGE = b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


@dataclass(frozen=True)
class Repaired:
    """A file without its metadata.

    Attributes:
        content: the file.
        exif: its undamaged EXIF data, from the TIFF header on; may be empty.
        cut_short: whether the end marker is missing, or a chunk is longer than the file.
        missing: the share of the rows of a PNG or BMP that the file lacks and that are blank here.
        all_scans: whether each scan has at least begun; in a baseline JPEG there is one.
        coarse_scans: whether the first scans of a progressive JPEG, which show its whole area
            coarsely, are complete.
    """

    content: bytes
    exif: bytes = b""
    cut_short: bool = False
    missing: float = 0.0
    all_scans: bool = True
    coarse_scans: bool = False


def repair(kind: str, content: bytes) -> Repaired | None:
    """Drop or correct the metadata of an image file; None if there is nothing to repair.

    Args:
        kind: the format's name as `media_type` gives it.
        content: the whole file.
    """
    repairs = {
        "JPEG": _repair_jpeg, "PNG": _repair_png, "WebP": _repair_webp, "BMP": _repair_bmp
    }  # fmt: skip
    try:
        return repairs[kind](content)
    except (LookupError, struct.error):
        return None


def _repair_jpeg(content: bytes) -> Repaired:
    """Keep frame, tables, scans and a complete Adobe segment; end the file where it has no end."""
    kept, exif, at = [content[:2]], b"", 2
    while True:
        while content[at] != 0xFF or content[at + 1] in (0x00, 0xFF):
            at += 1
        marker = content[at + 1]
        if marker == 0xDA or marker == 0xD9:
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", content, at + 2)
        segment = content[at : at + 2 + length]
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            exif = exif or segment[10:]
        adobe = marker == 0xEE and segment[4:9] == b"Adobe" and length >= 14
        if adobe or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(segment)
        at += 2 + max(length, 2)
    scans, end, cut_short = _scans(content, at)
    body = content[at:end].rstrip(b"\xff")
    repaired = b"".join((*kept, body, END_OF_IMAGE))
    if not cut_short:
        return Repaired(repaired, exif)
    components = _components(b"".join(kept))
    coarse = {name for scan in scans[:-1] if scan.first == 0 for name in scan.components}
    final = {
        (name, coefficient)
        for scan in scans
        if scan.low_bit == 0
        for name in scan.components
        for coefficient in range(scan.first, scan.last + 1)
    }
    return Repaired(
        repaired,
        exif,
        cut_short=True,
        all_scans=end == len(content) and len(final) == 64 * len(components),
        coarse_scans=coarse == components,
    )


@dataclass(frozen=True)
class _Scan:
    """A JPEG scan's header: components, spectral selection and point transform (T.81, B.2.3)."""

    components: frozenset[int]
    first: int
    last: int
    low_bit: int


def _scans(content: bytes, at: int) -> tuple[list[_Scan], int, bool]:
    """Walk through a JPEG's scans.

    Args:
        content: the whole file.
        at: where the first scan's marker is.

    Returns:
        The scans; where the last whole segment or the last scan's data ends; whether the end
        marker is missing there.
    """
    scans: list[_Scan] = []
    while at + 4 <= len(content):
        if content[at + 1] == END_OF_IMAGE[1]:
            return scans, at, False
        (length,) = struct.unpack_from(">H", content, at + 2)
        after = at + 2 + length
        if after > len(content):
            return scans, at, True
        if content[at + 1] == 0xDA:
            names = at + 5
            selection = names + 2 * content[at + 4]
            first, last, bits = content[selection : selection + 3]
            scans.append(_Scan(frozenset(content[names:selection:2]), first, last, bits & 15))
        marker = _MARKER.search(content, after)
        if marker is None:
            return scans, len(content), True
        at = marker.start()
    return scans, at, content[at : at + 2] != END_OF_IMAGE


def _components(header: bytes) -> frozenset[int]:
    """The component ids of a JPEG's frame header (T.81, B.2.2)."""
    frame = re.search(rb"\xff[\xc0-\xc3\xc9-\xcb]", header)
    if frame is None:
        raise LookupError("no frame header")
    names = frame.start() + 10
    return frozenset(header[names : names + 3 * header[names - 1] : 3])


def _repair_png(content: bytes) -> Repaired:
    """Keep header, palette, pixels and a possible transparency; with checksums that fit."""
    kept, exif, at = [_PNG_SIGNATURE], b"", len(_PNG_SIGNATURE)
    header, pixels = b"", []
    colour_type, palette_entries, ended = 0, 0, False
    while at + 8 <= len(content) and not ended:
        length, name = struct.unpack_from(">I4s", content, at)
        data = content[at + 8 : at + 8 + length]
        checksum = content[at + 8 + length : at + 12 + length]
        intact = checksum == struct.pack(">I", zlib.crc32(name + data))
        if name == b"IHDR":
            header, colour_type = data, data[9]
        elif name == b"IDAT":
            pixels.append(data)
        elif name == b"PLTE":
            palette_entries = len(data) // 3
        elif name == b"eXIf" and intact and len(data) < _MAX_EXIF_BYTES:
            exif = data
        elif name == b"tRNS":
            most = palette_entries if colour_type == 3 else _TRNS_BYTES.get(colour_type, 0)
            if not intact or not 0 < len(data) <= most or (colour_type != 3 and len(data) < most):
                name = b"skip"
        if name in (b"IHDR", b"PLTE", b"tRNS"):
            kept.append(_png_chunk(name, data))
        ended = name == b"IEND"
        at += 12 + length
    stream, missing = b"".join(pixels), 0.0
    if not ended and (filled := _filled_png_rows(header, stream)):
        stream, missing = filled
    elif ended:
        stream = _with_checksum(stream)
    kept += [_png_chunk(b"IDAT", stream), _png_chunk(b"IEND", b"")]
    return Repaired(b"".join(kept), exif, cut_short=not ended, missing=missing)


def _filled_png_rows(header: bytes, stream: bytes) -> tuple[bytes, float] | None:
    """The pixels of a PNG without its end, with blank rows for those that are missing.

    Returns:
        The compressed pixels and the share of missing rows; None if no row is missing, or if the
        image is interlaced or damaged.
    """
    width, height, depth, colour_type = struct.unpack_from(">IIBB", header)
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour_type, 0)
    row_bytes = 1 + (width * samples * depth + 7) // 8
    if header[12] or not samples or not 0 < row_bytes * height <= _MAX_PIXEL_BYTES:
        return None
    inflate = zlib.decompressobj()
    try:
        rows = inflate.decompress(stream, row_bytes * height)
    except zlib.error:
        return None
    complete = len(rows) // row_bytes
    if complete == height or not complete:
        return None
    rows = rows[: complete * row_bytes] + bytes((height - complete) * row_bytes)
    return zlib.compress(rows, 1), 1 - complete / height


def _with_checksum(stream: bytes) -> bytes:
    """The compressed pixels of a PNG with the checksum that fits them (RFC 1950)."""
    inflate, waiting = zlib.decompressobj(-zlib.MAX_WBITS), stream[2:]
    checksum, total = zlib.adler32(b""), 0
    while not inflate.eof:
        try:
            pixels = inflate.decompress(waiting, 1 << 20)
        except zlib.error:
            return stream
        checksum, total = zlib.adler32(pixels, checksum), total + len(pixels)
        waiting = inflate.unconsumed_tail
        if not inflate.eof and (not pixels or total > _MAX_PIXEL_BYTES):
            return stream
    end = len(stream) - len(inflate.unused_data)
    return stream[:end] + struct.pack(">I", checksum)


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _repair_webp(content: bytes) -> Repaired:
    """Keep pixels, transparency and animation; with lengths that the file has."""
    chunks, exif, at, cut_short = [], b"", 12, False
    while at + 8 <= len(content):
        name, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        data = content[at + 8 : at + 8 + length]
        cut_short = cut_short or len(data) < length
        if name == b"EXIF" and len(data) < _MAX_EXIF_BYTES:
            exif = data.removeprefix(b"Exif\0\0")
        elif name == b"VP8X" and data:
            # The flags for ICC, EXIF and XMP (RFC 9649, 2.7.1) must not promise what is dropped.
            data = bytes([data[0] & 0b00010010]) + data[1:]
        if name in (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"):
            chunks.append(name + len(data).to_bytes(4, "little") + data + b"\0" * (len(data) % 2))
        at += 8 + length + length % 2
    body = b"WEBP" + b"".join(chunks)
    return Repaired(b"RIFF" + len(body).to_bytes(4, "little") + body, exif, cut_short)


def _repair_bmp(content: bytes) -> Repaired | None:
    """Correct a number of colours that no palette can have, and fill missing rows with zeros."""
    (size,) = struct.unpack_from("<I", content, 14)
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", content, 18)
    offset, colours = *struct.unpack_from("<I", content, 10), *struct.unpack_from("<I", content, 46)
    if size < 40:
        return None
    row_bytes = (width * bits + 31) // 32 * 4
    lacking = offset + row_bytes * abs(height) - len(content)
    if compression not in (0, 3) or not 0 < 2 * lacking <= row_bytes * abs(height):
        lacking = 0  # compressed, complete, or mostly missing
    most = 1 << bits if bits <= 8 else 256
    if not lacking and colours <= most:
        return None
    head = content[:46] + bytes(4) if colours > most else content[:50]
    missing = -(-lacking // row_bytes) / abs(height) if lacking else 0.0
    return Repaired(head + content[50:] + bytes(lacking), missing=missing)
