"""Images, masks and a table that lists them, for a batch run of PyRadiomics."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

import numpy as np

from lungmix.atomic import atomic_file
from lungmix.export.images import check_grid, export_image, require, segments_in, slabs_of
from lungmix.store import Case

COLUMNS = ("Image", "Mask", "Label")
TABLE_FILE = "pyradiomics.csv"

# MetaImage stores any geometry exactly; PyRadiomics compares the geometry of image and mask.
_EXTENSION = ".mha"
_LUNG = "lung"

Row = tuple[str, str, int]


def write_batch(case: Case, path: Path, image: str) -> list[Path]:
    """Write the images of one case, and the table `path` that lists them; return the table and the images."""
    rows = write_images(case, path.parent, image)
    write_table(path, rows)
    return [path, *(path.parent / name for name in files_of(rows))]


def write_images(case: Case, folder: Path, image: str) -> list[Row]:
    """Write the CT, the lung mask and a label map, and return the rows of the table.

    Parameters
    ----------
    case : Case
        Labelled case.
    folder : Path
        Folder of the table and of the images.
    image : {"lung", "side", "lobe", "tissue", "tissue_median", "tissue_potts", "zone"}
        Label map to write besides the lung mask.

    Returns
    -------
    list of (str, str, int)
        File of the image, file of the mask and label: for the lung, and for each label with voxels. PyRadiomics rejects
        labels without voxels.
    """
    segments_in(image)
    check_grid(image)
    names = {}
    hu = case.measured_image
    for name in dict.fromkeys((hu, _LUNG, image)):
        require(case, name)
    for name in dict.fromkeys((hu, _LUNG, image)):
        names[name] = export_image(case, folder / f"{case.name}_{name}{_EXTENSION}", name).name
    return [
        (names[hu], names[mask], segment.label)
        for mask in dict.fromkeys((_LUNG, image))
        for present in [_labels_in(case, mask)]
        for segment in segments_in(mask)
        if segment.label in present
    ]


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as the CSV of a batch run."""
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    with atomic_file(path) as out:
        out.write(stream.getvalue().encode())


def files_of(rows: Iterable[Row]) -> list[str]:
    """Return the file names of the images and masks in rows, without duplicates."""
    return list(dict.fromkeys(name for image, mask, _ in rows for name in (image, mask)))


def _labels_in(case: Case, image: str) -> set[int]:
    counts = np.zeros(256, np.int64)
    for slab in slabs_of(case, image):
        counts += np.bincount(slab.ravel(), minlength=256)
    return set(np.flatnonzero(counts).tolist())
