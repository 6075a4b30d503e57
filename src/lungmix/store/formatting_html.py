"""HTML representations of cases and cohorts for notebooks."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import count_of, encodable
from lungmix.store.schema import CONVERT, LABEL, stages_text
from lungmix.tissue import segments_of

if TYPE_CHECKING:
    from lungmix.store.case import Case

_WINDOW = (-1350, 150)
_OPACITY = 0.5
_WIDTH = 160
_MAX_CASES = 20
# Notebooks align cells to the right, which suits numbers only.
_LEFT = ' style="text-align:left"'


def case_html(case: Case) -> str:
    """Return a table of the attributes of a case, and its middle slice with the labels overlaid."""
    geometry = case.geometry
    rows = {
        "size (x, y, z)": " x ".join(map(str, geometry.size)),
        "spacing": " x ".join(f"{step:.4g}" for step in geometry.spacing) + " mm",
        "scanner": case.acquisition.scanner or "unknown",
        "done": stages_text(case.stages),
        **_provenance(case),
    }
    if case.failure:
        rows["failed"] = f"{case.failure['stage']}: {case.failure['reason']}"
    cells = "".join(
        f'<tr><th scope="row"{_LEFT}>{escape(key)}</th><td{_LEFT}>{escape(value)}</td></tr>'
        for key, value in rows.items()
    )
    table = f"<table><caption>Case {escape(case.name)}</caption><tbody>{cells}</tbody></table>"
    return f'<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:center">{_preview(case)}{table}</div>'


def cohort_html(url: str, cases: Mapping[str, Case]) -> str:
    """Return a table with one row per case, for the first 20 cases."""
    names = list(cases)
    first_names = names[:_MAX_CASES]
    lines = [_cells(cases[name]) for name in first_names]
    # The last column is omitted where it is empty for all cases.
    columns = 6 if any(line[-1] for line in lines) else 5
    head = _row(("case", "size (x, y, z)", "spacing (mm)", "done", "mask, labels by", "failed")[:columns], "th")
    body = "".join(_row(line[:columns]) for line in lines)
    rest = f"<p>and {len(names) - len(first_names)} more</p>" if len(names) > len(first_names) else ""
    caption = f"Cohort {escape(encodable(url))}: {count_of(len(names), 'case')}"
    table = f"<table><caption>{caption}</caption><thead>{head}</thead><tbody>{body}</tbody></table>"
    return f'<div style="overflow-x:auto">{table}{rest}</div>'


def _provenance(case: Case) -> dict[str, str]:
    """Return the preset of the mask and the name of the mixture of the labels, as far as they are recorded."""
    # Imported here, as it loads mixtures, which other users of this module do not need.
    from lungmix.store.models import label_id, mask_text

    provenance = {"mask": mask_text(case), "labels by": label_id(case)}
    return {key: str(value) for key, value in provenance.items() if value is not None}


def _cells(case: Case) -> tuple[str, ...]:
    geometry, failure = case.geometry, case.failure
    return (
        case.name,
        " x ".join(map(str, geometry.size)),
        " x ".join(f"{step:.4g}" for step in geometry.spacing),
        stages_text(case.stages),
        ", ".join(_provenance(case).values()),
        f"{failure['stage']}: {failure['reason']}" if failure else "",
    )


def _row(cells: Iterable[str], kind: str = "td") -> str:
    return "<tr>" + "".join(f"<{kind}{_LEFT}>{escape(cell)}</{kind}>" for cell in cells) + "</tr>"


def _preview(case: Case) -> str:
    """Return the middle slice at the coarsest level as an inline PNG; empty text if the scan is not converted yet."""
    if not case.is_started("ct") or CONVERT not in case.stages:
        return ""
    level = len(case.layout.levels) - 1
    middle = case.layout.levels[level].shape[0] // 2
    hu = np.asarray(case.zarr_array("ct", level)[middle])
    low, high = _WINDOW
    gray = np.clip((hu.astype(np.float64) - low) / (high - low), 0, 1) * 255
    pixels = np.repeat(gray[:, :, None], 3, axis=2)
    if case.is_started("tissue") and LABEL in case.stages:
        _overlay(pixels, np.asarray(case.zarr_array("tissue", level)[middle]))
    x, y, _ = case.geometry.spacing
    height = round(_WIDTH * hu.shape[0] * y / (hu.shape[1] * x))
    data = base64.b64encode(_png(pixels.astype(np.uint8))).decode()
    alternative = f"Middle slice of {escape(case.name)}"
    return f'<img width="{_WIDTH}" height="{height}" alt="{alternative}" src="data:image/png;base64,{data}">'


def _overlay(pixels: npt.NDArray[np.float64], labels: npt.NDArray[Any]) -> None:
    for tissue in segments_of("tissue"):
        mask = labels == tissue.label
        pixels[mask] = (1 - _OPACITY) * pixels[mask] + _OPACITY * np.array(tissue.rgba[:3])


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    # Imported here, as it is slow and only needed in notebooks.
    from matplotlib.image import imsave

    stream = BytesIO()
    imsave(stream, pixels, format="png", metadata={"Software": None})  # type: ignore[dict-item]
    return stream.getvalue()
