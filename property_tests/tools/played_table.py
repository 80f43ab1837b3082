"""What each rule says of each loss on the played device, beside what it says on the CPU: they are to be one table.

PYTHONPATH=. python -m property_tests.tools.played_table                # all of it: ten minutes
PYTHONPATH=. python -m property_tests.tools.played_table focal E01,G    # some losses, some rules
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from played_device import played

import losses
from harness import LossSpec
from harness.catalogs import torch_nn
from harness.checking.session import PROFILES, Profile
from harness.rules import BATTERY, select

# As few cases as a rule takes, and nothing is shrunk: the statuses are compared.
FEW = Profile(0.01, 0, compiles=False)

WITHOUT_MEANING: Mapping[str, str] = {
    "C01": "it moves modules to 'meta' itself, which here is the device",
    "D06": "autocast knows the devices that torch has kernels for",
    "G04": "forward mode gives tensors to torch's kernels past the device",
    "G11": "vmap gives tensors to torch's kernels past the device",
    "P03": "the bytes are those of the CPU tensors behind the device's",
    "T01": "the compiler does not see through the tensors of the device",
    "T02": "vmap, as G11",
    "T03": "it makes tensors without numbers itself, and is asked on the CPU",
}
# What the device does not do as the CPU does, and CUDA does not either: implementation, rule -> status on the device, why.
DEVICE_DEPENDENT: Mapping[tuple[str, str], tuple[str, str]] = {
    ("one_hot", "P02"): ("passed", "torch.nn.functional.one_hot reads the largest label on the CPU alone"),
}
OF_TORCH = (
    "nn.MSELoss",
    "nn.SmoothL1Loss-narrow",
    "nn.GaussianNLLLoss",
    "nn.KLDivLoss-batchmean",
    "nn.BCEWithLogitsLoss-pos_weight",
    "nn.CrossEntropyLoss-ignore_index_weighted",
    "nn.CrossEntropyLoss-probabilities_weighted",
    "nn.NLLLoss-grid",
    "nn.CosineEmbeddingLoss-margin",
    "nn.MultiMarginLoss-weighted",
    "nn.TripletMarginLoss-swap",
    "nn.functional.cosine_similarity",
)
SPECS = (*losses.SPECS, *(spec for spec in torch_nn.SPECS if spec.name in OF_TORCH))

Row = tuple[str, str, str, str]  # loss, implementation, rule, status


def codes(chosen: Collection[str] = ()) -> list[str]:
    """The rules that have a meaning on the device."""
    rules = select(chosen) if chosen else BATTERY
    return [rule.code for rule in rules if rule.code not in WITHOUT_MEANING]


def rows(spec: LossSpec, device: str, rules: Sequence[str], implementations: Sequence[str]) -> list[Row]:
    """The outcomes on one device; what crashed says why."""
    verifying = importlib.import_module("harness.checking.verify")
    few = mock.patch.dict(PROFILES, {"quick": FEW})
    with few, mock.patch.object(verifying, "_check_device", return_value=None):
        found = verifying.verify(
            spec, profile="quick", rules=rules, implementations=implementations, device=device
        ).outcomes
    return [(spec.name, o.implementation, o.rule, _status(o.status.value, o.reason)) for o in found]


def _status(status: str, reason: str) -> str:
    return f"{status}: {reason}" if status == "crashed" else status


def candidates(spec: LossSpec) -> list[str]:
    """The implementations that run on the device; the reference runs on the CPU in either case."""
    return [name for name in spec.implementations if spec.role(name) == "candidate"]


def differences(spec: LossSpec, rules: Sequence[str], implementations: Sequence[str]) -> list[tuple[Row, str]]:
    """Rows of the CPU's table that are others on the device, with the status there, but for what depends on the device."""
    should = rows(spec, "cpu", rules, implementations)
    with played() as device:
        came = rows(spec, device, rules, implementations)
    return [(a, b[3]) for a, b in zip(should, came, strict=True) if a != b and not _depends(a, b[3])]


def _depends(row: Row, came: str) -> bool:
    _, implementation, rule, _ = row
    return DEVICE_DEPENDENT.get((implementation, rule), ("", ""))[0] == came


def sample(position: int, share: int) -> list[str]:
    """Every so many rules for the loss at a position, others for the next one: each loss has some, each rule has several."""
    return [code for at, code in enumerate(codes()) if (at + position) % share == 0]


def compared(specs: Sequence[LossSpec], rules: Sequence[str]) -> Iterator[str]:
    """One line for each loss, and one for each difference."""
    for spec in specs:
        started = time.process_time()
        found = differences(spec, rules, candidates(spec))
        for (loss, implementation, rule, status), came in found:
            yield f"DIFFERS {loss} / {implementation} / {rule}: {status} on the CPU, {came} on the device"
        count = len(rules) * len(candidates(spec))
        yield f"{spec.name}: {count - len(found)} of {count} rows are equal ({time.process_time() - started:.0f} s)"


def main() -> None:
    """Entry point."""
    wanted, chosen, *_ = (*(argument.split(",") for argument in sys.argv[1:]), [], [])
    specs = [spec for spec in SPECS if not wanted or spec.name in wanted]
    for line in compared(specs, codes(chosen)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
