"""Export of images and labels to files of other programs."""

from lungmix.export.cohort import Exported, export_cohort, export_one, store_cohort
from lungmix.export.formats import FORMATS, Options, export_case, options_for
from lungmix.export.images import export_image

__all__ = [
    "FORMATS",
    "Exported",
    "Options",
    "export_case",
    "export_cohort",
    "export_image",
    "export_one",
    "options_for",
    "store_cohort",
]
