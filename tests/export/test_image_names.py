"""The image that a file name contains as a word."""

import pytest

from lungmix.export.images import image_in_name


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("case-001.nrrd", "ct"),
        ("case-001_ct.nrrd", "ct"),
        ("case-001_side.nrrd", "side"),
        ("case-001_region.nii.gz", "region"),
        ("case-001_tissue_median.seg.nrrd", "tissue_median"),
        ("tissue-median.mha", "tissue_median"),
        ("case-001_tissue.nrrd", "tissue"),
        ("case-001_posterior_ggo.nrrd", "posterior_ggo"),
        ("case-001_posterior8_consolidation.nii.gz", "posterior8_consolidation"),
        ("posterior-component-2.mha", "posterior_component_2"),
        ("posterior_of_lung.mha", "lung"),
        ("lungs.nrrd", "lung"),
        ("lung1-001.nrrd", "ct"),
        ("lung_1_ct.nrrd", "ct"),
        ("ct_lung.nrrd", "lung"),
        ("tissues/case-001.nrrd", "ct"),
    ],
)
def test_the_last_word_that_is_an_image_decides(name, image):
    assert image_in_name(name) == image


def test_a_name_without_an_image_means_the_default():
    assert image_in_name("case-001.seg.nrrd", "tissue") == "tissue"
