"""Formats of published images: which images of a case there are, and the writing of those that are folders."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lungmix._version import __version__
from lungmix.atomic import atomic_write
from lungmix.errors import UsageError
from lungmix.export.formats import DICOM_SEG, FORMATS, LABELS, Options
from lungmix.export.images import made_with
from lungmix.export.ome_zarr import write_ome_zarr
from lungmix.privacy.acquisition import Acquisition
from lungmix.publish.folder import ALWAYS, EXTENSIONS, IMAGES, NRRD, OME_ZARR, ImageFile, path_of, sum_of
from lungmix.stages.relabelled import RELABELLED, RelabelledCase, RelabelledRef
from lungmix.store import Case
from lungmix.store.case_files import CaseFiles
from lungmix.store.case_ref import CaseRef
from lungmix.store.digests import digest_of
from lungmix.store.models import record_of
from lungmix.store.schema import ARRAYS, LABEL_MAPS


class AnonymousCase(CaseFiles):
    """Case without the attributes of the patient that a store keeps on request: sex, age and date of the study.

    Parameters
    ----------
    case : Case
        The case, whose attributes and arrays are shared.
    """

    @property
    def acquisition(self) -> Acquisition:
        """Technical attributes of the scan."""
        return super().acquisition.technical()


class AnonymousRelabelledCase(AnonymousCase, RelabelledCase):
    """Case with labels by another mixture, without these attributes of the patient."""


def anonymous(case: CaseFiles) -> CaseFiles:
    """Return a case without the attributes of the patient; it keeps labels by another mixture."""
    if isinstance(case, RelabelledCase):
        return AnonymousRelabelledCase(case, case.relabelling)
    return AnonymousCase(case)


def formats_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the formats with some names, in capitals or not, each once; NRRD is always one of them.

    Raises
    ------
    UsageError
        If one is unknown.
    """
    chosen = [name.strip().lower() for name in names if name.strip()]
    for name in chosen:
        if name not in EXTENSIONS:
            raise UsageError(f"images cannot be published as {name!r}: choose from {', '.join(EXTENSIONS)}")
    return tuple(name for name in EXTENSIONS if name in (NRRD, *chosen))


def planned_images(case: Case, formats: Sequence[str]) -> list[ImageFile]:
    """Return the images of a case in each format, without sums.

    A case of unknown orientation has none in DICOM, which must state it. OME-Zarr is copied from the store, so that it
    has no labels by another mixture.

    Parameters
    ----------
    case : Case
        Labelled case.
    formats : sequence of str
        Names of formats, see `formats_of`.
    """
    present = [image for image in IMAGES if image in ALWAYS or _is_finished(case, image)]
    labels = [image for image in present if image in LABEL_MAPS]
    planned = []
    for name in formats:
        if name == DICOM_SEG and not case.geometry.orientation_known:
            continue
        copied = [image for image in present if not isinstance(case, RelabelledCase) or image not in RELABELLED]
        for image in {DICOM_SEG: [LABELS], OME_ZARR: copied}.get(name, present):
            more: dict[str, list[Any]] = {
                DICOM_SEG: [*_inputs(case, "ct"), case.acquisition.technical().to_dict(), __version__],
                OME_ZARR: [label for label in labels if label in copied] if image == "ct" else [],
            }
            made = made_with(case, image)
            inputs = [*_inputs(case, image), case.geometry.to_dict(), sorted(made.items()), *more.get(name, [])]
            # The digest of an image as NRRD has no name of a format, as in versions that had no other one.
            key = digest_of(repr(inputs if name == NRRD else [name, *inputs]))
            planned.append(ImageFile(path_of(case.name, image, name), case.name, image, key, made, format=name))
    return planned


def write_folder(case_ref: CaseRef | RelabelledRef, image: ImageFile, root: str, labels: Sequence[str]) -> ImageFile:
    """Write an image that is a folder of files, and return it with its sums; runs on a worker.

    Parameters
    ----------
    case_ref : CaseRef or RelabelledRef
        The case.
    image : ImageFile
        The image, in a format of folders.
    root : str
        Folder of the data set.
    labels : sequence of str
        Label maps of the case in the data set.
    """
    case, folder = anonymous(case_ref.open()), Path(root) / image.path
    if image.format == OME_ZARR:
        top = Path(root) / path_of(image.case, "ct", OME_ZARR)
        written = write_ome_zarr(case, top, image.image, labels)
        members = [(top / name).relative_to(folder).as_posix() for name in written]
    else:
        with atomic_write(folder) as partial:
            partial.mkdir()
            FORMATS[DICOM_SEG].write(
                case, partial / f"{image.case}_{image.image}.dcm", image.image, Options(with_ct=True)
            )
            members = sorted(file.relative_to(partial).as_posix() for file in partial.rglob("*") if file.is_file())
    return with_sums(image, folder, members)


def with_sums(image: ImageFile, folder: Path, members: Sequence[str]) -> ImageFile:
    """Return a folder of files with the sum and size of each, and of all together."""
    sums: dict[str, list[Any]] = {
        name: [(folder / name).stat().st_size, sum_of(folder / name)] for name in sorted(members)
    }
    lines = "".join(f"{digest}  {name}\n" for name, (_, digest) in sums.items())
    size = sum(size for size, _ in sums.values())
    return replace(image, sha256=hashlib.sha256(lines.encode()).hexdigest(), size=size, members=sums)


def has_sums(root: Path, image: ImageFile) -> bool:
    """Return True if all files of an image are in a folder, with their sizes and sums."""
    return all(_has_sum(root / path, size, digest) for path, (size, digest) in image.files().items())


def link_files(source: Path, target: Path, image: ImageFile) -> None:
    """Link the files of an image in another folder, or copy them where the file system has no links."""
    for path in image.files():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        try:
            os.link(source / path, file)
        except OSError:
            # Another file system, or one without links.
            shutil.copyfile(source / path, file)


def sums_of(images: Sequence[ImageFile]) -> dict[str, str]:
    """Return the sums of all files of images by path."""
    return {path: digest for image in images for path, (_, digest) in image.files().items()}


def remove_other_files(target: Path, images: Sequence[ImageFile]) -> None:
    """Remove files of cases and formats that left the data set, and partial files, since an earlier call."""
    paths = sums_of(images)
    for file in target.glob(".*.partial"):
        # A killed call left it.
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    for file in sorted((target / "images").rglob("*"), reverse=True):
        if file.is_dir() and not file.is_symlink():
            if not any(file.iterdir()):
                file.rmdir()
        elif file.relative_to(target).as_posix() not in paths:
            file.unlink()


def _has_sum(file: Path, size: int, digest: str) -> bool:
    return file.is_file() and file.stat().st_size == size and sum_of(file) == digest


def _is_finished(case: Case, image: str) -> bool:
    return ARRAYS[image].stage in case.stages and case.is_started(image)


def _inputs(case: Case, image: str) -> list[Any]:
    """Return what an image was made of: its name, the key of its stage, and the receipts of its objects."""
    record = record_of(case, str(ARRAYS[image].stage))
    path = ARRAYS[image].level(0)
    objects = {name: value for name, value in record.get("files", {}).items() if name.startswith(f"{path}/")}
    return [image, record.get("key"), sorted(objects.items())]
