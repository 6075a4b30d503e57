"""Events of a run, and callbacks that receive them: a progress display, the log of Python, a log of JSON lines."""

from lungmix.callbacks.callback import Callback, stage_events
from lungmix.callbacks.json_log import with_log_file
from lungmix.callbacks.log_warnings import LogWarnings

__all__ = ["Callback", "LogWarnings", "stage_events", "with_log_file"]
