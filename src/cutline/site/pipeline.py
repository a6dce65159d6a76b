"""From image occurrences to drafts: fetch, decide, caption, word. Includes how alt="" counts.

Each image is captioned once, whatever its URLs, sizes and occurrences: near-duplicates share the
caption of the largest. The text around an image then affects the wording alone. Only with
`WordingOptions.context_nats` above 0, which lets pages bias decoding, an image is captioned once
for each different set of words near it.

Everything is saved as it is made. Another run makes only what is missing: drafts of new
occurrences, and drafts that would come out differently now and that have no review.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cutline.caption import Alternative, Caption, Captioner, CaptionOptions, InContext, Label
from cutline.chat import Dialogue, is_chat_model
from cutline.errors import CutlineError, MissingExtraError, RefusalError
from cutline.fetch import Fetcher
from cutline.image import load_image
from cutline.image_kind import ImageKind
from cutline.progress import OnProgress, Progress, ignore
from cutline.prompts import Prompt, packaged
from cutline.site.candidates import Candidates
from cutline.site.chat_drafts import ChatDrafts, ImageIndex
from cutline.site.decide.alt_text import WordingOptions, context, draft
from cutline.site.decide.chat_alt import ChatAlt, ChatAltOptions, needs_chat
from cutline.site.decide.decision_tree import decide, is_kept, with_text
from cutline.site.decide.image_stats import read_text
from cutline.site.decide.lint import lint
from cutline.site.image_metadata import CarriedText, carried_text, with_carried_text
from cutline.site.images import SVG, DownloadOptions, ImageOpener, download
from cutline.site.model import Decision, Draft, ImageOccurrence, Purpose, Severity
from cutline.site.store.store import Store, StoredOccurrence

_DESCRIBED_BY_FILE = (Purpose.INFORMATIVE, Purpose.COMPLEX, Purpose.TEXT)
_OCR = "ocr"  # the "model" under which the store keeps the text of images of text


@dataclass(frozen=True)
class DraftOptions:
    """How a site is drafted."""

    wording: WordingOptions = field(default_factory=WordingOptions)
    """How captions become drafts."""

    download: DownloadOptions = field(default_factory=DownloadOptions)
    """How images are fetched."""

    alternatives: int = 3
    """Captions for each image, the best one included, as far as the beam is wide enough."""

    labels: int = 5
    """Labels for each image."""

    batch_size: int = CaptionOptions.batch_size
    """Images that one thread processes together."""

    ocr: bool = True
    """Read images of text, if `cutline[ocr]` is installed."""

    metadata: bool = True
    """Suggest the text that an image file carries, if `cutline[metadata]` is installed."""

    fill_empty: bool | None = None
    """Whether `alt=""` counts as missing. None: in a crawler's list, whose author asks for alts,
    but not on a page that was read, where it is intentional."""

    redo: bool = False
    """Draft all unreviewed occurrences again."""

    prompt: Prompt = field(default_factory=lambda: packaged("alt"))
    """How a chat model is asked for alt text."""

    language: str = ""
    """What a chat model writes, a language tag; "" is the language of each page."""


@dataclass
class Summary:
    """What a run did.

    Attributes:
        fetched, unchanged, failed: images fetched, not modified, and not available.
        captioned: images captioned; `uncaptioned` those that the captioner refused.
        drafts: occurrences decided; of these, `kept` are left as they are, although lint finds an
            error in `faulty` of them; `asked` have no suggestion, and of these, `abstained` have a
            caption of too little confidence.
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
    options: DraftOptions | None = None,
    *,
    fetcher: Fetcher,
    progress: OnProgress = ignore,
    before_captions: Callable[[Captioner, int], None] | None = None,
    open_image: ImageOpener | None = None,
) -> Summary:
    """Draft every occurrence that has no draft, or one that would come out differently now.

    A stopped or killed run loses nothing that was made; another run continues from there.

    Args:
        store: the site's store.
        captioner: captions the images; nothing but its name is read unless there is an image to
            caption.
        options: how to draft; None is the default.
        fetcher: for images on the network.
        progress: called after every item; the steps are "fetching", "deciding" and "captioning".
        before_captions: called with the captioner and the number of requests to it, before the
            first one; may raise to send none.
        open_image: opens the images that only the site's destination can open.

    Raises:
        StoreError, OutputError: the disk is full, or the store is in use.
        EngineError: inference failed.
    """
    started_s = time.monotonic()
    run = _Run(store, captioner, options or DraftOptions(), progress)
    run.fetch(fetcher, open_image)
    tasks = run.decide()
    if tasks and run.is_renamed():
        tasks = run.decide()
    if tasks and before_captions is not None:
        before_captions(captioner, len(tasks))
    run.caption(tasks)
    run.summary.elapsed_s = time.monotonic() - started_s
    return run.summary


