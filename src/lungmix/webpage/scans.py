"""Data files of the viewer, one per scan: a script with the reduced volume, its histogram and the mixture.

A page that is opened from disk may load scripts, but browsers do not let it fetch other files or read the pixels of
images. So the slices are tiled in one image, a sheet, which is embedded in the script as base64.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lungmix.kernels.histogram import FIRST_HU
from lungmix.mixture import TissueModel
from lungmix.store import Case, Cohort
from lungmix.store.schema import LABEL, POTTS_RECORD, ZONE
from lungmix.tissue import Tissue
from lungmix.webpage.files import publish
from lungmix.webpage.volume import CLASSES, LOWEST_HU, POSTERIOR_STEPS, STEP_HU, Preview, preview_of
from lungmix.webpage.zones import involvement_by_lobe, involvement_by_zone

FOLDER = "data"
OPENING = "lungmix.deliver("
"""Beginning of every data file, by which data files are recognized."""

SPREAD = 7
"""Labels are multiplied by this number. Browsers may change grey values slightly, which then does not change labels."""

_QUALITY = 75
_POSTERIOR_SPREAD = 5
_BIN = 5
_HU = (-1100, 300)


@dataclass(frozen=True)
class DataFiles:
    """Data files that pages load, and what they contain.

    Attributes
    ----------
    stamps : dict of str to str
        Stamp of the file of each case, which changes with its content, so that browsers do not show an earlier one.
    posterior : Tissue or None
        Tissue whose posteriors the files contain.
    has_potts : bool
        True if a file contains labels under a Potts prior.
    """

    stamps: dict[str, str]
    posterior: Tissue | None
    has_potts: bool


def data_files_of(cohort: Cohort, names: Sequence[str], posterior: Tissue | None) -> DataFiles:
    """Return the data files of labelled cases."""
    labels = {name: cohort[name].stages[LABEL] for name in names}
    suffix = "" if posterior is None else f"-{posterior.key}"
    stamps = {
        name: f"{str(record.get('key', ''))[:12]}{_potts_suffix(record)}{_zones_suffix(cohort[name])}{suffix}"
        for name, record in labels.items()
    }
    return DataFiles(stamps, posterior, any(POTTS_RECORD in record for record in labels.values()))


def _potts_suffix(record: Mapping[str, Any]) -> str:
    """Return an ending of the stamp that tells labels under different Potts priors apart; empty without a prior."""
    return f"-potts{record[POTTS_RECORD].get('beta')}" if POTTS_RECORD in record else ""


def _zones_suffix(case: Case) -> str:
    """Return an ending of the stamp that tells lung zones by different rules apart; empty without lung zones."""
    return f"-zones{str(case.stages[ZONE].get('key', ''))[:6]}" if ZONE in case.stages else ""


def write_scan(case: Case, model: TissueModel | None, folder: Path, posterior: str | None = None) -> int:
    """Write the data file ``data/CASE.js`` of a case.

    Parameters
    ----------
    case : Case
        Labelled case.
    model : TissueModel or None
        Mixture of the labels of the case.
    folder : Path
        Folder of the report.
    posterior : str, optional
        Tissue whose posteriors the file contains.

    Returns
    -------
    int
        Number of bytes written.
    """
    content = script_of(case, model, posterior)
    publish(folder / FOLDER / f"{case.name}.js", content)
    return len(content)


def remove_files_of_other_cases(folder: Path, kept: Collection[str]) -> None:
    """Delete data files in a folder of cases that are not in `kept`; files that are no data files stay."""
    for path in folder.glob("*.js"):
        if path.stem not in kept:
            with path.open("rb") as stream:
                is_data_file = stream.read(len(OPENING)) == OPENING.encode()
            if is_data_file:
                path.unlink()


def script_of(case: Case, model: TissueModel | None, posterior: str | None = None) -> bytes:
    """Return the content of the data file of a case, see `write_scan`."""
    geometry = case.geometry
    payload: dict[str, Any] = {
        "case": case.name,
        "volume": _volume(preview_of(case, posterior=posterior)),
        "histogram": histogram_of(case.hu_counts, model),
        "geometry": {"size": list(geometry.size), "spacing": list(geometry.spacing)},
        "scanner": case.acquisition.scanner,
    }
    if zones := involvement_by_zone(case, model):
        payload["zones"] = zones
    if lobes := involvement_by_lobe(case, model):
        payload["lobes"] = lobes
    text = json.dumps(payload, allow_nan=False, separators=(",", ":"))
    return f"{OPENING}{text});\n".encode()


def histogram_of(counts: npt.NDArray[np.uint64], model: TissueModel | None) -> dict[str, Any]:
    """Return the binned histogram of lung voxels, and the components of the mixture at the centres of the bins.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Histogram of the lung voxels.
    model : TissueModel or None
        Mixture of the labels; without a mixture, the result has no components.

    Returns
    -------
    dict
        ``first`` (lowest HU of the first bin), ``width`` (HU per bin), ``shares`` (per mille of all lung voxels per HU,
        for each bin), ``labels`` (tissue label of each bin), ``components`` (a list per component, with its values at
        the centres of bins, in the unit of ``shares``), ``below`` and ``above`` (percent of voxels outside the bins).
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
    further: dict[str, Any] = {}
    if preview.posterior is not None:
        sheet = sheet_of(preview.posterior * np.uint8(_POSTERIOR_SPREAD), lossless=True, quality=40, method=2)
        further = {"posterior": sheet, "posteriorSteps": POSTERIOR_STEPS, "posteriorSpread": _POSTERIOR_SPREAD}
    if preview.potts is not None:
        further["potts"] = sheet_of(preview.potts * np.uint8(SPREAD), lossless=True, quality=40, method=2)
    return further | {
        "shape": list(preview.grey.shape),
        "columns": columns_of_sheet(preview.grey.shape),
        "lowest": LOWEST_HU,
        "step": STEP_HU,
        "classes": CLASSES,
        "spread": SPREAD,
        "axes": [
            {
                "name": axis.name, "size": axis.size, "first": axis.first, "step": axis.step,
                "spacing": axis.spacing, "ends": list(axis.ends),
            }
            for axis in preview.axes
        ],
        "grey": sheet_of(preview.grey, quality=_QUALITY, method=2),
        "labels": sheet_of(preview.labels * np.uint8(SPREAD), lossless=True, quality=40, method=2),
    }  # fmt: skip


def columns_of_sheet(shape: tuple[int, ...]) -> int:
    """Return the number of axial slices in a row of the sheet of a volume, so that the sheet is about square."""
    depth, height, width = shape
    return max(1, round((depth * height / width) ** 0.5))


def sheet_of(volume: npt.NDArray[np.uint8], **options: Any) -> str:
    """Return one WebP image in base64, with the axial slices tiled row by row, see `columns_of_sheet`.

    Parameters
    ----------
    volume : ndarray of uint8, shape (z, y, x)
        The volume.
    **options : Any
        Options of the WebP encoder of Pillow.
    """
    (depth, height, width), columns = volume.shape, columns_of_sheet(volume.shape)
    rows = -(-depth // columns)
    tiles = np.zeros((rows * columns, height, width), np.uint8)
    tiles[:depth] = volume
    sheet = tiles.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    stream = BytesIO()
    Image.fromarray(sheet).convert("RGB").save(stream, "WEBP", **options)
    return b64encode(stream.getvalue()).decode()
