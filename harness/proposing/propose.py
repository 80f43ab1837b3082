"""From a loss to a `Proposal`: search for a reading, hold it to drawn cases, and try optional tensors and laws."""

from __future__ import annotations

import re
from ast import literal_eval
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from harness.calls.process_state import preserve
from harness.checking.verify import laws_that_hold, open_session, verify
from harness.declare import annotations as signatures
from harness.declare import laws
from harness.declare.laws import Law
from harness.declare.spec import LossSpec
from harness.declare.tensor_spec import TensorSpec
from harness.errors import DeclarationError
from harness.proposing import docs, formulas, knowledge
from harness.proposing.calls import SIZES, draws, falls_below_zero, sizes_of
from harness.proposing.knowledge import Guess
from harness.proposing.parameters import Parameter, parameters_of
from harness.proposing.proposal import Decision, Proposal
from harness.proposing.search import MOST_S, Outcome, Reading, Running, is_context, look_at, search, spec_of

MOST_CHECKED = 6  # readings that are held to drawn cases before the first one is proposed as it is
RUNS = ("B01",)
OF_WEIGHTS = ("C03", "C04", "C05")  # what checks a law of a weight in the context
MOST_SHARES = 3  # into which the time of a search is parted
ERRORS_SHOWN = 3
ERRORS_READ = 8  # of what it raised, for the shapes that it asks for
TOLD = -2.0  # of the cost, where an error states dims
WINDOW = 15  # what usual windows take beyond one pixel, at most
ROUNDS = 2  # of readings by what it said when it refused others
TRIED_SHOWN = 5
SAID_SHOWN = 100

Loss = Callable[..., Any]


class UnproposableError(DeclarationError):
    """No reading of a loss's parameters runs; the message says what it raised and what to write."""


@preserve()
def propose(
    name: str,
    loss: Loss,
    *,
    with_laws: bool = True,
    settings: Mapping[str, Any] = MappingProxyType({}),
    sibling: Proposal | None = None,
    reference: Loss | None = None,
) -> Proposal:
    """What a loss may declare.

    Args:
        name: of the loss.
        loss: a function, a module or a class; it is called many times on small tensors.
        with_laws: whether to try laws too.
        settings: constants by the name of their parameter.
        sibling: of a loss in the same module that takes parameters of the same names; what they are is tried first.
        reference: what it is to be held to, whose docstring may say what it does not.

    Raises:
        UnproposableError: no reading runs.
        DeclarationError: its signature or annotations cannot be used.
    """
    taken = _taken(sibling) if sibling is not None else {}
    everything = [_as_sibling(_set(parameter, settings), taken) for parameter in parameters_of(loss, reference)]
    needed, outcome = _needed(name, loss, everything)
    if not outcome.running:
        said = _said(outcome.errors, everything)
        if sibling is not None:
            said = _said_of_sibling(name, loss, everything, sibling)
        raise UnproposableError(_unproposable(name, everything, said))
    best, notes = _that_holds(name, loss, needed, outcome)
    if outcome.is_late:
        ended = f"the search ended at {outcome.trials} of the readings"
        notes += (f"its calls are slow: {ended}, and another may fit better",)
    spec = spec_of(name, loss, needed, best.reading)
    differentiable = tuple(n for n in spec.differentiable if n in best.seen.gradients)
    output = _output(spec, best.seen.shape)
    more: dict[str, Any] = {"output": None if output is None else TensorSpec(output), "select": best.seen.select}
    more["stochastic"] = draws(spec)
    spec = spec_of(name, loss, needed, best.reading, differentiable=differentiable, **more)
    options = [p for p in everything if p.optional and p.is_tensor and p.name not in best.reading]
    decisions = [_decision(parameter, best.reading[parameter.name], outcome) for parameter in needed]
    return Proposal(
        name=name,
        decisions=(*decisions, *_formula(spec, loss)),
        left_out=tuple(found for p in options for found in _optional(name, loss, needed, best.reading, p)),
        fixed_sizes=dict(spec.fixed_sizes),
        differentiable=differentiable,
        output=output,
        select=best.seen.select,
        stochastic=spec.stochastic,
        laws=_laws(spec) if with_laws else {},
        notes=notes,
        trials=outcome.trials,
    )


