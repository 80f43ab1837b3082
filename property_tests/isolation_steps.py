"""A job of several steps, for the tests of the sandbox."""

import time


def perform(payload, tell):
    for step in range(payload["steps"]):
        tell("step", str(step))
        time.sleep(payload["seconds"])
