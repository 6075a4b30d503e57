import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lungmix
from lungmix.errors import AlignmentError, StoreError, UsageError
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import CohortWriter
from lungmix.store.chunking import POSSIBLE_SLICES, layout_of, shrink_mean

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def case(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "store.zarr", "a")
    geometry = Geometry((40, 33, 150), (0.7, 0.7, 0.1 + 0.2), (-1 / 3, 2.5, 1e-17), OBLIQUE)
    return CohortWriter(cohort).add("case-001", geometry, Acquisition("CT", "Maker", "Model", None, 110.0, 0.3))


def fill(case, name, volume):
    case.create_image(name)
    for start, stop in case.layout.slabs():
        case.write(name, start, volume[start:stop])


def test_volume_and_geometry_are_read_back_exactly(case, tmp_path):
    volume = np.random.default_rng(0).integers(-32768, 32767, case.geometry.shape).astype(np.int16)
    fill(case, "ct", volume)
    again = lungmix.open_cohort(tmp_path / "store.zarr")["case-001"]
    with pytest.raises(StoreError, match="no complete image ct"):
        _ = again.ct
    case.record("convert", {"key": "c"})
    again = lungmix.open_cohort(tmp_path / "store.zarr")["case-001"]
    assert np.array_equal(again.ct.compute(), volume)
    assert again.geometry == case.geometry
    assert again.acquisition == case.acquisition
    image = again.to_sitk("ct")
    assert image.GetDirection() == OBLIQUE
    assert image.GetSpacing() == case.geometry.spacing


@pytest.mark.parametrize(("start", "depth"), [(0, 63), (1, 64), (32, 64), (64, 65), (128, 21), (0, 1)])
def test_write_of_a_partial_shard_is_rejected(case, start, depth):
    case.create_image("ct")
    slab = np.ones((depth, *case.geometry.shape[1:]), np.int16)
    with pytest.raises(AlignmentError, match="whole shards"):
        case.write("ct", start, slab)
    assert not case.zarr_array("ct")[:].any()


def test_slabs_own_their_shards_on_every_level():
    for shape in [(1, 8, 8), (63, 512, 512), (1251, 512, 512), (300, 1024, 1024), (5000, 768, 700)]:
        layout = layout_of(Geometry(shape[::-1], (0.7, 0.7, 0.7)))
        for level in layout.levels:
            assert layout.slab % level.factors[0] == 0
            assert level.shards[0] * level.factors[0] == layout.slab
            assert all(s % c == 0 for s, c in zip(level.shards, level.chunks, strict=True))
        assert layout.slab * shape[1] * shape[2] * 2 <= 80 << 20


@pytest.mark.parametrize("slices", POSSIBLE_SLICES)
def test_slabs_of_a_chosen_size_own_their_shards(slices):
    for shape in [(5, 8, 8), (1251, 512, 512), (300, 1024, 1024)]:
        geometry = Geometry(shape[::-1], (0.7, 0.7, 0.7))
        layout = layout_of(geometry, slices)
        assert layout.slab == (8 if shape[0] == 5 else slices)
        assert [level.shape for level in layout.levels] == [level.shape for level in layout_of(geometry).levels]
        for level in layout.levels:
            assert level.shards[0] * level.factors[0] == layout.slab
            assert level.chunks[0] == level.shards[0]


def test_invalid_number_of_slices_is_rejected():
    for slices in (0, 7, 48, 128):
        with pytest.raises(UsageError, match="8, 16, 32, 64"):
            layout_of(Geometry((8, 8, 8)), slices)