@dataclass
class _Task:
    """An image to caption, and the occurrences that wait for it with their decisions."""

    content: int
    words: str
    waiting: list[tuple[int, Decision]] = field(default_factory=list)


class _Run:
    def __init__(
        self, store: Store, captioner: Captioner, options: DraftOptions, progress: OnProgress
    ) -> None:
        self.store = store
        self.captioner = captioner
        self.options = options
        self.progress = progress
        self.summary = Summary()
        self._reads_text = options.ocr
        self._carried: dict[tuple[Path, str], CarriedText | None] = {}
        self._reads_metadata = options.metadata and has_metadata_reader()
        self._empty_is_missing = store.empty_is_missing
        wording = json.dumps(asdict(options.wording), sort_keys=True)
        others = f"{options.alternatives} {options.labels} {options.fill_empty}"
        ocr = " ocr" if options.ocr and has_ocr() else ""
        ocr += " metadata" if self._reads_metadata else ""
        asked = ""
        self._chat: ChatDrafts | None = None
        if is_chat_model(captioner):
            asked = f" {options.prompt.version} {options.language}"
            chat = ChatAltOptions(
                options.wording.max_chars,
                options.language,
                options.wording.glossary,
                options.prompt,
            )
            self._chat = ChatDrafts(store, captioner.name, chat, ImageIndex())
        store.put_setting("rules", f"{version('cutline')} {wording} {others}{ocr}{asked}")
        self._put_model()

    def _put_model(self) -> None:
        self._model = self.captioner.name
        self.store.put_setting("model", self._model)

    def is_renamed(self) -> bool:
        """Load the captioner; return whether its name has changed."""
        _ = self.captioner.search
        if self.captioner.name == self._model:
            return False
        self._put_model()
        return True

    def fetch(self, fetcher: Fetcher, open_image: ImageOpener | None = None) -> None:
        """Fetch the images on whose pixels a decision depends, and those that are at hand."""
        wanted = {
            each.image.id
            for each in self.store.occurrences()
            if each.image
            and (
                each.image.url.startswith(("file:", "data:")) or not is_kept(self._as_missing(each))
            )
        }
        summary, candidates, ids = self.summary, Candidates(self.store), wanted
        while ids:
            found = download(
                self.store, ids, self.options.download, fetcher, self.progress, open_image
            )
            summary.fetched += found.fetched
            summary.unchanged += found.unchanged
            summary.failed += found.failed
            ids = candidates.advance(ids)
            wanted |= ids
        if summary.failed:  # less those that another source replaced
            shown = sum(image.id in wanted for image in self.store.images("failed"))
            summary.failed = min(summary.failed, shown)

    def decide(self) -> list[_Task]:
        """Draft what needs no new caption; returns the images that need one."""
        tasks: dict[tuple[int, str], _Task] = {}
        total = self.store.count_occurrences()
        if self._chat is not None:
            self._chat = replace(self._chat, index=ImageIndex.of(self.store))
        for done, each in enumerate(self.store.occurrences(), start=1):
            if self._is_due(each):
                occurrence = self._as_missing(each)
                decision = decide(occurrence, each.image.pixels if each.image else None)
                decision = self._described_by_file(each, decision)
                if self._chat is not None and self._asks(each, decision):
                    self._chat_task(self._chat, each, decision, tasks)
                    self.progress(Progress("deciding", done, total))
                    continue
                decision, caption, content = self._captioned_before(each, decision)
                if content is None:
                    self._draft(each, decision, caption)
                else:
                    words = self._words(each)
                    task = tasks.setdefault((content, words), _Task(content, words))
                    task.waiting.append((each.id, decision))
            self.progress(Progress("deciding", done, total))
        return list(tasks.values())

    def caption(self, tasks: list[_Task]) -> None:
        """Caption images, and draft the occurrences that wait for each as soon as it is done."""
        self.progress(Progress("captioning", 0, len(tasks)))
        if not tasks:
            return
        if self._chat is not None:
            self._converse(self._chat, tasks)
            return
        search = self.captioner.search
        options = CaptionOptions(
            replace(search, n_best=min(self.options.alternatives, search.beam_size)),
            self.options.labels,
            self.options.batch_size,
            self.options.wording.context_nats,
        )
        captions: Any = self.captioner.stream(map(self._picture, tasks), options)
        with closing(captions):
            for done, (task, caption) in enumerate(zip(tasks, captions, strict=True), start=1):
                self._captioned(task, caption)
                self.progress(Progress("captioning", done, len(tasks), self.summary.uncaptioned))

    def _as_missing(self, each: StoredOccurrence) -> ImageOccurrence:
        """The occurrence; without its alt where an empty alt counts as missing."""
        fill = self.options.fill_empty
        if fill is None:
            fill = bool(each.origin) or self._empty_is_missing
        missing = each.occurrence.alt == "" and fill
        return replace(each.occurrence, alt=None) if missing else each.occurrence

    def _is_due(self, each: StoredOccurrence) -> bool:
        if each.review is not None:
            return False
        return each.draft is None or each.stale or self.options.redo

    def _captioned_before(
        self, each: StoredOccurrence, decision: Decision
    ) -> tuple[Decision, Caption | None, int | None]:
        """The decision with an image's text read, the caption in the store, the image to caption.

        The last two are None where the decision needs no caption.
        """
        image = each.image
        if image is None or image.content is None or decision.alt is not None:
            return decision, None, None
        if decision.purpose is Purpose.TEXT:
            return with_text(decision, self._text(image.content)), None, None
        if decision.purpose is not Purpose.INFORMATIVE or image.media_type == SVG:
            return decision, None, None
        known = self.store.caption(image.content, self._model, self._recipe(each))
        caption = None if known is None else _restored(known)
        if caption is not None:
            return decision, caption, None
        return decision, None, self.store.largest(image.content)

    def _described_by_file(self, each: StoredOccurrence, decision: Decision) -> Decision:
        """The decision with the text that the image file itself carries, if it carries one."""
        image = each.image
        if image is None or image.content is None or not self._reads_metadata:
            return decision
        if decision.alt is not None or decision.purpose not in _DESCRIBED_BY_FILE:
            return decision
        path = image.path if image.path is not None else self.store.picture(image.content)
        key = (path, each.occurrence.language)
        if key not in self._carried:
            self._carried[key] = carried_text(*key)
        return with_carried_text(decision, self._carried[key])

    def _captioned(self, task: _Task, caption: Caption) -> None:
        if caption.error is not None:
            self._refused(caption.error)
            return  # without a draft, so that the next run tries again
        record = caption.to_dict() | {"source": ""}
        self.summary.captioned += 1
        for number, (id, decision) in enumerate(task.waiting):
            each = self.store.occurrence(id)
            if number == 0:
                recipe = self._recipe(each)
                self.store.put_caption(task.content, self._model, recipe, record)
            self._draft(each, decision, _restored(record))

    def _asks(self, each: StoredOccurrence, decision: Decision) -> bool:
        """Whether a chat model is asked for an occurrence: there is an image, and words to find."""
        image = each.image
        readable = image is not None and image.content is not None and image.media_type != SVG
        return readable and needs_chat(decision)

    def _chat_task(
        self,
        chat: ChatDrafts,
        each: StoredOccurrence,
        decision: Decision,
        tasks: dict[tuple[int, str], _Task],
    ) -> None:
        """Draft from an answer in the store, or add the request that is missing."""
        content = each.image.content if each.image else None
        assert content is not None  # see `_asks`
        occurrence = self._as_missing(each)
        recipe = chat.recipe(each, occurrence, decision)
        record = self.store.caption(content, chat.model, recipe)
        made = chat.draft(occurrence, decision, record, self.options.wording) if record else None
        if made is not None:
            self._save(each, decision, made)
            return
        content = self.store.largest(content)
        task = tasks.setdefault((content, recipe), _Task(content, recipe))
        task.waiting.append((each.id, decision))

    def _converse(self, chat: ChatDrafts, tasks: list[_Task]) -> None:
        """Ask a chat model, and draft the occurrences that wait for each answer."""

        def dialogues() -> Iterator[tuple[Any, Dialogue[ChatAlt]]]:
            for task in tasks:
                id, decision = task.waiting[0]
                each = self.store.occurrence(id)
                dialogue = chat.dialogue(each, self._as_missing(each), decision)
                yield self.store.picture(task.content), dialogue

        model: Any = self.captioner
        answers = model.converse(dialogues())
        with closing(answers):
            for done, (task, answer) in enumerate(zip(tasks, answers, strict=True), start=1):
                self._answered(chat, task, answer)
                self.progress(Progress("captioning", done, len(tasks), self.summary.uncaptioned))

    def _answered(self, chat: ChatDrafts, task: _Task, answer: ChatAlt | CutlineError) -> None:
        if isinstance(answer, CutlineError):
            self._refused(answer)
            if isinstance(answer, RefusalError):  # asking again would give the same answer
                for id, decision in task.waiting:
                    each = self.store.occurrence(id)
                    made = draft(self._as_missing(each), decision, None, self.options.wording)
                    self._save(each, decision, _noted(made, f"{chat.model} {answer}"))
            return
        record = chat.save(task.content, task.words, answer)
        self.summary.captioned += 1
        for id, decision in task.waiting:
            each = self.store.occurrence(id)
            suggested = chat.draft(self._as_missing(each), decision, record, self.options.wording)
            if suggested is not None:
                self._save(each, decision, suggested)

    def _refused(self, error: CutlineError) -> None:
        self.summary.uncaptioned += 1
        reason = error.message
        if reason not in self.summary.refusals:
            self.summary.refusals.append(reason)

    def _draft(self, each: StoredOccurrence, decision: Decision, caption: Caption | None) -> None:
        occurrence = self._as_missing(each)
        self._save(each, decision, draft(occurrence, decision, caption, self.options.wording))

    def _save(self, each: StoredOccurrence, decision: Decision, made: Draft) -> None:
        occurrence, image = self._as_missing(each), each.image
        if occurrence is not each.occurrence:
            made = _noted(made, 'its alt is "" now, which may be intentional')
        if decision.alt is None and image is not None and decision.purpose is not Purpose.KEPT:
            if image.status == "failed":
                made = _noted(made, f"its image could not be fetched: {image.error}")
            elif image.media_type == SVG:
                made = _noted(made, "a drawing (SVG), which no captioner reads: describe it")
        self.store.put_draft(each.id, made)
        self.summary.drafts += 1
        kept = decision.purpose is Purpose.KEPT
        self.summary.kept += kept
        self.summary.faulty += kept and is_faulty(each.occurrence)
        self.summary.asked += made.alt is None and not kept
        self.summary.abstained += made.abstained

    def _picture(self, task: _Task) -> Any:
        path = self.store.picture(task.content)
        return InContext(path, task.words) if task.words else path

    def _words(self, each: StoredOccurrence) -> str:
        return context(each.occurrence) if self.options.wording.context_nats else ""

    def _recipe(self, each: StoredOccurrence) -> str:
        """Equal for equal captions: the search options, and the words near the image."""
        nats = float(self.options.wording.context_nats)
        return json.dumps([self.options.alternatives, self.options.labels, nats, self._words(each)])

    def _text(self, content: int) -> str:
        """The text in an image of text; "" if it cannot be read."""
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
        return str(known.get("text", "")) if known else ""


