"""Agreement of the masks of a real chest with the contours that were drawn for its radiotherapy."""

import pytest

import lungmix
from lungmix.parameters import IntakeParameters, MaskParameters
from lungmix.pipeline import Pipeline

pytestmark = [pytest.mark.slow, pytest.mark.real]

# Dice of the right and left lung; Dice, mean surface distance and 95th percentile of both, in mm.
EXPECTED = {
    "physical": (0.969, 0.965, 0.967, 1.62, 8.2),
    "paper": (0.954, 0.889, 0.924, 4.01, 25.3),
}


def test_agreement_with_the_contours_is_that_of_the_reference(real_ct, client, tmp_path):
    data = real_ct.parent / "reference" / "lung1-001"
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    pipeline = Pipeline(client, cohort)
    for preset, expected in EXPECTED.items():
        pipeline.run(
            data / "ct", mask=MaskParameters(preset), model="published", intake=IntakeParameters(keep_names=True)
        )
        result = lungmix.evaluate(cohort, data / "lungs.nrrd", client=client)
        assert not result.failed
        by_region = {row["region"]: row for row in result.rows}
        lungs = by_region["lungs"]
        values = (
            round(by_region["right"]["dice"], 3), round(by_region["left"]["dice"], 3), round(lungs["dice"], 3),
            round(lungs["asd_mm"], 2), round(lungs["hd95_mm"], 1),
        )  # fmt: skip
        assert values == expected
        assert lungs["reference_ml"] == pytest.approx(5242.98, abs=0.01)