def _set(parameter: Parameter, settings: Mapping[str, Any]) -> Parameter:
    """A parameter whose constant is told is that constant alone, and is given."""
    if parameter.name not in settings:
        return parameter
    symbol = knowledge.size_stated(parameter.name)
    told = Guess(0.0, value=settings[parameter.name], fixes=symbol, why="as told by --set", confidence="declared")
    return replace(parameter, optional=False, is_tensor=False, guesses=(told,))


def _taken(sibling: Proposal) -> Reading:
    """What the parameters of another loss are."""
    why = f"what {sibling.name} takes"
    return {
        d.name: Guess(0.0, d.dims, d.domain, d.several, why=why)
        if d.dims is not None
        else Guess(0.0, value=literal_eval(d.text), fixes=knowledge.size_stated(d.name), why=why)
        for d in sibling.decisions
        if d.place != "formula"
    }


def _as_sibling(parameter: Parameter, taken: Reading) -> Parameter:
    """A parameter that is tried as that of its name first, or next to what the loss says of it itself."""
    if parameter.name not in taken or not parameter.guesses:
        return parameter
    own, told = parameter.guesses[0], taken[parameter.name]
    is_said = own.cost < 0 or own.confidence == "declared"
    told = replace(told, cost=own.cost + (knowledge.LEAST_STEP if is_said else -knowledge.LEAST_STEP))
    return replace(parameter, guesses=(told, *parameter.guesses))


def _needed(name: str, loss: Loss, everything: Sequence[Parameter]) -> tuple[list[Parameter], Outcome]:
    """The parameters to give, and what was found: those without a default, else with those whose defaults state sizes,
    else with one more tensor.
    """
    everything = [_given(parameter) for parameter in everything]
    required = [parameter for parameter in everything if not parameter.optional]
    sizes = [p for p in everything if p.optional and any(guess.fixes is not None for guess in p.guesses)]
    tensors = [p for p in everything if p.optional and p.is_tensor]
    trials, errors = 0, Counter[str]()
    stages = ([], *([sizes] if sizes else []), *([tensor] for tensor in tensors))
    share = MOST_S / min(len(stages) + 1, MOST_SHARES)
    for extra in stages:
        needed = [parameter for parameter in everything if parameter in required or parameter in extra]
        found = search(name, loss, needed, share) if needed else Outcome((), 0, Counter())
        trials += found.trials
        if found.running:
            return needed, replace(found, trials=trials)
        errors = errors or found.errors
    said = Counter(errors)
    for _ in range(ROUNDS):
        told = list(_told(required, said))
        if told == required:
            break
        found = search(name, loss, told, share)
        trials += found.trials
        if found.running:
            return told, replace(found, trials=trials)
        said += found.errors
    return required, Outcome((), trials, errors)


def _given(parameter: Parameter) -> Parameter:
    """A parameter that chooses among backends is given, though it has a default."""
    is_backend = [guess.value for guess in parameter.guesses] == ["torch"]
    return replace(parameter, optional=False) if is_backend else parameter


def _told(required: Sequence[Parameter], errors: Counter[str]) -> Iterator[Parameter]:
    """The parameters with the shapes too that the loss asked for when it refused others; those that it names, else all tensors."""
    said = {error: docs.shapes_in(error) for error, _ in errors.most_common(ERRORS_READ)}
    for parameter in required:
        mine = [e for e in said if re.search(rf"\b{parameter.name}s?\b", e)] or [
            e for e in said if not any(re.search(rf"\b{p.name}s?\b", e) for p in required)
        ]
        usual = [guess for guess in parameter.guesses if guess.dims is not None]
        shapes = dict.fromkeys(shape for error in mine for shape in said[error])
        ranks = {rank for error in mine for rank in docs.ranks_in(error)}
        values = [value for error in mine for value in docs.values_in(error)]
        domains = dict.fromkeys([*values, *(guess.domain for guess in usual)])
        guesses = [
            Guess(TOLD + knowledge.LEAST_STEP * place, shape, domain, why="what it said when it refused another tensor")
            for shape in shapes or ([str(usual[0].dims)] if usual and values else ())
            for place, domain in enumerate(domains)
        ]
        asked = [guess for guess in usual if len(str(guess.dims).split()) in ranks]
        guesses += [replace(g, cost=TOLD + knowledge.LEAST_STEP * place) for place, g in enumerate(asked)]
        known = [replace(guess, dims=_of_images(guess.dims, errors)) for guess in parameter.guesses]
        yield replace(parameter, guesses=(*guesses, *known))


