"""What the rules say of themselves, readable without torch.

The rules import torch, which takes a second; who shows or judges a report needs their words only.  These stand in
`rule_texts.json`, which `python -m docs.generate` writes anew from the rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
FILE = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class RuleText:
    """One rule in words: ``statement`` is the law with its formula, ``explanation`` all of it as Markdown.

    ``measures_gradient`` and ``is_of_the_loss`` are those of `harness.rules.rule.Rule`.
    """

    code: str
    title: str
    group: str
    severity: Severity
    statement: str
    explanation: str
    measures_gradient: bool = False
    is_of_the_loss: bool = False


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
