import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import hostile
import pytest
import report_examples as examples
from click.testing import CliRunner

from harness import cli
from harness.report import index, index_html, writer
from harness.results import schema

OLD, NEW = "2026-01-02T03:04:05Z", "2026-02-03T04:05:06Z"


class Links(HTMLParser):
    """Where the links of a page lead, its elements and its text."""

    def __init__(self, page):
        super().__init__()
        self.links, self.ids, self.tags, self.text = [], set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.ids |= {found["id"]} if "id" in found else set()
        self.links += [found[name] for name in ("href", "src") if name in found and tag in ("a", "img", "script")]

    def handle_data(self, data):
        self.text += data


def put(folder, made, *losses, name="report.html"):
    folder.mkdir(parents=True, exist_ok=True)
    report = replace(examples.report(*losses), made=made)
    (folder / "report.json").write_text(schema.dumps(report), encoding="utf-8", errors="backslashreplace")
    if name:
        (folder / name).write_text("")
    return report


def run(*args):
    return CliRunner().invoke(cli.cli, ["index", *map(str, args)])


def page_of(*folders, file):
    entries, unread = index.gather(folders, file)
    return index_html.render(entries, unread, index.histories(entries))


def wrong(**changes):
    return examples.loss(findings=(examples.finding(),), outcomes=(examples.outcome(status="failed"),), **changes)


def test_reports_below_a_folder_are_found_the_newest_first(tmp_path):
    put(tmp_path / "reports" / "a", OLD)
    put(tmp_path / "reports" / "deep" / "b", NEW)
    put(tmp_path / "reports" / ".hidden" / "c", NEW)
    put(tmp_path / "reports" / "unknown", "")
    entries, unread = index.gather([tmp_path / "reports"], tmp_path / "reports" / "index.html")
    assert [entry.page for entry in entries] == ["deep/b/report.html", "a/report.html", "unknown/report.html"]
    assert unread == []


def test_a_report_that_is_named_twice_stands_once(tmp_path):
    put(tmp_path / "a", OLD)
    entries, _ = index.gather([tmp_path, tmp_path / "a", tmp_path / "a" / "report.json"], tmp_path / "index.html")
    assert len(entries) == 1


@pytest.mark.parametrize(
    ("name", "page"), [("report.html", "report.html"), ("report.md", "report.md"), ("", "report.json")]
)
def test_the_link_leads_to_what_a_person_would_open(tmp_path, name, page):
    put(tmp_path / "a", OLD, name=name)
    (entry,), _ = index.gather([tmp_path], tmp_path / "index.html")
    assert entry.page == f"a/{page}"


