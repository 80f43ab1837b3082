"""Names and messages that try to leave their place in whatever format they are written in."""

from __future__ import annotations

import report_examples as examples

from harness.results.schema import LossRecord, Report, SourceRecord

TEXTS = (
    "two\nlines\r\nand a third",
    "]]> </failure> <!-- & \" ' -->",
    "::error file=a.py,line=1::planted",
    "\n::error::planted",
    "%0A::error::planted %25",
    "a, b: c",
    "```\n</details><script>alert(1)</script>",
    "[link](javascript:alert(1)) | cell | @someone #1",
    "\x00\x07\x1b[31mred\x1b[0m\x7f\x85",
    "lone \ud800 surrogates \udcff",
    "not a character \ufffe\uffff",
    "{0} {{x}} {% raw %}",
    "\u202egnirts\u2028",
)


def loss(text: str) -> LossRecord:
    """A loss in which everything that a user can name is called ``text``."""
    message = f"{text} / {text} / G01 gradient / float64 / cpu\n  {text} = 1, expected 2\n  {text}"
    found = (
        examples.finding(
            implementation=text,
            message=message,
            reproduction=text,
            hint=text,
            evidence={"where": text, "aspect": text},
            failure="a-G01-3f2a.json",
        ),
        examples.finding("warning", rule="D03", title=text, implementation=text, message=message),
    )
    outcomes = (
        examples.outcome(text, status="failed"),
        examples.outcome(text, "B01", "skipped", reason=text),
        examples.outcome(text, "B03", "crashed", reason=text),
    )
    return examples.loss(
        name=text,
        target=text,
        reference="",
        implementations=(text,),
        findings=found,
        outcomes=outcomes,
        measurements=(examples.measurement(text, "failed", reason=text),),
        comparisons=(),
        missing=text,
        suggestions=(text,),
        sources=(SourceRecord(text, f"{text}.py", 3, is_local=True),),
        description=text,
    )


def report(text: str) -> Report:
    return examples.report(loss(text))
