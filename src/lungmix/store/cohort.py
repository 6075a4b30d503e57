"""A cohort on disk: one zarr v3 group that holds cases, the model and the table of measurements."""

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
from lungmix.errors import CaseNotFoundError, LockedError, StoreError
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

# The store keeps its models and measurements.csv beside its cases, as its format has it.
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
            raise StoreError(_damaged(name, group))
        return Case(name, group)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self[name] is not None
        except (KeyError, StoreError):
            return False

    def case(self, name: str) -> Case:
        """The case of this name.

        Raises
        ------
        StoreError
            If there is none, or its metadata are damaged; unlike ``cohort[name]`` it says what to do.
        """
        try:
            return self[name]
        except CaseNotFoundError:
            if name in self.damaged:
                raise StoreError(self.damaged[name]) from None
            raise

    def _no_case(self, name: object) -> CaseNotFoundError:
        return CaseNotFoundError(f"{self.url} has no case {name!r}: `lungmix info {self.url}` lists them")

    def __iter__(self) -> Iterator[str]:
        return (case.name for case in self._cases())

    def __len__(self) -> int:
        return len(self._cases())

    def items(self) -> ItemsView[str, Case]:
        """Names and cases; the metadata of each is read once."""
        return {case.name: case for case in self._cases()}.items()

    def _cases(self) -> list[Case]:
        found = self._read().items()
        return [Case(name, group) for name, group in sorted(found) if isinstance(group, Group)]

    def _read(self) -> dict[str, Group | str]:
        found = sync(self._read_all())
        lost = [name for name, one in found.items() if one == MISSING]
        strange = set(lost) - self._without_metadata(lost)
        return {name: one for name, one in found.items() if name not in strange}

    async def _read_all(self) -> dict[str, Group | str]:
        listed = [name async for name in self._group.store.list_dir(self._group.path)]
        # Files stand there too; asking whether they are cases would cost a request each.
        return await read_cases(self._group, [n for n in listed if _CASE_NAME.fullmatch(n) and n not in FILES])

    def _without_metadata(self, names: list[str]) -> set[str]:
        """Those of which a scan is known and objects are left; other folders are none of ours, or empty."""
        known = self.register if names else {}
        return {name for name in names if name in known and sizes_under(self._group.store, self._key(name))}

    @property
    def damaged(self) -> dict[str, str]:
        """Cases whose ``zarr.json`` cannot be read, with the reason and the remedy; iteration leaves them out."""
        return {name: _damaged(name, one) for name, one in sorted(self._read().items()) if isinstance(one, str)}

    @property
    def register(self) -> dict[str, dict[str, str]]:
        """By name of case, ``key`` and ``source`` of every scan that was given a name, converted or not."""
        return Register.from_json(self.read_text(REGISTER_FILE)).cases

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """``stage`` and ``reason`` of scans that have a name and failed before there was a case."""
        known = {name: one for name, one in self.register.items() if "reason" in one}
        present = set(self) if known else set()
        return {
            name: {"stage": one["stage"], "reason": one["reason"]} for name, one in known.items() if name not in present
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
        """What is recorded of the whole cohort: format and package version, parameters of the last run."""
        return dict(self._group.attrs[ATTRIBUTE])  # type: ignore[arg-type]

    @property
    def model(self) -> TissueModel:
        """Mixture of the store, which the next labels are made with; see `Case.model` for those that are there.

        Raises
        ------
        StoreError
            If there is none, or its file is not the one that was written.
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
            raise StoreError(f"{self.url} has no measurements: run `lungmix run {self.url} SOURCE` first")
        table = pd.read_csv(io.StringIO(text), dtype={"case": str, "preset": str, "model": str, "mask": str})
        labelled = {name for name, case in self.items() if "label" in {*case.stages, *case.damage}}
        return table[table["case"].isin(labelled)].reset_index(drop=True)

    @property
    def salt(self) -> str:
        """Random digits of this store, hexadecimal, for digests of what must not be guessed."""
        if "salt" not in self.settings:
            self._read_settings()
        if "salt" not in self.settings:
            known = Register.from_json(self.read_text(REGISTER_FILE)).salt
            self.record_settings(salt=known or secrets.token_hex(16))
        return str(self.settings["salt"])

    def record_settings(self, **values: Any) -> None:
        """Change some of `settings`; what another process has recorded of the others meanwhile is kept."""
        self._read_settings()
        self._group.attrs[ATTRIBUTE] = {**self.settings, **values, "lungmix_version": __version__}

    def _read_settings(self) -> None:
        content = sync(read_bytes(self._group.store, self._key("zarr.json")))
        # What is damaged is written anew, from what was read before.
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
        """Start a case anew; what stood under its name is removed.

        Parameters
        ----------
        name : str
            Of the case.
        geometry, acquisition : Geometry, Acquisition
            Of the scan.
        origin : mapping of str to str, optional
            ``key`` and ``source`` of the conversion: by them one that was killed is found again.
        chunk_slices : int, optional
            Slices of a chunk, in place of what `lungmix.store.chunking.layout_of` chooses.
        """
        if not _CASE_NAME.fullmatch(name):
            raise StoreError(f"{name!r} cannot name a case: use a-z, 0-9, '.', '_' and '-'")
        self.remove(name)
        case = Case(name, self._group.create_group(name))
        case.begin(geometry, acquisition, origin, chunk_slices)
        return case

    def remove(self, name: str) -> None:
        """Delete a case and all that belongs to it, if it is there."""
        if not _CASE_NAME.fullmatch(name) or name in FILES:
            raise StoreError(f"{name!r} is not the name of a case: `lungmix info {self.url}` lists them")
        # Without its metadata it is no case any more, should the rest not be reached.
        sync(self._group.store.delete(self._key(f"{name}/zarr.json")))
        for last in (False, False, True):
            try:
                sync(self._group.store.delete_dir(self._key(name)))
                return
            except OSError:
                # A task that was given up may still put an object into a folder that is being emptied.
                if last:
                    raise

    def delete(self) -> None:
        """Delete the whole store."""
        if is_remote(self.url):
            sync(self._group.store.clear())
        else:
            shutil.rmtree(self.url, ignore_errors=True)

    @contextmanager
    def locked(self, *, wait: bool = False, warn: Callable[[str], None] | None = None) -> Iterator[None]:
        """Be the only writer of this store for the length of a block; readers need no lock.

        The stages of `lungmix.pipeline.Pipeline` do this themselves. Parameters and errors are those of
        `lungmix.store.lock.locked`. What others have written since this cohort was opened is read again. Where the lock
        is lost to another process within the block, every write through this cohort and the cases that are taken from
        it there raises `LockedError`.
        """
        store = unwrap(self._group.store)
        with locked(store, self.url, wait=wait, warn=warn) as hold:
            self._group = _group_of(LockCheckedStore(store, hold), self.url, self._mode, held=True)
            try:
                clear_partials(store)
                yield
            finally:
                self._group = _on(store, self._group)

    def check_free(self) -> None:
        """Raise `LockedError` if another process writes to this store."""
        check_free(unwrap(self._group.store), self.url)

    def ref(self, name: str, attempt: str = "") -> CaseRef:
        """Where a case is, for the tasks of an attempt; see `CaseState.start`."""
        # Workers may have another working directory.
        return CaseRef(self.url if is_remote(self.url) else str(Path(self.url).absolute()), name, attempt)

    def read_text(self, name: str) -> str | None:
        """Text of a file of the store; None if there is none."""
        content = self.read_bytes(name)
        return None if content is None else content.decode("utf-8", "replace")

    def read_bytes(self, name: str) -> bytes | None:
        """Bytes of a file of the store; None if there is none."""
        return sync(read_bytes(self._group.store, self._key(name)))

    def write_text(self, name: str, text: str) -> None:
        """Put a text file into the store; it becomes visible as a whole."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Put a file into the store; it becomes visible as a whole."""
        buffer = default_buffer_prototype().buffer.from_bytes(content)
        sync(self._group.store.set(self._key(name), buffer))

    def _key(self, name: str) -> str:
        path = self._group.path
        return f"{path}/{name}" if path else name


@dataclass(frozen=True)
class CaseRef:
    """Where a case is: what tasks are given in place of the case.

    Attributes
    ----------
    url, name : str
        Store and case.
    attempt : str
        The attempt at a stage that a task belongs to; it writes only while there is no newer one.
    """

    url: str
    name: str
    attempt: str = ""

    def open(self, mode: Literal["r", "r+"] = "r") -> Case:
        """The case, opened in the process that asks; of one attempt it is opened once a process.

        Raises
        ------
        StoreError
            If a writing task belongs to an attempt that was replaced.
        """
        if not self.attempt:
            return open_cohort(self.url, mode)[self.name]
        case = _opened(self)
        if mode != "r":
            case.check_attempt(self.attempt)
        return case


@lru_cache(maxsize=32)
def _opened(where: CaseRef) -> Case:
    case = open_cohort(where.url, "r+")[where.name]
    if case.attempt != where.attempt:
        # A network file system may show an older state; that must not be kept.
        case.check_attempt(where.attempt)
        case = open_cohort(where.url, "r+")[where.name]
    return case


def open_cohort(url: str | Path, mode: Mode = "r") -> Cohort:
    """Open a store, or with mode ``a`` make it where there is none.

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
        If there is no store, something else stands in its place, or its own metadata are damaged; with mode ``a`` these
        are written again. Metadata of cases are looked at when cases are, see `Cohort.damaged`.
    """
    location = str(url)
    if not is_remote(location):
        _check_folder(Path(location), creating=mode == "a")
    return Cohort(location, _group_of(zarr_store(location), location, mode), mode)


def _group_of(store: Store, location: str, mode: Mode, *, held: bool = False) -> Group:
    """The group of a cohort, made where it may be; `held` says that this process has the lock of the store."""
    try:
        group = _open_group(store, location, mode, held=held)
    except (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError):
        if mode != "a":
            _check_bucket(store)
            raise StoreError(
                f"there is no store at {location}: make one with `lungmix run {location} SOURCE`"
            ) from None
        group = _new_group(store)
    own = group.attrs.get(ATTRIBUTE)
    if not isinstance(own, dict) or "format_version" not in own:
        raise StoreError(f"{location} is a zarr group but not a lungmix store: give another STORE")
    if own["format_version"] != FORMAT_VERSION:
        raise StoreError(
            f"{location} has format version {own['format_version']}, this lungmix reads {FORMAT_VERSION}: "
            "use the lungmix that wrote it, or convert again"
        )
    return group


def _check_bucket(store: Store) -> None:
    """Refuse an object store without the bucket, in which nothing can be found either."""
    if not isinstance(store, LocalStore):
        from lungmix.store.remote import BucketStore

        if isinstance(store, BucketStore):
            sync(store.check_bucket())


def _new_group(store: Store) -> Group:
    """The group of a new store, or of one that another process has made meanwhile."""
    settings = {"format_version": FORMAT_VERSION, "lungmix_version": __version__, "salt": secrets.token_hex(16)}
    for file, content in GroupMetadata({ATTRIBUTE: settings}).to_buffer_dict(default_buffer_prototype()).items():
        sync(store.set_if_not_exists(file, content))
    return zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)


