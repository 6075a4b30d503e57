"""Versions of a data set: what a new version keeps of the one before it, in another folder or in the same one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lungmix.errors import UsageError, mark_path
from lungmix.publish import folder as files
from lungmix.publish.about import About
from lungmix.publish.by_others import LEAVE_OUT
from lungmix.publish.datacite import Release, read_release
from lungmix.publish.folder import ImageFile, Journal
from lungmix.publish.split import Side, read_sides


@dataclass(frozen=True)
class EarlierVersion:
    """The version before the one that is published.

    Attributes
    ----------
    folder : Path
        Its folder.
    version : str
        Its version.
    number : int
        Number of the version, 1 for the first.
    images : dict of str to ImageFile
        Its images by path.
    changes : str
        Text of its changes.
    paths : tuple of str
        All its files.
    release : Release
        Its title, version and DOI.
    split : dict of str to float, or None
        Share and seed of its test set; None if it has none.
    sides : dict of str to Side
        Side of each case in its training or test set.
    accepted : dict of str to str
        Sum of the CT by case whose slices were accepted although they may have burned-in text.
    leave_one_patient_out : bool
        True if its labels are by the mixture of all other patients.
    is_replaced : bool
        True if the new version takes its place in the same folder.
    """

    folder: Path
    version: str
    number: int
    images: dict[str, ImageFile]
    changes: str
    paths: tuple[str, ...]
    release: Release
    split: dict[str, Any] | None = None
    sides: dict[str, Side] = field(default_factory=dict)
    accepted: dict[str, str] = field(default_factory=dict)
    leave_one_patient_out: bool = False
    is_replaced: bool = False


def earlier_version(
    target: Path, journal: Journal, about: About, previous: str | Path | None = None
) -> EarlierVersion | None:
    """Return the version that a publication follows, None for the first one; nothing is changed.

    Parameters
    ----------
    target : Path
        Folder of the publication.
    journal : Journal
        Journal of this folder.
    about : About
        Title and version to publish.
    previous : str or Path, optional
        Folder of the previous version, if it is another one.

    Raises
    ------
    UsageError
        If the folder has the version already, is no folder, or has other files; or if the previous version is not
        complete, has the same version, or is given for a folder that has a previous version of its own.
    """
    if target.exists() and not target.is_dir():
        raise UsageError(f"{mark_path(target)} is a file: give a folder for the data set")
    version = about.version
    is_started, before = journal.path.is_file(), _from_journal(journal)
    if (target / files.SUMS_FILE).exists():
        present = files.read_record(target)["version"]
        # A kill between the removal of old sums, or the writing of new ones, and the next step leaves a journal.
        if not is_started or present not in (version, *([before.version] if before else [])):
            before = _from_folder(target, about, is_replaced=True)
            if previous is not None:
                raise UsageError(
                    f"{mark_path(target)} is a complete data set: give a new folder, or leave `previous` away to "
                    "replace this one by the next version"
                )
    elif target.is_dir() and any(target.iterdir()) and not is_started:
        raise UsageError(f"{mark_path(target)} has files of its own: give a new or empty folder")
    if previous is not None:
        if before is not None:
            raise UsageError(f"{mark_path(target)} was version {before.version} before: leave `previous` away")
        before = _from_folder(Path(previous), about, is_replaced=False)
    if before is not None and before.version == version:
        raise UsageError(
            f"{mark_path(before.folder)} is the complete version {version}, which stays as it is: give another "
            "`version`"
        )
    return before


def start_publication(target: Path, journal: Journal, earlier: EarlierVersion | None) -> None:
    """Create a folder with its journal; in the folder of the earlier version, remove its sums.

    From then on, the folder is not complete. What the new version needs of the earlier one is in the journal before.
    """
    target.mkdir(parents=True, exist_ok=True)
    if earlier is not None and earlier.is_replaced and _from_journal(journal) != earlier:
        record = {key: value for key, value in asdict(earlier).items() if key not in ("folder", "is_replaced")}
        journal.start({**record, "images": list(record["images"].values())})
    journal.path.touch()
    (target / files.SUMS_FILE).unlink(missing_ok=True)


def remove_replaced_files(target: Path, earlier: EarlierVersion | None, paths: Iterable[str]) -> None:
    """Remove files of the version that is replaced which are not among the paths of the new one."""
    if earlier is None or not earlier.is_replaced:
        return
    for path in sorted({*earlier.paths} - {*paths, files.SUMS_FILE}):
        file = target / path
        file.unlink(missing_ok=True)
        if file.parent != target and file.parent.is_dir() and not any(file.parent.iterdir()):
            file.parent.rmdir()


def _from_folder(folder: Path, about: About, *, is_replaced: bool) -> EarlierVersion:
    record, sums = files.read_record(folder), files.read_sums(folder)
    if sums is None:
        raise UsageError(f"{mark_path(folder)} was not completed: run its publication again before the next version")
    return EarlierVersion(
        folder,
        record["version"],
        record["number"],
        {image.path: image for image in record["images"]},
        (folder / files.CHANGES_FILE).read_text(encoding="utf-8"),
        tuple(sorted(sums)),
        read_release(folder, Release(about.title, record["version"])),
        record.get("split"),
        read_sides(folder),
        record.get(files.ACCEPTED, {}),
        record.get(LEAVE_OUT, False),
        is_replaced,
    )


def _from_journal(journal: Journal) -> EarlierVersion | None:
    record = journal.replaced()
    if record is None:
        return None
    images = [ImageFile(**image) for image in record["images"]]
    return EarlierVersion(
        journal.path.parent,
        is_replaced=True,
        **{
            **record,
            "images": {image.path: image for image in images},
            "paths": tuple(record["paths"]),
            "release": Release(**record["release"]),
            "sides": {case: Side(**side) for case, side in record["sides"].items()},
        },
    )
