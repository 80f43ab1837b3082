"""What a job may do to its process, for the tests of the sandbox."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from harness.isolation import worker


def write_pid(process, file):
    """The file is there only with the whole number in it: others wait for it."""
    part = Path(file + ".part")
    part.write_text(str(process))
    part.rename(file)


def perform(payload, tell):
    tell("step", payload["fault"])
    worker.note('{"case": 7}')
    tell("result", {"done": "before"})
    FAULTS[payload["fault"]](payload | {"tell": tell})
    tell("step", "after")
    tell("result", {"done": "after"})


def segfault(_):
    ctypes.string_at(0)


def segfault_in_the_next_step(payload):
    payload["tell"]("step", "next")
    segfault(payload)


def segfault_after_a_fork(payload):
    if (copy := os.fork()) == 0:
        worker.note('{"case": 8}')
    os.waitpid(copy, 0)
    segfault(payload)


def leave(_):
    os._exit(3)


def loop(_):
    while True:
        pass


def abort(_):
    os.abort()


def big_tensor(_):
    import torch

    torch.ones(1 << 33, dtype=torch.uint8)


def big_children(_):
    for _ in range(3):
        if os.fork() == 0:
            filled = bytearray(os.urandom(1)) * (200 << 20)
            time.sleep(60)
            print(len(filled))
    time.sleep(60)


def copy(_):
    os.fork()


def daemon(payload):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            write_pid(os.getpid(), payload["file"])
            time.sleep(60)
        os._exit(0)
    while not Path(payload["file"]).exists():
        time.sleep(0.01)


def deadlock(_):
    lock = threading.Lock()
    lock.acquire()
    threading.Thread(target=lock.acquire).start()


def flood(_):
    print("x" * 3_000_000, end="")
    os.write(2, b"the last words")
    raise ValueError("flooded")


def close_everything(_):
    os.closerange(3, 256)


def signal_group(_):
    os.killpg(os.getpgid(0), signal.SIGKILL)


def leave_quietly(_):
    sys.exit(5)


def helper_process(payload):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    write_pid(child.pid, payload["file"])


def change_surroundings(_):
    import torch

    torch.set_default_dtype(torch.float64)
    torch.nn.functional.mse_loss = None
    os.environ["CHANGED"] = "1"
    os.chdir("/")


def report_surroundings(payload):
    import torch

    Path(payload["file"]).write_text(
        f"{torch.get_default_dtype()} {callable(torch.nn.functional.mse_loss)} {'CHANGED' in os.environ} {os.getcwd()}"
    )


def sleeper(payload):
    write_pid(os.getpid(), payload["file"])
    time.sleep(3600)


def meet(payload):
    folder = Path(payload["folder"])
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < payload["together"]:
        time.sleep(0.01)


def nothing(_):
    pass


FAULTS = {
    name: value for name, value in list(globals().items()) if callable(value) and value not in (write_pid, perform)
}
