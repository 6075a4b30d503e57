"""Home folder for users without one, as in containers that run under an arbitrary user id."""

from __future__ import annotations

import os
from pathlib import Path


def make_home_known() -> None:
    """Set the variable ``HOME`` to the root folder if the user has no home folder.

    Container runtimes do the same. Libraries of dask's dashboard read settings in the home folder when they are
    imported, and fail without one. Processes that are started later inherit the variable.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"
