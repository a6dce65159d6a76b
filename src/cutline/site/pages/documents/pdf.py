"""Tagged PDF files: the alts of their figures, read with pikepdf and written by appending.

An incremental update (ISO 32000-1, 7.5.6) adds the changed structure elements at the end of the
file and leaves every byte before as it is. qpdf, on which pikepdf is based, only writes whole
files, so that the update is written here and checked by reading the result with qpdf.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cutline.atomic import read_regular
from cutline.errors import DataError, MissingExtraError, OutputError
from cutline.site.destination import AltChange, Edit, edited
from cutline.site.model import ImageOccurrence, Kind, Page

if TYPE_CHECKING:
    import pikepdf

_MAX_ELEMENTS = 200_000
_MAX_DEPTH = 100
_MAX_IMAGE_PIXELS = 120_000_000
_MAX_CONTENT_BYTES = 64 << 20
_START = re.compile(rb"startxref\s+(\d+)\s+%%EOF\s*\Z")
_OBJECT = re.compile(r"(\d{1,10}) (\d{1,5})\Z")
_DECORATIVE = "a figure of a PDF cannot be marked as decorative; make it an artifact by hand"


class PdfFormat:
    """Tagged PDF files."""

    @property
    def suffixes(self) -> frozenset[str]:
        """The suffix of PDF files, if pikepdf is installed."""
        return frozenset({".pdf"}) if find_spec("pikepdf") else frozenset()

    def read(self, content: bytes, file: Path, page: str) -> tuple[Page, list[ImageOccurrence]]:
        """Read the figures of a file; see `DocumentFormat.read`."""
        try:
            with open_pdf(content) as pdf:
                return _read(pdf, file.as_uri(), page)
        except DataError as error:
            return Page(page, error=str(error)), []

    def edits(self, content: bytes, changes: Sequence[AltChange]) -> tuple[Edit, ...]:
        """The edits that make these changes; see `DocumentFormat.edits`."""
        try:
            with open_pdf(content) as pdf:
                _refuse_unsafe(pdf, content)
                parts = [_element_edit(pdf, change) for change in changes]
                tail = _update(pdf, content, parts)
        except DataError as error:
            raise OutputError(str(error)) from error
        first = changes[0]
        made = (Edit(first.id, len(content), b"", tail, first.alt), *parts)
        self.edited(content, made)
        return made

    def edited(self, content: bytes, edits: Sequence[Edit]) -> bytes:
        """The bytes of the file with these edits; see `DocumentFormat.edited`."""
        after = edited(content, [each for each in edits if not each.part])
        short, long = sorted((content, after), key=len)
        try:
            problem = "" if long.startswith(short) else "it is no incremental update"
            problem = problem or _difference(content, after, edits)
        except DataError as error:
            problem = str(error)
        if problem:
            raise OutputError(f"more than its alts would change ({problem})")
        return after

    def only_alt(self, edit: Edit) -> bool:
        """Whether an edit changes only an alt; `edited` checks those of the file itself."""
        return not edit.part or _without_alt(edit.before) == _without_alt(edit.after) is not None

    def open_image(self, file: Path, member: str) -> bytes:
        """The bytes of an image in a file; see `DocumentFormat.open_image`."""
        import pikepdf

        found = _OBJECT.match(member)
        if found is None:
            raise KeyError(member)
        with open_pdf(read_regular(file)) as pdf:
            try:
                image: Any = pdf.get_object(int(found[1]), int(found[2]))
                pixels = int(image.Width) * int(image.Height)
                if pixels > _MAX_IMAGE_PIXELS or not _is_bounded(image, 8 * _MAX_IMAGE_PIXELS):
                    raise DataError("the image is too large")
                stream = io.BytesIO()
                pikepdf.PdfImage(image).extract_to(stream=stream)
            except DataError:
                raise
            except Exception as error:  # pikepdf raises many kinds for images it does not support
                raise DataError(f"the image cannot be decoded ({error})") from error
        return stream.getvalue()


def open_pdf(content: bytes) -> pikepdf.Pdf:
    """Open a PDF file.

    Raises:
        DataError: it is damaged, needs a password or is no PDF.
        MissingExtraError: pikepdf is not installed.
    """
    try:
        import pikepdf
    except ImportError as error:
        raise MissingExtraError("PDF", "documents") from error
    try:
        return pikepdf.open(io.BytesIO(content), suppress_warnings=True)
    except pikepdf.PasswordError as error:
        raise DataError("it is encrypted with a password; remove the password first") from error
    except (pikepdf.PdfError, ValueError, RuntimeError) as error:
        raise DataError(f"it is damaged, or no PDF ({' '.join(str(error).split())})") from error


# Reading


def _read(pdf: pikepdf.Pdf, base: str, page: str) -> tuple[Page, list[ImageOccurrence]]:

    try:
        title, language = _text(pdf.docinfo.get("/Title")), _text(pdf.Root.get("/Lang"))
        pages = {each.objgen: number for number, each in enumerate(pdf.pages, start=1)}
        unread: Counter[str] = Counter()
        occurrences: list[ImageOccurrence] = []
        if "/StructTreeRoot" not in pdf.Root:
            for each in pdf.pages:
                unread["picture in an untagged PDF"] += len(_images_in(each.resources))
        shown = _ImagesOfPages(pdf)
        for element, place, own_language in _figures(pdf):
            images = shown.of(element, place)
            number = pages.get(place.objgen) if place is not None else None
            identifier = "{} {}".format(*images[0]) if images else ""
            occurrences.append(
                ImageOccurrence(
                    page,
                    len(occurrences),
                    Kind.PICTURE,
                    source=f"image object {identifier}" if images else "",
                    url=f"{base}#{quote(identifier)}" if images else "",
                    alt=_text(element.get("/Alt")) or None,
                    name=_text(element.get("/ActualText")),
                    title=_text(element.get("/T")),
                    page_title=title,
                    language=own_language or language,
                    part="{} {}".format(*element.objgen),
                    place=f"page {number}" if number else "",
                )
            )
    except DataError:
        raise
    except Exception as error:  # pikepdf raises many kinds for damaged objects
        raise DataError(f"it is damaged ({' '.join(str(error).split())})") from error
    unread = +unread
    return Page(page, title=title, language=language, unread=tuple(unread.items())), occurrences


def _figures(pdf: pikepdf.Pdf) -> Iterator[tuple[Any, Any, str]]:
    """The structure elements of figures, each with its page and language, in reading order."""
    import pikepdf

    root = pdf.Root.get("/StructTreeRoot")
    if not isinstance(root, pikepdf.Dictionary):
        return
    roles = root.get("/RoleMap")
    seen: set[tuple[int, int]] = set()
    stack: list[tuple[Any, Any, str, int]] = [(root, None, "", 0)]
    count = 0
    while stack:
        element, page, language, depth = stack.pop()
        count += 1
        if count > _MAX_ELEMENTS or depth > _MAX_DEPTH:
            raise DataError("its structure is too complex")
        if not isinstance(element, pikepdf.Dictionary) or element.objgen in seen:
            continue
        if element.objgen != (0, 0):
            seen.add(element.objgen)
        page = element.get("/Pg", page)
        language = _text(element.get("/Lang")) or language
        if _role(element, roles) == "/Figure":
            yield element, page, language
            continue
        stack += [(kid, page, language, depth + 1) for kid in reversed(_kids(element))]


def _role(element: Any, roles: Any) -> str:
    """The standard type of a structure element."""
    role = str(element.get("/S", ""))
    for _ in range(10):
        if roles is None or role not in roles:
            break
        role = str(roles[role])
    return role


def _kids(element: Any) -> list[Any]:
    import pikepdf

    kids = element.get("/K")
    if kids is None:
        return []
    return list(kids) if isinstance(kids, pikepdf.Array) else [kids]


def _text(value: Any) -> str:
    return " ".join(str(value).split()) if value is not None else ""


class _ImagesOfPages:
    """Finds the image files that the marked content of a structure element shows."""

    def __init__(self, pdf: pikepdf.Pdf) -> None:
        self._pdf = pdf
        self._pages: dict[tuple[int, int], dict[int, list[tuple[int, int]]]] = {}

    def of(self, element: Any, page: Any) -> list[tuple[int, int]]:
        """The object numbers of the images of an element."""
        import pikepdf

        found: list[tuple[int, int]] = []
        stack = [(element, page)]
        for _ in range(1000):
            if not stack:
                break
            node, page = stack.pop()
            if isinstance(node, int):
                found += self._marked(page).get(int(node), [])
                continue
            if not isinstance(node, pikepdf.Dictionary):
                continue
            page = node.get("/Pg", page)
            if "/MCID" in node:
                found += self._marked(page).get(int(node["/MCID"]), [])
            elif "/Obj" in node:
                found += _image_objects(node["/Obj"])
            else:
                stack += [(kid, page) for kid in reversed(_kids(node))]
        return list(dict.fromkeys(found))

    def _marked(self, page: Any) -> dict[int, list[tuple[int, int]]]:
        """The images of a page by the number of their marked content."""
        if page is None:
            return {}
        if page.objgen not in self._pages:
            found: dict[int, list[tuple[int, int]]] = {}
            with suppress(Exception):  # a damaged content stream has no known images
                self._read(page, found)
            self._pages[page.objgen] = found
        return self._pages[page.objgen]

    def _read(self, page: Any, found: dict[int, list[tuple[int, int]]]) -> None:
        import pikepdf

        contents = page.get("/Contents")
        streams = contents if isinstance(contents, pikepdf.Array) else [contents]
        if not all(_is_bounded(each, _MAX_CONTENT_BYTES) for each in streams):
            return
        resources: Any = pikepdf.Page(page).resources
        objects = resources.get("/XObject", {})
        marks: list[int | None] = []
        instructions: Any = pikepdf.parse_content_stream(page, "BDC BMC EMC Do")
        for operands, operator in instructions:
            name = str(operator)
            if name == "EMC":
                marks = marks[:-1]
            elif name in ("BDC", "BMC"):
                marks.append(_mark(operands, resources) if name == "BDC" else None)
            else:
                mark = next((each for each in reversed(marks) if each is not None), None)
                shown = objects.get(str(operands[0])) if mark is not None else None
                if mark is not None and shown is not None:
                    found.setdefault(mark, []).extend(_image_objects(shown))


def _is_bounded(stream: Any, limit_bytes: int) -> bool:
    """Whether a stream is decompressed to no more than this; images with other filters are."""
    import pikepdf

    filters = stream.get("/Filter", [])
    raw = stream.read_raw_bytes()
    for name in map(str, [filters] if isinstance(filters, pikepdf.Name) else filters):
        if name == "/FlateDecode":
            raw = zlib.decompressobj().decompress(raw, limit_bytes + 1)
        elif name not in ("/DCTDecode", "/JPXDecode", "/CCITTFaxDecode", "/JBIG2Decode"):
            return False
    return len(raw) <= limit_bytes


def _mark(operands: Sequence[Any], resources: Any) -> int | None:
    """The number of a marked content sequence; None if it has none."""
    properties = operands[1]
    with suppress(Exception):
        if not hasattr(properties, "keys"):
            properties = resources["/Properties"][str(properties)]
        return int(properties["/MCID"]) if "/MCID" in properties else None
    return None


def _image_objects(item: Any, depth: int = 0) -> list[tuple[int, int]]:
    """The object numbers of an image, or of the images in a form."""
    if depth > 3 or not hasattr(item, "get"):
        return []
    kind = str(item.get("/Subtype", ""))
    if kind == "/Image":
        return [item.objgen]
    if kind != "/Form":
        return []
    return _images_in(item.get("/Resources", {}), depth + 1)


def _images_in(resources: Any, depth: int = 0) -> list[tuple[int, int]]:
    """The object numbers of the images among the resources of a page or form."""
    listed = resources.get("/XObject", {})
    return [one for each in listed.values() for one in _image_objects(each, depth)]


# Writing


def _refuse_unsafe(pdf: pikepdf.Pdf, content: bytes) -> None:
    """Refuse what an appended change would break.

    Raises:
        OutputError: it is signed, encrypted or damaged.
    """
    if b"/ByteRange" in content or "/Perms" in pdf.Root or _has_signature_flag(pdf):
        raise OutputError("it has a digital signature, which a change would break")
    if pdf.is_encrypted:
        raise OutputError("it is encrypted; remove the encryption first")
    if pdf.get_warnings() or not content.startswith(b"%PDF-"):
        raise OutputError("it is damaged; save it again")


def _has_signature_flag(pdf: pikepdf.Pdf) -> bool:
    form = pdf.Root.get("/AcroForm")
    return form is not None and bool(int(form.get("/SigFlags", 0)) & 1)


def _element_edit(pdf: pikepdf.Pdf, change: AltChange) -> Edit:
    """The change of one structure element."""
    import pikepdf

    found = _OBJECT.match(change.occurrence.part)
    if found is None or found[1] == "0":
        raise OutputError("its structure element has no number of its own; change it by hand")
    if not change.alt:
        raise OutputError(_DECORATIVE)
    element = pdf.get_object(int(found[1]), int(found[2]))
    before = element.unparse(resolved=True)
    element["/Alt"] = pikepdf.String(change.alt)
    after = element.unparse(resolved=True)
    return Edit(change.id, 0, before, after, change.alt, change.occurrence.part)


def _update(pdf: pikepdf.Pdf, content: bytes, parts: Sequence[Edit]) -> bytes:
    """The incremental update that replaces the objects of these edits."""
    found = _START.search(content[-2048:])
    if found is None:
        raise OutputError("its end is damaged; save it again")
    previous = int(found[1])
    pieces = [b"" if content.endswith(b"\n") else b"\n"]
    length = len(content) + len(pieces[0])
    offsets: dict[int, tuple[int, int]] = {}
    for each in parts:
        number, generation = map(int, each.part.split())
        piece = b"%d %d obj\n%s\nendobj\n" % (number, generation, each.after)
        offsets[number] = (length, generation)
        pieces.append(piece)
        length += len(piece)
    size = int(pdf.trailer["/Size"])
    names = [name for name in ("/Root", "/Info", "/ID") if name in pdf.trailer]
    entries = b"".join(b"%s %s " % (name.encode(), pdf.trailer[name].unparse()) for name in names)
    entries += b"/Prev %d" % previous
    if content[previous:].lstrip()[:4] == b"xref":
        pieces.append(_table(offsets, entries + b" /Size %d" % size))
    else:
        offsets[size] = (length, 0)
        pieces.append(_stream(offsets, size, entries))
    pieces.append(b"startxref\n%d\n%%%%EOF\n" % length)
    return b"".join(pieces)


def _table(offsets: dict[int, tuple[int, int]], entries: bytes) -> bytes:
    """A cross-reference table and its trailer."""
    rows = b"".join(
        b"%d 1\n%010d %05d n \n" % (number, *offsets[number]) for number in sorted(offsets)
    )
    return b"xref\n%strailer\n<< %s >>\n" % (rows, entries)


def _stream(offsets: dict[int, tuple[int, int]], number: int, entries: bytes) -> bytes:
    """A cross-reference stream, for files that have no table."""
    ordered = sorted(offsets)
    data = b"".join(struct.pack(">BQH", 1, *offsets[each]) for each in ordered)
    index = b" ".join(b"%d 1" % each for each in ordered)
    head = b"/Type /XRef /W [1 8 2] /Index [%s] /Size %d /Length %d" % (
        index,
        number + 1,
        len(data),
    )
    return b"%d 0 obj\n<< %s %s >>\nstream\n%s\nendstream\nendobj\n" % (number, head, entries, data)


def _difference(content: bytes, after: bytes, edits: Sequence[Edit]) -> str:
    """What differs in the objects of two files besides these edits; "" if nothing."""
    changes = {each.part: each for each in edits if each.part}
    with open_pdf(content) as old, open_pdf(after) as new:
        objects = [_objects(each) for each in (old, new)]
        if len(old.pages) != len(new.pages):
            return "its pages differ"
    for key in objects[0].keys() | objects[1].keys():
        one, two = (each.get(key, b"") for each in objects)
        if key in changes:
            if (one, two) != (changes[key].before, changes[key].after):
                return f"object {key} differs"
        elif one != two:
            return f"object {key} differs"
    return ""


def _objects(pdf: pikepdf.Pdf) -> dict[str, bytes]:
    """The objects of a file by number, without its cross-reference streams."""
    import pikepdf

    found: dict[str, bytes] = {}
    for each in pdf.objects:
        if isinstance(each, pikepdf.Stream):
            if str(each.get("/Type", "")) == "/XRef":
                continue
            entries = pikepdf.Dictionary(dict(each.items())).unparse(resolved=True)
            found["{} {}".format(*each.objgen)] = entries + each.read_raw_bytes()
        elif isinstance(each, pikepdf.Object):
            found["{} {}".format(*each.objgen)] = each.unparse(resolved=True)
    return found


def _without_alt(element: bytes) -> bytes | None:
    """A serialised structure element without its alt; None if it is no dictionary."""
    import pikepdf

    try:
        parsed = pikepdf.Object.parse(_REFERENCE.sub(rb"(\1 \2 R)", element))
    except (pikepdf.PdfError, ValueError, RuntimeError):
        return None
    if not isinstance(parsed, pikepdf.Dictionary):
        return None
    if "/Alt" in parsed:
        del parsed["/Alt"]
    return parsed.unparse(resolved=True)


_REFERENCE = re.compile(rb"(?<![\w.(])(\d+) (\d+) R(?![\w])")
