"""Sources in an object store: headers are downloaded to find scans, and the objects of a scan to read its voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.archives import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_MEMBERS,
    MAX_NAME_LENGTH,
    is_archive,
    relative_member_path,
    unpack,
)
from lungmix.formats.dicomweb.reader import DicomwebReader
from lungmix.formats.images import extension_of
from lungmix.formats.native import local_name
from lungmix.formats.remote_objects import Object, Objects
from lungmix.formats.scan import Scan
from lungmix.formats.tempdirs import disk_full_error, is_disk_full, temporary_folder, usable_bytes
from lungmix.s3 import open_bucket, source_errors

if TYPE_CHECKING:
    from obstore.store import S3Store

# Bytes of an image file that are downloaded to find scans: more than the longest header (`lungmix.formats.header`).
_HEADER_BYTES = 2 << 20
# Objects larger than this are downloaded completely only if their beginning is DICOM; DICOM slices are smaller.
_LARGE_OBJECT_BYTES = 16 << 20
_BLOCK_BYTES = 4 << 20
_DOWNLOAD_THREADS = 8
_MAX_PART_BYTES = 255
_DETACHED_HEADERS = (".nhdr", ".mhd")


@dataclass(frozen=True)
class RemoteReader:
    """Function that downloads the objects of a scan and then reads its voxels; see `Scan.reader`.

    Attributes
    ----------
    objects : Objects
        The objects to download.
    local : callable
        Reader of the downloaded files.
    """

    objects: Objects
    local: Callable[[Scan, int], Iterator[npt.NDArray[np.int16]]]

    def __call__(self, scan: Scan, thickness: int) -> Iterator[npt.NDArray[np.int16]]:
        """Yield the HU of a scan slab by slab; remove the downloaded files after the last slab."""
        with downloaded(scan) as local:
            yield from local.slabs(thickness)


@contextmanager
def downloaded(scan: Scan) -> Iterator[Scan]:
    """Yield the scan with its objects or instances as local files, which exist within the ``with`` block.

    Raises
    ------
    SourceError
        If the objects cannot be downloaded, have changed since they were listed, or do not fit on the disk.
    """
    if isinstance(scan.reader, DicomwebReader):
        with scan.reader.downloaded(scan) as local:
            yield local
        return
    if not isinstance(scan.reader, RemoteReader):
        yield scan
        return
    with download(scan.reader.objects, scan.path) as files:
        yield replace(scan, files=tuple(str(files / file) for file in scan.files), reader=scan.reader.local)


@contextmanager
def download(objects: Objects, address: str) -> Iterator[Path]:
    """Yield a folder with downloaded objects, or with the files of an archive, that exists within the ``with`` block.

    Parameters
    ----------
    objects : Objects
        The objects.
    address : str
        Address that messages name.

    Raises
    ------
    SourceError
        If they cannot be downloaded, have changed since they were listed, or do not fit on the disk.
    """
    with temporary_folder() as folder:
        _check_disk_space(address, sum(member.size for member in objects.members), folder)
        try:
            _download_all(open_bucket(objects.bucket), objects.members, folder / "objects")
        except OSError as error:
            raise disk_full_error(address) if is_disk_full(error) else error from None
        files = folder / "objects"
        if objects.packed:
            (folder / "unpacked").mkdir()
            files = unpack(files / objects.members[0].name, folder / "unpacked")
        yield files


@dataclass
class LocalMirror:
    """Objects under an address as files in a folder, complete enough to read headers.

    Of an image file, only the first 2 MiB are downloaded; the rest of the local file reads as zeros and takes no space
    on the disk.

    Attributes
    ----------
    address : str
        ``s3://bucket/prefix``: a folder or one object.
    folder : Path
        The temporary folder.
    path : Path
        File or folder in `folder` that stands for the address.
    members : dict of Path to Object
        Object of each file.
    unread : list of (str, str)
        Addresses of objects that cannot be files, each with the reason as a sentence.
    archives : dict of Path to Path
        Archive of each folder that an archive was unpacked to.
    """

    address: str
    folder: Path
    path: Path
    members: dict[Path, Object] = field(default_factory=dict)
    unread: list[tuple[str, str]] = field(default_factory=list)
    archives: dict[Path, Path] = field(default_factory=dict)

    @property
    def bucket(self) -> str:
        """Address of the bucket, ``s3://bucket``."""
        return "/".join(self.address.split("/")[:3])

    def url_of(self, path: str) -> str:
        """Return the address of a path in the folder."""
        return path.replace(str(self.path), self.address, 1)

    def file_at(self, address: str) -> Path | None:
        """Return the file of the object at an address; None unless it is part of the source."""
        return self._files.get(address)

    @cached_property
    def _files(self) -> dict[str, Path]:
        return {f"{self.bucket}/{member.key}": file for file, member in self.members.items()}

    def new_unpack_folder(self, archive: Path) -> Path:
        """Return a new folder to unpack an archive to."""
        target = self.folder / f"unpacked-{len(self.archives)}"
        target.mkdir()
        self.archives[target] = archive
        return target

    def objects_of(self, files: Sequence[Path]) -> tuple[Objects, tuple[str, ...]]:
        """Return the objects to download for the files of a scan or mask, and the path of each file among them."""
        for target, archive in self.archives.items():
            if files[0].is_relative_to(target):
                names = tuple(str(file.relative_to(target)) for file in files)
                return Objects(self.bucket, (self.members[archive],), packed=True), names
        members = tuple(dict.fromkeys(self.members[file] for file in files))
        return Objects(self.bucket, members), tuple(self.members[file].name for file in files)


