"""Bring the README's figures and docs/map.md up to date with what they are made from.

    python scripts/figures.py            write what has changed into README.md
    python scripts/figures.py --check    change nothing; exit 1 if something is out of date
    python scripts/figures.py --sheet    also caption samples/ and draw docs/samples.jpg

Between `<!-- figures: PATH -->` and `<!-- end -->` the README repeats the tables and notes of the
file PATH, or with `PATH, table 2` its second table alone: docs/dev.md is written by
`cutline evaluate`, bench/README.md by `make bench`. docs/map.md says what every module is for, in
the words of its first line.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- figures: (\S+?)(?:, table (\d+))? -->\n).*?(<!-- end -->)", re.DOTALL)
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)


def renewed(text: str, root: Path = ROOT) -> str:
    """The README's text with every block as its file has it now, headings left out."""

    def body(match: re.Match[str]) -> str:
        content = (root / match[2]).read_text(encoding="utf-8")
        if match[3]:
            content = TABLE.findall(content)[int(match[3]) - 1]
        lines = content.splitlines()
        kept = "\n".join(line for line in lines if not line.startswith("#")).strip()
        return f"{match[1]}\n{kept}\n\n{match[4]}"

    return BLOCK.sub(body, text)


def drawn_map(source: Path = ROOT / "src" / "cutline") -> str:
    """Every module of the package with the first line of its docstring, as Markdown."""
    lines = ["# Where everything is", "", "Written by `scripts/figures.py`."]
    for path in sorted(source.rglob("*.py"), key=lambda p: (p.parent != source, p)):
        if path.name == "__main__.py":
            continue
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        name = path.relative_to(source).as_posix()
        if path.name == "__init__.py":
            lines += [
                f"\n## {path.parent.relative_to(source.parent).as_posix()}/\n",
                told.partition("\n")[0],
                "",
            ]
        else:
            lines.append(f"- `{name}`: {told.partition(chr(10))[0]}")
    return "\n".join(lines) + "\n"


def draw_sheet(folder: Path, picture: Path, columns: int = 4, side_px: int = 300) -> None:
    """Caption a folder's photographs and draw them on one sheet, each with its caption."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    import cutline
    from cutline.discover import find_images
    from cutline.image import load_image

    paths = list(find_images([folder], recursive=False))
    captions = cutline.load(engine="onnxruntime").caption(paths)
    font, gap, text_px = ImageFont.load_default(17), 14, 70
    rows = -(-len(paths) // columns)
    size = (columns * (side_px + gap) + gap, rows * (side_px * 3 // 4 + text_px + gap) + gap)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for number, (path, caption) in enumerate(zip(paths, captions, strict=True)):
        x = gap + number % columns * (side_px + gap)
        y = gap + number // columns * (side_px * 3 // 4 + text_px + gap)
        photograph = ImageOps.pad(load_image(path), (side_px, side_px * 3 // 4), color="white")
        sheet.paste(photograph, (x, y))
        text = "\n".join(textwrap.wrap(caption.text, 36))
        pen.text((x, y + side_px * 3 // 4 + 6), text, fill="#222", font=font, spacing=3)
    sheet.save(picture, quality=85)


def main() -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, only look")
    parser.add_argument("--sheet", action="store_true", help="draw docs/samples.jpg")
    options = parser.parse_args()
    readme, map_file = ROOT / "README.md", ROOT / "docs" / "map.md"
    outdated = False
    for path, new in (
        (readme, renewed(readme.read_text(encoding="utf-8"))),
        (map_file, drawn_map()),
    ):
        if not path.exists() or path.read_text(encoding="utf-8") != new:
            outdated = True
            if options.check:
                print(f"{path.name} is out of date: run scripts/figures.py", file=sys.stderr)
            else:
                path.write_text(new, encoding="utf-8")
    if options.check:
        return int(outdated)
    if options.sheet:
        draw_sheet(ROOT / "samples", ROOT / "docs" / "samples.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
