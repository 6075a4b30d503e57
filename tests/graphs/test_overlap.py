import tracemalloc

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lungmix
from lungmix.graphs.memory import (
    label_chunks,
    label_task_bytes,
    mask_chunks,
    mask_task_bytes,
    potts_chunks,
    potts_task_bytes,
)
from lungmix.graphs.overlap import join_chunks, map_with_halo
from lungmix.kernels.median import median_labels
from lungmix.kernels.morphology import closing
from lungmix.kernels.packed_masks import pack
from lungmix.kernels.potts import potts_labels, tables_of
from lungmix.kernels.structuring_elements import ball
from lungmix.parameters import POTTS_ITERATIONS
from support.generators import chunkings

chunk_lists = st.lists(st.integers(1, 70), min_size=1, max_size=30)


@given(chunk_lists, st.integers(1, 300), st.integers(0, 130))
def test_joined_chunks_cut_none_and_keep_the_smallest_thickness(chunks, depth, smallest):
    joined = join_chunks(chunks, depth, smallest)
    assert set(np.cumsum(joined)) <= set(np.cumsum(chunks))
    assert sum(joined) == sum(chunks)
    assert len(joined) == 1 or min(joined) >= smallest


@given(chunk_lists, st.integers(1, 300))
def test_joined_chunks_are_no_thicker_than_asked_unless_one_chunk_is(chunks, depth):
    assert max(join_chunks(chunks, depth)) <= max(depth, max(chunks))


@given(
    st.data(),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.lists(st.tuples(*[st.integers(0, 9)] * 2), min_size=3, max_size=3),
)
def test_block_sees_as_much_of_its_neighbours_as_its_halo_is_deep(data, shape, halos):
    volume = np.arange(np.prod(shape)).reshape(shape)

    def total_of_window(window, core):
        reach = [(part.start, len_ - part.stop) for part, len_ in zip(core, window.shape, strict=True)]
        for (before, after), (low, high) in zip(reach, halos, strict=True):
            assert before in (0, low)
            assert after in (0, high)
        return window[core]

    chunks = data.draw(chunkings(shape))
    again = map_with_halo(total_of_window, da.from_array(volume, chunks=chunks), halos)
    assert np.array_equal(again.compute(scheduler="synchronous"), volume)


@pytest.mark.parametrize("chunks", [(512, 512, 512), (64, 5120, 5120)])
def test_graph_of_5120_cubed_grows_with_the_blocks_not_with_their_pairs(chunks):
    ct = da.zeros((5120,) * 3, chunks=chunks, dtype=np.int16)
    mask = lungmix.lung_mask(ct)
    assert mask.chunks == ct.chunks
    assert len(mask.__dask_graph__()) < 30 * ct.npartitions


def peak_of(function):
    """Bytes that arrays take at most while `function` runs, its kernels being loaded."""
    function()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("depth", "ny", "nx", "radius"), [(64, 256, 256, 30), (128, 300, 200, 13), (16, 64, 700, 20)])
def test_closing_of_a_slab_stays_within_the_memory_model(depth, ny, nx, radius):
    mask = np.zeros((depth + 4 * radius, ny, nx), np.uint8)
    mask[:, 10:-10, 10:-10] = np.random.default_rng(0).random((len(mask), ny - 20, nx - 20)) < 0.01
    window = pack(mask)
    planes = (2 * radius, 2 * radius + depth)
    peak = peak_of(lambda: closing(window, nx, ball(radius), planes))
    assert peak + window.nbytes <= mask_task_bytes(depth, ny, nx, 2 * radius)


def test_median_of_a_slab_stays_within_the_memory_model():
    labels = np.random.default_rng(0).integers(0, 6, (67, 256, 256)).astype(np.uint8)
    peak = peak_of(lambda: median_labels(labels))
    assert peak + labels.nbytes <= label_task_bytes(67, 64, 256, 256)


@pytest.mark.parametrize(
    ("depth", "ny", "nx", "n_components"), [(40, 256, 256, 5), (24, 512, 512, 5), (16, 256, 512, 20)]
)
def test_potts_labels_of_a_slab_stay_within_the_memory_model(depth, ny, nx, n_components):
    random, shape = np.random.default_rng(0), (depth + 2 * POTTS_ITERATIONS, ny, nx)
    hu, mask = random.normal(-800, 100, shape).astype(np.int16), np.ones(shape, np.uint8)
    tables = tables_of([1 / n_components] * n_components, range(-900, -900 + n_components), [900.0] * n_components)
    core = slice(POTTS_ITERATIONS, POTTS_ITERATIONS + depth)
    peak = peak_of(lambda: potts_labels(hu, mask, tables, (256, 256, 256), 0.5, core=core))
    received, surrounded = 3 * depth * ny * nx, hu.nbytes + mask.nbytes
    held = peak + received + surrounded + sum(table.nbytes for table in tables)
    # Other objects of this process, such as those of a cluster, are measured too.
    assert held <= potts_task_bytes(depth, 1, ny, nx, n_components) + (1 << 20)


def test_slabs_get_thinner_as_memory_gets_less():
    stored = [64] * 40
    for choose in (mask_chunks, label_chunks, potts_chunks):
        thickness = [max(choose(stored, 512, 512, 4, limit << 20)) for limit in (350, 600, 1000, 1500, 4000)]
        assert thickness == sorted(thickness)
        assert thickness[0] == 64
        assert thickness[-1] >= 128
