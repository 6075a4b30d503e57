"""Order of the slices of a volume, and checks that they are complete and evenly spaced; messages name slices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.checks import is_rotation
from lungmix.formats.dicom.duplicates import has_same_pixels
from lungmix.formats.dicom.even_spacing import (
    EVEN_TOLERANCE,
    EVEN_TOLERANCE_MM,
    MAX_GRID_DEVIATION,
    SAME_POSITION_MM,
    count_interleaved_grids,
    estimate_spacing,
    find_uneven_steps,
    grid_deviation,
    is_even,
)
from lungmix.formats.dicom.gantry_tilt import GantryShear, estimate_shear, find_displaced_slices
from lungmix.formats.dicom.header import DamagedFile, Header
from lungmix.formats.dicom.instance_numbers import check_numbers, is_monotonic
from lungmix.formats.dicom.slice_groups import Group, format_slices, has_position, slice_normal
from lungmix.formats.dicom.slice_similarity import looks_like_two_passes
from lungmix.formats.series_filter import SeriesFilter

_MAX_LISTED = 4
_TILT_DEGREES = 0.5
_MAX_OVERLAP, _MAX_LEANING = 6, 0.2


@dataclass(frozen=True)
class SliceOrder:
    """Slices of a volume in the order of z.

    Attributes
    ----------
    slices : tuple of Header
        Headers, one at each position.
    along : tuple of float
        Positions along the normal, mm.
    spacing : float
        Median distance of neighbouring slices, mm. For a single slice its thickness, or 1 mm if that is unknown.
    even : bool
        True where all distances are equal within the tolerance.
    shear : GantryShear or None
        Lateral displacement by a tilted gantry; None if slices are aligned.
    notes : tuple of str
        Notes on the volume for the user.
    """

    slices: tuple[Header, ...]
    along: tuple[float, ...]
    spacing: float
    even: bool
    shear: GantryShear | None
    notes: tuple[str, ...]


def order_slices(group: Group, series_filter: SeriesFilter, lost: Sequence[DamagedFile] = ()) -> SliceOrder:
    """Return the slices of a group in the order of z.

    Parameters
    ----------
    group : Group
        Slices of one orientation and size.
    series_filter : SeriesFilter
        Options that accept gaps and inconsistent positions.
    lost : sequence of DamagedFile
        Damaged or missing slices that belong to the group.

    Raises
    ------
    SourceError
        If the slices are not those of one volume; the message numbers slices in the order of z, from 1.
    """
    title = group.title
    for header in group.slices:
        if not has_position(header):
            raise SourceError(
                f"{title} lacks position or orientation in {mark_path(header.file)}: give the original slices"
            )
        if header.inconsistency:
            raise SourceError(f"{title}: {mark_path(header.file)} {header.inconsistency}")
    normal = slice_normal(group.first)
    if not is_rotation(group.first.orientation or ()):
        raise SourceError(f"{title} has an orientation that is not a rotation: give the original slices")
    notes: list[str] = []
    slices = sorted(group.slices, key=lambda header: float(np.dot(header.position, normal)))  # type: ignore[arg-type]
    slices = _drop_duplicates(slices, title, notes)
    _check_hu(slices, title, notes)
    along = np.array([header.position for header in slices]) @ normal
    steps = np.diff(along)
    median_spacing = estimate_spacing(steps)
    _reject_duplicate_positions(slices, steps, median_spacing, title)
    check_numbers(slices, along, median_spacing, title, series_filter, notes)
    _check_lost(slices, along, title, series_filter, notes, lost)
    even = _check_steps(slices, along, median_spacing, title, series_filter, notes)
    shear = estimate_shear(slices, along, title)
    if shear is not None:
        notes.append(
            f"slices 1 to {len(slices)} are sheared by {shear.degrees:.1f} degrees (tilted gantry): resampled to a "
            "straight grid"
        )
    else:
        _check_tilt(slices, title, series_filter, notes)
        displaced, farthest = find_displaced_slices(slices, along)
        if displaced:
            lie = "lies" if len(displaced) == 1 else "lie"
            notes.append(
                f"{format_slices(slices, displaced)} {lie} up to {farthest:.2f} mm beside the others, less than a "
                "pixel or half a millimetre: used as they are"
            )
    if len(slices) > 1:
        _compare_attributes(slices, median_spacing, notes)
    lossy = [i for i, header in enumerate(slices) if header.lossy]
    if lossy:
        notes.append(f"slices {lossy[0] + 1} to {lossy[-1] + 1} were once compressed with loss: their HU are not exact")
    spacing = median_spacing if len(slices) > 1 else slices[0].acquisition.slice_thickness or 1.0
    return SliceOrder(tuple(slices), tuple(float(v) for v in along), spacing, even, shear, tuple(notes))


def _drop_duplicates(slices: list[Header], title: str, notes: list[str]) -> list[Header]:
    """Return the slices without duplicates: files of the same object at the same position with the same pixels."""
    kept: list[Header] = []
    first_index: dict[tuple[object, ...], int] = {}
    duplicates: dict[int, list[Header]] = defaultdict(list)
    same_pixels: dict[tuple[str, str], bool] = {}
    for header in slices:
        key = (header.sop_uid, header.frame, header.position)
        index = first_index.get(key) if header.sop_uid else None
        if index is None:
            first_index[key] = len(kept)
            kept.append(header)
            continue
        # Compare each pair of multi-frame files only once.
        pair = (kept[index].file, header.file)
        if pair not in same_pixels:
            same_pixels[pair] = has_same_pixels(*pair)
        if same_pixels[pair]:
            duplicates[index].append(header)
        else:
            raise SourceError(
                f"{title}: slice {index + 1} has a duplicate with different pixels ({mark_path(kept[index].file)} and "
                f"{mark_path(header.file)}): remove the wrong file"
            )
    if len(duplicates) == 1:
        ((index, duplicate_headers),) = duplicates.items()
        names = " and ".join(mark_path(header.file) for header in duplicate_headers[:_MAX_LISTED])
        names += f" and {len(duplicate_headers) - _MAX_LISTED} more" if len(duplicate_headers) > _MAX_LISTED else ""
        notes.append(
            f"{format_slices(kept, [index])} is duplicated by {names}, with the same pixels: duplicate not used"
        )
    elif duplicates:
        notes.append(
            f"{format_slices(kept, list(duplicates))} have duplicates with the same pixels: duplicates not used"
        )
    return kept


def _reject_duplicate_positions(
    slices: list[Header], steps: npt.NDArray[np.float64], median_spacing: float, title: str
) -> None:
    duplicates = np.flatnonzero(steps < max(SAME_POSITION_MM, 0.01 * median_spacing))
    if duplicates.size:
        first = int(duplicates[0])
        pair = _pair(slices[first], slices[first + 1], " and ")
        more = f", and {duplicates.size - 1} more pairs do" if duplicates.size > 1 else ""
        remedy = "remove the duplicates"
        if 3 * duplicates.size > len(slices):
            remedy = (
                "phases or reconstructions may be mixed, and no attribute separates them; give each phase or "
                "reconstruction by itself"
            )
        raise SourceError(f"{title}: slices {first + 1} and {first + 2} lie at one position ({pair}){more}: {remedy}")


def _pair(first: Header, second: Header, between: str) -> str:
    """Return the files of two slices, or their frames in one file."""
    if first.frame is not None and second.frame is not None and first.file == second.file:
        return f"frames {first.frame + 1} and {second.frame + 1} of {mark_path(first.file)}"
    return f"{mark_path(first.file)}{between}{mark_path(second.file)}"


def _check_hu(slices: list[Header], title: str, notes: list[str]) -> None:
    """Reject slices if only some have a rescale slope and intercept; if none has, add the note that pixels are HU."""
    missing_rescale = [i for i, header in enumerate(slices) if header.missing_rescale]
    if 0 < len(missing_rescale) < len(slices) or len({header.missing_rescale for header in slices}) > 1:
        raise SourceError(
            f"{title}: {format_slices(slices, missing_rescale)} lack{'s' if len(missing_rescale) == 1 else ''} rescale "
            "slope or intercept, which other slices have: give the original slices"
        )
    if not missing_rescale:
        return
    if len(slices[0].missing_rescale) == 2:
        notes.append("its header has no rescale slope or intercept: pixels are taken for HU as they are")
    elif slices[0].missing_rescale == ("slope",):
        notes.append("its header has no rescale slope: the slope is taken for 1, the rescale intercept is applied")
    else:
        notes.append("its header has no rescale intercept: the intercept is taken for 0, the rescale slope is applied")


def _check_steps(
    slices: list[Header],
    along: npt.NDArray[np.float64],
    median_spacing: float,
    title: str,
    series_filter: SeriesFilter,
    notes: list[str],
) -> bool:
    steps = np.diff(along)
    if not len(steps):
        return True
    _reject_interleaved_grids(slices, along, title, series_filter)
    uneven = find_uneven_steps(along, median_spacing)
    if uneven.size:
        description = "; ".join(_describe_gap(slices, steps, median_spacing, int(at)) for at in uneven[:_MAX_LISTED])
        if uneven.size > _MAX_LISTED:
            description += f"; {uneven.size - _MAX_LISTED} more such places"
    else:
        drift = grid_deviation(along)
        if drift.max() <= max(2 * EVEN_TOLERANCE_MM, MAX_GRID_DEVIATION * median_spacing):
            description = _describe_thinning(slices, median_spacing)
        else:
            worst = int(drift.argmax())
            description = (
                f"{format_slices(slices, [worst])} lies {drift.max():.2f} mm from its position on an even grid: slices "
                "are unevenly spaced"
            )
            uneven = np.array([worst])
    if not description:
        return True
    if not series_filter.allow_gaps:
        raise SourceError(f"{title}: {description}; give the complete series, or `allow_gaps=True` to interpolate")
    if not uneven.size:
        notes.append(f"{description}: used as they are")
        return True
    notes.append(f"{description}: interpolated linearly to {median_spacing:.3f} mm")
    return False


def _reject_interleaved_grids(
    slices: list[Header], along: npt.NDArray[np.float64], title: str, series_filter: SeriesFilter
) -> None:
    """Raise `SourceError` if slices are of several interleaved passes, which interpolation would mix."""
    if series_filter.trust_positions:
        return
    grids = count_interleaved_grids(along)
    numbers = [header.number for header in slices]
    if grids == 1:
        if not is_monotonic(numbers) and is_even(along) and looks_like_two_passes(slices):
            raise SourceError(
                f"{title}: slices 1 to {len(slices)} are evenly spaced, but every second one differs from its "
                "neighbours as if of another pass: slices of 2 passes may be mixed, and no attribute separates them; "
                "give each pass by itself, or `trust_positions=True` if they are a single pass"
            )
        return
    steps = np.diff(along)
    parts = steps / steps.min()
    if (np.abs(parts - np.round(parts)) < 0.1).all() and (None in numbers or is_monotonic(numbers)):
        return
    shown = ", ".join(f"{step:.3f}" for step in steps[:grids])
    raise SourceError(
        f"{title}: slices 1 to {len(slices)} lie alternately {shown} mm apart, on {grids} interleaved grids: slices of "
        f"{grids} passes may be mixed, and no attribute separates them; give each pass by itself, or "
        "`trust_positions=True` if they are a single pass"
    )


def _describe_gap(slices: list[Header], steps: npt.NDArray[np.float64], median_spacing: float, at: int) -> str:
    ratio = steps[at] / median_spacing
    pair = _pair(slices[at], slices[at + 1], ", ")
    between = f"between slices {at + 1} and {at + 2} of {len(slices)} ({pair})"
    description = f"{between} lie {steps[at]:.3f} mm, elsewhere {median_spacing:.3f} mm"
    missing = round(ratio) - 1
    if missing >= 1 and abs(ratio - missing - 1) < 0.1:
        return f"{description}: {missing} slice{'s are' if missing > 1 else ' is'} missing"
    return f"{description}: slices are missing or unevenly spaced"


def _describe_thinning(slices: list[Header], median_spacing: float) -> str:
    """Return the text of a problem if only every second slice, or every third, and so on, is present; else empty.

    Both the declared spacing and the instance numbers must say that slices are missing between all present slices.
    """
    # Without SpacingBetweenSlices, slices are rarely farther apart than their thickness.
    declared = abs(slices[0].between or slices[0].acquisition.slice_thickness or 0)
    numbers = [header.number for header in slices]
    if not declared or len(slices) < 3 or any(number is None for number in numbers):
        return ""
    stride = round(median_spacing / declared)
    differences = {abs(b - a) for a, b in zip(numbers, numbers[1:], strict=False)}  # type: ignore[operator]
    if (
        stride >= 2
        and abs(median_spacing - stride * declared) <= EVEN_TOLERANCE * median_spacing
        and differences == {stride}
    ):
        return (
            f"slices 1 to {len(slices)} lie {median_spacing:.3f} mm apart, the header declares {declared:.3f} mm, and "
            f"only every {stride}. instance number is present: slices are missing between them"
        )
    return ""


def _check_lost(
    slices: list[Header],
    along: npt.NDArray[np.float64],
    title: str,
    series_filter: SeriesFilter,
    notes: list[str],
    lost: Sequence[DamagedFile],
) -> None:
    for file in lost:
        header = file.header
        if header.position is None or header.orientation is None:
            description = f"{mark_path(header.file)}, which belongs to it, {file.problem}"
        else:
            position = float(np.dot(header.position, slice_normal(slices[0])))
            description = f"slice {int(np.searchsorted(along, position)) + 1} ({mark_path(header.file)}) {file.problem}"
        if not series_filter.allow_gaps:
            raise SourceError(
                f"{title}: {description}; get that file again, or give `allow_gaps=True` to use the other slices"
            )
        notes.append(f"{description}: not used")


def _check_tilt(slices: list[Header], title: str, series_filter: SeriesFilter, notes: list[str]) -> None:
    tilts = [i for i, header in enumerate(slices) if abs(header.tilt or 0) >= _TILT_DEGREES]
    upright = abs(float(slice_normal(slices[0])[2])) > np.cos(np.radians(_TILT_DEGREES))
    if not tilts or not upright or len(slices) < 2:
        return
    degrees = slices[tilts[0]].tilt
    first, last = tilts[0] + 1, tilts[-1] + 1
    description = (
        f"slices {first} to {last} were taken with a gantry tilted by {degrees:.1f} degrees, which their positions and "
        "orientations do not show"
    )
    if "DERIVED" not in slices[0].image_type and not series_filter.trust_positions:
        raise SourceError(
            f"{title}: {description}: the volume would be sheared; give the original slices, or "
            "`trust_positions=True` if they were straightened"
        )
    notes.append(f"{description}: positions trusted")


def _compare_attributes(slices: list[Header], median_spacing: float, notes: list[str]) -> None:
    between, thickness = slices[0].between, slices[0].acquisition.slice_thickness
    if between and abs(abs(between) - median_spacing) > max(2 * EVEN_TOLERANCE_MM, EVEN_TOLERANCE * median_spacing):
        notes.append(
            f"slices lie {median_spacing:.3f} mm apart, the header declares {abs(between):.3f} mm: positions decide"
        )
    if thickness and thickness > 0 and median_spacing > 1.5 * thickness:
        notes.append(f"slices of {thickness:g} mm lie {median_spacing:.3f} mm apart: tissue between them is not imaged")
    if thickness and thickness > _MAX_OVERLAP * median_spacing:
        notes.append(
            f"slices of {thickness:g} mm lie only {median_spacing:.3f} mm apart: positions may be in another unit"
        )
    locations = [header.location for header in slices if header.location is not None]
    if len(locations) == len(slices) > 2:
        declared = float(np.median(np.abs(np.diff(locations))))
        # Steps along the table are somewhat longer than along the normal of a tilted gantry.
        if abs(declared - median_spacing) > max(2 * EVEN_TOLERANCE_MM, _MAX_LEANING * median_spacing):
            notes.append(
                f"slices lie {median_spacing:.3f} mm apart, their locations {declared:.3f} mm: positions decide"
            )
