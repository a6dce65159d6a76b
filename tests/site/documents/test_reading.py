"""Reading the images of EPUB, Word and PowerPoint files."""

from __future__ import annotations

from pathlib import Path

import made_documents as made
import pytest

from cutline.site.model import ImageOccurrence, Kind, Page
from cutline.site.pages.formats import DocumentFormat, document_format

pytestmark = pytest.mark.documents


def of(name: str) -> DocumentFormat:
    found = document_format(Path(name))
    assert found is not None
    return found


def read(content: bytes, name: str) -> tuple[Page, list[ImageOccurrence]]:
    page, occurrences = of(name).read(content, Path("/site") / name, name)
    assert not page.error
    assert [each.position for each in occurrences] == list(range(len(occurrences)))
    assert {each.page for each in occurrences} <= {name}
    return page, occurrences


def only(content: bytes, name: str) -> ImageOccurrence:
    _, [occurrence] = read(content, name)
    return occurrence


# Word


def test_the_words_around_a_picture_in_word() -> None:
    body = "".join(
        [
            made.paragraph("Dogs", "berschrift1"),
            made.paragraph("Before it."),
            made.paragraph(made.drawing("rId1", 'id="7" name="P" title="A title"')),
            made.paragraph("Figure 1: Rex", "Beschriftung"),
            made.paragraph("After it."),
        ]
    )
    page, [found] = read(made.word(body), "a.docx")
    assert (page.title, page.language) == ("A report", "de-DE")
    assert found.kind is Kind.PICTURE
    assert found.url == "file:///site/a.docx#word/media/image1.png"
    assert found.source == "word/media/image1.png"
    assert found.part == "word/document.xml"
    assert (found.alt, found.title) == (None, "A title")
    assert (found.width_px, found.height_px) == (100, 200)
    assert (found.heading, found.caption) == ("Dogs", "Figure 1: Rex")
    assert found.before == "Dogs Before it."
    assert found.after == "Figure 1: Rex After it."
    assert (found.page_title, found.language) == ("A report", "de-DE")


@pytest.mark.parametrize(
    ("properties", "inner", "alt"),
    [
        ('id="1" name="P"', "", None),
        ('id="1" name="P" descr=""', "", None),
        ('id="1" name="P" title="Only a title"', "", None),
        ('id="1" name="P" descr="A &quot;dog&quot; &amp; a cat"', "", 'A "dog" & a cat'),
        ('id="1" name="P" descr="x"', made.DECORATIVE, ""),
        ('id="1" name="P" descr="x"', made.DECORATIVE.replace('val="1"', 'val="0"'), "x"),
        ('id="1" name="P"', made.DECORATIVE, ""),
    ],
)
def test_alts_and_decorative_marks(properties: str, inner: str, alt: str | None) -> None:
    body = made.paragraph(made.drawing("rId1", properties, inner))
    assert only(made.word(body), "a.docx").alt == alt


def test_headers_footers_notes_and_comments() -> None:
    kinds = "header footer footnotes endnotes comments".split()
    parts = {}
    for kind in kinds:
        parts[f"word/{kind}.xml"] = f"<w:x {made.NAMES}>{made.paragraph(made.drawing('r'))}</w:x>"
        parts[f"word/_rels/{kind}.xml.rels"] = made.relationships(r="image media/image1.png")
    links = {kind: f"{kind} {kind}.xml" for kind in kinds}
    _, found = read(made.word("", parts, **links), "a.docx")
    assert [each.place for each in found] == kinds
    assert [each.part for each in found] == [f"word/{kind}.xml" for kind in kinds]
    assert {each.source for each in found} == {"word/media/image1.png"}


def test_both_branches_of_alternate_content_are_one_picture() -> None:
    fallback = """<w:r><w:pict><v:shape id="s" alt="old"><v:imagedata r:id="rId1"/></v:shape>
</w:pict></w:r>"""
    body = f"""<w:p><mc:AlternateContent><mc:Choice Requires="wps">
{made.drawing("rId1", 'id="1" name="P" descr="new"')}<w:r><w:t>Once</w:t></w:r></mc:Choice>
<mc:Fallback>{fallback}<w:r><w:t>Once</w:t></w:r></mc:Fallback></mc:AlternateContent></w:p>"""
    found = only(made.word(body), "a.docx")
    assert (found.alt, found.after) == ("new", "Once")


