"""Volumes and chunkings for properties: small, but with all that the method has to tell apart."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from scipy import ndimage

shapes = st.tuples(st.integers(1, 26), st.integers(1, 26), st.integers(1, 26))


@st.composite
def masks(draw, shape=shapes):
    """Binary volumes from sparse noise to blobs to nearly full."""
    size = draw(shape)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    field = random.random(size)
    if draw(st.booleans()):
        field = ndimage.gaussian_filter(field, draw(st.floats(0.5, 2.5)))
    return (field > np.quantile(field, draw(st.floats(0.05, 0.95)))).astype(np.uint8)


@st.composite
def chunkings(draw, shape):
    """Chunks of a volume: thin, thick, uneven."""
    chunks = []
    for n in shape:
        cuts = sorted(draw(st.sets(st.integers(1, n - 1), max_size=5))) if n > 1 else []
        edges = [0, *cuts, n]
        chunks.append(tuple(b - a for a, b in zip(edges[:-1], edges[1:], strict=True)))
    return tuple(chunks)


@st.composite
def chests(draw):
    """HU volumes with air islands inside a body: some clear of the edge, some not, some too small, some cut in z."""
    nz, ny, nx = draw(st.integers(1, 24)), draw(st.integers(8, 28)), draw(st.integers(8, 28))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hu = np.full((nz, ny, nx), 40, np.int16)
    z, y, x = np.indices(hu.shape)
    for _ in range(draw(st.integers(1, 6))):
        centre = [random.uniform(-1, n + 1) for n in hu.shape]
        radii = random.uniform(1.5, [max(nz, 4), ny / 2, nx / 2])
        inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), centre, radii, strict=True)) < 1
        hu[inside] = random.choice([-1000, -850, -700, -156, -155])
    if draw(st.booleans()):
        hu[:, [0, -1], :] = 40
        hu[:, :, [0, -1]] = 40
    if draw(st.booleans()):
        hu[(y - ny / 2) ** 2 + (x - nx / 2) ** 2 > (min(ny, nx) / 2) ** 2] = -2048
    noise = draw(st.sampled_from([0, 5, 120, 400]))
    return (hu + random.normal(0, 1, hu.shape) * noise).astype(np.int16)
