"""Which planted defects of the Triton kernels in `losses.kernels` the battery sees, in Triton's interpreter.

.venv/bin/python -m property_tests.tools.kernel_defects                  # all of it: half an hour
.venv/bin/python -m property_tests.tools.kernel_defects "wrong program"   # those whose name has it
.venv/bin/python -m property_tests.tools.kernel_defects --each           # only the rule that is named for each, and its twin

A defect is a replacement in the source of the kernels; the honest twin is that source as it is.  *Alone* nothing is declared but
the tensors, *laws* adds the declared laws, *reference* the reference.  Errors and warnings count.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton

from harness import LossSpec, verify
from harness.checking.session import PROFILES, Profile

KERNELS = Path(__file__).parents[2] / "losses" / "kernels.py"
MSE, ENTROPY = "WEIGHTED_MSE", "WEIGHTED_CROSS_ENTROPY"

# Rules in turn, and no more of them once one has found something.
ALONE = (("G01", "G02", "G05"), ("B",), ("D", "S"), ("G06", "G08"), ("C",))
LAWS = (("L", "C"),)
REFERENCE = (("E",),)
# A call takes a tenth of a second in the interpreter, and what is found need not be small.
UNSHRUNK = Profile(PROFILES["quick"].share, 0, compiles=False)
AT_LEAST = {"alone": 9 / 12, "laws": 11 / 12, "reference": 1.0}


@dataclass(frozen=True)
class Defect:
    """What is wrong with a kernel.

    Args:
        name: in a few words.
        spec: name of the spec in `losses.kernels` whose kernel has it.
        code: a rule that sees it.
        changes: each (text of the source, what stands there instead), wherever the text stands.
    """

    name: str
    spec: str
    code: str
    changes: tuple[tuple[str, str], ...]


DEFECTS = (
    Defect("tail dropped", MSE, "G01", (("inside = at < grid", "inside = at < grid // 4 * 4"),)),
    Defect(
        "tail counts as zeros",
        ENTROPY,
        "L06",
        (('mask=at < classes, other=float("-inf"))', "mask=at < classes, other=0)"),),
    ),
    Defect("last stride is taken for 1", MSE, "B06", (("p + row * p_row + at * p_step", "p + row * p_row + at"),)),
    Defect("sum in the inputs' precision", MSE, "D03", (("tl.sum(error)", "tl.sum(error.to(p.dtype.element_ty))"),)),
    Defect(
        "float64 is computed in float32",
        MSE,
        "D05",
        (("return torch.promote_types(tensor.dtype, torch.float32)", "return torch.float32"),),
    ),
    Defect("upstream gradient ignored", MSE, "G05", (("2 * up * weight * d", "2 * weight * d"),)),
    Defect(
        "upstream gradient of one element for all",
        MSE,
        "B07",
        (("upstream + row * up_row + at * up_step", "upstream + 0 * at"),),
    ),
    Defect("no block but the first", ENTROPY, "E05", (("range(0, classes, BLOCK)", "range(0, 1, BLOCK)"),)),
    Defect("sum of earlier blocks not scaled", ENTROPY, "E05", (("total * tl.exp(largest - higher)", "total"),)),
    Defect("weight by row", ENTROPY, "L03", (("weights + label * w_step", "weights + row % classes * w_step"),)),
    Defect(
        "last store wins",
        MSE,
        "G01",
        (
            ("out + row * out_row + block * out_step", "out + block * out_step"),
            ("p.new_empty((rows, blocks), dtype=wide)", "p.new_zeros((rows, blocks), dtype=wide)"),
        ),
    ),
    Defect(
        "wrong program id",
        ENTROPY,
        "G01",
        (("tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)\n    inside = at < classes",
          "tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)\n    inside = at < classes"),),
    ),
    # At 2^7 elements in place of the 2^31 of an int32, which no test can hold.
    Defect("narrow offset", ENTROPY, "G02", (("logits + row * o_row + at * o_step, mask=at", "logits + (row * o_row + at * o_step) % 128, mask=at"),)),
    Defect(
        "gradient of ignored rows",
        ENTROPY,
        "G01",
        (("mask=counts, other=0).to(WIDE)\n    up =", "mask=counts, other=1).to(WIDE)\n    up ="),),
    ),
    Defect("gradient of ignored rows unset", ENTROPY, "G08", (("slope, mask=inside)\n\n\nclass _Rows", "slope, mask=inside & counts)\n\n\nclass _Rows"),)),
    Defect("largest logit not subtracted", ENTROPY, "D02", (("higher = tl.maximum(largest, tl.max(o))", "higher = largest * 0 if first else tl.max(o) * 0"),)),
)  # fmt: skip


def load(changes: Sequence[tuple[str, str]] = ()) -> dict[str, LossSpec]:
    """The specs of the kernels, by name, from their source with some texts replaced.

    Raises:
        ValueError: a text that the source does not have, or has not any more.
    """
    source = KERNELS.read_text(encoding="utf-8")
    for before, after in changes:
        if before not in source:
            raise ValueError(f"got no {before!r} in {KERNELS.name}, expected the text that a defect replaces")
        source = source.replace(before, after)
    place = Path(tempfile.mkdtemp()) / "changed_kernels.py"  # Triton reads the source of a kernel from its file
    place.write_text(source, encoding="utf-8")
    found = importlib.util.spec_from_file_location("losses.changed_kernels", place)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[module.__name__] = module
    found.loader.exec_module(module)
    return {MSE: module.WEIGHTED_MSE, ENTROPY: module.WEIGHTED_CROSS_ENTROPY}


def found_by(spec: LossSpec, groups: Sequence[Sequence[str]]) -> list[str]:
    """Codes of the rules that find an error or a warning in the kernel, of the first group that does."""
    for rules in groups:
        with mock.patch.dict(PROFILES, quick=UNSHRUNK):
            found = verify(spec, profile="quick", rules=rules, implementations=["triton"])
        if codes := sorted({f.rule for f in found.findings if f.severity != "note"}):
            return codes
    return []


def catches(spec: LossSpec, code: str) -> dict[str, list[str]]:
    """What finds something alone, with the laws, and with the reference; what one sees, those with more to go by see too.

    Args:
        spec: with the kernel.
        code: the rule that is asked first.
    """
    bare = spec.replace(implementations={"triton": spec.implementations["triton"]})
    found = {"alone": found_by(bare.replace(laws=()), [[code], *ALONE] if code[0] not in "EL" else ALONE)}
    found["laws"] = found["alone"] or found_by(bare, LAWS)
    found["reference"] = found["laws"] or found_by(spec, REFERENCE)
    return found


def each() -> int:
    """Ask each defect and its honest twin the rule that is named for it; 1 where it misses the one or blames the other."""
    wrong = 0
    twins, blamed = load(), {}
    for defect in DEFECTS:
        asked = defect.spec, defect.code
        if asked not in blamed:
            blamed[asked] = found_by(twins[defect.spec], [[defect.code]])
        seen = found_by(load(defect.changes)[defect.spec], [[defect.code]])
        wrong += not seen or bool(blamed[asked])
        print(
            f"{defect.name:42} {defect.code} {'seen' if seen else 'missed'}{', twin blamed' * bool(blamed[asked])}",
            flush=True,
        )
    return int(wrong > 0)


def main(chosen: Sequence[str]) -> int:
    """Print the table; 1 where fewer are caught than should be, or where an honest twin is blamed."""
    if list(chosen) == ["--each"]:
        return each()
    defects = [d for d in DEFECTS if not chosen or any(part in d.name for part in chosen)]
    rows: list[dict[str, list[str]]] = []
    print(f"{'defect':42} {'alone':20} {'laws':20} reference", flush=True)
    for defect in defects:
        begin = time.perf_counter()
        rows.append(catches(load(defect.changes)[defect.spec], defect.code))
        shown = " ".join(f"{','.join(codes)[:20] or '-':20}" for codes in rows[-1].values())
        print(f"{defect.name:42} {shown} {time.perf_counter() - begin:.0f} s", flush=True)
    counts = {kind: sum(bool(row[kind]) for row in rows) for kind in AT_LEAST}
    print(f"caught of {len(rows)}: " + ", ".join(f"{kind} {count}" for kind, count in counts.items()), flush=True)
    blamed = {}
    for name, spec in {} if chosen else load().items():
        blamed[name] = found_by(spec, [*ALONE, *LAWS, *REFERENCE])
        print(f"honest twin {name}: {', '.join(blamed[name]) or 'nothing found'}", flush=True)
    missed = [kind for kind, part in AT_LEAST.items() if counts[kind] < part * len(rows)]
    return int(bool(missed) or any(blamed.values()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
