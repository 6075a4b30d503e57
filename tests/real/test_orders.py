"""A real chest in other storage orders: the same voxels and measurements as its axial slices."""

import numpy as np
import pytest

from lungmix.formats import find_scans
from lungmix.parameters import MaskParameters
from stages.test_orders import check_same, results_of
from support.generators import reoriented

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.usefixtures("stages_here")]


def test_real_chest_gives_the_same_in_the_orders_in_which_it_was_lost(real_ct):
    (scan,) = find_scans(real_ct / "dx-a0002-soft")
    volume = np.concatenate(list(scan.slabs(16)))
    expected = results_of(volume, scan.geometry, MaskParameters("physical"))
    assert int(expected["counts"].sum()) == 882184
    for orientation in ("PIR", "RIP", "RAS"):
        check_same(results_of(*reoriented(volume, scan.geometry, orientation), MaskParameters("physical")), expected)
