"""Lobes of given masks: a label map, histograms and rows of zones.csv, for masks of every format and storage order."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lungmix
from lungmix.errors import SourceError, UsageError
from lungmix.export import export_case
from lungmix.export.formats import Options
from lungmix.formats.masks import LOBES as LOBE_REGIONS
from lungmix.formats.masks import open_mask, region_of
from lungmix.formats.masks.combined import combine
from lungmix.geometry import Geometry
from lungmix.kernels.histogram import count_hu
from lungmix.kernels.measures import measure_counts
from lungmix.parameters import MASK_REGIONS, MaskLabels
from lungmix.stages import flags
from lungmix.stages.measure import measure_cohort, rows_of_case
from lungmix.store import ZONES_FILE, invalidate_corrupt_stages
from lungmix.tissue import LOBES
from stages.test_given_mask import GRID, MODEL, give, label, problems_of, store_of_one, two_lungs
from stages.test_masks_of_several_files import part
from support.generators import ORIENTATIONS, reoriented
from support.masks import mask_of, segments_of

pytestmark = pytest.mark.usefixtures("stages_here")

NAMES = ("RUL", "RML", "RLL", "LUL", "LLL")
SIDE_OF_LOBE = np.array([0, 1, 1, 1, 2, 2], np.uint8)


def five_lobes(geometry=GRID):
    """Return a label map of `LOBES`: the lungs cut at heights that differ between front and back."""
    lungs = two_lungs(geometry)
    height, row = (np.arange(n) / n for n in geometry.shape[:2])
    above = height[:, None, None] + 0.3 * row[None, :, None]
    lobes = np.zeros(geometry.shape, np.uint16)
    lobes[(lungs == 1) & (above >= 0.7)] = 1
    lobes[(lungs == 1) & (above < 0.7)] = 2
    lobes[(lungs == 1) & (above < 0.5)] = 3
    lobes[(lungs == 2) & (above >= 0.6)] = 4
    lobes[(lungs == 2) & (above < 0.6)] = 5
    assert {*np.unique(lobes)} == {*range(6)}
    return lobes


@pytest.fixture
def cohort(tmp_path):
    return store_of_one(tmp_path)


def lobe_mask(lobes=None, geometry=GRID, **facts):
    segments = segments_of(**{name: k + 1 for k, name in enumerate(NAMES)})
    return mask_of(five_lobes() if lobes is None else lobes, geometry, segments=segments, **facts)


def check(case, lobes):
    """Check label map, histograms and record of the lobes of a case against the whole volume."""
    assert np.array_equal(case.lobe.compute(), lobes)
    hu = case.ct.compute()
    counts = np.stack([count_hu(hu, (lobes == lobe.label).astype(np.uint8)) for lobe in LOBES])
    assert np.array_equal(case.lobe_counts, counts)
    assert {lobe.key: case.stages["mask"][lobe.key] for lobe in LOBES} == {
        lobe.key: int((lobes == lobe.label).sum()) for lobe in LOBES
    }


def test_lobes_of_a_mask_are_stored_with_both_lungs(cohort):
    lobes = five_lobes()
    assert give(cohort, lobe_mask()) == "done"
    case = cohort["one"]
    check(case, lobes)
    assert np.array_equal(case.side.compute(), SIDE_OF_LOBE[lobes])
    assert np.array_equal(case.lung.compute(), lobes > 0)
    assert case.has_lobes
    label(cohort)
    assert problems_of(cohort) == []
    assert give(cohort, lobe_mask()) == "kept"


@settings(max_examples=6)
@given(st.sampled_from(ORIENTATIONS), st.integers(0, 99))
def test_lobes_do_not_depend_on_the_storage_order_of_the_mask(tmp_path_factory, orientation, seed):
    random = np.random.default_rng(seed)
    lobes = np.where(random.random(GRID.shape) < 0.3, random.integers(0, 6, GRID.shape), five_lobes()).astype(np.uint16)
    stored, grid = reoriented(lobes, GRID, orientation)
    cohort = store_of_one(tmp_path_factory.mktemp("h"))
    give(cohort, lobe_mask(stored, grid))
    check(cohort["one"], lobes)


def test_rows_of_lobes_are_measurements_of_their_voxels(cohort):
    lobes = five_lobes()
    lobes[lobes == 2] = 0
    give(cohort, lobe_mask(lobes))
    label(cohort)
    case = cohort["one"]
    assert "zone" not in case.stages
    rows = {row["zone"]: row for row in rows_of_case(case, ZONES_FILE, MODEL)}
    assert [*rows] == [lobe.key for lobe in LOBES]
    hu = case.ct.compute()
    for lobe in LOBES:
        counts = count_hu(hu, (lobes == lobe.label).astype(np.uint8))
        expected = measure_counts(counts, MODEL.lookup_table(), case.geometry.voxel_ml)
        row = rows[lobe.key]
        assert row["side"] == lobe.side.key
        assert (row["third"], row["half"], row["depth"], row["by"]) == ("all", "all", "all", "lobes")
        np.testing.assert_equal({key: row[key] for key in expected}, expected)
    assert rows["right_middle_lobe"]["voxels"] == 0
    assert np.isnan(rows["right_middle_lobe"]["lung_involvement"])
    measure_cohort(cohort, ["one"], MODEL, (), ZONES_FILE)
    stored = csv.DictReader(io.StringIO(cohort.read_text(ZONES_FILE)))
    assert [row["zone"] for row in stored] == [lobe.key for lobe in LOBES]


def test_lung_of_no_lobe_stays_lung(cohort):
    lungs, lobes = two_lungs(), five_lobes()
    lobes[8:10][lobes[8:10] > 0] = 0
    parts = [part((lungs == k + 1).astype(np.uint16), name) for k, name in enumerate(("right_lung", "left_lung"))]
    parts += [part((lobes == k + 1).astype(np.uint16), name) for k, name in enumerate(NAMES)]
    give(cohort, combine(parts))
    check(cohort["one"], lobes)
    assert np.array_equal(cohort["one"].side.compute(), lungs)
    assert np.array_equal(cohort["one"].lung.compute(), lungs > 0)


def test_voxels_of_lobes_of_both_lungs_are_left_lung_of_no_lobe(cohort):
    lobes = five_lobes()
    parts = []
    for k, name in enumerate(NAMES):
        voxels = lobes == k + 1
        if name == "RUL":
            voxels[24, 8, 13:15] = True
        if name == "LLL":
            voxels[26, 8:10, 13] = True
        parts.append(part(voxels.astype(np.uint16), name))
    assert (lobes[24, 8, 13:15] == 4).all()
    assert (lobes[26, 8:10, 13] == 4).all()
    expected = lobes.copy()
    expected[24, 8, 13:15] = 0
    # Of two lobes of one lung, the one that comes later in the order of lobes counts.
    expected[26, 8:10, 13] = 5
    give(cohort, combine(parts))
    check(cohort["one"], expected)
    assert np.array_equal(cohort["one"].side.compute(), SIDE_OF_LOBE[lobes])
    (note,) = (note for note in flags.flags_of(cohort["one"]) if "overlap" in note)
    assert "(2 voxels) belong to both, and count as left" in note


def test_labels_that_the_user_gives_can_be_lobes(cohort):
    lobes = five_lobes()
    text = "right-upper=1,right_middle=2,RIGHT-LOWER=3,left-upper=4,left-lower=5"
    give(cohort, mask_of(lobes, GRID), text)
    check(cohort["one"], lobes)
    with pytest.raises(UsageError, match=r"no region .*right_top.*: choose one of .*right_upper, right_middle"):
        MaskLabels.parse("right_top=1")
    # Lobes without the side of the rest: right and left are computed, and lobes are those of the file.
    lobes[lobes == 5] = 6
    give(cohort, mask_of(lobes, GRID), "left-upper=4,lung=1,lung=2,lung=3,lung=6")
    assert np.array_equal(cohort["one"].lobe.compute(), np.where(lobes == 4, 4, 0))
    assert np.array_equal(cohort["one"].lung.compute(), lobes > 0)
    assert "side" not in cohort["one"].stages


# Labels of the model LTRCLobes of lungmask, by those of `LOBES`.
LTRC = np.array([0, 3, 4, 5, 1, 2], np.uint16)


def test_five_labels_without_names_can_be_lobes(cohort):
    lobes = five_lobes()
    give(cohort, mask_of(LTRC[lobes], GRID))
    check(cohort["one"], lobes)
    (note,) = (note for note in flags.flags_of(cohort["one"]) if "without names" in note)
    assert "labels 1 to 5 without names: they were taken as lobes, as by lungmask LTRCLobes" in note


@pytest.mark.parametrize("axis", ["x", "z"])
def test_five_misplaced_labels_are_rejected(cohort, axis):
    mirrored = LTRC[five_lobes()][:, :, ::-1] if axis == "x" else LTRC[five_lobes()][::-1]
    with pytest.raises(SourceError, match=r"labels 1, 2, 3, 4, 5 without names.*or those of lobes"):
        give(cohort, mask_of(np.ascontiguousarray(mirrored), GRID))


def test_mask_without_lobes_replaces_one_with_lobes(cohort):
    give(cohort, lobe_mask())
    give(cohort, mask_of(two_lungs(), GRID, segments=segments_of(right_lung=1, left_lung=2)))
    case = cohort["one"]
    assert case.lobe_counts is None
    assert not case.has_lobes
    assert not case.is_started("lobe")
    label(cohort)
    assert rows_of_case(cohort["one"], ZONES_FILE, MODEL) == []
    assert problems_of(cohort) == []
    assert invalidate_corrupt_stages(cohort["one"]) == {}


@pytest.mark.parametrize("extension", [".seg.nrrd", ".nii.gz", ".dcm"])
def test_exported_lobes_are_taken_back(cohort, tmp_path, extension):
    give(cohort, lobe_mask())
    label(cohort)
    options = Options(with_ct=True) if extension == ".dcm" else None
    written = export_case(cohort["one"], tmp_path / f"one_lobe{extension}", image="lobe", options=options)
    (tmp_path / "other").mkdir()
    other = store_of_one(tmp_path / "other")
    give(other, open_mask(written[0]))
    check(other["one"], five_lobes())
    assert np.array_equal(other["one"].side_counts, cohort["one"].side_counts)


def test_names_and_codes_of_lobes():
    assert [lobe.region for lobe in LOBES] == [*LOBE_REGIONS]
    assert {*LOBE_REGIONS} <= {*MASK_REGIONS}
    for lobe in LOBES:
        side, level = lobe.region.split("_")
        other = {"upper": "superior", "lower": "inferior"}.get(level, level)
        slicer = {"upper": "45653009", "lower": "90572001"}.get(level)
        for name in (lobe.name, lobe.code.meaning, f"{side.title()}{other.title()}Lobe", f"lung_{level}_lobe_{side}"):
            assert region_of(name) == lobe.region
        assert region_of("", (lobe.code.scheme, lobe.code.value)) == lobe.region
        if slicer:
            modifier = ("SCT", {"right": "24028007", "left": "7771000"}[side])
            assert region_of("", ("SCT", slicer), [modifier]) == lobe.region


def test_case_without_lobes_says_how_to_get_them(cohort):
    give(cohort, mask_of(two_lungs(), GRID, segments=segments_of(right_lung=1, left_lung=2)))
    with pytest.raises(lungmix.LungmixError, match=r"no labels/lobe.*masks=PLACE"):
        _ = cohort["one"].lobe


def test_lobes_of_a_mask_on_another_grid_are_resampled(cohort):
    coarse = Geometry((10, 9, 20), (3.0, 3.0, 4.0), (-9.25, 3.75, -699.0))
    lobes = five_lobes()[::2, ::2, ::2]
    give(cohort, lobe_mask(np.ascontiguousarray(lobes), coarse))
    expected = lobes.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    check(cohort["one"], expected)
