"""Masks from files in place of computed ones."""

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

import lungmix
from lungmix.errors import SourceError, StoreError, UsageError
from lungmix.export import export_case
from lungmix.formats.masks import open_mask
from lungmix.geometry import Geometry
from lungmix.mixture.diagnosis import DOUBTS, doubts_of
from lungmix.parameters import MaskLabels, MaskParameters, mask_of_text, text_of_mask
from lungmix.phantom import Phantom
from lungmix.stages import regions
from lungmix.stages.base import StageContext
from lungmix.stages.fit import publish
from lungmix.stages.flags import flags_of
from lungmix.stages.given_mask import GivenMaskStage, is_given
from lungmix.stages.imported_labels import import_labels
from lungmix.stages.label import LabelStage
from lungmix.stages.mask import MaskStage
from lungmix.stages.measure import rows_of_case
from lungmix.store import MEASUREMENTS_FILE, CaseFiles, CaseRef, CaseWriter, invalidate_corrupt_stages, stage_of
from lungmix.store.models import mask_text
from lungmix.store.objects import receipt_of
from lungmix.verify import verify_cases
from support.generators import case_of, reoriented
from support.masks import InProcess, mask_of, segments_of

pytestmark = pytest.mark.usefixtures("stages_here")

MODEL = lungmix.load_model("published")
COMPUTED = MaskStage(MaskParameters("physical"))
GRID = Geometry((20, 18, 40), (1.5, 1.5, 2.0), (-10.0, 3.0, -700.0))
WHOLE = (slice(None), slice(None), slice(None))


