"""Anonymous DICOM series of a case, to which exported segmentations refer, and by which they are matched again."""

from __future__ import annotations

from lungmix.formats.dicom.write import CtSeries
from lungmix.stages import convert
from lungmix.store import Case


def derived_series(case: Case) -> CtSeries:
    """Return an anonymous series of the CT in the store.

    Its identifiers are derived from the case and from random digits of the store: they are the same in each export and
    unrelated to the original ones.
    """
    key = str(case.stages[convert.STAGE].get("voxels_sha256"))
    entropy = (case.salt, key, case.name, "ct")
    return CtSeries(case.geometry, case.acquisition, "", case.name, entropy, ("DERIVED", "SECONDARY", "AXIAL"))
