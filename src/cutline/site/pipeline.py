"""From image uses to drafts: have the pictures, decide, caption, word; each step resumable.

Every picture is captioned once, whatever its URLs, sizes and uses: what looks the same shares the
caption of the largest. The words of a page then go into the wording alone. Only if pages are to
have a say in decoding (`WordingOptions.context_nats` above 0), a picture is captioned once for
each different set of words that stand near it.

Whatever is made is kept at once, so that another run makes only what is missing: drafts of new
uses, and drafts that would come out differently today and that nobody has reviewed yet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

from cutline.caption import Alternative, Caption, Captioner, CaptionOptions, InContext, Label
from cutline.errors import CutlineError, ImageError, MissingExtraError
from cutline.fetch import Fetcher
from cutline.image import load_image
from cutline.site.decide.alt_text import WordingOptions, context, draft
from cutline.site.decide.decision_tree import decide, with_text
from cutline.site.decide.image_stats import read_text
from cutline.site.decide.lint import lint
from cutline.site.images import SVG, GatherOptions, gather
from cutline.site.model import Decision, Draft, ImageUse, Purpose, Severity
from cutline.site.store.store import Store, StoredUse

_OCR = "ocr"  # who "captions" images of text, in the store


@dataclass(frozen=True)
class PipelineOptions:
    """How a site is drafted."""

    wording: WordingOptions = field(default_factory=lambda: WordingOptions(context_nats=0.0))
    """How captions become drafts."""

    gather: GatherOptions = field(default_factory=GatherOptions)
    """How pictures are had."""

    alternatives: int = 3
    """Captions for each picture, the best included, as far as the search keeps so many."""

    labels: int = 5
    """Labels for each picture."""

    batch_size: int = CaptionOptions.batch_size
    """Pictures that one thread works on together."""

    ocr: bool = True
    """Read images of text, if `cutline[ocr]` is installed."""

    fill_empty: bool | None = None
    """Whether `alt=""` is a gap. None: where an export lists the image, since whoever made the list
    asks for alts, but not on a page that was read, where it is somebody's decision."""

    redo: bool = False
    """Draft again whatever nobody has reviewed."""


@dataclass(frozen=True)
class Progress:
    """How far a step is: "fetching", "deciding" or "captioning"; `total` None is not known."""

    step: str
    done: int
    total: int | None
    failed: int = 0


@dataclass
class Summary:
    """What a run did.

    Attributes:
        fetched, unchanged, failed: pictures had, asked for and still the same, not to be had.
        captioned: pictures captioned; `uncaptioned` those that a captioner refused.
        drafts: uses decided on; of these, `kept` are left as they are, though lint finds an error
            at `faulty` of them; `asked` have no suggestion, and of these, `abstained` have a
            caption that is too unsure.
        refusals: why captioning failed, each reason once.
    """

    fetched: int = 0
    unchanged: int = 0
    failed: int = 0
    captioned: int = 0
    uncaptioned: int = 0
    drafts: int = 0
    kept: int = 0
    faulty: int = 0
    asked: int = 0
    abstained: int = 0
    refusals: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0


