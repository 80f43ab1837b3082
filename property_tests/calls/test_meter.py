import pytest
import report_examples as examples
import torch
from fake_time import FakeTime

from harness import LossSpec, TensorSpec, verify
from harness.calls.evaluation import Candidate
from harness.calls.meter import metered
from harness.report.check_times import check_times_text, loss_share
from harness.results.schema import CheckTimeRecord
from harness.rules.trial import Intermediates

TIME = FakeTime()


@pytest.fixture(autouse=True)
def only_what_is_called_takes_time(monkeypatch):
    monkeypatch.setattr("harness.calls.meter.time", TIME)


class Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        TIME.sleep(2)
        return x.sum()

    @staticmethod
    def backward(ctx, gradient):
        TIME.sleep(3)
        return gradient.expand(3)


def candidate(loss):
    spec = LossSpec("slow", {"only": loss}, inputs={"x": TensorSpec("B")}, output=TensorSpec(""))
    return Candidate(spec, "only")


def inputs():
    return {"x": torch.ones(3, requires_grad=True)}


def test_the_loss_and_autograd_are_timed_apart():
    with metered() as meter:
        value = candidate(lambda x: Slow.apply(x))(inputs())
        value.backward()
    assert meter.evaluations == 1
    assert (meter.loss_seconds, meter.autograd_seconds) == (2, 3)


def test_what_a_loss_differentiates_itself_is_not_counted_twice():
    def penalty(x):
        return torch.autograd.grad(Slow.apply(x), x)[0].sum()

    with metered() as meter:
        candidate(penalty)(inputs())
    assert (meter.loss_seconds, meter.autograd_seconds) == (5, 0)


def test_an_evaluation_under_a_watching_mode_is_counted_apart():
    with metered() as meter, Intermediates():
        candidate(lambda x: Slow.apply(x))(inputs())
    assert (meter.evaluations, meter.loss_seconds) == (1, 0)
    assert meter.watched_seconds == 2


def test_a_loss_that_raises_is_counted_and_the_meter_goes_on():
    def refuses(x):
        TIME.sleep(1)
        raise ValueError("no")

    with metered() as meter:
        for _ in range(2):
            with pytest.raises(Exception, match="ValueError: no"):
                candidate(refuses)(inputs())
    assert meter.evaluations == 2
    assert meter.loss_seconds == 2


def test_nothing_is_left_behind():
    before = (torch.autograd.grad, torch.autograd.backward)
    with pytest.raises(KeyError), metered():
        raise KeyError
    assert (torch.autograd.grad, torch.autograd.backward) == before


def test_findings_do_not_depend_on_the_meter():
    def spec():
        return LossSpec(
            "half",
            {"naive": lambda p, y: ((p - y) ** 2).mean(), "wrong": lambda p, y: ((p.detach() - y) * (p - y)).mean()},
            inputs={"p": TensorSpec("B"), "y": TensorSpec("B")},
            output=TensorSpec(""),
        )

    with metered():
        one = verify(spec(), profile="quick", rules=["G01", "E"])
    assert one.findings
    assert one == verify(spec(), profile="quick", rules=["G01", "E"])


def test_the_table_adds_up_and_gives_the_share():
    times = (
        CheckTimeRecord("naive", "G01", "cpu", 2.0, 5, 0.5, 0.75, 0.25),
        CheckTimeRecord("vectorized", "G01", "cpu", 1.0, 5, 0.25, 0.5, 0.0),
        CheckTimeRecord("naive", "B01", "cpu", 0.01, 1, 0.0, 0.0, 0.0),
    )
    assert loss_share(times) == pytest.approx(2 / 3.01)
    lines = check_times_text(examples.report(examples.loss(check_times=times))).splitlines()
    assert [line.split()[0] for line in lines] == ["rule", "G01", "1", "all", "66%"]
    assert lines[1].split() == ["G01", "3", "s", "10", "750", "ms", "1.25", "s", "250", "ms", "750", "ms"]


def test_nothing_measured_is_no_table():
    assert check_times_text(examples.report()) == ""
