"""Small books and documents for tests, made part by part."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from conftest import scene

OPEN = "http://schemas.openxmlformats.org/"
STRICT = "http://purl.oclc.org/ooxml/"
OFFICE = OPEN + "officeDocument/2006/relationships"
NAMES = f"""xmlns:w="{OPEN}wordprocessingml/2006/main" xmlns:r="{OFFICE}"
 xmlns:a="{OPEN}drawingml/2006/main" xmlns:pic="{OPEN}drawingml/2006/picture"
 xmlns:wp="{OPEN}drawingml/2006/wordprocessingDrawing" xmlns:c="{OPEN}drawingml/2006/chart"
 xmlns:p="{OPEN}presentationml/2006/main" xmlns:dgm="{OPEN}drawingml/2006/diagram"
 xmlns:mc="{OPEN}markup-compatibility/2006" xmlns:v="urn:schemas-microsoft-com:vml"
 xmlns:o="urn:schemas-microsoft-com:office:office"
 xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"
 xmlns:wpg="http://schemas.microsoft.com/office/word/2010/wordprocessingGroup\""""
DECORATIVE = (
    '<a:extLst><a:ext uri="{C183D7F6-B498-43B3-948B-1728B52AA6E4}"><adec:decorative xmlns:adec='
    '"http://schemas.microsoft.com/office/drawing/2017/decorative" val="1"/></a:ext></a:extLst>'
)


def picture(turn: int = 0) -> bytes:
    """A PNG."""
    stream = io.BytesIO()
    scene().rotate(90 * turn).save(stream, "PNG")
    return stream.getvalue()


def archive(
    members: Mapping[str, str | bytes], *, stored: tuple[str, ...] = ("mimetype",), **options: bytes
) -> bytes:
    """A ZIP archive with these members in this order.

    Args:
        members: content by name.
        stored: names of members that are not compressed.
        options: `comment` of the archive.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, (2020, 2, 3, 4, 5, 6))
            info.compress_type = zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED
            info.comment = b"a comment"
            info.external_attr = 0o644 << 16
            file.writestr(info, content)
        file.comment = options.get("comment", b"")
    return stream.getvalue()


def members_of(content: bytes) -> dict[str, bytes]:
    """The members of an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert file.testzip() is None
        return {info.filename: file.read(info) for info in file.infolist()}


def relationships(**targets: str) -> str:
    """A relationships part: id=KIND TARGET, with " External" at the end for a link."""
    rows = []
    for name, value in targets.items():
        kind, target, *external = value.split(" ")
        mode = ' TargetMode="External"' if external else ""
        kind = kind if "/" in kind else f"{OFFICE}/{kind}"
        rows.append(f'<Relationship Id="{name}" Type="{kind}" Target="{target}"{mode}/>')
    return (
        f'<Relationships xmlns="{OPEN}package/2006/relationships">{"".join(rows)}</Relationships>'
    )


def drawing(image: str, properties: str = 'id="1" name="Picture 1"', inner: str = "") -> str:
    """A picture in Word: `w:r` with an inline drawing."""
    end = f">{inner}</wp:docPr>" if inner else "/>"
    return f"""<w:r><w:drawing><wp:inline><wp:extent cx="952500" cy="1905000"/>
<wp:docPr {properties}{end}<a:graphic><a:graphicData uri="picture"><pic:pic><pic:nvPicPr>
<pic:cNvPr id="0" name="x.png"/></pic:nvPicPr><pic:blipFill><a:blip r:embed="{image}"/>
</pic:blipFill></pic:pic></a:graphicData></a:graphic></wp:inline></w:drawing></w:r>"""


def paragraph(content: str, style: str = "") -> str:
    """A paragraph of Word; plain text is put into a run."""
    text = content if content.startswith("<") else f"<w:r><w:t>{content}</w:t></w:r>"
    named = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{named}{text}</w:p>"