def _on(store: Store, group: Group) -> Group:
    """A group, to be reached through another store."""
    return Group(AsyncGroup(group.metadata, StorePath(store, group.path)))


def _open_group(store: Store, location: str, mode: Mode, *, held: bool) -> Group:
    """The group of a store; where it may be made, one whose ``zarr.json`` is damaged is mended."""
    how: Literal["r", "r+"] = "r" if mode == "r" else "r+"
    try:
        # Cases are read one by one, so there is no consolidated metadata to ask for.
        group = zarr.open_group(store, mode=how, zarr_format=3, use_consolidated=False)
        own = group.attrs.get(ATTRIBUTE)
    except StoreError:  # of an object store
        raise
    except Exception as error:
        content = sync(read_bytes(store, "zarr.json"))
        fault = check_cohort_metadata(content) or (
            MISSING if content is None and _bare(store, location).register else None
        )
        if fault is None or (isinstance(error, zarr.errors.ContainsArrayError) and not _is_ours(store, location)):
            raise
    else:
        fault = check_cohort_settings(own)
        if fault is None and own is None and _is_ours(store, location):
            fault = check_cohort_settings({})
        if fault is None:
            return group
    if not _is_ours(store, location):
        raise StoreError(f"{location} holds a zarr.json that {fault}, and no case: give a new or empty folder as STORE")
    if mode != "a":
        raise StoreError(
            f"{location}: its zarr.json {fault}: run `lungmix run {location} SOURCE` with a scan of it, which "
            "writes that file again and keeps all cases"
        )
    if not held:
        # Another process may be about to mend it too, and to record more.
        with suppress(LockedError), locked(store, location):
            return _open_group(store, location, mode, held=True)
    return _mended(store, location, held=held)