def has_ocr() -> bool:
    """Whether images of text can be read here, because `cutline[ocr]` is installed."""
    if "rapidocr" in sys.modules:
        return sys.modules["rapidocr"] is not None
    return find_spec("rapidocr") is not None


def has_metadata_reader() -> bool:
    """Whether the metadata of images can be read here: `cutline[metadata]` is installed."""
    return find_spec("exiv2") is not None


def is_faulty(occurrence: ImageOccurrence) -> bool:
    """Whether lint finds an error in the alt that an occurrence has now."""
    return any(found.severity is Severity.ERROR for found in lint([occurrence]))


def _noted(found: Draft, note: str) -> Draft:
    notes = tuple(each for each in found.notes if each != "not captioned")
    return replace(found, notes=(note, *notes))


def _restored(record: dict[str, Any]) -> Caption | None:
    """A caption from the result of `Caption.to_dict`; None if it is damaged."""
    try:
        return Caption(
            str(record["source"]),
            str(record["caption"]),
            _score(record["score"]),
            str(record["model"]),
            tuple(
                Alternative(str(each["caption"]), _score(each["score"]))
                for each in record["alternatives"]
            ),
            tuple(
                Label(str(each["name"]), float(each["probability"])) for each in record["labels"]
            ),
            kind=ImageKind(**record["kind"]) if record.get("kind") else None,
        )
    except (KeyError, TypeError, ValueError):
        return None


def _score(value: Any) -> float:
    """A score from JSON, where None is a captioner without scores."""
    return math.nan if value is None else float(value)