def _of_images(shape: str | None, errors: Counter[str]) -> str | None:
    """The dims of images that an error asks for: three channels, a size in which a window fits."""
    if shape == "B C H W" and any("channels" in error for error in errors):
        shape = "B 3 H W"
    if shape is not None and any(docs.asks_for_more(error) for error in errors):
        shape = re.sub(r"\bH W$", f"H+{WINDOW} W+{WINDOW}", shape)
    return shape


def _that_holds(
    name: str, loss: Loss, needed: Sequence[Parameter], outcome: Outcome
) -> tuple[Running, tuple[str, ...]]:
    """The first reading that runs on all drawn cases too, at unit, equal and larger sizes."""
    first = ""
    for running in outcome.running[:MOST_CHECKED]:
        spec = spec_of(name, loss, needed, running.reading, select=running.seen.select)
        found = [f for f in verify(spec, profile="quick", rules=RUNS).findings if f.severity == "error"]
        if not found:
            return running, ()
        first = first or found[0].message
    return outcome.running[0], (f"verify will say of some sizes or values that this declaration allows:\n{first}",)


def _decision(parameter: Parameter, guess: Guess, outcome: Outcome) -> Decision:
    confidence, why = guess.confidence, guess.why
    usual = parameter.guesses[0]
    if confidence == "guessed" and guess.dims is not None and (guess.dims, guess.domain) != (usual.dims, usual.domain):
        other = "a constant" if usual.dims is None else f"{usual.dims} {usual.domain}".strip()
        confidence, why = "tried", f"usually {other}, which did not run as well"
    elif confidence == "guessed" and guess.dims is not None:
        confidence, why = "tried", f"it ran so; {why}"
    if guess.dims is None:
        return Decision(parameter.name, "option", repr(guess.value), confidence, why)
    return _tensor(parameter, guess, confidence, why)


def _tensor(parameter: Parameter, guess: Guess, confidence: knowledge.Confidence, why: str) -> Decision:
    plain = "" if guess.domain == "real" else guess.domain
    text = " ".join(part for part in (str(guess.dims), plain) if part)
    place: Any = "context" if is_context(parameter) else "input"
    return Decision(parameter.name, place, text, confidence, why, guess.dims, guess.domain, guess.several)


def _optional(name: str, loss: Loss, needed: Sequence[Parameter], reading: Reading, extra: Parameter) -> list[Decision]:
    """The first reading of an optional tensor under which the loss runs, where there is one."""
    for guess in extra.guesses:
        if guess.dims is None:
            continue
        tried = {**reading, extra.name: guess}
        if not look_at(name, loss, [*needed, extra], tried).error:
            return [_tensor(extra, guess, "tried", f"it ran so; {guess.why}")]
    return []


def _output(spec: LossSpec, shape: tuple[int, ...]) -> str | None:
    """The dims of an output, by the sizes that its axes had; ``None`` where a size is no symbol's."""
    sizes = sizes_of(spec, SIZES[0])
    known = {size: symbol for symbol, size in sizes.items() if isinstance(size, int)}
    known.setdefault(1, "1")
    known |= {size[0]: f"*{symbol}" for symbol, size in sizes.items() if isinstance(size, tuple) and len(size) == 1}
    axes = [known.get(extent) for extent in shape]
    return None if None in axes else " ".join(str(axis) for axis in axes)


def _formula(spec: LossSpec, loss: Loss) -> Iterator[Decision]:
    """The formula that a docstring holds, with the constants that it names: one that the loss equals, else the first that it
    states in the loss's own names.
    """
    tensors = {name.replace(".", "_"): tensor.dims for name, tensor in spec.tensors.items()}
    defaults = {
        name: parameter.default
        for call in (signatures.construct_parameters(loss), signatures.parameters(signatures.call_function(loss)))
        for name, parameter in call.items()
        if type(parameter.default) in (int, float)
    }
    constants = {**defaults, **spec.options}
    differing: list[Decision] = []
    for said, texts, exact in formulas.formulas_in(docs.text_of(loss), tensors, list(constants)):
        for text in texts:
            named = {n: v for n, v in constants.items() if n in spec.options or re.search(rf"\b{n}\b", text)}
            found = verify(spec.replace(options=named, formula=text), profile="quick", rules=["E"])
            errors = [finding for finding in found.findings if finding.severity == "error"]
            cases = sum(o.examples for o in found.outcomes if o.rule == "E01")
            if cases and not errors:
                given = [Decision(n, "option", repr(v), "declared", "its default") for n, v in named.items()]
                why = f"the loss equals its docstring on {cases} cases: {_quoted(said)}"
                yield from (decision for decision in given if decision.name not in spec.options)
                yield Decision("formula", "formula", text, "tried", why)
                return
            if exact and errors and errors[0].rule == "E01" and errors[0].evidence["kind"] == "value":
                differs = " ".join(errors[0].message.splitlines()[1].split())
                why = f"the docstring says otherwise, {differs}: {_quoted(said)}"
                differing.append(Decision("formula", "formula", text, "guessed", why))
    yield from differing[:1]


