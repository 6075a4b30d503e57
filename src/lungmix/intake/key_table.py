"""Which case is whose: a table outside the store, written only where it is asked for, for its owner alone."""

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

from lungmix.errors import UsageError, mark_path
from lungmix.formats import Scan
from lungmix.formats.tables import rows_of, text_of
from lungmix.privacy.identity import Identity
from lungmix.store import Cohort

_OWN = ("store", "case", "source", "path", "date_shift_days")
COLUMNS = (*_OWN, *(field.name for field in fields(Identity)))
"""Store (a digest), case, place among the sources, path, shift of dates, and the fields of `Identity`."""

_LONGEST_SHIFT_DAYS = 3650
_PATIENCE_S = 60.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems answer that know no locks."""

Row = dict[str, str]


class KeyTable:
    """Rows of a key table by store and case.

    One file may serve several stores, and several runs at once; a store is known in it by a digest, so that it may be
    moved and renamed.
    """

    def __init__(self, path: Path, rows: Iterable[Mapping[str, str]] = ()):
        self.path = path
        self._rows = {(row["store"], row["case"]): dict(row) for row in rows}
        self._entered: dict[tuple[str, str], Row] = {}

    @classmethod
    def read(cls, path: str | Path, *, new: bool = False) -> KeyTable:
        """The table in a file, or an empty one if there is none yet.

        Parameters
        ----------
        path : str or Path
            A CSV file that `changed` wrote; a spreadsheet may have saved it since.
        new : bool
            Whether it may be missing.

        Raises
        ------
        UsageError
            If it is missing, or another kind of file.
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
                f"{mark_path(file)} is not a key table: give the file that --key wrote, or a new one"
            ) from None
        heads, *lines = [cells for _, cells in rows] or [list(COLUMNS)]
        # A file without any line is new; one line of another kind is somebody's.
        if not {"store", "case"} <= set(heads):
            raise UsageError(f"{mark_path(file)} is not a key table: give the file that --key wrote, or a new one")
        return cls(file, [dict(zip(heads, [*cells, *[""] * len(heads)], strict=False)) for cells in lines])

    def rows_of(self, cohort: Cohort) -> dict[str, Row]:
        """Rows of the cases of one store, by case."""
        if "salt" not in cohort.settings:
            return {}
        mine = store_digest(cohort)
        return {case: row for (store, case), row in self._rows.items() if store == mine}

    def enter(self, cohort: Cohort, case: str, scan: Scan, place: str, *, shift: bool) -> int | None:
        """Note whose scan a case is; what the table knew of it is replaced.

        Returns
        -------
        int or None
            Days by which dates of this patient are shifted, if they are to be.
        """
        key = (store_digest(cohort), case)
        known = scan.identity or Identity()
        before = self._rows.get(key, {}).get("date_shift_days", "")
        days = self._shift_of(known, before) if shift else before
        self._rows[key] = self._entered[key] = {
            "store": key[0],
            "case": case,
            "source": place,
            "path": str(Path(scan.path).absolute()),
            "date_shift_days": days,
            **{field.name: getattr(known, field.name) or "" for field in fields(Identity)},
        }
        return int(days) if shift else None

    def leave_out(self, cohort: Cohort, cases: Iterable[str]) -> None:
        """Forget cases that did not come into the store."""
        for case in cases:
            key = (store_digest(cohort), case)
            self._rows.pop(key, None)
            self._entered.pop(key, None)

    @contextmanager
    def changed(self) -> Iterator[None]:
        """Change the table in a block, and write it at its end.

        It is read again first, as other runs may have changed it, and these wait meanwhile.

        Raises
        ------
        UsageError
            If it cannot be read or written, or another run does not come to its end with it.
        """
        with _alone(self.path):
            # Rows of this run come again, should somebody have taken the file away.
            self._rows = KeyTable.read(self.path, new=True)._rows | self._entered
            yield
            self._write()

    def _write(self) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(row for _, row in sorted(self._rows.items()))
        passing = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        try:
            # Those of runs that were killed hold names too.
            for left in self.path.parent.glob(f".{escape(self.path.name)}.*.partial"):
                left.unlink(missing_ok=True)
            # The mode is that of the file from its first byte on.
            handle = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
                stream.write(text.getvalue())
            passing.replace(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from None
        finally:
            passing.unlink(missing_ok=True)

    def _shift_of(self, known: Identity, before: str) -> str:
        """Days for a patient: those that the table has for any scan of theirs, or new ones, into the past."""
        if before:
            return before
        who = known.patient_id or known.patient_name
        for row in self._rows.values():
            if who and who in (row.get("patient_id"), row.get("patient_name")) and row.get("date_shift_days"):
                return row["date_shift_days"]
        return str(-1 - secrets.randbelow(_LONGEST_SHIFT_DAYS))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from changing a file for the length of a block, by a lock on an empty one beside it."""
    beside = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _locked(beside)
    except OSError as error:
        raise _unwritable(path, error) from None
    if handle is None:
        raise UsageError(f"the key table {mark_path(path)} is being written by another run: wait for that, or end it")
    try:
        yield
    finally:
        # Who waits for it sees that it is another file by now, and makes its own.
        with suppress(OSError):
            beside.unlink()
        os.close(handle)


def _locked(beside: Path) -> int | None:
    """Open a file and lock it; None if others hold it for too long."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        handle = os.open(beside, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            taken = _try_lock(handle) and _is_at(handle, beside)
        except BaseException:
            os.close(handle)
            raise
        if taken:
            return handle
        os.close(handle)
        if time.monotonic() > end:
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
        # Without locks two runs have to come within the same moment to be in each other's way.
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"the key table {mark_path(path)} cannot be written ({error.strerror}): give another --key FILE")


def store_digest(cohort: Cohort) -> str:
    """What a store is called in key tables."""
    return hashlib.sha256(f"key table {cohort.salt}".encode()).hexdigest()[:16]


def check_outside(target: Path, option: str, *folders: str | Path | None) -> None:
    """Refuse to write into a store or a folder that is meant to be passed on.

    Parameters
    ----------
    target : Path
        What is to be written.
    option : str
        What asks for it on the command line.
    folders : str, Path or None
        Where it may not lie; addresses of other machines are passed over.

    Raises
    ------
    UsageError
        Which says where else to put it.
    """
    place = target.resolve()
    for folder in folders:
        if folder is not None and "://" not in str(folder):
            other = Path(folder).resolve()
            if place == other or other in place.parents:
                raise UsageError(
                    f"{option} {mark_path(target)} would lie inside {folder}, which may be passed on: give another "
                    "place"
                )
