"""Slices one behind the other: their order, and whether they fill a volume; whatever does not is named."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.checks import is_rotation
from lungmix.formats.dicom.duplicates import same_content
from lungmix.formats.dicom.even_spacing import (
    EVEN,
    EVEN_MM,
    MOST_DRIFT,
    SAME_PLACE_MM,
    drift_of,
    grids_between,
    is_even,
    uneven_steps,
    usual_step,
)
from lungmix.formats.dicom.gantry_tilt import GantryShear, beside_the_others, shear_of
from lungmix.formats.dicom.header import Damaged, Header
from lungmix.formats.dicom.instance_numbers import check_numbers, runs_one_way
from lungmix.formats.dicom.slice_groups import Group, has_place, normal_of, told
from lungmix.formats.dicom.slice_similarity import looks_like_two_passes
from lungmix.formats.series_filter import SeriesFilter

_MOST_NAMED = 4
_TILT_DEGREES = 0.5
_MOST_OVERLAP, _MOST_LEANING = 6, 0.2


@dataclass(frozen=True)
class SliceOrder:
    """Slices of a volume in the order of z.

    Attributes
    ----------
    slices : tuple of Header
        One at every position.
    along : tuple of float
        Their positions along the normal, mm.
    spacing : float
        Usual distance of neighbours, mm; 1 for a single slice.
    even : bool
        Whether all distances are the usual one.
    shear : Shear or None
        How slices are displaced sideways, of a gantry that was tilted.
    notes : tuple of str
        What people should know of the volume.
    """

    slices: tuple[Header, ...]
    along: tuple[float, ...]
    spacing: float
    even: bool
    shear: GantryShear | None
    notes: tuple[str, ...]


def order_of(group: Group, rules: SeriesFilter, lost: Sequence[Damaged] = ()) -> SliceOrder:
    """Put the slices of a group into the order of z.

    Parameters
    ----------
    group : Group
        Slices of one orientation and size.
    rules : SeriesFilter
        Whether gaps and contradictions are accepted.
    lost : sequence of Damaged
        Slices of the group that cannot be used.

    Raises
    ------
    SourceError
        If they are not the slices of one volume; the message names them by their numbers in the order of z, from 1.
    """
    title = group.title
    for one in group.slices:
        if not has_place(one):
            raise SourceError(
                f"{title} lacks position or orientation in {mark_path(one.file)}: give the original slices"
            )
        if one.contradiction:
            raise SourceError(f"{title}: {mark_path(one.file)} {one.contradiction}")
    normal = normal_of(group.first)
    if not is_rotation(group.first.orientation or ()):
        raise SourceError(f"{title} has an orientation that is no rotation: give the original slices")
    notes: list[str] = []
    slices = sorted(group.slices, key=lambda one: float(np.dot(one.position, normal)))  # type: ignore[arg-type]
    slices = _without_copies(slices, title, notes)
    _check_hu(slices, title, notes)
    along = np.array([one.position for one in slices]) @ normal
    steps = np.diff(along)
    usual = usual_step(steps)
    _refuse_doubles(slices, steps, usual, title)
    check_numbers(slices, along, usual, title, rules, notes)
    _check_lost(slices, along, title, rules, notes, lost)
    even = _check_steps(slices, along, usual, title, rules, notes)
    shear = shear_of(slices, along, title)
    if shear is not None:
        notes.append(
            f"slices 1 to {len(slices)} are sheared by {shear.degrees:.1f} degrees (tilted gantry): resampled to a "
            "straight grid"
        )
    else:
        _check_tilt(slices, title, rules, notes)
        beside, farthest = beside_the_others(slices, along)
        if beside:
            lie = "lies" if len(beside) == 1 else "lie"
            notes.append(
                f"{told(slices, beside)} {lie} up to {farthest:.2f} mm beside the others, less than a pixel or half a "
                "millimetre: used as they are"
            )
    if len(slices) > 1:
        _compare_attributes(slices, usual, notes)
    lossy = [i for i, one in enumerate(slices) if one.lossy]
    if lossy:
        notes.append(f"slices {lossy[0] + 1} to {lossy[-1] + 1} were once compressed with loss: their HU are not exact")
    spacing = usual if len(slices) > 1 else slices[0].acquisition.slice_thickness or 1.0
    return SliceOrder(tuple(slices), tuple(float(v) for v in along), spacing, even, shear, tuple(notes))


def _without_copies(slices: list[Header], title: str, notes: list[str]) -> list[Header]:
    """Leave out what is there twice: the same object at the same position with the same pixels."""
    kept: list[Header] = []
    known: dict[tuple[object, ...], int] = {}
    copies: dict[int, list[Header]] = defaultdict(list)
    alike: dict[tuple[str, str], bool] = {}
    for one in slices:
        key = (one.sop_uid, one.frame, one.position)
        index = known.get(key) if one.sop_uid else None
        if index is None:
            known[key] = len(kept)
            kept.append(one)
            continue
        # Files of many frames are compared once.
        pair = (kept[index].file, one.file)
        if pair not in alike:
            alike[pair] = same_content(*pair)
        if alike[pair]:
            copies[index].append(one)
        else:
            raise SourceError(
                f"{title}: slice {index + 1} is there twice with different content ({mark_path(kept[index].file)} and "
                f"{mark_path(one.file)}): remove the wrong one"
            )
    if len(copies) == 1:
        ((index, files),) = copies.items()
        names = " and ".join(mark_path(one.file) for one in files[:_MOST_NAMED])
        names += f" and {len(files) - _MOST_NAMED} more" if len(files) > _MOST_NAMED else ""
        notes.append(f"{told(kept, [index])} is doubled by {names}, an exact copy: left out")
    elif copies:
        notes.append(f"{told(kept, list(copies))} are doubled by exact copies: left out")
    return kept


def _refuse_doubles(slices: list[Header], steps: npt.NDArray[np.float64], usual: float, title: str) -> None:
    doubled = np.flatnonzero(steps < max(SAME_PLACE_MM, 0.01 * usual))
    if doubled.size:
        first = int(doubled[0])
        pair = _pair(slices[first], slices[first + 1], " and ")
        more = f", and {doubled.size - 1} more pairs do" if doubled.size > 1 else ""
        remedy = "remove the duplicates"
        if 3 * doubled.size > len(slices):
            remedy = (
                "phases or reconstructions may be mixed that nothing in their headers tells apart; give each by itself"
            )
        raise SourceError(f"{title}: slices {first + 1} and {first + 2} lie at one position ({pair}){more}: {remedy}")


def _pair(one: Header, two: Header, between: str) -> str:
    """Return the files of two slices, or their frames in one file."""
    if one.frame is not None and two.frame is not None and one.file == two.file:
        return f"frames {one.frame + 1} and {two.frame + 1} of {mark_path(one.file)}"
    return f"{mark_path(one.file)}{between}{mark_path(two.file)}"


def _check_hu(slices: list[Header], title: str, notes: list[str]) -> None:
    """Take numbers for HU where no slice says how they become HU, but not where some do."""
    unsaid = [i for i, one in enumerate(slices) if one.unsaid]
    if 0 < len(unsaid) < len(slices) or len({one.unsaid for one in slices}) > 1:
        raise SourceError(
            f"{title}: {told(slices, unsaid)} lack{'s' if len(unsaid) == 1 else ''} rescale slope or intercept, which "
            "other slices have: give the original slices"
        )
    if not unsaid:
        return
    if len(slices[0].unsaid) == 2:
        notes.append("its header has no rescale slope or intercept: pixels are taken for HU as they are")
    elif slices[0].unsaid == ("slope",):
        notes.append("its header has no rescale slope: the slope is taken for 1, the rescale intercept is applied")
    else:
        notes.append("its header has no rescale intercept: the intercept is taken for 0, the rescale slope is applied")


def _check_steps(
    slices: list[Header],
    along: npt.NDArray[np.float64],
    usual: float,
    title: str,
    rules: SeriesFilter,
    notes: list[str],
) -> bool:
    steps = np.diff(along)
    if not len(steps):
        return True
    _refuse_grids(slices, along, title, rules)
    uneven = uneven_steps(along, usual)
    if uneven.size:
        what = "; ".join(_gap(slices, steps, usual, int(at)) for at in uneven[:_MOST_NAMED])
        if uneven.size > _MOST_NAMED:
            what += f"; {uneven.size - _MOST_NAMED} more such places"
    else:
        drift = drift_of(along)
        if drift.max() <= max(2 * EVEN_MM, MOST_DRIFT * usual):
            what = _thinned(slices, usual)
        else:
            worst = int(drift.argmax())
            what = (
                f"{told(slices, [worst])} lies {drift.max():.2f} mm from where it would with even distances: slices "
                "are unevenly spaced"
            )
            uneven = np.array([worst])
    if not what:
        return True
    if not rules.allow_gaps:
        raise SourceError(f"{title}: {what}; give the complete series, or --allow-gaps to interpolate")
    if not uneven.size:
        notes.append(f"{what}: used as they are")
        return True
    notes.append(f"{what}: interpolated linearly to {usual:.3f} mm")
    return False


def _refuse_grids(slices: list[Header], along: npt.NDArray[np.float64], title: str, rules: SeriesFilter) -> None:
    """Refuse slices of several passes whose positions lie between each other: interpolation would mix them."""
    if rules.trust_positions:
        return
    grids = grids_between(along)
    numbers = [one.number for one in slices]
    if grids == 1:
        if not runs_one_way(numbers) and is_even(along) and looks_like_two_passes(slices):
            raise SourceError(
                f"{title}: slices 1 to {len(slices)} are evenly spaced, but every second one differs from those "
                "between as another pass does: slices of 2 passes may be mixed that nothing in their headers tells "
                "apart; give each by itself, or --trust-positions if they are one"
            )
        return
    steps = np.diff(along)
    parts = steps / steps.min()
    if (np.abs(parts - np.round(parts)) < 0.1).all() and (None in numbers or runs_one_way(numbers)):
        return
    shown = ", ".join(f"{step:.3f}" for step in steps[:grids])
    raise SourceError(
        f"{title}: slices 1 to {len(slices)} lie {shown} mm apart in turn, on {grids} grids between each other: slices "
        f"of {grids} passes may be mixed that nothing in their headers tells apart; give each by itself, or "
        "--trust-positions if they are one"
    )


def _gap(slices: list[Header], steps: npt.NDArray[np.float64], usual: float, at: int) -> str:
    ratio = steps[at] / usual
    pair = _pair(slices[at], slices[at + 1], ", ")
    between = f"between slices {at + 1} and {at + 2} of {len(slices)} ({pair})"
    where = f"{between} lie {steps[at]:.3f} mm, elsewhere {usual:.3f} mm"
    missing = round(ratio) - 1
    if missing >= 1 and abs(ratio - missing - 1) < 0.1:
        return f"{where}: {missing} slice{'s are' if missing > 1 else ' is'} missing"
    return f"{where}: slices are missing or unevenly spaced"


def _thinned(slices: list[Header], usual: float) -> str:
    """Whether the header and the instance numbers agree that there were more slices between all of these."""
    # Slices hardly lie farther apart than they are thick, where the header says no more.
    said = abs(slices[0].between or slices[0].acquisition.slice_thickness or 0)
    numbers = [one.number for one in slices]
    if not said or len(slices) < 3 or any(number is None for number in numbers):
        return ""
    every = round(usual / said)
    apart = {abs(b - a) for a, b in zip(numbers, numbers[1:], strict=False)}  # type: ignore[operator]
    if every >= 2 and abs(usual - every * said) <= EVEN * usual and apart == {every}:
        return (
            f"slices 1 to {len(slices)} lie {usual:.3f} mm apart where the header says {said:.3f} mm, and only "
            f"every {every}. instance number is there: slices are missing between them"
        )
    return ""


def _check_lost(
    slices: list[Header],
    along: npt.NDArray[np.float64],
    title: str,
    rules: SeriesFilter,
    notes: list[str],
    lost: Sequence[Damaged],
) -> None:
    for one in lost:
        header = one.header
        if header.position is None or header.orientation is None:
            what = f"{mark_path(header.file)}, which belongs to it, {one.fault}"
        else:
            place = float(np.dot(header.position, normal_of(slices[0])))
            what = f"slice {int(np.searchsorted(along, place)) + 1} ({mark_path(header.file)}) {one.fault}"
        if not rules.allow_gaps:
            raise SourceError(f"{title}: {what}; get that file again, or give --allow-gaps to do without")
        notes.append(f"{what}: done without")


def _check_tilt(slices: list[Header], title: str, rules: SeriesFilter, notes: list[str]) -> None:
    tilts = [i for i, one in enumerate(slices) if abs(one.tilt or 0) >= _TILT_DEGREES]
    upright = abs(float(normal_of(slices[0])[2])) > np.cos(np.radians(_TILT_DEGREES))
    if not tilts or not upright or len(slices) < 2:
        return
    degrees = slices[tilts[0]].tilt
    first, last = tilts[0] + 1, tilts[-1] + 1
    what = (
        f"slices {first} to {last} were taken with a gantry tilted by {degrees:.1f} degrees, which their positions and "
        "orientations do not show"
    )
    if "DERIVED" not in slices[0].image_type and not rules.trust_positions:
        raise SourceError(
            f"{title}: {what}: the volume would be sheared; give the original slices, or --trust-positions if they "
            "were straightened"
        )
    notes.append(f"{what}: positions trusted")


def _compare_attributes(slices: list[Header], usual: float, notes: list[str]) -> None:
    between, thickness = slices[0].between, slices[0].acquisition.slice_thickness
    if between and abs(abs(between) - usual) > max(2 * EVEN_MM, EVEN * usual):
        notes.append(
            f"slices lie {usual:.3f} mm apart where the header says {abs(between):.3f} mm: their positions decide"
        )
    if thickness and thickness > 0 and usual > 1.5 * thickness:
        notes.append(f"slices of {thickness:g} mm lie {usual:.3f} mm apart: what lies between them is not seen")
    if thickness and thickness > _MOST_OVERLAP * usual:
        notes.append(f"slices of {thickness:g} mm lie only {usual:.3f} mm apart: positions may be in another unit")
    locations = [one.location for one in slices if one.location is not None]
    if len(locations) == len(slices) > 2:
        said = float(np.median(np.abs(np.diff(locations))))
        # Along a table that a gantry leans over, steps are somewhat longer.
        if abs(said - usual) > max(2 * EVEN_MM, _MOST_LEANING * usual):
            notes.append(f"slices lie {usual:.3f} mm apart where their locations say {said:.3f} mm: positions decide")
