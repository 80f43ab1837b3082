"""A contest: a loss of `losses`, everyone else who computes the same number, the inputs, and what it is held to."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.declare.dims import Size
from harness.declare.spec import LossSpec
from harness.results.measured import Pass

OURS = "ours"


@dataclass(frozen=True)
class Contestant:
    """Somebody who computes the loss.

    Args:
        name: short name.
        implementation: a class, built with the context and called with the rest, or a function of everything.  A class
            imports its package in its constructor, which is not timed.
        statement: the line that is written for it.
        package: the third-party package that it needs, by the name under which it is installed; ``None`` for plain torch.
        convention: what the package defines otherwise, and how it is converted.
    """

    name: str
    implementation: Callable[..., Any]
    statement: str
    package: str | None = None
    convention: str = ""

    @property
    def version(self) -> str | None:
        """The package's version, ``None`` where none is needed or it is not installed."""
        if self.package is None:
            return None
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None

    @property
    def missing(self) -> str:
        """Why it cannot take part, or nothing."""
        if self.package is None or self.version is not None:
            return ""
        return f"package {self.package} is not installed; `make compare` installs it in an environment of its own"


Cost = Literal["seconds", "peak_bytes"]


@dataclass(frozen=True)
class Claim:
    """What ours is held to: the cost of the best of the others over that of ours, or the inverse.

    Args:
        cost: ``seconds`` or ``peak_bytes``, of forward and backward together.
        over: the others; the best of them counts.
        least: the least that (others / ours) should be; more than that where it is 1, for equal is not ahead.
        most: the most that (ours / others) should be.
        why_not: why it is not reached, where that is known; printed only then.
    """

    cost: Cost
    over: tuple[str, ...]
    least: float | None = None
    most: float | None = None
    why_not: str = ""


def ahead(*over: str, why_slower: str = "", why_larger: str = "") -> tuple[Claim, Claim]:
    """Less time and less memory than any of them."""
    return Claim("seconds", over, 1.0, why_not=why_slower), Claim("peak_bytes", over, 1.0, why_not=why_larger)


@dataclass(frozen=True)
class Contest:
    """Everyone who computes one loss, on the same inputs.

    Args:
        title: what is compared, in words.
        spec: the contestants as implementations, ours first: everyone is paired with it.
        contestants: ours first.
        naive: the loops that everyone is held to, on a small input.
        small: sizes of that input.
        sizes: what is timed.
        claims: what the figures should be.
        pass_name: ``full`` for forward and backward, ``forward`` where the others have another gradient.
        seconds: budget of the timing.
    """

    title: str
    spec: LossSpec
    contestants: tuple[Contestant, ...]
    naive: Callable[..., Any]
    small: Mapping[str, Size]
    sizes: tuple[Mapping[str, Size], ...]
    claims: tuple[Claim, ...]
    pass_name: Pass
    seconds: float

    @property
    def name(self) -> str:
        """Short name, that of its spec."""
        return self.spec.name

    @property
    def small_spec(self) -> LossSpec:
        """The same with the loops as the reference."""
        return self.spec.replace(implementations={"naive": self.naive, **self.spec.implementations})


def contest(
    title: str,
    of: LossSpec,
    contestants: Sequence[Contestant],
    *,
    module: str,
    name: str,
    small: Mapping[str, Size],
    sizes: Sequence[Mapping[str, Size]],
    claims: Sequence[Claim] = (),
    naive: Callable[..., Any] | None = None,
    pass_name: Pass = "full",
    seconds: float = 40,
    **changes: Any,
) -> Contest:
    """A contest about the loss that ``of`` declares.

    Args:
        title: what is compared, in words.
        of: the declaration of the loss.
        contestants: ours first.
        module: the module that holds the contest in ``CONTESTS`` and its spec in ``SPECS``, so that timing processes find it.
        name: short name.
        small: see `Contest`.
        sizes: see `Contest`.
        claims: see `Contest`.
        naive: see `Contest`; by default the reference of ``of``.
        pass_name: see `Contest`.
        seconds: see `Contest`.
        changes: of the declaration, such as other options or domains.

    Raises:
        ValueError: ours is not the first, or a claim names nobody.
    """
    names = [contestant.name for contestant in contestants]
    if names[:1] != [OURS]:
        raise ValueError(f"contest {name!r}: the first contestant is {names[:1]}, expected {OURS!r}")
    strangers = {other for claim in claims for other in claim.over} - set(names[1:])
    if strangers:
        raise ValueError(f"contest {name!r}: a claim is about {sorted(strangers)}, but the others are {names[1:]}")
    declared = {"inputs": of.inputs, "context": of.context, "output": of.output, "differentiable": of.differentiable}
    held = {"laws": (), "error_inputs": (), "bench_sizes": None}
    implementations = {contestant.name: contestant.implementation for contestant in contestants}
    spec = of.replace(**{"name": name, "implementations": implementations, **declared, **held, **changes})
    spec.target = module
    return Contest(
        title,
        spec,
        tuple(contestants),
        naive or of.implementations[of.reference],
        small,
        tuple(sizes),
        tuple(claims),
        pass_name,
        seconds,
    )
