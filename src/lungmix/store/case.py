"""One scan in the store, as users read it: geometry, lazy arrays, histograms and the state of its stages."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import zarr

from lungmix.errors import StoreError
from lungmix.geometry import Geometry
from lungmix.kernels.labels import look_up
from lungmix.kernels.measures import component_keys
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import zarr_adapter
from lungmix.store.chunking import Layout, layout_of
from lungmix.store.formatting_html import case_html
from lungmix.store.metadata import ATTRIBUTE
from lungmix.store.schema import (
    ARRAYS,
    CONVERT,
    DISPLACEMENT,
    HARMONISE,
    HARMONISED,
    IMAGES,
    LABEL,
    MASK,
    ONLY_SOME_LABELS,
    PACKED,
    REGISTER,
    REGISTERED_MAPS,
    ArraySchema,
)
from lungmix.store.transforms import transform_of
from lungmix.store.verified_array import StoredArray

if TYPE_CHECKING:
    from lungmix.mixture import TissueModel

CHUNK_SLICES, QUALITY, COMPARED, USAGE = "chunk_slices", "quality", "evaluations", "watched"
"""Names of attributes of a case: number of slices of a chunk, if the user chose it; numbers for quality control;
agreement with references; resource usage of the stages."""


class Case:
    """A scan and the results computed from it; arrays are lazy.

    Cases come from a cohort: ``lungmix.open_cohort("cohort.zarr")["case-001"]``.
    """

    def __init__(self, name: str, group: zarr.Group):
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
        return Geometry.from_dict(self._shared_attributes["geometry"])

    @property
    def acquisition(self) -> Acquisition:
        """Technical attributes of the scan."""
        return Acquisition.from_dict(self._attribute("acquisition", {}))

    @property
    def layout(self) -> Layout:
        """Levels, chunks, shards and slabs of the arrays of this case."""
        return layout_of(self.geometry, self._attribute(CHUNK_SLICES))

    def grid_of(self, name: str) -> Geometry:
        """Return the geometry of an image: that of the scan, or of the first scan of the patient if it is registered.

        Parameters
        ----------
        name : str
            Name of the image, see `array`.
        """
        if image_schema(name).kind != "registered":
            return self.geometry
        record = self._shared_attributes.get("stages", {}).get(REGISTER)
        if record is None:
            raise StoreError(f"case {self.name} has no image {name} yet: {remedy_without(name)}", case=self.name)
        return Geometry.from_dict(record["grid"])

    def layout_of(self, name: str) -> Layout:
        """Return the levels, chunks, shards and slabs of an image of this case."""
        return layout_of(self.grid_of(name), self._attribute(CHUNK_SLICES))

    @property
    def ct(self) -> da.Array:
        """The scan: int16 HU, ``[z, y, x]``, with one dask chunk per slab."""
        return self.array("ct")

    @property
    def harmonised(self) -> da.Array:
        """The scan with harmonised HU: int16, ``[z, y, x]``; only after a run with `harmonise`."""
        return self.array(HARMONISED)

    @property
    def measured_image(self) -> str:
        """Image whose HU masks, labels and measurements are of: ``harmonised`` if the case has it, else ``ct``.

        Raises
        ------
        StoreError
            If the harmonised image is corrupt.
        """
        damage = self._shared_attributes.get("damaged", {}).get(HARMONISE)
        if damage is not None:
            raise StoreError(
                f"case {self.name}: its harmonised image is corrupt ({damage['reason']}): run `Pipeline.harmonise()`",
                case=self.name,
            )
        return HARMONISED if HARMONISE in self._shared_attributes.get("stages", {}) else "ct"

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
    def tissue_potts(self) -> da.Array:
        """Tissue labels under a Potts prior: uint8, 0 to 5; only after a run with ``smooth="potts"``."""
        return self.array("tissue_potts")

    @property
    def hu_counts(self) -> npt.NDArray[np.uint64]:
        """HU histogram of the lung voxels, uint64; entry ``i`` counts the voxels of ``i - 32768`` HU.

        HU are those of the image that is measured, see `measured_image`.
        """
        return self._stored_array("hu_counts")[:]

    @property
    def region_counts(self) -> npt.NDArray[np.uint64] | None:
        """HU histograms of aerated and dense lung: uint64 ``[part, HU]``, parts as in `lungmix.tissue.DENSE`.

        None unless the mask was computed with the preset ``anatomical``, which tells the two apart.
        """
        return self._stored_array("region_counts")[:] if self._has_histogram("region_counts") else None

    @property
    def lobe(self) -> da.Array:
        """Lobes of the lungs: uint8, labels as in `lungmix.tissue.LOBES`; only if a given mask distinguishes lobes."""
        return self.array("lobe")

    @property
    def has_lobes(self) -> bool:
        """True if the mask came from a file or a segmenter that distinguishes lobes."""
        return self._has_histogram("lobe_counts")

    @property
    def lobe_counts(self) -> npt.NDArray[np.uint64] | None:
        """HU histograms of the lobes: uint64; row ``i`` counts the voxels of label ``i + 1``.

        None without lobes, see `has_lobes`.
        """
        return self._stored_array("lobe_counts")[:] if self.has_lobes else None

    @property
    def side_counts(self) -> npt.NDArray[np.uint64]:
        """HU histograms of the regions of the lung mask, uint64; row ``i`` counts the voxels of label ``i + 1``."""
        return self._stored_array("side_counts")[:]

    @property
    def zone(self) -> da.Array:
        """Lung zones: uint8, labels as in `lungmix.tissue.LUNG_ZONES`; only after a run with ``zones``."""
        return self.array("zone")

    @property
    def registered_tissue(self) -> da.Array:
        """Tissue labels of this scan in the space of the patient's first scan: uint8, 0 to 5.

        Only later scans have them, after `lungmix.Pipeline.followup` with ``register``.
        """
        return self.array("registered_tissue")

    @property
    def change(self) -> da.Array:
        """Change since the first scan, in its space: uint8, labels as in `lungmix.tissue.CHANGES`.

        Only later scans have it, after `lungmix.Pipeline.followup` with ``register``.
        """
        return self.array("change")

    @property
    def zone_counts(self) -> npt.NDArray[np.uint64]:
        """HU histograms of the lung zones, uint64; row ``i`` counts the voxels of label ``i + 1``."""
        return self._stored_array("zone_counts")[:]

    @property
    def model(self) -> TissueModel | None:
        """Mixture that the labels of this case were computed with; None without labels.

        It differs from `Cohort.model` if a model was fitted or given later, and the labels were not recomputed.
        """
        # Imported here, as it loads mixtures, which most tasks do not need.
        from lungmix.store.models import label_model

        return label_model(self)

    def array(self, name: str, level: int = 0) -> da.Array:
        """Return an image of this case as a lazy dask array.

        Parameters
        ----------
        name : str
            Name of the image: ``ct``, ``harmonised``, ``lung``, ``side``, ``lobe``, ``tissue``, ``tissue_median``,
            ``tissue_potts``, ``zone``, ``registered_tissue`` or ``change``.
        level : int
            Resolution level, 0 the finest.

        Raises
        ------
        StoreError
            If the image does not exist yet, or is still being written.
        """
        if not self._is_published(image_schema(name).stage):
            raise StoreError(
                f"case {self.name} has no complete image {name}: it does not exist yet, or is still being written: "
                f"read it once {_run_with(name)} is done",
                case=self.name,
            )
        source = self.zarr_array(name, level)
        return da.from_array(source, chunks=(source.shards or source.chunks)[:1] + source.shape[1:])

    def posterior(self, tissue: str) -> da.Array:
        """Return the posterior of a tissue as a lazy dask array: float32, ``[z, y, x]``, 0 outside the mask.

        It is a function of the HU of a voxel, by the mixture of the labels of this case (`model`). Within the mask, the
        posteriors of all tissues add up to 1, and the voxel-wise label is the tissue of the highest posterior.

        Parameters
        ----------
        tissue : str
            Key of one of `lungmix.TISSUES`: ``air``, ``healthy``, ``ggo``, ``consolidation`` or ``other``. With a
            mixture of another number of components, ``component_1`` and so on.

        Raises
        ------
        StoreError
            If there is no such tissue, or the case has no labels.
        """
        # One task holds the table, and the tasks of all chunks refer to it.
        table = dask.delayed(posterior_table(self, tissue).astype(np.float32), pure=True, traverse=False)
        hu = self.array(self.measured_image)
        return da.map_blocks(look_up, hu, self.lung, table=table, dtype=np.float32, meta=np.empty((0, 0, 0), "f4"))

    def zarr_array(self, name: str, level: int = 0) -> StoredArray:
        """Return the stored array of an image, which reads voxels as numpy arrays; for parameters see `array`."""
        return self._stored_array(image_schema(name).level(level))

    def _has_histogram(self, name: str) -> bool:
        """Return True if the mask has a histogram that only some masks have."""
        return any(key.startswith(f"{name}/") for key in self.stages.get(MASK, {}).get("files", {}))

    def is_started(self, name: str) -> bool:
        """Return True if writing of an image of this name, or of the displacements of a registration, has started."""
        path = DISPLACEMENT if name == DISPLACEMENT else image_schema(name).level(0)
        return path in self._group

    def has_remains(self, stage: str, image: str) -> bool:
        """Return True if the case has a stage, finished or corrupt, or an image of it that a killed run left."""
        return stage in self.stages or stage in self.damage or self.is_started(image)

    def to_sitk(self, name: str = "ct") -> sitk.Image:
        """Read an image into memory as ``SimpleITK.Image`` with its exact geometry, see `grid_of`."""
        image = sitk.GetImageFromArray(self.zarr_array(name)[:])
        return self.grid_of(name).apply_to(image)

    def transform_from_first(self) -> sitk.CompositeTransform:
        """Return the transform from points of the patient's first scan to points of this scan, mm in LPS.

        Only later scans have it, after `lungmix.Pipeline.followup` with ``register``. SimpleITK resamples this scan on
        the grid of the first one by it. Outside the surroundings of the lungs it is affine.

        Raises
        ------
        StoreError
            If the scan is not registered.
        """
        record = self.stages.get(REGISTER, {})
        if "field" not in record or "reason" in record:
            raise StoreError(
                f'case {self.name} is not registered with a first scan: run `Pipeline.followup(register="deformable")`',
                case=self.name,
            )
        affine = np.reshape(record["affine"], (3, 4))
        return transform_of(affine, self._stored_array(DISPLACEMENT)[:], Geometry.from_dict(record["field"]))

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Record of each finished stage: the cache key of its inputs, and its results."""
        return dict(self._attribute("stages", {}))

    @property
    def failure(self) -> dict[str, str] | None:
        """Stage and reason of the last failure; None if there is none."""
        return self._attribute("failure")

    @property
    def damage(self) -> dict[str, dict[str, Any]]:
        """``reason`` and former ``record`` of each corrupt stage, by stage."""
        return dict(self._attribute("damaged", {}))

    @property
    def has_labels(self) -> bool:
        """True if the case was labelled by any model, even if files of its labels are corrupt."""
        return LABEL in self.stages or LABEL in self.damage

    @property
    def salt(self) -> str:
        """Random hexadecimal digits of this case, from which exports derive their identifiers."""
        return str(self._attribute("salt", ""))

    @property
    def watched(self) -> dict[str, dict[str, Any]]:
        """Resource usage of each stage, in seconds and bytes. Equal runs differ only in this and in `salt`."""
        return dict(self._attribute(USAGE, {}))

    @property
    def quality(self) -> dict[str, Any]:
        """Recorded numbers for quality control, with the cache key of the mask that they belong to; may be empty."""
        return dict(self._attribute(QUALITY, {}))

    @property
    def evaluations(self) -> dict[str, dict[str, Any]]:
        """Records of the agreement with references, by what was compared; see `lungmix.stages.evaluate`."""
        return dict(self._attribute(COMPARED, {}))

    @property
    def origin(self) -> dict[str, Any] | None:
        """Cache key and source digest of the conversion, even if it is corrupt or was interrupted; None if unknown."""
        attributes = self._attributes
        corrupt_record = attributes.get("damaged", {}).get(CONVERT, {}).get("record")
        return attributes.get("stages", {}).get(CONVERT) or corrupt_record or attributes.get("begun")

    @property
    def provenance(self) -> dict[str, Any]:
        """Full history of this case, JSON-ready, with the number and total size of the objects of each stage."""
        attributes = self._attributes
        corrupt_records = [damage["record"] for damage in attributes.get("damaged", {}).values()]
        for record in [*attributes.get("stages", {}).values(), *corrupt_records]:
            files = record.pop("files", {})
            record |= {"objects": len(files), "bytes": sum(size for size, _ in files.values())}
        if PACKED in attributes:
            attributes[PACKED] = {"below_hu": attributes[PACKED].get("below_hu")}
        for record in attributes.get(COMPARED, {}).values():
            # Rows are left out, as the tables of the store contain them.
            record["regions"] = [row.get("region") for row in record.pop("rows", [])]
            record.pop("by_hu", None)
        return {key: value for key, value in attributes.items() if key not in ("salt", "working")}

    def _is_published(self, stage: str | None) -> bool:
        """Return True if a stage is finished in the store now, which may have changed since this case was opened."""
        return stage in self._read_attributes().get("stages", {})

    def _read_attributes(self) -> dict[str, Any]:
        """Read the current attributes from the store."""
        content = zarr_adapter.read(self._group.store, self._key("zarr.json"))
        return {} if content is None else json.loads(content).get("attributes", {}).get(ATTRIBUTE, {})

    @property
    def _attributes(self) -> dict[str, Any]:
        return copy.deepcopy(self._shared_attributes)

    def _attribute(self, name: str, default: Any = None) -> Any:
        """Return a copy of one attribute, which costs less than copying all."""
        return copy.deepcopy(self._shared_attributes.get(name, default))

    @property
    def _shared_attributes(self) -> dict[str, Any]:
        """Attributes as they are cached, without a copy; they must not be changed."""
        attributes = self._group.attrs.get(ATTRIBUTE)
        if not isinstance(attributes, dict):
            raise StoreError(
                f"case {self.name} has no lungmix attributes: run `Pipeline.convert(sources)` again", case=self.name
            )
        return attributes

    def _key(self, key: str) -> str:
        return f"{self._group.path}/{key}".lstrip("/")

    def _stored_array(self, path: str) -> StoredArray:
        return StoredArray(self.name, path, self._array(path))

    def _array(self, path: str) -> zarr.Array[Any]:
        if path in self._arrays:
            return self._arrays[path]
        try:
            array = self._group[path]
        except KeyError:
            name = path.rsplit("/", 1)[0].removeprefix("labels/")
            raise StoreError(f"case {self.name} has no {path} yet: {remedy_without(name)}", case=self.name) from None
        if not isinstance(array, zarr.Array):
            raise StoreError(
                f"case {self.name}: {path} is not an array, the store is corrupt: convert the case again",
                case=self.name,
            )
        self._arrays[path] = array = zarr_adapter.array_at(array.store, array.path, array.metadata)
        return array


