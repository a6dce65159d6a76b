"""Judging the alts that a site has: rules first, then a chat model; saved one by one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from cutline.chat import ChatModel, Dialogue, is_chat_model
from cutline.errors import CutlineError, OptionError
from cutline.fetch import Fetcher
from cutline.progress import OnProgress, Progress, ignore
from cutline.site.chat_drafts import ImageIndex, digest
from cutline.site.decide.chat_judge import (
    JudgeOptions,
    has_alt_to_judge,
    judge_by_rule,
    judge_dialogue,
)
from cutline.site.decide.decision_tree import decide
from cutline.site.decide.page_context import language_for, page_data
from cutline.site.images import SVG, DownloadOptions, ImageOpener, download
from cutline.site.model import AltVerdict, Judgement, Pixels
from cutline.site.store.store import Store, StoredOccurrence, now

__all__ = ["JudgeOptions", "JudgeSummary", "judge_site"]


@dataclass
class JudgeSummary:
    """What a run judged.

    Attributes:
        verdicts: how many alts of the site have each verdict now, those of earlier runs included.
        by_rule: judged by a rule in this run.
        asked: judged by the model in this run.
        failed: the model gave no judgement, or the image is not at hand.
        left: alts that a sample left out.
        refusals: why judging failed, each reason once.
    """

    verdicts: Counter[AltVerdict] = field(default_factory=Counter)
    by_rule: int = 0
    asked: int = 0
    failed: int = 0
    left: int = 0
    refusals: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """The result for a person."""
        numbers = {verdict: self.verdicts[verdict] for verdict in AltVerdict}
        line = (
            f"{sum(numbers.values()):,} alts judged: {numbers[AltVerdict.GOOD]:,} good, "
            f"{numbers[AltVerdict.CHANGE]:,} to change, {numbers[AltVerdict.DECORATIVE]:,} to be "
            f"decorative. In this run {self.by_rule:,} by rule, {self.asked:,} by the model"
        )
        line += f", {self.failed:,} failed" if self.failed else ""
        return f"{line}; {self.left:,} left out by the sample." if self.left else f"{line}."


@dataclass
class _Task:
    """One request, and the occurrences that its answer is for."""

    content: int
    recipe: str
    waiting: list[int] = field(default_factory=list)


def judge_site(
    store: Store,
    model: ChatModel,
    options: JudgeOptions,
    *,
    sample: int | None = None,
    fetcher: Fetcher,
    progress: OnProgress = ignore,
    before_requests: Callable[[ChatModel, int], None] | None = None,
    open_image: ImageOpener | None = None,
) -> JudgeSummary:
    """Judge every alt of a site that was not judged, or that changed since.

    Args:
        store: the site's store; each judgement is saved as soon as it is made.
        model: a chat model.
        options: how to judge.
        sample: ask the model about so many alts at most, spread over the site; None is all.
        fetcher: for images on the network.
        progress: called after every item; the steps are "fetching", "deciding" and "judging".
        before_requests: called with the model and the number of requests, before the first one.
        open_image: opens the images that only the site's destination can open.

    Raises:
        OptionError: the model is no chat model, or the sample is below 1.
        ServerStoppedError: no further request can succeed.
    """
    if not is_chat_model(model):
        raise OptionError(
            f"got model {model.name}, which answers no questions; expected a chat model, such as "
            "ollama:NAME"
        )
    if sample is not None and sample < 1:
        raise OptionError(f"got sample {sample}; expected at least 1")
    summary = JudgeSummary()
    _fetch(store, fetcher, progress, open_image)
    index = ImageIndex.of(store)
    tasks: dict[tuple[int, str], _Task] = {}
    total = store.count_occurrences()
    for done, each in enumerate(store.occurrences(), start=1):
        if has_alt_to_judge(each.occurrence):
            _rule_or_task(store, model, options, index, each, tasks, summary)
        progress(Progress("deciding", done, total))
    chosen = _sampled(list(tasks.values()), sample)
    summary.left = sum(len(task.waiting) for task in tasks.values()) - sum(
        len(task.waiting) for task in chosen
    )
    if chosen and before_requests is not None:
        before_requests(model, len(chosen))
    _ask(store, model, options, index, chosen, summary, progress)
    for each in store.occurrences():
        if each.judgement is not None:
            summary.verdicts[each.judgement.verdict] += 1
    return summary


def _fetch(
    store: Store, fetcher: Fetcher, progress: OnProgress, open_image: ImageOpener | None
) -> None:
    """Fetch the images whose alts no rule judges without them."""
    wanted = (
        each.image.id
        for each in store.occurrences()
        if each.image and has_alt_to_judge(each.occurrence) and not judge_by_rule(each.occurrence)
    )
    download(store, wanted, DownloadOptions(), fetcher, progress, open_image)


def _rule_or_task(
    store: Store,
    model: ChatModel,
    options: JudgeOptions,
    index: ImageIndex,
    each: StoredOccurrence,
    tasks: dict[tuple[int, str], _Task],
    summary: JudgeSummary,
) -> None:
    """Judge one alt by rule, or add the request that it needs."""
    found = judge_by_rule(each.occurrence, _pixels(each))
    if found is not None:
        recipe = digest("rule", found.judge, found.reason, found.alt, each.occurrence.alt)
        if each.judgement_recipe != recipe:
            store.put_judgement(each.id, recipe, replace(found, judged_at=now()))
            summary.by_rule += 1
        return
    recipe = _recipe(model, options, index, each)
    if each.judgement_recipe == recipe:
        return
    image = each.image
    if image is None or image.content is None or image.media_type == SVG:
        summary.failed += 1
        _note(summary, "the image is not at hand, or a drawing (SVG)")
        return
    content = store.largest(image.content)
    task = tasks.setdefault((content, recipe), _Task(content, recipe))
    task.waiting.append(each.id)


def _recipe(
    model: ChatModel, options: JudgeOptions, index: ImageIndex, each: StoredOccurrence
) -> str:
    occurrence = each.occurrence
    data = page_data(
        occurrence,
        decide(replace(occurrence, alt=None), _pixels(each)),
        others=index.others(each),
        glossary=options.glossary,
        shared=index.is_shared(each),
    )
    language = language_for(occurrence, options.language)
    parts = model.name, options.prompt.version, options.max_chars, language, occurrence.alt, data
    return digest("judge", *parts)


def _sampled(tasks: list[_Task], sample: int | None) -> list[_Task]:
    """So many requests, spread over the site and the same in every run."""
    if sample is None or sample >= len(tasks):
        return tasks
    order = sorted(tasks, key=lambda task: hashlib.sha256(task.recipe.encode()).digest())
    chosen = {task.recipe for task in order[:sample]}
    return [task for task in tasks if task.recipe in chosen][:sample]


def _ask(
    store: Store,
    model: ChatModel,
    options: JudgeOptions,
    index: ImageIndex,
    tasks: list[_Task],
    summary: JudgeSummary,
    progress: OnProgress,
) -> None:
    def dialogues() -> Iterator[tuple[Any, Dialogue[Judgement]]]:
        for task in tasks:
            each = store.occurrence(task.waiting[0])
            dialogue = judge_dialogue(
                each.occurrence,
                options,
                model=model.name,
                pixels=_pixels(each),
                others=index.others(each),
                shared=index.is_shared(each),
            )
            yield store.picture(task.content), dialogue

    answers: Any = model.converse(dialogues())
    with closing(answers):
        for done, (task, answer) in enumerate(zip(tasks, answers, strict=True), start=1):
            if isinstance(answer, CutlineError):
                summary.failed += len(task.waiting)
                _note(summary, str(answer))
            else:
                for id in task.waiting:
                    store.put_judgement(id, task.recipe, replace(answer, judged_at=now()))
                summary.asked += len(task.waiting)
            progress(Progress("judging", done, len(tasks), summary.failed))


def _pixels(each: StoredOccurrence) -> Pixels | None:
    return each.image.pixels if each.image else None


def _note(summary: JudgeSummary, reason: str) -> None:
    if reason not in summary.refusals:
        summary.refusals.append(reason)
