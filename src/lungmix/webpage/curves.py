"""Figures of mixtures: fits over the histogram, refits of a bootstrap, random groups of the robustness study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.special import ndtr

from lungmix.analysis.bootstrap import Bootstrap
from lungmix.analysis.robustness import Robustness
from lungmix.errors import UsageError
from lungmix.kernels.histogram import FIRST_HU
from lungmix.mixture import Fits, TissueModel
from lungmix.tissue import TISSUES
from lungmix.webpage.figures import png_of, svg_of
from lungmix.webpage.files import publish

_HU = np.arange(-1100, 401)
_NEAR_HU = 60
"""Distance of thresholds whose numbers, drawn above their middle, would overlap."""
_HEADROOM = 1.35
_GREY = "#d5d8dc"
_MARKS = {"paper": ("#c0392b", "s"), "converged": ("#1f4e79", "o"), "anchored": ("#2e7d32", "^")}
_TITLES = {
    "paper": "Fit as published (“paper”): k-means starts, tolerance 1e-3",
    "converged": "Converged fit (“converged”): maximum of the likelihood",
    "anchored": "Anchored fit (“anchored”): maximum of the posterior",
}


def fits_figure(fits: Fits, counts: npt.NDArray[np.uint64], clip: int) -> Figure:
    """Draw the fits over the histogram of the pooled lung voxels, with components and MAP thresholds.

    Parameters
    ----------
    fits : Fits
        Fits to draw, one below the other.
    counts : ndarray of uint64, shape (65536,)
        Histogram of the pooled lung voxels.
    clip : int
        Lowest HU; lower values are raised to it. The bar of this HU would be too high for the axis, so its percentage
        of voxels is written above the plot.
    """
    figure, panels = _panels((10, 1 + 3.2 * len(fits)), len(fits), 1)
    total = max(float(counts.sum()), 1.0)
    share = counts[_HU[0] - FIRST_HU : _HU[-1] + 1 - FIRST_HU] / total
    shown = np.where(clip < _HU, share, np.nan)
    top = _HEADROOM * max(float(np.nanmax(shown)), *(float(model.density(_HU).max()) for model in fits.values()), 1e-6)
    clipped = float(counts[: clip + 1 - FIRST_HU].sum()) / total
    for axes, (name, model) in zip(panels, fits.items(), strict=True):
        axes.fill_between(_HU, np.nan_to_num(shown), step="mid", color=_GREY, linewidth=0, zorder=1)
        _draw_components(axes, model, fill=True)
        axes.plot(_HU, model.density(_HU), color="black", linewidth=1.3, linestyle=(0, (4, 2)), zorder=5)
        _draw_thresholds(axes, model.map_thresholds())
        axes.axvline(clip, color="#888888", linewidth=0.8, linestyle=":", zorder=2)
        axes.set_xlim(_HU[0], _HU[-1])
        root_scale(axes, top)
        axes.set_title(_TITLES[name], loc="left", fontsize=11, fontweight="bold")
        percents = f"{100 * clipped:.1f} % of voxels, {100 * _clipped_share(model, clip):.1f} % of the fit"
        axes.set_title(f"at or below {_minus(clip)} HU: {percents}", loc="right", fontsize=9, color="#444444")
    panels[-1].set_xlabel("HU")
    handles: list[Any] = [Patch(color=_GREY, label="lung voxels"), *_handles(fits.paper)]
    handles.append(Line2D([], [], color="black", linewidth=1.3, linestyle=(0, (4, 2)), label="mixture"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), frameon=False)
    return figure


def bootstrap_figure(result: Bootstrap) -> Figure:
    """Draw the components of all refits of a bootstrap, and the confidence intervals of the MAP thresholds."""
    figure, (axes,) = _panels((10, 4.8), 1, 1)
    top = _HEADROOM * max(float(model.density(_HU).max()) for model in result.models)
    for model in result.models:
        _draw_components(axes, model, width=0.5, alpha=max(0.04, min(0.5, 12 / result.refits)))
    _draw_components(axes, result.model, width=1.6)
    thresholds = [i for i in result.intervals if i.name == "threshold"]
    for interval in thresholds:
        axes.axvspan(interval.low, interval.high, color="#555555", alpha=0.18, linewidth=0, zorder=1)
    _draw_thresholds(axes, [interval.estimate for interval in thresholds])
    axes.set(xlim=(_HU[0], _HU[-1]), xlabel="HU")
    root_scale(axes, top)
    axes.set_title(
        f"{_TITLES[result.fit].split(':')[0]} of {result.scans} scans: {result.refits} refits of scans drawn with "
        f"replacement; bands contain {result.level:g} % of the thresholds",
        loc="left", fontsize=11,
    )  # fmt: skip
    figure.legend(handles=_handles(result.model), loc="outside lower center", ncols=5, frameon=False)
    return figure


def robustness_figure(result: Robustness) -> Figure:
    """Draw the Gaussians of all random groups, with one colour per size of groups, and distances between groups."""
    names = list(result.cohort_fits)
    figure = Figure(figsize=(12, 3.3 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(names), 2, width_ratios=(1.75, 1))
    sizes = [row["size"] for row in result.rows]
    shades = colormaps["viridis"](np.linspace(0.92, 0.0, len(sizes)))
    colors = dict(zip(sizes, map(to_hex, shades), strict=True))
    left = [figure.add_subplot(grid[0, 0])]
    left += [figure.add_subplot(grid[i, 0], sharex=left[0], sharey=left[0]) for i in range(1, len(names))]
    top = 1.06 * max(float(np.exp(g.fits[n].log_densities(_HU)).max()) for g in result.groups for n in names)
    for axes, name in zip(left, names, strict=True):
        _plain(axes)
        for group in result.groups:
            parts = np.exp(group.fits[name].log_densities(_HU))
            axes.plot(_HU, parts, color=colors[group.size], linewidth=1.0, alpha=0.8)
        axes.set_xlim(_HU[0], _HU[-1])
        root_scale(axes, top)
        axes.set_title(_TITLES[name], loc="left", fontsize=11, fontweight="bold")
    for axes in left[:-1]:
        axes.tick_params(labelbottom=False)
    left[-1].set_xlabel("HU")
    handles = [Line2D([], [], color=colors[size], linewidth=2, label=str(size)) for size in sizes]
    left[0].legend(handles=handles, title="scans in a group", frameon=False, ncols=2 if len(sizes) > 5 else 1)
    right = figure.add_subplot(grid[:, 1])
    _plain(right)
    for name in names:
        color, marker = _MARKS[name]
        mean = [100 * row[f"{name}.distance"] for row in result.rows]
        largest = [100 * row[f"{name}.largest"] for row in result.rows]
        right.plot(sizes, mean, color=color, marker=marker, markersize=6, linewidth=1.6, label=f"{name}, mean")
        right.plot(sizes, largest, color=color, linewidth=0.9, linestyle=":", label=f"{name}, largest")
    right.set(xlabel="scans in a group", ylabel="total variation distance between groups (%)", xticks=sizes)
    right.set_ylim(bottom=0)
    right.set_title("Distance between groups of one size", loc="left", fontsize=11, fontweight="bold")
    right.legend(frameon=False)
    return figure


def save_figure(figure: Figure, path: str | Path) -> list[Path]:
    """Write a figure as PNG and as SVG.

    Parameters
    ----------
    figure : Figure
        Figure to write.
    path : str or Path
        Path with the suffix ``.png``, ``.svg`` or none; both files are written in any case.

    Returns
    -------
    list of Path
        Paths of the PNG and the SVG.

    Raises
    ------
    UsageError
        If the name has another suffix, or the folder cannot be written.
    """
    base = Path(path)
    if base.suffix.lower() in (".png", ".svg"):
        base = base.with_suffix("")
    elif base.suffix:
        raise UsageError(f"a figure is written as .png and .svg, not as {base.suffix}: name it like fits.png")
    files = [base.with_name(base.name + suffix) for suffix in (".png", ".svg")]
    for file, content in zip(files, (png_of(figure, 150), svg_of(figure)), strict=True):
        publish(file, content)
    return files


def _panels(size: tuple[float, float], rows: int, columns: int) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).reshape(-1))
    for axes in panels:
        _plain(axes)
    return figure, panels


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def root_scale(axes: Any, top: float) -> None:
    """Scale the vertical axis by square roots, as in a rootogram, so that small components are visible."""
    axes.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
    axes.set_ylim(0, top)
    ticks = [tick for tick in (0, 0.0001, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01, 0.02) if tick <= top]
    axes.set_yticks(ticks, [f"{1000 * tick:g}" for tick in ticks])
    axes.set_ylabel("share of voxels per HU (‰), root scale")


def _draw_components(
    axes: Any, model: TissueModel, *, fill: bool = False, width: float = 1.7, alpha: float = 1
) -> None:
    parts = np.exp(model.log_densities(_HU))
    for k, color in enumerate(_colors(model.n_components)):
        if fill:
            axes.fill_between(_HU, parts[:, k], color=color, alpha=0.28, linewidth=0, zorder=3)
        axes.plot(_HU, parts[:, k], color=_ink(color), linewidth=width, alpha=alpha, zorder=4)


def _draw_thresholds(axes: Any, boundaries: list[float]) -> None:
    shown = [value for value in dict.fromkeys(boundaries) if _HU[0] < value < _HU[-1]]
    along = axes.get_xaxis_transform()
    for index, value in enumerate(shown):
        axes.plot([value, value], [0, 0.9], color="#555555", linewidth=0.9, zorder=2, transform=along)
        text = _minus(round(value))
        # Numbers of two thresholds that are close to each other stand on their outer sides.
        is_near_next = index + 1 < len(shown) and shown[index + 1] - value < _NEAR_HU
        is_near_last = index > 0 and value - shown[index - 1] < _NEAR_HU
        side = "right" if is_near_next and not is_near_last else "left" if is_near_last else "center"
        axes.text(value, 0.91, text, ha=side, va="bottom", fontsize=9, color="#333333", transform=along)


def _handles(model: TissueModel) -> list[Patch]:
    names = [tissue.name for tissue in TISSUES]
    if model.n_components != len(TISSUES):
        names = [f"component {k + 1}" for k in range(model.n_components)]
    return [Patch(color=color, label=name) for color, name in zip(_colors(len(names)), names, strict=True)]


def _colors(n_components: int) -> list[str]:
    if n_components == len(TISSUES):
        return [tissue.color for tissue in TISSUES]
    return [to_hex(color) for color in colormaps["turbo"](np.linspace(0.08, 0.92, n_components))]


def _ink(color: str) -> str:
    """Return a darker shade of a colour, for thin lines on white."""
    return to_hex(np.array(to_rgb(color)) * 0.78)


def _clipped_share(model: TissueModel, clip: int) -> float:
    """Return the probability of HU up to `clip` under a mixture."""
    z = (clip + 0.5 - np.asarray(model.means)) / np.sqrt(model.variances)
    return float(np.dot(model.weights, ndtr(z)))


def _minus(value: int) -> str:
    return f"{value}".replace("-", "−")
