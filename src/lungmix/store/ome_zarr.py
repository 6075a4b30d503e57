"""OME-Zarr 0.5 metadata of an image and of its label maps."""

from __future__ import annotations

from typing import Any

from lungmix.geometry import Geometry
from lungmix.store.chunking import Layout
from lungmix.tissue import segments_of

VERSION = "0.5"
_AXES = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]


def image_metadata(name: str, geometry: Geometry, layout: Layout) -> dict[str, Any]:
    """Return the ``ome`` attribute of an image whose coarser levels are means of blocks."""
    return {
        "version": VERSION,
        "multiscales": [_multiscale(name, geometry, layout, centred=True, kind="mean")],
    }


def label_metadata(name: str, geometry: Geometry, layout: Layout, *, is_of_case: bool = True) -> dict[str, Any]:
    """Return the ``ome`` attribute of a label map, with the names and colours of its labels.

    `is_of_case` is False for a label map on the grid of another case, which has no source in this one.
    """
    segments = segments_of(name)
    source = {"source": {"image": "../../"}} if is_of_case else {}
    return {
        "version": VERSION,
        "multiscales": [_multiscale(name, geometry, layout, centred=False, kind="nearest")],
        "image-label": {
            "colors": [{"label-value": segment.label, "rgba": list(segment.rgba)} for segment in segments],
            "properties": [{"label-value": segment.label, "name": segment.name} for segment in segments],
            **source,
        },
    }


def labels_metadata(names: list[str]) -> dict[str, Any]:
    """Return the ``ome`` attribute of the group that lists the label maps of an image."""
    return {"version": VERSION, "labels": names}


def _multiscale(name: str, geometry: Geometry, layout: Layout, *, centred: bool, kind: str) -> dict[str, Any]:
    datasets = []
    for index, level in enumerate(layout.levels):
        scale = [s * f for s, f in zip(geometry.spacing_zyx, level.factors, strict=True)]
        shift = [s * (f - 1) / 2 if centred else 0.0 for s, f in zip(geometry.spacing_zyx, level.factors, strict=True)]
        datasets.append(
            {
                "path": str(index),
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": shift},
                ],
            }
        )
    return {"name": name, "axes": _AXES, "datasets": datasets, "type": kind}
