"""The tests over the range of versions that pyproject.toml promises; `nox --list` names the combinations.

Python 3.11 with the versions of constraints.txt is what `make test` runs, so it is no combination here.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox
from packaging.requirements import Requirement

# A combination that did not run is no combination that passed.
nox.options.error_on_missing_interpreters = True

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
PINNED = [line for line in Path("constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]

# The full product would be twenty-seven environments of gigabytes that fail for the same few causes.  Each of these but the
# last moves one thing away from what CI runs, so that a failure says what made it; oldest stands with oldest and newest with
# newest, as they are installed in practice.
COMBINATIONS = [  # Python, torch, the other libraries
    nox.param("3.11", "oldest", "pinned", id="python3.11-oldest-torch"),
    nox.param("3.11", "pinned", "oldest", id="python3.11-oldest-libraries"),
    nox.param("3.12", "pinned", "pinned", id="python3.12"),
    nox.param("3.13", "pinned", "pinned", id="python3.13"),
    nox.param("3.13", "newest", "newest", id="python3.13-newest"),
]


def oldest(requirement: Requirement) -> str:
    """The lower bound of a requirement, as a constraint: `torch>=2.11` becomes `torch==2.11`."""
    (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
    return f"{requirement.name}=={bound}"


def constraints(torch: str, libraries: str) -> list[str]:
    """What pip is held to; newest is held to nothing.  What nobody names in pyproject.toml stays as constraints.txt has it."""
    direct = {
        one.name.lower(): one
        for one in map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]])
    }
    chosen = dict.fromkeys(direct, libraries) | {"torch": torch}
    lines = [oldest(direct[name]) for name, age in chosen.items() if age == "oldest"]
    if libraries != "newest":
        lines += [line for line in PINNED if chosen.get(line.split("==")[0].lower(), "pinned") == "pinned"]
    return lines


@nox.session
@nox.parametrize("python, torch, libraries", COMBINATIONS)
def tests(session: nox.Session, torch: str, libraries: str) -> None:
    """What `make test` runs, in an environment of its own; what follows `--` goes to pytest."""
    held = Path(session.create_tmp()) / "constraints.txt"
    held.write_text("\n".join(constraints(torch, libraries)) + "\n", encoding="utf-8")
    tools = ["coverage", "hatchling", "ruff"]  # of which tests ask whether what pages and `init` say is so
    session.install("--constraint", str(held), "--editable", ".[test,cluster]", *tools)
    session.run("python", "-m", "pip", "freeze", "--exclude-editable")
    session.run(
        *("python", "-m", "pytest", "-n", os.environ.get("WORKERS", "1"), "--dist", "loadfile", "--benchmark-disable"),
        *("-m", "not cluster", *session.posargs),
        env={"OMP_NUM_THREADS": "1", "PYTHONPATH": None},
    )
