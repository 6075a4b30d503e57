"""Given masks: reads a mask file, writes the lung mask and its histogram, and the regions that the file tells.

The record of such a mask has the digest of its file and the labels that were taken, and no text of the file. Whatever
follows the mask stage treats it like a computed one.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from lungmix.errors import SourceError, StoreError, error_about, mark_path
from lungmix.formats.masks import MaskFile
from lungmix.geometry import Geometry
from lungmix.parameters import MaskLabels, MaskParameters
from lungmix.stages import convert, regions
from lungmix.stages.base import StageContext, Status
from lungmix.stages.imported_labels import (
    check_memory,
    checked_slabs,
    grid_of,
    labels_on_grid,
    reading_thickness,
)
from lungmix.stages.mask import STAGE, MaskStage, check_hu, pack_air
from lungmix.stages.mask_labels import LABELS, LabelChoice, choose_labels, labels_by_values
from lungmix.stages.mask_writing import WrittenMask, create_arrays, publish, write_mask
from lungmix.stages.plausibility import ACCEPTED
from lungmix.stages.reading import read_on_worker
from lungmix.stages.shared_voxels import SharedVoxels, lobes_of, note_on_lobes, note_on_shared
from lungmix.store import Case, CaseRef, CaseWriter
from lungmix.store.digests import cache_key
from lungmix.store.models import record_of
from lungmix.store.schema import FROM_FILE


def key_for(case: Case, mask: MaskFile, labels: MaskLabels | None, computed: MaskStage) -> str:
    """Return the cache key of a given mask; where the file tells no sides, the sizes of masks determine these."""
    return cache_key(
        stage=STAGE, version=1, image=case.stages[convert.STAGE]["voxels_sha256"], geometry=case.geometry.to_dict(),
        file=mask.fingerprint, labels=None if labels is None else [list(pair) for pair in labels.segments],
        parameters=parameters_of(mask, computed).to_dict(),
    )  # fmt: skip


def parameters_of(mask: MaskFile, computed: MaskStage) -> MaskParameters:
    """Return the parameters by which right and left of a mask are found: those that the file says, or the user's."""
    return mask.parameters or computed.parameters


def is_given(case: Case) -> bool:
    """Return True where the mask of a case came from a file, also if it is corrupt."""
    return FROM_FILE in record_of(case, STAGE)


@dataclass(frozen=True)
class GivenMaskStage:
    """Stage that takes the lung masks of cases from files, and leaves other cases to the stage that computes masks.

    Attributes
    ----------
    computed : MaskStage
        Computes the masks of cases without a file; its parameters determine how right and left are found where a file
        tells neither them nor the parameters that made it.
    masks : mapping of str to MaskFile
        Mask files by case.
    labels : MaskLabels, optional
        Labels of the files by the user.
    missing : mapping of str to str
        By case, the reason why none of the given files is its mask. A case with a mask from an earlier file keeps it.
    kept : set of str
        Cases whose masks came from files in earlier runs.
    """

    computed: MaskStage
    masks: Mapping[str, MaskFile] = field(default_factory=dict)
    labels: MaskLabels | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    kept: Set[str] = frozenset()
    name: str = STAGE

    def cache_key(self, case: Case) -> str | None:
        """Return the key of a valid mask of the case; None without an image."""
        if case.name in self.masks:
            is_converted = convert.STAGE in case.stages
            return key_for(case, self.masks[case.name], self.labels, self.computed) if is_converted else None
        if case.name in self.kept or case.name in self.missing:
            return record_of(case, STAGE).get("key")
        return self.computed.cache_key(case)

    def air_hu(self, case_name: str, geometry: Geometry) -> int:
        """Return the HU below which the voxels of a case are air."""
        if case_name in {*self.masks, *self.missing, *self.kept}:
            return convert.AIR_THRESHOLD
        return self.computed.air_hu(case_name, geometry)

    def run(self, context: StageContext, case_name: str) -> Status:
        """Write the given mask of the case, unless the store holds it; or compute its mask.

        Raises
        ------
        RoomError
            If workers have too little memory.
        HuError
            If the values are not HU of a chest, and are accepted neither now nor in the record of the mask.
        SourceError
            If no file is the mask of the case, or its file cannot be used; an earlier mask stays then.
        StoreError
            If a mask of an earlier file is corrupt, or the scan has changed since.
        """
        if case_name in self.masks:
            return self._write(context, case_name, self.masks[case_name])
        case = context.cohort[case_name]
        if case_name in self.kept:
            if STAGE not in case.stages or (regions.are_from_file(case) and not regions.is_valid(case)):
                raise StoreError(
                    f"case {case_name}: its mask came from a file or a segmenter and is corrupt, or its scan has "
                    "changed: give its mask again, `masks=PLACE` or `mask_with=NAME`, or have it computed, "
                    "`masks='none'`",
                    case=case_name,
                )
            return "kept"
        if case_name in self.missing:
            raise SourceError(self.missing[case_name], case=case_name)
        return self.computed.run(context, case_name)

    def _write(self, context: StageContext, name: str, mask: MaskFile) -> Status:
        client, progress = context.client, context.progress(name, STAGE)
        case = CaseWriter(context.cohort[name])
        convert.check_converted(case)
        key = key_for(case, mask, self.labels, self.computed)
        accepted = check_hu(case, key, accept=self.computed.accept_hu)
        is_complete = not regions.are_from_file(case) or regions.is_valid(case)
        if case.stages.get(STAGE, {}).get("key") == key and is_complete:
            return "kept"
        check_memory(context.memory, case, mask)
        progress(0, 1)
        with error_about(path=mask.path, case=name):
            grid = grid_of(mask, case.geometry)
            choice = choose_labels(mask, self.labels) or read_on_worker(
                client, labels_by_values, mask, reading_thickness(mask, case)
            )
        if STAGE in case.stages:
            # Read the file to its end first, so that one that cannot be used never replaces a good mask.
            claimed = CaseRef.of(context.cohort, name, case.claim(STAGE))
            read_on_worker(client, _check_usable, mask, claimed, choice.values)
        case_ref = CaseRef.of(context.cohort, name, case.start_stage(STAGE, key, (regions.STAGE,)))
        if case.packed_threshold != convert.AIR_THRESHOLD:
            # A mask that was computed at another threshold has left its air.
            pack_air(client, case, case_ref, convert.AIR_THRESHOLD)
        files, side_files = create_arrays(case, choice)
        written = read_on_worker(client, _write_labels, mask, case_ref, choice)
        provenance: dict[str, Any] = {"file": mask.fingerprint, "kind": mask.kind, "grid": grid, **choice.to_dict()}
        if mask.made_by:
            provenance["made_by"] = mask.made_by
        if mask.file_count > 1:
            provenance["files"] = mask.file_count
        if written.shared:
            provenance["shared"] = written.shared
        if lobes := lobes_of(mask):
            provenance["lobes"] = lobes
        if self.labels is not None and (empty := _without_voxels(choice, written)):
            provenance["empty"] = empty
        if grid == "resampled" and mask.geometry is not None:
            provenance["mask_size"], provenance["mask_spacing"] = list(mask.geometry.size), list(mask.geometry.spacing)
        parameters = parameters_of(mask, self.computed).to_dict()
        record = {"key": key, "parameters": parameters, "voxels": written.voxels, FROM_FILE: provenance}
        publish(case, {**record, **({ACCEPTED: True} if accepted else {})}, written, choice, files, side_files)
        progress(1, 1)
        return "done"


