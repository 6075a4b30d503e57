"""What a SOURCE holds: folders, files, archives and lists of them, as scans and refusals."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lungmix.errors import SourceError, is_encodable, mark_path
from lungmix.formats.annex import absent, absent_kind
from lungmix.formats.archives import is_archive, unpack
from lungmix.formats.dicom.series import Collection
from lungmix.formats.directory import is_apple_double, is_text, kind_of, list_files
from lungmix.formats.images import LabelMapError, extension_of, read_header
from lungmix.formats.remote import LocalMirror, mirror
from lungmix.formats.scan import RejectedSource, Scan, SkippedSource, case_name, fingerprint_of, key_of_place
from lungmix.formats.series_filter import SeriesFilter
from lungmix.formats.source_lists import is_list, read_list
from lungmix.formats.tempdirs import is_full, no_room, passing
from lungmix.formats.unsupported import is_pair_data, is_sidecar, why_unread
from lungmix.s3 import check_address, is_address, is_remote

Found = Scan | SkippedSource | RejectedSource
Watch = Callable[[int, int], None]

_DICOM_EXTENSIONS = (".dcm", ".dicom", ".ima", ".dc3")


def find_scans(source: str | Path, rules: SeriesFilter | None = None, watch: Watch | None = None) -> list[Found]:
    """Every scan of one source, from headers alone.

    Parameters
    ----------
    source : str or Path
        A DICOM folder (searched recursively), an image file, an archive of any of these, or a text or CSV file
        that lists them; or ``s3://bucket/prefix`` for any of these in an S3-compatible object store.
    rules : SeriesFilter, optional
        Which DICOM series are used.
    watch : callable, optional
        Called with the number of files that have been read, or fetched, and of all files.

    Returns
    -------
    list of Scan, SkippedSource or RejectedSource
        A bad file or series is a `RejectedSource` with one sentence for people; it never ends the others. What is not
        meant to
        be a scan, or is not chosen, is `SkippedSource`.
    """
    search = _Search(rules or SeriesFilter(), watch or _unwatched)
    if is_remote(str(source)):
        return search.bucket(check_address(str(source)))
    # Scans travel to workers, whose working directory may be another one.
    return search.of(Path(source).absolute())


def _unwatched(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class _Search:
    """How a source is searched, and what it lies in."""

    rules: SeriesFilter
    watch: Watch
    listed: bool = False
    in_folder: bool = False
    archive: tuple[Path, Path] | None = None
    mirror: LocalMirror | None = None

    def bucket(self, address: str) -> list[Found]:
        """What lies in an object store; it is fetched as far as headers need it, and not kept."""
        try:
            if not is_encodable(address):
                raise SourceError(f"{mark_path(address)} is no UTF-8, as names in object stores are: check the address")
            with passing() as folder:
                mirrored = mirror(address, folder, self.watch)
                if is_list(mirrored.path) and mirrored.path.is_file() and not self.listed:
                    return self.entries(read_list(mirrored.path, mirrored.address.rpartition("/")[0]))
                found = replace(self, watch=_unwatched, mirror=mirrored).of(mirrored.path)
                unread = [RejectedSource(case_name(_stem(Path(url))), url, reason) for url, reason in mirrored.unread]
                return [*(_told(one, mirrored) for one in found), *unread]
        except SourceError as error:
            return [RejectedSource(case_name(_stem(Path(address))), address, error.args[0])]
        except OSError as error:
            return [_unreadable(Path(address), error)]

    def entries(self, entries: Sequence[Path | str]) -> list[Found]:
        """What lies where a list says."""
        inside = replace(self, listed=True)
        found: list[Found] = []
        for entry in entries:
            if isinstance(entry, Path):
                found += inside.of(entry)
            elif is_address(entry):
                found += inside.bucket(entry.rstrip("/"))
            else:
                reason = f"{mark_path(entry)} is not understood: give a path, or s3://BUCKET/PREFIX"
                found.append(RejectedSource(case_name(_stem(Path(entry))), entry, reason))
        return found

    def of(self, path: Path) -> list[Found]:
        try:
            if path.is_dir():
                return self.folder(path)
            if kind := absent_kind(path):
                raise absent(path, kind)
            if not path.is_file():
                if path.exists():
                    raise SourceError(f"{mark_path(path)} is no file and no folder but a pipe or a device: give a file")
                remedy = "check the path" if is_encodable(str(path)) else "check the path, and the encoding of the list"
                raise SourceError(f"{mark_path(path)} does not exist: {remedy}")
            if extension_of(path):
                return [read_header(path)]
            if is_archive(path):
                return self.unpacked(path)
            if is_list(path) and not self.listed:
                return self.entries(read_list(path))
            return self.file(path)
        except LabelMapError as error:
            what = SkippedSource if self.in_folder else RejectedSource
            return [what(case_name(_stem(path)), str(path), error.args[0])]
        except SourceError as error:
            return [RejectedSource(case_name(_stem(path)), str(path), error.args[0])]
        except OSError as error:
            return [_unreadable(path, error)]

    def folder(self, folder: Path) -> list[Found]:
        found: list[Found] = []
        others: list[Path] = []
        collection = Collection(source_label=self._place)
        contents = list_files(folder)
        found += [RejectedSource(case_name(_stem(path)), str(path), reason) for path, reason in contents.unread]
        missing: dict[str, list[Path]] = {"annex": contents.absent, "lfs": []}
        for number, file in enumerate(contents.files, start=1):
            try:
                if is_apple_double(file):
                    others.append(file)
                elif extension_of(file) or (is_archive(file) and self.archive is None):
                    if kind := absent_kind(file):
                        missing[kind].append(file)
                    else:
                        found += replace(self, listed=True, in_folder=True, watch=_unwatched).of(file)
                elif not collection.add(file):
                    if kind := absent_kind(file):
                        missing[kind].append(file)
                    else:
                        others.append(file)
            except OSError as error:
                collection.add_unreadable(file, error)
            self.watch(number, len(contents.files))
        found += collection.scan_results(self.rules)
        for kind, files in missing.items():
            if files:
                reason = absent(files[0], kind, files[1:]).args[0]
                found.append(RejectedSource(case_name(_stem(folder)), str(folder), reason))
        data = {file for one in found if isinstance(one, Scan) and one.kind != "dicom" for file in one.files}
        others = [file for file in others if str(file) not in data and not is_pair_data(file)]
        found += _others(others, collection, in_archive=self.archive is not None)
        return _or_nothing(sorted(found, key=_place_in_order), folder)

    def file(self, path: Path) -> list[Found]:
        collection = Collection(source_label=self._place)
        if not collection.add(path):
            reason = why_unread(path)
            if reason is not None:
                raise SourceError(f"{mark_path(path)} {reason}")
            raise SourceError(
                f"{mark_path(path)} is not an image: give a DICOM folder, .nrrd, .nhdr, .mha, .mhd, .nii, .zip, .tar "
                "or a "
                "list"
            )
        if collection.dicomdirs:
            return self.folder(path.parent)
        return _or_nothing(list(collection.scan_results(self.rules)), path)

    def unpacked(self, path: Path) -> list[Found]:
        folder = unpack(path, None if self.mirror is None else self.mirror.room_for(path))
        state = self.mirror.state_of(path) if self.mirror is not None else fingerprint_of([path])
        found: list[Found] = []
        for one in replace(self, archive=(path, folder)).folder(folder):
            inner = os.path.relpath(one.path, folder)
            name = case_name(path.name.split(".")[0]) if inner == "." else one.name
            if inner == ".":
                one = _renamed(one, folder, path)
            if isinstance(one, Scan):
                # The place and the state are the archive's, not those of the passing folder that it was unpacked to.
                key = one.key if one.kind == "dicom" else key_of_place(f"{self._known_as(path)} {inner}")
                made = key_of_place(f"{state} {key} {one.stack.resampling if one.stack is not None else None}")
                # The archive stands for the passing folder wherever people read of it, the key table above all.
                place = str(path if inner == "." else path / inner)
                found.append(replace(one, name=name, path=place, key=key, fingerprint=made))
            else:
                found.append(replace(one, name=name, path=f"{path}: {inner}"))
        return found

    def _place(self, folder: Path) -> str:
        if self.archive is None:
            return self._known_as(folder)
        archive, unpacked = self.archive
        return f"{self._known_as(archive)} {os.path.relpath(folder, unpacked)}"

    def _known_as(self, path: Path) -> str:
        return str(path.resolve()) if self.mirror is None else self.mirror.told(str(path))


def _told(found: Found, mirrored: LocalMirror) -> Found:
    """What is said of the folder that objects were fetched to, said of where they lie."""
    path = mirrored.told(found.path)
    if not isinstance(found, Scan):
        return replace(found, path=path)
    objects, files = mirrored.objects_of(found)
    found = replace(found, path=path, files=files, objects=objects)
    if objects.packed:
        return found
    # Times of change are those of the passing files: tags say what state the objects are in.
    frames = found.stack.frames if found.stack is not None else None
    resampling = found.stack.resampling if found.stack is not None else None
    made = key_of_place(f"{objects.state} {frames} {resampling}")
    return replace(found, key=found.key if found.kind == "dicom" else key_of_place(path), fingerprint=made)


def _renamed(found: Found, passing: Path, archive: Path) -> Found:
    """What is said of the passing folder, said of the archive."""
    if isinstance(found, Scan):
        notes = tuple(note.replace(mark_path(passing), mark_path(archive)) for note in found.notes)
        return replace(found, notes=notes)
    return replace(found, reason=found.reason.replace(mark_path(passing), mark_path(archive)))


def _place_in_order(found: Found) -> list[str | int]:
    """Files and folders in the order of their names, numbers in them by their value: ``scan 2`` before ``scan 10``."""
    return [int(part) if n % 2 else part for n, part in enumerate(re.split(r"(\d+)", found.path))]


def _or_nothing(found: list[Found], path: Path) -> list[Found]:
    if any(not isinstance(one, SkippedSource) for one in found):
        return found
    what = "holds no CT series and no image file"
    if found:
        what = f"holds no CT series that is used, {len(found)} other{'s' if len(found) > 1 else ''} skipped"
    return [*found, RejectedSource(case_name(_stem(path)), str(path), f"{mark_path(path)} {what}: check the path")]


def _others(files: list[Path], collection: Collection, *, in_archive: bool) -> list[Found]:
    """Return verdicts on files that are no images that are read.

    Those that are called like the slices beside them are damaged; formats that are known and not read are failures, in
    which scans would be missed; what remains, such as texts, is skipped.
    """
    if not files:
        return []
    kinds = {(Path(one.file).parent, kind_of(Path(one.file))) for one in collection.headers}
    found: list[Found] = []
    rest: list[Path] = []
    for file in files:
        kind = kind_of(file)
        try:
            beside = (file.parent, kind) in kinds and (kind or not is_text(file))
            aside = is_apple_double(file) or is_sidecar(file)
            empty = file.stat().st_size == 0
            unread = None if aside or empty else why_unread(file, in_archive=in_archive)
            called_so = (kind in _DICOM_EXTENSIONS or beside) and not aside and unread is None
        except OSError as error:
            found.append(_unreadable(file, error))
            continue
        if called_so:
            what = "is empty" if empty else "is no DICOM file, though it is called like one"
            found.append(
                RejectedSource(case_name(file.parent.name), str(file), f"{mark_path(file)} {what}: get it again")
            )
        elif unread is not None:
            found.append(RejectedSource(case_name(_stem(file)), str(file), f"{mark_path(file)} {unread}"))
        else:
            rest.append(file)
    if rest:
        shown = ", ".join(mark_path(file) for file in rest[:3]) + (
            f" and {len(rest) - 3} more" if len(rest) > 3 else ""
        )
        what = "is no image" if len(rest) == 1 else "are no images"
        found.append(SkippedSource("other-files", str(rest[0].parent), f"{shown} {what}"))
    return found


def _unreadable(path: Path, error: OSError) -> RejectedSource:
    if is_full(error):
        return RejectedSource(case_name(_stem(path)), str(path), no_room(path).args[0])
    return RejectedSource(
        case_name(_stem(path)), str(path), f"{mark_path(path)} cannot be read ({error.strerror}): check it"
    )


def _stem(path: Path) -> str:
    extension = extension_of(path)
    return path.name[: -len(extension)] if extension else path.stem or str(path)
