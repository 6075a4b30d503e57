"""Files in an object store: listed, fetched into folders that pass, and put together again wherever a scan is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.archives import DEEPEST, LONGEST_NAME, MOST_BYTES, MOST_MEMBERS, inside, is_archive, unpack
from lungmix.formats.images import extension_of
from lungmix.formats.native import local_name
from lungmix.formats.tempdirs import is_full, no_room, passing, room_in
from lungmix.s3 import open_bucket, telling

if TYPE_CHECKING:
    from obstore.store import S3Store

    from lungmix.formats.scan import Scan

# What is read of an image file to know it: more than the longest header (`lungmix.formats.header`).
_HEAD = 2 << 20
# Larger objects are looked at before they are fetched: slices of DICOM are smaller.
_LARGE = 16 << 20
_PIECE = 4 << 20
_AT_ONCE = 8
_LONGEST_PART = 255
_DETACHED = (".nhdr", ".mhd")


@dataclass(frozen=True, repr=False)
class Object:
    """An object as it was listed; `repr` shows no names.

    Attributes
    ----------
    key : str
        In its bucket.
    name : str
        Path in the folder that it is fetched to.
    size : int
        Bytes.
    tag : str or None
        Entity tag: changes when the bytes do.
    changed : str
        When they did, for stores without tags.
    """

    key: str
    name: str
    size: int
    tag: str | None
    changed: str

    def __repr__(self) -> str:
        return f"<Object: {self.size} bytes>"

    @property
    def state(self) -> str:
        """What is the same for as long as the bytes are."""
        return f"{self.size} {self.tag or self.changed}"


@dataclass(frozen=True, repr=False)
class Objects:
    """What a scan in an object store is read from; `repr` shows no names.

    Attributes
    ----------
    bucket : str
        ``s3://bucket``.
    members : tuple of Object
        The objects, each once.
    packed : bool
        Whether the one object is an archive that the files are in.
    """

    bucket: str
    members: tuple[Object, ...]
    packed: bool = False

    def __repr__(self) -> str:
        return f"<Objects: {len(self.members)}>"

    @property
    def state(self) -> str:
        """Digest of the state of all objects. Holds no names."""
        return hashlib.sha256("\n".join(one.state for one in self.members).encode()).hexdigest()


@contextmanager
def downloaded(scan: Scan) -> Iterator[Scan]:
    """The scan with files on this machine, for the length of a block.

    Raises
    ------
    SourceError
        If its objects cannot be fetched, were changed since it was found, or do not fit on the disk.
    """
    if scan.objects is None:
        yield scan
        return
    wanted = scan.objects
    with passing() as folder:
        _check_room(scan.path, sum(one.size for one in wanted.members), folder)
        try:
            _fetch_all(open_bucket(wanted.bucket), wanted.members, folder / "objects")
        except OSError as error:
            raise no_room(scan.path) if is_full(error) else error from None
        files = folder / "objects"
        if wanted.packed:
            (folder / "unpacked").mkdir()
            files = unpack(files / wanted.members[0].name, folder / "unpacked")
        yield replace(scan, files=tuple(str(files / file) for file in scan.files), objects=None)


def slabs_of(scan: Scan, thickness: int) -> Iterator[npt.NDArray[np.int16]]:
    """See `Scan.slabs`; files are removed when the last slab has been read."""
    with downloaded(scan) as local:
        yield from local.slabs(thickness)


@dataclass
class LocalMirror:
    """What headers are read from: objects under an address, as files in a folder.

    Of image files that are larger than any header, the beginning is fetched; the rest is a hole of the right size.

    Attributes
    ----------
    address : str
        ``s3://bucket/prefix``: a folder or one object.
    folder : Path
        That passes.
    path : Path
        The address, in the folder.
    members : dict of Path to Object
        By file.
    unread : list of (str, str)
        Addresses of objects that are no files, each with one sentence for people.
    archives : dict of Path to Path
        Archives by the folders that they were unpacked to.
    """

    address: str
    folder: Path
    path: Path
    members: dict[Path, Object] = field(default_factory=dict)
    unread: list[tuple[str, str]] = field(default_factory=list)
    archives: dict[Path, Path] = field(default_factory=dict)

    @property
    def bucket(self) -> str:
        """``s3://bucket``."""
        return "/".join(self.address.split("/")[:3])

    def told(self, path: str) -> str:
        """A place in the folder as a place in the object store."""
        return path.replace(str(self.path), self.address, 1)

    def state_of(self, file: Path) -> str:
        """What is the same for as long as an object is."""
        return self.members[file].state

    def room_for(self, archive: Path) -> Path:
        """A new folder to unpack an archive to."""
        target = self.folder / f"unpacked-{len(self.archives)}"
        target.mkdir()
        self.archives[target] = archive
        return target

    def objects_of(self, scan: Scan) -> tuple[Objects, tuple[str, ...]]:
        """What the scan is read from, and what its files are called there."""
        files = [Path(file) for file in scan.files]
        for target, archive in self.archives.items():
            if files[0].is_relative_to(target):
                names = tuple(str(file.relative_to(target)) for file in files)
                return Objects(self.bucket, (self.members[archive],), packed=True), names
        members = tuple(dict.fromkeys(self.members[file] for file in files))
        return Objects(self.bucket, members), tuple(self.members[file].name for file in files)


