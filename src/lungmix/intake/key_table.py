"""The key table: a CSV file that says which case belongs to which patient.

It is written on request only, outside the store, and readable by its owner only (file mode 0600).
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from glob import escape
from pathlib import Path

from lungmix.atomic import atomic_write
from lungmix.errors import UsageError, mark_path
from lungmix.formats import Scan
from lungmix.formats.tables import rows_of, text_of
from lungmix.privacy.identity import Identity
from lungmix.store import Cohort, CohortWriter

_CASE_COLUMNS = ("store", "case", "source", "path", "date_shift_days")
COLUMNS = (*_CASE_COLUMNS, *(field.name for field in fields(Identity)))
"""Columns of the table.

They are the digest of the store, the case, the source label (such as ``source 2, item 17``), the path of the scan, the
shift of dates in days, and the fields of `Identity`.
"""

_MAX_SHIFT_DAYS = 3650
_LOCK_TIMEOUT_S = 60.0
_LOCKS_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Error codes of file systems that do not support locks."""

Row = dict[str, str]


class KeyTable:
    """Key table in memory, with one row per store and case.

    One file may have rows of several stores, and several runs may write it at the same time. It identifies a store by a
    digest, so that a store may be moved and renamed.
    """

    def __init__(self, path: Path, rows: Iterable[Mapping[str, str]] = ()):
        self.path = path
        self._rows = {(row["store"], row["case"]): dict(row) for row in rows}
        self._added: dict[tuple[str, str], Row] = {}

    @classmethod
    def read(cls, path: str | Path, *, new: bool = False) -> KeyTable:
        """Read the table in a file.

        Parameters
        ----------
        path : str or Path
            CSV file that `locked_rows` wrote, and that a spreadsheet program may have saved since.
        new : bool
            Return an empty table if the file is missing.

        Raises
        ------
        UsageError
            If the file is missing, unreadable, or not a key table.
        """
        file = Path(path)
        if new and not file.exists():
            return cls(file)
        try:
            rows = rows_of(text_of(file.read_bytes()), ("store", "case"))
        except OSError as error:
            raise UsageError(
                f"the key table {mark_path(file)} cannot be read ({error.strerror}): check the path"
            ) from None
        except (UnicodeDecodeError, csv.Error):
            raise UsageError(
                f"{mark_path(file)} is not a key table: give the file that `key` wrote, or a new one"
            ) from None
        columns, *lines = [cells for _, cells in rows] or [list(COLUMNS)]
        # An empty file counts as a new table. A file with other columns is of another kind.
        if not {"store", "case"} <= set(columns):
            raise UsageError(f"{mark_path(file)} is not a key table: give the file that `key` wrote, or a new one")
        return cls(file, [dict(zip(columns, [*cells, *[""] * len(columns)], strict=False)) for cells in lines])

    def rows_of(self, cohort: Cohort) -> dict[str, Row]:
        """Return the rows of a store, by case."""
        if "salt" not in cohort.settings:
            return {}
        digest = store_digest(cohort)
        return {case: row for (store, case), row in self._rows.items() if store == digest}

    def all_rows(self) -> dict[str, Row]:
        """Return the rows of all stores, by the digest of the store and the case."""
        return {f"{store} {case}": row for (store, case), row in self._rows.items()}

    def add_scan(self, cohort: Cohort, case: str, scan: Scan, source_label: str, *, shift: bool) -> int | None:
        """Add the row of a case, or replace it.

        Returns
        -------
        int or None
            Number of days by which dates of this patient are shifted; None unless `shift` is true.
        """
        key = (store_digest(cohort), case)
        identity = scan.identity or Identity()
        recorded_days = self._rows.get(key, {}).get("date_shift_days", "")
        days = self._choose_shift(identity, recorded_days) if shift else recorded_days
        self._rows[key] = self._added[key] = {
            "store": key[0],
            "case": case,
            "source": source_label,
            "path": str(Path(scan.path).absolute()),
            "date_shift_days": days,
            **{field.name: getattr(identity, field.name) or "" for field in fields(Identity)},
        }
        return int(days) if shift else None

    def drop_rows(self, cohort: Cohort, cases: Iterable[str]) -> None:
        """Remove the rows of cases of a store."""
        for case in cases:
            key = (store_digest(cohort), case)
            self._rows.pop(key, None)
            self._added.pop(key, None)

    @contextmanager
    def locked_rows(self) -> Iterator[None]:
        """Lock the file for a block that changes rows, and write it at the end of the block.

        The file is read again before the block, because other runs may have changed it since. Other runs wait for the
        lock until the block ends.

        Raises
        ------
        UsageError
            If the file cannot be read or written, or another run holds its lock for too long.
        """
        with _lock_file(self.path):
            # Add the rows of this run, which are not in the file if it was removed meanwhile.
            self._rows = KeyTable.read(self.path, new=True)._rows | self._added
            yield
            self._write()

    def _write(self) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(row for _, row in sorted(self._rows.items()))
        try:
            # Delete partial files of killed runs, because they contain names of patients.
            for leftover in self.path.parent.glob(f".{escape(self.path.name)}.*.partial"):
                leftover.unlink(missing_ok=True)
            with atomic_write(self.path) as partial_path:
                # Create it with its final mode, so that other users can never read it.
                handle = os.open(partial_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
                    stream.write(text.getvalue())
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def _choose_shift(self, identity: Identity, recorded_days: str) -> str:
        """Return the number of days that is recorded for any scan of a patient, or a new random number.

        A new number is from -3650 to -1, so that dates are shifted into the past.
        """
        if recorded_days:
            return recorded_days
        patient = identity.patient_id or identity.patient_name
        for row in self._rows.values():
            if patient and patient in (row.get("patient_id"), row.get("patient_name")) and row.get("date_shift_days"):
                return row["date_shift_days"]
        return str(-1 - secrets.randbelow(_MAX_SHIFT_DAYS))


@contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    """Lock a file during a block, so that other runs do not change it; the lock is on an empty file next to it."""
    lock_path = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _open_locked(lock_path)
    except OSError as error:
        raise _unwritable(path, error) from None
    if handle is None:
        raise UsageError(
            f"the key table {mark_path(path)} is being written by another run: wait until that run has ended, or end it"
        )
    try:
        yield
    finally:
        # Processes that wait for the lock notice that its file is gone, and create another.
        with suppress(OSError):
            lock_path.unlink()
        os.close(handle)


def _open_locked(lock_path: Path) -> int | None:
    """Open a file, lock it and return its handle; return None if another process holds the lock for 60 s."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        handle = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            is_locked = _try_lock(handle) and _is_at(handle, lock_path)
        except BaseException:
            os.close(handle)
            raise
        if is_locked:
            return handle
        os.close(handle)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)


def _try_lock(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # On a file system without locks, go on: two runs conflict only if they write at the same moment.
        if error.errno not in _LOCKS_UNSUPPORTED:
            raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"the key table {mark_path(path)} cannot be written ({error.strerror}): give another `key=FILE`")


def store_digest(cohort: Cohort) -> str:
    """Return the digest by which key tables identify a store."""
    return hashlib.sha256(f"key table {CohortWriter(cohort).salt}".encode()).hexdigest()[:16]


def check_outside(target: Path, parameter: str, *folders: str | Path | None) -> None:
    """Raise an error if a file would be written into a store or into another folder that may be shared.

    Parameters
    ----------
    target : Path
        File that is about to be written.
    parameter : str
        Name of the parameter with the file, for the message.
    folders : str, Path or None
        Folders that must not contain the file; remote addresses are ignored.

    Raises
    ------
    UsageError
        If a folder contains the file.
    """
    target_path = target.resolve()
    for folder in folders:
        if folder is not None and "://" not in str(folder):
            folder_path = Path(folder).resolve()
            if target_path == folder_path or folder_path in target_path.parents:
                raise UsageError(
                    f"`{parameter}` {mark_path(target)} would be inside {folder}, which may be shared: give a path "
                    "outside it"
                )
