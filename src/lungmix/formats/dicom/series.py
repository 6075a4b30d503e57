"""From headers to scans: every series of a source with its verdict."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.damaged_files import attribute
from lungmix.formats.dicom.dicomdir import not_there
from lungmix.formats.dicom.fallback_decoders import frame_for_pydicom, why_undecoded
from lungmix.formats.dicom.grouping import FEWEST_SLICES, groups_of
from lungmix.formats.dicom.header import ENHANCED, Damaged, Header, HeaderReader, Index
from lungmix.formats.dicom.padding import padding_of
from lungmix.formats.dicom.patients import unused_patients
from lungmix.formats.dicom.resample import Resampling, onto_even_grid
from lungmix.formats.dicom.series_selection import (
    in_small_parts,
    passed_over,
    series_number,
    too_small,
    unwanted,
)
from lungmix.formats.dicom.slice_groups import Group, axes_of, normal_of, series_of, together
from lungmix.formats.dicom.slice_order import SliceOrder, order_of
from lungmix.formats.dicom.split_series import Pieces, pieces_of
from lungmix.formats.dicom.stack import Frame, SliceStack
from lungmix.formats.limits import check_geometry
from lungmix.formats.native import native_path
from lungmix.formats.scan import RejectedSource, Scan, Series, SkippedSource, case_name, key_of_place
from lungmix.formats.series_filter import SeriesFilter
from lungmix.geometry import Geometry

Verdict = Scan | SkippedSource | RejectedSource


@dataclass
class Collection:
    """What was read of the files of a source.

    Attributes
    ----------
    headers : list of Header
        Images, and files without one.
    damaged : list of Damaged
        Files that are or were DICOM.
    indices : list of Index
        DICOMDIR files.
    place : callable
        What a folder is known by when the same source is given again.
    """

    headers: list[Header] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)
    indices: list[Index] = field(default_factory=list)
    place: Callable[[Path], str] = str
    _reader: HeaderReader = field(default_factory=HeaderReader)

    def add(self, path: Path) -> bool:
        """Read the header of a file; False if it is not DICOM.

        Raises
        ------
        OSError
            If the file cannot be read.
        """
        try:
            found = self._reader.read(path)
        except OSError:
            # What a network file system could not do a moment ago it often can.
            found = self._reader.read(path)
        if isinstance(found, Damaged):
            self.damaged.append(found)
        elif isinstance(found, Index):
            self.indices.append(found)
        elif found is not None:
            self.headers.extend(found)
        return found is not None

    def miss(self, path: Path, error: OSError) -> None:
        """Take note of a file that cannot be read: it may be a slice of a series beside it."""
        fault = f"cannot be read ({error.strerror or type(error).__name__})"
        self.damaged.append(Damaged(Header(str(path), str(path.parent)), fault, read=False))

    def verdicts(self, rules: SeriesFilter) -> list[Verdict]:
        """Every series and every damaged file: used, skipped or refused, with the reason."""
        groups = groups_of(self.headers)
        damage = attribute(self.damaged, groups)
        uncopied = not_there([one.file for one in self.indices], groups, self.damaged)
        by_series: dict[tuple[str, str, str], list[Header]] = defaultdict(list)
        for header in self.headers:
            by_series[series_of(header)].append(header)
        pieces = pieces_of(groups)
        part_of = {index: piece for piece in pieces for index in piece.indices}
        skipped: dict[int, str] = {}
        outcome: dict[int, Scan | SourceError] = {}
        for index, group in enumerate(groups):
            reason = group.first.unused or unwanted(group, rules)
            if reason is None and index not in part_of:
                reason = too_small(group, rules)
            if reason is not None:
                skipped[index] = reason
                continue
            try:
                if index in part_of and rules.choose:
                    raise SourceError(_told_of_pieces(part_of[index], groups))
                if group.fault:
                    raise SourceError(f"{group.title}: {group.fault}")
                lost = [*damage.lost.get(index, ()), *uncopied.get(index, ())]
                order = order_of(group, rules, lost)
                same = group.slices if group.ignored else by_series[group.series]
                notes = _notes(group, same, damage.possible.get(index, ()), rules)
                if index in part_of:
                    notes.append(f"it is a part of a volume: {part_of[index].reason}")
                notes = [*group.notes, *order.notes, *notes]
                outcome[index] = _scan_of(group, order, tuple(notes), self.place(group.folder))
            except SourceError as error:
                outcome[index] = error
            except OSError as error:
                file = f" ({mark_path(error.filename)})" if isinstance(error.filename, str) else ""
                outcome[index] = SourceError(f"{group.title}: a file{file} cannot be read ({error.strerror}): check it")
        if rules.choose:
            skipped |= passed_over(groups, {index: isinstance(one, Scan) for index, one in outcome.items()})
        found: list[Verdict] = []
        for indices in _lines(groups, skipped, part_of if rules.choose else {}):
            index, whole = indices[0], together([groups[i] for i in indices])
            name, path = case_name(whole.folder.name), str(whole.folder)
            one = outcome.get(index)
            if index in skipped:
                reason = skipped[index] if len(indices) == 1 else in_small_parts(len(indices), skipped[index])
                found.append(SkippedSource(name, path, f"{whole.title}: {reason}", _listed(whole)))
            elif isinstance(one, SourceError):
                found.append(RejectedSource(name, path, one.args[0], _listed(whole)))
            elif one is not None:
                found.append(one)
        return [*found, *unused_patients(groups, skipped, self.damaged), *self._files(damage.copies)]

    def _files(self, copies: Sequence[Damaged]) -> Iterable[Verdict]:
        for one in self.damaged:
            file = Path(one.header.file)
            what = "a copy of a slice that is there undamaged: remove it" if one in copies else "get it again"
            reason = f"{mark_path(file)} is a damaged DICOM file, it {one.fault}: {what}"
            if not one.read:
                reason = f"{mark_path(file)} {one.fault}: check it"
            yield RejectedSource(case_name(file.parent.name), str(file), reason)
        for index in self.indices:
            file = Path(index.file)
            yield SkippedSource(
                case_name(file.parent.name),
                str(file),
                f"{mark_path(file)}: an index of files, which are found without it",
            )


def _lines(groups: Sequence[Group], skipped: Mapping[int, str], part_of: Mapping[int, Pieces]) -> list[list[int]]:
    """Indices of groups that are listed together: pieces of one volume, and small parts of a series left over."""
    found: dict[object, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        key: object = index
        if index in skipped and len(group.slices) < FEWEST_SLICES and not group.first.unused:
            key = (group.series, "" if "slice" in skipped[index] else skipped[index])
        elif index in part_of and index not in skipped:
            key = part_of[index]
        found[key].append(index)
    return list(found.values())


def _told_of_pieces(pieces: Pieces, groups: Sequence[Group]) -> str:
    whole = together([groups[i] for i in pieces.indices])
    return (
        f"{whole.title} is no volume of one scan: {pieces.reason}; give slices of one reconstruction of one patient, "
        "or --series-filter all to use each part"
    )


def _notes(group: Group, same: Sequence[Header], possible: Sequence[Damaged], rules: SeriesFilter) -> list[str]:
    """What hints at slices that are missing at an end; `same` are all images of the series.

    Raises
    ------
    SourceError
        If the header says that there are more.
    """
    notes = [
        f"{mark_path(one.header.file)}, which {'is damaged' if one.read else one.fault}, may belong to it"
        for one in possible
    ]
    if group.first.frame is not None:
        return notes
    announced = max((one.announced or 0 for one in group.slices), default=0)
    objects = len({one.sop_uid or one.file for one in same})
    if announced > objects:
        what = f"its header announces {announced} images, {objects} were found: slices at an end may be missing"
        if not rules.allow_gaps:
            raise SourceError(f"{group.title}: {what}; give the complete series, or --allow-gaps to do without them")
        notes.append(what)
    numbers = sorted(one.number for one in group.slices if one.number is not None)
    whole = len(numbers) == len(group.slices) and numbers[-1] - numbers[0] + 1 == len(numbers)
    others = {one.number for one in same}
    if whole and 1 < numbers[0] <= 5 and not all(number in others for number in range(1, numbers[0])):
        notes.append(f"its instance numbers begin with {numbers[0]}: slices at an end may be missing")
    return notes


def _scan_of(group: Group, order: SliceOrder, notes: tuple[str, ...], folder: str) -> Scan:
    first = order.slices[0]
    if any(one.burned_in for one in order.slices):
        raise SourceError(
            f"{group.title} may carry text of the patient in its pixels, its header says: give the original slices"
        )
    if first.frames > 1 and first.frame is None:
        raise SourceError(
            f"{group.title} has several frames in a file but does not say where they lie: give enhanced CT"
        )
    resampling = _resampling_of(order)
    geometry = _geometry(order, resampling, group.title)
    check_geometry(group.folder, geometry)
    padding = tuple(padding_of(one) for one in order.slices)
    frames = tuple(Frame(one.frame, *one.rescale) for one in order.slices if one.frame is not None)
    stack = SliceStack((first.rows, first.columns), frames or None, padding if any(padding) else None, resampling)
    digest = hashlib.sha256(repr(resampling).encode())
    for one in order.slices:
        digest.update(one.state + str(one.frame).encode())
    place = (folder, group.series, first.rows, first.columns, first.spacing, first.kernel, first.phase)
    return Scan(
        name=case_name(group.folder.name),
        path=str(group.folder),
        kind="dicom",
        geometry=geometry,
        acquisition=first.acquisition,
        fingerprint=digest.hexdigest(),
        key=key_of_place(f"{place} {np.round(first.orientation or 0, 2).tolist()} {group.part}"),
        files=tuple(one.file for one in order.slices),
        identity=first.identity,
        stack=stack,
        notes=notes,
        series=_listed(group, geometry),
    )


def _listed(group: Group, geometry: Geometry | None = None) -> Series:
    first = group.first
    return Series(
        number=series_number(group),
        files=len({one.file for one in group.slices}),
        size=geometry.size if geometry is not None else (first.columns, first.rows, len(group.slices)),
        spacing=geometry.spacing if geometry is not None else None,
        kernel=first.acquisition.kernel,
        thickness=first.acquisition.slice_thickness,
    )


def _resampling_of(order: SliceOrder) -> Resampling | None:
    if order.even and order.shear is None:
        return None
    first = order.slices[0]
    n = len(order.slices)
    sources = tuple((i, i, 0.0) for i in range(n)) if order.even else onto_even_grid(order.along, order.spacing)
    if order.shear is None:
        return Resampling(sources, ((0.0, 0.0),) * n, (first.columns, first.rows))
    shifts = np.array(order.shear.shifts)
    low, high = np.floor(shifts.min(axis=0)), np.ceil(shifts.max(axis=0))
    offsets = tuple((float(x), float(y)) for x, y in shifts - low)
    wider, higher = (int(v) for v in high - low)
    return Resampling(sources, offsets, (first.columns + wider, first.rows + higher))


def _geometry(order: SliceOrder, resampling: Resampling | None, title: str) -> Geometry:
    """What SimpleITK's series reader would say, and where slices are resampled, where the new ones lie."""
    n = len(order.slices)
    plain = _plain_geometry(order, title)
    if resampling is None:
        return plain
    axes = np.reshape(plain.direction, (3, 3))
    x, y, _ = plain.spacing
    # The first slice keeps its place; the grid begins as far beside it as the farthest slice lies.
    moved = (
        np.array(plain.origin) - axes[:, 0] * x * resampling.offsets[0][0] - axes[:, 1] * y * resampling.offsets[0][1]
    )
    depth = order.spacing if not order.even else (order.along[-1] - order.along[0]) / max(n - 1, 1)
    columns, rows = resampling.size
    return Geometry((columns, rows, len(resampling.sources)), (x, y, depth), tuple(moved.tolist()), plain.direction)


