"""Data files of registered scans, one per later scan: change map and displacements, for the page of the patient.

The change map has the voxels of the preview of the first scan. Displacements are thinned out and rounded, which is
precise enough to move a cross-hair.
"""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.geometry import Geometry
from lungmix.stages.change import IMAGE, is_valid
from lungmix.store import Case, CaseFiles
from lungmix.store.schema import CHANGE, REGISTER
from lungmix.webpage.files import publish
from lungmix.webpage.scans import OPENING, SPREAD, columns_of_sheet, sheet_of
from lungmix.webpage.volume import axes_of, labels_on_preview

FOLDER = "changes"
FIELD_MM = 12.0
"""Largest distance of displacements in a data file, unless they are stored at larger distances."""
STEP_MM = 0.1
"""Displacements are rounded to multiples of this length."""

_LARGEST = np.iinfo(np.int16).max


def stamp_of(first: Case, later: Case) -> str | None:
    """Return the stamp of the data file of a later scan, by which browsers cache it; None without a change map."""
    return str(later.stages[CHANGE]["key"])[:12] if is_valid(first, later) else None


def write_change(first: Case, later: Case, folder: Path) -> None:
    """Write the data file ``changes/CASE.js`` of a later scan with a change map.

    Parameters
    ----------
    first, later : Case
        First and later scan of a patient.
    folder : Path
        Folder of the report.
    """
    change = labels_on_preview(first, later, IMAGE)
    payload = {
        "folder": FOLDER,
        "case": later.name,
        "first": first.name,
        "change": {
            "shape": list(change.shape),
            "columns": columns_of_sheet(change.shape),
            "spread": SPREAD,
            "labels": sheet_of(change * np.uint8(SPREAD), lossless=True, quality=40, method=2),
        },
        "affines": [affine_of(case).ravel().tolist() for case in (first, later)],
        "field": _field_of(later),
    }
    text = json.dumps(payload, allow_nan=False, separators=(",", ":"))
    publish(folder / FOLDER / f"{later.name}.js", f"{OPENING}{text});\n".encode())


def affine_of(case: Case) -> npt.NDArray[np.float64]:
    """Return the positions of the voxels of the preview of a case.

    Returns
    -------
    ndarray of float64, shape (3, 4)
        Three columns that map an index (z, y, x) of the preview to x, y, z in mm and LPS, and the position of voxel 0.
    """
    geometry = case.geometry
    columns = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    affine = np.zeros((3, 4))
    affine[:, 3] = geometry.origin
    for index, axis in enumerate(axes_of(case)):
        column = columns[:, "xyz".index(axis.name)]
        affine[:, index] = column * axis.step
        affine[:, 3] += column * axis.first
    return affine


def _field_of(later: Case) -> dict[str, Any]:
    """Return the displacements from the first scan to a later one, at most `FIELD_MM` apart where possible."""
    grid = Geometry.from_dict(later.stages[REGISTER]["field"])
    steps = [max(1, int(FIELD_MM / spacing)) for spacing in grid.spacing_zyx]
    thinned = CaseFiles(later).read_displacement()[tuple(slice(None, None, step) for step in steps)]
    values = np.rint(thinned / STEP_MM).clip(-_LARGEST, _LARGEST).astype("<i2")
    return {
        "shape": list(values.shape[:3]),
        "origin": list(grid.origin),
        "spacing": [spacing * step for spacing, step in zip(grid.spacing, steps[::-1], strict=True)],
        "direction": list(grid.direction),
        "step": STEP_MM,
        "values": b64encode(values.tobytes()).decode(),
    }
