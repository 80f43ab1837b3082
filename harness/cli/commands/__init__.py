"""The commands of `loss-harness`, one file each, in the order of use.

Nothing here imports torch before a command runs, so that `--help` is fast.
"""

from __future__ import annotations

import click

from harness.cli.commands.asv import asv
from harness.cli.commands.bench import bench
from harness.cli.commands.calibrate import calibrate
from harness.cli.commands.completion import completion
from harness.cli.commands.diff import diff
from harness.cli.commands.index import index
from harness.cli.commands.init import init
from harness.cli.commands.replay import replay
from harness.cli.commands.report import report
from harness.cli.commands.rules import explain, list_rules
from harness.cli.commands.show import show
from harness.cli.commands.verify import verify

COMMANDS: tuple[click.Command, ...] = (
    init,
    report,
    verify,
    bench,
    asv,
    calibrate,
    show,
    diff,
    index,
    replay,
    list_rules,
    explain,
    completion,
)
