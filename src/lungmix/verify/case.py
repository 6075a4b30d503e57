"""Verification of one case: recompute its image, stages and rows of tables, and compare them with the stored ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.errors import DamageError, LungmixError, UsageError, redact
from lungmix.formats import Scan
from lungmix.kernels.data_dictionary import DENSE_COLUMNS, EXPECTED, HARMONISED_COLUMNS
from lungmix.kernels.histogram import N_HU
from lungmix.kernels.packed_masks import pack_below
from lungmix.kernels.plausibility import add_all, summarize
from lungmix.mixture import TissueModel
from lungmix.parameters import ZONE_RULES, MaskParameters
from lungmix.stages import (
    change,
    convert,
    harmonise,
    label,
    lung_zones,
    mask,
    measure,
    potts,
    quality,
    regions,
    register,
)
from lungmix.stages.anatomical import mask_stage
from lungmix.stages.base import StageContext
from lungmix.stages.given_mask import is_given
from lungmix.stages.mask_writing import create_arrays, publish, stored_choice, stored_labels, write_mask
from lungmix.stages.plausibility import is_accepted
from lungmix.store import (
    MEASUREMENTS_FILE,
    STAGES,
    ZONES_FILE,
    Case,
    CaseFiles,
    CaseRef,
    CaseWriter,
    Cohort,
    CohortWriter,
    stage_of,
)
from lungmix.store.choices import harmonised_by, last_quality
from lungmix.store.models import GIVEN
from lungmix.store.objects import Receipts
from lungmix.store.patients import first_scans
from lungmix.store.schema import PACKED, TABLES
from lungmix.store.tables import lines_of, text_of
from lungmix.verify.objects import corrupt_objects, unexpected_objects
from lungmix.verify.problems import Verification
from lungmix.verify.scratch import scratch_store

_PROVENANCE_KEYS = ("key", "files", "lungmix_version", "model_name")
"""Keys of a record that say how a result was computed and are not compared."""

AddProblem = Callable[..., None]


@dataclass(frozen=True)
class Comparison:
    """Comparison of a stored case with its recomputed results.

    Attributes
    ----------
    client : distributed.Client
        Client of the cluster that recomputes the case.
    cohort : Cohort
        The store.
    case : CaseFiles
        The case.
    scan : Scan or None
        Source of the case, if it is available.
    model : TissueModel or None
        Model of the store; None if it is missing or corrupt.
    verification : Verification
        Receives problems and notes.
    """

    client: Client
    cohort: Cohort
    case: CaseFiles
    scan: Scan | None
    model: TissueModel | None
    verification: Verification

    @property
    def add_problem(self) -> AddProblem:
        """Function that adds a problem of this case, see `Verification.add_problem`."""
        return partial(self.verification.add_problem, self.case.name)

    @property
    def add_note(self) -> Callable[[str], None]:
        """Function that adds a note on this case, see `Verification.add_note`."""
        return partial(self.verification.add_note, self.case.name)

    def compare(self) -> None:
        """Check the stored objects; if they are intact, recompute and compare all stages."""
        case = self.case
        if case.failure is not None:
            self.add_problem(f"{case.failure['stage']} failed: {case.failure['reason']}")
        for stage, damage in case.damage.items():
            self.add_problem(f"{stage}: {damage['reason']}")
        corrupt = corrupt_objects(case)
        for key in corrupt:
            self.add_problem(f"{key} is not what was written", stage_of(key))
        for key, message in unexpected_objects(case).items():
            self.add_problem(message, stage_of(key) if key not in STAGES else None)
        if not case.is_described and convert.STAGE in case.stages:
            self.add_problem(
                "its OME-Zarr metadata do not match its geometry: the next `Pipeline.run(sources)` rewrites them"
            )
        if convert.STAGE not in case.stages:
            self.add_problem("there is no complete image")
        elif not corrupt and not case.damage and self._check_records():
            try:
                self._recompute()
            except DamageError as error:
                self.add_problem(error.fault, stage_of(error.array))
            except LungmixError as error:
                self.add_problem(error.raw_message)

    def _check_records(self) -> bool:
        """Add a problem for each stage whose record is corrupt; return True if all records are valid."""
        corrupt = [stage for stage, record in self.case.stages.items() if not _is_record(stage, record)]
        for stage in corrupt:
            self.add_problem(f"the record of the stage {stage} is corrupt", stage)
        return not corrupt

    def _recompute(self) -> None:
        case, name = self.case, self.case.name
        if self.scan is not None:
            self._compare_source(self.scan)
        with scratch_store(self.cohort) as scratch:
            self._compare_image(scratch)
            context = StageContext(self.client, scratch)
            if harmonise.STAGE in case.stages and not self._recompute_harmonised(context):
                return
            if mask.STAGE not in case.stages:
                if case.failure is None:
                    self.add_note("it has no lung mask")
                return
            if is_given(case):
                self._copy_given_mask(scratch)
            else:
                parameters = MaskParameters(**case.stages[mask.STAGE]["parameters"])
                mask_stage(parameters, is_accepted(case)).run(context, name)
            self._compare_stage(scratch[name], mask.STAGE)
            if harmonise.STAGE in case.stages:
                self._compare_files(case.packed_files, CaseFiles(scratch[name]).packed_files, PACKED)
            if regions.belong_to_mask(case):
                self._compare_stage(scratch[name], regions.STAGE)
            if label.STAGE not in case.stages and case.failure is None:
                self.add_note("it has no labels")
            if self.model is None:
                if label.STAGE in case.stages:
                    self.add_problem("its labels cannot be recomputed without the store's model")
                return
            if case.stages.get(label.STAGE, {}).get("key") not in (None, label.key_for(case, self.model)):
                self.add_problem("its labels are not those of the store's model: run `Pipeline.label()`")
                return
            if {regions.STAGE, label.STAGE} & case.stages.keys():
                record = case.stages.get(label.STAGE, {})
                smooth = potts.parameters_of(record)
                label.LabelStage(self.model, record.get("model_name", GIVEN), smooth=smooth).run(context, name)
                self._compare_stage(scratch[name], regions.STAGE)
                self._compare_stage(scratch[name], label.STAGE)
                if numbers := quality.numbers_of(case):
                    # The label stage measures these numbers only if it computes regions, so measure them here.
                    quality.QualityStage().run(context, name)
                    if numbers != quality.numbers_of(scratch[name]):
                        self.add_problem(
                            "its numbers of quality control differ when recomputed: remove it with "
                            "`Pipeline.remove(names)` and run `Pipeline.run(sources)` with its source"
                        )
            if lung_zones.STAGE in case.stages and regions.is_valid(scratch[name]):
                self._recompute_zones(context)
            if register.STAGE in case.stages:
                self._recompute_registration(context)
        if label.STAGE in case.stages:
            self._compare_rows(self.model)

    def _recompute_zones(self, context: StageContext) -> None:
        """Compare the lung zones with recomputed ones."""
        by = self.case.stages[lung_zones.STAGE].get("by")
        if by not in ZONE_RULES:
            self.add_problem("its lung zones were made by another version", lung_zones.STAGE)
            return
        lung_zones.ZoneStage(by).run(context, self.case.name)
        self._compare_stage(context.cohort[self.case.name], lung_zones.STAGE)

    def _recompute_registration(self, context: StageContext) -> None:
        """Compare the registration and the change maps with recomputed ones."""
        name, record = self.case.name, self.case.stages[register.STAGE]
        firsts = first_scans(self.cohort)
        if firsts.get(name) not in self.cohort or not register.is_valid(self.cohort[firsts[name]], self.case):
            self.add_problem(
                "its registration is not that of the present scans: run `Pipeline.followup()`", register.STAGE
            )
            return
        register.RegisterStage(firsts, str(record["kind"]), self.cohort).run(context, name)
        self._compare_stage(context.cohort[name], register.STAGE)
        if change.STAGE in self.case.stages:
            change.ChangeStage(firsts, self.cohort).run(context, name)
            self._compare_stage(context.cohort[name], change.STAGE)

    def _recompute_harmonised(self, context: StageContext) -> bool:
        """Compare the harmonised image with a recomputed one; return False if its parameters are unknown."""
        parameters = harmonised_by(self.case)
        if parameters is None:
            self.add_problem("its harmonised image was made by another version", harmonise.STAGE)
            return False
        harmonise.HarmoniseStage(parameters).run(context, self.case.name)
        self._compare_stage(context.cohort[self.case.name], harmonise.STAGE)
        return True

    def _compare_source(self, scan: Scan) -> None:
        """Compare the stored image, metadata and notes with the source."""
        case, digest = self.case, hashlib.sha256()
        record = case.stages[convert.STAGE]
        stored, expected = (item.acquisition.technical().to_dict() for item in (case, scan))
        differing = [
            attribute
            for attribute in ("size", "spacing", "origin", "direction", "orientation_known")
            if getattr(case.geometry, attribute) != getattr(scan.geometry, attribute)
        ]
        differing += sorted(key for key in {*stored, *expected} if stored.get(key) != expected.get(key))
        if differing:
            is_changed = record["key"] != convert.key_for(scan)
            remedy = (
                "run `Pipeline.run(sources)`"
                if is_changed
                else "remove it with `Pipeline.remove(names)` and run `Pipeline.run(sources)`"
            )
            self.add_problem(f"{', '.join(differing)}: not as in the source: {remedy} with its source")
        for slab in scan.slabs(case.layout.slab):
            digest.update(slab.tobytes())
        if digest.hexdigest() != record["voxels_sha256"]:
            self.add_problem("the image is not that of the source", convert.STAGE)
        if not {_facts_of(redact(note)) for note in scan.notes} <= {
            _facts_of(note) for note in record.get("notes", [])
        }:
            self.add_problem("the notes on it are not those of the source")

    def _compare_image(self, scratch: Cohort) -> None:
        """Write the stored voxels to the temporary store, and compare voxels, coarser levels and packed air."""
        case = self.case
        copy = CohortWriter(scratch).add(case.name, case.geometry, case.acquisition, chunk_slices=case.chunk_slices)
        record = dict(case.stages[convert.STAGE])
        before: Receipts = record.pop("files", {})
        files, digest, threshold = copy.create_image("ct"), hashlib.sha256(), case.packed_threshold
        if harmonise.STAGE in case.stages:
            # The packed air is that of the harmonised image, which the mask stage packs.
            if threshold is not None:
                copy.record_packed(threshold, {})
            threshold = None
        packed = {} if threshold is None else copy.create_packed(PACKED)
        counts = np.zeros(N_HU, np.uint64)
        for start, stop in case.layout.slabs():
            slab = case.read("ct", start, stop)
            digest.update(slab.data)
            add_all(slab, counts)
            files |= copy.write("ct", start, slab)
            if threshold is not None:
                packed |= copy.write_packed(PACKED, start, pack_below(slab, threshold))
        if threshold is not None:
            copy.record_packed(threshold, packed)
        copy.record(convert.STAGE, record, files)
        if digest.hexdigest() != record["voxels_sha256"]:
            self.add_problem("the image is not the one that was converted", convert.STAGE)
        elif record.get(convert.HU, summarize(counts).to_dict()) != summarize(counts).to_dict():
            self.add_problem("the summary of its HU does not match its voxels", convert.STAGE)
        self._compare_files(before, files, convert.STAGE)
        if harmonise.STAGE not in case.stages:
            self._compare_files(case.packed_files, packed, PACKED)

    def _copy_given_mask(self, scratch: Cohort) -> None:
        """Write a stored mask that came from a file to the temporary store, with new histograms and coarser levels."""
        case, copy = self.case, CaseWriter(scratch[self.case.name])
        choice = stored_choice(case)
        files, side_files = create_arrays(copy, choice)

        def slabs() -> Iterator[tuple[CaseWriter, int, npt.NDArray[np.uint8]]]:
            for start, stop in case.layout.slabs():
                yield copy, start, stored_labels(case, choice, start, stop)

        written = write_mask(slabs(), CaseRef.of(scratch, case.name), choice)
        record = {key: value for key, value in case.stages[mask.STAGE].items() if key != "files"}
        publish(copy, {**record, "voxels": written.voxels}, written, choice, files, side_files)

    def _compare_files(self, before: Receipts, after: Receipts, stage: str) -> None:
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                self.add_problem(f"{key} differs when recomputed", stage)

    def _compare_stage(self, recomputed: Case, stage: str) -> None:
        """Compare the objects and the record of a stage with the recomputed ones."""
        if stage not in self.case.stages:
            return
        stored, expected = self.case.stages[stage], recomputed.stages[stage]
        if stored["key"] != expected["key"]:
            self.add_problem(f"{stage} was computed from other inputs, or by another version")
            return
        self._compare_files(stored.get("files", {}), expected.get("files", {}), stage)
        # Records of earlier versions may have fewer keys.
        for name in sorted(stored.keys() - {*_PROVENANCE_KEYS}):
            if stored.get(name) != expected.get(name):
                self.add_problem(f"{name} of the stage {stage} differs when recomputed", stage)

    def _compare_rows(self, model: TissueModel) -> None:
        """Compare the rows of the case in the tables with rows that are computed from its histograms."""
        name = self.case.name
        for file in TABLES:
            text = self.cohort.read_text(file)
            head, lines = lines_of(text or "")
            if file == ZONES_FILE and not measure.has_zone_rows(self.case):
                if name in lines:
                    self.add_problem(f"it has rows in {file}, but no lung zones or lobes: run `Pipeline.measure()`")
                continue
            if name not in lines:
                if text is not None or file == MEASUREMENTS_FILE:
                    self.add_note(f"it is not in {file}: `Pipeline.measure()` measures it")
                continue
            excluded, quality = measure.excluded_regions(self.cohort), last_quality(self.cohort)
            rows = measure.rows_of_case(self.case, file, model, excluded, quality)
            columns = head.split(",")
            if file == MEASUREMENTS_FILE and DENSE_COLUMNS[0].key in columns:
                rows = measure.with_dense_columns(rows)
            if file == MEASUREMENTS_FILE and HARMONISED_COLUMNS[-1].key in columns:
                rows = measure.with_harmonised_columns(rows)
            if file == MEASUREMENTS_FILE and any(key.endswith(EXPECTED) for key in {*rows[0]} - {*columns}):
                self.verification.add_note(
                    file, "an earlier version wrote it, without expected values: `Pipeline.measure()` adds them"
                )
                rows = measure.without_expected_columns(rows, columns)
            expected = lines_of(text_of(rows))
            if head != expected[0]:
                self.verification.add_problem(
                    file, "its columns are not those of the store's model: run `Pipeline.measure()`"
                )
            elif lines[name] != expected[1][name]:
                self.add_problem(f"its row in {file} does not match its histograms: run `Pipeline.measure()`")


def _is_record(stage: str, record: Mapping[str, Any]) -> bool:
    try:
        MaskParameters(**(record["parameters"] if stage == mask.STAGE else {}))
        texts = [record["key"], *([record["voxels_sha256"]] if stage == convert.STAGE else [])]
        return all(isinstance(text, str) for text in texts) and isinstance(record.get("touches", {}), dict)
    except (KeyError, TypeError, UsageError):
        return False


def _facts_of(note: str) -> tuple[str, ...]:
    """Return the numbers in a note, by which notes are compared: another version may have worded it differently."""
    return tuple(re.findall(r"\d+(?:\.\d+)?", note))
