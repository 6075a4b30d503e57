"""A task that does nothing, where workers can import it as they import the kernels of the stages."""

import time


def empty(seconds, *inputs):
    """Sleep, if at all."""
    if seconds:
        time.sleep(seconds)
