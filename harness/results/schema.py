"""The report as data: what `report.json` holds, with a reader that refuses what it does not understand.

Every record here is frozen, made of JSON types and readable without torch; renderers take a `Report` and nothing else.

    Report
      schema           version of this layout; a reader refuses any other
      tool             version of loss-harness that wrote it
      seed, profile    what the verification was asked for
      devices          where it was asked to run
      environment      versions, hardware, threads and allocator, per device; `calibration` is the timing tried on itself
      losses[]         one `LossRecord` a loss
        outcomes[]     one a planned implementation x rule x device; their number is what was planned
        findings[]     what is wrong, errors first; equal for equal seeds, so nothing here is read from a clock
        check_times[]  where the time of the checks went, one a check; empty where nobody asked
        measurements[] raw seconds per call and exact costs
        comparisons[]  speedup over the reference, with its 95 % interval
        growths[]      how each cost grows with a size or a density
        crossovers[]   where one implementation overtakes another
        verdicts[]     one an implementation
        missing        one sentence on what did not run; empty where everything did
        description    first paragraph of the docstring of the loss
        sources[]      file and line of each implementation, and of the declaration
      notes[]          what holds for all losses
      seconds          how long each part took, by name
      made, command    when (UTC, ISO 8601) and with which command line
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import EnumType
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from harness.errors import HarnessError, shown, told
from harness.results.findings import Finding, Outcome, are_finished, counted, in_order
from harness.results.measured import Comparison, Crossover, Growth, Measurement
from harness.results.strict_json import parse_json
from harness.version import __version__

SCHEMA_VERSION = 6
READ_AS = "what tensors are for: "  # begins the note that says what each tensor is for
Verdict = Literal["adopt", "adopt with caveats", "do not adopt", "inconclusive", "reference"]
ADOPT: Final = "adopt"
CAVEATS: Final = "adopt with caveats"
DO_NOT_ADOPT: Final = "do not adopt"
INCONCLUSIVE: Final = "inconclusive"
REFERENCE: Final = "reference"
FAILURE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}\.json")  # one component of a path, wherever it is put
CRASHED = "X01"  # code of the finding that a rule could not be checked; it says nothing on whether the loss is right

R = TypeVar("R")


class ReportError(HarnessError, ValueError):
    """A file is not a report, or one of another schema version."""


@dataclass(frozen=True)
class CheckTimeRecord:
    """Where the time of one check went; ``rule`` is its code, or ``suggestions``.

    ``seconds`` is all of it, ``loss_seconds`` the part inside the user's loss (constructor and forward), ``autograd_seconds``
    the part inside the backward pass, ``watched_seconds`` evaluations under a mode that looks at every operation;
    ``evaluations`` counts the calls of the loss.
    """

    implementation: str
    rule: str
    device: str
    seconds: float
    evaluations: int
    loss_seconds: float
    autograd_seconds: float
    watched_seconds: float


@dataclass(frozen=True)
class VerdictRecord:
    """Adopt, adopt with caveats, do not adopt, inconclusive, or reference.

    ``sentence`` says it in one sentence, ``reasons`` each in one, the decisive ones first; ``scope`` at which devices, dtypes
    and sizes it holds and where the order changes; ``settle`` what to mend, declare or measure next, empty where nothing is open.
    """

    implementation: str
    verdict: Verdict
    reasons: tuple[str, ...]
    sentence: str = ""
    scope: tuple[str, ...] = ()
    settle: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceRecord:
    """Where an implementation is defined; ``implementation`` is empty for the declaration itself.

    ``file`` has forward slashes and is relative to the working directory where ``is_local``, else to the folder from which
    Python imports it, so that no report names a folder of the machine.
    """

    implementation: str
    file: str
    line: int
    is_local: bool
    column: int = 1


@dataclass(frozen=True)
class LossRecord:
    """Everything that is known of one loss; ``reference`` is empty where it has only one implementation."""

    name: str
    target: str
    reference: str
    implementations: tuple[str, ...]
    outcomes: tuple[Outcome, ...] = ()
    findings: tuple[Finding, ...] = ()
    suggestions: tuple[str, ...] = ()
    check_times: tuple[CheckTimeRecord, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    growths: tuple[Growth, ...] = ()
    crossovers: tuple[Crossover, ...] = ()
    verdicts: tuple[VerdictRecord, ...] = ()
    notes: tuple[str, ...] = ()
    missing: str = ""
    description: str = ""
    sources: tuple[SourceRecord, ...] = ()

    def source(self, implementation: str) -> SourceRecord | None:
        """Where a reader looks first: the implementation, or the declaration where only that one is the user's own."""
        mine = [s for s in self.sources if s.implementation == implementation]
        declared = [s for s in self.sources if not s.implementation]
        return next((s for s in (*mine, *declared) if s.is_local), next(iter((*mine, *declared)), None))

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices that outcomes speak of, in order."""
        return tuple(dict.fromkeys(outcome.device for outcome in self.outcomes))

    def counts(self, implementation: str, device: str) -> dict[str, int]:
        """Number of outcomes of each status; their sum is what was planned."""
        mine = [o for o in self.outcomes if o.implementation == implementation and o.device == device]
        return counted(mine)

    def is_wrong(self, implementation: str) -> bool:
        """Whether a rule found an error in it; a crash says nothing."""
        return any(finding.rule != CRASHED for finding in self.of(implementation, "error"))

    def of(self, implementation: str, severity: str | None = None) -> tuple[Finding, ...]:
        """Findings about one implementation, errors first."""
        mine = [f for f in self.findings if f.implementation == implementation]
        return in_order(f for f in mine if severity in (None, f.severity))

    @property
    def ok(self) -> bool:
        """False if any rule found an error, crashed or timed out, or the loss failed when it was timed."""
        failed = any(measurement.status == "failed" for measurement in self.measurements)
        accepted = all(f.severity != "error" or f.accepted for f in self.findings)
        return are_finished(self.outcomes) and not failed and accepted


@dataclass(frozen=True)
class Report:
    """All losses of one run."""

    schema: int = field(default=SCHEMA_VERSION, kw_only=True)
    tool: str = field(default=__version__, kw_only=True)
    seed: int
    profile: str
    devices: tuple[str, ...]
    environment: dict[str, Any]
    losses: tuple[LossRecord, ...]
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    made: str = ""
    command: str = ""

    @property
    def ok(self) -> bool:
        """Whether every loss is."""
        return all(loss.ok for loss in self.losses)


def merged(parts: Sequence[LossRecord]) -> LossRecord:
    """Results of one loss that were made apart, as one record; names and roles are the first part's.

    Raises:
        ValueError: no parts, or parts of different losses.
    """
    names = sorted({part.name for part in parts})
    if len(names) != 1:
        raise ValueError(f"got parts of losses {names}, expected parts of one loss")

    def every(name: str) -> Iterator[Any]:
        return (each for part in parts for each in getattr(part, name))

    added = ("outcomes", "check_times", "measurements", "comparisons", "growths", "crossovers")
    told_once = ("implementations", "suggestions", "notes")
    found: dict[str, Any] = {name: tuple(every(name)) for name in added} | {
        name: tuple(dict.fromkeys(every(name))) for name in told_once
    }
    return replace(parts[0], findings=in_order(every("findings")), **found)


def digest(data: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that name JSON data."""
    return hashlib.sha256(json.dumps(plain(data), sort_keys=True).encode()).hexdigest()[:8]


