"""Scans of a source from the headers of its DICOM files. Every series is used, skipped or rejected."""

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
from lungmix.formats.dicom.damaged_files import assign_damaged_files
from lungmix.formats.dicom.dicomdir import find_missing_images
from lungmix.formats.dicom.fallback_decoders import explain_decoding_failure, frame_for_pydicom
from lungmix.formats.dicom.grouping import MIN_SLICES, group_slices
from lungmix.formats.dicom.header import ENHANCED, DamagedFile, DicomDir, Header
from lungmix.formats.dicom.header_reader import HeaderReader
from lungmix.formats.dicom.padding import padding_range
from lungmix.formats.dicom.patients import reject_unused_patients
from lungmix.formats.dicom.read import slabs_of
from lungmix.formats.dicom.resample import Resampling, even_grid_sources
from lungmix.formats.dicom.series_selection import (
    filter_reason,
    find_redundant_groups,
    series_number,
    small_group_reason,
    summarize_small_groups,
)
from lungmix.formats.dicom.slice_groups import Group, merge_groups, pixel_axes, series_ids, slice_normal
from lungmix.formats.dicom.slice_order import SliceOrder, order_slices
from lungmix.formats.dicom.split_series import SplitVolume, find_split_volumes
from lungmix.formats.dicom.stack import Frame, SliceStack
from lungmix.formats.limits import check_geometry
from lungmix.formats.native import native_path
from lungmix.formats.scan import RejectedSource, Scan, Series, SkippedSource, case_name, location_digest
from lungmix.formats.series_filter import SeriesFilter
from lungmix.geometry import Geometry

ScanOrReason = Scan | SkippedSource | RejectedSource


@dataclass
class Collection:
    """Headers of the files of a source.

    Attributes
    ----------
    headers : list of Header
        Headers of images, and of objects without an image.
    damaged : list of DamagedFile
        Damaged DICOM files.
    dicomdirs : list of DicomDir
        DICOMDIR files.
    source_label : callable
        Function from a folder to the label that identifies it in later runs.
    """

    headers: list[Header] = field(default_factory=list)
    damaged: list[DamagedFile] = field(default_factory=list)
    dicomdirs: list[DicomDir] = field(default_factory=list)
    source_label: Callable[[Path], str] = str
    _reader: HeaderReader = field(default_factory=HeaderReader)

    def add(self, path: Path) -> bool:
        """Read the header of a file; return False if it is not DICOM.

        Raises
        ------
        OSError
            If the file cannot be read.
        """
        try:
            content = self._reader.read(path)
        except OSError:
            # A second attempt often succeeds on a network file system.
            content = self._reader.read(path)
        if isinstance(content, DamagedFile):
            self.damaged.append(content)
        elif isinstance(content, DicomDir):
            self.dicomdirs.append(content)
        elif content is not None:
            self.headers.extend(content)
        return content is not None

    def add_unreadable(self, path: Path, error: OSError) -> None:
        """Add a file that cannot be read, which may be a slice of a series in its folder."""
        problem = f"cannot be read ({error.strerror or type(error).__name__})"
        self.damaged.append(DamagedFile(Header(str(path), str(path.parent)), problem, is_readable=False))

    def scan_results(self, series_filter: SeriesFilter) -> list[ScanOrReason]:
        """Return a result for every series, damaged file and DICOMDIR: a scan, or a skipped or rejected source."""
        groups = group_slices(self.headers)
        damage = assign_damaged_files(self.damaged, groups)
        missing = find_missing_images([dicomdir.file for dicomdir in self.dicomdirs], groups, self.damaged)
        by_series: dict[tuple[str, str, str], list[Header]] = defaultdict(list)
        for header in self.headers:
            by_series[series_ids(header)].append(header)
        split_volumes = find_split_volumes(groups)
        split_of = {index: split_volume for split_volume in split_volumes for index in split_volume.indices}
        skipped: dict[int, str] = {}
        outcome: dict[int, Scan | SourceError] = {}
        for index, group in enumerate(groups):
            reason = group.first.exclusion_reason or filter_reason(group, series_filter)
            if reason is None and index not in split_of:
                reason = small_group_reason(group, series_filter)
            if reason is not None:
                skipped[index] = reason
                continue
            try:
                if index in split_of and series_filter.choose:
                    raise SourceError(_describe_split_volume(split_of[index], groups))
                if group.problem:
                    raise SourceError(f"{group.title}: {group.problem}")
                lost = [*damage.lost.get(index, ()), *missing.get(index, ())]
                order = order_slices(group, series_filter, lost)
                series_headers = group.slices if group.ignored else by_series[group.series]
                notes = _completeness_notes(group, series_headers, damage.possible.get(index, ()), series_filter)
                if index in split_of:
                    notes.append(f"it is a part of a volume: {split_of[index].reason}")
                notes = [*group.notes, *order.notes, *notes]
                outcome[index] = _scan_of(group, order, tuple(notes), self.source_label(group.folder))
            except SourceError as error:
                outcome[index] = error
            except OSError as error:
                file = f" ({mark_path(error.filename)})" if isinstance(error.filename, str) else ""
                outcome[index] = SourceError(f"{group.title}: a file{file} cannot be read ({error.strerror}): check it")
        if series_filter.choose:
            skipped |= find_redundant_groups(groups, {index: isinstance(scan, Scan) for index, scan in outcome.items()})
        results: list[ScanOrReason] = []
        for indices in _group_for_listing(groups, skipped, split_of if series_filter.choose else {}):
            index, merged = indices[0], merge_groups([groups[i] for i in indices])
            name, path = case_name(merged.folder.name), str(merged.folder)
            scan = outcome.get(index)
            if index in skipped:
                reason = skipped[index] if len(indices) == 1 else summarize_small_groups(len(indices), skipped[index])
                results.append(SkippedSource(name, path, f"{merged.title}: {reason}", _series_summary(merged)))
            elif isinstance(scan, SourceError):
                results.append(RejectedSource(name, path, scan.args[0], _series_summary(merged)))
            elif scan is not None:
                results.append(scan)
        return [*results, *reject_unused_patients(groups, skipped, self.damaged), *self._files(damage.duplicates)]

    def _files(self, duplicates: Sequence[DamagedFile]) -> Iterable[ScanOrReason]:
        for damaged_file in self.damaged:
            file = Path(damaged_file.header.file)
            remedy = "a duplicate of an undamaged slice: remove it" if damaged_file in duplicates else "get it again"
            reason = f"{mark_path(file)} is a damaged DICOM file, it {damaged_file.problem}: {remedy}"
            if not damaged_file.is_readable:
                reason = f"{mark_path(file)} {damaged_file.problem}: check it"
            yield RejectedSource(case_name(file.parent.name), str(file), reason)
        for dicomdir in self.dicomdirs:
            file = Path(dicomdir.file)
            yield SkippedSource(
                case_name(file.parent.name),
                str(file),
                f"{mark_path(file)}: an index of files that are found without it",
            )


