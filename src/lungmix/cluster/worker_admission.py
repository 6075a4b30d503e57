"""Admission of workers: a worker with incompatible versions leaves the cluster before it gets work, and reports why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dask
import distributed
from distributed import Client, Scheduler, SchedulerPlugin, WorkerPlugin
from distributed.protocol.pickle import dumps
from distributed.versions import get_versions
from distributed.worker import WORKER_ANY_RUNNING

from lungmix._version import __version__
from lungmix.cluster.environment import describe_environment, incompatibility

TOPIC = "lungmix-rejected-workers"
"""Topic of events in the scheduler's log about rejected workers."""


def register_admission(client: Client) -> None:
    """Register plugins that check present and future workers of a cluster before they get tasks.

    A worker without lungmix, or with another version of lungmix, dask or distributed, logs an event and leaves; its
    tasks go to other workers. Compatible workers get `TaskMetricsPlugin`. After the client has left, any worker may
    join.
    """
    name = f"lungmix-gate-{client.id}"
    client.register_plugin(AdmissionEnd(client.id, name), name=f"{name}-end")
    client.register_plugin(_admission_plugin(), name=name)


class AdmissionEnd(SchedulerPlugin):
    """Scheduler plugin that removes the admission plugin of a client when the client leaves or is lost."""

    idempotent = True

    def __init__(self, client: str, admission: str):
        self._client, self._admission = client, admission

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Remove the admission plugin if this client left; see distributed."""
        if client == self._client and self._admission in scheduler.worker_plugins:
            scheduler.loop.add_callback(self._remove_admission, scheduler)

    async def _remove_admission(self, scheduler: Scheduler) -> None:
        """Remove the plugin from the scheduler and from its workers.

        The function of distributed for this would log errors when the whole cluster ends, because workers that are
        closing remove their plugins themselves.
        """
        scheduler.worker_plugins.pop(self._admission, None)
        running = [address for address, worker in scheduler.workers.items() if worker.status in WORKER_ANY_RUNNING]
        message = {"op": "run", "function": dumps(_plugin_remover()), "kwargs": dumps({"name": self._admission})}
        await scheduler.broadcast(msg=message, workers=running, on_error="ignore")
        scheduler.plugins.pop(f"{self._admission}-end", None)


def describe_rejected_worker(message: Mapping[str, Any]) -> str:
    """Return the warning about a rejected worker, from its event of `TOPIC`."""
    client_packages = get_versions()["packages"]
    worker_packages = {"packages": message["packages"]}
    lungmix_version = message["lungmix"] or ModuleNotFoundError(name="lungmix")
    difference = incompatibility(lungmix_version, worker_packages, client_packages)
    return (
        f"worker {message['worker']} {difference}, and this program has {describe_environment(client_packages)}: the "
        "worker is not used; install the same versions there and start it again"
    )


def _plugin_remover() -> Callable[..., None]:
    # A local function is pickled with its code, as the admission plugin is.
    def remove(name: str, dask_worker: Any) -> None:
        # A closing worker is about to remove all its plugins, and fails on those that are missing.
        if not dask_worker.status.name.startswith("clos"):
            dask_worker.plugins.pop(name, None)

    return remove


def _admission_plugin() -> WorkerPlugin:
    # A local class is pickled with its code, so that workers without lungmix, or with another version, can load it.
    class Admission(WorkerPlugin):
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
                metrics_plugin = pkgutil.resolve_name("lungmix.cluster.task_metrics:TaskMetricsPlugin")()
                if metrics_plugin.name not in worker.plugins:
                    await worker.plugin_add(metrics_plugin, metrics_plugin.name)
                return
            packages = get_versions()["packages"]
            worker.log_event(self._topic, {"worker": worker.address, "lungmix": version, "packages": packages})
            # A joining worker does not receive tasks yet; those assigned to it go to other workers.
            reason = f"{self._topic}: this worker has lungmix {version}, the run has {self._expected[0]}"
            await worker.scheduler.retire_workers(
                workers=[worker.address], close_workers=False, remove=True, stimulus_id=reason
            )
            # Close only after the response to this request has been sent.
            worker.loop.call_later(0.2, worker.close, reason=reason)

    return Admission(TOPIC, (__version__, dask.__version__, distributed.__version__))
