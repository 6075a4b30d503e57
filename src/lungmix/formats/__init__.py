"""Readers of scans (DICOM, NRRD, NIfTI, MetaImage; in folders, archives and lists), and the writer of image files."""

from lungmix.formats.scan import RejectedSource, Scan, SkippedSource
from lungmix.formats.series_filter import SeriesFilter
from lungmix.formats.sources import find_scans
from lungmix.formats.write import write_image

__all__ = ["RejectedSource", "Scan", "SeriesFilter", "SkippedSource", "find_scans", "write_image"]
