"""The same seed gives the same findings in any number of workers."""

from __future__ import annotations

import json

from property_tests.tools.determinism import run


def test_findings_are_the_same_in_one_and_in_two_workers() -> None:
    targets = ("usual_forms/graph_distance.py",)  # the order of several is test_jobs.py's
    one, two = (run(number, workers, "quick", targets) for number, workers in ((0, 1), (1, 2)))
    assert sum(len(found) for found in json.loads(one).values()) > 10
    assert one == two
