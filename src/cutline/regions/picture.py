"""Drawings of described regions: a PNG, or an HTML page that links boxes and phrases."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from cutline.regions.model import ImageRegions
from cutline.templating import data_uri, render, thumbnail

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#b3121d",
)  # fmt: skip
"""Colours of boxes in turn; the first six are Okabe and Ito's for colour-blind readers."""


def draw_regions(picture: Image.Image, found: ImageRegions, *, side_px: int = 1200) -> Image.Image:
    """Draw numbered boxes on a copy of the image, with the phrases below it.

    Args:
        picture: RGB, upright, as `cutline.image.load_image` gives it.
        found: its regions.
        side_px: the longer side of the image in the result; smaller images keep their size.

    Returns:
        RGB.
    """
    small = picture.copy()
    small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    scale_x, scale_y = small.width / picture.width, small.height / picture.height
    font_px = max(12, round(min(small.size) / 30))
    font = ImageFont.load_default(font_px)
    line_px = round(1.5 * font_px)
    lines = [
        f"{number}  {region.phrase}  ({region.label}, {region.confidence:.2f})"
        if region.label
        else f"{number}  {region.phrase}  ({region.confidence:.2f})"
        for number, region in enumerate(found.regions, 1)
    ]
    width = max([small.width, *(round(font.getlength(line)) + 4 * font_px for line in lines)])
    sheet = Image.new("RGB", (width, small.height + line_px * len(lines) + font_px), "#fbfaf7")
    sheet.paste(small, (0, 0))
    draw = ImageDraw.Draw(sheet)
    thick = max(2, font_px // 6)
    for number, region in reversed(list(enumerate(found.regions, 1))):
        colour = COLOURS[(number - 1) % len(COLOURS)]
        left, upper = region.box.x * scale_x, region.box.y * scale_y
        right = left + region.box.width * scale_x
        lower = upper + region.box.height * scale_y
        draw.rectangle(
            (left, upper, max(right, left + 1), max(lower, upper + 1)), None, colour, thick
        )
        badge = f"{number}"
        end = left + font.getlength(badge) + font_px * 0.6
        draw.rectangle((left, upper, end, upper + 1.3 * font_px), colour)
        draw.text((left + font_px * 0.3, upper), badge, "white", font)
    for number, line in enumerate(lines):
        y = small.height + line_px * number + font_px // 2
        colour = COLOURS[number % len(COLOURS)]
        draw.rectangle((font_px * 0.5, y + 3, font_px * 1.3, y + 3 + font_px * 0.8), colour)
        draw.text((font_px * 1.8, y), line, "#1d1c1a", font)
    return sheet


def regions_page(picture: Image.Image, found: ImageRegions, *, side_px: int = 1200) -> str:
    """A self-contained HTML page: pointing at a box or its phrase highlights both.

    Args:
        picture: RGB, upright.
        found: its regions.
        side_px: the longer side of the image within the page.
    """
    jpeg, small = thumbnail(picture, side_px)
    across, down = 100 / found.width, 100 / found.height
    boxes = [
        {
            "region": region,
            "colour": COLOURS[number % len(COLOURS)],
            "left": region.box.x * across,
            "top": region.box.y * down,
            "width": region.box.width * across,
            "height": region.box.height * down,
        }
        for number, region in enumerate(found.regions)
    ]
    return render(
        "regions.html",
        found=found,
        picture=data_uri(jpeg, "image/jpeg"),
        width=small.width,
        height=small.height,
        boxes=boxes,
    )