def two_lungs(geometry=GRID):
    """Return a label map with right lung (1) and left lung (2) of different sizes."""
    labels = np.zeros(geometry.shape, np.uint16)
    nz, ny, nx = geometry.shape
    labels[nz // 8 : -nz // 8, ny // 4 : -ny // 4, nx // 8 : nx // 2 - 1] = 1
    labels[nz // 8 : -nz // 8, ny // 4 : -ny // 4, nx // 2 + 1 : -nx // 8] = 2
    return labels


@pytest.fixture
def cohort(tmp_path):
    return store_of_one(tmp_path)


def store_of_one(tmp_path):
    """Return a store with one converted case and a model."""
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    hu = np.random.default_rng(0).normal(-850, 40, GRID.shape).astype(np.int16)
    case = case_of(cohort, "one", hu, GRID, chunk_slices=16)
    record = case.stages["convert"]
    files = {key: receipt_of(case.read_object(key)) for key in case.sizes() if stage_of(key) == "convert"}
    case.record("convert", {**record, "key": "k", "voxels_sha256": sha256(hu.tobytes()).hexdigest()}, files)
    publish(cohort, MODEL, {"given": True})
    return cohort


def give(cohort, mask, labels=None, computed=COMPUTED, name="one", **options):
    """Run the mask stage of a case with a mask file, or with the mask that an earlier run gave it."""
    masks = {} if mask is None else {name: mask}
    stage = GivenMaskStage(computed, masks, MaskLabels.parse(labels), **options)
    return stage.run(StageContext(InProcess(), cohort), name)


def label(cohort, name="one"):
    return LabelStage(MODEL).run(StageContext(InProcess(), cohort), name)


def hu_of(cohort):
    return cohort["one"].ct.compute().astype(int) + 32768


def problems_of(cohort):
    verification = verify_cases(InProcess(), lungmix.open_cohort(cohort.url), list(cohort), {})
    return [problem for problems in verification.wrong.values() for problem in problems]


def read(cohort, array="reference"):
    return CaseFiles(cohort["one"]).read_temporary(array, WHOLE)


def test_labels_on_the_grid_of_the_scan_are_imported_as_they_are(cohort):
    result = import_labels(InProcess(), CaseRef.of(cohort, "one"), mask_of(two_lungs(), GRID), {1: 2, 2: 7})
    expected = np.array([0, 2, 7], np.uint8)[two_lungs()]
    assert np.array_equal(read(cohort), expected)
    assert result == {"grid": "same", "voxels": {2: int((expected == 2).sum()), 7: int((expected == 7).sum())}}


def test_labels_in_another_order_of_axes_are_imported_to_the_voxel(cohort):
    labels, grid = reoriented(two_lungs(), GRID, "SAR")
    result = import_labels(InProcess(), CaseRef.of(cohort, "one"), mask_of(labels, grid), {1: 1, 2: 2})
    assert result["grid"] == "resampled"
    assert np.array_equal(read(cohort), two_lungs())
    assert "imported" not in cohort["one"]._group


def test_labels_on_a_part_of_the_grid_are_not_resampled(cohort):
    part = two_lungs()[2:-1, 1:, :-2]
    x, y, z = GRID.origin
    origin = (x, y + GRID.spacing[1], z + 2 * GRID.spacing[2])
    grid = Geometry(part.shape[::-1], GRID.spacing, origin)
    assert import_labels(InProcess(), CaseRef.of(cohort, "one"), mask_of(part, grid), {1: 1, 2: 2})["grid"] == "same"
    expected = np.zeros_like(two_lungs())
    expected[2:-1, 1:, :-2] = part
    assert np.array_equal(read(cohort), expected)


def test_a_mask_outside_the_scan_is_rejected_and_writes_nothing(cohort):
    far = Geometry(GRID.size, GRID.spacing, (500.0, 3.0, -700.0))
    with pytest.raises(SourceError, match="does not overlap the scan"):
        import_labels(InProcess(), CaseRef.of(cohort, "one"), mask_of(two_lungs(), far), {1: 1})
    assert "reference" not in cohort["one"]._group


def test_a_mask_without_orientation_is_taken_on_the_same_grid_only(cohort):
    unknown = Geometry(GRID.size, GRID.spacing, GRID.origin, orientation_known=False)
    result = import_labels(InProcess(), CaseRef.of(cohort, "one"), mask_of(two_lungs(), unknown), {1: 1})
    assert result["grid"] == "same"
    shifted = Geometry(GRID.size, GRID.spacing, (-11.0, 3.0, -700.0), orientation_known=False)
    with pytest.raises(SourceError, match="how its axes lie"):
        import_labels(InProcess(), CaseRef.of(cohort, "one"), mask_of(two_lungs(), shifted), {1: 1})


def test_a_mask_with_too_few_slices_is_an_error(cohort):
    with pytest.raises(SourceError, match="slices that it declares"):
        import_labels(InProcess(), CaseRef.of(cohort, "one"), mask_of(two_lungs()[:-1], GRID), {1: 1})


def test_the_next_command_deletes_what_a_killed_import_left(cohort):
    import_labels(InProcess(), CaseRef.of(cohort, "one"), mask_of(two_lungs(), GRID), {1: 1})
    assert invalidate_corrupt_stages(cohort["one"]) == {}
    assert "reference" not in cohort["one"]._group


@pytest.mark.parametrize("names", [{"Lung-Right": 1, "Lung-Left": 2}, {"left lung": 2, "RIGHT_LUNG": 1}])
def test_named_lungs_give_mask_regions_and_histograms_without_their_names(cohort, names):
    mask = mask_of(two_lungs(), GRID, segments=segments_of(**names))
    assert give(cohort, mask) == "done"
    case, lungs = cohort["one"], two_lungs()
    assert np.array_equal(case.lung.compute(), lungs > 0)
    assert np.array_equal(case.side.compute(), lungs)
    hu = hu_of(cohort)
    assert np.array_equal(case.hu_counts, np.bincount(hu[lungs > 0], minlength=65536))
    for row, side in enumerate((1, 2)):
        assert np.array_equal(case.side_counts[row], np.bincount(hu[lungs == side], minlength=65536))
    assert regions.is_valid(case)
    assert mask_text(case) == "given"
    assert flags_of(case) == []
    document = (cohort["one"]._group.store.root / "one" / "zarr.json").read_text()
    assert not [text for text in (*names, "Rossi") if text in document]


def test_coarser_levels_hold_every_second_voxel(cohort):
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=2")
    level = cohort["one"].layout.levels[1].factors
    expected = two_lungs()[tuple(slice(None, None, n) for n in level)]
    assert np.array_equal(cohort["one"].array("side", 1).compute(), expected)


def test_lobes_join_to_lungs(cohort):
    lobes = two_lungs()
    lobes[20:][lobes[20:] == 1] = 3
    segments = segments_of(lung_upper_lobe_left=2, lung_lower_lobe_right=1, lung_upper_lobe_right=3, heart=4)
    give(cohort, mask_of(lobes, GRID, segments=segments))
    assert np.array_equal(cohort["one"].side.compute(), two_lungs())


def test_an_airway_of_another_program_is_no_lung_and_that_is_noted(cohort):
    lungs = two_lungs()
    lungs[:, 8:10, 9:11] = 3
    give(cohort, mask_of(lungs, GRID, segments=segments_of(right_lung=1, left_lung=2, trachea=3, lungs=4)))
    assert np.array_equal(cohort["one"].side.compute(), np.where(lungs == 3, 0, lungs))
    (note,) = flags_of(cohort["one"])
    assert "names an airway" in note
    assert give(cohort, mask_of(lungs, GRID), "right=1,left=2,airway=3") == "done"
    assert np.array_equal(cohort["one"].side.compute(), lungs)


@pytest.mark.parametrize("value", [1, 255])
def test_a_single_value_is_lung_and_its_sides_are_computed_with_the_labels(cohort, value):
    labels = np.where(two_lungs() > 0, value, 0).astype(np.int16)
    assert give(cohort, mask_of(labels, GRID)) == "done"
    assert "side" not in cohort["one"].stages
    assert np.array_equal(cohort["one"].lung.compute(), labels > 0)
    label(cohort)
    assert np.array_equal(cohort["one"].side.compute() > 0, labels > 0)


def test_values_1_and_2_are_right_and_left_as_by_lungmask_and_that_is_noted(cohort):
    give(cohort, mask_of(two_lungs(), GRID))
    assert np.array_equal(cohort["one"].side.compute(), two_lungs())
    (note,) = flags_of(cohort["one"])
    assert "as by lungmask" in note


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.array([0, 2, 1], np.uint8)[two_lungs()], "do not lie like right and left lung"),
        (np.where((two_lungs() == 2) & (np.arange(40)[:, None, None] > 6), 0, two_lungs()), "do not lie like"),
        (np.array([0, 1, 7], np.uint8)[two_lungs()], "has the labels 1, 7 without names"),
        (np.zeros(GRID.shape, np.uint8), "is empty"),
    ],
)
def test_values_that_can_be_something_else_are_an_error(cohort, labels, reason):
    with pytest.raises(SourceError, match=reason) as caught:
        give(cohort, mask_of(labels, GRID))
    assert "Rossi" not in caught.value.redacted_message
    assert "mask" not in cohort["one"].stages


