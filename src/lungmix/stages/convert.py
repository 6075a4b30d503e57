"""Convert: reads a scan slab by slab, writes the case's image; depends on the source alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.cluster.worker_memory import WorkerMemory
from lungmix.errors import LungmixError, SourceError, StoreError, mark_path, mark_untrusted, redact
from lungmix.kernels.histogram import N_HU
from lungmix.kernels.packed_masks import pack_below
from lungmix.kernels.plausibility import add_all, summarize
from lungmix.parameters import MaskParameters
from lungmix.privacy.acquisition import Acquisition
from lungmix.stages.base import StageContext, Status
from lungmix.store import Case, CaseRef, Cohort, layout_of
from lungmix.store.digests import cache_key, location_digest
from lungmix.store.objects import Receipts

if TYPE_CHECKING:
    from lungmix.formats import Scan

STAGE = "convert"
AIR = "air"
"""Packed mask of the voxels that are air at the usual threshold."""

HU = "hu"
"""Summary of the HU of the whole image in the record, see `lungmix.kernels.plausibility`; stores of earlier versions
lack it."""

AIR_THRESHOLD = MaskParameters().threshold

T = TypeVar("T")
_SLAB = 64


def key_for(scan: Scan) -> str:
    """What a conversion depends on."""
    return cache_key(stage=STAGE, version=1, fingerprint=scan.fingerprint)


def convert_case(
    client: Client,
    cohort: Cohort,
    name: str,
    scan: Scan,
    chunk_slices: int | None = None,
    room: WorkerMemory | None = None,
) -> Status:
    """Bring a scan into the store as the case `name`, unless it is there unchanged.

    Parameters
    ----------
    client : distributed.Client
        Does the work.
    cohort : Cohort
        Opened for writing.
    name : str
        Of the case.
    scan : Scan
        What is read.
    chunk_slices : int, optional
        Slices of a chunk, see `lungmix.store.chunking.layout_of`. A case that is cut otherwise is made anew; without a
        number it stays as it is cut.
    room : Room, optional
        Memory of workers.

    Raises
    ------
    RoomError
        If workers have too little memory.
    SourceError
        If the voxels cannot be read; the case is then what it was before, and not in the store if it was not. After any
        other error it is there, and begun.
    """
    key = key_for(scan)
    try:
        before = known = cohort.get(name)
    except StoreError:  # damaged metadata: the case is begun anew
        before = known = None
    if known is not None and chunk_slices not in (None, known.chunk_slices):
        known = known if layout_of(known.geometry, chunk_slices) == known.layout else None
    elif known is not None:
        chunk_slices = known.chunk_slices
    if known is not None and known.stages.get(STAGE, {}).get("key") == key:
        _describe(known, scan)
        return "kept"
    if room is not None:
        room.check(name, scan.geometry, layout_of(scan.geometry, chunk_slices).slab)
    origin = {"key": key, "source": location_digest(cohort.salt, scan.key)}
    # A damaged image of the same scan is made again; what was computed from it is still true.
    mended = known if known is not None and known.damage.get(STAGE, {}).get("record", {}).get("key") == key else None
    if mended is None and before is not None and STAGE in before.stages:
        # What cannot be read to its end must not take the place of what is whole.
        _submit(client, _read_through, scan)
    case = mended or cohort.add(name, scan.geometry, scan.acquisition, origin, chunk_slices)
    where = cohort.ref(name, case.start_stage(STAGE, key))
    files, packed = case.create_image("ct"), case.create_packed(AIR)
    try:
        # One task a scan: compressed sources can only be read from their beginning to their end.
        copied = _submit(client, _copy_slabs, scan, where)
    except SourceError:
        if mended is None:
            cohort.remove(name)
        raise
    except OSError:
        # A full disk gets its space back; the case keeps its name for the next run.
        with suppress(OSError):
            for array in (*map(str, range(len(case.layout.levels))), AIR):
                case.delete_array(array)
        raise
    case.record_packed(AIR_THRESHOLD, packed | copied.packed)
    record: dict[str, Any] = {**origin, "voxels_sha256": copied.digest, HU: copied.hu}
    if scan.notes:
        record["notes"] = [redact(note) for note in scan.notes]
    case.record(STAGE, record, files | copied.files)
    return "done"


@dataclass(frozen=True)
class ConvertStage:
    """Converts the scans of a run; cases without a new scan stay as they are.

    Attributes
    ----------
    scans : mapping of str to Scan
        By name of the case.
    chunk_slices : int, optional
        Slices of a chunk, see `convert_case`.
    on_converted : callable, optional
        Called with each case of `scans` and its status, such as to write files beside the store.
    """

    scans: Mapping[str, Scan]
    chunk_slices: int | None = None
    on_converted: Callable[[Case, Status], None] | None = None
    name: str = STAGE

    def cache_key(self, case: Case) -> str:
        """Return the key of a valid image of the case."""
        return key_for(self.scans[case.name])

    def run(self, context: StageContext, case_name: str) -> Status:
        """Convert the case's scan; see `convert_case`."""
        if case_name not in self.scans:
            return "kept"
        progress = context.progress(case_name, STAGE)
        progress(0, 1)
        status = convert_case(
            context.client, context.cohort, case_name, self.scans[case_name], self.chunk_slices, context.memory
        )
        if self.on_converted is not None:
            self.on_converted(context.cohort[case_name], status)
        progress(1, 1)
        return status


