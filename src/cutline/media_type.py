"""File types, detected from the first bytes or the file extension."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

HEAD_BYTES = 512
"""How many of a file's first bytes `identify` and `sniff` need."""


XML_PROLOG_BYTES = 65_536
"""So far, comments and declarations may precede an SVG's root element."""

ENDINGS = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "image/jpeg"),
    **dict.fromkeys(("tif", "tiff"), "image/tiff"),
    **dict.fromkeys(("heic", "heif", "hif"), "image/heic"),
    **dict.fromkeys(("bmp", "dib"), "image/bmp"),
    **{name: f"image/{name}" for name in ("avif", "gif", "png", "webp")},
    "ico": "image/x-icon",
    "svg": "image/svg+xml",
}
"""Media types by the endings of image files on the web, in lower case, without the dot."""

DECODED_ENDINGS = frozenset(ENDINGS) - {"ico", "svg"}
"""Those of the formats that Cutline decodes."""


@dataclass(frozen=True)
class MediaType:
    """A kind of file.

    Attributes:
        name: a short name; for formats that Cutline decodes one of "JPEG", "PNG", "WebP", "GIF",
            "BMP", "TIFF", "AVIF" and "HEIC".
        media_type: such as "image/jpeg".
        what: a noun phrase for messages, such as "a web page".
    """

    name: str
    media_type: str
    what: str


def _image(name: str, subtype: str, article: str = "a") -> MediaType:
    return MediaType(name, f"image/{subtype}", f"{article} {name} image")


