"""Mask: reads the image, writes the lung mask and the counts per HU; depends on the image and the mask parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import dask
import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.engine.gather import gather_small
from lungmix.errors import NoLungError
from lungmix.graphs import mask_graph
from lungmix.kernels.counts import N_HU, count_hu
from lungmix.kernels.mask import Found, recipe_for
from lungmix.parameters import MaskParameters
from lungmix.stages import convert
from lungmix.store import Case, Cohort, open_cohort
from lungmix.store.records import key_of

STAGE = "mask"

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
    lung, found = mask_graph(case.ct, recipe)
    starts = np.concatenate([[0], np.cumsum(lung.chunks[0])[:-1]])
    written = [
        dask.delayed(_finish_slab)(block, cohort.url, name, int(start))
        for block, start in zip(lung.to_delayed().reshape(-1), starts, strict=True)
    ]
    done = dask.delayed(_finish_case)(written, cohort.url, name)
    *_, voxels, seen = gather_small(client, [*map(dask.delayed(_is_written), written), done, found], watch)
    if not voxels:
        reason = describe_failure(case, parameters, recipe.min_voxels, seen)
        raise NoLungError(reason)
    case.record(STAGE, {"key": key, "parameters": parameters.to_dict(), "voxels": voxels, "islands": seen.kept})
    return "done"


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


def _finish_slab(lung: npt.NDArray[np.uint8], url: str, name: str, start: int) -> Counts | None:
    if not lung.any():
        return None
    case = open_cohort(url, "r+")[name]
    case.write("lung", start, lung)
    return count_hu(case.read("ct", start, start + len(lung)), lung)


def _is_written(_: Counts | None) -> bool:
    return True


def _finish_case(counts: list[Counts | None], url: str, name: str) -> int:
    total = reduce(np.add, [one for one in counts if one is not None], np.zeros(N_HU, np.uint64))
    open_cohort(url, "r+")[name].write_counts(total)
    return int(total.sum())
