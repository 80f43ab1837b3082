"""`loss-harness` for the shell scripts of tests, without the two seconds that importing torch takes at every start.

One process imports everything once and forks for each call; the command on the PATH hands it the arguments, the folder,
the environment and its own standard streams, and ends with the exit code that comes back.  What starts the jobs of a call is
shared by all of them too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = f"""#!{sys.executable} -ISX utf8
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(ADDRESS)
    request = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(connection, [json.dumps(request).encode() + b"\\n"], [0, 1, 2])
    code = connection.makefile().read()
sys.exit(int(code) if code else "the command ended without an exit code")
"""


@contextmanager
def command(folder: Path) -> Iterator[Path]:
    """A folder for the PATH that has `loss-harness`; the process behind it ends with the block."""
    address = folder / "socket"
    script = folder / "loss-harness"
    script.write_text(COMMAND.replace("ADDRESS", repr(str(address))))
    script.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, str(address)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield folder
    finally:
        server.kill()
        server.communicate()


def serve(address: str) -> None:
    """Answer calls until the process is killed."""
    import torch  # noqa: F401  # what takes long; nothing is computed, so that a fork has no threads to lose

    import harness.checking.verify  # noqa: F401
    from harness.cli import apart
    from harness.runs.preload import ALL_RULES, COMPILER, TIMING

    box = apart.box((*ALL_RULES, *COMPILER, *TIMING))
    if box is not None:
        box.run("builtins:print", "")  # any job will do: it starts what the calls then share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    """Run one call in this process, which ends with it."""
    import harness.cli

    received, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not received.endswith(b"\n"):
        received += connection.recv(1 << 20)
    request = json.loads(received)
    for stream, number in zip(streams, range(3), strict=True):
        os.dup2(stream, number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["loss-harness", *request["arguments"]]
    code = 1
    try:
        harness.cli.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(str(code).encode())
        os._exit(code)


if __name__ == "__main__":
    sys.path[:] = [place for place in sys.path if place != str(Path(__file__).parent)]
    serve(sys.argv[1])
