"""Chests with ribs, trachea, masses and gas in the abdomen, for masks of the preset ``anatomical``."""

import numpy as np

GRIDS = {(30, 44, 52): (6.0, 6.0, 6.5), (26, 60, 70): (7.5, 5.0, 5.0), (40, 84, 100): (5.0, 3.2, 3.2)}


def chest(shape, spacing, seed):
    """Return a body with lungs, trachea, ribs, masses and gas in the abdomen, of random sizes: int16 [z, y, x]."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(n) * s - n * s / 2 for n, s in zip(shape, spacing, strict=True)), indexing="ij")

    def ball(centre, radii):
        return sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, radii, strict=True)) <= 1

    width, depth, height = shape[2] * spacing[2] * 0.44, shape[1] * spacing[1] * 0.43, shape[0] * spacing[0] * 0.42
    hu = np.where((y / depth) ** 2 + (x / width) ** 2 <= 1, 40.0, -1000.0)
    hu[((y / depth) ** 2 + (x / width) ** 2 <= 0.9) & ((y / depth) ** 2 + (x / width) ** 2 > 0.82) & (z % 24 < 10)] = (
        400
    )
    gap = rng.uniform(-2, 12)
    for side in (-1, 1):
        radii = height * rng.uniform(0.8, 1), depth * rng.uniform(0.6, 0.8), width * 0.42
        hu[ball((0, 0, side * (width * 0.42 + gap)), radii)] = rng.uniform(-880, -780)
        if rng.random() < 0.6:
            place = (
                rng.uniform(-0.3, 0.3) * height,
                rng.uniform(-0.4, 0.4) * depth,
                side * width * rng.uniform(0.4, 0.85),
            )
            hu[ball(place, (rng.uniform(10, 30),) * 3) & (hu < 100)] = rng.uniform(-50, 60)
    hu[ball((-height, -depth * 0.3, width * 0.3), (18, 16, 20))] = -990
    hu[((y - 8) ** 2 + x**2 <= 9**2) & (z > 0)] = -980
    hu[(y > depth + 6) & (y < depth + 14)] = 200
    return (hu + rng.normal(0, rng.uniform(5, 60), shape)).round().clip(-1024, 2000).astype(np.int16)
