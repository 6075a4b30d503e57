import csv
import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

import lungmix
from lungmix.errors import UsageError
from lungmix.formats import find_scans
from lungmix.phantom import TRAPS, Cohort, Phantom, write_cohort, write_phantom

SHAPE, SPACING = (48, 96, 96), (3.7, 3.7, 6.25)


def make(*traps, seed=2, shape=SHAPE, spacing=SPACING):
    return Phantom(shape, spacing, seed, traps=frozenset(traps))


@pytest.mark.parametrize("thickness", [1, 5, 48, 1000])
@pytest.mark.parametrize("traps", [(), ("noise", "vessels", "padding")])
def test_slabs_of_any_thickness_hold_the_same_voxels(thickness, traps):
    phantom = make(*traps)
    assert np.array_equal(np.concatenate(list(phantom.slabs(thickness))), phantom.volume())
    assert np.array_equal(np.concatenate(list(phantom.truth_slabs(thickness))), phantom.truth())


def test_seed_decides_all():
    assert np.array_equal(make(seed=5).volume(), make(seed=5).volume())
    assert not np.array_equal(make(seed=5).volume(), make(seed=6).volume())


def test_tissues_have_the_hu_and_the_shares_that_were_asked_for():
    phantom = Phantom((60, 128, 128), (2.8, 2.8, 5.0), 1, weights=(0.3, 0.4, 0.15, 0.05, 0.1))
    hu, truth = phantom.volume(), phantom.truth()
    shares = np.bincount(truth.ravel(), minlength=6)[1:] / (truth > 0).sum()
    assert np.allclose(shares, phantom.weights, atol=0.04)
    for label, mean in enumerate((-950.4, -829.0, -652.3, -337.0), start=1):
        assert hu[truth == label].mean() == pytest.approx(mean, abs=10)


def test_lungs_are_two_and_touch_no_edge():
    lungs = make().truth() > 0
    assert ndimage.label(lungs)[1] == 2
    assert not lungs[0].any()
    assert not lungs[-1].any()
    assert not lungs[:, [0, -1]].any()
    assert not lungs[:, :, [0, -1]].any()


def test_mask_finds_the_lungs_of_the_phantom():
    phantom = Phantom((60, 256, 256), (1.4, 1.4, 5.0), 3)
    mask, truth = lungmix.lung_mask(phantom.volume(), "physical", phantom.spacing), phantom.truth() > 0
    assert (mask & truth).sum() / truth.sum() > 0.96
    assert (mask & truth).sum() / mask.sum() > 0.98
    assert 2500 < mask.sum() * phantom.geometry.voxel_ml < 8000


def test_trap_touching_joins_the_lungs():
    assert ndimage.label(make("touching").truth() > 0)[1] == 1


def test_trap_edge_leaves_five_pixels():
    columns = np.flatnonzero(
        (make("edge", shape=(48, 512, 512), spacing=(0.7, 0.7, 6.25)).truth() > 0).any(axis=(0, 1))
    )
    assert columns[0] == 5


def test_trap_cut_reaches_the_first_and_the_last_slice():
    lungs = make("cut").truth() > 0
    assert lungs[0].any()
    assert lungs[-1].any()


def test_trap_padding_fills_all_outside_a_circle():
    volume = make("padding").volume()
    y, x = np.indices(SHAPE[1:])
    outside = (y - 47.5) ** 2 + (x - 47.5) ** 2 > 48**2
    assert np.array_equal(volume == -2048, np.broadcast_to(outside, SHAPE))


@pytest.mark.parametrize(("trap", "large"), [("bowel", False), ("big-bowel", True)])
def test_trap_bowel_is_a_component_of_gas_under_or_over_the_limit(trap, large):
    phantom, plain = make(trap), make()
    gas = (phantom.volume() < -900) & (plain.volume() > -200)
    millilitres = gas.sum() * phantom.geometry.voxel_ml
    assert (millilitres > 100) == large
    assert millilitres > 3


def test_trap_table_is_under_the_patient():
    difference = make("table").volume() != make().volume()
    assert difference.any()
    assert np.flatnonzero(difference.any(axis=(0, 2))).min() > 48


