"""A cohort on disk: one zarr v3 group with cases, the model and the table of measurements."""

from __future__ import annotations

import io
import re
import secrets
import shutil
import warnings
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import AsyncGroup, Group, GroupMetadata
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath

from lungmix._version import __version__
from lungmix.errors import CaseNotFoundError, LockedError, StoreError, StoreNotFoundError, error_about
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.store.case import Case
from lungmix.store.case_registry import Register
from lungmix.store.formatting_html import cohort_html
from lungmix.store.lock import LockCheckedStore, check_free, locked, unwrap
from lungmix.store.metadata import (
    ATTRIBUTE,
    MISSING,
    check_cohort_metadata,
    check_cohort_settings,
    read_bytes,
    read_cases,
)
from lungmix.store.objects import clear_partials, sizes_under
from lungmix.store.schema import FILES, MEASUREMENTS_FILE, REGISTER_FILE
from lungmix.store.zarr_store import is_remote, zarr_store

if TYPE_CHECKING:
    import pandas as pd

    from lungmix.mixture import TissueModel

FORMAT_VERSION = 2

# Models and tables are in the same folder as the cases; zarr warns about such files.
warnings.filterwarnings("ignore", message="Object at .* is not recognized as a component of a Zarr hierarchy")

Mode = Literal["r", "r+", "a"]

_CASE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,126}[a-z0-9])?")


