"""The report for a terminal or a pipe: plain text, one line form everywhere, nothing that depends on the width."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from harness.judging.verdict import correctness
from harness.report.places import place
from harness.results.findings import SEVERITIES, STATUSES, Finding
from harness.results.rule_texts import rule_text
from harness.results.schema import ADOPT, CAVEATS, DO_NOT_ADOPT, INCONCLUSIVE, READ_AS, LossRecord, Report
from harness.results.words import Style, causes, plural, printable, table, unstyled, who

_GIVEN = (ADOPT, CAVEATS, INCONCLUSIVE, DO_NOT_ADOPT)
LOOKS = {"wrong": DO_NOT_ADOPT, "not decided": INCONCLUSIVE, "no error found": ADOPT}  # of what `correctness` says


def head_text(loss: LossRecord, finding: Finding) -> str:
    """``file:line:column: CODE loss / implementation: what was got and expected``, which editors and greps read.

    Where the report knows no line, the target stands for it.
    """
    file, position, said = _head(loss, finding)
    return f"{file}:{position}: {said}" if position else f"{file}: {said}"


def _head(loss: LossRecord, finding: Finding) -> tuple[str, str, str]:
    """(file, line:column, what is said)."""
    where = place(loss, finding.implementation)
    fact = next(iter(printable(finding.body).splitlines()), "") or finding.title or finding.header
    said = printable(f"{finding.rule} {who(loss, finding.implementation)}: {fact}").replace("\n", " ")
    if where is None:
        return printable(loss.target), "", said
    return printable(where.file), f"{where.line}:{where.column}", said


def finding_text(
    loss: LossRecord,
    finding: Finding,
    followers: Sequence[Finding] = (),
    *,
    folder: str = "",
    verbose: bool = False,
) -> str:
    """One finding: `head_text`, the rule, the smallest input, how to mend and repeat it, and a line for each that follows.

    Args:
        loss: in which it was found.
        finding: what was found.
        followers: what follows from it.
        folder: where the failure files lie; without it there is no line on how to repeat.
        verbose: also show the plain-PyTorch code that reproduces it.
    """
    _, known, rest = finding.header.rpartition(finding.title) if finding.title else ("", "", "")
    setting = [part for part in rest.split(" / ") if part.strip()] if known else [finding.device]
    lines = [head_text(loss, finding)]
    lines += [printable(f"  {finding.title} ({', '.join(setting)})" if finding.title else f"  {finding.header}")]
    lines += [f"  {line}".rstrip() for line in printable(finding.body).splitlines()[1:]]
    if finding.hint and finding.hint not in finding.message:
        lines += [f"  {line}".rstrip() for line in printable(finding.hint).splitlines()]
    if folder:
        lines.append(f"  repeat: loss-harness replay {_quoted(f'{folder}/{finding.failure}')}")
    for follower in followers:
        what = "follows" if follower.severity == finding.severity else f"follows, a {follower.severity}"
        lines.append(f"  {what}: {place_text(follower)}")
    if verbose and finding.reproduction:
        lines += ["", *(f"    {line}".rstrip() for line in printable(finding.reproduction).strip("\n").splitlines())]
    return "\n".join(lines)


def place_text(finding: Finding) -> str:
    """The rule and the quantity of a finding, in one line."""
    where = printable(str(finding.evidence.get("where") or ""))
    return f"{finding.rule} {finding.title}" + (f", at {where}" if where else "")


def _quoted(path: str) -> str:
    return path if re.fullmatch(r"[\w./+-]+", path) else "'" + path.replace("'", "'\\''") + "'"


def findings_text(
    report: Report, *, folder: str = "", verbose: bool = False, style: Style = unstyled, notes: bool = True
) -> str:
    """Every finding of every loss, errors first; what follows from another stands below it, what is accepted at the end.

    What a reference takes or lets through, beside which candidates are verified, is one line unless ``verbose``.
    """
    blocks: list[str] = []
    shown = [s for s in SEVERITIES if s != "note" or notes]
    for severity in shown:
        found = [(loss, *group) for loss in report.losses for group in causes(loss, severity)]
        if found:
            blocks.append(style(plural(len(found), severity), severity))
        folded = [] if verbose else _of_references(report, severity)
        for loss, finding, followers in found:
            followers = tuple(f for f in followers if f.severity in shown)
            if finding not in folded:
                blocks.append(finding_text(loss, finding, followers, folder=folder, verbose=verbose))
        blocks += _folded_lines(report, folded)
    accepted = [head_text(loss, f) for loss in report.losses for f in loss.findings if f.accepted]
    if accepted:
        blocks.append("\n".join([f"{len(accepted)} accepted", *(f"  {line}" for line in accepted)]))
    return "\n\n".join(blocks)


def concise_text(report: Report, *, notes: bool = False) -> str:
    """One line a finding, errors first; what follows from another has none."""
    return "\n".join(f"{head_text(*found)} [{found[1].severity}]" for found in _causes(report, notes=notes))


def grouped_text(report: Report, *, notes: bool = False) -> str:
    """The same lines below the file that they are about."""
    files: dict[str, list[str]] = {}
    for loss, finding in _causes(report, notes=notes):
        file, position, said = _head(loss, finding)
        line = f"{position} {said}" if position else said
        files.setdefault(file, []).append(f"  {line} [{finding.severity}]")
    return "\n\n".join("\n".join([f"{file}:", *lines]) for file, lines in files.items())


def _causes(report: Report, *, notes: bool) -> list[tuple[LossRecord, Finding]]:
    shown = SEVERITIES if notes else SEVERITIES[:2]
    return [(loss, finding) for s in shown for loss in report.losses for finding, _ in causes(loss, s)]


def _of_references(report: Report, severity: str) -> list[Finding]:
    """Warnings that say what a reference would take beyond its declaration, where a candidate is what is to be mended."""
    return [
        finding
        for loss in report.losses
        for finding, _ in causes(loss, severity)
        if severity == "warning" and finding.implementation == loss.reference and rule_text(finding.rule).is_of_the_loss
    ]


def _folded_lines(report: Report, folded: Sequence[Finding]) -> list[str]:
    lines = []
    for loss in report.losses:
        codes = [finding.rule for finding in folded if finding in loss.findings]
        what = f"{plural(len(codes), 'warning')} of the reference itself ({', '.join(dict.fromkeys(codes))})"
        shown = f"-v shows {'it' if len(codes) == 1 else 'them'}"
        lines += [printable(f"{loss.name} / {loss.reference}: {what}; {shown}")] if codes else []
    return lines


def counts_text(report: Report) -> str:
    """The table of outcomes, one row an implementation and device: planned is the sum of the rest.

    A status that nothing ended with has no column.
    """
    rows = [["loss", "implementation", "device", "planned", *STATUSES, "examples"]]
    for loss in report.losses:
        rows += [counts_row(loss, name, device) for name in loss.implementations for device in loss.devices]
    kept = [c for c, name in enumerate(rows[0]) if name not in STATUSES or any(row[c] != "0" for row in rows[1:])]
    return table([[row[column] for column in kept] for row in rows])


def missing_text(report: Report) -> str:
    """What did not run, one line a loss."""
    return "\n".join(printable(f"{loss.name}: {loss.missing}") for loss in report.losses if loss.missing)


def errors_text(report: Report, *, folder: str = "", style: Style = unstyled) -> str:
    """Errors, crashes and what failed when timed, and nothing where there is none of them."""
    errors = [(loss, *group) for loss in report.losses for group in causes(loss, "error")]
    blocks = [style(plural(len(errors), "error"), "error")] if errors else []
    for loss, finding, followers in errors:
        blocks.append(finding_text(loss, finding, [f for f in followers if f.severity == "error"], folder=folder))
    failed = [
        printable(f"{loss.name} / {m.implementation} failed when timed on {m.device}: {m.reason}")
        for loss in report.losses
        for m in loss.measurements
        if m.status == "failed"
    ]
    blocks += [reasons_text(report, ("crashed", "timed out")), "\n".join(dict.fromkeys(failed)), missing_text(report)]
    return "\n\n".join(block for block in blocks if block)


def counts_row(loss: LossRecord, implementation: str, device: str) -> list[str]:
    """One row of the table of outcomes."""
    counts = loss.counts(implementation, device)
    examples = sum(o.examples for o in loss.outcomes if (o.implementation, o.device) == (implementation, device))
    numbers = [sum(counts.values()), *counts.values(), examples]
    return [loss.name, implementation, device, *map(str, numbers)]


def totals_text(report: Report) -> str:
    """One line: what was found, and what became of everything planned."""
    found = [f for loss in report.losses for f in loss.findings]
    severities = [
        plural(sum(len(causes(loss, severity)) for loss in report.losses), severity) for severity in SEVERITIES
    ]
    more = {
        "that follow": sum(bool(f.follows) and not f.accepted for f in found),
        "accepted": sum(f.accepted for f in found),
    }
    severities += [f"{count} {what}" for what, count in more.items() if count]
    statuses: list[str] = [outcome.status for loss in report.losses for outcome in loss.outcomes]
    counts = [f"{statuses.count(status)} {status}" for status in STATUSES if status in statuses]
    return f"{', '.join(severities)}; {len(statuses)} planned = {' + '.join(counts) or '0'}"


def reasons_text(report: Report, statuses: Sequence[str]) -> str:
    """What ended with one of ``statuses`` (crashed, skipped ...), and why: one line a reason."""
    lines: list[str] = []
    for loss in report.losses:
        for status in statuses:
            for (implementation, device, reason), codes in reasons(loss, status).items():
                what = f"{loss.name} / {implementation} / {', '.join(codes)} {status} / {device}"
                lines.append(printable(f"{what}: {reason}" if reason else what))
    return "\n".join(lines)


def reasons(loss: LossRecord, status: str) -> dict[tuple[str, str, str], list[str]]:
    """(implementation, device, reason) -> codes of the rules that ended with ``status``."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for outcome in loss.outcomes:
        if outcome.status == status:
            found.setdefault((outcome.implementation, outcome.device, outcome.reason), []).append(outcome.rule)
    return found


