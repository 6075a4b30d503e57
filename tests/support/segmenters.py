"""A package with segmenters, written into a folder as pip would install it."""

from __future__ import annotations

import sys
from pathlib import Path

MODULE = '''
"""Segmenters of somebody else, who knows lungmix and numpy alone."""

import os
from pathlib import Path

import numpy as np

from lungmix.segmenters import Segmenter

LOADED = []


class Threshold(Segmenter):
    """Air below a threshold, right and left of the middle column; counts the objects that a process makes."""

    batch_slices = 5

    def __init__(self, weights=None, device="cpu"):
        self.threshold = -500 if weights is None else int(Path(weights).read_text())
        LOADED.append(weights)
        if "TOY_LOG" in os.environ:
            with open(os.environ["TOY_LOG"], "a") as log:
                print(os.getpid(), file=log)

    @classmethod
    def find_weights(cls, weights):
        return weights

    def segment(self, slices):
        middle = slices.hu.shape[2] // 2
        labels = (slices.hu < self.threshold).astype(np.uint8)
        labels[..., middle:] *= 2
        return labels


class OfBatch(Threshold):
    """Labels that depend on the batch: right where a voxel is below the mean of its batch, left above it."""

    def segment(self, slices):
        return np.where(slices.hu < slices.hu.mean(), np.uint8(1), np.uint8(2))


class Clean(Threshold):
    """Labels at half the resolution, cleaned."""

    plane = (8, 10)
    clean_up = True

    def segment(self, slices):
        rows, columns = (np.arange(n) * m // n for n, m in zip(self.plane, slices.hu.shape[1:]))
        return super().segment(slices)[:, rows][..., columns]

    def place(self, labels, slices):
        rows, columns = (np.arange(m) * n // m for n, m in zip(self.plane, slices.hu.shape[1:]))
        return np.ascontiguousarray(labels[:, rows][..., columns])


class BothLungs(Threshold):
    labels = {1: "lung"}

    def segment(self, slices):
        return (slices.hu < self.threshold).astype(np.uint8)


class Lobes(Threshold):
    """The lungs of `Threshold`, cut into lobes at rows that depend on the slice."""

    labels = {1: "left_upper", 2: "left_lower", 3: "right_upper", 4: "right_middle", 5: "right_lower"}

    def segment(self, slices):
        sides = super().segment(slices)
        rows = np.arange(slices.hu.shape[1])[None, :, None] + (slices.first + np.arange(len(sides)))[:, None, None]
        right = np.where(rows % 3 == 0, 3, np.where(rows % 3 == 1, 4, 5))
        left = np.where(rows % 2 == 0, 1, 2)
        return np.where(sides == 1, right, np.where(sides == 2, left, 0)).astype(np.uint8)


class Positions(Segmenter):
    """Writes down what it is given, and labels the first slice, row and column."""

    batch_slices = 4
    SEEN = []

    def segment(self, slices):
        self.SEEN.append((slices.first, slices.total, slices.spacing, slices.hu.shape, slices.hu.dtype.name))
        return (slices.hu < 0).astype(np.uint8)


class Raises(Threshold):
    def segment(self, slices):
        raise RuntimeError("Rossi has no lungs")


class Picky(Threshold):
    """Fails for scans of 24 slices."""

    def segment(self, slices):
        if slices.total == 24:
            raise ValueError("Rossi")
        return super().segment(slices)


class WrongShape(Threshold):
    def segment(self, slices):
        return super().segment(slices)[:, 1:]


class WrongType(Threshold):
    def segment(self, slices):
        return super().segment(slices).astype(np.int64)


class WrongLabel(Threshold):
    def segment(self, slices):
        return super().segment(slices) * np.uint8(3)


class Nothing(Threshold):
    def segment(self, slices):
        return np.zeros(slices.hu.shape, np.uint8)


class CannotLoad(Segmenter):
    def __init__(self, weights=None, device="cpu"):
        raise OSError("no such file")


class Heavy(Threshold):
    memory_bytes = 1 << 40


class WrongRegion(Segmenter):
    labels = {1: "spleen"}


def not_a_class(weights=None, device="cpu"):
    return None
'''

NAMES = {
    "threshold": "Threshold", "of-batch": "OfBatch", "clean": "Clean", "both": "BothLungs", "lobes": "Lobes",
    "positions": "Positions",
    "raises": "Raises", "picky": "Picky", "wrong-shape": "WrongShape", "wrong-type": "WrongType",
    "wrong-label": "WrongLabel", "nothing": "Nothing", "cannot-load": "CannotLoad", "heavy": "Heavy",
    "wrong-region": "WrongRegion", "not-a-class": "not_a_class",
}  # fmt: skip


def install(folder: Path, version: str = "1.0") -> Path:
    """Write module and metadata of a version of the package into a folder, in place of another version."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("toy_segmenters-*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    (folder / "toy_segmenters.py").write_text(MODULE)
    info = folder / f"toy_segmenters-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: toy-segmenters\nVersion: {version}\n")
    points = [f"{name} = toy_segmenters:{attribute}" for name, attribute in NAMES.items()]
    (info / "entry_points.txt").write_text("\n".join(["[lungmix.masks]", *points, "absent = no_such_module:Segmenter"]))
    return folder


def forget() -> None:
    """Remove the module and the loaded segmenter from this process."""
    from lungmix.segmenters import plugins

    plugins._LOADED.clear()
    sys.modules.pop("toy_segmenters", None)
