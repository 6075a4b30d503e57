"""The store: a cohort on disk, with its cases, their OME-Zarr images, and the records of their stages.

A stage writes objects (files of the store) and then a record, by which it is finished. The record has a receipt, size
and checksum, of each object. The packed air is a mask of the voxels of a case that are air, one bit per voxel.
"""

from lungmix.store.case import Case
from lungmix.store.case_files import CaseFiles
from lungmix.store.case_ref import CaseRef
from lungmix.store.case_writer import CaseWriter
from lungmix.store.chunking import Layout, check_slices, layout_of
from lungmix.store.cohort import Cohort, open_cohort
from lungmix.store.cohort_writer import CohortWriter
from lungmix.store.integrity import invalidate_corrupt_stages, invalidate_stage
from lungmix.store.schema import (
    FIT_FILES,
    IMAGES,
    MEASUREMENTS_FILE,
    MODEL_FILE,
    QUALITY_FILE,
    RADIOMICS_FILE,
    STAGES,
    ZONES_FILE,
    parquet_name,
    stage_of,
)

__all__ = [
    "FIT_FILES",
    "IMAGES",
    "MEASUREMENTS_FILE",
    "MODEL_FILE",
    "QUALITY_FILE",
    "RADIOMICS_FILE",
    "STAGES",
    "ZONES_FILE",
    "Case",
    "CaseFiles",
    "CaseRef",
    "CaseWriter",
    "Cohort",
    "CohortWriter",
    "Layout",
    "check_slices",
    "invalidate_corrupt_stages",
    "invalidate_stage",
    "layout_of",
    "open_cohort",
    "parquet_name",
    "stage_of",
]
