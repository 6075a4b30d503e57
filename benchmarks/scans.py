"""Phantom scans for benchmarks: made once, and kept for later runs if a folder is given.

``python benchmarks/scans.py FOLDER`` makes the scans of the full benchmarks.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from lungmix.phantom import Cohort, Phantom, write_phantom

SHAPE = (400, 512, 512)
QUICK_SHAPE = (160, 512, 512)
LONGEST = 5000
_TRAPS = (("padding", "vessels", "bowel"), ("consolidation", "table", "big-bowel"), ("touching", "vessels"), ())
_HEIGHT_MM = 300
_AT_ONCE = 16


@contextmanager
def folder_for(chosen: Path | None) -> Iterator[Path]:
    """Yield the given folder, or a temporary one that is removed after the block."""
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="lungmix-bench-") as folder:
        yield Path(folder)


def cohort_of(folder: Path, shape: tuple[int, int, int] = SHAPE, scans: int = 3) -> list[Path]:
    """Return scans in compressed NRRD, each of another patient with other difficulties."""
    spacing = (360 / shape[2], 360 / shape[1], _HEIGHT_MM / shape[0])
    phantoms = [
        replace(patient.phantom, traps=frozenset(traps))
        for patient, traps in zip(Cohort(scans, 7, shape, spacing), cycle(_TRAPS), strict=False)
    ]
    paths = [folder / f"{phantom.name}-{shape[0]}.nrrd" for phantom in phantoms]
    missing = [(path, phantom) for path, phantom in zip(paths, phantoms, strict=True) if not path.exists()]
    if missing:
        with _processes() as pool:
            list(pool.map(write_phantom, *zip(*missing, strict=True)))
    return paths


def long_scan(folder: Path, slices: int, longest: int = LONGEST) -> Path:
    """Return a scan of 512 x 512 pixels in uncompressed MetaImage: evenly spaced slices of a scan of `longest`."""
    path, spacing = folder / f"long-{slices}-of-{longest}.mha", (0.7, 0.7, _HEIGHT_MM / slices)
    if path.exists():
        return path
    if slices == longest:
        with _processes() as pool, _whole(path, Phantom((slices, 512, 512), spacing, 1)) as file:
            starts = range(0, slices, _AT_ONCE)
            for slab in pool.map(_slab, starts, [slices] * len(starts)):
                file.write(slab.data)
        return path
    source = long_scan(folder, longest, longest)
    plane = 512 * 512 * 2
    with source.open("rb") as whole, _whole(path, Phantom((slices, 512, 512), spacing, 1)) as file:
        first = source.stat().st_size - longest * plane
        for z in range(slices):
            whole.seek(first + plane * (z * longest // slices))
            file.write(whole.read(plane))
    return path


@contextmanager
def _whole(path, phantom):
    """Write a MetaImage under another name, and rename it when it is complete."""
    partial = path.with_suffix(".partial")
    x, y, z = phantom.spacing
    nz, ny, nx = phantom.shape
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        f"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = {x} {y} {z}\nDimSize = {nx} {ny} {nz}\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    with partial.open("wb") as file:
        file.write(header.encode())
        yield file
    partial.replace(path)


def _slab(start, slices):
    # Each slice of a phantom has its own random generator, so that any process can make any slice.
    phantom = Phantom((slices, 512, 512), (0.7, 0.7, _HEIGHT_MM / slices), 1)
    return np.stack([phantom._slice(z) for z in range(start, min(start + _AT_ONCE, slices))])


def _processes():
    return ProcessPoolExecutor(os.cpu_count(), get_context("spawn"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for path in cohort_of(folder, scans=12):
        print(path)
    for slices in (248, 827, 1251, LONGEST):
        print(long_scan(folder, slices))


if __name__ == "__main__":
    main()
