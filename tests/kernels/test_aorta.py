"""Descending aorta in simulated chests, and things that must not be taken for it."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from lungmix.kernels.airway import axial_steps, find_airway
from lungmix.kernels.aorta import SHORTEST_MM, NoBlood, find_aorta
from lungmix.kernels.reduction import reduction_of
from support.patients import AERATED, Part, Patient, scan

CHEST = Patient(spacing=(4.0, 3.5, 3.5), table=None, noise=12.0, kernel=1.0)
BLOOD_HU = 45
FAT_HU = -90


@cache
def chest(patient=CHEST, surrounded_by=FAT_HU):
    """Return HU and parts of a patient; fat, or another tissue, surrounds the aorta."""
    image = scan(patient)
    tissue = image.part == Part.MEDIASTINUM
    hu = image.hu.astype(np.float32)
    hu[tissue] += surrounded_by - np.median(hu[tissue])
    return hu, image.part


def aorta_of(hu, part, spacing=CHEST.spacing):
    """Return the aorta of a scan, and the share of the centres of its circles that lie in the true aorta."""
    reduction = reduction_of(spacing)
    reduced = reduction.apply(np.clip(np.rint(hu), -1024, 3000).astype(np.int16))
    parts = part[tuple(slice(None, None, n) for n in reduction.factors)]
    size = reduction.spacing(spacing)
    tube = find_airway(reduced, np.isin(parts, AERATED), axial_steps(size)).tube
    aorta = find_aorta(reduced, tube, size)
    return aorta, np.mean(parts[tuple(aorta.centres.T)] == Part.AORTA) if len(aorta.centres) else 0


def replaced(value, patient=CHEST, name=Part.AORTA):
    """Return HU and parts of a chest where a part has other HU, with its noise."""
    hu, part = chest(patient)
    inside = part == name
    return np.where(inside, hu - np.median(hu[inside]) + value, hu), part


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spacing": (8.0, 3.5, 3.5)},
        {"spacing": (2.0, 1.75, 1.75), "noise": 60.0, "kernel": 0.4},
        {"aerated": -520.0},
        {"aerated": -950.0},
        {"muscle": 1.8},
        {"domes": (118.0, 88.0)},
    ],
    ids=["soft kernel", "thick slices", "noise of 60 HU", "ground glass", "emphysema", "muscle", "high domes"],
)
def test_blood_has_its_hu_and_every_circle_is_in_the_aorta(changes):
    patient = replace(CHEST, **changes)
    aorta, share = aorta_of(*chest(patient), patient.spacing)
    assert aorta.problem is None
    assert share == 1
    assert aorta.hu == pytest.approx(BLOOD_HU, abs=3)
    assert 8 <= np.median(aorta.radii_mm) <= 14
    assert len(aorta.centres) * reduction_of(patient.spacing).spacing(patient.spacing)[0] >= SHORTEST_MM


@pytest.mark.parametrize("axis", [1, 2])
def test_aorta_of_a_bent_or_tilted_body_is_followed(axis):
    hu, part = (a.copy() for a in chest())
    for z in range(len(hu)):
        shift = round(6 * np.sin(1.5 * np.pi * z / len(hu))) if axis == 2 else round(0.25 * (z - len(hu) / 2))
        hu[z], part[z] = (np.roll(a[z], shift, axis - 1) for a in (hu, part))
    aorta, share = aorta_of(hu, part)
    assert aorta.problem is None
    assert share == 1
    assert aorta.hu == pytest.approx(BLOOD_HU, abs=3)


def test_calcified_wall_does_not_change_the_hu_of_blood():
    hu, part = (a.copy() for a in chest())
    inside = part == Part.AORTA
    wall = inside & ~ndimage.binary_erosion(inside, np.ones((1, 3, 3)))
    hu[wall & (np.random.default_rng(0).random(hu.shape) < 0.15)] = 500
    aorta, share = aorta_of(hu, part)
    assert aorta.problem is None
    assert share == 1
    assert aorta.hu == pytest.approx(BLOOD_HU, abs=5)


@pytest.mark.parametrize(("hu", "problem"), [(120, NoBlood.ABOVE), (280, NoBlood.ABOVE), (5, NoBlood.BELOW)])
def test_blood_with_contrast_agent_or_of_low_hu_is_no_reference(hu, problem):
    aorta, share = aorta_of(*replaced(hu))
    assert aorta.problem == problem
    assert share == 1
    assert aorta.hu == pytest.approx(hu, abs=15)


@pytest.mark.parametrize("hu", [FAT_HU, -850])
@pytest.mark.parametrize("spacing", [(4.0, 3.5, 3.5), (8.0, 2.5, 2.5)])
def test_no_aorta_is_found_where_there_is_none(hu, spacing):
    patient = replace(CHEST, spacing=spacing)
    aorta, _ = aorta_of(*replaced(hu, patient), spacing)
    assert aorta.problem is not None


@pytest.mark.parametrize("noise", [0.1, 12.0, 50.0])
@pytest.mark.parametrize("aerated", [-850.0, -520.0])
def test_soft_tissue_between_spine_and_lung_is_no_aorta(noise, aerated):
    aorta, _ = aorta_of(*chest(replace(CHEST, noise=noise, aerated=aerated), BLOOD_HU))
    assert aorta.problem is not None


@pytest.mark.parametrize("spongy", [30, 50, 70])
@pytest.mark.parametrize("rest", [FAT_HU, -850])
def test_osteoporotic_vertebrae_are_no_aorta(spongy, rest):
    hu, part = (a.copy() for a in replaced(rest))
    spine = ndimage.binary_closing(part == Part.SPINE)
    inside = ndimage.binary_erosion(spine, np.ones((1, 3, 3)))
    hu[inside] = spongy
    aorta, _ = aorta_of(hu, part)
    assert aorta.problem is not None


def test_aorta_on_the_right_is_not_used():
    hu, part = (np.ascontiguousarray(a[:, :, ::-1]) for a in chest())
    assert aorta_of(hu, part)[0].problem is not None


def test_aorta_of_an_infant_is_too_short():
    infant = replace(CHEST, spacing=(1.1, 1.0, 1.0), scale=0.36, noise=15.0, aerated=-700.0)
    assert aorta_of(*chest(infant), infant.spacing)[0].problem is not None


def test_aorta_that_the_image_cuts_is_too_short():
    hu, part = chest()
    lowest = int(np.flatnonzero((part == Part.AIRWAY).any(axis=(1, 2)))[0])
    aorta, _ = aorta_of(hu[lowest:], part[lowest:])
    assert aorta.problem in (NoBlood.SHORT, NoBlood.NO_TUBE)


def test_scan_without_trachea_has_no_aorta():
    hu, part = chest()
    reduced = hu.astype(np.int16)
    aorta = find_aorta(reduced, np.zeros(part.shape, np.bool_), CHEST.spacing)
    assert aorta.problem == NoBlood.NO_TRACHEA
    assert np.isnan(aorta.hu)
    assert aorta.voxels == len(aorta.centres) == 0


def test_aorta_at_the_edge_of_the_image_is_still_found():
    hu, part = chest()
    left = int(np.flatnonzero((part == Part.AORTA).any(axis=(0, 1)))[-1])
    back = int(np.flatnonzero((part == Part.AORTA)[: len(part) // 2].any(axis=(0, 2)))[-1])
    _, share = aorta_of(hu[:, : back + 2, : left + 2], part[:, : back + 2, : left + 2])
    assert share == 1