def test_slabs_may_be_written_in_any_order(case):
    volume = np.arange(np.prod(case.geometry.shape), dtype=np.int64).reshape(case.geometry.shape).astype(np.int16)
    case.create_image("ct")
    for start, stop in reversed(list(case.layout.slabs())):
        case.write("ct", start, volume[start:stop])
    assert np.array_equal(case.zarr_array("ct")[:], volume)
    factors = case.layout.levels[1].factors
    assert np.array_equal(case.zarr_array("ct", 1)[:], shrink_mean(volume, factors))


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 3)] * 3))
@settings(max_examples=60)
def test_coarse_level_is_the_rounded_mean_of_blocks(shape, factors):
    slab = np.random.default_rng(1).integers(-1000, 1000, shape).astype(np.int16)
    padded = np.pad(slab, [(0, -n % f) for n, f in zip(shape, factors, strict=True)], mode="edge").astype(float)
    blocks = padded.reshape([v for n, f in zip(padded.shape, factors, strict=True) for v in (n // f, f)])
    assert np.array_equal(shrink_mean(slab, factors), np.floor(blocks.mean(axis=(1, 3, 5)) + 0.5).astype(np.int16))


def test_store_is_valid_for_an_independent_validator(case, tmp_path):
    import zarr
    from ome_zarr_models.v05.image import Image
    from ome_zarr_models.v05.image_label import ImageLabel

    fill(case, "ct", np.zeros(case.geometry.shape, np.int16))
    for name in ("lung", "tissue", "tissue_median"):
        fill(case, name, np.ones(case.geometry.shape, np.uint8))
    root = zarr.open_group(tmp_path / "store.zarr", mode="r")
    image = Image.from_zarr(root["case-001"])
    assert len(image.attributes.ome.multiscales[0].datasets) >= 3
    assert sorted(root["case-001/labels"].attrs["ome"]["labels"]) == ["lung", "tissue", "tissue_median"]
    for name in ("lung", "tissue", "tissue_median"):
        label = ImageLabel.from_zarr(root[f"case-001/labels/{name}"])
        assert label.attributes.ome.image_label.colors


def test_independent_reader_sees_the_voxels_and_the_spacing(case, tmp_path):
    import ngff_zarr

    volume = np.random.default_rng(0).integers(-1000, 1000, case.geometry.shape).astype(np.int16)
    fill(case, "ct", volume)
    read = ngff_zarr.from_ngff_zarr(str(tmp_path / "store.zarr" / "case-001"), version="0.5")
    assert np.array_equal(read.images[0].data.compute(scheduler="synchronous"), volume)
    assert read.images[0].scale == dict(zip("zyx", case.geometry.spacing_zyx, strict=True))
    assert len(read.images) == 3


def test_folder_with_other_files_is_not_taken_for_a_store(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    for mode in ("r", "r+", "a"):
        with pytest.raises(StoreError, match="not a lungmix store"):
            lungmix.open_cohort(tmp_path, mode)


def test_other_zarr_group_is_not_taken_for_a_store(tmp_path):
    import zarr

    zarr.open_group(tmp_path / "other.zarr", mode="a")
    with pytest.raises(StoreError, match="not a lungmix store"):
        lungmix.open_cohort(tmp_path / "other.zarr", "a")


def test_file_is_not_taken_for_a_store(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        lungmix.open_cohort(tmp_path / "file", "a")


def test_error_for_a_missing_store_says_how_to_create_one(tmp_path):
    with pytest.raises(StoreError, match=r"lungmix\.run"):
        lungmix.open_cohort(tmp_path / "none.zarr")


@pytest.mark.parametrize("name", ["../out", "a/b", "", "A", ".hidden", "x" * 200])
def test_invalid_case_names_are_rejected(tmp_path, name):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    with pytest.raises(StoreError, match="cannot name a case"):
        CohortWriter(cohort).add(name, Geometry((1, 1, 1)), Acquisition())
    assert name not in cohort


def test_error_for_a_missing_image_names_it(case):
    with pytest.raises(StoreError, match="no complete image tissue"):
        _ = case.tissue


def test_text_files_of_the_store_are_plain_files(case, tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "store.zarr", "r+")
    assert cohort.read_text("model.json") is None
    CohortWriter(cohort).write_text("model.json", '{"a": 1}')
    assert json.loads((tmp_path / "store.zarr" / "model.json").read_text()) == {"a": 1}
