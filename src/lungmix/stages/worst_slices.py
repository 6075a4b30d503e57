"""Worst slices of an evaluation: slices in which a mask and its reference differ most, stored for pictures.

References are not part of a store. For the cases with the lowest Dice, the store keeps one slice of the reference each,
so that a report can show it later.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isnan, prod
from typing import Any

import numpy as np

from lungmix.kernels.surfaces import Mask
from lungmix.stages.comparisons import SEGMENTS
from lungmix.stages.evaluation import selected
from lungmix.stages.evaluation_rows import stored_evaluations
from lungmix.store import Case, Cohort, CohortWriter
from lungmix.store.schema import EVALUATION_SLICES_FILE
from lungmix.store.tables import Row

MAX_SLICES = 6
"""Largest number of slices that a store keeps."""


@dataclass(frozen=True, eq=False)
class WorstSlice:
    """Slice of a case with the most voxels that belong to only one of a segment and its reference.

    Attributes
    ----------
    case, region : str
        Case, and segment of the store.
    position : int
        Number of the slice, from 0.
    reference : ndarray of bool, shape (y, x)
        The reference in this slice.
    """

    case: str
    region: str
    position: int
    reference: Mask

    def segment(self, case: Case) -> Mask:
        """Return the mask, bool ``[y, x]``, of the stored segment in this slice."""
        image, labels = SEGMENTS[self.region]
        return selected(case.zarr_array(image)[self.position], labels)

    def to_dict(self) -> dict[str, Any]:
        """Return the slice, JSON-ready, with one compressed bit per voxel."""
        packed = base64.b64encode(zlib.compress(np.packbits(self.reference).tobytes())).decode()
        return {
            "case": self.case, "region": self.region, "slice": self.position,
            "shape": list(self.reference.shape), "reference": packed,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: dict[str, Any], case: Case) -> WorstSlice | None:
        """Return the slice of a dictionary that `to_dict` returned; None if it does not fit the size of the case."""
        shape = case.geometry.shape
        if values["shape"] != list(shape[1:]) or values["region"] not in SEGMENTS:
            return None
        if not 0 <= values["slice"] < shape[0]:
            return None
        n_bytes = -(-prod(shape[1:]) // 8)
        packed = zlib.decompressobj().decompress(base64.b64decode(values["reference"]), n_bytes)
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=prod(shape[1:]))
        return cls(case.name, values["region"], values["slice"], bits.reshape(shape[1:]).astype(np.bool_))


def stored_slices(cohort: Cohort) -> list[WorstSlice]:
    """Return the stored slices whose rows are still in the table of evaluations, those with the lowest Dice first.

    The result is empty if the file of slices is corrupt.
    """
    slices: list[WorstSlice] = []
    current = {_key(row): rank for rank, row in enumerate(_worst_first(stored_evaluations(cohort)))}
    # The content may be corrupt: without it the report lacks pictures only.
    with suppress(ValueError, KeyError, TypeError, AttributeError, zlib.error):
        for values in json.loads(cohort.read_text(EVALUATION_SLICES_FILE) or "[]"):
            if (values["case"], values["region"], values["slice"]) in current:
                worst = WorstSlice.from_dict(values, cohort[values["case"]])
                slices += [] if worst is None else [worst]
    return sorted(slices, key=lambda worst: current[worst.case, worst.region, worst.position])


def store_slices(cohort: Cohort) -> None:
    """Reduce the stored slices to those with the lowest Dice, at the end of an evaluation.

    Slices of this evaluation and of earlier ones are ranked by their rows, which must be stored already.
    """
    by_key = {(worst.case, worst.region): worst for worst in stored_slices(cohort)}
    ranked = [by_key[key[:2]] for row in _worst_first(stored_evaluations(cohort)) if (key := _key(row))[:2] in by_key]
    kept = [worst.to_dict() for worst in ranked[:MAX_SLICES]]
    _write(cohort, kept)


def add_slice(cohort: Cohort, worst: WorstSlice, dice: float) -> None:
    """Store a slice during an evaluation, if its Dice is among the lowest so far; `store_slices` ends the evaluation.

    Slices of earlier evaluations stay, except a slice of the same case and segment.
    """
    kept: list[dict[str, Any]] = []
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        kept = [
            values
            for values in json.loads(cohort.read_text(EVALUATION_SLICES_FILE) or "[]")
            if (values["case"], values["region"]) != (worst.case, worst.region)
        ]
    finished = [values for values in kept if "dice" not in values]
    unfinished = [values for values in kept if "dice" in values]
    if not isnan(dice):
        unfinished.append({**worst.to_dict(), "dice": dice})
    unfinished.sort(key=lambda values: float(values["dice"]))
    _write(cohort, [*finished, *unfinished[:MAX_SLICES]])


def drop_slices(cohort: Cohort, names: Collection[str]) -> None:
    """Drop the stored slices of cases; if the file of slices is corrupt, drop all slices."""
    text = cohort.read_text(EVALUATION_SLICES_FILE)
    if text is None:
        return
    kept = []
    with suppress(ValueError, KeyError, TypeError):
        kept = [values for values in json.loads(text) if values["case"] not in names]
    _write(cohort, kept)


def _write(cohort: Cohort, slices: Sequence[dict[str, Any]]) -> None:
    CohortWriter(cohort).write_text(EVALUATION_SLICES_FILE, json.dumps(slices, indent=1) + "\n")


def _worst_first(rows: Sequence[Row]) -> list[Row]:
    comparable = [row for row in rows if not isnan(float(row["dice"])) and int(row["worst_slice"]) >= 0]
    return sorted(comparable, key=lambda row: float(row["dice"]))


def _key(row: Row) -> tuple[str, str, int]:
    return str(row["case"]), str(row["region"]), int(row["worst_slice"])
