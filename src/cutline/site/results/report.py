"""Computing the report of a site: coverage before and after, problems, and the remaining work.

One pass over the store. An image occurrence is covered if it has a meaningful text or a name from
another attribute. `alt=""` is treated as intentional and counted separately. Hidden images, images
shown only without scripts, and CSS backgrounds need no alt and are not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby

from cutline.errors import OutputError
from cutline.site.decide.decision_tree import decide
from cutline.site.decide.lint import lint, says_nothing
from cutline.site.model import (
    Alt,
    AltVerdict,
    Draft,
    Finding,
    ImageOccurrence,
    Judgement,
    Kind,
    Origin,
    Purpose,
    Severity,
    Verdict,
)
from cutline.site.pages.alt_markup import with_alt
from cutline.site.pages.write_rules import WriteOptions
from cutline.site.results.report_page import (
    Card,
    Coverage,
    Failure,
    JudgedAlt,
    PageProblems,
    Problem,
    Report,
)
from cutline.site.store.store import Store, StoredOccurrence, now
from cutline.site.url_words import tail

_UNNEEDED = (Purpose.DECORATIVE, Purpose.REDUNDANT)


def report(store: Store, *, progress: Callable[[int, int], None] | None = None) -> Report:
    """Summarise a store.

    Args:
        store: the site's store.
        progress: called with the number of occurrences done and the total.
    """
    counts = store.counts()
    before, after, possible = Coverage(), Coverage(), Coverage()
    purposes: Counter[Purpose] = Counter()
    problems: dict[str, Problem] = {}
    pages: list[PageProblems] = []
    cards: dict[tuple[object, ...], Card] = {}
    failed: dict[str, tuple[str, dict[str, None]]] = {}
    verdicts: Counter[AltVerdict] = Counter()
    judged: list[JudgedAlt] = []
    unread: Counter[str] = Counter(store.unread_files())
    done = left_out = 0
    for page, group in groupby(store.occurrences(), key=lambda each: each.occurrence.page):
        occurrences = list(group)
        about = PageProblems(page, occurrences[0].occurrence.page_title, len(occurrences))
        refused = {each.id for each in occurrences if _is_refused(each, store)}
        for each in occurrences:
            purpose, needs = _need(each, each.id in refused)
            purposes[purpose] += 1
            found, (approved, drafted) = each.as_found, _alts(each, each.id in refused)
            if not _is_left_out(found):
                _count(before, _state(found, None), purpose, needs)
                _count(after, _state(each.occurrence, approved), purpose, needs)
                _count(possible, _state(each.occurrence, drafted), purpose, needs)
                about.missing += _state(found, None) == "missing"
            else:
                left_out += 1
            if each.image and each.image.status == "failed":
                failed.setdefault(each.image.url, (store.named(each.image.error), {}))[1][page] = (
                    None
                )
            _collect(cards, each, store)
            if each.judgement is not None:
                verdicts[each.judgement.verdict] += 1
                judged += _judged(each, each.judgement, store)
        _lint(occurrences, refused, about, problems)
        pages.append(about)
        done += len(occurrences)
        if progress:
            progress(done, counts.uses)
    failures = []
    for page_read in store.pages():
        unread.update(dict(page_read.unread))
        if page_read.error:
            failures.append(Failure("page", page_read.url, store.named(page_read.error)))
    failures += [
        Failure("image", store.named(url), why, tuple(on)) for url, (why, on) in failed.items()
    ]
    pages.sort(key=lambda each: (-each.errors, -each.warnings, -each.notes))
    return Report(
        made_at=now(),
        site=store.site,
        model=store.setting("model") or "",
        counts=counts,
        left_out=left_out,
        before=before,
        after=after,
        possible=possible,
        purposes=dict(purposes.most_common()),
        problems=sorted(problems.values(), key=lambda each: (_RANKS[each.severity], -each.found)),
        pages=pages,
        verdicts=dict(verdicts),
        judged=judged,
        failures=failures,
        unread=dict(unread.most_common()),
        cards=sorted(cards.values(), key=lambda card: _ORDER.index(card.status)),
    )


_RANKS = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}
_ORDER = ("asked", "unsure", "waiting", "approved", "edited")


# Coverage


def _need(stored: StoredOccurrence, refused: bool) -> tuple[Purpose, bool]:
    """The purpose of an occurrence, and whether it needs a text, by the current decision."""
    occurrence, review = stored.as_found, stored.review
    pixels = stored.image.pixels if stored.image else None
    decision = stored.draft.decision if stored.draft else decide(occurrence, pixels)
    if review is not None and review.alt is not None and not refused:
        return decision.purpose, bool(review.alt)
    if occurrence.alt_state is Alt.PRESENT or occurrence.name or occurrence.title:
        return decision.purpose, True
    empty = occurrence.alt_state is Alt.EMPTY and decision.purpose is Purpose.KEPT
    return decision.purpose, not empty and decision.purpose not in _UNNEEDED


def _judged(stored: StoredOccurrence, judgement: Judgement, store: Store) -> list[JudgedAlt]:
    """The alt as a row of the report, unless it is good."""
    if judgement.verdict is AltVerdict.GOOD:
        return []
    return [
        JudgedAlt(
            stored.occurrence.page,
            store.named(stored.occurrence.url or stored.occurrence.source),
            stored.occurrence.alt or "",
            judgement.verdict,
            judgement.reason,
            judgement.alt,
            judgement.judge,
        )
    ]


def _is_refused(stored: StoredOccurrence, store: Store) -> bool:
    """Whether `apply` would leave the page's text instead of the approved alt."""
    options = WriteOptions(fill_empty=store.empty_is_missing)
    if not stored.is_refused((), options):
        return False
    return stored.is_refused(store.history(stored.id), options)


