"""What a budget is charged with on a machine that others keep busy."""

import pytest
from fake_time import FakeTime

from harness.timing import budget
from harness.timing.budget import Budget
from harness.timing.constants import STRETCH


class Busy(FakeTime):
    """A time in which this process has the processor for a part alone."""

    share = 1.0

    def process_time(self):
        return self.worked

    worked = 0.0

    def sleep(self, seconds):
        super().sleep(seconds)
        self.worked += self.share * seconds


@pytest.fixture
def busy(monkeypatch):
    made = Busy()
    monkeypatch.setattr(budget, "time", made)
    return made


@pytest.mark.parametrize(
    ("share", "is_wall", "spent"),
    [
        (1.0, False, 6.0),
        (0.5, False, 3.0),
        (0.1, False, 6.0 / STRETCH),  # a process that only waits comes to an end, too
        (4.0, False, 6.0),  # several threads
        (0.5, True, 6.0),  # a device works beside the host
    ],
)
def test_seconds_in_which_others_had_the_processor_count_in_part(busy, share, is_wall, spent):
    made = Budget(10.0, is_wall=is_wall)
    busy.share = share
    busy.sleep(6.0)
    assert made.spent == pytest.approx(spent)
    assert made.left == pytest.approx(10.0 - spent)


def test_what_is_no_losss_time_is_charged_to_none(busy):
    made = Budget(10.0)
    busy.sleep(1.0)
    with made.paused():
        busy.sleep(100.0)
    busy.sleep(1.0)
    assert made.spent == pytest.approx(2.0)
