"""Fixtures of a labelled case, with axes along those of the patient, flipped or oblique."""

import pytest

import lungmix
from lungmix.geometry import Geometry
from support.generators import DIRECTIONS, labelled_case


@pytest.fixture
def cohort(tmp_path):
    return lungmix.open_cohort(tmp_path / "store.zarr", "a")


@pytest.fixture(params=DIRECTIONS)
def case(cohort, request):
    geometry = Geometry((33, 20, 70), (0.7, 0.9, 0.1 + 0.2), (-1 / 3, 2.5, -100.1), DIRECTIONS[request.param])
    return labelled_case(cohort, "case-001", geometry)
