"""What figures were taken under: versions, hardware, threads, allocator.  Nothing that names a machine or a person."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath

import torch

from harness.calls.backends import Setting

# Variables that change how memory is allocated or how many threads run, on any of the usual libraries.
_ALLOCATOR = (
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_ARENA_MAX",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
)
_GPU_QUERY = {
    "driver": "driver_version",
    "sm_clock_mhz": "clocks.sm",
    "memory_clock_mhz": "clocks.mem",
    "max_sm_clock_mhz": "clocks.max.sm",
    "power_limit_w": "power.limit",
}
_STATE_QUERY = {"sm_clock_mhz": "clocks.sm", "memory_clock_mhz": "clocks.mem", "temperature_c": "temperature.gpu"}
# The name since driver 535, and the one before it.
_LIMITS_QUERY = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
# Bits of the answer, from NVML's nvmlClocksEventReasons, https://docs.nvidia.com/deploy/nvml-api; those that slow the clocks
# down for heat or power.  Others, such as an idle device or a setting, hold from the beginning to the end.
_LIMITS = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
# A clock that changed by more is a difference of the size that a comparison calls one.
_STEADY = 0.05
_ANSWER_S = 10


def describe(device: str = "cpu") -> dict[str, object]:
    """What a measurement on ``device`` in this process is taken under, as JSON types.

    Holds no host name, user name or path.  ``gpu`` is ``None`` for a CPU and where there is none; what cannot be found
    out is ``None`` (unknown).

    Raises:
        RuntimeError: torch knows no such device.
    """
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "torch": str(torch.__version__),
        "platform": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "last_level_cache_bytes": last_level_cache_bytes(),
        "threads": torch.get_num_threads(),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "allocator": _allocator(),
        "device": device,
        "gpu": _gpu(device),
    }


def _cpu_model() -> str | None:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in {"model name", "Model", "cpu model"}:
                return value.strip()
    return platform.processor() or None


def last_level_cache_bytes() -> int | None:
    """Size of the last cache before memory, as the first core sees it; ``None`` (unknown) where the system does not say."""
    sizes: dict[int, int] = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, size = (folder / "level").read_text().strip(), (folder / "size").read_text().strip()
        except OSError:
            continue  # some virtual machines list a cache without its size
        digits, unit = size.rstrip("KMG"), size.lstrip("0123456789")
        if level.isdecimal() and digits.isdecimal() and unit in _UNITS:
            sizes[int(level)] = max(sizes.get(int(level), 0), int(digits) * _UNITS[unit])
    return sizes[max(sizes)] if sizes else None


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def _allocator() -> dict[str, object]:
    preloaded = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    settings: dict[str, object] = {name: os.environ[name] for name in _ALLOCATOR if name in os.environ}
    return {
        "c_library": " ".join(platform.libc_ver()).strip() or sys.platform,
        "preloaded": [PurePath(library).name for library in preloaded],
        "settings": settings,
    }


def _gpu(device: str) -> dict[str, object] | None:
    chosen = torch.device(device)
    if chosen.type != "cuda" or not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(chosen)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "l2_cache_bytes": properties.L2_cache_size,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        **_gpu_state(str(getattr(properties, "uuid", ""))),
        "float32": _float32_settings(),
    }


def _float32_settings() -> dict[str, object]:
    """What float32 products and convolutions on CUDA are computed in, and how convolutions are chosen; ``None`` is unknown.

    TF32 keeps 10 of 23 bits; by default convolutions use it and products do not.  Torch refuses to tell one of its two sets
    of names where a setting was made by the other, so both are asked.
    """
    asked = {
        "matmul_precision": "torch.get_float32_matmul_precision()",
        "matmul_allow_tf32": "torch.backends.cuda.matmul.allow_tf32",
        "matmul_fp32_precision": "torch.backends.cuda.matmul.fp32_precision",
        "cudnn_allow_tf32": "torch.backends.cudnn.allow_tf32",
        "cudnn_conv_fp32_precision": "torch.backends.cudnn.conv.fp32_precision",
        "cudnn_benchmark": "torch.backends.cudnn.benchmark",
        "cudnn_deterministic": "torch.backends.cudnn.deterministic",
    }
    return {name: Setting(setting).read() for name, setting in asked.items()}


def _gpu_state(uuid: str) -> dict[str, object]:
    """Driver, clocks and power limit as nvidia-smi gives them; unknown where it is not installed or fails."""
    values = _ask(tuple(_GPU_QUERY.values()), uuid)
    if values is None:
        return dict.fromkeys(_GPU_QUERY)
    found: dict[str, object] = {"driver": values[0]}
    return found | {name: _number(value) for name, value in zip(list(_GPU_QUERY)[1:], values[1:], strict=True)}


def _ask(fields: Sequence[str], uuid: str) -> list[str] | None:
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    if uuid:
        command.append(f"--id=GPU-{uuid.removeprefix('GPU-')}")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    values = [value.strip() for value in answer.splitlines()[0].split(",")] if answer.strip() else []
    return values if len(values) == len(fields) else None


def _number(text: str) -> float | None:
    return float(text) if text.replace(".", "", 1).isdigit() else None


def gpu_states(devices: Sequence[str]) -> dict[str, dict[str, object]]:
    """Clocks, temperature and what holds the clocks down, of each CUDA device among ``devices``, while it works.

    An idle device lowers its clocks, so it is kept busy until they are read.
    """
    states = {}
    for device in devices:
        if torch.device(device).type == "cuda" and torch.cuda.is_available():
            uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
            try:
                buffer = torch.empty(2**26, dtype=torch.uint8, device=device)
            except torch.OutOfMemoryError:  # others have it all; a device that does not work tells nothing
                states[device] = {**dict.fromkeys(_STATE_QUERY), "limits": None}
                continue

            def work(buffer: torch.Tensor = buffer) -> None:
                buffer.zero_()
                torch.cuda.synchronize(buffer.device)

            states[device] = _state(uuid, work)
    return states


def _state(uuid: str, work: Callable[[], None]) -> dict[str, object]:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_ask_state, uuid)
        while not asked.done():
            work()
        return asked.result()


def _ask_state(uuid: str) -> dict[str, object]:
    values = _ask(tuple(_STATE_QUERY.values()), uuid)
    state: dict[str, object] = dict.fromkeys(_STATE_QUERY)
    if values is not None:
        state = {name: _number(value) for name, value in zip(_STATE_QUERY, values, strict=True)}
    limits = _ask(_LIMITS_QUERY[:1], uuid) or _ask(_LIMITS_QUERY[1:], uuid)
    return {**state, "limits": None if limits is None else _limits(limits[0])}


def _limits(mask: str) -> list[str] | None:
    try:
        bits = int(mask, 16)
    except ValueError:
        return None
    return [name for bit, name in _LIMITS.items() if bits & bit]


def unsteady(before: Mapping[str, Mapping[str, object]], after: Mapping[str, Mapping[str, object]]) -> list[str]:
    """What made the speed of a device change between two `gpu_states`; empty where nothing is known to have."""
    found = []
    for device, later in after.items():
        earlier = before.get(device, {})
        for state, when in ((earlier, "before"), (later, "after")):
            limits = state.get("limits")
            if isinstance(limits, list) and limits:
                found.append(f"{device} was held down {when} the timing: {', '.join(limits)}")
        for name, what in (("sm_clock_mhz", "clock of its processors"), ("memory_clock_mhz", "clock of its memory")):
            old, new = earlier.get(name), later.get(name)
            if isinstance(old, float) and isinstance(new, float) and abs(new - old) > _STEADY * old:
                found.append(f"{device}: the {what} went from {old:g} to {new:g} MHz")
    return found
