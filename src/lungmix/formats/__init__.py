"""Bytes to volume and back: DICOM, NRRD, NIfTI, MetaImage, archives and lists of them."""

from lungmix.formats.rules import SeriesRules
from lungmix.formats.scan import Refusal, Scan, Skipped
from lungmix.formats.sources import find_scans
from lungmix.formats.write import whole_file, write_image

__all__ = ["Refusal", "Scan", "SeriesRules", "Skipped", "find_scans", "whole_file", "write_image"]
