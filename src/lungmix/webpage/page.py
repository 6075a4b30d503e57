"""HTML report of a cohort: one page with tables, figures and a viewer, and a data file per scan for the viewer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from dask.system import CPU_COUNT

from lungmix.callbacks import Callback, stage_events
from lungmix.cluster import map_bounded
from lungmix.errors import LungmixError, StoreError, UsageError, encodable
from lungmix.mixture import TissueModel, diagnose
from lungmix.mixture.diagnosis import doubts_of
from lungmix.parameters import FITS
from lungmix.stages.fit import pool_counts, stored_fits
from lungmix.stages.flags import FLAGGED_FRACTION
from lungmix.stages.label import STAGE as LABEL
from lungmix.stages.measure import read_measurements
from lungmix.store import MODEL_FILE, Case, Cohort
from lungmix.store.models import GIVEN, ModelUse, stored_model
from lungmix.store.schema import FITS_RECORD, MASK
from lungmix.tissue import SIDES, TISSUES, Tissue
from lungmix.webpage import pictures
from lungmix.webpage.columns import BOTH, FLAGS, SCANNER, SCORE, Value, columns_of
from lungmix.webpage.files import publish
from lungmix.webpage.followup import Patient, patients_with_changes, table_of, write_patients
from lungmix.webpage.overview import CohortOverview, overview_of
from lungmix.webpage.pictures import Picture
from lungmix.webpage.rendering import render
from lungmix.webpage.scans import FOLDER as DATA
from lungmix.webpage.scans import DataFiles, data_files_of, remove_files_of_other_cases, write_scan
from lungmix.webpage.thumbnails import remove_thumbnails_of_other_cases, slice_of, write_thumbnail
from lungmix.webpage.zones import LARGEST_LI

# Number of scans that are read at once. Each holds up to two slabs in memory, and more scans would wait for the disk.
_MAX_CONCURRENT = 4
# Errors of reading corrupt or missing objects of a store. A report that cannot be written is a `UsageError`.
_READ_ERRORS = (StoreError, OSError)
_SCRIPTS = ("base", "load", "table", "volume", "plane", "histogram", "zones", "view", "viewer", "start")


def write_page(
    cohort: Cohort,
    folder: str | Path,
    failed: Mapping[str, str] | None = None,
    *,
    scores: Mapping[str, float] | None = None,
    posterior: str | None = None,
    title: str | None = None,
    callback: Callback | None = None,
    spell: Callable[[str], str] = str,
) -> Path:
    """Write the HTML report of a cohort; existing files are replaced.

    Parameters
    ----------
    cohort : Cohort
        The store. Cases without labels are listed in the table, but not shown in the viewer.
    folder : str or Path
        Folder for ``index.html``, ``data/CASE.js`` for the viewer of each labelled case, ``look/CASE.webp`` with a
        slice of each flagged case, and ``figures/`` with PNG and SVG files.
    failed : mapping of str to str, optional
        Reasons of failed sources and cases of this run, by name.
    scores : mapping of str to float, optional
        A radiologist's score S, 0 to 5, by case.
    posterior : str, optional
        Key of a tissue, such as ``ggo``, whose posteriors the viewer shows on request, besides the labels. Files of
        scans are then larger.
    title : str, optional
        Title of the page; by default the name of the store.
    callback : Callback, optional
        Receives progress and warnings.
    spell : callable, optional
        Called with each message, returns the text to show.

    Returns
    -------
    Path
        Path of ``index.html``.

    Raises
    ------
    UsageError
        If the folder cannot be written, or there is no such tissue.
    """
    shares_of = _tissue(posterior)
    target, callback = Path(folder), callback or Callback()
    overview = overview_of(cohort)
    labelled = [name for name, case in cohort.items() if LABEL in case.stages]
    model = _model_of_labels(cohort, labelled, overview.made_with)
    for warning in overview.warnings:
        callback.on_warning(warning)
    notes = {case.name: case.note for case in overview.cases if case.note} | overview.damaged | dict(failed or {})
    unreadable = _write_scans(cohort, labelled, model, target, callback, posterior)
    notes |= {name: f"no view: {reason}" for name, reason in unreadable.items()}
    viewed = [name for name in labelled if name not in unreadable]
    remove_files_of_other_cases(target / DATA, set(viewed))
    shown, unreadable = _write_thumbnails(cohort, overview, viewed, target)
    notes |= {name: f"no picture: {reason}" for name, reason in unreadable.items()}
    rows = _rows(cohort, overview, scores or {})
    # Scores are compared with measurements only if all labels are by one mixture.
    compared = scores if scores and _is_comparable(rows) else {}
    patients = patients_with_changes(cohort)
    figures = _draw(cohort, overview, model, viewed, rows, compared, patients, target, callback)
    files = data_files_of(cohort, viewed, shares_of)

    def warn_of_change(name: str, error: Exception) -> None:
        callback.on_warning(f"{name}: no change map: {_reason(error)}")

    write_patients(cohort, patients, files, target, warn_of_change)
    page = target / "index.html"
    name = title or _short_name(cohort.url)
    publish(page, _render(name, cohort, overview, model, rows, figures, patients, notes, shown, files, spell))
    return page


def _model_of_labels(cohort: Cohort, labelled: Sequence[str], use: ModelUse) -> TissueModel | None:
    """Return the mixture of the labels if all cases have the same one; else the model of the store, or None."""
    case_of = {use.labels[name].digest: name for name in labelled if name in use.labels}
    for digest, name in case_of.items() if len(case_of) == 1 else ():
        if use.stored is None or digest != use.stored.digest:
            return cohort[name].model
    return None if cohort.read_text(MODEL_FILE) is None else stored_model(cohort)


def _write_scans(
    cohort: Cohort,
    names: Sequence[str],
    model: TissueModel | None,
    folder: Path,
    callback: Callback,
    posterior: str | None,
) -> dict[str, str]:
    """Write the data files of scans concurrently; return the reason for each case that could not be read."""
    unreadable = {}
    with stage_events(callback, "report", names):
        size = max(1, min(CPU_COUNT, _MAX_CONCURRENT))
        for outcome in map_bounded(names, lambda name: _write_scan(cohort[name], model, folder, posterior), size):
            if isinstance(outcome.error, UsageError):
                raise outcome.error
            reason = None if outcome.error is None else _reason(outcome.error)
            if reason is not None:
                unreadable[outcome.item] = reason
            callback.on_case_end(outcome.item, reason)
    return unreadable


def _write_scan(case: Case, model: TissueModel | None, folder: Path, posterior: str | None) -> None:
    label_model = case.model
    # A mixture of another number of components has no tissues.
    has_tissues = label_model is not None and label_model.n_components == len(TISSUES)
    write_scan(case, label_model or model, folder, posterior if has_tissues else None)


def _tissue(key: str | None) -> Tissue | None:
    """Return the tissue of a key; None without a key.

    Raises
    ------
    UsageError
        If there is no such tissue; the message lists all.
    """
    tissues = {tissue.key: tissue for tissue in TISSUES}
    if key is not None and key not in tissues:
        raise UsageError(f"there is no tissue {key!r}: choose one of {', '.join(tissues)}")
    return None if key is None else tissues[key]


def _write_thumbnails(
    cohort: Cohort, overview: CohortOverview, viewed: Sequence[str], folder: Path
) -> tuple[dict[str, int], dict[str, str]]:
    """Write the thumbnails of flagged cases.

    Returns
    -------
    slices : dict of str to int
        Index of the axial slice in each thumbnail, by case.
    unreadable : dict of str to str
        Reason for each case that could not be read.
    """
    slices: dict[str, int] = {}
    unreadable: dict[str, str] = {}
    for case in overview.cases:
        index = slice_of(cohort[case.name], case.quality) if case.flags and case.name in viewed else None
        if index is None:
            continue
        try:
            write_thumbnail(cohort[case.name], index, folder)
        except _READ_ERRORS as error:
            unreadable[case.name] = _reason(error)
        else:
            slices[case.name] = index
    remove_thumbnails_of_other_cases(folder, slices)
    return slices, unreadable


def _reason(error: Exception) -> str:
    if isinstance(error, LungmixError):
        return error.redacted_message
    return f"its arrays cannot be read ({type(error).__name__}): convert the case again"


def _rows(cohort: Cohort, overview: CohortOverview, scores: Mapping[str, float]) -> list[dict[str, Value]]:
    """Return one row per case of the store, with its measurements, score, flags and scanner."""
    measured: dict[str, dict[str, Value]] = {str(row["case"]): dict(row) for row in read_measurements(cohort)}
    rows = []
    for case in overview.cases:
        row = measured.get(case.name, {"case": case.name})
        if case.name in scores:
            row[SCORE] = scores[case.name]
        lungs = [float(row.get(key, math.nan)) for key in ("lung_ml", "right_ml", "left_ml")]
        if abs(lungs[0] - lungs[1] - lungs[2]) > FLAGGED_FRACTION * lungs[0]:
            row[BOTH] = lungs[1] + lungs[2]
        if case.quality:
            row[FLAGS] = ", ".join(flag.name for flag in case.quality)
        scanner = cohort[case.name].acquisition.scanner
        if scanner:
            row[SCANNER] = scanner
        rows.append(row)
    return rows


def _draw(
    cohort: Cohort,
    overview: CohortOverview,
    model: TissueModel | None,
    viewed: Sequence[str],
    rows: Sequence[Mapping[str, Value]],
    scores: Mapping[str, float],
    patients: Sequence[Patient],
    folder: Path,
    callback: Callback,
) -> list[Picture]:
    if model is None or not viewed:
        return []
    involvement = _involvement(rows)

    def readable(draw: Callable[[], Picture]) -> Picture | None:
        try:
            return draw()
        except _READ_ERRORS as error:
            callback.on_warning(f"no figure: {_reason(error)}")
            return None

    middle = sorted((n for n in viewed if n in involvement), key=lambda n: involvement[n]) or list(viewed)
    with stage_events(callback, "figures", ["figures"]):
        drawn = [
            pictures.draw_mixture(cohort, model, viewed, folder, overview.made_with),
            readable(partial(pictures.draw_pipeline, cohort, overview, model, middle[len(middle) // 2], folder)),
            readable(partial(pictures.draw_slices, cohort, involvement, viewed, folder)),
            pictures.draw_robustness(
                cohort, folder, lambda done, total: callback.on_progress("figures", "robustness", done, total)
            ),
            *pictures.draw_scores(scores, involvement, folder),
            *pictures.draw_zones(cohort, [str(row["case"]) for row in rows], folder),
            *pictures.draw_followup(patients, folder),
            *pictures.draw_evaluation(cohort, folder),
        ]
        callback.on_case_end("figures")
    return [picture for picture in drawn if picture is not None]


def _render(
    name: str,
    cohort: Cohort,
    overview: CohortOverview,
    model: TissueModel | None,
    rows: Sequence[Mapping[str, Value]],
    figures: Sequence[Picture],
    patients: Sequence[Patient],
    notes: Mapping[str, str],
    shown: Mapping[str, int],
    files: DataFiles,
    spell: Callable[[str], str],
) -> bytes:
    return render(
        "index.html.j2",
        _SCRIPTS,
        name=name,
        overview=overview,
        rows=rows,
        columns=columns_of(rows),
        files=files,
        patients=table_of(patients),
        cards=_cards(overview, rows, notes),
        pictures={picture.name: picture for picture in figures},
        fits=_fits(cohort, overview.made_with, model),
        # The path of the store may contain names of persons.
        warnings=list(map(spell, overview.made_with.warnings())),
        notes={name: spell(note) for name, note in notes.items()},
        flagged=[
            {
                "case": case.name,
                "slice": shown.get(case.name),
                "names": [flag.name for flag in case.quality],
                "reasons": [spell(text) for text in case.flags],
            }
            for case in overview.cases
            if case.flags
        ],
        # Only flags count, as in qc.csv; a case may have other notes.
        look_at={case.name for case in overview.cases if case.quality},
        regions=SIDES,
        tissues=TISSUES,
        largest_li=LARGEST_LI,
    )


def _cards(
    overview: CohortOverview, rows: Sequence[Mapping[str, Value]], notes: Mapping[str, str]
) -> list[tuple[str, str]]:
    involvement = sorted(_involvement(rows).values()) if _is_comparable(rows) else []
    cards = [
        (f"{len(overview.cases):,}", "scan" if len(overview.cases) == 1 else "scans"),
        (f"{overview.slices:,}", "slices"),
        (_thousands(overview.voxels), "voxels"),
    ]
    if involvement:
        cards.append((f"{median(involvement):.1f} %", "median lung involvement"))
        cards.append((f"{involvement[0]:.1f} – {involvement[-1]:.1f} %", "range of lung involvement"))
    flagged = sum(bool(case.quality) for case in overview.cases)
    if flagged:
        cards.append((str(flagged), "to look at"))
    if notes:
        cards.append((str(len(notes)), "failed"))
    return cards


def _fits(cohort: Cohort, use: ModelUse, model: TissueModel | None) -> list[dict[str, Any]]:
    """Return the mixtures of the store and of its labels, each with its title, its use, and one row per component."""
    if model is None:
        return []
    stored = stored_fits(cohort)
    by_labels = {used.digest: used.name for used in use.labels.values()}
    models: dict[str, tuple[str, TissueModel]] = {}
    if stored is not None and (use.stored is None or use.stored.digest in {fit.digest for fit in stored.values()}):
        models = {fit.digest: (name, fit) for name, fit in stored.items()}
    for case in cohort.values() if by_labels.keys() - models.keys() else ():
        label_model = case.model
        if label_model is not None and LABEL in case.stages:
            models.setdefault(label_model.digest, (by_labels.get(label_model.digest, GIVEN), label_model))
    if use.stored is not None and use.stored.digest not in models:
        models[use.stored.digest] = (use.stored.name, stored_model(cohort))
    histogram = None if stored is None else _fitted_counts(cohort)
    fitted = set() if stored is None else {fit.digest for fit in stored.values()}
    # Earlier versions do not record the mixture of labels; it is the model of the store.
    labels = by_labels.keys() or {model.digest}
    out = []
    for digest, (name, mixture) in models.items():
        names = [t.name for t in TISSUES] if mixture.n_components == len(TISSUES) else None
        limits = _limits(mixture)
        out.append(
            {
                "title": pictures.model_title(name),
                "labels": digest in labels,
                "diagnosis": _diagnosis(mixture, name in FITS, histogram if digest in fitted else None),
                "next": bool(use.stale) and use.stored is not None and digest == use.stored.digest,
                "rows": [
                    {
                        "color": TISSUES[k].color if names else "#888888",
                        "name": names[k] if names else f"component {k + 1}",
                        "weight": f"{100 * mixture.weights[k]:.2f}",
                        "mean": f"{mixture.means[k]:.1f}".replace("-", "−"),
                        "sd": f"{math.sqrt(mixture.variances[k]):.1f}",
                        "threshold": limits[k],
                    }
                    for k in range(mixture.n_components)
                ],
            }
        )
    return out


def _fitted_counts(cohort: Cohort) -> npt.NDArray[np.uint64] | None:
    """Return the sum of the histograms of the cases that were fitted; None if one of them cannot be read any more."""
    names = cohort.settings[FITS_RECORD].get("cases", [])
    try:
        if all(name in cohort and MASK in cohort[name].stages for name in names):
            return pool_counts(cohort, names)
    except _READ_ERRORS:
        pass
    return None


def _diagnosis(mixture: TissueModel, is_fit: bool, histogram: npt.NDArray[np.uint64] | None) -> dict[str, Any]:
    """Return the diagnosis of a mixture in words: its verdict, its differences from the published model, its checks.

    The record of a model from a file may hold anything, so that only its parameters are checked.
    """
    result = diagnose(mixture if is_fit else replace(mixture, fit_info={}), histogram)
    rows = result.rows()
    failures = [row["text"] for row in rows if row["fails"]]
    # Recorded doubts come from the voxels that the fit pooled, which are not always those of the whole masks.
    failures = failures or doubts_of(mixture, is_fit=is_fit)
    shift = result.involvement_shift
    return {
        "failures": failures,
        "remarks": [row["text"] for row in rows if not row["fails"]],
        "distance": f"{100 * result.distance:.1f}",
        "shift": "" if math.isnan(shift) else f"{shift:+.1f}".replace("-", "−"),
    }


def _limits(mixture: TissueModel) -> list[str]:
    """Return for each component the text of the HU that its label begins at: empty if it has no lower end."""
    has_label = np.bincount(mixture.lookup_table(), minlength=mixture.n_components + 1)[1:] > 0
    limits = [-math.inf, *mixture.map_thresholds()]
    return [_limit(limit) if present else "never" for limit, present in zip(limits, has_label, strict=True)]


def _limit(value: float) -> str:
    if math.isinf(value):
        return "never" if value > 0 else ""
    return f"{value:.0f}".replace("-", "−")


def _is_comparable(rows: Sequence[Mapping[str, Value]]) -> bool:
    """Return True if the labels of all measured cases are by one mixture."""
    return len({row.get("model") for row in rows if "lung_involvement" in row}) <= 1


def _involvement(rows: Sequence[Mapping[str, Value]]) -> dict[str, float]:
    return {
        str(row["case"]): float(row["lung_involvement"])
        for row in rows
        if isinstance(row.get("lung_involvement"), float | int)
    }


def _thousands(n: int) -> str:
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= limit:
            return f"{n / limit:.3g} {unit}"
    return str(n)


def _short_name(url: str) -> str:
    """Return the last part of the path of the store; folders above it may contain names of persons."""
    path = urlsplit(url).path if "://" in url else url
    return encodable(PurePosixPath(path.rstrip("/")).name) or "cohort"
