"""Label maps for ITK-SNAP: an image and a label description file in the same folder."""

from __future__ import annotations

from pathlib import Path

from lungmix.atomic import atomic_file
from lungmix.export.images import export_image, segments_in
from lungmix.formats.images import extension_of
from lungmix.store import Case
from lungmix.tissue import Tissue


def write_with_descriptions(case: Case, path: Path, image: str) -> list[Path]:
    """Write labels as an image, and the file that *Segmentation, Import Label Descriptions* reads."""
    segments = segments_in(image)
    descriptions = path.with_name(path.name[: -len(extension_of(path) or "")] + "_labels.txt")
    export_image(case, path, image)
    with atomic_file(descriptions) as out:
        out.write(label_descriptions(segments).encode())
    return [path, descriptions]


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
