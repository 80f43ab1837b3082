"""Catalogs of other people's losses: what is found of torch's is known, one by one, and nothing else is found.

`docs/survey.md` shows each of the known findings without the harness.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness import LossSpec, TargetError, catalogs, verify
from harness.catalogs import MissingPackageError, require, torch_nn
from harness.cli import cli
from harness.declare.targets import load_specs

SURVEY = Path(__file__).parents[2] / "docs" / "survey.md"

# The losses that broadcast their tensors against each other without a word (B03).
BROADCASTING = {
    "nn.functional.poisson_nll_loss",
    "nn.functional.poisson_nll_loss-full",
    "nn.functional.poisson_nll_loss-rate",
    "nn.GaussianNLLLoss",
    "nn.GaussianNLLLoss-full",
    "nn.GaussianNLLLoss-homoscedastic",
    "nn.KLDivLoss-batchmean",
    "nn.BCELoss-weighted_elements",
    "nn.BCEWithLogitsLoss-weighted",
    "nn.BCEWithLogitsLoss-pos_weight",
    "nn.functional.linear_cross_entropy-chunked",
    "nn.HingeEmbeddingLoss",
    "nn.CosineEmbeddingLoss",
    "nn.CosineEmbeddingLoss-margin",
    "nn.CosineEmbeddingLoss-near_zero",
    "nn.MarginRankingLoss",
    "nn.MarginRankingLoss-margin",
    "nn.MultiLabelSoftMarginLoss",
    "nn.MultiLabelSoftMarginLoss-weighted",
    "nn.SoftMarginLoss",
    "nn.TripletMarginLoss",
    "nn.TripletMarginLoss-swap",
    "nn.TripletMarginLoss-l1",
    "nn.TripletMarginWithDistanceLoss",
    "nn.functional.pairwise_distance",
    "nn.functional.cosine_similarity",
}
KNOWN = {
    "nn.functional.mse_loss-weighted": {"D03 warning", "E01 error", "G08 warning"},
    "nn.functional.l1_loss-weighted": {"D03 warning", "E01 error", "G02 warning", "G08 warning"},
    "nn.GaussianNLLLoss": {"P02 warning"},
    "nn.GaussianNLLLoss-full": {"P02 warning"},
    "nn.GaussianNLLLoss-homoscedastic": {"P02 warning"},
    "nn.BCELoss": {"D02 warning"},
    "nn.BCELoss-weighted_elements": {"D02 warning"},
    "nn.BCELoss-weighted": {"B01 error", "E01 error", "G08 error", "L03 error", "L11 error"},
    "nn.CrossEntropyLoss-ignore_index": {"G08 warning"},
    "nn.CrossEntropyLoss-ignore_index_weighted": {"G08 warning"},
    "nn.CrossEntropyLoss-probabilities_weighted": {"D04 warning"},
    "nn.NLLLoss-ignore_index": {"G08 warning"},
    "nn.NLLLoss-grid": {"B06 error"},
    "nn.functional.linear_cross_entropy-chunked": {"E03 error", "G03 warning"},
    "nn.CTCLoss": {"E02 error", "G01 error", "G02 error"},
    "nn.AdaptiveLogSoftmaxWithLoss": {"G06 error", "P02 warning"},
    "nn.CosineEmbeddingLoss": {"D02 warning", "E04 warning"},
    "nn.CosineEmbeddingLoss-margin": {"D02 warning", "E04 warning"},
    "nn.CosineEmbeddingLoss-near_zero": {"E01 error", "E04 warning", "L05 error"},
    "nn.MultiLabelSoftMarginLoss-weighted": {"D04 warning"},
    "nn.SoftMarginLoss": {"D02 error", "D02 warning", "E04 warning"},
    "nn.functional.cosine_similarity": {"D02 warning", "E04 warning"},
}


@pytest.mark.parametrize("spec", torch_nn.SPECS, ids=lambda spec: spec.name)
def test_a_loss_of_torch_has_the_findings_that_are_known_of_it(spec: LossSpec) -> None:
    found = verify(spec, profile="quick", implementations=["torch"])
    serious = {f"{finding.rule} {finding.severity}" for finding in found.findings if finding.severity != "note"}
    assert serious == KNOWN.get(spec.name, set()) | ({"B03 warning"} if spec.name in BROADCASTING else set())
    assert {outcome.status.value for outcome in found.outcomes}.isdisjoint({"crashed", "timed out"})


def test_what_is_known_is_known_of_losses_that_are_there() -> None:
    names = {spec.name for spec in torch_nn.SPECS}
    assert set(KNOWN) | BROADCASTING <= names


def test_every_loss_with_a_known_error_is_named_in_the_survey() -> None:
    text = SURVEY.read_text(encoding="utf-8")
    wrong = {name for name, findings in KNOWN.items() if any(finding.endswith("error") for finding in findings)}
    assert [name for name in sorted(wrong) if f"`{name}`" not in text] == []


def test_every_spec_can_be_named_and_has_the_formula_and_the_loss_of_torch() -> None:
    constants = {name: getattr(torch_nn, name) for name in torch_nn.__all__ if name != "SPECS"}
    assert list(map(id, sorted(constants.values(), key=id))) == sorted(map(id, torch_nn.SPECS))
    assert {tuple(spec.implementations) for spec in torch_nn.SPECS} == {("formula", "torch")}
    assert load_specs(["harness.catalogs.torch_nn:CROSS_ENTROPY"]) == [torch_nn.CROSS_ENTROPY]


def test_every_loss_class_of_torch_nn_has_a_spec() -> None:
    classes = set(importlib.import_module("torch.nn.modules.loss").__all__)
    named = {implementation.__name__ for spec in torch_nn.SPECS for implementation in spec.implementations.values()}
    elsewhere = {
        "NLLLoss2d": "NLLLoss-grid",
        "PoissonNLLLoss": "functional.poisson_nll_loss",
        "LinearCrossEntropyLoss": "functional.linear_cross_entropy",
        "CTCLoss": "CTCLoss",
    }
    names = {spec.name for spec in torch_nn.SPECS}
    assert {name for name in classes - named if f"nn.{elsewhere.get(name)}" not in names} == set()


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The name of a catalog whose package is not installed."""
    (tmp_path / "nowhere.py").write_text("from harness.catalogs import require\n\nrequire('no_such_package.losses')\n")
    monkeypatch.setattr(catalogs, "__path__", [*catalogs.__path__, str(tmp_path)])
    yield "harness.catalogs.nowhere"
    sys.modules.pop("harness.catalogs.nowhere", None)


