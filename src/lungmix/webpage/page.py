"""The page of a cohort: tables and figures in one file, and beside it a file a scan for the viewer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from dask.system import CPU_COUNT
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lungmix._version import __version__
from lungmix.callbacks import Callback
from lungmix.cluster import map_bounded
from lungmix.errors import LungmixError, UsageError, encodable
from lungmix.mixture import TissueModel
from lungmix.stages.fit import stored_fits
from lungmix.stages.label import STAGE as LABEL
from lungmix.stages.measure import read_measurements
from lungmix.store import MODEL_FILE, Case, Cohort
from lungmix.store.models import GIVEN, ModelUse, stored_model
from lungmix.tissue import TISSUES
from lungmix.webpage import pictures
from lungmix.webpage.columns import SCANNER, SCORE, Value, columns_of
from lungmix.webpage.files import publish
from lungmix.webpage.overview import CohortOverview, overview_of
from lungmix.webpage.pictures import Picture
from lungmix.webpage.scans import remove_files_of_other_cases, write_scan

# Each scan in flight holds a slab or two; more at a time would only wait for the disk.
_MOST_AT_ONCE = 4
_SCRIPTS = ("base", "table", "volume", "plane", "histogram", "viewer", "start")
_STATIC = Path(__file__).parent / "static"


def write_page(
    cohort: Cohort,
    folder: str | Path,
    failed: Mapping[str, str] | None = None,
    *,
    scores: Mapping[str, float] | None = None,
    callback: Callback | None = None,
    spell: Callable[[str], str] = str,
) -> Path:
    """Write the page of a cohort; what is there already is replaced file by file.

    Parameters
    ----------
    cohort : Cohort
        With labels; cases without are listed only.
    folder : str or Path
        Gets ``index.html``, ``data/CASE.js`` for each labelled case, and ``figures/`` as PNG and SVG.
    failed : mapping of str to str, optional
        Reasons of failed sources that are not in the store.
    scores : mapping of str to float, optional
        Radiologist's score S of cases, 0 to 5.
    callback : Callback, optional
        Hears of progress.
    spell : callable, optional
        Called with each message; returns the text to show.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    target, watch = Path(folder), callback or Callback()
    overview = overview_of(cohort)
    labelled = [name for name, case in cohort.items() if LABEL in case.stages]
    model = _model_of_labels(cohort, labelled, overview.made_with)
    for warning in overview.warnings:
        watch.on_warning(warning)
    notes = {case.name: case.note for case in overview.cases if case.note} | overview.damaged | dict(failed or {})
    broken = _write_scans(cohort, labelled, model, target, watch)
    notes |= {name: f"no view: {reason}" for name, reason in broken.items()}
    viewed = [name for name in labelled if name not in broken]
    remove_files_of_other_cases(target, set(viewed))
    rows = _rows(cohort, overview, scores or {})
    # Scores are not compared with numbers by several models.
    compared = scores if scores and _is_comparable(rows) else {}
    shown = _draw(cohort, overview, model, viewed, rows, compared, target, watch)
    page = target / "index.html"
    publish(page, _render(cohort, overview, model, viewed, rows, shown, notes, spell).encode())
    return page


def _model_of_labels(cohort: Cohort, labelled: Sequence[str], use: ModelUse) -> TissueModel | None:
    """The mixture of the labels where there is one for all of them, or else that of the store."""
    known = {use.labels[name].digest: name for name in labelled if name in use.labels}
    for digest, name in known.items() if len(known) == 1 else ():
        if use.stored is None or digest != use.stored.digest:
            return cohort[name].model
    return None if cohort.read_text(MODEL_FILE) is None else stored_model(cohort)


def _write_scans(
    cohort: Cohort, names: Sequence[str], model: TissueModel | None, folder: Path, callback: Callback
) -> dict[str, str]:
    """Write the files of scans, some at a time; reasons of those that could not be read."""
    broken = {}
    callback.on_begin("report", names)
    try:
        size = max(1, min(CPU_COUNT, _MOST_AT_ONCE))
        for outcome in map_bounded(names, lambda name: _write_scan(cohort[name], model, folder), size):
            if isinstance(outcome.error, UsageError):
                raise outcome.error
            reason = None if outcome.error is None else _reason(outcome.error)
            if reason is not None:
                broken[outcome.item] = reason
            callback.on_case_end(outcome.item, reason)
    finally:
        callback.on_end()
    return broken


def _write_scan(case: Case, model: TissueModel | None, folder: Path) -> None:
    write_scan(case, case.model or model, folder)


def _reason(error: Exception) -> str:
    if isinstance(error, LungmixError):
        return error.redacted_message
    return f"its arrays cannot be read ({type(error).__name__}): convert the case again"


