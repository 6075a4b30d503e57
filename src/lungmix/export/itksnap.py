"""Label description files of ITK-SNAP, read there with *Segmentation, Import Label Descriptions*."""

from __future__ import annotations

from lungmix.tissue import Tissue


def label_descriptions(segments: tuple[Tissue, ...]) -> str:
    """Return the text of a label description file: index, colour, opacity, visibility in slices and meshes, name."""
    lines = ["# ITK-SnAP Label Description File", "# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL"]
    lines.append(_line(0, (0, 0, 0), visible=False, name="Clear Label"))
    lines += [_line(segment.label, segment.rgba[:3], visible=True, name=segment.name) for segment in segments]
    return "\n".join(lines) + "\n"


def _line(index: int, color: tuple[int, ...], *, visible: bool, name: str) -> str:
    red, green, blue = color
    flag = int(visible)
    return f'{index:5d} {red:5d} {green:4d} {blue:4d} {flag:8d} {flag:2d} {flag:2d}    "{name}"'
