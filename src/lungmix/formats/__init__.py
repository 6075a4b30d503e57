"""Bytes to volume and back: DICOM, NRRD, NIfTI, MetaImage, archives and lists of them."""

from lungmix.formats.scan import RejectedSource, Scan, SkippedSource
from lungmix.formats.series_filter import SeriesFilter
from lungmix.formats.sources import find_scans
from lungmix.formats.write import write_image

__all__ = ["RejectedSource", "Scan", "SeriesFilter", "SkippedSource", "find_scans", "write_image"]
