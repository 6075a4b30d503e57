"""Anatomical masks of real scans, against contours that people drew and against what is known of each scan."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

import lungmix
from lungmix.mixture import PUBLISHED
from support.patients.outcome import lung_parts

pytestmark = [pytest.mark.slow, pytest.mark.real]


def series(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def mask_of(image):
    hu = sitk.GetArrayFromImage(image).astype(np.int16)
    options = {"spacing": image.GetSpacing(), "direction": image.GetDirection(), "origin": image.GetOrigin()}
    return hu, lungmix.lung_mask(hu, "anatomical", **options) > 0


def volume_ml(mask, image):
    return mask.sum() * np.prod(image.GetSpacing()) / 1000


def test_mask_holds_the_lungs_that_were_drawn_and_the_tumour_but_little_else(real_ct):
    folder = real_ct.parent / "reference" / "lung1-001"
    image = series(folder / "ct")
    parts = lung_parts(sitk.GetArrayFromImage(image).astype(np.int16), image.GetSpacing()[::-1])
    reference, tumour = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}.nrrd"))) for name in ("lungs", "gtv")
    )
    mask, lungs, tumour = parts > 0, reference > 0, tumour > 0
    assert (mask & tumour).sum() > 0.7 * tumour.sum()
    assert (mask & ~lungs & ~tumour).sum() < 0.03 * mask.sum()
    apex = lungs & (np.arange(len(lungs))[:, None, None] >= 97)
    assert (mask & apex).sum() > 0.9 * apex.sum()
    for side in (1, 2):
        aerated, drawn = parts == side, reference == side
        assert 2 * (aerated & drawn).sum() > 0.975 * (aerated.sum() + drawn.sum())


def test_volume_of_a_coarse_chest_is_that_of_its_reference_within_3_percent(real_ct):
    folder = real_ct.parent / "reference" / "cip-64"
    image = sitk.ReadImage(str(folder / "ct-64.nrrd"))
    _, mask = mask_of(image)
    lungs = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "wholeLung-64.nrrd"))) > 0
    assert volume_ml(mask, image) == pytest.approx(volume_ml(lungs, image), rel=0.03)


def test_hollow_table_is_no_lung(real_ct):
    image = series(real_ct / "cmb-crc-lung")
    hu, mask = mask_of(image)
    assert 4000 < volume_ml(mask, image) < 5000
    body, _ = ndimage.label(ndimage.binary_opening(hu > -300))
    rows = np.flatnonzero((body == np.bincount(body[body > 0]).argmax()).any(axis=(0, 2)))
    assert not mask[:, rows[-1] :].any()
    # The last slices show the throat.
    assert not mask[-8:].any()


@pytest.mark.parametrize(
    ("name", "smallest", "largest"), [("dx-a0001-soft", 5400, 5900), ("dx-a0002-soft", 2600, 3000)]
)
def test_volumes_of_both_lungs_are_plausible(real_ct, name, smallest, largest):
    image = series(real_ct / name)
    _, mask = mask_of(image)
    assert smallest < volume_ml(mask, image) < largest


def test_kernel_of_the_reconstruction_changes_lung_involvement_little(real_ct):
    table = PUBLISHED.lookup_table()
    involvement = []
    for image in (
        series(real_ct / "dx-a0001-soft"),
        sitk.ReadImage(str(real_ct.parent / "reference" / "dx-a0001-sharp.nrrd")),
    ):
        hu, mask = mask_of(image)
        involvement.append(100 * (table[hu[mask].astype(np.int64) + 32768] > 2).mean())
    # Noise alone moves it by 1.0 within one mask.
    assert abs(involvement[0] - involvement[1]) < 1.5


@pytest.mark.parametrize(("axis", "start", "stop"), [(2, 185, None), (1, 221, None), (0, None, 41)])
def test_voxels_of_a_crop_are_those_of_the_scan_from_20_mm_from_the_cut(real_ct, axis, start, stop):
    """Right of the spine, in front of it, and below the apices; where the cut is no multiple of a reduced voxel."""
    image = series(real_ct / "dx-a0001-soft")
    _, mask = mask_of(image)
    span = [slice(None)] * 3
    span[axis] = slice(start, stop)
    _, crop = mask_of(image[tuple(span[::-1])])
    margin = int(np.ceil(20 / image.GetSpacing()[::-1][axis]))
    inside = [slice(None)] * 3
    inside[axis] = slice(margin, None) if start else slice(-margin)
    mask, crop = mask[tuple(span)][tuple(inside)], crop[tuple(inside)]
    assert (mask != crop).sum() <= 0.001 * mask.sum()
