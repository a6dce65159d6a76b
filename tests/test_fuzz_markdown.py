from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "fuzz_markdown.py"


def test_a_few_random_pages_break_no_rule() -> None:
    spec = importlib.util.spec_from_file_location("fuzz_markdown", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    fuzzer = module.Fuzzer(5)
    for _ in range(20):
        fuzzer.step()
    assert fuzzer.failures == 0
    assert fuzzer.counts["written"] > 10
    assert fuzzer.counts["markdown-it equal"] > 5