def _plain_geometry(order: SliceOrder, title: str) -> Geometry:
    first, n = order.slices[0], len(order.slices)
    # A distance of 0 stops ITK's reader, though positions say what the distance is.
    if first.sop_class in ENHANCED or first.between == 0 or order.slices[-1].between == 0:
        return _geometry_by_headers(order, title)
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    outer = [one.file for one in (order.slices[0], order.slices[-1])[: min(n, 2)]]
    try:
        with ExitStack() as paths:
            reader.SetFileNames([paths.enter_context(native_path(file)) for file in outer])
            ends = reader.Execute()
    except RuntimeError:
        if any(frame_for_pydicom(file) is not None for file in outer):
            return _geometry_by_headers(order, title)
        bad = next((file for file in outer if not _is_decoded(file)), outer[0])
        why = why_undecoded(bad)
        raise SourceError(f"{title} cannot be decoded: {mark_path(bad)} {why}") from None
    x, y, z = ends.GetSpacing()
    if ends.GetNumberOfComponentsPerPixel() != 1 or ends.GetDimension() != 3:
        raise SourceError(f"{title} is not a stack of plain slices: give the original CT slices")
    size = ends.GetSize()
    direction = np.reshape(ends.GetDirection(), (3, 3))
    # SimpleITK before 2.5.4 turns the axis where SpacingBetweenSlices is negative.
    if float(direction[:, 2] @ normal_of(first)) < 0:
        direction = direction * (1, 1, -1)
    depth = z / max(n - 1, 1)
    return Geometry((size[0], size[1], n), (x, y, depth), ends.GetOrigin(), tuple(direction.ravel().tolist()))


def _is_decoded(file: str) -> bool:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    try:
        with native_path(file) as path:
            reader.SetFileName(path)
            reader.Execute()
    except RuntimeError:
        return False
    return True


def _geometry_by_headers(order: SliceOrder, title: str) -> Geometry:
    first, n = order.slices[0], len(order.slices)
    if first.spacing is None:
        raise SourceError(f"{title} does not say how large its pixels are: give the original slices")
    direction = np.stack([*axes_of(first), normal_of(first)], axis=1)
    between_rows, between_columns = first.spacing
    depth = (order.along[-1] - order.along[0]) / (n - 1) if n > 1 else order.spacing
    return Geometry(
        (first.columns, first.rows, n),
        (between_columns, between_rows, depth),
        first.position or (0.0, 0.0, 0.0),  # type: ignore[arg-type]
        tuple(direction.ravel().tolist()),
    )
