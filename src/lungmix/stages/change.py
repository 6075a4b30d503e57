"""Change: writes the labels of a later scan in the space of the patient's first scan, and the change of each voxel.

Runs after the stage register. Slabs of the first scan's grid are computed apart from each other: each task reads the
part of the later labels that its voxels come from. Neither chunks nor workers change a voxel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import dask
import numpy as np
import numpy.typing as npt

from lungmix.cluster.compute import compute_in_order
from lungmix.errors import StoreError
from lungmix.geometry import AxisOrder, Geometry
from lungmix.kernels.warping import CHANGE_CODES, N_LABELS, Warp, pair_counts
from lungmix.stages import label, register
from lungmix.stages.base import StageContext, Status
from lungmix.store import Case, CaseFiles, CaseRef, CaseWriter, Cohort
from lungmix.store.digests import cache_key
from lungmix.store.objects import Receipts
from lungmix.store.schema import CHANGE
from lungmix.tissue import CHANGES, INVOLVED, TISSUES

STAGE = CHANGE
TISSUE, IMAGE = "registered_tissue", "change"

FAILED = "failed"
"""Value of the column ``registration`` of a scan that could not be registered."""

_VERSION = 1

Counts = npt.NDArray[np.int64]


def key_for(first: Case, later: Case) -> str:
    """Return the cache key of the change maps of two labelled cases, the later of which is registered."""
    labels = [case.stages[label.STAGE]["key"] for case in (first, later)]
    return cache_key(stage=STAGE, version=_VERSION, register=later.stages[register.STAGE]["key"], labels=labels)


def is_valid(first: Case, later: Case) -> bool:
    """Return True if a later scan has the change maps of its valid registration and of the labels of both scans."""
    record = later.stages.get(STAGE, {})
    return (
        register.is_valid(first, later)
        and all(label.STAGE in case.stages for case in (first, later))
        and "key" in record
        and record["key"] == key_for(first, later)
    )


@dataclass(frozen=True)
class ChangeStage:
    """Stage that maps the changes of later scans of patients since the first.

    Attributes
    ----------
    firsts : mapping of str to str
        Case of the first scan by the case of each later scan.
    source : Cohort, optional
        Store of the first scans; by default the store of the later ones.
    """

    firsts: Mapping[str, str]
    source: Cohort | None = None
    name: str = STAGE

    def cache_key(self, case: Case) -> str | None:
        """Return None: whether a change map is valid depends on another case too, see `is_valid`."""
        return None

    def run(self, context: StageContext, case_name: str) -> Status:
        """Write the change maps of the case, unless the store holds them, or the scans could not be registered.

        Raises
        ------
        RoomError
            If workers have too little memory.
        StoreError
            If one of both scans has no labels, or the later scan is not registered.
        """
        source = self.source or context.cohort
        later, first = CaseWriter(context.cohort[case_name]), source.case(self.firsts[case_name])
        for case in (first, later):
            if label.STAGE not in case.stages:
                raise StoreError(f"case {case.name} has no labels: run `Pipeline.label()` first", case=case.name)
        if not register.is_valid(first, later):
            raise StoreError(
                f"case {case_name} is not registered with the first scan of its patient: run "
                '`Pipeline.followup(register="deformable")`',
                case=case_name,
            )
        if "reason" in later.stages[register.STAGE]:
            return "kept"
        key = key_for(first, later)
        if later.stages.get(STAGE, {}).get("key") == key:
            return "kept"
        layout = later.layout_of(IMAGE)
        for case, slab in ((first, layout.slab), (later, later.layout.slab)):
            context.memory.check(case.name, case.geometry, slab)
        case_ref = CaseRef.of(context.cohort, case_name, later.start_stage(STAGE, key))
        files = later.create_image(TISSUE) | later.create_image(IMAGE)
        write, first_ref = dask.delayed(_write_slab), CaseRef.of(source, first.name)
        tasks = [write(first_ref, case_ref, *span) for span in layout.slabs()]
        pairs, median_pairs = np.zeros((2, N_LABELS, N_LABELS), np.int64)
        for counted, counted_median, slab_files in compute_in_order(
            context.client, tasks, context.progress(case_name, STAGE)
        ):
            pairs += counted
            median_pairs += counted_median
            files |= slab_files
        later.record(STAGE, {"key": key, "pairs": pairs.tolist(), "median_pairs": median_pairs.tolist()}, files)
        return "done"


def _write_slab(first_ref: CaseRef, case_ref: CaseRef, start: int, stop: int) -> tuple[Counts, Counts, Receipts]:
    """Write the change maps of a slab of the first scan; return the counts of pairs of labels, and receipts.

    Pairs are counted of the labels voxel by voxel, and of those after the median, of which changes are mapped.
    """
    first, later = first_ref.open(), case_ref.open("r+")
    grid = later.grid_of(IMAGE)
    warp = warp_of(later, grid)
    order = grid.axis_order
    spans = _axial_spans(order, grid, warp, start, stop)
    box = warp.source_box(spans)
    none = np.zeros((N_LABELS, N_LABELS), np.int64)
    if box is None:
        return none, none, {}
    maps = [later.zarr_array(name)[box] for name in ("tissue", "tissue_median")]
    tissue, median = warp.warp(maps, box, spans)
    if not tissue.any():
        return none, none, {}
    inside = tuple(slice(*span) for span in spans)
    parts = tuple(
        slice(n - part.stop, n - part.start) if flip else part
        for part, n, flip in zip(order.by_array(inside), grid.shape, order.flipped, strict=True)
    )
    before, median_before = (order.to_axial(first.zarr_array(name)[parts]) for name in ("tissue", "tissue_median"))
    shape = (stop - start, *grid.shape[1:])
    target = (slice(parts[0].start - start, parts[0].stop - start), *parts[1:])
    files: Receipts = {}
    for name, values in ((TISSUE, tissue), (IMAGE, CHANGE_CODES[median_before, median])):
        slab = np.zeros(shape, np.uint8)
        slab[target] = order.from_axial(values)
        files |= later.write(name, start, slab)
    return pair_counts(before, tissue), pair_counts(median_before, median), files


def warp_of(later: CaseFiles, grid: Geometry) -> Warp:
    """Return the map from voxels of the first scan to those of a registered later scan.

    Parameters
    ----------
    later : CaseFiles
        The later scan.
    grid : Geometry
        Geometry of the first scan.
    """
    field = Geometry.from_dict(later.stages[register.STAGE]["field"])
    return Warp(grid.axial, later.geometry, field, later.read_displacement())


def _axial_spans(order: AxisOrder, grid: Geometry, warp: Warp, start: int, stop: int) -> list[tuple[int, int]]:
    """Return the range of voxels of a stored slab along the axes of the axial array, within the displacements."""
    n = grid.shape[0]
    stored = [(n - stop, n - start) if order.flipped[0] else (start, stop), *((0, size) for size in grid.shape[1:])]
    spans = []
    for (low, high), (first, last) in zip(order.by_patient(stored), warp.covered(), strict=True):
        spans.append((max(low, first), min(high, last)))
    return spans


def columns_of(first: Case, later: Case) -> dict[str, float | str]:
    """Return the columns of a later scan in the table of the follow-up that come from its registration.

    Volumes are those of the first scan, so that a part of the lungs counts alike at each inspiration.

    Parameters
    ----------
    first, later : Case
        First and later scan of a patient.

    Returns
    -------
    dict of str to float or str
        Values by column of `lungmix.kernels.data_dictionary.REGISTRATION`; empty without a valid registration, and
        only the kind where the scans could not be registered.
    """
    if not register.is_valid(first, later):
        return {}
    record = later.stages[register.STAGE]
    if "reason" in record:
        return {"registration": FAILED}
    values: dict[str, float | str] = {"registration": str(record["kind"])}
    values |= {f"registration_{name}": float(record[name]) for name in ("dice", "similarity", "volume_ratio")}
    if not is_valid(first, later):
        return values
    voxel_ml = Geometry.from_dict(record["grid"]).voxel_ml
    pairs, median_pairs = (np.array(later.stages[STAGE][name])[1:, 1:] for name in ("pairs", "median_pairs"))
    is_involved = np.array([tissue.key in INVOLVED for tissue in TISSUES])
    # Without a voxel that both scans show, percentages are unknown.
    total = int(pairs.sum()) or float("nan")
    before, after = (100 * float(pairs.sum(axis=axis) @ is_involved) / total for axis in (1, 0))
    values |= {
        "registered_lung_ml": int(pairs.sum()) * voxel_ml,
        "registered_lung_involvement_first": before,
        "registered_lung_involvement": after,
        "change_registered_lung_involvement": after - before,
    }
    codes = CHANGE_CODES[1:, 1:]
    return values | {
        f"{change.key}_ml": int(median_pairs[codes == change.label].sum()) * voxel_ml for change in CHANGES[1:]
    }


def reason_of(first: Case, later: Case) -> str | None:
    """Return why the lungs of a later scan could not be registered; None if they were, or it was not tried."""
    return later.stages[register.STAGE].get("reason") if register.is_valid(first, later) else None
