"""Listing of the series at an address of a DICOMweb server, from queries and metadata alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.header import Header
from lungmix.formats.dicom.series import Collection
from lungmix.formats.dicomweb.address import Address, is_uid
from lungmix.formats.dicomweb.answers import Json, UnreachableError, uids_of, value_of
from lungmix.formats.dicomweb.connect import open_server
from lungmix.formats.dicomweb.instances import Instance, ListedSeries, digest_of, numbers_of
from lungmix.formats.dicomweb.metadata_files import write_metadata_file
from lungmix.formats.dicomweb.reader import DicomwebReader
from lungmix.formats.scan import RejectedSource, Scan, SkippedSource, location_digest
from lungmix.formats.series_filter import SeriesFilter

if TYPE_CHECKING:
    from lungmix.formats.dicomweb.server import DicomwebServer

ScanResult = Scan | SkippedSource | RejectedSource

_THREADS = 4


@dataclass
class _Listing:
    """Series at an address, with the metadata of their instances as files in a folder.

    Attributes
    ----------
    address : Address
        Studies on the server.
    folder : Path
        Folder for the files ``studies/UID/series/UID/instances/UID``.
    states : dict of str to bytes
        Digest of the metadata of each file.
    series : dict of Path to ListedSeries
        The series of each folder.
    """

    address: Address
    folder: Path
    states: dict[str, bytes] = field(default_factory=dict)
    series: dict[Path, ListedSeries] = field(default_factory=dict)

    def url_of(self, path: str | Path) -> str:
        """Return the address of a path in the folder."""
        return str(path).replace(str(self.folder), replace(self.address, study=None, series=None).text, 1)

    def resource_of(self, file: str) -> str:
        """Return the resource on the server that a file in the folder stands for."""
        path = Path(file).relative_to(self.folder)
        return f"{path.parent}/instances/{path.name}"


def list_scans(
    address: Address, folder: Path, rules: SeriesFilter, progress: Callable[[int, int], None]
) -> list[ScanResult]:
    """Return the scans at an address, with skipped and rejected series.

    Parameters
    ----------
    address : Address
        Studies on a DICOMweb server.
    folder : Path
        An empty folder for temporary files.
    rules : SeriesFilter
        Filter of series.
    progress : callable
        Called with the number of series whose metadata were read, and the number of all series.

    Raises
    ------
    SourceError
        If the server does not answer, denies access, or has no series there.
    """
    listing = _Listing(address, folder)
    collection = Collection(source_label=listing.url_of)
    results: list[ScanResult] = []
    with open_server(address.base) as server:
        pending: list[tuple[str, str]] = []
        for study, series, modality in _series_at(server, address):
            if modality is None or modality == "CT":
                pending.append((study, series))
            else:
                path = listing.url_of(folder / "studies" / study / "series" / series)
                reason = Header("", modality=modality, rows=1).exclusion_reason or ""
                results.append(SkippedSource(series, path, f"{mark_path(path)}: {reason}"))

        def read(item: tuple[str, str]) -> list[Path] | RejectedSource:
            try:
                return _write_metadata(server, listing, *item)
            except UnreachableError:
                raise
            except SourceError as error:
                path = listing.url_of(folder / "studies" / item[0] / "series" / item[1])
                return RejectedSource(item[1], path, error.args[0])

        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                for number, files in enumerate(pool.map(read, pending), 1):
                    if isinstance(files, RejectedSource):
                        results.append(files)
                    else:
                        for file in files:
                            collection.add(file)
                    progress(number, len(pending))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    instances = _instances_of(listing, collection)
    results += [_on_server(result, listing, instances) for result in collection.scan_results(rules)]
    if not results:
        raise SourceError(
            f"the server has no series at {mark_path(address.text)}: check the address and the query", path=address.text
        )
    return results


def _series_at(server: DicomwebServer, address: Address) -> Iterator[tuple[str, str, str | None]]:
    """Yield study, series and modality of all series at an address.

    Raises
    ------
    SourceError
        If the server sends an invalid UID, which would be no safe name of a file.
    """
    studies = [address.study] if address.study is not None else list(
        uids_of(server.studies(address.study_query), "StudyInstanceUID")
    )  # fmt: skip
    for study in studies:
        query = {**address.series_query, **({} if address.series is None else {"SeriesInstanceUID": address.series})}
        for item in server.series(study, query):
            series, modality = value_of(item, "SeriesInstanceUID"), value_of(item, "Modality")
            if not is_uid(study) or not is_uid(series):
                raise SourceError(f"{mark_path(address.text)} holds a study or series without a valid UID: check them")
            if address.series in (None, series):
                yield study, series, modality if isinstance(modality, str) else None


def _write_metadata(server: DicomwebServer, listing: _Listing, study: str, series: str) -> list[Path]:
    """Write the metadata of the instances of a series as files, and return them in the order of instance numbers."""
    place = listing.folder / "studies" / study / "series" / series
    place.mkdir(parents=True)
    listed = {value_of(item, "SOPInstanceUID"): item for item in server.metadata(study, series)}
    if not all(is_uid(uid) for uid in listed):
        raise SourceError(f"{mark_path(series)} has an instance without a valid UID: check it on its server")
    for uid, metadata in listed.items():
        file = place / uid
        listing.states[str(file)] = sha256(write_metadata_file(file, metadata)).digest()
    listing.series[place] = ListedSeries(study, series, len(listed), digest_of(listed))
    return [place / uid for uid in sorted(listed, key=lambda uid: (_instance_number(listed[uid]), uid))]


def _instance_number(metadata: Json) -> float:
    number = value_of(metadata, "InstanceNumber")
    try:
        return float(number)
    except (TypeError, ValueError, OverflowError):
        return math.inf


def _instances_of(listing: _Listing, collection: Collection) -> dict[str, Instance]:
    """Return the instances by file."""
    images: dict[str, list[tuple[float, ...]]] = {}
    for header in collection.headers:
        images.setdefault(header.file, []).append(numbers_of(header))
    return {file: Instance(listing.resource_of(file), tuple(numbers)) for file, numbers in images.items()}


def _on_server(result: ScanResult, listing: _Listing, instances: dict[str, Instance]) -> ScanResult:
    """Return a result with addresses on the server in place of temporary files."""
    path = listing.url_of(result.path)
    if not isinstance(result, Scan):
        return replace(result, path=path)
    files = dict.fromkeys(result.files)
    reader = DicomwebReader(
        listing.address.base,
        tuple(instances[file] for file in files),
        tuple({place: listing.series[place] for place in (Path(file).parent for file in files)}.values()),
    )
    # Temporary files have a new modification time in each run, so the fingerprint is made from the metadata.
    digest = sha256(b"".join(listing.states[file] for file in files)).hexdigest()
    frames = result.stack.frames if result.stack is not None else None
    resampling = result.stack.resampling if result.stack is not None else None
    return replace(
        result,
        path=path,
        files=tuple(listing.resource_of(file) for file in result.files),
        reader=reader,
        fingerprint=location_digest(f"{digest} {frames} {resampling}"),
    )
