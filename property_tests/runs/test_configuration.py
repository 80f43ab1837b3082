import inspect
from pathlib import Path

import pytest

from harness import benchmark, verify
from harness.checking.session import PROFILES
from harness.cli.commands import COMMANDS
from harness.errors import HarnessError
from harness.runs import configuration
from harness.runs.configuration import OPTIONS, Configuration, ConfigurationError, find
from harness.runs.ledger import Request


def write(folder, table, header="[tool.loss-harness]"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(f"{header}\n{table}\n")
    return folder / "pyproject.toml"


def test_every_option_can_have_a_default(tmp_path):
    file = write(
        tmp_path,
        'select = ["G", "C02"]\nignore = "B03, P"\nprofile = "quick"\nseed = 7\ndevice = ["cpu", "cuda"]\nbudget = 5\n'
        'pass = "full"\ndtype = ["float32", "bfloat16"]\ncache = "warm, cold"\nclock = ["wall"]\ncompile = true',
    )
    assert find(tmp_path) == Configuration(
        file,
        {
            "select": ("G", "C02"),
            "ignore": ("B03", "P"),
            "profile": "quick",
            "seed": 7,
            "device": "cpu,cuda",
            "budget": 5.0,
            "pass": "full",
            "dtype": "float32,bfloat16",
            "cache": "warm,cold",
            "clock": "wall",
            "compile": True,
        },
    )


def test_the_nearest_file_with_a_table_counts(tmp_path):
    outer = write(tmp_path, "seed = 1")
    write(tmp_path / "inner", "line-length = 100", header="[tool.ruff]")
    assert find(tmp_path / "inner" / "deep").file == outer
    inner = write(tmp_path / "inner", "seed = 2")
    assert find(tmp_path / "inner" / "deep") == Configuration(inner, {"seed": 2})


def test_a_project_without_a_table_has_chosen_nothing(tmp_path):
    write(tmp_path, "", header="[project]")
    assert configuration.read(tmp_path / "pyproject.toml") is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("profil = 'ci'", r"unknown key 'profil'; did you mean 'profile'\?; it may have targets, select, ignore"),
        ("format = 'json'", r"unknown key 'format'; it belongs to a command, such as \[tool.loss-harness.verify\]"),
        ("[tool.loss-harness.verfy]", r"unknown key 'verfy'; did you mean 'verify'\?"),
        (
            "[tool.loss-harness.verify]\nformt = 'json'",
            r"\[tool.loss-harness.verify\] has an unknown key 'formt'; did you mean 'format'",
        ),
        (
            "[tool.loss-harness.diff]\nseed = 1",
            r"\[tool.loss-harness.diff\] has an unknown key 'seed'; it may have format",
        ),
        ("verify = 3", r"unknown key 'verify'"),
        ("color = 'red'", r"color = 'red', expected one of auto, always, never"),
        ("targets = 3", r"targets = 3, expected TARGETs"),
        ("baseline = ''", r"baseline = '', expected a file"),
        ("profile = 'thorogh'", r"profile = 'thorogh', expected one of quick, ci.*did you mean 'thorough'"),
        ("profile = 3", r"profile = 3, expected one of"),
        ("seed = true", r"seed = True, expected a whole number"),
        ("seed = 1.5", r"seed = 1.5, expected a whole number"),
        ("budget = 0", r"budget = 0, expected a positive number of seconds"),
        ("budget = inf", r"budget = inf, expected"),
        ("select = [1]", r"select = \[1\], expected codes or prefixes"),
        ("cache = 'lukewarm'", r"cache = 'lukewarm', expected some of warm, cold"),
        ("compile = 1", r"compile = 1, expected true or false"),
        ("pass = 3", r"pass = 3, expected some of forward, backward, full"),
        ("device = []", r"device = \[\], expected cpu, cuda or both"),
        ("seed = ", r"cannot be read as TOML"),
    ],
)
def test_what_cannot_be_understood_names_the_file_and_what_is_allowed(tmp_path, table, message):
    file = write(tmp_path, table)
    with pytest.raises(ConfigurationError, match=message) as caught:
        find(tmp_path)
    assert str(caught.value).startswith(f"{file}: ")
    assert isinstance(caught.value, HarnessError)


def test_a_tool_that_is_no_table_is_refused(tmp_path):
    write(tmp_path, "loss-harness = 3", header="[tool]")
    with pytest.raises(ConfigurationError, match=r"tool.loss-harness = 3, expected a table"):
        find(tmp_path)


def test_a_file_that_is_asked_for_must_have_a_table(tmp_path):
    file = write(tmp_path, "", header="[project]")
    with pytest.raises(ConfigurationError, match="has no table"):
        configuration.given(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        configuration.given(Path("nowhere.toml"))


def test_the_profiles_are_those_of_the_verification():
    assert tuple(PROFILES) == configuration.PROFILES


def test_a_table_of_a_command_stands_beside_what_is_for_all(tmp_path):
    write(tmp_path, 'quiet = true\n[tool.loss-harness.verify]\nquiet = false\nformat = "json"')
    chosen = find(tmp_path)
    assert chosen.values == {"quiet": True}
    assert chosen.commands == {"verify": {"quiet": False, "format": "json"}}


def test_paths_are_seen_from_the_folder_of_the_file(tmp_path, monkeypatch):
    write(
        tmp_path,
        'targets = ["losses", "mine.py:SPEC", "deep/other.py"]\nbaseline = "accepted.json"\n'
        '[tool.loss-harness.report]\nout = "out"',
    )
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    chosen = find(Path.cwd())
    assert chosen.values["targets"] == ("losses", "../mine.py:SPEC", "other.py")
    assert (chosen.values["baseline"], chosen.commands["report"]["out"]) == ("../accepted.json", "../out")


def test_every_key_of_a_command_is_an_option_of_it():
    parameters = {command.name: {p.name for p in command.params} for command in COMMANDS}
    for name, keys in configuration.COMMANDS.items():
        assert {OPTIONS[key].parameter or key for key in keys} <= parameters[name]
    assert parameters["verify"] > {"targets"}


def test_no_command_has_an_option_of_this_name_that_the_table_does_not_give_it():
    mine = {option.parameter or option.name for option in OPTIONS.values()} - {"form"}
    for command in COMMANDS:
        if command.name in configuration.COMMANDS:
            known = {OPTIONS[key].parameter or key for key in configuration.COMMANDS[command.name]}
            assert {p.name for p in command.params} & mine <= known


@pytest.mark.parametrize("function", [verify, benchmark, Request])
def test_python_has_the_defaults_of_the_command_line(function):
    """``devices=("cpu",)`` in Python is ``--device cpu``; what Python has no default for, it must be told."""
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    compared = 0
    for option in OPTIONS.values():
        default = defaults.get(option.parameter or option.name)
        if option.default is None or default is None:
            continue
        compared += 1
        names = [str(one).removeprefix("torch.") for one in default] if isinstance(default, tuple) else None
        assert option.default == (default if names is None else ",".join(names)), option.name
    assert compared >= 2


def test_what_the_command_line_takes_is_what_the_file_takes():
    """The values of a choice, from the one table."""
    commands = {command.name: {p.name: p for p in command.params} for command in COMMANDS}
    for option in OPTIONS.values():
        for name in option.commands if option.kind == "one" else ():
            assert tuple(commands[name][option.parameter or option.name].type.choices) == option.choices
            assert [option.understand(choice) for choice in (*option.choices, "other")] == [*option.choices, None]
