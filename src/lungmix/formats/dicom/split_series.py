"""Groups that only together are one volume, so that each alone would pass for a volume of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from lungmix.errors import mark_path
from lungmix.formats.dicom.even_spacing import is_even
from lungmix.formats.dicom.grouping import is_one_pass
from lungmix.formats.dicom.header import FRAME_PHASES, PHASES, Header
from lungmix.formats.dicom.linked_components import linked
from lungmix.formats.dicom.slice_groups import Group, axes_of, enumerated, has_place, normal_of, places_along, series_of

_PARALLEL = 0.99
_NEXT = 1.5
_SEAM = 0.5
# A folder of files that all differ must not take hours; parts that matter are large.
_MOST_GROUPS = 256
_MOST_SHOWN = 2


@dataclass(frozen=True)
class Pieces:
    """Groups of which each is a piece of one volume.

    Attributes
    ----------
    indices : tuple of int
        Of the groups, in ascending order.
    reason : str
        A sentence that names the slices and the attribute that tells the groups apart; files are marked
        (`lungmix.errors.mark_path`).
    """

    indices: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class _Extent:
    """Where the slices of a group lie along a direction, mm: the first, the last, their mean and usual distance."""

    first: float
    last: float
    middle: float
    usual: float

    @classmethod
    def of(cls, group: Group, normal: npt.NDArray[np.float64]) -> _Extent:
        along = np.sort(np.array([one.position for one in group.slices]) @ normal)
        usual = float(np.median(np.diff(along))) if len(along) > 1 else 0.0
        return cls(float(along[0]), float(along[-1]), float(along.mean()), usual)


def pieces_of(groups: Sequence[Group]) -> list[Pieces]:
    """Return the groups that are pieces of one volume, each set of them once.

    Phases, kernels and reformats of a whole scan lie at the same places and are volumes. Where the orientation, the
    size, the kernel or an identifier changes half way, each part is only a piece of one. So it is where an attribute
    changes to and fro in slices that one pass has numbered.

    Parameters
    ----------
    groups : sequence of Group
        All of a source.
    """
    usable = [i for i, group in enumerate(groups) if group.first.unused is None and all(map(has_place, group.slices))]
    usable = [i for i in usable if not groups[i].fault]
    found: list[tuple[tuple[int, ...], str]] = []
    for indices in _same_series(groups, usable):
        found += [*_continued(groups, indices), *_mixed(groups, indices)]
    for indices in _same_folder(groups, usable):
        found += _mixed(groups, indices, numbered=True)
    sets = [[found[i] for i in numbers] for numbers in linked([indices for indices, _ in found])]
    return [Pieces(tuple(sorted({i for indices, _ in parts for i in indices})), parts[0][1]) for parts in sets]


def _same_series(groups: Sequence[Group], usable: Sequence[int]) -> list[list[int]]:
    """Groups whose slices have one series identifier, whoever the patient is said to be; the largest of them."""
    found: dict[str, list[int]] = defaultdict(list)
    for i in usable:
        found[groups[i].series[2]].append(i)
    return [_largest(groups, indices) for indices in found.values() if len(indices) > 1]


def _same_folder(groups: Sequence[Group], usable: Sequence[int]) -> list[list[int]]:
    """Groups of one study or of one folder, of one size; the largest of them."""
    found: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i in usable:
        first = groups[i].first
        found["folder", str(groups[i].folder), first.rows, first.columns].append(i)
        if first.identity.study_uid:
            found["study", first.identity.study_uid, first.rows, first.columns].append(i)
    return [_largest(groups, indices) for indices in found.values() if len(indices) > 1]


def _largest(groups: Sequence[Group], indices: Sequence[int]) -> list[int]:
    return sorted(indices, key=lambda i: -len(groups[i].slices))[:_MOST_GROUPS]


def _continued(groups: Sequence[Group], indices: Sequence[int]) -> list[tuple[tuple[int, ...], str]]:
    """Pairs of which one begins where the other ends."""
    normals = {i: normal_of(groups[i].first) for i in indices}
    known: dict[tuple[int, bytes], _Extent] = {}
    found: list[tuple[tuple[int, ...], str]] = []
    for one, two in combinations(indices, 2):
        if abs(float(normals[one] @ normals[two])) < _PARALLEL:
            continue
        extents = []
        for i in (one, two):
            key = (i, normals[one].tobytes())
            if key not in known:
                known[key] = _Extent.of(groups[i], normals[one])
            extents.append(known[key])
        if _goes_on(*extents):
            below, above = (one, two) if extents[0].middle < extents[1].middle else (two, one)
            found.append(((one, two), _told_of_seam(groups[below], groups[above])))
    return found


def _goes_on(mine: _Extent, other: _Extent) -> bool:
    """Whether one begins about where the other ends."""
    usual = max(mine.usual, other.usual)
    below, above = (mine, other) if mine.middle < other.middle else (other, mine)
    return -_SEAM * usual < above.first - below.last < _NEXT * usual


def _mixed(
    groups: Sequence[Group], indices: Sequence[int], *, numbered: bool = False
) -> list[tuple[tuple[int, ...], str]]:
    """Sets of groups that are one even stack of slices only together; all of them, or pairs.

    Parameters
    ----------
    numbered : bool
        Whether instance numbers have to say so too, each once from the first to the last.
    """
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i in indices:
        first = groups[i].first
        turned = tuple(int(v) for v in np.round(np.asarray(first.orientation), 1) * 10)
        alike[first.rows, first.columns, *turned].append(i)
    found = []
    for members in alike.values():
        sets: list[Sequence[int]] = [members] if len(members) > 1 else []
        if sets and not _are_one(groups, members, numbered):
            sets = [pair for pair in combinations(members, 2) if _are_one(groups, pair, numbered)]
        found += [(tuple(indices), _told_of_mixture([groups[i] for i in indices])) for indices in sets]
    return found


def _are_one(groups: Sequence[Group], together: Sequence[int], numbered: bool) -> bool:
    slices = [one for i in together for one in groups[i].slices]
    numbers = [one.number for one in slices if one.number is not None]
    if numbered and (len(set(numbers)) < len(slices) or max(numbers) - min(numbers) + 1 != len(slices)):
        return False
    if not is_one_pass(slices):
        return False
    # Volumes that are even by themselves and that no number ties may lie between each other by chance.
    return bool(numbers) or not all(is_even(places_along(groups[i].slices)) for i in together)


def _told_of_seam(below: Group, above: Group) -> str:
    # Numbers are those of both parts in the order of z.
    first, last = len(below.slices), len(below.slices) + len(above.slices)
    normal = normal_of(below.first)
    numbers = (_range(1, first), _range(first + 1, last))
    sides = [f"{number} ({_files(part, normal)})" for number, part in zip(numbers, (below, above), strict=True)]
    return f"{sides[0]} and {sides[1]} differ in {_difference(below, above)}"


def _told_of_mixture(parts: Sequence[Group]) -> str:
    slices = [one for part in parts for one in part.slices]
    normal = normal_of(slices[0])
    along = np.argsort(places_along(slices))
    owners = np.repeat(np.arange(len(parts)), [len(part.slices) for part in parts])[along]
    changes = np.flatnonzero(np.diff(owners))
    if len(changes) == 1 and len(parts) == 2:
        return _told_of_seam(*(parts[owner] for owner in (owners[0], owners[-1])))
    ends = [f"{len(part.slices)} slices ({_files(part, normal)})" for part in parts[:_MOST_SHOWN]]
    more = f" and {len(parts) - len(ends)} more parts" if len(parts) > len(ends) else ""
    between = f"{' and '.join(ends)}{more} lie between each other in one even stack and"
    differences = dict.fromkeys(name for part in parts[1:] for name in _differences(parts[0], part))
    return f"{between} differ in {_joined(differences)}"


def _range(first: int, last: int) -> str:
    return f"slice {first}" if first == last else f"slices {first} to {last}"


def _files(group: Group, normal: npt.NDArray[np.float64]) -> str:
    ordered = sorted(group.slices, key=lambda one: float(np.dot(one.position, normal)))  # type: ignore[arg-type]
    ends = [mark_path(one.file) for one in (ordered[0], ordered[-1])]
    return ends[0] if len(ordered) == 1 else f"{ends[0]} to {ends[1]}"


def _difference(one: Group, two: Group) -> str:
    return _joined(_differences(one, two))


def _joined(differences: dict[str, None]) -> str:
    return enumerated(list(differences)) if differences else "acquisition (AcquisitionNumber)"


def _differences(one: Group, two: Group) -> dict[str, None]:
    a, b = one.first, two.first
    ignored = {*one.ignored, *two.ignored}
    known = {
        "orientation": float(np.abs(np.stack(axes_of(a)) - np.stack(axes_of(b))).max()) > 1e-3,
        "size": (a.rows, a.columns) != (b.rows, b.columns),
        "pixel spacing": a.spacing != b.spacing,
        "patient (PatientID)": _differ(a, b, 0) and "PatientID" not in ignored,
        "study (StudyInstanceUID)": _differ(a, b, 1) and "StudyInstanceUID" not in ignored,
        "series (SeriesInstanceUID)": _differ(a, b, 2) and "SeriesInstanceUID" not in ignored,
        "kernel (ConvolutionKernel)": a.kernel != b.kernel and "ConvolutionKernel" not in ignored,
        "frame of reference (FrameOfReferenceUID)": (
            a.identity.frame_uid != b.identity.frame_uid and "FrameOfReferenceUID" not in ignored
        ),
    }
    names = PHASES if a.frame is None else FRAME_PHASES
    for name, ours, theirs in zip(names, a.phase, b.phase, strict=False):
        known[f"{'stack' if name == 'StackID' else 'phase'} ({name})"] = ours != theirs and name not in ignored
    return dict.fromkeys(what for what, differs in known.items() if differs)


def _differ(one: Header, two: Header, index: int) -> bool:
    return series_of(one)[index] != series_of(two)[index]
