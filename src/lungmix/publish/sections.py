"""Sections of the data card with the numbers of a data set: acquisition, processing, quality and limits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import floor
from statistics import median
from typing import Any

from lungmix._version import __version__
from lungmix.errors import LungmixError, count_of
from lungmix.kernels.measures import component_keys
from lungmix.mixture import TissueModel
from lungmix.publish.folder import CASES_FILE, DICTIONARY_FILE, MODEL_FILE, MODELS_FILE
from lungmix.quality_flags import FLAGS, Flag
from lungmix.tissue import TISSUES
from lungmix.webpage.overview import CohortOverview

Row = Mapping[str, Any]

_MASKS = {
    "paper": "air is below -155 HU; it is opened by three iterations of a 6-connected cross; of its components, those "
    "of at least 500,000 voxels are lung that do not touch the edge of an axial slice; they are closed by balls with "
    "radii of 30 and 20 voxels. Sizes are in voxels, so that masks depend on the voxel size",
    "physical": "the steps of the publication with sizes in mm and mL: air is below -155 HU; it is opened by a diamond "
    "with a radius of 2.1 mm; of its components, those of at least 100 mL are lung that do not touch the edge of an "
    "axial slice; they are closed by an ellipsoid with a radius of 10 mm",
    "anatomical": "lung is air below -300 HU (-400 HU in voxels wider than 2 mm) that is aerated like a lung and lies "
    "inside the body; trachea and main bronchi are taken out, right and left lung are told apart, vessels within a "
    "lung are lung, and so is dense tissue that ribs and aerated lung enclose",
    "given": "masks come from files that the publisher gave; this data set does not say how they were made",
}
_OTHER_MASKS = "masks come from the segmentation program of this name"
_MASK_LIMITS = {
    "paper": "Against contours that people drew of one adult with a tumour, masks by the rules paper have Dice "
    "coefficients of 0.95 (right) and 0.89 (left). They contain bronchi and the hilum, and lack a lung that reaches "
    "the edge of the image",
    "physical": "Against contours that people drew of one adult with a tumour, masks by the rules physical have Dice "
    "coefficients of 0.97 (right) and 0.97 (left). They contain bronchi and the hilum, and lack a lung that reaches "
    "the edge of the image",
    "anatomical": "Against contours that people drew of one adult with a tumour, masks by the rules anatomical have "
    "Dice coefficients of 0.98 (right) and 0.98 (left). Disease without air that merges with the mediastinum or lies "
    "on the diaphragm is missing in part or altogether, and so is a lung without any air; gas of a pneumothorax counts "
    "as lung",
}
_FITS = {
    "published": "the mixture of the publication, which was not fitted to these scans",
    "paper": "fitted to the lung voxels of the cohort by EM as in the publication, which stops before the maximum "
    "of the likelihood",
    "converged": "fitted to the lung voxels of the cohort at the maximum of the likelihood",
    "anchored": "fitted to the lung voxels of the cohort, with a prior near the published mixture so that each "
    "component keeps to its tissue",
    "given": "a mixture that the publisher gave as a file",
}
_OTHER_FITS = "a mixture of this name"
_STEPS = """\
2. Mixture. The HU of lung voxels are described by Gaussian components, five of them for five tissues.
3. Labels. Each lung voxel gets the tissue whose component is most probable at its HU. Neighbours have no influence.
4. Median. The second label map is the first after a median filter with a window of 4 x 4 x 4 voxels.
5. Measurements. Lung involvement (LI) is the percentage of lung voxels labelled ground-glass opacity, consolidation or
   other denser tissue. Volumes are in mL, densities in HU, percentages of lung voxels, distances in mm; the dictionary
   has unit and meaning of each column.
"""
_BY_OTHERS = (
    "The mixture of each scan is that of all other patients in {file}. That of all, {pooled}, labelled no scan."
)
_CONDITIONS = {"from": "is {} or more", "below": "is less than {}", "away": "differs from -1000 HU by {} or more"}
_LIMITS = """\
- The labels are a function of the HU of a voxel under a Gaussian mixture. They are no reference by readers. Vessels,
  walls of airways, the border of the mask and the edges of structures have HU of diseased tissue and are labelled as
  such. So the lung involvement of healthy lungs is not 0: in a scan of a patient with cancer of the bowel, it was
  13 %. A radiologist does not count vessels and estimates areas, and so sees less than the lung involvement says.
- Fluid, tumour and consolidation can have equal HU, and equal labels.
- Masks are computed, or are files that the publisher gave. Nobody corrected them afterwards.
- Mean HU and labels depend on the reconstruction kernel, the slice thickness and the inspiration of a scan. For two
  reconstructions of one acquisition, the lung involvement was 16.9 % with a soft and 18.3 % with a sharp kernel.
