"""Anonymous DICOM series of a case. Exported segmentations refer to it, and are matched to the case by its UIDs."""

from __future__ import annotations

from lungmix.formats.dicom.write import CtSeries
from lungmix.stages import convert
from lungmix.store import Case


def derived_series(case: Case) -> CtSeries:
    """Return an anonymous series of the CT in the store.

    The UIDs of the series are derived from the case and from random digits of the store. They are the same in each
    export, and unrelated to the UIDs of the original series.
    """
    key = str(case.stages[convert.STAGE].get("voxels_sha256"))
    entropy = (case.salt, key, case.name, "ct")
    return CtSeries(case.geometry, case.acquisition, "", case.name, entropy, ("DERIVED", "SECONDARY", "AXIAL"))
