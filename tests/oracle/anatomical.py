"""Slow definition of the preset ``anatomical`` on whole axial volumes: numpy and scipy, one step after the other.

Two steps are those of the package, which have oracles of their own: sections of the trachea, and the cut between lungs
that touch.
"""

from itertools import product

import numpy as np
from scipy import ndimage

from lungmix.kernels.airway import tube_sections
from lungmix.kernels.geodesic import flood
from lungmix.kernels.regions import separate_lungs

FACES = ndimage.generate_binary_structure(3, 1)
ALL = np.ones((3, 3, 3), bool)


def lung_parts(hu, spacing, first=(0, 0, 0)):
    """Return 1 and 2 for aerated right and left lung, 3 and 4 for dense right and left lung; z runs to the head.

    The volume begins at voxel `first` of a grid whose reduced voxels begin at multiples of their size.
    """
    threshold = -400 if min(spacing[1:]) > 2 else -300
    factors = factors_of(spacing)
    missing = [index % factor for index, factor in zip(first, factors, strict=True)]
    first_reduced = [index // factor for index, factor in zip(first, factors, strict=True)]
    small = reduced(hu, factors, missing)
    step = [factor * s for factor, s in zip(factors, spacing, strict=True)]
    air = small < threshold
    lungs = lung_components(small, air, step)
    airway = lumen(small, air, lungs, step)
    gas = components_from(lungs & ~airway, 1.0, step)
    if not gas.any():
        gas, airway = lungs, np.zeros_like(lungs)
    if not gas.any():
        return np.zeros(hu.shape, np.uint8)
    sides = separate_lungs(gas, small, step)
    nearest = sides.copy()
    flood(nearest)
    pieces, n = ndimage.label(gas & (sides == 0))
    for piece in (pieces == k for k in range(1, n + 1)):
        sides[piece] = 2 if (nearest[piece] == 2).sum() > (nearest[piece] == 1).sum() else 1
    nearest = sides.copy()
    flood(nearest)
    inner, dense = np.zeros(small.shape, bool), dense_lung(small, sides, airway, threshold, step, first_reduced)
    for side in (1, 2):
        filled = closing(sides == side, 5.0, step) & ~airway & (nearest == side)
        for plane in filled:
            holes, n = ndimage.label(ndimage.binary_fill_holes(plane) & ~plane)
            for hole in range(1, n + 1):
                if (holes == hole).sum() * step[1] * step[2] <= 500:
                    plane |= holes == hole
        inner |= ndimage.binary_erosion(filled, ALL, border_value=1)
    near = np.zeros(small.shape, bool)
    for side in (1, 2):
        near |= ndimage.binary_dilation(sides == side, ALL) & (nearest == side)
    nearest, inner, dense, near, airway = (
        full(a, factors, hu.shape, missing) for a in (nearest, inner, dense, near, airway)
    )
    out = np.zeros(hu.shape, np.uint8)
    air = hu < threshold
    for side in (1, 2):
        of_side = nearest == side
        aerated = of_side & (air & near & ~airway | inner)
        allowed = of_side & ~(air & airway)
        if (of_side & dense).any():
            out[closing(aerated | of_side & dense, 3.0, spacing, at_least=False) & allowed] = side + 2
        out[closing(aerated, 3.0, spacing, at_least=False) & allowed] = side
    return out


def factors_of(spacing):
    plane = max((n for n in (1, 2, 4) if n * max(spacing[1:]) <= 4), default=1)
    slices = 1
    for doubled in (1, 2):
        if doubled < plane and spacing[0] * slices <= 1.5 * min(spacing[1:]) * doubled:
            slices *= 2
    strides = [max(1, int(2.5 / (n * s))) for n, s in zip((slices, plane, plane), spacing, strict=True)]
    return [n * stride for n, stride in zip((slices, plane, plane), strides, strict=True)]


def reduced(hu, factors, missing):
    assert all(n in (1, 2, 4) for n in factors), "these volumes have blocks without strides"
    hu = np.pad(hu, [(n, 0) for n in missing], mode="edge")
    padded = np.pad(hu, [(0, -n % f) for n, f in zip(hu.shape, factors, strict=True)], mode="edge").astype(np.int64)
    z, y, x = (n // f for n, f in zip(padded.shape, factors, strict=True))
    total = padded.reshape(z, factors[0], y, factors[1], x, factors[2]).sum(axis=(1, 3, 5))
    count = int(np.prod(factors))
    return ((total + count // 2) // count).astype(np.int16)


def full(small, factors, shape, missing):
    for axis, factor in enumerate(factors):
        small = small.repeat(factor, axis)
    return small[tuple(slice(skipped, skipped + n) for n, skipped in zip(shape, missing, strict=True))]


def sphere(radius, spacing, at_least=True):
    radius = (max(radius, 1.01 * max(spacing)) if at_least else radius) + 1e-6
    extent = [int(radius // s) for s in spacing]
    grid = np.meshgrid(*(np.arange(-n, n + 1) * s for n, s in zip(extent, spacing, strict=True)), indexing="ij")
    return np.sqrt(sum(axis**2 for axis in grid)) <= radius


def closing(mask, radius, spacing, at_least=True):
    element = sphere(radius, spacing, at_least)
    width = max(element.shape)
    return ndimage.binary_closing(np.pad(mask, width), element)[(slice(width, -width),) * 3]


def opening(mask, radius, spacing):
    element = sphere(radius, spacing)
    width = max(element.shape)
    return ndimage.binary_opening(np.pad(mask, width, mode="edge"), element)[(slice(width, -width),) * 3]


def components_from(mask, least_ml, spacing, structure=FACES):
    labels, n = ndimage.label(mask, structure)
    ml = np.bincount(labels.reshape(-1)) * np.prod(spacing) / 1000
    return np.isin(labels, [number for number in range(1, n + 1) if ml[number] >= least_ml])


def lung_components(hu, air, spacing):
    labels, n = ndimage.label(air)
    solid, m = ndimage.label(ndimage.binary_opening(~air))
    sizes = [(solid == k).sum() for k in range(1, m + 1)]
    body = solid == 1 + int(np.argmax(sizes)) if sizes else solid > 0
    core = ndimage.binary_erosion(air, border_value=1)
    volumes = {k: (labels == k).sum() * np.prod(spacing) / 1000 for k in range(1, n + 1)}
    means = hu.astype(np.float32)
    total, share = (ndimage.uniform_filter(a.astype(np.float32), 3) for a in (np.where(core, hu, 0), core))
    means[core] = total[core] / share[core]
    candidates = {}
    for k in sorted(volumes, key=lambda k: (-volumes[k], k)):
        mask = labels == k
        inside = mask & core if (mask & core).any() else mask
        if volumes[k] >= 1 and enclosed_in_plane(mask, body, hu):
            aerated = ((means[inside] > -960) & (means[inside] < -450)).mean() * volumes[k]
            candidates[k] = mask, aerated, (hu[inside] < -960).mean()
    largest_aerated = max((a for k, (_, a, _) in candidates.items() if a >= 0.6 * volumes[k]), default=np.inf)
    kept, pieces, largest = np.zeros(air.shape, bool), [], 0.0
    for k, (mask, aerated, gas) in candidates.items():
        if aerated < 0.6 * volumes[k] and aerated < 0.3 * largest_aerated:
            continue
        if volumes[k] >= 0.1 * largest:
            largest = max(largest, volumes[k])
            kept |= mask
        elif gas <= 0.05:
            pieces.append(mask)
    out = kept.copy()
    near, wide = ndimage.binary_dilation(kept, sphere(4.0, spacing)), opening(kept, 15.0, spacing)
    for piece in pieces:
        z, y, x = np.nonzero(piece)
        over = np.mean([wide[: a + 1, b, c].any() for a, b, c in zip(z, y, x, strict=True)])
        if (near & piece).any() or over >= 0.5:
            out |= piece
    return out


def enclosed_in_plane(mask, body, hu):
    """Return True if a component lies in the body.

    Rays run from the outermost voxels of each row and column to the four sides of the axial slice. Most of them must
    meet the body before they meet outside air.
    """
    blocked = into_air = rays = 0
    outside = (hu < -960) & ~mask
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        for turned in (False, True):
            planes = [plane[z].T if turned else plane[z] for plane in (mask, body, outside)]
            for inside, wall, air in zip(*planes, strict=True):
                if not inside.any():
                    continue
                first, last = np.flatnonzero(inside)[[0, -1]]
                for way in (np.arange(last + 1, len(inside)), np.arange(first)[::-1]):
                    hits = [(way[a[way]][:1].tolist() or [None])[0] for a in (wall, air)]
                    at = [np.inf if hit is None else abs(hit - way[0]) for hit in hits]
                    blocked += at[0] < at[1]
                    into_air += at[1] < at[0]
                    rays += 1
    if blocked < 0.75 * (blocked + into_air) or blocked < rays / 3:
        return False
    corners = [bool(mask[z, y, x]) for z in range(len(mask)) if mask[z].any() for y in (0, -1) for x in (0, -1)]
    return blocked >= rays / 2 or sum(corners) < len(corners) / 3


def lumen(hu, air, lungs, spacing):
    labels, n = ndimage.label(air)
    at_edge = {int(k) for a in (1, 2) for i in (0, -1) for k in np.unique(labels.take(i, a))}
    inside = ~np.isin(labels, sorted(at_edge)) & air | lungs
    steps = np.array([[0, 0, spacing[2]], [0, spacing[1], 0], [spacing[0], 0, 0]], float)
    tubes, n = ndimage.label(tube_sections(hu, (hu < -850) & inside, lungs, steps, (-200, 150)), ALL)
    heights = [(box[0].stop - box[0].start) * spacing[0] for box in ndimage.find_objects(tubes)]
    if not n or max(heights) < 20:
        return np.zeros(air.shape, bool)
    best = max(range(n), key=lambda i: (heights[i], (tubes == i + 1).sum(), -i))
    tube = tubes == best + 1
    core = opening(closing(lungs & ~tube, 5.0, spacing), 10.0, spacing)
    out, before = tube, None
    while before is None or (out != before).any():
        before, out = out, (ndimage.binary_dilation(out, ALL) & (hu < -850) & air & ~core) | out
    rim = ndimage.binary_dilation(out, ALL) & air & ~core
    return out | rim | ndimage.binary_dilation(rim, FACES) & air & ~core & (hu < -700)


def dense_lung(hu, sides, airway, threshold, spacing, first):
    z, y, x = spacing
    step = max(1, int(z / max(y, x) + 0.5))
    # Take the rows and columns at multiples of the step, and the first ones; each stands for those up to the next.
    rows, columns = (
        [k for k in range(n) if k == 0 or (at + k) % step == 0] for n, at in zip(hu.shape[1:], first[1:], strict=True)
    )
    thin = np.ix_(range(len(hu)), rows, columns)
    few = surrounded(hu[thin], sides[thin], airway[thin], threshold, (z, y * step, x * step))
    inside = np.zeros(hu.shape, bool)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            inside[:, row : row + step, column : column + step] = few[:, i : i + 1, j : j + 1]
    inside = inside & (hu >= threshold) & ~airway
    return inside & ndimage.binary_dilation(opening(inside, 6.0, spacing), sphere(12.0, spacing))


def surrounded(hu, sides, airway, threshold, spacing):
    stops = sides.copy()
    stops[((hu < threshold) & (sides == 0)) | airway] = 4
    reach = round(10 / spacing[0])
    bone = components_from(hu > 150, 2.0, spacing, ALL)
    wall = np.array([bone[max(0, k - reach) : k + reach + 1].any(axis=0) for k in range(len(bone))])
    stops[wall & (sides == 0)] = 3
    ways = [way for way in product((-1, 0, 1), repeat=3) if any(way)]
    out = np.zeros(hu.shape, bool)
    hits = {way: first_stop(stops, way, 80 / np.linalg.norm(np.multiply(way, spacing))) for way in ways}
    for side, outward in ((1, -1), (2, 1)):
        lung = sum((hit == side).astype(int) for hit in hits.values())
        stopped = {way: (hit == side) | ((hit == 3) & (way[2] * outward >= 0)) for way, hit in hits.items()}
        down = sum(hit.astype(int) for way, hit in stopped.items() if way[0] < 0)
        out |= (sum(hit.astype(int) for hit in stopped.values()) >= 0.8 * 26) & (lung >= 0.4 * 26) & (down >= 0.5 * 9)
    return out & (stops == 0)


def first_stop(stops, way, steps):
    """Return the code of what the ray from each voxel meets first, followed step by step; 9 outside the volume."""
    steps = max(1, min(int(steps), 250))
    padded = np.pad(stops, steps, constant_values=9)
    hit = np.zeros(stops.shape, int)
    for step in range(1, steps + 1):
        seen = padded[
            tuple(slice(steps + w * step, steps + w * step + n) for w, n in zip(way, stops.shape, strict=True))
        ]
        hit = np.where(hit == 0, seen, hit)
    return np.where(hit == 9, 0, hit)
