"""Given masks: reads a mask file, writes the lung mask and its histogram, and the regions that the file distinguishes.

The record of such a mask has the digest of its file and the numbers of the labels that were used, and no text of the
file. All later stages treat it like a computed mask.
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
from lungmix.stages.mask_labels import (
    LABELS,
    LUNGMASK,
    LUNGMASK_LOBES,
    LabelChoice,
    choose_labels,
    labels_by_values,
)
from lungmix.stages.mask_writing import WrittenMask, create_arrays, publish, write_mask
from lungmix.stages.plausibility import ACCEPTED
from lungmix.stages.reading import read_on_worker
from lungmix.stages.shared_voxels import SharedVoxels, lobes_of, note_on_lobes, note_on_shared
from lungmix.store import Case, CaseRef, CaseWriter
from lungmix.store.digests import cache_key
from lungmix.store.models import record_of
from lungmix.store.schema import FROM_FILE

_WITHOUT_NAMES = {
    LUNGMASK: "1 and 2 without names: they were taken as right and left lung",
    LUNGMASK_LOBES: "1 to 5 without names: they were taken as lobes",
}
"""By convention, what labels without names were taken as."""


def key_for(case: Case, mask: MaskFile, labels: MaskLabels | None, computed: MaskStage) -> str:
    """Return the cache key of a given mask.

    The key contains the parameters of masks, because they determine right and left if the file does not. Earlier
    versions did not store lobes, so the key of a file that names lobes differs from theirs.
    """
    lobes = {"lobes": True} if labels is None and lobes_of(mask) else {}
    return cache_key(
        stage=STAGE, version=1, **convert.image_inputs(case), geometry=case.geometry.to_dict(),
        file=mask.fingerprint, labels=None if labels is None else [list(pair) for pair in labels.segments],
        parameters=parameters_of(mask, computed).to_dict(), **lobes,
    )  # fmt: skip


def parameters_of(mask: MaskFile, computed: MaskStage) -> MaskParameters:
    """Return the parameters by which right and left of a mask are found: those that the file names, or the run's."""
    return mask.parameters or computed.parameters


def is_given(case: Case) -> bool:
    """Return True if the mask of a case came from a file or a segmenter, even if it is corrupt now."""
    return FROM_FILE in record_of(case, STAGE)


@dataclass(frozen=True)
class GivenMaskStage:
    """Stage that takes the lung masks of cases from files; for cases without a file it runs the computing stage.

    Attributes
    ----------
    computed : MaskStage
        Stage that computes the masks of cases without a file. Its parameters also determine how right and left are
        found in a mask whose file names neither right and left nor the parameters that made it.
    masks : mapping of str to MaskFile
        Mask files by case.
    labels : MaskLabels, optional
        Meaning of the labels in the files, as the user gave it.
    missing : mapping of str to str
        For cases that no given file belongs to, the reason. Such a case fails.
    kept : set of str
        Cases that keep their mask, which came from a file or a segmenter in an earlier run.
    """

    computed: MaskStage
    masks: Mapping[str, MaskFile] = field(default_factory=dict)
    labels: MaskLabels | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    kept: Set[str] = frozenset()
    name: str = STAGE

    def cache_key(self, case: Case) -> str | None:
        """Return the cache key of a valid mask of the case; None without an image."""
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
        """Write the given mask of the case, unless the store holds it; compute the mask of a case without a file.

        Raises
        ------
        RoomError
            If workers have too little memory.
        HuError
            If the values are not HU of a chest, and are accepted neither now nor in the record of the mask.
        SourceError
            If no file belongs to the case, or its file cannot be used. A mask from before is kept then.
        StoreError
            If the case is to keep its mask, but the mask is corrupt or the scan has changed.
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
        convert.check_image(case)
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
            # Read the file to its end first, so that an unusable file never replaces a good mask.
            claimed = CaseRef.of(context.cohort, name, case.claim(STAGE))
            read_on_worker(client, _check_usable, mask, claimed, choice.values)
        case_ref = CaseRef.of(context.cohort, name, case.start_stage(STAGE, key, (regions.STAGE,)))
        if case.packed_threshold != convert.AIR_THRESHOLD:
            # An earlier mask was computed at another threshold, and the store holds air below that one.
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
    """Return sentences that users should know about a mask from a file; none for computed masks."""
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
            f"its mask has the labels {_WITHOUT_NAMES.get(provenance['convention'], '')}, as by "
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
    """Raise `SourceError` unless a mask file is readable to its end and has voxels of lung where the scan is."""
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
    """Return the regions that have labels in the file of which no voxel has any."""
    chosen = {*choice.values.values()} - written.labels
    return [region for region, label in LABELS.items() if label in chosen]
