import gzip
import os
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from lungmix.errors import SourceError, UsageError
from lungmix.formats import RejectedSource, Scan, find_scans, write_image
from lungmix.formats.images import KINDS
from lungmix.geometry import Geometry
from lungmix.phantom import Phantom, write_phantom

EXTENSIONS = (".nrrd", ".mha", ".mhd", ".nii", ".nii.gz")
VOLUME = np.random.default_rng(0).integers(-1024, 3071, (7, 5, 6)).astype(np.int16)


@st.composite
def geometries(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    if draw(st.booleans()):
        rotation = np.eye(3)[random.permutation(3)] * random.choice([-1, 1], 3)
    return Geometry((6, 5, 7), tuple(random.uniform(0.3, 8, 3)), tuple(random.uniform(-400, 400, 3)), rotation.ravel())


def only(source):
    (item,) = find_scans(source)
    return item


def read(scan, thickness=3):
    return np.concatenate(list(scan.slabs(thickness)))


@given(geometries(), st.sampled_from(EXTENSIONS), st.integers(1, 8))
@settings(max_examples=80)
def test_written_image_is_read_by_simpleitk_with_its_geometry(tmp_path_factory, geometry, extension, thickness):
    path = tmp_path_factory.mktemp("images") / f"image{extension}"
    write_image(path, [VOLUME[:4], VOLUME[4:]], geometry, np.int16)
    image = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(image), VOLUME)
    geometry_read = Geometry.from_sitk(image)
    if extension in (".mha", ".mhd"):
        assert geometry_read == geometry
    else:
        # Tolerance of other formats than MetaImage: NRRD stores direction times spacing, NIfTI 32-bit floats.
        tolerance = 1e-15 if extension == ".nrrd" else 2e-7
        assert geometry_read.origin == geometry.origin or extension != ".nrrd"
        assert np.allclose(geometry_read.spacing, geometry.spacing, rtol=tolerance, atol=0)
        assert np.allclose(geometry_read.direction, geometry.direction, rtol=0, atol=4 * tolerance)
        assert np.allclose(geometry_read.origin, geometry.origin, rtol=tolerance, atol=tolerance)
    scan = only(path)
    assert scan.geometry == geometry_read
    assert np.array_equal(read(scan, thickness), VOLUME)


@given(geometries())
@settings(max_examples=30)
def test_geometry_that_came_from_nrrd_goes_back_to_the_last_bit(tmp_path_factory, geometry):
    folder = tmp_path_factory.mktemp("nrrd")
    write_image(folder / "a.nrrd", [VOLUME], geometry, np.int16)
    first = only(folder / "a.nrrd").geometry
    write_image(folder / "b.nrrd", [VOLUME], first, np.int16)
    assert only(folder / "b.nrrd").geometry == first


def test_axes_along_the_patient_are_exact_in_nrrd(tmp_path):
    geometry = Geometry(
        (6, 5, 7), (0.1 + 0.2, 1 / 3, 0.898438), (-228.036842, 1e-7, 2 / 3), (-1, 0, 0, 0, 0, 1, 0, 1, 0)
    )
    write_image(tmp_path / "a.nrrd", [VOLUME], geometry, np.int16)
    assert Geometry.from_sitk(sitk.ReadImage(str(tmp_path / "a.nrrd"))) == geometry


def test_nibabel_sees_the_same_affine_as_simpleitk(tmp_path):
    geometry = Geometry(
        (6, 5, 7), (0.5, 0.75, 2.0), (-10.0, 20.0, 30.5), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    )
    write_image(tmp_path / "a.nii.gz", [VOLUME], geometry, np.int16)
    image = nibabel.load(tmp_path / "a.nii.gz")
    columns = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    expected = np.diag([-1, -1, 1]) @ np.column_stack([columns, geometry.origin])
    assert np.array_equal(image.affine[:3], expected)
    assert np.array_equal(np.asarray(image.dataobj).T, VOLUME)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("extension", [*EXTENSIONS, ".nhdr"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.float32, np.float64, np.uint8])
def test_files_of_simpleitk_are_read_voxel_for_voxel(tmp_path, extension, dtype, compressed):
    volume = (VOLUME if np.dtype(dtype).kind != "u" else VOLUME - VOLUME.min()).clip(
        0 if dtype == np.uint8 else -1024, 255
    )
    image = sitk.GetImageFromArray(volume.astype(dtype))
    image.SetSpacing((0.7, 0.8, 1.25))
    path = tmp_path / f"image{extension}"
    sitk.WriteImage(image, str(path), compressed)
    scan = only(path)
    assert isinstance(scan, Scan), scan
    assert scan.geometry == Geometry.from_sitk(sitk.ReadImage(str(path)))
    assert np.array_equal(read(scan), volume.astype(dtype))


