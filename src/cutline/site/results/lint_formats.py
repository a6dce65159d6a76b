"""Lint findings as SARIF and as GitHub annotations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cutline.site.model import Finding, Severity

if TYPE_CHECKING:
    from typing import Protocol

    class Location(Protocol):
        """A file and a line, as in `lint_workflow.Location`."""

        @property
        def file(self) -> str: ...  # noqa: D102
        @property
        def line(self) -> int: ...  # noqa: D102


_SARIF_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
_GITHUB_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def to_sarif(findings: Iterable[tuple[Location, Finding]]) -> str:
    """A SARIF 2.1.0 log with one run, for code scanning.

    Source: OASIS, Static Analysis Results Interchange Format 2.1.0.
    """
    rules: dict[str, dict[str, Any]] = {}
    results = []
    for location, finding in findings:
        rules.setdefault(
            finding.rule,
            {
                "id": finding.rule,
                "shortDescription": {"text": finding.rule.replace("-", " ")},
                "help": {"text": finding.reference or finding.rule},
            },
        )
        place: dict[str, Any] = {"artifactLocation": {"uri": quote(location.file)}}
        if location.line:
            place["region"] = {"startLine": location.line}
        results.append(
            {
                "ruleId": finding.rule,
                "level": _SARIF_LEVELS[finding.severity],
                "message": {"text": _message(finding)},
                "locations": [{"physicalLocation": place}],
            }
        )
    driver = {"name": "cutline", "version": version("cutline"), "rules": list(rules.values())}
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(log, indent=1)


def to_github(findings: Iterable[tuple[Location, Finding]]) -> Iterator[str]:
    """Workflow commands that GitHub Actions shows as annotations, one line each."""
    for location, finding in findings:
        where = f"file={_escaped(location.file, ',:')}"
        if location.line:
            where += f",line={location.line}"
        title = _escaped(f"alt text: {finding.rule}", ",:")
        level = _GITHUB_LEVELS[finding.severity]
        yield f"::{level} {where},title={title}::{_escaped(_message(finding))}"


def _message(finding: Finding) -> str:
    occurrence = finding.occurrence
    source = (occurrence.source or occurrence.markup)[:200] if occurrence else ""
    text = f"{source}: {finding.message}" if source else finding.message
    if occurrence and occurrence.place:
        text = f"{occurrence.place}: {text}"
    return f"{text} ({finding.reference})" if finding.reference else text


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
