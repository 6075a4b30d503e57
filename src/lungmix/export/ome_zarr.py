"""Copy of images of a case as OME-Zarr 0.5: the stored objects, with metadata without records of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lungmix.atomic import atomic_file
from lungmix.errors import DamageError
from lungmix.export.images import require
from lungmix.store import ome_zarr, zarr_adapter
from lungmix.store.case_files import OME, CaseFiles
from lungmix.store.metadata import ATTRIBUTE
from lungmix.store.objects import Receipt, receipt_of
from lungmix.store.schema import ARRAYS, LABEL_MAPS, LABELS_FILE

EXTENSION = ".ome.zarr"
_METADATA = "zarr.json"


def write_ome_zarr(case: CaseFiles, folder: Path, image: str, labels: Sequence[str] = ()) -> list[str]:
    """Write one image of a case into the folder of its OME-Zarr, object by object, and return the written paths.

    The voxels of the CT are arrays at the root of the folder, and those of a label map in ``labels/NAME``. Chunks are
    copied, so that they keep the bytes and the checksums of the store.

    Parameters
    ----------
    case : CaseFiles
        Case of a cohort.
    folder : Path
        Folder of the OME-Zarr, in which other images may be already.
    image : str
        One of `lungmix.store.IMAGES` on the grid of the scan.
    labels : sequence of str
        Label maps that the metadata of the CT list.

    Returns
    -------
    list of str
        Paths in the folder, with slashes.

    Raises
    ------
    StoreError
        If the case has no such image yet.
    DamageError
        If an object does not have the checksum that was recorded when it was written.
    """
    require(case, image)
    schema, written = ARRAYS[image], []

    def write(path: str, content: bytes) -> None:
        with atomic_file(folder / path) as out:
            out.write(content)
        written.append(path)

    if not schema.path:
        write(_METADATA, _image_group(case))
        write(LABELS_FILE, _labels_group(labels))
    receipts: Mapping[str, Receipt] = case.stages[str(schema.stage)].get("files", {})
    for key in _objects_of(case, image, receipts):
        content = case.read_object(key)
        if content is None or (key in receipts and receipt_of(content) != receipts[key]):
            raise DamageError(case.name, image, key)
        write(key, content)
    return sorted(written)


def _image_group(case: CaseFiles) -> bytes:
    """Return the metadata of the CT, with the geometry: OME-Zarr has no direction of the axes."""
    attributes: dict[str, Any] = {
        OME: ome_zarr.image_metadata(case.name, case.geometry, case.layout),
        ATTRIBUTE: {"geometry": case.geometry.to_dict()},
    }
    return zarr_adapter.bytes_of_metadata(attributes)


def _labels_group(labels: Sequence[str]) -> bytes:
    names = [name for name in LABEL_MAPS if name in labels]
    return zarr_adapter.bytes_of_metadata({OME: ome_zarr.labels_metadata(names)})


def _objects_of(case: CaseFiles, image: str, receipts: Mapping[str, Receipt]) -> list[str]:
    """Return the keys of the objects of an image: those with receipts, or else those that are in the store."""
    schema = ARRAYS[image]
    levels = [schema.level(index) for index in range(len(case.layout.levels))]
    heads = [f"{level}/{_METADATA}" for level in levels] + ([f"{schema.path}/{_METADATA}"] if schema.path else [])
    chunks = tuple(f"{level}/c/" for level in levels)
    keys = {key for key in receipts if key.startswith(chunks)}
    if not receipts:
        keys = {key for key in case.sizes() if key.startswith(chunks) and not key.endswith(".partial")}
    return sorted({*heads, *keys})