class Cohort(Mapping[str, Case]):
    """Mapping of case names to cases; see `open_cohort`."""

    def __init__(self, url: str, group: Group, mode: Mode = "r+"):
        self.url = url
        self._group = group
        self._mode: Mode = mode

    def __getitem__(self, name: object) -> Case:
        if not isinstance(name, str) or not _CASE_NAME.fullmatch(name):
            raise self._no_case(name)
        group = sync(read_cases(self._group, [name])).get(name)
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
            If there is none, or its metadata are corrupt; unlike ``cohort[name]``, with the remedy.
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
        return len(self._cases())

    def items(self) -> ItemsView[str, Case]:
        """Return names and cases; the metadata of each case are read once."""
        return {case.name: case for case in self._cases()}.items()

    def _cases(self) -> list[Case]:
        groups = self._read_groups().items()
        return [Case(name, group) for name, group in sorted(groups) if isinstance(group, Group)]

    def _read_groups(self) -> dict[str, Group | str]:
        groups = sync(self._read_all())
        missing = [name for name, group in groups.items() if group == MISSING]
        unrelated = set(missing) - self._without_metadata(missing)
        return {name: group for name, group in groups.items() if name not in unrelated}

    async def _read_all(self) -> dict[str, Group | str]:
        names = [name async for name in self._group.store.list_dir(self._group.path)]
        # Names of files are skipped, as each would cost a request.
        return await read_cases(
            self._group, [name for name in names if _CASE_NAME.fullmatch(name) and name not in FILES]
        )

    def _without_metadata(self, names: list[str]) -> set[str]:
        """Return the registered cases that have objects; other folders are empty, or belong to other programs."""
        registered = self.register if names else {}
        return {name for name in names if name in registered and sizes_under(self._group.store, self._key(name))}

    @property
    def damaged(self) -> dict[str, str]:
        """Cases with a corrupt ``zarr.json``, with a message that names the remedy; iteration skips them."""
        groups = sorted(self._read_groups().items())
        return {name: _damaged(name, fault) for name, fault in groups if isinstance(fault, str)}

    @property
    def register(self) -> dict[str, dict[str, str]]:
        """``key`` and ``source`` of every scan that has a case name, converted or not, by case name."""
        return Register.from_json(self.read_text(REGISTER_FILE)).cases

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """``stage`` and ``reason`` of scans that failed before there was a case, by case name."""
        failures = {name: origin for name, origin in self.register.items() if "reason" in origin}
        present = set(self) if failures else set()
        return {
            name: {"stage": origin["stage"], "reason": origin["reason"]}
            for name, origin in failures.items()
            if name not in present
        }

    def register_scans(self, origins: Mapping[str, Mapping[str, str]]) -> None:
        """Record which scan has which case name.

        Parameters
        ----------
        origins : mapping of str to mapping
            By case name, ``key`` and ``source`` of the scan; ``stage`` and ``reason`` too where it failed.
        """
        registered = self.register
        cases = {**registered, **{name: dict(origin) for name, origin in origins.items()}}
        if cases != registered:
            self.write_text(REGISTER_FILE, Register(self.salt, cases).to_json())

    def delete_cases(self, names: Iterable[str]) -> None:
        """Delete cases, then remove their scans from the register in one write."""
        deleted = set(names)
        for name in sorted(deleted):
            self.remove(name)
        registered = self.register
        remaining = {name: origin for name, origin in registered.items() if name not in deleted}
        if remaining != registered:
            self.write_text(REGISTER_FILE, Register(self.salt, remaining).to_json())

    def __repr__(self) -> str:
        return f"<Cohort {self.url}: {len(self)} cases>"

    def _repr_html_(self) -> str:
        return cohort_html(self.url, self)

    @property
    def settings(self) -> dict[str, Any]:
        """Attributes of the cohort: format and package version, parameters of the last run."""
        return dict(self._group.attrs[ATTRIBUTE])  # type: ignore[arg-type]

    @property
    def model(self) -> TissueModel:
        """Mixture of the store, with which the next labels are computed; see `Case.model` for that of present labels.

        Raises
        ------
        StoreError
            If there is none, or its file does not match its digest.
        """
        from lungmix.store.models import stored_model

        return stored_model(self)

    def measurements(self) -> pd.DataFrame:
        """Return the table of measurements, one row a labelled case, as a pandas data frame.

        `docs/measurements.md` and ``lungmix measure --dictionary`` say what the columns mean.

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

    @property
    def salt(self) -> str:
        """Random hexadecimal digits of this store, for digests of values that could be guessed."""
        if "salt" not in self.settings:
            self._read_settings()
        if "salt" not in self.settings:
            registered_salt = Register.from_json(self.read_text(REGISTER_FILE)).salt
            self.record_settings(salt=registered_salt or secrets.token_hex(16))
        return str(self.settings["salt"])

    def record_settings(self, **values: Any) -> None:
        """Change some of `settings`; others, which another process may have changed meanwhile, are read again first."""
        self._read_settings()
        self._group.attrs[ATTRIBUTE] = {**self.settings, **values, "lungmix_version": __version__}

    def _read_settings(self) -> None:
        content = sync(read_bytes(self._group.store, self._key("zarr.json")))
        # Corrupt metadata are rewritten, from those read before.
        if content is not None and check_cohort_metadata(content) is None:
            group = zarr.open_group(self._group.store_path, mode="r+", zarr_format=3, use_consolidated=False)
            if ATTRIBUTE in group.attrs:
                self._group = group

    def add(
        self,
        name: str,
        geometry: Geometry,
        acquisition: Acquisition,
        origin: Mapping[str, str] | None = None,
        chunk_slices: int | None = None,
    ) -> Case:
        """Create a case; an earlier one of the same name is deleted.

        Parameters
        ----------
        name : str
            Name of the case.
        geometry, acquisition : Geometry, Acquisition
            Attributes of the scan.
        origin : mapping of str to str, optional
            ``key`` and ``source`` of the conversion, by which an interrupted one is recognized.
        chunk_slices : int, optional
            Slices of a chunk; by default, `lungmix.store.chunking.layout_of` chooses.
        """
        if not _CASE_NAME.fullmatch(name):
            raise StoreError(f"{name!r} cannot name a case: use a-z, 0-9, '.', '_' and '-'", case=name)
        self.remove(name)
        case = Case(name, self._group.create_group(name))
        case.begin(geometry, acquisition, origin, chunk_slices)
        return case

    def remove(self, name: str) -> None:
        """Delete a case with all its objects, if it exists."""
        if not _CASE_NAME.fullmatch(name) or name in FILES:
            raise StoreError(f"{name!r} is not the name of a case: `Cohort.keys()` lists them")
        # Metadata first: an interrupted deletion leaves no case with missing objects.
        sync(self._group.store.delete(self._key(f"{name}/zarr.json")))
        for is_last_attempt in (False, False, True):
            try:
                sync(self._group.store.delete_dir(self._key(name)))
                return
            except OSError:
                # An abandoned task may still write an object into the folder while it is being deleted.
                if is_last_attempt:
                    raise

    def delete(self) -> None:
        """Delete the whole store."""
        if is_remote(self.url):
            sync(self._group.store.clear())
        else:
            shutil.rmtree(self.url, ignore_errors=True)

    @contextmanager
    def locked(self, *, wait: bool = False, warn: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the write lock of this store during a block; readers need no lock.

        The stages of `lungmix.pipeline.Pipeline` lock the store themselves. Parameters and errors are those of
        `lungmix.store.lock.locked`. Changes by other processes since this cohort was opened are read first. If another
        process takes the lock over during the block, every later write through this cohort and its cases raises
        `LockedError`.
        """
        store = unwrap(self._group.store)
        with locked(store, self.url, wait=wait, warn=warn) as handle:
            self._group = _group_of(LockCheckedStore(store, handle), self.url, self._mode, is_locked=True)
            try:
                clear_partials(store)
                yield
            finally:
                self._group = _with_store(store, self._group)

    def check_free(self) -> None:
        """Raise `LockedError` if another process writes to this store."""
        check_free(unwrap(self._group.store), self.url)

    def ref(self, name: str, attempt: str = "") -> CaseRef:
        """Return a reference to a case for the tasks of an attempt; see `CaseState.start_stage`."""
        # Absolute, as workers may have another working directory.
        return CaseRef(self.url if is_remote(self.url) else str(Path(self.url).absolute()), name, attempt)

    def read_text(self, name: str) -> str | None:
        """Read a text file of the store; None if there is none."""
        content = self.read_bytes(name)
        return None if content is None else content.decode("utf-8", "replace")

    def read_bytes(self, name: str) -> bytes | None:
        """Read the bytes of a file of the store; None if there is none."""
        return sync(read_bytes(self._group.store, self._key(name)))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the store atomically."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file of the store atomically."""
        buffer = default_buffer_prototype().buffer.from_bytes(content)
        sync(self._group.store.set(self._key(name), buffer))

    def _key(self, name: str) -> str:
        path = self._group.path
        return f"{path}/{name}" if path else name