def mirror_headers(
    address: str,
    folder: Path,
    progress: Callable[[int, int], None],
    is_needed: Callable[[str], bool] = lambda address: True,
) -> LocalMirror:
    """Download the objects at an address so far that all headers can be read; see `LocalMirror`.

    Parameters
    ----------
    address : str
        ``s3://bucket/prefix``.
    folder : Path
        An empty folder.
    progress : callable
        Called with the number of objects that were downloaded, and the number of all objects.
    is_needed : callable
        Function of the address of an object. Where it returns False, the object is not downloaded, and the local file
        is a hole of the size of the object.

    Raises
    ------
    SourceError
        If there are no objects, they cannot be read, or they do not fit on the disk.
    """
    if PurePosixPath(address).name.upper() == "DICOMDIR":
        address = address.rpartition("/")[0]
    local_mirror = LocalMirror(address, folder, folder)
    store, prefix = open_bucket(local_mirror.bucket), address.removeprefix(local_mirror.bucket).strip("/")
    safe_name = _safe_path(PurePosixPath(address).name)
    if safe_name is None:
        raise SourceError(f"{mark_path(address)} has a key that is no path: give its objects other keys")
    with source_errors(address):
        listed, is_single = _list_objects(store, prefix, address)
    parent_key = prefix.rpartition("/")[0] if is_single else prefix
    # Local folders have the names of the folders in the bucket: a header may name its data file by its own folder.
    start_folder = (_safe_path(PurePosixPath(parent_key).name) or PurePosixPath()) if is_single else safe_name
    local_mirror.path = folder / "objects" / (start_folder / safe_name if is_single else safe_name)
    parents = {str(parent) for meta in listed for parent in PurePosixPath(meta["path"]).parents}
    for meta in listed:
        key = meta["path"]
        if key in parents and meta["size"] == 0:  # marker of a folder
            continue
        inner_path = _safe_path(key.removeprefix(parent_key).removeprefix("/"))
        url = f"{local_mirror.bucket}/{key}"
        if inner_path is None or key in parents:
            local_mirror.unread.append(
                (url, f"{mark_path(url)} has a key that is no path of a file: give it another key")
            )
            continue
        tag, changed = meta["e_tag"], meta["last_modified"].isoformat()
        member = Object(key, str(start_folder / inner_path), int(meta["size"]), tag, changed)
        local_mirror.members[folder / "objects" / member.name] = member
    if not local_mirror.members and not local_mirror.unread:
        raise SourceError(f"{mark_path(address)} does not exist in its bucket, or holds no object: check the address")
    _download_headers(store, local_mirror, progress, is_needed)
    return local_mirror


def _safe_path(name: str) -> PurePosixPath | None:
    inner = relative_member_path(name)
    if inner is None or len(inner.parts) > MAX_DEPTH or len(name) > MAX_NAME_LENGTH:
        return None
    if any(len(part.encode("utf-8", "replace")) > _MAX_PART_BYTES for part in inner.parts):
        return None
    return PurePosixPath(local_name(str(inner)))


