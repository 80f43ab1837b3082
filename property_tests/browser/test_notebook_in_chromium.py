"""Outputs of a notebook in a real browser, between other outputs; see `opened` for what every test holds."""

from __future__ import annotations

import functools

import html_examples as examples
import pytest
import report_examples

from harness.report import notebook

PAGE = '<!doctype html><title>cell</title><body{attributes}><p id="before">before</p>{outputs}<table id="after"><tr><td>1</td></tr></table>'


@functools.cache
def cell(attributes: str = "") -> str:
    loss = examples.good()
    shown = [
        notebook.verification_html(report_examples.loss(), "profile ci"),
        notebook.benchmark_html(loss, "seed 0"),
        notebook.declaration_html(
            "squares", [["tensor", "dims"], ["predictions", "B C"]], {"laws": "laws.symmetric('a', 'b')"}
        ),
    ]
    return PAGE.replace("{attributes}", attributes).replace("{outputs}", "".join(shown))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("attributes", "is_dark"),
    [
        (' data-jp-theme-light="true"', False),
        (' data-jp-theme-light="false"', True),
        (' class="vscode-dark"', True),
        (' data-theme="dark"', True),
        ("", False),
    ],
)
def test_colours_are_those_of_the_notebook_and_not_of_the_system(opened, attributes, is_dark, scheme):
    page = opened(cell(attributes), color_scheme=scheme)
    text, ground = page.locator(".loss-harness").first.evaluate(
        "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor].map(c => c.match(/\\d+/g).slice(0, 3).map(Number))"
    )
    assert (sum(text) > sum(ground)) is is_dark
    assert abs(sum(text) - sum(ground)) > 450


def test_nothing_of_the_page_around_changes(opened):
    bare = opened(PAGE.replace("{attributes}", "").replace("{outputs}", ""))
    style = "e => [...'color backgroundColor fontFamily fontSize padding borderCollapse'.split(' ')].map(n => getComputedStyle(e)[n])"
    expected = [bare.locator(f"#{name}").evaluate(style) for name in ("before", "after")]
    page = opened(cell())
    assert [page.locator(f"#{name}").evaluate(style) for name in ("before", "after")] == expected


@pytest.mark.parametrize("width", [390, 1100])
def test_a_wide_table_scrolls_within_its_output(opened, width):
    page = opened(cell(), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