- For research only, not for diagnosis.
- Patients with several scans are those that were recorded; all other scans count as patients of their own.
"""
SCALE = "0 none, 1 less than 5 %, 2 from 5 to 25 %, 3 from 26 to 50 %, 4 from 51 to 75 %, 5 more than 75 %"
_QUALITY = "names in the column flags of {file}; look at these scans before you use them."

FIXED_TEXT = " ".join((
    *_MASKS.values(), _OTHER_MASKS, *_MASK_LIMITS.values(), *_FITS.values(), _OTHER_FITS, _BY_OTHERS, _STEPS, _LIMITS,
    _QUALITY, SCALE, *_CONDITIONS.values(), *(flag.measured for flag in FLAGS), *(flag.name for flag in FLAGS),
))  # fmt: skip
"""Text of these sections that data sets contain whoever the patients are."""


def acquisition_text(rows: Sequence[Row]) -> str:
    """Return the scanners of all scans with their settings, as a Markdown table."""
    by_scanner: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_scanner[(_text(row["manufacturer"]), _text(row["scanner_model"]))].append(row)
    lines = [
        "| manufacturer | model | scans | tube voltage, kV | slice thickness, mm | kernel |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (maker, model), scans in sorted(by_scanner.items()):
        cells = [_frequencies(scan[key] for scan in scans) for key in ("kvp", "slice_thickness", "kernel")]
        lines.append(f"| {' | '.join([maker, model, str(len(scans)), *cells])} |")
    sizes = [_range(row[f"size_{axis}"] for row in rows) for axis in "xyz"]
    spacings = [_range((row[f"spacing_{axis}"] for row in rows), 3) for axis in "xyz"]
    return "\n".join([
        "Scanners as the headers of the scans name them. If there are several values, each has its number of scans in "
        "parentheses:\n", *lines,
        f"\nVoxels along x, y, z: {', '.join(sizes)}. Their spacing in mm: {', '.join(spacings)}.",
    ])  # fmt: skip


def methods_of(overview: CohortOverview, names: Sequence[str], *, is_by_others: bool = False) -> str:
    """Return sentences about how masks and labels of some cases were made.

    Parameters
    ----------
    overview : CohortOverview
        Overview of the store.
    names : sequence of str
        The cases.
    is_by_others : bool
        True if labels are by the mixture of all other patients.
    """
    masks, models = _made_with(overview, names)
    by = f"the mixture {', '.join(models) or 'of an unrecorded fit'} in {MODEL_FILE}"
    if is_by_others:
        by = f"the mixtures of all other patients in {MODELS_FILE}"
    return (
        f"lungmix {__version__}: masks by {', '.join(masks) or 'unrecorded rules'}; labels by {by}. The header of each "
        "label map names its mask and mixture."
    )


def making_text(overview: CohortOverview, rows: Sequence[Row], model: str, *, is_by_others: bool = False) -> str:
    """Return how masks, mixture, labels and measurements were made, with the numbers of the mixture.

    Parameters
    ----------
    overview : CohortOverview
        Overview of the store.
    rows : sequence of mapping
        Rows of the table of cases.
    model : str
        Text of the file with the mixture.
    is_by_others : bool
        True if labels are by the mixture of all other patients.
    """
    chosen = [str(row["case"]) for row in rows]
    masks, models = _made_with(overview, chosen)
    lines = [f"The program lungmix {__version__} did these steps:\n"]
    harmonised = sorted({use for name, use in overview.made_with.harmonised.items() if name in chosen})
    if harmonised:
        lines.append(f"0. Harmonisation of HU before all other steps, by {', '.join(harmonised)}.")
    for mask, number in masks.items():
        rules = _MASKS.get(mask.split(" ")[0], _OTHER_MASKS)
        lines.append(f"1. Lung mask by the rules *{mask}* ({count_of(number, 'scan')}): {rules}.")
    lines += [] if masks else ["1. Lung mask: its rules were not recorded."]
    lines += [_STEPS]
    lines += [_BY_OTHERS.format(file=MODELS_FILE, pooled=MODEL_FILE)] if is_by_others else []
    for name, number in () if is_by_others else models.items():
        lines.append(
            f"The mixture *{name}* ({count_of(number, 'scan')}) is {_FITS.get(name.split(':')[0], _OTHER_FITS)}."
        )
    lines += ["", _mixture_table(model), ""]
    lines.append(f"The header of each label map names its mask and mixture. {_summary(rows)}")
    return "\n".join(lines)


def quality_text(overview: CohortOverview, rows: Sequence[Row]) -> str:
    """Return which flags of quality control are raised, in how many scans, and what each means."""
    chosen = {str(row["case"]) for row in rows}
    raised = [flag for case in overview.cases if case.name in chosen for flag in case.quality]
    flagged = sum(bool(row["flags"]) for row in rows)
    if not flagged:
        return f"lungmix looks for doubtful scans and masks by {len(FLAGS)} rules. No scan has a flag."
    counts = Counter(flag.name for flag in raised)
    thresholds = {flag.name: flag.threshold for flag in raised}
    lines = [
        f"{flagged} of {count_of(len(rows), 'scan')} have flags of quality control, "
        + _QUALITY.format(file=CASES_FILE),
        "", "| flag | scans | it is raised if this |", "| --- | --- | --- |",
    ]  # fmt: skip
    lines += [
        f"| {flag.name} | {counts[flag.name]} | {flag.measured}: {_condition(flag, thresholds[flag.name])} |"
        for flag in FLAGS
        if counts[flag.name]
    ]
    return "\n".join(lines)


def limits_text(overview: CohortOverview, rows: Sequence[Row]) -> str:
    """Return what is known to be wrong with masks, labels and numbers."""
    masks, _ = _made_with(overview, [str(row["case"]) for row in rows])
    presets = dict.fromkeys(mask.split(" ")[0] for mask in masks)
    return _LIMITS + "\n".join(f"- {_MASK_LIMITS[name]}." for name in presets if name in _MASK_LIMITS)


def _made_with(overview: CohortOverview, names: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the masks and the mixtures of some cases, each with its number of scans."""
    use = overview.made_with
    masks = Counter(use.masks[name] for name in names if name in use.masks)
    models = Counter(str(use.labels[name]) for name in names if name in use.labels)
    return dict(sorted(masks.items())), dict(sorted(models.items()))


