"""Agreement of the masks of a real chest with the contours that were drawn for its radiotherapy."""

import pytest

import lungmix
from lungmix.parameters import IntakeParameters, MaskParameters
from lungmix.pipeline import Pipeline

pytestmark = [pytest.mark.slow, pytest.mark.real]

# Contours; Dice of the right and left lung; Dice, mean surface distance and 95th percentile of both, in mm; as measured
# on the whole volumes by scipy.
EXPECTED = {
    "physical": ("rtstruct.dcm", (0.9688, 0.9654, 0.9673, 1.6152, 8.196)),
    "paper": ("lungs.nrrd", (0.9535, 0.8889, 0.9241, 4.0094, 25.3342)),
}


def test_agreement_with_the_contours_is_that_of_the_reference(real_ct, client, tmp_path):
    data = real_ct.parent / "reference" / "lung1-001"
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    pipeline = Pipeline(client, cohort)
    for preset, (contours, expected) in EXPECTED.items():
        pipeline.run(
            data / "ct", mask=MaskParameters(preset), model="published", intake=IntakeParameters(keep_names=True)
        )
        result = lungmix.evaluate(cohort, data / contours, client=client)
        assert not result.failed
        by_region = {row["region"]: row for row in result.rows}
        lungs = by_region["lungs"]
        values = (
            by_region["right"]["dice"], by_region["left"]["dice"], lungs["dice"], lungs["asd_mm"], lungs["hd95_mm"],
        )  # fmt: skip
        assert values == pytest.approx(expected, abs=6e-5)
        assert lungs["reference_ml"] == pytest.approx(5242.98, abs=0.01)


def test_lungs_of_the_preset_anatomical_meet_what_was_drawn_without_dense_lung(real_ct, client, tmp_path):
    data = real_ct.parent / "reference" / "lung1-001"
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    Pipeline(client, cohort).run(data / "ct", mask=MaskParameters("anatomical"), model="published")
    result = lungmix.evaluate(cohort, data / "rtstruct.dcm", client=client)
    by_region = {row["region"]: row for row in result.rows}
    assert by_region.keys() == {"lungs", "right", "left", "lungs_aerated", "right_aerated", "left_aerated"}
    for region in ("right_aerated", "left_aerated"):
        assert by_region[region]["dice"] >= 0.975
        assert by_region[region]["asd_mm"] <= 1.0
        assert by_region[region]["hd95_mm"] <= 4.0
    assert by_region["lungs"]["dice"] < by_region["lungs_aerated"]["dice"]
