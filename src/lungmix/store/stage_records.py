"""Attributes of a case: which of its stages are finished, corrupt, failed or in progress."""

from __future__ import annotations

import copy
import json
import secrets
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import Group
from zarr.core.sync import sync

from lungmix._version import __version__
from lungmix.errors import StoreError
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.store.metadata import ATTRIBUTE
from lungmix.store.objects import Receipts

WATCHED = "watched"
CHUNK_SLICES = "chunk_slices"
STAGES = ("convert", "mask", "side", "label")
"""Stages of a case in their order."""

_DISPLAY_NAMES = {"side": "right/left"}


def stages_text(stages: Iterable[str]) -> str:
    """Return a list of stages for display."""
    return ", ".join(_DISPLAY_NAMES.get(stage, stage) for stage in stages) or "nothing yet"


DEPENDENTS = {"convert": ("mask", "side", "label"), "mask": ("side", "label"), "side": (), "label": ()}
"""By stage, the stages that are invalid once its result changes."""

_ORDER = (
    "geometry",
    "acquisition",
    "salt",
    CHUNK_SLICES,
    "begun",
    "air",
    "stages",
    "damaged",
    "failure",
    "working",
    WATCHED,
)
_ATTEMPT_TIMEOUT_S = 10.0


class CaseState:
    """Base class of `Case` that reads and writes attributes only; every change is one atomic write."""

    name: str
    _group: Group

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Record of each finished stage: the cache key of its inputs, and its results."""
        return dict(self._attributes.get("stages", {}))

    @property
    def failure(self) -> dict[str, str] | None:
        """Stage and reason of the last failure; None if there is none."""
        return self._attributes.get("failure")

    @property
    def damage(self) -> dict[str, dict[str, Any]]:
        """By corrupt stage, the reason and the record that the stage had."""
        return dict(self._attributes.get("damaged", {}))

    @property
    def has_labels(self) -> bool:
        """True where the case was labelled, by whichever model, also if files of its labels are corrupt."""
        return "label" in self.stages or "label" in self.damage

    @property
    def salt(self) -> str:
        """Random hexadecimal digits of this case, from which exports derive their identifiers."""
        return str(self._attributes.get("salt", ""))

    @property
    def watched(self) -> dict[str, dict[str, Any]]:
        """Resource usage by stage, seconds and bytes. Equal runs differ in this attribute and in `salt` only."""
        return dict(self._attributes.get(WATCHED, {}))

    @property
    def origin(self) -> dict[str, Any] | None:
        """``key`` and ``source`` of the conversion, also where it is corrupt or was interrupted."""
        attributes = self._attributes
        corrupt_record = attributes.get("damaged", {}).get("convert", {}).get("record")
        return attributes.get("stages", {}).get("convert") or corrupt_record or attributes.get("begun")

    @property
    def packed_threshold(self) -> int | None:
        """Threshold of the packed air, HU; voxels below it are set. None where the packed air is incomplete."""
        return self._attributes.get("air", {}).get("below_hu")

    @property
    def packed_files(self) -> Receipts:
        """Receipts of the packed air."""
        return dict(self._attributes.get("air", {}).get("files", {}))

    @property
    def chunk_slices(self) -> int | None:
        """Slices of a chunk, where the user chose them; see `lungmix.store.chunking.layout_of`."""
        return self._attributes.get(CHUNK_SLICES)

    def begin(
        self,
        geometry: Geometry,
        acquisition: Acquisition,
        origin: Mapping[str, str] | None = None,
        chunk_slices: int | None = None,
    ) -> None:
        """Write the attributes of a scan before its conversion, without any stage."""
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
        self._write_attributes({**attributes, WATCHED: {**attributes.get(WATCHED, {}), **usage}})

    def start_stage(self, stage: str, key: str, also: Sequence[str] = ()) -> str:
        """Remove the record of a stage before it is computed from inputs of cache key `key`.

        Dependent stages are kept only if the stage is recomputed with the cache key it had.

        Parameters
        ----------
        stage : str
            Name of the stage.
        key : str
            Cache key of its inputs.
        also : sequence of str
            Stages that the same tasks compute.

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
            Cache key of its inputs, and its results.
        files : dict, optional
            Receipts of all objects that the stage wrote.
        """
        attributes = self._attributes
        for obsolete in ("failure", "working", *(("begun",) if stage == "convert" else ())):
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
        attributes = {key: value for key, value in self._attributes.items() if key != "air"}
        if below_hu is not None:
            attributes["air"] = {"below_hu": below_hu, "files": dict(sorted((files or {}).items()))}
        self._write_attributes(attributes)

    def record_failure(self, stage: str, reason: str) -> None:
        """Record why a stage failed."""
        attributes = {key: value for key, value in self._attributes.items() if key != "working"}
        self._write_attributes({**attributes, "failure": {"stage": stage, "reason": reason}})

    def mark_damaged(self, stage: str, reason: str) -> None:
        """Invalidate a stage whose objects do not match their receipts; dependent stages stay valid."""
        attributes = self._attributes
        if stage not in attributes["stages"]:
            return
        stages = {name: record for name, record in attributes["stages"].items() if name != stage}
        damage = {"reason": reason, "record": attributes["stages"][stage]}
        damaged = {**attributes.get("damaged", {}), stage: damage}
        self._write_attributes({**attributes, "stages": stages, "damaged": damaged})

    @property
    def provenance(self) -> dict[str, Any]:
        """Full history of this case, JSON-ready, with the number and total size of the objects of each stage."""
        attributes = self._attributes
        corrupt_records = [damage["record"] for damage in attributes.get("damaged", {}).values()]
        for record in [*attributes.get("stages", {}).values(), *corrupt_records]:
            files = record.pop("files", {})
            record |= {"objects": len(files), "bytes": sum(size for size, _ in files.values())}
        if "air" in attributes:
            attributes["air"] = {"below_hu": attributes["air"].get("below_hu")}
        return {key: value for key, value in attributes.items() if key not in ("salt", "working")}

    @property
    def under_way(self) -> str | None:
        """Stage that was in progress when this case was opened; None if there was none."""
        return self._attributes.get("working", {}).get("stage")

    @property
    def attempt(self) -> str | None:
        """Attempt that was in progress when this case was opened; None if there was none."""
        return self._attributes.get("working", {}).get("attempt")

    def check_attempt(self, attempt: str) -> None:
        """Raise if another attempt has replaced this one.

        Raises
        ------
        StoreError
            If no attempt, or another one, is in progress for the case.
        """
        deadline = time.monotonic() + _ATTEMPT_TIMEOUT_S
        while True:
            if self._read_attributes().get("working", {}).get("attempt") == attempt:
                return
            # Network file systems make a change visible to other machines only after some seconds.
            if time.monotonic() > deadline:
                raise StoreError(
                    f"case {self.name} is being recomputed by another run: nothing more was written; "
                    "run the same command again once that one has ended",
                    case=self.name,
                )
            time.sleep(0.5)

    def is_published(self, stage: str) -> bool:
        """Return True if a stage is finished in the store now, not when this case was opened."""
        return stage in self._read_attributes().get("stages", {})

    def _read_attributes(self) -> dict[str, Any]:
        """Read the current attributes from the store."""
        path = f"{self._group.path}/zarr.json".lstrip("/")
        buffer = sync(self._group.store.get(path, default_buffer_prototype()))
        return {} if buffer is None else json.loads(buffer.to_bytes()).get("attributes", {}).get(ATTRIBUTE, {})

    @property
    def _attributes(self) -> dict[str, Any]:
        attributes = self._group.attrs.get(ATTRIBUTE)
        if not isinstance(attributes, dict):
            raise StoreError(
                f"case {self.name} has no lungmix attributes: run `Pipeline.convert(sources)` again", case=self.name
            )
        return copy.deepcopy(attributes)

    def _write_attributes(self, attributes: dict[str, Any]) -> None:
        """Write the attributes in a fixed order, so that equal cases have equal bytes."""
        stages = attributes.get("stages", {})
        order = [name for name in STAGES if name in stages] + [name for name in stages if name not in STAGES]
        attributes = {**attributes, "stages": {name: stages[name] for name in order}}
        always = ("acquisition", "stages")
        ordered = {key: attributes[key] for key in _ORDER if key in attributes and (attributes[key] or key in always)}
        self._group.attrs[ATTRIBUTE] = ordered | {key: attributes[key] for key in attributes if key not in _ORDER}