def _list_objects(store: S3Store, prefix: str, address: str) -> tuple[list[Any], bool]:
    """Return the objects at a prefix, and True if the prefix is the key of a single object.

    If the single object is a header without voxels (``.nhdr``, ``.mhd``), all objects of its folder are returned.
    """
    import obstore

    single: Any = None
    if prefix:
        with suppress(FileNotFoundError):
            single = obstore.head(store, prefix)
    if single is not None and single["size"]:
        if not prefix.lower().endswith(_DETACHED_HEADERS):
            return [single], True
        return list(obstore.list_with_delimiter(store, prefix.rpartition("/")[0] or None)["objects"]), True
    listed: list[Any] = []
    for batch in obstore.list(store, prefix=prefix or None, chunk_size=1000):
        listed += batch
        if len(listed) > MAX_MEMBERS:
            raise SourceError(f"{mark_path(address)} holds more than {MAX_MEMBERS:,} objects: give several prefixes")
    return (listed, False) if listed or single is None else ([single], True)


def _download_headers(
    store: S3Store,
    local_mirror: LocalMirror,
    progress: Callable[[int, int], None],
    is_needed: Callable[[str], bool],
) -> None:
    complete: list[Object] = []
    beginnings: list[Object] = []
    large: list[Object] = []
    for file, member in local_mirror.members.items():
        if local_mirror.path in local_mirror.members and file != local_mirror.path:
            # This object is in the folder of a header without voxels and may be its data file: not needed yet.
            _download(store, member, file, 0)
        elif not is_needed(f"{local_mirror.bucket}/{member.key}"):
            _download(store, member, file, 0)
        elif is_archive(file) or member.size <= _HEADER_BYTES:
            complete.append(member)
        elif extension_of(file):
            beginnings.append(member)
        else:
            (large if member.size > _LARGE_OBJECT_BYTES else complete).append(member)
    total = len(local_mirror.members)
    target = local_mirror.folder / "objects"
    needed_bytes = sum(member.size for member in complete) + _HEADER_BYTES * (len(beginnings) + len(large))
    _check_disk_space(local_mirror.address, needed_bytes, local_mirror.folder)
    _download_all(store, [*beginnings, *large], target, _HEADER_BYTES)
    large_dicom = [member for member in large if _is_dicom(target / member.name)]
    _check_disk_space(
        local_mirror.address, needed_bytes + sum(member.size for member in large_dicom), local_mirror.folder
    )
    for member in large_dicom:
        (target / member.name).unlink()
    done = total - len(complete) - len(large_dicom)
    progress(done, total)
    _download_all(store, [*complete, *large_dicom], target, progress=lambda count: progress(done + count, total))


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _check_disk_space(address: str, size: int, folder: Path) -> None:
    if size > MAX_BYTES:
        raise SourceError(
            f"{mark_path(address)} needs {size / 1e9:.1f} GB for temporary files, more than {MAX_BYTES / 1e9:.1f} GB: "
            "give several prefixes"
        )
    if size > usable_bytes(folder):
        raise disk_full_error(address, size)


def _download_all(
    store: S3Store,
    objects: Sequence[Object],
    target: Path,
    max_bytes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    with ThreadPoolExecutor(_DOWNLOAD_THREADS) as pool:
        try:
            for count, _ in enumerate(
                pool.map(lambda member: _download(store, member, target / member.name, max_bytes), objects), 1
            ):
                if progress is not None:
                    progress(count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _download(store: S3Store, member: Object, file: Path, max_bytes: int | None) -> None:
    """Write an object, or its first `max_bytes`, to a file of the size of the object.

    Raises
    ------
    SourceError
        If the object has changed since it was listed.
    """
    import obstore

    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as out:
        end = member.size if max_bytes is None else min(member.size, max_bytes)
        for start in range(0, end, _BLOCK_BYTES):
            stop = min(start + _BLOCK_BYTES, end)
            options: Any = {"range": (start, stop)} | ({"if_match": member.tag} if member.tag else {})
            # Errors of the disk are raised outside this block: a full disk has its own message.
            with source_errors(member.key):
                content = memoryview(obstore.get(store, member.key, options=options).bytes())
            if len(content) != stop - start:
                raise SourceError(f"{mark_path(member.key)} was changed while it was read: run again")
            out.write(content)
        out.truncate(member.size)
