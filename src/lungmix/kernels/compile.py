"""Compile all kernels in advance: ``python -m lungmix.kernels.compile``.

Machine code is cached next to the modules, where all users of an installation can read it. If that folder is not
writable, the code is cached for the current user only; see `lungmix.kernels.jit`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np

from lungmix.kernels.anatomical.dense import find_dense
from lungmix.kernels.burned_in_text import text_lines
from lungmix.kernels.components import label_runs, merge_tables, render_components, table_of
from lungmix.kernels.downsampling import mean_of_blocks
from lungmix.kernels.geodesic import chamfer_distance, flood, geodesic_assign, wave_numbers
from lungmix.kernels.histogram import count_hu
from lungmix.kernels.labels import count_labels, look_up
from lungmix.kernels.lung_zones import count_planes, count_planes_of_mask, zone_counts
from lungmix.kernels.median import median_labels
from lungmix.kernels.morphology import closing, opening
from lungmix.kernels.packed_masks import pack
from lungmix.kernels.plausibility import add_all
from lungmix.kernels.potts import count_neighbours, potts_labels, tables_of
from lungmix.kernels.regions import nearest_rows, region_counts
from lungmix.kernels.structuring_elements import Element, ball, diamond
from lungmix.kernels.surfaces import nearest_squares, points_of


def compile_kernels() -> None:
    """Call every kernel on a small volume, so that numba compiles it for all dtypes with which it is used."""
    hu = np.zeros((3, 4, 70), np.int16)
    mask = np.zeros(hu.shape, np.uint8)
    mask[1, 1:3, 3:60] = 1
    nx = hu.shape[2]
    bits = pack(mask)
    opening(bits, nx, diamond((1, 1, 1)))
    large = ball(13)
    closing(bits, nx, large)
    z, y, x = (cost.astype(np.float64) for cost in large.costs)
    closing(bits, nx, Element((z, y, x), float(large.limit)))
    runs = label_runs(bits, nx)
    merge_tables([table_of(runs, 1)] * 2)
    render_components(runs, np.ones(runs.components, np.bool_))
    count_hu(hu, mask)
    add_all(hu, np.zeros(65536, np.uint64))
    letters = np.where(np.indices((9, 70)).sum(axis=0) % 4 == 0, 1000, 0).astype(np.int16)
    letters[:, :40] = 100
    text_lines(letters)
    median_labels(look_up(hu, mask, np.ones(65536, np.uint8)))
    look_up(hu, mask, np.ones(65536, np.float32))
    count_labels(mask)
    for labels_with in (mask, 8 * mask):
        count_neighbours(labels_with)
    potts_labels(hu, mask, tables_of((0.5, 0.5), (-900.0, -100.0), (100.0, 100.0)), (256, 256, 256), 0.5)
    mean_of_blocks(hu, (2, 2, 2))
    labels = mask.copy()
    geodesic_assign(labels, mask > 0, (1.0, 1.0, 1.0))
    flood(labels)
    chamfer_distance(mask > 0, (1.0, 1.0, 1.0))
    wave_numbers(mask > 0, mask > 0, 1)
    find_dense(hu, labels, mask > 0, -300, (1.0, 1.0, 1.0))
    nearest = [nearest_rows(0, n, 1, n) for n in hu.shape]
    region_counts(hu, mask, labels, nearest)
    count_planes(mask)
    count_planes_of_mask(mask, labels, nearest)
    zone_counts(hu, mask, [np.zeros((2, n), np.uint8) + np.uint8(n == 3) for n in hu.shape], labels, nearest)
    nearest_squares(points_of(mask > 0), (1.0, 1.0, 1.0), [(0, len(mask))], lambda start, stop: mask[start:stop] > 0)


def compile_all() -> None:
    """Compile the kernels of all subpackages, so that everybody who can read the modules can read the machine code."""
    # With a private umask only root could read what root compiles.
    before = os.umask(0o022)
    try:
        for file in sorted(Path(__file__).parents[1].glob("*/compile.py")):
            import_module(f"lungmix.{file.parent.name}.compile").compile_kernels()
            _make_readable(file.parent)
    finally:
        os.umask(before)


def _make_readable(folder: Path) -> None:
    readable = (folder / "compile.py").stat().st_mode & 0o444
    for file in folder.glob("__pycache__/*.nb?"):
        with suppress(OSError):  # a file of another user
            file.chmod(file.stat().st_mode | readable)


if __name__ == "__main__":
    compile_all()
