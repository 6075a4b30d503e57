"""Reader of the voxels of a scan on a DICOMweb server, which fetches its instances a few at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.header import DamagedFile, DicomDir
from lungmix.formats.dicom.header_reader import HeaderReader
from lungmix.formats.dicom.read import slabs_of
from lungmix.formats.dicomweb.answers import MissingError, uids_of
from lungmix.formats.dicomweb.connect import open_server
from lungmix.formats.dicomweb.instances import Instance, ListedSeries, digest_of
from lungmix.formats.scan import Scan
from lungmix.formats.tempdirs import disk_full_error, is_disk_full, temporary_folder

if TYPE_CHECKING:
    from lungmix.formats.dicomweb.server import DicomwebServer

_THREADS = 4
_AHEAD = 8
"""Number of instances that are on the disk at a time, besides the two that were read last."""


@dataclass(frozen=True, repr=False)
class DicomwebReader:
    """Function that fetches the instances of a scan and reads its voxels; see `Scan.reader`. `repr` shows no names.

    Attributes
    ----------
    base : str
        ``https://HOST/PATH``, where the server has its studies.
    instances : tuple of Instance
        Instances of the scan, in the order in which they are read.
    series : tuple of ListedSeries
        Series of these instances, which must not change while they are read.
    """

    base: str
    instances: tuple[Instance, ...]
    series: tuple[ListedSeries, ...]

    def __repr__(self) -> str:
        return f"<DicomwebReader: {len(self.instances)} instances>"

    def __call__(self, scan: Scan, thickness: int) -> Iterator[npt.NDArray[np.int16]]:
        """Yield the HU of a scan slab by slab; each instance is removed after it was read."""
        with open_server(self.base) as server, temporary_folder() as folder:
            self._check_series(server, scan.path)
            yield from slabs_of(scan, thickness, self._files(server, scan, folder))
            # Instances that were added or removed meanwhile would make a volume of two states.
            self._check_series(server, scan.path)

    @contextmanager
    def downloaded(self, scan: Scan) -> Iterator[Scan]:
        """Yield the scan with all its instances as local files, which exist within the ``with`` block."""
        with open_server(self.base) as server, temporary_folder() as folder:
            self._check_series(server, scan.path)
            files = tuple(self._files(server, scan, folder, keep=True))
            yield replace(scan, files=files, reader=slabs_of)

    def _files(self, server: DicomwebServer, scan: Scan, folder: Path, *, keep: bool = False) -> Iterator[str]:
        """Yield the file of each slice; fetch the next ones meanwhile, and remove those before the last two."""
        by_resource = {instance.resource: instance for instance in self.instances}
        headers = HeaderReader()
        waiting = deque(enumerate(dict.fromkeys(scan.files)))
        fetched: deque[tuple[str, Path, Future[None]]] = deque()
        past: deque[Path] = deque()
        resource = ""
        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                for name in scan.files:
                    while waiting and len(fetched) < _AHEAD:
                        number, following = waiting.popleft()
                        target = folder / str(number) / f"{by_resource[following].uid}.dcm"
                        target.parent.mkdir()
                        fetched.append((following, target, pool.submit(server.fetch, following, target)))
                    if name != resource:
                        resource, file, done = fetched.popleft()
                        _wait_for(done, scan.path, file)
                        _check_instance(by_resource[resource], headers, file)
                        past.append(file)
                        if len(past) > 2 and not keep:
                            past.popleft().unlink()
                    yield str(file)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _check_series(self, server: DicomwebServer, path: str) -> None:
        """Raise unless the series has the instances that were listed.

        Raises
        ------
        SourceError
            If instances were added or removed since.
        """
        for series in self.series:
            uids = set(uids_of(server.instances(series.study, series.uid), "SOPInstanceUID"))
            if digest_of(uids) != series.digest:
                raise SourceError(
                    f"{mark_path(path)} was changed on its server while it was read ({series.count} instances were "
                    f"listed, {len(uids)} are there): run again"
                )


def _wait_for(done: Future[None], path: str, file: Path) -> None:
    """Wait until an instance is fetched.

    Raises
    ------
    SourceError
        If it cannot be fetched, or does not fit on the disk.
    """
    try:
        done.result()
    except MissingError:
        raise SourceError(
            f"{mark_path(file)} of {mark_path(path)} is listed by its server, which does not have it: check the series "
            "there, and run again"
        ) from None
    except OSError as error:
        raise disk_full_error(path) if is_disk_full(error) else error from None


def _check_instance(instance: Instance, reader: HeaderReader, file: Path) -> None:
    """Raise unless a fetched instance is complete and the one that was listed.

    Raises
    ------
    SourceError
        If it is damaged, or its header differs from its metadata.
    """
    headers = reader.read(file)
    if headers is None or isinstance(headers, DicomDir):
        raise SourceError(f"{mark_path(file)} is no DICOM object as its server sends it: check it there")
    if isinstance(headers, DamagedFile):
        raise SourceError(f"{mark_path(file)} {headers.problem} as its server sends it: check it there")
    if not instance.agrees_with(headers):
        raise SourceError(
            f"{mark_path(file)} is not as its server listed it, so it was changed while it was read, or its server "
            "keeps other metadata: run again"
        )
