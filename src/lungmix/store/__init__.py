"""The cohort on disk: cases, OME-Zarr metadata, slabs and chunks, the records of stages."""

from lungmix.store.case import IMAGES, Case
from lungmix.store.chunking import Layout, check_slices, layout_of
from lungmix.store.cohort import CaseRef, Cohort, open_cohort
from lungmix.store.integrity import invalidate_corrupt_stages, invalidate_stage, stage_of
from lungmix.store.schema import FIT_FILES, MEASUREMENTS_FILE, MODEL_FILE, RADIOMICS_FILE, parquet_name
from lungmix.store.stage_records import STAGES

__all__ = [
    "FIT_FILES",
    "IMAGES",
    "MEASUREMENTS_FILE",
    "MODEL_FILE",
    "RADIOMICS_FILE",
    "STAGES",
    "Case",
    "CaseRef",
    "Cohort",
    "Layout",
    "check_slices",
    "invalidate_corrupt_stages",
    "invalidate_stage",
    "layout_of",
    "open_cohort",
    "parquet_name",
    "stage_of",
]
