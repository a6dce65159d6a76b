"""Exports of a site: CSV, JSON or WP-CLI commands."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any, TextIO
from urllib.parse import unquote

from cutline.site.pages.alt_markup import clean
from cutline.site.store.store import Store, StoredOccurrence
from cutline.site.urls import without_surrogates
from cutline.tables import escape_formula

JSON_VERSION = 1
COLUMNS = (
    "id page position kind source alt_state alt decision rule evidence draft confidence abstained"
    " alternatives labels notes model stale verdict approved_alt reviewer reviewed_at applied"
    " image_url image_status image_error image_width_px image_height_px link heading"
    " export export_row long_description stated_confidence prompt drafted_at judgement"
    " judgement_reason judgement_alt judge approved_long_description"
).split()
"""The columns of both formats; `cutline.site.model` documents the values."""


def rows(store: Store) -> Iterator[dict[str, Any]]:
    """Every occurrence with its decision, draft, review and state, as one dict of `COLUMNS` each.

    Files in the scanned folder have paths relative to it.
    """
    for stored in store.occurrences():
        yield dict(zip(COLUMNS, _cells(stored, store.named), strict=True))


def write_csv(store: Store, stream: TextIO) -> None:
    """Write the occurrences as CSV (RFC 4180); list items are separated by " | ".

    Cells that a spreadsheet would evaluate as formulas are prefixed with an apostrophe (OWASP, "CSV
    Injection").

    Args:
        store: the site's store.
        stream: the output, opened with `newline=""`, and for Excel with `encoding="utf-8-sig"`.
    """
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    for row in rows(store):
        writer.writerow([cell(value) for value in row.values()])


def write_json(store: Store, stream: TextIO) -> None:
    """Write the occurrences as `{"version": 1, "uses": [...]}`, one occurrence per line."""
    stream.write(f'{{"version": {JSON_VERSION}, "uses": [')
    for number, row in enumerate(rows(store)):
        text = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace").decode()
        stream.write(("," if number else "") + "\n" + text)
    stream.write("\n]}\n")


def wp_cli(store: Store) -> str:
    """A shell script that adds the approved alts to WordPress's media library, through WP-CLI.

    WordPress stores one alt per image and uses it for later insertions. The script comments out
    images with different approved alts, for a person to choose, and keeps existing alts.

    Args:
        store: the site's store; reviews of images without an http(s) URL are skipped.
    """
    approved: dict[str, dict[str, None]] = {}
    for stored in store.occurrences(stage="reviewed"):
        alt = clean(stored.review.alt or "").strip() if stored.review else ""
        if alt and stored.occurrence.url.startswith(("http://", "https://")):
            approved.setdefault(stored.occurrence.url, {})[alt] = None
    lines: list[str] = []
    for url, alts in approved.items():
        if len(alts) > 1:
            lines.append("# Different alts were approved for this image: uncomment one.")
        mark = "# " if len(alts) > 1 else ""
        others = "".join(f" {shlex.quote(other)}" for other in attachment_urls(url)[1:])
        lines += [f"{mark}give {shlex.quote(url)} {shlex.quote(alt)}{others}" for alt in alts]
    return _WP_SCRIPT + "".join(f"{line}\n" for line in lines) + _WP_END


def attachment_urls(url: str) -> list[str]:
    """The URLs that WordPress may have stored for an image, the given URL first.

    WordPress looks up the exact URL, but pages may add a query ("?ver=2"), use Jetpack's Photon
    (i0.wp.com), percent-encoding, another size, or a converted copy ("a.jpg.webp"). The script
    also tries names with and without a size, "-scaled" and "-rotated".
    """
    plain = re.sub(r"[?#].*", "", url)
    plain = re.sub(r"\Ahttps?://i\d\.wp\.com/", "https://", plain)
    plain = re.sub(r"(?<=\.)(jpe?g|png|gif)\.(?:webp|avif)\Z", r"\1", plain, flags=re.IGNORECASE)
    bare = re.sub(r"(?:-\d+x\d+|-scaled|-rotated|@\dx)+(?=\.\w+\Z)", "", plain)
    size_only = re.sub(r"-\d+x\d+(?=\.\w+\Z)", "", plain)
    known = [plain, *([] if bare == size_only else [bare])]
    return list(dict.fromkeys([url, *known, *map(unquote, known)]))


_WP_SCRIPT = r"""#!/bin/sh
# Alts for WordPress's media library. Run it in the WordPress folder, or set the WP-CLI command:
#   WP='wp --path=/var/www/html' sh alts.sh
#   DRY_RUN=1 sh alts.sh          only print what would be done
# Existing alts are kept. Exit code 1: some images are not in the library.
set -eu
: "${WP:=wp}" "${DRY_RUN:=}"
given=0 kept=0 unknown=0

lookup='<?php
$id = 0;
foreach ($args as $url) {
    $bare = preg_replace("/-\d+x\d+(?=\.\w+$)/", "", $url);
    $names = [$url, $bare];
    foreach (["-scaled", "-rotated"] as $end) {
        $names[] = preg_replace("/(?=\.\w+$)/", $end, $bare);
    }
    foreach ($names as $name) {
        $id = $id ?: attachment_url_to_postid($name);
    }
}
$alt = $id ? trim((string) get_post_meta($id, "_wp_attachment_image_alt", true)) : "";
echo $id . ($alt === "" ? " empty" : " kept");
'

give() { # URL ALT OTHER-URL...
    url=$1 alt=$2
    shift 2
    found=$(printf '%s' "$lookup" | $WP eval-file - "$url" "$@" | tail -n 1)
    id=${found%% *}
    case $id in
    '' | *[!0-9]*)
        printf 'got "%s" from WP-CLI; expected the id of %s\n' "$found" "$url" >&2
        exit 2
        ;;
    0)
        unknown=$((unknown + 1))
        printf 'not in the library: %s\n' "$url" >&2
        return
        ;;
    esac
    if [ "${found#* }" != empty ]; then
        kept=$((kept + 1))
        printf 'has an alt: %s\n' "$url"
        return
    fi
    if [ -z "$DRY_RUN" ]; then
        printf '%s' "$alt" | $WP post meta update "$id" _wp_attachment_image_alt >/dev/null
    fi
    given=$((given + 1))
    printf '%s: %s\n' "$url" "$alt"
}

