"""`Declaration`: a loss that declares nothing itself, declared on the command line, and the TARGET that carries all of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import DeclarationError, nearest, shown
from harness.results.strict_json import parse_json

if TYPE_CHECKING:
    from harness.declare.spec import LossSpec

T = TypeVar("T")

ON_THE_COMMAND_LINE = (
    'On the command line a tensor of the batch is --inputs "name: B", one that exists before training --context '
    '"name: B", and a constant --set name=value'
)


_FLAGS = ("stochastic", "once", "detaches", "stateful")


@dataclass(frozen=True)
class Declaration:
    """What the options `--inputs`, `--context`, `--set`, `--returns`, `--law`, `--reference`, `--formula`, `--dtypes`,
    `--computes-in`, `--stochastic`, `--once`, `--detaches`, `--stateful`, `--pick`, `--differentiable` and `--role` say of a loss.

    Args:
        target: the loss, ``package.module:Name`` or ``path/file.py:Name``.
        inputs: tensors of the batch, in the grammar of `harness.declare.inline`.
        context: tensors that exist before training, likewise.
        output: what the loss returns, one tensor without a name; ``None`` says nothing, the empty text is a scalar.
        options: constants, each ``name=value``.
        laws: each as ``permutation(B)``.
        reference: target of a second implementation, which the loss is held to.
        formula: the loss in one line, which it is held to.
        dtypes: the floating dtypes that the loss takes, separated by commas.
        computes_in: the dtype in which it computes on purpose.
        stochastic: whether it draws random numbers on purpose.
        once: whether a graph of it takes one backward only.
        detaches: whether it stops gradients on purpose.
        stateful: whether it keeps running statistics in registered buffers on purpose.
        pick: the key, position or attribute of the loss in what is returned; several with commas are each checked.
        differentiable: inputs that need a gradient, separated by commas; by default the first floating one.
        roles: each ``weights=data``, what a tensor is for.
    """

    target: str
    inputs: str
    context: str = ""
    output: str | None = None
    options: tuple[str, ...] = ()
    laws: tuple[str, ...] = ()
    reference: str = ""
    formula: str = ""
    dtypes: str = ""
    computes_in: str = ""
    stochastic: bool = False
    once: bool = False
    detaches: bool = False
    stateful: bool = False
    pick: str = ""
    differentiable: str = ""
    roles: tuple[str, ...] = ()

    @property
    def as_target(self) -> str:
        """One text that `harness.declare.targets.load_specs` makes the same spec of, in any process."""
        said = {key: value for key, value in asdict(self).items() if value or (key == "output" and value is not None)}
        return json.dumps(said)

    @staticmethod
    def from_target(text: str) -> Declaration:
        """The declaration that `as_target` wrote.

        Raises:
            DeclarationError: another text.
        """
        known = {field.name for field in fields(Declaration)}
        try:
            data = parse_json(text)
        except ValueError as error:
            raise DeclarationError(f"target {text!r} is not JSON: {error}") from error
        if not isinstance(data, Mapping) or not {"target", "inputs"} <= set(data) <= known:
            raise DeclarationError(
                f"got target {text!r}, expected an object with target, inputs and some of {sorted(known)}"
            )
        for key, value in data.items():
            if key in _FLAGS:
                if value is not True:
                    raise DeclarationError(f"target {shown(text)}: {key} is {shown(value)}, expected true")
                continue
            is_list = key in ("options", "laws", "roles")
            texts = value if is_list and isinstance(value, list) else [value]
            if is_list != isinstance(value, list) or not all(isinstance(each, str) for each in texts):
                wanted = "a list of texts" if is_list else "a text"
                raise DeclarationError(f"target {shown(text)}: {key} is {shown(value)}, expected {wanted}")
        read: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return Declaration(**read)

    def spec(self, name: str, loss: Callable[..., Any], reference: Callable[..., Any] | None = None) -> LossSpec:
        """The spec of the loss; the reference, where there is one, is its first implementation.

        Raises:
            DeclarationError: a text that cannot be read, or one that contradicts the loss.
        """
        from harness.declare import inline
        from harness.declare.spec import LossSpec

        implementations = {name: loss} if reference is None else {"reference": reference, name: loss}
        inputs = _read("inputs", inline.tensors, self.inputs)
        context = _read("context", inline.tensors, self.context) if self.context.strip() else None
        output = None if self.output is None else _read("output", inline.tensor, self.output)
        for role in self.roles:
            inputs, context = _with_role(role, inputs, context)
        options = inline.options(self.options)
        laws = [inline.law(law) for law in self.laws]
        dtypes = [inline.dtype(text) for text in self.dtypes.split(",") if text.strip()]
        computes_in = inline.dtype(self.computes_in) if self.computes_in.strip() else None
        for implementation in implementations.values():
            _check_names(name, implementation, [*inputs, *(context or {})])
        try:
            return LossSpec(
                name,
                implementations,
                inputs=inputs,
                context=context,
                output=output,
                options=options,
                laws=laws,
                dtypes=dtypes,
                computes_in=computes_in,
                **{flag: getattr(self, flag) for flag in _FLAGS},
                formula=self.formula.strip() or None,
                select=inline.picked(self.pick),
                differentiable=[part.strip() for part in self.differentiable.split(",") if part.strip()] or None,
            )
        except DeclarationError as error:
            raise DeclarationError(f"{error}\n{ON_THE_COMMAND_LINE}") from error


def _with_role(text: str, inputs: dict[str, Any], context: dict[str, Any] | None) -> tuple[dict[str, Any], Any]:
    """The arguments with the role of one tensor, ``weights=data`` or ``targets.mask=label``, overruled.

    Raises:
        DeclarationError: no such tensor, or a role that it cannot have.
    """
    from harness.declare import structures

    name, sign, role = (part.strip() for part in text.partition("="))
    first, *path = name.split(".")
    if not sign or first not in {**inputs, **(context or {})}:
        known = [*inputs, *(context or {})]
        raise DeclarationError(
            f"role {text!r}: expected a tensor and its role, such as {known[0]}=data{nearest(first, known)}"
        )
    changed = {n: structures.changed(v, path, role) if n == first else v for n, v in inputs.items()}
    if context is not None:
        context = {n: structures.changed(v, path, role) if n == first else v for n, v in context.items()}
    return changed, context


def _read(field: str, read: Callable[[str], T], text: str) -> T:
    """A field, whose name stands in front of what is refused in it: the text alone may be that of several."""
    try:
        return read(text)
    except DeclarationError as error:
        raise DeclarationError(f"{field} {error}") from error


def _check_names(name: str, loss: Callable[..., Any], tensors: Sequence[str]) -> None:
    from harness.declare import annotations as signatures

    call = signatures.call_function(loss)
    accepted = {**signatures.construct_parameters(loss), **signatures.parameters(call)}
    for tensor in tensors:
        if accepted and tensor not in accepted and not signatures.takes_any_name(loss):
            near = nearest(tensor, accepted)
            raise DeclarationError(
                f"loss {name!r} has no parameter {tensor!r}{near}{' It' if near else '; it'} takes {', '.join(accepted)}"
            )
