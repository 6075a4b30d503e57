"""One case: its objects, its image, its stages and its rows, each compared with the same made again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from distributed import Client

from lungmix.errors import DamageError, LungmixError, UsageError, redact
from lungmix.formats import Scan
from lungmix.kernels.histogram import N_HU
from lungmix.kernels.packed_masks import pack_below
from lungmix.kernels.plausibility import add_all, summarize
from lungmix.mixture import TissueModel
from lungmix.parameters import MaskParameters
from lungmix.stages import convert, label, mask, measure, regions
from lungmix.stages.plausibility import is_accepted
from lungmix.store import MEASUREMENTS_FILE, STAGES, Case, Cohort, stage_of
from lungmix.store.objects import Receipts
from lungmix.store.tables import lines_of, text_of
from lungmix.verify.objects import corrupt_objects, unexpected_objects
from lungmix.verify.problems import Verification
from lungmix.verify.scratch import scratch_store

_NOT_FOUND = ("key", "files", "lungmix_version", "model_name")
"""Parts of a record that say how a result was made, in place of what it is."""

Tell = Callable[..., None]


@dataclass(frozen=True)
class Comparison:
    """A case that is looked at, and where to tell what differs."""

    client: Client
    cohort: Cohort
    case: Case
    scan: Scan | None
    model: TissueModel | None
    found: Verification

    @property
    def add_problem(self) -> Tell:
        """Take note of a difference; see `Verification.tell`."""
        return partial(self.found.add_problem, self.case.name)

    @property
    def add_note(self) -> Callable[[str], None]:
        """Take note of what is no difference."""
        return partial(self.found.add_note, self.case.name)

    def compare(self) -> None:
        """Look at the objects, then make all of it again."""
        case = self.case
        if case.failure is not None:
            self.add_problem(f"{case.failure['stage']} failed: {case.failure['reason']}")
        for stage, one in case.damage.items():
            self.add_problem(f"{stage}: {one['reason']}")
        damaged = corrupt_objects(case)
        for key in damaged:
            self.add_problem(f"{key} is not what was written", stage_of(key))
        for key, words in unexpected_objects(case).items():
            self.add_problem(words, stage_of(key) if key not in STAGES else None)
        if not case.is_described and convert.STAGE in case.stages:
            self.add_problem("its OME-Zarr metadata do not match its geometry: the next `lungmix run` rewrites them")
        if convert.STAGE not in case.stages:
            self.add_problem("there is no whole image")
        elif not damaged and not case.damage and self._are_records():
            try:
                self._make_again()
            except DamageError as error:
                self.add_problem(error.fault, stage_of(error.array))
            except LungmixError as error:
                self.add_problem(error.raw_message)

    def _are_records(self) -> bool:
        """Whether the records of the stages hold what their stages write."""
        wrong = [stage for stage, record in self.case.stages.items() if not _is_record(stage, record)]
        for stage in wrong:
            self.add_problem(f"the record of the stage {stage} is damaged", stage)
        return not wrong

    def _make_again(self) -> None:
        case, name = self.case, self.case.name
        if self.scan is not None:
            self._compare_source(self.scan)
        with scratch_store(self.cohort) as scratch:
            self._image_again(scratch)
            if mask.STAGE not in case.stages:
                if case.failure is None:
                    self.add_note("it has no lung mask")
                return
            parameters = MaskParameters(**case.stages[mask.STAGE]["parameters"])
            mask.mask_case(self.client, scratch, name, parameters, accept_hu=is_accepted(case))
            self._differing(scratch[name], mask.STAGE)
            if label.STAGE not in case.stages and case.failure is None:
                self.add_note("it has no labels")
            if self.model is None:
                if label.STAGE in case.stages:
                    self.add_problem("its labels cannot be made again without the store's model")
                return
            if case.stages.get(label.STAGE, {}).get("key") not in (None, label.key_for(case, self.model)):
                self.add_problem("its labels are not those of the store's model: run `lungmix label`")
                return
            if {regions.STAGE, label.STAGE} & case.stages.keys():
                label.label_case(self.client, scratch, name, self.model)
                self._differing(scratch[name], regions.STAGE)
                self._differing(scratch[name], label.STAGE)
        if label.STAGE in case.stages:
            self._compare_rows(self.model)

    def _compare_source(self, scan: Scan) -> None:
        """Compare image and metadata with the source."""
        case, digest = self.case, hashlib.sha256()
        record = case.stages[convert.STAGE]
        here, there = (one.acquisition.technical().to_dict() for one in (case, scan))
        strange = [
            what
            for what in ("size", "spacing", "origin", "direction", "orientation_known")
            if getattr(case.geometry, what) != getattr(scan.geometry, what)
        ]
        strange += sorted(key for key in {*here, *there} if here.get(key) != there.get(key))
        if strange:
            anew = record["key"] != convert.key_for(scan)
            remedy = "run `lungmix run`" if anew else "`lungmix remove` it and run `lungmix run`"
            self.add_problem(f"{', '.join(strange)}: not as in the source: {remedy} with its SOURCE")
        for slab in scan.slabs(case.layout.slab):
            digest.update(slab.tobytes())
        if digest.hexdigest() != record["voxels_sha256"]:
            self.add_problem("the image is not that of the source", convert.STAGE)
        if not {redact(note) for note in scan.notes} <= set(record.get("notes", [])):
            self.add_problem("the notes on it are not those of the source")

    def _image_again(self, scratch: Cohort) -> None:
        """Write the stored voxels once more, and compare them, their coarser levels and the packed air."""
        case = self.case
        copy = scratch.add(case.name, case.geometry, case.acquisition, chunk_slices=case.chunk_slices)
        record = dict(case.stages[convert.STAGE])
        before: Receipts = record.pop("files", {})
        files, digest, threshold = copy.create_image("ct"), hashlib.sha256(), case.packed_threshold
        packed = {} if threshold is None else copy.create_packed(convert.AIR)
        counts = np.zeros(N_HU, np.uint64)
        for start, stop in case.layout.slabs():
            slab = case.read("ct", start, stop)
            digest.update(slab.data)
            add_all(slab, counts)
            files |= copy.write("ct", start, slab)
            if threshold is not None:
                packed |= copy.write_packed(convert.AIR, start, pack_below(slab, threshold))
        if threshold is not None:
            copy.record_packed(threshold, packed)
        copy.record(convert.STAGE, record, files)
        if digest.hexdigest() != record["voxels_sha256"]:
            self.add_problem("the image is not the one that was converted", convert.STAGE)
        elif record.get(convert.HU, summarize(counts).to_dict()) != summarize(counts).to_dict():
            self.add_problem("the summary of its HU is not that of its voxels", convert.STAGE)
        self._compare_files(before, files, convert.STAGE)
        self._compare_files(case.packed_files, packed, convert.AIR)

    def _compare_files(self, before: Receipts, after: Receipts, stage: str) -> None:
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                self.add_problem(f"{key} comes out otherwise", stage)

    def _differing(self, again: Case, stage: str) -> None:
        """Compare what a stage wrote and found with the same made again."""
        if stage not in self.case.stages:
            return
        was, now = self.case.stages[stage], again.stages[stage]
        if was["key"] != now["key"]:
            self.add_problem(f"{stage} was made from something else, or by another version")
            return
        self._compare_files(was.get("files", {}), now.get("files", {}), stage)
        # An earlier version may have recorded less.
        for what in sorted(was.keys() - {*_NOT_FOUND}):
            if was.get(what) != now.get(what):
                self.add_problem(f"{what} of the stage {stage} comes out otherwise", stage)

    def _compare_rows(self, model: TissueModel) -> None:
        """Compare the rows of the tables with what the counts give."""
        name = self.case.name
        for file in measure.TABLES:
            text = self.cohort.read_text(file)
            head, lines = lines_of(text or "")
            if name not in lines:
                if text is not None or file == MEASUREMENTS_FILE:
                    self.add_note(f"it is not in {file}: `lungmix measure` measures it")
                continue
            rows = measure.rows_of_case(self.case, file, model, measure.excluded_regions(self.cohort))
            expected = lines_of(text_of(rows))
            if head != expected[0]:
                self.found.add_problem(file, "its columns are not those of the store's model: run `lungmix measure`")
            elif lines[name] != expected[1][name]:
                self.add_problem(f"its row in {file} is not what its counts give: run `lungmix measure`")


def _is_record(stage: str, record: Mapping[str, Any]) -> bool:
    try:
        MaskParameters(**(record["parameters"] if stage == mask.STAGE else {}))
        texts = [record["key"], *([record["voxels_sha256"]] if stage == convert.STAGE else [])]
        return all(isinstance(text, str) for text in texts) and isinstance(record.get("touches", {}), dict)
    except (KeyError, TypeError, UsageError):
        return False
