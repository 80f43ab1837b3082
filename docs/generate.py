"""Writes the parts of the pages that are made from the code: rules, laws, domains, options, commands, the report's schema.

    python -m docs.generate

It also writes what the rules say of themselves to `harness/results/rule_texts.json`, which is read without torch.  A part stands between ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``; `PARTS` says what makes it.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from enum import EnumType
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

if TYPE_CHECKING:
    from harness.rules import Rule

FOLDER = Path(__file__).parent
_PART = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end of (?P=name) -->)", re.DOTALL)
_CODE = re.compile(r"(`+[^`]*`+)")

GROUPS = {
    "G": "Gradients",
    "B": "Shapes and broadcasting",
    "C": "Context",
    "D": "Dtypes",
    "E": "Equal to the reference",
    "L": "Declared laws",
    "S": "State",
    "T": "Transforms",
    "P": "Costs",
    "M": "Times",
    "X": "Crashes",
}


def rule_texts() -> str:
    """The text of `rule_texts.json`, made from the rules; loads torch."""
    from harness.results.rule_texts import RuleText
    from harness.rules import DOCUMENTED

    def told(rule: Rule) -> dict[str, Any]:
        words = RuleText(
            rule.code,
            rule.title,
            rule.group,
            rule.severity,
            rule.statement,
            rule.explain(),
            rule.measures_gradient,
            rule.is_of_the_loss,
        )
        return {name: value for name, value in asdict(words).items() if value is not False}

    return json.dumps([told(rule) for rule in DOCUMENTED], indent=1, ensure_ascii=False) + "\n"


def rules() -> str:
    """A table of every rule, then what each says of itself."""
    from harness.results.rule_texts import rule_texts

    texts = sorted(rule_texts().values(), key=lambda text: (list(GROUPS).index(text.code[0]), text.code))
    shown = []
    for letter, title in GROUPS.items():
        mine = [text for text in texts if text.code.startswith(letter)]
        rows = [[f"[{t.code}](#{slug(f'{t.code} {t.title}')})", _escaped(t.title), t.severity] for t in mine]
        shown.append(f"## {letter}: {title}\n\n{_table(['code', 'rule', 'severity'], rows)}")
        shown += [_explained(text.explanation) for text in mine]
    return "\n\n".join(shown)


def _explained(text: str) -> str:
    """The page of one rule, one level below its group; formulas that are not set apart are kept as they stand."""
    lines = []
    for line in text.strip().splitlines():
        if line.startswith("# "):
            lines.append(f"### {_escaped(line[2:])}")
        elif line.startswith("## "):
            lines.append(f"**{line[3:]}**")
        else:
            lines.append(line if line.startswith("    ") else _escaped(line))
    return "\n".join(lines)


def laws() -> str:
    """Each law: its call, its formula, and the rule that checks it."""
    from harness import laws as module
    from harness.declare.documented import documented
    from harness.results.rule_texts import rule_texts

    codes = dict(re.findall(r'^def (\w+)\(.*?Law\(\s*"(L\d\d)"', inspect.getsource(module), re.MULTILINE | re.DOTALL))
    rows = []
    for name, (call, said) in documented("laws").items():
        text = rule_texts()[codes[name]]
        rows.append([f"`{call}`", _cell(said), f"[{text.code}](rules.md#{slug(f'{text.code} {text.title}')})"])
    return _table(["law", "what it says", "rule"], rows)


def domains() -> str:
    """Each domain: its call, its values, and its special points."""
    from harness import domains as module
    from harness.declare.documented import documented

    examples: dict[str, tuple[Any, ...]] = {
        "interval": (0.0, 1.0),
        **dict.fromkeys(("log_simplex", "simplex", "sorted_along", "unit_norm"), (-1,)),
        "sparse": ("coo",),
        **dict.fromkeys(("distinct", "index", "lengths", "offsets"), ("C",)),
    }
    rows = []
    for name, (call, said) in documented("domains").items():
        points = () if name == "custom" else getattr(module, name)(*examples.get(name, ())).special
        shown = ", ".join(points) or ("those that it is given" if name == "custom" else "")
        rows.append([f"`{call}`", _cell(said), shown])
    return _table(["domain", "values", "special points, drawn on purpose"], rows)


def spec() -> str:
    """The arguments of `LossSpec`."""
    from harness import LossSpec

    return _table(["argument", "what it says"], [[f"`{n}`", _cell(t)] for n, t in _arguments(LossSpec).items()])


def commands() -> str:
    """Each command and its sentence."""
    from harness.cli.commands import COMMANDS

    rows = [[f"`loss-harness {c.name}`", _cell((c.help or "").strip().split("\n\n")[0])] for c in COMMANDS]
    return _table(["command", "what it does"], rows)


def settings() -> str:
    """Each key of ``[tool.loss-harness]``: its values, what they are by default, and the commands that take it."""
    from harness.runs import configuration

    rows = []
    for option in configuration.OPTIONS.values():
        default = "" if option.default is None else f"`{option.default}`"
        takers = ", ".join(f"`{command}`" for command in option.commands) or "all"
        rows.append([f"`{option.name}`", _cell(option.values), default, takers])
    return _table(["key", "value", "default", "commands"], rows)


def records() -> str:
    """The records of `report.json`: fields, types, and what each record is."""
    from harness.results import schema

    shown, waiting, seen = [], [schema.Report], set()
    while waiting:
        record = waiting.pop(0)
        if record in seen:
            continue
        seen.add(record)
        hints = typing.get_type_hints(record)
        kinds = {field.name: hints[field.name] for field in fields(record)}
        rows = [[f"`{name}`", f"`{_kind(kind)}`"] for name, kind in kinds.items()]
        text = "\n".join(_escaped(line) for line in (inspect.getdoc(record) or "").splitlines()).replace("``", "`")
        shown.append(f"### {record.__name__}\n\n{text}\n\n{_table(['field', 'type'], rows)}")
        waiting += [item for kind in kinds.values() for item in (kind, *typing.get_args(kind)) if is_dataclass(item)]
    return "\n\n".join(shown)


def survey() -> str:
    """A row a finding of the survey: where it was seen, what it is, and the section whose code shows it."""
    from property_tests.tools.survey.findings import sections

    rows = [
        [
            ", ".join(finding.versions),
            ", ".join(f"`{loss}`" for loss in finding.losses),
            f"{finding.fact.rstrip('.')} ({', '.join(finding.rules) or 'read off its formula'})".replace("|", "\\|"),
            f"[code](#{slug(section.name)})" if finding.lines else "",
            finding.severity,
        ]
        for section in sections()
        for finding in section.findings
    ]
    return _table(["version", "loss", "fact", "reproduction", "severity"], rows)


def _kind(kind: Any) -> str:
    """A type as JSON has it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(argument) for argument in arguments)
    if origin is tuple:
        return f"array of {_kind(arguments[0])}"
    if origin is dict or kind is dict:
        return "object"
    if origin is Literal or isinstance(kind, EnumType):
        return " or ".join(f'"{value}"' for value in (arguments or kind))
    names = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _arguments(documented: Any) -> Mapping[str, str]:
    """The section ``Args:`` of a docstring: name -> text."""
    section = (inspect.getdoc(documented) or "").partition("Args:\n")[2].split("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _cell(text: str | None) -> str:
    return _escaped(" ".join((text or "").split())).replace("``", "`").replace("|", "\\|")


def _escaped(text: str) -> str:
    """Text whose ``<`` and ``*`` mean themselves; what stands in backticks already does."""
    parts = _CODE.split(text)
    return "".join(part if part.startswith("`") else re.sub(r"([<*])", r"\\\1", part) for part in parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading: lower case, punctuation dropped, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


PARTS: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "domains": domains,
    "laws": laws,
    "records": records,
    "rules": rules,
    "settings": settings,
    "spec": spec,
    "survey": survey,
}


def generated(text: str) -> str:
    """A page with its generated parts made anew."""
    return _PART.sub(lambda found: f"{found[1]}\n{PARTS[found['name']]()}\n\n{found[3]}", text)


if __name__ == "__main__":
    from harness.results import rule_texts as words

    makers = {words.FILE: lambda _: rule_texts(), **dict.fromkeys(sorted(FOLDER.glob("*.md")), generated)}
    for page, make in makers.items():  # the words first, of which pages are made
        before = page.read_text(encoding="utf-8")
        after = make(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"written: {page}")
