"""Harmonised images in a store: on request, equal to those of the whole volume, and the HU of all later results."""

import numpy as np
import pytest

import lungmix
from lungmix.errors import StoreError, UsageError
from lungmix.export import export_case
from lungmix.geometry import Geometry
from lungmix.kernels.anatomical.candidates import find_lungs
from lungmix.kernels.frequency_bands import BandSums, chosen_slices, filled, find_gains, normalise_bands, rounded
from lungmix.kernels.packed_masks import unpack
from lungmix.kernels.reduction import ReducedGrid, reduction_of
from lungmix.mixture import PUBLISHED
from lungmix.parameters import KERNEL_REFERENCE_HU, HarmoniseParameters, MaskParameters
from lungmix.phantom import Phantom
from lungmix.pipeline import Pipeline
from lungmix.pipeline.harmonisation import check_harmonisation, fault_of_image, remember_harmonisation
from lungmix.pipeline.result import RunResult
from lungmix.serve.links import neuroglancer_state
from lungmix.stages import harmonise, label
from lungmix.stages.anatomical import mask_stage
from lungmix.stages.base import StageContext
from lungmix.stages.harmonise import HarmoniseStage
from lungmix.stages.quality import QualityStage
from lungmix.store import CaseFiles, CaseRef, CaseWriter, choices
from lungmix.store.integrity import invalidate_corrupt_stages, invalidate_stage
from lungmix.store.models import harmonised_text
from lungmix.store.schema import GIVEN_MASKS
from lungmix.verify.case import Comparison
from lungmix.verify.problems import Verification
from support.generators import as_axial, case_of, reoriented

pytestmark = pytest.mark.usefixtures("stages_here")

PHANTOM = Phantom((30, 110, 132), (1.9, 1.9, 6.4), 3, traps={"vessels", "noise"})
KERNEL = HarmoniseParameters(("kernel",))
ANATOMICAL = MaskParameters("anatomical")


def cohort_of(folder, volume=None, geometry=None, chunk_slices=None):
    cohort = lungmix.open_cohort(folder / "s.zarr", "a")
    case_of(cohort, "one", PHANTOM.volume() if volume is None else volume, geometry or PHANTOM.geometry, chunk_slices)
    return cohort


def run(cohort, *stages):
    return [stage.run(StageContext(None, cohort), "one") for stage in stages]


def all_stages(parameters=KERNEL):
    first = [] if parameters is None else [HarmoniseStage(parameters)]
    return [*first, mask_stage(ANATOMICAL), label.LabelStage(PUBLISHED, "published")]


def harmonised_volume(volume, geometry):
    """Return the harmonised HU of a volume and its gains, computed at once on its axial array."""
    hu, axial = as_axial(volume, geometry), geometry.axial
    spacing = axial.spacing_zyx
    grid = ReducedGrid(reduction_of(spacing), axial.first_index)
    reduced = grid.reduction.apply(grid.complete(hu))
    lungs = find_lungs(reduced, reduced < -300, grid.reduction.spacing(spacing))
    full = lungs[np.ix_(*grid.indices(lungs.shape, [np.arange(n) for n in hu.shape]))]
    sums = BandSums.empty()
    for z in chosen_slices(full.any(axis=(1, 2))):
        sums += BandSums.of(filled(hu[z]), full[z], spacing[1:])
    gains = find_gains(sums, spacing[1:], KERNEL_REFERENCE_HU)
    planes = [rounded(normalise_bands(filled(plane), spacing[1:], gains.gains), plane) for plane in hu]
    return np.stack(planes), gains


@pytest.mark.parametrize("chunk_slices", [8, 16, None])
def test_image_equals_that_of_the_whole_volume_whatever_the_slabs(tmp_path, chunk_slices):
    cohort = cohort_of(tmp_path, chunk_slices=chunk_slices)
    before = cohort["one"].zarr_array("ct")[:]
    assert run(cohort, HarmoniseStage(KERNEL), HarmoniseStage(KERNEL)) == ["done", "kept"]
    case = cohort["one"]
    expected, gains = harmonised_volume(PHANTOM.volume(), PHANTOM.geometry)
    assert not np.array_equal(expected, before)
    assert np.array_equal(case.harmonised.compute(), expected)
    assert np.array_equal(case.zarr_array("ct")[:], before)
    assert case.stages["harmonise"]["kernel"]["gains"] == list(gains.gains)
    assert (case.measured_image, case.to_sitk("harmonised").GetSize()) == ("harmonised", PHANTOM.geometry.size)


