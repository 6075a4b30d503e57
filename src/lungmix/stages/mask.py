"""Mask: reads the image, writes the lung mask and its histogram; depends on the image and the mask parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.cluster.compute import compute_in_order
from lungmix.cluster.connect import min_worker_memory
from lungmix.errors import HuError, NoLungError, StoreError, count_of, first_of
from lungmix.geometry import Geometry
from lungmix.graphs.mask import buffered_lung, close_lung, select_lung_components
from lungmix.graphs.memory import mask_chunks
from lungmix.kernels.histogram import N_HU, SparseHistogram, count_hu_packed
from lungmix.kernels.mask import ComponentSummary, MaskRecipe, recipe_for
from lungmix.kernels.morphology import opening
from lungmix.kernels.packed_masks import Bits, bounding_box, pack_below, unpack, words_for
from lungmix.kernels.rejected_components import Rejected
from lungmix.parameters import ANATOMICAL, ANATOMICAL_RULES, MaskParameters
from lungmix.stages import convert
from lungmix.stages.base import StageContext, Status
from lungmix.stages.plausibility import ACCEPTED, check_plausible
from lungmix.stages.reduced import find_rejected_components
from lungmix.store import Case, CaseRef, CaseWriter
from lungmix.store.digests import cache_key
from lungmix.store.objects import Receipts
from lungmix.store.schema import MASK, OPENED, PACKED

STAGE = MASK

Edges = npt.NDArray[np.int64]


def key_for(case: Case, parameters: MaskParameters) -> str:
    """Return the cache key of a mask; it contains the axis from feet to head only if this is not the first axis."""
    order = case.geometry.axis_order
    axes = {"cranial_axis": order.cranial_axis} if order.cranial_axis else {}
    rules = {"rules": ANATOMICAL_RULES} if parameters.preset == ANATOMICAL else {}
    return cache_key(
        stage=STAGE, version=1, **convert.image_inputs(case),
        spacing=case.geometry.spacing, parameters=parameters.to_dict(), **axes, **rules,
    )  # fmt: skip


@dataclass(frozen=True)
class MaskStage:
    """Stage that computes the lung masks of converted cases.

    Attributes
    ----------
    parameters : MaskParameters
        Parameters of the mask.
    accept_hu : bool
        Compute masks also of cases whose values are not HU of a chest CT.
    """

    parameters: MaskParameters
    accept_hu: bool = False
    name: str = STAGE

    def cache_key(self, case: Case) -> str | None:
        """Return the cache key of a valid mask of the case; None without an image."""
        return key_for(case, self.parameters) if convert.STAGE in case.stages else None

    def air_hu(self, case_name: str, geometry: Geometry) -> int:
        """Return the HU below which the voxels of a case are air."""
        return self.parameters.air_hu

    def run(self, context: StageContext, case_name: str) -> Status:
        """Compute the lung mask of the case, unless the store holds it for these parameters.

        Raises
        ------
        RoomError
            If workers have too little memory.
        HuError
            If the values are not HU of a chest, and are accepted neither now nor in the record of the mask.
        NoLungError
            If no component qualifies as lung.
        """
        client, parameters = context.client, self.parameters
        case = CaseWriter(context.cohort[case_name])
        convert.check_image(case)
        key = key_for(case, parameters)
        accepted = check_hu(case, key, accept=self.accept_hu)
        if case.stages.get(STAGE, {}).get("key") == key:
            return "kept"
        context.memory.check(case_name, case.geometry, case.layout.slab)
        recipe = recipe_for(parameters, case.geometry.spacing_zyx, case.geometry.axis_order)
        case_ref = CaseRef.of(context.cohort, case_name, case.start_stage(STAGE, key))
        files = case.create_image("lung")
        case.create_packed(OPENED)
        if case.packed_threshold != parameters.air_hu:
            pack_air(client, case, case_ref, parameters.air_hu)
        opened = _opened_slabs(case, case_ref, recipe, min_worker_memory(client))
        nx = case.geometry.shape[2]
        slab_buffer = StoreSlabBuffer(case_ref)
        # The kept components go through the client, so that later tasks depend neither on slabs nor on a worker.
        (kept_components,) = compute_in_order(client, [select_lung_components(opened, nx, recipe, slab_buffer)])
        bits = close_lung(buffered_lung(slab_buffer, kept_components, opened.chunks, nx), nx, recipe)
        written = bits.map_blocks(
            _finish_slab, case_ref=case_ref, starts=np.cumsum([0, *bits.chunks[0]]),
            dtype=object, chunks=((1,) * len(bits.chunks[0]), (1,), (1,)), meta=np.empty((0, 0, 0), object),
        )  # fmt: skip
        finished = compute_in_order(client, list(written.to_delayed().reshape(-1)), context.progress(case_name, STAGE))
        histogram = np.zeros(N_HU, np.uint64)
        for result in finished:
            result.counts.add_to(histogram)
            files |= result.files
        files |= case.write_histogram("hu_counts", histogram)
        voxels, summary = int(histogram.sum()), kept_components.summary
        case.delete_array(OPENED)
        if not voxels:
            (rejected,) = compute_in_order(client, [dask.delayed(find_rejected_components)(case_ref)])
            reason = describe_failure(case, parameters, recipe.min_voxels, summary, rejected)
            raise NoLungError(reason, case=case_name)
        record = {"key": key, "parameters": parameters.to_dict(), "voxels": voxels, "islands": summary.kept}
        case.record(STAGE, {**record, **({ACCEPTED: True} if accepted else {})}, files)
        return "done"


def check_hu(case: CaseWriter, key: str, *, accept: bool) -> bool:
    """Raise an error unless the values of a case are HU of a chest or accepted, see `check_plausible`.

    The store then records that the mask with cache key `key` failed.

    Returns
    -------
    bool
        True if the values are not HU of a chest, but the user accepts them.

    Raises
    ------
    HuError
        If the values are rejected and not accepted.
    """
    try:
        return check_plausible(case, accept=accept)
    except HuError:
        if STAGE not in case.stages:
            # Start the stage, as a failure is recorded with the stage that is under way.
            case.start_stage(STAGE, key)
        raise


def pack_air(client: Client, case: CaseWriter, case_ref: CaseRef, threshold: int) -> None:
    """Pack the air of a case, voxels below a threshold in HU, in place of air at another threshold."""
    case.record_packed(None)
    packed = case.create_packed(PACKED)
    pack_slab = dask.delayed(_pack_slab)
    tasks = [pack_slab(case_ref, *span, threshold) for span in case.layout.slabs()]
    for receipts in compute_in_order(client, tasks):
        packed |= receipts
    case.record_packed(threshold, packed)


def check_masked(case: Case) -> None:
    """Raise an error unless a case has a complete lung mask.

    Raises
    ------
    StoreError
        If the mask is missing or corrupt.
    """
    if STAGE not in case.stages:
        reason = case.damage.get(STAGE, {}).get("reason", "it was not computed yet, or not completely")
        raise StoreError(
            f"case {case.name} has no complete lung mask ({reason}): run `Pipeline.mask()` first", case=case.name
        )


@dataclass(frozen=True, eq=False)
class _WrittenSlab:
    """Histogram of a written slab, and receipts of its shards."""

    counts: SparseHistogram
    files: Receipts


@dataclass(frozen=True)
class StoreSlabBuffer:
    """Temporary store of slabs of air after the opening, until their components are labelled."""

    case_ref: CaseRef

    def put(self, start: int, bits: Bits) -> None:
        """Write the slab that begins at slice `start`."""
        self.case_ref.open("r+").write_packed(OPENED, start, bits)

    def get(self, start: int, stop: int) -> Bits:
        """Return slices `start` to `stop` of the air that was written."""
        return self.case_ref.open().read_packed(OPENED, start, stop)


def _opened_slabs(case: Case, case_ref: CaseRef, recipe: MaskRecipe, memory_limit: int | None) -> da.Array:
    """Return the packed air of a case after the opening, in slabs as thick as the workers' memory allows."""
    shape = case.geometry.shape
    thick = mask_chunks(case.layout.stored, *shape[1:], recipe.halo, memory_limit)
    return da.map_blocks(
        _open_slab, case_ref=case_ref, starts=np.cumsum([0, *thick]), recipe=recipe,
        dtype=np.uint64, chunks=(thick, (shape[1],), (words_for(shape[2]),)), meta=np.empty((0, 0, 0), np.uint64),
    )  # fmt: skip


