"""A storyboard: a self-contained HTML page with a thumbnail, times and a sentence for each shot."""

from __future__ import annotations

import io

from cutline.templating import data_uri, render
from cutline.video.formats import clock
from cutline.video.model import VideoDescription


def storyboard(found: VideoDescription) -> str:
    """The page of one video.

    Args:
        found: with the thumbnails of its shots.
    """
    shots = []
    for shot in found.shots:
        uri, width, height = "", 0, 0
        if shot.thumbnail is not None:
            jpeg = io.BytesIO()
            shot.thumbnail.save(jpeg, "JPEG", quality=80)
            uri = data_uri(jpeg.getvalue(), "image/jpeg")
            width, height = shot.thumbnail.size
        shots.append(
            {
                "caption": shot.caption,
                "start": clock(shot.start),
                "end": clock(shot.end),
                "picture": uri,
                "width": width,
                "height": height,
            }
        )
    return render("storyboard.html", found=found, shots=shots, duration=clock(found.duration))
