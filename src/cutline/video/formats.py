"""Records of described videos: text, CSV, WebVTT and SubRip."""

from __future__ import annotations

import math
import re
from typing import Any

from cutline.video.model import VideoDescription

COLUMNS = (
    "source", "status", "shot", "shots", "start", "end", "caption", "score", "duration", "summary",
    "model", "error_type", "error_message",
)  # fmt: skip
"""Columns of the CSV format; `shot` counts from 1 to `shots`."""


def csv_rows(found: VideoDescription) -> list[list[Any]]:
    """The CSV cells of one video: a row for each shot, or one row without a shot."""
    error = found.error
    status, kind, message = "ok", "", ""
    if error is not None:
        status, kind = "error", type(error).__name__
        message = error.message
    rest: list[Any] = [round(found.duration, 3), found.summary, found.model, kind, message]
    if not found.shots:
        return [[found.source, status, 0, 0, "", "", "", "", *rest]]
    return [
        [
            found.source,
            status,
            number,
            len(found.shots),
            round(shot.start, 3),
            round(shot.end, 3),
            shot.caption,
            round(shot.score, 4) if math.isfinite(shot.score) else "",
            *rest,
        ]
        for number, shot in enumerate(found.shots, 1)
    ]


def text_lines(found: VideoDescription) -> list[str]:
    """One line for each shot: source, start, end and sentence, by tabs."""
    lines = [
        f"{found.source}\t{clock(shot.start)}\t{clock(shot.end)}\t{shot.caption}"
        for shot in found.shots
    ]
    if found.summary:
        lines.insert(0, f"{found.source}\t{clock(0)}\t{clock(found.duration)}\t{found.summary}")
    return lines


def clock(seconds: float, separator: str = ".") -> str:
    """HH:MM:SS.mmm; the hours have more than two digits from 100 on."""
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{separator}{rest % 1000:03}"


def webvtt(found: VideoDescription) -> str:
    """A WebVTT file for `<track kind="descriptions">`.

    Its cues are not checked against gaps in the dialogue, which WCAG 1.2.5 needs.
    """
    cues = [
        f"{number}\n{clock(shot.start)} --> {clock(shot.end)}\n{_escaped(shot.caption)}\n"
        for number, shot in enumerate(found.shots, 1)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def subrip(found: VideoDescription) -> str:
    """A SubRip file (.srt)."""
    cues = [
        f"{number}\n{clock(shot.start, ',')} --> {clock(shot.end, ',')}\n{_escaped(shot.caption)}\n"
        for number, shot in enumerate(found.shots, 1)
    ]
    return "\n".join(cues)


def _escaped(text: str) -> str:
    """Cue text on one line, which no player takes for markup or for the next cue."""
    line = re.sub(r"\s+", " ", text).strip() or "-"
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
