"""Key object selections: read back with highdicom and pydicom, and validated by dciodvfy."""

import subprocess

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr.codedict import codes

import lungmix
from lungmix.errors import UsageError
from lungmix.export import Options, export_case, export_cohort
from lungmix.export.dicom_ko import KEY_SLICES, key_slices

counts_of_slices = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40)


@given(counts_of_slices)
def test_key_slices_are_those_with_most_involved_voxels_of_each_sixth(pairs):
    counts = np.array([(min(pair), max(pair)) for pair in pairs], np.int64).reshape(-1, 2)
    chosen = key_slices(counts)
    with_lung = [index for index, (_, lung) in enumerate(counts) if lung]
    assert len(chosen) <= KEY_SLICES
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(with_lung)
    assert bool(chosen) == bool(with_lung)
    if chosen:
        assert counts[chosen, 0].max() == counts[:, 0].max()
    if len(with_lung) == len(counts) >= KEY_SLICES:
        assert len(chosen) == KEY_SLICES


def test_key_slices_refer_to_the_slices_with_most_involved_tissue(finished_store, tmp_path):
    cohort = lungmix.open_cohort(finished_store)
    result = export_cohort(cohort, tmp_path / "out", "dicom-ko", options=Options(with_ct=True))
    assert not result.failed
    for name, (file, folder) in result.files.items():
        document = pydicom.dcmread(file)
        assert (document.Modality, document.PatientID, document.PatientIdentityRemoved) == ("KO", name, "YES")
        assert document.ConceptNameCodeSequence[0].CodeValue == codes.DCM.OfInterest.value
        headers = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        slices = {str(header.SOPInstanceUID): index for index, header in enumerate(headers)}
        references = [
            slices[str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)]
            for item in document.ContentSequence
            if item.ValueType == "IMAGE"
        ]
        labels = np.asarray(cohort[name].zarr_array("tissue")[:])
        involved, lung = (labels >= 3).sum(axis=(1, 2)), (labels > 0).sum(axis=(1, 2))
        assert references == key_slices(np.stack([involved, lung], axis=1))
        assert involved[references].max() == involved.max()
        again, _ = export_case(cohort[name], tmp_path / "again.dcm", format="dicom-ko", options=Options(with_ct=True))
        assert pydicom.dcmread(again) == document
        done = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True)
        assert not [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Abort"))]


def test_options_of_segmentations_and_images_are_rejected(finished_store, tmp_path):
    case = lungmix.open_cohort(finished_store)["case-001"]
    for options, image in (
        (Options(with_ct=True, binary=True), None),
        (Options(), None),
        (Options(with_ct=True), "lung"),
    ):
        with pytest.raises(UsageError):
            export_case(case, tmp_path / "a.dcm", image, "dicom-ko", options)