@pytest.mark.parametrize("trap", ["vessels", "consolidation"])
def test_only_the_closing_recovers_what_is_dense_inside_the_lung(trap):
    phantom = Phantom((120, 256, 256), (1.4, 1.4, 2.5), 3, weights=(0.4, 0.6, 0, 0, 0), traps={trap})
    hu, truth = phantom.volume(), phantom.truth()
    dense = truth >= 4
    assert dense.any()
    opened = lungmix.lung_mask(hu, "physical", phantom.spacing, radii=())
    closed = lungmix.lung_mask(hu, "physical", phantom.spacing)
    assert (closed[dense] > 0).mean() > 0.9
    assert (opened[dense] > 0).mean() < 0.75


def test_trap_noise_is_heavy():
    body = (slice(20, 30), slice(60, 64), slice(46, 50))
    assert make("noise").volume()[body].std() > 3 * make().volume()[body].std()


def test_unknown_trap_names_the_known_ones():
    with pytest.raises(UsageError, match="touching"):
        make("tuching")
    assert all(TRAPS.values())


@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz", ".mha", ""])
def test_file_of_a_phantom_holds_its_voxels_and_geometry(tmp_path, extension):
    phantom = Phantom((9, 40, 44), (0.75, 0.5, 0.3), 7, origin=(-10.5, 3.25, 100.0))
    path = tmp_path / f"phantom{extension}"
    write_phantom(path, phantom)
    (scan,) = find_scans(path)
    assert np.array_equal(np.concatenate(list(scan.slabs(4))), phantom.volume())
    assert np.allclose(scan.geometry.spacing, phantom.spacing, rtol=1e-6)
    if extension:
        image = sitk.ReadImage(str(path))
    else:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image), phantom.volume())


def test_cohort_has_scanners_ages_and_scores_that_follow_the_disease(tmp_path):
    cohort = Cohort(62, seed=1)
    patients = list(cohort)
    makers = [p.phantom.acquisition.manufacturer for p in patients]
    assert (makers.count("Siemens"), makers.count("Toshiba")) == (46, 16)
    assert all(20 <= p.age <= 83 and 0 <= p.score <= 5 for p in patients)
    involvement = [p.phantom.lung_involvement for p in patients]
    assert np.corrcoef(involvement, [p.score for p in patients])[0, 1] > 0.7
    assert cohort[5] == patients[5]
    write_cohort(tmp_path, Cohort(4, 1, (4, 16, 16)), "mixed")
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [row["case"] for row in rows] == [f"case-00{i}" for i in range(1, 5)]
    assert {p.name for p in tmp_path.iterdir()} == {
        "scores.csv", "case-001.nrrd", "case-002.nii.gz", "case-003.mha", "case-004",
    }  # fmt: skip


def test_second_scans_follow_the_first_ones_and_have_the_same_lungs(tmp_path):
    cohort = Cohort(3, 1, (4, 16, 16), followups=2)
    patients = list(cohort)
    assert [(p.phantom.name, p.patient) for p in patients] == [
        (f"case-00{i}", n) for i, n in enumerate((1, 2, 3, 1, 2), 1)
    ]
    assert patients[:3] == list(Cohort(3, 1, (4, 16, 16)))
    for first, second in zip(patients, patients[3:], strict=False):
        assert np.array_equal(first.phantom.side_truth(), second.phantom.side_truth())
        assert first.phantom.lung_involvement != second.phantom.lung_involvement
        assert (first.days, first.age, first.sex) == (0, second.age, second.sex)
        assert 14 <= second.days <= 28
    write_cohort(tmp_path, cohort)
    rows = list(csv.DictReader((tmp_path / "patients.csv").open()))
    assert [(row["case"], row["patient"], int(row["days"])) for row in rows] == [
        (p.phantom.name, str(p.patient), p.days) for p in patients
    ]
    with pytest.raises(UsageError, match="4 of 3 patients"):
        Cohort(3, followups=4)


def test_long_phantom_never_sits_in_memory(tmp_path):
    phantom = make(shape=(5000, 32, 32))
    next(phantom.slabs(8))
    tracemalloc.start()
    write_phantom(tmp_path / "long.nrrd", phantom)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5000 * 32 * 32 * 2 / 4
