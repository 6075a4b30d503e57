"""Writer of a cohort: cases, settings, files and the registry of scans."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from lungmix._version import __version__
from lungmix.errors import StoreError
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import zarr_adapter
from lungmix.store.case import Case
from lungmix.store.case_registry import Register, read_register
from lungmix.store.case_writer import CaseWriter
from lungmix.store.cohort import Cohort
from lungmix.store.lock import check_free
from lungmix.store.metadata import ATTRIBUTE, check_cohort_metadata
from lungmix.store.schema import CASE_NAME, FILES, REGISTER_FILE
from lungmix.store.zarr_adapter import unwrap
from lungmix.store.zarr_store import is_remote


class CohortWriter:
    """Writer of a cohort.

    Parameters
    ----------
    cohort : Cohort
        The cohort, opened for writing. If this process holds its lock (`Cohort.locked`), each write checks the lock.
    """

    def __init__(self, cohort: Cohort):
        self._cohort = cohort

    @property
    def salt(self) -> str:
        """Random hexadecimal digits of this store, for digests of values that could be guessed."""
        if "salt" not in self._cohort.settings:
            self._read_settings()
        if "salt" not in self._cohort.settings:
            registered_salt = read_register(self._cohort._group).salt
            self.record_settings(salt=registered_salt or secrets.token_hex(16))
        return str(self._cohort.settings["salt"])

    def record_settings(self, **values: Any) -> None:
        """Change the given settings of the cohort, and remove those that are None.

        All others are read first, as another process may have set them.
        """
        self._read_settings()
        settings = {**self._cohort.settings, **values, "lungmix_version": __version__}
        removed = {key for key, value in values.items() if value is None}
        self._cohort._group.attrs[ATTRIBUTE] = {key: value for key, value in settings.items() if key not in removed}

    def _read_settings(self) -> None:
        content = self._cohort.read_bytes("zarr.json")
        # If the metadata are corrupt now, they are rewritten from the settings that were read earlier.
        if content is not None and check_cohort_metadata(content) is None:
            group = zarr_adapter.open_group(self._cohort._group.store_path)
            if ATTRIBUTE in group.attrs:
                self._cohort._group = group

    def add(
        self,
        name: str,
        geometry: Geometry,
        acquisition: Acquisition,
        origin: Mapping[str, str] | None = None,
        chunk_slices: int | None = None,
    ) -> CaseWriter:
        """Create a case; an earlier case of the same name is deleted.

        Parameters
        ----------
        name : str
            Name of the case.
        geometry, acquisition : Geometry, Acquisition
            Attributes of the scan.
        origin : mapping of str to str, optional
            ``key`` and ``source`` of the conversion, by which an interrupted conversion is recognized later.
        chunk_slices : int, optional
            Number of slices of a chunk; by default, `lungmix.store.chunking.layout_of` chooses it.
        """
        if not CASE_NAME.fullmatch(name):
            raise StoreError(f"{name!r} cannot name a case: use a-z, 0-9, '.', '_' and '-'", case=name)
        self.remove(name)
        case = CaseWriter(Case(name, self._cohort._group.create_group(name)))
        case.begin(geometry, acquisition, origin, chunk_slices)
        return case

    def remove(self, name: str) -> None:
        """Delete a case with all its objects, if it exists."""
        if not CASE_NAME.fullmatch(name) or name in FILES:
            raise StoreError(f"{name!r} is not the name of a case: `Cohort.keys()` lists them")
        # Metadata first: an interrupted deletion leaves no case with missing objects.
        zarr_adapter.delete(self._cohort._group.store, self._cohort._key(f"{name}/zarr.json"))
        for is_last_attempt in (False, False, True):
            try:
                zarr_adapter.delete_folder(self._cohort._group.store, self._cohort._key(name))
                return
            except OSError:
                # An abandoned task may still write an object into the folder while it is being deleted.
                if is_last_attempt:
                    raise

    def delete(self) -> None:
        """Delete the whole store."""
        if is_remote(self._cohort.url):
            zarr_adapter.sync(self._cohort._group.store.clear())
        else:
            shutil.rmtree(self._cohort.url, ignore_errors=True)

    def register_scans(self, origins: Mapping[str, Mapping[str, str]]) -> None:
        """Record the scans of case names in the registry.

        Parameters
        ----------
        origins : mapping of str to mapping
            For each case name, ``key`` and ``source`` of the scan, and ``stage`` and ``reason`` if it failed; see
            `lungmix.store.case_registry.Register`.
        """
        registered = self._cohort.register
        cases = {**registered, **{name: dict(origin) for name, origin in origins.items()}}
        if cases != registered:
            self.write_text(REGISTER_FILE, Register(self.salt, cases).to_json())

    def delete_cases(self, names: Iterable[str]) -> None:
        """Delete cases, then remove their scans from the registry in one write."""
        deleted = set(names)
        for name in sorted(deleted):
            self.remove(name)
        registered = self._cohort.register
        remaining = {name: origin for name, origin in registered.items() if name not in deleted}
        if remaining != registered:
            self.write_text(REGISTER_FILE, Register(self.salt, remaining).to_json())

    def check_free(self) -> None:
        """Raise `LockedError` if another process writes to this store."""
        check_free(unwrap(self._cohort._group.store), self._cohort.url)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the store atomically."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file of the store atomically."""
        zarr_adapter.write(self._cohort._group.store, self._cohort._key(name), content)
