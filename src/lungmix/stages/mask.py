"""Mask: reads the image, writes the lung mask and the counts per HU; depends on the image and the mask parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.engine.connect import least_memory
from lungmix.engine.gather import gather_small
from lungmix.errors import NoLungError
from lungmix.graphs.mask import lung_bits
from lungmix.graphs.memory import mask_chunks
from lungmix.kernels.bits import Bits, pack_below, unpack, words_for
from lungmix.kernels.counts import N_HU, count_hu_packed
from lungmix.kernels.mask import Found, MaskRecipe, recipe_for
from lungmix.parameters import MaskParameters
from lungmix.stages import convert
from lungmix.store import Case, Cohort, open_cohort
from lungmix.store.records import key_of

STAGE = "mask"
OPENED = "opened"
"""Name of the array that holds opened slabs while a mask is made."""

Counts = npt.NDArray[np.uint64]


def key_for(case: Case, parameters: MaskParameters) -> str:
    """What a mask depends on."""
    return key_of(
        stage=STAGE, version=1, image=case.stages[convert.STAGE]["voxels_sha256"],
        spacing=case.geometry.spacing, parameters=parameters.to_dict(),
    )  # fmt: skip


def mask_case(
    client: Client,
    cohort: Cohort,
    name: str,
    parameters: MaskParameters,
    watch: Callable[[int, int], None] | None = None,
) -> str:
    """Find the lungs of a case, unless they are known for these parameters.

    Raises
    ------
    NoLungError
        If nothing qualifies as lung.
    """
    case = cohort[name]
    key = key_for(case, parameters)
    if case.stages.get(STAGE, {}).get("key") == key:
        return "kept"
    recipe = recipe_for(parameters, case.geometry.spacing_zyx)
    case.forget(STAGE, "label")
    case.create("lung")
    case.create_packed(OPENED)
    air = _air(case, cohort.url, recipe, least_memory(client))
    bits, found = lung_bits(air, case.geometry.shape[2], recipe, StoreShelf(cohort.url, name))
    starts = np.concatenate([[0], np.cumsum(bits.chunks[0])[:-1]])
    written = [
        dask.delayed(_finish_slab)(block, cohort.url, name, int(start))
        for block, start in zip(bits.to_delayed().reshape(-1), starts, strict=True)
    ]
    done = dask.delayed(_finish_case)(written, cohort.url, name)
    *_, voxels, seen = gather_small(client, [*map(dask.delayed(_is_written), written), done, found], watch)
    case.discard(OPENED)
    if not voxels:
        reason = describe_failure(case, parameters, recipe.min_voxels, seen)
        raise NoLungError(reason)
    case.record(STAGE, {"key": key, "parameters": parameters.to_dict(), "voxels": voxels, "islands": seen.kept})
    return "done"


@dataclass(frozen=True)
class StoreShelf:
    """Opened slabs in the store, until all are labelled."""

    url: str
    name: str

    def put(self, start: int, bits: Bits) -> None:
        """Keep the slab that begins at slice `start`."""
        if bits.any():
            self._array("r+")[start : start + len(bits)] = bits

    def get(self, start: int, stop: int) -> Bits:
        """The slab of slices `start` to `stop`, as it was put."""
        return np.asarray(self._array("r")[start:stop])

    def _array(self, mode: Literal["r", "r+"]) -> Any:
        return open_cohort(self.url, mode)[self.name].packed(OPENED)


def _air(case: Case, url: str, recipe: MaskRecipe, memory_limit: int | None) -> da.Array:
    """Packed air of a case, in slabs as thick as the workers' memory allows."""
    shape = case.geometry.shape
    thick = mask_chunks(case.layout.stored, *shape[1:], recipe.halo, memory_limit)
    starts = np.concatenate([[0], np.cumsum(thick)[:-1]]).tolist()
    plane, meta = (shape[1], words_for(shape[2])), np.empty((0, 0, 0), np.uint64)
    read = dask.delayed(_read_air)
    return da.concatenate(
        [
            da.from_delayed(read(url, case.name, start, start + n, recipe.threshold), (n, *plane), np.uint64, meta)
            for start, n in zip(starts, thick, strict=True)
        ]
    )


def _read_air(url: str, name: str, start: int, stop: int, threshold: int) -> Bits:
    case = open_cohort(url)[name]
    packed = case.packed(convert.AIR)
    if packed is not None and packed.attrs["below_hu"] == threshold:
        return np.asarray(packed[start:stop])
    return np.concatenate([pack_below(case.read("ct", a, b), threshold) for a, b in case.layout.within(start, stop)])


def describe_failure(case: Case, parameters: MaskParameters, min_voxels: int, found: Found) -> str:
    """Why no lung was found, with what was seen and what to try."""
    spacing = " x ".join(f"{s:.3g}" for s in case.geometry.spacing)
    if found.largest:
        seen = "; ".join(
            f"{voxels:,} voxels ({voxels * case.geometry.voxel_ml:,.0f} mL"
            + (", touches the image edge)" if touches else ", clear of the image edge)")
            for voxels, touches in found.largest[:3]
        )
        islands = f"{found.islands} islands of air were seen, the largest: {seen}"
    else:
        islands = f"no air below {parameters.threshold} HU is left after the opening"
    if parameters.preset == "paper" and case.geometry.spacing[2] > 1:
        remedy = "try --preset physical, whose sizes are in mm and mL"
    elif not any(not touches for _, touches in found.largest):
        remedy = "check that this is a chest CT in HU that shows the whole thorax"
    else:
        remedy = "try a lower --min-voxels, and check that this is a chest CT in HU"
    return (
        f"no lung found: {islands}; lung is an island of at least {min_voxels:,} voxels that is clear of the first "
        f"and last row and column; spacing {spacing} mm, preset {parameters.preset}; {remedy}"
    )


def advice(slice_spacings: Mapping[str, float], parameters: MaskParameters) -> str | None:
    """Warn where the sizes of the preset ``paper`` do not suit the scans; None if they do.

    Parameters
    ----------
    slice_spacings : mapping of str to float
        Distance of the slices in mm, by case.
    parameters : MaskParameters
        What is about to be used.
    """
    thick = sorted(name for name, spacing in slice_spacings.items() if spacing > 1)
    if parameters.preset != "paper" or not thick:
        return None
    low, high = (f(slice_spacings[name] for name in thick) for f in (min, max))
    apart = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    shown = ", ".join(thick[:3]) + (f" and {len(thick) - 3} more" if len(thick) > 3 else "")
    return (
        f"{len(thick)} of {len(slice_spacings)} scans ({shown}) have slices {apart} mm apart, and the sizes of "
        "--preset paper are made for sub-millimetre scans: its closing can flood the mediastinum, and lungs can be "
        "too small in voxels; --preset physical states them in mm and mL"
    )


def _finish_slab(bits: Bits, url: str, name: str, start: int) -> Counts:
    case = open_cohort(url, "r+")[name]
    counts = np.zeros(N_HU, np.uint64)
    nx = case.geometry.shape[2]
    for begin, end in case.layout.within(start, start + len(bits)):
        part = bits[begin - start : end - start]
        if part.any():
            case.write("lung", begin, unpack(part, nx))
            counts += count_hu_packed(case.read("ct", begin, end), part)
    return counts


def _is_written(_: Counts) -> bool:
    return True


def _finish_case(counts: list[Counts], url: str, name: str) -> int:
    total: Counts = reduce(np.add, counts)
    open_cohort(url, "r+")[name].write_counts(total)
    return int(total.sum())
