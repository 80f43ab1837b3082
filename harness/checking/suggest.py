"""Laws that a loss could declare: those that hold on a few cases, and weights that follow none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.calls.evaluation import LossRaised
from harness.calls.process_state import settled
from harness.declare import dims, laws
from harness.declare.laws import Law
from harness.declare.spec import LossSpec
from harness.errors import NotApplicable
from harness.rules.context.removal import looked_up
from harness.rules.context.weights import matters, seen_to_weigh
from harness.rules.laws.declared import CHECKS
from harness.rules.tools.masking import as_label, removable
from harness.rules.tools.special import pairs, special_cases
from harness.rules.trial import Trial

CASES = 3  # a law that holds by chance on three generic cases is rare, and is only suggested
MOST = 8

Found = tuple[Law, int] | str  # a law and on how many cases it held, or what else there is to say of a weight


def suggestions(trials: Sequence[Trial]) -> tuple[str, ...]:
    """One line for every undeclared law that holds on all of the trials, the most useful first; at most eight.

    What the weights mean comes first, then how the loss reduces, then symmetries.  A law that another one implies is left
    out: a mean over a symbol does not depend on its order.

    Args:
        trials: generic cases of one implementation; the first few probe each law, all of them the sign of the loss.
    """
    found = _found(trials)
    return tuple(item if isinstance(item, str) else _line(trials[0].spec, *item) for item in found[:MOST])


def laws_that_hold(trials: Sequence[Trial]) -> tuple[Law, ...]:
    """Every undeclared law that holds on all of the trials, as `suggestions` has them."""
    return tuple(item[0] for item in _found(trials) if not isinstance(item, str))


def _found(trials: Sequence[Trial]) -> list[Found]:
    usable = [trial for trial in trials if _is_number(trial)]
    if len(usable) < 2:
        return []
    few, spec = usable[:CASES], usable[0].spec
    found = [item for name in _weights(spec) for item in _of_weight(few, name)]
    for symbol in (*spec.symbols, *spec.variadic):
        found += _first_that_holds(few, (laws.mean_over(symbol), laws.sum_over(symbol), laws.permutation(symbol)))
    for first, second in pairs(spec, usable[0].case):
        found += _first_that_holds(few, (laws.zero_when_equal(first, second),))
        found += _first_that_holds(few, (laws.symmetric(first, second),))
    if not _negative_somewhere(usable[0]):
        found += _first_that_holds(usable, (laws.nonnegative(),))
    return found


def _negative_somewhere(trial: Trial) -> bool:
    """At the special points; generic values of a likelihood are often all positive."""
    special = (trial.at(case) for _, case in special_cases(trial.spec, trial.case))
    return any(_is_number(moved) and float(moved.base.output) < 0 for moved in special)


def _is_number(trial: Trial) -> bool:
    try:
        with settled():  # a loss that changes the default device would leave no other trial a tensor to work with
            return trial.base.finite and trial.base.output.ndim == 0
    except LossRaised:
        return False


def _weights(spec: LossSpec) -> list[str]:
    """Context that may weigh: from zero up, a mask, or positive; the batch's labels are no weights."""
    return [
        name
        for name, tensor in spec.context.items()
        if tensor.domain.weighs or (tensor.domain.low > 0 and not tensor.domain.structured)
    ]


def _of_weight(trials: Sequence[Trial], name: str) -> Iterator[Found]:
    spec, count = trials[0].spec, len(trials)
    known = {law.code for law in spec.laws if name in law.names}
    removes = _removes(trials, name)
    scaled = {law: _verdict(trials, law) for law in (laws.linear_in(name), laws.scale_invariant(name))}
    holding = [law for law, verdict in scaled.items() if verdict]
    # What has no effect follows every law, and what is both linear and scale invariant is zero: neither is worth keeping.
    homogeneous = holding if len(holding) == 1 and any(matters(trial, name) for trial in trials) else []
    if removes and "L11" not in known:
        yield laws.zero_weight_removes(name), count
    if not known & {"L04", "L05"}:
        yield from ((law, count) for law in homogeneous)
    counts = homogeneous or (removes and spec.tensors[name].domain.whole)
    slices = [dim for dim in dims.parse(spec.tensors[name].dims) if dim.symbol is not None]
    if counts and "L12" not in known and len(slices) == 1 and _verdict(trials, laws.repeats(name)):
        yield laws.repeats(name), count
    broken = [law for law, verdict in scaled.items() if verdict is False]
    if spec.tensors[name].domain.weighs and not known and not removes and (removes is False or broken):
        yield _of_no_use(spec, name, removes, [] if homogeneous else broken)


def _removes(trials: Sequence[Trial], name: str) -> bool | None:
    """Whether zeros remove what they stand for; ``None`` where nothing shows it."""
    spec = trials[0].spec
    if removable(spec, name) != 0 or looked_up(spec, name):
        return None
    return seen_to_weigh(trials, name)


def _of_no_use(spec: LossSpec, name: str, removes: bool | None, broken: Sequence[Law]) -> str:
    """What is said of a tensor that may weigh, and does not."""
    said = ["its zeros do not remove"] if removes is False else []
    if broken:
        words = {"L04": "linear in it", "L05": "scale invariant"}
        failing = " nor ".join(words[law.code] for law in broken)
        said.append(f"the loss is {'neither' if len(broken) > 1 else 'not'} {failing}")
    lines = [spec.line_of(law) for law in ([laws.zero_weight_removes(name)] if removes is False else []) + [*broken]]
    declare = " or ".join([", ".join(lines[:-1]), lines[-1]] if len(lines) > 1 else lines)
    label = f"; if it is a label, declare {as_label(spec, name)}" if spec.tensors[name].domain.whole else ""
    return (
        f"{name} may be weights, but {', and '.join(said)}; if it is meant to weigh, declare {declare} to see where that "
        f"fails{label}"
    )


def _first_that_holds(trials: Sequence[Trial], alternatives: Sequence[Law]) -> list[Found]:
    """The first law that holds, unless it, or one that implies it, is declared."""
    for law in alternatives:
        if any(
            (known.code, known.names, known.symbols) == (law.code, law.names, law.symbols)
            for known in trials[0].spec.laws
        ):
            return []
        if _verdict(trials, law):
            return [(law, len(trials))]
    return []


def _verdict(trials: Sequence[Trial], law: Law) -> bool | None:
    """Whether the law's own check finds nothing on any trial; ``None`` where fewer than two trials say something."""
    asked = 0
    for trial in trials:
        try:
            if any(True for _ in CHECKS[law.code](trial, law)):
                return False
            asked += 1
        except NotApplicable:
            continue
        except LossRaised:
            return False
    return True if asked >= 2 else None


def _line(spec: LossSpec, law: Law, cases: int) -> str:
    return f"declare {spec.line_of(law)} to keep it checked (it held on {cases} of {cases} cases)"
