"""Crawlers' exports in, in every shape they come in, and out again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutline.errors import DataError
from cutline.site.model import Alt, Kind
from cutline.site.pages.crawler_csv import Export, read_export, write_export

IMAGES = (
    '"Address","Content Type","Size (Bytes)","IMG Inlinks","Indexability"\r\n'
    '"https://x.org/a,b.jpg","image/jpeg","12","3","Indexable"\r\n'
    '"https://x.org/gone.jpg","text/html; charset=utf-8","0","1",""\r\n'
)
INLINKS = {
    "en": ("Type", "Source", "Destination", "Alt Text", "Anchor", "Image", "Hyperlink"),
    "de": ("Typ", "Quelle", "Ziel", "Alt-Text", "Ankertext", "Bild", "Hyperlink"),
    "fr": ("Type", "Source", "Destination", "Texte Alt", "Ancrage", "Image", "Hyperlien"),
    "es": ("Tipo", "Origen", "Destino", "Texto alternativo", "Anclaje", "Imagen", "Hipervínculo"),
    "none": ("c1", "c2", "c3", "c4", "c5", "Image", "Image"),
}


def export_of(folder: Path, content: str | bytes, name: str = "export.csv") -> Export:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_export(path)


def test_images_of_screaming_frog(tmp_path: Path) -> None:
    export = export_of(tmp_path, "\ufeff" + IMAGES)
    [(number, occurrence)] = export.occurrences
    assert (number, occurrence.kind, occurrence.url) == (0, Kind.ROW, "https://x.org/a,b.jpg")
    assert occurrence.alt_state is Alt.MISSING
    assert occurrence.page == "export.csv"
    assert export.problems == [
        (1, "got content of type 'text/html; charset=utf-8'; expected an image")
    ]


@pytest.mark.parametrize("language", ["en", "de", "fr", "es"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_inlinks_in_every_language(
    tmp_path: Path, language: str, delimiter: str, encoding: str
) -> None:
    kind, page, image, alt, anchor, shown, link = INLINKS[language]
    rows = [
        [kind, page, image, alt, anchor],
        [shown, "https://x.org/p/", "/bär.jpg", "", ""],
        [shown, "https://x.org/p/", "/b.jpg", "Ein Bär", ""],
        [link, "https://x.org/p/", "https://x.org/q", "", "hier"],
    ]
    content = "".join(delimiter.join(f'"{cell}"' for cell in row) + "\r\n" for row in rows)
    export = export_of(tmp_path, content.encode(encoding))
    assert [
        (n, occurrence.page, occurrence.url, occurrence.alt) for n, occurrence in export.occurrences
    ] == [
        (0, "https://x.org/p/", "https://x.org/b%C3%A4r.jpg", None),
        (1, "https://x.org/p/", "https://x.org/b.jpg", "Ein Bär"),
    ]
    assert [number for number, _ in export.problems] == [2]


@pytest.mark.parametrize(
    ("cell", "url", "alt"),
    [
        ('"<img class=""a"" src=""/i.png"" alt="""" />"', "https://x.org/i.png", ""),
        ("<img src='/i.png' alt='a > b'>", "https://x.org/i.png", "a > b"),
        ("&lt;img src=&quot;/i.png&quot; alt=&quot;x&quot;&gt;", "https://x.org/i.png", "x"),
        ("&amp;lt;img src=/i.png&amp;gt;", "https://x.org/i.png", None),
        ('"<img data-id=1 src=""/i.png"" alt=""cut sho"', "https://x.org/i.png", "cut sho"),
        ('"<img src=""/i.png"" al"', "https://x.org/i.png", None),
        ('<img src="/i.png" alt="a, b">', "https://x.org/i.png", "a, b"),
        (r'"[""<img src=\""/i.png\"" alt=\""q\"">""]"', "https://x.org/i.png", "q"),
        (
            '<IMG ALT=x data-src="/i.png" src="data:image/gif;base64,R0">',
            "https://x.org/i.png",
            "x",
        ),
    ],
)
def test_whole_tags_in_cells(tmp_path: Path, cell: str, url: str, alt: str | None) -> None:
    export = export_of(tmp_path, f"url,image\nhttps://x.org/p,{cell}\n")
    [(number, occurrence)] = export.occurrences
    assert (number, occurrence.page, occurrence.url, occurrence.alt) == (
        0,
        "https://x.org/p",
        url,
        alt,
    )


