"""Whether approved texts may overwrite existing ones, for `apply` and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cutline.site.decide.bad_alts import is_generated
from cutline.site.model import ImageOccurrence, Review
from cutline.site.pages.alt_markup import clean, current_alt, has_alt


@dataclass(frozen=True)
class WriteOptions:
    """What an approved alt may replace, besides a missing or blank alt.

    Attributes:
        overwrite: text that a person wrote.
        fill_empty: `alt=""`.
    """

    overwrite: bool = False
    fill_empty: bool = False


@dataclass(frozen=True)
class WriteDecision:
    """Whether an alt may be written.

    Attributes:
        allowed: whether it may.
        reason: why not; "" if it may.
    """

    allowed: bool
    reason: str = ""


_DEFAULT = WriteOptions()


def may_write(
    occurrence: ImageOccurrence, reviews: Sequence[Review], options: WriteOptions = _DEFAULT
) -> WriteDecision:
    """Whether the newest review's alt may replace the current alt of an occurrence.

    A missing, blank or generated alt may be replaced. `alt=""` and other text are kept, unless the
    options allow it, they come from one of the reviews, or the newest reviewer was shown them.

    Args:
        occurrence: as it is in its page.
        reviews: all reviews of the occurrence, newest last.
        options: what else may be replaced.
    """
    newest = reviews[-1] if reviews else None
    if newest is None or newest.alt is None:
        return WriteDecision(False, "nothing is approved for it")
    present = current_alt(occurrence)
    if present is None or has_alt(occurrence, newest.alt) or present == newest.replaces:
        return WriteDecision(True)
    if any(each.alt is not None and has_alt(occurrence, each.alt) for each in reviews):
        return WriteDecision(True)
    if is_generated(present):
        return WriteDecision(True)
    if present.strip() and not options.overwrite:
        present = clean(present)
        return WriteDecision(
            False, f"the page has other words (--overwrite replaces them): {present!r}"
        )
    if not present and not (options.fill_empty or options.overwrite):
        return WriteDecision(
            False, 'the page has alt="", which marks it as decorative (--fill-empty fills it)'
        )
    return WriteDecision(True)


def may_write_long_description(
    present: str, reviews: Sequence[Review], options: WriteOptions = _DEFAULT
) -> WriteDecision:
    """Whether the approved long description may replace the current one.

    It may if there is none, if the current one comes from one of the reviews, or with `overwrite`.

    Args:
        present: the current long description; "" if there is none.
        reviews: all reviews of the occurrence.
        options: what else may be replaced.
    """
    approved = {" ".join((each.long_description or "").split()) for each in reviews}
    if not present or present in approved or options.overwrite:
        return WriteDecision(True)
    return WriteDecision(
        False,
        f"it has another long description (--overwrite replaces it): {clean(present)!r:.100}",
    )
