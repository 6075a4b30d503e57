"""Convert: reads a scan slab by slab, writes the case's image; depends on the source alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.errors import SourceError
from lungmix.kernels.bits import pack_below
from lungmix.parameters import MaskParameters
from lungmix.scan import Acquisition
from lungmix.store import Case, CaseRef, Cohort
from lungmix.store.records import key_of, place_of

if TYPE_CHECKING:
    from lungmix.formats import Scan

STAGE = "convert"
AIR = "air"
"""Packed mask of the voxels that are air at the usual threshold."""

AIR_THRESHOLD = MaskParameters().threshold


def key_for(scan: Scan) -> str:
    """What a conversion depends on."""
    return key_of(stage=STAGE, version=1, fingerprint=scan.fingerprint)


def convert_case(client: Client, cohort: Cohort, name: str, scan: Scan) -> str:
    """Bring a scan into the store as the case `name`, unless it is there unchanged.

    Raises
    ------
    SourceError
        If the voxels cannot be read; the case is then not in the store.
    """
    key = key_for(scan)
    if name in cohort and cohort[name].stages.get(STAGE, {}).get("key") == key:
        _describe(cohort[name], scan)
        return "kept"
    case = cohort.add(name, scan.geometry, scan.acquisition)
    case.create("ct")
    case.create_packed(AIR)
    try:
        # One task a scan: compressed sources can only be read from their beginning to their end.
        digest = client.submit(
            _copy_slabs, scan.without_identity(), CaseRef(cohort.url, name), pure=False, retries=2
        ).result()
    except BaseException:
        cohort.remove(name)
        raise
    case.packed_threshold = AIR_THRESHOLD
    case.record(STAGE, {"key": key, "source": place_of(cohort.salt, scan.key), "voxels_sha256": digest})
    return "done"


def _describe(case: Case, scan: Scan) -> None:
    """Add what is asked for now and was not when the scan was converted; nothing is taken away."""
    merged = Acquisition.from_dict({**case.acquisition.to_dict(), **scan.acquisition.to_dict()})
    if merged != case.acquisition:
        case.describe(merged)


def _copy_slabs(scan: Scan, where: CaseRef) -> str:
    case = where.open("r+")
    digest = hashlib.sha256()
    start = 0
    for slab in scan.slabs(case.layout.slab):
        _check(case, start, slab)
        digest.update(np.ascontiguousarray(slab).data)
        case.write("ct", start, slab)
        # The mask begins with these bits: made now, they spare it a pass over the voxels.
        case.write_packed(AIR, start, pack_below(slab, AIR_THRESHOLD))
        start += len(slab)
    if start != case.geometry.shape[0]:
        raise SourceError(
            f"{scan.path} holds {start} slices where its header promises {case.geometry.shape[0]}: get the file again"
        )
    return digest.hexdigest()


def _check(case: Case, start: int, slab: npt.NDArray[np.int16]) -> None:
    if slab.dtype != np.int16 or slab.shape[1:] != case.geometry.shape[1:]:
        raise SourceError(
            f"slices from {start} on do not have the size or type that the header of {case.name} promises"
        )
