"""Names with bytes that are no UTF-8 are read as any other name."""

import os

import numpy as np
import pytest

from lungmix.formats import find_scans
from lungmix.phantom import Phantom, write_phantom


@pytest.mark.parametrize("what", ["folder", "slice at an end", "slice in the middle"])
def test_series_with_a_name_that_is_no_utf8_is_read_as_any_other(tmp_path, what):
    phantom = Phantom((6, 16, 16))
    write_phantom(tmp_path / "plain", phantom)
    (expected,) = find_scans(tmp_path / "plain")
    slices = sorted((tmp_path / "plain").iterdir())
    volume = np.concatenate(list(expected.slabs(4)))
    source = tmp_path / "plain"
    if what == "folder":
        source = source.rename(tmp_path / os.fsdecode(b"J\xf6rg"))
    else:
        one = slices[0 if "end" in what else 3]
        one.rename(one.with_name(os.fsdecode(b"00\xe420.dcm")))
    (scan,) = find_scans(source)
    assert scan.geometry == expected.geometry
    assert np.array_equal(np.concatenate(list(scan.slabs(4))), volume)