def test_a_column_of_bare_tags(tmp_path: Path) -> None:
    tag = '<img style="border: 0; margin: 1px, 2px" src="https://x.org/{}.jpg" alt="" />'
    export = export_of(tmp_path, "images\n" + "\n".join(tag.format(n) for n in range(144)))
    assert [occurrence.url for _, occurrence in export.occurrences] == [
        f"https://x.org/{n}.jpg" for n in range(144)
    ]
    assert {occurrence.alt_state for _, occurrence in export.occurrences} == {Alt.EMPTY}


@pytest.mark.parametrize("header", ["", "URL\n", "Bilder\n"])
def test_a_plain_column_of_urls(tmp_path: Path, header: str) -> None:
    export = export_of(tmp_path, f"{header}https://x.org/a,1.png\nhttps://x.org/render?id=2\nno\n")
    assert [occurrence.url for _, occurrence in export.occurrences] == [
        "https://x.org/a,1.png",
        "https://x.org/render?id=2",
    ]
    assert [number for number, _ in export.problems] == [2]


def test_several_tags_in_a_cell_are_several_occurrences(tmp_path: Path) -> None:
    cell = '"<img src=""/a.png""><img src=""/b.png"">"'
    export = export_of(tmp_path, f"url,images\nhttps://x.org/,{cell}\n")
    assert [(n, occurrence.url) for n, occurrence in export.occurrences] == [
        (0, "https://x.org/a.png"),
        (0, "https://x.org/b.png"),
    ]


def test_a_quote_never_closed_swallows_no_rows(tmp_path: Path) -> None:
    rows = 'https://x.org/p,"<img src=""/{}.png""{}\n'
    content = "url,image\n" + rows.format(0, "") + rows.format(1, '>"') + rows.format(2, '>"')
    export = export_of(tmp_path, content)
    assert [(n, occurrence.url) for n, occurrence in export.occurrences] == [
        (n, f"https://x.org/{n}.png") for n in range(3)
    ]


def test_a_file_on_this_machine_is_no_image_of_a_site(tmp_path: Path) -> None:
    export = export_of(tmp_path, "URL\nfile:///etc/passwd.png\n//x.org/a.png\n")
    assert not export.occurrences
    assert len(export.problems) == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_rows_come_back_as_they_were_with_new_columns(tmp_path: Path, encoding: str) -> None:
    export = export_of(tmp_path, IMAGES.encode(encoding))
    target = tmp_path / "out.csv"
    write_export(export, {0: {"Address": "1", "draft": 'a "b", c'}}, target)
    old = IMAGES.splitlines()
    assert target.read_bytes().decode(encoding).splitlines() == [
        f"{old[0]},Address (2),draft",
        f'{old[1]},1,"a ""b"", c"',
        f"{old[2]},,",
    ]
    again = read_export(target)
    assert again.occurrences == [(0, again.occurrences[0][1])]
    write_export(again, {}, target)
    assert read_export(target).rows == again.rows


