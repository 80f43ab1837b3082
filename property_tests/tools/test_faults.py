"""How faults are injected; that each leaves the rest unharmed is `python -m property_tests.tools.faults`."""

import os

from property_tests.tools import faults


def test_the_commands_that_are_started_find_the_packages_of_their_caller(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere/site")
    assert faults.environment()["PYTHONPATH"].split(os.pathsep)[-1] == "/somewhere/site"
    monkeypatch.delenv("PYTHONPATH")
    assert faults.environment()["PYTHONPATH"].split(os.pathsep) == [str(faults.ROOT), str(faults.EXAMPLES)]
