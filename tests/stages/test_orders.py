"""One chest in all 48 storage orders, which differ in order and direction of axes: results are always the same."""

import tempfile
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import lungmix
from lungmix.geometry import Geometry
from lungmix.kernels.mask import recipe_for
from lungmix.parameters import MaskParameters
from lungmix.phantom import Phantom
from lungmix.privacy.acquisition import Acquisition
from lungmix.stages import label, mask, measure, regions
from lungmix.stages.base import StageContext
from lungmix.store import MEASUREMENTS_FILE, RADIOMICS_FILE, CohortWriter
from oracle import reference
from support.generators import ORIENTATIONS, as_axial, case_of, reoriented

pytestmark = pytest.mark.usefixtures("stages_here")

MODEL = lungmix.load_model("published")
IMAGES = ("lung", "side", "tissue", "tissue_median")
PAPER = MaskParameters(opening=1, min_voxels=900, radii=(4, 3))
PHYSICAL = MaskParameters("physical", min_voxels=900)
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
# Odd and even sizes and several slice spacings, so that blocks of coarse levels are cut in every way.
CHESTS = [
    Phantom((37, 67, 75), (1.3, 1.2, 1.7), 3, traps={"touching", "cut"}),
    Phantom((29, 63, 66), (3.1, 2.9, 6.5), 4, traps={"cut", "bowel"}),
    Phantom((50, 91, 88), (0.8, 0.9, 0.3), 5, traps={"cut", "vessels"}),
    Phantom((31, 61, 59), (4.4, 4.7, 6.1), 6, traps={"cut", "big-bowel"}, direction=OBLIQUE),
]


def results_of(volume, geometry, parameters, chunk_slices=None):
    """Return the results of the stages for a scan, with label maps as axial arrays."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = lungmix.open_cohort(f"{folder}/s.zarr", "a")
        case_of(cohort, "one", volume, geometry, chunk_slices)
        mask.MaskStage(parameters).run(StageContext(None, cohort), "one")
        label.LabelStage(MODEL).run(StageContext(None, cohort), "one")
        case = cohort["one"]
        results = {image: as_axial(case.zarr_array(image)[:], geometry) for image in IMAGES}
        results["counts"], results["side counts"] = case.hu_counts, case.side_counts
        results["median voxels"] = np.array(case.stages["label"]["median_voxels"])
        for file in (MEASUREMENTS_FILE, RADIOMICS_FILE):
            rows = measure.rows_of_case(case, file, MODEL)
            # Compare numbers as text, in which NaN equals NaN and a float has all its digits.
            results[file] = np.array([[repr(value) for key, value in row.items() if key != "case"] for row in rows])
        return results


def check_same(actual, expected):
    for name, values in expected.items():
        assert np.array_equal(actual[name], values), name


@pytest.fixture(scope="module")
def axial():
    """Function that returns the results for the axial array, computed once per chest and preset."""
    made = {}

    def of(phantom, parameters):
        key = phantom.seed, parameters
        if key not in made:
            made[key] = results_of(phantom.volume(), phantom.geometry, parameters)
        return made[key]

    return of


@pytest.mark.parametrize("phantom", CHESTS, ids=lambda phantom: str(phantom.shape))
def test_results_of_the_axial_array_are_those_of_the_oracle(axial, phantom):
    hu, z_first = phantom.volume(), phantom.spacing[::-1]
    actual = axial(phantom, PAPER)
    assert actual["lung"].any(axis=(1, 2)).all()
    assert np.array_equal(actual["lung"] > 0, reference.lung_mask(hu, n_open=1, min_voxels=900, radii=(4, 3)))
    assert np.array_equal(actual["tissue_median"], ndimage.median_filter(actual["tissue"], size=4))
    physical = axial(phantom, PHYSICAL)
    extent = [int(np.floor(2.1 / s + 0.5)) for s in z_first]
    opened = reference.opening(hu < -155, reference.diamond(*extent)) if any(extent) else hu < -155
    kept = reference.islands(opened, 900)
    assert np.array_equal(physical["lung"] > 0, reference.closing(kept, reference.ellipsoid(10.0, z_first)))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_one_chest_gives_the_same_in_each_of_48_storage_orders(axial, orientation):
    phantom = CHESTS[0]
    volume, geometry = reoriented(phantom.volume(), phantom.geometry, orientation)
    check_same(results_of(volume, geometry, PHYSICAL, 8), axial(phantom, PHYSICAL))


@given(
    st.sampled_from(CHESTS), st.sampled_from([PAPER, PHYSICAL]), st.sampled_from(ORIENTATIONS),
    st.sampled_from([8, 16, 32, 64]),
)  # fmt: skip
@settings(max_examples=12)
def test_storage_orders_presets_and_chunks_change_nothing(axial, phantom, parameters, orientation, chunk_slices):
    volume, geometry = reoriented(phantom.volume(), phantom.geometry, orientation)
    check_same(results_of(volume, geometry, parameters, chunk_slices), axial(phantom, parameters))


def test_volumes_of_a_voxel_and_the_smallest_component_are_equal_in_each_order():
    # The last digit of the product of these spacings depends on the order of multiplication.
    spacing = 0.7, 0.8, 1.1
    assert len({a * b * c for a, b, c in permutations(spacing)}) > 1
    axial, actual = Geometry((4, 3, 2), spacing), set()
    for orientation in ORIENTATIONS:
        geometry = reoriented(np.zeros(axial.shape, np.int16), axial, orientation)[1]
        recipe = recipe_for(MaskParameters("physical"), geometry.spacing_zyx, geometry.axis_order)
        actual.add((geometry.voxel_ml, recipe.min_voxels))
    assert len(actual) == 1


def keys_of(folder, geometry):
    cohort = lungmix.open_cohort(folder / "s.zarr", "a")
    case = CohortWriter(cohort).add("one", geometry, Acquisition())
    case.record("convert", {"voxels_sha256": "one"})
    case.record("mask", {"key": mask.key_for(case, MaskParameters("physical"))})
    return mask.key_for(case, MaskParameters("physical")), regions.key_for(case), label.key_for(case, MODEL)


def test_keys_of_axial_scans_are_those_of_earlier_versions(tmp_path):
    assert keys_of(tmp_path, Phantom((20, 40, 40), (4.5, 4.5, 9.0)).geometry) == (
        "3dcdcc5723dbb3c5bd42fcb6eca32120ff99e3837dac7f252f8203399a8a93b6",
        "4a9b5be8d9ca19070880d5cbf72c70e84032e9903b75fd27fa00752ff50b0704",
        "aa7c3389906545fd0e835e58aa3412209baf59fa5ae4f9397ead4b3b469dac28",
    )


def test_keys_contain_the_order_of_axes_only_if_results_depend_on_it(tmp_path):
    axial = Geometry((4, 4, 4))
    keys = {name: keys_of(tmp_path / name, reoriented(np.zeros((4, 4, 4), np.int16), axial, name)[1])
            for name in ("LPS", "RAS", "PLS", "PIR")}  # fmt: skip
    masks, sides, labels = ({name: key[i] for name, key in keys.items()} for i in range(3))
    assert masks["RAS"] == masks["PLS"] == masks["LPS"] != masks["PIR"]
    assert len(set(sides.values())) == 4
    assert labels["PLS"] == labels["LPS"]
    assert len(set(labels.values())) == 3
