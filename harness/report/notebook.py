"""Results as a notebook shows them: a part of a page, with the templates and styles of the report and no script.

JupyterLab, VS Code and Colab say on their own elements whether they are dark; anywhere else the light colours are taken, as of
the page around.  Where styles are removed, as on GitHub, headings, tables and lists still read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

from markupsafe import Markup

from harness.judging.verdict import correctness
from harness.report import html, view
from harness.report.page import environment, stylesheet
from harness.report.text import LOOKS
from harness.results.findings import Finding
from harness.results.schema import LossRecord, digest


def verification_html(loss: LossRecord, asked: str) -> str:
    """What became of the rules, and the findings; ``asked`` says what was asked for, such as the profile."""
    said = [(name, *correctness(loss, name)) for name in loss.implementations]
    return _rendered("Verification", loss.name, asked, loss, said=said, looks=LOOKS)


def benchmark_html(loss: LossRecord, asked: str) -> str:
    """Speedups with their intervals, growth, times and exact costs; ``asked`` as for a verification."""
    return _rendered("Benchmark", loss.name, asked, loss)


def finding_html(finding: Finding) -> str:
    """One finding, opened."""
    loss = LossRecord("", "", "", (finding.implementation,), findings=(replace(finding, follows="", accepted=False),))
    (shown,) = view.findings(loss, finding.severity, "")
    return _rendered("Finding", "", "", None, finding=shown)


def declaration_html(name: str, tensors: Sequence[Sequence[str]], facts: Mapping[str, str]) -> str:
    """A declaration: its tensors, rows below a header, and what else it says, by what that is about."""
    return _rendered("Declaration", name, "", None, tensors=tensors, facts=facts)


def _rendered(kind: str, name: str, asked: str, loss: LossRecord | None, **values: Any) -> str:
    known = None
    if loss is not None:  # plots refer to their axis by its id, which no other output of the notebook may have
        known = html.loss_values(loss, "") | {"anchor": f"loss-{digest(asdict(loss))}"}
    template = environment().get_template("notebook.html.jinja")
    return template.render(
        kind=kind,
        name=name,
        asked=asked,
        loss=known,
        style=_style(),
        **({"said": (), "finding": None, "tensors": (), "facts": {}} | values),
        **html.parts(html.DETAILS[0], linked=False),
    )


@lru_cache(maxsize=1)
def _style() -> Markup:
    """The style sheets of a report, nested in the element of an output, whose colours stand where a page has its own.

    The class stands three times in the selector, so that it counts more than the styles that notebooks give to tables.
    """
    sheets = stylesheet("page.css", "report.css").replace(":root", "&").replace("\nbody {", "\n& {")
    return Markup(".loss-harness.loss-harness.loss-harness {\n%s\n}\n%s") % (
        Markup(sheets),
        Markup(stylesheet("notebook.css")),
    )
