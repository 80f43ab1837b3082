"""rules x cases -> `Verification`."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

import torch

from harness.calls import process_state
from harness.calls.backends import full_float32
from harness.checking import suggest
from harness.checking.session import CASES_OF_SUGGESTIONS, PROFILES, Session
from harness.declare.laws import Law
from harness.declare.spec import LossSpec
from harness.errors import HarnessError, nearest, shown, told_in_a_line
from harness.results.causes import attributed
from harness.results.findings import Finding, Outcome, Verification
from harness.results.observer import UNSEEN, Observer, Step, bar_in_a_notebook
from harness.rules import BATTERY, find, select
from harness.rules.transforms.compiler import unloaded_compiler
from harness.rules.trial import Trial

T = TypeVar("T")


def plan(
    spec: LossSpec,
    *,
    rules: Collection[str] | None = None,
    ignore: Collection[str] = (),
    implementations: Collection[str] | None = None,
) -> tuple[tuple[str, str], ...]:
    """Every (implementation, rule code) that `verify` will say something about.

    Raises:
        HarnessError: an unknown rule or implementation, or nothing left to do.
    """
    if not isinstance(spec, LossSpec):
        raise HarnessError(f"got spec={shown(spec)}, expected one LossSpec; call it once for each of several")
    for what, given in (("rules", rules), ("ignore", ignore), ("implementations", implementations)):
        if given is not None and (isinstance(given, (str, bytes, torch.Tensor)) or not isinstance(given, Collection)):
            raise HarnessError(f"got {what}={shown(given)}, expected a list, such as {what}=[{shown(given)}]")
    chosen = BATTERY if rules is None else select(rules)
    left_out = set(select(ignore)) if ignore else set()
    names = tuple(spec.implementations) if implementations is None else tuple(implementations)
    for name in names:
        if not isinstance(name, str) or name not in spec.implementations:
            raise HarnessError(
                f"loss {spec.name!r} has no implementation {shown(name)}{nearest(name, spec.implementations)}"
            )
    for code in spec.waivers:
        find(code)  # one rule each: a prefix would waive what nobody has looked at
    select(spec.requires)
    planned = tuple((name, rule.code) for name in names for rule in chosen if rule not in left_out)
    if not planned:
        raise HarnessError(
            f"loss {spec.name!r}: no rule is left to check; give fewer codes to ignore, and at least one of implementations"
        )
    return planned


def verify(
    spec: LossSpec,
    *,
    profile: str = "ci",
    rules: Collection[str] | None = None,
    ignore: Collection[str] = (),
    implementations: Collection[str] | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Verification:
    """Check every rule on every implementation of a loss.

    In a notebook a bar shows how far it is.

    Args:
        spec: the declaration.
        profile: ``quick``, ``ci`` or ``thorough``: how many cases, how long a failure is shrunk.
        rules: codes or prefixes to check; all by default.
        ignore: codes or prefixes to leave out.
        implementations: names to check; all by default.
        device: where the tensors are; beside candidates on a CUDA device the reference is verified on the CPU.  A rule that
            loses the device for this process has crashed, and those after it are skipped.
        seed: the same seed gives the same cases and findings.

    Raises:
        HarnessError: an unknown profile, rule, implementation or device; or a waiver without such a rule.
    """
    session = open_session(spec, profile=profile, device=device, seed=seed)
    total = len(plan(spec, rules=rules, ignore=ignore, implementations=implementations))
    with bar_in_a_notebook(total) as observer:
        return checked(session, rules=rules, ignore=ignore, implementations=implementations, observer=observer)


def open_session(spec: LossSpec, *, profile: str = "ci", device: str = "cpu", seed: int = 0) -> Session:
    """What `checked`, `suggested` and `laws_that_hold` take: its cases are drawn, and evaluated, once for all of them.

    The arguments are those of `verify`.

    Raises:
        HarnessError: an unknown profile or device.
    """
    if not isinstance(profile, str) or profile not in PROFILES:
        raise HarnessError(
            f"got profile {shown(profile)}, expected one of {list(PROFILES)}{nearest(profile, PROFILES)}"
        )
    if type(seed) is not int:
        raise HarnessError(f"got seed={shown(seed)}, expected a whole number, such as 0")
    _check_device(device)
    return Session(spec, PROFILES[profile], seed, device)


def checked(
    session: Session,
    *,
    rules: Collection[str] | None = None,
    ignore: Collection[str] = (),
    implementations: Collection[str] | None = None,
    observer: Observer = UNSEEN,
) -> Verification:
    """See `verify`; ``observer`` is told of each check as it begins."""
    spec = session.spec
    planned = plan(spec, rules=rules, ignore=ignore, implementations=implementations)
    session.suggests = rules is None
    outcomes: list[Outcome] = []
    findings: list[Finding] = []
    seconds: dict[str, float] = {}
    with quietly(session), contextlib.nullcontext() if session.profile.compiles else unloaded_compiler():
        for implementation, code in planned:
            rule = next(r for r in BATTERY if r.code == code)
            observer.begin(Step(code, f"{spec.name} / {implementation} / {code} {rule.title}"))
            start = time.perf_counter()
            outcome, found = session.check(implementation, rule)
            seconds[code] = seconds.get(code, 0.0) + time.perf_counter() - start
            outcomes.append(outcome)
            findings += found
    suggestions = () if rules is not None else suggested(session, planned[-1][0])
    return Verification(
        loss=spec.name,
        profile=next(name for name, profile in PROFILES.items() if profile is session.profile),
        seed=session.seed,
        device=session.device,
        reference=spec.reference,
        implementations=tuple(dict.fromkeys(name for name, _ in planned)),
        outcomes=tuple(outcomes),
        findings=attributed(findings),
        suggestions=suggestions,
        seconds=seconds,
        notes=(spec.unchecked,) if spec.unchecked else (),
    )


def suggested(session: Session, implementation: str) -> tuple[str, ...]:
    """Laws that the loss could declare, one line each; see `harness.checking.suggest`."""
    try:
        return _of_smooth_cases(suggest.suggestions, session, implementation)
    except HarnessError:
        raise
    except Exception as error:  # the loss is other people's code
        return (f"no law could be tried: {told_in_a_line(error)}",)


def laws_that_hold(session: Session, implementation: str) -> tuple[Law, ...]:
    """The laws among `suggested`, as data."""
    return _of_smooth_cases(suggest.laws_that_hold, session, implementation)


@contextlib.contextmanager
def quietly(session: Session) -> Iterator[None]:
    """Hundreds of calls: what they print and warn of is not shown, and what they leave behind is put back.

    They have one thread.  A sum over many elements is taken in one order then, whatever the machine has, and at the sizes that
    are drawn several threads wait for each other longer than they work.
    """
    with (
        process_state.preserve(),
        warnings.catch_warnings(),
        full_float32(session.device),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        yield


def _of_smooth_cases(ask: Callable[[Sequence[Trial]], T], session: Session, implementation: str) -> T:
    with quietly(session):
        cases = session.pool("distinct", "smooth", CASES_OF_SUGGESTIONS, complete=True)
        return ask([session.trial(implementation, case) for case in cases])


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type if isinstance(device, str) else ""
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise HarnessError(f"got device {shown(device)}, expected 'cpu', 'cuda' or 'cuda:1'")
    if kind == "cuda" and not torch.cuda.is_available():
        raise HarnessError(f"device {shown(device)}: this torch sees no CUDA device; use device='cpu'")