JPEG, PNG, WEBP = _image("JPEG", "jpeg"), _image("PNG", "png"), _image("WebP", "webp")
GIF, BMP, TIFF = _image("GIF", "gif"), _image("BMP", "bmp"), _image("TIFF", "tiff")
AVIF, HEIC = _image("AVIF", "avif", "an"), _image("HEIC", "heic")
SVG = MediaType("SVG", "image/svg+xml", "an SVG drawing")
HTML = MediaType("HTML", "text/html", "a web page")
TEXT = MediaType("text", "text/plain", "text")
PDF = MediaType("PDF", "application/pdf", "a PDF document")
RAW = MediaType("camera RAW", "image/x-raw", "a camera RAW file")
_VIDEO = MediaType("video", "video/mp4", "a video")
_ZIP = MediaType("ZIP", "application/zip", "a ZIP archive or an office document")
_PNM = {
    **dict.fromkeys(b"14", _image("PBM", "x-portable-bitmap")),
    **dict.fromkeys(b"25", _image("PGM", "x-portable-graymap")),
    **dict.fromkeys(b"36", _image("PPM", "x-portable-pixmap")),
    ord("7"): _image("PAM", "x-portable-arbitrarymap"),
    ord("F"): _image("PFM", "x-portable-floatmap"),
    ord("f"): _image("PFM", "x-portable-floatmap"),
}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_MAGIC = tuple(
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (rb"\xff\xd8\xff[\xf7\xf8]", _image("JPEG-LS", "jls")),
        (rb"\xff\xd8\xff", JPEG),
        (rb"\x89PNG\r\n\x1a\n.{4}CgBI", MediaType("CgBI", "image/png", "an iOS app's PNG")),
        (rb"\x89PNG\r\n\x1a\n", PNG),
        (rb"GIF8[79]a", GIF),
        (rb"RIFF....WEBP", WEBP),
        # Camera RAW; those inside a plain TIFF take a look at its directories: `is_camera_raw`.
        (rb"II\*\0....CR\x02|II\x1a\0\0\0HEAPCCDR|II(RO|RS|U\0)|MMOR", RAW),
        (rb"FUJIFILMCCD-RAW|FOVb|\0MRM|....ftypcrx |ARRI....\x12\x34", RAW),
        (rb"II[*+]\0|MM\0[*+]", TIFF),
        (rb"BM", BMP),
        (rb"\0\0\x01\0[^\0]\0", MediaType("ICO", "image/x-icon", "an ICO icon")),
        (rb"\0\0\x02\0[^\0]\0", MediaType("CUR", "image/x-icon", "a cursor")),
        (rb"icns", MediaType("ICNS", "image/icns", "an ICNS icon")),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", _image("JPEG XL", "jxl")),
        (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ", _image("JPEG 2000", "jp2")),
        (rb"II\xbc", _image("JPEG XR", "jxr")),
        (rb"8BPS", MediaType("PSD", "image/vnd.adobe.photoshop", "a Photoshop document")),
        (rb"gimp xcf ", MediaType("XCF", "image/x-xcf", "a GIMP document")),
        (rb"\x76\x2f\x31\x01", _image("OpenEXR", "x-exr", "an")),
        (rb"#\?(RADIANCE|RGBE)", _image("Radiance HDR", "vnd.radiance")),
        (rb"SIMPLE  =", _image("FITS", "fits")),
        (rb"DDS ", _image("DDS", "vnd-ms.dds")),
        (rb"qoif", _image("QOI", "qoi")),
        (rb"farbfeld", _image("farbfeld", "x-farbfeld")),
        (rb"FLIF", _image("FLIF", "flif")),
        (rb"BPG\xfb", _image("BPG", "bpg")),
        (rb"SDPX|XPDS", _image("DPX", "x-dpx")),
        (rb"\x80\x2a\x5f\xd7", _image("Cineon", "x-cineon")),
        (rb"\x59\xa6\x6a\x95", _image("Sun raster", "x-cmu-raster")),
        (
            rb"\s*(/\*.{0,500}?\*/\s*)?#define\s+\w+_width\s+\d+\s+#define\s+\w+_height\s",
            _image("XBM", "x-xbitmap", "an"),
        ),
        (rb"\s*/\* XPM \*/", _image("XPM", "x-xpixmap", "an")),
        (rb"\x01\xda[\0\x01][\x01\x02]", _image("SGI", "sgi", "an")),
        (rb"\x0a[\0\x02\x03\x05]\x01[\x01\x02\x04\x08]", _image("PCX", "x-pcx")),
        (rb"\x8a(MNG|JNG)\r\n|\x8bJNG\r\n", MediaType("MNG", "video/x-mng", "an MNG animation")),
        (rb"AT&TFORM", MediaType("DjVu", "image/vnd.djvu", "a DjVu document")),
        (rb"\xd7\xcd\xc6\x9a|\x01\0\x09\0\0\x03", _image("WMF", "wmf")),
        (rb"\x01\0\0\0.{36} EMF", _image("EMF", "emf", "an")),
        (rb".{128}DICM", _image("DICOM", "dicom-rle")),
        (
            rb"(\xef\xbb\xbf)?%!PS|\xc5\xd0\xd3\xc6",
            MediaType("PostScript", "application/postscript", "a PostScript (EPS) document"),
        ),
        (rb"(\xef\xbb\xbf)?\s*(?i:%pdf)", PDF),
        (rb"PK\x03\x04", _ZIP),
        (rb"\x1f\x8b", MediaType("gzip", "application/gzip", "a gzip file")),
        (rb"7z\xbc\xaf|Rar!", MediaType("archive", "application/x-7z-compressed", "an archive")),
        (rb"\xd0\xcf\x11\xe0", MediaType("OLE", "application/x-ole-storage", "an office document")),
        (rb"....ftyp(avci|avcs|j2ki|j2is|jxsi|vvic|mif2)", _image("HEIF", "heif")),
        (rb"....ftyp", _VIDEO),
        (rb"\x1a\x45\xdf\xa3", MediaType("video", "video/webm", "a video")),
        (rb"RIFF....AVI |\0\0\x01[\xb3\xba]|FLV\x01", MediaType("video", "video/x", "a video")),
        (rb"(\xef\xbb\xbf)?\s*(?i:<!doctype html|<html|<head|<body)", HTML),
    )
)


_PROLOG = (
    rb"(?:\xef\xbb\xbf)?(?>\s+|<\?(?s:.*?)\?>|<!--(?s:.*?)-->"
    rb"|<!DOCTYPE[^>\[]*+(?:\[[^\]]*+\]\s*+)?>)*+"
)
_SVG = re.compile(_PROLOG + rb"<(?:[\w-]+:)?svg[\s>/]", re.IGNORECASE)
_UNFINISHED_PROLOG = re.compile(
    _PROLOG + rb"(?:<|<\?(?s:(?!.*\?>).*)|<!--(?s:(?!.*-->).*)|<!D[^>\[]*+(?:\[[^\]]*+)?|<!-?)?",
    re.IGNORECASE,
)


