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
    "version": (),
    "private_names": (),
    "isolation": (),
    "results": ("errors", "version"),
    "declare": ("errors", "private_names", "results"),
    "drawing": ("errors", "private_names", "declare"),
    "calls": ("errors", "private_names", "declare"),
    "rules": ("errors", "private_names", "isolation", "results", "declare", "drawing", "calls"),
    "timing": ("errors", "private_names", "isolation", "results", "declare", "drawing", "calls", "rules"),
    "checking": ("errors", "results", "declare", "drawing", "calls", "rules"),
    "judging": ("errors", "results"),
    "report": ("errors", "results", "judging"),
    "runs": (
        *("errors", "version", "isolation", "results", "declare", "drawing", "calls", "timing", "checking", "judging"),
        *("report",),
    ),
    "proposing": ("errors", "isolation", "declare", "calls", "checking"),
    "cli": (
        *("errors", "version", "isolation", "results", "declare", "calls", "timing", "judging", "report", "runs"),
        *("proposing",),
    ),
    "pytest_plugin": (*("errors", "results", "declare", "calls", "timing", "checking", "judging", "report", "runs"),),
    "__main__": ("cli",),
    "catalogs": (),  # only what users can import
}
# One file's own doors, with the reason.
OUTSIDE = {"losses", "property_tests", "asv_benchmarks"}