def word(body: str, parts: Mapping[str, str | bytes] | None = None, **links: str) -> bytes:
    """A Word document.

    Args:
        body: of `w:body`.
        parts: other parts; they replace those of the same name.
        links: relationships of the body, see `relationships`; rId1 and rId2 are two pictures.
    """
    targets = {"rId1": "image media/image1.png", "rId2": "image media/image2.png"} | links
    targets |= {"styles": "styles styles.xml"}
    core = f"{OPEN}package/2006/relationships/metadata/core-properties"
    package = relationships(
        main="officeDocument word/document.xml", core=f"{core} docProps/core.xml"
    )
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": f'<Types xmlns="{OPEN}package/2006/content-types"/>',
        "_rels/.rels": package,
        "word/document.xml": f"<w:document {NAMES}><w:body>{body}</w:body></w:document>",
        "word/_rels/document.xml.rels": relationships(**targets),
        "word/styles.xml": f"""<w:styles {NAMES}><w:docDefaults><w:rPrDefault><w:rPr>
<w:lang w:val="de-DE"/></w:rPr></w:rPrDefault></w:docDefaults>
<w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>
<w:style w:type="paragraph" w:styleId="Beschriftung"><w:name w:val="caption"/></w:style>
</w:styles>""",
        "word/media/image1.png": picture(),
        "word/media/image2.png": picture(1),
        "docProps/core.xml": f"""<core:coreProperties
 xmlns:core="{OPEN}package/2006/metadata/core-properties"
 xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A  report</dc:title>
</core:coreProperties>""",
    }
    return archive(members | dict(parts or {}))


def slide_picture(image: str, properties: str = 'id="4" name="Picture 3"', inner: str = "") -> str:
    """A picture on a slide."""
    end = f">{inner}</p:cNvPr>" if inner else "/>"
    return f"""<p:pic><p:nvPicPr><p:cNvPr {properties}{end}<p:cNvPicPr/><p:nvPr/></p:nvPicPr>
<p:blipFill><a:blip r:embed="{image}"/></p:blipFill><p:spPr><a:xfrm><a:ext cx="95250" cy="95250"/>
</a:xfrm></p:spPr></p:pic>"""


def text_shape(text: str, kind: str = "") -> str:
    """A shape with text; a placeholder if it has a kind."""
    placeholder = f'<p:ph type="{kind}"/>' if kind else ""
    return f"""<p:sp><p:nvSpPr><p:cNvPr id="2" name="T"/><p:cNvSpPr/><p:nvPr>{placeholder}</p:nvPr>
</p:nvSpPr><p:spPr/><p:txBody><a:p><a:r><a:rPr lang="fr-FR"/><a:t>{text}</a:t></a:r></a:p>
</p:txBody></p:sp>"""


def slide(shapes: str, kind: str = "sld", attributes: str = "") -> str:
    """The XML of a slide, or of another part with shapes."""
    return f"""<p:{kind} {NAMES} {attributes}><p:cSld name="Two columns"><p:spTree>{shapes}
</p:spTree></p:cSld></p:{kind}>"""


def slides(*shown: str, parts: Mapping[str, str | bytes] | None = None, **links: str) -> bytes:
    """A presentation with these slides.

    Args:
        shown: the XML of each slide; rId1 of each is a picture.
        parts: other parts; they replace those of the same name.
        links: further relationships of every slide.
    """
    numbers = range(1, len(shown) + 1)
    listed = "".join(f'<p:sldId id="{255 + n}" r:id="rId{n}"/>' for n in reversed(numbers))
    targets = {f"rId{n}": f"slide slides/slide{n}.xml" for n in numbers}
    targets |= {"master": "slideMaster slideMasters/slideMaster1.xml"}
    images = {"rId1": "image ../media/image1.png"}
    members: dict[str, str | bytes] = {
        "_rels/.rels": relationships(main="officeDocument ppt/presentation.xml"),
        "ppt/presentation.xml": f"""<p:presentation {NAMES}><p:sldIdLst>{listed}</p:sldIdLst>
</p:presentation>""",
        "ppt/_rels/presentation.xml.rels": relationships(**targets),
        "ppt/media/image1.png": picture(),
        "ppt/slideMasters/slideMaster1.xml": slide(slide_picture("rId1"), "sldMaster"),
        "ppt/slideMasters/_rels/slideMaster1.xml.rels": relationships(
            **images, rId2="slideLayout ../slideLayouts/slideLayout1.xml"
        ),
        "ppt/slideLayouts/slideLayout1.xml": slide(slide_picture("rId1"), "sldLayout"),
        "ppt/slideLayouts/_rels/slideLayout1.xml.rels": relationships(**images),
    }
    for number, content in zip(numbers, shown, strict=True):
        members[f"ppt/slides/slide{number}.xml"] = content
        members[f"ppt/slides/_rels/slide{number}.xml.rels"] = relationships(**images | links)
    return archive(members | dict(parts or {}))


