"""What lies in a store beside its cases."""

from __future__ import annotations

from lungmix.parameters import FITS

LOCK_FILE = "lock.json"
REGISTER_FILE = "names.json"
MODEL_FILE = "model.json"
FIT_FILES = {name: f"model-{name}.json" for name in FITS}
"""Both fits by their names. They lie beside the cases under names that no folder or scan is likely to have."""

MEASUREMENTS_FILE = "measurements.csv"
RADIOMICS_FILE = "radiomics.csv"


def parquet_name(file: str) -> str:
    """Name of the Parquet file beside a table."""
    return file.removesuffix(".csv") + ".parquet"


FILES = {
    "zarr.json", LOCK_FILE, REGISTER_FILE, MODEL_FILE, *FIT_FILES.values(),
    *(name for file in (MEASUREMENTS_FILE, RADIOMICS_FILE) for name in (file, parquet_name(file))),
}  # fmt: skip
"""None of these is a case."""
