"""Search of a SOURCE (folder, file, archive or list) for scans, with rejected and skipped sources."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lungmix.earlier_names import accepts_earlier_names
from lungmix.errors import SourceError, UsageError, count_of, first_of, is_encodable, mark_path
from lungmix.formats.annex import missing_content_error, missing_content_kind
from lungmix.formats.archives import is_archive, unpack
from lungmix.formats.dicom.library_warnings import hide_warnings_of
from lungmix.formats.dicom.series import Collection
from lungmix.formats.dicomweb.address import is_dicomweb, parse_address
from lungmix.formats.dicomweb.listing import list_scans
from lungmix.formats.directory import is_apple_double, is_text, kind_of, list_files
from lungmix.formats.images import LabelMapError, extension_of, read_header
from lungmix.formats.remote import LocalMirror, RemoteReader, mirror_headers
from lungmix.formats.scan import RejectedSource, Scan, SkippedSource, case_name, fingerprint_of, location_digest
from lungmix.formats.series_filter import SeriesFilter
from lungmix.formats.source_lists import is_list, read_list
from lungmix.formats.tempdirs import disk_full_error, is_disk_full, temporary_folder
from lungmix.formats.unsupported import is_pair_data, is_sidecar, unsupported_reason
from lungmix.s3 import check_address, is_address, is_remote

ScanResult = Scan | SkippedSource | RejectedSource
Progress = Callable[[int, int], None]

_DICOMWEB_ENTRY = "dicomweb"
"""Path of an entry of a list that must not be quoted, because it may hold a password."""
_DICOM_EXTENSIONS = (".dcm", ".dicom", ".ima", ".dc3")


@hide_warnings_of("pydicom")
@accepts_earlier_names(rules="series", watch="progress")
def find_scans(
    source: str | Path, series: SeriesFilter | None = None, progress: Progress | None = None
) -> list[ScanResult]:
    """Return all scans of a source, from headers only.

    Parameters
    ----------
    source : str or Path
        A DICOM folder (searched recursively), an image file, an archive of any of these, or a text or CSV file
        that lists them; or ``s3://bucket/prefix`` for any of these in an S3-compatible object store; or
        ``dicomweb+https://HOST/PATH`` for studies on a DICOMweb server.
    series : SeriesFilter, optional
        Filter of DICOM series.
    progress : callable, optional
        Called with the number of files that were read or downloaded, and the number of all files.

    Returns
    -------
    list of Scan, SkippedSource or RejectedSource
        An unreadable file or series is a `RejectedSource` with the reason as a sentence, and does not affect others.
        Files that are not scans, and series that are not selected, are `SkippedSource`.
    """
    search = _Search(series or SeriesFilter(), progress or _ignore_progress)
    if is_dicomweb(str(source)):
        return search.server(str(source))
    if is_remote(str(source)):
        return search.bucket(check_address(str(source)))
    # Scans are sent to workers, which may have another working directory.
    return search.path(Path(source).absolute())


def _ignore_progress(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class _Search:
    """Search for scans, with its options, and the archive or mirror that contains the source.

    Attributes
    ----------
    rules : SeriesFilter
        Filter of DICOM series.
    progress : callable
        See `find_scans`.
    listed : bool
        True for an entry of a list and a file of a folder, which are not read as lists themselves.
    in_folder : bool
        True for a file of a folder, where a label map is skipped rather than rejected.
    archive : tuple of Path or None
        Archive that contains the files, and the temporary folder that it was unpacked to.
    mirror : LocalMirror or None
        Mirror of the address that contains the files.
    """

    rules: SeriesFilter
    progress: Progress
    listed: bool = False
    in_folder: bool = False
    archive: tuple[Path, Path] | None = None
    mirror: LocalMirror | None = None

    def bucket(self, address: str) -> list[ScanResult]:
        """Return the results of an address in an object store, whose headers are downloaded to a temporary folder."""
        try:
            if not is_encodable(address):
                raise SourceError(f"{mark_path(address)} is no UTF-8, as names in object stores are: check the address")
            with temporary_folder() as folder:
                local_mirror = mirror_headers(address, folder, self.progress)
                if is_list(local_mirror.path) and local_mirror.path.is_file() and not self.listed:
                    return self.entries(read_list(local_mirror.path, local_mirror.address.rpartition("/")[0]))
                results = replace(self, progress=_ignore_progress, mirror=local_mirror).path(local_mirror.path)
                unread = [_rejected(url, reason) for url, reason in local_mirror.unread]
                return [*(_with_address(result, local_mirror) for result in results), *unread]
        except SourceError as error:
            return [_rejected(address, error.args[0])]
        except OSError as error:
            return [_unreadable_source(Path(address), error)]

    def server(self, text: str) -> list[ScanResult]:
        """Return the results of an address of a DICOMweb server, whose metadata are read into a temporary folder.

        Raises
        ------
        UsageError
            If the address is not understood, or a package is missing.
        """
        address = parse_address(text)
        try:
            with temporary_folder() as folder:
                results = list_scans(address, folder, self.rules, self.progress)
            return _or_rejection(sorted(results, key=_natural_order), address.text)
        except SourceError as error:
            return [_rejected(address.text, error.args[0])]
        except OSError as error:
            return [_unreadable_source(Path(address.text), error)]

    def entries(self, entries: Sequence[Path | str]) -> list[ScanResult]:
        """Return the results of all entries of a list: scans, and skipped and rejected sources."""
        search = replace(self, listed=True)
        results: list[ScanResult] = []
        for entry in entries:
            if isinstance(entry, Path):
                results += search.path(entry)
            elif is_address(entry):
                results += search.bucket(entry.rstrip("/"))
            elif is_dicomweb(entry):
                try:
                    results += search.server(entry)
                except UsageError as error:  # this entry alone is wrong
                    results.append(_rejected(_DICOMWEB_ENTRY, error.args[0]))
            else:
                reason = f"{mark_path(entry)} is not understood: give a path, s3://BUCKET/PREFIX or dicomweb+https://HOST/PATH"
                results.append(_rejected(entry, reason))
        return results

    def path(self, path: Path) -> list[ScanResult]:
        """Return the results of a file or folder: scans, and skipped and rejected sources."""
        try:
            if path.is_dir():
                return self.folder(path)
            if kind := missing_content_kind(path):
                raise missing_content_error(path, kind)
            if not path.is_file():
                if path.exists():
                    raise SourceError(f"{mark_path(path)} is a pipe or a device: give a file or a folder")
                remedy = "check the path" if is_encodable(str(path)) else "check the path, and the encoding of the list"
                raise SourceError(f"{mark_path(path)} does not exist: {remedy}")
            if extension_of(path):
                # A header in an archive must not name objects outside the archive.
                return [read_header(path, self.mirror.file_at if self.mirror and self.archive is None else None)]
            if is_archive(path):
                return self.unpacked(path)
            if is_list(path) and not self.listed:
                return self.entries(read_list(path))
            return self.file(path)
        except LabelMapError as error:
            result_type = SkippedSource if self.in_folder else RejectedSource
            return [result_type(case_name(_stem(path)), str(path), error.args[0])]
        except SourceError as error:
            return [_rejected(path, error.args[0])]
        except OSError as error:
            return [_unreadable_source(path, error)]

    def folder(self, folder: Path) -> list[ScanResult]:
        """Return the results of a folder."""
        results: list[ScanResult] = []
        others: list[Path] = []
        collection = Collection(source_label=self._location_of)
        contents = list_files(folder)
        results += [_rejected(path, reason) for path, reason in contents.unread]
        missing: dict[str, list[Path]] = {"annex": contents.absent, "lfs": []}
        for number, file in enumerate(contents.files, start=1):
            try:
                if is_apple_double(file):
                    others.append(file)
                elif extension_of(file) or (is_archive(file) and self.archive is None):
                    if kind := missing_content_kind(file):
                        missing[kind].append(file)
                    else:
                        results += replace(self, listed=True, in_folder=True, progress=_ignore_progress).path(file)
                elif not collection.add(file):
                    if kind := missing_content_kind(file):
                        missing[kind].append(file)
                    else:
                        others.append(file)
            except OSError as error:
                collection.add_unreadable(file, error)
            self.progress(number, len(contents.files))
        results += collection.scan_results(self.rules)
        for kind, files in missing.items():
            if files:
                reason = missing_content_error(files[0], kind, files[1:]).args[0]
                results.append(_rejected(folder, reason))
        data = {
            file for result in results if isinstance(result, Scan) and result.kind != "dicom" for file in result.files
        }
        others = [file for file in others if str(file) not in data and not is_pair_data(file)]
        results += _other_files(others, collection, in_archive=self.archive is not None)
        return _or_rejection(sorted(results, key=_natural_order), folder)

    def file(self, path: Path) -> list[ScanResult]:
        """Return the results of a file without a known extension."""
        collection = Collection(source_label=self._location_of)
        if not collection.add(path):
            reason = unsupported_reason(path)
            if reason is not None:
                raise SourceError(f"{mark_path(path)} {reason}")
            raise SourceError(
                f"{mark_path(path)} is not an image: give a DICOM folder, .nrrd, .nhdr, .mha, .mhd, .nii, .zip, .tar "
                "or a list"
            )
        if collection.dicomdirs:
            return self.folder(path.parent)
        return _or_rejection(list(collection.scan_results(self.rules)), path)

    def unpacked(self, path: Path) -> list[ScanResult]:
        """Return the results of an archive."""
        folder = unpack(path, None if self.mirror is None else self.mirror.new_unpack_folder(path))
        state = self.mirror.members[path].state if self.mirror is not None else fingerprint_of([path])
        results: list[ScanResult] = []
        for result in replace(self, archive=(path, folder)).folder(folder):
            relative_path = os.path.relpath(result.path, folder)
            name = case_name(path.name.split(".")[0]) if relative_path == "." else result.name
            if relative_path == ".":
                result = _name_archive(result, folder, path)
            if isinstance(result, Scan):
                # Location and state are those of the archive, not of the temporary folder that it was unpacked to.
                key = (
                    result.key
                    if result.kind == "dicom"
                    else location_digest(f"{self._location_text(path)} {relative_path}")
                )
                fingerprint = location_digest(
                    f"{state} {key} {result.stack.resampling if result.stack is not None else None}"
                )
                # Messages and the key table show the archive, not the temporary folder.
                location = str(path if relative_path == "." else path / relative_path)
                results.append(replace(result, name=name, path=location, key=key, fingerprint=fingerprint))
            else:
                results.append(replace(result, name=name, path=f"{path}: {relative_path}"))
        return results

    def _location_of(self, folder: Path) -> str:
        if self.archive is None:
            return self._location_text(folder)
        archive, unpacked = self.archive
        return f"{self._location_text(archive)} {os.path.relpath(folder, unpacked)}"

    def _location_text(self, path: Path) -> str:
        return str(path.resolve()) if self.mirror is None else self.mirror.url_of(str(path))


def _with_address(result: ScanResult, local_mirror: LocalMirror) -> ScanResult:
    """Return a result with the address of its objects in place of the temporary path that they were downloaded to."""
    path = local_mirror.url_of(result.path)
    if not isinstance(result, Scan):
        return replace(result, path=path)
    objects, files = local_mirror.objects_of([Path(file) for file in result.files])
    result = replace(result, path=path, files=files, reader=RemoteReader(objects, result.reader))
    if objects.packed:
        return result
    # Temporary files have a new modification time in each run, so the fingerprint is made from the tags of the objects.
    frames = result.stack.frames if result.stack is not None else None
    resampling = result.stack.resampling if result.stack is not None else None
    fingerprint = location_digest(f"{objects.state} {frames} {resampling}")
    return replace(result, key=result.key if result.kind == "dicom" else location_digest(path), fingerprint=fingerprint)


def _name_archive(result: ScanResult, folder: Path, archive: Path) -> ScanResult:
    """Return a result with the name of its archive in place of the temporary folder in notes and reasons."""
    if isinstance(result, Scan):
        notes = tuple(note.replace(mark_path(folder), mark_path(archive)) for note in result.notes)
        return replace(result, notes=notes)
    return replace(result, reason=result.reason.replace(mark_path(folder), mark_path(archive)))


def _natural_order(result: ScanResult) -> list[str | int]:
    """Return a sort key of results by path, with numbers by value: ``scan 2`` before ``scan 10``."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", result.path))]


