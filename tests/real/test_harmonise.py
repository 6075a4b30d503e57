"""Harmonised images of one acquisition that was reconstructed with a soft and a sharp kernel."""

import numpy as np
import pytest

import lungmix
from lungmix.formats import find_scans
from lungmix.mixture import PUBLISHED
from lungmix.parameters import HarmoniseParameters, MaskParameters
from lungmix.stages.anatomical import mask_stage
from lungmix.stages.base import StageContext
from lungmix.stages.convert import ConvertStage
from lungmix.stages.harmonise import HarmoniseStage
from lungmix.stages.label import LabelStage
from lungmix.stages.measure import MEASUREMENTS_FILE, rows_of_case
from support.masks import InProcess

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.usefixtures("stages_here")]


def measured(folder, source, preset, methods):
    cohort = lungmix.open_cohort(folder, "a")
    context = StageContext(InProcess(), cohort)
    (scan,) = find_scans(source)
    ConvertStage({"one": scan}).run(context, "one")
    for name in methods:
        HarmoniseStage(HarmoniseParameters((name,))).run(context, "one")
    for stage in (mask_stage(MaskParameters(preset)), LabelStage(PUBLISHED, "published")):
        stage.run(context, "one")
    (row,) = rows_of_case(cohort["one"], MEASUREMENTS_FILE, PUBLISHED)
    return row


@pytest.mark.parametrize("preset", ["physical", "anatomical"])
def test_sharp_and_soft_kernel_agree_after_normalisation(real_ct, tmp_path, preset):
    sources = {"soft": real_ct / "dx-a0001-soft", "sharp": real_ct.parent / "reference" / "dx-a0001-sharp.nrrd"}
    rows = {
        (name, methods): measured(tmp_path / f"{name}{len(methods)}.zarr", source, preset, methods)
        for name, source in sources.items()
        for methods in ((), ("kernel",))
    }

    def difference(column, methods):
        return abs(rows["soft", methods][column] - rows["sharp", methods][column])

    assert difference("laa950", ()) > 10
    assert difference("laa950", ("kernel",)) < 0.5
    assert difference("lung_involvement", ("kernel",)) < 0.25 < difference("lung_involvement", ())
    assert difference("mean_hu", ("kernel",)) < 3
    assert difference("lung_ml", ("kernel",)) < 0.005 * rows["soft", ("kernel",)]["lung_ml"]


def test_air_and_blood_are_those_of_the_patient_with_either_kernel(real_ct, tmp_path):
    records = []
    for name, source in (
        ("soft", real_ct / "dx-a0001-soft"),
        ("sharp", real_ct.parent / "reference/dx-a0001-sharp.nrrd"),
    ):
        cohort = lungmix.open_cohort(tmp_path / f"{name}.zarr", "a")
        context = StageContext(InProcess(), cohort)
        (scan,) = find_scans(source)
        ConvertStage({"one": scan}).run(context, "one")
        HarmoniseStage(HarmoniseParameters(("air-blood",))).run(context, "one")
        case = cohort["one"]
        record = case.stages["harmonise"]["air-blood"]
        mapped = np.clip(np.rint(case.ct.compute() * record["slope"] + record["offset"]), -32768, 32767)
        assert np.abs(case.harmonised.compute() - mapped)[case.ct.compute() >= -1024].max() <= 1
        records.append(record)
    soft, sharp = records
    assert soft["air_hu"] == pytest.approx(sharp["air_hu"], abs=15)
    assert soft["blood_hu"] == pytest.approx(sharp["blood_hu"], abs=5)
    assert 25 < soft["blood_hu"] < 45
