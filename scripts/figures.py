"""Bring the README's figures up to date with the files that hold them.

    python scripts/figures.py            write what has changed into README.md
    python scripts/figures.py --check    change nothing; exit 1 if something is out of date
    python scripts/figures.py --sheet    also caption samples/ anew and draw docs/samples.jpg

Between `<!-- figures: PATH -->` and `<!-- end -->` the README repeats the tables and notes of the
file PATH: docs/dev.md is written by `cutline evaluate`, bench/README.md by `make bench`.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(text: str, root: Path = ROOT) -> str:
    """The README's text with every block as its file has it now, headings left out."""

    def body(match: re.Match[str]) -> str:
        lines = (root / match[2]).read_text(encoding="utf-8").splitlines()
        kept = "\n".join(line for line in lines if not line.startswith("#")).strip()
        return f"{match[1]}\n{kept}\n\n{match[3]}"

    return BLOCK.sub(body, text)


def draw_sheet(folder: Path, picture: Path, columns: int = 4, side_px: int = 300) -> None:
    """Caption a folder's photographs and draw them on one sheet, each with its caption."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    import cutline
    from cutline.image import find_images, load_image

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
        photograph = ImageOps.fit(
            load_image(path), (side_px, side_px * 3 // 4), centering=(0.5, 0.3)
        )
        sheet.paste(photograph, (x, y))
        text = "\n".join(textwrap.wrap(caption.text, 36))
        pen.text((x, y + side_px * 3 // 4 + 6), text, fill="#222", font=font, spacing=3)
    sheet.save(picture, quality=85)


def main() -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, only look")
    parser.add_argument("--sheet", action="store_true", help="draw docs/samples.jpg anew")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    new = renewed(text)
    if options.check:
        if new != text:
            print("README.md is out of date: run python scripts/figures.py", file=sys.stderr)
        return int(new != text)
    readme.write_text(new, encoding="utf-8")
    if options.sheet:
        draw_sheet(ROOT / "samples", ROOT / "docs" / "samples.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
