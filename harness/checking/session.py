"""One loss under the battery: draws cases, runs rules on them, and shrinks what they find."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor

from harness.calls import devices, process_state, triton_interpreter
from harness.calls.aten.storages import components
from harness.calls.evaluation import RNG_SEED, LossRaised, begin_draws
from harness.calls.process_state import settled
from harness.checking.stopped import unfinished
from harness.declare import dims
from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.drawing import hypothesis_runs, strategies
from harness.drawing.case import Case
from harness.errors import Hidden, NotApplicable, told_in_a_line
from harness.results.findings import Finding, Outcome, Severity, Status
from harness.results.schema import plain
from harness.rules import BATTERY, X01
from harness.rules.rule import Found, Mismatch, Rule, mismatches
from harness.rules.state import caches
from harness.rules.tools import roundoff
from harness.rules.tools.remarks import remarked, with_note
from harness.rules.tools.reproduce import script, shown
from harness.rules.trial import Trial

CASES_OF_PRECISION = 3
CASES_OF_SUGGESTIONS = 8
SHRINK_ASPECTS = 3  # findings of one rule that are shrunk; further ones keep the case that was drawn
OTHER_VALUES = 8  # draws at most, where a warning may be a matter of few values
COMES_AGAIN = 2  # how many of them have to show it
CASES_OF_RARE = 3  # at whose sizes that is looked for
RARE = f"of {OTHER_VALUES} draws of other values {COMES_AGAIN - 1} at most shows it"
POOLS = 64  # that a process keeps: those of a few losses
EXHAUSTIVE_CASES = 2  # cases of a rule on which all special points are enumerated too, of those that count something
OF_THE_REFERENCE = "it is the reference, whose numbers are those of the CPU wherever candidates run"
LEFT_OUT = "it loads torch's compiler, which takes seconds; the profiles 'ci' and 'thorough' run it"


@dataclass(frozen=True)
class Profile:
    """How much is done: ``share`` multiplies every rule's number of cases, ``shrinks`` bounds the checks while shrinking.

    Without ``compiles``, rules that load torch's compiler are skipped.
    """

    share: float
    shrinks: int
    compiles: bool = True


PROFILES = {"quick": Profile(0.5, 40, compiles=False), "ci": Profile(1.0, 80), "thorough": Profile(6.0, 600)}


def place(spec: LossSpec, implementation: str, rule: Rule, device: str) -> tuple[str, str]:
    """(where a rule is asked of an implementation that is verified on ``device``, why that is another device).

    The reference is asked on the CPU: a loop over elements launches a kernel for each on CUDA, which is 5 to 20 times slower,
    and it is there to say what is right, not to run there.
    """
    if devices.is_cpu(device):
        return device, ""
    reason = OF_THE_REFERENCE if spec.role(implementation) == "reference" else rule.on_the_cpu
    return ("cpu", f"asked on the CPU: {reason}") if reason else (device, "")


class Sought(NamedTuple):
    """A finding that is looked for in other cases: who shows it, and what of a rule's findings it is."""

    implementation: str
    rule: Rule
    aspect: str
    severity: Severity


@dataclass(frozen=True)
class Draw:
    """What is drawn; two declarations of the same tensors draw the same."""

    declared: tuple[object, ...]
    start: int
    regime: str
    mode: str | None
    examples: int
    spec: LossSpec = field(compare=False)


@lru_cache(maxsize=POOLS)
def drawn(wanted: Draw) -> list[Case]:
    """Cases of a declaration; one that is verified again, with another implementation, has the same ones."""
    found: dict[str, Case] = {}

    def collect(case: Case) -> None:
        found.setdefault(case.key, case)

    strategy = strategies.cases(wanted.spec, regime=wanted.regime, mode=wanted.mode)
    hypothesis_runs.run(strategy, collect, examples=wanted.examples, start=wanted.start, shrink=False)
    return _present_first(list(found.values()), wanted.spec)