@pytest.mark.parametrize("orientation", ["RAI", "SAL", "PIR", "IPL"])
def test_image_is_the_same_in_every_storage_order(tmp_path, orientation):
    volume, geometry = reoriented(PHANTOM.volume(), PHANTOM.geometry, orientation)
    cohort = cohort_of(tmp_path, volume, geometry, chunk_slices=16)
    run(cohort, *all_stages())
    case = cohort["one"]
    expected, _ = harmonised_volume(PHANTOM.volume(), PHANTOM.geometry)
    assert np.array_equal(as_axial(case.zarr_array("harmonised")[:], geometry), expected)
    assert not any(key.startswith("filtered/") for key in CaseWriter(case).sizes())
    upright = (tmp_path / "upright").resolve()
    upright.mkdir()
    axial = cohort_of(upright)
    run(axial, *all_stages())
    for name in ("lung", "side", "tissue"):
        stored = as_axial(case.zarr_array(name)[:], geometry)
        assert np.array_equal(stored, axial["one"].zarr_array(name)[:]), name


def test_masks_labels_and_counts_are_of_the_harmonised_image(tmp_path):
    cohort = cohort_of(tmp_path)
    run(cohort, *all_stages())
    case = cohort["one"]
    (tmp_path / "converted").mkdir()
    # The same HU as a scan of its own.
    scan = cohort_of(tmp_path / "converted", case.harmonised.compute())
    run(scan, *all_stages(None))
    for name in ("lung", "side", "region", "tissue", "tissue_median"):
        assert np.array_equal(case.zarr_array(name)[:], scan["one"].zarr_array(name)[:]), name
    for name in ("hu_counts", "side_counts", "region_counts"):
        assert np.array_equal(getattr(case, name), getattr(scan["one"], name)), name
    assert np.array_equal(case.posterior("ggo").compute(), scan["one"].posterior("ggo").compute())
    assert case.stages["mask"]["key"] != scan["one"].stages["mask"]["key"]


def test_results_of_other_hu_become_invalid_and_return_without_harmonisation(tmp_path):
    cohort = cohort_of(tmp_path)
    run(cohort, *all_stages(None))
    plain = cohort["one"].stages
    assert choices.choose(str(tmp_path / "s.zarr"), preset="anatomical", model="published", harmonise="kernel").changes
    assert remember_harmonisation(cohort, "kernel") == KERNEL
    run(cohort, HarmoniseStage(KERNEL))
    assert list(cohort["one"].stages) == ["convert", "harmonise"]
    run(cohort, *all_stages())
    assert cohort["one"].stages["mask"]["key"] != plain["mask"]["key"]
    assert run(cohort, *all_stages()) == ["kept"] * 3
    assert remember_harmonisation(cohort) == KERNEL
    assert choices.choose(str(tmp_path / "s.zarr"), preset="anatomical", model="published").kept == [
        "HU harmonised by kernel"
    ]
    assert remember_harmonisation(cohort, "none") is None
    assert choices.last_harmonisation(cohort) is None
    assert list(cohort["one"].stages) == ["convert"]
    assert not cohort["one"].is_started("harmonised")
    run(cohort, *all_stages(None))
    assert cohort["one"].stages == plain


def test_store_without_harmonisation_keeps_its_bytes(tmp_path):
    cohort = cohort_of(tmp_path)
    before = (tmp_path / "s.zarr" / "zarr.json").read_bytes()
    assert remember_harmonisation(cohort) is remember_harmonisation(cohort, "none") is None
    assert (tmp_path / "s.zarr" / "zarr.json").read_bytes() == before


def test_other_parameters_make_another_image(tmp_path):
    cohort = cohort_of(tmp_path)
    run(cohort, *all_stages())
    first = cohort["one"].harmonised.compute()
    other = HarmoniseParameters(("kernel",), (35.0, 40.0))
    assert run(cohort, HarmoniseStage(other)) == ["done"]
    assert not np.array_equal(cohort["one"].harmonised.compute(), first)
    assert "mask" not in cohort["one"].stages
    assert cohort["one"].stages["harmonise"]["kernel"]["sd_after"] == pytest.approx([35.0, 40.0], abs=0.05)


def test_kernel_of_coarse_pixels_is_left_as_it_is(tmp_path):
    coarse = Phantom((30, 40, 44), (5.0, 5.0, 6.4), 1)
    cohort = cohort_of(tmp_path, coarse.volume(), coarse.geometry)
    run(cohort, HarmoniseStage(KERNEL))
    case = cohort["one"]
    assert np.array_equal(case.harmonised.compute(), case.ct.compute())
    assert harmonised_text(case) == "none"
    assert harmonise.notes_of(case) == ["kernel harmonisation was not applied: its pixels of 5 mm are wider than 4 mm"]


