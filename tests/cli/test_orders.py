"""One chest in files of different storage orders, through the command line."""

import csv

import pytest
import SimpleITK as sitk

from lungmix.cli.app import _status_of
from lungmix.phantom import Phantom

pytestmark = pytest.mark.slow


def test_axial_sagittal_and_coronal_files_of_a_chest_have_equal_volumes(client, tmp_path):
    # The lungs of this chest reach the first and the last slice, as in a scan that is cut off.
    phantom = Phantom((60, 80, 80), (4.4, 4.4, 5.2), traps=frozenset({"cut"}))
    image = phantom.geometry.apply_to(sitk.GetImageFromArray(phantom.volume()))
    (tmp_path / "in").mkdir()
    for order in ("LPS", "PIR", "RIP"):
        sitk.WriteImage(sitk.DICOMOrient(image, order), str(tmp_path / "in" / f"{order}.nii.gz"))
    words = ["run", tmp_path / "s.zarr", tmp_path / "in", "--preset", "physical", "--model", "published", "--quiet"]
    assert _status_of([*map(str, words), "--scheduler", client.scheduler.address]) == 0
    with (tmp_path / "s.zarr" / "measurements.csv").open() as table:
        rows = list(csv.DictReader(table))
    volumes = [{name: value for name, value in row.items() if name.endswith("_ml")} for row in rows]
    assert len(volumes) == 3
    assert all(float(row["lung_ml"]) > 3000 for row in volumes)
    assert volumes[1:] == volumes[:1] * 2
