"""Writer of a case: arrays, objects and the records of stages. Every change of its attributes is one atomic write."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix._version import __version__
from lungmix.geometry import Geometry
from lungmix.kernels.packed_masks import Bits, words_for
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import ome_zarr, zarr_adapter
from lungmix.store.case import CHUNK_SLICES, COMPARED, QUALITY, USAGE, image_schema
from lungmix.store.case_files import OME, CaseFiles
from lungmix.store.chunking import codecs_for, shrink_mean, shrink_nearest
from lungmix.store.metadata import ATTRIBUTE
from lungmix.store.objects import Receipts, WholeShards, receipt_of
from lungmix.store.schema import (
    ARRAYS,
    BEGIN_WITHOUT,
    CONVERT,
    DEPENDENTS,
    DISPLACEMENT,
    FILL_VALUE,
    LABEL_MAPS,
    LABELS_FILE,
    MASK,
    PACKED,
    STAGES,
)
from lungmix.store.verified_array import with_store

_ORDER = (
    "geometry", "acquisition", "salt", CHUNK_SLICES, "begun", PACKED, "stages", "damaged", "failure", "working",
    QUALITY, COMPARED, USAGE,
)  # fmt: skip
# Largest number of rows and columns of a chunk of temporary arrays, so that a box can be read without whole slices.
_TEMPORARY_EDGE = 1024


class CaseWriter(CaseFiles):
    """Case that can be written, by a process that holds the lock of the store or a task whose attempt is in progress.

    Parameters
    ----------
    case : Case
        The case, whose attributes and arrays are shared.
    """

    def create_image(self, name: str) -> Receipts:
        """Create the empty arrays of an image on all levels, in place of earlier arrays; return their receipts."""
        layout, schema = self.layout_of(name), image_schema(name)
        receipts: Receipts = {}
        if not schema.path:
            self.describe_image()
            for index in range(len(layout.levels)):
                self.delete_array(schema.level(index))
        elif schema.kind == "image":
            self.delete_array(schema.path)
            attributes = {OME: ome_zarr.image_metadata(name, self.geometry, layout)}
            receipts = self._write_metadata(schema.path, attributes)
        elif schema.kind == "registered":
            self.delete_array(schema.path)
            attributes = {OME: ome_zarr.label_metadata(name, self.grid_of(name), layout, is_of_case=False)}
            receipts = self._write_metadata(schema.path, attributes)
        else:
            self.delete_array(schema.path)
            listed = {name, *self._listed_labels()}
            # A histogram is written only after its label map, so that it is there only if the label map is listed.
            for other in [other for other in BEGIN_WITHOUT.get(name, ()) if other.removesuffix("_counts") in listed]:
                self.delete_array(ARRAYS[other].path)
                listed.discard(other)
            attributes = {OME: ome_zarr.label_metadata(name, self.geometry, layout)}
            receipts = self._write_metadata(schema.path, attributes)
            self.write_object(LABELS_FILE, self.label_list_content(listed))
        for index, level in enumerate(layout.levels):
            receipts |= self._create_array(
                schema.level(index),
                shape=level.shape,
                chunks=level.chunks,
                shards=level.shards,
                dtype=np.dtype(schema.dtype),
                compressors=codecs_for(schema.dtype),
                dimension_names=("z", "y", "x"),
            )
        return receipts

    def describe_image(self) -> None:
        """Write the OME-Zarr metadata of the image."""
        self._group.attrs[OME] = ome_zarr.image_metadata(self.name, self.geometry, self.layout)

    @staticmethod
    def label_list_content(names: Collection[str]) -> bytes:
        """Return the content of `LABELS_FILE` for a case with these label maps."""
        label_names = [name for name in LABEL_MAPS if name in names]
        return zarr_adapter.bytes_of_metadata({OME: ome_zarr.labels_metadata(label_names)})

    def _listed_labels(self) -> list[str]:
        """Return the label maps in `LABELS_FILE`; none if it is unreadable; `invalidate_corrupt_stages` repairs it."""
        try:
            return list(json.loads(self.read_object(LABELS_FILE) or b"")["attributes"][OME]["labels"])
        except (ValueError, KeyError, TypeError):
            return []

    def write(self, name: str, start: int, slab: npt.NDArray[Any]) -> Receipts:
        """Write one or more slabs of an image on all levels.

        Parameters
        ----------
        name : str
            Name of the image: ``ct``, ``harmonised``, ``lung``, ``side``, ``lobe``, ``tissue``, ``tissue_median``,
            ``tissue_potts``, ``zone``, ``registered_tissue`` or ``change``.
        start : int
            Index of the first slice.
        slab : ndarray, shape (slices, y, x)
            int16 HU or uint8 labels. The slices must be complete slabs of the layout; only the last slab of the volume
            may be thinner.

        Returns
        -------
        dict of str to list
            Receipts of the written shards.

        Raises
        ------
        AlignmentError
            If the slices cover a part of a shard.
        """
        layout, schema = self.layout_of(name), image_schema(name)
        layout.check(start, start + len(slab))
        receipts: Receipts = {}
        for index, level in enumerate(layout.levels):
            values = shrink_mean(slab, level.factors) if schema.kind == "image" else shrink_nearest(slab, level.factors)
            first = start // level.factors[0]
            receipts |= self._write_chunks(schema.level(index), first, values)
        return receipts

    def create_packed(self, name: str) -> Receipts:
        """Create an empty array of packed masks, one chunk per slab, in place of an earlier one; return its receipt."""
        nz, ny, nx = self.geometry.shape
        shape = (nz, ny, words_for(nx))
        self.delete_array(name)
        return self._create_array(
            ARRAYS[name].path,
            shape=shape,
            chunks=(self.layout.slab, *shape[1:]),
            dtype=np.dtype(ARRAYS[name].dtype),
            compressors=codecs_for(np.uint8),
            attributes=ARRAYS[name].attributes,
        )

    def create_temporary(
        self, name: str, shape: tuple[int, int, int] | None = None, chunk_slices: int | None = None
    ) -> None:
        """Create an empty array that exists only during a command, in place of an earlier one.

        Parameters
        ----------
        name : {"imported", "reference", "segmented", "filtered"}
            Name of the array.
        shape : tuple of int, optional
            Shape ``(z, y, x)`` of the array; by default that of the scan.
        chunk_slices : int, optional
            Number of slices of a chunk; by default that of a slab.
        """
        shape = shape or self.geometry.shape
        self.delete_array(name)
        self._create_array(
            ARRAYS[name].path,
            shape=shape,
            chunks=(min(chunk_slices or self.layout.slab, shape[0]), *(min(n, _TEMPORARY_EDGE) for n in shape[1:])),
            dtype=np.dtype(ARRAYS[name].dtype),
            compressors=codecs_for(ARRAYS[name].dtype),
        )

    def write_temporary(self, name: str, start: int, values: npt.NDArray[Any]) -> None:
        """Write slices of a temporary array: whole chunks, of which the last may end with the volume."""
        self._write_chunks(name, start, values)

    def write_packed(self, name: str, start: int, bits: Bits) -> Receipts:
        """Write complete slabs of a packed mask; see `write`."""
        self.layout.check(start, start + len(bits))
        return self._write_chunks(name, start, bits)

    def write_histogram(self, name: str, counts: npt.NDArray[np.uint64]) -> Receipts:
        """Write an array of HU histograms: of the lung (``hu_counts``) or of regions (``side_counts``, ...)."""
        schema = ARRAYS[name]
        receipts = self._create_array(
            schema.path, shape=counts.shape, chunks=counts.shape, dtype=counts.dtype,
            compressors=codecs_for(schema.dtype), attributes=schema.attributes,
        )  # fmt: skip
        return receipts | self._write_chunks(schema.path, 0, counts)

    def write_displacement(self, field: npt.NDArray[np.float32]) -> Receipts:
        """Write the displacements of a registration, ``[z, y, x, component]``, in place of earlier ones."""
        schema = ARRAYS[DISPLACEMENT]
        self.delete_array(schema.path)
        receipts = self._create_array(
            schema.path, shape=field.shape, chunks=field.shape, dtype=field.dtype,
            compressors=codecs_for(schema.dtype), attributes=schema.attributes,
        )  # fmt: skip
        return receipts | self._write_chunks(schema.path, 0, field)

    def delete_array(self, path: str) -> None:
        """Delete an array of this case; for the path of a label map, its arrays on all levels."""
        zarr_adapter.delete_folder(self._group.store, self._key(path))
        for name in [name for name in self._arrays if name == path or name.startswith(f"{path}/")]:
            del self._arrays[name]

    def write_object(self, key: str, content: bytes) -> None:
        """Write the bytes of an object."""
        zarr_adapter.write(self._group.store, self._key(key), content)

    def delete_object(self, key: str) -> None:
        """Delete one object."""
        zarr_adapter.delete(self._group.store, self._key(key))

    def _create_array(self, path: str, **options: Any) -> Receipts:
        """Write the metadata of an empty array at an unused path, in one request, and return their receipt."""
        metadata = zarr_adapter.create_metadata(fill_value=FILL_VALUE, **options)
        self._arrays[path] = zarr_adapter.array_at(self._group.store, self._key(path), metadata)
        return self._write_metadata(path, metadata)

    def _write_metadata(self, path: str, metadata: Any) -> Receipts:
        key, content = f"{path}/zarr.json", zarr_adapter.bytes_of_metadata(metadata)
        self.write_object(key, content)
        return {key: receipt_of(content)}

    def _write_chunks(self, path: str, start: int, values: npt.NDArray[Any]) -> Receipts:
        """Write complete chunks, the first of which begins at index `start` along the first axis; return receipts."""
        store = WholeShards(self._group.store)
        target = with_store(self._array(path), store)
        target[start : start + len(values)] = values
        prefix = f"{self._group.path}/"
        return {key.removeprefix(prefix): receipt for key, receipt in store.receipts.items()}

    def begin(
        self,
        geometry: Geometry,
        acquisition: Acquisition,
        origin: Mapping[str, str] | None = None,
        chunk_slices: int | None = None,
    ) -> None:
        """Write the attributes of a scan before its conversion; no stage is finished then."""
        begun = {"begun": dict(origin)} if origin else {}
        self._write_attributes(
            {
                "geometry": geometry.to_dict(),
                "acquisition": acquisition.to_dict(),
                "salt": secrets.token_hex(16),
                CHUNK_SLICES: chunk_slices,
                "stages": {},
                **begun,
            }
        )

    def describe(self, acquisition: Acquisition) -> None:
        """Replace the technical attributes of the scan."""
        self._write_attributes({**self._attributes, "acquisition": acquisition.to_dict()})

    def record_usage(self, usage: Mapping[str, Mapping[str, Any]]) -> None:
        """Record the resource usage of stages, see `watched`."""
        attributes = self._attributes
        self._write_attributes({**attributes, USAGE: {**attributes.get(USAGE, {}), **usage}})

    def record_quality(self, numbers: Mapping[str, Any]) -> None:
        """Record the numbers for quality control, see `quality`."""
        self._write_attributes({**self._attributes, QUALITY: dict(numbers)})

    def record_evaluations(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Record the agreement with references, see `evaluations`, and end the attempt in progress."""
        attributes = {key: value for key, value in self._attributes.items() if key != "working"}
        self._write_attributes({**attributes, COMPARED: {what: dict(record) for what, record in records.items()}})

    def claim(self, work: str) -> str:
        """Begin an attempt at work that changes no stage, and return its identifier; see `start_stage`."""
        attempt = uuid.uuid4().hex
        self._write_attributes({**self._attributes, "working": {"stage": work, "attempt": attempt}})
        return attempt

    def release(self) -> None:
        """End the attempt in progress, so that its remaining tasks can no longer write."""
        if self.attempt is not None:
            self._write_attributes({key: value for key, value in self._attributes.items() if key != "working"})

    def start_stage(self, stage: str, key: str, also: Sequence[str] = ()) -> str:
        """Begin an attempt at a stage: remove the record of the stage, and return the identifier of the attempt.

        Records of dependent stages are removed too, unless the stage had the same cache key before.

        Parameters
        ----------
        stage : str
            Name of the stage.
        key : str
            Cache key of the inputs of the stage.
        also : sequence of str
            Other stages that the same tasks compute.

        Returns
        -------
        str
            Identifier of this attempt. Tasks of earlier attempts, left over from a killed run, can no longer write.
        """
        attributes = self._attributes
        damaged = attributes.get("damaged", {})
        computed = {stage, *also}
        previous = attributes["stages"].get(stage) or damaged.get(stage, {}).get("record", {})
        invalid = computed if previous.get("key") == key else {*computed, *DEPENDENTS[stage]}
        attempt = uuid.uuid4().hex
        self._write_attributes(
            {
                **attributes,
                "stages": {name: record for name, record in attributes["stages"].items() if name not in invalid},
                "damaged": {name: damage for name, damage in damaged.items() if name not in invalid - computed},
                "working": {"stage": stage, "attempt": attempt},
            }
        )
        return attempt

    def record(self, stage: str, record: Mapping[str, Any], files: Receipts | None = None) -> None:
        """Publish a finished stage.

        Parameters
        ----------
        stage : str
            Name of the stage.
        record : mapping
            Cache key of the inputs of the stage, and its results.
        files : dict, optional
            Receipts of all objects that the stage wrote.
        """
        attributes = self._attributes
        for obsolete in ("failure", "working", *(("begun",) if stage == CONVERT else ())):
            attributes.pop(obsolete, None)
        complete_record = {
            **record,
            "lungmix_version": __version__,
            **({"files": dict(sorted(files.items()))} if files is not None else {}),
        }
        self._write_attributes(
            {
                **attributes,
                "stages": {**attributes.get("stages", {}), stage: complete_record},
                "damaged": {name: damage for name, damage in attributes.get("damaged", {}).items() if name != stage},
            }
        )

    def record_packed(self, below_hu: int | None, files: Receipts | None = None) -> None:
        """Publish the packed air and its receipts, or invalidate it if `below_hu` is None."""
        attributes = {key: value for key, value in self._attributes.items() if key != PACKED}
        if below_hu is not None:
            attributes[PACKED] = {"below_hu": below_hu, "files": dict(sorted((files or {}).items()))}
        self._write_attributes(attributes)

    def record_failure(self, stage: str, reason: str) -> None:
        """Record the reason why a stage failed."""
        attributes = {key: value for key, value in self._attributes.items() if key != "working"}
        self._write_attributes({**attributes, "failure": {"stage": stage, "reason": reason}})

    def drop_stage(self, stage: str) -> None:
        """Remove a stage and the stages that depend on it, and delete the arrays of the stage.

        If the mask depends on the stage, the packed air is removed too.
        """
        invalid = {stage, *DEPENDENTS[stage]}
        # Without an attempt in progress, tasks that a killed run left can no longer write.
        dropped = {"working", *([PACKED] if MASK in invalid else [])}
        attributes = {key: value for key, value in self._attributes.items() if key not in dropped}
        kept = {
            part: {name: item for name, item in attributes.get(part, {}).items() if name not in invalid}
            for part in ("stages", "damaged")
        }
        self._write_attributes({**attributes, **kept})
        stages = (stage, PACKED) if PACKED in dropped else (stage,)
        arrays = [array for array in ARRAYS.values() if array.stage in stages]
        listed = self._listed_labels()
        if not {array.name for array in arrays}.isdisjoint(listed):
            self.write_object(LABELS_FILE, self.label_list_content({*listed} - {array.name for array in arrays}))
        for array in arrays:
            self.delete_array(array.path)

    def mark_damaged(self, stage: str, reason: str) -> None:
        """Invalidate a stage whose objects do not match their receipts; dependent stages stay valid."""
        attributes = self._attributes
        if stage not in attributes["stages"]:
            return
        stages = {name: record for name, record in attributes["stages"].items() if name != stage}
        damage = {"reason": reason, "record": attributes["stages"][stage]}
        damaged = {**attributes.get("damaged", {}), stage: damage}
        self._write_attributes({**attributes, "stages": stages, "damaged": damaged})

    def _write_attributes(self, attributes: dict[str, Any]) -> None:
        """Write the attributes in a fixed order, so that equal cases have equal bytes."""
        stages = attributes.get("stages", {})
        order = [name for name in STAGES if name in stages] + [name for name in stages if name not in STAGES]
        attributes = {**attributes, "stages": {name: stages[name] for name in order}}
        always = ("acquisition", "stages")
        ordered = {key: attributes[key] for key in _ORDER if key in attributes and (attributes[key] or key in always)}
        self._group.attrs[ATTRIBUTE] = ordered | {key: attributes[key] for key in attributes if key not in _ORDER}