def mirror(address: str, folder: Path, watch: Callable[[int, int], None]) -> LocalMirror:
    """Fetch what is needed to read the headers of all that lies at an address.

    Raises
    ------
    SourceError
        If there is nothing, it cannot be reached, or is more than there is room for.
    """
    if PurePosixPath(address).name.upper() == "DICOMDIR":
        address = address.rpartition("/")[0]
    out = LocalMirror(address, folder, folder)
    store, prefix = open_bucket(out.bucket), address.removeprefix(out.bucket).strip("/")
    safe = _safe(PurePosixPath(address).name)
    if safe is None:
        raise SourceError(f"{mark_path(address)} has a key that is no path: give the objects in it another key")
    with telling(address):
        found, single = _listed(store, prefix, address)
    above = prefix.rpartition("/")[0] if single else prefix
    # Folders keep their names: a header may name the file of its voxels by the folder that both lie in.
    start = (_safe(PurePosixPath(above).name) or PurePosixPath()) if single else safe
    out.path = folder / "objects" / (start / safe if single else safe)
    parents = {str(parent) for meta in found for parent in PurePosixPath(meta["path"]).parents}
    for meta in found:
        key = meta["path"]
        if key in parents and meta["size"] == 0:  # stands for a folder
            continue
        inner = _safe(key.removeprefix(above).removeprefix("/"))
        url = f"{out.bucket}/{key}"
        if inner is None or key in parents:
            out.unread.append((url, f"{mark_path(url)} has a key that is no path of a file: give it another key"))
            continue
        tag, changed = meta["e_tag"], meta["last_modified"].isoformat()
        one = Object(key, str(start / inner), int(meta["size"]), tag, changed)
        out.members[folder / "objects" / one.name] = one
    if not out.members and not out.unread:
        raise SourceError(f"{mark_path(address)} does not exist in its bucket, or holds nothing: check the address")
    _fetch_headers(store, out, watch)
    return out


def _safe(name: str) -> PurePosixPath | None:
    inner = inside(name)
    if inner is None or len(inner.parts) > DEEPEST or len(name) > LONGEST_NAME:
        return None
    if any(len(part.encode("utf-8", "replace")) > _LONGEST_PART for part in inner.parts):
        return None
    return PurePosixPath(local_name(str(inner)))


def _listed(store: S3Store, prefix: str, address: str) -> tuple[list[Any], bool]:
    """The object of this key, with what lies beside a header without voxels; or all under the prefix, and False."""
    import obstore

    single: Any = None
    if prefix:
        with suppress(FileNotFoundError):
            single = obstore.head(store, prefix)
    if single is not None and single["size"]:
        if not prefix.lower().endswith(_DETACHED):
            return [single], True
        return list(obstore.list_with_delimiter(store, prefix.rpartition("/")[0] or None)["objects"]), True
    found: list[Any] = []
    for batch in obstore.list(store, prefix=prefix or None, chunk_size=1000):
        found += batch
        if len(found) > MOST_MEMBERS:
            raise SourceError(f"{mark_path(address)} holds more than {MOST_MEMBERS:,} objects: give several prefixes")
    return (found, False) if found or single is None else ([single], True)


def _fetch_headers(store: S3Store, out: LocalMirror, watch: Callable[[int, int], None]) -> None:
    whole: list[Object] = []
    heads: list[Object] = []
    large: list[Object] = []
    for file, one in out.members.items():
        if out.path in out.members and file != out.path:
            # Beside a header without voxels: it says which one they are in, and nothing of it is read yet.
            _fetch(store, one, file, 0)
        elif is_archive(file) or one.size <= _HEAD:
            whole.append(one)
        elif extension_of(file):
            heads.append(one)
        else:
            (large if one.size > _LARGE else whole).append(one)
    total = len(out.members)
    target = out.folder / "objects"
    needed = sum(one.size for one in whole) + _HEAD * (len(heads) + len(large))
    _check_room(out.address, needed, out.folder)
    _fetch_all(store, [*heads, *large], target, _HEAD)
    more = [one for one in large if _is_dicom(target / one.name)]
    _check_room(out.address, needed + sum(one.size for one in more), out.folder)
    for one in more:
        (target / one.name).unlink()
    done = total - len(whole) - len(more)
    watch(done, total)
    _fetch_all(store, [*whole, *more], target, watch=lambda count: watch(done + count, total))


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _check_room(address: str, size: int, folder: Path) -> None:
    if size > MOST_BYTES:
        raise SourceError(
            f"{mark_path(address)} needs {size / 1e9:.1f} GB of room for temporary files, more than is reasonable: "
            "give "
            "several prefixes"
        )
    if size > room_in(folder):
        raise no_room(address, size)


def _fetch_all(
    store: S3Store,
    objects: Sequence[Object],
    target: Path,
    most: int | None = None,
    watch: Callable[[int], None] | None = None,
) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for count, _ in enumerate(pool.map(lambda one: _fetch(store, one, target / one.name, most), objects), 1):
                if watch is not None:
                    watch(count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch(store: S3Store, one: Object, file: Path, most: int | None) -> None:
    """Write an object, or its beginning, piece by piece: the bytes of the state that was listed and no others."""
    import obstore

    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as out:
        end = one.size if most is None else min(one.size, most)
        for start in range(0, end, _PIECE):
            stop = min(start + _PIECE, end)
            options: Any = {"range": (start, stop)} | ({"if_match": one.tag} if one.tag else {})
            # What the disk says is not the object store's: a full one has a sentence of its own.
            with telling(one.key):
                content = memoryview(obstore.get(store, one.key, options=options).bytes())
            if len(content) != stop - start:
                raise SourceError(f"{mark_path(one.key)} was changed while it was read: run again")
            out.write(content)
        out.truncate(one.size)
