"""What the commands of `loss-harness` may be told, on the command line or in `pyproject.toml`.

Nothing here imports torch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from harness.calls import triton_interpreter
from harness.cli import completing
from harness.errors import nearest
from harness.runs import configuration
from harness.runs.configuration import OPTIONS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*several: Decorator) -> Decorator:
    """Several options as one; `--help` shows them in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for one in reversed(several):
            command = one(command)
        return command

    return decorate


def split(_: click.Context, __: click.Parameter, values: Sequence[str] | str) -> tuple[str, ...]:
    """Values that may be given several times, or with commas."""
    given = [values] if isinstance(values, str) else values
    return tuple(dict.fromkeys(part.strip() for value in given for part in value.split(",") if part.strip()))


def _devices(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    devices = split(ctx, parameter, value)
    for device in devices:
        kind, _, index = device.partition(":")
        if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
            raise click.BadParameter(f"{device!r}: a device is cpu, cuda or cuda:0; several with commas")
    if not devices:
        raise click.BadParameter("needs a device, such as cpu or cpu,cuda")
    return devices


def use_configuration(ctx: click.Context, where: str | None) -> None:
    """Let `pyproject.toml` say what the command line does not.

    Args:
        ctx: of the group of commands.
        where: a file; ``none`` for no file; by default the nearest one from the working directory upwards.

    Raises:
        ConfigurationError: the file cannot be understood, or is named and has no such table.
    """
    if where == "none":
        return
    chosen = configuration.find(Path.cwd()) if where is None else configuration.given(Path(where))
    ctx.default_map = {name: _defaults(name, chosen) for name in configuration.COMMANDS}
    if ctx.get_parameter_source("color") is ParameterSource.DEFAULT:
        ctx.params["color"] = chosen.values.get("color", ctx.params["color"])


def _defaults(command: str, chosen: configuration.Configuration) -> dict[str, Any]:
    """Parameter -> value of one command, those of its own table over those for all."""
    values = {**chosen.values, **chosen.commands.get(command, {})}
    return {OPTIONS[key].parameter or key: value for key, value in values.items() if key != "color"}


def chosen_rules(ctx: click.Context) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(selected, ignored) codes or prefixes; what is selected on the command line is not ignored by a file."""
    selected, ignored = ctx.params["select"], ctx.params["ignore"]
    asked = ctx.get_parameter_source("select") is ParameterSource.COMMANDLINE
    from_file = ctx.get_parameter_source("ignore") is ParameterSource.DEFAULT_MAP
    return selected, () if asked and from_file else ignored


def _finite(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"got {value}, expected a number of {str(parameter.metavar).lower()}, such as 30")
    return value


def _some(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    known = str(parameter.metavar).split(",")
    names = None if value is None else split(ctx, parameter, value)
    for name in names or ():
        if name not in known:
            raise click.BadParameter(f"got {name!r}, expected some of {', '.join(known)}{nearest(name, known)}")
    return names or None


_POSITIVE = click.FloatRange(min=0, min_open=True)
# Kind of an option -> how click takes it.
_KINDS: dict[str, dict[str, Any]] = {
    "codes": {"multiple": True, "callback": split, "shell_complete": completing.codes, "metavar": "CODES"},
    "devices": {"callback": _devices},
    "some": {"callback": _some},
    "one": {},
    "flag": {"is_flag": True},
    "whole": {"type": int},
    "count": {"type": click.IntRange(min=1), "metavar": "N"},
    "seconds": {"type": _POSITIVE, "callback": _finite, "metavar": "SECONDS"},
    "gib": {"type": _POSITIVE, "callback": _finite, "metavar": "GIB"},
    "address": {"metavar": "ADDRESS"},
    "file": {"type": click.Path(exists=True, dir_okay=False, path_type=Path)},
    "folder": {"type": click.Path(file_okay=False, path_type=Path)},
}


def option(name: str, *letter: str, **more: Any) -> Decorator:
    """The option of this name in `configuration.OPTIONS`, as click takes it.

    Args:
        name: of the option.
        letter: its short form, such as ``-q``.
        more: what click is told besides.
    """
    one = OPTIONS[name]
    how = dict(_KINDS[one.kind])
    if one.choices:
        how |= {"type": click.Choice(one.choices)} if one.kind == "one" else {"metavar": ",".join(one.choices)}
    if one.default is not None:
        how |= {"default": one.default, "show_default": True}
    return click.option(f"--{name}", *letter, one.parameter or name, help=one.help, **how | more)


implementation = click.option(
    "--implementation", "implementations", multiple=True, callback=split, metavar="NAME", help="Only this one."
)
config = click.option(
    "--config",
    metavar="FILE",
    help="Defaults from [tool.loss-harness] of this file, or `none`; by default of the nearest pyproject.toml.",
)


def loudness(command: Callable[..., Any]) -> Callable[..., Any]:
    """How much is said; what is asked for on the command line counts more than the other in a file."""

    @functools.wraps(command)
    def settled(*args: Any, quiet: bool, verbose: bool, **given: Any) -> Any:
        ctx = click.get_current_context()
        asked = [n for n in ("quiet", "verbose") if ctx.get_parameter_source(n) is ParameterSource.COMMANDLINE]
        if quiet and verbose and len(asked) != 1:
            raise click.UsageError("got --quiet and --verbose, expected one of them", ctx)
        if quiet and verbose:
            quiet, verbose = asked == ["quiet"], asked == ["verbose"]
        return command(*args, quiet=quiet, verbose=verbose, **given)

    return option("quiet", "-q")(option("verbose", "-v")(settled))


def targets(required: bool) -> Callable[[Any], Any]:
    """TARGETs; where none is given, those of the configuration.

    Args:
        required: whether there must be some.
    """
    metavar = "TARGET..." if required else "[TARGET]..."

    def given(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
        chosen = value or tuple(ctx.lookup_default("targets") or ())
        if required and not chosen:
            raise click.MissingParameter(
                "Name one, or write `targets` in [tool.loss-harness] of pyproject.toml.", ctx=ctx, param=parameter
            )
        return chosen

    return click.argument("targets", metavar=metavar, nargs=-1, callback=given, shell_complete=completing.files)


write_baseline = click.option(
    "--write-baseline",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Accept every error and warning that is found, in this file.",
)


def _assignments(_: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """``N=64,128`` -> ``("N", "64,128")``, for each time that it is given."""
    pairs = [tuple(part.strip() for part in value.partition("=")[::2]) for value in values]
    for value, (name, given) in zip(values, pairs, strict=True):
        if not name or not given:
            raise click.BadParameter(f"{value!r}: write it as {parameter.metavar}")
    return tuple((name, given) for name, given in pairs)


def _size(text: str) -> int | tuple[int, ...]:
    """``64``, or ``2x3`` for a symbol that stands for several axes; ``()`` for none of them."""
    parts = [] if text == "()" else text.split("x")
    if not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"got size {text!r}, expected a whole number such as 64, or axes such as 2x3 or ()")
    return int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))


def _sizes(_: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[dict[str, Any], ...]:
    chosen = []
    for value in values:
        pairs = _assignments(_, parameter, [part for part in value.split(",") if part.strip()])
        _check_once(value, pairs)
        chosen.append({name: _size(text) for name, text in pairs})
    return tuple(chosen)


def _sweep(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    pairs = _assignments(ctx, parameter, values)
    _check_once(" ".join(values), pairs)
    swept = {name: tuple(_size(part.strip()) for part in text.split(",")) for name, text in pairs}
    for name, given in swept.items():
        if len(set(given)) < 2:
            raise click.BadParameter(f"{name}={','.join(map(str, given))}: growth shows at two different sizes or more")
    return swept


def _check_once(given: str, pairs: Sequence[tuple[str, str]]) -> None:
    names = [name for name, _ in pairs]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise click.BadParameter(
            f"{given!r} gives {twice[0]} twice; several sizes of one symbol are --sweep {twice[0]}=64,128"
        )


def _densities(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[dict[str, float], ...]:
    found = []
    for name, text in _assignments(ctx, parameter, values):
        for part in text.split(","):
            try:
                found.append({name: float(part)})
            except ValueError:
                raise click.BadParameter(f"got density {part!r} of {name}, expected a number in [0, 1]") from None
    return tuple(found)


sizes = click.option(
    "--sizes",
    multiple=True,
    callback=_sizes,
    metavar="N=64,D=16",
    help="Sizes to measure at; may be given several times.",
)
sweep = click.option(
    "--sweep",
    multiple=True,
    callback=_sweep,
    metavar="N=64,128,256",
    help="Let one symbol grow, and fit what grows with it.",
)
density = click.option(
    "--density",
    "densities",
    multiple=True,
    callback=_densities,
    metavar="NAME=0.01,0.1",
    help="Parts of a mask or graph that are not zero.",
)


# What is timed and how.
timed = together(*map(option, ("pass", "dtype", "cache", "clock", "compile")))
costs_only = click.option("--costs-only", is_flag=True, help="Take exact costs, which do not drift; time nothing.")
timings = click.option("--timings", is_flag=True, help="Say where the time went, rule by rule.")

# What declares a loss which declares nothing itself.
declared = together(
    click.option(
        "--inputs",
        metavar="TENSORS",
        help="For a loss that declares nothing: 'predictions: B C logits; labels: B index(C)', each name: DIMS [DOMAIN] [DTYPE].",
    ),
    click.option(
        "--context", metavar="TENSORS", help="Tensors that exist before training, likewise: 'weight: C positive'."
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="A constant: reduction=sum; may be given several times.",
    ),
    click.option("--returns", metavar="TENSOR", help="What the loss returns: 'B'; '' for one number."),
    click.option(
        "--law",
        "laws",
        multiple=True,
        metavar="LAW",
        help="A law to check: 'permutation(B)'; may be given several times.",
    ),
    click.option("--reference", metavar="TARGET", help="A second implementation, to which the loss is held."),
    click.option(
        "--formula",
        metavar="TEXT",
        help="The loss in one line, to which it is held: 'sum((p[b] - y[b])**2 for b in B) / B'.",
    ),
    click.option(
        "--dtypes", "taken", metavar="DTYPES", help="The dtypes that the loss takes: float32,bfloat16; by default any."
    ),
    click.option(
        "--pick",
        metavar="KEY",
        help="The loss in what is returned: loss, 0; several with commas are each checked.",
    ),
    click.option(
        "--role",
        "roles",
        multiple=True,
        metavar="NAME=ROLE",
        help="What a tensor is for, where that is read wrongly: mask, weight, label, index, table or data.",
    ),
    click.option(
        "--differentiable", metavar="NAMES", help="Inputs that need a gradient; by default the first floating one."
    ),
    click.option("--computes-in", metavar="DTYPE", help="The dtype in which it computes on purpose: float32."),
    click.option("--stochastic", is_flag=True, help="The loss draws random numbers on purpose."),
    click.option(
        "--once", is_flag=True, help="A graph of the loss takes one backward only, as it frees what it keeps."
    ),
    click.option("--detaches", is_flag=True, help="The loss stops gradients on purpose."),
    click.option("--stateful", is_flag=True, help="The loss keeps running statistics in buffers on purpose."),
)


def _interpret(ctx: click.Context, _: click.Parameter, chosen: bool) -> bool:
    if chosen:
        triton_interpreter.turn_on()
    return chosen


triton_interpret = option("triton-interpret", callback=_interpret)
# Where losses run, and what they may take.
apart = together(triton_interpret, *map(option, ("workers", "timeout", "memory", "cluster")))
