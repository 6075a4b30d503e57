"""Look up the cases that a mask file can belong to, by its name, its folder, its UIDs, or a path in a table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lungmix.formats import Scan
from lungmix.formats.images import extension_of
from lungmix.formats.masks import region_of_name
from lungmix.formats.scan import case_name
from lungmix.s3 import is_remote
from lungmix.stages.convert import UIDS, frame_digest, series_digest
from lungmix.stages.derived_series import derived_series
from lungmix.store import Cohort, CohortWriter
from lungmix.store.models import record_of
from lungmix.store.schema import CONVERT

# "side", "region", "lobe" and "tissue" are the ends of names that `lungmix export` writes.
_WORDS = (
    r"(?:lungs?|masks?|seg|segs|segmentations?|labels?|labelmap|side|region|lobes?|tissue(?:_median)?|rtstruct|rtss"
    r"|lungmask|roi)"
)
_MASK_WORDS = r"(?:masks?|seg|segs|segmentations?|labels?|labelmap|roi)"
_SUFFIX = re.compile(rf"(?:[-_. ]+{_WORDS})+$")
_MASK_SUFFIX = re.compile(rf"(?:[-_. ]+{_MASK_WORDS})+$")
_ONLY_WORDS = re.compile(rf"{_WORDS}(?:[-_. ]+{_WORDS})*")
_SEPARATORS = re.compile(r"[-_. ]+")


@dataclass(frozen=True)
class NamedCases:
    """Cases that a mask file belongs to by its name.

    The name of a file consists of the name of a case and the rest, as in ``case-001_left.nrrd``. In a folder with the
    name of a case, the whole name of the file is the rest.

    Attributes
    ----------
    cases : frozenset of str
        The cases.
    region : str or None
        Region of the lungs, or tissue, that the rest of the name states; None for a mask of both lungs.
    is_other : bool
        True if the rest of the name is neither a known region or tissue nor a word for masks, so that the file may show
        another structure.
    """

    cases: frozenset[str] = frozenset()
    region: str | None = None
    is_other: bool = False


class CaseLookup:
    """Lookup of cases by the properties that a mask file can be matched by: name, folder, UIDs and path.

    Parameters
    ----------
    cohort : Cohort
        The store.
    names : collection of str
        Cases that need masks.
    scans : mapping of str to Scan or None
        Scans of this run by case; None for a command that takes no scans.
    """

    def __init__(self, cohort: Cohort, names: Collection[str], scans: Mapping[str, Scan] | None):
        self.takes_scans = scans is not None
        scans = scans or {}
        self.names, self.scans = names, scans
        stored = dict(cohort.items())
        self._records = {name: record_of(case, CONVERT).get(UIDS, {}) for name, case in stored.items()}
        self._salt = CohortWriter(cohort).salt
        self._by_name: dict[str, set[str]] = defaultdict(set)
        self._by_series: dict[str, set[str]] = defaultdict(set)
        self._derived: dict[str, str] = {}
        self._plain_names = {name: _plain_name(scan) for name, scan in scans.items()}
        for name, case in stored.items():
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

    def of_name(self, file: Path) -> NamedCases:
        """Return the cases that a file belongs to by its name, or by the name of its folder.

        The name begins with the name of a case or of its scan. Words for masks, such as ``_lung_mask``, or a region of
        the lungs may follow. A file whose name consists only of such words belongs to the case of its folder. The
        folder has the name of a case or scan, or the name of a folder that contains one scan only.
        """
        stem = stem_of(file)
        folders = [file.parent]
        if _ONLY_WORDS.fullmatch(file.parent.name.lower()):
            folders.append(file.parent.parent)
        names = [case_name(folder.name) for folder in folders]
        of_folder = next((cases for name in names if (cases := self._by_folder.get(name))), set())
        for text in (stem, _SUFFIX.sub("", stem.lower())):
            if cases := self._named(text):
                return NamedCases(frozenset(cases & of_folder or cases))
        for separator in reversed([*_SEPARATORS.finditer(stem)]):
            if (prefix := stem[: separator.start()]) and (cases := self._named(prefix)):
                rest = stem[separator.end() :]
                region = region_in(rest)
                is_other = region is None and not _ONLY_WORDS.fullmatch(rest.lower())
                return NamedCases(frozenset(cases & of_folder or cases), region, is_other)
        cases = next((cases for folder in folders if (cases := self._named(folder.name))), of_folder)
        is_whole = _ONLY_WORDS.fullmatch(stem.lower()) is not None
        region = None if is_whole else region_in(stem)
        return NamedCases(frozenset(cases), region, is_other=not is_whole and region is None)

    def _named(self, text: str) -> set[str]:
        """Return the cases that a name can mean.

        Case names have fewer kinds of characters than file names: ``a+b`` and ``a b`` both become ``a-b``, and the
        second of them becomes the case ``a-b-2``. If the names of scans are known, they are compared. Otherwise the
        name can mean either case.
        """
        text = text.lower()
        name = case_name(text)
        cases = self._by_name.get(name, set())
        exact = {case for case in cases if self._plain_names.get(case) == text}
        if exact or text == name:
            return exact or cases
        cases = {case for case in cases if self._plain_names.get(case) is None}
        numbered = re.compile(rf"{re.escape(name)}-\d+")
        return cases | {case for case in self.names if cases and case not in self.scans and numbered.fullmatch(case)}

    def of_series(self, uid: str) -> frozenset[str]:
        """Return the cases of a DICOM series by its UID: converted from it, or exported as it (`derived_series`)."""
        if uid in self._derived:
            return frozenset({self._derived[uid]})
        cases = self._by_series.get(uid) or set()
        if not cases and any("series" in self._records.get(name, {}) for name in self.names):
            cases = self._by_series.get(series_digest(self._salt, uid)) or set()
        return frozenset(cases)

    def of_frame(self, uid: str, likely: Collection[str] = ()) -> frozenset[str]:
        """Return the cases whose scan has a DICOM frame of reference.

        Parameters
        ----------
        uid : str
            UID of the frame of reference.
        likely : collection of str
            Compare only these cases, because each comparison computes a slow digest. All cases are compared if the
            frames of these are unknown.
        """
        shared = {name: self.has_frame(name, uid) for name in likely}
        if all(is_shared is None for is_shared in shared.values()):
            shared = {name: self.has_frame(name, uid) for name in self.names}
        return frozenset(name for name, is_shared in shared.items() if is_shared)

    def has_frame(self, name: str, uid: str) -> bool | None:
        """Return True if a case has the frame of reference `uid`; None if the frame of the case is unknown."""
        identity = self.scans[name].identity if name in self.scans else None
        if identity is not None and identity.frame_uid:
            return identity.frame_uid == uid
        digest = self._records.get(name, {}).get("frame")
        return None if digest is None else digest == frame_digest(self._salt, name, uid)

    def has_series(self, name: str, uid: str) -> bool | None:
        """Return True if `uid` is the series of a case, or of its export; None if the series of the case is unknown."""
        if self._derived.get(uid) == name:
            return True
        identity = self.scans[name].identity if name in self.scans else None
        if identity is not None and identity.series_uid:
            return identity.series_uid == uid
        digest = self._records.get(name, {}).get("series")
        return None if digest is None else digest == series_digest(self._salt, uid)

    def of_path(self, path: str) -> frozenset[str]:
        """Return the cases whose scan has a path or an address."""
        return frozenset(self._by_path.get(_resolved(path), ()))

    @cached_property
    def _by_path(self) -> dict[str, set[str]]:
        """Names of cases by the resolved path of their scan; computed once for all rows of a table."""
        cases: dict[str, set[str]] = defaultdict(set)
        for name in self.scans.keys() & {*self.names}:
            scan = self.scans[name]
            for path in (scan.path, *scan.files[:1]):
                cases[_resolved(str(path))].add(name)
        return cases

    @cached_property
    def locations(self) -> frozenset[str]:
        """Paths and addresses of the files of all scans, and of archives and folders that contain them."""
        locations = {str(file) for scan in self.scans.values() for file in scan.files}
        for scan in self.scans.values():
            parts = str(scan.path).split("/")
            locations.update("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        return frozenset(locations)

    @cached_property
    def _by_folder(self) -> dict[str, set[str]]:
        """Name of a case by the name of its scan's folder, for folder names with one scan only; without DICOM."""
        cases: dict[str, set[str]] = defaultdict(set)
        for name in self.scans.keys() & {*self.names}:
            if self.scans[name].kind != "dicom":
                cases[case_name(Path(self.scans[name].path).parent.name)].add(name)
        return {folder: names for folder, names in cases.items() if len(names) == 1}


