"""Defaults of the command line and the pytest plugin, from `pyproject.toml`.

    [tool.loss-harness]
    targets = ["losses", "more/losses.py:SPECS"]   # so that `loss-harness verify` needs none; files seen from here
    baseline = "accepted.json"
    quiet = true                 # or verbose
    color = "auto"               # auto, always or never
    select = ["G", "C02"]        # codes or prefixes; a string with commas does as well
    ignore = ["B03"]
    profile = "ci"               # quick, ci or thorough
    seed = 0
    device = "cpu,cuda"
    budget = 30.0                # seconds of timing per loss
    pass = "forward,full"        # some of forward, backward and full
    dtype = "float32,bfloat16"   # some of float64, float32, bfloat16 and float16
    cache = "warm,cold"          # by default warm on the CPU, both on CUDA
    clock = "events,graph"       # some of wall, events and graph; by default those of the device
    compile = true               # time each under torch.compile too
    workers = 4                  # checks at a time; by default as many as there are cores
    timeout = 300.0              # seconds that one check may take
    memory = 8.0                 # GiB that one process may take
    cluster = "tcp://10.0.0.1:8786"   # a dask cluster on which to run

    [tool.loss-harness.report]   # for one command alone, over what stands above
    out = "reports/latest"

    [tool.loss-harness.verify]
    format = "github"

The names are those of the options, which win.  Paths are seen from the folder of the file.  Reading this imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, nearest
from harness.results.measured import CACHES, CLOCKS, DTYPES, PASSES

FILE = "pyproject.toml"
TABLE = "loss-harness"
PROFILES = ("quick", "ci", "thorough")
TIMED: Mapping[str, tuple[str, ...]] = {"pass": PASSES, "dtype": DTYPES, "cache": CACHES, "clock": CLOCKS}
_TIMING = ("device", "budget", "seed", "pass", "dtype", "cache", "clock", "compile")
_CHECKING = ("profile", "seed", "device", "select", "ignore")
_SAID = ("quiet", "verbose")
_APART = ("workers", "timeout", "memory", "cluster", "triton-interpret")
# What each command may be told in a table of its own; what stands above goes to every command that knows it.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "report": ("targets", *dict.fromkeys((*_CHECKING, *_TIMING)), "out", *_APART, *_SAID),
    "verify": ("targets", *_CHECKING, "baseline", "format", *_APART, *_SAID),
    "bench": ("targets", *_TIMING, "format", *_APART, *_SAID),
    "diff": ("format", *_SAID),
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
        {name: _of_command(file, name, values) for name, values in commands.items()},
    )


def _of_command(file: Path, command: str, values: Mapping[str, object]) -> dict[str, Any]:
    return {key: _value(file, f"{TABLE}.{command}", key, value) for key, value in values.items()}


def _value(file: Path, table: str, key: str, value: object) -> Any:
    command = table.partition(".")[2]
    known = COMMANDS[command] if command else tuple(key for key in _KEYS if key not in _OF_ONE)
    if key not in known:
        raise ConfigurationError(f"{file}: [tool.{table}] has an unknown key {key!r}{_where(key, command, known)}")
    understand, should = _KEYS[key]
    understood = understand(value)
    if understood is None:
        near = nearest(value, PROFILES) if key == "profile" and isinstance(value, str) else ""
        raise ConfigurationError(f"{file}: got [tool.{table}] {key} = {value!r}, expected {should}{near}")
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
    if key in ("baseline", "out"):
        return _seen(folder, value)
    if key == "targets":
        return tuple(_seen(folder, name) if "/" in name or ".py" in name else name for name in value)
    return value


def _seen(folder: Path, path: str) -> str:
    return path if folder.absolute() == Path.cwd() else os.path.relpath(folder.absolute() / path)


def _names(value: object) -> tuple[str, ...] | None:
    """Names from an array of strings, or from a string with commas."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        return None
    return tuple(name.strip() for name in given if name.strip())


def _profile(value: object) -> str | None:
    return value if isinstance(value, str) and value in PROFILES else None


def _seed(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _budget(value: object) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < float("inf") else None  # type: ignore[arg-type, operator]


def _device(value: object) -> str | None:
    names = _names(value)
    return ",".join(names) if names else None


def _some_of(known: Sequence[str]) -> Callable[[object], str | None]:
    def understand(value: object) -> str | None:
        names = _names(value)
        return ",".join(names) if names and all(name in known for name in names) else None

    return understand


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _one_of(*known: str) -> Callable[[object], str | None]:
    return lambda value: value if isinstance(value, str) and value in known else None


# What means another thing to each command, so that it stands in a table of the command alone.
_OF_ONE = ("format", "out")
_KEYS: Mapping[str, tuple[Callable[[object], Any], str]] = {
    "targets": (_names, 'TARGETs, such as ["losses", "more/losses.py:SPECS"]'),
    "select": (_names, 'codes or prefixes, such as ["G", "C02"]'),
    "ignore": (_names, 'codes or prefixes, such as ["B03"]'),
    "profile": (_profile, f"one of {', '.join(PROFILES)}"),
    "seed": (_seed, "a whole number"),
    "device": (_device, 'cpu, cuda or both: "cpu,cuda"'),
    "budget": (_budget, "a positive number of seconds"),
    "compile": (_flag, "true or false"),
    "workers": (_count, "a whole number from 1"),
    "timeout": (_budget, "a positive number of seconds"),
    "memory": (_budget, "a positive number of GiB"),
    "triton-interpret": (_flag, "true or false"),
    "cluster": (_text, 'an address, such as "tcp://10.0.0.1:8786"'),
    "baseline": (_text, 'a file, such as "accepted.json"'),
    "out": (_text, 'a folder, such as "reports/latest"'),
    "format": (_text, 'a format of the command, such as "json"'),
    "quiet": (_flag, "true or false"),
    "verbose": (_flag, "true or false"),
    "color": (_one_of("auto", "always", "never"), "one of auto, always, never"),
    **{key: (_some_of(known), f"some of {', '.join(known)}") for key, known in TIMED.items()},
}
