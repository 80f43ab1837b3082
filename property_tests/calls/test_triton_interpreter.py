"""Kernels on the CPU: when they are interpreted, and what is then not said.  Triton itself need not be installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness import DeclarationError, LossSpec, TensorSpec, verify
from harness.calls import triton_interpreter

ROOT = Path(__file__).parents[2]

FILE = """
import os
{imported}
import torch

def loss(p: torch.Tensor) -> torch.Tensor:
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("kernels are compiled")
    return (p**2).sum()
"""


def run_command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop(triton_interpreter.VARIABLE, None)
    return subprocess.run(
        [sys.executable, "-m", "harness", *words], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


class InterpreterError(Exception):
    """As Triton's, which it raises from what the kernel raised."""


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(triton_interpreter.VARIABLE, "1")
    monkeypatch.setitem(sys.modules, "triton", sys)


def squares(p: Tensor) -> Tensor:
    return (p**2).sum()


def spec(loss, **more) -> LossSpec:
    return LossSpec("kernel", {"kernel": loss}, inputs={"p": TensorSpec("B")}, output=TensorSpec(""), **more)


@pytest.mark.usefixtures("interpreted")
def test_rules_that_mean_nothing_in_the_interpreter_say_so() -> None:
    found = {o.rule: o for o in verify(spec(squares), profile="quick", rules=["T01", "D06", "D02", "G08"]).outcomes}
    assert {code for code, o in found.items() if o.status == "inapplicable"} == {"T01", "D06"}
    assert "ask on a GPU" in found["T01"].reason
    assert "bfloat16 is not asked" in found["D02"].reason


@pytest.mark.usefixtures("interpreted")
def test_bfloat16_that_is_added_bit_by_bit_is_no_defect_of_the_loss() -> None:
    def bits(p: Tensor) -> Tensor:
        return p.sum() * 0 + 1e30 if p.dtype == torch.bfloat16 else squares(p)

    assert verify(spec(bits), profile="quick", rules=["D", "G01"]).findings == ()


def test_the_same_loss_is_one_where_kernels_are_compiled() -> None:
    def bits(p: Tensor) -> Tensor:
        return p.sum() * 0 + 1e30 if p.dtype == torch.bfloat16 else squares(p)

    assert {f.rule for f in verify(spec(bits), profile="quick", rules=["D02"]).findings} == {"D02"}


def test_what_the_interpreter_cannot_run_is_inapplicable_and_no_finding() -> None:
    def kernel(p: Tensor) -> Tensor:
        raise InterpreterError("AttributeError(\"'float' object has no attribute 'to'\")")

    found = verify(spec(kernel), profile="quick")
    assert found.findings == ()
    assert {o.status for o in found.outcomes} <= {"inapplicable", "skipped"}
    assert any("ask on a GPU" in o.reason for o in found.outcomes)


def test_an_error_of_the_kernel_itself_is_a_finding() -> None:
    def kernel(p: Tensor) -> Tensor:
        raise InterpreterError("ValueError('shapes')")

    assert {f.rule for f in verify(spec(kernel), profile="quick", rules=["B01"]).findings} == {"B01"}


class WritesOver(torch.autograd.Function):
    """The sum of squares, its gradient written over the input past autograd, as a fused kernel does."""

    @staticmethod
    def forward(ctx, p: Tensor) -> Tensor:
        value = (p**2).sum()
        p.detach().numpy()[...] *= 2
        ctx.save_for_backward(p)
        return value

    @staticmethod
    def backward(ctx, upstream: Tensor) -> Tensor:
        return ctx.saved_tensors[0] * upstream


def test_a_gradient_over_the_input_is_found_and_the_line_to_declare_it_is_said() -> None:
    found = [f for f in verify(spec(WritesOver.apply), profile="quick", rules=["C02"]).findings]
    assert "LossSpec(writes_gradient_into='p')" in found[0].hint


def test_a_loss_that_edits_its_input_otherwise_is_not_told_to_declare_it() -> None:
    def edits(p: Tensor) -> Tensor:
        value = squares(p)
        p.data.add_(1)
        return value

    found = verify(spec(edits), profile="quick", rules=["C02"]).findings
    assert found
    assert "writes_gradient_into" not in found[0].hint


def test_declared_it_is_no_finding_and_neither_is_what_follows() -> None:
    assert verify(spec(WritesOver.apply, writes_gradient_into="p"), profile="quick").ok


def test_a_wrong_gradient_over_the_input_is_seen_all_the_same() -> None:
    class Wrong(WritesOver):
        @staticmethod
        def backward(ctx, upstream: Tensor) -> Tensor:
            return 0.9 * ctx.saved_tensors[0] * upstream

    found = verify(spec(Wrong.apply, writes_gradient_into="p"), profile="quick", rules=["G01", "C02"])
    assert {f.rule for f in found.findings} == {"G01"}


def test_only_an_input_with_a_gradient_can_be_written_over() -> None:
    with pytest.raises(DeclarationError, match="writes_gradient_into='p'"):
        spec(squares, writes_gradient_into="q")


@pytest.mark.parametrize(
    ("imported", "options"),
    [("import json", ("--triton-interpret",)), ("if False:\n    import triton.language as tl", ())],
)
def test_kernels_are_interpreted_when_asked_and_for_a_file_that_imports_triton(
    tmp_path: Path, imported: str, options: tuple[str, ...]
) -> None:
    (tmp_path / "kernel.py").write_text(FILE.format(imported=imported))
    done = run_command(
        *("verify", "kernel.py:loss", "--inputs", "p: B", "--profile", "quick", "--select", "B01", *options),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("run in Triton's interpreter" in done.stderr) == (not options)


@pytest.mark.parametrize(
    ("imported", "found"),
    [
        ("import json", False),
        ("import triton", True),
        ("if False:\n    import triton.language as tl", True),
        ("if False:\n    from triton import jit", True),
    ],
)
def test_a_file_that_imports_triton_anywhere_is_told_from_others(tmp_path: Path, imported: str, found: bool) -> None:
    file = tmp_path / "kernel.py"
    file.write_text(FILE.format(imported=imported))
    assert triton_interpreter.is_imported_by(f"{file}:loss") is found


def test_nothing_is_timed_in_the_interpreter(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(FILE.format(imported="import json"))
    words = ("bench", "kernel.py:loss", "--inputs", "p: B", "--sizes", "B=4", "--triton-interpret")
    interpreted, counted = (run_command(*words, *more, cwd=tmp_path) for more in ((), ("--costs-only",)))
    assert interpreted.returncode == 0, interpreted.stderr
    assert interpreted.stdout == counted.stdout
