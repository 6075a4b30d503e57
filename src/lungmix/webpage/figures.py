"""Figures of slices with their labels, like Figure 3 of Zaffino et al. 2021, and of a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.ndimage import median_filter

from lungmix.kernels.histogram import FIRST_HU
from lungmix.mixture import TissueModel
from lungmix.store import Case
from lungmix.tissue import TISSUES

LUNG_WINDOW = (-1350, 150)
"""HU that pictures show as black and as white; the window has the width 1500 and the level -600."""

_BODY_HU = -500
_SPIKE_HU = 9
_PALETTE = np.array([(0, 0, 0, 0), *(tissue.rgba for tissue in TISSUES)], np.uint8)


def label_colors(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the RGBA colours of a label map; background is transparent."""
    return np.asarray(_PALETTE[np.minimum(labels, len(_PALETTE) - 1)])


def best_slice(case: Case) -> int:
    """Return the index of the slice with the most lung voxels, counted on the coarsest level of the image."""
    level = len(case.layout.levels) - 1
    lung = np.asarray(case.zarr_array("lung", level)[:])
    factor = case.layout.levels[level].factors[0]
    return min(int(lung.sum(axis=(1, 2), dtype=np.int64).argmax()) * factor, case.geometry.shape[0] - 1)


def body_of(ct: npt.NDArray[np.int16]) -> tuple[slice, slice]:
    """Return the range of rows and of columns of a slice that contains the patient, with a margin."""
    dense, box = ct > _BODY_HU, []
    for axis in (1, 0):
        profile = dense.sum(axis=axis)
        inside = np.flatnonzero(profile > 0.05 * profile.max())
        n, margin = len(profile), len(profile) // 40
        box.append(slice(max(0, inside[0] - margin), min(n, inside[-1] + margin + 1)) if len(inside) else slice(0, n))
    return box[0], box[1]


def slices_figure(cases: Sequence[tuple[Case, str]]) -> Figure:
    """Draw one slice per case, without and with tissue labels, like Figure 3 of Zaffino et al. 2021.

    The slice is the one with the most lung voxels.

    Parameters
    ----------
    cases : sequence of (Case, str)
        Labelled cases and their titles; the figure has one row per case.
    """
    figure = Figure(figsize=(10, 4.2 * len(cases) + 0.5))
    FigureCanvasAgg(figure)
    # Without this padding, the edge of the figure would cut the titles of the first row.
    figure.set_layout_engine("constrained", h_pad=0.06)
    grid = figure.subplots(len(cases), 2, squeeze=False)
    for (left, right), (case, title) in zip(grid, cases, strict=True):
        chosen = best_slice(case)
        ct, labels = case.zarr_array("ct")[chosen], case.zarr_array("tissue")[chosen]
        box = body_of(ct)
        aspect = case.geometry.spacing[1] / case.geometry.spacing[0]
        for axes in (left, right):
            axes.imshow(ct[box], cmap="gray", vmin=LUNG_WINDOW[0], vmax=LUNG_WINDOW[1], aspect=aspect)
            axes.set_axis_off()
        right.imshow(label_colors(labels[box]), aspect=aspect, interpolation="nearest")
        left.set_title(f"{title}, slice {chosen}", loc="left", fontsize=10)
        right.set_title("tissue", loc="left", fontsize=10)
    handles = [Patch(color=tissue.color, label=tissue.name) for tissue in TISSUES]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(TISSUES), frameon=False)
    return figure


def mixture_figure(model: TissueModel, counts: npt.NDArray[np.uint64]) -> Figure:
    """Draw a mixture and its components over the histogram of the pooled lung voxels."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    hu = np.arange(-1100, 301)
    shown = counts[hu[0] - FIRST_HU : hu[-1] + 1 - FIRST_HU].astype(np.float64)
    share = shown / max(float(counts.sum()), 1.0)
    axes.fill_between(hu, share, step="mid", color="#cccccc", label="lung voxels")
    parts = np.exp(model.log_densities(hu))
    for k in range(model.n_components):
        style: dict[str, Any] = {"label": f"component {k + 1}"}
        if model.n_components == len(TISSUES):
            style = {"color": TISSUES[k].color, "label": TISSUES[k].name}
        axes.plot(hu, parts[:, k], linewidth=1.6, **style)
    axes.plot(hu, parts.sum(axis=1), color="black", linewidth=1, linestyle="--", label="mixture")
    axes.set(xlabel="HU", ylabel="share of voxels per HU", xlim=(hu[0], hu[-1]))
    # A single HU with very many voxels, such as padding, must not set the scale, so use a median of neighbouring bins.
    highest = max(float(parts.sum(axis=1).max()), float(median_filter(share, _SPIKE_HU).max()), 1e-6)
    axes.set_ylim(0, 1.15 * highest)
    axes.legend(frameon=False)
    return figure


def png_of(figure: Figure, dpi: int = 110) -> bytes:
    """Return the PNG file of a figure."""
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def svg_of(figure: Figure) -> bytes:
    """Return the SVG file of a figure."""
    stream: Any = BytesIO()
    # Without a salt, the identifiers in the file are random, and equal figures have different bytes.
    with rc_context({"svg.hashsalt": "lungmix"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return bytes(stream.getvalue())
