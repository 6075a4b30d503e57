"""A cohort on disk, as users read it: a mapping of cases, the model and the table of measurements."""

from __future__ import annotations

import io
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from lungmix.errors import CaseNotFoundError, StoreError, count_of, error_about
from lungmix.store import zarr_adapter
from lungmix.store.case import Case
from lungmix.store.case_registry import read_register
from lungmix.store.formatting_html import cohort_html
from lungmix.store.lock import LockCheckedStore, locked
from lungmix.store.metadata import ATTRIBUTE, MISSING, read_case, read_cases
from lungmix.store.objects import clear_partials
from lungmix.store.opening import Mode, check_folder, root_group
from lungmix.store.schema import CASE_NAME, MEASUREMENTS_FILE
from lungmix.store.zarr_adapter import unwrap
from lungmix.store.zarr_store import is_remote, zarr_store

if TYPE_CHECKING:
    import pandas as pd

    from lungmix.mixture import TissueModel


class Cohort(Mapping[str, Case]):
    """Mapping of case names to cases; see `open_cohort`."""

    def __init__(self, url: str, group: zarr.Group, mode: Mode = "r+"):
        self.url = url
        self._group = group
        self._mode: Mode = mode

    def __getitem__(self, name: object) -> Case:
        if not isinstance(name, str) or not CASE_NAME.fullmatch(name):
            raise self._no_case(name)
        group = read_case(self._group, name)
        if group is None or group == MISSING:
            raise self._no_case(name)
        if isinstance(group, str):
            raise StoreError(_damaged(name, group), path=self.url, case=name)
        return Case(name, group)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self[name] is not None
        except (KeyError, StoreError):
            return False

    def case(self, name: str) -> Case:
        """Return the case of this name.

        Raises
        ------
        StoreError
            If there is no such case, or its metadata are missing or corrupt; the message then names the remedy.
        """
        try:
            return self[name]
        except CaseNotFoundError:
            if name in self.damaged:
                raise StoreError(self.damaged[name], path=self.url, case=name) from None
            raise

    def _no_case(self, name: object) -> CaseNotFoundError:
        return CaseNotFoundError(
            f"{self.url} has no case {name!r}: `Cohort.keys()` lists them", path=self.url, case=str(name)
        )

    def __iter__(self) -> Iterator[str]:
        return (case.name for case in self._cases())

    def __len__(self) -> int:
        return sum(1 for _ in self._cases())

    def items(self) -> ItemsView[str, Case]:
        """Return names and cases; each iteration reads the metadata of each case once, some hundred cases at a time."""
        return _Items(self)

    def values(self) -> ValuesView[Case]:
        """Return the cases; each iteration reads the metadata of each case once, some hundred cases at a time."""
        return _Values(self)

    def _cases(self) -> Iterator[Case]:
        return (Case(name, group) for name, group in read_cases(self._group) if isinstance(group, zarr.Group))

    @property
    def damaged(self) -> dict[str, str]:
        """Message with the remedy for each case whose ``zarr.json`` is corrupt; iteration over cases skips these."""
        groups = read_cases(self._group)
        return {name: _damaged(name, fault) for name, fault in groups if isinstance(fault, str)}

    @property
    def register(self) -> dict[str, dict[str, str]]:
        """Cache key ``key`` and source digest ``source`` of each scan with a case name, converted or not, by name."""
        return read_register(self._group).cases

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """Failed ``stage`` and ``reason`` of each scan for which no case could be created, by case name."""
        failures = {name: origin for name, origin in self.register.items() if "reason" in origin}
        present = set(self) if failures else set()
        return {
            name: {"stage": origin["stage"], "reason": origin["reason"]}
            for name, origin in failures.items()
            if name not in present
        }

    def __repr__(self) -> str:
        return f"<Cohort {self.url}: {count_of(len(self), 'case')}>"

    def _repr_html_(self) -> str:
        return cohort_html(self.url, self)

    @property
    def settings(self) -> dict[str, Any]:
        """Attributes of the store: versions of format and package, parameters of the last run, record of the fit."""
        return dict(self._group.attrs[ATTRIBUTE])  # type: ignore[arg-type]

    @property
    def model(self) -> TissueModel:
        """Mixture of the store, by which the next labels are computed. `Case.model` is that of the labels of a case.

        Raises
        ------
        StoreError
            If the store has no mixture, or its file does not match its digest.
        """
        # Imported here, as it loads mixtures, which most tasks do not need.
        from lungmix.store.models import stored_model

        return stored_model(self)

    def measurements(self) -> pd.DataFrame:
        """Return the table of measurements as a pandas data frame, with one row per labelled case.

        The columns are explained in `docs/measurements.md` and by ``lungmix measure --dictionary``.

        Raises
        ------
        StoreError
            If nothing was measured yet.
        """
        import pandas as pd

        text = self.read_text(MEASUREMENTS_FILE)
        if not text:
            raise StoreError(f"{self.url} has no measurements: run `Pipeline.run(sources)` first", path=self.url)
        table = pd.read_csv(io.StringIO(text), dtype={"case": str, "preset": str, "model": str, "mask": str})
        labelled = {name for name, case in self.items() if case.has_labels}
        return table[table["case"].isin(labelled)].reset_index(drop=True)

    @contextmanager
    def locked(self, *, wait: bool = False, warn: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the write lock of this store within a ``with`` block; readers need no lock.

        The methods of `lungmix.Pipeline` lock the store themselves. At the beginning of the block, changes that other
        processes have made since this cohort was opened are read.

        Parameters
        ----------
        wait : bool
            True to wait for the end of another process that holds the lock.
        warn : callable, optional
            Called with a message if another process is waited for.

        Raises
        ------
        LockedError
            If another process holds the lock and `wait` is False. Another process may take the lock over during the
            block, if this process sends no heartbeat for five minutes. Then every later write through this cohort and
            its cases raises this error, and so does the end of the block.
        """
        store = unwrap(self._group.store)
        with locked(store, self.url, wait=wait, warn=warn) as handle:
            self._group = root_group(LockCheckedStore(store, handle), self.url, self._mode, is_locked=True)
            try:
                clear_partials(store)
                yield
            finally:
                self._group = zarr_adapter.group_at(store, self._group.path, self._group.attrs.asdict())

    def read_text(self, name: str) -> str | None:
        """Read a text file of the store; None if there is none."""
        content = self.read_bytes(name)
        return None if content is None else content.decode("utf-8", "replace")

    def read_bytes(self, name: str) -> bytes | None:
        """Read the bytes of a file of the store; None if there is none."""
        return zarr_adapter.read(self._group.store, self._key(name))

    def _key(self, name: str) -> str:
        path = self._group.path
        return f"{path}/{name}" if path else name


class _Items(ItemsView[str, Case]):
    _mapping: Cohort

    def __iter__(self) -> Iterator[tuple[str, Case]]:
        return ((case.name, case) for case in self._mapping._cases())


class _Values(ValuesView[Case]):
    _mapping: Cohort

    def __iter__(self) -> Iterator[Case]:
        return self._mapping._cases()


def open_cohort(url: str | Path, mode: Mode = "r") -> Cohort:
    """Open a store, or create it with mode ``a`` where there is none.

    Parameters
    ----------
    url : str or Path
        Folder or URL of the store.
    mode : {"r", "r+", "a"}
        Read only, read and write, or read and write and create.

    Returns
    -------
    Cohort
        Mapping of case names to `Case`.

    Raises
    ------
    StoreError
        If there is no store (`StoreNotFoundError`), if `url` is something else than a store, or if the metadata of the
        store are corrupt; mode ``a`` rewrites corrupt metadata. Metadata of a case are checked when the case is read,
        see `Cohort.damaged`.
    """
    location = str(url)
    with error_about(path=location):
        if not is_remote(location):
            check_folder(Path(location), creating=mode == "a")
        return Cohort(location, root_group(zarr_store(location), location, mode), mode)


def _damaged(name: str, fault: str) -> str:
    return (
        f"case {name}: its zarr.json {fault}: run `Pipeline.run(sources)` with the source of the scan, or "
        "remove it with `Pipeline.remove(names)`"
    )