def _group_for_listing(
    groups: Sequence[Group], skipped: Mapping[int, str], split_of: Mapping[int, SplitVolume]
) -> list[list[int]]:
    """Return lists of groups, by index, each of which is one line of a listing.

    Parts of one split volume share a line, as do parts of one series with fewer than three slices each.
    """
    lines: dict[object, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        key: object = index
        if index in skipped and len(group.slices) < MIN_SLICES and not group.first.exclusion_reason:
            key = (group.series, "" if "slice" in skipped[index] else skipped[index])
        elif index in split_of and index not in skipped:
            key = split_of[index]
        lines[key].append(index)
    return list(lines.values())


def _describe_split_volume(split_volume: SplitVolume, groups: Sequence[Group]) -> str:
    merged = merge_groups([groups[i] for i in split_volume.indices])
    return (
        f"{merged.title} is not a volume of one scan: {split_volume.reason}; give slices of one reconstruction of "
        "one patient, or `filter='all'` to use each part"
    )


def _completeness_notes(
    group: Group, series_headers: Sequence[Header], possible: Sequence[DamagedFile], series_filter: SeriesFilter
) -> list[str]:
    """Return notes on slices that may be missing at an end of a volume; `series_headers` are those of its whole series.

    Raises
    ------
    SourceError
        If a header announces more images than were found, and gaps are not allowed.
    """
    notes = [
        f"{mark_path(file.header.file)}, which {'is damaged' if file.is_readable else file.problem}, may belong to it"
        for file in possible
    ]
    if group.first.frame is not None:
        return notes
    announced = max((header.announced or 0 for header in group.slices), default=0)
    objects = len({header.sop_uid or header.file for header in series_headers})
    if announced > objects:
        description = f"its header announces {announced} images, {objects} were found: slices at an end may be missing"
        if not series_filter.allow_gaps:
            raise SourceError(
                f"{group.title}: {description}; give the complete series, or `allow_gaps=True` to do without them"
            )
        notes.append(description)
    numbers = sorted(header.number for header in group.slices if header.number is not None)
    is_contiguous = len(numbers) == len(group.slices) and numbers[-1] - numbers[0] + 1 == len(numbers)
    others = {header.number for header in series_headers}
    if is_contiguous and 1 < numbers[0] <= 5 and not all(number in others for number in range(1, numbers[0])):
        notes.append(f"its instance numbers begin with {numbers[0]}: slices at an end may be missing")
    return notes


def _scan_of(group: Group, order: SliceOrder, notes: tuple[str, ...], folder: str) -> Scan:
    first = order.slices[0]
    if any(header.burned_in for header in order.slices):
        raise SourceError(f"{group.title} may hold text in its pixels (BurnedInAnnotation): give the original slices")
    if first.frames > 1 and first.frame is None:
        raise SourceError(
            f"{group.title} has files of several frames whose positions are not stated: export it as enhanced "
            "CT, or as one file per slice"
        )
    resampling = _resampling_of(order)
    geometry = _geometry(order, resampling, group.title)
    check_geometry(group.folder, geometry)
    padding = tuple(padding_range(header) for header in order.slices)
    frames = tuple(Frame(header.frame, *header.rescale) for header in order.slices if header.frame is not None)
    stack = SliceStack((first.rows, first.columns), frames or None, padding if any(padding) else None, resampling)
    digest = hashlib.sha256(repr(resampling).encode())
    for header in order.slices:
        digest.update(header.state + str(header.frame).encode())
    location = (folder, group.series, first.rows, first.columns, first.spacing, first.kernel, first.phase)
    return Scan(
        name=case_name(group.folder.name),
        path=str(group.folder),
        kind="dicom",
        geometry=geometry,
        acquisition=first.acquisition,
        fingerprint=digest.hexdigest(),
        key=location_digest(f"{location} {np.round(first.orientation or 0, 2).tolist()} {group.part}"),
        files=tuple(header.file for header in order.slices),
        identity=first.identity,
        stack=stack,
        notes=notes,
        series=_series_summary(group, geometry),
        reader=slabs_of,
    )


def _series_summary(group: Group, geometry: Geometry | None = None) -> Series:
    first = group.first
    return Series(
        number=series_number(group),
        files=len({header.file for header in group.slices}),
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
    sources = tuple((i, i, 0.0) for i in range(n)) if order.even else even_grid_sources(order.along, order.spacing)
    if order.shear is None:
        return Resampling(sources, ((0.0, 0.0),) * n, (first.columns, first.rows))
    shifts = np.array(order.shear.shifts)
    low, high = np.floor(shifts.min(axis=0)), np.ceil(shifts.max(axis=0))
    offsets = tuple((float(x), float(y)) for x, y in shifts - low)
    wider, higher = (int(v) for v in high - low)
    return Resampling(sources, offsets, (first.columns + wider, first.rows + higher))


def _geometry(order: SliceOrder, resampling: Resampling | None, title: str) -> Geometry:
    """Return the geometry that SimpleITK's series reader gives, adapted to the resampled grid if there is one."""
    n = len(order.slices)
    plain = _plain_geometry(order, title)
    if resampling is None:
        return plain
    axes = np.reshape(plain.direction, (3, 3))
    x, y, _ = plain.spacing
    # Pixels of the first slice keep their positions; the grid begins where the outermost shifted slice begins.
    origin = (
        np.array(plain.origin) - axes[:, 0] * x * resampling.offsets[0][0] - axes[:, 1] * y * resampling.offsets[0][1]
    )
    depth = order.spacing if not order.even else (order.along[-1] - order.along[0]) / max(n - 1, 1)
    columns, rows = resampling.size
    return Geometry((columns, rows, len(resampling.sources)), (x, y, depth), tuple(origin.tolist()), plain.direction)


def _plain_geometry(order: SliceOrder, title: str) -> Geometry:
    first, n = order.slices[0], len(order.slices)
    # ITK rejects a SpacingBetweenSlices of 0, though positions define the distance.
    if first.sop_class in ENHANCED or first.between == 0 or order.slices[-1].between == 0:
        return _geometry_by_headers(order, title)
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    outer = [header.file for header in (order.slices[0], order.slices[-1])[: min(n, 2)]]
    try:
        with ExitStack() as paths:
            reader.SetFileNames([paths.enter_context(native_path(file)) for file in outer])
            ends = reader.Execute()
    except RuntimeError:
        if any(frame_for_pydicom(file) is not None for file in outer):
            return _geometry_by_headers(order, title)
        undecoded = next((file for file in outer if not _is_decoded(file)), outer[0])
        problem = explain_decoding_failure(undecoded)
        raise SourceError(f"{title} cannot be decoded: {mark_path(undecoded)} {problem}") from None
    x, y, z = ends.GetSpacing()
    if ends.GetNumberOfComponentsPerPixel() != 1 or ends.GetDimension() != 3:
        raise SourceError(f"{title} is not a stack of grey-value slices: give the original CT slices")
    size = ends.GetSize()
    direction = np.reshape(ends.GetDirection(), (3, 3))
    # SimpleITK before 2.5.4 inverts the axis where SpacingBetweenSlices is negative.
    if float(direction[:, 2] @ slice_normal(first)) < 0:
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
        raise SourceError(f"{title} has no pixel spacing: give the original slices")
    direction = np.stack([*pixel_axes(first), slice_normal(first)], axis=1)
    between_rows, between_columns = first.spacing
    depth = (order.along[-1] - order.along[0]) / (n - 1) if n > 1 else order.spacing
    return Geometry(
        (first.columns, first.rows, n),
        (between_columns, between_rows, depth),
        first.position or (0.0, 0.0, 0.0),  # type: ignore[arg-type]
        tuple(direction.ravel().tolist()),
    )
