"""Draw masks of the preset ``anatomical`` on slices of public scans.

Usage::

    lungmix run scans.zarr FOLDER... --preset anatomical --model published
    python docs/pictures_of_scans.py scans.zarr docs/pictures/anatomical.jpg case-001=9,26,35 case-002=3,6,14

The scans of the picture in the docs are licensed CC BY 4.0; the page names their sources.
"""

import sys

import numpy as np
from matplotlib import pyplot as plt

import lungmix
from lungmix.tissue import DENSE

COLORS = {"right_aerated": "deepskyblue", "left_aerated": "tomato", "right_dense": "lime", "left_dense": "yellow"}
MARGIN_MM = 25


def main(store: str, out: str, *chosen: str) -> None:
    cohort = lungmix.open_cohort(store)
    rows = [(name, [int(z) for z in slices.split(",")]) for name, slices in (word.split("=") for word in chosen)]
    columns = max(len(slices) for _, slices in rows)
    figure, axes = plt.subplots(len(rows), columns, figsize=(2.6 * columns, 2.0 * len(rows)), squeeze=False)
    for line, (name, slices) in zip(axes, rows, strict=True):
        case = cohort[name]
        # To the axial array, whose slices run from feet to head.
        order = case.geometry.axis_order
        hu, parts = (order.to_axial(np.asarray(case.array(image).compute())) for image in ("ct", "region"))
        box = box_of(parts > 0, case.geometry.axial.spacing_zyx[1:])
        for axis in line:
            axis.axis("off")
        for axis, z in zip(line, slices, strict=False):
            axis.imshow(hu[z][box], cmap="gray", vmin=-1100, vmax=250)
            for part in DENSE:
                mask = parts[z][box] == part.label
                if mask.any():
                    axis.contour(mask, [0.5], colors=COLORS[part.key], linewidths=0.8)
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0.01)
    figure.savefig(out, dpi=80)


def box_of(mask, spacing):
    """Rows and columns of a mask, with a margin."""
    slices = []
    for axis, step in zip((1, 2), spacing, strict=True):
        indices = np.flatnonzero(mask.any(axis=(0, 3 - axis)))
        margin = round(MARGIN_MM / step)
        slices.append(slice(max(int(indices[0]) - margin, 0), int(indices[-1]) + margin))
    return tuple(slices)


if __name__ == "__main__":
    main(*sys.argv[1:])
