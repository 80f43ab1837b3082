"""Imports run one way, the picture is what `ls` shows, and what is light stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import harness

ROOT = Path(__file__).parents[1]
HARNESS = ROOT / "harness"

# Folders and modules of the top level from the ground up, and the doors of each: what else it imports.  A door leads down.
DOORS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "strict_json": ("errors",),
    "isolation": (),
    "results": ("errors", "strict_json"),
    "declare": ("errors", "strict_json"),
    "drawing": ("errors", "declare"),
    "calls": ("errors", "declare"),
    "rules": ("errors", "isolation", "results", "declare", "drawing", "calls"),
    "timing": ("errors", "isolation", "results", "declare", "drawing", "calls", "rules"),
    "checking": ("errors", "isolation", "results", "declare", "drawing", "calls", "rules"),
    "judging": ("errors", "strict_json", "results"),
    "report": ("errors", "results", "judging"),
    "runs": (
        *("errors", "isolation", "results", "declare", "drawing", "calls", "timing", "checking", "judging"),
        *("report",),
    ),
    "proposing": ("errors", "isolation", "declare", "calls", "checking"),
    "cli": (
        *("errors", "strict_json", "isolation", "results", "declare", "calls", "timing", "judging", "report", "runs"),
        *("proposing",),
    ),
    "pytest_plugin": (
        *("errors", "strict_json", "results", "declare", "calls", "timing", "checking", "judging", "report", "runs"),
    ),
    "__main__": ("cli",),
    "catalogs": (),  # only what users can import
}
# One file's own doors, with the reason.
_NOTEBOOK = "imported when a notebook asks what is shown, which is made of everything below"
MORE = {
    ("report/rule_texts.py", "rules"): "run as a program, it writes the words of the rules anew",
    ("results/findings.py", "report"): _NOTEBOOK,
    ("results/findings.py", "runs"): _NOTEBOOK,
    ("timing/measurement.py", "runs"): _NOTEBOOK,
    ("timing/benchmark.py", "runs"): _NOTEBOOK,
    ("declare/spec.py", "runs"): _NOTEBOOK,
    ("checking/verify.py", "runs"): _NOTEBOOK,
}

OUTSIDE = {"losses", "property_tests", "asv_benchmarks"}


def files(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file of the package but its facade and what is linked into it, with the folder or module of the top level that it is in."""
    for path in sorted(root.rglob("*.py")):
        top = path.relative_to(root).with_suffix("").parts[0]
        if top not in {"__init__", "losses", "asv_benchmarks"}:
            yield top, path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports, inside functions and for types alike."""
    yield from imported(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def violations(root: Path) -> list[str]:
    """What uses no door, as `path:line: what`."""
    found = []
    for top, path in files(root):
        file = path.relative_to(root).as_posix()
        if top in harness.__all__:  # importing a module binds its name to the package
            found.append(f"{file}: harness/{top} would hide the public name {top}")
            continue
        if top not in DOORS:
            found.append(f"{file}: harness/{top} has no place; add it to DOORS and to the picture in ARCHITECTURE.md")
            continue
        for line, name in imports(path):
            package, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if name.startswith("."):
                found.append(f"{file}:{line}: relative import {name}")
            elif package in OUTSIDE:
                found.append(f"{file}:{line}: the harness imports {package}")
            elif package == "jaxtyping" and path.name != "annotations.py":
                found.append(f"{file}:{line}: only annotations.py reads jaxtyping")
            elif package != "harness" or not rest or other == top or (file, other) in MORE:
                continue
            elif top == "catalogs":
                if not rest.startswith(("declare.domains", "declare.laws")) and rest not in harness.__all__:
                    found.append(
                        f"{file}:{line}: catalogs import {name}, but only what users can: from harness import ..."
                    )
            elif other not in DOORS:
                found.append(
                    f"{file}:{line}: {name} comes from the facade or from nowhere; import the module that has it"
                )
            elif other not in DOORS[top]:
                found.append(f"{file}:{line}: {top} imports {other} ({name}), but has no door to it")
    return found


def unused(root: Path) -> list[str]:
    """Doors that nobody uses, as `from -> to`."""
    used = {
        (top, name.split(".")[1])
        for top, path in files(root)
        for _, name in imports(path)
        if name.startswith("harness.") and (path.relative_to(root).as_posix(), name.split(".")[1]) not in MORE
    }
    return [f"{top} -> {door}" for top, doors in DOORS.items() for door in doors if (top, door) not in used]


def circle(root: Path) -> list[str]:
    """Files that import each other when they are loaded, one circle; imports inside functions and for types are none."""
    names = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for _, path in files(root)
    }
    graph = {}
    for name, path in names.items():
        wanted = [whole.partition(".")[2] for _, whole in imported(ast.parse(path.read_text(encoding="utf-8")).body)]
        graph[name] = {one if one in names else one.rpartition(".")[0] for one in wanted} & set(names) - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def pictured(page: str) -> list[str]:
    """The folders and modules in the picture of the page, in its order."""
    block = page.partition("```\n")[2].partition("```")[0]
    return [
        line.split()[0].removesuffix("/").removesuffix(".py") for line in block.splitlines() if re.match(r"\w", line)
    ]


def test_imports_use_the_doors() -> None:
    assert violations(HARNESS) == []


def test_doors_lead_down_and_each_is_used() -> None:
    order = list(DOORS)
    assert [
        (top, door) for top, doors in DOORS.items() for door in doors if order.index(door) >= order.index(top)
    ] == []
    assert unused(HARNESS) == []


def test_no_files_import_each_other() -> None:
    assert circle(HARNESS) == []


def test_the_picture_is_what_the_folder_holds() -> None:
    there = {
        path.stem
        for path in HARNESS.iterdir()
        if path.suffix == ".py" or path.is_symlink() or (path / "__init__.py").exists()
    }
    shown = pictured((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(there)
    assert [name for name in reversed(shown) if name in DOORS and name != "catalogs"] == [
        name for name in DOORS if name != "catalogs"
    ]


def test_few_modules_stand_outside_of_the_folders() -> None:
    assert {path.name for path in HARNESS.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py", "strict_json.py"}


@pytest.mark.parametrize(
    ("file", "line", "seen"),
    [
        ("declare/dims.py", "from harness.checking.verify import verify", "dims.py:1: declare imports checking"),
        ("declare/dims.py", "def f():\n    import harness.report.text", "dims.py:2: declare imports report"),
        (
            "declare/spec.py",
            "from harness import drawing",
            "declare/spec.py:1: declare imports drawing (harness.drawing)",
        ),
        ("rules/costs/growth.py", "from harness.timing import costs", "growth.py:1: rules imports timing"),
        ("timing/design.py", "import harness.checking", "timing/design.py:1: timing imports checking"),
        ("judging/speed.py", "from harness.report.text import causes", "judging/speed.py:1: judging imports report"),
        (
            "report/html.py",
            "from harness.timing.costs.counting import Costs",
            "report/html.py:1: report imports timing",
        ),
        (
            "results/schema.py",
            "from harness.declare.spec import LossSpec",
            "results/schema.py:1: results imports declare",
        ),
        ("isolation/worker.py", "from harness.errors import shown", "isolation/worker.py:1: isolation imports errors"),
        ("proposing/propose.py", "from harness.runs.job import Job", "proposing/propose.py:1: proposing imports runs"),
        ("pytest_plugin/speed.py", "from harness.cli import options", "speed.py:1: pytest_plugin imports cli"),
        ("report/page.py", "from harness.rules import BATTERY", "report/page.py:1: report imports rules"),
        ("errors.py", "from harness import strict_json", "errors.py:1: errors imports strict_json"),
        ("checking/verify.py", "import losses", "checking/verify.py:1: the harness imports losses"),
        ("cli/__init__.py", "from losses.graph_distance import SPEC", "cli/__init__.py:1: the harness imports losses"),
        ("drawing/case.py", "from jaxtyping import Float", "drawing/case.py:1: only annotations.py reads jaxtyping"),
        ("rules/laws/declared.py", "from .rule import Rule", "rules/laws/declared.py:1: relative import .rule.Rule"),
        ("checking/verify.py", "from harness import LossSpec", "comes from the facade or from nowhere"),
        (
            "catalogs/kornia.py",
            "from harness.declare.spec import LossSpec",
            "kornia.py:1: catalogs import harness.declare",
        ),
        ("checking/verify.py", "from harness.catalogs import SPECS", "checking/verify.py:1: checking imports catalogs"),
        ("novelty.py", "", "novelty.py: harness/novelty has no place"),
        ("cases/case.py", "", "cases/case.py: harness/cases would hide the public name cases"),
        ("novelties/one.py", "", "novelties/one.py: harness/novelties has no place"),
    ],
)
def test_a_planted_violation_is_seen(tmp_path: Path, file: str, line: str, seen: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    (found,) = violations(tmp_path)
    assert seen in found


def test_what_is_allowed_is_silent(tmp_path: Path) -> None:
    for file, text in {
        "declare/annotations.py": "import jaxtyping\nfrom harness.declare.domains import Domain\n",
        "cli/options.py": "import harness\nfrom harness.report import text\nimport torch\n",
        "report/rule_texts.py": "from harness.rules import DOCUMENTED\n",
        "catalogs/kornia.py": "from harness import LossSpec, laws\nfrom harness.catalogs import require\n",
    }.items():
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(text)
    assert violations(tmp_path) == []
    assert circle(tmp_path) == []


def test_a_planted_circle_is_seen(tmp_path: Path) -> None:
    (tmp_path / "drawing").mkdir()
    (tmp_path / "drawing" / "case.py").write_text("from harness.drawing.strategies import cases\n")
    (tmp_path / "drawing" / "strategies.py").write_text("from harness.drawing import case\n")
    assert set(circle(tmp_path)) == {"drawing.case", "drawing.strategies"}
    (tmp_path / "drawing" / "strategies.py").write_text("def draw():\n    from harness.drawing import case\n")
    assert circle(tmp_path) == []


def test_a_door_that_nobody_uses_is_seen(tmp_path: Path) -> None:
    (tmp_path / "strict_json.py").write_text("from harness.errors import shown\n")
    assert "strict_json -> errors" not in unused(tmp_path)
    (tmp_path / "strict_json.py").write_text("import json\n")
    assert "strict_json -> errors" in unused(tmp_path)


def test_a_folder_that_the_picture_lacks_is_seen() -> None:
    page = "# Architecture\n\n```\ncli/      the command line\n            and more\nerrors.py what is raised\n```\n"
    assert pictured(page) == ["cli", "errors"]


MAKERS = {
    *("arange", "as_tensor", "empty", "eye", "from_numpy", "full", "linspace", "normal", "ones", "rand", "randint"),
    *("randn", "randperm", "tensor", "zeros"),
}


def made_on_the_cpu(folder: Path) -> list[str]:
    """Where a rule makes a tensor without saying on which device, as `path:line: what`."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        if path.name in {"made.py", "reproduce.py"}:  # the second writes numbers as text, and gives no rule a tensor
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "torch"
                and node.func.attr in MAKERS
                and not any(given.arg == "device" for given in node.keywords)
            ):
                found.append(f"{path.name}:{node.lineno}: torch.{node.func.attr} without a device")
    return found


