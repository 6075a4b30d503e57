"""A static page: the table of measurements, the mixture, and a labelled slice of every case."""

from __future__ import annotations

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from lungmix.mixture import TissueModel
from lungmix.report.curves import fits_figure
from lungmix.report.figures import mixture_figure, png_of, slice_figure
from lungmix.report.overview import CohortOverview, overview_of
from lungmix.stages.fit import pool_counts, stored_fits
from lungmix.stages.label import STAGE as LABEL
from lungmix.stages.measure import Row, read_measurements
from lungmix.store import MODEL_FILE, Cohort
from lungmix.tissue import TISSUES

_COLUMNS = (
    ("lung_ml", "Lung (mL)", 0),
    *((t.key, f"{t.name} (%)", 2) for t in TISSUES),
    ("lung_involvement", "Lung involvement (%)", 2),
    ("mean_hu", "Mean (HU)", 1),
    ("laa950", "LAA -950 (%)", 2),
    ("perc15", "Perc15 (HU)", 1),
)

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1100px; padding: 1rem; color: #1b1b1b; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .6rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; }
figure { margin: 1rem 0; }
.note { color: #555; }
"""


def write_page(cohort: Cohort, folder: str | Path, failed: Mapping[str, str] | None = None) -> Path:
    """Write the page of a cohort.

    Parameters
    ----------
    cohort : Cohort
        With labels; cases without are listed only.
    folder : str or Path
        Gets ``index.html`` and a picture a case.
    failed : mapping of str to str, optional
        Reasons of failed sources that are not in the store.

    Returns
    -------
    Path
        The page.
    """
    target = Path(folder)
    (target / "pictures").mkdir(parents=True, exist_ok=True)
    overview = overview_of(cohort)
    labelled = [name for name, case in cohort.items() if LABEL in case.stages]
    parts = [_table(read_measurements(cohort)), _scanners(overview)]
    text = cohort.read_text(MODEL_FILE)
    if text is not None and labelled:
        model = TissueModel.from_json(text)
        _write(target / "pictures" / "mixture.png", png_of(_mixture(cohort, model, labelled)))
        parts.append("<h2>Mixture over the pooled lung voxels</h2>" + _picture("mixture.png", _describe(model)))
    parts.append("<h2>Labelled slices</h2>" if labelled else "")
    for name in labelled:
        _write(target / "pictures" / f"{name}.png", png_of(slice_figure(cohort[name])))
        parts.append(_picture(f"{name}.png", f"{name}: the axial slice with most lung, and its tissue labels"))
    notes = {case.name: case.note for case in overview.cases if case.note} | dict(failed or {})
    if notes:
        rows = "".join(
            f"<tr><td>{escape(n)}</td><td style='text-align:left'>{escape(r)}</td></tr>" for n, r in notes.items()
        )
        parts.append(f"<h2>Failed</h2><div class='scroll'><table>{rows}</table></div>")
    page = target / "index.html"
    _write(page, _frame(overview, "\n".join(parts)).encode())
    return page


def _frame(overview: CohortOverview, body: str) -> str:
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>lungmix: {len(overview.cases)} cases</title><style>{_STYLE}</style></head><body>"
        f"<h1>{len(overview.cases)} cases, {overview.slices:,} slices</h1>\n{body}\n"
        "<p class='note'>For research only. Tissue classes after Zaffino et al. 2021, Bioengineering 8:26.</p>"
        "</body></html>\n"
    )


def _table(rows: list[Row]) -> str:
    if not rows:
        return "<p>No case has been measured yet.</p>"
    shown = [column for column in _COLUMNS if column[0] in rows[0]]
    head = "".join(f"<th scope='col'>{escape(title)}</th>" for _, title, _ in shown)
    lines = [
        f"<tr><th scope='row'>{escape(str(row['case']))}</th>"
        + "".join(f"<td>{float(row[key]):,.{digits}f}</td>" for key, _, digits in shown)
        + "</tr>"
        for row in rows
    ]
    body = "\n".join(lines)
    top = f"<tr><th scope='col'>Case</th>{head}</tr>"
    return f"<h2>Measurements</h2><div class='scroll'><table>{top}\n{body}</table></div>"


def _scanners(overview: CohortOverview) -> str:
    lines = "\n".join(
        f"<tr><td>{escape(s.manufacturer)}</td><td>{escape(s.model)}</td><td>{s.scans}</td>"
        f"<td>{escape(s.kvp)}</td><td>{escape(s.thickness)}</td></tr>"
        for s in overview.scanners
    )
    head = "".join(f"<th scope='col'>{t}</th>" for t in ("Manufacturer", "Model", "CTs", "kVp", "Slice thickness (mm)"))
    return f"<h2>Scanners</h2><div class='scroll'><table><tr>{head}</tr>\n{lines}</table></div>"


def _mixture(cohort: Cohort, model: TissueModel, labelled: list[str]) -> Figure:
    """Both fits where the model is one of them, or else the model alone."""
    settings, fits = cohort.settings, stored_fits(cohort)
    record = settings.get("fits", {})
    present = [name for name in record.get("cases", []) if name in cohort]
    if fits is None or not present or settings.get("fit", {}).get("key") != record["key"]:
        return mixture_figure(model, pool_counts(cohort, labelled))
    return fits_figure(fits, pool_counts(cohort, present), record["parameters"]["clip"])


def _picture(file: str, text: str) -> str:
    image = f"<img src='pictures/{file}' alt='{escape(text)}' loading='lazy'>"
    return f"<figure>{image}<figcaption>{escape(text)}</figcaption></figure>"


def _describe(model: TissueModel) -> str:
    means = ", ".join(
        f"{mean:.0f} HU ({100 * weight:.1f} %)" for weight, mean in zip(model.weights, model.means, strict=True)
    )
    name = model.fit.get("name")
    return f"Labels are made with the fit “{name}”: Gaussians at {means}" if name else f"Gaussians at {means}"


def _write(path: Path, content: bytes) -> None:
    passing = path.with_name(f".{path.name}.{os.getpid()}.partial")
    passing.write_bytes(content)
    passing.replace(path)