@dataclass(frozen=True)
class CaseRef:
    """Reference to a case, which is sent to tasks in place of the case.

    Attributes
    ----------
    url, name : str
        URL of the store and name of the case.
    attempt : str
        Attempt at a stage to which a task belongs; it can write only until a newer attempt begins.
    """

    url: str
    name: str
    attempt: str = ""

    def open(self, mode: Literal["r", "r+"] = "r") -> Case:
        """Open the case in this process, where references of one attempt share it.

        Raises
        ------
        StoreError
            If a writing task belongs to an attempt that was replaced.
        """
        if not self.attempt:
            return open_cohort(self.url, mode)[self.name]
        case = _open_case(self)
        if mode != "r":
            case.check_attempt(self.attempt)
        return case


@lru_cache(maxsize=32)
def _open_case(case_ref: CaseRef) -> Case:
    case = open_cohort(case_ref.url, "r+")[case_ref.name]
    if case.attempt != case_ref.attempt:
        # A network file system may return older attributes, which must not be cached.
        case.check_attempt(case_ref.attempt)
        case = open_cohort(case_ref.url, "r+")[case_ref.name]
    return case


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
        If there is no store (`StoreNotFoundError`), `url` is something else, or the metadata of the store are corrupt;
        mode ``a`` rewrites these. Metadata of cases are checked when a case is read, see `Cohort.damaged`.
    """
    location = str(url)
    with error_about(path=location):
        if not is_remote(location):
            _check_folder(Path(location), creating=mode == "a")
        return Cohort(location, _group_of(zarr_store(location), location, mode), mode)


def _group_of(store: Store, location: str, mode: Mode, *, is_locked: bool = False) -> Group:
    """Open the group of a cohort, or create it with mode ``a``; `is_locked` if this process holds the lock."""
    try:
        group = _open_group(store, location, mode, is_locked=is_locked)
    except (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError):
        if mode != "a":
            _check_bucket(store)
            raise _no_store(location) from None
        group = _new_group(store)
    attributes = group.attrs.get(ATTRIBUTE)
    if not isinstance(attributes, dict) or "format_version" not in attributes:
        raise StoreError(f"{location} is a zarr group but not a lungmix store: give another STORE")
    if attributes["format_version"] != FORMAT_VERSION:
        raise StoreError(
            f"{location} has format version {attributes['format_version']}, this lungmix reads {FORMAT_VERSION}: "
            "use the lungmix that wrote it, or convert again"
        )
    return group


def _check_bucket(store: Store) -> None:
    """Raise if a bucket does not exist, which otherwise looks like a missing store."""
    if not isinstance(store, LocalStore):
        from lungmix.store.remote import BucketStore

        if isinstance(store, BucketStore):
            sync(store.check_bucket())


def _new_group(store: Store) -> Group:
    """Create the group of a store, unless another process has created it meanwhile, and open it."""
    settings = {"format_version": FORMAT_VERSION, "lungmix_version": __version__, "salt": secrets.token_hex(16)}
    for file, content in GroupMetadata({ATTRIBUTE: settings}).to_buffer_dict(default_buffer_prototype()).items():
        sync(store.set_if_not_exists(file, content))
    return zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)


def _with_store(store: Store, group: Group) -> Group:
    """Return a group that reads and writes through another store."""
    return Group(AsyncGroup(group.metadata, StorePath(store, group.path)))


def _open_group(store: Store, location: str, mode: Mode, *, is_locked: bool) -> Group:
    """Open the group of a store; with mode ``a``, repair a corrupt ``zarr.json``."""
    zarr_mode: Literal["r", "r+"] = "r" if mode == "r" else "r+"
    try:
        # Stores have no consolidated metadata, as each case is read separately.
        group = zarr.open_group(store, mode=zarr_mode, zarr_format=3, use_consolidated=False)
        attributes = group.attrs.get(ATTRIBUTE)
    except StoreError:  # of an object store
        raise
    except Exception as error:
        content = sync(read_bytes(store, "zarr.json"))
        fault = check_cohort_metadata(content) or (
            MISSING if content is None and _without_settings(store, location).register else None
        )
        if fault is None or (isinstance(error, zarr.errors.ContainsArrayError) and not _is_ours(store, location)):
            raise
    else:
        fault = check_cohort_settings(attributes)
        if fault is None and attributes is None and _is_ours(store, location):
            fault = check_cohort_settings({})
        if fault is None:
            return group
    if not _is_ours(store, location):
        raise StoreError(f"{location} holds a zarr.json that {fault}, and no case: give a new or empty folder as STORE")
    if mode != "a":
        raise StoreError(
            f"{location}: its zarr.json {fault}: run `Pipeline.run(sources)` with a scan of it, which "
            "rewrites that file and keeps all cases"
        )
    if not is_locked:
        # Another process may repair it too, and record more.
        with suppress(LockedError), locked(store, location):
            return _open_group(store, location, mode, is_locked=True)
    return _repair(store, location, is_locked=is_locked)


def _without_settings(store: Store, location: str) -> Cohort:
    """Return a cohort without reading the metadata of its store."""
    return Cohort(location, Group(AsyncGroup(GroupMetadata(), StorePath(store))))


def _is_ours(store: Store, location: str) -> bool:
    cohort = _without_settings(store, location)
    return bool(cohort.register) or len(cohort) > 0


def _repair(store: Store, location: str, *, is_locked: bool) -> Group:
    """Return the group of a store with default metadata; the record of its fit is lost.

    The metadata are written only if this process holds the lock: whoever takes it reads them again.
    """
    cohort = _without_settings(store, location)
    salt = Register.from_json(cohort.read_text(REGISTER_FILE)).salt
    settings = {"format_version": FORMAT_VERSION, "lungmix_version": __version__} | ({"salt": salt} if salt else {})
    metadata = GroupMetadata({ATTRIBUTE: settings})
    if is_locked:
        for file, content in metadata.to_buffer_dict(default_buffer_prototype()).items():
            cohort.write_bytes(file, content.to_bytes())
    return Group(AsyncGroup(metadata, StorePath(store)))


def _damaged(name: str, fault: str) -> str:
    return (
        f"case {name}: its zarr.json {fault}: run `Pipeline.run(sources)` with the source of the scan, or "
        "remove it with `Pipeline.remove(names)`"
    )


def _check_folder(path: Path, *, creating: bool) -> None:
    if path.is_file():
        raise StoreError(f"{path} is a file, not a store: give a folder as STORE")
    if (path / REGISTER_FILE).is_file():
        return
    if path.is_dir() and any(path.iterdir()) and not (path / "zarr.json").is_file():
        raise StoreError(f"{path} holds other files and is not a lungmix store: give a new or empty folder as STORE")
    if not creating and not (path / "zarr.json").is_file():
        raise _no_store(str(path))


def _no_store(location: str) -> StoreNotFoundError:
    return StoreNotFoundError(f"there is no store at {location}: make one with `lungmix.run(store, sources)`")