def verdicts_text(
    report: Report, style: Style = unstyled, *, choices: Mapping[str, str] | None = None, verbose: bool = False
) -> str:
    """The verdict on every implementation with its one sentence, loss by loss, and how often each was given.

    Args:
        report: of which losses.
        style: of a verdict.
        choices: loss -> which implementation to take, in a sentence beside its name.
        verbose: also every reason, at which sizes and devices it holds, and what would settle what is open.
    """
    every = [(loss, verdict) for loss in report.losses for verdict in loss.verdicts]
    if not every:
        return ""
    widths = [max(len(printable(v.implementation)) for _, v in every), max(len(v.verdict) for _, v in every)]
    blocks = []
    for loss in report.losses:
        lines = [printable(": ".join(part for part in (loss.name, (choices or {}).get(loss.name, "")) if part))]
        for verdict in loss.verdicts:
            name, judged = printable(verdict.implementation).ljust(widths[0]), verdict.verdict.ljust(widths[1])
            lines.append(f"  {name}  {style(judged, verdict.verdict)}  {printable(verdict.sentence)}".rstrip())
            if verbose:
                parts = {"": verdict.reasons, "holds: ": verdict.scope, "next: ": verdict.settle}
                lines += [f"  - {what}{printable(line)}" for what, lines_ in parts.items() for line in lines_]
        blocks.append("\n".join(lines))
    given = [verdict.verdict for _, verdict in every]
    counts = [f"{given.count(verdict)} {verdict}" for verdict in _GIVEN if verdict in given]
    return "\n\n".join(
        [*blocks, f"{plural(len(report.losses), 'loss', 'losses')}: {', '.join(counts) or 'nothing to adopt'}"]
    )


def notes_text(report: Report, *, verbose: bool) -> str:
    """What declarations leave unchecked and, where more is asked for, how their tensors are read; where gradients were asked for."""
    asked = [loss for loss in report.losses if any(outcome.rule.startswith("G") for outcome in loss.outcomes)]
    kept = [(loss, note) for loss in asked for note in loss.notes if verbose or not note.startswith(READ_AS)]
    return "\n".join(printable(f"{loss.name}: {note}") for loss, note in kept)


def correctness_text(report: Report, style: Style = unstyled) -> str:
    """What the rules say of the correctness of every implementation, one a line."""
    rows = [
        (printable(who(loss, name)), *correctness(loss, name))
        for loss in report.losses
        for name in loss.implementations
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    return "\n".join(
        f"{name.ljust(widths[0])}  {style(said.ljust(widths[1]), LOOKS[said])}  {printable(why)}"
        for name, said, why in rows
    )


def suggestions_text(report: Report) -> str:
    """Laws that could be declared."""
    return "\n".join(printable(f"{loss.name}: {text}") for loss in report.losses for text in loss.suggestions)