def test_rules_make_tensors_on_the_device_of_the_case() -> None:
    assert made_on_the_cpu(HARNESS / "rules") == []


def test_a_planted_tensor_of_the_cpu_is_seen(tmp_path: Path) -> None:
    (tmp_path / "signs.py").write_text("import torch\norder = torch.arange(3)\nthere = torch.arange(3, device='cpu')\n")
    assert made_on_the_cpu(tmp_path) == ["signs.py:2: torch.arange without a device"]


LIGHT = {
    "help": "from harness.cli import cli; cli(['--help'], standalone_mode=False)",
    "plugin": "import harness.pytest_plugin",
    "facade": "import harness; dir(harness)",
    "results": "import harness.results.schema, harness.results.causes, harness.results.words",
    "judging": "import harness.judging.verdict, harness.judging.diff, harness.judging.baseline",
    "a run whose losses are elsewhere": "import harness.runs.journal, harness.declare.on_command_line, harness.cli.apart",
    "report": "import harness.report.formats, harness.report.summary, harness.report.junit, harness.report.index_html",
    "notebook": "import harness.report.notebook; harness.report.notebook.declaration_html('loss', [], {})",
}


@pytest.mark.parametrize("code", LIGHT.values(), ids=LIGHT.keys())
def test_what_runs_no_loss_imports_no_torch(code: str) -> None:
    check = f"{code}\nimport sys; heavy = [m for m in ('torch', 'pandas', 'hypothesis') if m in sys.modules]; sys.exit(str(heavy) if heavy else 0)"
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_light_start_test_sees_torch() -> None:
    check = "import harness.declare.spec, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False, cwd=ROOT).returncode == 1
