"""A CUDA device that is played: one timeline for its work, another for the host, and a log of what it is asked for.

`play` puts it in place of the functions of `torch.cuda` that the timing uses, and its clock in place of their `time`.  Work
is launched by `FakeCuda.launch`, which a played loss calls; nothing is computed.  Like the real one, the device runs what is
launched in order and beside the host, makes an event at its first record, gives no time between events that it has not
reached, and refuses what a capture forbids.  A failed end of a capture leaves behind what torch 2.11 leaves: the stream of
the capture, a pool that goes on recording, and a generator that refuses to draw.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch

from harness.timing.audit import Batches
from harness.timing.workload import inputs

LAUNCH_S = 5e-6  # of the host, for every launch
CREATION_S = 20e-6  # of the host, for every event at its first record
L2_BYTES = 50 * 2**20
MIB = 2**20


class Event:
    """An event, which is made when it is first recorded."""

    def __init__(self, device, enable_timing):
        assert enable_timing
        self.device, self.at = device, None

    def record(self):
        """Note when the device is done with what was launched before."""
        if self.at is None:
            self.device.log.append("event is made")
            self.device.host += CREATION_S
        self.device.log.append("event")
        self.at = max(self.device.host, self.device.busy_until)

    def elapsed_time(self, end):
        """Milliseconds, once the device has come there."""
        if end.at > self.device.host:
            raise RuntimeError("CUDA error: device not ready")
        return 1000 * (end.at - self.at)


class Stream:
    """A stream by its name."""

    def __init__(self, device, name="side"):
        self.device, self.name = device, name

    def wait_stream(self, other):
        """Note it: the one timeline keeps the order anyway."""
        self.device.log.append(f"{self.name} waits for {other.name}")


class Graph:
    """A graph: the seconds of what was launched while it was captured."""

    def __init__(self, device):
        self.device, self.seconds, self.is_captured = device, 0.0, False

    def replay(self):
        """One launch of all of it."""
        assert self.is_captured
        self.device.log.append("replay")
        self.device.launch(self.seconds, name="cudaGraphLaunch")

    def reset(self):
        """As in torch 2.11, of a capture that failed nothing is given back."""
        self.device.log.append("graph is reset")


class Generator:
    """A generator whose state may take itself for captured."""

    def __init__(self, is_captured=False):
        self.is_captured = is_captured

    def clone_state(self):
        """A state that is not captured."""
        return Generator()

    def graphsafe_set_state(self, other):
        """Take over another state."""
        self.is_captured = other.is_captured


class Buffer:
    """Memory of the device, with the few operations that the harness itself runs on it."""

    def __init__(self, device, nbytes):
        self.fake, self.nbytes, self.device = device, nbytes, device.name
        device.allocate(nbytes)

    def _run(self, name):
        self.fake.log.append(name)
        self.fake.launch(self.nbytes / 2e12)
        return self

    def zero_(self):
        """Write all of it."""
        return self._run("write")

    def add_(self, _):
        """Read and write all of it."""
        return self._run("add")

    def sum(self):
        """Read all of it."""
        return self._run("read")

    def __del__(self):
        self.fake.allocated -= self.nbytes


@dataclass
class FakeCuda:
    """The device.

    Args:
        name: of the device.
        memory: bytes that it has.
        l2_bytes: of its second-level cache.
        has_cupti: whether a profiler sees launches.
        blocks: whether the thread sleeps while it waits for the device, so that its own clock stands still.
    """

    name: str = "cuda:1"
    memory: int = 2**33
    l2_bytes: int = L2_BYTES
    has_cupti: bool = True
    blocks: bool = True
    host: float = 100.0
    worked: float = 50.0
    busy_until: float = 0.0
    allocated: int = 0
    peak: int = 0
    log: list[str] = field(default_factory=list)
    failure: Exception | None = None  # what the device has failed of, told at the next wait
    recording: dict[tuple[int, int], bool] = field(default_factory=dict)  # pools -> whether still recorded into
    launched: Counter[str] = field(default_factory=Counter)
    is_profiled: bool = False
    capturing: Graph | None = None

    def __post_init__(self):
        self.main = Stream(self, "main")
        self.current = self.main
        self.generator = Generator()

    # ---- what a played loss does -------------------------------------------------------------------------------------

    def launch(self, seconds, *, name="cudaLaunchKernel", host_s=LAUNCH_S):
        """Launch work that takes the device so long."""
        self.run_on_host(host_s)
        if self.is_profiled and self.has_cupti:
            self.launched[name] += 1
        if self.capturing is not None:
            self.capturing.seconds += seconds
        else:
            self.busy_until = max(self.busy_until, self.host) + seconds

    def run_on_host(self, seconds):
        """Work of this thread."""
        self.host += seconds
        self.worked += seconds

    def read_back(self):
        """What a capture forbids: a number of the device on the host."""
        if self.capturing is not None:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")
        self.synchronize()

    def draw(self):
        """A random operation."""
        if self.generator.is_captured and self.capturing is None:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        self.launch(1e-6)

    def allocate(self, nbytes):
        """Take memory, as far as there is any."""
        if self.allocated + nbytes > self.memory:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {nbytes / MIB:.2f} MiB.")
        self.log.append(f"allocate {nbytes // MIB} MiB")
        self.allocated += nbytes
        self.peak = max(self.peak, self.allocated)

    def compute_on_cpu(self, monkeypatch):
        """Make the inputs of its cells on the CPU, where the losses that play on it compute their values."""

        def made(spec, cell, seed, dtype=None, batch=""):
            return inputs(spec, replace(cell, device="cpu"), seed, dtype, batch)

        def copies(batches, *given):
            beside = copy(batches)
            beside.cell = replace(batches.cell, device="cpu")
            return real(beside, *given)

        real = Batches.copies
        monkeypatch.setattr(Batches, "copies", copies)
        for name in ("admission", "audit"):
            monkeypatch.setattr(f"harness.timing.{name}.inputs", made)

    # ---- torch.cuda --------------------------------------------------------------------------------------------------

    def synchronize(self, device=None):
        """Wait for the device."""
        self.log.append("wait")
        if self.failure is not None:
            raise self.failure
        waited = max(0.0, self.busy_until - self.host)
        self.host += waited
        self.worked += 0.0 if self.blocks else waited

    @contextmanager
    def on_stream(self, stream):
        """`torch.cuda.stream`."""
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def capture(self, graph, pool=(1, 0), stream=None):
        """`torch.cuda.graph`, whose end raises where the capture did, before it is back on the stream before it."""
        self.synchronize()
        before, self.current = self.current, stream
        assert stream is not self.main
        self.log.append("capture")
        self.capturing, self.recording[pool], self.generator.is_captured = graph, True, True
        try:
            yield
        except BaseException:
            self.capturing = None
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904
        self.log.append("captured")
        self.capturing, self.generator.is_captured, graph.is_captured, self.current = None, False, True, before
        self.end_pool(0, pool)

    def end_pool(self, device, pool):
        """`torch._C._cuda_endAllocateToPool`, which refuses a second end."""
        if not self.recording.get(pool):
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.recording[pool] = False

    def release_pool(self, device, pool):
        """`torch._C._cuda_releasePool`."""
        assert not self.recording.pop(pool), "a pool is released while it is recorded into"

    @contextmanager
    def profile(self, activities, acc_events=False):
        """`torch.profiler.profile`."""
        self.launched.clear()
        self.is_profiled = True
        try:
            yield SimpleNamespace(
                key_averages=lambda: [SimpleNamespace(key=key, count=count) for key, count in self.launched.items()]
            )
        finally:
            self.is_profiled = False

    def reset_peak(self, device):
        """`torch.cuda.reset_peak_memory_stats`."""
        self.peak = self.allocated

    def properties(self, device):
        """`torch.cuda.get_device_properties`."""
        return SimpleNamespace(
            name="played", total_memory=self.memory, L2_cache_size=self.l2_bytes, major=9, minor=0, uuid="0000"
        )

    # ---- time --------------------------------------------------------------------------------------------------------

    @property
    def time(self):
        """What the modules take for `time`."""
        return SimpleNamespace(
            perf_counter=lambda: self.host,
            thread_time=lambda: self.worked,
            process_time=lambda: self.worked,  # no other thread works
            time=lambda: self.host,
            sleep=self.sleep,
        )

    def sleep(self, seconds):
        """The thread is away."""
        self.host += seconds


TIMED = ("admission", "audit", "budget", "clock", "clocks", "compiled", "design", "quiet")


def play(monkeypatch, **changes):
    """A device in place of torch's, and its clock in place of the timing's."""
    fake = FakeCuda(**changes)
    pools = iter(range(1, 1000))

    @contextmanager
    def device(wanted):
        assert torch.device(wanted).type == "cuda"
        yield

    for name, value in {
        "Event": lambda enable_timing: Event(fake, enable_timing),
        "Stream": lambda wanted: Stream(fake),
        "CUDAGraph": lambda: Graph(fake),
        "graph": fake.capture,
        "graph_pool_handle": lambda: (0, next(pools)),
        "stream": fake.on_stream,
        "current_stream": lambda wanted: fake.current,
        "current_device": lambda: 0,
        "default_generators": (fake.generator,),
        "device": device,
        "synchronize": fake.synchronize,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 2,
        "get_device_properties": fake.properties,
        "memory_allocated": lambda wanted: fake.allocated,
        "max_memory_allocated": lambda wanted: fake.peak,
        "reset_peak_memory_stats": fake.reset_peak,
        "empty_cache": lambda: fake.log.append("empty cache"),
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": lambda mode: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", fake.end_pool, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", fake.release_pool, raising=False)
    monkeypatch.setattr(torch.profiler, "profile", fake.profile)
    monkeypatch.setattr(
        torch.profiler, "supported_activities", lambda: set(torch.profiler.ProfilerActivity.__members__.values())
    )
    for name in ("zeros", "empty"):
        monkeypatch.setattr(torch, name, _on(fake, getattr(torch, name)))
    for name in TIMED:
        monkeypatch.setattr(f"harness.timing.{name}.time", fake.time)
    return fake


def _on(fake, made):
    """A function that makes tensors, and memory of the device where it is asked for it."""

    def make(*size, **kind):
        if torch.device(kind.get("device", "cpu")).type != "cuda":
            return made(*size, **kind)
        return Buffer(fake, size[0] * kind.get("dtype", torch.float32).itemsize)

    return make