def _rows(cohort: Cohort, overview: CohortOverview, scores: Mapping[str, float]) -> list[dict[str, Value]]:
    """A row for each case of the store: what was measured of it, its score and its scanner."""
    measured: dict[str, dict[str, Value]] = {str(row["case"]): dict(row) for row in read_measurements(cohort)}
    rows = []
    for case in overview.cases:
        row = measured.get(case.name, {"case": case.name})
        if case.name in scores:
            row[SCORE] = scores[case.name]
        known = cohort[case.name].acquisition
        scanner = " ".join(part for part in (known.manufacturer, known.model) if part)
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
    folder: Path,
    callback: Callback,
) -> list[Picture]:
    if model is None or not viewed:
        return []
    involvement = _involvement(rows)
    middle = sorted((n for n in viewed if n in involvement), key=lambda n: involvement[n]) or list(viewed)
    callback.on_begin("figures", ["figures"])
    try:
        drawn = [
            pictures.draw_mixture(cohort, model, viewed, folder, overview.made_with),
            pictures.draw_pipeline(cohort, overview, model, middle[len(middle) // 2], folder),
            pictures.draw_slices(cohort, involvement, viewed, folder),
            pictures.draw_robustness(
                cohort, folder, lambda done, total: callback.on_progress("figures", "robustness", done, total)
            ),
            pictures.draw_scores(scores, involvement, folder),
        ]
        callback.on_case_end("figures")
    finally:
        callback.on_end()
    return [picture for picture in drawn if picture is not None]


def _render(
    cohort: Cohort,
    overview: CohortOverview,
    model: TissueModel | None,
    viewed: Sequence[str],
    rows: Sequence[Mapping[str, Value]],
    shown: Sequence[Picture],
    notes: Mapping[str, str],
    spell: Callable[[str], str],
) -> str:
    environment = Environment(
        loader=PackageLoader("lungmix.webpage"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    stamps = {name: str(cohort[name].stages[LABEL].get("key", ""))[:12] for name in viewed}
    return environment.get_template("index.html.j2").render(
        name=_short_name(cohort.url),
        overview=overview,
        rows=rows,
        columns=columns_of(rows),
        stamps=stamps,
        cards=_cards(overview, rows, notes),
        pictures={picture.name: picture for picture in shown},
        fits=_fits(cohort, overview.made_with, model),
        # Folders above the store may tell of people.
        warnings=list(map(spell, overview.made_with.warnings("STORE"))),
        notes={name: spell(note) for name, note in notes.items()},
        flags={case.name: spell("; ".join(case.flags)) for case in overview.cases if case.flags},
        tissues=TISSUES,
        version=__version__,
        # The only text that is taken as it is: files of this package.
        style=Markup((_STATIC / "page.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((_STATIC / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)),
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
        middle = len(involvement) // 2
        median = involvement[middle] if len(involvement) % 2 else (involvement[middle - 1] + involvement[middle]) / 2
        cards.append((f"{median:.1f} %", "median lung involvement"))
        cards.append((f"{involvement[0]:.1f} – {involvement[-1]:.1f} %", "least and most involvement"))
    if notes:
        cards.append((str(len(notes)), "failed"))
    return cards


def _fits(cohort: Cohort, use: ModelUse, model: TissueModel | None) -> list[dict[str, Any]]:
    """Parameters of the mixtures of the store and of its labels: name, what each is used for, and a row a component."""
    if model is None:
        return []
    stored = stored_fits(cohort)
    by_labels = {one.digest: one.name for one in use.labels.values()}
    models: dict[str, tuple[str, TissueModel]] = {}
    if stored is not None and (use.stored is None or use.stored.digest in {one.digest for one in stored.values()}):
        models = {one.digest: (name, one) for name, one in stored.items()}
    for case in cohort.values() if by_labels.keys() - models.keys() else ():
        own = case.model
        if own is not None and LABEL in case.stages:
            models.setdefault(own.digest, (by_labels.get(own.digest, GIVEN), own))
    if use.stored is not None and use.stored.digest not in models:
        models[use.stored.digest] = (use.stored.name, stored_model(cohort))
    # Stores that do not say which mixture made their labels have those of their model.
    labels = by_labels.keys() or {model.digest}
    out = []
    for digest, (name, one) in models.items():
        names = [t.name for t in TISSUES] if one.n_components == len(TISSUES) else None
        limits = [None, *one.map_thresholds()]
        out.append(
            {
                "name": name,
                "labels": digest in labels,
                "next": bool(use.stale) and use.stored is not None and digest == use.stored.digest,
                "rows": [
                    {
                        "color": TISSUES[k].color if names else "#888888",
                        "name": names[k] if names else f"component {k + 1}",
                        "weight": f"{100 * one.weights[k]:.2f}",
                        "mean": f"{one.means[k]:.1f}".replace("-", "−"),
                        "sd": f"{math.sqrt(one.variances[k]):.1f}",
                        "begin": _limit(limits[k]),
                    }
                    for k in range(one.n_components)
                ],
            }
        )
    return out


def _limit(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}".replace("-", "−") if math.isfinite(value) else "never"


def _is_comparable(rows: Sequence[Mapping[str, Value]]) -> bool:
    """Whether all measured rows are of labels by one model."""
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
    """The last part of where the store is: folders above it may tell of people."""
    path = urlsplit(url).path if "://" in url else url
    return encodable(PurePosixPath(path.rstrip("/")).name) or "cohort"
