"""Masks of every format, and the function that reads them in the separate process."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom.uid import RLELossless

from lungmix.errors import SourceError, redact
from lungmix.formats.masks import open_mask
from lungmix.geometry import Geometry

GRID = Geometry((7, 5, 9), (0.5, 0.75, 2.0), (-3.0, 4.0, -50.0))
LABELS = np.random.default_rng(3).integers(1, 3, GRID.shape).astype(np.uint8)
SECRET = "SECRET"
"""Text that headers hold and messages do not."""


def masks_by_lungmix(source: str) -> dict[str, Any]:
    """Read the first five segments of a mask; return the number of slices, or the reason of a rejection."""
    try:
        mask = open_mask(Path(source))
        values = {segment.number: 1 for segment in mask.segments[:5]} or {1: 1, 2: 2}
        geometry = mask.geometry or GRID
        slabs = list(mask.label_slabs(values, geometry, 4))
        assert all(slab.dtype == np.uint8 and slab.max() <= 2 for slab in slabs)
        assert np.concatenate(slabs).shape == geometry.shape
    except SourceError as error:
        return {"reason": str(error), "redacted": redact(error.raw_message)}
    return {"slices": sum(map(len, slabs)), "shown": repr(mask) + repr(mask.segments) + str(mask.made_by)}


def _seg(folder: Path, kind: str, **options: Any) -> bytes:
    from support.segmentations import LEFT, RIGHT, segment, segmentation

    segments = [segment(1, SECRET, side=RIGHT), segment(2, SECRET, side=LEFT)]
    pixels = np.stack([LABELS == 1, LABELS == 2], -1).astype(np.float32) if kind == "FRACTIONAL" else LABELS
    options |= {"fractional_type": "PROBABILITY"} if kind == "FRACTIONAL" else {}
    return segmentation(folder / "seg.dcm", pixels, segments, kind, geometry=GRID, **options).read_bytes()


def _rtstruct(folder: Path) -> bytes:
    from support.structure_sets import contour, structure_set

    points = [(-3, 4), (-1, 4.2), (0, 6.5), (-2, 6.6)]
    contours = [contour([(x, y, -50 + 2 * z) for x, y in points]) for z in range(9)]
    return structure_set(folder / "rs.dcm", {SECRET: contours, "Lung-Left": contours}).read_bytes()


def _slicer(folder: Path) -> bytes:
    lines = [
        "NRRD0004", "type: unsigned char", "dimension: 4", "space: left-posterior-superior", "sizes: 2 7 5 9",
        "space directions: none (0.5,0,0) (0,0.75,0) (0,0,2)", "kinds: list domain domain domain", "encoding: gzip",
        "space origin: (-3,4,-50)",
        *(f"Segment{i}_{key}:={value}" for i in range(2) for key, value in (
            ("Name", SECRET), ("LabelValue", "1"), ("Layer", i), ("Tags", "TerminologyEntry:a~b^1~SCT^39607008^Lung|"),
        )),
    ]  # fmt: skip
    layers = np.stack([LABELS == 1, LABELS == 2], -1).astype(np.uint8)
    return "\n".join([*lines, "", ""]).encode() + gzip.compress(layers.tobytes())


def _nifti(folder: Path) -> bytes:
    image = nibabel.Nifti1Image(LABELS.T, np.diag([-0.5, -0.75, 2, 1]))
    names = f'<LabelTable><Label Key="1" Red="0"><![CDATA[{SECRET}]]></Label></LabelTable>'
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, names.encode()))
    nibabel.save(image, folder / "mask.nii")
    return (folder / "mask.nii").read_bytes()


SEEDS = {
    "seg_binary": ("mask.dcm", lambda folder: _seg(folder, "BINARY")),
    "seg_fractional": ("mask.dcm", lambda folder: _seg(folder, "FRACTIONAL")),
    "seg_label_map": ("mask.dcm", lambda folder: _seg(folder, "LABELMAP", transfer_syntax_uid=RLELossless)),
    "rtstruct": ("mask.dcm", _rtstruct),
    "slicer": ("mask.seg.nrrd", _slicer),
    "nifti_labels": ("mask.nii", _nifti),
}
"""Name of a mask file, and function of a folder that returns its bytes, by kind of mask."""
