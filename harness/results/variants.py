"""Names of compiled variants.  Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

SUFFIX = " (compiled)"


def compiled_names(names: Sequence[str]) -> tuple[str, ...]:
    """What the compiled variants of implementations are called; no implementation may have a bracket in its name."""
    return tuple(name + SUFFIX for name in names)


def eager_name(implementations: Collection[str], name: str) -> str | None:
    """The implementation that a name is the compiled variant of; ``None`` for an implementation itself."""
    return None if name in implementations else name.removesuffix(SUFFIX)


def variants_of(implementations: Collection[str], name: str, names: Sequence[str]) -> list[str]:
    """The other form of an implementation among ``names``: its compiled variant, or the eager form of a variant."""
    eager = eager_name(implementations, name)
    other = name + SUFFIX if eager is None else eager
    return [other] if other in names else []
