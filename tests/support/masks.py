"""Mask files in memory, and a client that computes in this process."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from lungmix.geometry import Geometry


class InProcess:
    """A client whose tasks run at once, here."""

    def submit(self, task, *inputs, pure=True, retries=0):
        result = task(*inputs)
        return SimpleNamespace(result=lambda: result)


@dataclass(frozen=True, repr=False, eq=False)
class ArrayMask:
    """Labels in memory, with what a mask file says of itself."""

    labels: np.ndarray
    geometry: Geometry | None
    path: str = "Rossi_lung.nrrd"
    kind: str = "image"
    segments: tuple = ()
    series_uid: str | None = None
    frame_uid: str | None = None
    made_by: str | None = None
    fingerprint: str = "f1"

    def label_slabs(self, values, geometry, thickness):
        table = np.zeros(int(max(self.labels.max(), *values)) + 1, np.uint8)
        for number, label in values.items():
            table[number] = label
        for start in range(0, len(self.labels), thickness):
            yield table[self.labels[start : start + thickness]]
