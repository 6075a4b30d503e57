"""Simulated patients, and the lungs that the preset ``anatomical`` finds in them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oracle.anatomical import lung_parts as slow_lung_parts
from support.patients import AERATED, DENSE, Consolidation, Effusion, Part, Patient, WallMass, scan
from support.patients.cases import CASES, LEAST_DENSE
from support.patients.outcome import lung_parts, outcome, table_row

COARSE = Patient(spacing=(5.0, 4.0, 4.0))

LIMITS_ML = {
    Part.RIGHT: (1800, 3500),
    Part.LEFT: (1500, 3000),
    Part.AIRWAY: (20, 80),
    Part.HEART: (400, 900),
    Part.AORTA: (100, 300),
    Part.LIVER: (1200, 2600),
    Part.SPINE: (300, 900),
    Part.RIBS: (300, 700),
    Part.STOMACH_GAS: (40, 200),
}
"""Smallest and largest volume, mL, of the part of each organ that the image of an adult shows."""

QUICK = (
    "healthy, sharp kernel",
    "infant",
    "consolidation of 30 mL at the side",
    "effusion of 300 mL",
)

LARGEST_SHARE = {
    Part.EFFUSION: 0.02,
    Part.LIVER: 0.002,
    Part.STOMACH_GAS: 0.02,
    Part.BOWEL_GAS: 0,
    Part.OESOPHAGEAL_GAS: 0.02,
    Part.AIRWAY: 0.1,
    Part.TABLE: 0,
    Part.CLOTHES: 0,
    Part.OUTSIDE: 0,
}
"""For each part of the body that is not lung, the largest share of its volume that a mask may contain."""

LEAST_ML = 2.0
"""Volume of a part, mL, that may be in a mask in any case: the airway of an infant is narrower than a reduced voxel."""

PAGE = Path(__file__).parents[2] / "docs" / "anatomical.md"


def test_an_adult_has_every_part_and_organs_of_usual_size():
    chest = scan(replace(COARSE, diseases=(Effusion(-1, 100.0),)))
    absent = {Part.DENSE_RIGHT, Part.DENSE_LEFT, Part.PNEUMOTHORAX}
    assert set(np.unique(chest.part)) == set(Part) - absent
    for part, (low, high) in LIMITS_ML.items():
        assert low <= chest.ml(part) <= high, part.name
    assert chest.ml(Part.RIGHT) > chest.ml(Part.LEFT)


def test_a_disease_takes_its_volume_from_the_lung_and_changes_no_other_part():
    before = scan(COARSE)
    after = scan(replace(COARSE, diseases=(Consolidation(1, 60.0), Effusion(1, 200.0))))
    assert after.ml(Part.DENSE_LEFT) == pytest.approx(60, rel=0.03)
    assert after.ml(Part.EFFUSION) == pytest.approx(200, rel=0.03)
    changed = before.part != after.part
    assert set(np.unique(before.part[changed])) == {Part.LEFT}
    assert set(np.unique(after.part[changed])) == {Part.DENSE_LEFT, Part.EFFUSION}


@pytest.mark.parametrize(("sd", "kernel", "low", "high"), [(12.0, 1.0, 0.7, 0.85), (50.0, 0.4, 0.05, 0.2)])
def test_noise_has_the_requested_deviation_and_correlation_of_neighbours(sd, kernel, low, high):
    quiet, noisy = (scan(replace(COARSE, noise=noise, kernel=kernel)) for noise in (0.0, sd))
    muscle = quiet.part == Part.MUSCLE
    noise = np.where(muscle, noisy.hu - quiet.hu, 0).astype(float)
    assert noise[muscle].std() == pytest.approx(sd, rel=0.05)
    both = muscle[:, :, 1:] & muscle[:, :, :-1]
    neighbours = (noise[:, :, 1:] * noise[:, :, :-1])[both].mean() / sd**2
    assert low < neighbours < high


@pytest.mark.parametrize("spacing", [(0.5, 4.0, 4.0), (8.0, 2.0, 2.0)])
def test_volumes_are_the_same_at_any_spacing(spacing):
    patient = replace(COARSE, extent=(60.0, 180.0))
    expected, actual = scan(patient), scan(replace(patient, spacing=spacing))
    for part in (Part.RIGHT, Part.LEFT, Part.HEART):
        assert actual.ml(part) == pytest.approx(expected.ml(part), rel=0.03), part.name


def test_an_infant_is_ten_centimetres_wide():
    infant = scan(CASES["infant"])
    columns = np.flatnonzero(np.isin(infant.part, (*AERATED, Part.RIBS)).any(axis=(0, 1)))
    assert 90 <= (columns[-1] - columns[0]) * infant.spacing[2] <= 115
    assert infant.ml(*AERATED) < 300


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_lungs_of_patients_are_found_as_the_documentation_says(name):
    result = outcome(scan(CASES[name]))
    assert numbers_of(table_row(name, result)) == pytest.approx(numbers_of(documented_row(name)), abs=1.5)
    gas = result.inside[Part.PNEUMOTHORAX]
    for side, dice in (("right", result.right), ("left", result.left)):
        assert np.isnan(dice) or dice >= 0.975 or (side == "left" and gas)
    for part, share in LARGEST_SHARE.items():
        assert result.inside[part] <= max(share * result.volumes[part], LEAST_ML), part.name
    assert result.outside_percent() - 100 * gas / sum(result.inside.values()) <= 3
    assert name not in LEAST_DENSE or result.dense_percent() >= LEAST_DENSE[name]


@pytest.mark.parametrize("noise", [15.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_every_voxel_of_a_patient_is_that_of_the_slow_definition(noise):
    diseases = (Consolidation(1, 80.0, flat=0.5), WallMass(-1, 40.0), Effusion(-1, 100.0))
    chest = scan(Patient(spacing=(5.0, 5.0, 5.0), extent=(0.0, 250.0), diseases=diseases, noise=noise, kernel=0.4))
    actual = lung_parts(chest.hu, chest.spacing)
    np.testing.assert_array_equal(actual, slow_lung_parts(chest.hu, chest.spacing))
    assert set(np.unique(actual)) == {0, *AERATED, *DENSE}


def test_a_colon_full_of_gas_is_no_lung():
    chest = scan(Patient(spacing=(4.0, 3.5, 3.5), extent=(-170.0, 285.0)))
    z, y, x = (np.arange(n) * step for n, step in zip(chest.hu.shape, chest.spacing, strict=True))
    height, depth, across = z[:, None, None] - 170, y[None, :, None] - 135, x[None, None, :] - 205
    # Four parallel loops of bowel, 24 mm wide, are joined at their ends and have more than a tenth of a lung's volume.
    loops = np.hypot((height + 25) % 32 - 16, depth + 10) < 12
    loops = loops & (height > -155) & (height < -30) & (np.abs(across) < 100)
    joined = loops | ((np.abs(np.abs(across) - 90) < 12) & (np.abs(depth + 10) < 12) & (height > -140) & (height < -45))
    colon = joined & np.isin(chest.part, (Part.ABDOMEN, Part.LIVER, Part.STOMACH, Part.SPLEEN, Part.BOWEL_GAS))
    assert colon.sum() * np.prod(chest.spacing) / 1000 > 0.1 * chest.ml(Part.RIGHT)
    noise = np.random.default_rng(1).normal(0, 20, chest.hu.shape)
    hu = np.where(colon, -1000 + noise, chest.hu).clip(-1024, 3071).astype(np.int16)
    mask = lung_parts(hu, chest.spacing) > 0
    assert not (mask & colon).any()
    assert (mask & np.isin(chest.part, AERATED)).sum() > 0.97 * np.isin(chest.part, AERATED).sum()


def documented_row(name):
    """Return the row of a patient in the table of ``docs/anatomical.md``, as text."""
    (row,) = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {name} |")]
    return row


def numbers_of(row):
    """Return the numbers in a row of the table, each without its decimal point: 0.98 becomes 98, and 3.1 becomes 31."""
    figures = [figure.strip() for cell in row.split("|")[2:-1] for figure in cell.split(",")]
    return [float(figure) * 10 ** len(figure.partition(".")[2]) for figure in figures if figure not in ("", "none")]
