"""The lint rules: names, severities, what they report, and the WCAG criteria and techniques."""

from __future__ import annotations

from dataclasses import dataclass

from cutline.site.model import Severity


@dataclass(frozen=True)
class LintRule:
    """A rule of `cutline site lint`.

    Attributes:
        name: short and stable: axe-core's name if axe-core has the rule.
        severity: an error fails WCAG, a warning is probably a problem, a note is about style.
        condition: what the rule reports.
        reference: the WCAG success criterion and technique or failure.
    """

    name: str
    severity: Severity
    condition: str
    reference: str


_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

LINT_RULES = {
    rule.name: rule
    for rule in (
        LintRule(
            "image-alt",
            _ERROR,
            "An `<img>` or a Markdown image has no alt.",
            "WCAG 1.1.1, F65, H37",
        ),
        LintRule(
            "document-alt",
            _ERROR,
            "A picture or chart in a document has no alt text.",
            "WCAG 1.1.1, F65",
        ),
        LintRule(
            "input-image-alt",
            _ERROR,
            "An image button has no name.",
            "WCAG 1.1.1 and 4.1.2, F65, H36",
        ),
        LintRule(
            "area-alt",
            _ERROR,
            "A link in an image map has no name.",
            "WCAG 1.1.1, 2.4.4 and 4.1.2, F65, H24",
        ),
        LintRule(
            "role-img-alt", _ERROR, "An element with role=img has no name.", "WCAG 1.1.1, ARIA6"
        ),
        LintRule(
            "svg-img-alt",
            _ERROR,
            "An SVG with an image role, or with an alt attribute, has no name.",
            "WCAG 1.1.1, ARIA6",
        ),
        LintRule(
            "svg-image", _ERROR, "An SVG that shows an image file has no name.", "WCAG 1.1.1, ARIA6"
        ),
        LintRule("object-alt", _ERROR, "An `<object>` image has no name.", "WCAG 1.1.1, ARIA6"),
        LintRule(
            "link-name",
            _ERROR,
            "A link contains only an image, and the image has no alt.",
            "WCAG 2.4.4 and 4.1.2, F89, H30",
        ),
        LintRule("whitespace", _ERROR, "An alt consists of spaces.", "WCAG 1.1.1, F65, H67"),
        LintRule(
            "presentation-role-conflict",
            _WARNING,
            "An image is marked as decorative, but another attribute exposes it.",
            "WCAG 1.1.1, F39",
        ),
        LintRule(
            "decorative-title",
            _WARNING,
            'An image has alt="" and a title.',
            "WCAG 1.1.1, H67",
        ),
        LintRule(
            "placeholder",
            _ERROR,
            "An alt is a placeholder or an unreplaced template expression.",
            "WCAG 1.1.1, F30",
        ),
        LintRule(
            "generated",
            _WARNING,
            "A program wrote an alt, and nobody has checked it.",
            "WCAG 1.1.1, F30",
        ),
        LintRule(
            "filename",
            _ERROR,
            "An alt is a file name; a warning if it only looks like one.",
            "WCAG 1.1.1, F30",
        ),
        LintRule(
            "decorative-alt",
            _ERROR,
            'An alt names a decoration, such as "spacer"; a warning if the word has other uses.',
            "WCAG 1.1.1, F38, F39",
        ),
        LintRule("vague", _WARNING, 'An alt such as "image" fits any image.', "WCAG 1.1.1, F30"),
        LintRule(
            "icon-not-action",
            _WARNING,
            "The alt of an icon in a link or button describes the icon, not the purpose.",
            "WCAG 1.1.1 and 2.4.4, H30, H36",
        ),
        LintRule(
            "redundant-prefix",
            _WARNING,
            'An alt begins with "image of" or similar; a note for "photo of".',
            "WCAG 1.1.1, H37",
        ),
        LintRule(
            "image-redundant-alt",
            _WARNING,
            "The link's text, the figcaption or the text next to an image repeats its alt.",
            "WCAG 1.1.1, H2",
        ),
        LintRule("keyword-stuffing", _WARNING, "An alt lists keywords.", "WCAG 1.1.1, G94"),
        LintRule(
            "repeated",
            _WARNING,
            "Different images of one page have the same alt and different link targets.",
            "WCAG 1.1.1, F30",
        ),
        LintRule("too-long", _NOTE, "An alt has more than 125 characters.", "WCAG 1.1.1, G95"),
        LintRule(
            "stray-space", _NOTE, "An alt contains line breaks or extra spaces.", "WCAG 1.1.1"
        ),
    )
}
"""By name, in the order of the reference."""
