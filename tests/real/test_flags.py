"""Flags of quality control on real CT, as it is and with defects that are put into it."""

import pytest
import SimpleITK as sitk

import lungmix
from lungmix.formats import Scan, find_scans
from lungmix.parameters import MaskParameters
from lungmix.stages import label, mask, quality
from lungmix.stages.base import StageContext
from lungmix.stages.convert import ConvertStage
from lungmix.stages.flags import flags_of, numbers_of_flags, raised_flags
from lungmix.stages.measure import rows_of_case
from lungmix.store import MEASUREMENTS_FILE
from support.masks import InProcess

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.usefixtures("stages_here")]

MODEL = lungmix.load_model("published")


def case_of(path, folder, is_labelled=False):
    """The masked case of a scan, whose quality was measured."""
    (scan,) = [scan for scan in find_scans(path) if isinstance(scan, Scan)]
    cohort = lungmix.open_cohort(folder / "s.zarr", "a")
    context = StageContext(InProcess(), cohort)
    ConvertStage({"one": scan}).run(context, "one")
    mask.MaskStage(MaskParameters("physical"), accept_hu=True).run(context, "one")
    if is_labelled:
        label.LabelStage(MODEL).run(context, "one")
    else:
        quality.QualityStage().run(context, "one")
    return cohort["one"]


def flags_by_name(case):
    return {flag.name: flag for flag in raised_flags(case)}


def test_ordinary_scan_is_flagged_for_its_mass_alone(real_ct, tmp_path):
    flags = flags_by_name(case_of(real_ct / "dx-a0001-soft", tmp_path))
    assert list(flags) == ["dense_tissue"]
    # A mass of several centimetres at the back of the left upper lobe.
    assert 10 < flags["dense_tissue"].value < 40
    assert 44 <= flags["dense_tissue"].slice <= 50


def test_scan_of_thick_slices_that_ends_within_the_lungs_is_flagged_for_both(real_ct, tmp_path):
    flags = flags_by_name(case_of(real_ct / "dx-a0002-soft", tmp_path))
    assert {"cut_end", "thick_slices"} <= set(flags) <= {"cut_end", "thick_slices", "dense_tissue"}
    assert flags["cut_end"].slice == 0
    assert flags["thick_slices"].value == 8


def test_hollow_table_is_flagged_and_named_with_volumes_of_mask_and_lungs(real_ct, tmp_path):
    case = case_of(real_ct / "cmb-crc-lung", tmp_path, is_labelled=True)
    flags = flags_by_name(case)
    assert set(flags) == {"cut_end", "outside_lungs"}
    assert 35 < flags["outside_lungs"].value < 45
    numbers = quality.numbers_of(case)
    assert numbers["table_ml"] == pytest.approx(3040, rel=0.02)
    assert numbers["between_ml"] < 30
    (row,) = rows_of_case(case, MEASUREMENTS_FILE, MODEL)
    (sentence,) = [text for text in flags_of(case, row=row) if "in both lungs" in text]
    assert sentence.startswith("7,692 mL in the mask, 4,597 mL in both lungs: 3,0")
    table_ml = numbers_of_flags(case)["table_ml"]
    for part in (
        f"{table_ml:,.0f} mL lie outside the body (table or clothes)",
        "mL are airway",
        "LI 13.1 % with them, 18.3 % without",
    ):
        assert part in sentence


def test_lost_apex_is_flagged_at_a_slice_that_shows_it(real_ct, tmp_path):
    flags = flags_by_name(case_of(real_ct.parent / "reference" / "lung1-001" / "ct", tmp_path))
    assert list(flags) == ["rejected_lung"]
    assert flags["rejected_lung"].value == pytest.approx(40, abs=5)
    assert flags["rejected_lung"].slice >= 97


def clipped(image):
    return sitk.Clamp(image, lowerBound=-950, upperBound=400)


def cropped(image):
    return image[60:420, :, 8:50]


def thick(image):
    return image[:, :, ::2]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (clipped, {"hu_clipped", "outside_air", "dense_tissue"}),
        (cropped, {"cut_end", "cut_edge"}),
        (thick, {"thick_slices", "dense_tissue"}),
    ],
)
def test_changed_copy_of_a_scan_is_flagged_for_the_change(real_ct, tmp_path, change, expected):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(real_ct / "dx-a0001-soft")))
    sitk.WriteImage(change(reader.Execute()), str(tmp_path / "copy.nrrd"))
    flags = flags_by_name(case_of(tmp_path / "copy.nrrd", tmp_path))
    assert set(flags) == expected