"""
_WP_END = r"""
printf '%s given, %s had one, %s not in the library\n' "$given" "$kept" "$unknown"
[ "$unknown" -eq 0 ]
"""


def _cells(stored: StoredOccurrence, named: Callable[[str], str]) -> list[Any]:
    occurrence, image, draft, review = stored.occurrence, stored.image, stored.draft, stored.review
    decision, judgement = draft.decision if draft else None, stored.judgement
    return [
        stored.id,
        occurrence.page,
        occurrence.position,
        occurrence.kind,
        occurrence.source,
        occurrence.alt_state,
        occurrence.alt,
        decision.purpose if decision else None,
        decision.rule if decision else None,
        named(decision.evidence) if decision else None,
        draft.alt if draft else None,
        draft.confidence if draft else None,
        draft.abstained if draft else None,
        list(draft.alternatives) if draft else [],
        list(draft.labels) if draft else [],
        [named(note) for note in draft.notes] if draft else [],
        draft.model if draft else None,
        stored.stale,
        review.verdict if review else None,
        review.alt if review else None,
        review.who if review else None,
        review.when if review else None,
        stored.applied,
        named(occurrence.url) or None,
        image.status if image else None,
        named(image.error) or None if image else None,
        image.width_px or None if image else None,
        image.height_px or None if image else None,
        named(occurrence.link) or None,
        occurrence.heading or None,
        stored.origin or None,
        stored.line,
        (draft.long_description or None) if draft else None,
        draft.stated_confidence if draft else None,
        (draft.prompt or None) if draft else None,
        (draft.drafted_at or None) if draft else None,
        judgement.verdict if judgement else None,
        named(judgement.reason) if judgement else None,
        (judgement.alt or None) if judgement else None,
        judgement.judge if judgement else None,
        stored.approved_long_description or None,
    ]


def cell(value: Any) -> str | int | float:
    """A value as a spreadsheet cell: formulas escaped, list items separated by " | "."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return value
    return escape_formula(
        without_surrogates(" | ".join(value) if isinstance(value, list) else str(value))
    )
