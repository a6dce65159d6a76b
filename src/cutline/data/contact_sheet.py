"""Contact sheet of a collection, and plots of its captions."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from cutline.data import Collection, Example
from cutline.errors import DataError, ImageError
from cutline.image import load_image
from cutline.text import CleanUp, choose_clean_up

_COLUMNS, _WIDTH, _HEIGHT = 4, 380, 285
_MARGIN, _GAP, _PADDING, _LINE, _SPACE = 40, 24, 16, 20, 8
_PAPER, _CARD, _MAT, _INK, _FAINT = "#f4f2ee", "#ffffff", "#e7e4de", "#23211d", "#8a867d"
_BLUE, _ALARM = "#3b6ea8", "#a8322d"


def show(collection: Collection, folder: Path, *, count: int = 24, seed: int = 0) -> list[Path]:
    """Write a contact sheet and plots of caption lengths and word frequencies.

    Args:
        collection: the data to show.
        folder: gets `contact-sheet.jpg`, `caption-lengths.png` and `words.png`.
        count: images on the sheet, drawn from all splits.
        seed: another seed selects others.

    Returns:
        The files written.

    Raises:
        DataError: the collection is empty.
    """
    members = [(split, each) for split, some in collection.splits.items() for each in some]
    if not members:
        raise DataError(f"got {collection.name} without images; expected some")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = random.Random(seed).sample(members, min(count, len(members)))
    images = "1 image" if len(members) == 1 else f"{len(members):,} images"
    title = f"{collection.name}: {len(drawn)} of {images}"
    files = [folder / name for name in ("contact-sheet.jpg", "caption-lengths.png", "words.png")]
    contact_sheet(drawn, title).save(files[0], quality=88)
    chosen = choose_clean_up(text for _, example in members for text in example.captions)
    clean_up = CleanUp.named(chosen)
    words = {
        split: [clean_up.words(caption) for example in some for caption in example.captions]
        for split, some in collection.splits.items()
        if some
    }
    with warnings.catch_warnings():  # a font without the letters of a script draws boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        _lengths(words).savefig(files[1], dpi=120)
        _words([caption for some in words.values() for caption in some]).savefig(files[2], dpi=120)
    return files


def contact_sheet(examples: Sequence[tuple[str, Example]], title: str) -> Image.Image:
    """Images in rows, each with its captions and split below."""
    cards = [_card(split, example) for split, example in examples]
    rows = [cards[i : i + _COLUMNS] for i in range(0, len(cards), _COLUMNS)]
    heights = [max(card.height for card in row) for row in rows]
    columns = min(_COLUMNS, len(cards))
    width = 2 * _MARGIN + columns * _WIDTH + (columns - 1) * _GAP
    top = _MARGIN + 50
    height = top + sum(heights) + _GAP * (len(rows) - 1) + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    ImageDraw.Draw(sheet).text((_MARGIN, _MARGIN - 8), title, _INK, _font(26, "bold"))
    for row, row_height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            left = _MARGIN + column * (_WIDTH + _GAP)
            whole = Image.new("RGB", (_WIDTH, row_height), _CARD)
            whole.paste(card)
            corners = Image.new("L", whole.size)
            ImageDraw.Draw(corners).rounded_rectangle((0, 0, _WIDTH - 1, row_height - 1), 10, 255)
            sheet.paste(whole, (left, top), corners)
        top += row_height + _GAP
    return sheet


def _card(split: str, example: Example) -> Image.Image:
    plain, small = _font(15), _font(12)
    room = _WIDTH - 2 * _PADDING
    paragraphs = [(_wrapped(text, plain, room), plain, _INK) for text in example.captions]
    paragraphs = paragraphs or [(["no caption"], plain, _FAINT)]
    paragraphs.append(([_cut(f"{split}  {example.name}", small, room)], small, _FAINT))
    height = sum(_LINE * len(lines) + _SPACE for lines, _, _ in paragraphs)
    card = Image.new("RGB", (_WIDTH, _HEIGHT + 2 * _PADDING + height - _SPACE), _CARD)
    card.paste(_MAT, (0, 0, _WIDTH, _HEIGHT))
    draw = ImageDraw.Draw(card)
    try:
        picture = load_image(example.image, around_px=_HEIGHT)
        scale = min(_WIDTH / picture.width, _HEIGHT / picture.height)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        card.paste(picture, ((_WIDTH - size[0]) // 2, (_HEIGHT - size[1]) // 2))
    except ImageError as error:
        reason = _cut(error.reason, plain, room)
        draw.text((_WIDTH / 2, _HEIGHT / 2), reason, _ALARM, plain, anchor="mm")
    top = _HEIGHT + _PADDING
    for lines, font, ink in paragraphs:
        for line in lines:
            draw.text((_PADDING, top), line, ink, font)
            top += _LINE
        top += _SPACE
    return card


def _font(size_px: int, weight: str = "normal") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont(f"DejaVu Sans:{weight}"), size_px)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, room_px: int, most: int = 3) -> list[str]:
    """A text on as many lines as it takes, the last allowed one cut."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < most - 1:
        taken = 1
        while taken < len(words) and font.getlength(" ".join(words[: taken + 1])) <= room_px:
            taken += 1
        lines.append(_cut(" ".join(words[:taken]), font, room_px))
        words = words[taken:]
    return [*lines, _cut(" ".join(words), font, room_px)] if words else lines


def _cut(text: str, font: ImageFont.FreeTypeFont, room_px: int) -> str:
    if font.getlength(text) <= room_px:
        return text
    while text and font.getlength(f"{text}\u2026") > room_px:
        text = text[:-1]
    return f"{text.rstrip()}\u2026"


def _lengths(captions: dict[str, list[list[str]]]) -> Figure:
    """How many words captions have, split by split."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    longest = max((len(words) for some in captions.values() for words in some), default=0)
    bins = range(min(longest, 40) + 2)
    for split, some in captions.items():
        lengths = [min(len(words), 40) for words in some]
        mean = sum(lengths) / max(1, len(lengths))
        label = f"{split}: {len(lengths):,} captions, {mean:.1f} words on average"
        axes.hist(
            lengths, bins, density=True, histtype="step", linewidth=1.8, align="left", label=label
        )
    axes.set(xlabel="words in a caption, 40 and more as 40", ylabel="share of captions")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    _bare(axes)
    return figure


def _words(captions: list[list[str]]) -> Figure:
    """The commonest words, and how frequency falls with rank (Zipf)."""
    counts = Counter(word for words in captions for word in words).most_common()
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    top = counts[:30][::-1]
    left.barh([word for word, _ in top], [count for _, count in top], color=_BLUE)
    left.tick_params(axis="y", labelsize=8)
    left.margins(y=0.01)
    left.set(xlabel="times", title="the commonest words")
    if counts:
        right.loglog(range(1, len(counts) + 1), [count for _, count in counts], color=_BLUE)
    often = sum(count >= 5 for _, count in counts)
    right.set(
        xlabel="rank of the word",
        ylabel="times",
        title=f"{len(counts):,} different words, {often:,} of them 5 times or more",
    )
    _bare(left)
    _bare(right)
    return figure


def _bare(axes: object) -> None:
    axes.spines[["top", "right"]].set_visible(False)  # type: ignore[attr-defined]
    axes.grid(alpha=0.3)  # type: ignore[attr-defined]
    axes.set_axisbelow(True)  # type: ignore[attr-defined]
