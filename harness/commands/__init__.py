"""The commands of `loss-harness`, one file each, in the order of use.

Nothing here imports torch before a command runs, so that `--help` is fast.
"""

from __future__ import annotations

import click

from harness.commands.bench import bench
from harness.commands.calibrate import calibrate
from harness.commands.completion import completion
from harness.commands.diff import diff
from harness.commands.index import index
from harness.commands.init import init
from harness.commands.replay import replay
from harness.commands.report import report
from harness.commands.rules import explain, list_rules
from harness.commands.show import show
from harness.commands.verify import verify

COMMANDS: tuple[click.Command, ...] = (
    init,
    report,
    verify,
    bench,
    calibrate,
    show,
    diff,
    index,
    replay,
    list_rules,
    explain,
    completion,
)
