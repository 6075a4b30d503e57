"""Voxels with two labels, in files whose segments overlap."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from formats.masks import test_dicom_seg, test_named_labels, test_rtstruct
from lungmix.formats.masks import open_mask
from lungmix.formats.masks.mask_file import Overlap, write_over
from support.segmentations import segment, segmentation
from support.structure_sets import structure_set

OVERLAP = Overlap((4,), (5, 7), 9)


@pytest.mark.parametrize("labels", [*itertools.permutations([4, 5, 4, 6]), *itertools.permutations([4, 5, 7])])
def test_voxels_of_both_labels_are_those_of_any_two_segments_with_them(labels):
    segments = [label * np.random.default_rng(n).integers(0, 2, 500).astype(np.uint8) for n, label in enumerate(labels)]
    written = np.zeros(500, np.uint8)
    for layer in segments:
        write_over(written, layer, OVERLAP)
    for voxel, result in enumerate(written):
        expected = 0
        for layer in segments:
            label = int(layer[voxel])
            if label:
                expected = 9 if {expected, label} in ({4, 5}, {4, 7}, {4, 9}, {5, 9}, {7, 9}) else label
        assert result == expected


def _seg(folder):
    planes = np.random.default_rng(4).integers(0, 2, (*test_dicom_seg.GRID.shape, 2)).astype(np.uint8)
    segmentation(folder / "seg.dcm", planes, [segment(1, "a"), segment(2, "b")])
    return "seg.dcm", planes[..., 0] > 0, planes[..., 1] > 0


def _slicer(folder):
    layers = test_named_labels.LAYERS
    segments = [{"Name": str(layer), "LabelValue": layer + 1, "Layer": layer} for layer in range(2)]
    values = layers[..., :2] * np.array([1, 2], np.uint8)
    test_named_labels.segmentation(folder / "a.seg.nrrd", values, segments, kinds="domain domain domain")
    return "a.seg.nrrd", layers[..., 0] > 0, layers[..., 1] > 0


def _rtstruct(folder):
    outlines, filled = test_rtstruct.outlines, test_rtstruct.filled
    structures = {"a": outlines([1]), "b": outlines([1], points=test_rtstruct.HOLE)}
    structure_set(folder / "rs.dcm", structures)
    first, second = np.zeros((2, *test_rtstruct.GRID.shape), bool)
    first[1], second[1] = filled(test_rtstruct.OUTER), filled(test_rtstruct.HOLE)
    return "rs.dcm", first, second


@pytest.mark.parametrize("write", [_seg, _slicer, _rtstruct])
def test_a_file_marks_voxels_of_both_labels_where_that_is_asked_for(write, tmp_path):
    name, first, second = write(tmp_path)
    mask = open_mask(tmp_path / name)
    assert mask.may_overlap
    assert (first & second).any()
    grid = mask.geometry or test_rtstruct.GRID
    expected = np.where(first & second, 9, np.where(first, 4, np.where(second, 5, 0)))
    for values in ({1: 4, 2: 5}, {2: 5, 1: 4}):
        slabs = replace(mask, overlap=OVERLAP).label_slabs(values, grid, 2)
        assert np.array_equal(np.concatenate(list(slabs)), expected)
