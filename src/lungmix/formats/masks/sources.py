"""Search for mask files in a folder, a file, an archive, or at an address in an object store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from dask.system import CPU_COUNT

from lungmix.errors import SourceError
from lungmix.formats.archives import ENDINGS, is_archive, unpack
from lungmix.formats.directory import is_apple_double, list_files
from lungmix.formats.images import extension_of
from lungmix.formats.masks.format_detection import is_mask_file, open_mask
from lungmix.formats.masks.mask_file import Labels, MaskFile, SlabReader
from lungmix.formats.remote import LocalMirror, download, mirror_headers
from lungmix.formats.remote_objects import Objects
from lungmix.formats.scan import fingerprint_of, location_digest
from lungmix.formats.tempdirs import temporary_folder
from lungmix.geometry import Geometry
from lungmix.s3 import check_address, is_remote


@dataclass(frozen=True, repr=False)
class OpenedMask:
    """Mask file that was found; `repr` shows no names.

    Attributes
    ----------
    path : Path
        Path whose names of file and folders tell to which case a mask belongs. An archive counts as a folder, named
        like the archive without its ending.
    mask : MaskFile, SourceError or None
        The mask, the reason why it cannot be read, or None for a file that was not opened.
    """

    path: Path
    mask: MaskFile | SourceError | None

    def __repr__(self) -> str:
        return f"<OpenedMask: {type(self.mask).__name__}>"


@dataclass(frozen=True, repr=False)
class RemoteMaskReader:
    """Function that downloads the objects of a mask and then reads its labels; see `MaskFile.label_slabs`.

    Attributes
    ----------
    objects : Objects
        The objects to download.
    file : str
        Path of the mask file among them.
    local : callable
        Reader of the downloaded file.
    """

    objects: Objects
    file: str
    local: SlabReader

    def __call__(
        self, mask: MaskFile, values: Mapping[int, int], geometry: Geometry, thickness: int
    ) -> Iterator[Labels]:
        """Yield the labels slab by slab; remove the downloaded files after the last slab."""
        with download(self.objects, mask.path) as folder:
            yield from self.local(replace(mask, path=str(folder / self.file)), values, geometry, thickness)


def open_masks(
    place: str | Path, *, is_needed: Callable[[Path], bool] = lambda path: True, excluded: Collection[str] = ()
) -> list[OpenedMask]:
    """Return the mask files in a folder, in an archive, at a path or at an address.

    Parameters
    ----------
    place : str or Path
        A folder, which is searched recursively, an archive, a mask file, or ``s3://bucket/prefix`` for any of these.
        Archives in a folder are unpacked too.
    is_needed : callable
        Function of `OpenedMask.path`. An image file for which it returns False is neither opened nor downloaded.
    excluded : collection of str
        Paths and addresses of files that are no masks, such as the files of the scans.

    Raises
    ------
    SourceError
        If there is no object at an address, or the place is an archive that cannot be unpacked.
    """
    if not is_remote(str(place)):
        # Masks are sent to workers, which may have another working directory.
        return _Search(frozenset(excluded)).open_all(Path(place).absolute(), is_needed)
    address = check_address(str(place))

    def needs_content(url: str) -> bool:
        return extension_of(Path(url)) is None or (url not in excluded and is_needed(Path(url)))

    with temporary_folder() as folder:
        local_mirror = mirror_headers(address, folder, lambda done, total: None, needs_content)
        opened = _Search(frozenset(excluded), local_mirror).open_all(local_mirror.path, is_needed)
        unread = [OpenedMask(Path(url), SourceError(reason)) for url, reason in local_mirror.unread]
        return [*opened, *unread]


@dataclass(frozen=True)
class _Located:
    """File on this machine, with its `OpenedMask.path`, and for a file of an archive a text that changes with it."""

    file: Path
    path: Path
    state: str | None = None


@dataclass(frozen=True)
class _Search:
    """Search of a place on this machine, or of the local mirror of an address."""

    excluded: frozenset[str]
    mirror: LocalMirror | None = None

    def open_all(self, place: Path, is_needed: Callable[[Path], bool]) -> list[OpenedMask]:
        """Return the mask files of a file or folder."""

        def open_located(located: _Located | OpenedMask) -> OpenedMask:
            if isinstance(located, OpenedMask):
                return located
            if extension_of(located.file) is not None and not is_needed(located.path):
                return OpenedMask(located.path, None)
            try:
                return OpenedMask(located.path, self._open(located))
            except SourceError as error:
                return OpenedMask(located.path, error)

        if place.is_dir():
            files = [*self._in_folder(place, self._path_of(place))]
        elif is_archive(place):
            files = [*self._in_archive(place)]
        else:
            files = [_Located(place, self._path_of(place))]
        with ThreadPoolExecutor(CPU_COUNT) as pool:
            return list(pool.map(open_located, files))

    def _path_of(self, file: Path) -> Path:
        return file if self.mirror is None else Path(self.mirror.url_of(str(file)))

    def _in_folder(self, folder: Path, path: Path, archive_state: str | None = None) -> Iterator[_Located | OpenedMask]:
        for file in list_files(folder).files:
            name = file.relative_to(folder)
            located = _Located(file, path / name, None if archive_state is None else f"{archive_state} {name}")
            address = str(file) if self.mirror is None else self.mirror.url_of(str(file))
            if address in self.excluded or is_apple_double(file):
                continue
            if is_archive(file) and archive_state is None:
                try:
                    yield from self._in_archive(file)
                except SourceError as error:
                    yield OpenedMask(located.path, error)
            elif is_mask_file(file):
                yield located

    def _in_archive(self, archive: Path) -> Iterator[_Located | OpenedMask]:
        path = self._path_of(archive)
        ending = max((ending for ending in ENDINGS if path.name.lower().endswith(ending)), key=len)
        if self.mirror is None:
            folder, state = unpack(archive), fingerprint_of([archive])
        else:
            folder, state = unpack(archive, self.mirror.new_unpack_folder(archive)), self.mirror.members[archive].state
        yield from self._in_folder(folder, path.with_name(path.name[: -len(ending)]), state)

    def _open(self, located: _Located) -> MaskFile:
        mask = open_mask(located.file)
        if self.mirror is not None:
            files = [located.file] if mask.data_file is None else [located.file, Path(mask.data_file)]
            objects, names = self.mirror.objects_of(files)
            state = objects.state if located.state is None else located.state
            reader = RemoteMaskReader(objects, names[0], mask.reader)
            address = str(located.path) if objects.packed else self.mirror.url_of(str(located.file))
            # Temporary files have a new modification time in each run: the fingerprint is made from tags of objects.
            return replace(mask, path=address, fingerprint=location_digest(state), reader=reader)
        return mask if located.state is None else replace(mask, fingerprint=location_digest(located.state))