def test_pictures_of_one_branch_are_not_lost() -> None:
    body = f"""<w:p><mc:AlternateContent><mc:Choice Requires="wps">{made.drawing("rId1")}
</mc:Choice><mc:Fallback>{made.drawing("rId1")}{made.drawing("rId2")}</mc:Fallback>
</mc:AlternateContent></w:p>"""
    _, found = read(made.word(body), "a.docx")
    assert [each.source[-5] for each in found] == ["1", "2"]


def test_pictures_in_a_group_have_their_own_alts() -> None:
    def grouped(group: str) -> bytes:
        pictures = "".join(
            f"""<pic:pic><pic:nvPicPr><pic:cNvPr id="1" name="{n}"{alt}/></pic:nvPicPr>
<pic:blipFill><a:blip r:embed="rId{n}"/></pic:blipFill></pic:pic>"""
            for n, alt in ((1, ' descr="One"'), (2, ""))
        )
        return made.word(f"""<w:p><w:r><w:drawing><wp:anchor>{group}<a:graphic><a:graphicData>
<wpg:wgp>{pictures}</wpg:wgp></a:graphicData></a:graphic></wp:anchor></w:drawing></w:r></w:p>""")

    _, found = read(grouped('<wp:docPr id="9" name="G"/>'), "a.docx")
    assert [(each.alt, each.name) for each in found] == [("One", ""), (None, "")]
    _, found = read(grouped('<wp:docPr id="9" name="G" descr="Two dogs"/>'), "a.docx")
    assert [each.name for each in found] == ["Two dogs"] * 2
    decorative = f'<wp:docPr id="9" name="G">{made.DECORATIVE}</wp:docPr>'
    page, found = read(grouped(decorative), "a.docx")
    assert (page.unread, found) == ((("picture in a decorative group", 2),), [])


def test_vml_pictures_and_previews_of_embedded_objects() -> None:
    body = """<w:p><w:r><w:pict><v:shape alt="A dog"><v:imagedata r:id="rId1" o:title="dog"/>
</v:shape></w:pict><w:object><v:shape alt=""><v:imagedata r:id="rId2"/></v:shape>
<o:OLEObject ProgID="Excel.Sheet.12" r:id="rId9"/></w:object></w:r></w:p>"""
    _, found = read(made.word(body), "a.docx")
    assert [(each.alt, each.source[-5]) for each in found] == [("A dog", "1"), (None, "2")]


def test_deleted_and_hidden_pictures_are_counted_only() -> None:
    hidden = made.drawing("rId1").replace("<w:r>", "<w:r><w:rPr><w:vanish/></w:rPr>", 1)
    body = f"""<w:p><w:del w:id="1">{made.drawing("rId1")}</w:del><w:moveFrom>
{made.drawing("rId2")}</w:moveFrom>{hidden}<w:ins>{made.drawing("rId2")}</w:ins></w:p>"""
    page, [found] = read(made.word(body), "a.docx")
    assert found.source == "word/media/image2.png"
    assert dict(page.unread) == {"picture in a tracked deletion": 2, "hidden picture": 1}


def test_linked_pictures_are_never_fetched() -> None:
    linked = made.drawing("rId7").replace("r:embed", "r:link")
    link = "image https://example.org/dog.png External"
    found = only(made.word(made.paragraph(linked), rId7=link), "a.docx")
    assert (found.source, found.url) == ("https://example.org/dog.png", "")
    outside = made.word(made.paragraph(made.drawing("rId7")), rId7="image ../../../etc/passwd")
    assert only(outside, "a.docx").url == ""


