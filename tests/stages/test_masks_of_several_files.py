"""Masks of several files as the masks of cases, and as references."""

from dataclasses import replace

import numpy as np
import pytest

from lungmix.errors import SourceError
from lungmix.formats.masks.combined import MaskPart, combine
from lungmix.stages.flags import flags_of
from stages.test_given_mask import GRID, give, label, problems_of, store_of_one, two_lungs
from support.generators import reoriented
from support.masks import mask_of, segments_of

pytestmark = pytest.mark.usefixtures("stages_here")


@pytest.fixture
def cohort(tmp_path):
    return store_of_one(tmp_path)


def part(labels, name, geometry=GRID, **facts):
    return MaskPart(mask_of(labels, geometry, f"/Rossi/{name}", segments=segments_of(**{name: 1}), **facts))


def lobes(*names, cut=20):
    """Return masks of lobes below and above a slice; lobes of the right lung do not overlap."""
    lungs = two_lungs()
    upper = np.arange(GRID.shape[0])[:, None, None] >= cut
    shapes = {"RUL": upper & (lungs == 1), "RLL": ~upper & (lungs == 1), "RML": np.zeros(GRID.shape, bool),
              "LUL": upper & (lungs == 2), "LLL": ~upper & (lungs == 2)}  # fmt: skip
    return [part(shapes[name].astype(np.uint16), name, fingerprint=name) for name in names]


ALL = ("RUL", "RML", "RLL", "LUL", "LLL")


def test_lobes_in_files_are_the_lungs(cohort):
    give(cohort, combine(lobes(*ALL)))
    assert np.array_equal(cohort["one"].side.compute(), two_lungs())
    provenance = cohort["one"].stages["mask"]["from_file"]
    assert provenance["files"] == 5
    assert provenance["labels"] == {
        "right_upper": [5], "right_middle": [4], "right_lower": [3], "left_upper": [2], "left_lower": [1],
    }  # fmt: skip
    assert "Rossi" not in str(cohort["one"].stages)
    assert not [note for note in flags_of(cohort["one"]) if "mask" in note]
    label(cohort)
    assert problems_of(cohort) == []


def test_a_mask_is_kept_until_one_of_its_files_changes(cohort):
    mask = combine(lobes(*ALL))
    assert [give(cohort, mask), give(cohort, combine(lobes(*reversed(ALL))))] == ["done", "kept"]
    changed = lobes(*ALL)
    changed[3] = replace(changed[3], mask=replace(changed[3].mask, fingerprint="new"))
    assert give(cohort, combine(changed)) == "done"


@pytest.mark.parametrize("orientation", ["LPS", "SAR"])
def test_voxels_of_both_lungs_count_as_left_and_their_volume_is_noted(cohort, orientation):
    lungs = two_lungs()
    right = (lungs == 1).astype(np.uint16)
    right[10:12, 7:9, 12] = 1
    parts = []
    for name, labels in (("right_lung", right), ("left_lung", (lungs == 2).astype(np.uint16))):
        turned, grid = reoriented(labels, GRID, orientation)
        parts.append(part(turned, name, grid))
    assert (lungs[10:12, 7:9, 12] == 2).all()
    give(cohort, combine(parts))
    assert np.array_equal(cohort["one"].side.compute(), lungs)
    (note,) = (note for note in flags_of(cohort["one"]) if "overlap" in note)
    assert "0.018 mL (4 voxels) belong to both, and count as left" in note


def test_lobes_that_no_file_holds_are_noted(cohort):
    give(cohort, combine(lobes("RUL", "RLL", "LUL", "LLL")))
    (note,) = (note for note in flags_of(cohort["one"]) if "lobes" in note)
    assert "not the right middle lobe" in note


def test_labels_of_several_files_cannot_be_given_by_number(cohort):
    with pytest.raises(SourceError, match="one of 5 files of a mask, whose numbers are not those"):
        give(cohort, combine(lobes(*ALL)), "right=1,left=2")
    give(cohort, combine(lobes(*ALL)), "right=rul,left=lul")
    assert np.array_equal(cohort["one"].side.compute()[20:], two_lungs()[20:])
    assert not cohort["one"].side.compute()[:20].any()
