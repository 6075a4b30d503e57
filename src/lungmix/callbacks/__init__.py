"""Events of a run, and what listens to them: a progress display, a log of JSON lines."""

from lungmix.callbacks.callback import Callback
from lungmix.callbacks.json_log import logged

__all__ = ["Callback", "logged"]
