"""What the pages show is what happens: commands run, code runs, settings are read, links lead somewhere."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from docs import generate
from harness import cli
from harness.isolation.sandbox import Sandbox
from harness.proposing import process
from harness.results import schema
from harness.rules import BATTERY
from losses import SPECS
from property_tests.helpers.documents.blocks import blocks
from property_tests.helpers.documents.links import broken
from property_tests.helpers.documents.running import Page

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# Pages that tests of their own hold to what happens: each recipe in the shell of a CI system, each finding of the survey.
ELSEWHERE = {"ci.md": "test_docs_ci.py", "survey.md": "test_docs_survey.py"}
FOLLOWED = [page for page in PAGES if page.name not in ELSEWHERE and any(block.language for block in blocks(page))]
# Options of pytest, of its plugins, and of programs in the recipes for CI.
OF_OTHERS = {"--benchmark-autosave", "--benchmark-compare", "--benchmark-json", "--benchmark-disable"}
OF_OTHERS |= {
    "--harness-profile",
    "--harness-report",
    "--harness-strict",
    "--harness-warnings",
    "--harness-changed",
    "--system",
}


def options_of_all_commands() -> set[str]:
    parameters = [*cli.cli.params, *(p for command in cli.cli.commands.values() for p in command.params)]
    return {name for parameter in parameters for name in parameter.opts} | {"--help"}


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", FOLLOWED, ids=named)
def test_whoever_follows_a_page_sees_what_it_shows(
    page: Path, tmp_path: Path, one_box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "proposals", functools.partial(process.proposals, box=one_box))
    Page(page, tmp_path).follow()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "reports/README.md"], ids=named)
def test_the_links_of_a_page_lead_to_files_and_headings_that_exist(page: Path) -> None:
    assert broken(page) == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=named)
def test_what_is_generated_is_what_the_code_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate.generated(text) == text, "run `python -m docs.generate` and commit the pages"


def test_every_generated_part_stands_on_one_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    assert {name: text.count(f"<!-- generated: {name} -->") for name in generate.PARTS} == dict.fromkeys(
        generate.PARTS, 1
    )


def test_the_readme_names_every_group_of_rules() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What is checked")[2].partition("\n## ")[0]
    watched = {"X", "M"}  # crashes are seen while the rules run, and times are audited after them
    assert set(re.findall(r"^\| ([A-Z]) \|", table, re.MULTILINE)) == {rule.code[0] for rule in BATTERY} | watched


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_make_targets_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))) <= targets


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_options_that_the_text_of_a_page_names_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(--[a-z][a-z-]+)", text)) - options_of_all_commands() - OF_OTHERS == set()


def test_the_committed_report_can_be_read_and_is_of_losses_that_are_here() -> None:
    made = schema.loads((ROOT / "reports" / "cpu" / "report.json").read_text(encoding="utf-8"))
    assert {loss.name for loss in made.losses} <= {spec.name for spec in SPECS}
    assert made.ok
