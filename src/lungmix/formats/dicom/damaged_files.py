"""Which series a damaged file belongs to, by what can still be read of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from lungmix.formats.dicom.header import Damaged, Header
from lungmix.formats.dicom.slice_groups import Group, has_place, places_along
from lungmix.formats.directory import kind_of
from lungmix.privacy.identity import KEYWORDS, Identity


@dataclass(frozen=True)
class Attribution:
    """What damaged files mean for the groups beside them.

    Attributes
    ----------
    lost : dict of int to list of Damaged
        Files that a group, by its index, lacks.
    possible : dict of int to list of Damaged
        Files that a group may lack, or that belong to another one.
    copies : list of Damaged
        Damaged copies of slices that are there undamaged.
    """

    lost: dict[int, list[Damaged]]
    possible: dict[int, list[Damaged]]
    copies: list[Damaged]


def attribute(damaged: Sequence[Damaged], groups: Sequence[Group]) -> Attribution:
    """Find the groups of CT slices that damaged files belong to.

    A file whose identifier is that of a slice that is there is a copy of it. One whose series can be read belongs to
    the group of that series that has its orientation and size. Of others, all that can be read is compared with all
    groups in its folder: if one alone does not contradict it and the file is certainly DICOM, it belongs to that one;
    if several do not, it may belong to any.
    """
    result = Attribution({}, {}, [])
    ct = [i for i, group in enumerate(groups) if group.first.unused is None]
    objects = {one.sop_uid for group in groups for one in group.slices if one.sop_uid}
    for one in damaged:
        if one.header.sop_uid in objects:
            result.copies.append(one)
            continue
        owners = [i for i in ct if _is_of_series(one.header, groups[i])]
        whole = [i for i in owners if replace(groups[i], slices=(one.header,)).series == groups[i].series]
        if whole:
            fitting = [i for i in whole if _fits(one.header, groups[i])] or whole
            owner = max(fitting, key=lambda i: len(groups[i].slices))
            if _is_there(one.header, groups[owner]):
                result.copies.append(one)
            else:
                result.lost.setdefault(owner, []).append(one)
            continue
        folder = one.header.folder
        near = [i for i in owners if any(slice_.folder == folder for slice_ in groups[i].slices)]
        series = {groups[i].series for i in near}
        if len(series) == 1 and (one.marked if one.read else _is_called_like(one.header, groups, near)):
            owner = max(near, key=lambda i: len(groups[i].slices))
            result.lost.setdefault(owner, []).append(one)
        else:
            for i in near:
                result.possible.setdefault(i, []).append(one)
    return result


def _is_called_like(header: Header, groups: Sequence[Group], near: Sequence[int]) -> bool:
    """Whether slices in the folder of a file have names of its kind: then it is one of them, as far as can be known."""
    beside = {slice_.file for i in near for slice_ in groups[i].slices if slice_.folder == header.folder}
    return kind_of(Path(header.file)) in {kind_of(Path(file)) for file in beside}


def _is_of_series(header: Header, group: Group) -> bool:
    """Whether nothing that can be read contradicts it; texts that were cut are beginnings."""
    first = group.first
    pairs = [
        (getattr(header.identity, field.name), getattr(first.identity, field.name))
        for field in fields(Identity)
        if field.name not in ("content_date", "acquisition_date") and KEYWORDS[field.name] not in group.ignored
    ]
    pairs += [(header.modality, first.modality), (header.sop_class, first.sop_class)]
    return all((known or "").startswith(read) for read, known in pairs if read)


def _fits(header: Header, group: Group) -> bool:
    first = group.first
    if header.orientation is not None and first.orientation is not None:
        return bool(np.allclose(header.orientation, first.orientation, atol=1e-3))
    return not header.rows or (header.rows, header.columns) == (first.rows, first.columns)


def _is_there(header: Header, group: Group) -> bool:
    """Whether an undamaged slice lies where a damaged one does."""
    if not has_place(header) or not all(map(has_place, group.slices)):
        return False
    along = places_along(group.slices)
    normal = np.cross(*np.reshape(group.first.orientation, (2, 3)))  # type: ignore[arg-type]
    return bool(np.abs(along - float(np.dot(header.position, normal))).min() < 0.01)  # type: ignore[arg-type]