def _mixture_table(model: str) -> str:
    try:
        mixture = TissueModel.from_json(model, MODEL_FILE)
    except LungmixError:
        return f"{MODEL_FILE} has its weights, means and variances."
    thresholds = [*mixture.map_thresholds(), float("inf")]
    lines = [
        f"Values of the mixture in {MODEL_FILE}; a voxel has the label up to the HU in the last column:", "",
        "| label | tissue | colour | weight, % | mean, HU | standard deviation, HU | label up to, HU |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    names = [(tissue.name, tissue.color) for tissue in TISSUES]
    if mixture.n_components != len(TISSUES):
        names = [(key, "") for key in component_keys(mixture.n_components)]
    for label, ((name, color), weight, mean, variance, end) in enumerate(
        zip(names, mixture.weights, mixture.means, mixture.variances, thresholds, strict=True), 1
    ):
        upper = f"{floor(end)}" if abs(end) < float("inf") else "no limit"
        lines.append(
            f"| {label} | {name} | {color} | {100 * weight:.1f} | {mean:.0f} | {variance**0.5:.0f} | {upper} |"
        )
    return "\n".join(lines)


def _summary(rows: Sequence[Row]) -> str:
    """Return the middle and the range of volume and lung involvement, and the number of scores."""
    scored = sum(row["score"] != "" for row in rows)
    sentences = []
    for key, name, unit in (("lung_ml", "Lung volume", "mL"), ("lung_involvement", "Lung involvement", "%")):
        values = [float(row[key]) for row in rows if row.get(key, "") != ""]
        if values:
            span = f"median {median(values):,.0f} {unit}, from {min(values):,.0f} to {max(values):,.0f}"
            sentences.append(f"{name}: {span}.")
    score = (
        f"A radiologist scored {count_of(scored, 'scan')}, by the part of the lungs that is involved: {SCALE}."
        if scored
        else "There are no scores."
    )
    return " ".join([f"Numbers of each scan are in {CASES_FILE}, explained in {DICTIONARY_FILE}.", *sentences, score])


def _condition(flag: Flag, threshold: float) -> str:
    number = f"{threshold:,g}{f' {flag.unit}' if flag.unit else ''}"
    return _CONDITIONS[flag.raised].format(number)


def _frequencies(values: Any) -> str:
    counts = Counter(map(_text, values)).most_common()
    return ", ".join(text + (f" ({number})" if len(counts) > 1 else "") for text, number in counts)


def _range(values: Any, digits: int = 6) -> str:
    numbers = sorted(float(value) for value in values)
    if not numbers:
        return "unknown"
    ends = dict.fromkeys(f"{number:.{digits}g}" for number in (numbers[0], numbers[-1]))
    return " to ".join(ends)


def _text(value: Any) -> str:
    return "unknown" if value == "" else (f"{value:g}" if isinstance(value, float) else str(value))
