"""Images of posteriors as other programs read them."""

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

import lungmix
from lungmix.errors import SourceError, StoreError, UsageError
from lungmix.export import export_case, export_cohort
from lungmix.formats import Scan, find_scans
from lungmix.formats.images import LabelMapError, read_header
from lungmix.formats.masks.images import open_image
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.tissue import TISSUES
from oracle.posteriors import posteriors
from support.labelled import add_case

SHAPE = (150, 12, 14)
MODEL = "mask physical; model published:"


def made(folder, model=PUBLISHED):
    random = np.random.default_rng(7)
    ct = random.normal(-700, 350, SHAPE).astype(np.int16)
    lung = (random.random(SHAPE) < 0.6).astype(np.uint8)
    cohort = lungmix.open_cohort(folder, "a")
    add_case(cohort, "case-001", ct, lung, Geometry(SHAPE[::-1], (0.7, 0.8, 1.5), (1.0, 2.0, 3.0)), model=model)
    return cohort, posteriors(ct, model) * lung[..., None]


@pytest.mark.parametrize("extension", ["nrrd", "mha", "mhd", "nii.gz", "nii"])
@pytest.mark.parametrize("number", [2, 3])
def test_floats_are_the_posteriors_and_bytes_are_rounded(tmp_path, extension, number):
    cohort, expected = made(tmp_path / "s.zarr")
    case, key = cohort["case-001"], TISSUES[number].key
    floats, eight_bits = (
        export_case(case, tmp_path / f"a_{name}_{key}.{extension}")[0] for name in ("posterior", "posterior8")
    )
    image = sitk.ReadImage(str(floats))
    assert image.GetPixelID() == sitk.sitkFloat32
    assert np.array_equal(sitk.GetArrayFromImage(image), case.posterior(key).compute())
    assert np.abs(sitk.GetArrayFromImage(image) - expected[..., number]).max() < 1e-7
    assert Geometry.from_sitk(image).spacing == pytest.approx(case.geometry.spacing, rel=1e-7)
    if extension.startswith("nii"):
        stored = nibabel.load(eight_bits)
        assert stored.get_data_dtype() == np.uint8
        assert stored.dataobj.slope == pytest.approx(1 / 255, rel=1e-7)
        values, scaled = stored.dataobj.get_unscaled().T, stored.get_fdata().T
        text = bytes(stored.header["descrip"]).rstrip(b"\0").decode()
        assert text.startswith(f"posterior {key}; {MODEL}")
    else:
        image = sitk.ReadImage(str(eight_bits))
        assert image.GetPixelID() == sitk.sitkUInt8
        values = sitk.GetArrayFromImage(image)
        scaled = values * float(image.GetMetaData("lungmix_scale"))
        assert image.GetMetaData("lungmix_posterior") == key
        assert image.GetMetaData("lungmix_model").startswith("published:")
    assert np.array_equal(values, np.rint(255 * expected[..., number]))
    assert np.abs(scaled - expected[..., number]).max() < 0.5 / 255 + 1e-7


def test_images_are_written_slab_by_slab(tmp_path, monkeypatch):
    cohort, _ = made(tmp_path / "s.zarr")
    case = cohort["case-001"]
    assert len(list(case.layout.slabs())) > 1
    sizes = []
    from lungmix.export import images

    def write_slabs(path, slabs, geometry, dtype, **_):
        sizes.extend(len(slab) for slab in slabs)

    monkeypatch.setattr(images, "write_image", write_slabs)
    export_case(case, tmp_path / "a.nrrd", "posterior_ggo")
    assert sizes == [stop - start for start, stop in case.layout.slabs()]


def test_all_cases_are_exported(tmp_path):
    cohort, _ = made(tmp_path / "s.zarr")
    result = export_cohort(cohort, tmp_path / "out", "nrrd", "posterior8_air")
    assert [file.name for file in result.files["case-001"]] == ["case-001_posterior8_air.nrrd"]
    assert result.made_with["case-001"]["lungmix_model"].startswith("published:")


@pytest.mark.parametrize("name", list(itertools.chain.from_iterable((f"{n}_heart", n) for n in ("posterior", "ct8"))))
def test_unknown_images_are_rejected_with_the_known_ones(tmp_path, name):
    cohort, _ = made(tmp_path / "s.zarr")
    message = r"choose one of ct, .*posterior_TISSUE, posterior8_TISSUE, where TISSUE is air, .* or other"
    with pytest.raises(UsageError, match=message):
        export_case(cohort["case-001"], tmp_path / "a.nrrd", name)


def test_posteriors_are_no_labels(tmp_path):
    cohort, _ = made(tmp_path / "s.zarr")
    with pytest.raises(UsageError, match="no labels"):
        export_case(cohort["case-001"], tmp_path / "a.seg.nrrd", "posterior_ggo")


def test_other_mixtures_have_posteriors_by_number(tmp_path):
    cohort, expected = made(tmp_path / "s.zarr", TissueModel((0.5, 0.5), (-900, 0), (2500, 40000)))
    (file,) = export_case(cohort["case-001"], tmp_path / "a_posterior_component_2.mha")
    assert np.abs(sitk.GetArrayFromImage(sitk.ReadImage(str(file))) - expected[..., 1]).max() < 1e-7
    with pytest.raises(StoreError, match="choose one of component_1, component_2"):
        export_case(cohort["case-001"], tmp_path / "a.mha", "posterior_ggo")
    assert not (tmp_path / "a.mha").exists()


def test_case_without_labels_has_no_posteriors(tmp_path):
    cohort, _ = made(tmp_path / "s.zarr")
    lungmix.store.CaseWriter(cohort["case-001"]).start_stage("label", "another")
    with pytest.raises(StoreError, match="no finished image 'tissue'"):
        export_case(lungmix.open_cohort(tmp_path / "s.zarr")["case-001"], tmp_path / "a.nrrd", "posterior_ggo")


@pytest.mark.parametrize("extension", ["nrrd", "mha", "nii.gz"])
@pytest.mark.parametrize("name", ["posterior_ggo", "posterior8_ggo"])
def test_posteriors_are_read_neither_as_a_scan_nor_as_a_mask(tmp_path, extension, name):
    cohort, _ = made(tmp_path / "s.zarr")
    (file,) = export_case(cohort["case-001"], tmp_path / "out" / f"{name}.{extension}", name)
    with pytest.raises(LabelMapError, match="holds posteriors"):
        read_header(file)
    with pytest.raises(SourceError, match="holds posteriors"):
        open_image(file)
    assert not any(isinstance(item, Scan) for item in find_scans(file.parent))
