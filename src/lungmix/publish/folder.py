"""Files of a data set: their names, sums and records, and the record of files that a killed publication finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lungmix.atomic import atomic_file
from lungmix.errors import UsageError, mark_path
from lungmix.store.schema import ARRAYS, HARMONISED, LABEL_MAPS

IMAGES = ("ct", HARMONISED, *LABEL_MAPS)
"""Images of a case, all on the grid of its scan; those that the store lacks are left out, except `ALWAYS`."""
ALWAYS = ("ct", "lung", "tissue", "tissue_median")
"""Images without which a case cannot be published."""

NRRD, NIFTI, DICOM_SEG, OME_ZARR = "nrrd", "nifti", "dicom-seg", "ome-zarr"
EXTENSIONS = {NRRD: ".nrrd", NIFTI: ".nii.gz", DICOM_SEG: "_dicom", OME_ZARR: ".ome.zarr"}
"""Ending of the files or folders of each format; the first one is always written."""

SUMS_FILE = "SHA256SUMS"
"""File of the sums. It is written last, so that a folder without it is not complete."""
RECORD_FILE = "dataset.json"
JOURNAL_FILE = "publishing.jsonl"
FILES_FILE = "files.csv"
MODELS_FILE = "models.csv"
"""Table of the mixtures of each patient, of data sets with labels by the mixture of all other patients."""
SPLIT_FILE = "split.csv"
"""Table of the training and the test set, of data sets that have them."""
CASES_FILE = "cases.csv"
ZONES_FILE = "zones.csv"
LABELS_FILE = "labels.csv"
TABLE_1_FILE = "table1.csv"
TABLE_1_TEXT = "table1.md"
DICTIONARY_FILE = "data_dictionary.csv"
MODEL_FILE = "model.json"
CROISSANT_FILE = "croissant.json"
DATACITE_FILE = "datacite.json"
ROCRATE_FILE = "ro-crate-metadata.json"
BATCH_FILE = "batch.csv"
DATALIST_FILE = "datalist.json"
ITKSNAP_FILE = "tissue_itksnap.txt"
SLICER_FILE = "tissue_slicer.csv"
REPORT_FOLDER = "report"
README_FILE = "README.md"
LICENSE_FILE = "LICENSE.txt"
CITATION_FILE = "CITATION.cff"
CHANGES_FILE = "CHANGELOG.md"
WRITTEN_LAST = (README_FILE, CROISSANT_FILE, DATACITE_FILE, ROCRATE_FILE, SUMS_FILE)
"""Files that describe others, in the order in which they are written."""

ACCEPTED = "accepted_burned_in"
"""Entry of the record: sum of the CT by case whose slices somebody looked at and accepted."""
_REPLACED = "replaced"


@dataclass(frozen=True)
class ImageFile:
    """A published image.

    Attributes
    ----------
    path : str
        Path in the folder, with slashes, of a file or of a folder of files.
    case, image : str
        Case and name of the image.
    source : str
        Digest of what the image was made of; files of equal sources have equal bytes, but for the UIDs of DICOM
        objects, which are derived from random digits of a store.
    made_with : dict of str to str
        Parameters of mask and labels, see `lungmix.export.images.made_with`.
    sha256 : str
        Sum of the bytes of the file; of a folder, the sum of the lines ``sum  path`` of its files.
    size : int
        Size of the file, or of all files of the folder, bytes.
    format : str
        One of `EXTENSIONS`.
    members : dict of str to list
        Size and sum of each file of a folder, by its path in the folder; empty for a file.
    """

    path: str
    case: str
    image: str
    source: str
    made_with: dict[str, str] = field(default_factory=dict)
    sha256: str = ""
    size: int = 0
    format: str = NRRD
    members: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        """True if the format is a folder of files."""
        return self.format in (DICOM_SEG, OME_ZARR)

    def files(self) -> dict[str, tuple[int, str]]:
        """Return size and sum of each file of the image, by its path in the data set."""
        if not self.is_folder:
            return {self.path: (self.size, self.sha256)}
        return {f"{self.path}/{name}": (size, digest) for name, (size, digest) in self.members.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, JSON-ready."""
        return asdict(self)


def path_of(case: str, image: str, format: str = NRRD) -> str:
    """Return the path of an image in the data set, in one of `EXTENSIONS`.

    The images of a case are one OME-Zarr, whose root is the CT.
    """
    if format == OME_ZARR:
        return f"images/{case}/{case}{EXTENSIONS[OME_ZARR]}/{ARRAYS[image].path}".rstrip("/")
    return f"images/{case}/{case}_{image}{EXTENSIONS[format]}"


def sum_of(path: Path) -> str:
    """Return the SHA-256 sum of a file as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; a file that has this text already keeps its time."""
    content = text.encode()
    if not path.is_file() or path.read_bytes() != content:
        with atomic_file(path) as out:
            out.write(content)


def write_sums(folder: Path, sums: dict[str, str]) -> None:
    """Write the file of sums, in the format of the program ``sha256sum``."""
    write_text(folder / SUMS_FILE, "".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items())))


def read_sums(folder: Path) -> dict[str, str] | None:
    """Return the sums of a folder by path; None if there is no file of sums."""
    file = folder / SUMS_FILE
    if not file.is_file():
        return None
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return {path: digest for digest, _, path in (line.partition("  ") for line in lines) if path}


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a published folder: its version, cases and images.

    Raises
    ------
    UsageError
        If the folder has no such record.
    """
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        return {**record, "images": [ImageFile(**entry) for entry in record["images"]]}
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{mark_path(folder)} is no published data set, its {RECORD_FILE} is missing or corrupt: give the folder "
            "of a publication"
        ) from None


def record_text(
    version: str, number: int, images: Iterable[ImageFile], settings: Mapping[str, Any] | None = None
) -> str:
    """Return the text of the record of a published folder; `settings` are entries that the next version needs."""
    listed = [image.to_dict() for image in images]
    record = {"version": version, "number": number, **(settings or {}), "images": listed}
    return json.dumps(record, indent=1) + "\n"


class Journal:
    """Record of a publication that is not complete, one JSON object per line: its finished images.

    If it replaces an earlier version in the same folder, the first line holds what is needed of that version.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_FILE

    def read(self) -> dict[str, ImageFile]:
        """Return the finished images by path; a line that a kill cut short is ignored."""
        images = {}
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        for line in lines:
            try:
                image = ImageFile(**json.loads(line))
            except (ValueError, TypeError):
                continue
            images[image.path] = image
        return images

    def start(self, replaced: dict[str, Any]) -> None:
        """Start the journal of a version that replaces another one, of which `replaced` is kept, JSON-ready."""
        with atomic_file(self.path) as out:
            out.write(f"{json.dumps({_REPLACED: replaced})}\n".encode())

    def replaced(self) -> dict[str, Any] | None:
        """Return what was kept of the version that is replaced, None if there is none."""
        with suppress(OSError, ValueError, AttributeError), self.path.open(encoding="utf-8") as stream:
            kept: dict[str, Any] | None = json.loads(stream.readline()).get(_REPLACED)
            return kept
        return None

    def add(self, image: ImageFile) -> None:
        """Add a finished image."""
        with self.path.open("a", encoding="utf-8") as stream:
            # A cut line before this one must not swallow it.
            stream.write(f"\n{json.dumps(image.to_dict())}\n")