def plain(value: Any) -> Any:
    """The same value in JSON types: non-finite numbers and foreign objects become text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)


def json_text(data: Any) -> str:
    """The text of a file of JSON, a line for each entry."""
    return json.dumps(plain(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def dumps(report: Report) -> str:
    """The text of `report.json`; `loads` gives an equal report back."""
    return json_text(asdict(report))


def loss_dumps(loss: LossRecord) -> str:
    """One loss as JSON text, to be sent between processes; `loss_loads` gives an equal record back."""
    return json.dumps(plain(asdict(loss)), allow_nan=False)


def loss_loads(text: str) -> LossRecord:
    """The record that `loss_dumps` wrote.

    Raises:
        ReportError: a field that is missing or of another type.
    """
    return record(LossRecord, json.loads(text), "loss")


def loads(text: str) -> Report:
    """The report that `dumps` wrote.

    Raises:
        ReportError: not JSON, another schema version, or a field that is missing or of another type.
    """
    try:
        data = parse_json(text)
    except ValueError as error:
        raise ReportError(f"not a report: {error}; a report is the report.json that loss-harness wrote") from error
    if not isinstance(data, Mapping):
        raise ReportError(f"not a report: a JSON {type(data).__name__} came, but a report is an object")
    version = data.get("schema")
    if version in (3, 4, 5):
        data = _upgraded(data, int(version))
    elif version != SCHEMA_VERSION:
        raise ReportError(
            f"a report of schema {shown(version)} came, but this version of loss-harness reads schema 3 to {SCHEMA_VERSION}; "
            f"make the report anew, or read it with the version that wrote it ({shown(data.get('tool', 'unknown'))})"
        )
    report = record(Report, data, "report")
    for loss in report.losses:
        for finding in loss.findings:
            if finding.failure and not FAILURE_NAME.fullmatch(finding.failure):
                raise ReportError(
                    f"got failure {shown(finding.failure)}, expected the name of a .json file, without folders"
                )
    return report


def _upgraded(data: Mapping[str, Any], version: int) -> dict[str, Any]:
    """A report of schema 3, 4 or 5.

    Schema 3 knew neither when it was made nor where the losses are, schema 4 neither columns, nor what could not be
    measured, nor what constructors and first calls take, and schema 5 not the number of elements; that stays unknown.
    What stays the same along a sweep stood in one field before schema 6.
    """
    unknown = (
        {"description": "", "sources": []},
        {"sentence": "", "scope": [], "settle": []},
        {"made": "", "command": ""},
    )
    of_loss, of_verdict, of_report = unknown if version == 3 else ({}, {}, {})
    unbuilt = {"build_seconds": None, "first_seconds": None, "elements": None}
    try:
        losses = [
            of_loss
            | loss
            | {"verdicts": [of_verdict | verdict for verdict in loss["verdicts"]]}
            | {"outcomes": [{"unmeasured": False} | outcome for outcome in loss["outcomes"]]}
            | {"sources": [{"column": 1} | source for source in (of_loss | loss)["sources"]]}
            | {"measurements": [unbuilt | measurement for measurement in loss["measurements"]]}
            | {"growths": [_in_a_cell(growth) | {"at": growth["sizes"]} for growth in loss["growths"]]}
            | {"crossovers": [_in_a_cell(crossover) for crossover in loss["crossovers"]]}
            for loss in data["losses"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReportError(f"not a report of schema {version}: {told(error)} in its losses") from error
    return of_report | dict(data) | {"schema": SCHEMA_VERSION, "losses": losses}


def _in_a_cell(old: Mapping[str, Any]) -> dict[str, Any]:
    """A growth or crossover of schema 5, whose fixed densities stood beside the sizes as ``density(NAME)``."""
    densities = {name: value for name, value in old["fixed"].items() if name.startswith("density(")}
    sizes = {name: int(value) for name, value in old["fixed"].items() if name not in densities}
    named = {name.removeprefix("density(").removesuffix(")"): value for name, value in densities.items()}
    return dict(old) | {"sizes": sizes, "densities": named}


def record(cls: type[R], data: Any, where: str) -> R:
    """A dataclass from its fields as JSON types.

    Raises:
        ReportError: a field that is missing or of another type; ``where`` it stands.
    """
    if not isinstance(data, Mapping):
        raise ReportError(f"{where} is {type(data).__name__}, expected an object")
    kinds = _kinds(cls)  # type: ignore[arg-type]
    missing = [name for name in kinds if name not in data]
    if missing:
        raise ReportError(f"{where} lacks {missing}; a report is the report.json that loss-harness wrote")
    return cls(
        **{  # of the many values most are of their type, and are said no place of
            name: value if type(value := data[name]) is kind else _value(kind, value, f"{where}.{name}")
            for name, kind in kinds.items()
        }
    )


@lru_cache(maxsize=32)
def _kinds(cls: type[Any]) -> Mapping[str, Any]:
    """Field -> type; read once, since a report may hold thousands of records."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def _value(kind: Any, data: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in get_args(kind):
            return None
        options = [option for option in get_args(kind) if option is not type(None)]
        several = [option for option in options if isinstance(data, (list, tuple)) and get_origin(option) is tuple]
        return _value((several or options)[0], data, where)
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            raise ReportError(f"{where} is {type(data).__name__}, expected an array")
        item = get_args(kind)[0]
        if all(type(entry) is item for entry in data):  # raw times are most of a report
            return tuple(data)
        return tuple(_value(item, entry, f"{where}[{position}]") for position, entry in enumerate(data))
    if hasattr(kind, "__dataclass_fields__"):
        return record(kind, data, where)
    allowed = get_args(kind) if origin is Literal else tuple(kind) if isinstance(kind, EnumType) else ()
    if allowed:
        if data not in allowed:
            raise ReportError(f"{where} is {shown(data)}, expected one of {list(map(str, allowed))}")
        return data if origin is Literal else kind(data)
    expected = origin or kind
    if expected is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, expected) or (expected is int and isinstance(data, bool)):
        raise ReportError(f"{where} is {shown(data)}, expected {expected.__name__}")
    if expected not in (dict, Mapping):
        return data
    inner = get_args(kind)[1]
    return (
        dict(data)
        if inner is Any
        else {key: _value(inner, item, f"{where}[{shown(key)}]") for key, item in data.items()}
    )
