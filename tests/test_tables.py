"""Tables as people and programs write them: encodings, delimiters, quotation marks, titles."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutline.errors import DataError
from cutline.tables import (
    Table,
    escape_formula,
    format_record,
    parse_table,
    read_table,
    unescape_formula,
)

CAPTIONS = [[f"{n}.jpg", f"a dog, number {n}"] for n in range(60)]


def table(text: str, encoding: str = "utf-8") -> Table:
    return parse_table(text.encode(encoding))


def cells(found: Table) -> list[list[str]]:
    return [list(record.cells) for record in found if record.cells]


def written(rows: list[list[str]], **options: str) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, **options).writerows(rows)
    return buffer.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_delimiters_and_line_endings(encoding: str, delimiter: str, newline: str) -> None:
    rows = [["image", "caption"], ["a.jpg", f"un été{delimiter} 1"], ["b.jpg", 'say "hi"']]
    found = table(written(rows, delimiter=delimiter, lineterminator=newline), encoding)
    assert cells(found) == rows
    assert found.dialect.delimiter == delimiter
    assert found.dialect.newline == newline
    assert found.dialect.byte_order_mark == (encoding not in ("utf-8", "utf-16-le"))


TEXT = st.text(alphabet="ab,;\t|\"'\r\n \\é", max_size=8)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.lists(TEXT, min_size=2, max_size=4), min_size=1, max_size=6))
def test_what_csv_writes_is_read_back(rows: list[list[str]]) -> None:
    text = written(rows, quoting=csv.QUOTE_ALL)
    found = parse_table(text.encode(), delimiter=",", quotes=True)
    if not found.dialect.backslash and not found.dialect.preamble:
        assert cells(found) == rows


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="ab,;\t|\"'\r\n \\<.", max_size=60))
def test_nothing_is_lost_of_any_text(text: str) -> None:
    found = table(text)
    assert found.dialect.preamble + "".join(record.raw for record in found) == text
    lines = [record.line for record in found]
    assert lines == sorted(set(lines))


def test_a_cell_may_span_lines() -> None:
    rows = [["page", "body", "image"]]
    rows += [[f"/{n}", "\n".join(f"line {i}, a; b" for i in range(300)), "a.jpg"] for n in (1, 2)]
    found = table(written(rows, delimiter=";"))
    assert cells(found) == rows
    assert [record.line for record in found] == [1, 2, 302]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("columns", [1, -1])
@pytest.mark.parametrize(
    "bad", ['"a dog and a cat', '"Stop!", said the dog. "Now', 'a dog "and', '"', '5" nails']
)
def test_an_unclosed_quote_swallows_no_record(delimiter: str, columns: int, bad: str) -> None:
    rows = [[f"{n}.jpg", f"a dog{delimiter} number {n}"][::columns] for n in range(60)]
    lines = written([["image", "caption"][::columns], *rows], delimiter=delimiter).splitlines()
    lines[7] = delimiter.join(["6.jpg", bad][::columns])
    found = table("\n".join(lines))
    records = list(found)
    assert [record.raw.strip() for record in records] == lines
    images = [record.cells[0 if columns == 1 else -1] for record in records[1:]]
    assert images == [row[0 if columns == 1 else -1] for row in rows]
    problems = [record.line for record in records if record.problem]
    assert problems == ([8] if bad.startswith('"') else [])
    if problems:
        with pytest.raises(DataError, match="line 8: got a quotation mark that nothing closes"):
            list(found.rows())
    assert len(list(found.rows(problems="repair"))) == 60


def test_a_quote_closed_in_the_next_row_swallows_no_record() -> None:
    found = table('image,caption\na.jpg,"A cat\nb.jpg,A bus"\nc.jpg,Men\n')
    assert [record.line for record in found] == [1, 2, 3, 4]
    assert [record.line for record in found if record.problem] == [2]


def test_marks_in_a_file_without_quoted_cells_are_text() -> None:
    for delimiter in "\t|":
        found = table(f'a.jpg{delimiter}"Stop\nb.jpg{delimiter}"A dog" runs\n')
        assert [record.cells[1] for record in found] == ['"Stop', '"A dog" runs']
        assert not any(record.problem for record in found)


def test_marks_inside_a_quoted_cell_need_not_be_doubled() -> None:
    text = 'page,body,image\n/1,"<p class="a">Hi,\nyou</p>",a.jpg\n/2,"<b id="x">",b.jpg\n'
    assert cells(table(text))[1:] == [
        ["/1", '<p class="a">Hi,\nyou</p>', "a.jpg"],
        ["/2", '<b id="x">', "b.jpg"],
    ]


def test_marks_escaped_by_backslashes() -> None:
    text = 'image,caption\na.jpg,"a \\"big\\", brown dog"\nb.jpg,"a\\\\b"\nc.jpg,"C:\\x"\n'
    assert [row[1] for row in cells(table(text))[1:]] == ['a "big", brown dog', "a\\b", "C:\\x"]
    windows = 'path,caption\n"C:\\pictures\\","a dog"\n"C:\\more\\","a, cat"\n'
    assert cells(table(windows))[1:] == [["C:\\pictures\\", "a dog"], ["C:\\more\\", "a, cat"]]


@pytest.mark.parametrize(
    "above",
    ["", "sep=;\n", '"sep=;"\n', "\n\n", "All inlinks\n", '"Crawl of x.org, May"\n\n', "Crawl;;\n"],
)
def test_what_stands_above_the_header(above: str) -> None:
    found = table(f"{above}page;image;alt\n/;a.jpg;x\n/;b.jpg;y\n")
    assert found.header == ("page", "image", "alt")
    assert found.dialect.preamble == above
    assert next(iter(found)).line == above.count("\n") + 1


def test_lists_without_columns() -> None:
    urls = "https://x.org/a,1.png\nhttps://x.org/render?id=2\nno\n"
    assert [record.cells for record in table(urls)] == [(line,) for line in urls.split()]
    tags = "images\n" + '<img src="a.png" alt="a, b; c">\n' * 9
    assert {len(record.cells) for record in table(tags)} == {1}


def test_rows_by_name() -> None:
    found = table("image, caption ,,caption\n a.jpg,x\n\nb.jpg,y,,z,,\n")
    assert list(found.rows()) == [
        {"image": " a.jpg", "caption": "x"},
        {"image": "b.jpg", "caption": "y"},
    ]
    torn = table("image,caption\na.jpg,x\nb.jpg,a dog, running\n")
    with pytest.raises(DataError, match="line 3: got 3 cells; expected 2"):
        list(torn.rows())
    assert list(torn.rows(problems="repair"))[1]["caption"] == "a dog, running"


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="Is a directory"):
        read_table(tmp_path)
    path = tmp_path / "a.csv"
    path.write_bytes("image,caption\na.jpg,Bär\n".encode("cp1252"))
    with pytest.raises(DataError, match="not utf-8 text"):
        read_table(path)
    assert read_table(path, encodings=("utf-8", "cp1252")).dialect.encoding == "cp1252"
    with pytest.raises(DataError, match="over 0 MB"):
        read_table(path, max_bytes=3)
    path.write_bytes(b"")
    assert read_table(path).header == ()


def test_broken_quotes_take_linear_time() -> None:
    for line in ('a.jpg,"x\n', 'a.jpg,"x"y\n', '"\n', 'a.jpg,"x""\n', '""","\n'):
        start = time.perf_counter()
        found = parse_table(("image,caption\n" + line * 10_000).encode())
        assert sum(1 for _ in found) > 1
        assert time.perf_counter() - start < 10, line


