"""Options that a command line and `pyproject.toml` share, and what a project has chosen of them.

    [tool.loss-harness]
    targets = ["losses", "more/losses.py:SPECS"]   # so that `loss-harness verify` needs none
    ignore = ["B03"]
    dtype = "float32,bfloat16"   # or an array of strings

    [tool.loss-harness.verify]   # for one command alone, over what stands above
    format = "github"

`OPTIONS` is the one place that says their names, values, defaults and commands; the command line, the pytest plugin and
docs/configuration.md are made of it.  An option on the command line wins.  Paths are seen from the folder of the file.
Reading this imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, nearest
from harness.results.measured import CACHES, CLOCKS, DTYPES, PASSES

FILE = "pyproject.toml"
TABLE = "loss-harness"
PROFILES = ("quick", "ci", "thorough")
_RUN, _CHECK, _TIME = ("report", "verify", "bench"), ("report", "verify"), ("report", "bench")
_SAY = (*_RUN, "diff")
_BUDGET = (
    "Seconds of timing per loss; loading the compiler for --compile, a single kernel and pure Python are not cut short."
)
_COMPILE = "Time each under torch.compile too; the time to compile stands apart."
_WORKERS = "Jobs at a time: loss x implementation in a process of its own, by default on all cores; losses, timed on as many cores of their own, by default one."
_MEMORY = "What one process may take beside what it is born with; by default its share of four fifths of what is free."
_INTERPRET = "Run Triton kernels on the CPU, in Triton's interpreter; by default for a file that imports Triton, without --device cuda."
_COLOR = "auto: on a terminal, unless NO_COLOR says no or FORCE_COLOR yes."
_CACHE = "Warm, or emptied before every call; by default warm on the CPU, both on CUDA."
_CLOCK = "By default wall on the CPU, all on CUDA: wall, events on the stream, replay of a graph."
# Kind of an option -> its values, in words.
_VALUES = {
    "targets": 'TARGETs, such as ["losses", "more/losses.py:SPECS"]',
    "codes": 'codes or prefixes, such as ["G", "C02"]',
    "devices": 'cpu, cuda or both: "cpu,cuda"',
    "some": "some of {choices}",
    "one": "one of {choices}",
    "flag": "true or false",
    "whole": "a whole number",
    "count": "a whole number from 1",
    "seconds": "a positive number of seconds",
    "gib": "a positive number of GiB",
    "address": 'an address, such as "tcp://10.0.0.1:8786"',
    "file": 'a file, such as "accepted.json"',
    "folder": 'a folder, such as "reports/latest"',
    "format": 'a format of the command, such as "json"',
}


@dataclass(frozen=True)
class Option:
    """What a command line and a file can both choose.

    Args:
        name: in the file, and on the command line behind ``--``.
        kind: of its values, a key of `_VALUES`.
        commands: that take it; none where it belongs to `loss-harness` itself.
        help: one sentence; empty where each command says its own.
        default: where nothing is said.
        choices: the values that there are.
        parameter: its name in Python, where that is another.
    """

    name: str
    kind: str
    commands: tuple[str, ...]
    help: str = ""
    default: Any = None
    choices: tuple[str, ...] = ()
    parameter: str = ""

    @property
    def values(self) -> str:
        """What may be given, in words."""
        return _VALUES[self.kind].format(choices=", ".join(self.choices))

    def understand(self, value: object) -> Any:
        """A value of TOML as that of the option; ``None`` where it is none of its values."""
        if self.kind == "flag":
            return value if isinstance(value, bool) else None
        if self.kind in ("whole", "count"):
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            return value if is_whole and (self.kind == "whole" or value > 0) else None  # type: ignore[operator]
        if self.kind in ("seconds", "gib"):
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return float(value) if is_number and 0 < value < float("inf") else None  # type: ignore[arg-type, operator]
        if self.kind in ("targets", "codes", "devices", "some"):
            given = value.split(",") if isinstance(value, str) else value
            if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
                return None
            names = tuple(name.strip() for name in given if name.strip())
            if self.kind in ("targets", "codes"):
                return names
            return ",".join(names) if names and (not self.choices or set(names) <= set(self.choices)) else None
        is_known = isinstance(value, str) and (value in self.choices if self.choices else value != "")
        return value if is_known else None


OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        Option("targets", "targets", _RUN),
        Option("select", "codes", _CHECK, "Only these rules: G01, or G for all of G."),
        Option("ignore", "codes", _CHECK, "Not these rules."),
        Option("profile", "one", _CHECK, "How many examples.", "ci", PROFILES),
        Option("seed", "whole", _RUN, "Same seed, same cases and findings.", 0),
        Option("device", "devices", _RUN, "cpu, cuda, or both: cpu,cuda.", "cpu", parameter="devices"),
        Option("budget", "seconds", _TIME, _BUDGET, 30.0, parameter="budget_s"),
        Option("compile", "flag", _TIME, _COMPILE, parameter="compiled"),
        Option("workers", "count", _RUN, _WORKERS),
        Option("timeout", "seconds", _RUN, "What one check may take before it is ended and reported.", 300.0),
        Option("memory", "gib", _RUN, _MEMORY),
        Option("triton-interpret", "flag", _RUN, _INTERPRET, parameter="triton_interpret"),
        Option("cluster", "address", _RUN, "Run on the dask cluster at this address, such as tcp://10.0.0.1:8786."),
        Option("baseline", "file", ("verify",), "Findings in this file are accepted: shown, but no failure."),
        Option("out", "folder", ("report",), "Folder of the report.", "reports/latest"),
        Option("format", "format", ("verify", "bench", "diff"), parameter="form"),
        Option("quiet", "flag", _SAY, "Only errors and crashes, and no progress."),
        Option("verbose", "flag", _SAY, "Also notes, every reason, and code that reproduces each finding."),
        Option("color", "one", (), _COLOR, "auto", ("auto", "always", "never")),
        Option("pass", "some", _TIME, "What is timed; full is forward and backward.", "forward,full", PASSES, "passes"),
        Option("dtype", "some", _TIME, "Dtypes of the inputs.", "float32", DTYPES, "dtypes"),
        Option("cache", "some", _TIME, _CACHE, choices=CACHES, parameter="caches"),
        Option("clock", "some", _TIME, _CLOCK, choices=CLOCKS, parameter="clocks"),
    )
}
# What each command may be told in a table of its own; what stands above goes to every command that knows it.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    command: tuple(option.name for option in OPTIONS.values() if command in option.commands) for command in _SAY
}


class ConfigurationError(HarnessError, ValueError):
    """A configuration that cannot be understood."""


@dataclass(frozen=True)
class Configuration:
    """What a project has chosen, from ``file``; empty where it has chosen nothing.

    ``values`` are by the names of the options, and ``commands`` are those of one command alone.
    """

    file: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    commands: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def find(start: Path) -> Configuration:
    """The table of the nearest `pyproject.toml` that has one, from the folder ``start`` upwards.

    Raises:
        ConfigurationError: see `read`.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            found = read(folder / FILE)
            if found is not None:
                return found
    return Configuration()


