"""Alt text in image files: reading, writing and undoing IPTC and XMP fields.

    from cutline import metadata

    metadata.read_text("dog.jpg").alt
    metadata.write_text("dog.jpg", "A dog on a beach")

Writing needs the extra `cutline[metadata]`, which uses exiv2 (GPL-2.0-or-later).
"""

from cutline.metadata.read import ImageText, read_text
from cutline.metadata.write import (
    MetadataJournal,
    MetadataOptions,
    Written,
    undo,
    write_text,
)

__all__ = [
    "ImageText",
    "MetadataJournal",
    "MetadataOptions",
    "Written",
    "read_text",
    "undo",
    "write_text",
]
