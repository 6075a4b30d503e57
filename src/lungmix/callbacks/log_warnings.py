"""Log of warnings of a run by the `logging` module, for notebooks and scripts."""

from __future__ import annotations

import logging

from lungmix.callbacks.callback import Callback
from lungmix.errors import redact

LOGGER = logging.getLogger("lungmix")


class LogWarnings(Callback):
    """Callback that logs warnings and failures of cases to the logger ``lungmix``, without names of files.

    If logging is not configured, Python prints these warnings to standard error, also in notebooks.
    """

    def on_case_end(self, case: str, failure: str | None = None) -> None:
        """See `Callback`."""
        if failure is not None:
            LOGGER.warning("%s failed: %s", case, redact(failure))

    def on_info(self, message: str) -> None:
        """See `Callback`."""
        LOGGER.info("%s", redact(message))

    def on_warning(self, message: str) -> None:
        """See `Callback`."""
        LOGGER.warning("%s", redact(message))
