"""The tests of the pages can fail: a page that shows something else than what happens is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import generate
from property_tests.helpers.documents.blocks import blocks, pattern
from property_tests.helpers.documents.links import anchors, broken
from property_tests.helpers.documents.running import Page


def page(folder: Path, text: str) -> Path:
    file = folder / "page.md"
    file.write_text(text, encoding="utf-8")
    return file


def follow(folder: Path, text: str) -> None:
    Page(page(folder, text), folder).follow()


def console(*lines: str) -> str:
    return "\n".join(["```console", *lines, "```", ""])


RIGHT = ("$ loss-harness explain C01", "# C01 the context follows the module", "...")


def test_a_page_that_shows_what_happens_is_followed_to_its_end(tmp_path: Path) -> None:
    follow(
        tmp_path,
        console(*RIGHT) + "```python\n# made.py\nX = 1\n```\n```python\nfrom made import X\n\nassert X == 1\n```\n",
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (console(RIGHT[0], "# C01 something else", "..."), "something else|shows"),
        (console("$ loss-harness explain NONE"), "NONE"),
        ("<!-- exit: 1 -->\n" + console(*RIGHT), "explain C01"),
        (console("$ loss-harness verify --no-such-option x"), "no-such-option"),
        (console("$ loss-harness no-such-command"), "no-such-command"),
        (console("$ make no-such-target"), "no-such-target"),
        (console("$ no-such-program"), "no-such-program"),
        (console("$ python -m no_such_module"), "no_such_module"),
        ("<!-- not run: it would take an hour -->\n" + console("$ loss-harness bench x --no-such"), "no-such"),
        ("```python\nassert False, 'planted'\n```\n", "planted"),
        ("```\nof no language\n```\n", "held to nothing"),
    ],
)
def test_a_page_that_shows_something_else_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        follow(tmp_path, text)


def test_settings_that_the_tool_does_not_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="profil"):
        follow(tmp_path, '```toml\n[tool.loss-harness]\nprofil = "ci"\n```\n')


@pytest.mark.parametrize("text", ["```console\n$ loss-harness\n", "<!-- exit: 1 -->\nno block\n"])
def test_a_page_whose_blocks_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"page\.md:1|page\.md:2"):
        blocks(page(tmp_path, text))


def test_a_page_may_leave_lines_and_parts_of_lines_out() -> None:
    shown = pattern(("first", "...", "with … inside"))
    assert shown.match("first\nsecond\nthird\nwith something inside\nmore\n")
    assert not shown.match("first\nwith something else\n")


def test_links_to_no_file_and_to_no_heading_are_found(tmp_path: Path) -> None:
    text = "# A `heading` (of two)\n[a](#a-heading-of-two) [b](#none) [c](none.md) [d](page.md#a-heading-of-two) [e](https://x.org)\n"
    file = page(tmp_path, text)
    assert anchors(file) == {"a-heading-of-two"}
    assert broken(file) == ["#none", "none.md"]


def test_a_generated_part_that_is_old_is_made_anew() -> None:
    text = "before\n<!-- generated: commands -->\nWritten long ago.\n<!-- end of commands -->\nafter\n"
    made = generate.generated(text)
    assert "long ago" not in made
    assert "loss-harness verify" in made
    assert made.startswith("before\n")
    assert made.endswith("after\n")
    assert generate.generated(made) == made
