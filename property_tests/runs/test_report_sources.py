"""Where a report says that losses are defined."""

from __future__ import annotations

import functools
import importlib
import sys

import torch
from torch import nn

import losses
from harness import LossSpec, TensorSpec
from harness.runs import sources
from harness.runs.records import empty
from harness.runs.sources import described, located


class Squares(nn.Module):
    """mean of (p - y)^2

    The rest is not the first paragraph.
    """

    def forward(self, p, y):
        return ((p - y) ** 2).mean()


def squares(p, y, scale=1.0):
    return scale * ((p - y) ** 2).mean()


def spec_of(*, inputs=("p", "y"), **implementations):
    return LossSpec(name="squares", implementations=implementations, inputs={name: TensorSpec("B") for name in inputs})


def line_of(text):
    with open(__file__, encoding="utf-8") as file:
        return next(number for number, line in enumerate(file, 1) if line.startswith(text))


def test_classes_functions_instances_and_partials_are_found_at_their_lines():
    made = located(
        spec_of(cls=Squares, function=squares, instance=Squares(), partial=functools.partial(squares, scale=2))
    )
    lines = {source.implementation: source.line for source in made}
    assert lines["cls"] == lines["instance"] == line_of("class Squares")
    assert lines["function"] == lines["partial"] == line_of("def squares")


def test_files_below_the_working_directory_are_local_and_relative(monkeypatch):
    monkeypatch.chdir(losses.__path__[0] + "/..")
    record = empty(losses.SPECS[0])
    assert all(source.is_local and source.file.startswith("losses/") for source in record.sources)


def test_what_lies_elsewhere_is_named_as_python_imports_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = {source.implementation: source for source in located(spec_of(torch=nn.MSELoss, inputs=("input", "target")))}
    assert found["torch"].file == "torch/nn/modules/loss.py"
    assert not found["torch"].is_local


def test_an_installed_package_below_the_working_directory_is_not_local(monkeypatch):
    monkeypatch.chdir(sys.prefix)
    found = {source.implementation: source for source in located(spec_of(torch=nn.MSELoss, inputs=("input", "target")))}
    assert not found["torch"].is_local


def test_a_builtin_has_no_line_and_the_declaration_stands_in():
    record = empty(spec_of(builtin=torch.dist, inputs=("input", "other")))
    assert [source.implementation for source in record.sources] == [""]
    assert record.source("builtin") == record.sources[0]


def test_the_description_is_the_first_paragraph_of_a_docstring():
    assert described(spec_of(plain=squares, documented=Squares)) == "mean of (p - y)^2"
    assert described(spec_of(plain=squares)) == ""


def test_a_helper_that_a_loss_uses_counts_as_its_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "far_away.py").write_text("SCALE = 1\n")
    (tmp_path / "nearby.py").write_text("import far_away\n\n\ndef square(x):\n    return far_away.SCALE * x * x\n")
    (tmp_path / "unrelated.py").write_text("")
    text = "from nearby import square\n\n\ndef helped(x):\n    return square(x).mean()\n"
    (tmp_path / "helped_loss.py").write_text(text)
    helped = importlib.import_module("helped_loss").helped
    spec = LossSpec("helped", {"helped": helped}, inputs={"x": TensorSpec("B")})
    digests = [sources.declaration_digest(spec)]
    for file in ("unrelated.py", "far_away.py", "nearby.py", "helped_loss.py"):
        (tmp_path / file).write_text((tmp_path / file).read_text() + "# changed\n")
        digests.append(sources.declaration_digest(spec))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
    assert sources.declaration_digest(spec.replace(waivers={"B03": "known"})) not in digests
