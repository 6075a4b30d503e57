"""Callbacks that receive the events of a run: progress bars, the `logging` module, a log file in JSON Lines."""

from lungmix.callbacks.callback import Callback, stage_events
from lungmix.callbacks.json_log import with_log_file
from lungmix.callbacks.log_warnings import LogWarnings

__all__ = ["Callback", "LogWarnings", "stage_events", "with_log_file"]
