"""Rules about tensors without numbers: T03.

Fake tensors load torch's compiler, which takes seconds once in a process; the profile ``quick`` leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.calls.evaluation import LossRaised
from harness.calls.watch import Watch
from harness.errors import NotApplicable, told_in_a_line
from harness.private_names import buffers, fake_tensor_mode, parameters, set_grad_enabled, transform_level
from harness.rules.dtypes.kept import usual
from harness.rules.rule import Mismatch, Rule
from harness.rules.transforms.compiler import uncached
from harness.rules.transforms.functional import gap
from harness.rules.trial import Trial

CUDA = "cuda:0"  # with its index: without one torch asks the driver for it
_ON_DATA = ("DataDependent", "DynamicOutputShape")  # what fake tensors raise where a value would be read


class _NoGraph(TorchFunctionMode):
    """Keeps gradients off, also where a loss switches them on.

    On a machine whose torch has no CUDA, autograd ends the process when it meets a fake CUDA tensor.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is set_grad_enabled:
            return None
        return func(*args, **(kwargs or {}))


class _OnTwoDevices(Watch):
    """Refuses a convolution of tensors on two devices, whose device fake tensors take from the first."""

    def _see(self, func: Any, args: Any, kwargs: Any) -> Any:
        devices = [str(a.device) for a in args if isinstance(a, Tensor)]
        if func.overloadpacket.__name__ == "convolution" and len(set(devices)) > 1:
            raise RuntimeError(f"convolution of tensors on different devices, {' and '.join(devices)}")
        return func(*args, **kwargs)


class _Transforms(TorchFunctionMode):
    """Notices a loss that uses torch's transforms itself, whose graphs nothing can keep off."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= transform_level() is not None
        return func(*args, **(kwargs or {}))


def fake_tensors_run_through(trials: Sequence[Trial]) -> Iterator[Mismatch]:
    """Fake tensors, which have a shape, a dtype and a device but no numbers, give the output's shape, on CUDA too.

        shape(L(fake x)) = shape(L(x))        device(L(fake cuda x)) = cuda, with no tensor left on the CPU

    No GPU is needed: a constant that the loss makes on the CPU shows as two devices in one operation.
    """
    for trial in trials[:1]:
        tensors, used = trial.tensors(usual(trial)), _Transforms()
        yield from _shapes(trial, tensors, used)
        if not used.seen and not _holds_real_tensors(trial):
            yield from _devices(trial, tensors)


def _shapes(trial: Trial, tensors: Mapping[str, Tensor], used: _Transforms) -> Iterator[Mismatch]:
    should = list(trial.base.output.shape)
    try:
        came = list(_fake(trial, tensors, "cpu", used).shape)
    except LossRaised as raised:
        if _depends_on_data(raised.error):
            raise NotApplicable("it reads values, which fake tensors have not; see P02") from raised
        used.seen = True  # what fails here says nothing about devices
        yield _unfit(trial, tensors, "loss of fake tensors", raised.error, f"a shape {should}", "raises")
        return
    if came != should:
        yield _unfit(trial, tensors, "loss.shape of fake tensors", str(came), str(should), "shape")


def _devices(trial: Trial, tensors: Mapping[str, Tensor]) -> Iterator[Mismatch]:
    where, should = "loss of fake CUDA tensors", "a loss on cuda"
    try:
        with torch.no_grad():
            device = _fake(trial, tensors, CUDA, _NoGraph()).device
    except LossRaised as raised:
        if _two_devices(raised.error):
            yield _unfit(trial, tensors, where, raised.error, should, "device")
        return  # what else raises where there is no CUDA says nothing of the loss
    if device.type != "cuda":
        yield _unfit(trial, tensors, where, f"a tensor on {device}", should, "device")


def _fake(trial: Trial, tensors: Mapping[str, Tensor], device: str, watch: TorchFunctionMode) -> Tensor:
    candidate = trial.candidate
    kept = None if candidate.is_class else candidate.build(tensors)
    with uncached(), fake_tensor_mode()(allow_non_fake_inputs=True), _OnTwoDevices(), watch:
        numbers = {n for n in tensors if trial.spec.tensors[n].number}
        fake = {
            n: t if n in numbers else torch.empty(t.shape, dtype=t.dtype, device=device) for n, t in tensors.items()
        }
        given = trial.leaves(fake) if device == "cpu" else fake
        built: Any = candidate.build(given) if kept is None else kept
        if isinstance(built, nn.Module) and candidate.is_class and device != "cpu":
            _move(built, device)
        output: Tensor = candidate.call(built, given)
    return output


def _move(module: nn.Module, device: str) -> None:
    """What ``module.to(device)`` moves; the method itself cannot swap fake parameters."""
    for part in module.modules():
        for name, buffer in buffers(part).items():
            buffers(part)[name] = None if buffer is None else buffer.to(device)
        for name, parameter in parameters(part).items():
            if parameter is not None:
                parameters(part)[name] = nn.Parameter(parameter.detach().to(device), parameter.requires_grad)


def _holds_real_tensors(trial: Trial) -> bool:
    """A module that was given as an instance keeps its real tensors on the CPU; C01 moves it."""
    module = trial.candidate.implementation
    return isinstance(module, nn.Module) and any(True for _ in (*module.parameters(), *module.buffers()))


def _depends_on_data(error: BaseException) -> bool:
    return any(type(e).__name__.startswith(_ON_DATA) for e in _causes(error))


def _two_devices(error: BaseException) -> bool:
    return any("DeviceMismatch" in type(e).__name__ or "different devices" in str(e) for e in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unfit(
    trial: Trial, tensors: Mapping[str, Tensor], where: str, came: str | BaseException, should: str, aspect: str
) -> Mismatch:
    error = came if isinstance(came, BaseException) else None
    device = CUDA if aspect == "device" else "cpu"
    on_cpu = "create it where the inputs are, with device=predictions.device, or register it as a buffer"
    return Mismatch(
        where,
        came if isinstance(came, str) else told_in_a_line(came),
        should,
        error=error,
        aspect=aspect,
        severity=gap(trial),
        tensors=tensors,
        code=f"""
            from torch._subclasses.fake_tensor import FakeTensorMode
            from torch.utils._python_dispatch import TorchDispatchMode
            class Devices(TorchDispatchMode):
                def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                    print(func, [a.device for a in args if isinstance(a, torch.Tensor)])
                    return func(*args, **(kwargs or {{}}))
            with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), Devices():
                print(loss(**{{n: torch.empty(t.shape, dtype=t.dtype, device={device!r}) for n, t in tensors.items()}}))
        """,
        hint=f"a constant or a result is on the CPU: {on_cpu}"
        if device == CUDA
        else "no NumPy and no Python numbers on the way",
    )


RULES = (
    Rule(
        code="T03",
        title="fake tensors give the same shape, on CUDA too",
        group="faking",
        severity="warning",
        check_all=fake_tensors_run_through,
        regimes={"distinct": 1},
        smooth=True,
        compiles=True,
        on_the_cpu="fake tensors have no numbers, and say by themselves that they are on CUDA",
        why="A constant on the CPU fails at the first batch on a GPU, where no test ran.",
        example="mask = torch.eye(len(z), dtype=torch.bool)      # on the CPU, wherever z is",
        mend="`torch.eye(len(z), dtype=torch.bool, device=z.device)`.",
        source="PyTorch, 'Fake tensor'.",
    ),
)
