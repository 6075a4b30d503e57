"""References of cases: which mask file of a place belongs to which case."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lungmix.errors import SourceError, UsageError, mark_path
from lungmix.formats.masks import MaskFile, is_mask_file, open_mask


@dataclass
class References:
    """Mask files by case, and the reasons of those that belong to none.

    Attributes
    ----------
    masks : dict of str to MaskFile
        Mask files by case.
    problems : dict of str to str
        Reasons by case.
    """

    masks: dict[str, MaskFile] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def match_references(names: Iterable[str], place: str | Path) -> References:
    """Return the reference of each case: the only file, or the one whose name begins with that of the case.

    Parameters
    ----------
    names : iterable of str
        Cases.
    place : str or Path
        File, or folder of files.

    Raises
    ------
    UsageError
        If there is nothing at this place.
    """
    path, cases = Path(place), sorted(names)
    if not path.exists():
        raise UsageError(f"there is no reference at {mark_path(path)}: check the path")
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if is_mask_file(file)]
    by_case: dict[str, list[Path]] = {name: [] for name in cases}
    for file in files:
        fitting = [name for name in cases if _belongs(file, name)]
        if len(files) == len(cases) == 1:
            fitting = cases
        if fitting:
            by_case[max(fitting, key=len)].append(file)
    references = References()
    for name, candidates in by_case.items():
        try:
            if len(candidates) != 1:
                how_many = f"{len(candidates)} references" if candidates else "no reference"
                raise SourceError(f"{how_many} of this name: name one file after the case, such as {name}_mask.nrrd")
            references.masks[name] = open_mask(candidates[0])
        except SourceError as error:
            references.problems[name] = error.raw_message
    return references


def _belongs(file: Path, name: str) -> bool:
    rest = file.name.lower().removeprefix(name)
    return file.name.lower().startswith(name) and rest[:1] in ("", ".", "_", "-")
