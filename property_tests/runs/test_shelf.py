"""Records that a run keeps on disk come back as they were."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import html_examples as examples

from harness.results.schema import loss_dumps
from harness.runs.shelf import Shelf


def test_records_come_back_equal_by_place_and_in_their_order():
    shelf = Shelf()
    good, bad = examples.good(), examples.bad()
    for place, record in ((("cpu", "B01"), good), (("cpu", "B02"), bad), (("cpu", "B01"), bad)):
        shelf.put("mine", place, loss_dumps(record))
    shelf.put("other", ("cpu", "B01"), loss_dumps(bad))
    assert shelf.of("mine") == {("cpu", "B01"): [good, bad], ("cpu", "B02"): [bad]}
    assert shelf.of("none") == {}


def test_threads_that_write_and_read_at_a_time_lose_nothing():
    shelf = Shelf()

    def fill(number):
        for n in range(30):
            record = replace(examples.good(), name=f"{number}/{n}")
            shelf.put(f"loss_{number}", (str(n),), loss_dumps(record))
            assert len(shelf.of(f"loss_{number}")) == n + 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(fill, range(4)))
    assert [[r.name for (r,) in shelf.of(f"loss_{n}").values()] for n in range(4)] == [
        [f"{number}/{n}" for n in range(30)] for number in range(4)
    ]
