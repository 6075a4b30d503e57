"""A task that does nothing, in a module that workers can import."""

import time


def empty(seconds, *inputs):
    """Sleep for some seconds, or return at once for 0."""
    if seconds:
        time.sleep(seconds)
