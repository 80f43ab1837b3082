"""The command line: `loss-harness report | verify | bench | replay | rules | explain`.

Exit codes: 0 clean, 1 a finding of severity error (or a crash or timeout of the loss), 2 usage, 3 a bug of the tool,
130 interrupted.  Nothing here imports torch before a command runs, so that `--help` is fast.
"""

from __future__ import annotations

import json
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import harness
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.report.run import Run, Watch
    from harness.report.schema import Report
    from harness.spec import LossSpec

FAILURES = ".loss-harness/failures"
CLEAN, FINDINGS, USAGE, BUG, INTERRUPTED = 0, 1, 2, 3, 130

_COLORS = {
    "error": "red",
    "warning": "yellow",
    "note": "cyan",
    "adopt": "green",
    "adopt with caveats": "yellow",
    "do not adopt": "red",
    "inconclusive": "yellow",
}


class _Group(click.Group):
    """Commands in the order of use, whose known errors end as a message and exit code 2, never as a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HarnessError as error:
            raise _Refused(str(error)) from error


class _Refused(click.ClickException):
    """A request that cannot be understood."""

    exit_code = USAGE


def _split(_: click.Context, __: click.Parameter, values: Sequence[str] | str) -> tuple[str, ...]:
    """Values that may be given several times, or with commas."""
    given = [values] if isinstance(values, str) else values
    return tuple(dict.fromkeys(part.strip() for value in given for part in value.split(",") if part.strip()))


def _devices(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    devices = _split(ctx, parameter, value)
    for device in devices:
        kind, _, index = device.partition(":")
        if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
            raise click.BadParameter(f"{device!r}: a device is cpu, cuda or cuda:0; several with commas")
    if not devices:
        raise click.BadParameter("needs a device, such as cpu or cpu,cuda")
    return devices


_device = click.option(
    "--device", "devices", default="cpu", callback=_devices, show_default=True, help="cpu, cuda, or both: cpu,cuda."
)
_profile = click.option(
    "--profile",
    type=click.Choice(["quick", "ci", "thorough"]),
    default="ci",
    show_default=True,
    help="How many examples.",
)
_seed = click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same cases and findings.")
_budget = click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds of timing per loss.",
)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(harness.__version__, prog_name="loss-harness")
def cli() -> None:
    """Verify and benchmark a custom PyTorch loss before you adopt it.

    TARGET is package.module, package.module:Name, path/file.py or path/file.py:Name.
    """


@cli.command()
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@_device
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="reports/latest",
    show_default=True,
    help="Folder of the report.",
)
@_profile
@_seed
@_budget
def report(
    targets: tuple[str, ...], devices: tuple[str, ...], out: Path, profile: str, seed: int, budget: float
) -> None:
    """Verify and time losses, and say whether to adopt them.

    TARGET defaults to `losses`.  Writes report.json, report.md, timings.csv and failures/ to the folder.
    """
    from harness.report import text, writer
    from harness.report.run import Request, Run

    specs = _load(targets or ("losses",))
    run = Run(specs, Request(profile=profile, seed=seed, devices=devices, budget_s=budget))
    writer.check_folder(out)
    command = shlex.join(["loss-harness", *sys.argv[1:]])

    def show(made: Report) -> None:
        folder = writer.folder_for(out, made)
        writer.write_report(folder, made, run.failures, timings=run.timings, command=command)
        click.echo(text.verdicts_text(made, _styled))
        click.echo(f"\nwritten: {folder / 'report.md'}, {folder / 'report.json'}")

    _complete(run, [run.verify, run.benchmark], show)


@cli.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@_profile
@_seed
@_device
@click.option(
    "--select", multiple=True, callback=_split, metavar="CODES", help="Only these rules: G01, or G for all of G."
)
@click.option("--ignore", multiple=True, callback=_split, metavar="CODES", help="Not these rules.")
@click.option(
    "--implementation", "implementations", multiple=True, callback=_split, metavar="NAME", help="Only this one."
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write there instead of to the terminal."
)
@click.option("--verbose", "-v", is_flag=True, help="Also notes, reasons, and code that reproduces each finding.")
def verify(
    targets: tuple[str, ...],
    profile: str,
    seed: int,
    devices: tuple[str, ...],
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    implementations: tuple[str, ...],
    form: str,
    output: Path | None,
    verbose: bool,
) -> None:
    """Check that losses are right."""
    from harness.report import schema, writer
    from harness.report.run import Request, Run, selected_codes

    codes = selected_codes(select, ignore)
    specs = _load(targets)
    request = Request(profile, seed, devices, codes, implementations or None)
    run = Run(specs, request)

    def show(made: Report) -> None:
        writer.write_failures(Path(FAILURES), run.failures)
        _emit(schema.dumps(made) if form == "json" else _verify_text(made, verbose, plain=output is not None), output)

    _complete(run, [run.verify], show)


def _verify_text(made: Report, verbose: bool, *, plain: bool) -> str:
    from harness.report import text

    parts = [
        text.findings_text(
            made,
            folder=FAILURES,
            verbose=verbose,
            style=text.unstyled if plain else _styled,
            notes=verbose,
        ),
        text.reasons_text(made, ("crashed", "timed out", "waived", "skipped") if verbose else ("crashed", "timed out")),
        text.suggestions_text(made) if verbose else "",
        text.counts_text(made),
        text.totals_text(made),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


@cli.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@_device
@_budget
@_seed
@click.option("--format", "form", type=click.Choice(["text", "json", "csv"]), default="text", show_default=True)
def bench(targets: tuple[str, ...], devices: tuple[str, ...], budget: float, seed: int, form: str) -> None:
    """Time losses without checking that they are right."""
    from harness.report import schema, text
    from harness.report.run import Request, Run

    run = Run(_load(targets), Request(seed=seed, devices=devices, budget_s=budget))

    def show(made: Report) -> None:
        if form == "json":
            _emit(schema.dumps(made), None)
        else:
            _emit((run.timings or "") if form == "csv" else text.timings_text(made) + "\n", None)

    _complete(run, [run.benchmark], show)


@cli.command()
@click.argument("failure", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def replay(failure: Path) -> None:
    """Run a stored failure again: FIXED, FAILED or ERROR."""
    from harness.replay import replay as again
    from harness.report import text

    try:
        data = json.loads(failure.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise _Refused(f"{failure} is not a failure file: {error}; `loss-harness verify` writes them") from error
    if not isinstance(data, dict):
        raise _Refused(f"{failure} is not a failure file: it holds a {type(data).__name__}, but should hold an object")
    found = again(data)
    message = text.printable(found.message)
    if found.status == "ERROR":
        raise _Refused(f"cannot replay {failure}: {message}")
    is_fixed = found.status == "FIXED"
    click.echo(f"{click.style(found.status, fg='green' if is_fixed else 'red', bold=True)} {message}")
    sys.exit(CLEAN if is_fixed else FINDINGS)


@cli.command("rules")
def list_rules() -> None:
    """List the rules."""
    from harness.report import text
    from harness.rules import DOCUMENTED

    rows = [["code", "severity", "group", "rule"], *([r.code, r.severity, r.group, r.title] for r in DOCUMENTED)]
    click.echo(text.table(rows))


@cli.command()
@click.argument("code")
def explain(code: str) -> None:
    """Say what a rule checks, why it matters and how to mend what it finds."""
    from harness import rules

    explained = rules.find(code).explain()
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(explained))
    else:
        click.echo(explained.rstrip())


def _load(targets: Sequence[str]) -> list[LossSpec]:
    from harness.locate import load_specs

    return load_specs(targets)


@contextmanager
def _progress() -> Iterator[Watch]:
    """What is under way, on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda text, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")
        yield lambda text, done, total: progress.update(task, description=text, completed=done, total=total)


def _styled(text: str, what: str) -> str:
    return click.style(text, fg=_COLORS.get(what), bold=True)  # click.echo drops styles in a pipe


def _emit(text: str, output: Path | None) -> None:
    from harness.report import writer

    if output is None:
        click.echo(text, nl=False)
    else:
        writer.write_text(output, text)


def _complete(run: Run, steps: Sequence[Callable[[Watch], None]], show: Callable[[Report], None]) -> None:
    """Run the steps, show the results and exit; what is done is shown after an interrupt or an error too."""
    try:
        with _progress() as watch:
            for step in steps:
                step(watch)
    except BaseException:
        if run.has_results:
            show(run.report())
        raise
    made = run.report()
    show(made)
    sys.exit(CLEAN if made.ok else FINDINGS)


def main() -> None:
    """Entry point of `loss-harness`."""
    try:
        code = cli.main(prog_name="loss-harness", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except Exception:
        traceback.print_exc()
        click.echo("this is a bug of loss-harness, not of the loss; please report it with the lines above", err=True)
        sys.exit(BUG)
    sys.exit(code if isinstance(code, int) else CLEAN)


if __name__ == "__main__":
    main()