_OASIS = "urn:oasis:names:tc:opendocument:xmlns:"
ODF_NAMES = " ".join(
    f'xmlns:{prefix}="{namespace}"'
    for prefix, namespace in (
        ("office", f"{_OASIS}office:1.0"),
        ("text", f"{_OASIS}text:1.0"),
        ("draw", f"{_OASIS}drawing:1.0"),
        ("presentation", f"{_OASIS}presentation:1.0"),
        ("svg", f"{_OASIS}svg-compatible:1.0"),
        ("style", f"{_OASIS}style:1.0"),
        ("xlink", "http://www.w3.org/1999/xlink"),
        ("loext", "urn:org:documentfoundation:names:experimental:office:xmlns:loext:1.0"),
    )
)


def open_document(
    body: str, *, text: bool = True, styles: str = "", parts: Mapping[str, str] | None = None
) -> bytes:
    """An OpenDocument text or presentation with this body and these automatic styles."""
    inside = "text" if text else "presentation"
    members: dict[str, str | bytes] = {
        "mimetype": f"application/vnd.oasis.opendocument.{inside}",
        "content.xml": f"""<office:document-content {ODF_NAMES}>
<office:automatic-styles>{styles}</office:automatic-styles>
<office:body><office:{inside}>{body}</office:{inside}></office:body></office:document-content>""",
        "Pictures/a.png": picture(),
        "meta.xml": f"""<office:document-meta {ODF_NAMES}
 xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>A report</dc:title>
<dc:language>en-GB</dc:language></office:document-meta>""",
    }
    return archive(members | dict(parts or {}))


def frame(inner: str = "", href: str = "Pictures/a.png", attributes: str = "") -> str:
    """An OpenDocument frame with an image."""
    return f"""<draw:frame svg:width="2.54cm" svg:height="1in" {attributes}>
<draw:image xlink:href="{href}"/>{inner}</draw:frame>"""


def chapter(body: str, *, title: str = "Chapter 1") -> str:
    """An XHTML content document."""
    return f"""<?xml version="1.0" encoding="utf-8"?>
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en"><head><title>{title}</title></head>
<body>{body}</body></html>"""


def book(
    *chapters: str, version: str = "3.0", parts: Mapping[str, str | bytes] | None = None
) -> bytes:
    """An EPUB with these content documents in `OEBPS/text`, and the picture `OEBPS/a.png`.

    Args:
        chapters: their XHTML; the spine has them in the reverse order.
        version: of the package document.
        parts: other parts; they replace those of the same name.
    """
    numbers = range(1, len(chapters) + 1)
    items = "".join(
        f'<item id="c{n}" href="text/c%20{n}.xhtml" media-type="application/xhtml+xml"/>'
        for n in numbers
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in reversed(numbers))
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": """<container version="1.0"
 xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/>
</rootfiles></container>""",
        "OEBPS/content.opf": f"""<package xmlns="http://www.idpf.org/2007/opf" version="{version}"
 xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>A book</dc:title>
<dc:language>en-GB</dc:language></metadata><manifest>{items}
<item id="i" href="a.png" media-type="image/png"/></manifest><spine>{spine}</spine></package>""",
        "OEBPS/a.png": picture(),
    }
    for number, content in zip(numbers, chapters, strict=True):
        members[f"OEBPS/text/c {number}.xhtml"] = content
    return archive(members | dict(parts or {}))
