"""Detection of volumes that are split into several groups of slices; each group would be mistaken for a volume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from lungmix.errors import count_of, mark_path
from lungmix.formats.dicom.even_spacing import is_even
from lungmix.formats.dicom.grouping import is_one_pass
from lungmix.formats.dicom.header import FRAME_PHASES, PHASES
from lungmix.formats.dicom.linked_components import connected_components
from lungmix.formats.dicom.slice_groups import (
    SERIES,
    Group,
    has_position,
    join_words,
    pixel_axes,
    positions_along,
    series_ids,
    slice_normal,
)

_PARALLEL = 0.99
_MAX_GAP = 1.5
_MAX_SEAM_OVERLAP = 0.5
# Greatest number of groups that are compared; it bounds the time for a folder of unrelated files.
_MAX_GROUPS = 256
_MAX_LISTED_PARTS = 2


@dataclass(frozen=True)
class SplitVolume:
    """Groups that are parts of one volume.

    Attributes
    ----------
    indices : tuple of int
        Indices of the groups, in ascending order.
    reason : str
        Text that names the slices and the attribute that separates the groups; files are marked
        (`lungmix.errors.mark_path`).
    """

    indices: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class _Extent:
    """Extent of a group along a direction, mm: first, last and mean position, and median distance of positions."""

    first: float
    last: float
    middle: float
    median_spacing: float

    @classmethod
    def of(cls, group: Group, normal: npt.NDArray[np.float64]) -> _Extent:
        along = np.sort(np.array([header.position for header in group.slices]) @ normal)
        median_spacing = float(np.median(np.diff(along))) if len(along) > 1 else 0.0
        return cls(float(along[0]), float(along[-1]), float(along.mean()), median_spacing)


def find_split_volumes(groups: Sequence[Group]) -> list[SplitVolume]:
    """Return the volumes that are split into several groups.

    Phases, kernels and reformats of a scan have the same positions and are volumes. If the orientation, the size, the
    kernel or an identifier changes half way through, each group is only a part of a volume. The same holds if an
    attribute alternates between slices that instance numbers assign to one pass.

    Parameters
    ----------
    groups : sequence of Group
        All groups of a source.
    """
    usable = [
        i
        for i, group in enumerate(groups)
        if group.first.exclusion_reason is None and all(map(has_position, group.slices))
    ]
    usable = [i for i in usable if not groups[i].problem]
    links: list[tuple[tuple[int, ...], str]] = []
    for indices in _same_series(groups, usable):
        links += [*_find_adjacent_pairs(groups, indices), *_find_interleaved(groups, indices)]
    for indices in _same_folder(groups, usable):
        links += _find_interleaved(groups, indices, numbered=True)
    sets = [[links[i] for i in numbers] for numbers in connected_components([indices for indices, _ in links])]
    return [SplitVolume(tuple(sorted({i for indices, _ in parts for i in indices})), parts[0][1]) for parts in sets]


def _same_series(groups: Sequence[Group], usable: Sequence[int]) -> list[list[int]]:
    """Return lists of the groups with the same series identifier, by index, whatever their patient."""
    by_series: dict[str, list[int]] = defaultdict(list)
    for i in usable:
        by_series[groups[i].series[2]].append(i)
    return [_largest(groups, indices) for indices in by_series.values() if len(indices) > 1]


def _same_folder(groups: Sequence[Group], usable: Sequence[int]) -> list[list[int]]:
    """Return lists of the groups of equal image size in the same study or folder, by index."""
    by_folder_or_study: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i in usable:
        first = groups[i].first
        by_folder_or_study["folder", str(groups[i].folder), first.rows, first.columns].append(i)
        if first.identity.study_uid:
            by_folder_or_study["study", first.identity.study_uid, first.rows, first.columns].append(i)
    return [_largest(groups, indices) for indices in by_folder_or_study.values() if len(indices) > 1]


def _largest(groups: Sequence[Group], indices: Sequence[int]) -> list[int]:
    return sorted(indices, key=lambda i: -len(groups[i].slices))[:_MAX_GROUPS]


def _find_adjacent_pairs(groups: Sequence[Group], indices: Sequence[int]) -> list[tuple[tuple[int, ...], str]]:
    """Return pairs of groups of which one begins where the other ends, each with the reason as text."""
    normals = {i: slice_normal(groups[i].first) for i in indices}
    extent_cache: dict[tuple[int, bytes], _Extent] = {}
    pairs: list[tuple[tuple[int, ...], str]] = []
    for first, second in combinations(indices, 2):
        if abs(float(normals[first] @ normals[second])) < _PARALLEL:
            continue
        extents = []
        for i in (first, second):
            key = (i, normals[first].tobytes())
            if key not in extent_cache:
                extent_cache[key] = _Extent.of(groups[i], normals[first])
            extents.append(extent_cache[key])
        if _is_adjacent(*extents):
            below, above = (first, second) if extents[0].middle < extents[1].middle else (second, first)
            pairs.append(((first, second), _describe_seam(groups[below], groups[above])))
    return pairs


def _is_adjacent(first: _Extent, second: _Extent) -> bool:
    """Return True if one extent begins about where the other ends."""
    median_spacing = max(first.median_spacing, second.median_spacing)
    below, above = (first, second) if first.middle < second.middle else (second, first)
    return -_MAX_SEAM_OVERLAP * median_spacing < above.first - below.last < _MAX_GAP * median_spacing


def _find_interleaved(
    groups: Sequence[Group], indices: Sequence[int], *, numbered: bool = False
) -> list[tuple[tuple[int, ...], str]]:
    """Return sets of groups that form one even stack of slices together, each with the reason as text.

    All groups of one size and orientation are tried as one set, then pairs of them.

    Parameters
    ----------
    groups : sequence of Group
        All groups of a source.
    indices : sequence of int
        Indices of the groups to examine.
    numbered : bool
        True to require instance numbers that are unique and contiguous.
    """
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i in indices:
        first = groups[i].first
        rounded_orientation = tuple(int(v) for v in np.round(np.asarray(first.orientation), 1) * 10)
        by_shape[first.rows, first.columns, *rounded_orientation].append(i)
    interleaved: list[tuple[tuple[int, ...], str]] = []
    for members in by_shape.values():
        sets: list[Sequence[int]] = [members] if len(members) > 1 else []
        if sets and not _is_one_stack(groups, members, numbered):
            sets = [pair for pair in combinations(members, 2) if _is_one_stack(groups, pair, numbered)]
        interleaved += [(tuple(indices), _describe_interleaving([groups[i] for i in indices])) for indices in sets]
    return interleaved


def _is_one_stack(groups: Sequence[Group], indices: Sequence[int], numbered: bool) -> bool:
    slices = [header for i in indices for header in groups[i].slices]
    numbers = [header.number for header in slices if header.number is not None]
    if numbered and (len(set(numbers)) < len(slices) or max(numbers) - min(numbers) + 1 != len(slices)):
        return False
    if not is_one_pass(slices):
        return False
    # Without instance numbers, groups that are each evenly spaced may be interleaved by chance.
    return bool(numbers) or not all(is_even(positions_along(groups[i].slices)) for i in indices)


def _describe_seam(below: Group, above: Group) -> str:
    # Slices of both parts are numbered in the order of z.
    first, last = len(below.slices), len(below.slices) + len(above.slices)
    normal = slice_normal(below.first)
    numbers = (_range(1, first), _range(first + 1, last))
    sides = [f"{number} ({_files(part, normal)})" for number, part in zip(numbers, (below, above), strict=True)]
    return f"{sides[0]} and {sides[1]} differ in {_joined(_differences(below, above))}"


def _describe_interleaving(parts: Sequence[Group]) -> str:
    slices = [header for part in parts for header in part.slices]
    normal = slice_normal(slices[0])
    along = np.argsort(positions_along(slices))
    owners = np.repeat(np.arange(len(parts)), [len(part.slices) for part in parts])[along]
    changes = np.flatnonzero(np.diff(owners))
    if len(changes) == 1 and len(parts) == 2:
        return _describe_seam(*(parts[owner] for owner in (owners[0], owners[-1])))
    ends = [f"{count_of(len(part.slices), 'slice')} ({_files(part, normal)})" for part in parts[:_MAX_LISTED_PARTS]]
    more = f" and {len(parts) - len(ends)} more parts" if len(parts) > len(ends) else ""
    between = f"{' and '.join(ends)}{more} are interleaved in one even stack and"
    differences = dict.fromkeys(name for part in parts[1:] for name in _differences(parts[0], part))
    return f"{between} differ in {_joined(differences)}"


def _range(first: int, last: int) -> str:
    return f"slice {first}" if first == last else f"slices {first} to {last}"


def _files(group: Group, normal: npt.NDArray[np.float64]) -> str:
    ordered = sorted(group.slices, key=lambda header: float(np.dot(header.position, normal)))  # type: ignore[arg-type]
    ends = [mark_path(header.file) for header in (ordered[0], ordered[-1])]
    return ends[0] if len(ordered) == 1 else f"{ends[0]} to {ends[1]}"


def _joined(differences: dict[str, None]) -> str:
    return join_words(list(differences)) if differences else "acquisition (AcquisitionNumber)"


def _differences(first: Group, second: Group) -> dict[str, None]:
    header, other = first.first, second.first
    ignored = {*first.ignored, *second.ignored}
    identifiers = zip(SERIES, series_ids(header), series_ids(other), strict=True)
    changed = {keyword for keyword, value, other_value in identifiers if value != other_value} - ignored
    is_different = {
        "orientation": float(np.abs(np.stack(pixel_axes(header)) - np.stack(pixel_axes(other))).max()) > 1e-3,
        "size": (header.rows, header.columns) != (other.rows, other.columns),
        "pixel spacing": header.spacing != other.spacing,
        "patient (PatientID)": "PatientID" in changed,
        "study (StudyInstanceUID)": "StudyInstanceUID" in changed,
        "series (SeriesInstanceUID)": "SeriesInstanceUID" in changed,
        "kernel (ConvolutionKernel)": header.kernel != other.kernel and "ConvolutionKernel" not in ignored,
        "frame of reference (FrameOfReferenceUID)": (
            header.identity.frame_uid != other.identity.frame_uid and "FrameOfReferenceUID" not in ignored
        ),
    }
    names = PHASES if header.frame is None else FRAME_PHASES
    for name, value, other_value in zip(names, header.phase, other.phase, strict=False):
        is_different[f"{'stack' if name == 'StackID' else 'phase'} ({name})"] = (
            value != other_value and name not in ignored
        )
    return dict.fromkeys(name for name, differs in is_different.items() if differs)