def given(file: Path) -> Configuration:
    """The table of a file that was asked for.

    Raises:
        ConfigurationError: it has none, or see `read`.
    """
    found = read(file)
    if found is None:
        raise ConfigurationError(f"{file}: has no table [tool.{TABLE}]; add one, or say `none`")
    return found


def read(file: Path) -> Configuration | None:
    """The table of one file, ``None`` where it has none.

    Raises:
        ConfigurationError: the file cannot be read, or has an unknown key or a value of another type.
    """
    import tomllib  # not at the top: `--help` and the pytest plugin start without it

    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: cannot be read as TOML: {error}") from error
    tools = data.get("tool", {})
    table = tools.get(TABLE) if isinstance(tools, Mapping) else None
    if table is None:
        return None
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{file}: got tool.{TABLE} = {table!r}, expected a table: [tool.{TABLE}]")
    commands = {key: value for key, value in table.items() if key in COMMANDS and isinstance(value, Mapping)}
    return Configuration(
        file,
        {key: _value(file, TABLE, key, value) for key, value in table.items() if key not in commands},
        {
            name: {key: _value(file, f"{TABLE}.{name}", key, value) for key, value in values.items()}
            for name, values in commands.items()
        },
    )


def _value(file: Path, table: str, key: str, value: object) -> Any:
    command = table.partition(".")[2]
    # `format` means another thing to each command.
    known = COMMANDS[command] if command else tuple(name for name in OPTIONS if name != "format")
    if key not in known:
        raise ConfigurationError(f"{file}: [tool.{table}] has an unknown key {key!r}{_where(key, command, known)}")
    understood = OPTIONS[key].understand(value)
    if understood is None:
        near = nearest(value, PROFILES) if key == "profile" and isinstance(value, str) else ""
        raise ConfigurationError(f"{file}: got [tool.{table}] {key} = {value!r}, expected {OPTIONS[key].values}{near}")
    return _from(file.parent, key, understood)


def _where(key: str, command: str, known: Sequence[str]) -> str:
    """Where a key that is unknown here belongs, or what may stand here."""
    others = [name for name, keys in COMMANDS.items() if key in keys]
    if others and not command:
        return f"; it belongs to a command, such as [tool.{TABLE}.{others[0]}]"
    tables = "" if command else f", and the tables {', '.join(f'[tool.{TABLE}.{name}]' for name in COMMANDS)}"
    return f"{nearest(key, [*known, *([] if command else COMMANDS)])}; it may have {', '.join(known)}{tables}"


def _from(folder: Path, key: str, value: Any) -> Any:
    """A path as it is seen from the working directory."""
    if OPTIONS[key].kind in ("file", "folder"):
        return _seen(folder, value)
    if key == "targets":
        return tuple(_seen(folder, name) if "/" in name or ".py" in name else name for name in value)
    return value


def _seen(folder: Path, path: str) -> str:
    return path if folder.absolute() == Path.cwd() else os.path.relpath(folder.absolute() / path)
