"""Masked phantoms with numbers of quality control, with and without a defect; need the fixture `stages_here`."""

import numpy as np

import lungmix
from lungmix.geometry import Geometry
from lungmix.kernels.plausibility import add_all, summarize
from lungmix.parameters import MaskParameters
from lungmix.phantom import Phantom
from lungmix.stages import label, mask, quality
from lungmix.stages.base import StageContext
from lungmix.stages.fit import publish
from lungmix.stages.measure import measure_cohort
from lungmix.store import QUALITY_FILE
from support.generators import case_of

MODEL = lungmix.load_model("published")
HEALTHY = (0.45, 0.55, 0.0, 0.0, 0.0)
PHANTOM = Phantom((60, 96, 90), (3.6, 3.7, 5.0), 3, weights=HEALTHY)
HU = PHANTOM.volume()
SIDES = PHANTOM.side_truth()
Z, Y, X = np.indices(HU.shape)
LEFT_X = float(X[SIDES == 2].mean())


def case_with(tmp_path, hu, geometry=None, acquisition=None, name="one"):
    """Return a masked case with numbers of quality control."""
    hu = np.ascontiguousarray(hu).astype(np.int16)
    geometry = geometry or Geometry(hu.shape[::-1], PHANTOM.spacing, PHANTOM.origin)
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = case_of(cohort, name, hu, geometry)
    if acquisition is not None:
        case.describe(acquisition)
    counts = np.zeros(65536, np.uint64)
    add_all(hu, counts)
    case.record("convert", {**case.stages["convert"], "hu": summarize(counts).to_dict()})
    context = StageContext(None, cohort)
    mask.MaskStage(MaskParameters("physical"), accept_hu=True).run(context, name)
    assert quality.QualityStage().run(context, name) == "done"
    assert quality.QualityStage().run(context, name) == "kept"
    return cohort[name]


def with_table():
    """Return the phantom above a hollow table, at the usual distance from the body."""
    hu = HU.copy()
    hu[:, 86:93, 12:78] = 40
    hu[2:-2, 87:92, 15:75] = -990
    return hu


def with_mass():
    """Return the phantom with a mass at the back wall of the left lung, between aerated lung above and below."""
    distance = ((Z - 38) * 5.0) ** 2 + ((Y - 64) * 3.7) ** 2 + ((X - LEFT_X) * 3.6) ** 2
    return np.where((distance < 32**2) & (SIDES == 2), 40, HU)


def measured_cohort(tmp_path):
    for name, hu in (("plain", HU), ("table", with_table())):
        case_with(tmp_path, hu, name=name)
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "r+")
    for name in cohort:
        label.LabelStage(MODEL).run(StageContext(None, cohort), name)
    publish(cohort, MODEL, {"given": True})
    measure_cohort(cohort, list(cohort), MODEL)
    return cohort, measure_cohort(cohort, list(cohort), MODEL, file=QUALITY_FILE)
