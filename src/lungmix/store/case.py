"""One scan in the store: its image, label maps, histograms and the records of its stages."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import Group, GroupMetadata
from zarr.core.sync import sync
from zarr.storage import MemoryStore, StorePath

from lungmix.errors import StoreError
from lungmix.geometry import Geometry
from lungmix.kernels.packed_masks import Bits, words_for
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import ome_zarr
from lungmix.store.chunking import Layout, codecs_for, layout_of, shrink_mean, shrink_nearest
from lungmix.store.formatting_html import case_html
from lungmix.store.objects import Receipts, WholeShards, receipt_of, sizes_under
from lungmix.store.stage_records import CHUNK_SLICES, CaseState
from lungmix.store.verified_array import StoredArray, with_store
from lungmix.tissue import SIDES

if TYPE_CHECKING:
    from lungmix.mixture import TissueModel

# Number of chunks that zarr encodes in one call. With its default of 1, dispatch takes longer than encoding labels.
zarr.config.set({"codec_pipeline.batch_size": 64})

IMAGES = ("ct", *ome_zarr.LABEL_NAMES)
LABELS_FILE = "labels/zarr.json"
"""Metadata file that lists the label maps; it belongs to no stage."""


class Case(CaseState):
    """A scan and the results computed from it; arrays are lazy.

    Cases come from a cohort: ``lungmix.open_cohort("cohort.zarr")["case-001"]``.
    """

    def __init__(self, name: str, group: Group):
        self.name = name
        self._group = group
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def __repr__(self) -> str:
        stages = ", ".join(self.stages) or "nothing yet"
        return f"<Case {self.name}: {' x '.join(map(str, self.geometry.shape))} voxels, done: {stages}>"

    def _repr_html_(self) -> str:
        return case_html(self)

    @property
    def geometry(self) -> Geometry:
        """Size, spacing, origin and direction of the scan."""
        return Geometry.from_dict(self._attributes["geometry"])

    @property
    def acquisition(self) -> Acquisition:
        """Technical attributes of the scan."""
        return Acquisition.from_dict(self._attributes.get("acquisition", {}))

    @property
    def layout(self) -> Layout:
        """Levels, chunks, shards and slabs of the arrays of this case."""
        attributes = self._attributes
        return layout_of(Geometry.from_dict(attributes["geometry"]), attributes.get(CHUNK_SLICES))

    @property
    def ct(self) -> da.Array:
        """The scan: int16 HU, ``[z, y, x]``, one dask chunk a slab."""
        return self.array("ct")

    @property
    def lung(self) -> da.Array:
        """The lung mask: uint8, 0 or 1."""
        return self.array("lung")

    @property
    def side(self) -> da.Array:
        """Regions of the lung mask: uint8, 1 right lung, 2 left lung, 3 airway, 4 elsewhere."""
        return self.array("side")

    @property
    def tissue(self) -> da.Array:
        """Tissue labels voxel by voxel: uint8, 0 to 5."""
        return self.array("tissue")

    @property
    def tissue_median(self) -> da.Array:
        """Tissue labels after the median filter: uint8, 0 to 5."""
        return self.array("tissue_median")

    @property
    def hu_counts(self) -> npt.NDArray[np.uint64]:
        """HU histogram of the lung voxels, uint64; entry ``i`` counts ``i - 32768`` HU."""
        return self._stored_array("hu_counts")[:]

    @property
    def side_counts(self) -> npt.NDArray[np.uint64]:
        """HU histograms of the regions of the lung mask, uint64; row ``i`` counts the voxels of label ``i + 1``."""
        return self._stored_array("side_counts")[:]

    @property
    def model(self) -> TissueModel | None:
        """Mixture that the labels of this case were computed with; None without labels.

        It differs from `Cohort.model` where a model was fitted or given later and the labels were not recomputed.
        """
        from lungmix.store.models import label_model

        return label_model(self)

    def array(self, name: str, level: int = 0) -> da.Array:
        """Return an image of this case as a lazy dask array.

        Parameters
        ----------
        name : {"ct", "lung", "side", "tissue", "tissue_median"}
            Name of the image.
        level : int
            Resolution level, 0 the finest.

        Raises
        ------
        StoreError
            If the image does not exist yet, or is still being written.
        """
        if _path_of(name) is not None and not self.is_published(_STAGE_OF_IMAGE[name]):
            raise StoreError(
                f"case {self.name} has no complete image {name}: it does not exist yet, or is still being written: "
                "read it once `Pipeline.run(sources)` is done",
                case=self.name,
            )
        source = self.zarr_array(name, level)
        return da.from_array(source, chunks=(source.shards or source.chunks)[:1] + source.shape[1:])

    def zarr_array(self, name: str, level: int = 0) -> StoredArray:
        """Return the stored array of an image; parameters are those of `array`."""
        return self._stored_array(f"{_path_of(name)}/{level}")

    def read(self, name: str, start: int, stop: int, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """Read slices ``start`` to ``stop`` of an image, or some of their rows, into memory."""
        return self.zarr_array(name)[start:stop, rows]

    def is_started(self, name: str) -> bool:
        """Return True if writing of an image of this name has started."""
        return f"{_path_of(name)}/0".lstrip("/") in self._group

    def to_sitk(self, name: str = "ct") -> sitk.Image:
        """Read an image into memory as ``SimpleITK.Image`` with the exact geometry of the scan."""
        image = sitk.GetImageFromArray(self.zarr_array(name)[:])
        return self.geometry.apply_to(image)

    def create_image(self, name: str) -> Receipts:
        """Create the empty arrays of an image on all levels, replace earlier ones, and return their receipts."""
        layout, dtype = self.layout, np.dtype(np.int16 if name == "ct" else np.uint8)
        if name == "ct":
            self.describe_image()
            receipts: Receipts = {}
            for index in range(len(layout.levels)):
                self.delete_array(str(index))
        else:
            self.delete_array(_path_of(name))
            metadata = GroupMetadata(attributes={"ome": ome_zarr.label_metadata(name, self.geometry, layout)})
            receipts = self._write_metadata(_path_of(name), metadata)
            self.write_object(LABELS_FILE, self.label_list_content({name, *self._listed_labels()}))
        for index, level in enumerate(layout.levels):
            receipts |= self._create_array(
                f"{_path_of(name)}/{index}".lstrip("/"),
                shape=level.shape,
                chunks=level.chunks,
                shards=level.shards,
                dtype=dtype,
                compressors=codecs_for(dtype),
                fill_value=0,
                dimension_names=("z", "y", "x"),
            )
        return receipts

    @property
    def is_described(self) -> bool:
        """True where the OME-Zarr metadata of the image agree with its geometry and layout."""
        return self._group.attrs.get("ome") == ome_zarr.image_metadata(self.name, self.geometry, self.layout)

    def describe_image(self) -> None:
        """Write the OME-Zarr metadata of the image."""
        self._group.attrs["ome"] = ome_zarr.image_metadata(self.name, self.geometry, self.layout)

    @staticmethod
    def label_list_content(names: Collection[str]) -> bytes:
        """Return the content of `LABELS_FILE` for a case with these label maps."""
        label_names = [name for name in ome_zarr.LABEL_NAMES if name in names]
        metadata = GroupMetadata(attributes={"ome": ome_zarr.labels_metadata(label_names)})
        (content,) = metadata.to_buffer_dict(default_buffer_prototype()).values()
        return content.to_bytes()

    def _listed_labels(self) -> list[str]:
        """Return the listed label maps; an unreadable list counts as empty, `invalidate_corrupt_stages` rewrites it."""
        try:
            return list(json.loads(self.read_object(LABELS_FILE) or b"")["attributes"]["ome"]["labels"])
        except (ValueError, KeyError, TypeError):
            return []

    def write(self, name: str, start: int, slab: npt.NDArray[Any]) -> Receipts:
        """Write one slab on all levels.

        Parameters
        ----------
        name : {"ct", "lung", "side", "tissue", "tissue_median"}
            Name of the image.
        start : int
            First slice.
        slab : ndarray, shape (slices, y, x)
            int16 HU or uint8 labels; complete slabs of the layout, the last of which may end with the volume.

        Returns
        -------
        dict of str to list
            Receipts of the shards.

        Raises
        ------
        AlignmentError
            If the slab covers a shard in part only.
        """
        layout = self.layout
        layout.check(start, start + len(slab))
        receipts: Receipts = {}
        for index, level in enumerate(layout.levels):
            values = shrink_mean(slab, level.factors) if name == "ct" else shrink_nearest(slab, level.factors)
            first = start // level.factors[0]
            receipts |= self._write_chunks(f"{_path_of(name)}/{index}", first, values)
        return receipts

    def create_packed(self, name: str) -> Receipts:
        """Create an empty array of packed masks, one chunk a slab, replace an earlier one, and return its receipt."""
        nz, ny, nx = self.geometry.shape
        shape = (nz, ny, words_for(nx))
        self.delete_array(name)
        return self._create_array(
            name,
            shape=shape,
            chunks=(self.layout.slab, *shape[1:]),
            dtype=np.uint64,
            compressors=codecs_for(np.uint8),
            fill_value=0,
            attributes={"packing": "bit k of word w of a row is voxel x = 64 w + k"},
        )

    def read_packed(self, name: str, start: int, stop: int) -> Bits:
        """Read slices ``start`` to ``stop`` of an array of packed masks: uint64 ``[z, y, words]``."""
        return self._stored_array(name)[start:stop]

    def write_packed(self, name: str, start: int, bits: Bits) -> Receipts:
        """Write complete slabs of a packed mask; see `write`."""
        self.layout.check(start, start + len(bits))
        return self._write_chunks(name, start, bits)

    def delete_array(self, name: str) -> None:
        """Delete an array of this case."""
        sync(self._group.store.delete_dir(self._key(name)))
        self._arrays.pop(name, None)

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every object of this case, by object key."""
        return sizes_under(self._group.store, self._group.path)

    def read_object(self, key: str) -> bytes | None:
        """Read the stored bytes of an object; None if there is none."""
        buffer = sync(self._group.store.get(self._key(key), default_buffer_prototype()))
        return None if buffer is None else buffer.to_bytes()

    def write_object(self, key: str, content: bytes) -> None:
        """Write the bytes of an object."""
        sync(self._group.store.set(self._key(key), default_buffer_prototype().buffer.from_bytes(content)))

    def delete_object(self, key: str) -> None:
        """Delete one object."""
        sync(self._group.store.delete(self._key(key)))

    def write_counts(self, counts: npt.NDArray[np.uint64]) -> Receipts:
        """Write the HU histogram of the lung."""
        return self._write_table("hu_counts", counts, {"first_hu": -32768, "unit": "voxels"})

    def write_side_counts(self, counts: npt.NDArray[np.uint64]) -> Receipts:
        """Write the HU histograms of the regions of the mask."""
        rows = [side.key for side in SIDES]
        return self._write_table("side_counts", counts, {"first_hu": -32768, "unit": "voxels", "rows": rows})

    def _write_table(self, name: str, values: npt.NDArray[Any], attributes: dict[str, Any]) -> Receipts:
        receipts = self._create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=values.shape, compressors=codecs_for(values.dtype),
            attributes=attributes,
        )  # fmt: skip
        return receipts | self._write_chunks(name, 0, values)

    def _create_array(self, path: str, **options: Any) -> Receipts:
        """Write the metadata of an empty array at an unused path, in one request, and return its receipt."""
        metadata = zarr.create_array(MemoryStore(), zarr_format=3, **options).metadata
        store_path = StorePath(self._group.store, self._key(path))
        self._arrays[path] = zarr.Array(zarr.AsyncArray(metadata, store_path))
        return self._write_metadata(path, metadata)

    def _write_metadata(self, path: str, metadata: Any) -> Receipts:
        receipts: Receipts = {}
        for file, content in metadata.to_buffer_dict(default_buffer_prototype()).items():
            sync(self._group.store.set(self._key(f"{path}/{file}"), content))
            receipts[f"{path}/{file}"] = receipt_of(content.to_bytes())
        return receipts

    def _write_chunks(self, path: str, start: int, values: npt.NDArray[Any]) -> Receipts:
        """Write complete chunks, the first of which begins at index `start` along z."""
        store = WholeShards(self._group.store)
        target = with_store(self._array(path), store)
        target[start : start + len(values)] = values
        return {self._relative(key): receipt for key, receipt in store.receipts.items()}

    def _key(self, key: str) -> str:
        return f"{self._group.path}/{key}".lstrip("/")

    def _relative(self, key: str) -> str:
        return key.removeprefix(f"{self._group.path}/")

    def _stored_array(self, path: str) -> StoredArray:
        return StoredArray(self.name, path.lstrip("/"), self._array(path))

    def _array(self, path: str) -> zarr.Array[Any]:
        path = path.lstrip("/")
        if path in self._arrays:
            return self._arrays[path]
        try:
            array = self._group[path]
        except KeyError:
            raise StoreError(
                f"case {self.name} has no {path} yet: run `Pipeline.run(sources)` first", case=self.name
            ) from None
        if not isinstance(array, zarr.Array):
            raise StoreError(
                f"case {self.name}: {path} is not an array, the store is corrupt: convert the case again",
                case=self.name,
            )
        self._arrays[path] = array
        return array


_STAGE_OF_IMAGE = {"ct": "convert", "lung": "mask", "side": "side", "tissue": "label", "tissue_median": "label"}


def _path_of(name: str) -> str:
    if name == "ct":
        return ""
    if name in ome_zarr.LABEL_NAMES:
        return f"labels/{name}"
    raise StoreError(f"there is no image {name!r}: choose one of {', '.join(IMAGES)}")
