"""Strategies of hypothesis for small volumes and their chunks, with every structure that the method distinguishes."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import SimpleITK as sitk
from hypothesis import strategies as st
from scipy import ndimage
from scipy.special import ndtr

from lungmix.mixture import TissueModel
from lungmix.store import CohortWriter
from lungmix.store.schema import PACKED

shapes = st.tuples(st.integers(1, 26), st.integers(1, 26), st.integers(1, 26))


@st.composite
def masks(draw, shape=shapes):
    """Draw binary volumes: sparse noise, blobs, or nearly full."""
    size = draw(shape)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    field = random.random(size)
    if draw(st.booleans()):
        field = ndimage.gaussian_filter(field, draw(st.floats(0.5, 2.5)))
    return (field > np.quantile(field, draw(st.floats(0.05, 0.95)))).astype(np.uint8)


@st.composite
def chunkings(draw, shape):
    """Draw chunks of a volume: thin, thick or uneven."""
    chunks = []
    for n in shape:
        cuts = sorted(draw(st.sets(st.integers(1, n - 1), max_size=5))) if n > 1 else []
        edges = [0, *cuts, n]
        chunks.append(tuple(b - a for a, b in zip(edges[:-1], edges[1:], strict=True)))
    return tuple(chunks)


@st.composite
def chests(draw):
    """Draw HU volumes with islands of air in a body; some touch the edge, are too small, or are cut in z."""
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


@st.composite
def models(draw, components=None):
    """Mixtures of any order, overlap and width."""
    k = components or draw(st.integers(1, 6))
    weights = np.array(draw(st.lists(st.floats(0.001, 1), min_size=k, max_size=k)))
    means = draw(st.lists(st.floats(-1100, 500), min_size=k, max_size=k))
    sds = np.array(draw(st.lists(st.floats(5, 500), min_size=k, max_size=k)))
    return TissueModel(tuple(weights / weights.sum()), tuple(means), tuple(sds**2))


HU = np.arange(-32768, 32768)
DIRECTIONS = {
    "oblique": (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0),
    "flipped": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "mirrored": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    "tilted": tuple(np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0].ravel()),
}
"""Directions of axes: oblique, flipped, mirrored, or random."""

ORIENTATIONS = sorted("".join(letters) for ends in permutations(("RL", "AP", "IS")) for letters in product(*ends))
"""The 48 storage orders, by their names in ITK's DICOMOrient; LPS is the axial array."""


def reoriented(volume, geometry, orientation):
    """Return array and geometry of the same voxels in another storage order, by ITK."""
    from lungmix.geometry import Geometry

    image = sitk.DICOMOrient(geometry.apply_to(sitk.GetImageFromArray(volume)), orientation)
    return sitk.GetArrayFromImage(image), Geometry.from_sitk(image)


def as_axial(volume, geometry):
    """Return voxels of any storage order as the axial array, by ITK."""
    return reoriented(volume, geometry, "LPS")[0]


def expected_counts(weights, means, sds, voxels):
    """Return the exact expected number of voxels at each HU after rounding, float64 of shape (65536,)."""
    low, high = ((HU[:, None] + shift - np.asarray(means)) / np.asarray(sds) for shift in (-0.5, 0.5))
    return voxels * ((ndtr(high) - ndtr(low)) @ np.asarray(weights))


def counts_of_scans(n, voxels=200_000, spread=30.0, seed=0, model=None):
    """Return histograms of scans with weights near those of a model; HU are clipped at -1024 as by scanners."""
    from lungmix.mixture import PUBLISHED

    model = model or PUBLISHED
    random, weights = np.random.default_rng(seed), np.array(model.weights) / sum(model.weights)
    out = {}
    for i in range(n):
        counts = expected_counts(random.dirichlet(spread * weights), model.means, np.sqrt(model.variances), 1)
        drawn = random.multinomial(voxels, counts / counts.sum()).astype(np.uint64)
        edge = -1024 + 32768
        drawn[edge] += drawn[:edge].sum()
        drawn[:edge] = 0
        out[f"case-{i + 1:03d}"] = drawn
    return out


def store_of_counts(url, counts, acquisitions=None, geometries=None):
    """Return a store of masked cases that has their histograms, but no voxels.

    Acquisitions and geometries are given by case; other cases have no known acquisition and voxels of 5 mm.
    """
    import lungmix
    from lungmix.geometry import Geometry
    from lungmix.privacy.acquisition import Acquisition

    cohort = lungmix.open_cohort(url, "a")
    acquisitions, geometries = acquisitions or {}, geometries or {}
    for name, histogram in counts.items():
        geometry = geometries.get(name, Geometry((64, 64, 40), (5.0, 5.0, 5.0)))
        case = CohortWriter(cohort).add(name, geometry, acquisitions.get(name, Acquisition()))
        case.write_histogram("hu_counts", histogram)
        case.record("mask", {"key": f"{name}-{int(histogram.sum())}"})
    return cohort


def case_of(cohort, name, hu, geometry, chunk_slices=None):
    """Return a converted case with the given voxels."""
    from lungmix.kernels.packed_masks import pack_below
    from lungmix.privacy.acquisition import Acquisition
    from lungmix.stages import convert

    case = CohortWriter(cohort).add(name, geometry, Acquisition(), chunk_slices=chunk_slices)
    case.create_image("ct")
    packed = case.create_packed(PACKED)
    for start, stop in case.layout.slabs():
        case.write("ct", start, hu[start:stop])
        packed |= case.write_packed(PACKED, start, pack_below(hu[start:stop], convert.AIR_THRESHOLD))
    case.record_packed(convert.AIR_THRESHOLD, packed)
    case.record(convert.STAGE, {"voxels_sha256": name})
    return case


def labelled_case(cohort, name, geometry, seed=0, labels=5, acquisition=None):
    """Return a case as after all stages, whose lungs are two boxes of random labels."""
    import hashlib

    from lungmix.privacy.acquisition import Acquisition

    random = np.random.default_rng(seed)
    acquisition = acquisition or Acquisition("CT", "Maker", "Model", "Br36", 110.0, 1.5)
    case = CohortWriter(cohort).add(name, geometry, acquisition)
    ct = random.integers(-1000, 400, geometry.shape).astype(np.int16)
    tissue = np.zeros(geometry.shape, np.uint8)
    nz, ny, nx = geometry.shape
    for start in (nx // 8, nx // 2 + 1):
        where = (slice(nz // 5, -(nz // 5) or None), slice(ny // 4, -2), slice(start, start + nx // 4))
        tissue[where] = random.integers(1, labels + 1, tissue[where].shape)
    volumes = {"ct": ct, "lung": (tissue > 0).astype(np.uint8), "tissue": tissue, "tissue_median": tissue[::-1].copy()}
    for image, volume in volumes.items():
        case.create_image(image)
        for start, stop in case.layout.slabs():
            case.write(image, start, volume[start:stop])
    digest = hashlib.sha256(np.ascontiguousarray(ct).data).hexdigest()
    case.record("convert", {"key": name, "voxels_sha256": digest})
    case.record("mask", {"key": f"{name} mask"})
    case.record("label", {"key": f"{name} label"})
    return case
