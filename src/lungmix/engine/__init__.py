"""How work reaches a cluster: connection, cases in flight, memory, progress."""

from lungmix.engine.connect import check_memory, connect
from lungmix.engine.dashboard import dashboard_of, performance_page
from lungmix.engine.local import WORKER_ENVIRONMENT, WORKER_PRELOAD
from lungmix.engine.log import logged
from lungmix.engine.progress import Listener
from lungmix.engine.watch import Ledger, Spent
from lungmix.engine.window import Outcome, run_window

__all__ = [
    "WORKER_ENVIRONMENT",
    "WORKER_PRELOAD",
    "Ledger",
    "Listener",
    "Outcome",
    "Spent",
    "check_memory",
    "connect",
    "dashboard_of",
    "logged",
    "performance_page",
    "run_window",
]