def test_charts_and_links_in_word() -> None:
    chart = """<w:r><w:drawing><wp:inline><wp:docPr id="1" name="C"/><a:graphic><a:graphicData>
<c:chart r:id="rId7"/></a:graphicData></a:graphic></wp:inline></w:drawing></w:r>"""
    linked = f"""<w:hyperlink r:id="rId8">{made.drawing("rId1")}<w:r><w:t>More</w:t></w:r>
</w:hyperlink>"""
    _, found = read(
        made.word(
            made.paragraph(chart) + made.paragraph(linked),
            {"word/charts/chart1.xml": "<x/>"},
            rId7="chart charts/chart1.xml",
            rId8="hyperlink https://example.org/ External",
        ),
        "a.docx",
    )
    assert [each.kind for each in found] == [Kind.CHART, Kind.PICTURE]
    assert (found[1].link, found[1].link_text) == ("https://example.org/", "More")


def test_strict_documents_are_read() -> None:
    parts = made.members_of(made.word(made.paragraph(made.drawing("rId1", 'id="1" descr="x"'))))
    strict = {
        name: content.replace(
            f"{made.OPEN}officeDocument/2006".encode(), f"{made.STRICT}officeDocument".encode()
        )
        if name.endswith((".xml", ".rels"))
        else content
        for name, content in parts.items()
    }
    for kind in ("wordprocessingml", "drawingml"):
        for name in strict:
            old = f"{made.OPEN}{kind}/2006/".encode()
            if name.endswith(".xml"):
                strict[name] = strict[name].replace(old, f"{made.STRICT}{kind}/".encode())
    found = only(made.archive(strict), "a.docx")
    assert (found.alt, found.url[-10:]) == ("x", "image1.png")


# PowerPoint


def test_slides_in_their_order_with_title_and_notes() -> None:
    notes = made.slide(made.slide_picture("n") + made.text_shape("Say it"), "notes")
    content = made.slides(
        made.slide(made.text_shape("Text") + made.slide_picture("rId1")),
        made.slide(made.slide_picture("rId1") + made.text_shape("Dogs", "ctrTitle")),
        parts={
            "ppt/notesSlides/notesSlide1.xml": notes,
            "ppt/notesSlides/_rels/notesSlide1.xml.rels": made.relationships(
                n="image ../media/image1.png"
            ),
            "ppt/slides/_rels/slide2.xml.rels": made.relationships(
                rId1="image ../media/image1.png", n="notesSlide ../notesSlides/notesSlide1.xml"
            ),
        },
    )
    page, found = read(content, "a.pptx")
    assert (page.title, found[0].language) == ("Dogs", "fr-FR")
    assert [(each.place, each.heading) for each in found] == [
        ("slide 1", "Dogs"),
        ("notes of slide 1", "Dogs"),
        ("slide 2", ""),
        ("slide master", ""),
        ("layout Two columns", ""),
    ]
    assert (found[1].after, found[2].before) == ("Say it", "Text")
    assert found[0].width_px == 10


def test_hidden_slides_are_read_and_hidden_shapes_counted() -> None:
    hidden = made.slide_picture("rId1", 'id="4" name="P" hidden="1"')
    shown = made.slide(made.slide_picture("rId1") + hidden, attributes='show="0"')
    page, found = read(made.slides(shown), "a.pptx")
    assert (found[0].place, len(found)) == ("hidden slide 1", 3)
    assert page.unread == (("hidden picture", 1),)


