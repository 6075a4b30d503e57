"""Assignment of damaged files to the series that they belong to, by the part of the header that is readable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from lungmix.formats.dicom.header import DamagedFile, Header
from lungmix.formats.dicom.slice_groups import Group, has_position, positions_along
from lungmix.formats.directory import kind_of
from lungmix.privacy.identity import KEYWORDS, Identity


@dataclass(frozen=True)
class DamageAssignment:
    """Damaged files by the index of the group of slices that they belong to.

    Attributes
    ----------
    lost : dict of int to list of DamagedFile
        Files that certainly belong to the group, which lacks their slices.
    possible : dict of int to list of DamagedFile
        Files that belong to the group or to another one.
    duplicates : list of DamagedFile
        Damaged duplicates of slices that were also read undamaged.
    """

    lost: dict[int, list[DamagedFile]]
    possible: dict[int, list[DamagedFile]]
    duplicates: list[DamagedFile]


def assign_damaged_files(damaged: Sequence[DamagedFile], groups: Sequence[Group]) -> DamageAssignment:
    """Return the groups of CT slices that damaged files belong to.

    A file with the identifier of an undamaged slice is a duplicate. A file whose series is readable belongs to the
    group of that series with its orientation and size. The readable attributes of any other file are compared with all
    groups in its folder: a file that is certainly DICOM belongs to the only group that is consistent with it; where
    several groups are consistent, it may belong to any of them.
    """
    result = DamageAssignment({}, {}, [])
    ct = [i for i, group in enumerate(groups) if group.first.exclusion_reason is None]
    sop_uids = {file.sop_uid for group in groups for file in group.slices if file.sop_uid}
    for file in damaged:
        if file.header.sop_uid in sop_uids:
            result.duplicates.append(file)
            continue
        owners = [i for i in ct if _matches_series(file.header, groups[i])]
        same_series = [i for i in owners if replace(groups[i], slices=(file.header,)).series == groups[i].series]
        if same_series:
            fitting = [i for i in same_series if _matches_geometry(file.header, groups[i])] or same_series
            owner = max(fitting, key=lambda i: len(groups[i].slices))
            if _has_slice_at(file.header, groups[owner]):
                result.duplicates.append(file)
            else:
                result.lost.setdefault(owner, []).append(file)
            continue
        folder = file.header.folder
        candidates = [i for i in owners if any(slice_.folder == folder for slice_ in groups[i].slices)]
        series = {groups[i].series for i in candidates}
        if len(series) == 1 and (
            file.has_prefix if file.is_readable else _has_similar_name(file.header, groups, candidates)
        ):
            owner = max(candidates, key=lambda i: len(groups[i].slices))
            result.lost.setdefault(owner, []).append(file)
        else:
            for i in candidates:
                result.possible.setdefault(i, []).append(file)
    return result


def _has_similar_name(header: Header, groups: Sequence[Group], candidates: Sequence[int]) -> bool:
    """Return True if slices in the folder of a file have its extension, so that the file is most likely a slice too."""
    neighbours = {slice_.file for i in candidates for slice_ in groups[i].slices if slice_.folder == header.folder}
    return kind_of(Path(header.file)) in {kind_of(Path(file)) for file in neighbours}


def _matches_series(header: Header, group: Group) -> bool:
    """Return True if all readable attributes are consistent with a group; truncated texts are compared as prefixes."""
    first = group.first
    pairs = [
        (getattr(header.identity, field.name), getattr(first.identity, field.name))
        for field in fields(Identity)
        if field.name not in ("content_date", "acquisition_date") and KEYWORDS[field.name] not in group.ignored
    ]
    pairs += [(header.modality, first.modality), (header.sop_class, first.sop_class)]
    return all((expected or "").startswith(value) for value, expected in pairs if value)


def _matches_geometry(header: Header, group: Group) -> bool:
    first = group.first
    if header.orientation is not None and first.orientation is not None:
        return bool(np.allclose(header.orientation, first.orientation, atol=1e-3))
    return not header.rows or (header.rows, header.columns) == (first.rows, first.columns)


def _has_slice_at(header: Header, group: Group) -> bool:
    """Return True if a group has an undamaged slice at the position of a damaged one."""
    if not has_position(header) or not all(map(has_position, group.slices)):
        return False
    along = positions_along(group.slices)
    normal = np.cross(*np.reshape(group.first.orientation, (2, 3)))  # type: ignore[arg-type]
    return bool(np.abs(along - float(np.dot(header.position, normal))).min() < 0.01)  # type: ignore[arg-type]