def test_what_cannot_be_read_is_listed_with_the_reason(tmp_path):
    put(tmp_path / "good", OLD)
    for name, text in (("broken", "{"), ("other", '{"schema": 99}'), ("list", "[]"), ("bytes", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(text)
    (tmp_path / "bytes" / "report.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    entries, unread = index.gather([tmp_path, tmp_path / "empty"], tmp_path / "index.html")
    assert [entry.folder for entry in entries] == ["good"]
    reasons = {each.folder: each.reason for each in unread}
    assert set(reasons) == {"broken/report.json", "other/report.json", "list/report.json", "bytes/report.json", "empty"}
    assert "schema 99" in reasons["other/report.json"]
    assert "holds no report.json" in reasons["empty"]
    shown = Links(page_of(tmp_path, file=tmp_path / "index.html"))
    assert "schema 99" in shown.text
    assert "unread" in shown.ids


def history(tmp_path, old, new):
    put(tmp_path / "old", OLD, old)
    put(tmp_path / "new", NEW, new)
    entries, _ = index.gather([tmp_path], tmp_path / "index.html")
    (found,) = index.histories(entries)
    return found


def test_a_history_has_verdict_errors_speedup_and_costs_then_and_now(tmp_path):
    found = history(tmp_path, wrong(), examples.loss())
    told = [(s.entry.folder, s.verdict.implementation, s.verdict.verdict, s.errors) for s in found.states]
    assert told == [
        ("new", "naive", "reference", 0),
        ("old", "naive", "reference", 0),
        ("new", "vectorized", "adopt", 0),
        ("old", "vectorized", "do not adopt", 1),
    ]
    state = found.states[2]
    assert state.comparison.speedup == 5.0
    assert state.costs == {"aten_calls": 7, "saved_bytes": 4096, "peak_bytes": 8192}
    assert state.place == "N=128, cpu, float32, full pass"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (examples.loss(), wrong(), "2 reports on 1 loss; 1 implementation must not be adopted now"),
        (wrong(), examples.loss(), "2 reports on 1 loss; 1 implementation can be adopted now"),
    ],
)
def test_the_headline_says_what_is_bad_in_the_newest_report_of_a_loss(tmp_path, old, new, told):
    found = history(tmp_path, old, new)
    entries = [state.entry for state in found.states if state.verdict.implementation == "naive"]
    assert index_html.headline(entries, [], [found]) == told


def test_exact_costs_say_their_own_pass_where_the_speedup_is_of_another(tmp_path):
    forward = examples.measurement(pass_name="forward", costs=examples.COSTS)
    put(tmp_path / "a", OLD, examples.loss(measurements=(forward,)))
    file = tmp_path / "index.html"
    entries, _ = index.gather([tmp_path], file)
    (found,) = index.histories(entries)
    assert found.states[1].costs_pass == "forward"
    assert "full pass" in found.states[1].place
    shown = Links(page_of(tmp_path, file=file)).text
    assert "speedup: N=128, cpu, float32, full pass; costs: N=128, cpu, float32, forward pass" in shown


def test_what_changed_since_the_report_before_is_told(tmp_path):
    grown = examples.measurement(costs=examples.COSTS | {"peak_bytes": 9011})
    new = wrong(measurements=(examples.measurement("naive"), grown))
    (step,) = history(tmp_path, examples.loss(), new).steps
    assert (step.old.folder, step.new.folder) == ("old", "new")
    assert step.changes[0] == "vectorized: adopt before, do not adopt now"
    assert step.changes[1].startswith("new: graph_distance / vectorized / G01")
    assert step.changes[2] == (
        "vectorized: peak_bytes grew from 8192 to 9011 (+10.00%) at N=128, cpu, float32, full pass"
    )


def test_what_came_in_and_what_is_gone_is_told(tmp_path):
    old = examples.loss(implementations=("naive", "vectorized"))
    new = examples.loss(implementations=("naive", "blocked"), outcomes=(examples.outcome("blocked"),))
    (step,) = history(tmp_path, old, new).steps
    assert any(change.startswith("blocked came in: ") for change in step.changes)
    assert any(change.startswith("vectorized is gone; it was: ") for change in step.changes)


def test_equal_reports_have_no_changes(tmp_path):
    (step,) = history(tmp_path, examples.loss(), examples.loss()).steps
    assert step.changes == ()
    assert "nothing changed" in Links(page_of(tmp_path, file=tmp_path / "index.html")).text


def test_many_changes_are_counted(tmp_path):
    calls = [examples.measurement(sizes={"N": n}) for n in range(1, 9)]
    grown = [replace(m, costs=m.costs | {"peak_bytes": 9000}) for m in calls]
    (step,) = history(
        tmp_path, examples.loss(measurements=tuple(calls)), examples.loss(measurements=tuple(grown))
    ).steps
    assert len(step.changes) == index.MOST_CHANGES + 1
    assert step.changes[-1] == "and 3 more"


def test_costs_that_cannot_be_compared_say_why_and_verdicts_are_compared_all_the_same(tmp_path):
    put(tmp_path / "old", OLD, examples.loss())
    report = put(tmp_path / "new", NEW, wrong())
    other = replace(report, environment={"cpu": {"torch": "9.9"}})
    (tmp_path / "new" / "report.json").write_text(schema.dumps(other))
    (found,) = index.histories(index.gather([tmp_path], tmp_path / "index.html")[0])
    (step,) = found.steps
    assert step.changes[0] == "vectorized: adopt before, do not adopt now"
    assert "exact costs are not compared" in step.changes[1]
    assert "9.9" in step.changes[1]


def test_every_link_is_relative_and_leads_to_a_file_that_is_there(tmp_path):
    put(tmp_path / "reports" / "100 % & more?#", OLD)
    put(tmp_path / "elsewhere" / "b", NEW)
    file = tmp_path / "site" / "index.html"
    links = Links(page_of(tmp_path / "reports", tmp_path / "elsewhere", file=file)).links
    outside = {link for link in links if not link.startswith("#")}
    assert len(outside) == 4  # two reports, and the loss in each of them
    for link in outside:
        parts = urlsplit(link)
        assert (parts.scheme, parts.netloc, parts.query) == ("", "", "")
        assert (file.parent / unquote(parts.path)).resolve().is_file()


def test_links_within_the_page_lead_somewhere_and_ids_occur_once(tmp_path):
    put(tmp_path / "a", OLD, examples.loss(), examples.loss(name="dice"))
    text = page_of(tmp_path, file=tmp_path / "index.html")
    found = Links(text)
    assert {link[1:] for link in found.links if link.startswith("#")} <= found.ids
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_text_from_outside_never_becomes_markup(tmp_path, text):
    plain_tags = set(Links(page_of_hostile(tmp_path / "plain", "name")).tags)
    found = Links(page_of_hostile(tmp_path / "hostile", text))
    assert set(found.tags) - {"wbr"} == plain_tags  # a name may be broken behind its joints
    assert not any(urlsplit(link).scheme for link in found.links)


def page_of_hostile(folder, text):
    put(folder / "old", OLD, hostile.loss(text))
    put(folder / "new", NEW, replace(hostile.loss(text), outcomes=()))
    return page_of(folder, file=folder / "index.html")


def test_the_command_writes_the_page_beside_the_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "reports" / "a", OLD)
    done = run()
    assert done.exit_code == 0, done.output
    assert done.output == "1 report on 1 loss; 1 implementation can be adopted now\nwritten: reports/index.html\n"
    assert (tmp_path / "reports" / "index.html").read_text().startswith("<!doctype html>")


def test_the_command_says_what_it_could_not_read_and_goes_on(tmp_path):
    put(tmp_path / "a", OLD)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "report.json").write_text("{")
    done = run(tmp_path)
    assert done.exit_code == 0
    assert "not read: b/report.json: not a report" in done.output


def test_without_any_report_the_command_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run().exit_code == 2
    assert "no folder reports here" in run().output
    Path("reports").mkdir()
    assert run().exit_code == 2


def test_a_report_that_was_written_is_found_with_its_page(tmp_path):
    writer.write_report(tmp_path / "a", replace(examples.report(), made=OLD), {})
    (entry,), _ = index.gather([tmp_path], tmp_path / "index.html")
    assert entry.page == "a/report.html"
    anchors = Links((tmp_path / "a" / "report.html").read_text()).ids
    linked = Links(page_of(tmp_path, file=tmp_path / "index.html")).links
    places = {link.partition("#")[2] for link in linked if link.startswith("a/") and "#" in link}
    assert places
    assert places <= anchors
