import statistics
import time

import pytest
import torch

from harness import environment
from harness.timing import cold
from harness.timing.clocks import WallClock
from harness.timing.cold import Flush, flush_bytes
from harness.timing.constants import FLUSH_BYTES

CPU = torch.device("cpu")


def test_twice_a_known_cache_is_gone_through_else_256_mb(monkeypatch):
    monkeypatch.setattr(cold, "last_level_cache_bytes", lambda: 3_000_000)
    assert flush_bytes(CPU) == 6_000_000
    monkeypatch.setattr(cold, "last_level_cache_bytes", lambda: None)
    assert flush_bytes(CPU) == FLUSH_BYTES == 256 * 1024**2


def test_memory_is_taken_once_and_only_when_it_is_used(monkeypatch):
    made = []
    real = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, **kind: made.append(size) or real(*size, **kind))
    flush = Flush(CPU)
    assert made == []
    flush()
    flush()
    assert made == [(flush_bytes(CPU) // 8,)]


@pytest.mark.skipif(
    environment.last_level_cache_bytes() is None, reason="the system does not say how large its cache is"
)
def test_what_was_in_the_caches_is_no_longer_there_after_a_flush():
    value = torch.ones(2**17)  # 512 KiB: it stays in the caches from call to call
    flush = Flush(CPU)

    def median(clock):
        clock.warm_up(value.sum)
        return statistics.median(clock.block(value.sum, 1) for _ in range(15))

    assert median(WallClock(None, flush)) > 1.5 * median(WallClock())


def test_a_flush_for_which_there_is_no_memory_says_so(monkeypatch):
    monkeypatch.setattr(cold, "last_level_cache_bytes", lambda: 2**46)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        Flush(CPU)()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_flush_takes_as_long_as_the_caches_need():
    flush = Flush(torch.device("cuda"))
    flush()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    flush()
    torch.cuda.synchronize()
    assert time.perf_counter() - begin > 2e-5  # 256 MB at 13 TB/s, more than any device has
