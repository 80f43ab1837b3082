"""Runs Hypothesis so that what it draws depends on the seed and on nothing else.

Hypothesis also draws constants that it finds in the modules of the session which are not installed ones.  What is drawn
would then depend on what else was imported, and on whether this package is installed or a checkout.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar
from unittest import mock

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.strategies import SearchStrategy

from harness.private_names import constant_provider, constants_of_modules

T = TypeVar("T")


def run(
    strategy: SearchStrategy[T], check: Callable[[T], None], *, examples: int, start: int, shrink: bool = False
) -> None:
    """Call ``check`` on what is drawn; the same ``start`` draws the same everywhere.

    Every setting is fixed here, because Hypothesis changes its defaults under CI, and no database is used: it is keyed on
    source, which different losses share.

    Args:
        strategy: what to draw.
        check: takes each example.
        examples: how many.
        start: the seed.
        shrink: shrink an exception from ``check``, and raise it again from the simplest example.
    """
    configured = settings(
        max_examples=examples,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=[h for h in HealthCheck if h is not HealthCheck.filter_too_much],
    )

    def example(drawn: T) -> None:
        check(drawn)

    with _without_modules():
        configured(seed(start)(given(strategy)(example)))()


_entering = threading.Lock()
_inside = 0
_patched = contextlib.ExitStack()


@contextlib.contextmanager
def _without_modules() -> Iterator[None]:
    """No constants of modules in the block, in any thread; what was known of them comes back after it."""
    global _inside
    with _entering:
        if not _inside and (none := constants_of_modules()) is not None:
            _patched.enter_context(mock.patch.multiple(constant_provider(), **none))
        _inside += 1
    try:
        yield
    finally:
        with _entering:
            _inside -= 1
            if not _inside:
                _patched.close()
