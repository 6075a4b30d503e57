"""The cohort on disk: cases, OME-Zarr metadata, the cut into slabs, the records of stages."""

from lungmix.store.case import IMAGES, Case
from lungmix.store.check import settle, stage_of, withdraw
from lungmix.store.cohort import CaseRef, Cohort, open_cohort
from lungmix.store.files import FIT_FILES, MEASUREMENTS_FILE, MODEL_FILE, RADIOMICS_FILE, parquet_name
from lungmix.store.layout import Layout, check_slices, layout_of
from lungmix.store.state import STAGES

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
    "layout_of",
    "open_cohort",
    "parquet_name",
    "settle",
    "stage_of",
    "withdraw",
]