def _or_rejection(results: list[ScanResult], path: str | Path) -> list[ScanResult]:
    if any(not isinstance(result, SkippedSource) for result in results):
        return results
    problem = "holds no CT series and no image file"
    if results:
        problem = f"holds no CT series that is used, {count_of(len(results), 'other')} skipped"
    return [*results, _rejected(path, f"{mark_path(path)} {problem}: check the path")]


def _other_files(files: list[Path], collection: Collection, *, in_archive: bool) -> list[ScanResult]:
    """Return results for files that are not supported images.

    Files that are named like DICOM slices next to them are rejected as corrupt, unsupported formats are rejected
    because they may be scans, and other files, such as texts, are skipped.
    """
    if not files:
        return []
    kinds = {(Path(header.file).parent, kind_of(Path(header.file))) for header in collection.headers}
    results: list[ScanResult] = []
    skipped: list[Path] = []
    for file in files:
        kind = kind_of(file)
        try:
            is_next_to_slices = (file.parent, kind) in kinds and (kind or not is_text(file))
            is_companion = is_apple_double(file) or is_sidecar(file)
            is_empty = file.stat().st_size == 0
            reason = None if is_companion or is_empty else unsupported_reason(file, in_archive=in_archive)
            is_named_like_dicom = (
                (kind in _DICOM_EXTENSIONS or is_next_to_slices) and not is_companion and reason is None
            )
        except OSError as error:
            results.append(_unreadable_source(file, error))
            continue
        if is_named_like_dicom:
            problem = "is empty" if is_empty else "is no DICOM file, though it is named like one"
            results.append(
                RejectedSource(case_name(file.parent.name), str(file), f"{mark_path(file)} {problem}: get it again")
            )
        elif reason is not None:
            results.append(_rejected(file, f"{mark_path(file)} {reason}"))
        else:
            skipped.append(file)
    if skipped:
        shown = first_of([mark_path(file) for file in skipped])
        text = "is no image" if len(skipped) == 1 else "are no images"
        results.append(SkippedSource("other-files", str(skipped[0].parent), f"{shown} {text}"))
    return results


def _rejected(path: str | Path, reason: str) -> RejectedSource:
    return RejectedSource(case_name(_stem(Path(path))), str(path), reason)


def _unreadable_source(path: Path, error: OSError) -> RejectedSource:
    if is_disk_full(error):
        return _rejected(path, disk_full_error(path).args[0])
    return _rejected(path, f"{mark_path(path)} cannot be read ({error.strerror}): check it")


def _stem(path: Path) -> str:
    extension = extension_of(path)
    return path.name[: -len(extension)] if extension else path.stem or str(path)
