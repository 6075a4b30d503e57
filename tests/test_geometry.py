"""Order and direction of array axes in the patient, compared with ITK's DICOMOrient."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from lungmix.geometry import IDENTITY, AxisOrder, Geometry, axis_order
from support.examples import examples
from support.generators import DIRECTIONS, ORIENTATIONS, reoriented

rotations = st.integers(0, 2**32 - 1).map(
    lambda seed: tuple(np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0].ravel())
)
R = 0.5**0.5
DIAGONAL = {
    "in plane": (R, -R, 0, R, R, 0, 0, 0, 1),
    "in plane the other way": (R, R, 0, -R, R, 0, 0, 0, 1),
    "sagittal": (1, 0, 0, 0, R, -R, 0, R, R),
    "coronal": (R, 0, R, 0, 1, 0, -R, 0, R),
    "all axes": (2 / 3, -1 / 3, 2 / 3, 2 / 3, 2 / 3, -1 / 3, -1 / 3, 2 / 3, 2 / 3),
}


def numbered(geometry):
    return np.arange(np.prod(geometry.shape), dtype=np.int16).reshape(geometry.shape)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_axial_array_of_each_storage_order_is_that_of_itk(orientation):
    axial = Geometry((5, 4, 3), (0.7, 0.8, 2.5), (-10.0, 20.0, 30.0))
    volume, geometry = reoriented(numbered(axial), axial, orientation)
    order = geometry.axis_order
    assert order.is_axial == (orientation == "LPS")
    assert np.array_equal(order.to_axial(volume), numbered(axial))
    assert np.array_equal(order.from_axial(numbered(axial)), volume)
    assert geometry.axial == axial
    assert geometry.voxel_ml == axial.voxel_ml
    assert geometry.slice_spacing == 2.5
    assert order.by_patient(geometry.shape) == axial.shape
    assert order.by_array(axial.shape) == geometry.shape


@given(rotations, st.sampled_from(ORIENTATIONS))
@examples(50)
def test_oblique_volumes_are_turned_to_the_axial_array_as_by_itk(direction, orientation):
    image = Geometry((4, 3, 2), (0.7, 0.8, 2.5), (1.0, 2.0, 3.0), direction)
    volume, geometry = reoriented(numbered(image), image, orientation)
    expected, axial = reoriented(volume, geometry, "LPS")
    assert np.array_equal(geometry.axis_order.to_axial(volume), expected)
    assert geometry.axial.direction == pytest.approx(axial.direction, abs=1e-12)
    assert geometry.axial.origin == pytest.approx(axial.origin, abs=1e-9)


@pytest.mark.parametrize("tie", DIAGONAL)
@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_axes_at_45_degrees_have_one_axial_array_in_all_storage_orders(tie, noise):
    random = np.random.default_rng(1)
    volume = numbered(Geometry((4, 3, 2)))
    arrays = set()
    for axes in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]:
        for signs in np.ndindex(2, 2, 2):
            # Array axes z, y, x are columns 2, 1, 0.
            columns = np.reshape(DIAGONAL[tie], (3, 3))[:, ::-1][:, axes] * np.where(signs, -1, 1)
            direction = columns[:, ::-1] + random.uniform(-noise, noise, (3, 3))
            stored = volume.transpose(axes)[tuple(slice(None, None, -1 if sign else 1) for sign in signs)]
            arrays.add(axis_order(direction.ravel()).to_axial(stored).tobytes())
    assert len(arrays) == 1


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_axial_geometry_gives_the_position_of_each_voxel(direction):
    geometry = Geometry((5, 4, 3), (0.7, 0.8, 2.5), (1.0, 2.0, 3.0), direction)
    stored, axial = (g.apply_to(sitk.Image(g.size, sitk.sitkInt16)) for g in (geometry, geometry.axial))
    numbers = np.arange(60).reshape(3, 4, 5)
    turned = geometry.axis_order.to_axial(numbers)
    for z, y, x in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        index = np.argwhere(numbers == turned[z, y, x])[0][::-1].tolist()
        assert axial.TransformIndexToPhysicalPoint((x, y, z)) == pytest.approx(
            stored.TransformIndexToPhysicalPoint(index)
        )


def test_axes_of_unknown_orientation_stay_as_they_are():
    geometry = Geometry((4, 3, 2), direction=(-1.0, *IDENTITY[1:]), orientation_known=False)
    assert geometry.axis_order == AxisOrder()
    assert geometry.axial.orientation_known is False
