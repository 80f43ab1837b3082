"""A process that has imported what every job needs, and nothing of the user's: a job is a fork of it, which takes milliseconds.

Started as ``python -m harness.isolation.zygote DESCRIPTOR MODULE...``; the descriptor is a socket over which the sandbox
sends a socket for each job.  It ends when that socket is closed.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys

from harness.isolation.supervisor import supervise

READY = b"ready"


def watch(job: socket.socket) -> None:
    """Become the supervisor of a job, in a fork that has nothing else to do; never returns."""
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        supervise(job)
    finally:
        os._exit(0)


def serve(control: socket.socket) -> None:
    """Fork a supervisor for each job that comes, until nobody can ask any more."""
    while True:
        try:
            _, descriptors, _, _ = socket.recv_fds(control, 16, 1)
        except ConnectionResetError:  # closed before it has read that this process was ready
            return
        if not descriptors:
            return
        if os.fork() == 0:
            control.close()
            watch(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])


def main() -> None:
    """Entry point of the process."""
    descriptor, *modules = sys.argv[1:]
    control = socket.socket(fileno=int(descriptor))
    gc.disable()  # modules leave little behind, and looking for it takes a sixth of the time
    for name in modules:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are not waited for
    gc.freeze()  # a collection in a fork would copy every page that it marks
    gc.enable()
    try:
        control.sendall(READY)
    except OSError:
        return  # whoever started it has ended meanwhile
    serve(control)


if __name__ == "__main__":
    main()
