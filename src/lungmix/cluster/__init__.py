"""Work on a cluster of dask: connect, limit the cases in flight, check memory, measure tasks."""

from lungmix.cluster.bounded_map import ItemResult, map_bounded
from lungmix.cluster.connect import check_memory, connect
from lungmix.cluster.dashboard import dashboard_of, performance_page
from lungmix.cluster.local import WORKER_ENVIRONMENT, WORKER_PRELOAD
from lungmix.cluster.task_metrics import ResourceUsage, UsageRecorder

__all__ = [
    "WORKER_ENVIRONMENT",
    "WORKER_PRELOAD",
    "ItemResult",
    "ResourceUsage",
    "UsageRecorder",
    "check_memory",
    "connect",
    "dashboard_of",
    "map_bounded",
    "performance_page",
]
