import json
import os
import subprocess
from dataclasses import replace

import pytest
import report_examples as examples

from harness.report import html, writer
from harness.results import schema

NAME = "graph_distance-G01-3f2a.json"


def write(folder, *, found=True, **changes):
    made = examples.report(examples.loss(findings=(examples.finding(),) if found else (), **changes))
    return made, writer.write_report(folder, made, {NAME: {"schema": 1}} if found else {})


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_the_folder_holds_the_report_the_timings_and_the_failures(tmp_path):
    folder = tmp_path / "a" / "b"
    made, paths = write(folder)
    assert names(folder) == ["failures", f"failures/{NAME}", "report.html", "report.json", "report.md", "timings.csv"]
    assert paths[-1] == folder / "report.json"
    assert schema.loads((folder / "report.json").read_text()) == made
    assert json.loads((folder / "failures" / NAME).read_text()) == {"schema": 1}


def test_a_new_report_removes_what_the_old_one_left_and_nothing_else(tmp_path):
    write(tmp_path)
    (tmp_path / "failures" / "mine.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path, found=False, measurements=())
    assert names(tmp_path) == ["failures", "failures/mine.json", "notes.txt", "report.html", "report.json", "report.md"]


def test_results_stay_as_they_were_where_the_new_ones_cannot_be_written(tmp_path, monkeypatch):
    write(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path) if (tmp_path / name).is_file()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(writer.FolderError, match="No space left on device"):
        write(tmp_path, found=False)
    monkeypatch.undo()
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path) if (tmp_path / name).is_file()} == before


def test_a_place_that_is_no_folder_is_refused_before_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(writer.FolderError, match=r"cannot write reports to .*file"):
        writer.check_folder(tmp_path / "file")


def test_an_old_report_that_names_files_outside_makes_nothing_vanish(tmp_path):
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    folder = tmp_path / "report"
    made = examples.report(examples.loss(findings=(examples.finding(failure="../../outside.json"),)))
    writer.write_report(folder, made, {})
    write(folder, found=False)
    assert outside.exists()


def test_an_interrupted_report_does_not_replace_a_complete_one(tmp_path):
    interrupted = examples.report(examples.loss(missing="interrupted"))
    assert writer.folder_for(tmp_path, interrupted) == tmp_path
    complete, _ = write(tmp_path)
    assert writer.folder_for(tmp_path, interrupted) == tmp_path / "interrupted"
    assert writer.folder_for(tmp_path, complete) == tmp_path


def test_the_same_results_give_the_same_bytes(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "two")
    for name in ("report.json", "timings.csv", f"failures/{NAME}"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_one_file_is_written_whole(tmp_path):
    writer.write_text(tmp_path / "new" / "out.json", "text")
    assert names(tmp_path) == ["new", "new/out.json"]


# --- what the tool keeps for itself in a project


def test_the_own_folder_keeps_itself_out_of_a_repository(tmp_path):
    writer.write_failures(tmp_path, {})
    assert names(tmp_path) == []
    writer.write_failures(tmp_path, {NAME: {"schema": 1}})
    own = tmp_path / ".loss-harness"
    assert names(own) == [".gitignore", "failures", f"failures/{NAME}"]
    assert "*" in (own / ".gitignore").read_text().splitlines()
    (own / ".gitignore").unlink()  # whoever wants failures in the repository may say so
    writer.write_failures(tmp_path, {NAME: {"schema": 1}})
    assert names(own) == ["failures", f"failures/{NAME}"]


def test_git_sees_nothing_of_the_own_folder(tmp_path):
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    writer.write_own(tmp_path, "passed.json", "{}")
    assert subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True).stdout == b""


def test_the_oldest_failures_go_and_no_other_files(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "MOST_FAILURES", 3)
    folder = tmp_path / ".loss-harness" / "failures"
    for number in range(6):
        writer.write_failures(tmp_path, {f"loss-B01-{number}.json": {}})
        os.utime(folder / f"loss-B01-{number}.json", (number, number))
    (folder / "notes.txt").write_text("mine")
    writer.write_failures(tmp_path, {"loss-B01-0.json": {}, "loss-B01-9.json": {}})
    assert names(folder) == [*(f"loss-B01-{number}.json" for number in (0, 3, 4, 5, 9)), "notes.txt"]


def test_very_many_losses_have_pages_which_go_with_their_report(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "MANY", 1)
    two = examples.report(replace(examples.loss(), name="one"), replace(examples.loss(), name="Two"))
    paths = writer.write_report(tmp_path, two, {})
    pages = [html.page_name("one"), html.page_name("Two")]
    assert paths[-3:] == [*(tmp_path / page for page in pages), tmp_path / "report.json"]
    assert all("All losses" in (tmp_path / page).read_text() for page in pages)
    assert "one" in (tmp_path / "report.md").read_text()
    writer.write_report(tmp_path, examples.report(replace(examples.loss(), name="one")), {})
    assert not (tmp_path / "losses").exists()
