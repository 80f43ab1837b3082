"""What the rules say of themselves, readable without torch.

The rules import torch, which takes a second; a report that is shown in another form needs their words only.  These stand in
`rule_texts.json`, which `python -m harness.report.rule_texts` writes anew from the rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from harness.results.findings import Severity

FILE = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class RuleText:
    """One rule in words: ``statement`` is the law with its formula, ``explanation`` all of it as Markdown."""

    code: str
    title: str
    group: str
    severity: Severity
    statement: str
    explanation: str


@lru_cache(maxsize=1)
def rule_texts() -> Mapping[str, RuleText]:
    """Code -> words of every rule that a finding may name, in the order of the battery."""
    return {entry["code"]: RuleText(**entry) for entry in json.loads(FILE.read_text(encoding="utf-8"))}


def rule_text(code: str) -> RuleText:
    """The words of one rule; a rule of another version of the tool has its code alone."""
    return rule_texts().get(code) or RuleText(code, "", "", "warning", "", "")


def heading(code: str) -> str:
    """Code and title, such as ``G01 gradient matches finite differences``."""
    return f"{code} {rule_text(code).title}".rstrip()


def dumps() -> str:
    """The text of `rule_texts.json`, made from the rules; loads torch."""
    from harness.rules import DOCUMENTED

    texts = [
        RuleText(rule.code, rule.title, rule.group, rule.severity, rule.statement, rule.explain())
        for rule in DOCUMENTED
    ]
    return json.dumps([asdict(text) for text in texts], indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(dumps(), encoding="utf-8")
