"""Schema of a store: stages, arrays and files, with their names, paths, data types and dependencies.

Other modules import these names. Bytes in existing stores depend on the tables: an entry may be added, but must not be
changed without a new format version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from lungmix.kernels.histogram import FIRST_HU
from lungmix.kernels.reduction import N_LEVELS
from lungmix.parameters import FITS
from lungmix.tissue import DENSE, LOBES, LUNG_ZONES, SIDES

CONVERT, HARMONISE, MASK, SIDE, LABEL, ZONE, REGISTER, CHANGE = STAGES = (
    "convert", "harmonise", "mask", "side", "label", "zone", "register", "change"
)  # fmt: skip
"""Stages of a case in their order. Only later scans of a patient have the last two."""

DEPENDENTS = {
    CONVERT: (HARMONISE, MASK, SIDE, LABEL, ZONE, REGISTER, CHANGE),
    HARMONISE: (MASK, SIDE, LABEL, ZONE, REGISTER, CHANGE),
    MASK: (SIDE, LABEL, ZONE, REGISTER, CHANGE),
    SIDE: (ZONE,),
    LABEL: (CHANGE,),
    ZONE: (),
    REGISTER: (CHANGE,),
    CHANGE: (),
}
"""For each stage, the stages of the same case that become invalid when its result changes."""

_DISPLAY_NAMES = {SIDE: "right/left", ZONE: "zones", REGISTER: "registration", CHANGE: "change map"}

FIT, FITS_RECORD, MASK_SETTING, QUALITY_SETTING = "fit", "fits", "mask", "quality"
"""Names of settings of a cohort: record of the model, record of the fits, mask parameters of the last run, and
thresholds of quality control."""

FIT_OF_TISSUES = "fit_of_tissues"
"""Setting of a cohort: name of the fit that was the last one with as many components as tissues. It is recorded when
the mixture gets another number of components."""

FIT_SETTING = "fit_parameters"
"""Setting of a cohort: fit parameters of the last run or fit, recorded before it creates a case or fits. Stores of
earlier versions lack it."""

SMOOTH_SETTING = "smooth"
"""Setting of a cohort: parameters of labels under a Potts prior; None or absent where there are none."""

ZONES_SETTING = "zones"
"""Setting of a cohort: rule of the lung zones, such as ``volume``; None or absent where there are none."""

PATIENTS_SETTING = "patients"
"""Setting of a cohort: the cases of each patient with several scans, and days since the first; None or absent where it
is not known which scans are of one patient."""

REGISTER_SETTING = "register"
"""Setting of a cohort: kind of the registration of later scans, ``affine`` or ``deformable``; None or absent where
scans are not registered."""

HARMONISE_SETTING = "harmonise"
"""Setting of a cohort: parameters of the harmonised images; None or absent where there are none."""

POTTS_RECORD = "potts"
"""Record key of labels under a Potts prior: its beta, whether it was estimated, the iterations and the weights."""

GIVEN_MASKS = "given_masks"
"""Name of the setting of a cohort that lists the cases whose masks came from files."""

FROM_FILE = "from_file"
"""Key, in the record of a mask that came from a file, of the digest of the file and what was taken from it."""

HARMONISED = "harmonised"
"""Name of the image with harmonised HU, which a run makes on request. Masks, labels and measurements are of its HU."""

PACKED = "air"
"""Name of the packed air: packed mask (one bit per voxel) of the voxels below a threshold. It has a record of its own,
because several stages use it. The stage convert writes it with the usual threshold; the stage mask writes it again if
its threshold differs."""

OPENED = "opened"
"""Name of the packed mask after the opening; the array exists only while a mask is computed."""

IMPORTED, REFERENCE = "imported", "reference"
"""Names of label maps that exist only during a command: a mask file on its own grid, and a reference on the grid of the
scan."""

SEGMENTED = "segmented"
"""Name of the labels that a segmenter returned for axial slices; the array exists only while a mask is made."""

FILTERED = "filtered"
"""Name of the filtered axial slices of a scan that is not stored in axial slices; the array exists only while its
harmonised image is made."""

DISPLACEMENT = "displacement"
"""Name of the field of a registration: for each voxel of a coarse grid in the space of the first scan, the vector to
the same point of the lungs in this scan."""

TEMPORARY = (OPENED, IMPORTED, REFERENCE, SEGMENTED, FILTERED)
"""Names of arrays that exist only during a command; if it is killed, the next command deletes them."""


@dataclass(frozen=True)
class ArraySchema:
    """Array of a case.

    Attributes
    ----------
    name : str
        Name of the array.
    kind : {"image", "labels", "registered", "field", "packed", "histogram", "temporary"}
        Images and labels have `N_LEVELS` resolutions, and so have registered labels: a label map on the grid of the
        first scan of the patient, which is not that of the case.
    path : str
        Path in the case; the levels of images and labels are folders in it.
    stage : str or None
        Stage whose record lists the objects of the array, or `PACKED`; None for an array without record.
    dtype : str
        Data type.
    attributes : dict
        Attributes of the array.
    """

    name: str
    kind: Literal["image", "labels", "registered", "field", "packed", "histogram", "temporary"]
    path: str
    stage: str | None
    dtype: str
    attributes: dict[str, Any] = field(default_factory=dict)

    def level(self, index: int) -> str:
        """Return the path of a resolution level of an image or label map."""
        return f"{self.path}/{index}".lstrip("/")


_PACKING = {"packing": "bit k of word w of a row is voxel x = 64 w + k"}
_DISPLACEMENT = {"unit": "millimeter", "axes": ["z", "y", "x", "component"], "components": ["L", "P", "S"]}
_HISTOGRAM = {"first_hu": FIRST_HU, "unit": "voxels"}

ARRAYS = {
    array.name: array
    for array in (
        ArraySchema("ct", "image", "", CONVERT, "int16"),
        ArraySchema(HARMONISED, "image", HARMONISED, HARMONISE, "int16"),
        ArraySchema("lung", "labels", "labels/lung", MASK, "uint8"),
        ArraySchema("side", "labels", "labels/side", SIDE, "uint8"),
        ArraySchema("region", "labels", "labels/region", MASK, "uint8"),
        ArraySchema("lobe", "labels", "labels/lobe", MASK, "uint8"),
        ArraySchema("tissue", "labels", "labels/tissue", LABEL, "uint8"),
        ArraySchema("tissue_median", "labels", "labels/tissue_median", LABEL, "uint8"),
        ArraySchema("tissue_potts", "labels", "labels/tissue_potts", LABEL, "uint8"),
        ArraySchema("zone", "labels", "labels/zone", ZONE, "uint8"),
        ArraySchema("hu_counts", "histogram", "hu_counts", MASK, "uint64", _HISTOGRAM),
        ArraySchema(
            "side_counts", "histogram", "side_counts", SIDE, "uint64",
            {**_HISTOGRAM, "rows": [side.key for side in SIDES]},
        ),
        ArraySchema(
            "region_counts", "histogram", "region_counts", MASK, "uint64",
            {**_HISTOGRAM, "rows": [part.key for part in DENSE]},
        ),
        ArraySchema(
            "lobe_counts", "histogram", "lobe_counts", MASK, "uint64",
            {**_HISTOGRAM, "rows": [lobe.key for lobe in LOBES]},
        ),
        ArraySchema(
            "zone_counts", "histogram", "zone_counts", ZONE, "uint64",
            {**_HISTOGRAM, "rows": [zone.key for zone in LUNG_ZONES]},
        ),
        ArraySchema(DISPLACEMENT, "field", DISPLACEMENT, REGISTER, "float32", _DISPLACEMENT),
        ArraySchema("registered_tissue", "registered", "registered_tissue", CHANGE, "uint8"),
        ArraySchema("change", "registered", "change", CHANGE, "uint8"),
        ArraySchema(PACKED, "packed", PACKED, PACKED, "uint64", _PACKING),
        ArraySchema(OPENED, "packed", OPENED, None, "uint64", _PACKING),
        ArraySchema(IMPORTED, "temporary", IMPORTED, None, "uint8"),
        ArraySchema(REFERENCE, "temporary", REFERENCE, None, "uint8"),
        ArraySchema(SEGMENTED, "temporary", SEGMENTED, None, "uint8"),
        ArraySchema(FILTERED, "temporary", FILTERED, None, "int16"),
    )
}  # fmt: skip
"""Arrays of a case by name. All have the fill value 0."""

FILL_VALUE = 0

ONLY_SOME_MASKS = ("region", "region_counts", "lobe", "lobe_counts")
"""Arrays that exist only for masks that distinguish dense from aerated lung, as with the preset ``anatomical``, or
lobes, as masks from files can. They are deleted when a new mask is begun."""

ONLY_SOME_LABELS = ("tissue_potts",)
"""Arrays of labels under a Potts prior, which a run makes on request; new labels begin without them."""

BEGIN_WITHOUT = {"lung": ONLY_SOME_MASKS, "tissue": ONLY_SOME_LABELS}
"""By image, the arrays that are deleted once the image is created."""

LABEL_MAPS = tuple(array.name for array in ARRAYS.values() if array.kind == "labels")
REGISTERED_MAPS = tuple(array.name for array in ARRAYS.values() if array.kind == "registered")
IMAGES = ("ct", HARMONISED, *LABEL_MAPS, *REGISTERED_MAPS)
LABELS_FILE = "labels/zarr.json"
"""Metadata file that lists the label maps; it belongs to no stage."""

_STAGE_BY_PATH = {array.path: array.stage for array in ARRAYS.values() if array.path} | {
    ARRAYS["ct"].level(index): CONVERT for index in range(N_LEVELS)
}

LOCK_FILE = "lock.json"
REGISTER_FILE = "names.json"
MODEL_FILE = "model.json"
FIT_FILES = {name: f"model-{name}.json" for name in FITS}
"""File of each fit, by the name of the fit. No case can have these names, which scans and folders rarely have."""

MEASUREMENTS_FILE = "measurements.csv"
RADIOMICS_FILE = "radiomics.csv"
QUALITY_FILE = "qc.csv"
ZONES_FILE = "zones.csv"
TABLES = (MEASUREMENTS_FILE, RADIOMICS_FILE, QUALITY_FILE, ZONES_FILE)
"""Tables with rows of labelled cases; they can be recomputed from the histograms in the store."""

EVALUATION_FILE, EVALUATION_HU_FILE = EVALUATIONS = ("evaluation.csv", "evaluation_hu.csv")
"""Tables of comparisons with references; they cannot be recomputed, as the store does not contain the references."""

EVALUATION_SLICES_FILE = "evaluation_slices.json"
"""File with those slices of references that differ most from the store, for pictures."""

FOLLOWUP_FILE = "followup.csv"
"""Table of the scans of patients with several scans; a store has it only if it records its patients."""

CASE_TABLES = (*TABLES, *EVALUATIONS, FOLLOWUP_FILE)
"""Tables with rows of cases; rows of a case are removed when its mask or labels change."""


def stage_of(key: str) -> str | None:
    """Return the stage that writes the object or array at a key; ``air`` for the packed air, None if unknown."""
    parts = key.strip("/").split("/")
    return _STAGE_BY_PATH.get("/".join(parts[: 2 if parts[0] == "labels" else 1]))


def stages_text(stages: Iterable[str]) -> str:
    """Return a list of stages for display."""
    return ", ".join(_DISPLAY_NAMES.get(stage, stage) for stage in stages) or "nothing yet"


def parquet_name(file: str) -> str:
    """Return the name of the Parquet file with the same table as a CSV file."""
    return file.removesuffix(".csv") + ".parquet"


FILES = {
    "zarr.json", LOCK_FILE, REGISTER_FILE, MODEL_FILE, *FIT_FILES.values(), EVALUATION_SLICES_FILE,
    *(name for file in CASE_TABLES for name in (file, parquet_name(file))),
}  # fmt: skip
"""Names that no case can have."""

CASE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,126}[a-z0-9])?")
"""Pattern of the names that cases can have."""
