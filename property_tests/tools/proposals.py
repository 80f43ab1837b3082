"""How often a proposed declaration runs as it is: ``python -m property_tests.tools.proposals`` prints a table.

Losses are those of torch and of this repository, the latter without their annotations.  All of them are right, so that an
error that a rule finds under a proposed declaration is the declaration's fault.
"""

from __future__ import annotations

import inspect
import sys
import time
import types
from ast import literal_eval
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn import functional as F

import losses
from harness import LossSpec, TensorSpec
from harness.checking.verify import verify
from harness.declare import inline
from harness.errors import HarnessError
from harness.proposing.calls import selector
from harness.proposing.parameters import tensor_spec
from harness.proposing.proposal import Proposal
from harness.proposing.propose import propose

Loss = Callable[..., Any]

FUNCTIONS = (
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.cross_entropy,
    F.nll_loss,
    F.kl_div,
    F.poisson_nll_loss,
    F.gaussian_nll_loss,
    F.binary_cross_entropy,
    F.binary_cross_entropy_with_logits,
    F.margin_ranking_loss,
    F.hinge_embedding_loss,
    F.soft_margin_loss,
    F.multilabel_soft_margin_loss,
    F.multilabel_margin_loss,
    F.cosine_embedding_loss,
    F.multi_margin_loss,
    F.triplet_margin_loss,
    F.triplet_margin_with_distance_loss,
    F.ctc_loss,
    F.cosine_similarity,
    F.pairwise_distance,
)
MODULES = tuple(getattr(nn, name) for name in sorted(vars(nn)) if name.endswith("Loss"))


def losses_of_torch() -> dict[str, Loss]:
    """Every loss of torch.nn and torch.nn.functional."""
    return {loss.__name__: loss for loss in (*MODULES, *FUNCTIONS)}


def own_losses() -> dict[str, Loss]:
    """Every public loss of this repository, without its annotations."""
    return {name: without_annotations(getattr(losses, name)) for name in losses.__all__ if name != "SPECS"}


def without_annotations(loss: Loss) -> Loss:
    """The same loss as a user may have written it: in a module, where pickle finds it again."""
    if not inspect.isclass(loss):
        return _bare(loss)
    methods = {"__init__": _bare(loss.__init__), "forward": _bare(loss.forward)}
    made = type(loss.__name__, (loss,), {"__doc__": loss.__doc__, "__module__": __name__, **methods})
    globals()[loss.__name__] = made
    return made


def _bare(function: Any) -> Any:
    bare = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    bare.__kwdefaults__, bare.__doc__, bare.__module__ = function.__kwdefaults__, function.__doc__, function.__module__
    bare.__qualname__ = function.__qualname__
    return bare


@dataclass(frozen=True)
class Row:
    """What became of one loss: the declaration, or why there is none, and the rules that found errors under it."""

    name: str
    declaration: str
    problem: str
    errors: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether a declaration was proposed, and no rule found an error."""
        return not self.problem and not self.errors


def measured(name: str, loss: Loss, rules: Iterable[str] | None = None, *, with_laws: bool = True) -> Row:
    """Propose a declaration for a loss, and verify the loss under it."""
    started = time.perf_counter()
    try:
        spec = proposed(name, loss, with_laws=with_laws)
    except HarnessError as error:
        return Row(name, "", " ".join(str(error).split())[:160], (), time.perf_counter() - started)
    found = verify(spec, profile="quick", rules=None if rules is None else list(rules))
    errors = tuple(sorted({finding.rule for finding in found.findings if finding.severity == "error"}))
    tensors = "; ".join(f"{name}: {tensor.dims} {tensor.domain!r}" for name, tensor in spec.tensors.items())
    return Row(name, tensors, "", errors, time.perf_counter() - started)


def proposed(name: str, loss: Loss, *, with_laws: bool = True) -> LossSpec:
    """The spec that a proposal describes."""
    return specified(loss, propose(name, loss, with_laws=with_laws))


def specified(loss: Loss, proposal: Proposal) -> LossSpec:
    """The spec that a proposal describes.

    Raises:
        DeclarationError: the proposal is of another loss.
    """
    tensors = {
        place: {d.name: tensor_spec(str(d.dims), d.domain, d.several) for d in proposal.of(place)}
        for place in ("input", "context")
    }
    return LossSpec(
        proposal.name,
        {proposal.name: loss},
        inputs=tensors["input"],
        context=tensors["context"],
        output=None if proposal.output is None else TensorSpec(proposal.output),
        options={d.name: literal_eval(d.text) for d in proposal.of("option")},
        fixed_sizes=proposal.fixed_sizes or {},
        differentiable=proposal.differentiable,
        laws=[inline.law(law) for law in proposal.laws],
        formula=proposal.formula or None,
        select=selector(proposal.select),
        stochastic=proposal.stochastic,
    )


def main() -> int:
    """Print a row for each loss, and how many a declaration was found for that raises no false error."""
    rows: list[Row] = []
    everything = {**losses_of_torch(), **own_losses()}
    for place, (name, loss) in enumerate(everything.items(), 1):
        row = measured(name, loss)
        rows.append(row)
        state = "ok" if row.ok else row.problem or f"errors: {', '.join(row.errors)}"
        print(f"{place:3}/{len(everything)} {row.name:34} {row.seconds:5.1f} s  {row.declaration}  {state}", flush=True)
    total = len(rows)
    print(f"{sum(not row.problem for row in rows)} of {total} get a declaration")
    print(f"{sum(not row.problem and not {'B01', 'X01'} & {*row.errors} for row in rows)} of {total} run under it")
    print(f"{sum(row.ok for row in rows)} of {total} have no error in the whole battery under it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