@pytest.mark.parametrize("cell", ["a", 'a "b"', "a,b", "a\nb", "a\rb", "a\r\nb", "", " a"])
def test_a_record_is_read_back(cell: str) -> None:
    found = parse_table(format_record(["x", cell]).encode(), delimiter=",", quotes=True)
    assert cells(found) == [["x", cell]]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "=1+1",
            "+1",
            "-1",
            "@A1",
            "\t=1",
            "\r=1",
            "\n=1",
            " =1",
            "  @x",
            "'=1",
            "''-x",
            "\nHello",
        ),
        *("\uff1d1", "\uff0b1", "\uff0d1", "\uff20x", "\u00a0=1", "\ufeff=1", "\u200b=1"),
        "\x00=1",
        "\x01+1",
        "\u202e-1",
        "\xad@a",
        "\u200e=1",
        "\ufe66a1",
        " \ufe62a1",
    ],
)
def test_formulas_are_escaped_and_restored(text: str) -> None:
    assert escape_formula(text) == f"'{text}"
    assert unescape_formula(f"'{text}") == text


@pytest.mark.parametrize("text", ["", "A dog", "a = b", "'tis", " 'x", "3-1", "\u201ca\u201d"])
def test_other_text_is_not_escaped(text: str) -> None:
    assert escape_formula(text) == unescape_formula(text) == text


@pytest.mark.parametrize(
    "title", ["Images report\nGenerated 2024-01-01\n\n", "Images, report\nhttps://a.org crawled\n"]
)
def test_several_lines_of_title_above_the_header(title: str) -> None:
    table = parse_table(
        f"{title}Page URL,Image URL,Alt\nhttps://a.org/,https://a.org/i.png,x\n".encode()
    )
    assert table.header == ("Page URL", "Image URL", "Alt")
    assert table.dialect.preamble == title


def test_cells_of_several_lines_with_escaped_marks() -> None:
    text = 'url,alt\nhttps://a.org/,"a \\"b\\" ; | \n c"\nhttps://b.org/,x\n'
    table = parse_table(text.encode())
    assert [record.cells for record in table][1:] == [
        ("https://a.org/", 'a "b" ; | \n c'),
        ("https://b.org/", "x"),
    ]
