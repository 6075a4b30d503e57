"""Page of a data set: the HTML report of its cohort with all figures, in a folder of its own."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lungmix.atomic import atomic_write
from lungmix.callbacks import Callback
from lungmix.publish.folder import REPORT_FOLDER, sum_of
from lungmix.publish.versions import EarlierVersion
from lungmix.store import Cohort
from lungmix.webpage.page import write_page


def write_report(
    cohort: Cohort,
    target: Path,
    title: str,
    scores: Mapping[str, float],
    earlier: EarlierVersion | None,
    callback: Callback,
) -> dict[str, str]:
    """Write the page and its figures, and return the sums of its files by path in the data set.

    Parameters
    ----------
    cohort : Cohort
        The store.
    target : Path
        Folder of the data set.
    title : str
        Title of the page.
    scores : mapping of str to float
        A radiologist's score by case.
    earlier : EarlierVersion or None
        Version in another folder, whose files with equal bytes are linked.
    callback : Callback
        Receives progress and warnings.
    """
    folder = target / REPORT_FOLDER
    # The folder is made again, so that it keeps no file of an earlier call.
    with atomic_write(folder) as partial:
        partial.mkdir(parents=True)
        write_page(cohort, partial, scores=scores, title=title, callback=callback)
        if earlier is not None and not earlier.is_replaced:
            _link_equal_files(partial, earlier.folder / REPORT_FOLDER)
    return {file.relative_to(target).as_posix(): sum_of(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def without_report(target: Path) -> dict[str, str]:
    """Remove a page that an earlier call wrote; return no sums."""
    shutil.rmtree(target / REPORT_FOLDER, ignore_errors=True)
    return {}


def _link_equal_files(folder: Path, before: Path) -> None:
    for file in folder.rglob("*"):
        same = before / file.relative_to(folder)
        if file.is_file() and same.is_file() and filecmp.cmp(file, same, shallow=False):
            link = file.with_name(f".{file.name}.link")
            # Where the file system has no links, the file stays as it was written.
            with suppress(OSError):
                os.link(same, link)
                link.replace(file)
