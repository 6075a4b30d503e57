"""Events of a run, and what listens to them: a progress display, the log of Python, a log of JSON lines."""

from lungmix.callbacks.callback import Callback
from lungmix.callbacks.json_log import logged
from lungmix.callbacks.log_warnings import LogWarnings

__all__ = ["Callback", "LogWarnings", "logged"]
