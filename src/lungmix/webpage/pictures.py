"""The figures of a cohort, as PNG and SVG files and with what a page says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from lungmix.analysis import robustness
from lungmix.analysis import scores as score_analysis
from lungmix.errors import UsageError
from lungmix.mixture import TissueModel
from lungmix.parameters import FitParameters
from lungmix.stages.fit import masked_counts, pool_counts, stored_fits
from lungmix.store import Cohort
from lungmix.store.models import ModelUse
from lungmix.webpage.curves import fits_figure, save_figure
from lungmix.webpage.diagram import pipeline_figure
from lungmix.webpage.figures import mixture_figure, slices_figure
from lungmix.webpage.overview import CohortOverview
from lungmix.webpage.score_figure import score_figure
from lungmix.webpage.studies import write_robustness

FOLDER = "figures"
LEAST_SCANS = 12
"""Scans from which on the groups of the robustness study differ enough in size to show something."""

LEAST_SCORES = 3

Counts = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Picture:
    """A figure on the page.

    Attributes
    ----------
    name : str
        Of its files, without the ending.
    title, caption : str
        For all readers.
    text : str
        In place of the figure, for readers who do not see it.
    table : bool
        Whether a CSV file of its numbers lies beside it.
    """

    name: str
    title: str
    caption: str
    text: str
    table: bool = False


def draw_mixture(
    cohort: Cohort, model: TissueModel, labelled: Sequence[str], folder: Path, use: ModelUse | None = None
) -> Picture:
    """Draw both fits where the model is one of them, or else the model alone, over the pooled histogram.

    Parameters
    ----------
    cohort : Cohort
        With a model.
    model : TissueModel
        The mixture of the labels.
    labelled : sequence of str
        Cases with labels.
    folder : Path
        Of the page.
    use : ModelUse, optional
        Which mixtures the labels were made with, if that is known.
    """
    settings, fits = cohort.settings, stored_fits(cohort)
    record = settings.get("fits", {})
    present = [name for name in record.get("cases", []) if name in cohort]
    drawn = fits is not None and model.digest in {one.digest for one in fits.values()}
    if fits is None or not drawn or not present or settings.get("fit", {}).get("key") != record["key"]:
        figure, what = mixture_figure(model, pool_counts(cohort, labelled)), "The mixture"
    else:
        figure = fits_figure(fits, pool_counts(cohort, present), record["parameters"]["clip"])
        what = "Both fits"
    means = ", ".join(
        f"{mean:.0f} HU ({100 * weight:.1f} %)".replace("-", "−")
        for weight, mean in zip(model.weights, model.means, strict=True)
    )
    names = {one.digest: one.name for one in use.labels.values()} if use else {}
    caption = f"{what} over the histogram of all lung voxels."
    if len(names) > 1:
        caption += f" Labels of different cases are made with {len(names)} different models."
    elif names:
        caption += f" Labels are made with “{next(iter(names.values()))}”."
    return _save(
        figure,
        folder,
        Picture("mixture", "Mixture", caption, f"{caption} Means and weights of its Gaussians: {means}."),
    )


def draw_pipeline(cohort: Cohort, overview: CohortOverview, model: TissueModel, name: str, folder: Path) -> Picture:
    """Figure 2: the steps, with pictures of one case."""
    counts = pool_counts(cohort, [n for n, case in cohort.items() if "mask" in case.stages])
    figure = pipeline_figure(cohort[name], overview, model, counts)
    text = (
        "Six steps from left to right: scans are converted into one store, lungs are masked, one mixture of Gaussians "
        "is fitted to the HU of all lung voxels, each voxel is labelled, labels are smoothed by a median filter, "
        "tissues are measured."
    )
    return _save(
        figure,
        folder,
        Picture("pipeline", "Figure 2. The pipeline", f"From scans to measurements; pictures of {name}.", text),
    )


def draw_slices(cohort: Cohort, involvement: Mapping[str, float], labelled: Sequence[str], folder: Path) -> Picture:
    """Figure 3: an axial slice beside its labels, for the least, the middle and the most involved case."""
    ranked = sorted((name for name in labelled if name in involvement), key=lambda name: (involvement[name], name))
    ranked = ranked or list(labelled)
    chosen = list(dict.fromkeys(ranked[i] for i in (0, len(ranked) // 2, -1)))
    titles = [f"{n}, LI {involvement[n]:.1f} %" if n in involvement else n for n in chosen]
    figure = slices_figure([(cohort[n], title) for n, title in zip(chosen, titles, strict=True)])
    which = "the scans with least, middle and most lung involvement" if len(chosen) == 3 else ", ".join(chosen)
    caption = f"The axial slice with most lung beside its labels, of {which}."
    return _save(
        figure, folder, Picture("slices", "Figure 3. Slices and labels", caption, f"{caption} {'; '.join(titles)}.")
    )


def draw_robustness(cohort: Cohort, folder: Path, watch: Callable[[int, int], None] | None = None) -> Picture | None:
    """Figure 4: mixtures of random groups of scans; None where there are too few scans."""
    counts = masked_counts(cohort)
    if len(counts) < LEAST_SCANS:
        return None
    known = cohort.settings.get("fits", {}).get("parameters")
    result = robustness.study(counts, FitParameters(**known) if known else FitParameters(), watch=watch)
    write_robustness(result, folder / FOLDER)
    rows = "; ".join(
        f"{row['size']} scans: {100 * row['paper.distance']:.1f} % and {100 * row['converged.distance']:.1f} %"
        for row in result.rows
    )
    caption = "Mixtures of random groups of scans over each other, three groups of each size."
    text = f"{caption} Mean distance between groups of one size, fits “paper” and “converged”: {rows}."
    return Picture("robustness", "Figure 4. Robustness", caption, text, table=True)


def draw_scores(scores: Mapping[str, float], involvement: Mapping[str, float], folder: Path) -> Picture | None:
    """Figure 5: radiologist's scores against lung involvement; None where too few cases have both."""
    names = [name for name in scores if name in involvement]
    if len(names) < LEAST_SCORES:
        return None
    medians = "; ".join(
        f"S = {step:g}: median {np.median([involvement[n] for n in names if scores[n] == step]):.1f} %"
        for step in sorted({scores[n] for n in names})
    )
    caption = (
        f"Lung involvement of {len(names)} scans by the radiologist's score: median, quartiles, least and most; "
        "and each scan."
    )
    rows = [
        {"case": name, "patient": name, "score": scores[name], "lung_involvement": involvement[name]} for name in names
    ]
    try:
        figure = score_figure(score_analysis.study(rows))
    except UsageError:
        return None  # one score for all
    return _save(figure, folder, Picture("scores", "Figure 5. Score and involvement", caption, f"{caption} {medians}."))


def _save(figure: Figure, folder: Path, picture: Picture) -> Picture:
    save_figure(figure, folder / FOLDER / picture.name)
    return picture
