"""What a SOURCE holds: folders, files, archives and lists of them, as scans and refusals."""

from __future__ import annotations

import csv
import dataclasses
import os
from pathlib import Path

from lungmix.errors import SourceError
from lungmix.formats.archives import is_archive, unpack
from lungmix.formats.dicom.series import find_series, is_dicom
from lungmix.formats.images import extension_of, read_header
from lungmix.formats.scan import Refusal, Scan, case_name, key_of_place

Found = Scan | Refusal

_LARGEST_LIST = 64 << 20
_LIST_EXTENSIONS = (".txt", ".csv", ".list")
_COLUMNS = ("path", "source", "file", "image")


def find_scans(source: str | Path) -> list[Found]:
    """Every scan of one source, from headers alone.

    Parameters
    ----------
    source : str or Path
        A DICOM folder (searched recursively), an image file, an archive of any of these, or a text or CSV file
        that lists them.

    Returns
    -------
    list of Scan or Refusal
        A bad file or series is a `Refusal` with one sentence for people; it never ends the others.
    """
    return _find(Path(source), nested=False)


def _find(path: Path, *, nested: bool) -> list[Found]:
    try:
        if path.is_dir():
            return _in_folder(path)
        if not path.is_file():
            raise SourceError(f"{path} does not exist: check the path")
        if extension_of(path):
            return [read_header(path)]
        if is_archive(path):
            return _in_archive(path)
        if path.suffix.lower() in _LIST_EXTENSIONS and not nested:
            return _in_list(path)
        if is_dicom(path):
            return find_series([path]) or _nothing(path)
        raise SourceError(
            f"{path.name} is not an image: give a DICOM folder, .nrrd, .nhdr, .mha, .mhd, .nii, .zip, .tar or a list"
        )
    except SourceError as error:
        return [Refusal(case_name(_stem(path)), str(path), str(error))]
    except OSError as error:
        return [Refusal(case_name(_stem(path)), str(path), f"{path.name} cannot be read ({error.strerror}): check it")]


def _in_folder(folder: Path) -> list[Found]:
    images: list[Path] = []
    dicom: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(root) / name
            if not file.is_file():
                continue
            if extension_of(file):
                images.append(file)
            elif is_dicom(file):
                dicom.append(file)
    found: list[Found] = [one for image in images for one in _find(image, nested=True)]
    found += find_series(dicom)
    return found or _nothing(folder)


def _nothing(path: Path) -> list[Found]:
    reason = f"{path.name or path} holds no CT series and no image file: check the path"
    return [Refusal(case_name(_stem(path)), str(path), reason)]


def _in_archive(path: Path) -> list[Found]:
    folder = unpack(path)
    found: list[Found] = []
    for one in _in_folder(folder):
        inner = os.path.relpath(one.path, folder)
        name = case_name(path.name.split(".")[0]) if inner == "." else one.name
        if isinstance(one, Scan):
            # The place is the archive, not the passing folder that it was unpacked to.
            key = key_of_place(f"{path.resolve()} {inner} {one.geometry.size} {one.geometry.direction}")
            found.append(dataclasses.replace(one, name=name, key=key))
        else:
            found.append(dataclasses.replace(one, name=name, path=f"{path}: {inner}"))
    return found


def _in_list(path: Path) -> list[Found]:
    if path.stat().st_size > _LARGEST_LIST:
        raise SourceError(f"{path.name} is too large for a list of sources: give one path a line")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{path.name} is not a text file: give a list with one path a line") from None
    if "\0" in text:
        raise SourceError(f"{path.name} is not a text file: give a list with one path a line")
    entries = _entries(text, comma=path.suffix.lower() == ".csv")
    if not entries:
        raise SourceError(f"{path.name} lists nothing: give one path a line")
    return [one for entry in entries for one in _find(path.parent / entry, nested=True)]


def _entries(text: str, *, comma: bool) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not comma or not lines:
        return lines
    rows = list(csv.reader(lines))
    head = [cell.strip().lower() for cell in rows[0]]
    column = next((head.index(name) for name in _COLUMNS if name in head), None)
    if column is not None:
        rows = rows[1:]
    return [row[column or 0].strip() for row in rows if len(row) > (column or 0) and row[column or 0].strip()]


def _stem(path: Path) -> str:
    extension = extension_of(path)
    return path.name[: -len(extension)] if extension else path.stem or str(path)
