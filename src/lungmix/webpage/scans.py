"""One file a scan for the viewer of the page: the reduced volume, its histogram and the mixture, as a script.

Browsers refuse pages from disk to fetch files, and hide the pixels of images that lie beside the page. A script may be
loaded, and what it carries may be read; so the sheets of slices travel in it as text.
"""

from __future__ import annotations

import json
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lungmix.kernels.histogram import FIRST_HU
from lungmix.mixture import TissueModel
from lungmix.store import Case
from lungmix.webpage.files import publish
from lungmix.webpage.volume import CLASSES, LOWEST_HU, STEP_HU, Preview, preview_of

FOLDER = "data"
OPENING = "lungmix.deliver("
"""How every file begins; nothing else is ever taken for one of ours."""

_QUALITY = 75
# Labels survive a browser that bends its colours a little.
_SPREAD = 7
_BIN = 5
_HU = (-1100, 300)


def write_scan(case: Case, model: TissueModel | None, folder: Path) -> int:
    """Write ``data/CASE.js``.

    Parameters
    ----------
    case : Case
        With labels.
    model : TissueModel or None
        The mixture of its labels.
    folder : Path
        Of the page.

    Returns
    -------
    int
        Bytes written.
    """
    content = script_of(case, model)
    publish(folder / FOLDER / f"{case.name}.js", content)
    return len(content)


def remove_files_of_other_cases(folder: Path, kept: set[str]) -> None:
    """Delete files of cases that the cohort no longer holds."""
    for path in (folder / FOLDER).glob("*.js"):
        if path.stem not in kept:
            with path.open("rb") as stream:
                ours = stream.read(len(OPENING)) == OPENING.encode()
            if ours:
                path.unlink()


def script_of(case: Case, model: TissueModel | None) -> bytes:
    """The file of a scan; see `write_scan`."""
    known, geometry = case.acquisition, case.geometry
    payload = {
        "case": case.name,
        "volume": _volume(preview_of(case)),
        "histogram": histogram_of(case.hu_counts, model),
        "geometry": {"size": list(geometry.size), "spacing": list(geometry.spacing)},
        "scanner": " ".join(part for part in (known.manufacturer, known.model) if part),
    }
    text = json.dumps(payload, allow_nan=False, separators=(",", ":"))
    return f"{OPENING}{text});\n".encode()


def histogram_of(counts: npt.NDArray[np.uint64], model: TissueModel | None) -> dict[str, Any]:
    """Shares of lung voxels per HU in bins, and the components of the mixture at their centres.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Voxels of each HU.
    model : TissueModel or None
        Without, there are no components.

    Returns
    -------
    dict
        ``first`` (HU where the first bin begins), ``width`` (HU), ``shares`` (per mille of all lung voxels, per HU),
        ``labels`` of the bins, ``components`` (one list each, the same unit), ``below`` and ``above`` (percent of
        voxels that lie outside).
    """
    total = max(float(counts.sum()), 1.0)
    low, high = _HU[0] - FIRST_HU, _HU[1] - FIRST_HU
    shares = 1000 * counts[low:high].reshape(-1, _BIN).sum(axis=1) / (total * _BIN)
    centres = np.arange(_HU[0], _HU[1], _BIN) + (_BIN - 1) / 2
    parts = np.empty((0, 0)) if model is None else 1000 * np.exp(model.log_densities(centres)).T
    return {
        "first": _HU[0],
        "width": _BIN,
        "shares": [round(float(v), 5) for v in shares],
        "labels": [] if model is None else model.predict(centres).tolist(),
        "components": [[round(float(v), 5) for v in part] for part in parts],
        "below": round(100 * float(counts[:low].sum()) / total, 3),
        "above": round(100 * float(counts[high:].sum()) / total, 3),
    }


def _volume(preview: Preview) -> dict[str, Any]:
    depth, height, width = preview.grey.shape
    columns = max(1, round((depth * height / width) ** 0.5))
    return {
        "shape": [depth, height, width],
        "columns": columns,
        "lowest": LOWEST_HU,
        "step": STEP_HU,
        "classes": CLASSES,
        "spread": _SPREAD,
        "axes": [
            {
                "name": axis.name, "size": axis.size, "first": axis.first, "step": axis.step,
                "spacing": axis.spacing, "ends": list(axis.ends),
            }
            for axis in preview.axes
        ],
        "grey": _sheet(preview.grey, columns, quality=_QUALITY, method=2),
        "labels": _sheet(preview.labels * np.uint8(_SPREAD), columns, lossless=True, quality=40, method=2),
    }  # fmt: skip


def _sheet(volume: npt.NDArray[np.uint8], columns: int, **options: Any) -> str:
    """Axial slices side by side in one picture, row by row, as WebP in base64."""
    depth, height, width = volume.shape
    rows = -(-depth // columns)
    tiles = np.zeros((rows * columns, height, width), np.uint8)
    tiles[:depth] = volume
    sheet = tiles.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    stream = BytesIO()
    Image.fromarray(sheet).convert("RGB").save(stream, "WEBP", **options)
    return b64encode(stream.getvalue()).decode()
