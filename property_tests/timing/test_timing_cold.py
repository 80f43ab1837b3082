import pytest
import torch

from harness.results.measured import Cell
from harness.timing import cold
from harness.timing.cold import Flush, flush_bytes, flushes
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


def test_cold_cells_of_a_device_share_one_whose_memory_is_taken():
    cells = [Cell({"B": size}, "cpu", "float32", "full", cache) for size in (1, 2) for cache in ("cold", "warm")]
    made = flushes(cells)
    assert [*made] == ["cpu"]
    assert made["cpu"]._buffer is not None
    assert flushes(cells[1:2]) == {}


def test_the_want_of_memory_is_left_to_the_clock(monkeypatch):
    monkeypatch.setattr(cold, "last_level_cache_bytes", lambda: 2**46)
    assert flushes([Cell({}, "cpu", "float32", "full", "cold")])["cpu"]._buffer is None


def test_every_flush_reads_and_writes_all_of_the_memory():
    flush = Flush(CPU)
    for times in (1, 2):
        flush()
        assert flush._buffer.nbytes == flush_bytes(CPU) // 8 * 8
        assert bool((flush._buffer == times).all())


def test_a_flush_for_which_there_is_no_memory_says_so(monkeypatch):
    monkeypatch.setattr(cold, "last_level_cache_bytes", lambda: 2**46)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        Flush(CPU)()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_flush_writes_all_of_its_memory():
    flush = Flush(torch.device("cuda"))
    flush()
    flush._buffer.fill_(1)
    flush()
    assert flush._buffer.nbytes == flush_bytes(torch.device("cuda")) // 8 * 8
    assert not bool(flush._buffer.any())
