"""Workers that join during a run: what is not fit for it leaves before it is given work, and says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distributed import Client, Scheduler, SchedulerPlugin, WorkerPlugin
from distributed.protocol.pickle import dumps
from distributed.versions import get_versions
from distributed.worker import WORKER_ANY_RUNNING

from lungmix._version import __version__
from lungmix.cluster.environment import describe_environment, fault_of

TOPIC = "lungmix-strangers"
"""Under which workers tell that they are not fit."""


def register_admission(client: Client) -> None:
    """Look at the workers of a cluster before they get tasks, those that are there and those that will join.

    A worker without lungmix, or with another version of it, of dask or of distributed, tells of it and leaves; its
    tasks go to the others. All others get the plugin that watches tasks. Once the client is gone, any worker may join.
    """
    name = f"lungmix-gate-{client.id}"
    client.register_plugin(AdmissionEnd(client.id, name), name=f"{name}-end")
    client.register_plugin(_gate(), name=name)


class AdmissionEnd(SchedulerPlugin):
    """Opens the gate of a client that has left, in whatever way."""

    idempotent = True

    def __init__(self, client: str, gate: str):
        self._client, self._gate = client, gate

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """See distributed."""
        if client == self._client and self._gate in scheduler.worker_plugins:
            scheduler.loop.add_callback(self._open, scheduler)

    async def _open(self, scheduler: Scheduler) -> None:
        """Take the gate from the scheduler and from its workers.

        Workers of a cluster that ends close at the same time and drop their plugins themselves. Distributed's own
        message takes that for a failure, of the worker and of the scheduler.
        """
        scheduler.worker_plugins.pop(self._gate, None)
        running = [address for address, worker in scheduler.workers.items() if worker.status in WORKER_ANY_RUNNING]
        message = {"op": "run", "function": dumps(_forgetter()), "kwargs": dumps({"name": self._gate})}
        await scheduler.broadcast(msg=message, workers=running, on_error="ignore")
        scheduler.plugins.pop(f"{self._gate}-end", None)


def complaint(message: Mapping[str, Any]) -> str:
    """One sentence of what a worker told under `TOPIC`."""
    here = get_versions()["packages"]
    there = {"packages": message["packages"]}
    ours = message["lungmix"] or ModuleNotFoundError(name="lungmix")
    return (
        f"worker {message['worker']} {fault_of(ours, there, here)}; here are {describe_environment(here)}: it is not "
        "used; install "
        "the same there and start it again"
    )


def _forgetter() -> Callable[..., None]:
    # Travels with its code, as the gate does.
    def forget(name: str, dask_worker: Any) -> None:
        # A worker that closes is about to drop all its plugins, and fails on those that are gone.
        if not dask_worker.status.name.startswith("clos"):
            dask_worker.plugins.pop(name, None)

    return forget


def _gate() -> WorkerPlugin:
    import dask
    import distributed

    # A class of a function travels with its code: workers without lungmix, or with another one, understand it too.
    class Gate(WorkerPlugin):
        idempotent = True

        def __init__(self, topic: str, expected: tuple[str, ...]):
            self._topic, self._expected = topic, expected

        async def setup(self, worker: Any) -> None:
            import pkgutil

            import dask
            import distributed
            from distributed.versions import get_versions

            try:
                version = pkgutil.resolve_name("lungmix._version:__version__")
            except ImportError:
                version = None
            if (version, dask.__version__, distributed.__version__) == self._expected:
                watch = pkgutil.resolve_name("lungmix.cluster.task_metrics:TaskMetricsPlugin")()
                if watch.name not in worker.plugins:
                    await worker.plugin_add(watch, watch.name)
                return
            packages = get_versions()["packages"]
            worker.log_event(self._topic, {"worker": worker.address, "lungmix": version, "packages": packages})
            # A worker that joins does not listen for tasks yet: what it was meant to do goes elsewhere.
            reason = f"{self._topic}: here is lungmix {version}, the run has {self._expected[0]}"
            await worker.scheduler.retire_workers(
                workers=[worker.address], close_workers=False, remove=True, stimulus_id=reason
            )
            # Not before the answer to whoever sent this is on its way.
            worker.loop.call_later(0.2, worker.close, reason=reason)

    return Gate(TOPIC, (__version__, dask.__version__, distributed.__version__))