def posterior_table(case: Case, key: str) -> npt.NDArray[np.float64]:
    """Return the posterior of a tissue by HU, under the mixture of a case's labels.

    Parameters
    ----------
    case : Case
        Labelled case.
    key : str
        Key of a tissue; ``component_1`` and so on for a mixture of another number of components than five.

    Returns
    -------
    ndarray of float64, shape (65536,)
        Entry ``i`` is the posterior at ``i - 32768`` HU.

    Raises
    ------
    StoreError
        If the case has no labels, or its mixture no such component.
    """
    model = case.model
    if model is None:
        raise StoreError(
            f"case {case.name} has no labels by a recorded mixture, so no posteriors: run `Pipeline.label()` first",
            case=case.name,
        )
    keys = component_keys(model.n_components)
    if key not in keys:
        raise StoreError(f"there is no tissue {key!r}: choose one of {', '.join(keys)}", case=case.name)
    return model.posterior_table()[:, keys.index(key)]


def remedy_without(name: str) -> str:
    """Return what to do where an image does not exist."""
    return f"run {_run_with(name)} first"


def _run_with(name: str) -> str:
    """Return the call that makes an image."""
    if name in REGISTERED_MAPS:
        return '`Pipeline.followup(register="deformable")`'
    smooth = dict.fromkeys(ONLY_SOME_LABELS, ', smooth="potts"')
    options = {"lobe": ", masks=PLACE", "zone": ', zones="volume"', HARMONISED: ', harmonise="kernel"', **smooth}
    return f"`Pipeline.run(sources{options.get(name, '')})`"


def image_schema(name: str) -> ArraySchema:
    """Return the schema of an image or label map.

    Raises
    ------
    StoreError
        If there is no image of this name.
    """
    if name not in IMAGES:
        raise StoreError(f"there is no image {name!r}: choose one of {', '.join(IMAGES)}")
    return ARRAYS[name]