def test_nifti_with_a_slope_is_read_in_hu(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_slope_inter(2, -1024)
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nibabel.Nifti1Image(stored * 2.0 - 1024, np.eye(4), header).to_filename(tmp_path / "a.nii")
    scan = only(tmp_path / "a.nii")
    assert np.array_equal(read(scan), sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii"))).round())


def refusal_of(path):
    """Return the reason why a file is rejected, when its header or its voxels are read."""
    item = only(path)
    if isinstance(item, RejectedSource):
        return item.reason
    with pytest.raises(SourceError) as caught:
        read(item)
    return str(caught.value)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_truncated_file_is_named(tmp_path, extension):
    path = tmp_path / f"cut{extension}"
    noise = np.random.default_rng(0).integers(-1024, 3071, (20, 30, 30)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path), extension != ".nii")
    data = path if extension != ".mhd" else path.with_suffix(".zraw")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    assert data.name in refusal_of(path)
    assert "again" in refusal_of(path)


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (sitk.Image(5, 6, sitk.sitkInt16), "2-D"),
        (sitk.Image([5, 6, 7, 2], sitk.sitkInt16), "4-D|values per voxel"),
        (sitk.Image([5, 6, 7], sitk.sitkVectorUInt8, 3), "3 values per voxel"),
    ],
)
@pytest.mark.parametrize("extension", [".nrrd", ".mha"])
def test_image_that_is_no_volume_is_rejected(tmp_path, image, match, extension):
    sitk.WriteImage(image, str(tmp_path / f"odd{extension}"))
    import re

    assert re.search(match, refusal_of(tmp_path / f"odd{extension}"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_voxel_that_is_no_number_is_named_with_its_place(tmp_path, value):
    volume = np.zeros((5, 4, 3), np.float32)
    volume[4, 2, 1] = value
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(tmp_path / "a.nrrd"))
    assert "slice 4, row 2, column 1" in refusal_of(tmp_path / "a.nrrd")


def test_format_that_is_only_read_is_not_written_as_another(tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, ".toy", "toy")
    with pytest.raises(UsageError, match="no supported extension"):
        write_image(tmp_path / "a.toy", [VOLUME], Geometry((6, 5, 7)), np.int16)
    assert not (tmp_path / "a.toy").exists()


def test_values_beyond_16_bits_are_rejected(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 2, 2), 40_000, np.int32)), str(tmp_path / "a.mha"))
    assert "16 bits" in refusal_of(tmp_path / "a.mha")


@pytest.mark.parametrize("extension", [*EXTENSIONS, ".nhdr", ".zip", ".tar.gz", ".dcm", ".xyz"])
@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 9])
def test_file_that_is_no_image_is_rejected_with_its_name(tmp_path, extension, content):
    path = tmp_path / f"junk{extension}"
    path.write_bytes(content)
    assert path.name in refusal_of(path)


def test_missing_path_and_empty_folder_are_rejected(tmp_path):
    assert "does not exist" in refusal_of(tmp_path / "none.nrrd")
    assert "no CT series" in refusal_of(tmp_path)


def test_excessive_size_is_rejected_before_memory_is_allocated(tmp_path):
    (tmp_path / "a.mha").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 99999 99999 99999\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    assert "a.mha" in refusal_of(tmp_path / "a.mha")


@pytest.mark.parametrize("place", ["../secret.raw", "/etc/hostname", "sub/secret.raw"])
def test_header_cannot_name_data_outside_its_folder(tmp_path, place):
    folder = tmp_path / "in" / "sub"
    folder.mkdir(parents=True)
    (tmp_path / "secret.raw").write_bytes(bytes(1000))
    (folder / "secret.raw").write_bytes(bytes(1000))
    (tmp_path / "in" / "a.mhd").write_text(
        f"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = {place}\n"
    )
    assert "a.mhd" in refusal_of(tmp_path / "in" / "a.mhd")
    (tmp_path / "in" / "a.nhdr").write_text(
        f"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nendian: little\nencoding: raw\ndata file: {place}\n\n"
    )
    assert "a.nhdr" in refusal_of(tmp_path / "in" / "a.nhdr")


def test_list_and_archive_lead_to_the_same_scans(tmp_path):
    write_image(tmp_path / "one.nrrd", [VOLUME], Geometry((6, 5, 7)), np.int16)
    write_image(tmp_path / "two.mha", [VOLUME], Geometry((6, 5, 7)), np.int16)
    (tmp_path / "list.txt").write_text("# scans\none.nrrd\n\ntwo.mha\nmissing.nrrd\n")
    (tmp_path / "list.csv").write_text("patient,path\n1,one.nrrd\n2,two.mha\n")
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        archive.write(tmp_path / "one.nrrd", "inner/one.nrrd")
        archive.write(tmp_path / "two.mha", "two.mha")
    assert [type(s).__name__ for s in find_scans(tmp_path / "list.txt")] == ["Scan", "Scan", "RejectedSource"]
    for source in ("list.csv", "both.zip"):
        scans = find_scans(tmp_path / source)
        assert sorted(s.name for s in scans) == ["one", "two"]
        assert all(np.array_equal(read(s), VOLUME) for s in scans)