def _quoted(said: str) -> str:
    return f'"{said if len(said) <= SAID_SHOWN else said[: SAID_SHOWN - 3] + "..."}"'


def _laws(spec: LossSpec) -> dict[str, int]:
    """Laws that hold on all drawn cases, special points among them, and in how many they could have failed."""
    further = [laws.translation_invariant(n) for n in spec.differentiable]
    further += [laws.scale_invariant(n) for n in spec.differentiable if spec.inputs[n].domain.scalable]
    candidates = [*laws_that_hold(open_session(spec, profile="quick"), spec.reference), *further]
    return {law.text.replace("'", ""): cases for law in candidates if (cases := _cases_of(spec, law))}


def _cases_of(spec: LossSpec, law: Law) -> int:
    """On how many cases a law held that could have failed there; none where it failed on any."""
    if law.code == laws.nonnegative().code and falls_below_zero(spec):
        return 0
    of_weight = any(name in spec.context for name in law.names)
    try:
        found = verify(spec.replace(laws=(law,)), profile="ci", rules=[law.code, *(OF_WEIGHTS if of_weight else ())])
    except DeclarationError:
        return 0
    if any(finding.severity == "error" for finding in found.findings):
        return 0
    return sum(outcome.examples for outcome in found.outcomes if outcome.rule == law.code)


def _unproposable(name: str, everything: Sequence[Parameter], said: str) -> str:
    shown = ", ".join(
        f'"{p.name}": {{"KEY": TensorSpec("DIMS")}}' if not p.guesses else f'"{p.name}": TensorSpec("DIMS")'
        for p in _unknown(everything)
    )
    return (
        f"{name}: no shapes and values were found on which it runs{said}\n"
        f"write what it takes yourself, DIMS in the grammar of jaxtyping and values from harness.domains:\n"
        f'    SPEC = LossSpec("{name}", {{"{name}": {name}}}, inputs={{{shown}}})\n'
        f"or tell a constant that it needs: loss-harness init TARGET --set NAME=VALUE"
    )


def _unknown(everything: Sequence[Parameter]) -> list[Parameter]:
    return [p for p in everything if not p.optional and not knowledge.is_constant_name(p.name)]


def _said(errors: Counter[str], everything: Sequence[Parameter]) -> str:
    """What calls ended with most often, and as what each tensor was tried."""
    said = "".join(f"\n    {error}   ({count} times)" for error, count in errors.most_common(ERRORS_SHOWN))
    unplaced = "".join(f"\n    {p.name}: {_tried(p)}" for p in _unknown(everything) if p.is_tensor is not False)
    if not said and not unplaced:
        return "; calls ended with nothing: it takes no tensor"
    return (f"; calls ended with{said}" if said else "") + (f"\ncould not be placed:{unplaced}" if unplaced else "")


def _said_of_sibling(name: str, loss: Loss, everything: Sequence[Parameter], sibling: Proposal) -> str:
    """What a call ended with on the tensors of the loss beside it, which says more than what it made of others."""
    taken = _taken(sibling)
    error = look_at(name, loss, [p for p in everything if p.name in taken], taken).error
    tensors = "; ".join(decision.in_a_line for decision in sibling.decisions if decision.place != "formula")
    return f"; with what {sibling.name} takes, {tensors}, calls ended with\n    {error}"


def _tried(parameter: Parameter) -> str:
    """What a tensor was tried as, the most usual first."""
    if not parameter.guesses:
        return "a dict of tensors, and nothing says by which keys"
    tried = list(dict.fromkeys(f'"{guess.dims}"' for guess in parameter.guesses if guess.dims is not None))
    more = f" and {len(tried) - TRIED_SHOWN} more" if len(tried) > TRIED_SHOWN else ""
    return f"tried as {', '.join(tried[:TRIED_SHOWN])}{more}"
