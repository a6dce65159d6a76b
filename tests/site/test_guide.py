from __future__ import annotations

import re
from pathlib import Path

from cutline.site.decide.decision_tree import RULES

GUIDE = Path(__file__).parents[2] / "docs" / "site.md"


def test_the_guide_names_every_rule_in_its_order() -> None:
    told = re.findall(r"^\| `([a-z-]+)` \| (.+?) \|", GUIDE.read_text("utf-8"), re.MULTILINE)
    rules = [(rule.name, rule.says) for rule in RULES]
    assert told == [*rules, ("informative", "None of these.")]
