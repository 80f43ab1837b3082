"""The notebook of the documentation runs in a kernel, and shows what it was committed with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FILE = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def committed() -> nbformat.NotebookNode:
    return nbformat.read(FILE, as_version=4)


@pytest.fixture(scope="module")
def updates() -> list[dict[str, Any]]:
    return []


@pytest.fixture(scope="module")
def ran(committed, updates, tmp_path_factory) -> nbformat.NotebookNode:
    class Watching(NotebookClient):
        def process_message(self, msg, cell, cell_index):
            if msg["msg_type"] == "update_display_data":
                updates.append(msg["content"]["data"])
            return super().process_message(msg, cell, cell_index)

    notebook = nbformat.from_dict(committed)
    folder = tmp_path_factory.mktemp("notebook")
    return Watching(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()


def outputs(notebook: nbformat.NotebookNode) -> list[list[tuple[str, ...]]]:
    """Of each cell, what kinds of data each of its outputs has; warnings of other packages count for nothing."""
    return [
        [(each.output_type, *sorted(each.get("data", ()))) for each in cell.outputs if each.get("name") != "stderr"]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def html(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    shown = [
        each.data.get("text/html", "") for cell in notebook.cells for each in cell.get("outputs", ()) if "data" in each
    ]
    return [text for text in shown if f'<p class="kicker">{kind}' in text]


def codes(text: str) -> list[str]:
    return re.findall(r"<h5>([A-Z]\d\d) ", text)


def test_it_runs_and_every_cell_shows_what_was_committed(committed, ran):
    assert outputs(ran) == outputs(committed)
    assert all(cell.execution_count for cell in committed.cells if cell.cell_type == "code")


def test_a_verification_finds_what_was_committed(committed, ran):
    (old,), (new,) = html(committed, "Verification"), html(ran, "Verification")
    assert codes(old) == codes(new)
    assert "C01" in codes(new)


def test_a_declaration_is_shown_as_it_was_committed(committed, ran):
    assert html(ran, "Declaration") == html(committed, "Declaration")
    assert html(ran, "Declaration")


def test_a_bar_goes_on_while_it_runs_and_is_gone_at_the_end(ran, updates):
    bars = [data["text/plain"] for data in updates]
    assert any("B01" in bar and "/" in bar for bar in bars)
    assert bars[-1] == ""
    assert bars.count("") == 3
    left = [each for cell in ran.cells for each in cell.get("outputs", ()) if each.output_type == "display_data"]
    assert [each.data for each in left] == [{"text/plain": ""}] * 3