def test_labels_by_number_or_name_are_those_of_the_user(cohort):
    segments = segments_of(foo=1, bar=2)
    with pytest.raises(SourceError, match="names no lung among its 2 segments"):
        give(cohort, mask_of(two_lungs(), GRID, segments=segments))
    give(cohort, mask_of(two_lungs(), GRID, segments=segments), {"left": "Foo", "right": [2]})
    assert np.array_equal(cohort["one"].side.compute(), np.array([0, 2, 1])[two_lungs()])
    with pytest.raises(SourceError, match="has no segment 3 among its 2 segments"):
        give(cohort, mask_of(two_lungs(), GRID, segments=segments), "lung=3")


@pytest.mark.parametrize("text", ["", "right", "right=", "up=1", "lung=0"])
def test_labels_that_are_not_understood_are_a_wrong_usage(text):
    with pytest.raises(UsageError):
        MaskLabels.parse(text)


def test_a_mask_of_half_the_resolution_is_resampled_and_that_is_noted(cohort):
    coarse = Geometry((10, 9, 20), (3.0, 3.0, 4.0), GRID.origin)
    labels = two_lungs()[::2, ::2, ::2]
    give(cohort, mask_of(labels, coarse), "right=1,left=2")
    nearest = [np.minimum((np.arange(n) + 1) // 2, n // 2 - 1) for n in GRID.shape]
    inside = np.ix_(*[(np.arange(n) + 1) // 2 < n // 2 for n in GRID.shape])
    expected = np.zeros(GRID.shape, np.uint16)
    kept = tuple(np.flatnonzero(axis.ravel()) for axis in inside)
    expected[np.ix_(*kept)] = labels[np.ix_(*(index[axis] for index, axis in zip(nearest, kept, strict=True)))]
    assert np.array_equal(cohort["one"].side.compute(), expected)
    (note,) = flags_of(cohort["one"])
    assert "another grid than the scan (10 x 9 x 20 voxels of 3 x 3 x 4 mm)" in note


def test_a_mask_is_kept_until_its_file_or_its_labels_change(cohort):
    mask = mask_of(two_lungs(), GRID)
    assert [give(cohort, mask, "right=1,left=2") for _ in range(2)] == ["done", "kept"]
    label(cohort)
    assert give(cohort, mask, "lung=1") == "done"
    assert {"side", "label"}.isdisjoint(cohort["one"].stages)
    assert give(cohort, replace(mask, fingerprint="f2"), "lung=1") == "done"
    assert give(cohort, None, kept={"one"}) == "kept"


def test_a_file_that_cannot_be_read_leaves_an_earlier_mask(cohort):
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=2")
    before = cohort["one"].stages
    with pytest.raises(SourceError, match="slices that it declares"):
        give(cohort, mask_of(two_lungs()[:-1], GRID, fingerprint="f2"), "right=1,left=2")
    with pytest.raises(SourceError, match="no voxel of the labels 9"):
        give(cohort, mask_of(two_lungs(), GRID), "lung=9")
    assert cohort["one"].stages == before


def test_a_case_without_a_mask_fails_with_its_reason(cohort):
    with pytest.raises(SourceError, match="has no mask for this case"):
        give(cohort, None, missing={"one": "the folder has no mask for this case"})


def test_a_corrupt_mask_from_a_file_is_not_computed_in_its_place(cohort):
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=2")
    label(cohort)
    for stage in ("side", "mask"):
        CaseWriter(cohort["one"]).mark_damaged(stage, "a test")
        with pytest.raises(StoreError, match="give its mask again"):
            give(cohort, None, kept={"one"})
        assert is_given(cohort["one"])
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=2")
    assert problems_of(cohort) == []
    CaseWriter(cohort["one"]).mark_damaged("side", "a test")
    with pytest.raises(StoreError, match="right and left lung came from a mask file"):
        label(cohort)


def test_a_killed_import_is_resumed(cohort):
    labels, grid = reoriented(two_lungs(), GRID, "SAR")
    mask = mask_of(labels, grid)

    def killed(mask, values, geometry, thickness):
        yield next(iter(complete(mask, values, geometry, thickness)))
        raise KeyboardInterrupt

    complete = mask.reader
    with pytest.raises(KeyboardInterrupt):
        give(cohort, replace(mask, reader=killed), "right=1,left=2")
    assert "mask" not in cohort["one"].stages
    assert invalidate_corrupt_stages(cohort["one"]) == {}
    assert give(cohort, mask, "right=1,left=2") == "done"
    assert np.array_equal(cohort["one"].side.compute(), two_lungs())
    assert problems_of(cohort) == []


@pytest.mark.parametrize("labels", ["right=1,left=2", "lung=1,lung=2", "right=1,left_dense=2"])
def test_verification_passes_a_given_mask_and_sees_changed_labels(cohort, labels):
    give(cohort, mask_of(two_lungs(), GRID), labels)
    assert problems_of(cohort) == []
    case = CaseWriter(cohort["one"])
    record = case.stages["mask"]
    changed = np.minimum(two_lungs()[:16], 1).astype(np.uint8)
    changed[3, 9, 3] ^= 1
    files = record.pop("files") | case.write("lung", 0, changed)
    case.record("mask", record, files)
    assert [text for text in problems_of(cohort) if "labels/lung" in text or "voxels of the stage mask" in text]


@pytest.mark.parametrize(
    ("image", "file", "labels"),
    [
        ("lung", "x_lung.nrrd", None),
        ("lung", "x_lung.nii.gz", None),
        ("lung", "x_lung.mha", None),
        ("side", "x_side.mha", None),
        ("side", "x_side.nii.gz", None),
        ("tissue", "x_tissue.nrrd", None),
        ("side", "x_side.seg.nrrd", None),
        ("tissue", "x_tissue.seg.nrrd", None),
        ("lung", "x.seg.nrrd", None),
        ("side", "x_side.dcm", None),
        ("tissue", "x_tissue.dcm", None),
        ("lung", "x_lung.dcm", None),
    ],
)
def test_an_exported_mask_gives_the_same_bytes_again(tmp_path, exported, image, file, labels):
    first, folder = exported
    second = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_of(second, "one", first.ct.compute(), first.geometry)
    # The parameters in the exported file decide, and not those of the run.
    give(second, open_mask(folder / file), labels, MaskStage(MaskParameters("paper")))
    label(second)
    again = second["one"]
    for stage in ("mask", "side", "label"):
        assert again.stages[stage]["files"] == first.stages[stage]["files"], stage
    rows = [rows_of_case(case, MEASUREMENTS_FILE, MODEL)[0] for case in (first, again)]
    assert {**rows[1], "mask": "physical"} == rows[0]
    assert again.stages["side"]["touches"] == first.stages["side"]["touches"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A labelled phantom whose mask contains airway and table, and its mask exported in every format."""
    import dask

    folder = tmp_path_factory.mktemp("exported")
    phantom = Phantom((48, 96, 96), (3.7, 3.7, 6.25), 5, traps={"touching"})
    cohort = lungmix.open_cohort(folder / "s.zarr", "a")
    case_of(cohort, "one", phantom.volume(), phantom.geometry)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("mask", "label"):
            module = __import__(f"lungmix.stages.{name}", fromlist=["stages"])
            compute = lambda client, values, progress=None: list(dask.compute(*values, scheduler="synchronous"))  # noqa: E731
            patch.setattr(module, "compute_in_order", compute)
            patch.setattr(module, "min_worker_memory", lambda client: 1 << 30)
        COMPUTED.run(StageContext(InProcess(), cohort), "one")
        label(cohort)
    case = cohort["one"]
    from lungmix.export.formats import options_for

    for image, file in (
        ("lung", "x_lung.nrrd"), ("lung", "x_lung.nii.gz"),
        ("lung", "x_lung.mha"), ("side", "x_side.mha"),
        ("side", "x_side.nii.gz"), ("tissue", "x_tissue.nrrd"), ("side", "x_side.seg.nrrd"),
        ("tissue", "x_tissue.seg.nrrd"), ("lung", "x.seg.nrrd"),
    ):  # fmt: skip
        export_case(case, folder / file, image)
    for image, file in (("side", "x_side.dcm"), ("tissue", "x_tissue.dcm"), ("lung", "x_lung.dcm")):
        export_case(case, folder / file, image, options=options_for(with_ct=True))
    return case, folder


def test_an_export_of_a_given_mask_says_how_its_sides_were_found(tmp_path, exported):
    first, folder = exported
    cases = []
    for number, file in enumerate((folder / "x_lung.nrrd", tmp_path / "again_lung.nii.gz")):
        cohort = lungmix.open_cohort(tmp_path / f"{number}.zarr", "a")
        case_of(cohort, "one", first.ct.compute(), first.geometry)
        give(cohort, open_mask(file), computed=MaskStage(MaskParameters("paper")))
        label(cohort)
        cases.append(cohort["one"])
        export_case(cohort["one"], tmp_path / "again_lung.nii.gz", "lung")
    assert cases[0].stages["side"]["files"] == cases[1].stages["side"]["files"] == first.stages["side"]["files"]


@pytest.mark.parametrize(
    "text",
    ["", "given", "lungmask", "physical threshold", "paper radii=a", "paper opening=1.5", "paper  opening=1", "Paper",
     "anatomical opening=2", "physical=1", "paper radii=", "paper opening=99999999999999999999"],
)  # fmt: skip
def test_texts_of_other_programs_are_no_parameters_of_a_mask(text):
    assert mask_of_text(text) is None


@pytest.mark.parametrize(
    "parameters",
    [MaskParameters(), MaskParameters("physical"), MaskParameters("anatomical", threshold=-350),
     MaskParameters("paper", threshold=-200, opening=0, min_voxels=7, radii=(4,)),
     MaskParameters("physical", radii=(3, 2))],
)  # fmt: skip
def test_parameters_of_a_mask_are_read_from_their_text(parameters):
    assert mask_of_text(text_of_mask(parameters.to_dict())) == parameters


def test_verification_passes_labels_by_a_fit_whose_checks_fail(cohort):
    fit = replace(MODEL, fit_info={DOUBTS: ["the fit ended before its stopping rule was met"]})
    assert doubts_of(fit, is_fit=True) != doubts_of(fit, is_fit=False)
    publish(cohort, fit, {})
    give(cohort, mask_of(two_lungs(), GRID), "right=1,left=2")
    LabelStage(fit, "converged").run(StageContext(InProcess(), cohort), "one")
    assert problems_of(cohort) == []
