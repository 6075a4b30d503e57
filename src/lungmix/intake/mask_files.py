"""Mask files of a place, and which case each belongs to: by UIDs, else by a table, else by its name; never guessed."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dask.system import CPU_COUNT

from lungmix.errors import SourceError, UsageError, mark_path
from lungmix.formats import Scan
from lungmix.formats.directory import is_apple_double, list_files
from lungmix.formats.images import extension_of
from lungmix.formats.masks import MaskFile, is_mask_file, open_mask
from lungmix.formats.scan import case_name
from lungmix.formats.tables import column_of, rows_of, text_of
from lungmix.s3 import is_remote
from lungmix.stages.convert import UIDS, frame_digest, series_digest
from lungmix.stages.derived_series import derived_series
from lungmix.store import Cohort, CohortWriter
from lungmix.store.models import record_of
from lungmix.store.schema import CONVERT

TABLE_EXTENSIONS = (".csv", ".tsv", ".txt")
MASK_COLUMNS = ("mask", "masks", "mask_path", "segmentation", "label", "labels")
TARGET_COLUMNS = ("case", "series_uid", "seriesinstanceuid", "path", "source", "image", "file", "scan")
_UID_COLUMNS = ("series_uid", "seriesinstanceuid")
_MAX_TABLE_BYTES = 64 << 20
_WORDS = r"(?:lungs?|masks?|seg|segs|segmentations?|labels?|labelmap|side|rtstruct|rtss|lungmask|roi)"
_SUFFIX = re.compile(rf"(?:[-_. ]+{_WORDS})+$")
_ONLY_WORDS = re.compile(rf"{_WORDS}(?:[-_. ]+{_WORDS})*")


@dataclass(frozen=True)
class MatchedMasks:
    """Mask files by case.

    Attributes
    ----------
    masks : dict of str to MaskFile
        The mask file of each case that has exactly one.
    missing : dict of str to str
        By case without one, the reason; names of files are marked.
    rejected : set of str
        Cases among these that have a file, which cannot be used.
    unused : dict of str to str
        Files that belong to no case, such as ``mask 3``, with the reason.
    """

    masks: dict[str, MaskFile] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    unused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Candidate:
    """A file that may be a mask, with the cases that it belongs to by a table or its name."""

    path: Path
    cases: frozenset[str]


def match_masks(
    place: str | Path, cohort: Cohort, names: Collection[str], scans: Mapping[str, Scan] | None = None
) -> MatchedMasks:
    """Return the mask files of cases.

    A file belongs to the case whose series it names, else to the only case of its frame of reference, else to the case
    that a table says, else to that of its name: ``CASE``, or the name of the scan, with a suffix such as ``_lung``. A
    file that names another series and frame of reference than those of its case is rejected.

    Parameters
    ----------
    place : str or Path
        A folder, which is searched recursively, a mask file, or a table with a column ``mask`` and one of ``case``,
        ``series_uid`` and ``path``.
    cohort : Cohort
        The store.
    names : collection of str
        Cases that need masks.
    scans : mapping of str to Scan, optional
        Scans of this run by case; cases without one are matched by digests of UIDs, or by their case names.

    Raises
    ------
    UsageError
        If there is nothing at this place, or a table lacks a column.
    """
    scans = scans or {}
    path = Path(place)
    if is_remote(str(place)):
        raise UsageError("masks cannot be read from an object store: give a folder of this machine with them")
    if not path.exists():
        raise UsageError(f"{mark_path(path)} does not exist: check the path of the masks")
    cases = _Cases(cohort, names, scans)
    matched = MatchedMasks()
    if path.is_dir():
        files = {file for scan in scans.values() for file in scan.files}
        candidates = [
            _Candidate(file, cases.of_name(file))
            for file in list_files(path.absolute()).files
            if str(file) not in files and not is_apple_double(file) and is_mask_file(file)
        ]
    elif path.suffix.lower() in TABLE_EXTENSIONS and extension_of(path) is None:
        candidates = _read_table(path, cases, matched)
    else:
        only = frozenset(names) if len(names) == 1 else cases.of_name(path)
        candidates = [_Candidate(path.absolute(), only)]
    if not candidates and not matched.unused:
        raise UsageError(f"{mark_path(path)} holds no mask file: give NRRD, NIfTI, MetaImage, DICOM SEG or RTSTRUCT")
    _assign(candidates, cases, matched, path)
    return matched


class _Cases:
    """Cases with what a mask can be matched by."""

    def __init__(self, cohort: Cohort, names: Collection[str], scans: Mapping[str, Scan]):
        self.names, self.scans = names, scans
        self._records = {name: record_of(case, CONVERT).get(UIDS, {}) for name, case in cohort.items()}
        self._salt = CohortWriter(cohort).salt
        self._by_name: dict[str, set[str]] = defaultdict(set)
        self._by_series: dict[str, set[str]] = defaultdict(set)
        self._derived: dict[str, str] = {}
        for name, case in cohort.items():
            if name in names and CONVERT in case.stages:
                self._derived[derived_series(case).uid("series")] = name
        for name in names:
            self._by_name[name].add(name)
            if name in scans:
                self._by_name[scans[name].name].add(name)
            identity = scans[name].identity if name in scans else None
            if identity is not None and identity.series_uid:
                self._by_series[identity.series_uid].add(name)
            elif "series" in self._records.get(name, {}):
                self._by_series[self._records[name]["series"]].add(name)

    def of_name(self, file: Path) -> frozenset[str]:
        """Return the cases that a file belongs to by its name, or by that of its folder where it is only ``mask``."""
        stem = file.name[: -len(_extension(file))] if _extension(file) else file.name
        stems = [stem, _SUFFIX.sub("", stem.lower())]
        if _ONLY_WORDS.fullmatch(stem.lower()):
            stems.append(file.parent.name)
        for text in stems:
            cases = self._by_name.get(case_name(text))
            if cases:
                return frozenset(cases)
        return frozenset()

    def of_series(self, uid: str) -> frozenset[str]:
        """Return the cases of a series."""
        if uid in self._derived:
            return frozenset({self._derived[uid]})
        cases = self._by_series.get(uid) or set()
        if not cases and any("series" in self._records.get(name, {}) for name in self.names):
            cases = self._by_series.get(series_digest(self._salt, uid)) or set()
        return frozenset(cases)

    def of_frame(self, uid: str, likely: Collection[str] = ()) -> frozenset[str]:
        """Return the cases of a frame of reference.

        Parameters
        ----------
        uid : str
            The frame of reference.
        likely : collection of str
            Cases that alone are compared, unless the frames of all are unknown: each digest takes long.
        """
        shared = {name: self.has_frame(name, uid) for name in likely}
        if all(is_shared is None for is_shared in shared.values()):
            shared = {name: self.has_frame(name, uid) for name in self.names}
        return frozenset(name for name, is_shared in shared.items() if is_shared)

    def has_frame(self, name: str, uid: str) -> bool | None:
        """Return True where a case has this frame of reference; None where its own is unknown."""
        identity = self.scans[name].identity if name in self.scans else None
        if identity is not None and identity.frame_uid:
            return identity.frame_uid == uid
        digest = self._records.get(name, {}).get("frame")
        return None if digest is None else digest == frame_digest(self._salt, name, uid)

    def has_series(self, name: str, uid: str) -> bool | None:
        """Return True where a case comes from this series, or an export refers to it; None where its own is unknown."""
        if self._derived.get(uid) == name:
            return True
        identity = self.scans[name].identity if name in self.scans else None
        if identity is not None and identity.series_uid:
            return identity.series_uid == uid
        digest = self._records.get(name, {}).get("series")
        return None if digest is None else digest == series_digest(self._salt, uid)

    def of_path(self, text: str, table: Path) -> frozenset[str]:
        """Return the cases whose scan is at a path, as a table gives it."""
        return frozenset(self._by_path.get((table.parent / text).resolve(), ()))

    @cached_property
    def _by_path(self) -> dict[Path, set[str]]:
        """Cases by the resolved paths of their scans; a table asks for each of its rows."""
        cases: dict[Path, set[str]] = defaultdict(set)
        for name in self.scans.keys() & {*self.names}:
            scan = self.scans[name]
            for path in (scan.path, *scan.files[:1]):
                cases[Path(path).resolve()].add(name)
        return cases


def _assign(candidates: Iterable[_Candidate], cases: _Cases, matched: MatchedMasks, place: Path) -> None:
    """Open the candidates, and assign to each case its only mask."""
    candidates = list(candidates)
    opened = _open_all(candidates)
    by_case: dict[str, list[MaskFile]] = defaultdict(list)
    faults: dict[str, list[str]] = defaultdict(list)
    for number, (candidate, mask) in enumerate(zip(candidates, opened, strict=True), start=1):
        if isinstance(mask, SourceError):
            for name in candidate.cases:
                faults[name].append(mask.raw_message)
            if not candidate.cases:
                matched.unused[f"mask {number}"] = mask.raw_message
            continue
        targets, fault = _targets(candidate, mask, cases)
        if fault is not None:
            for name in candidate.cases:
                faults[name].append(fault)
            if not candidate.cases:
                matched.unused[f"mask {number}"] = fault
        elif len(targets) == 1:
            by_case[next(iter(targets))].append(mask)
    for name in cases.names:
        masks = by_case.get(name, [])
        if len(masks) == 1:
            matched.masks[name] = masks[0]
        elif masks:
            matched.rejected.add(name)
            shown = " and ".join(mark_path(mask.path) for mask in masks[:3])
            matched.missing.setdefault(
                name, f"{len(masks)} files are its mask ({shown}): give a table with the columns case and mask"
            )
        elif faults.get(name):
            matched.rejected.add(name)
            matched.missing.setdefault(name, faults[name][0])
        else:
            matched.missing.setdefault(
                name, f"{mark_path(place)} holds no mask of it: name the file after the case or the scan, such as "
                f"{name}_lung.nrrd, or give a table with the columns case and mask",
            )  # fmt: skip


def _targets(candidate: _Candidate, mask: MaskFile, cases: _Cases) -> tuple[frozenset[str], str | None]:
    """Return the cases that a mask belongs to, and why it cannot be used."""
    path = mark_path(mask.path)
    by_uid: frozenset[str] = frozenset()
    if mask.series_uid:
        by_uid = cases.of_series(mask.series_uid)
    if not by_uid and mask.frame_uid:
        by_uid = cases.of_frame(mask.frame_uid, candidate.cases)
    if candidate.cases and by_uid.isdisjoint(candidate.cases):
        # The table or the name decides, unless the file contradicts it.
        wrong = [name for name in candidate.cases if _contradicts(name, mask, cases)]
        if wrong or by_uid:
            return (
                frozenset(),
                f"{path} belongs to another scan: it names another series and frame of reference; "
                "give the mask of this scan",
            )
        by_uid = candidate.cases
    elif candidate.cases and len(by_uid) > 1:
        by_uid &= candidate.cases
    if len(by_uid) > 1:
        names = " and ".join(sorted(by_uid)[:3])
        return frozenset(), f"{path} can be the mask of {names}: give a table with the columns case and mask"
    if not by_uid:
        return (
            frozenset(),
            f"{path} belongs to no scan of this run, neither by its UIDs nor by its name: name it after "
            "its case, or give a table with the columns case and mask",
        )
    return by_uid, None


def _contradicts(name: str, mask: MaskFile, cases: _Cases) -> bool:
    """Return True where a mask names another series than that of a case, and does not share its frame of reference."""
    if mask.frame_uid and cases.has_frame(name, mask.frame_uid):
        return False
    series = cases.has_series(name, mask.series_uid) if mask.series_uid else None
    frame = cases.has_frame(name, mask.frame_uid) if mask.frame_uid else None
    return series is False or (series is None and frame is False)


def _open_all(candidates: list[_Candidate]) -> list[MaskFile | SourceError]:
    def open_one(candidate: _Candidate) -> MaskFile | SourceError:
        try:
            return open_mask(candidate.path)
        except SourceError as error:
            return error

    with ThreadPoolExecutor(CPU_COUNT) as pool:
        return list(pool.map(open_one, candidates))


def _read_table(path: Path, cases: _Cases, matched: MatchedMasks) -> list[_Candidate]:
    """Return the masks that a table lists for cases."""
    with path.open("rb") as stream:
        content = stream.read(_MAX_TABLE_BYTES + 1)
    if len(content) > _MAX_TABLE_BYTES:
        raise UsageError(f"{mark_path(path)} is too large for a table of masks: give several")
    try:
        rows = rows_of(text_of(content), (*MASK_COLUMNS, *TARGET_COLUMNS), comments=True)
    except (UnicodeDecodeError, csv.Error):
        raise UsageError(
            f"{mark_path(path)} is no table that can be read: check its quotes, and save it as UTF-8"
        ) from None
    header = rows[0][1] if rows else []
    mask_column, target_column = column_of(header, MASK_COLUMNS), column_of(header, TARGET_COLUMNS)
    if mask_column is None or target_column is None:
        raise UsageError(
            f"{mark_path(path)} is no table of masks: give it a column mask, and one of case, series_uid or path"
        )
    kind = header[target_column].strip().lower()
    of_target: Callable[[str], frozenset[str]] = (
        (lambda text: frozenset({text} & {*cases.names}))
        if kind == "case"
        else cases.of_series
        if kind in _UID_COLUMNS
        else (lambda text: cases.of_path(text, path))
    )
    candidates: list[_Candidate] = []
    for line, cells in rows[1:]:
        mask, target = (cells[column].strip() if column < len(cells) else "" for column in (mask_column, target_column))
        if not mask or not target:
            continue
        targets = of_target(target)
        if targets:
            candidates.append(_Candidate((path.parent / mask).absolute(), targets))
        else:
            matched.unused[f"mask of line {line}"] = (
                f"{mark_path(path)} names no case of this run in line {line}: check its column {kind}"
            )
    return candidates


def _extension(file: Path) -> str:
    """Return the extension of a mask file, such as ``.seg.nrrd``."""
    extension = extension_of(file) or ""
    stem = file.name[: -len(extension)] if extension else file.name
    if extension and stem.lower().endswith(".seg"):
        return stem[-4:] + extension
    return extension or file.suffix
