"""Register: finds where points of the lungs of a first scan lie in a later scan; see docs/registration.md.

Runs on request, for later scans. One task reads both scans slab by slab, and registers copies of their lungs of 2.5 mm.
The displacements are stored with the later scan. The result depends neither on chunks nor on the number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np

from lungmix.cluster.compute import compute_in_order
from lungmix.errors import StoreError
from lungmix.geometry import Geometry
from lungmix.kernels.reduction import ReducedGrid, Reduction
from lungmix.kernels.registration import (
    GRID_MM,
    LATER_MARGIN_MM,
    LEAST_LUNG_ML,
    MARGIN_MM,
    LungImage,
    lung_image,
    reason_against,
    register_lungs,
)
from lungmix.parameters import DEFORMABLE
from lungmix.stages import convert, mask
from lungmix.stages.base import StageContext, Status
from lungmix.stages.reduced import reduced_means
from lungmix.store import Case, CaseFiles, CaseRef, CaseWriter, Cohort
from lungmix.store.digests import cache_key
from lungmix.store.objects import Receipts
from lungmix.store.schema import REGISTER

STAGE = REGISTER

_VERSION = 1
_SHARE = 1000
"""Value of a voxel of lung when the part of a reduced voxel that is lung is computed in integers."""


def key_for(first: Case, later: Case, kind: str) -> str:
    """Return the cache key of the registration of two masked cases."""
    return cache_key(stage=STAGE, version=_VERSION, kind=kind, scans=[_inputs(case) for case in (first, later)])


def _inputs(case: Case) -> dict[str, Any]:
    record = case.stages[convert.STAGE]
    return {
        "image": record["voxels_sha256"],
        "geometry": case.geometry.to_dict(),
        "mask": case.stages[mask.STAGE]["key"],
    }


def is_valid(first: Case, later: Case) -> bool:
    """Return True if a later scan has the registration, of any kind, of the present images and masks of both scans."""
    record = later.stages.get(STAGE, {})
    return (
        all({convert.STAGE, mask.STAGE} <= case.stages.keys() for case in (first, later))
        and "key" in record
        and record["key"] == key_for(first, later, str(record.get("kind")))
    )


@dataclass(frozen=True)
class RegisterStage:
    """Stage that registers later scans with the first scan of their patient.

    Attributes
    ----------
    firsts : mapping of str to str
        Case of the first scan by the case of each later scan.
    kind : {"affine", "deformable"}
        Kind of the registration.
    source : Cohort, optional
        Store of the first scans; by default the store of the later ones.
    """

    firsts: Mapping[str, str]
    kind: str = DEFORMABLE
    source: Cohort | None = None
    name: str = STAGE

    def cache_key(self, case: Case) -> str | None:
        """Return None: whether a registration is valid depends on another case too, see `is_valid`."""
        return None

    def run(self, context: StageContext, case_name: str) -> Status:
        """Register the case, unless the store holds its registration.

        If the lungs cannot be registered, the reason is recorded in place of a result.

        Raises
        ------
        RoomError
            If workers have too little memory.
        StoreError
            If one of both scans has no mask, or an unknown orientation.
        """
        source = self.source or context.cohort
        later, first = CaseWriter(context.cohort[case_name]), source.case(self.firsts[case_name])
        for case in (first, later):
            convert.check_image(case)
            mask.check_masked(case)
            if not case.geometry.orientation_known:
                raise StoreError(
                    f"case {case.name}: its orientation in the patient is unknown, so that it cannot be registered: "
                    "convert it from a file that states its orientation",
                    case=case.name,
                )
        key = key_for(first, later, self.kind)
        if later.stages.get(STAGE, {}).get("key") == key:
            return "kept"
        for case in (first, later):
            context.memory.check(case.name, case.geometry, case.layout.slab)
        case_ref = CaseRef.of(context.cohort, case_name, later.start_stage(STAGE, key))
        task = dask.delayed(_register)(CaseRef.of(source, first.name), case_ref, self.kind)
        ((numbers, files),) = compute_in_order(context.client, [task], context.progress(case_name, STAGE))
        record = {"key": key, "kind": self.kind, "first": first.name, "grid": first.geometry.to_dict(), **numbers}
        later.record(STAGE, record, files)
        return "done"


def lungs_of(case: CaseFiles, margin_mm: float) -> LungImage | None:
    """Return the lungs of a masked case on the grid of the registration; None if there is too little lung.

    Parameters
    ----------
    case : CaseFiles
        The case; HU are those of the scan, also if it is harmonised.
    margin_mm : float
        Width of the border around the lungs, mm.
    """
    axial = case.geometry.axial
    z, y, x = (max(1, int(GRID_MM / spacing)) for spacing in axial.spacing_zyx)
    reduction = Reduction(0, (z, y, x), (1, 1, 1))
    grid = ReducedGrid(reduction, axial.first_index)
    hu = reduced_means(case, grid, lambda start, stop: np.clip(case.read("ct", start, stop), -1024, 0))
    lung = reduced_means(
        case, grid, lambda start, stop: np.multiply(case.read("lung", start, stop) > 0, _SHARE, dtype=np.int16)
    )
    geometry = _geometry_of(axial, grid, hu.shape)
    return lung_image(hu, lung.astype(np.float32) / _SHARE, geometry, margin_mm)


def _geometry_of(axial: Geometry, grid: ReducedGrid, shape: tuple[int, ...]) -> Geometry:
    """Return the geometry of a reduced copy, whose voxels lie at the centres of the blocks that they are means of."""
    factors, missing = np.array(grid.reduction.factors[::-1]), np.array(grid.missing[::-1])
    columns = np.reshape(axial.direction, (3, 3)) * axial.spacing
    origin = np.asarray(axial.origin) + columns @ ((factors - 1) / 2 - missing)
    spacing = np.asarray(axial.spacing) * factors
    return Geometry(shape[::-1], tuple(spacing), tuple(origin), axial.direction)  # type: ignore[arg-type]


def _register(first_ref: CaseRef, case_ref: CaseRef, kind: str) -> tuple[dict[str, Any], Receipts]:
    """Register two scans, write the displacements, and return the numbers of the record and the receipts."""
    first = lungs_of(first_ref.open(), MARGIN_MM)
    later = lungs_of(case_ref.open(), LATER_MARGIN_MM)
    for lungs, scan in ((first, "first"), (later, "later")):
        if lungs is None:
            return {"reason": f"the {scan} scan has less than {LEAST_LUNG_ML:.0f} mL of lung"}, {}
    assert first is not None and later is not None  # noqa: PT018  # for the type checker
    alignment = register_lungs(first, later, kind)
    reason = reason_against(alignment, kind)
    if alignment is None:
        return {"reason": reason}, {}
    numbers: dict[str, Any] = {
        "affine": [float(value) for value in alignment.affine.ravel()],
        "field": alignment.geometry.to_dict(),
        **{
            name: round(float(getattr(alignment, name)), 6)
            for name in ("dice", "overlap", "similarity", "volume_ratio", "folded")
        },
    }
    if reason is not None:
        return {**numbers, "reason": reason}, {}
    return numbers, case_ref.open("r+").write_displacement(alignment.displacement)