def test_volume_without_lungs_is_left_as_it_is(tmp_path):
    volume = np.full((12, 40, 40), 40, np.int16)
    cohort = cohort_of(tmp_path, volume, Geometry((40, 40, 12)))
    run(cohort, HarmoniseStage(KERNEL))
    assert np.array_equal(cohort["one"].harmonised.compute(), volume)
    assert "no lungs were found" in harmonise.notes_of(cohort["one"])[0]


def test_corrupt_image_is_made_again_before_anything_uses_it(tmp_path):
    cohort = cohort_of(tmp_path)
    run(cohort, *all_stages())
    stages = cohort["one"].stages
    image = cohort["one"].harmonised.compute()
    invalidate_stage(cohort["one"], "harmonise", "harmonised/0 is damaged")
    damaged = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    with pytest.raises(StoreError, match="its harmonised image is corrupt"):
        run(damaged, mask_stage(MaskParameters("anatomical", threshold=-320)))
    assert run(damaged, *all_stages()) == ["done", "kept", "kept"]
    assert np.array_equal(damaged["one"].harmonised.compute(), image)
    assert damaged["one"].stages == stages


def test_missing_shard_is_found(tmp_path):
    cohort = cohort_of(tmp_path)
    run(cohort, *all_stages())
    shard = next((tmp_path / "s.zarr" / "one" / "harmonised" / "0").rglob("c/*/*/*"))
    shard.unlink()
    reasons = invalidate_corrupt_stages(lungmix.open_cohort(tmp_path / "s.zarr", "a")["one"])
    assert "is missing" in reasons["harmonise"]


@pytest.mark.parametrize("is_changed", [False, True])
def test_verification_recomputes_the_image(tmp_path, is_changed):
    cohort = cohort_of(tmp_path)
    run(cohort, *all_stages())
    writer = CaseWriter(cohort["one"])
    if is_changed:
        record = dict(writer.stages["harmonise"])
        start, stop = next(writer.layout.slabs())
        files = record.pop("files") | writer.write("harmonised", start, writer.read("ct", start, stop))
        writer.record("harmonise", record, files)
    verification = Verification()
    verification.wrong["one"] = []
    comparison = Comparison(None, cohort, CaseWriter(cohort["one"]), None, PUBLISHED, verification)
    comparison._check_records()
    comparison._recompute()
    # The image of this test has no receipts.
    problems = [text for text in verification.wrong["one"] if text.startswith(("harmonised/", "air/", "labels/"))]
    assert any(text.startswith("harmonised/") for text in problems) is is_changed
    assert is_changed or problems == []


def test_mask_from_a_file_is_not_lost(tmp_path):
    cohort = cohort_of(tmp_path)
    run(cohort, *all_stages(None))
    from lungmix.store import CohortWriter

    CohortWriter(cohort).record_settings(**{GIVEN_MASKS: ["one"]})
    writer = CaseWriter(cohort["one"])
    record = dict(writer.stages["mask"])
    writer.record("mask", {**record, "from_file": {}}, record.pop("files"))
    with pytest.raises(UsageError, match=r"masks of 1 case \(one\) came from files"):
        check_harmonisation(cohort, "kernel")
    check_harmonisation(cohort, None)
    check_harmonisation(cohort, "kernel", has_masks=True)


def test_image_can_be_exported_and_looked_at(tmp_path):
    import SimpleITK as sitk

    cohort = cohort_of(tmp_path)
    with pytest.raises(StoreError, match="no complete image harmonised"):
        cohort["one"].array("harmonised")
    run(cohort, HarmoniseStage(KERNEL))
    (file,) = export_case(cohort["one"], tmp_path / "one_harmonised.nrrd")
    read = sitk.ReadImage(str(file))
    assert np.array_equal(sitk.GetArrayFromImage(read), cohort["one"].harmonised.compute())
    assert read.GetSpacing() == PHANTOM.geometry.spacing
    layers = neuroglancer_state(cohort["one"], "http://x")["layers"]
    assert [layer["name"] for layer in layers] == ["ct", "harmonised"]