def _alts(stored: StoredOccurrence, refused: bool) -> tuple[str | None, str | None]:
    """The approved alt, and the approved or else the drafted alt."""
    approved = stored.review.alt if stored.review and not refused else None
    drafted = stored.draft.alt if stored.draft and not stored.review else None
    return approved, drafted if approved is None else approved


def _is_left_out(occurrence: ImageOccurrence) -> bool:
    """Whether screen readers ignore it: a background, hidden, or a drawing without a role."""
    silent = occurrence.kind is Kind.SVG and not (
        occurrence.role or occurrence.name or occurrence.title or occurrence.source
    )
    return silent or occurrence.kind is Kind.CSS or occurrence.hidden or occurrence.noscript


def _state(occurrence: ImageOccurrence, alt: str | None) -> str:
    """The state of an occurrence with this alt; with its own alt if None."""
    if alt is None and occurrence.alt_state is not Alt.PRESENT:
        if occurrence.name_or_title:
            return "words"
        silent = occurrence.role.lower().split()[:1] in (["presentation"], ["none"])
        bare_link = (
            bool(occurrence.link)
            and not occurrence.link_text.strip()
            and occurrence.kind is not Kind.AREA
        )
        marked = silent or (occurrence.alt_state is Alt.EMPTY and not bare_link)
        return "decorative" if marked else "missing"
    text = occurrence.alt or "" if alt is None else alt
    if not text:
        return "decorative"
    return "says_nothing" if says_nothing(text) else "words"


def _count(coverage: Coverage, state: str, purpose: Purpose, needs: bool) -> None:
    setattr(coverage, state, getattr(coverage, state) + 1)
    coverage.unmarked += state == "missing" and not needs
    coverage.needing += needs
    coverage.needing_with_words += needs and state == "words"


# Problems


def _lint(
    occurrences: list[StoredOccurrence],
    refused: set[int],
    about: PageProblems,
    problems: dict[str, Problem],
) -> None:
    """Count the findings on a page as read, and with the approved alts."""
    found = list(lint([each.as_found for each in occurrences]))
    changed = any(each.review or each.original for each in occurrences)
    left = (
        list(lint([_approved(each, each.id in refused) for each in occurrences]))
        if changed
        else found
    )
    about.errors, about.warnings, about.notes = (
        sum(each.severity is severity for each in found) for severity in Severity
    )
    about.left = sum(each.severity is not Severity.NOTE for each in left)
    for each in found:
        _problem(problems, each).found += 1
    for each in left:
        _problem(problems, each).left += 1


def _problem(problems: dict[str, Problem], found: Finding) -> Problem:
    new = Problem(found.rule, found.severity, found.message, found.reference)
    return problems.setdefault(found.rule, new)


def _approved(stored: StoredOccurrence, refused: bool) -> ImageOccurrence:
    """The occurrence with its approved alt."""
    occurrence, (alt, _) = stored.occurrence, _alts(stored, refused)
    if alt is None or occurrence.kind is Kind.CSS:
        return occurrence
    unparsed = (Kind.MARKDOWN, Kind.RST, Kind.EMBED, Kind.ROW, Kind.PICTURE, Kind.CHART)
    if occurrence.kind in unparsed or not occurrence.markup:
        return replace(occurrence, alt=alt)
    try:
        markup = with_alt(occurrence.markup, occurrence.kind, alt)
    except OutputError:
        return occurrence
    if occurrence.kind in (Kind.IMG, Kind.INPUT, Kind.AREA):
        return replace(occurrence, alt=alt, markup=markup)
    return replace(occurrence, name=alt, markup=markup, hidden=occurrence.hidden or not alt)


# Gallery


def _collect(cards: dict[tuple[object, ...], Card], stored: StoredOccurrence, store: Store) -> None:
    """Add an occurrence to the gallery, once per image and text."""
    status, text = _status(stored)
    if not status:
        return
    draft, image, occurrence = stored.draft, stored.image, stored.occurrence
    words: tuple[tuple[str, bool], ...] = ((text, False),) if text else ()
    if draft and " ".join(word for word, _ in draft.words) == text != "":
        words = tuple((word, origin is not Origin.PICTURE) for word, origin in draft.words)
    key = (image and (image.group or image.content or image.id), image is None and occurrence, text)
    if known := cards.get((status, *key)):
        cards[status, *key] = replace(known, uses=known.uses + 1)
        return
    cards[status, *key] = Card(
        status,
        text,
        words,
        draft.alternatives if draft else (),
        draft.confidence if draft else None,
        store.named(_why(draft)),
        tail(occurrence.url) or occurrence.kind,
        occurrence.page,
        1,
        image.path if image else None,
        image.media_type if image else "",
    )


def _why(draft: Draft | None) -> str:
    """The reason for a draft, if it is more than the caption of the image."""
    if draft is None:
        return ""
    has_reason = draft.decision.purpose is not Purpose.INFORMATIVE
    if draft.alt is None and draft.notes:
        return draft.notes[0]
    return draft.decision.evidence if has_reason else ""


def _status(stored: StoredOccurrence) -> tuple[str, str]:
    """The card's status and text; "" if the gallery omits the occurrence."""
    draft, review = stored.draft, stored.review
    if review is not None:
        status = "approved" if review.verdict is Verdict.APPROVED else "edited"
        return (status, review.alt) if review.alt else ("", "")
    if draft is None or draft.decision.purpose in (Purpose.KEPT, *_UNNEEDED):
        return "", ""
    if draft.alt is None:
        return "unsure" if draft.abstained else "asked", ""
    return ("waiting", draft.alt) if draft.alt else ("", "")
