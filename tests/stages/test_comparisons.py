"""Choice of the segments of a reference that each segment of a store is compared with."""

import pytest

from lungmix.errors import SourceError, UsageError
from lungmix.formats.masks import Segment
from lungmix.stages.comparisons import SEGMENTS, comparisons_of_labels, parse_what, plans_for


def segments(*names):
    return [Segment(number, "Rossi", None, region) for number, region in enumerate(names, start=10)]


@pytest.mark.parametrize(
    ("what", "names", "compared"),
    [
        ("lungs", ("right", "left", "airway"), {"lungs": {10, 11}, "right": {10}, "left": {11}}),
        ("lungs", ("lung", "tumor"), {"lungs": {10}}),
        ("lungs", ("left",), {"left": {10}}),
        ("lungs", ("left_upper", "right_upper", "left_lower", None),
         {"lungs": {10, 11, 12}, "right": {11}, "left": {10, 12}}),
        ("tissues", ("ggo", "consolidation", "lung"), {"ggo": {10}, "consolidation": {11}, "lesion": {10, 11}}),
        ("tissues", ("ggo", "lung"), {"ggo": {10}}),
        ("lesion=tumor,lesion=nodule", ("tumor", "nodule"), {"lesion": {10, 11}}),
        ("right=11,left=GTV", ("tumor", None), {"lungs": {10, 11}, "right": {11}, "left": {10}}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("may_overlap", [False, True])
def test_segments_are_chosen_by_their_regions(what, names, compared, may_overlap):
    plans = plans_for(what, segments(*names), may_overlap=may_overlap)
    assert chosen(plans) == compared
    assert len(plans) == (len(compared) if may_overlap else 1)


def chosen(plans):
    """Return, for each compared segment of the store, the numbers of segments of the reference."""
    return {
        comparison.region: {number for number, label in plan.values.items() if label in comparison.reference}
        for plan in plans
        for comparison in plan.comparisons
    }


def test_hundreds_of_segments_are_imported_with_the_labels_of_their_rows():
    regions = ["right_upper", "left_upper", "lung"] * 200
    (plan,) = plans_for("lungs", segments(*regions))
    assert set(plan.values.values()) == {1, 2, 3}
    numbers = {region: {10 + n for n, name in enumerate(regions) if name == region} for region in regions}
    rows = {"right": numbers["right_upper"], "left": numbers["left_upper"]}
    assert chosen([plan]) == {"lungs": set().union(*numbers.values()), **rows}


def test_comparisons_with_too_many_labels_for_one_import_have_one_import_each():
    pairs = [f"{row}={n}" for bit, row in enumerate(list(SEGMENTS)[1:9]) for n in range(1, 256) if n >> bit & 1]
    numbered = [Segment(n, "", None, "nodule" if n > 255 else None) for n in range(1, 300)]
    plans = plans_for(",".join([*pairs, "other=nodule"]), numbered)
    assert {label for plan in plans for label in plan.values.values()} == {1}
    rows = chosen(plans)
    assert rows["other"] == {*range(256, 300)}
    assert rows[list(SEGMENTS)[3]] == {n for n in range(1, 256) if n & 4}


@pytest.mark.parametrize("what", ["", "lung", "right", "right=", "right=0", "heart=1", "right=1,left=nobody"])
def test_unknown_comparisons_are_wrong_usage(what):
    with pytest.raises(UsageError, match="is not understood"):
        parse_what(what)


@pytest.mark.parametrize(("what", "labels"), [("lungs", [1, 2, 3]), ("lungs", []), ("tissues", [1, 2])])
def test_labels_without_names_are_not_guessed(what, labels):
    with pytest.raises(SourceError, match="does not name its labels"):
        comparisons_of_labels(what, labels)


def test_reference_without_any_known_segment_is_rejected_without_its_names():
    with pytest.raises(SourceError, match=r"names no known lungs, but has 10 \(unknown\), 11 \(tumor\)") as caught:
        plans_for("lungs", segments(None, "tumor"))
    assert "Rossi" not in str(caught.value)


@pytest.mark.parametrize(
    ("what", "seen"), [("ggo=11,other=77", "no segment 77"), ("lesion=GTV,lesion=nodule", "no segment tumor or nodule")]
)
def test_a_pair_that_the_reference_lacks_is_named_with_what_it_has(what, seen):
    with pytest.raises(SourceError, match=rf"{seen}, but has 10 \(right\), 11 \(ggo\): give one of these$"):
        plans_for(what, segments("right", "ggo"))
    with pytest.raises(SourceError, match=r"17 \(ggo\) and 2 more: give"):
        plans_for(what, segments(*["ggo"] * 10))