@dataclass
class Session:
    """One run of `verify`: the drawn cases and the evaluations that rules share."""

    spec: LossSpec
    profile: Profile
    seed: int
    device: str
    cache: dict[Any, Any] = field(default_factory=dict)
    pools: dict[tuple[str, str | None], list[Case]] = field(default_factory=dict)
    suggests: bool = False  # whether laws are looked for after the rules, so that the cases for both are drawn at once

    def check(self, implementation: str, rule: Rule) -> tuple[Outcome, list[Finding]]:
        """What became of one rule on one implementation."""
        reason = (rule.not_interpreted if triton_interpreter.is_on() else "") or rule.applies(self.spec, implementation)
        if reason is not None:
            return self._outcome(implementation, rule, Status.INAPPLICABLE, reason=reason), []
        if rule.compiles and not self.profile.compiles:
            return self._outcome(implementation, rule, Status.SKIPPED, reason=LEFT_OUT), []
        device, elsewhere = place(self.spec, implementation, rule, self.device)
        if (gone := devices.lost(device)) is not None:
            return self._outcome(implementation, rule, Status.SKIPPED, reason=f"not run: {gone}"), []
        outcome, findings = self._checked(implementation, rule, elsewhere)
        if (gone := devices.lost(device)) is not None:  # whatever was found, found it on a device that fails
            return self._device_lost(implementation, rule, device, gone)
        return outcome, findings

    def _checked(self, implementation: str, rule: Rule, elsewhere: str) -> tuple[Outcome, list[Finding]]:
        try:
            self.find_precision(implementation)
            with process_state.surrounded():
                begin_draws(RNG_SEED)  # so that no rule depends on what an earlier one has drawn
                examples, found, reasons, left_out = self._examples(implementation, rule)
                findings = self._findings(implementation, rule, found)
        except NotApplicable as reason:  # nothing runs here, whatever is asked
            return self._conclude(implementation, rule, 0, [], [str(reason)], [])
        except Exception as error:
            return self._crashed(implementation, rule, error)
        told = [elsewhere] if elsewhere else []
        return self._conclude(implementation, rule, examples, findings, [*told, *reasons], [*told, *left_out])

    def find_precision(self, implementation: str) -> None:
        """What dtypes an implementation works in, before any rule asks; the same whichever rule is first."""
        for name in dict.fromkeys((self.spec.reference, implementation)):
            if ("precision", name) not in self.cache:
                cases = self.pool("distinct", "smooth", CASES_OF_PRECISION, complete=True)
                trials = [self.trial(name, case) for case in cases]
                with process_state.preserve(), caches.restored(trials[0]):
                    self.cache["precision", name] = roundoff.precision(self.spec, trials)

    def _device_lost(self, implementation: str, rule: Rule, device: str, reason: str) -> tuple[Outcome, list[Finding]]:
        (case,) = self.cache.get(("latest",)) or (None,)
        outcome = Outcome(implementation, rule.code, device, Status.CRASHED, 0, reason)
        return outcome, [unfinished(self.spec, rule, outcome, case)]

    def trial(self, implementation: str, case: Case, rule: Rule | None = None, *, exhaustive: bool = True) -> Trial:
        """A case given to an implementation, where ``rule`` is asked, or on this session's device."""
        device = self.device if rule is None else place(self.spec, implementation, rule, self.device)[0]
        return Trial(self.spec, implementation, case, self.cache, device, exhaustive)

    def pool(self, regime: str, mode: str | None, count: int, *, complete: bool = False) -> list[Case]:
        """The first ``count`` cases of a regime, of those with every optional tensor where they are to be ``complete``.

        The same seed draws the same ones, whichever rule asks first.
        """
        key = (regime, mode)
        if len(self.pools.get(key, [])) < count:
            spec, examples = self.spec, max(count, self._needed(regime, mode))
            declared = (spec.name, *spec.tensors.items(), *spec.fixed_sizes.items(), spec.differentiable)
            self.pools[key] = drawn(Draw(declared, self._start(regime, mode), regime, mode, examples, spec))
        cases = self.pools[key]
        return [case for case in cases if not complete or len(case.tensors) == len(self.spec.tensors)][:count]

    def _needed(self, regime: str, mode: str | None) -> int:
        """The most cases that any rule takes from a pool, so that who asks first does not change what is drawn."""
        counts = (rule.regimes.get(regime, 0) for rule in BATTERY if ("smooth" if rule.smooth else None) == mode)
        of_rules = math.ceil(max(counts, default=0) * self.profile.share)
        of_suggestions = CASES_OF_SUGGESTIONS if self.suggests and (regime, mode) == ("distinct", "smooth") else 0
        return max(of_rules, of_suggestions)

    def _start(self, *key: object) -> int:
        """A seed that depends on the loss, what is drawn and the user's seed, and on nothing else."""
        text = repr((self.spec.name, self.seed, *key))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def _trials(self, implementation: str, rule: Rule) -> list[Trial]:
        mode, together = "smooth" if rule.smooth else None, rule.check_all is not None
        trials = []
        for regime, count in rule.regimes.items():
            cases = self.pool(regime, mode, max(1, math.ceil(count * self.profile.share)), complete=together)
            trials += [self.trial(implementation, case, rule, exhaustive=False) for case in cases]
        distinct = [trial for trial in trials if trial.case.regime == "distinct"]
        exhaustive: list[Trial] = []

        def is_exhaustive(trial: Trial) -> bool:
            if not exhaustive:
                counting = itertools.islice(filter(_counts, distinct), EXHAUSTIVE_CASES)
                exhaustive.extend([*dict.fromkeys([*counting, *distinct])][:EXHAUSTIVE_CASES])
            return trial in exhaustive

        for trial in distinct:
            trial.exhaustive = functools.partial(is_exhaustive, trial)
        return trials

    def _examples(
        self, implementation: str, rule: Rule
    ) -> tuple[int, list[tuple[Trial, Mismatch]], list[str], list[str]]:
        """(examples that ran, what was found, why examples said nothing, what the others left out)."""
        trials = self._trials(implementation, rule)
        found: list[tuple[Trial, Mismatch]] = []
        reasons: list[str] = []
        left_out: list[str] = []
        ran, is_hidden = 0, False
        if rule.check is not None:
            for trial in trials:
                try:
                    with settled():
                        found += [(trial, m) for m in self._asked(rule, rule.check(trial), left_out)]
                    ran += 1
                except NotApplicable as reason:
                    reasons.append(str(reason))
                    is_hidden |= isinstance(reason, Hidden)
                except LossRaised as raised:
                    reasons.append(f"the loss raises here, see B01 ({told_in_a_line(raised.error)})")
            ran = 0 if is_hidden and not found else ran
        if rule.check_all is not None:
            try:
                with settled():
                    usable = [trial for trial in trials if _runs(trial)]
                    if not usable:
                        raise NotApplicable("the loss raises on every case, see B01")
                    together = list(self._asked(rule, rule.check_all(usable), left_out))
                found += [(_nearest_trial(m, usable), m) for m in together]
                ran = max(ran, len(usable))
            except NotApplicable as reason:
                reasons.append(str(reason))
            except LossRaised as raised:
                reasons.append(f"the loss raises at other sizes or values, see B01 ({told_in_a_line(raised.error)})")
        return ran, found, reasons, left_out

    def _asked(self, rule: Rule, found: Found, left_out: list[str] | None = None) -> Iterator[Mismatch]:
        """What a check returned, but for numbers that differ because a loss that draws on purpose drew others."""
        draws_anew = self.spec.stochastic and rule.draws_anew
        is_left_out = False
        for mismatch in mismatches(found, left_out):
            if draws_anew and mismatch.finite and mismatch.kind in ("value", "gradient", "leak"):
                is_left_out = True
            else:
                yield mismatch
        if left_out is not None and is_left_out:
            left_out.append(f"numbers are not compared, since the loss draws: {draws_anew}")

    def _findings(self, implementation: str, rule: Rule, found: Sequence[tuple[Trial, Mismatch]]) -> list[Finding]:
        by_aspect: dict[tuple[str, Severity], list[tuple[Trial, Mismatch]]] = {}
        for trial, mismatch in found:
            by_aspect.setdefault((mismatch.aspect, self._severity(rule, mismatch)), []).append((trial, mismatch))
        findings = []
        for position, ((aspect, severity), shown_by) in enumerate(by_aspect.items()):
            trial, mismatch = shown_by[0]
            sought = Sought(implementation, rule, aspect, severity)
            may_be_rare = severity == "warning" and rule.comes_again
            if may_be_rare and not self._comes_again(sought, [t.case for t, _ in shown_by]):
                severity, mismatch = "note", with_note(mismatch, RARE)
            if rule.check is not None and severity != "note" and position < SHRINK_ASPECTS:
                trial, mismatch = self._shrink(sought, trial, mismatch)
            with settled():
                mismatch = remarked(rule, trial, mismatch)
            findings.append(self._finding(rule, severity, trial, mismatch))
        return findings

    def _comes_again(self, sought: Sought, cases: Sequence[Case]) -> bool:
        """Whether other values show an aspect too, in `COMES_AGAIN` of `OTHER_VALUES` draws at the sizes of a case that does."""

        def again(case: Case) -> Iterator[object]:
            others = map(case.redrawn, range(1, OTHER_VALUES + 1))
            found = (self._same_finding(sought, other, may_be_empty=True) for other in others)
            return itertools.islice(filter(None, found), COMES_AGAIN)

        return any(len(list(again(case))) == COMES_AGAIN for case in cases[:CASES_OF_RARE])

    def _severity(self, rule: Rule, mismatch: Mismatch) -> Severity:
        severity = mismatch.severity or rule.severity
        required = any(rule.code.startswith(code.upper()) for code in self.spec.requires)
        return "error" if required and severity == "warning" else severity

    def _shrink(self, sought: Sought, trial: Trial, mismatch: Mismatch) -> tuple[Trial, Mismatch]:
        """The simplest case that Hypothesis finds with the same finding, within the profile's number of checks.

        What an input shows on which nothing counts may be a convention, so that another one is looked for first.
        """
        regime = trial.case.regime
        found = self._smallest(sought, regime, []) if self._is_empty(mismatch) else []
        return (found or self._smallest(sought, regime, [(trial, mismatch)]))[0]

    def _is_empty(self, mismatch: Mismatch) -> bool:
        return bool(counts_nothing(self.spec, mismatch.tensors or {}))

    def _smallest(
        self, sought: Sought, regime: str, best: list[tuple[Trial, Mismatch]]
    ) -> list[tuple[Trial, Mismatch]]:
        """The simplest of ``best`` and what is drawn, if any; where nothing of it is on an empty input, on none either."""
        seen: dict[str, tuple[Trial, Mismatch] | None] = {}
        may_be_empty = any(self._is_empty(mismatch) for _, mismatch in best)

        class Shown(Exception):
            pass

        def check(case: Case) -> None:
            case = dataclasses.replace(case, layouts={})
            if case.key not in seen:
                if len(seen) >= self.profile.shrinks:
                    return
                seen[case.key] = self._same_finding(sought, case, may_be_empty)
            shown = seen[case.key]
            if shown is not None:
                best[:] = [min([*best, shown], key=lambda pair: _complexity(pair[0].case, self.spec))]
                raise Shown

        mode = "smooth" if sought.rule.smooth else None
        for drawn in dict.fromkeys(("free", regime)):
            strategy = strategies.cases(self.spec, regime=drawn, mode=mode)
            try:
                hypothesis_runs.run(strategy, check, examples=20, start=self._start(drawn, mode), shrink=True)
            except Shown:
                break
            except Exception as error:  # Hypothesis may call a result flaky when the budget of checks ends
                if "Flaky" not in type(error).__name__:
                    raise
                break
        return best

    def _same_finding(self, sought: Sought, case: Case, may_be_empty: bool) -> tuple[Trial, Mismatch] | None:
        rule, kind = sought.rule, (sought.aspect, sought.severity)
        trial = self.trial(sought.implementation, case, rule)
        assert rule.check is not None
        with contextlib.suppress(NotApplicable, LossRaised), settled():
            for mismatch in self._asked(rule, rule.check(trial)):
                is_same = (mismatch.aspect, self._severity(rule, mismatch)) == kind
                if is_same and (may_be_empty or not self._is_empty(mismatch)):
                    return trial, mismatch
        return None

    def _finding(self, rule: Rule, severity: Severity, trial: Trial, mismatch: Mismatch) -> Finding:
        return Finding(
            rule=rule.code,
            severity=severity,
            implementation=trial.implementation,
            message=message(rule, trial, mismatch),
            evidence=plain(mismatch.evidence),
            case=plain(trial.case.to_json()),
            reproduction=script(self.spec, trial.implementation, mismatch),
            hint=mismatch.hint,
            title=rule.title,
            device=self.device,
        )

    def _conclude(
        self,
        implementation: str,
        rule: Rule,
        examples: int,
        findings: list[Finding],
        reasons: list[str],
        left_out: list[str],
    ) -> tuple[Outcome, list[Finding]]:
        waiver = next((reason for code, reason in self.spec.waivers.items() if rule.code == code.upper()), None)
        if waiver is not None and any(f.severity != "note" for f in findings):
            waived = [dataclasses.replace(f, severity="note", hint=f"waived: {waiver}") for f in findings]
            return self._outcome(implementation, rule, Status.WAIVED, examples, waiver), waived
        if waiver is not None and self.spec.role(implementation) == "candidate" and examples:
            message = (
                f"{self.spec.name} / {implementation} / {rule.code} {rule.title}\n  the waiver {waiver!r} is not needed: the rule "
                f"passes on {examples} cases; take {rule.code!r} out of LossSpec(waivers=...)"
            )
            what = (implementation, rule.code, rule.title)
            findings = [*findings, Finding(*what, "error", self.device, message, {"aspect": "stale waiver"})]
        if findings:
            return self._outcome(implementation, rule, Status.FAILED, examples), findings
        if not examples:
            why = "; ".join(dict.fromkeys(reasons)) or "no case fits"
            outcome = self._outcome(implementation, rule, Status.INAPPLICABLE, reason=why)
            return dataclasses.replace(outcome, unmeasured=True), []
        return self._outcome(implementation, rule, Status.PASSED, examples, "; ".join(dict.fromkeys(left_out))), []

    def _outcome(self, implementation: str, rule: Rule, status: Status, examples: int = 0, reason: str = "") -> Outcome:
        return Outcome(implementation, rule.code, self.device, status, examples, reason)

    def _crashed(self, implementation: str, rule: Rule, error: Exception) -> tuple[Outcome, list[Finding]]:
        reason = told_in_a_line(error)
        message = f"{self.spec.name} / {implementation} / {X01.code} {X01.title}\n  {rule.code} {rule.title} could not be checked: {reason}"
        what = (implementation, X01.code, X01.title, X01.severity, self.device, message)
        crashed = self._outcome(implementation, rule, Status.CRASHED, reason=reason)
        return crashed, [Finding(*what, {"aspect": rule.code, "came": reason})]