def check_converted(case: Case) -> None:
    """Refuse a case whose image is not whole.

    Raises
    ------
    StoreError
        If it was never converted to its end, or is damaged.
    """
    if STAGE not in case.stages:
        reason = case.damage.get(STAGE, {}).get("reason", "its conversion did not come to its end")
        raise StoreError(
            f"case {case.name} has no whole image ({reason}): run again with its SOURCE, or `lungmix remove` it"
        )


def _describe(case: Case, scan: Scan) -> None:
    """Add what is asked for now and was not when the scan was converted; nothing is taken away."""
    merged = Acquisition.from_dict({**case.acquisition.to_dict(), **scan.acquisition.to_dict()})
    if merged != case.acquisition:
        case.describe(merged)


@dataclass(frozen=True)
class _Copied:
    """What a copy wrote: receipts of image and packed air, the SHA-256 of the voxels and the summary of their HU."""

    files: Receipts
    packed: Receipts
    digest: str
    hu: dict[str, Any]


def _submit(client: Client, work: Callable[..., T], scan: Scan, *inputs: Any) -> T:
    """Have a worker read a scan."""
    result = client.submit(_spare, work, scan.without_identity(), *inputs, pure=False, retries=2).result()
    if isinstance(result, SourceError):
        raise result
    return result


def _spare(work: Callable[..., T], scan: Scan, *inputs: Any) -> T | SourceError:
    """What the work gave, or why the source cannot be read: no fault of the worker, which would log and repeat it."""
    try:
        return work(scan, *inputs)
    except SourceError as error:
        return error
    except (LungmixError, OSError, MemoryError):
        raise
    except Exception as error:
        # Workers log what a task raises, and other libraries quote what they stumble over.
        raise SourceError(
            f"{mark_path(scan.path)} cannot be read (unexpected {type(error).__name__}: {mark_untrusted(error)}): "
            "run again with "
            "--debug and report it"
        ) from error


def _read_through(scan: Scan) -> None:
    """Read a scan to its end."""
    _check_end(scan, sum(len(slab) for slab in scan.slabs(_SLAB)))


def _copy_slabs(scan: Scan, where: CaseRef) -> _Copied:
    digest = hashlib.sha256()
    files: Receipts = {}
    packed: Receipts = {}
    counts = np.zeros(N_HU, np.uint64)
    start = 0
    for slab in scan.slabs(where.open().layout.slab):
        case = where.open("r+")
        _check(case, start, slab)
        digest.update(np.ascontiguousarray(slab).data)
        add_all(slab, counts)
        files |= case.write("ct", start, slab)
        # The mask begins with these bits: made now, they spare it a pass over the voxels.
        packed |= case.write_packed(AIR, start, pack_below(slab, AIR_THRESHOLD))
        start += len(slab)
    _check_end(scan, start)
    return _Copied(files, packed, digest.hexdigest(), summarize(counts).to_dict())


def _check_end(scan: Scan, slices: int) -> None:
    depth = scan.geometry.shape[0]
    if slices != depth:
        raise SourceError(
            f"{mark_path(scan.path)} holds {slices} slices where its header promises {depth}: get the file again"
        )


def _check(case: Case, start: int, slab: npt.NDArray[np.int16]) -> None:
    if slab.dtype != np.int16 or slab.shape[1:] != case.geometry.shape[1:]:
        raise SourceError(
            f"slices from {start} on do not have the size or type that the header of {case.name} promises"
        )