def identify(content: bytes | bytearray) -> MediaType | None:
    """Tell what kind of file begins with these bytes.

    Args:
        content: the file's first `HEAD_BYTES` bytes or more; fewer if it is shorter. An SVG behind
            long comments takes up to `XML_PROLOG_BYTES`, see `may_be_svg`.

    Returns:
        None if the bytes are those of no known kind.
    """
    head = bytes(content[:HEAD_BYTES])
    if head[4:8] == b"ftyp":
        end = int.from_bytes(head[:4], "big")
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, min(end, len(head)), 4))}
        if brands & _AVIF_BRANDS:
            return AVIF
        if brands & _HEIC_BRANDS:
            return HEIC
    if re.match(rb"P[1-7Ff][\s#]", head):
        return _PNM[head[1]]
    for pattern, kind in _MAGIC:
        if pattern.match(head):
            return kind
    if _SVG.match(bytes(content[:XML_PROLOG_BYTES])):
        return SVG
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return TEXT
    text = head.removeprefix(b"\xef\xbb\xbf").strip()
    if text and all(byte >= 32 or byte in b"\t\r\n\f" for byte in text):
        return TEXT
    return None


def may_be_svg(content: bytes | bytearray) -> bool:
    """Whether all bytes so far are what may precede an SVG's root element, so that more decide."""
    head = bytes(content[: XML_PROLOG_BYTES + 1])
    return len(head) <= XML_PROLOG_BYTES and bool(_UNFINISHED_PROLOG.fullmatch(head))


def sniff(content: bytes | bytearray) -> str:
    """Return the media type that the first bytes show; "" for plain text and unknown bytes."""
    kind = identify(content)
    return "" if kind is None or kind is TEXT else kind.media_type


_MAX_DIRECTORIES = 24
_TAG_COMPRESSION, _TAG_PHOTOMETRIC, _TAG_SUB_IFDS, _TAG_DNG_VERSION = 259, 262, 330, 50706
_RAW_VALUES = {
    _TAG_PHOTOMETRIC: {32803, 34892},  # colour filter array, linear raw (TIFF/EP, DNG)
    _TAG_COMPRESSION: {32767, 34713, 65000, 65535},  # Sony, Nikon, Kodak, Pentax
}
_FIELD_SIZES = {1: 1, 3: 2, 4: 4, 13: 4}


def is_camera_raw(file: BinaryIO) -> bool:
    """Tell whether a classic TIFF file is a camera's RAW file, such as DNG, NEF, ARW or PEF.

    Their first directory often is a small preview, which no one means by the picture.

    Args:
        file: a seekable file that begins as a TIFF does; its position is 0 afterwards.

    Source: TIFF 6.0, section 2; TIFF/EP (ISO 12234-2); Adobe DNG 1.7, chapter 4.
    """
    try:
        return _has_raw_directory(file)
    except (struct.error, OSError, OverflowError):
        return False
    finally:
        file.seek(0)


def _has_raw_directory(file: BinaryIO) -> bool:
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    version, first = struct.unpack(order + "HI", file.read(6))
    if version != 42:
        return False
    waiting, seen = [first], set[int]()
    while waiting and len(seen) < _MAX_DIRECTORIES:
        offset = waiting.pop(0)
        if offset in seen or not offset:
            continue
        seen.add(offset)
        file.seek(offset)
        (count,) = struct.unpack(order + "H", file.read(2))
        entries = file.read(count * 12 + 4)
        for start in range(0, count * 12, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", entries, start)
            if tag == _TAG_DNG_VERSION:
                return True
            if tag != _TAG_SUB_IFDS and tag not in _RAW_VALUES:
                continue
            values = _values(file, order, kind, min(number, 16), entries[start + 8 : start + 12])
            if tag == _TAG_SUB_IFDS:
                waiting += values
            elif not _RAW_VALUES[tag].isdisjoint(values):
                return True
        waiting += struct.unpack_from(order + "I", entries, count * 12)
    return False


def _values(file: BinaryIO, order: str, kind: int, count: int, inline: bytes) -> tuple[int, ...]:
    size = _FIELD_SIZES.get(kind, 0)
    if not size:
        return ()
    data = inline
    if size * count > 4:
        file.seek(struct.unpack(order + "I", inline)[0])
        data = file.read(size * count)
    form = {1: "B", 2: "H", 4: "I"}[size]
    return struct.unpack_from(f"{order}{count}{form}", data)
