"""DICOM series for tests: written, changed and read again."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import generate_uid

from lungmix.formats import RejectedSource, Scan, SeriesFilter, SkippedSource, find_scans
from lungmix.formats.dicom.write import CtSeries
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition

SHAPE = (8, 20, 24)
SPACING = (0.75, 0.5, 1.25)
ORIGIN = (-10.5, 3.25, -100.0)


def hu_of(shape=SHAPE, seed=0):
    """Return HU of steps with noise, over the whole range of CT."""
    random = np.random.default_rng(seed)
    return (
        (random.normal(0, 200, shape) + random.integers(-1000, 1500, (shape[0], 1, 1))).clip(-1024, 3071).astype("i2")
    )


def write_series(folder, hu=None, seed=0, spacing=SPACING, origin=ORIGIN, direction=None, intercept=-1024, **tags):
    """Write a series with one file per slice, ``00001.dcm`` and so on, and return the files in the order of z.

    `tags` are written to every header. A tag may be a function of the number of the slice, counted from 0.
    """
    hu = hu_of(seed=seed) if hu is None else hu
    nz, ny, nx = hu.shape
    geometry = Geometry((nx, ny, nz), spacing, origin, direction or (1, 0, 0, 0, 1, 0, 0, 0, 1))
    place = (geometry, seed, intercept)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index, plane in enumerate(hu):
        values = {name: value(index) if callable(value) else value for name, value in tags.items()}
        file = folder / f"{index + 1:05d}.dcm"
        file.write_bytes(_content(place, index, plane, values))
        files.append(file)
    return files


_WRITTEN = {}
"""Cache of file contents: many tests write the same slices, and pydicom takes milliseconds for each."""


def _content(place, index, plane, values):
    """Return the bytes of a slice with these values in its header; None removes an attribute."""
    key = (place, index, plane.dtype.str, plane.shape, plane.tobytes(), repr(values))
    if key not in _WRITTEN:
        if len(_WRITTEN) >= 5000:
            _WRITTEN.clear()
        _WRITTEN[key] = _encoded(place, index, plane, values)
    return _WRITTEN[key]


def _encoded(place, index, plane, values):
    geometry, seed, intercept = place
    acquisition = Acquisition("CT", "SIEMENS", "Sensation 10", "B40f", 120.0, geometry.spacing[2])
    series = CtSeries(geometry, acquisition, "Series^Test", "P1", (str(seed), "series"), intercept=intercept)
    dataset = series.slice(index, plane)
    for name, value in values.items():
        if value is None:
            if name in dataset:
                del dataset[name]
        else:
            setattr(dataset, name, value)
    if "SOPInstanceUID" in values:
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def change(file, to=None, **tags):
    """Change the header of a file, or write a changed copy; None removes an attribute."""
    dataset = pydicom.dcmread(file)
    for name, value in tags.items():
        if value is None:
            if name in dataset:
                del dataset[name]
        else:
            setattr(dataset, name, value)
    if "SOPClassUID" in tags:
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    if "SOPInstanceUID" in tags:
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    target = Path(to or file)
    target.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(target)
    return target


def copy(file, to, **tags):
    """Write a copy of a file with another SOPInstanceUID."""
    return change(file, to, SOPInstanceUID=generate_uid(), **tags)


def scans(items):
    return [item for item in items if isinstance(item, Scan)]


def skipped(items):
    return [item for item in items if isinstance(item, SkippedSource)]


def refused(items):
    return [item for item in items if isinstance(item, RejectedSource)]


def only_scan(source, rules=None):
    """Return the only scan of a source, and check that no other item was rejected."""
    items = find_scans(source, rules or SeriesFilter())
    assert not refused(items), items
    (scan,) = scans(items)
    return scan


def read(scan, thickness=3):
    """Return all voxels of a scan."""
    slabs = list(scan.slabs(thickness))
    assert all(len(slab) == thickness for slab in slabs[:-1])
    return np.concatenate(slabs)


def by_simpleitk(folder):
    """Return the series of a folder as SimpleITK reads it."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()