def _present_first(cases: Sequence[Case], spec: LossSpec) -> list[Case]:
    """Cases with every optional tensor first, and every third without some: a rule with few cases still sees each of them."""
    missing = [case for case in cases if len(case.tensors) < len(spec.tensors)]
    present = [case for case in cases if len(case.tensors) == len(spec.tensors)]
    ordered: list[Case] = []
    while present or missing:
        ordered += present[:2] + missing[:1]
        present, missing = present[2:], missing[1:]
    return ordered


def _counts(trial: Trial) -> bool:
    """Whether anything has a gradient in a case: where few labels make no triplet, special points of the rest show nothing."""
    try:
        with settled():
            gradients = [gradient for gradient in trial.base.gradients.values() if gradient is not None]
            return any(bool((part != 0).any()) for gradient in gradients for part in components(gradient))
    except (LossRaised, NotApplicable):
        return False


def _runs(trial: Trial) -> bool:
    try:
        trial.base  # noqa: B018
    except LossRaised:
        return False
    return True


def _nearest_trial(mismatch: Mismatch, trials: Sequence[Trial]) -> Trial:
    """The trial whose shapes a finding about all trials was shown with."""
    shapes = {n: tuple(t.shape) for n, t in (mismatch.tensors or {}).items()}
    fits = [t for t in trials if {n: t.case.shape(t.spec, n) for n in t.spec.tensors} == shapes]
    return min(fits or trials, key=lambda t: _complexity(t.case, t.spec))


