"""What figures were taken under: versions, hardware, threads, allocator.  Nothing that names a machine or a person."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path, PurePath

import torch

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
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        **_gpu_state(str(getattr(properties, "uuid", ""))),
    }


def _gpu_state(uuid: str) -> dict[str, object]:
    """Driver, clocks and power limit as nvidia-smi gives them; unknown where it is not installed or fails."""
    fields = ",".join(_GPU_QUERY.values())
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    if uuid:
        command.append(f"--id=GPU-{uuid.removeprefix('GPU-')}")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return dict.fromkeys(_GPU_QUERY)
    values = [value.strip() for value in answer.splitlines()[0].split(",")] if answer.strip() else []
    if len(values) != len(_GPU_QUERY):
        return dict.fromkeys(_GPU_QUERY)
    found: dict[str, object] = {"driver": values[0]}
    for name, value in zip(list(_GPU_QUERY)[1:], values[1:], strict=True):
        found[name] = float(value) if value.replace(".", "", 1).isdigit() else None
    return found
