"""Imports run one way, and what is light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

HARNESS = Path(__file__).parent.parent / "harness"

# From the ground up: a module may import its own group and those of lower floors.  Groups of one floor, such as check and
# measure, do not know each other.
FLOORS: tuple[dict[str, tuple[str, ...]], ...] = (
    {
        "declare": (
            *(
                "errors",
                "dims",
                "points",
                "domain",
                "domains",
                "laws",
                "annotations",
                "declared",
                "structures",
                "spec",
                "case",
            ),
            *("tolerance", "inline", "declaration", "locate", "results", "trust", "untrusted", "formulas"),
        ),
        "surroundings": ("environment", "dispatch", "aten", "meter", "isolation", "triton_interpreter"),
    },
    {"generate": ("strategies", "drawing"), "evaluate": ("evaluation", "surroundings", "devices", "backends")},
    {"check": ("rules", "reproduce", "suggest"), "measure": ("timing",)},
    {
        "run": (
            "verify",
            "session",
            "causes",
            "replay",
            "measurement",
            "benchmark",
            "calibrate",
            "scaling",
            "execution",
            "paired",
            "starting",
            "stopped",
        )
    },
    {"report": ("report",)},
    {"jobs": ("jobs",)},
    {
        "face": (
            "cli",
            "commands",
            "pytest_plugin",
            "pytest_paired",
            "pytest_speed",
            "options",
            "configuration",
            "completing",
        )
    },
    {"catalogs": ("catalogs",)},
)
PLACE = {
    module: (floor, group)
    for floor, groups in enumerate(FLOORS)
    for group, modules in groups.items()
    for module in modules
}


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Every module of the package but its facade and the losses, by the first part of its name below the package."""
    for path in sorted(root.rglob("*.py")):
        inner = path.relative_to(root).with_suffix("")
        if str(inner) != "__init__" and inner.parts[0] != "losses":
            yield inner.parts[0], path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports, inside functions and for types alike."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def violations(root: Path) -> list[str]:
    """What breaks the order of the floors, as `path:line: what`."""
    found = []
    for module, path in modules(root):
        if module not in PLACE:
            found.append(f"{path.name}: harness.{module} has no floor; place it in FLOORS")
            continue
        floor, group = PLACE[module]
        for line, name in imports(path):
            top, _, rest = name.partition(".")
            here = f"{path.relative_to(root)}:{line}"
            if name.startswith("."):
                found.append(f"{here}: relative import {name}")
            elif top in {"losses", "property_tests", "asv_benchmarks"}:
                found.append(f"{here}: the harness imports {top}")
            elif top == "jaxtyping" and path.name != "annotations.py":
                found.append(f"{here}: only annotations.py reads jaxtyping")
            elif top == "harness" and rest:
                other = rest.partition(".")[0]
                if group == "catalogs":
                    if other not in {"catalogs", "domains", "laws"} and rest not in harness.__all__:
                        found.append(
                            f"{here}: catalogs import {name}, but only what users can: from harness import ..."
                        )
                elif other not in PLACE:
                    found.append(
                        f"{here}: {name} comes from the facade or from no floor; import the module that has it"
                    )
                elif PLACE[other][0] > floor or (PLACE[other][0] == floor and PLACE[other][1] != group):
                    found.append(f"{here}: {group} imports {PLACE[other][1]} ({name})")
    return found


def test_imports_run_one_way() -> None:
    assert violations(HARNESS) == []


MAKERS = {
    *("arange", "as_tensor", "empty", "eye", "from_numpy", "full", "linspace", "normal", "ones", "rand", "randint"),
    *("randn", "randperm", "tensor", "zeros"),
}


def made_on_the_cpu(folder: Path) -> list[str]:
    """Where a rule makes a tensor without saying on which device, as `path:line: what`."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        if path.name == "made.py":
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


def test_every_floor_stands() -> None:
    present = {module for module, _ in modules(HARNESS)}
    assert {module for module in PLACE if module not in present} <= {"execution"}  # comes with parallel runs


@pytest.mark.parametrize(
    ("file", "line", "seen"),
    [
        ("dims.py", "from harness.verify import verify", "dims.py:1: declare imports run (harness.verify.verify)"),
        ("dims.py", "def f():\n    import harness.report.text", "dims.py:2: declare imports report"),
        ("spec.py", "from harness import strategies", "spec.py:1: declare imports generate (harness.strategies)"),
        ("rules/costs.py", "from harness.timing import costs", "rules/costs.py:1: check imports measure"),
        ("timing/costs.py", "import harness.rules", "timing/costs.py:1: measure imports check"),
        ("verify.py", "import losses", "verify.py:1: the harness imports losses"),
        ("cli.py", "from losses.graph_distance import SPEC", "cli.py:1: the harness imports losses"),
        ("case.py", "from jaxtyping import Float", "case.py:1: only annotations.py reads jaxtyping"),
        ("rules/laws.py", "from .rule import Rule", "rules/laws.py:1: relative import .rule.Rule"),
        ("verify.py", "from harness import LossSpec", "comes from the facade or from no floor"),
        (
            "catalogs/kornia.py",
            "from harness.spec import LossSpec",
            "catalogs/kornia.py:1: catalogs import harness.spec",
        ),
        ("verify.py", "from harness.catalogs import SPECS", "verify.py:1: run imports catalogs"),
        ("novelty.py", "", "novelty.py: harness.novelty has no floor"),
    ],
)
def test_a_planted_violation_is_seen(tmp_path: Path, file: str, line: str, seen: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    (found,) = violations(tmp_path)
    assert seen in found


def test_what_is_allowed_is_silent(tmp_path: Path) -> None:
    (tmp_path / "annotations.py").write_text("import jaxtyping\nfrom harness.domains import Domain\n")
    (tmp_path / "cli.py").write_text("import harness\nfrom harness.report import text\nimport torch\n")
    (tmp_path / "catalogs").mkdir()
    (tmp_path / "catalogs" / "kornia.py").write_text(
        "from harness import LossSpec, laws\nfrom harness.catalogs import require\n"
    )
    assert violations(tmp_path) == []


LIGHT = {
    "help": "from harness.cli import cli; cli(['--help'], standalone_mode=False)",
    "plugin": "import harness.pytest_plugin",
    "facade": "import harness; dir(harness)",
    "a run whose losses are elsewhere": "import harness.jobs.journal, harness.declaration, harness.commands.apart",
}


@pytest.mark.parametrize("code", LIGHT.values(), ids=LIGHT.keys())
def test_what_runs_no_loss_imports_no_torch(code: str) -> None:
    check = f"{code}\nimport sys; heavy = [m for m in ('torch', 'pandas', 'hypothesis') if m in sys.modules]; sys.exit(str(heavy) if heavy else 0)"
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False, cwd=HARNESS.parent)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_light_start_test_sees_torch() -> None:
    check = "import harness.spec, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False, cwd=HARNESS.parent).returncode == 1