def files(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file of the package but its facade and what is linked into it, with the folder or module of the top level that it is in."""
    for path in sorted(root.rglob("*.py")):
        top = path.relative_to(root).with_suffix("").parts[0]
        if top not in {"__init__", "losses", "asv_benchmarks"}:
            yield top, path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports, inside functions and for types alike."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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
            elif package != "harness" or not rest or other == top:
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
        if name.startswith("harness.")
    }
    return [f"{top} -> {door}" for top, doors in DOORS.items() for door in doors if (top, door) not in used]


def circle(root: Path) -> list[str]:
    """Files that import each other, one circle; imports inside functions and for types are arrows too."""
    names = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for _, path in files(root)
    }
    graph = {}
    for name, path in names.items():
        wanted = [whole.partition(".")[2] for _, whole in imports(path)]
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
    assert {path.name for path in HARNESS.glob("*.py")} == {
        *("__init__.py", "__main__.py", "errors.py", "private_names.py", "version.py")
    }


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
        ("errors.py", "from harness import results", "errors.py:1: errors imports results"),
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
    assert set(circle(tmp_path)) == {"drawing.case", "drawing.strategies"}


def test_a_door_that_nobody_uses_is_seen(tmp_path: Path) -> None:
    (tmp_path / "results.py").write_text("from harness.errors import shown\n")
    assert "results -> errors" not in unused(tmp_path)
    (tmp_path / "results.py").write_text("import json\n")
    assert "results -> errors" in unused(tmp_path)


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


# What begins with one underscore and is neither ours nor torch's.
OTHERS = {
    *("_exit", "_getframe", "_lru_cache_wrapper"),  # Python's
    "_fields",  # of a named tuple, documented
    "_loop_runner",  # dask's, of a client that its scheduler has left
}


def private_names(folder: Path) -> list[str]:
    """Private names of other packages outside of `private_names.py`, as `path:line: name`.

    These are modules with a part such as `_C` or `internal`, and attributes that begin with one underscore and that no file
    here defines.  Code that is shown to a user is text.
    """
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))}
    ours = set(OTHERS)
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            ours.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            ours.add(node.attr)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            ours |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    found = []
    for path, tree in trees.items():
        top = path.relative_to(folder).parts[0]
        if path.name == "private_names.py" or top in OUTSIDE:
            continue
        names = [
            (line, name)
            for line, name in imports(path)
            if any(part == "internal" or re.match("_[^_]", part) for part in name.split("."))
            and not name.startswith("harness")
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr) and node.attr not in ours:
                names.append((node.lineno, ast.unparse(node)))
            elif isinstance(node, ast.Constant) and re.fullmatch(
                r"(torch\._|hypothesis\.internal)[\w.]*", str(node.value)
            ):
                names.append((node.lineno, str(node.value)))
        found += [f"{path.relative_to(folder).as_posix()}:{line}: {name}" for line, name in names]
    return found


def test_private_names_of_other_packages_stand_in_one_file() -> None:
    # What the process that forks the jobs imports first: the command that names it has no torch.
    assert [name for name in private_names(HARNESS) if not name.startswith("runs/preload.py:")] == []


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("from torch._ops import OpOverload", "torch._ops.OpOverload"),
        ("from torch.autograd import _profiler_enabled", "torch.autograd._profiler_enabled"),
        ("from hypothesis.internal.conjecture import providers", "hypothesis.internal.conjecture.providers"),
        ("level = torch._C._functorch.maybe_current_level()", "torch._C._functorch"),
        ("key = storage._cdata", "storage._cdata"),
        ("loaded = 'torch._dynamo' in sys.modules", "torch._dynamo"),
    ],
)
def test_a_planted_private_name_is_seen(tmp_path: Path, line: str, seen: str) -> None:
    (tmp_path / "some.py").write_text(f"{line}\nmine = _mine = self._own = 3\nmine = other._own, type(mine).__name__\n")
    assert f"some.py:1: {seen}" in private_names(tmp_path)
    assert all(found.startswith("some.py:1:") for found in private_names(tmp_path))


MUTATORS = {
    *(
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "enter_context",
        "extend",
        "insert",
        "pop",
        "popitem",
        "remove",
    ),
    *("set", "setdefault", "update"),
}
# What belongs to the process as a whole, with the reason.
OF_THE_PROCESS = {
    "cli/apart.py: _boxes": "processes that it has started, and ends with",
    "cli/terminal/interrupts.py: _asked": "a signal comes to the process, and its handler is told nothing",
    "declare/annotations.py: _LISTED": "what the signature of a function says, as long as the function lives",
    "drawing/hypothesis_runs.py: _inside": "what Hypothesis keeps for all threads is set aside while any of them draws",
    "drawing/hypothesis_runs.py: _patched": "likewise",
}


def mutable_state(folder: Path) -> list[str]:
    """Names of modules that functions change, as `path: name`; what a `ContextVar` holds for the time of a block is none."""
    found = set()
    for path in sorted(folder.rglob("*.py")):
        if path.relative_to(folder).parts[0] in OUTSIDE:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        stored = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
        names = {
            name.id
            for node in stored
            if not (isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "ContextVar")
            for name in ast.walk(node)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        }
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Lambda)):
            for node in ast.walk(function):
                if isinstance(node, ast.Global):
                    changed = list(node.names)
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
                    changed = [ast.unparse(node.func.value)]
                elif isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
                    changed = [ast.unparse(node.value)]
                else:
                    continue
                found |= {f"{path.relative_to(folder).as_posix()}: {name}" for name in changed if name in names}
    return sorted(found)


def test_no_module_keeps_what_functions_change() -> None:
    assert mutable_state(HARNESS) == sorted(OF_THE_PROCESS)


@pytest.mark.parametrize(
    "change", ["global KEPT; KEPT = 3", "KEPT.append(1)", "KEPT['a'] = 1", "KEPT.a = 1", "del KEPT[0]", "KEPT[0] += 1"]
)
def test_planted_state_is_seen(tmp_path: Path, change: str) -> None:
    (tmp_path / "some.py").write_text(f"KEPT: list = []\n\n\ndef change(mine):\n    mine.append(1)\n    {change}\n")
    assert mutable_state(tmp_path) == ["some.py: KEPT"]
    (tmp_path / "some.py").write_text("KEPT = ContextVar('kept')\n\n\ndef change():\n    KEPT.set(3)\n")
    assert mutable_state(tmp_path) == []


MOST_LINES, MOST_PARAMETERS = 60, 7  # of a function, beside its docstring, `self` and what it takes as `*` and `**`
# What may have more parameters, with the reason; the parameters of a command are its options, and so are in no function's way.
WIDE = {
    "declare/spec.py: __init__": "LossSpec, which users write: each is a line of a declaration",
    "timing/benchmark.py: benchmark": "users ask by keyword for what is timed",
    "timing/paired.py: implementations": "likewise",
    "timing/design.py: measure": "what a job of another process says, one by one",
    "timing/processes.py: time_in_fresh_process": "likewise",
    "timing/audit.py: audited": "what a heat knows of one implementation",
    "timing/audit.py: judged": "likewise",
}


def large_functions(folder: Path) -> list[str]:
    """Functions that are longer or take more than they may, as `path: name: what`."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        if path.relative_to(folder).parts[0] in OUTSIDE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            name = f"{path.relative_to(folder).as_posix()}: {node.name}"
            text = node.body[0] if ast.get_docstring(node) is not None else None
            lines = int(node.end_lineno or 0) - node.lineno + 1
            lines -= 0 if text is None else int(text.end_lineno or 0) - text.lineno + 1
            if lines > MOST_LINES:
                found.append(f"{name}: {lines} lines")
            names = [given.arg for given in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            parameters = len([given for given in names if given not in ("self", "cls")])
            is_command = any("click.command" in ast.unparse(decorator) for decorator in node.decorator_list)
            if parameters > MOST_PARAMETERS and not is_command and name not in WIDE:
                found.append(f"{name}: {parameters} parameters")
    return found


def test_functions_fit_on_a_screen_and_take_few_parameters() -> None:
    assert large_functions(HARNESS) == []


def test_planted_large_functions_are_seen(tmp_path: Path) -> None:
    lines = [f"    a{n} = {n}\n" for n in range(60)]
    (tmp_path / "some.py").write_text(
        f'def long():\n    """One.\n\n    Two.\n    """\n{"".join(lines)}\n\ndef wide(a, b, c, d, e, f, *, g, h): ...\n'
    )
    assert large_functions(tmp_path) == ["some.py: long: 61 lines", "some.py: wide: 8 parameters"]
    (tmp_path / "some.py").write_text(
        f"def long():\n{''.join(lines[1:])}\n\ndef wide(self, a, b, c, d, e, f, g, *h, **i): ...\n"
    )
    assert large_functions(tmp_path) == []


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
