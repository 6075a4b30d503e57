"""Figure of the agreement of several readers: weighted kappa of every pair, with intervals."""

from __future__ import annotations

from math import isfinite

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lungmix.analysis.consensus import COMPUTED
from lungmix.analysis.readers import ReaderAgreement
from lungmix.errors import encodable

_READERS, _COMPUTED = "#3b5f7d", "#b5432a"
_MAX_PAIRS = 60
_MAX_LETTERS = 24


def readers_figure(result: ReaderAgreement) -> Figure:
    """Draw the quadratic weighted kappa of pairs of readers, and of the computed score with each of them.

    Only the last 60 pairs are drawn, which include those with the computed score.
    """
    pairs = result.pairs[-_MAX_PAIRS:]
    figure = Figure(figsize=(8, 1.6 + 0.34 * len(pairs)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row, pair in enumerate(pairs):
        kappa, color = pair.quadratic, _COMPUTED if pair.second == COMPUTED else _READERS
        if isfinite(kappa.low):
            axes.plot([kappa.low, kappa.high], [row, row], color=color, linewidth=1.8, zorder=2)
        axes.plot([kappa.value], [row], "o", color=color, markersize=7, zorder=3)
    texts = [f"{_short(pair.first)} and {_short(pair.second)}, n = {pair.scans}" for pair in pairs]
    axes.set_yticks(range(len(pairs)), [text.replace("$", r"\$") for text in texts])
    axes.set(xlabel="weighted kappa, quadratic weights", ylim=(len(pairs) - 0.4, -0.6))
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0), max(high, 1.02))
    axes.axvline(0, color="#1c2833", linewidth=0.8, zorder=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    subtitle = result.reliability is not None
    axes.set_title(
        "Agreement of readers and of the computed score", loc="left", fontsize=11, fontweight="bold",
        pad=20 if subtitle else 6,
    )  # fmt: skip
    if result.reliability is not None:
        single = result.reliability.single
        interval = f" ({single.low:.2f} to {single.high:.2f})" if isfinite(single.low) else ""
        text = f"ICC(A,1) of {result.reliability.readers} readers {single.value:.2f}{interval}".replace("-", "−")
        axes.annotate(text, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize=9)
    return figure


def _short(label: str) -> str:
    text = encodable(label)
    return text if len(text) <= _MAX_LETTERS else f"{text[: _MAX_LETTERS - 1]}…"
