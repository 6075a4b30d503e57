"""Figures of the report: draw them, write them as PNG and SVG, and give them titles, captions and alternative texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lungmix.analysis import robustness
from lungmix.analysis import scores as score_analysis
from lungmix.analysis.change import IMPROVED, INVOLVEMENT, STABLE, WORSE
from lungmix.analysis.score_agreement import SEVERE, ScoreAgreement, Settings
from lungmix.errors import UsageError, count_of
from lungmix.kernels.data_dictionary import BY_LOBES
from lungmix.mixture import TissueModel
from lungmix.parameters import ZONES_BY_COMMON_VOLUME, ZONES_BY_HEIGHT, ZONES_BY_VOLUME, FitParameters
from lungmix.stages.evaluation_rows import stored_evaluations
from lungmix.stages.fit import masked_counts, pool_counts, stored_fits
from lungmix.stages.worst_slices import stored_slices
from lungmix.store import Cohort
from lungmix.store.models import GIVEN, PUBLISHED_NAME, ModelUse
from lungmix.store.schema import FITS_RECORD
from lungmix.store.tables import Row, text_of
from lungmix.webpage.agreement_figures import agreement_figure, limits_of_agreement, worst_slices_figure
from lungmix.webpage.curves import fits_figure, save_figure
from lungmix.webpage.diagram import pipeline_figure
from lungmix.webpage.figures import mixture_figure, slices_figure
from lungmix.webpage.files import publish
from lungmix.webpage.followup import Patient
from lungmix.webpage.followup_figures import MEASURES, followup_figure, measures_figure
from lungmix.webpage.overview import CohortOverview
from lungmix.webpage.score_agreement_figure import score_agreement_figure
from lungmix.webpage.score_figure import score_figure
from lungmix.webpage.studies import write_robustness
from lungmix.webpage.zones import COLUMNS as ZONE_COLUMNS
from lungmix.webpage.zones import LOBE_COLUMNS, stored_involvement, zones_figure

FOLDER = "figures"
MIN_SCANS = 12
"""Smallest number of scans for which the robustness study is drawn; with fewer, groups differ little in size."""

MIN_SCORES = 3

_NUMBERS = {2: "two", 3: "three"}

_MODEL_TITLES = {
    "paper": "fit as published (“paper”)",
    "converged": "converged fit (“converged”)",
    "anchored": "anchored fit (“anchored”)",
    PUBLISHED_NAME: "mixture of the publication (“published”)",
    GIVEN: "mixture from a file (“given”)",
}
"""Title of a mixture by its name in `lungmix.store.models.ModelId`."""


@dataclass(frozen=True)
class Picture:
    """Figure of the report.

    Attributes
    ----------
    name : str
        Name of the files of the figure, without the suffix.
    title, caption : str
        Title and caption.
    text : str
        Alternative text for screen readers.
    table : bool
        True if a CSV file of the same name has the numbers of the figure.
    """

    name: str
    title: str
    caption: str
    text: str
    table: bool = False


def draw_mixture(
    cohort: Cohort, model: TissueModel, labelled: Sequence[str], folder: Path, use: ModelUse | None = None
) -> Picture:
    """Draw the mixture of the labels over the pooled histogram; if it is a fit of the store, draw all fits.

    Parameters
    ----------
    cohort : Cohort
        The store, which has a model.
    model : TissueModel
        Mixture of the labels.
    labelled : sequence of str
        Cases with labels.
    folder : Path
        Folder of the report.
    use : ModelUse, optional
        Recorded mixtures of the labels by case.
    """
    settings, fits = cohort.settings, stored_fits(cohort)
    record = settings.get(FITS_RECORD, {})
    present = [name for name in record.get("cases", []) if name in cohort]
    drawn = fits is not None and model.digest in {fit.digest for fit in fits.values()}
    if fits is None or not drawn or not present or settings.get("fit", {}).get("key") != record["key"]:
        figure, drawing = mixture_figure(model, pool_counts(cohort, labelled)), "The mixture"
    else:
        figure = fits_figure(fits, pool_counts(cohort, present), record["parameters"]["clip"])
        drawing = f"The {_NUMBERS[len(fits)]} fits"
    means = ", ".join(
        f"{mean:.0f} HU ({100 * weight:.1f} %)".replace("-", "−")
        for weight, mean in zip(model.weights, model.means, strict=True)
    )
    names = {used.digest: used.name for used in use.labels.values()} if use else {}
    caption = f"{drawing} over the histogram of all lung voxels."
    if len(names) > 1:
        caption += f" Labels of different cases come from {len(names)} different mixtures."
    elif names:
        caption += f" Mixture of the labels: {model_title(next(iter(names.values())))}."
    return _save(
        figure,
        folder,
        Picture("mixture", "Mixture", caption, f"{caption} Means and weights of its Gaussians: {means}."),
    )


def draw_pipeline(cohort: Cohort, overview: CohortOverview, model: TissueModel, name: str, folder: Path) -> Picture:
    """Draw the steps of the pipeline with images of the case `name`, like Figure 2 of the publication."""
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
        Picture("pipeline", "Pipeline", f"From scans to measurements, with images of {name}. {_as_figure(2)}", text),
    )


def draw_slices(cohort: Cohort, involvement: Mapping[str, float], labelled: Sequence[str], folder: Path) -> Picture:
    """Draw slices of the cases with lowest, median and highest lung involvement, like Figure 3 of the publication."""
    ranked = sorted((name for name in labelled if name in involvement), key=lambda name: (involvement[name], name))
    ranked = ranked or list(labelled)
    chosen = list(dict.fromkeys(ranked[i] for i in (0, len(ranked) // 2, -1)))
    titles = [f"{n}, LI {involvement[n]:.1f} %" if n in involvement else n for n in chosen]
    figure = slices_figure([(cohort[n], title) for n, title in zip(chosen, titles, strict=True)])
    scans = "the scans with lowest, median and highest lung involvement" if len(chosen) == 3 else ", ".join(chosen)
    caption = f"One axial slice, the one with the most lung, with and without labels, of {scans}. {_as_figure(3)}"
    return _save(figure, folder, Picture("slices", "Slices and labels", caption, f"{caption} {'; '.join(titles)}."))


def draw_robustness(cohort: Cohort, folder: Path, progress: Callable[[int, int], None] | None = None) -> Picture | None:
    """Draw mixtures of random groups of scans, like Figure 4 of the publication; None for fewer than 12 scans."""
    counts = masked_counts(cohort)
    if len(counts) < MIN_SCANS:
        return None
    parameters = cohort.settings.get(FITS_RECORD, {}).get("parameters", {})
    result = robustness.study(counts, FitParameters(**parameters), progress=progress)
    write_robustness(result, folder / FOLDER)
    names = list(result.cohort_fits)
    distances = [", ".join(f"{100 * row[f'{name}.distance']:.1f} %" for name in names) for row in result.rows]
    rows = "; ".join(f"{row['size']} scans: {text}" for row, text in zip(result.rows, distances, strict=True))
    caption = f"Mixtures of random groups of scans, three groups of each size. {_as_figure(4)}"
    text = f"{caption} Mean distance between groups of one size, for the {', '.join(map(model_title, names))}: {rows}."
    return Picture("robustness", "Robustness", caption, text, table=True)


def draw_scores(scores: Mapping[str, float], involvement: Mapping[str, float], folder: Path) -> list[Picture]:
    """Draw lung involvement by score, like Figure 5 of the publication, and the agreement with computed scores.

    There are no figures if fewer than 3 cases have a score and a lung involvement, or all scores are equal.
    """
    names = [name for name in scores if name in involvement]
    if len(names) < MIN_SCORES:
        return []
    medians = "; ".join(
        f"S = {step:g}: median {np.median([involvement[n] for n in names if scores[n] == step]):.1f} %"
        for step in sorted({scores[n] for n in names})
    )
    caption = (
        f"Lung involvement of {len(names)} scans by the radiologist's score: minimum, quartiles, maximum, and each "
        f"scan. {_as_figure(5)}"
    )
    rows = [
        {"case": name, "patient": name, "score": scores[name], "lung_involvement": involvement[name]} for name in names
    ]
    try:
        # Without intervals, because the patients of the cases are unknown here.
        result = score_analysis.study(rows, comparison=Settings(draws=0))
    except UsageError:
        return []  # all scores are equal
    picture = Picture("scores", "Score and involvement", caption, f"{caption} {medians}.")
    text = _score_agreement_text(result.agreement)
    agreement = Picture("score_agreement", "Score and computed score", text, text)
    return [
        _save(score_figure(result), folder, picture),
        _save(score_agreement_figure(result.agreement, result.rows), folder, agreement),
    ]


def _score_agreement_text(result: ScoreAgreement) -> str:
    """Return what the figure of the agreement of scores shows, with its numbers."""
    differences, severe = result.differences, result.discrimination
    lines = [
        f"Scores of {result.scans} scans by the reader, and computed from LI by the intervals of the score: equal for "
        f"{result.equal:.0f} %, weighted kappa {result.kappa['quadratic'].value:.2f} (quadratic weights).",
        f"LI is {differences.mean.value:+.1f} points from the middle of the interval of the reader's score on average, "
        f"with limits of agreement from {differences.lower.value:+.1f} to {differences.upper.value:+.1f}.",
    ]
    if severe is not None:
        lines.append(
            f"For S ≥ {SEVERE}, the area under the ROC curve of LI is {severe.auc.value:.2f} and the average precision "
            f"{severe.average_precision.value:.2f}."
        )
    return " ".join(lines).replace(" -", " −")


_EQUAL_PARTS = {
    ZONES_BY_VOLUME: "of each lung, which have equal volume",
    ZONES_BY_HEIGHT: "of each lung, which have equal height",
    ZONES_BY_COMMON_VOLUME: "that have equal volume in both lungs together",
}


def draw_zones(cohort: Cohort, labelled: Sequence[str], folder: Path) -> list[Picture]:
    """Draw the lung involvement of each case by lung zone, and by lobe; no figure of zones that cannot be compared."""
    pictures = []
    for name, title, columns in (("zones", "Lung zones", ZONE_COLUMNS), ("lobes", "Lobes", LOBE_COLUMNS)):
        rows, by = stored_involvement(cohort, labelled, columns)
        if not rows:
            continue
        publish(folder / FOLDER / f"{name}.csv", text_of(rows).encode())
        caption = "Lung involvement (%) of each case by lobe, as the given masks distinguish them."
        if by != BY_LOBES:
            caption = (
                f"Lung involvement (%) of each case in thirds and halves {_EQUAL_PARTS.get(by, 'of each lung')}. "
                "Healthy lung is denser in its dorsal half, too."
            )
        medians = "; ".join(
            f"{zone.replace('_', ' ')}: {np.nanmedian(values):.1f} %"
            for zone in columns
            if not all(map(isnan, values := [float(row[zone]) for row in rows]))
        )
        text = f"{caption} Medians of {count_of(len(rows), 'case')}: {medians}."
        pictures.append(_save(zones_figure(rows), folder, Picture(name, title, caption, text, table=True)))
    return pictures


def draw_followup(patients: Sequence[Patient], folder: Path) -> list[Picture]:
    """Draw lung involvement and tissues of patients over time.

    Without patients that have changes, there are no figures, and those of earlier patients are deleted.
    """
    if not patients:
        for name in ("followup", "followup_measures"):
            for suffix in (".png", ".svg", ".csv"):
                (folder / FOLDER / f"{name}{suffix}").unlink(missing_ok=True)
        return []
    publish(
        folder / FOLDER / "followup.csv", text_of([scan for patient in patients for scan in patient.scans]).encode()
    )
    counts = ", ".join(f"{sum(p.course == course for p in patients)} {course}" for course in (WORSE, STABLE, IMPROVED))
    caption = (
        f"Lung involvement (LI) of {count_of(len(patients), 'patient')} over time, and the change from the first to "
        f"the last scan at the lung volume of the first scan, with its 95 % interval: {counts}."
    )
    lines = "; ".join(
        f"{patient.name}: {' to '.join(f'{value:.1f} %' for value in patient.values(INVOLVEMENT))}"
        for patient in patients
    )
    picture = Picture("followup", "Lung involvement over time", caption, f"{caption} {lines}.", table=True)
    drawn = [_save(followup_figure(patients), folder, picture)]
    keys = [key for key in MEASURES if any(key in scan for patient in patients for scan in patient.scans)]
    if keys:
        caption = (
            f"Lung volume and tissues of {count_of(len(patients), 'patient')} over time, in colours of the course."
        )
        picture = Picture("followup_measures", "Tissues over time", caption, caption)
        drawn.append(_save(measures_figure(patients, keys), folder, picture))
    return drawn


def draw_evaluation(cohort: Cohort, folder: Path) -> list[Picture]:
    """Draw the agreement of volumes with references, and the slices that differ most; no figures without evaluation."""
    rows = stored_evaluations(cohort)
    if not rows:
        return []
    regions = list(dict.fromkeys(str(row["region"]) for row in rows))
    texts = [_agreement_text(region, [row for row in rows if row["region"] == region]) for region in regions]
    caption = (
        "Volumes of the store and of the references, and their differences after Bland and Altman: mean, and limits "
        "1.96 standard deviations from it."
    )
    publish(folder / FOLDER / "agreement.csv", text_of(rows).encode())
    title = "Agreement with references"
    drawn = [
        _save(
            agreement_figure(rows),
            folder,
            Picture("agreement", title, f"{caption} {' '.join(texts)}", f"{caption} {' '.join(texts)}", table=True),
        )
    ]
    slices = stored_slices(cohort)
    if slices:
        caption = (
            "For each of the cases that agree least, the slice with the most voxels that belong to only one of store "
            "and reference."
        )
        named = "; ".join(f"{worst.case}, {worst.region}, slice {worst.position}" for worst in slices)
        picture = Picture("worst_slices", "Slices that differ most", caption, f"{caption} {named}.")
        drawn.append(_save(worst_slices_figure(cohort, slices, rows), folder, picture))
    return drawn


def _agreement_text(region: str, rows: Sequence[Row]) -> str:
    dice = [value for row in rows if not isnan(value := float(row["dice"]))]
    parts = [f"{count_of(len(rows), 'case')}"]
    if dice:
        parts.append(f"median Dice {np.median(dice):.3f}")
    limits = limits_of_agreement(rows)
    if limits is not None:
        mean, low, high = (f"{value:+,.0f}".replace("-", "−") for value in limits)
        parts.append(f"mean difference {mean} mL ({low} to {high})")
    return f"{region[:1].upper()}{region[1:]}: {', '.join(parts)}."


def model_title(name: str) -> str:
    """Return the title of a mixture for captions and tables, from its name in the store."""
    return _MODEL_TITLES.get(name, f"mixture “{name}”")


def _as_figure(number: int) -> str:
    return f"As Figure {number} of Zaffino et al. 2021."


def _save(figure: Figure, folder: Path, picture: Picture) -> Picture:
    save_figure(figure, folder / FOLDER / picture.name)
    return picture
