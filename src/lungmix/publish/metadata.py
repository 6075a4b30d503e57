"""Metadata files that list all other files of a data set; they are written after those, and before the sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lungmix.errors import count_of
from lungmix.publish import folder as files
from lungmix.publish.about import About
from lungmix.publish.datacite import Release, datacite_text
from lungmix.publish.folder import DICOM_SEG, NIFTI, NRRD, OME_ZARR, ImageFile
from lungmix.publish.rocrate import media_type, rocrate_text
from lungmix.publish.texts import METHOD


def write_metadata(
    target: Path, about: About, description: str, methods: str, day: str, images: Sequence[ImageFile],
    sums: Mapping[str, str], previous: Release | None,
) -> dict[str, str]:  # fmt: skip
    """Write the files of DataCite and RO-Crate, and return their sums by file.

    Parameters
    ----------
    target : Path
        Folder of the data set.
    about : About
        Statements of the publisher.
    description, methods : str
        Sentences about the contents of the data set, and about how it was made.
    day : str
        Date of the publication, as ``2026-01-31``.
    images : sequence of ImageFile
        Images of the data set.
    sums : mapping of str to str
        Sums of all other files by path, images among them.
    previous : Release or None
        The previous version.
    """
    # Of a folder with hundreds of files, only the folder is listed.
    cases = {f"{image.path}/" if image.is_folder else image.path: image.case for image in images}
    in_folders = {path for image in images if image.is_folder for path in image.files()}
    folders = {f"{image.path}/": image.sha256 for image in images if image.is_folder}
    lengths = [count_of(len(set(cases.values())), "scan"), count_of(sum(image.size for image in images), "byte")]
    names = {NRRD: "NRRD", NIFTI: "NIfTI", DICOM_SEG: "application/dicom", OME_ZARR: "OME-Zarr"}
    of_images = {path for image in images for path in image.files()}
    formats = sorted({names[image.format] for image in images} | {media_type(path) for path in set(sums) - of_images})
    text = datacite_text(about, description, methods, day, lengths, formats, previous)
    files.write_text(target / files.DATACITE_FILE, text)
    written = {files.DATACITE_FILE: files.sum_of(target / files.DATACITE_FILE)}
    listed = {path: digest for path, digest in {**sums, **written}.items() if path not in in_folders}
    sizes = {path: (target / path).stat().st_size for path in listed}
    listed |= folders
    text = rocrate_text(about, description, METHOD, day, listed, sizes, cases, previous)
    files.write_text(target / files.ROCRATE_FILE, text)
    return written | {files.ROCRATE_FILE: files.sum_of(target / files.ROCRATE_FILE)}