def _open_slab(case_ref: CaseRef, starts: Edges, recipe: MaskRecipe, block_id: tuple[int, ...] | None = None) -> Bits:
    if block_id is None:
        return np.empty((0, 0, 0), np.uint64)
    start, stop = starts[block_id[0] : block_id[0] + 2].tolist()
    case = case_ref.open()
    depth, _, nx = case.geometry.shape
    # Neighbouring slices that the opening needs are few: each task reads them itself.
    halo = 2 * recipe.opening.extent[0]
    low, high = max(0, start - halo), min(depth, stop + halo)
    return opening(case.read_packed(PACKED, low, high), nx, recipe.opening, (start - low, stop - low))


def _pack_slab(case_ref: CaseRef, start: int, stop: int, threshold: int) -> Receipts:
    case = case_ref.open("r+")
    return case.write_packed(PACKED, start, pack_below(case.read(case.measured_image, start, stop), threshold))


def describe_failure(
    case: Case, parameters: MaskParameters, min_voxels: int, summary: ComponentSummary, rejected: Sequence[Rejected]
) -> str:
    """Return the message that no lung was found, with the largest components of air and a remedy."""
    spacing = " x ".join(f"{s:.3g}" for s in case.geometry.spacing)
    if summary.largest:
        seen = "; ".join(
            f"{count_of(voxels, 'voxel')} ({voxels * case.geometry.voxel_ml:,.0f} mL"
            + (", touches the image edge)" if touches else ", clear of the image edge)")
            for voxels, touches in summary.largest[:3]
        )
        islands = f"{count_of(summary.components, 'island')} of air, the largest: {seen}"
    else:
        islands = f"no air below {parameters.air_hu} HU is left after the opening"
    lung_like = [component for component in rejected if not component.touches_edge]
    if rejected and not lung_like:
        remedy = (
            f"{rejected[0].ml:,.0f} mL that look like lung reach the image edge: the scan is cropped through them; "
            'give the scan with its whole field of view, or try `MaskParameters(preset="anatomical")`, which keeps '
            "lungs that the edge cuts"
        )
    elif parameters.preset == "paper" and case.geometry.slice_spacing > 1:
        remedy = 'try `MaskParameters(preset="physical")`, whose sizes are in mm and mL'
    elif lung_like:
        smallest = max(int(0.5 * min(component.ml for component in lung_like[:2]) / case.geometry.voxel_ml), 1)
        seen_ml = ", ".join(f"{component.ml:,.0f} mL" for component in lung_like[:3])
        remedy = f"what looks like lung has {seen_ml}: try `min_voxels={min(smallest, min_voxels)}`"
    else:
        remedy = "nothing looks like lung: check that this is a chest CT in HU that shows the whole thorax"
    return (
        f"no lung found: {islands}; lung is an island of at least {count_of(min_voxels, 'voxel')} that is clear "
        f"of the first and last row and column; spacing {spacing} mm, preset {parameters.preset}; {remedy}"
    )