@pytest.mark.parametrize(
    ("methods", "reference", "words"),
    [
        ("gauss", None, "air-blood or kernel"),
        ("", None, "no harmonisation is named"),
        ("none", (1.0, 2.0), "without harmonisation"),
        ("kernel", (1.0,), "2 standard deviations"),
        ("kernel", (1.0, -2.0), "2 standard deviations"),
        (None, (1.0, 2.0), "needs harmonised images"),
    ],
)
def test_impossible_parameters_are_rejected(tmp_path, methods, reference, words):
    with pytest.raises(UsageError, match=words):
        choices.choose(str(tmp_path / "s.zarr"), harmonise=methods, kernel_reference=reference)
    assert not (tmp_path / "s.zarr").exists()
    assert HarmoniseParameters.of("kernel,air-blood") == HarmoniseParameters.of("air-blood, kernel")


def test_quality_control_is_of_the_scan(tmp_path):
    shifted = np.where(PHANTOM.volume() > -1024, PHANTOM.volume() * 0.97, PHANTOM.volume()).astype(np.int16)
    numbers = []
    for name, parameters in (("plain", None), ("mapped", HarmoniseParameters(("air-blood",)))):
        (tmp_path / name).mkdir()
        cohort = cohort_of(tmp_path / name, shifted)
        run(cohort, *all_stages(parameters), QualityStage())
        numbers.append(cohort["one"].quality)
    plain, mapped = numbers
    for key in ("outside_air_hu", "tracheal_air_hu", "noise_hu"):
        assert plain.get(key) == mapped.get(key), key


def test_packed_air_is_that_of_the_measured_image(tmp_path):
    cohort = cohort_of(tmp_path)
    run(cohort, HarmoniseStage(KERNEL))
    case = CaseFiles(cohort["one"])
    depth, _, nx = case.geometry.shape
    air = unpack(case.read_packed("air", 0, depth), nx)
    assert np.array_equal(air > 0, case.harmonised.compute() < case.packed_threshold)
    assert all(key in case.packed_files for key in case.sizes() if key.startswith("air/"))
    CaseWriter(cohort["one"]).drop_stage("harmonise")
    assert CaseFiles(cohort["one"]).packed_threshold is None
    assert not any(key.startswith(("air/", "harmonised/")) for key in CaseFiles(cohort["one"]).sizes())


def test_leftover_tasks_cannot_write_after_the_image_was_given_up(tmp_path):
    cohort = cohort_of(tmp_path)
    remember_harmonisation(cohort, "kernel")
    writer = CaseWriter(cohort["one"])
    left = CaseRef.of(cohort, "one", writer.start_stage("harmonise", "key"))
    writer.create_image("harmonised")
    assert remember_harmonisation(cohort, "none") is None
    with pytest.raises(StoreError):
        left.open("r+")


def test_corrupt_image_is_not_replaced_by_the_scan(tmp_path):
    cohort = cohort_of(tmp_path)
    run(cohort, *all_stages())
    invalidate_stage(cohort["one"], "harmonise", "harmonised/0 is damaged")
    case = lungmix.open_cohort(tmp_path / "s.zarr")["one"]
    with pytest.raises(StoreError, match="its harmonised image is corrupt"):
        case.posterior("ggo")


def test_case_that_a_killed_run_did_not_reach_is_named(tmp_path):
    cohort = cohort_of(tmp_path)
    run(cohort, *all_stages(None))
    remember_harmonisation(cohort, "kernel")
    fault = fault_of_image(cohort["one"], KERNEL)
    assert "its mask is not of HU harmonised by kernel" in fault
    result = Pipeline(None, cohort)._masked(failures := RunResult())
    assert result == []
    assert failures.failed["one"] == fault
    assert fault_of_image(cohort["one"], None) is None


def test_given_mask_that_is_not_made_again_is_kept(tmp_path):
    cohort = cohort_of(tmp_path)
    run(cohort, *all_stages(None))
    writer = CaseWriter(cohort["one"])
    record = dict(writer.stages["mask"])
    writer.record("mask", {**record, "from_file": {}}, record.pop("files"))
    before = cohort["one"].stages
    with pytest.raises(StoreError, match=r"its mask came from a file .* masks=PLACE"):
        run(cohort, HarmoniseStage(KERNEL, remade=("two",)))
    assert cohort["one"].stages == before
    assert run(cohort, HarmoniseStage(KERNEL, remade=("one",))) == ["done"]
    assert "mask" not in cohort["one"].stages


def test_reference_belongs_to_the_kernel():
    assert HarmoniseParameters(("air-blood",), (1.0, 2.0)) == HarmoniseParameters(("air-blood",))
    assert "reference" not in HarmoniseParameters(("air-blood",)).to_dict()
    with pytest.raises(UsageError, match="needs `harmonise="):
        HarmoniseParameters.of("air-blood", (1.0, 2.0))
