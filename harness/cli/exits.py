"""Exit codes, and the error that ends with the code of a request that cannot be understood."""

from __future__ import annotations

import click

CLEAN, FINDINGS, USAGE, BUG, INTERRUPTED = 0, 1, 2, 3, 130


class Refused(click.ClickException):
    """A request that cannot be understood."""

    exit_code = USAGE
