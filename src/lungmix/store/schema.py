"""Names of the files in a store that are not cases."""

from __future__ import annotations

from lungmix.parameters import FITS

LOCK_FILE = "lock.json"
REGISTER_FILE = "names.json"
MODEL_FILE = "model.json"
FIT_FILES = {name: f"model-{name}.json" for name in FITS}
"""Files of both fits by fit name. Their names are unlikely as names of a folder or scan."""

MEASUREMENTS_FILE = "measurements.csv"
RADIOMICS_FILE = "radiomics.csv"


def parquet_name(file: str) -> str:
    """Return the name of the Parquet twin of a CSV table."""
    return file.removesuffix(".csv") + ".parquet"


FILES = {
    "zarr.json", LOCK_FILE, REGISTER_FILE, MODEL_FILE, *FIT_FILES.values(),
    *(name for file in (MEASUREMENTS_FILE, RADIOMICS_FILE) for name in (file, parquet_name(file))),
}  # fmt: skip
"""Names that no case can have."""
