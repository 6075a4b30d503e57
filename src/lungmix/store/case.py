"""One scan in the store: its image, label maps, counts and the records of its stages."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import zarr
from zarr.core.group import Group

from lungmix.errors import StoreError
from lungmix.geometry import Geometry
from lungmix.kernels.bits import Bits, words_for
from lungmix.scan import Acquisition
from lungmix.store import ome
from lungmix.store.html import case_html
from lungmix.store.layout import Layout, codecs_for, layout_of, shrink_mean, shrink_nearest
from lungmix.tissue import SIDES

# Chunks that zarr codes in one call; by its default of one, handing them out takes longer than coding labels does.
zarr.config.set({"codec_pipeline.batch_size": 64})

ATTRIBUTE = "lungmix"
WATCHED = "watched"
IMAGES = ("ct", *ome.LABEL_NAMES)


class Case:
    """A scan and what was computed of it; arrays are lazy.

    Cases come from a cohort: ``lungmix.open_cohort("cohort.zarr")["case-001"]``.
    """

    def __init__(self, name: str, group: Group):
        self.name = name
        self._group = group

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
    def salt(self) -> str:
        """Random digits of this case: what exports derive their identifiers from."""
        return str(self._own.get("salt", ""))

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Record of each finished stage: the key of what it was made from, and what it found."""
        return dict(self._own.get("stages", {}))

    @property
    def failure(self) -> dict[str, str] | None:
        """Stage and reason of the last failure; None if there is none."""
        return self._own.get("failure")

    @property
    def watched(self) -> dict[str, dict[str, Any]]:
        """Time and memory that each stage took: all that two runs on the same sources may differ in."""
        return dict(self._own.get(WATCHED, {}))

    @property
    def layout(self) -> Layout:
        """How the arrays of this case are cut."""
        return layout_of(self.geometry)

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
        return np.asarray(self._array("hu_counts")[:])

    @property
    def side_counts(self) -> npt.NDArray[np.uint64]:
        """Counts per HU value of the parts of the lung mask: row ``i`` counts the voxels of label ``i + 1``."""
        return np.asarray(self._array("side_counts")[:])

    def array(self, name: str, level: int = 0) -> da.Array:
        """An image of this case as a lazy dask array.

        Parameters
        ----------
        name : {"ct", "lung", "side", "tissue", "tissue_median"}
            Which image.
        level : int
            Resolution, 0 the finest.
        """
        source = self.zarr_array(name, level)
        return da.from_array(source, chunks=(source.shards or source.chunks)[:1] + source.shape[1:])

    def zarr_array(self, name: str, level: int = 0) -> zarr.Array[Any]:
        """An image of this case as it is stored; parameters are those of `array`."""
        return self._array(f"{_path_of(name)}/{level}")

    def read(self, name: str, start: int, stop: int, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """Slices ``start`` to ``stop`` of an image in memory, or some rows of them."""
        return np.asarray(self.zarr_array(name)[start:stop, rows])

    def has(self, name: str) -> bool:
        """Whether an image of this name has been begun."""
        return f"{_path_of(name)}/0".lstrip("/") in self._group

    def to_sitk(self, name: str = "ct") -> sitk.Image:
        """An image in memory as ``SimpleITK.Image`` with the exact geometry of the scan."""
        image = sitk.GetImageFromArray(np.asarray(self.zarr_array(name)[:]))
        return self.geometry.apply_to(image)

    def create(self, name: str) -> None:
        """Make the empty arrays of an image on all levels, in place of what was there."""
        layout, dtype = self.layout, np.dtype(np.int16 if name == "ct" else np.uint8)
        if name == "ct":
            self._group.attrs["ome"] = ome.image_metadata(self.name, self.geometry, layout)
            parent = self._group
        else:
            labels = self._group.require_group("labels")
            names = [n for n in ome.LABEL_NAMES if n == name or n in labels]
            parent = labels.create_group(
                name, overwrite=True, attributes={"ome": ome.label_metadata(name, self.geometry, layout)}
            )
            labels.attrs["ome"] = ome.labels_metadata(names)
        for index, level in enumerate(layout.levels):
            parent.create_array(
                str(index),
                shape=level.shape,
                chunks=level.chunks,
                shards=level.shards,
                dtype=dtype,
                compressors=codecs_for(dtype),
                fill_value=0,
                dimension_names=("z", "y", "x"),
                overwrite=True,
            )

    def write(self, name: str, start: int, slab: npt.NDArray[Any]) -> None:
        """Write one slab on all levels.

        Parameters
        ----------
        name : {"ct", "lung", "side", "tissue", "tissue_median"}
            Which image.
        start : int
            First slice.
        slab : ndarray, shape (slices, y, x)
            int16 HU or uint8 labels; whole slabs of the layout, or up to the last slice.

        Raises
        ------
        AlignmentError
            If the slab would cut a shard.
        """
        layout = self.layout
        layout.check(start, start + len(slab))
        for index, level in enumerate(layout.levels):
            part = shrink_mean(slab, level.factors) if name == "ct" else shrink_nearest(slab, level.factors)
            first = start // level.factors[0]
            self.zarr_array(name, index)[first : first + len(part)] = part

    def create_packed(self, name: str) -> None:
        """Make an empty array of packed masks, one chunk a slab, in place of what was there."""
        nz, ny, nx = self.geometry.shape
        shape = (nz, ny, words_for(nx))
        self._group.create_array(
            name,
            shape=shape,
            chunks=(self.layout.slab, *shape[1:]),
            dtype=np.uint64,
            compressors=codecs_for(np.uint8),
            fill_value=0,
            attributes={"packing": "bit k of word w of a row is voxel x = 64 w + k"},
            overwrite=True,
        )

    def read_packed(self, name: str, start: int, stop: int) -> Bits:
        """Slices ``start`` to ``stop`` of an array of packed masks: uint64 ``[z, y, words]``."""
        return np.asarray(self._array(name)[start:stop])

    def write_packed(self, name: str, start: int, bits: Bits) -> None:
        """Write whole slabs of a packed mask; see `write`."""
        self.layout.check(start, start + len(bits))
        self._array(name)[start : start + len(bits)] = bits

    @property
    def packed_threshold(self) -> int | None:
        """HU below which voxels are set in the packed air; None if it is not complete."""
        found = self._group.get("air")
        return found.attrs.get("below_hu") if isinstance(found, zarr.Array) else None  # type: ignore[return-value]

    @packed_threshold.setter
    def packed_threshold(self, threshold: int) -> None:
        self._array("air").attrs["below_hu"] = threshold

    def discard(self, name: str) -> None:
        """Delete an array that serves no more."""
        if name in self._group:
            del self._group[name]

    def write_counts(self, counts: npt.NDArray[np.uint64]) -> None:
        """Keep the counts per HU value."""
        self._write_table("hu_counts", counts, {"first_hu": -32768, "unit": "voxels"})

    def write_side_counts(self, counts: npt.NDArray[np.uint64]) -> None:
        """Keep the counts per HU value of the parts of the mask."""
        rows = [side.key for side in SIDES]
        self._write_table("side_counts", counts, {"first_hu": -32768, "unit": "voxels", "rows": rows})

    def _write_table(self, name: str, values: npt.NDArray[Any], attributes: dict[str, Any]) -> None:
        self._group.create_array(
            name, data=values, chunks=values.shape, compressors=codecs_for(values.dtype), attributes=attributes,
            overwrite=True,
        )  # fmt: skip

    def begin(self, geometry: Geometry, acquisition: Acquisition) -> None:
        """Describe a scan that is about to be converted; forgets all earlier stages."""
        self._group.attrs[ATTRIBUTE] = {
            "geometry": geometry.to_dict(),
            "acquisition": acquisition.to_dict(),
            "salt": secrets.token_hex(16),
            "stages": {},
        }

    def describe(self, acquisition: Acquisition) -> None:
        """Replace the technical attributes."""
        self._group.attrs[ATTRIBUTE] = {**self._own, "acquisition": acquisition.to_dict()}

    def record(self, stage: str, record: dict[str, Any]) -> None:
        """Publish a finished stage."""
        own = self._own
        own.pop("failure", None)
        self._group.attrs[ATTRIBUTE] = {**own, "stages": {**self.stages, stage: record}}

    def forget(self, *stages: str) -> None:
        """Withdraw the records of stages that are about to be redone."""
        kept = {name: record for name, record in self.stages.items() if name not in stages}
        self._group.attrs[ATTRIBUTE] = {**self._own, "stages": kept}

    def note(self, watched: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what stages took."""
        own = self._own
        self._group.attrs[ATTRIBUTE] = {**own, WATCHED: {**own.get(WATCHED, {}), **watched}}

    def fail(self, stage: str, reason: str) -> None:
        """Record why a stage failed."""
        self._group.attrs[ATTRIBUTE] = {**self._own, "failure": {"stage": stage, "reason": reason}}

    @property
    def _own(self) -> dict[str, Any]:
        own = self._group.attrs.get(ATTRIBUTE)
        if not isinstance(own, dict):
            raise StoreError(f"case {self.name} carries no lungmix attributes: run `lungmix convert` again")
        return dict(own)

    def _array(self, path: str) -> zarr.Array[Any]:
        try:
            found = self._group[path.lstrip("/")]
        except KeyError:
            raise StoreError(
                f"case {self.name} has no {path.lstrip('/')} yet: run `lungmix run` on its store first"
            ) from None
        if not isinstance(found, zarr.Array):
            raise StoreError(f"case {self.name}: {path} is not an array; the store is damaged: convert the case again")
        return found


def _path_of(name: str) -> str:
    if name == "ct":
        return ""
    if name in ome.LABEL_NAMES:
        return f"labels/{name}"
    raise StoreError(f"there is no image {name!r}: choose one of {', '.join(IMAGES)}")
