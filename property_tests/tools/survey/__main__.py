"""Which findings of `docs/survey.md` still show with the versions that are installed: plain code of the packages, without the harness.

    python -m property_tests.tools.survey
    python -m property_tests.tools.survey --only MONAI

Exits 1 where the code of a finding gives something else than the page says.
"""

from __future__ import annotations

import importlib.metadata
import warnings

import click
import torch

from harness.results.words import table
from property_tests.helpers.documents.comments import differences
from property_tests.tools.survey.findings import Finding, Section, sections


@click.command()
@click.option("--only", default="", help="Sections whose name has this text.")
def main(only: str) -> None:
    """Run the code of every section whose packages are installed, and say of each finding whether it shows."""
    rows = [["installed", "loss", "rules", "severity", "shows"]]
    for section in sections():
        if only.lower() in section.name.lower():
            installed = [_installed(version.partition(" ")[0]) for version in section.versions]
            rows += _rows(section, ", ".join(filter(None, installed)), is_there=all(installed))
    click.echo(table(rows))
    shown = [row[-1].partition(":")[0] for row in rows[1:]]
    click.echo("\n" + ", ".join(f"{shown.count(word)} {word}" for word in dict.fromkeys(shown)))
    raise SystemExit(int("changed" in shown))


def _installed(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return ""


def _rows(section: Section, installed: str, *, is_there: bool) -> list[list[str]]:
    given = shown(section) if is_there else {}
    return [
        [
            installed,
            ", ".join(f.losses),
            ", ".join(f.rules),
            f.severity,
            _status(f, given) if is_there else "not installed",
        ]
        for f in section.findings
    ]


def shown(section: Section) -> dict[int, str]:
    """Line of the page -> what its code gives where that is not what its comment says."""
    wrong: dict[int, str] = {}
    names: dict[str, object] = {}
    with torch.random.fork_rng(), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        for block in section.code:
            try:
                found = differences(block.text, names)
            except Exception as error:  # what a finding raises is one of its values; this is the code around it
                found = dict.fromkeys(range(len(block.text.splitlines()) + 1), f"{type(error).__name__}: {error}")
            wrong |= {block.line + line: text for line, text in found.items()}
    return wrong


def _status(finding: Finding, given: dict[int, str]) -> str:
    if not finding.lines:
        return "no code"
    changed = [given[line] for line in finding.lines if line in given]
    return f"changed: {changed[0]}" if changed else "yes"


if __name__ == "__main__":
    main()