def notes_on(case: Case) -> list[str]:
    """Return what users should know about the mask of a case that came from a file; empty for other masks."""
    provenance = record_of(case, STAGE).get(FROM_FILE, {})
    notes = []
    if provenance.get("grid") == "resampled":
        size, spacing = (
            " x ".join(f"{value:.4g}" for value in provenance.get(key, ())) for key in ("mask_size", "mask_spacing")
        )
        notes.append(
            f"its mask has another grid than the scan ({size} voxels of {spacing} mm): each voxel got the label of the "
            "nearest one"
        )
    if provenance.get("convention"):
        notes.append(
            f"its mask has the labels 1 and 2 without names: they were taken as right and left lung, as by "
            f"{provenance['convention']}; `mask_labels` says otherwise"
        )
    for region in provenance.get("empty", ()):
        numbers = provenance.get("labels", {}).get(region, [])
        notes.append(
            f"no voxel of its mask has the label{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}, which "
            f"`mask_labels` takes as {region}: check `mask_labels`"
        )
    if provenance.get("shared"):
        notes.append(note_on_shared(case, provenance["shared"]))
    if note := note_on_lobes(provenance.get("lobes", ()), provenance.get("labels", ())):
        notes.append(note)
    if provenance.get("omitted"):
        notes.append("its mask file names an airway, which is not lung: `mask_labels` takes it into the mask")
    return notes


def _check_usable(mask: MaskFile, case_ref: CaseRef, values: Mapping[int, int]) -> None:
    """Raise `SourceError` unless a mask file is readable to its end and has voxels of the labels in the scan."""
    case = case_ref.open()
    if grid_of(mask, case.geometry) == "same":
        for _ in checked_slabs(mask, values, mask.geometry or case.geometry, case.layout.slab):
            pass
        return
    with closing(labels_on_grid(mask, values, case_ref)) as slabs:
        if not any(labels.any() for _, _, labels in slabs):
            raise _no_lung_here(mask)


def _write_labels(mask: MaskFile, case_ref: CaseRef, choice: LabelChoice) -> WrittenMask:
    shared = SharedVoxels()
    with closing(labels_on_grid(shared.marked(mask), choice.values, case_ref)) as slabs:
        written = write_mask(shared.resolve(slabs), case_ref, choice)
    if not written.voxels:
        raise _no_lung_here(mask)
    return replace(written, shared=shared.count)


def _no_lung_here(mask: MaskFile) -> SourceError:
    return SourceError(f"{mark_path(mask.path)} has no lung where the scan lies: give the mask of this scan")


def _without_voxels(choice: LabelChoice, written: WrittenMask) -> list[str]:
    """Return the regions that have labels in the file, but no voxel of them."""
    chosen = {*choice.values.values()} - written.labels
    return [region for region, label in LABELS.items() if label in chosen]
