"""Attention maps: one per word, as a PNG or an HTML page, with the candidates of the search.

As in Xu et al. (2015), figure 5, each word has a copy of the image that is highlighted by the
attention for that word. Attention covers the whole image, which the model sees scaled to a square.
"""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cutline import templating as page
from cutline.caption import Attention, Caption
from cutline.errors import OptionError

_PAPER, _INK, _FAINT = (251, 250, 247), (29, 28, 26), (95, 91, 83)
_AMBER = (255, 176, 32)
_GLOW, _SHADE = 0.4, 0.7  # maximum opacity of amber and of darkness
_GAP_PX = 14


def veil(weights: NDArray[np.float32], grid: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """An overlay for an image: amber where attention is high, dark where it is low.

    Args:
        weights: (N,), non-negative, row by row of the grid.
        grid: rows and columns; their product is N.
        size: width and height of the result, px.

    Returns:
        a smooth RGBA image, scaled so that the cell with the highest attention is the brightest.
    """
    cells = weights.reshape(grid).astype(np.float32)
    cells = cells / max(float(cells.max()), 1e-12)
    smooth = Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
    light = np.asarray(smooth).clip(0, 1)[..., None]  # (height, width, 1)
    glow, shade = _GLOW * light, _SHADE * (1 - light)
    colour = np.array(_AMBER) * glow / np.maximum(glow + shade, 1e-6)
    return Image.fromarray(np.uint8(np.concatenate([colour, 255 * (glow + shade)], 2).round()))


def storyboard(
    picture: Image.Image, caption: Caption, *, columns: int = 4, cell_px: int = 300
) -> Image.Image:
    """The image with its caption, then a highlighted copy for each word.

    Args:
        picture: RGB, upright, from `cutline.image.load_image`.
        caption: of this image, with attention.
        columns: number of columns.
        cell_px: the longer side of each image, pixels.

    Raises:
        OptionError: the caption has no attention.
    """
    attention = _attention(caption)
    small = picture.copy()
    small.thumbnail((cell_px, cell_px), Image.Resampling.LANCZOS)
    width, height = small.size
    line_px = round(cell_px * 0.09)
    word_font, title_font = ImageFont.load_default(line_px), ImageFont.load_default(line_px * 1.15)

    cells = [("", small)]
    for word, weights in zip(attention.words, attention.weights, strict=True):
        lit = Image.alpha_composite(
            small.convert("RGBA"), veil(weights, attention.grid, small.size)
        )
        cells.append((word, lit.convert("RGB")))
    columns = min(columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    sheet_px = columns * (width + _GAP_PX) + _GAP_PX
    title = _wrap(caption.text, title_font, sheet_px - 2 * _GAP_PX)
    top = _GAP_PX + round(len(title) * line_px * 1.5)
    step = height + line_px + round(1.6 * _GAP_PX)
    sheet = Image.new("RGB", (sheet_px, top + rows * step + _GAP_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title):
        draw.text((_GAP_PX, _GAP_PX + number * line_px * 1.5), line, _INK, title_font)
    for number, (word, cell) in enumerate(cells):
        x = _GAP_PX + number % columns * (width + _GAP_PX)
        y = top + number // columns * step
        sheet.paste(cell, (x, y))
        draw.text((x, y + height + 4), word or caption.model, _INK if word else _FAINT, word_font)
    return sheet


def explanation(picture: Image.Image, caption: Caption, *, side_px: int = 900) -> str:
    """A self-contained HTML page with the image, highlighted for the selected word.

    Args:
        picture: RGB, upright.
        caption: of this image, with attention; alternatives and labels are shown if it has them.
        side_px: the longer side of the image in the page, pixels.

    Raises:
        OptionError: the caption has no attention.
    """
    attention = _attention(caption)
    jpeg, small = page.thumbnail(picture, side_px)
    rows, columns = attention.grid
    size = (6 * columns, 6 * rows)  # the browser smooths the rest
    words = [
        {"word": word, "veil": page.data_uri(png(veil(weights, attention.grid, size)), "image/png")}
        for word, weights in zip(_sentence(attention.words), attention.weights, strict=True)
    ]
    return page.render(
        "explain.html",
        caption=caption,
        picture=page.data_uri(jpeg, "image/jpeg"),
        width=small.width,
        height=small.height,
        words=words,
    )


def candidates(caption: Caption) -> str:
    """The beam's captions as text, best first: rank, score in nats per token, sentence."""
    ranked = [(caption.score, caption.text), *((a.score, a.text) for a in caption.alternatives)]
    lines = [f"{rank:>2}  {score:7.3f}  {text}" for rank, (score, text) in enumerate(ranked, 1)]
    return "\n".join([" #   nats/token, ranked with the length penalty", *lines])


def png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _attention(caption: Caption) -> Attention:
    if caption.attention is None or not len(caption.attention.words):
        raise OptionError(
            f"got {caption.model}, which has no attention; expected a captioner with attention "
            "over regions, such as the default model"
        )
    return caption.attention


def _sentence(words: tuple[str, ...]) -> list[str]:
    """The words with an initial capital and a final full stop."""
    *others, last = words
    first, *rest = [*others, f"{last}."]
    return [first[:1].upper() + first[1:], *rest]


def _wrap(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int
) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    return [line for line in lines if line]
