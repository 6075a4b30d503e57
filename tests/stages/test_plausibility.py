"""Cases whose values are not HU of a chest: failed with a reason, never in a pooled fit."""

import numpy as np
import pytest
import SimpleITK as sitk

import lungmix
from lungmix.errors import HuError, ModelError
from lungmix.kernels.histogram import count_hu
from lungmix.kernels.plausibility import add_all, summarize
from lungmix.parameters import FitParameters, MaskParameters
from lungmix.phantom import Phantom
from lungmix.pipeline import Pipeline
from lungmix.stages import fit, mask
from lungmix.stages.base import StageContext
from lungmix.stages.flags import flags_of
from lungmix.stages.plausibility import check_plausible, not_pooled
from support.generators import case_of, store_of_counts

PHANTOM = Phantom((60, 96, 90), (3.6, 3.7, 5.0))
PHYSICAL = MaskParameters("physical")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with three files of a chest: unchanged, clipped to a soft-tissue window, and clipped at dense bone."""
    folder, hu = tmp_path_factory.mktemp("in"), PHANTOM.volume()
    volumes = {"1_plain": hu, "2_window": np.clip(hu, -160, 240), "3_bone": np.clip(hu, -1000, 200)}
    for name, volume in volumes.items():
        image = sitk.GetImageFromArray(volume.astype(np.int16))
        image.SetSpacing(PHANTOM.spacing)
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    return folder


@pytest.mark.slow
def test_windowed_scan_fails_with_a_reason_and_enters_no_fit(folder, client, tmp_path):
    alone = Pipeline(client, lungmix.open_cohort(tmp_path / "one.zarr", "a")).run(
        [folder / "1_plain.nii.gz"], mask=PHYSICAL
    )
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    report = Pipeline(client, cohort).run([folder], mask=PHYSICAL)
    assert list(report.failed) == ["case-002"]
    assert "exactly -160 HU" in report.failed["case-002"]
    assert "`accept_hu=True`" in report.failed["case-002"]
    assert cohort["case-002"].failure["stage"] == "mask"
    assert [row["case"] for row in report.rows] == ["case-001", "case-003"]
    assert any("exactly 200 HU" in note for note in report.notes["case-003"])
    assert "case-001" not in report.notes
    assert report.model.means == alone.model.means


@pytest.mark.slow
def test_accepted_scan_is_measured_and_stays_out_of_the_fit(folder, client, tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    pipeline = Pipeline(client, cohort)
    report = pipeline.run([folder / "1_plain.nii.gz", folder / "2_window.nii.gz"], mask=PHYSICAL, accept_hu=True)
    assert not report.failed
    assert len(report.rows) == 2
    assert cohort.settings["fits"]["cases"] == ["case-001"]
    assert any("enters no pooled fit" in note for note in report.notes["case-002"])
    # HU that were accepted in an earlier run need not be accepted again.
    again = pipeline.run([], mask=PHYSICAL)
    assert not again.failed
    assert again.rows == report.rows
    with pytest.raises(ModelError, match="`model='published'`"):
        pipeline.fit(cases=["case-002"])


def test_case_without_a_summary_is_judged_by_its_lung_voxels(tmp_path):
    hu, lung = PHANTOM.volume(), (PHANTOM.truth() > 0).astype(np.uint8)
    counts = {"case-001": count_hu(hu, lung), "case-002": count_hu(np.clip(hu, -160, 240), lung)}
    cohort = store_of_counts(tmp_path / "s.zarr", counts)
    assert list(not_pooled(cohort, list(cohort))) == ["case-002"]
    assert list(fit.masked_counts(cohort)) == ["case-001"]
    report = Pipeline(None, cohort).fit(fit=FitParameters(n_init=1))
    assert report.fits.paper.fit_info["voxels"] == int(counts["case-001"].sum())
    assert flags_of(cohort["case-001"]) == []


@pytest.mark.parametrize("record", [{"voxels": 9}, {"later": 1}, [1, 2], "all"], ids=str)
def test_case_with_an_unreadable_summary_is_flagged_and_not_pooled(tmp_path, record):
    hu, lung = PHANTOM.volume(), (PHANTOM.truth() > 0).astype(np.uint8)
    cohort = store_of_counts(tmp_path / "s.zarr", dict.fromkeys(("case-001", "case-002"), count_hu(hu, lung)))
    case = case_of(cohort, "case-003", hu, PHANTOM.geometry)
    counts = np.zeros(65536, np.uint64)
    add_all(hu, counts)
    case.record("convert", {**case.stages["convert"], "hu": summarize(counts).to_dict()})
    assert flags_of(cohort["case-003"]) == []
    case.record("convert", {**case.stages["convert"], "hu": record})
    (flag,) = flags_of(cohort["case-003"])
    assert "cannot be checked" in flag
    assert "enters no pooled fit" in flag
    assert list(not_pooled(cohort, list(cohort))) == ["case-003"]
    assert not check_plausible(cohort["case-003"])


def test_mask_of_a_rejected_case_is_not_computed(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = case_of(cohort, "one", PHANTOM.volume() + 1024, PHANTOM.geometry)
    counts = np.zeros(65536, np.uint64)
    add_all(PHANTOM.volume() + 1024, counts)
    case.record("convert", {**case.stages["convert"], "hu": summarize(counts).to_dict()})
    with pytest.raises(HuError, match="about 1,024 too high"):
        mask.MaskStage(PHYSICAL).run(StageContext(None, cohort), "one")
    assert "mask" not in cohort["one"].stages
