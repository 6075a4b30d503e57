"""Mask files of a place, and which case each belongs to: by UIDs, else by a table, else by its name; never guessed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from dask.system import CPU_COUNT

from lungmix.errors import SourceError, UsageError, count_of, mark_path
from lungmix.formats import Scan
from lungmix.formats.masks import MaskFile
from lungmix.formats.masks.sources import OpenedMask, open_masks
from lungmix.formats.masks.words import LUNG_REGIONS
from lungmix.intake.mask_cases import CaseLookup, NamedCases, region_at_end, stem_of
from lungmix.intake.mask_parts import NamedMask, choose_masks
from lungmix.intake.mask_tables import is_table, read_mask_table
from lungmix.s3 import check_address, is_remote
from lungmix.segmenters.mask_options import check_mask_place
from lungmix.store import Cohort


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
    """A file that may be a mask, with the cases that a table (`is_listed`) or its name leads to."""

    opened: OpenedMask
    named: NamedCases
    is_listed: bool = False

    @property
    def cases(self) -> frozenset[str]:
        """Cases that it belongs to; none for a file that is only next to masks of a case."""
        return frozenset() if self.named.is_other else self.named.cases


def match_masks(
    place: str | Path,
    cohort: Cohort,
    names: Collection[str],
    scans: Mapping[str, Scan] | None = None,
    regions: Collection[str] = LUNG_REGIONS,
) -> MatchedMasks:
    """Return the mask files of cases.

    A file belongs to the case whose series it names, else to the only case of its frame of reference, else to the case
    that a table says, else to that of its name: ``CASE``, or the name of the scan, with a suffix such as ``_lung``. A
    file that names another series and frame of reference than those of its case is rejected. Several files of one case
    are its mask if each of them holds other regions, by its own names or by that of the file.

    Parameters
    ----------
    place : str or Path
        A folder, which is searched recursively, a mask file, an archive, or a table with a column ``mask`` and one of
        ``case``, ``series_uid`` and ``path``; or ``s3://bucket/prefix`` for any of these.
    cohort : Cohort
        The store.
    names : collection of str
        Cases that need masks.
    scans : mapping of str to Scan, optional
        Scans of this run by case; cases without one are matched by digests of UIDs, or by their case names. None for a
        command that takes none.
    regions : collection of str
        Regions that the files of one case can be parts of; files of other ones are left aside.

    Raises
    ------
    UsageError
        If there is nothing at this place, or a table lacks a column.
    SourceError
        If the place is an archive or in an object store, and cannot be read.
    """
    text = check_address(str(place)) if is_remote(str(place)) else str(Path(place).absolute())
    check_mask_place(text)
    cases = CaseLookup(cohort, names, scans)
    matched = MatchedMasks()
    candidates = _listed(text, cases, matched) if is_table(text) else _found(text, cases)
    if not candidates and not matched.unused:
        raise UsageError(f"{mark_path(text)} holds no mask file: give NRRD, NIfTI, MetaImage, DICOM SEG or RTSTRUCT")
    _assign(candidates, cases, matched, text, frozenset(regions))
    return matched


def _found(place: str, cases: CaseLookup) -> list[_Candidate]:
    """Return the masks of a folder, a file, an archive or an address."""

    def is_needed(path: Path) -> bool:
        # An image of another structure next to the masks of a case has no UIDs either.
        named = cases.of_name(path)
        return path == Path(place) or not (named.is_other and named.cases)

    opened = open_masks(place, is_needed=is_needed, excluded=cases.locations)
    if len(cases.names) == 1 and [mask.path for mask in opened] == [Path(place)]:
        return [_Candidate(opened[0], NamedCases(frozenset(cases.names)))]
    named = [_Candidate(mask, cases.of_name(mask.path)) for mask in opened]
    return _of_only_case(named, next(iter(cases.names))) if len(cases.names) == 1 else named


def _of_only_case(candidates: list[_Candidate], case: str) -> list[_Candidate]:
    """Give the only case the only folder whose files are named as a mask or as its parts, unless files name the case.

    Names that say something else may be those of other scans.
    """
    if any(candidate.named.cases for candidate in candidates):
        return candidates
    folders = {candidate.opened.path.parent for candidate in candidates if not candidate.named.is_other}
    if len(folders) != 1:
        return candidates
    return [
        replace(candidate, named=replace(candidate.named, cases=frozenset({case})))
        if candidate.opened.path.parent in folders
        else candidate
        for candidate in candidates
    ]


def _listed(table: str, cases: CaseLookup, matched: MatchedMasks) -> list[_Candidate]:
    """Return the masks that a table lists for cases."""

    def open_listed(place: str) -> list[OpenedMask]:
        try:
            return open_masks(place)
        except (SourceError, UsageError) as error:
            return [OpenedMask(Path(place), SourceError(error.raw_message))]

    rows = read_mask_table(table, cases, matched.unused)
    with ThreadPoolExecutor(CPU_COUNT) as pool:
        opened = list(pool.map(open_listed, [place for place, _ in rows]))
    files = Counter(name for (_, targets), masks in zip(rows, opened, strict=True) for name in targets for _ in masks)

    def named(mask: OpenedMask, targets: frozenset[str], *, is_alone: bool) -> NamedCases:
        # A name tells the part only where the mask of a case has several files.
        region = region_at_end(stem_of(mask.path)) if files[min(targets)] > 1 else None
        segments = mask.mask.segments if isinstance(mask.mask, MaskFile) else ()
        states_none = region is None and all(segment.region is None for segment in segments)
        return NamedCases(targets, region, is_other=states_none and not is_alone)

    return [
        _Candidate(mask, named(mask, targets, is_alone=len(masks) == 1), is_listed=True)
        for (_, targets), masks in zip(rows, opened, strict=True)
        for mask in masks
    ]


def _assign(
    candidates: list[_Candidate], cases: CaseLookup, matched: MatchedMasks, place: str, regions: frozenset[str]
) -> None:
    """Assign to each case its only mask, or those that are parts of one."""
    by_case: dict[str, list[NamedMask]] = defaultdict(list)
    faults: dict[str, list[str]] = defaultdict(list)
    incomplete: set[str] = set()
    others: dict[str, list[tuple[str, str, Path]]] = defaultdict(list)
    for number, candidate in enumerate(candidates, start=1):
        mask = candidate.opened.mask
        targets, fault = frozenset[str](), None
        if isinstance(mask, SourceError):
            fault = mask.raw_message
        elif mask is None:
            fault = _unnamed_fault(candidate.opened.path)
        else:
            targets, fault = _targets(candidate, mask, cases)
        if fault is None and mask is not None and not isinstance(mask, SourceError):
            by_case[next(iter(targets))].append(NamedMask(mask, candidate.named.region))
        elif fault is not None:
            for name in candidate.cases:
                faults[name].append(fault)
                if candidate.is_listed or candidate.named.region in regions:
                    incomplete.add(name)
            if not candidate.cases:
                nearby = next(iter(candidate.named.cases)) if len(candidate.named.cases) == 1 else ""
                others[nearby].append((f"mask {number}", fault, candidate.opened.path))
    left_aside: list[Path] = []
    for name in cases.names:
        chosen = choose_masks(by_case.get(name, []), regions)
        if name in incomplete or (faults.get(name) and not by_case.get(name)):
            matched.rejected.add(name)
            matched.missing.setdefault(name, faults[name][0])
        elif chosen.ambiguous:
            matched.rejected.add(name)
            shown = " and ".join(mark_path(mask.path) for mask in chosen.ambiguous[:3])
            matched.missing.setdefault(
                name,
                f"{len(chosen.ambiguous)} files can be the mask of this case ({shown}): give a table with the columns "
                "case and mask",
            )
        elif chosen.masks:
            try:
                matched.masks[name] = chosen.combined()
            except SourceError as error:
                matched.rejected.add(name)
                matched.missing.setdefault(name, error.raw_message)
            left_aside += [Path(mask.path) for mask in chosen.left_aside]
            left_aside += [path for _, _, path in others.pop(name, [])]
        else:
            matched.missing.setdefault(
                name, f"{mark_path(place)} has no mask for this case{_remedy(place, name, cases)}"
            )
    matched.unused.update((label, fault) for files in others.values() for label, fault, _ in files)
    if left_aside:
        matched.unused["masks of other structures"] = (
            f"{count_of(len(left_aside), 'file')}, such as {mark_path(left_aside[0])}, next to masks of the "
            "same scans: not used"
        )


def _targets(candidate: _Candidate, mask: MaskFile, cases: CaseLookup) -> tuple[frozenset[str], str | None]:
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
        return frozenset(), _unnamed_fault(mask.path)
    return by_uid, None


def _remedy(place: str, name: str, cases: CaseLookup) -> str:
    """Return what to do for a case that no file belongs to; names of scans that are not given are unknown."""
    if is_table(place):
        return ": add it to the table"
    example, table = f"such as {name}_lung.nrrd or {name}/", "a table with the columns case and mask"
    if name in cases.scans:
        return f": name the file, or the folder of its parts, after the case or the scan, {example}, or give {table}"
    reason = ", and the store does not hold the name of its scan"
    remedy = f"{reason}: name the file, or the folder of its parts, after the case, {example}, or give {table}"
    return f"{remedy}, or run `Pipeline.run(sources, masks=PLACE)` with the scan" if cases.takes_scans else remedy


def _unnamed_fault(path: str | Path) -> str:
    return (
        f"{mark_path(path)} belongs to no scan of this run, neither by its UIDs nor by its name: name it after its "
        "case, or give a table with the columns case and mask"
    )


def _contradicts(name: str, mask: MaskFile, cases: CaseLookup) -> bool:
    """Return True where a mask names another series than that of a case, and does not share its frame of reference."""
    if mask.frame_uid and cases.has_frame(name, mask.frame_uid):
        return False
    series = cases.has_series(name, mask.series_uid) if mask.series_uid else None
    frame = cases.has_frame(name, mask.frame_uid) if mask.frame_uid else None
    return series is False or (series is None and frame is False)
