"""``--harness-changed``: checks that have passed are skipped until something on which they depend changes.

What has passed stands in `.loss-harness/passed.json`, a loss of a test function with the digest of everything that its checks depend
on: the text of the user's files, the declaration, the profile, and the versions of Python, torch, Hypothesis and the harness.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.report.writer import OWN, FolderError, write_own
from harness.results.strict_json import parse_json

PASSED = "passed.json"
REASON = "unchanged since it passed: code, declaration, profile and versions"

Passed = dict[str, dict[str, Any]]  # test function and loss -> digest, and the ids of the checks that passed


def read(project: Path) -> Passed:
    """What has passed; nothing where no file says so, or one that cannot be read."""
    try:
        found = parse_json((project / OWN / PASSED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and all(isinstance(entry, dict) for entry in found.values()) else {}


def has_passed(passed: Passed, place: str, check: str, digest: str) -> bool:
    """Whether a check passed with what it depends on as it is now."""
    entry = passed.get(place, {})
    return entry.get("digest") == digest and check in entry.get("passed", ())


def write(project: Path, outcomes: Sequence[tuple[str, str, str, bool]]) -> None:
    """Add to what has passed, and take away what failed.

    Args:
        project: the folder that has `.loss-harness`.
        outcomes: (test function and loss, check, digest, whether it passed) of every check that ran.
    """
    known = read(project)
    for place, check, digest, has_passed in outcomes:
        if known.get(place, {}).get("digest") != digest:
            known[place] = {"digest": digest, "passed": []}
        rest = [name for name in known[place]["passed"] if name != check]
        known[place]["passed"] = sorted([*rest, check]) if has_passed else rest
    try:
        write_own(project, PASSED, json.dumps(known, indent=1, sort_keys=True) + "\n")
    except FolderError:
        return  # what was found is worth more than the time that the next run saves