def draft_site(
    store: Store,
    captioner: Captioner,
    options: PipelineOptions | None = None,
    *,
    fetcher: Fetcher,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Draft every use of a site that has no draft, or one that would come out differently today.

    Stop it at any time, even by force: what was made is kept, and another run goes on from there.

    Args:
        store: the site's.
        captioner: who captions.
        options: how; None is the default.
        fetcher: for pictures on the network.
        progress: told how far it is.

    Raises:
        StoreError, OutputError: the disk is full, or the store is in use.
        EngineError: inference failed.
    """
    began_s = time.monotonic()
    run = _Run(store, captioner, options or PipelineOptions(), progress or (lambda _: None))
    store.setting("model", captioner.name)
    store.setting("rules", run.rules)
    run.gather(fetcher)
    run.caption(run.decide())
    run.summary.elapsed_s = time.monotonic() - began_s
    return run.summary


@dataclass
class _Task:
    """A picture to be captioned, and the uses that wait for it."""

    content: int
    words: str
    uses: list[int] = field(default_factory=list)


class _Run:
    def __init__(
        self,
        store: Store,
        captioner: Captioner,
        options: PipelineOptions,
        progress: Callable[[Progress], None],
    ) -> None:
        self.store = store
        self.captioner = captioner
        self.options = options
        self.progress = progress
        self.summary = Summary()
        wording = json.dumps(asdict(options.wording), sort_keys=True)
        others = f"{options.alternatives} {options.labels} {options.fill_empty}"
        self.rules = f"{version('cutline')} {wording} {others}"
        self._reads_text = options.ocr

    def gather(self, fetcher: Fetcher) -> None:
        """Have the pictures on whose pixels something hangs, and those that cost no request."""
        wanted = (
            each.image.id
            for each in self.store.uses()
            if each.image
            and (
                each.image.url.startswith(("file:", "data:"))
                or decide(self._as_gap(each)).purpose is not Purpose.KEPT
            )
        )
        found = gather(
            self.store,
            wanted,
            self.options.gather,
            fetcher,
            lambda done, total, failed: self.progress(Progress("fetching", done, total, failed)),
        )
        summary = self.summary
        summary.fetched, summary.unchanged = found.fetched, found.unchanged
        summary.failed = found.failed

    def decide(self) -> list[_Task]:
        """Draft what needs no new caption; returns the pictures that need one."""
        tasks: dict[tuple[int, str], _Task] = {}
        total = self.store.count_uses()
        for done, each in enumerate(self.store.uses(), start=1):
            if self._due(each):
                decision, caption, content = self._decided(each)
                if content is None:
                    self._draft(each, decision, caption)
                else:
                    words = self._words(each)
                    task = tasks.setdefault((content, words), _Task(content, words))
                    task.uses.append(each.id)
            self.progress(Progress("deciding", done, total))
        return list(tasks.values())

    def caption(self, tasks: list[_Task]) -> None:
        """Caption pictures, and draft the uses that wait for each as soon as it is there."""
        search = self.captioner.search
        several = replace(search, n_best=min(self.options.alternatives, search.beam_size))
        options = CaptionOptions(
            several,
            self.options.labels,
            self.options.batch_size,
            self.options.wording.context_nats,
        )
        self.progress(Progress("captioning", 0, len(tasks)))
        if not tasks:
            return
        found: Any = self.captioner.stream(map(self._picture, tasks), options)
        with closing(found):
            for done, (task, caption) in enumerate(zip(tasks, found, strict=True), start=1):
                self._captioned(task, caption)
                self.progress(Progress("captioning", done, len(tasks), self.summary.uncaptioned))

    def _as_gap(self, each: StoredUse) -> ImageUse:
        """The use, or, where its empty alt is no decision, the use as if it had none."""
        fill = self.options.fill_empty
        gap = each.use.alt == "" and (bool(each.origin) if fill is None else fill)
        return replace(each.use, alt=None) if gap else each.use

    def _due(self, each: StoredUse) -> bool:
        if each.review is not None:
            return False
        return each.draft is None or each.stale or self.options.redo

    def _decided(self, each: StoredUse) -> tuple[Decision, Caption | None, int | None]:
        """The decision, the caption we have, and the picture that still needs one."""
        image = each.image
        decision = decide(self._as_gap(each), image.pixels if image else None)
        if image is None or image.content is None or decision.alt is not None:
            return decision, None, None
        if decision.purpose is Purpose.TEXT:
            return with_text(decision, self._text(image.content)), None, None
        if decision.purpose is not Purpose.INFORMATIVE or image.media_type == SVG:
            return decision, None, None
        known = self.store.caption(image.content, self.captioner.name, self._recipe(each))
        if known is not None:
            return decision, _restored(known), None
        return decision, None, image.group or image.content

    def _captioned(self, task: _Task, caption: Caption) -> None:
        if caption.error is not None:
            self.summary.uncaptioned += 1
            reason = str(caption.error)
            if isinstance(caption.error, ImageError):
                reason = caption.error.reason
            if reason not in self.summary.refusals:
                self.summary.refusals.append(reason)
            return  # without a draft, so that the next run tries again
        record = caption.to_dict() | {"source": ""}
        self.summary.captioned += 1
        for number, id in enumerate(task.uses):
            each = self.store.use(id)
            if number == 0:
                recipe = self._recipe(each)
                self.store.put_caption(task.content, self.captioner.name, recipe, record)
            decision = decide(self._as_gap(each), each.image.pixels if each.image else None)
            self._draft(each, decision, _restored(record))

    def _draft(self, each: StoredUse, decision: Decision, caption: Caption | None) -> None:
        use, image = self._as_gap(each), each.image
        found = draft(use, decision, caption, self.options.wording)
        if use is not each.use:
            found = _noted(found, 'its alt is "" today, which may be somebody\'s decision')
        if decision.alt is None and image is not None and decision.purpose is not Purpose.KEPT:
            if image.status == "failed":
                found = _noted(found, f"its picture could not be had: {image.error}")
            elif image.media_type == SVG:
                found = _noted(found, "a drawing (SVG), which no captioner reads: describe it")
        self.store.put_draft(each.id, found)
        self.summary.drafts += 1
        kept = decision.purpose is Purpose.KEPT
        self.summary.kept += kept
        self.summary.faulty += kept and is_faulty(each.use)
        self.summary.asked += found.alt is None and not kept
        self.summary.abstained += found.abstained

    def _picture(self, task: _Task) -> Any:
        path = self.store.picture(task.content)
        return InContext(path, task.words) if task.words else path

    def _words(self, each: StoredUse) -> str:
        return context(each.use) if self.options.wording.context_nats else ""

    def _recipe(self, each: StoredUse) -> str:
        """The same text for the same caption: how we search and which words stand nearby."""
        nats = float(self.options.wording.context_nats)
        return json.dumps([self.options.alternatives, self.options.labels, nats, self._words(each)])

    def _text(self, content: int) -> str:
        """What an image of text says; "" if it can't be read here."""
        known = self.store.caption(content, _OCR, "")
        if known is None and self._reads_text:
            try:
                known = {"text": read_text(load_image(self.store.picture(content)))}
            except MissingExtraError:
                self._reads_text = False
            except CutlineError:
                known = {"text": ""}
            if known is not None:
                self.store.put_caption(content, _OCR, "", known)
        return str(known["text"]) if known else ""


def is_faulty(use: ImageUse) -> bool:
    """Whether lint finds an error in what a use says today."""
    return any(found.severity is Severity.ERROR for found in lint([use]))


def _noted(found: Draft, note: str) -> Draft:
    notes = tuple(each for each in found.notes if each != "not captioned")
    return replace(found, notes=(note, *notes))


def _restored(record: dict[str, Any]) -> Caption:
    """A caption from what `Caption.to_dict` says."""
    return Caption(
        record["source"],
        record["caption"],
        record["score"],
        record["model"],
        tuple(Alternative(each["caption"], each["score"]) for each in record["alternatives"]),
        tuple(Label(each["name"], each["probability"]) for each in record["labels"]),
    )