def _complexity(case: Case, spec: LossSpec) -> tuple[int, int, int, str]:
    """What is simpler comes first: fewer elements, fewer different values, shorter numbers."""
    values = [v for r in case.tensors.values() for v in (r.values or ())]
    return case.numel(spec), len(set(values)), len(repr(values)), case.key


def counts_nothing(spec: LossSpec, tensors: Mapping[str, Tensor]) -> str:
    """Why an input is as good as empty: no elements, a length of 0, a mask or weights of zeros; empty where it is not."""
    axes = {axis for declared in spec.tensors.values() for axis in declared.dims.split()}
    for name, tensor in tensors.items():
        role, symbol = spec.roles[name], spec.tensors[name].domain.symbol or ""
        is_length = "+" in symbol and symbol not in axes  # of T elements 0 to T count; of C+1 classes each is one
        if not tensor.numel():
            return f"{name} has no element"
        if role == "index" and is_length and bool((tensor == 0).any()):
            return f"a length of 0 in {name}"
        if role in ("mask", "weight") and not bool((tensor != 0).any()):
            return f"{name} is 0 everywhere"
    return ""


def _sizes(trial: Trial, tensors: Mapping[str, Tensor]) -> Mapping[str, Size]:
    """The sizes of the tensors that are shown, which a rule may have resized; those of the case where they fit none."""
    declared = {name: trial.spec.tensors[name].dims for name in tensors}
    try:
        found = dims.unify(declared, {n: tuple(t.shape) for n, t in tensors.items()}, trial.spec.fixed_sizes)
    except ValueError:
        return trial.case.sizes
    return {symbol: found.get(symbol, size) for symbol, size in trial.case.sizes.items()}


def message(rule: Rule, trial: Trial, mismatch: Mismatch) -> str:
    """What a finding says: where, what came and should have come, on which input, and how to mend it."""
    tensors = mismatch.tensors or {}
    floating = [t.dtype for t in tensors.values() if t.is_floating_point()]
    dtype = str(floating[0]).removeprefix("torch.") if floating else trial.case.dtype
    header = f"{trial.spec.name} / {trial.implementation} / {rule.code} {rule.title} / {dtype} / {trial.device}"
    lines = [header, f"  {mismatch.sentence}", f"  {shown(mismatch.sizes or _sizes(trial, tensors), tensors)}"]
    nothing = counts_nothing(trial.spec, tensors)
    empty = f"the input is empty: {nothing}" if nothing else ""
    hint = f"fix: {mismatch.hint}" if mismatch.hint else ""
    lines += [f"  {text}" for text in (empty, mismatch.note, hint) if text]
    return "\n".join(line for line in lines if line.strip())