@pytest.mark.parametrize("name", ["../out.nrrd", "/tmp/out.nrrd", "a/../../out.nrrd"])
def test_archive_cannot_write_outside(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(name, b"x")
    assert "bad.zip" in refusal_of(tmp_path / "bad.zip")


def test_same_file_elsewhere_has_another_key_and_changed_file_another_fingerprint(tmp_path):
    write_image(tmp_path / "a.nrrd", [VOLUME], Geometry((6, 5, 7)), np.int16)
    first = only(tmp_path / "a.nrrd")
    assert only(tmp_path / "a.nrrd") == first
    (tmp_path / "b.nrrd").write_bytes((tmp_path / "a.nrrd").read_bytes())
    assert only(tmp_path / "b.nrrd").key != first.key
    write_image(tmp_path / "a.nrrd", [VOLUME + 1], Geometry((6, 5, 7)), np.int16)
    assert only(tmp_path / "a.nrrd").fingerprint != first.fingerprint


@pytest.mark.parametrize("place", [0, 1 << 19, (1 << 20) - 2])
def test_scans_of_equal_size_and_time_have_fingerprints_of_their_content(tmp_path, place):
    volume = np.full((8, 256, 256), -1024, np.int16)
    other = volume.copy()
    other.reshape(-1)[place // 2] = 7
    for name, image in (("a", volume), ("b", other)):
        write_image(tmp_path / f"{name}.nii", [image], Geometry((256, 256, 8)), np.int16)
        os.utime(tmp_path / f"{name}.nii", ns=(1, 1))
    assert only(tmp_path / "a.nii").fingerprint != only(tmp_path / "b.nii").fingerprint


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.nrrd"
    write_image(path, [VOLUME], Geometry((6, 5, 7)), np.int16)
    with pytest.raises(UsageError, match="slices"):
        write_image(path, [VOLUME[:3]], Geometry((6, 5, 7)), np.int16)
    assert np.array_equal(read(only(path)), VOLUME)
    assert [p.name for p in tmp_path.iterdir()] == ["a.nrrd"]


def test_same_voxels_give_the_same_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_image(tmp_path / name, [VOLUME], Geometry((6, 5, 7)), np.int16)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes())[352:] == VOLUME.tobytes()


def test_scans_of_a_folder_come_in_the_order_of_their_names_whatever_they_are(tmp_path):
    for name in ("scan 10.mha", "scan 9.nrrd", "scan 1.nii"):
        write_image(tmp_path / name, [VOLUME], Geometry((6, 5, 7)), np.int16)
    write_phantom(tmp_path / "scan 2", Phantom((4, 16, 16)))
    assert [Path(scan.path).name for scan in find_scans(tmp_path)] == [
        "scan 1.nii", "scan 2", "scan 9.nrrd", "scan 10.mha",
    ]  # fmt: skip


@pytest.mark.parametrize(("units", "read"), [("mm", True), ("", True), ("microns", False), ("cm", False), ("m", False)])
def test_lengths_of_nrrd_in_other_units_than_mm_are_rejected(tmp_path, units, read):
    write_image(tmp_path / "a.nrrd", [VOLUME], Geometry((6, 5, 7)), np.int16)
    header, voxels = (tmp_path / "a.nrrd").read_bytes().split(b"\n\n", 1)
    field = f'\nspace units: "{units}" "{units}" "{units}"\n\n'.encode()
    (tmp_path / "b.nrrd").write_bytes(header + field + voxels)
    if read:
        assert only(tmp_path / "b.nrrd").geometry == Geometry((6, 5, 7))
    else:
        assert "'space units' are not mm" in refusal_of(tmp_path / "b.nrrd")


def test_a_metaimage_with_metadata_of_other_formats_is_read(tmp_path):
    """SimpleITK copies keys of NRRD and DICOM, with brackets and bars, into the header."""
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    for key, value in (("NRRD_kinds[0]", "domain"), ("0008|0060", "CT"), ("ITK_InputFilterName", "NrrdImageIO")):
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(tmp_path / "a.mha"), True)
    assert b"NRRD_kinds[0]" in (tmp_path / "a.mha").read_bytes()
    (scan,) = find_scans(tmp_path / "a.mha")
    assert np.array_equal(np.concatenate(list(scan.slabs(1))), sitk.GetArrayFromImage(image))
