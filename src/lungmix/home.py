"""Home folder for users without one, as in containers that run under an arbitrary user id."""

from __future__ import annotations

import os
from pathlib import Path


def make_home_known() -> None:
    """Set ``HOME`` to the root folder where no home of the user can be determined.

    Container runtimes do the same. Libraries of dask's dashboard read settings in the home folder when they are
    imported, and fail without one. Processes that are started later inherit the variable.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"
