"""What a case knows of itself: the attributes that say which stages are finished, damaged, failed or under way."""

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

_WORDS = {"side": "right/left"}


def stages_text(stages: Iterable[str]) -> str:
    """Return stages in words for people."""
    return ", ".join(_WORDS.get(stage, stage) for stage in stages) or "nothing yet"


DEPENDENTS = {"convert": ("mask", "side", "label"), "mask": ("side", "label"), "side": (), "label": ()}
"""What is no longer true when a stage gives something else."""

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
_PATIENCE_S = 10.0


class CaseState:
    """The part of a `Case` that only metadata is read and written for; every change is one atomic write."""

    name: str
    _group: Group

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Record of each finished stage: the key of what it was made from, and what it found."""
        return dict(self._own.get("stages", {}))

    @property
    def failure(self) -> dict[str, str] | None:
        """Stage and reason of the last failure; None if there is none."""
        return self._own.get("failure")

    @property
    def damage(self) -> dict[str, dict[str, Any]]:
        """By stage: why what it wrote cannot be used any more, and the record it had."""
        return dict(self._own.get("damaged", {}))

    @property
    def salt(self) -> str:
        """Random digits of this case: what exports derive their identifiers from."""
        return str(self._own.get("salt", ""))

    @property
    def watched(self) -> dict[str, dict[str, Any]]:
        """Time and memory that each stage took: all that two runs on the same sources may differ in."""
        return dict(self._own.get(WATCHED, {}))

    @property
    def origin(self) -> dict[str, Any] | None:
        """``key`` and ``source`` of the conversion, also where it is damaged or did not come to its end."""
        own = self._own
        damaged = own.get("damaged", {}).get("convert", {}).get("record")
        return own.get("stages", {}).get("convert") or damaged or own.get("begun")

    @property
    def packed_threshold(self) -> int | None:
        """HU below which voxels are set in the packed air; None if it is not complete."""
        return self._own.get("air", {}).get("below_hu")

    @property
    def packed_files(self) -> Receipts:
        """Receipts of the packed air."""
        return dict(self._own.get("air", {}).get("files", {}))

    @property
    def chunk_slices(self) -> int | None:
        """Slices of a chunk, if they were chosen; see `lungmix.store.chunking.layout_of`."""
        return self._own.get(CHUNK_SLICES)

    def begin(
        self,
        geometry: Geometry,
        acquisition: Acquisition,
        origin: Mapping[str, str] | None = None,
        chunk_slices: int | None = None,
    ) -> None:
        """Describe a scan that is about to be converted; forgets all earlier stages."""
        begun = {"begun": dict(origin)} if origin else {}
        self._keep(
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
        """Replace the technical attributes."""
        self._keep({**self._own, "acquisition": acquisition.to_dict()})

    def note(self, watched: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what stages took."""
        own = self._own
        self._keep({**own, WATCHED: {**own.get(WATCHED, {}), **watched}})

    def start(self, stage: str, key: str, also: Sequence[str] = ()) -> str:
        """Withdraw the record of a stage that is about to be made from `key`.

        What depends on it stays only where the same is made again.

        Parameters
        ----------
        stage : str
            Its name.
        key : str
            What it is made from.
        also : sequence of str
            Stages that are made in the same passes.

        Returns
        -------
        str
            Name of this attempt: tasks of an earlier one, left over from a run that was killed, write no more.
        """
        own = self._own
        damaged = own.get("damaged", {})
        before = own["stages"].get(stage) or damaged.get(stage, {}).get("record", {})
        gone = {stage, *also} if before.get("key") == key else {stage, *also, *DEPENDENTS[stage]}
        attempt = uuid.uuid4().hex
        self._keep(
            {
                **own,
                "stages": {name: record for name, record in own["stages"].items() if name not in gone},
                "damaged": {name: one for name, one in damaged.items() if name not in gone - {stage, *also}},
                "working": {"stage": stage, "attempt": attempt},
            }
        )
        return attempt

    def record(self, stage: str, record: Mapping[str, Any], files: Receipts | None = None) -> None:
        """Publish a finished stage.

        Parameters
        ----------
        stage : str
            Its name.
        record : mapping
            The key of what it was made from, and what it found.
        files : dict, optional
            Receipts of all objects that it wrote.
        """
        own = self._own
        for passed in ("failure", "working", *(("begun",) if stage == "convert" else ())):
            own.pop(passed, None)
        whole = {
            **record,
            "lungmix_version": __version__,
            **({"files": dict(sorted(files.items()))} if files is not None else {}),
        }
        self._keep(
            {
                **own,
                "stages": {**own.get("stages", {}), stage: whole},
                "damaged": {name: one for name, one in own.get("damaged", {}).items() if name != stage},
            }
        )

    def record_packed(self, below_hu: int | None, files: Receipts | None = None) -> None:
        """Publish the packed air and its receipts, or withdraw it with None."""
        own = {key: value for key, value in self._own.items() if key != "air"}
        if below_hu is not None:
            own["air"] = {"below_hu": below_hu, "files": dict(sorted((files or {}).items()))}
        self._keep(own)

    def fail(self, stage: str, reason: str) -> None:
        """Record why a stage failed."""
        own = {key: value for key, value in self._own.items() if key != "working"}
        self._keep({**own, "failure": {"stage": stage, "reason": reason}})

    def mark_damaged(self, stage: str, reason: str) -> None:
        """Withdraw a stage whose objects are not what it wrote; what depends on it is still true."""
        own = self._own
        if stage not in own["stages"]:
            return
        stages = {name: record for name, record in own["stages"].items() if name != stage}
        damaged = {**own.get("damaged", {}), stage: {"reason": reason, "record": own["stages"][stage]}}
        self._keep({**own, "stages": stages, "damaged": damaged})

    @property
    def provenance(self) -> dict[str, Any]:
        """All that is known of how this case was made, JSON-ready, with the objects of each stage added up."""
        own = self._own
        for record in [*own.get("stages", {}).values(), *(one["record"] for one in own.get("damaged", {}).values())]:
            files = record.pop("files", {})
            record |= {"objects": len(files), "bytes": sum(size for size, _ in files.values())}
        if "air" in own:
            own["air"] = {"below_hu": own["air"].get("below_hu")}
        return {key: value for key, value in own.items() if key not in ("salt", "working")}

    @property
    def under_way(self) -> str | None:
        """The stage that was under way when this case was opened."""
        return self._own.get("working", {}).get("stage")

    @property
    def attempt(self) -> str | None:
        """The attempt that was under way when this case was opened."""
        return self._own.get("working", {}).get("attempt")

    def check_attempt(self, attempt: str) -> None:
        """Refuse to go on for an attempt that another one has replaced.

        Raises
        ------
        StoreError
            If the case is not being worked on, or by another attempt.
        """
        end = time.monotonic() + _PATIENCE_S
        while True:
            if self._now().get("working", {}).get("attempt") == attempt:
                return
            # Network file systems show a change to other machines after some seconds.
            if time.monotonic() > end:
                raise StoreError(f"case {self.name} is being made anew by another run: this one gives it up")
            time.sleep(0.5)

    def is_published(self, stage: str) -> bool:
        """Whether a stage is finished now, whatever it was when this case was opened."""
        return stage in self._now().get("stages", {})

    def _now(self) -> dict[str, Any]:
        """The attributes as they stand in the store now."""
        path = f"{self._group.path}/zarr.json".lstrip("/")
        buffer = sync(self._group.store.get(path, default_buffer_prototype()))
        return {} if buffer is None else json.loads(buffer.to_bytes()).get("attributes", {}).get(ATTRIBUTE, {})

    @property
    def _own(self) -> dict[str, Any]:
        own = self._group.attrs.get(ATTRIBUTE)
        if not isinstance(own, dict):
            raise StoreError(f"case {self.name} carries no lungmix attributes: run `lungmix convert` again")
        return copy.deepcopy(own)

    def _keep(self, own: dict[str, Any]) -> None:
        """Write the attributes in one order, so that equal cases have equal bytes."""
        stages = own.get("stages", {})
        order = [name for name in STAGES if name in stages] + [name for name in stages if name not in STAGES]
        own = {**own, "stages": {name: stages[name] for name in order}}
        known = {key: own[key] for key in _ORDER if key in own and (own[key] or key in ("acquisition", "stages"))}
        self._group.attrs[ATTRIBUTE] = {**known, **{key: own[key] for key in own if key not in _ORDER}}