def test_rows_without_a_header_get_one_for_the_new_columns(tmp_path: Path) -> None:
    export = export_of(tmp_path, "https://x.org/a.png\r\nhttps://x.org/b,c.png\r\n")
    write_export(export, {1: {"alt": "A dog"}}, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == (
        b'image,alt\r\nhttps://x.org/a.png,\r\n"https://x.org/b,c.png",A dog\r\n'
    )


def test_words_beyond_the_encoding_turn_the_file_into_utf8(tmp_path: Path) -> None:
    export = export_of(tmp_path, "Bild;Größe\nhttps://x.org/a.png;1\n".encode("cp1252"))
    write_export(export, {0: {"alt": "犬"}}, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes().decode("utf-8-sig") == (
        "Bild;Größe;alt\nhttps://x.org/a.png;1;犬\n"
    )


def test_no_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file or directory; expected a table"):
        read_export(tmp_path / "none.csv")


HEADERS = {  # type, page, image, alt, the type of an image
    "en": "Type,Source,Destination,Alt Text,Image",
    "de": "Typ,Quelle,Ziel,Alt-Text,Bild",
    "fr": "Type,De,Vers,Texte alternatif,Image",
    "es": "Tipo,Desde,Hacia,Texto alternativo,Imagen",
    "it": "Tipo,Origine,Destinazione,Testo alternativo,Immagine",
    "pt": "Tipo,Origem,Destino,Texto alternativo,Imagem",
    "nl": "Type,Bron,Doel,Alternatieve tekst,Afbeelding",
    "pl": "Typ,Źródło,Cel,Tekst alternatywny,Obraz",
    "ru": "Тип,Источник,Назначение,Альтернативный текст,Изображение",
    "uk": "Тип посилання,Джерело,Призначення,Альтернативний текст,Зображення",
    "ja": "タイプ,リンク元,リンク先,代替テキスト,画像",
    "zh": "类型,来源,目标,替代文本,图片",
    "zh-tw": "類型,來源,目標,替代文字,圖片",
    "ko": "유형,소스,대상,대체 텍스트,이미지",
    "sv": "Typ,Källa,Mål,Alt-text,Bild",
    "da": "Type,Kilde,Mål,Alternativ tekst,Billede",
    "fi": "Tyyppi,Lähde,Kohde,Vaihtoehtoinen teksti,Kuva",
    "tr": "Tür,Kaynak,Hedef,Alternatif metin,Görsel",
    "vi": "Loại,Nguồn,Đích,Văn bản thay thế,Hình ảnh",
    "id": "Tipe,Sumber,Tujuan,Teks alternatif,Gambar",
    "cs": "Typ,Zdroj,Cíl,Alternativní text,Obrázek",
    "hu": "Típus,Forrás,Cél,Alternatív szöveg,Kép",
    "ro": "Tip,Sursă,Destinație,Text alternativ,Imagine",
}
PAGES = {
    "en": "Page URL,Image URL,Alt text",
    "de": "URL der Seite,Bild-URL,Alternativtext",
    "fr": "URL de la page,URL de l'image,Texte alternatif",
    "es": "URL de la página,URL de la imagen,Texto alt",
    "nl": "Pagina-URL,URL van de afbeelding,Alt-tekst",
    "pl": "Adres URL strony,Adres URL obrazu,Alt",
    "ru": "URL страницы,URL изображения,ALT текст",
    "ja": "ページ URL,画像 URL,altテキスト",
    "zh": "页面网址,图片网址,Alt 文本",
    "sv": "Sidans URL,Bildens URL,Alt",
    "tr": "Sayfa URL,Görsel URL,Alt metin",
    "ahrefs": "Is found on page,Image URL,Alt",
    "other": "Where,What,Alt",
}
LEGACY = {"pl": "cp1250", "ru": "cp1251", "ja": "cp932", "zh": "gb18030"}


@pytest.mark.parametrize("language", HEADERS)
@pytest.mark.parametrize(
    "above", ["", "All Inlinks\n", "https://e.com/\n", '"Crawl of e.com, May"\n\n', "sep=,\n"]
)
def test_headers_of_every_language(tmp_path: Path, language: str, above: str) -> None:
    *names, shown = HEADERS[language].split(",")
    rows = f"{shown},https://e.com/,https://e.com/render?id=1,\n"
    rows += "Hyperlink,https://e.com/,https://e.com/about,\n"
    rows += f"{shown},https://e.com/,https://e.com/b.jpg,A dog\n"
    content = f"{above}{','.join(names)}\n{rows}"
    encodings = ["utf-8", *([LEGACY[language]] if language in LEGACY else [])]
    for encoding in encodings:
        export = export_of(tmp_path, content.encode(encoding))
        assert [
            (n, occurrence.page, occurrence.url, occurrence.alt)
            for n, occurrence in export.occurrences
        ] == [
            (0, "https://e.com/", "https://e.com/render?id=1", None),
            (2, "https://e.com/", "https://e.com/b.jpg", "A dog"),
        ]
        assert [number for number, _ in export.problems] == [1]
        assert export.dialect.encoding == encoding


@pytest.mark.parametrize("language", PAGES)
def test_pages_and_images_of_every_language(tmp_path: Path, language: str) -> None:
    rows = "https://e.com/p,https://e.com/a.jpg,\nhttps://e.com/p,https://e.com/b.jpg,A dog\n"
    export = export_of(tmp_path, f"{PAGES[language]}\n{rows}")
    assert [
        (occurrence.page, occurrence.url, occurrence.alt) for _, occurrence in export.occurrences
    ] == [
        ("https://e.com/p", "https://e.com/a.jpg", None),
        ("https://e.com/p", "https://e.com/b.jpg", "A dog"),
    ]


def test_cells_that_span_lines(tmp_path: Path) -> None:
    body = '"<p>Soft</p>\n<ul>\n<li>cotton; blue</li>\n<img src=""/size.png"">\n</ul>"'
    text = '"' + "\n".join(f"line {n}, a; b" for n in range(250)) + '"'
    for cell in (body, text):
        for d in ",;":
            rows = [d.join(["Handle", "Body (HTML)", "Image Src", "Image Alt Text"])]
            rows += [d.join(["mug", cell, f"https://e.com/{n}.jpg", ""]) for n in range(4)]
            export = export_of(tmp_path, "\n".join(rows))
            assert [occurrence.url for _, occurrence in export.occurrences] == [
                f"https://e.com/{n}.jpg" for n in range(4)
            ]
            write_export(export, {n: {"cutline_alt": "A\nmug"} for n in range(4)}, tmp_path / "o")
            again = read_export(tmp_path / "o")
            assert [row[4] for row in again.rows] == ["A\nmug"] * 4
            assert [row[:4] for row in again.rows] == [row[:4] for row in export.rows]


SHOPS = {
    "shopify": (
        "Handle,Body (HTML),Type,Image Src,Image Alt Text,Variant Image\n"
        'a,"<p>x</p><img src=""https://e.com/size.png"">",Shirts,https://e.com/1.jpg?v=1,Blue,\n'
        "a,,,https://e.com/2.jpg?v=1,,https://e.com/3.jpg\n",
        [("1.jpg?v=1", "Blue"), ("2.jpg?v=1", None), ("3.jpg", None)],
    ),
    "woocommerce": (
        "ID,Type,SKU,Name,Images\n"
        '1,simple,a,Mug,"https://e.com/1.jpg, https://e.com/2.jpg"\n'
        '2,variable,b,Hat,"https://e.com/w_3,h_4/3.jpg|https://e.com/4.jpg"\n',
        [("1.jpg", None), ("2.jpg", None), ("w_3,h_4/3.jpg", None), ("4.jpg", None)],
    ),
    "magento": (
        "sku,product_type,base_image,base_image_label,small_image,small_image_label,"
        "additional_images,additional_image_labels\n"
        "a,simple,https://e.com/1.jpg,Front,https://e.com/1.jpg,Front,"
        '"https://e.com/2.jpg,https://e.com/3.jpg","Back,Side"\n',
        [("1.jpg", "Front"), ("2.jpg", "Back"), ("3.jpg", "Side")],
    ),
    "prestashop": (
        'ID;Image URLs (x,y,z...);Image alt texts (x,y,z...)\n1;"https://e.com/1.jpg,'
        'https://e.com/2.jpg";"Front,Back"\n',
        [("1.jpg", "Front"), ("2.jpg", "Back")],
    ),
    "bigcommerce": (
        "Product Name,Product Image File - 1,Product Image Description - 1,"
        "Product Image File - 2,Product Image Description - 2\n"
        "Mug,https://e.com/1.jpg,Front,https://e.com/2.jpg,Back\n",
        [("1.jpg", "Front"), ("2.jpg", "Back")],
    ),
    "google": (
        "id\tlink\timage_link\tadditional_image_link\n"
        "1\thttps://e.com/p\thttps://e.com/1.jpg\thttps://e.com/2.jpg,https://e.com/3.jpg\n",
        [("1.jpg", None), ("2.jpg", None), ("3.jpg", None)],
    ),
    "json": (
        'sku,images\na,"[""https:\\/\\/e.com\\/1.jpg"",""https:\\/\\/e.com\\/2.jpg""]"\n',
        [("1.jpg", None), ("2.jpg", None)],
    ),
    "lines": (
        'sku,Hosted Image URLs\na,"https://e.com/1.jpg\nhttps://e.com/2.jpg"\n'
        "b,https://e.com/3.jpg https://e.com/4.jpg\n",
        [("1.jpg", None), ("2.jpg", None), ("3.jpg", None), ("4.jpg", None)],
    ),
}


@pytest.mark.parametrize("shop", SHOPS)
def test_products_of_shops(tmp_path: Path, shop: str) -> None:
    content, images = SHOPS[shop]
    export = export_of(tmp_path, content)
    assert [
        (occurrence.url.removeprefix("https://e.com/"), occurrence.alt)
        for _, occurrence in export.occurrences
    ] == images
    assert not export.problems


def test_a_row_without_an_image_says_so(tmp_path: Path) -> None:
    export = export_of(tmp_path, "Handle,Image Src\na,https://e.com/1.jpg\na,\n")
    assert export.problems == [(1, "got no image; expected its absolute URL or its tag")]


def test_counts_and_lengths_are_not_alts(tmp_path: Path) -> None:
    export = export_of(tmp_path, "Address,Missing alt,Alt Text 1\nhttps://e.com/a.jpg,3,A dog\n")
    assert [occurrence.alt for _, occurrence in export.occurrences] == ["A dog"]
    export = export_of(tmp_path, "Address,Alt Text 1 Length\nhttps://e.com/a.jpg,5\n")
    assert [occurrence.alt for _, occurrence in export.occurrences] == [None]


def test_marks_escaped_by_backslashes_come_back_so(tmp_path: Path) -> None:
    content = (
        'Source,Destination,Alt\n"https://e.com","https://e.com/a.jpg","The \\"big\\", red dog"\n'
    )
    export = export_of(tmp_path, content)
    assert [occurrence.alt for _, occurrence in export.occurrences] == ['The "big", red dog']
    write_export(export, {0: {"new": 'a "b", c\\'}}, tmp_path / "out.csv")
    written = (tmp_path / "out.csv").read_text()
    assert written.splitlines()[1] == content.splitlines()[1] + ',"a \\"b\\", c\\\\"'
    assert read_export(tmp_path / "out.csv").rows[0][3] == 'a "b", c\\'


@pytest.mark.parametrize("alt", ["=1+1", " =1", "\n=1", "\uff1d1", "@x", "-x"])
def test_new_cells_are_no_formulas(tmp_path: Path, alt: str) -> None:
    export = export_of(tmp_path, "URL\tAlt\nhttps://x.org/a.png\t\n".replace("\t", ","))
    write_export(export, {0: {"new": alt}}, tmp_path / "out.csv")
    assert read_export(tmp_path / "out.csv").rows[0][2] == f"'{alt}"


CELL = st.text(alphabet=st.sampled_from("ab,;\t\"'\r\n<>&/.:= \\\0ä\ufeffimgsrc"), max_size=20)
TABLE = st.binary(max_size=300) | st.lists(
    st.lists(CELL | st.sampled_from(["https://x.org/a.png", '"<img src=""a"">"', "<img src='"])),
    max_size=8,
).map(lambda rows: "\n".join(",".join(row) for row in rows).encode())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=TABLE)
def test_any_table_gives_an_occurrence_or_a_problem_for_each_row(
    tmp_path: Path, content: bytes
) -> None:
    export = export_of(tmp_path, content)
    told = {number for number, _ in export.occurrences} ^ {number for number, _ in export.problems}
    assert told == set(range(len(export.rows)))
    same = tmp_path / "same.csv"
    write_export(export, {}, same)
    assert same.read_bytes() == content
    write_export(export, {0: {"new": "x"}}, same)


@pytest.mark.parametrize(
    ("cell", "sources"),
    [
        ('[{"src": "https://x.org/a.png", "alt": "A"}]', ["https://x.org/a.png"]),
        ('{"images": ["https://x.org/a.png", "/b.png"]}', ["https://x.org/a.png", "/b.png"]),
        (
            "['https://x.org/a.png', 'https://x.org/b.png']",
            ["https://x.org/a.png", "https://x.org/b.png"],
        ),
        ("https://x.org/a.png 300w, https://x.org/b.png 600w", ["https://x.org/b.png"]),
        (
            "https://x.org/a.png ! alt : A, b ! title : , https://x.org/b.png ! alt : ",
            ["https://x.org/a.png", "https://x.org/b.png"],
        ),
    ],
)
def test_cells_with_json_and_srcset(tmp_path: Path, cell: str, sources: list[str]) -> None:
    quoted = cell.replace('"', '""')
    export = export_of(tmp_path, f'url,images\nhttps://x.org/p,"{quoted}"\n')
    found = [occurrence.source for _, occurrence in export.occurrences]
    assert found == sources


def test_documents_are_no_images(tmp_path: Path) -> None:
    export = export_of(tmp_path, "url,img\nhttps://x.org/p,https://x.org/a.pdf?x=1\n")
    assert not export.occurrences
    [(_, problem)] = export.problems
    assert problem == "got 'https://x.org/a.pdf?x=1'; expected an image"
