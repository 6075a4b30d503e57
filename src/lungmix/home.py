"""A home for processes of users who have none, as in images that run under any number of a user."""

from __future__ import annotations

import os
from pathlib import Path


def make_home_known() -> None:
    """Set ``HOME`` to the root folder where no home of the user can be determined.

    Containers do the same. Libraries that dask loads for its dashboard look for settings in the home as they are
    imported, and fail where there is none; processes that are started later inherit the variable.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"