def _plain_name(scan: Scan) -> str | None:
    """Return the name of the file or folder that a scan is named after, in lower case; None if it is unknown."""
    path = Path(scan.path)
    texts = [path.name, path.name.removesuffix(extension_of(path) or path.suffix)]
    texts += [Path(file).parent.name for file in scan.files[:1]]
    return next((text.lower() for text in texts if case_name(text) == scan.name), None)


def _resolved(path: str) -> str:
    return path if is_remote(path) else str(Path(path).resolve())


def stem_of(file: Path) -> str:
    """Return the name of a mask file without its extension, such as ``.seg.nrrd``."""
    extension = extension_of(file) or ""
    stem = file.name[: -len(extension)] if extension else file.name
    if extension and stem.lower().endswith(".seg"):
        return stem[:-4]
    return stem if extension else file.stem


def region_in(text: str) -> str | None:
    """Return the region of the lungs, or the tissue, that a text from the name of a file states; None for other texts.

    Words for masks may follow the region. The words ``left`` and ``right`` alone mean the left and right lung.
    """
    words = _MASK_SUFFIX.sub("", text.lower())
    return words if words in ("left", "right") else region_of_name(words)


def region_at_end(text: str) -> str | None:
    """Return the region that the last words of a name state; None for other names.

    The longest run of last words that is a known region counts.
    """
    regions = (region_in(text[separator.end() :]) for separator in _SEPARATORS.finditer(text))
    return next((region for region in (region_in(text), *regions) if region is not None), None)
