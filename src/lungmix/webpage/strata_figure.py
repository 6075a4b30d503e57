"""Figure of strata: densities of the mixtures of groups of scans, and their lung involvement with intervals."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lungmix.analysis.bootstrap import Interval
from lungmix.analysis.strata import ALL, Strata, Stratum
from lungmix.webpage.curves import root_scale

_HU = np.arange(-1100, 401)
_LINE_INCHES = 0.2
_LABEL_WIDTH = 32
_COLORS = ("#1f4e79", "#c0392b", "#2e7d32", "#d68910", "#6c3483", "#148f9c", "#7b5b3a", "#d0589b")
_BLACK = "#222222"


def strata_figure(result: Strata) -> Figure:
    """Draw the densities of the mixtures of all compared groups, and the lung involvement of each group.

    A filled circle is the lung involvement by the mixture of the group, an open square that by the mixture of all
    scans. Groups whose mixture is doubtful have a star.
    """
    strata = [*result.compared, result.everything]
    colors = [*_colors_of(len(result.compared)), _BLACK]
    labels = list(map(_label, strata))
    row_lines = 1 + max(label.count("\n") + 1 for label in labels)
    figure = Figure(figsize=(12, max(4.8, 1.6 + _LINE_INCHES * row_lines * len(strata))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    top = 0.0
    for stratum, color in zip(strata, colors, strict=True):
        if stratum.model is None:
            continue
        density = stratum.model.density(_HU)
        top = max(top, float(density.max()))
        style = {"linewidth": 1.4, "linestyle": (0, (4, 2))} if color == _BLACK else {"linewidth": 1.8}
        left.plot(_HU, density, color=color, zorder=4 if color == _BLACK else 3, **style)
    left.set(xlim=(_HU[0], _HU[-1]), xlabel="HU")
    root_scale(left, 1.08 * top)
    left.set_title(
        f"Mixtures of the groups, all scans dashed (fit “{result.fit}”)", loc="left", fontsize=11, fontweight="bold"
    )
    for row, (stratum, color) in enumerate(zip(strata, colors, strict=True)):
        for interval, shift, marker in ((stratum.own_involvement, -0.14, "o"), (stratum.pooled_involvement, 0.14, "s")):
            if interval is not None:
                _draw_interval(right, interval, row + shift, color, marker)
    right.set_yticks(range(len(strata)), labels)
    for text, color in zip(right.get_yticklabels(), colors, strict=True):
        text.set_color(color)
    right.set_ylim(len(strata) - 0.5, -0.5)
    right.axhline(len(strata) - 1.5, color="#bbbbbb", linewidth=0.8)
    right.set_xlabel(f"lung involvement LI (%), {result.level:g} % intervals over scans")
    right.set_xlim(left=0)
    right.set_title("Lung involvement of the groups", loc="left", fontsize=11, fontweight="bold")
    handles = [
        right.errorbar([], [], xerr=[], color="#555555", marker=marker, markerfacecolor=face, linestyle="", label=label)
        for marker, face, label in (
            ("o", "#555555", "by the mixture of the group"),
            ("s", "white", "by the mixture of all scans"),
        )
    ]
    note = "* a check of this mixture fails" if any(stratum.is_doubtful for stratum in strata) else None
    figure.legend(handles=handles, loc="outside lower right", ncols=2, frameon=False, title=note)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    right.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    right.set_axisbelow(True)
    return figure


def _label(stratum: Stratum) -> str:
    name = "all scans" if stratum.group.name == ALL else stratum.group.name
    star = " *" if stratum.is_doubtful else ""
    return "\n".join([*textwrap.wrap(name, _LABEL_WIDTH), f"n = {stratum.scans}{star}"])


def _draw_interval(axes: Any, interval: Interval, y: float, color: str, marker: str) -> None:
    axes.plot([interval.low, interval.high], [y, y], color=color, linewidth=1.6, zorder=2)
    face = color if marker == "o" else "white"
    axes.plot([interval.estimate], [y], marker=marker, markersize=7, color=color, markerfacecolor=face, zorder=3)


def _colors_of(groups: int) -> list[str]:
    if groups <= len(_COLORS):
        return list(_COLORS[:groups])
    return [to_hex(color) for color in colormaps["turbo"](np.linspace(0.05, 0.95, groups))]