def test_a_missing_package_is_refused_with_what_to_install() -> None:
    with pytest.raises(MissingPackageError, match=re.escape("pip install 'loss-harness[survey]'")) as caught:
        require("no_such_package.losses")
    assert "'no_such_package'" in str(caught.value)


def test_a_package_that_is_there_and_broken_is_not_called_missing() -> None:
    with pytest.raises(
        TargetError, match=r"'torch' is installed, but importing 'torch.no_such_module' raised Module"
    ) as caught:
        require("torch.no_such_module")
    assert not isinstance(caught.value, MissingPackageError)


def test_a_catalog_whose_package_raises_leaves_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("from harness.catalogs import require\n\nrequire('torch.no_such_module')\n")
    monkeypatch.setattr(catalogs, "__path__", [*catalogs.__path__, str(tmp_path)])
    monkeypatch.setattr(catalogs, "catalogs", lambda: ("broken", "torch_nn"))
    with pytest.warns(UserWarning, match="catalog 'broken' is left out: the package 'torch' is installed, but"):
        assert catalogs.specs() == tuple(torch_nn.SPECS)


def _is_there(name: str) -> bool:
    try:
        importlib.import_module(f"harness.catalogs.{name}")
    except MissingPackageError:
        return False
    return True


@pytest.mark.skipif(_is_there("kornia"), reason="kornia is installed here")
def test_a_catalog_without_its_package_ends_as_a_usage_error() -> None:
    ran = CliRunner().invoke(cli, ["verify", "harness.catalogs.kornia"])
    assert ran.exit_code == 2
    assert "pip install 'loss-harness[survey]'" in ran.output
    assert "Traceback" not in ran.output


def test_all_catalogs_together_name_those_that_are_left_out(absent: str) -> None:
    missing = [name for name in catalogs.catalogs() if not _is_there(name)]
    with pytest.warns(UserWarning, match="is left out") as warned:
        found = catalogs.specs()
    assert set(torch_nn.SPECS) <= set(found)
    assert [str(w.message).split("'")[1] for w in warned if "is left out" in str(w.message)] == missing
