"""One scan in the store: its image, label maps, counts and the records of its stages."""

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
from lungmix.store.verified_array import StoredArray, bound
from lungmix.tissue import SIDES

if TYPE_CHECKING:
    from lungmix.mixture import TissueModel

# Chunks that zarr codes in one call; by its default of one, handing them out takes longer than coding labels does.
zarr.config.set({"codec_pipeline.batch_size": 64})

IMAGES = ("ct", *ome_zarr.LABEL_NAMES)
LABELS_FILE = "labels/zarr.json"
"""Lists the label maps; no stage owns it."""


class Case(CaseState):
    """A scan and what was computed of it; arrays are lazy.

    Cases come from a cohort: ``lungmix.open_cohort("cohort.zarr")["case-001"]``.
    """

    def __init__(self, name: str, group: Group):
        self.name = name
        self._group = group
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def __repr__(self) -> str:
        done = ", ".join(self.stages) or "nothing yet"
        return f"<Case {self.name}: {' x '.join(map(str, self.geometry.shape))} voxels, done: {done}>"

    def _repr_html_(self) -> str:
        return case_html(self)

    @property
    def geometry(self) -> Geometry:
        """Size, spacing, origin and direction of the scan."""
        return Geometry.from_dict(self._own["geometry"])

    @property
    def acquisition(self) -> Acquisition:
        """Technical attributes of the scan."""
        return Acquisition.from_dict(self._own.get("acquisition", {}))

    @property
    def layout(self) -> Layout:
        """How the arrays of this case are cut."""
        own = self._own
        return layout_of(Geometry.from_dict(own["geometry"]), own.get(CHUNK_SLICES))

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
        """Parts of the lung mask: uint8, 1 right lung, 2 left lung, 3 airway, 4 elsewhere."""
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
        """Counts per HU value over the lung voxels; entry ``i`` counts ``i - 32768`` HU."""
        return self._stored("hu_counts")[:]

    @property
    def side_counts(self) -> npt.NDArray[np.uint64]:
        """Counts per HU value of the parts of the lung mask: row ``i`` counts the voxels of label ``i + 1``."""
        return self._stored("side_counts")[:]

    @property
    def model(self) -> TissueModel | None:
        """Mixture that the labels of this case were made with; None without labels.

        It differs from `Cohort.model` where another model was fitted or given since, and labels were not made with it.
        """
        from lungmix.store.models import label_model

        return label_model(self)

    def array(self, name: str, level: int = 0) -> da.Array:
        """An image of this case as a lazy dask array.

        Parameters
        ----------
        name : {"ct", "lung", "side", "tissue", "tissue_median"}
            Which image.
        level : int
            Resolution, 0 the finest.

        Raises
        ------
        StoreError
            If it was not made yet, or is being made.
        """
        if _path_of(name) is not None and not self.is_published(_MADE_BY[name]):
            raise StoreError(
                f"case {self.name} has no whole image {name}: it was not made yet, or is being made: ask again once "
                "`lungmix run` is done"
            )
        source = self.zarr_array(name, level)
        return da.from_array(source, chunks=(source.shards or source.chunks)[:1] + source.shape[1:])

    def zarr_array(self, name: str, level: int = 0) -> StoredArray:
        """An image of this case as it is stored; parameters are those of `array`."""
        return self._stored(f"{_path_of(name)}/{level}")

    def read(self, name: str, start: int, stop: int, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """Slices ``start`` to ``stop`` of an image in memory, or some rows of them."""
        return self.zarr_array(name)[start:stop, rows]

    def has(self, name: str) -> bool:
        """Whether an image of this name has been begun."""
        return f"{_path_of(name)}/0".lstrip("/") in self._group

    def to_sitk(self, name: str = "ct") -> sitk.Image:
        """An image in memory as ``SimpleITK.Image`` with the exact geometry of the scan."""
        image = sitk.GetImageFromArray(self.zarr_array(name)[:])
        return self.geometry.apply_to(image)

    def create(self, name: str) -> Receipts:
        """Make the empty arrays of an image on all levels, in place of what was there; gives their receipts."""
        layout, dtype = self.layout, np.dtype(np.int16 if name == "ct" else np.uint8)
        if name == "ct":
            self.describe_image()
            receipts: Receipts = {}
            for index in range(len(layout.levels)):
                self.discard(str(index))
        else:
            self.discard(_path_of(name))
            described = GroupMetadata(attributes={"ome": ome_zarr.label_metadata(name, self.geometry, layout)})
            receipts = self._describe(_path_of(name), described)
            self.write_object(LABELS_FILE, self.list_of_labels({name, *self._listed_labels()}))
        for index, level in enumerate(layout.levels):
            receipts |= self._make(
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
        """Whether the OME-Zarr metadata of the image are those that its geometry and its cut give."""
        return self._group.attrs.get("ome") == ome_zarr.image_metadata(self.name, self.geometry, self.layout)

    def describe_image(self) -> None:
        """Write the OME-Zarr metadata of the image."""
        self._group.attrs["ome"] = ome_zarr.image_metadata(self.name, self.geometry, self.layout)

    @staticmethod
    def list_of_labels(names: Collection[str]) -> bytes:
        """What `LABELS_FILE` holds where these label maps are there."""
        listed = [name for name in ome_zarr.LABEL_NAMES if name in names]
        described = GroupMetadata(attributes={"ome": ome_zarr.labels_metadata(listed)})
        (content,) = described.to_buffer_dict(default_buffer_prototype()).values()
        return content.to_bytes()

    def _listed_labels(self) -> list[str]:
        """Label maps that are there; one that is not to be read was made again before, by `settle`."""
        try:
            return list(json.loads(self.read_object(LABELS_FILE) or b"")["attributes"]["ome"]["labels"])
        except (ValueError, KeyError, TypeError):
            return []

    def write(self, name: str, start: int, slab: npt.NDArray[Any]) -> Receipts:
        """Write one slab on all levels.

        Parameters
        ----------
        name : {"ct", "lung", "side", "tissue", "tissue_median"}
            Which image.
        start : int
            First slice.
        slab : ndarray, shape (slices, y, x)
            int16 HU or uint8 labels; whole slabs of the layout, or up to the last slice.

        Returns
        -------
        dict of str to list
            Receipts of the shards.

        Raises
        ------
        AlignmentError
            If the slab would cut a shard.
        """
        layout = self.layout
        layout.check(start, start + len(slab))
        receipts: Receipts = {}
        for index, level in enumerate(layout.levels):
            part = shrink_mean(slab, level.factors) if name == "ct" else shrink_nearest(slab, level.factors)
            first = start // level.factors[0]
            receipts |= self._put(f"{_path_of(name)}/{index}", first, part)
        return receipts

    def create_packed(self, name: str) -> Receipts:
        """Make an empty array of packed masks, one chunk a slab, in place of what was there; gives its receipt."""
        nz, ny, nx = self.geometry.shape
        shape = (nz, ny, words_for(nx))
        self.discard(name)
        return self._make(
            name,
            shape=shape,
            chunks=(self.layout.slab, *shape[1:]),
            dtype=np.uint64,
            compressors=codecs_for(np.uint8),
            fill_value=0,
            attributes={"packing": "bit k of word w of a row is voxel x = 64 w + k"},
        )

    def read_packed(self, name: str, start: int, stop: int) -> Bits:
        """Slices ``start`` to ``stop`` of an array of packed masks: uint64 ``[z, y, words]``."""
        return self._stored(name)[start:stop]

    def write_packed(self, name: str, start: int, bits: Bits) -> Receipts:
        """Write whole slabs of a packed mask; see `write`."""
        self.layout.check(start, start + len(bits))
        return self._put(name, start, bits)

    def discard(self, name: str) -> None:
        """Delete an array that serves no more."""
        sync(self._group.store.delete_dir(self._key(name)))
        self._arrays.pop(name, None)

    def sizes(self) -> dict[str, int]:
        """Bytes of every object of this case, by key."""
        return sizes_under(self._group.store, self._group.path)

    def read_object(self, key: str) -> bytes | None:
        """Bytes of an object as they are stored; None if there is none."""
        buffer = sync(self._group.store.get(self._key(key), default_buffer_prototype()))
        return None if buffer is None else buffer.to_bytes()

    def write_object(self, key: str, content: bytes) -> None:
        """Put the bytes of an object."""
        sync(self._group.store.set(self._key(key), default_buffer_prototype().buffer.from_bytes(content)))

    def delete_object(self, key: str) -> None:
        """Delete one object."""
        sync(self._group.store.delete(self._key(key)))

    def write_counts(self, counts: npt.NDArray[np.uint64]) -> Receipts:
        """Keep the counts per HU value."""
        return self._write_table("hu_counts", counts, {"first_hu": -32768, "unit": "voxels"})

    def write_side_counts(self, counts: npt.NDArray[np.uint64]) -> Receipts:
        """Keep the counts per HU value of the parts of the mask."""
        rows = [side.key for side in SIDES]
        return self._write_table("side_counts", counts, {"first_hu": -32768, "unit": "voxels", "rows": rows})

    def _write_table(self, name: str, values: npt.NDArray[Any], attributes: dict[str, Any]) -> Receipts:
        made = self._make(
            name, shape=values.shape, dtype=values.dtype, chunks=values.shape, compressors=codecs_for(values.dtype),
            attributes=attributes,
        )  # fmt: skip
        return made | self._put(name, 0, values)

    def _make(self, path: str, **options: Any) -> Receipts:
        """Put the metadata of an empty array where nothing lies, in one request; gives its receipt."""
        metadata = zarr.create_array(MemoryStore(), zarr_format=3, **options).metadata
        place = StorePath(self._group.store, self._key(path))
        self._arrays[path] = zarr.Array(zarr.AsyncArray(metadata, place))
        return self._describe(path, metadata)

    def _describe(self, path: str, metadata: Any) -> Receipts:
        receipts: Receipts = {}
        for file, content in metadata.to_buffer_dict(default_buffer_prototype()).items():
            sync(self._group.store.set(self._key(f"{path}/{file}"), content))
            receipts[f"{path}/{file}"] = receipt_of(content.to_bytes())
        return receipts

    def _put(self, path: str, start: int, values: npt.NDArray[Any]) -> Receipts:
        """Write whole chunks from an index along z on."""
        store = WholeShards(self._group.store)
        target = bound(self._array(path), store)
        target[start : start + len(values)] = values
        return {self._relative(key): receipt for key, receipt in store.receipts.items()}

    def _key(self, key: str) -> str:
        return f"{self._group.path}/{key}".lstrip("/")

    def _relative(self, key: str) -> str:
        return key.removeprefix(f"{self._group.path}/")

    def _stored(self, path: str) -> StoredArray:
        return StoredArray(self.name, path.lstrip("/"), self._array(path))

    def _array(self, path: str) -> zarr.Array[Any]:
        path = path.lstrip("/")
        if path in self._arrays:
            return self._arrays[path]
        try:
            found = self._group[path]
        except KeyError:
            raise StoreError(f"case {self.name} has no {path} yet: run `lungmix run` on its store first") from None
        if not isinstance(found, zarr.Array):
            raise StoreError(f"case {self.name}: {path} is not an array; the store is damaged: convert the case again")
        self._arrays[path] = found
        return found


_MADE_BY = {"ct": "convert", "lung": "mask", "side": "side", "tissue": "label", "tissue_median": "label"}


def _path_of(name: str) -> str:
    if name == "ct":
        return ""
    if name in ome_zarr.LABEL_NAMES:
        return f"labels/{name}"
    raise StoreError(f"there is no image {name!r}: choose one of {', '.join(IMAGES)}")
