"""Checks of a published folder: sums, metadata, the geometry of each image against its CT, and identifiers."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lungmix.cluster import map_bounded
from lungmix.formats.header import is_same_place
from lungmix.publish.burned_in import TextSearch, sentence_of
from lungmix.publish.check_forms import TOLERANCE_MM, geometry_of, problems_of_folder
from lungmix.publish.folder import (
    ACCEPTED,
    BATCH_FILE,
    CASES_FILE,
    CHANGES_FILE,
    CITATION_FILE,
    CROISSANT_FILE,
    DATACITE_FILE,
    DATALIST_FILE,
    DICTIONARY_FILE,
    FILES_FILE,
    ITKSNAP_FILE,
    JOURNAL_FILE,
    LABELS_FILE,
    LICENSE_FILE,
    MODEL_FILE,
    NIFTI,
    README_FILE,
    RECORD_FILE,
    ROCRATE_FILE,
    SLICER_FILE,
    SPLIT_FILE,
    SUMS_FILE,
    TABLE_1_TEXT,
    ImageFile,
    path_of,
    read_record,
    read_sums,
    sum_of,
)
from lungmix.publish.forms import sums_of
from lungmix.publish.identifiers import IdentifierSearch, decompressed
from lungmix.publish.searched import SearchByFile, problems_of_page_file, text_blocks
from lungmix.publish.split import is_consistent
from lungmix.store.schema import HARMONISED

REQUIRED = (
    BATCH_FILE, CASES_FILE, CHANGES_FILE, CITATION_FILE, CROISSANT_FILE, DATACITE_FILE, DATALIST_FILE, DICTIONARY_FILE,
    FILES_FILE, ITKSNAP_FILE, LABELS_FILE, LICENSE_FILE, MODEL_FILE, README_FILE, RECORD_FILE, ROCRATE_FILE,
    SLICER_FILE, TABLE_1_TEXT,
)  # fmt: skip
"""Files that each data set has besides its images and sums."""

_BYTES = {"ct": 2, HARMONISED: 2}
"""Bytes of a voxel by image; all other images have one."""

_NIFTI_HEADER = 352
_UNREADABLE = "its header, or that of its CT, cannot be read"


def check_dataset(
    folder: str | Path,
    identifiers: Sequence[str] = (),
    *,
    sums: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, list[str]]:
    """Return the problems of a published folder, by file.

    Checked are the sum of every file, that no file is missing or unexpected, that the metadata are JSON, that each
    image in each format has size, spacing, origin and direction of its CT and all its voxels, that DICOM objects have
    no names, dates and UIDs of others, that no identifier is in the name, the bytes, the decompressed bytes or a
    value of the header of a file, and that no slice has a line of burned-in text, see
    `lungmix.kernels.burned_in_text`, except in cases that the publisher accepted. Faces are not searched for.

    Parameters
    ----------
    folder : str or Path
        Folder of a publication.
    identifiers : sequence of str
        Identifiers of patients, see `identifiers_of`. They appear in no problem.
    sums : mapping of str to str, optional
        Sums by path; by default those that the folder holds. A folder without them is not complete, which is a problem.
    progress : callable, optional
        Called with the path of each checked file.

    Raises
    ------
    UsageError
        If the folder is no publication.
    """
    root = Path(folder)
    record = read_record(root)
    recorded_images, accepted = record["images"], record.get(ACCEPTED, {})
    images = {image.path: image for image in recorded_images if not image.is_folder}
    folders = {image.path: image for image in recorded_images if image.is_folder}
    recorded = read_sums(root) if sums is None else dict(sums)
    problems: dict[str, list[str]] = {}
    if recorded is None:
        problems[SUMS_FILE] = ["is missing: the publication was not completed"]
    present = {file.relative_to(root).as_posix() for file in root.rglob("*") if not file.is_dir() or file.is_symlink()}
    present -= {SUMS_FILE} if sums is None else {SUMS_FILE, JOURNAL_FILE}
    listed = {*(recorded or present), *sums_of(recorded_images), *REQUIRED}
    for path in sorted(listed - present):
        problems[path] = ["is missing"]
    for path in sorted(present - listed):
        problems[path] = ["is not part of the data set"]
    searches = SearchByFile(identifiers)

    def check(path: str) -> list[str]:
        if path in folders:
            return _problems_of_folder(root, folders[path], searches.plain)
        digest = None if recorded is None else recorded.get(path)
        return _problems_of(root, path, digest, images.get(path), searches.of(path), accepted)

    for outcome in map_bounded(
        sorted(present | folders.keys() | ({SUMS_FILE} if sums is None and recorded else set())),
        check,
        os.cpu_count() or 1,
    ):
        texts = [f"cannot be read: {type(outcome.error).__name__}"] if outcome.error else outcome.result or []
        if texts:
            problems.setdefault(outcome.item, []).extend(texts)
        if progress is not None:
            progress(outcome.item)
    return dict(sorted(problems.items()))


def _problems_of(
    root: Path, path: str, digest: str | None, image: ImageFile | None, search: IdentifierSearch,
    accepted: Mapping[str, str],
) -> list[str]:  # fmt: skip
    file = root / path
    if file.is_symlink() or not file.is_file():
        return ["is no plain file"]
    problems = []
    if digest is not None and sum_of(file) != digest:
        problems.append("does not have its sum")
    if search.is_in(path.encode()):
        problems.append("an identifier of the key table is in its name")
    if search.is_in_blocks(text_blocks(file, path)):
        problems.append("an identifier of the key table is in its bytes")
    length, text_search = 0, None
    if image is not None and path == path_of(image.case, "ct") and accepted.get(image.case) != image.sha256:
        text_search = _text_search(file)
    try:
        tail = b""
        for block in decompressed(file):
            length += len(block)
            if text_search is not None:
                text_search.add(block)
            # The end of the block before is searched with this one.
            if search.is_in(joined := tail + block):
                problems.append("an identifier of the key table is in its decompressed bytes")
                search = IdentifierSearch(())
            tail = joined[-(search.longest + 2) :]
    except (zlib.error, EOFError):
        problems.append("its compressed bytes are corrupt or cut short")
    if text_search is not None and text_search.slices:
        problems.append(sentence_of(text_search.slices))
    if path == SPLIT_FILE and not is_consistent(root):
        problems.append(f"does not give each patient of {CASES_FILE} one side")
    if path in (CROISSANT_FILE, DATACITE_FILE, DATALIST_FILE, MODEL_FILE, RECORD_FILE, ROCRATE_FILE):
        problems += _problems_of_json(file)
    problems += problems_of_page_file(file, path)
    if image is not None:
        problems += _problems_of_geometry(root, image, length)
    return problems


def _text_search(file: Path) -> TextSearch | None:
    try:
        columns, rows = geometry_of(file).size[:2]
    except RuntimeError:
        # The check of the geometry names the header.
        return None
    return TextSearch(rows, columns)


def _problems_of_json(file: Path) -> list[str]:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return ["is not JSON"]
    return []


def _problems_of_geometry(root: Path, image: ImageFile, length: int) -> list[str]:
    try:
        grid, ct = geometry_of(root / image.path), geometry_of(root / path_of(image.case, "ct"))
    except RuntimeError:
        return [_UNREADABLE]
    header = _NIFTI_HEADER if image.format == NIFTI else 0
    if length != header + int(np.prod(grid.size)) * _BYTES.get(image.image, 1):
        return ["does not have the voxels of its size"]
    if grid != ct and not (image.format == NIFTI and is_same_place(grid, ct, TOLERANCE_MM)):
        return ["does not have the geometry of its CT"]
    return []


def _problems_of_folder(root: Path, image: ImageFile, search: IdentifierSearch) -> list[str]:
    try:
        ct = geometry_of(root / path_of(image.case, "ct"))
    except RuntimeError:
        return [_UNREADABLE]
    return problems_of_folder(root, image, ct, search)