def _bare(store: Store, location: str) -> Cohort:
    """A store whose own metadata are not asked."""
    return Cohort(location, Group(AsyncGroup(GroupMetadata(), StorePath(store))))


def _is_ours(store: Store, location: str) -> bool:
    cohort = _bare(store, location)
    return bool(cohort.register) or len(cohort) > 0


def _mended(store: Store, location: str, *, held: bool) -> Group:
    """The group of a store whose own metadata are written again; what was recorded of its fit is lost with them.

    They are not written without the lock of the store: who takes it reads them again.
    """
    cohort = _bare(store, location)
    salt = Register.from_json(cohort.read_text(REGISTER_FILE)).salt
    settings = {"format_version": FORMAT_VERSION, "lungmix_version": __version__} | ({"salt": salt} if salt else {})
    metadata = GroupMetadata({ATTRIBUTE: settings})
    if held:
        for file, content in metadata.to_buffer_dict(default_buffer_prototype()).items():
            cohort.write_bytes(file, content.to_bytes())
    return Group(AsyncGroup(metadata, StorePath(store)))


def _damaged(name: str, fault: str) -> str:
    return (
        f"case {name}: its zarr.json {fault}: run `lungmix run` on its store again with the scan's SOURCE, or "
        "`lungmix remove` it"
    )


def _check_folder(path: Path, *, creating: bool) -> None:
    if path.is_file():
        raise StoreError(f"{path} is a file, not a store: give a folder as STORE")
    if (path / REGISTER_FILE).is_file():
        return
    if path.is_dir() and any(path.iterdir()) and not (path / "zarr.json").is_file():
        raise StoreError(f"{path} holds other files and is not a lungmix store: give a new or empty folder as STORE")
    if not creating and not (path / "zarr.json").is_file():
        raise StoreError(f"there is no store at {path}: make one with `lungmix run {path} SOURCE`")
