"""The pipeline: which stages run for which cases, in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from distributed import Client

from lungmix.analysis.selection import bic_table
from lungmix.callbacks import Callback, LogWarnings, stage_events
from lungmix.earlier_names import accepts_earlier_names
from lungmix.errors import StoreError, UsageError, count_of
from lungmix.export.images import write_volume
from lungmix.formats import Scan, SeriesFilter
from lungmix.intake.case_names import persist_case_numbers
from lungmix.intake.key_table import check_outside
from lungmix.intake.retention import RetainedScans
from lungmix.mixture import TissueModel, load_model
from lungmix.parameters import (
    NO_MASKS,
    ZONES_BY_VOLUME,
    FitParameters,
    HarmoniseParameters,
    IntakeParameters,
    MaskLabels,
    MaskParameters,
    check_smoothing,
    check_zones,
)
from lungmix.pipeline.cohort_steps import (
    add_flags,
    compare_models,
    complete_cases,
    label_stages,
    measure_cases,
    measure_quality,
    resolve_model,
)
from lungmix.pipeline.followup import FollowupResult, follow_up, remember_patients
from lungmix.pipeline.harmonisation import check_harmonisation, fault_of_image, remember_harmonisation
from lungmix.pipeline.masks import AnyMaskStage, plan_masks, remember_given
from lungmix.pipeline.registration import drop_stale_registrations, registration_of, remember_registration
from lungmix.pipeline.result import CaseResult, RunResult, raise_without_memory
from lungmix.pipeline.runner import CaseRunner
from lungmix.pipeline.sources import take_sources
from lungmix.pipeline.staleness import fault_of_labels, stale_stages
from lungmix.pipeline.zones import remember_zones, zone_stages
from lungmix.quality_flags import QualityParameters
from lungmix.segmenters import check_mask_options
from lungmix.stages.base import Stage, Status
from lungmix.stages.convert import ConvertStage
from lungmix.stages.fit import STAGE as FIT_STAGE
from lungmix.stages.fit import choose_cases, masked_cases, pool_counts
from lungmix.stages.flags import flagged_cases
from lungmix.stages.given_mask import GivenMaskStage
from lungmix.stages.harmonise import HarmoniseStage
from lungmix.stages.label import LabelStage
from lungmix.stages.mask import STAGE as MASK
from lungmix.stages.measure import drop_rows, drop_stale_rows, measured_cases, stored_rows
from lungmix.stages.quality import QualityStage, is_unmeasured
from lungmix.stages.worst_slices import drop_slices
from lungmix.store import Case, Cohort, CohortWriter, check_slices
from lungmix.store.choices import (
    last_harmonisation,
    last_zones,
    methods_or_all,
    remember_fit,
    remember_quality,
    remember_smoothing,
    resolve_fit,
    resolve_mask,
)
from lungmix.store.models import stored_id, stored_model
from lungmix.store.patients import forget_scans
from lungmix.store.schema import HARMONISE, ZONE
from lungmix.tissue import Tissue

P = ParamSpec("P")
R = TypeVar("R", bound=CaseResult)

FIT = "fit"


def _locked(method: Callable[Concatenate[Pipeline, P], R]) -> Callable[Concatenate[Pipeline, P], R]:
    """Hold the lock of the store while a method writes to it."""

    @wraps(method)
    def locked(self: Pipeline, /, *args: P.args, **options: P.kwargs) -> R:
        with self.cohort.locked(wait=self.wait, warn=self.callback.on_warning):
            result = method(self, *args, **options)
            # Cases that cannot be opened are passed to no stage, so their failure is added here.
            for name, reason in self.cohort.damaged.items():
                if name not in result.failed:
                    result.fail(name, reason, StoreError(reason, path=self.cohort.url, case=name))
            raise_without_memory(result)
            return result

    return locked


def given_model(model: str | Path | TissueModel) -> TissueModel | None:
    """Return the mixture that was given; None if one is to be fitted, ``model="fit"``."""
    if isinstance(model, TissueModel):
        return model
    return None if str(model) == FIT else load_model(model)


def _harmonise_stages(
    parameters: HarmoniseParameters | None, mask_stage: AnyMaskStage, masks: str | Path | None
) -> list[Stage]:
    """Return the stage of harmonised images before a stage of masks; no stage if there are to be none."""
    if parameters is None:
        return []
    # Masks from files are kept, unless this run gives them again, or computes or segments all of them.
    remade = mask_stage.masks if isinstance(mask_stage, GivenMaskStage) and masks != NO_MASKS else None
    return [HarmoniseStage(parameters, remade)]


@dataclass(frozen=True)
class Pipeline:
    """Methods that run the stages of a cohort on a cluster.

    A parameter has the same name in all methods and in `lungmix.run`: `mask` for parameters of the mask, `fit` for
    settings of the fit, `model` for a mixture, `series` for the choice of DICOM series, `intake` for patient data.

    Attributes
    ----------
    client : distributed.Client
        The cluster.
    cohort : Cohort
        The store, opened for writing.
    callback : Callback
        Receiver of progress and warnings; by default warnings go to the logger ``lungmix``.
    wait : bool
        Wait for another run on this store to end, instead of raising `LockedError`.
    """

    client: Client
    cohort: Cohort
    callback: Callback = field(default_factory=LogWarnings)
    wait: bool = False

    @cached_property
    def _runner(self) -> CaseRunner:
        return CaseRunner(self.client, self.cohort, self.callback)

    @_locked
    def run(
        self,
        sources: str | Path | Scan | Sequence[str | Path | Scan] = (),
        *,
        mask: MaskParameters | None = None,
        model: str | Path | TissueModel = FIT,
        fit: FitParameters | None = None,
        intake: IntakeParameters | None = None,
        outputs: Sequence[str | Path | None] = (),
        series: SeriesFilter | None = None,
        chunk_slices: int | None = None,
        accept_hu: bool = False,
        masks: str | Path | None = None,
        mask_labels: str | Mapping[str, Any] | MaskLabels | None = None,
        mask_with: str | None = None,
        mask_weights: str | Path | None = None,
        mask_device: str | None = None,
        quality: QualityParameters | None = None,
        smooth: str | None = None,
        beta: float | None = None,
        harmonise: str | None = None,
        kernel_reference: Sequence[float] | None = None,
        zones: str | None = None,
    ) -> RunResult:
        """Run every stage that is not done yet, for the scans of sources and for the cases that the store holds.

        Parameters
        ----------
        sources : str, Path or Scan, or sequence of these
            Files, folders, or scans that `lungmix.find_scans` returned, in addition to the cases of the store.
        mask : MaskParameters, optional
            Parameters of the mask; by default those of the store, or the preset ``anatomical`` if it is new.
        model : str, Path or TissueModel
            ``"fit"`` fits a mixture to the cohort, ``"published"`` is the one of the publication; or the file of a
            model, or a mixture.
        fit : FitParameters, optional
            How mixtures are fitted; by default as in the last run or fit of the store, or by the fit ``anchored`` if
            the store is new.
        intake : IntakeParameters, optional
            Which patient data are kept.
        outputs : sequence of str or Path
            Folders that the caller writes besides the store. A key table inside them is rejected, as it names patients.
        series : SeriesFilter, optional
            Which DICOM series are used.
        chunk_slices : int, optional
            Slices of a chunk of the images, see `lungmix.store.chunking.layout_of`.
        accept_hu : bool
            Make masks of scans whose values are not HU of a chest CT; they enter no pooled fit.
        masks : str or Path, optional
            Folder, file or table with masks to take in place of computed ones, see `lungmix.intake.mask_matching`.
            Without it, masks that came from files stay; ``"none"`` computes them.
        mask_labels : str, mapping or MaskLabels, optional
            Labels of the mask files, such as ``"right=1,left=2"``; by default the names in the files determine them.
        mask_with : str, optional
            Segmenter that makes the masks, such as ``"lungmask"``, see `lungmix.segmenters`.
        mask_weights : str or Path, optional
            Weights of the segmenter, in a file that all workers can read; by default those that it finds.
        mask_device : str, optional
            Device of the segmenter, such as ``"cuda"``; by default ``"cpu"``.
        quality : QualityParameters, optional
            Thresholds of quality control; by default those of the store.
        smooth : {"potts", "none"}, optional
            ``"potts"`` makes a third label map, ``tissue_potts``, of labels under a Potts prior; ``"none"`` makes none.
            By default as in the last run on the store, or none.
        beta : float, optional
            Strength of the Potts prior, 0 to 10; by default it is estimated for each case.
        harmonise : str, optional
            ``"air-blood"``, ``"kernel"`` or ``"air-blood,kernel"`` writes a harmonised image, whose HU are masked,
            labelled and measured in place of those of the scan; ``"none"`` uses the scan, and deletes harmonised
            images. By default as in the last run on the store, or none.
        kernel_reference : sequence of float, optional
            Standard deviations of the frequency bands that ``"kernel"`` brings scans to, HU; by default those of
            `lungmix.parameters.KERNEL_REFERENCE_HU`.
        zones : {"volume", "height", "volume-common", "none"}, optional
            Divide each lung into thirds, halves, core and peel, and measure these lung zones: ``"volume"`` makes thirds
            and halves of equal volume, ``"height"`` of equal extent, ``"volume-common"`` cuts both lungs by the same
            planes; ``"none"`` makes no zones and deletes those of the store. By default as in the last run on the
            store, or none.
        """
        check_slices(chunk_slices)
        check_smoothing(smooth, beta)
        check_zones(zones)
        check_harmonisation(self.cohort, harmonise, kernel_reference, masks is not None or mask_with is not None)
        segmenter = check_mask_options(masks, mask_labels, mask_with, mask_weights, mask_device)
        result = RunResult()
        given = given_model(model)
        mask, fit = resolve_mask(self.cohort, mask), resolve_fit(self.cohort, fit)
        retained = take_sources(self._runner, sources, result, intake, outputs, series)
        scans = retained.scans
        remember_quality(self.cohort, quality)
        remember_smoothing(self.cohort, smooth, beta)
        remember_zones(self.cohort, zones)
        remember_fit(self.cohort, fit)
        harmonised = remember_harmonisation(self.cohort, harmonise, kernel_reference)
        mask_stage = plan_masks(
            self._runner, self._all_names(scans), scans, result, mask,
            accept_hu=accept_hu, masks=masks, mask_labels=mask_labels, segmenter=segmenter,
        )  # fmt: skip
        steps: list[Stage] = [
            ConvertStage(scans, chunk_slices, mask_stage.air_hu),
            *_harmonise_stages(harmonised, mask_stage, masks),
            mask_stage,
        ]
        stages = steps if given is None else [*steps, LabelStage(given), *zone_stages(self.cohort)]
        drop_stale_rows(self.cohort, lambda case: stale_stages(case, stages))
        if given is not None:
            # Labels by a given model need not wait for the other cases.
            resolve_model(self._runner, given, [], fit, result)
            stages = [*steps, *label_stages(self.cohort, given)]
            self._runner.run_cases("label", self._all_names(scans), [*stages, QualityStage()], result)
            self._drop_unconverted(retained)
        else:
            self._runner.run_cases("mask", self._all_names(scans), steps, result)
            self._drop_unconverted(retained)
            masked = self._masked(result)
            if masked:
                resolve_model(self._runner, None, masked, fit, result, steps)
                self._label_all(result, steps)
        if masks is not None or segmenter is not None:
            remember_given(self.cohort)
        measure_cases(self._runner, result, stages=steps)
        add_flags(self.cohort, result, self._all_names(scans))
        return result

    @_locked
    def convert(
        self,
        sources: str | Path | Scan | Sequence[str | Path | Scan],
        intake: IntakeParameters | None = None,
        nrrd: Path | None = None,
        series: SeriesFilter | None = None,
        chunk_slices: int | None = None,
    ) -> RunResult:
        """Convert the scans of sources to cases of the store.

        Parameters
        ----------
        sources : sequence of str, Path or Scan
            Scans.
        intake : IntakeParameters, optional
            Which patient data are kept.
        nrrd : Path, optional
            Folder for anonymous ``.nrrd`` files, one per case.
        series : SeriesFilter, optional
            Which DICOM series are used.
        chunk_slices : int, optional
            Slices of a chunk of the images, see `lungmix.store.chunking.layout_of`.
        """
        check_slices(chunk_slices)
        result = RunResult()
        if nrrd is not None:
            check_outside(nrrd, "nrrd", self.cohort.url)
        retained = take_sources(self._runner, sources, result, intake, [nrrd], series)
        remember_fit(self.cohort, resolve_fit(self.cohort))
        remember_given(self.cohort)
        stages = [self._convert_stage(retained.scans, chunk_slices, nrrd)]
        drop_stale_rows(self.cohort, lambda case: stale_stages(case, stages))
        self._runner.run_cases("convert", list(retained.scans), stages, result)
        self._drop_unconverted(retained)
        add_flags(self.cohort, result, result.done)
        return result

    @_locked
    def harmonise(self, harmonise: str | None = None, kernel_reference: Sequence[float] | None = None) -> RunResult:
        """Write the harmonised images of all cases, or delete them; masks and labels of other HU become invalid.

        Parameters
        ----------
        harmonise, kernel_reference
            See `run`; by default the methods of the last run, or ``"air-blood,kernel"``.
        """
        result = RunResult()
        harmonise = methods_or_all(self.cohort, harmonise)
        check_harmonisation(self.cohort, harmonise, kernel_reference)
        had_mask = {name: MASK in case.stages for name, case in self.cohort.items()}
        names = list(had_mask)
        parameters = remember_harmonisation(self.cohort, harmonise, kernel_reference)
        if parameters is not None:
            stages = [HarmoniseStage(parameters)]
            drop_stale_rows(self.cohort, lambda case: stale_stages(case, stages))
            self._runner.run_cases(HARMONISE, names, stages, result)
        else:
            result.done = names
        lost = sum(had_mask[name] and MASK not in case.stages for name, case in self.cohort.items())
        if lost:
            self.callback.on_info(
                f"masks, labels and measurements of {count_of(lost, 'case')} were of other HU and are deleted: "
                "`Pipeline.run(sources)` makes them again"
            )
        add_flags(self.cohort, result, names)
        return result

    @accepts_earlier_names(parameters="mask")
    @_locked
    def mask(
        self,
        mask: MaskParameters | None = None,
        *,
        accept_hu: bool = False,
        masks: str | Path | None = None,
        mask_labels: str | Mapping[str, Any] | MaskLabels | None = None,
        mask_with: str | None = None,
        mask_weights: str | Path | None = None,
        mask_device: str | None = None,
    ) -> RunResult:
        """Make the lung masks of all cases of the store: compute them, or take them from files or from a segmenter.

        Parameters
        ----------
        mask, accept_hu, masks, mask_labels, mask_with, mask_weights, mask_device
            See `run`.
        """
        segmenter = check_mask_options(masks, mask_labels, mask_with, mask_weights, mask_device)
        check_harmonisation(self.cohort, None, None, masks is not None or mask_with is not None)
        result = RunResult()
        names = list(self.cohort)
        mask_stage = plan_masks(
            self._runner, names, {}, result, mask,
            accept_hu=accept_hu, masks=masks, mask_labels=mask_labels, segmenter=segmenter,
        )  # fmt: skip
        harmonised = remember_harmonisation(self.cohort)
        stages = [*_harmonise_stages(harmonised, mask_stage, masks), mask_stage]
        drop_stale_rows(self.cohort, lambda case: stale_stages(case, stages))
        self._runner.run_cases("mask", names, stages, result)
        if masks is not None or segmenter is not None:
            remember_given(self.cohort)
        add_flags(self.cohort, result, names)
        return result

    @accepts_earlier_names(parameters="fit")
    @_locked
    def fit(
        self,
        model: str | Path | TissueModel = FIT,
        fit: FitParameters | None = None,
        cases: Sequence[str] = (),
        exclude_cases: Sequence[str] = (),
    ) -> RunResult:
        """Fit mixtures to masked cases, or store a given mixture as the model.

        Parameters
        ----------
        model : str, Path or TissueModel
            ``"fit"``, ``"published"``, a file, or a mixture.
        fit : FitParameters, optional
            How mixtures are fitted; see `run`.
        cases : sequence of str
            Fit to these cases only.
        exclude_cases : sequence of str
            Exclude these cases from the fit.
        """
        result = RunResult()
        given = given_model(model)
        result.done = choose_cases(self._masked(result), cases, exclude_cases)
        resolve_model(self._runner, given, result.done, self._fit_parameters(given, fit), result)
        compare_models(self._runner, result)
        return result

    @accepts_earlier_names(parameters="fit")
    def select(
        self,
        components: Sequence[int],
        fit: FitParameters | None = None,
        cases: Sequence[str] = (),
        exclude_cases: Sequence[str] = (),
    ) -> RunResult:
        """Compare several numbers of components by their BIC; the model of the store stays as it is.

        Parameters
        ----------
        components : sequence of int
            Numbers of Gaussians.
        fit, cases, exclude_cases
            See `fit`.
        """
        result = RunResult()
        result.done = choose_cases(list(masked_cases(self.cohort)), cases, exclude_cases)
        parameters = resolve_fit(self.cohort, fit)
        if parameters.exclude_flagged:
            if any(is_unmeasured(self.cohort[name]) for name in result.done):
                with self.cohort.locked(wait=self.wait, warn=self.callback.on_warning):
                    measure_quality(self._runner, result.done, result)
            result.done = choose_cases(result.done, (), list(flagged_cases(self.cohort, result.done)))
        counts = pool_counts(self.cohort, result.done, self.client)
        with stage_events(self.callback, FIT_STAGE, ["components"]) as progress:
            result.selection = bic_table(counts, parameters, components, progress)
        return result

    @_locked
    def label(self, smooth: str | None = None, beta: float | None = None) -> RunResult:
        """Label all masked cases with the model of the store.

        Parameters
        ----------
        smooth, beta
            See `run`.
        """
        result = self._result_of_store()
        remember_smoothing(self.cohort, smooth, beta)
        self._label_all(result)
        return result

    @_locked
    def zones(self, zones: str | None = None) -> RunResult:
        """Divide the lungs of all labelled cases into zones and measure these, or delete the lung zones of the store.

        A case with a mask fails if it has no labels, or labels by another model than that of the store.

        Parameters
        ----------
        zones : {"volume", "height", "volume-common", "none"}, optional
            See `run`; by default the rule of the last run, or ``"volume"``.
        """
        result = self._result_of_store()
        remember_zones(self.cohort, zones or last_zones(self.cohort) or ZONES_BY_VOLUME)
        if result.model is not None:
            stages, model = label_stages(self.cohort, result.model), result.model
            names = [name for name, case in self.cohort.items() if fault_of_labels(case, model) is None]
            drop_stale_rows(self.cohort, lambda case: stale_stages(case, stages) if case.name in names else ())
            self._runner.run_cases(ZONE, names, stages, result)
            measure_cases(self._runner, result)
        return result

    @_locked
    def followup(
        self,
        patients: str | Path | None = None,
        key_table: str | Path | None = None,
        register: str | None = None,
    ) -> FollowupResult:
        """Compare the scans of each patient with the first one, and write ``followup.csv``.

        Voxels are read only to register scans.

        A store remembers which scans are of one patient, under neutral names and without dates. `run` and `measure`
        then update the table.

        Parameters
        ----------
        patients : str or Path, optional
            CSV file with the columns case, patient, and optionally date or days; see
            `lungmix.intake.patients.read_patients`. By default those of the last call.
        key_table : str or Path, optional
            Key table of the store. It tells patients and dates, or which files the table `patients` names.
        register : {"affine", "deformable", "none"}, optional
            Find where each point of the first scan's lungs lies in the later scans, and map what is new, gone and
            persistent: by affine transforms, or by deformable ones, which start from these; ``"none"`` deletes the
            registrations of the store. By default as in the last call, or none. It needs a client.

        Raises
        ------
        UsageError
            If a table is invalid, there is no such registration, or it is not known which scans are of one patient.
        """
        if registration_of(self.cohort, register) is not None and self.client is None:
            raise UsageError(
                'registration needs workers: give the pipeline a client, or `register="none"` to delete the '
                "registrations of the store"
            )
        model = stored_model(self.cohort)
        result = FollowupResult(model_id=stored_id(self.cohort, model))
        remember_patients(self.cohort, patients, key_table, result)
        kind = remember_registration(self.cohort, register)
        follow_up(self._runner, model, result, kind)
        return result

    @accepts_earlier_names(parameters="fit")
    @_locked
    def relabel(self, model: str | Path | TissueModel, fit: FitParameters | None = None) -> RunResult:
        """Label all masked cases with another model, and measure them; masks stay as they are.

        Parameters
        ----------
        model : str, Path or TissueModel
            ``"fit"``, ``"published"``, a file, or a mixture.
        fit : FitParameters, optional
            How mixtures are fitted; see `run`.
        """
        result = RunResult()
        given = given_model(model)
        masked = self._masked(result)
        resolve_model(self._runner, given, masked, self._fit_parameters(given, fit), result)
        self._label_all(result)
        measure_cases(self._runner, result)
        return result

    @_locked
    def remove(self, names: Sequence[str]) -> RunResult:
        """Delete cases and their rows in tables; the model stays as it is until the next fit.

        The rows of the tables are deleted first, then stored slices of references, then the objects of the cases, and
        last their entries in the register of scans. So an interrupted call can be repeated with the same names.

        Raises
        ------
        StoreError
            If the store holds nothing under one of the names; no case is deleted then.
        """
        left = {*self.cohort.damaged, *self.cohort.register, *measured_cases(self.cohort)}
        for name in names:
            if name not in left:
                self.cohort.case(name)
        persist_case_numbers(self.cohort)
        drop_rows(self.cohort, names)
        remember_given(self.cohort, forgotten=names)
        drop_slices(self.cohort, names)
        forget_scans(self.cohort, names)
        drop_stale_registrations(self.cohort)
        CohortWriter(self.cohort).delete_cases(names)
        return RunResult(done=list(names), rows=stored_rows(self.cohort))

    @_locked
    def measure(
        self,
        exclude_regions: Sequence[Tissue] = (),
        *,
        radiomics: bool = False,
        quality: QualityParameters | None = None,
    ) -> RunResult:
        """Measure all labelled cases; missing regions and numbers of quality control are computed first.

        A case with a mask fails if it has no labels, or labels by another model than that of the store.

        Parameters
        ----------
        exclude_regions : sequence of Tissue
            Regions of the mask that do not count as lung.
        radiomics : bool
            Write the table of first-order features too. A store that has this table always gets a new one.
        quality : QualityParameters, optional
            Thresholds of quality control; by default those of the store.
        """
        remember_quality(self.cohort, quality)
        result = self._result_of_store()
        if self.client is not None:
            complete_cases(self._runner, result)
        measure_cases(self._runner, result, exclude_regions, radiomics=radiomics)
        result.done = [str(row["case"]) for row in result.rows]
        add_flags(self.cohort, result, result.done)
        compare_models(self._runner, result)
        return result

    def _result_of_store(self) -> RunResult:
        """Return a new result with the model of the store."""
        model = stored_model(self.cohort)
        return RunResult(model=model, model_id=stored_id(self.cohort, model))

    def _fit_parameters(self, given: TissueModel | None, fit: FitParameters | None) -> FitParameters:
        """Return the parameters of a fit, and record them unless a mixture is given."""
        parameters = resolve_fit(self.cohort, fit)
        if given is None:
            remember_fit(self.cohort, parameters)
        return parameters

    def _drop_unconverted(self, retained: RetainedScans) -> None:
        persist_case_numbers(self.cohort)
        retained.drop_unconverted(self.cohort)

    def _all_names(self, scans: dict[str, Scan]) -> list[str]:
        return sorted({*scans, *self.cohort})

    def _masked(self, result: RunResult) -> list[str]:
        """Return the cases with a mask that have not failed; masks of other HU than those of the last run fail."""
        parameters, names = last_harmonisation(self.cohort), []
        for name, case in self.cohort.items():
            if MASK not in case.stages or name in result.failed:
                continue
            fault = fault_of_image(case, parameters)
            if fault is None:
                names.append(name)
            else:
                result.fail(name, fault)
        return names

    def _convert_stage(
        self, scans: Mapping[str, Scan], chunk_slices: int | None, nrrd: Path | None = None
    ) -> ConvertStage:
        if nrrd is None:
            return ConvertStage(scans, chunk_slices)

        def export(case: Case, status: Status) -> None:
            write_volume(case, nrrd, overwrite=status != "kept")

        return ConvertStage(scans, chunk_slices, on_converted=export)

    def _label_all(self, result: RunResult, steps: Sequence[Stage] = ()) -> None:
        """Label all masked cases; the stages `steps` recompute masks that turn out to be corrupt."""
        if result.model is None:
            return
        stages = label_stages(self.cohort, result.model, steps)
        drop_stale_rows(self.cohort, lambda case: stale_stages(case, stages))
        self._runner.run_cases("label", self._masked(result), [*stages, QualityStage()], result)
