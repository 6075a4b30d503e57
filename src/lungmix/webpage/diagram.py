"""Diagram of the pipeline with images of one case of the cohort, like Figure 2 of Zaffino et al. 2021."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from lungmix.errors import count_of
from lungmix.kernels.histogram import FIRST_HU
from lungmix.mixture import TissueModel
from lungmix.parameters import ANATOMICAL
from lungmix.stages.mask import STAGE as MASK
from lungmix.store import Case
from lungmix.store.schema import FROM_FILE
from lungmix.tissue import INVOLVED, LUNG_COLOR, TISSUES
from lungmix.webpage.figures import LUNG_WINDOW, best_slice, body_of, label_colors
from lungmix.webpage.overview import CohortOverview

_HU = np.arange(-1100, 301)


def _mask_text(parameters: Mapping[str, Any]) -> str:
    """Return the steps of a computed mask, in three lines at most."""
    threshold = f"{parameters.get('threshold', -155)}".replace("-", "−")
    if parameters.get("preset") == ANATOMICAL:
        return f"air below {threshold} HU in the body,\nwithout airway; dense tissue\nthat lung and ribs enclose"
    sizes = {"paper": "\n(sizes as published)", "physical": "\n(sizes in mm)"}.get(str(parameters.get("preset")), "")
    return f"air below {threshold} HU, opening,\ncomponents, closing{sizes}"


def pipeline_figure(case: Case, overview: CohortOverview, model: TissueModel, counts: npt.NDArray[np.uint64]) -> Figure:
    """Draw the six steps from scans to measurements.

    Parameters
    ----------
    case : Case
        Labelled case whose images are shown.
    overview : CohortOverview
        Overview of the cohort.
    model : TissueModel
        Mixture of the labels.
    counts : ndarray of uint64, shape (65536,)
        Histogram of the pooled lung voxels.
    """
    figure = Figure(figsize=(13.2, 3.3))
    FigureCanvasAgg(figure)
    width, gap = 0.137, 0.0276
    panels = [figure.add_axes((0.008 + i * (width + gap), 0.29, width, 0.6)) for i in range(6)]
    z = best_slice(case)
    images = {name: case.zarr_array(name)[z] for name in ("ct", "lung", "tissue", "tissue_median")}
    box = body_of(images["ct"])
    shown = {name: image[box] for name, image in images.items()}
    aspect = case.geometry.spacing[1] / case.geometry.spacing[0]
    for axes, name in ((panels[0], None), (panels[1], "lung"), (panels[3], "tissue"), (panels[4], "tissue_median")):
        axes.imshow(shown["ct"], cmap="gray", vmin=LUNG_WINDOW[0], vmax=LUNG_WINDOW[1], aspect=aspect)
        if name is not None:
            axes.imshow(_colors_of(name, shown[name]), aspect=aspect, interpolation="nearest")
    _draw_mixture(panels[2], model, counts)
    _draw_percentages(panels[5], case, model)
    mask = case.stages[MASK].get("parameters", {})
    origin = case.stages[MASK].get(FROM_FILE)
    given_text = f"by {origin['segmenter']}" if origin and "segmenter" in origin else "given as files"
    total = float(counts.sum())
    scans = count_of(len(overview.cases), "scan")
    texts = (
        ("Convert", f"{scans}, {count_of(overview.slices, 'slice')},\nin one store; HU and\ngeometry kept"),
        ("Mask", given_text if origin else _mask_text(mask)),
        ("Fit", f"{model.n_components} Gaussians for the HU\nof {_short(total)} lung voxels\nof all scans together"),
        ("Label", "the most probable\ncomponent of each voxel"),
        ("Smooth", "median of 4 × 4 × 4 labels,\nstored separately"),
        ("Measure", "volumes, percentages,\nlung involvement"),
    )
    for i, (axes, (title, text)) in enumerate(zip(panels, texts, strict=True)):
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("#c4cad1")
        left = 0.008 + i * (width + gap)
        figure.text(left, 0.91, f"{i + 1}", fontsize=11, fontweight="bold", color="#1d6fa5", va="bottom")
        figure.text(left + 0.014, 0.91, title, fontsize=11, fontweight="bold", color="#1b232b", va="bottom")
        figure.text(left, 0.25, text, fontsize=9, color="#3d4852", va="top", linespacing=1.35)
        if i:
            figure.add_artist(_arrow(left - gap + 0.005, left - 0.005, 0.59))
    return figure


def _arrow(begin: float, end: float, height: float) -> Any:
    return FancyArrowPatch(
        (begin, height), (end, height), arrowstyle="-|>", mutation_scale=14, linewidth=1.6, color="#1d6fa5"
    )


def _colors_of(name: str, labels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    if name != "lung":
        return label_colors(labels)
    return np.where(labels[..., None] > 0, np.array(to_rgba(LUNG_COLOR, 0.62)), 0.0)


def _draw_mixture(axes: Any, model: TissueModel, counts: npt.NDArray[np.uint64]) -> None:
    shares = np.sqrt(counts[_HU[0] - FIRST_HU : _HU[-1] + 1 - FIRST_HU] / max(float(counts.sum()), 1.0))
    axes.fill_between(_HU, shares, step="mid", color="#d5d8dc", linewidth=0)
    parts = np.sqrt(np.exp(model.log_densities(_HU)))
    for k in range(model.n_components):
        color = TISSUES[k].color if model.n_components == len(TISSUES) else f"C{k}"
        axes.fill_between(_HU, parts[:, k], color=color, alpha=0.55, linewidth=0)
        axes.plot(_HU, parts[:, k], color=color, linewidth=1.2)
    axes.set_xlim(_HU[0], _HU[-1])
    axes.set_ylim(0, 1.25 * float(np.sqrt(model.density(_HU)).max()))


def _draw_percentages(axes: Any, case: Case, model: TissueModel) -> None:
    counts = np.bincount(model.lookup_table(), case.hu_counts.astype(np.float64), minlength=len(TISSUES) + 1)[1:]
    percents = 100 * counts[: len(TISSUES)] / max(float(counts.sum()), 1.0)
    rows = np.arange(len(TISSUES))[::-1]
    axes.barh(rows, percents, color=[tissue.color for tissue in TISSUES], height=0.72)
    for row, percent in zip(rows, percents, strict=True):
        axes.text(percent + 1.5, row, f"{percent:.1f} %", va="center", fontsize=8, color="#1b232b")
    involved = sum(percents[i] for i, tissue in enumerate(TISSUES) if tissue.key in INVOLVED)
    axes.set_xlim(0, max(1.0, 1.45 * float(percents.max())))
    axes.text(0.97, 0.05, f"LI {involved:.1f} %", transform=axes.transAxes, ha="right", fontsize=10, fontweight="bold")


def _short(n: float) -> str:
    for unit, name in ((1e9, "thousand million"), (1e6, "million"), (1e3, "thousand")):
        if n >= unit:
            return f"{n / unit:.3g} {name}"
    return f"{n:.0f}"