def test_groups_charts_objects_and_pictures_as_fill() -> None:
    frame = """<p:graphicFrame><p:nvGraphicFramePr><p:cNvPr id="4" name="F" descr="{}"/>
</p:nvGraphicFramePr><a:graphic><a:graphicData>{}</a:graphicData></a:graphic></p:graphicFrame>"""
    preview = made.slide_picture("rId1", 'id="0" name=""')
    ole = f"""<mc:AlternateContent><mc:Choice Requires="v"><p:oleObj spid="s"/></mc:Choice>
<mc:Fallback><p:oleObj>{preview}</p:oleObj></mc:Fallback></mc:AlternateContent>"""
    fill = """<p:sp><p:nvSpPr><p:cNvPr id="4" name="S"/><p:nvPr/></p:nvSpPr><p:spPr><a:blipFill>
<a:blip r:embed="rId1"/></a:blipFill></p:spPr></p:sp>"""
    group = f"""<p:grpSp><p:nvGrpSpPr><p:cNvPr id="4" name="G" descr="All"/></p:nvGrpSpPr>
{made.slide_picture("rId1")}<p:grpSp><p:nvGrpSpPr><p:cNvPr id="4" name="H"/></p:nvGrpSpPr>{fill}
</p:grpSp></p:grpSp>"""
    shapes = frame.format("Sales", '<c:chart r:id="c"/>') + frame.format("", ole) + fill + group
    _, found = read(made.slides(made.slide(shapes)), "a.pptx")
    assert [(each.kind, each.alt, each.name) for each in found[:5]] == [
        (Kind.CHART, "Sales", ""),
        (Kind.PICTURE, None, ""),
        (Kind.PICTURE, None, ""),
        (Kind.PICTURE, None, "All"),
        (Kind.PICTURE, None, "All"),
    ]
    assert {each.url[-10:] for each in found[1:]} == {"image1.png"}


# EPUB


def test_chapters_in_the_order_of_the_spine() -> None:
    one = made.chapter('<h1>Dogs</h1><p>Before <img src="../a.png"/> after</p>')
    two = made.chapter('<p><img src="../a.png" alt=""/></p>', title="")
    page, found = read(made.book(one, two), "a.epub")
    assert (page.title, page.language) == ("A book", "en-GB")
    assert [each.part for each in found] == ["OEBPS/text/c 2.xhtml", "OEBPS/text/c 1.xhtml"]
    assert [each.page_title for each in found] == ["A book", "Chapter 1"]
    assert [each.alt for each in found] == ["", None]
    assert (found[1].heading, found[1].before, found[1].after) == ("Dogs", "Dogs Before", "after")
    assert {each.url for each in found} == {"file:///site/a.epub#OEBPS/a.png"}
    assert found[1].language == "en"


def test_pictures_outside_of_a_book_are_never_fetched() -> None:
    sources = ("https://example.org/a.png", "../../../etc/passwd", "//example.org/a.png", "no.png")
    body = "".join(f'<img src="{source}" srcset="{source} 2x"/>' for source in sources)
    _, found = read(made.book(made.chapter(body)), "a.epub")
    assert [each.source for each in found] == list(sources)
    assert [(each.url, each.candidates) for each in found] == [("", ())] * 4


@pytest.mark.parametrize("version", ["2.0", "3.0"])
def test_the_svg_of_a_cover_shows_its_picture(version: str) -> None:
    svg = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
 viewBox="0 0 9 9"><image width="9" height="9" xlink:href="../a.png"/></svg>"""
    found = only(made.book(made.chapter(svg), version=version), "a.epub")
    assert (found.kind, found.name) == (Kind.SVG, "")
    assert found.url == "file:///site/a.epub#OEBPS/a.png"
    drawn = only(made.book(made.chapter(svg.replace("</svg>", "<path/></svg>"))), "a.epub")
    assert drawn.source == ""


def test_what_is_not_read_in_a_book_is_counted() -> None:
    opf = made.members_of(made.book(made.chapter("<x:img/><svg:svg>")))["OEBPS/content.opf"]
    svg = b'<item id="s" href="s.svg" media-type="image/svg+xml"/></manifest>'
    opf = opf.replace(b"</manifest>", svg).replace(b"<spine>", b'<spine><itemref idref="s"/>')
    content = made.book(made.chapter("<x:img/><svg:svg>"), parts={"OEBPS/content.opf": opf})
    page, found = read(content, "a.epub")
    assert found == []
    assert dict(page.unread) == {"SVG page": 1, "image with a namespace prefix": 2}


def test_font_obfuscation_is_no_encryption() -> None:
    encryption = """<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<EncryptedData xmlns="http://www.w3.org/2001/04/xmlenc#"><EncryptionMethod Algorithm="{}"/>
