"""Jobs on a dask cluster: any worker takes those for the CPU, those for CUDA go where a GPU is offered as a resource."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, told_in_a_line
from harness.runs import arrival
from harness.runs.remote import Remote

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from distributed import Client

_ANSWER_S = 5.0
_LOOK_S = 0.2
PATIENCE_S = 60.0  # a deployment that scales starts its first worker when there is something to do
GPU = "GPU"  # the name under which workers offer it: dask worker ADDRESS --resources GPU=1


class ClusterError(HarnessError, RuntimeError):
    """A cluster cannot be reached, or cannot carry out the jobs of a run."""


def cluster(address: str, *, patience_s: float = PATIENCE_S) -> Remote:
    """The dask cluster at an address, such as ``tcp://10.0.0.5:8786``.

    A job whose worker is lost is handed out again, by the scheduler and then by the driver.  Tasks travel as pickles, as dask
    does it: whoever can reach the scheduler can run code on the workers.

    Args:
        address: of the scheduler.
        patience_s: seconds to wait for a first worker, and for a first one with a GPU where a job needs it.

    Raises:
        ClusterError: distributed is not installed, nothing answers, no worker comes, or a worker has other versions.
    """
    client = _connected(address)
    try:
        _check_versions(client, address, patience_s)
    except BaseException:
        _release(client)
        raise
    return Remote(_Executors(client, address, patience_s).of, lambda: _release(client))


def _connected(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(
            f"a cluster needs the package distributed ({told_in_a_line(error)}); pip install 'loss-harness[cluster]'"
        ) from error

    class Released(Client):
        """One that is closed by this thread when it cannot connect, not by whichever thread collects it.

        Closing takes a lock that another client may hold while it starts and garbage is collected: that would wait for ever.
        """

        def start(self, **given: Any) -> None:
            try:
                # What accepts a connection and never speaks is waited for without end by what shakes hands.
                super().start(**given, callback_timeout=_ANSWER_S + 1)
            except BaseException:
                _release(self)
                raise

    try:
        return Released(address, timeout=_ANSWER_S, set_as_default=False)
    except (
        OSError,
        ValueError,
        TypeError,
        MemoryError,
    ) as error:  # the last where the length of a message is that of HTTP
        raise ClusterError(
            f"no scheduler answers at {address!r} within {_ANSWER_S:g} s: {told_in_a_line(error)}; start one with `dask scheduler`, "
            "and write the address that it prints, such as tcp://10.0.0.5:8786"
        ) from error


def _release(client: Client) -> None:
    try:
        client.close(timeout=_ANSWER_S)
    finally:
        client._loop_runner.stop()  # a client that has lost its scheduler, or found none, leaves its thread behind


def _check_versions(client: Client, address: str, patience_s: float) -> None:
    expected = arrival.versions()
    names = tuple(expected)

    # Within a function, so that it travels by value: a worker without the harness can answer it too.
    def installed() -> dict[str, str]:
        from importlib import metadata

        found = {}
        for name in names:
            try:
                if name == "loss-harness":
                    from harness.version import __version__ as own

                    found[name] = own
                else:
                    found[name] = metadata.version(name).partition("+")[0]
            except ImportError:  # also what metadata raises
                found[name] = ""
        return found

    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    asked = [(worker, client.submit(installed, pure=False, workers=[worker])) for worker in workers]
    there: list[tuple[str, dict[str, str]]] = []
    for worker, answer in asked or [("a worker", client.submit(installed, pure=False))]:
        try:
            there.append((worker, answer.result(timeout=patience_s)))
        except TimeoutError as error:
            said = f"the worker {worker} did not answer" if asked else "no worker came"
            raise ClusterError(
                f"{said} to the scheduler at {address} within {patience_s:g} s; start one with `dask worker {address}`"
            ) from error
    for worker, found in there:
        if found != expected:
            raise ClusterError(arrival.differing(worker, found, expected))


class _Executors:
    """One for jobs on the CPU, and one for those that take a GPU."""

    def __init__(self, client: Client, address: str, patience_s: float) -> None:
        self.client, self.address, self.patience_s = client, address, patience_s
        # Not pure: a job that is handed out again is a new task, not the one that was lost.
        self._plain: Executor = client.get_executor(pure=False)
        self._gpu: Executor = client.get_executor(pure=False, resources={GPU: 1})
        self._has_gpu = False

    def of(self, device: str) -> Executor:
        """For jobs of a device.

        Raises:
            ClusterError: the scheduler is gone, or no worker offers a GPU.
        """
        if self.client.status != "running":
            raise ClusterError(
                f"the scheduler at {self.address} was lost; what was found is kept: start it again and go on with --resume"
            )
        if device.partition(":")[0] != "cuda":
            return self._plain
        self._await_gpu(device)
        return self._gpu

    def _await_gpu(self, device: str) -> None:
        until = time.monotonic() + self.patience_s
        while not self._has_gpu:
            workers: dict[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
            self._has_gpu = any(worker["resources"].get(GPU, 0) >= 1 for worker in workers.values())
            if self._has_gpu:
                return
            if time.monotonic() > until:
                raise ClusterError(
                    f"{device}: none of the {len(workers)} workers at {self.address} offers a GPU; start one for each GPU with "
                    f"`dask worker {self.address} --nthreads 1 --resources GPU=1`, or leave {device} out of --device"
                )
            time.sleep(_LOOK_S)
