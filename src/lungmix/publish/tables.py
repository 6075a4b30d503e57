"""Tables of a data set: its cases with all their numbers, its images, and the dictionary of the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lungmix.kernels.data_dictionary import DENSE_COLUMNS, HARMONISED_COLUMNS, MEASUREMENTS, ZONES, Column
from lungmix.publish.by_others import MODELS_COLUMNS, StoredLabels
from lungmix.publish.folder import (
    BATCH_FILE,
    CASES_FILE,
    FILES_FILE,
    LABELS_FILE,
    MODELS_FILE,
    SLICER_FILE,
    SPLIT_FILE,
    TABLE_1_FILE,
    ZONES_FILE,
    ImageFile,
)
from lungmix.publish.split import CASE_COLUMN, SPLIT_COLUMNS
from lungmix.stages.flags import doubts_of
from lungmix.store.choices import last_quality
from lungmix.store.patients import patients_of

_ATTRIBUTES = (
    Column("manufacturer", "", "manufacturer of the scanner"),
    Column("scanner_model", "", "model of the scanner"),
    Column("kernel", "", "reconstruction kernel"),
    Column("kvp", "kV", "tube voltage"),
    Column("slice_thickness", "mm", "nominal slice thickness"),
    Column("exposure", "mAs", "exposure"),
    Column("tube_current", "mA", "tube current"),
    Column("exposure_time", "ms", "exposure time"),
    Column("pitch", "", "pitch of the spiral"),
    Column("ctdi_vol", "mGy", "volume CT dose index"),
    Column("sex", "", "sex of the patient, F, M or O, if the store keeps it"),
    Column("age", "a", "age of the patient, 90 for 90 and over, if the store keeps it"),
)
_GEOMETRY = (
    *(Column(f"size_{axis}", "voxels", f"number of voxels along {axis}") for axis in "xyz"),
    *(Column(f"spacing_{axis}", "mm", f"distance of voxels along {axis}") for axis in "xyz"),
)
_FIRST = (
    Column("case", "", "name of the case, as in the names of files"),
    Column("patient", "", "patients with several scans, by numbers; the name of the case for all others"),
    Column("days", "d", "days since the first scan of the patient, where they are recorded"),
)
_LAST = (
    Column("score", "", "severity as scored by a radiologist, 0 to 5, where it is given"),
    Column("flags", "", "names of the raised flags of quality control, separated by spaces"),
)
FILES_COLUMNS = (
    Column("case", "", "name of the case"),
    Column("image", "", "name of the image, such as ct, lung or tissue"),
    Column("format", "", "nrrd, nifti, dicom-seg or ome-zarr; the last two are folders of files"),
    Column("path", "", "file or folder in the data set"),
    Column("bytes", "B", "size of the file, or of all files of the folder"),
    Column("sha256", "", "SHA-256 sum of the file; for a folder, of the lines with the sums of its files"),
)
_OF_CASES = (*_FIRST, CASE_COLUMN, *_ATTRIBUTES, *_GEOMETRY, *MEASUREMENTS, *DENSE_COLUMNS, *HARMONISED_COLUMNS, *_LAST)
_CHANNELS = {"R": "red", "G": "green", "B": "blue", "A": "opacity"}
_PARTS_OF_CODES = {"CodingScheme": "coding scheme", "CodeValue": "code", "CodeMeaning": "meaning"}
_OF_LABELS = (
    Column("image", "", "name of the image"),
    Column("label", "", "value of a voxel; 0 is background"),
    Column("key", "", "name in columns of tables"),
    Column("name", "", "name for people"),
    Column("color", "", "colour of the label, as #rrggbb"),
)
_OF_TABLE_1 = (
    Column("characteristic", "", "characteristic of patients or scans"),
    Column("level", "", "text that is counted; missing counts those without a value"),
    Column("of", "", "what is counted or summarised: patients or scans"),
    Column("summary", "", "kind of the numbers"),
    Column("all", "", "numbers of all scans of the data set"),
)
_OF_BATCH = (
    Column("Image", "", "file with HU, in the folder"),
    Column("Mask", "", "file with the mask or the labels, in the folder"),
    Column("Label", "", "value of the voxels to measure: 1 in the lung mask, 1 to 5 for the tissues"),
)
_OF_COLORS = (
    Column("LabelValue", "", "value of a voxel"),
    Column("Name", "", "name of the tissue"),
    *(Column(f"Color_{letter}", "", f"{name}, 0 to 255") for letter, name in _CHANNELS.items()),
    *(
        Column(f"{group}_{part}", "", f"{text} of the {group.lower()} of the tissue")
        for group in ("Category", "Type", "Region")
        for part, text in _PARTS_OF_CODES.items()
    ),
)
DESCRIBED = (*_OF_CASES, *FILES_COLUMNS, *ZONES, *_OF_LABELS, *_OF_TABLE_1, *_OF_BATCH, *_OF_COLORS)
"""Columns of all tables."""

Row = dict[str, Any]


def case_rows(labels: StoredLabels, names: Sequence[str], scores: Mapping[str, int]) -> list[Row]:
    """Return a row per case: patient, technical attributes, geometry, measurements, score and flags.

    Empty cells are values that are not known. Dates and identifiers of a store are left out.
    """
    cohort, measured = labels.cohort, labels.measurements(names)
    columns = list(dict.fromkeys(key for name in names for key in measured.get(name, {}) if key != "case"))
    scans = {
        scan.case: (patient, scan.days) for patient, of in patients_of(cohort, need_first=False).items() for scan in of
    }
    thresholds = last_quality(cohort)
    rows = []
    for name in names:
        case = labels.case(name)
        attributes = case.acquisition.to_dict()
        attributes["scanner_model"] = attributes.pop("model", None)
        patient, days = scans.get(name, (name, None))
        values = measured.get(name)
        _, flags = doubts_of(case, thresholds, values)
        geometry = zip("xyz", case.geometry.size, case.geometry.spacing, strict=True)
        of_geometry = {
            key: value
            for axis, size, mm in geometry
            for key, value in ((f"size_{axis}", size), (f"spacing_{axis}", mm))
        }
        row: Row = {"case": name, "patient": patient, "days": days}
        row |= {column.key: attributes.get(column.key) for column in _ATTRIBUTES}
        row |= {column.key: of_geometry[column.key] for column in _GEOMETRY}
        row |= {key: None if values is None else values.get(key) for key in columns}
        row |= {"score": scores.get(name), "flags": " ".join(flag.name for flag in flags)}
        rows.append({key: "" if value is None or value != value else value for key, value in row.items()})
    return rows


def file_rows(images: Iterable[ImageFile]) -> list[Row]:
    """Return a row per image: case, image, format, path, size and sum."""
    return [
        {
            "case": image.case, "image": image.image, "format": image.format, "path": image.path, "bytes": image.size,
            "sha256": image.sha256,
        }
        for image in images
    ]  # fmt: skip


def dictionary_rows(tables: Mapping[str, Sequence[str]]) -> list[Row]:
    """Return a row per column of the tables: file, column, unit and meaning.

    Parameters
    ----------
    tables : mapping of str to sequence of str
        Columns of each table by its file.
    """
    described = {
        CASES_FILE: _OF_CASES, FILES_FILE: FILES_COLUMNS, ZONES_FILE: ZONES, LABELS_FILE: _OF_LABELS,
        BATCH_FILE: _OF_BATCH, SLICER_FILE: _OF_COLORS, TABLE_1_FILE: _OF_TABLE_1, SPLIT_FILE: SPLIT_COLUMNS,
        MODELS_FILE: MODELS_COLUMNS,
    }  # fmt: skip
    rows = []
    for file, columns in tables.items():
        column_of = {column.key: column for column in described[file]}
        for key in columns:
            column = column_of.get(key, Column(key, "", ""))
            rows.append({"file": file, "column": key, "unit": column.unit, "meaning": column.meaning})
    return rows


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Return rows of equal keys as CSV with a header; `columns` is the header of no rows."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
