"""Files by which other programs open a data set: MONAI, PyRadiomics, 3D Slicer and ITK-SNAP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lungmix.export.itksnap import label_descriptions
from lungmix.export.pyradiomics import COLUMNS as BATCH_COLUMNS
from lungmix.export.slicer import color_table
from lungmix.publish.about import LICENSES, About, citation_of
from lungmix.publish.folder import BATCH_FILE, DATALIST_FILE, ITKSNAP_FILE, SLICER_FILE, ImageFile, path_of
from lungmix.publish.tables import Row, csv_text
from lungmix.store.schema import HARMONISED
from lungmix.tissue import LUNG, TISSUES

OPENING_COLUMNS = {BATCH_FILE: list(BATCH_COLUMNS), SLICER_FILE: color_table(()).strip().split(",")}
"""Columns of the tables among these files."""

_SIDES = {"train": "training", "test": "test"}


def opening_texts(
    about: About, description: str, day: str, images: Sequence[ImageFile], cases: Sequence[Row]
) -> dict[str, str]:
    """Return the texts of these files by file.

    Parameters
    ----------
    about : About
        Statements of the publisher.
    description : str
        Sentences about the data set.
    day : str
        Date of the publication, as ``2026-01-31``.
    images : sequence of ImageFile
        Images of the data set.
    cases : sequence of dict
        Rows of the table of cases.
    """
    return {
        DATALIST_FILE: datalist_text(about, description, day, images, cases),
        BATCH_FILE: csv_text(batch_rows(images, cases), BATCH_COLUMNS),
        SLICER_FILE: color_table(TISSUES),
        ITKSNAP_FILE: label_descriptions(TISSUES),
    }


def datalist_text(about: About, description: str, day: str, images: Sequence[ImageFile], cases: Sequence[Row]) -> str:
    """Return a data list in the JSON of the Medical Segmentation Decathlon, which MONAI reads.

    Each item has the paths of image and label, and of the lung mask, case, patient and score. Scans of the side
    ``test`` are in the list ``test``, all others in ``training``. MONAI cannot read an empty list ``test``, so that it
    is left out.
    """
    scans = _scans(images)
    lists: dict[str, list[dict[str, Any]]] = {"training": [], "test": []}
    for row in cases:
        name = str(row["case"])
        item = {
            "image": scans[name], "label": path_of(name, "tissue"), "lung": path_of(name, "lung"), "case": name,
            "patient": row["patient"], **({} if row["score"] == "" else {"score": row["score"]}),
        }  # fmt: skip
        lists[_SIDES.get(str(row.get("split", "")), "training")].append(item)
    document = {
        "name": about.title,
        "description": description,
        "reference": citation_of(about, int(day[:4])),
        "licence": LICENSES[about.license][0] if about.license in LICENSES else about.license,
        "release": f"{about.version} {day}",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "Background"} | {str(tissue.label): tissue.name for tissue in TISSUES},
        "numTraining": len(lists["training"]),
        "numTest": len(lists["test"]),
        "training": lists["training"],
        **({"test": lists["test"]} if lists["test"] else {}),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def batch_rows(images: Sequence[ImageFile], cases: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows of the table for a batch run of PyRadiomics: paths of image and mask, and a label.

    There is a row for the lung and for each tissue with voxels, as PyRadiomics rejects labels without any. Of a case
    that was not measured, there is the row for the lung alone.
    """
    scans = _scans(images)
    rows = []
    for row in cases:
        name = str(row["case"])
        masks = [("lung", LUNG)] if row.get("lung_ml", "") != 0 else []
        masks += [("tissue", tissue) for tissue in TISSUES if _has_voxels(row, f"{tissue.key}_ml")]
        rows += [
            dict(zip(BATCH_COLUMNS, (scans[name], path_of(name, mask), segment.label), strict=True))
            for mask, segment in masks
        ]
    return rows


def _scans(images: Sequence[ImageFile]) -> dict[str, str]:
    """Return the path of the HU of which labels were made, by case: those after harmonisation, or the CT."""
    ordered = sorted(images, key=lambda image: image.image == HARMONISED)
    return {
        image.case: image.path
        for image in ordered
        if image.image in ("ct", HARMONISED) and image.path == path_of(image.case, image.image)
    }


def _has_voxels(row: Mapping[str, Any], column: str) -> bool:
    value = row.get(column, "")
    return value != "" and value > 0
