"""Read or write metadata with exiv2, in a process of its own: exiv2 can crash on damaged files.

`python -m cutline.metadata.exiv2_worker` reads one JSON object per line from standard input and
writes one for each to standard output:

- `{"read": PATH}` returns `{"fields": [[key, type, value], ...]}`.
- `{"write": PATH, "set": {KEY: VALUE}, "create": false}` sets fields. A value is a text, a mapping
  of languages to texts, or null, which removes the field.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cutline.metadata import container


def dump(path: str) -> list[list[Any]]:
    """Every field of a file: key, type, and value (a mapping for alternatives by language)."""
    import exiv2

    image = exiv2.ImageFactory.open(path)
    image.readMetadata()
    if image.xmpData().empty() and container.kind(raw := Path(path).read_bytes()) == "HEIF":
        # exiv2 finds no packet if the table of locations precedes the list of items
        image.setXmpPacket((container.heif_xmp(raw) or b"").decode("utf-8", "replace"))
    fields: list[list[Any]] = []
    for data in (image.exifData(), image.iptcData(), image.xmpData()):
        for datum in data:
            value: Any = datum.toString()
            if datum.typeName() == "LangAlt":
                value = dict(datum.value().items())
            fields.append([datum.key(), datum.typeName(), value])
    fields.append(["comment", "", image.comment()])
    fields.append(["icc", "", bytes(image.iccProfile().data()).hex() if image.iccProfile() else ""])
    return fields


def write(path: str, values: dict[str, Any], create: bool) -> None:
    """Set fields of a file; `create` makes a new XMP sidecar."""
    import exiv2

    if create:
        image = exiv2.ImageFactory.create(exiv2.ImageType.xmp, path)
    else:
        image = exiv2.ImageFactory.open(path)
        image.readMetadata()
    for key, value in values.items():
        data = {"E": image.exifData, "I": image.iptcData, "X": image.xmpData}[key[0]]()
        if value is None:
            _remove(data, key)
        elif isinstance(value, dict):
            _remove(data, key)
            if value:
                data[key] = exiv2.LangAltValue(value)
        else:
            data[key] = value
    if image.xmpData().empty():
        image.clearXmpPacket()  # WebP would keep the old packet
    image.writeMetadata()


def _remove(data: Any, key: str) -> None:
    if key in data:
        del data[key]


def main() -> None:
    """Answer requests until standard input ends; `error` in an answer says why exiv2 refuses."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "read" in request:
                answer: dict[str, Any] = {"fields": dump(request["read"])}
            else:
                write(request["write"], request["set"], bool(request.get("create")))
                answer = {}
        except Exception as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
