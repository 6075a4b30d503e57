"""Convert: reads a scan slab by slab, writes the image of a case and its packed air; depends on the source alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import LungmixError, SourceError, StoreError, count_of, mark_path, redact
from lungmix.geometry import Geometry
from lungmix.kernels.histogram import N_HU
from lungmix.kernels.packed_masks import pack_below
from lungmix.kernels.plausibility import add_all, summarize
from lungmix.parameters import MaskParameters
from lungmix.privacy.acquisition import Acquisition
from lungmix.stages.base import StageContext, Status
from lungmix.stages.reading import read_on_worker
from lungmix.store import Case, CaseRef, CaseWriter, CohortWriter, layout_of
from lungmix.store.digests import cache_key, location_digest
from lungmix.store.models import record_of
from lungmix.store.objects import Receipts
from lungmix.store.schema import ARRAYS, CONVERT, HARMONISE, PACKED

if TYPE_CHECKING:
    from lungmix.formats import Scan

STAGE = CONVERT

HU = "hu"
"""Record key of the summary of the HU of the whole image, see `lungmix.kernels.plausibility`.

Stores of earlier versions lack it.
"""

UIDS = "uids"
"""Record key of the digests of the UIDs of the DICOM series and its frame of reference, which masks are matched by.

Cases of other formats and stores of earlier versions lack it.
"""

INTERPOLATED = "interpolated_slices"
"""Record key of the number of slices that were interpolated between slices of the files; missing if there are none."""

AIR_THRESHOLD = MaskParameters().air_hu

_SLAB = 64


def key_for(scan: Scan) -> str:
    """Return the cache key of a conversion, which depends on the source alone."""
    return cache_key(stage=STAGE, version=1, fingerprint=scan.fingerprint)


def uid_digests(salt: str, case_name: str, scan: Scan) -> dict[str, str]:
    """Return the digests of the UIDs of a DICOM series; empty for other scans."""
    identity = scan.identity
    if identity is None:
        return {}
    digests = {}
    if identity.series_uid:
        digests["series"] = series_digest(salt, identity.series_uid)
    if identity.frame_uid:
        digests["frame"] = frame_digest(salt, case_name, identity.frame_uid)
    return digests


def series_digest(salt: str, uid: str) -> str:
    """Return the digest of the UID of a series, see `location_digest`."""
    return location_digest(salt, f"series {uid}")


def frame_digest(salt: str, case_name: str, uid: str) -> str:
    """Return the digest of the UID of a frame of reference.

    Several series of one patient may share a frame. The digest depends on the case too, so that equal digests do not
    reveal which cases belong to one patient.
    """
    return location_digest(salt, f"frame of {case_name} {uid}")


@dataclass(frozen=True)
class ConvertStage:
    """Stage that converts the scans of a run; cases without a new scan stay as they are.

    Attributes
    ----------
    scans : mapping of str to Scan
        Scans by case name.
    chunk_slices : int, optional
        Slices of a chunk, see `lungmix.store.chunking.layout_of`. A case that is stored with other chunks is converted
        again. By default, stored cases keep their chunks.
    air_hu : callable, optional
        Function of a case name and its geometry that returns the HU below which voxels count as air; by default -155.
        Air is packed during the conversion. A mask stage with another threshold has to pack it again.
    on_converted : callable, optional
        Called with each case of `scans` and its status, for example to write files next to the store.
    """

    scans: Mapping[str, Scan]
    chunk_slices: int | None = None
    air_hu: Callable[[str, Geometry], int] | None = None
    on_converted: Callable[[Case, Status], None] | None = None
    name: str = STAGE

    def cache_key(self, case: Case) -> str | None:
        """Return the cache key of a valid image of the case; None if the stored one has other chunks than requested."""
        if case.name not in self.scans:
            return (case.origin or {}).get("key")
        is_cut = self.chunk_slices is None or layout_of(case.geometry, self.chunk_slices) == case.layout
        return key_for(self.scans[case.name]) if is_cut else None

    def run(self, context: StageContext, case_name: str) -> Status:
        """Convert the scan of the case, unless the store holds it unchanged.

        Raises
        ------
        RoomError
            If workers have too little memory.
        SourceError
            If the voxels cannot be read; the store then holds the case as it was before, or not at all. After any
            other error the case is in the store and its conversion has started.
        """
        if case_name not in self.scans:
            return "kept"
        progress = context.progress(case_name, STAGE)
        progress(0, 1)
        status = self._convert(context, case_name, self.scans[case_name])
        if self.on_converted is not None:
            self.on_converted(context.cohort[case_name], status)
        progress(1, 1)
        return status

    def _convert(self, context: StageContext, name: str, scan: Scan) -> Status:
        client, cohort, chunk_slices = context.client, context.cohort, self.chunk_slices
        key, writer = key_for(scan), CohortWriter(cohort)
        try:
            stored = cohort.get(name)
            stored_case = reusable = None if stored is None else CaseWriter(stored)
        except StoreError:  # corrupt metadata: the case is converted again
            stored_case = reusable = None
        if reusable is not None and chunk_slices not in (None, reusable.chunk_slices):
            reusable = reusable if layout_of(reusable.geometry, chunk_slices) == reusable.layout else None
        elif reusable is not None:
            chunk_slices = reusable.chunk_slices
        if reusable is not None and reusable.stages.get(STAGE, {}).get("key") == key:
            _describe(reusable, scan)
            return "kept"
        context.memory.check(name, scan.geometry, layout_of(scan.geometry, chunk_slices).slab)
        provenance = {"key": key, "source": location_digest(writer.salt, scan.key)}
        # A corrupt image of the same scan is converted again; results that were computed from it stay valid.
        is_corrupt = reusable is not None and reusable.damage.get(STAGE, {}).get("record", {}).get("key") == key
        repaired = reusable if is_corrupt else None
        if repaired is None and stored_case is not None and STAGE in stored_case.stages:
            # Read the new source to its end first, so that an unreadable one never replaces a good image.
            read_on_worker(client, _check_readable, scan.without_identity())
        case = repaired or writer.add(name, scan.geometry, scan.acquisition, provenance, chunk_slices)
        case_ref = CaseRef.of(cohort, name, case.start_stage(STAGE, key))
        # With harmonised HU, the packed air is that of the harmonised image: a repair of the scan leaves it as it is.
        keeps_air = repaired is not None and bool(record_of(repaired, HARMONISE))
        files, packed_files = case.create_image("ct"), {} if keeps_air else case.create_packed(PACKED)
        air_hu = None if keeps_air else AIR_THRESHOLD if self.air_hu is None else self.air_hu(name, scan.geometry)
        try:
            # One task per scan: compressed sources can only be read sequentially.
            copy = read_on_worker(client, _copy_slabs, scan.without_identity(), case_ref, air_hu)
        except SourceError:
            if repaired is None:
                writer.remove(name)
            raise
        except LungmixError:
            raise
        except OSError:
            # Free the space on a full disk; the case keeps its name for the next run.
            with suppress(OSError):
                for array in (*map(ARRAYS["ct"].level, range(len(case.layout.levels))), PACKED):
                    case.delete_array(array)
            raise
        if air_hu is not None:
            case.record_packed(air_hu, packed_files | copy.packed)
        record: dict[str, Any] = {**provenance, "voxels_sha256": copy.digest, HU: copy.hu}
        if uids := uid_digests(writer.salt, name, scan):
            record[UIDS] = uids
        if interpolated := _interpolated_slices(scan):
            record[INTERPOLATED] = interpolated
        if scan.notes:
            record["notes"] = [redact(note) for note in scan.notes]
        case.record(STAGE, record, files | copy.files)
        return "done"


def _interpolated_slices(scan: Scan) -> int:
    """Return the number of slices of the volume that were interpolated between slices of the files, or shifted."""
    if scan.stack is None or scan.stack.resampling is None:
        return 0
    resampling = scan.stack.resampling
    shifted = [any(float(offset) % 1 for offset in offsets) for offsets in resampling.offsets]
    return sum(bool(weight) or shifted[lower] for lower, _, weight in resampling.sources)


def image_inputs(case: Case) -> dict[str, str]:
    """Return what the cache key of a mask contains of the image that is measured: digest, and key of harmonised HU."""
    harmonised = record_of(case, HARMONISE).get("key")
    return {
        "image": case.stages[STAGE]["voxels_sha256"],
        **({} if harmonised is None else {"harmonised": harmonised}),
    }


def check_image(case: Case) -> None:
    """Raise an error unless the image of a case is complete, and its harmonised image too if it is measured.

    Raises
    ------
    StoreError
        If an image is corrupt, or the conversion of the case did not finish.
    """
    check_converted(case)
    # Raises an error if the image is corrupt.
    assert case.measured_image


def check_converted(case: Case) -> None:
    """Raise an error unless the image of a case is complete.

    Raises
    ------
    StoreError
        If the conversion of the case did not finish, or the image is corrupt.
    """
    if STAGE not in case.stages:
        reason = case.damage.get(STAGE, {}).get("reason", "its conversion did not finish")
        raise StoreError(
            f"case {case.name} has no complete image ({reason}): run `Pipeline.run(sources)` with its source, or "
            "remove it with `Pipeline.remove(names)`",
            case=case.name,
        )


def _describe(case: CaseWriter, scan: Scan) -> None:
    """Add attributes of the scan, such as the date, that this run keeps and the conversion did not; remove none."""
    merged = Acquisition.from_dict({**case.acquisition.to_dict(), **scan.acquisition.to_dict()})
    if merged != case.acquisition:
        case.describe(merged)


@dataclass(frozen=True)
class _Copied:
    """Result of copying a scan: receipts of image and packed air, SHA-256 of the voxels and summary of their HU."""

    files: Receipts
    packed: Receipts
    digest: str
    hu: dict[str, Any]


def _check_readable(scan: Scan) -> None:
    """Raise `SourceError` unless a scan can be read to its end."""
    _check_end(scan, sum(len(slab) for slab in scan.slabs(_SLAB)))


def _copy_slabs(scan: Scan, case_ref: CaseRef, air_hu: int | None) -> _Copied:
    """Write the image of a scan, and its air unless `air_hu` is None."""
    digest = hashlib.sha256()
    files: Receipts = {}
    packed: Receipts = {}
    histogram = np.zeros(N_HU, np.uint64)
    start = 0
    for slab in scan.slabs(case_ref.open().layout.slab):
        case = case_ref.open("r+")
        _check_slab(case, start, slab)
        digest.update(np.ascontiguousarray(slab).data)
        add_all(slab, histogram)
        files |= case.write("ct", start, slab)
        # The mask stage starts from packed air: packing it here saves that stage a pass over the voxels.
        if air_hu is not None:
            packed |= case.write_packed(PACKED, start, pack_below(slab, air_hu))
        start += len(slab)
    _check_end(scan, start)
    return _Copied(files, packed, digest.hexdigest(), summarize(histogram).to_dict())


def _check_end(scan: Scan, slices: int) -> None:
    depth = scan.geometry.shape[0]
    if slices != depth:
        raise SourceError(
            f"{mark_path(scan.path)} holds {count_of(slices, 'slice')}, its header declares {depth}: get the file again"
        )


def _check_slab(case: Case, start: int, slab: npt.NDArray[np.int16]) -> None:
    if slab.dtype != np.int16 or slab.shape[1:] != case.geometry.shape[1:]:
        raise SourceError(
            f"slices from {start} on do not have the size or type that the header of {case.name} declares: "
            "get the file again"
        )