</EncryptedData></encryption>"""
    chapter = made.chapter('<img src="../a.png"/>')

    def encrypted(algorithm: str) -> Page:
        parts = {"META-INF/encryption.xml": encryption.format(algorithm)}
        content = made.book(chapter, parts=parts)
        return of("a.epub").read(content, Path("/site/a.epub"), "a.epub")[0]

    assert not encrypted("http://www.idpf.org/2008/embedding").error
    assert not encrypted("http://ns.adobe.com/pdf/enc#RC").error
    assert "DRM" in encrypted("http://www.w3.org/2001/04/xmlenc#aes128-cbc").error


# OpenDocument


def test_frames_of_a_text() -> None:
    body = f"""<text:tracked-changes><text:changed-region><text:deletion><text:p>
{made.frame()}</text:p></text:deletion></text:changed-region></text:tracked-changes>
<text:h>Dogs</text:h><text:p>One <text:span>two</text:span> three {made.frame()} four</text:p>
<draw:frame><draw:text-box><text:p>{made.frame("<svg:title>A title</svg:title>")}</text:p>
</draw:text-box></draw:frame>{made.frame("<svg:desc>A cat</svg:desc>", "https://a.org/b.png")}"""
    page, found = read(made.open_document(body), "a.odt")
    assert (page.title, page.language) == ("A report", "en-GB")
    assert page.unread == (("picture in a tracked deletion", 1),)
    assert [each.alt for each in found] == [None, "A title", "A cat"]
    assert (found[0].heading, found[0].before) == ("Dogs", "Dogs One two three")
    assert (found[0].after, found[0].width_px, found[0].height_px) == ("four", 96, 96)
    assert [each.url[-17:] for each in found] == ["odt#Pictures/a.png"[-17:]] * 2 + [""]


def graphic_style(name: str, properties: str, parent: str = "", family: str = "graphic") -> str:
    return f"""<style:style style:name="{name}" style:family="{family}"
 style:parent-style-name="{parent}"><style:graphic-properties {properties}/></style:style>"""


@pytest.mark.parametrize(
    ("attributes", "alt"),
    [
        ('draw:style-name="marked"', ""),
        ('draw:style-name="child"', ""),
        ('draw:style-name="cleared"', None),
        ('draw:style-name="circular"', None),
        ('draw:style-name="unknown"', None),
        ('presentation:style-name="marked"', None),
        ('presentation:style-name="slide"', ""),
        ('draw:decorative="true"', ""),
        ('loext:decorative="false"', None),
    ],
)
def test_decorative_marks_of_open_documents(attributes: str, alt: str | None) -> None:
    styles = "".join(
        (
            graphic_style("marked", 'loext:decorative="true"'),
            graphic_style("child", "", "common"),
            graphic_style("cleared", 'loext:decorative="false"', "common"),
            graphic_style("circular", "", "circular"),
            graphic_style("slide", 'draw:decorative="true"', family="presentation"),
        )
    )
    common = graphic_style("common", 'loext:decorative="true"') + graphic_style("marked", "")
    parts = {
        "styles.xml": f"<office:document-styles {made.ODF_NAMES}><office:styles>{common}"
        "</office:styles></office:document-styles>"
    }
    body = made.frame("<svg:desc/>", attributes=attributes)
    content = made.open_document(body, text=False, styles=styles, parts=parts)
    _, [found] = read(content, "a.odp")
    assert found.alt == alt


def test_slides_of_a_presentation() -> None:
    body = f"""<draw:page>{made.frame()}<presentation:notes>{made.frame()}</presentation:notes>
</draw:page><draw:page><draw:frame><draw:object xlink:href="./Object 1"/></draw:frame></draw:page>
"""
    _, found = read(made.open_document(body, text=False), "a.odp")
    assert [each.place for each in found] == ["slide 1", "notes of slide 1", "slide 2"]
    assert [each.kind for each in found] == [Kind.PICTURE, Kind.PICTURE, Kind.CHART]