def advice(slice_spacings: Mapping[str, float], parameters: MaskParameters) -> str | None:
    """Return a warning if the sizes of the preset ``paper`` do not suit the scans; None if they do.

    Parameters
    ----------
    slice_spacings : mapping of str to float
        Distance of slices in mm, by case name.
    parameters : MaskParameters
        Parameters of the masks to compute.
    """
    thick = sorted(name for name, spacing in slice_spacings.items() if spacing > 1)
    if parameters.preset != "paper" or not thick:
        return None
    low, high = (f(slice_spacings[name] for name in thick) for f in (min, max))
    apart = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return (
        f"{len(thick)} of {len(slice_spacings)} scans ({first_of(thick)}) have slices {apart} mm apart, and the sizes "
        'of `preset="paper"` are made for sub-millimetre scans: its closing can flood the mediastinum, and lungs can '
        'be too small in voxels; `preset="physical"` states them in mm and mL'
    )


def _finish_slab(
    bits: Bits, case_ref: CaseRef, starts: Edges, block_id: tuple[int, ...] | None = None
) -> _WrittenSlab | Bits:
    if block_id is None:
        return bits
    start = int(starts[block_id[0]])
    case = case_ref.open("r+")
    histogram = np.zeros(N_HU, np.uint64)
    files: Receipts = {}
    nx = case.geometry.shape[2]
    for begin, end in case.layout.within(start, start + len(bits)):
        slab = bits[begin - start : end - start]
        box = bounding_box(slab)
        if box is not None:
            files |= case.write("lung", begin, unpack(slab, nx))
            rows = slice(*box[1])
            histogram += count_hu_packed(case.read(case.measured_image, begin, end, rows), slab[:, rows])
    return _WrittenSlab(SparseHistogram.of(histogram), files)
