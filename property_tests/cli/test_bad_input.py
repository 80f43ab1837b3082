"""Whatever is passed in: it works, or a message says what came and how to mend it; never a traceback, never a silent pass."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bad_losses
import bad_values
import pytest
import report_examples
import sympy  # noqa: F401  # torch loads it late, and it adds a filter of warnings
import torch
from click.testing import CliRunner
from fake_time import AMPLE_S
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from harness import LossSpec, TensorSpec, benchmark, domains, laws, verify
from harness.checking.replay import replay
from harness.cli import cli
from harness.declare.inline import option, tensors
from harness.declare.on_command_line import Declaration
from harness.declare.targets import load_specs
from harness.errors import MESSAGE_LIMIT, HarnessError, shown
from harness.judging import baseline, diff
from harness.judging.baseline import Entry
from harness.report import formats
from harness.results import schema
from harness.results.findings import Status, Verification
from harness.runs.configuration import read as read_configuration

EXAMPLES = {"arguments": 1400, "documents": 500, "commands": 150}  # 2,050 together
_FAILURE: dict[str, Any] = {
    "schema": 1,
    "target": "losses.weighted_mse",
    "loss": "weighted_mse",
    "implementation": "naive",
    "rule": "B01",
    "aspect": "",
    "profile": "quick",
    "seed": 0,
    "device": "cpu",
    "case": None,
}


def generated(kind: str) -> Callable[[Any], Any]:
    """So many examples, the same ones every time."""
    return settings(
        max_examples=EXAMPLES[kind],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def mean_squared(predictions, targets):
    return (predictions - targets).pow(2).mean()


DECLARED: dict[str, Any] = {
    "name": "loss",
    "implementations": {"candidate": mean_squared},
    "inputs": {"predictions": TensorSpec("B C"), "targets": TensorSpec("B C")},
    "context": {},
    "output": TensorSpec(""),
}
GOOD = LossSpec(**DECLARED)


# ---- the oracle ----------------------------------------------------------------------------------------------------------


def fault(message: str, argument: str, value: object) -> str:
    """What is wrong with a message; empty where nothing is."""
    if len(message) > MESSAGE_LIMIT:
        return f"{len(message)} characters, expected at most {MESSAGE_LIMIT}"
    odd = [character for character in message if not character.isprintable() and character not in "\n\t"]
    if odd:
        return f"{odd[0]!r} cannot be printed"
    if "Traceback" in message:
        return "holds a traceback"
    came = shown(value)
    parts = re.findall(r"\w{3,}", value) if isinstance(value, str) else re.findall(r"\w+", came)
    stems = (word.rstrip("s").removesuffix("e") for word in (argument, *parts))
    words = {came, came[:16], type(value).__name__, "''", "' '", *stems} - {""}
    if not any(word.casefold() in message.casefold() for word in words):
        return f"names nothing of {argument}={shown(value)}: {message}"
    return ""


def judge(call: Callable[[Any], Any], argument: str, value: object) -> None:
    """It works, or it raises a `HarnessError` with a message without fault."""
    try:
        call(value)
    except HarnessError as error:
        wrong = fault(str(error), argument, value)
    else:
        wrong = ""
    assert not wrong


def planted_crash(value: object) -> None:
    raise AttributeError("'NoneType' object has no attribute 'x'")


def planted_refusal(value: object) -> None:
    raise HarnessError("no")


def planted_traceback(value: object) -> None:
    raise HarnessError("B came\nTraceback (most recent call last)")


@pytest.mark.parametrize("planted", [planted_crash, planted_refusal, planted_traceback])
def test_the_oracle_sees_a_planted_fault(planted):
    with pytest.raises((AssertionError, AttributeError)):
        judge(planted, "dims", "B")


def test_a_message_of_any_length_and_any_characters_becomes_one_that_can_be_read():
    message = str(HarnessError(f"came {bad_values.LONG}\x1b[2J\ud800, expected short"))
    assert not fault(message, "came", "")
    assert message.startswith("came xxx")
    assert message.endswith("\\x1b[2J\\ud800, expected short")


# ---- arguments -----------------------------------------------------------------------------------------------------------


def declaring(argument: str) -> Callable[[Any], Any]:
    return lambda value: LossSpec(**{**DECLARED, argument: value})


def verifying(argument: str) -> Callable[[Any], Any]:
    def call(value: Any) -> None:
        if argument != "rules" or value is not None:  # None is all of them
            verify(GOOD, **{"profile": "quick", "rules": ["B01"], argument: value})

    return call


def measuring(argument: str) -> Callable[[Any], Any]:
    given = {"sizes": {"B": 2, "C": 2}, "timed": False, "budget_s": 0.02}

    def call(value: Any) -> None:
        if argument != "sizes" or value is not None:  # None is a ladder of them
            benchmark(GOOD, **{**given, argument: value})

    return call


def replaying(argument: str) -> Callable[[Any], Any]:
    def call(value: Any) -> None:
        found = replay({**_FAILURE, argument: value})
        if found.status == "ERROR":
            raise HarnessError(found.message)

    return call


def lawful(make: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda value: LossSpec(**{**DECLARED, "laws": (make(value),)})


ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    **{f"LossSpec {name}": declaring(name) for name in LossSpec.__init__.__kwdefaults__},  # type: ignore[misc]
    **{f"LossSpec {name}": declaring(name) for name in ("name", "implementations")},
    "LossSpec implementation": lambda value: LossSpec(**{**DECLARED, "implementations": {"candidate": value}}),
    **{
        f"TensorSpec {name}": (lambda value, name=name: TensorSpec(**{"dims": "B C", name: value}))
        for name in ("dims", "domain", "dtype")
    },
    "real nan": domains.real,
    "interval low": lambda value: domains.interval(value, value),
    "simplex axis": domains.simplex,
    "unit_norm axis": domains.unit_norm,
    "boolean dtype": domains.boolean,
    "index symbol": domains.index,
    "index ignore": lambda value: domains.index("C", value),
    "adjacency symmetric": domains.adjacency,
    "custom make": domains.custom,
    **{
        f"{make.__name__} names": lawful(make)
        for make in (laws.mean_over, laws.permutation, laws.linear_in, laws.inert)
    },
    "reduces_to value": lambda value: laws.reduces_to(mean_squared, weights=value),
    "load_specs targets": load_specs,
    "load_specs target": lambda value: load_specs([value]),
    "tensors inputs": lambda value: tensors(value) if isinstance(value, str) else None,
    "option option": lambda value: option(value) if isinstance(value, str) else None,
    **{
        f"verify {name}": verifying(name)
        for name in ("profile", "rules", "ignore", "implementations", "device", "seed")
    },
    "verify spec": verify,
    **{
        f"benchmark {name}": measuring(name)
        for name in (
            "sizes",
            "devices",
            "dtypes",
            "passes",
            "implementations",
            "budget_s",
            "densities",
            "caches",
            "clocks",
        )
    },
    "benchmark spec": benchmark,
    **{f"replay {name}": replaying(name) for name in _FAILURE},
}


@generated("arguments")
@given(entry=st.sampled_from(sorted(ARGUMENTS)), value=bad_values.values)
def test_an_argument_of_any_kind_works_or_is_refused_in_words(entry, value):
    judge(ARGUMENTS[entry], entry.partition(" ")[2], value)


# ---- documents -----------------------------------------------------------------------------------------------------------

REPORT = schema.dumps(report_examples.report(report_examples.loss(findings=(report_examples.finding(),))))
BASELINE = baseline.dumps([Entry("graph_distance", "vectorized", "G01", "gradient")])
DECLARATION = Declaration("torch.nn:MSELoss", "input: B; target: B", options=("reduction=sum",)).as_target


def read_report(text: str) -> None:
    read = schema.loads(text)
    for form in formats.FORMATS:
        formats.render(form, read, formats.Presentation())
    diff.compare(read, read)


READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "report": (read_report, REPORT),
    "baseline": (baseline.loads, BASELINE),
    "target": (lambda text: load_specs([text]), DECLARATION),
}


@generated("documents")
@given(data=st.data(), name=st.sampled_from(sorted(READERS)))
def test_a_document_with_anything_in_it_is_read_or_refused_in_words(data, name):
    reader, text = READERS[name]
    judge(reader, name, data.draw(bad_values.mutated(text)))


# ---- the command line ----------------------------------------------------------------------------------------------------

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("verify", "{}"),
    ("verify", "no.such.loss", "--device", "{}"),
    ("verify", "no.such.loss", "--baseline", "{}"),
    ("verify", "torch.nn:MSELoss", "--inputs", "{}"),
    ("bench", "no.such.loss", "--sizes", "{}"),
    ("bench", "no.such.loss", "--sweep", "{}"),
    ("bench", "no.such.loss", "--density", "{}"),
    ("--config", "{}", "rules"),
    ("explain", "{}"),
    ("replay", "{}"),
    ("diff", "{}", "{}"),
    ("show", "{}"),
    ("{}",),
)


def _can_be_typed(name: str) -> bool:
    """Whether a system would hand the name to a command."""
    try:
        return len(name) <= 5000 and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


@generated("commands")
@given(command=st.sampled_from(COMMANDS), name=bad_values.names)
def test_a_command_of_any_words_is_done_or_ends_with_code_2_and_a_message(command, name):
    assume(_can_be_typed(name) and name.strip(" ,"))  # an empty choice is the default: a run
    words = [name if word == "{}" else word for word in command]
    done = CliRunner().invoke(cli, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), words
    assert done.exit_code in (0, 2), words
    assert "Traceback" not in done.output
    if done.exit_code == 2:
        assert len(done.stderr) < 3 * MESSAGE_LIMIT, words


@pytest.mark.parametrize(
    "text",
    [
        "[tool.loss-harness]\nseed = nan",
        "[tool.loss-harness]\nseed = true",
        "[tool.loss-harness]\nbudget = -inf",
        "[tool.loss-harness]\nprofile = ['ci']",
        f"[tool.loss-harness]\nprofile = '{bad_values.LONG}'",
        f"[tool.loss-harness]\n{'k' * 5000} = 1",
        "[tool]\nloss-harness = 3",
        "[tool.loss-harness",
        "[tool.loss-harness]\nselect = [1]",
        "\x00",
        "a = " + "[" * 3000,
    ],
)
def test_a_configuration_of_any_kind_is_refused_in_words(tmp_path: Path, text: str):
    file = tmp_path / "pyproject.toml"
    file.write_text(text)
    with pytest.raises(HarnessError) as refused:
        read_configuration(file)
    assert not fault(str(refused.value), "pyproject.toml", text)


# ---- losses --------------------------------------------------------------------------------------------------------------


def surroundings() -> dict[str, Any]:
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "generator": torch.get_rng_state().numpy().tobytes(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "path": list(sys.path),
        "streams": (sys.stdout, sys.stderr),
        "filters": list(warnings.filters),
        "mean": torch.mean,
        "depth": sys.getrecursionlimit(),
        "logging": (logging.root.manager.disable, list(logging.root.handlers)),
    }


def verified(loss: Callable[..., Any], **changes: Any) -> Verification:
    """The loss is verified, and nothing around it is another than before."""
    before = surroundings()
    found = verify(LossSpec(**{**DECLARED, "implementations": {"candidate": loss}}), profile="quick", **changes)
    after = surroundings()
    assert {name: value for name, value in after.items() if value != before[name]} == {}
    for finding in found.findings:
        assert not fault(finding.message, "loss", ""), finding.message[:200]
    return found


@pytest.mark.parametrize("name", [*bad_losses.RETURNED, *bad_losses.RAISED])
def test_what_a_loss_returns_or_raises_is_a_finding_that_says_so(name):
    loss, said = {**bad_losses.RETURNED, **bad_losses.RAISED}[name]
    found = verified(loss, rules=["B01", "G06", "G08"])
    assert not found.ok
    assert [o for o in found.outcomes if o.status is Status.CRASHED] == []
    assert any(said in f.message for f in found.findings if f.severity == "error")


@pytest.mark.parametrize("name", bad_losses.CHANGING)
def test_what_a_loss_changes_around_it_is_named_and_put_back(name):
    loss, said = bad_losses.CHANGING[name]
    found = verified(loss, rules=["B01", "S02"])
    assert any(f.rule == "S02" and said in f.message and f.severity == "error" for f in found.findings)


@pytest.mark.parametrize("name", bad_losses.NOISY)
def test_a_noisy_loss_is_as_right_as_a_quiet_one(name):
    codes = ["B01", "G01", "G06", "S02"]
    found, quiet = verified(bad_losses.NOISY[name], rules=codes), verified(mean_squared, rules=codes)
    assert found.ok
    assert found.counts == quiet.counts


@pytest.mark.parametrize("name", bad_losses.SPOILING)
def test_a_loss_that_spoils_its_inputs_or_the_device_is_no_silent_pass(name):
    assert not verified(bad_losses.SPOILING[name], rules=["B01", "C02", "S02", "S03"]).ok


@pytest.mark.parametrize("name", [*bad_losses.RETURNED, *bad_losses.RAISED])
def test_a_bad_loss_is_not_timed_as_if_it_worked(name):
    loss, _ = {**bad_losses.RETURNED, **bad_losses.RAISED}[name]
    implementations = {"reference": mean_squared, "candidate": loss}
    before = surroundings()
    spec = LossSpec(**{**DECLARED, "implementations": implementations})
    found = benchmark(spec, sizes={"B": 2, "C": 2}, timed=False, budget_s=AMPLE_S)
    assert surroundings() == before
    bad = [m for m in found.measurements if m.implementation == "candidate" and m.pass_name == "full"]
    assert bad
    for measurement in bad:
        assert measurement.status == "failed" or name in ("memory", "one axis", "sparse of one axis"), (
            measurement.reason
        )
        assert len(measurement.reason) <= MESSAGE_LIMIT


def test_an_interrupt_from_the_keyboard_is_not_taken_for_the_loss():
    with pytest.raises(KeyboardInterrupt):
        verify(
            LossSpec(**{**DECLARED, "implementations": {"candidate": bad_losses.raising(KeyboardInterrupt)}}),
            rules=["B01"],
        )
