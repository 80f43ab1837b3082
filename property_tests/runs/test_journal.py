"""What came of each job survives whatever ends the run, and a run goes on only from what is its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from harness.report.writer import FolderError
from harness.runs.executors import Carried
from harness.runs.job import Job
from harness.runs.journal import FILE, Journal, JournalError
from harness.runs.ledger import Request

REQUEST = Request(profile="quick")
TARGETS = ["losses.focal"]


def job(code="G01", **changes):
    return Job(
        **{
            "kind": "verify",
            "targets": ("losses.focal",),
            "loss": "focal",
            "implementation": "naive",
            "device": "cpu",
            "codes": (code,),
            "suggests": False,
            "request": {},
        }
        | changes
    )


def carried(number):
    return Carried(({"step": "G01", "number": number, "text": "a\nb \u2028 é"},), "")


def journal(folder, *, resume=False, targets=TARGETS, request=REQUEST, code="abc"):
    return Journal(folder, targets, request, code=code, resume=resume)


def test_what_was_remembered_is_recalled_by_a_later_run(tmp_path):
    with journal(tmp_path) as first:
        first.remember(job("G01"), carried(1))
        first.remember(job("G02"), carried(2))
    with journal(tmp_path, resume=True) as second:
        assert second.jobs == 2
        assert second.recall(job("G01")) == carried(1)
        assert second.recall(job("G02")) == carried(2)
        assert second.recall(job("G03")) is None
        second.remember(job("G03"), carried(3))
    with journal(tmp_path, resume=True) as third:
        assert third.jobs == 3


def test_a_job_that_differs_is_another_job(tmp_path):
    with journal(tmp_path) as made:
        made.remember(job(verified="one"), carried(1))
        for other in (
            job(verified="two"),
            job(implementation="fast"),
            job(device="cuda"),
            job(kind="measure"),
            job("G02"),
        ):
            assert made.recall(other) is None


@pytest.mark.parametrize("cut", range(2, 60, 7))
def test_a_line_that_was_cut_off_is_absent_and_the_others_whole(tmp_path, cut):
    with journal(tmp_path) as first:
        first.remember(job("G01"), carried(1))
        first.remember(job("G02"), carried(2))
    file = tmp_path / FILE
    file.write_bytes(file.read_bytes()[:-cut])
    with journal(tmp_path, resume=True) as second:
        assert second.recall(job("G01")) == carried(1)
        assert second.recall(job("G02")) is None
        second.remember(job("G02"), carried(4))
    with journal(tmp_path, resume=True) as third:
        assert third.recall(job("G02")) == carried(4)


@pytest.mark.parametrize("position", [3, 40, 120])
def test_a_line_that_was_changed_is_absent(tmp_path, position):
    with journal(tmp_path) as first:
        first.remember(job("G01"), carried(1))
    file = tmp_path / FILE
    head, line, _ = file.read_bytes().split(b"\n")
    changed = line[:position] + bytes([line[position] ^ 1]) + line[position + 1 :]
    file.write_bytes(head + b"\n" + changed + b"\n")
    with journal(tmp_path, resume=True) as second:
        assert second.jobs == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": ["losses.mahalanobis"]}, "targets was"),
        ({"request": Request(profile="ci")}, "profile was 'quick' and is 'ci'"),
        ({"request": Request(profile="quick", seed=3)}, "seed was 0 and is 3"),
        ({"code": "def"}, "code was 'abc' and is 'def'"),
    ],
)
def test_a_run_of_something_else_is_refused_and_left_as_it_is(tmp_path, changes, said):
    with journal(tmp_path) as first:
        first.remember(job(), carried(1))
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(JournalError, match=said):
        journal(tmp_path, resume=True, **changes)
    assert (tmp_path / FILE).read_bytes() == before
    journal(tmp_path, resume=True).close()


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"{}\n", b"\x00\xff"])
def test_what_is_no_journal_is_refused(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(JournalError, match="no journal that this version can go on from"):
        journal(tmp_path, resume=True)


def test_where_there_is_nothing_to_go_on_from_a_run_begins(tmp_path):
    with journal(tmp_path, resume=True) as made:
        assert made.jobs == 0


def test_without_resume_a_run_begins_anew(tmp_path):
    with journal(tmp_path) as first:
        first.remember(job(), carried(1))
    with journal(tmp_path) as second:
        assert second.recall(job()) is None


def test_two_runs_cannot_have_one_folder(tmp_path):
    with journal(tmp_path) as first:
        with pytest.raises(FolderError, match="another run writes to"):
            journal(tmp_path)
        first.remember(job(), carried(1))
    with journal(tmp_path, resume=True) as later:
        assert later.jobs == 1


def test_a_run_that_ended_well_leaves_no_journal(tmp_path):
    with journal(tmp_path) as made:
        made.remember(job(), carried(1))
        made.finish()
    assert not (tmp_path / FILE).exists()


@contextlib.contextmanager
def as_nobody():
    """With no right to write to what belongs to others; root, who is refused nothing, becomes somebody else meanwhile."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="rights are those of POSIX")
def test_a_folder_that_cannot_be_written_is_refused_and_left_as_it_is():
    with tempfile.TemporaryDirectory() as name:  # that of pytest is closed to others
        folder = Path(name)
        (folder / "report.json").write_text("earlier")
        folder.chmod(0o555)
        with as_nobody(), pytest.raises(FolderError, match=r"cannot write.*Permission denied"):
            journal(folder)
        assert [file.name for file in folder.iterdir()] == ["report.json"]
        assert (folder / "report.json").read_text() == "earlier"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(FolderError, match="cannot write"):
        journal(file)
    assert file.read_text() == "mine"


def test_a_full_disk_is_told_and_loses_nothing(tmp_path):
    """A limit on the size of a file stands in for the disk."""
    code = (
        "import resource, signal, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_journal import carried, job, journal\n"
        "from pathlib import Path\n"
        "from harness.report.writer import FolderError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "made = journal(Path(sys.argv[1]))\n"
        "try:\n"
        "    for number in range(100):\n"
        "        made.remember(job(f'G{number:02}'), carried(number))\n"
        "except FolderError as error:\n"
        "    print(error)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large; what was found before is in it, and --resume goes on from there" in done.stdout
    with journal(tmp_path, resume=True) as later:
        assert later.jobs > 3
        assert all(later.recall(job(f"G{n:02}")) == carried(n) for n in range(later.jobs))


def test_a_run_that_is_killed_at_any_moment_leaves_whole_lines(tmp_path):
    code = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_journal import carried, job, journal\n"
        "from pathlib import Path\n"
        "made = journal(Path(sys.argv[1]))\n"
        "print('begun', flush=True)\n"
        "for number in range(100_000):\n"
        "    made.remember(job(f'G{number:05}'), carried(number))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for wait_s in (0.0, 0.02, 0.05):
        writing = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writing.stdout is not None
        assert writing.stdout.readline() == "begun\n"
        time.sleep(wait_s)
        writing.send_signal(signal.SIGKILL)
        writing.wait()
        writing.stdout.close()
        with journal(tmp_path, resume=True) as later:
            assert all(later.recall(job(f"G{n:05}")) == carried(n) for n in range(later.jobs))
        lines = (tmp_path / FILE).read_bytes().splitlines()
        assert all(json.loads(line.partition(b" ")[2]) for line in lines)
