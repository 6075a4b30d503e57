"""Match mask files to cases: by UIDs in the file, else by a table, else by the name of the file; never by a guess."""

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
    """Result of matching mask files to cases.

    Attributes
    ----------
    masks : dict of str to MaskFile
        Mask of each case that has one; several files may be its parts.
    missing : dict of str to str
        For each case without a mask, the reason; names of files are marked.
    rejected : set of str
        Cases of `missing` that have a mask file which cannot be used.
    unused : dict of str to str
        Files that belong to no case, under a label such as ``mask 3``, with the reason.
    """

    masks: dict[str, MaskFile] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    unused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Candidate:
    """File that may be a mask, with the cases that it belongs to by a table (`is_listed`) or by its name."""

    opened: OpenedMask
    named: NamedCases
    is_listed: bool = False

    @property
    def cases(self) -> frozenset[str]:
        """Cases that the file belongs to; none if its name states another structure than a region or tissue."""
        return frozenset() if self.named.is_other else self.named.cases


def match_masks(
    place: str | Path,
    cohort: Cohort,
    names: Collection[str],
    scans: Mapping[str, Scan] | None = None,
    regions: Collection[str] = LUNG_REGIONS,
) -> MatchedMasks:
    """Return the mask files of cases.

    A file belongs to the case whose DICOM series it refers to. If there is none, it belongs to the only case with its
    frame of reference; else to the case that a table names; else to the case of its file name, which is the name of the
    case or scan with a suffix such as ``_lung``. A file is rejected if table or name say one case, and its series and
    frame of reference belong to another scan. Several files of one case are its mask if each holds other regions.

    Parameters
    ----------
    place : str or Path
        A folder, which is searched recursively, a mask file, an archive, or an address ``s3://bucket/prefix`` of one of
        these; or a table with a column ``mask`` and a column ``case``, ``series_uid`` or ``path``.
    cohort : Cohort
        The store.
    names : collection of str
        Cases that need masks.
    scans : mapping of str to Scan, optional
        Scans of this run by case. Cases without a scan are matched by recorded digests of UIDs, or by their names. None
        for a command that takes no scans.
    regions : collection of str
        Regions that may be parts of a mask; files of a case that hold only other regions are not used.

    Raises
    ------
    UsageError
        If `place` contains no mask file, or a table lacks a column.
    SourceError
        If `place` is an archive or an address, and cannot be read.
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
    """Return the mask files in a folder, a file, an archive or at an address."""

    def is_needed(path: Path) -> bool:
        # Do not read images of other structures, which may be next to the masks of a case.
        named = cases.of_name(path)
        return path == Path(place) or not (named.is_other and named.cases)

    opened = open_masks(place, is_needed=is_needed, excluded=cases.locations)
    if len(cases.names) == 1 and [mask.path for mask in opened] == [Path(place)]:
        return [_Candidate(opened[0], NamedCases(frozenset(cases.names)))]
    named = [_Candidate(mask, cases.of_name(mask.path)) for mask in opened]
    return _of_only_case(named, next(iter(cases.names))) if len(cases.names) == 1 else named


def _of_only_case(candidates: list[_Candidate], case: str) -> list[_Candidate]:
    """Assign mask files to the only case of a command, if their names name no case.

    This is done if exactly one folder has files with names of masks or regions; all its files then belong to the case.
    With several such folders the files may belong to other scans, so nothing is assigned.
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
    """Return the mask files that a table lists for cases."""

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
        # The name of a file states a region only if the mask of its case has several files.
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
    """Assign mask files to cases: to each case its only file, or several files that are parts of its mask."""
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
    """Return the case that a mask belongs to, and None; or no case, and the reason why the mask cannot be used."""
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
    """Return the end of the message about a case without a mask file, which says what to do.

    The name of a scan is known only if its source was given to this command.
    """
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
    """Return True if a mask refers to another series than that of a case, and to another frame of reference."""
    if mask.frame_uid and cases.has_frame(name, mask.frame_uid):
        return False
    series = cases.has_series(name, mask.series_uid) if mask.series_uid else None
    frame = cases.has_frame(name, mask.frame_uid) if mask.frame_uid else None
    return series is False or (series is None and frame is False)
