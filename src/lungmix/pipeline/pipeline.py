"""The stages of a cohort on a cluster, in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

from distributed import Client

from lungmix.analysis.comparison import compare
from lungmix.analysis.selection import bic_table
from lungmix.engine import Ledger, Listener
from lungmix.errors import ModelError, StoreError
from lungmix.export.images import write_volume
from lungmix.formats import Refusal, Scan, SeriesRules, Skipped
from lungmix.geometry import Geometry
from lungmix.mixture import TissueModel, load_model
from lungmix.parameters import FitParameters, IntakeParameters, MaskParameters
from lungmix.pipeline.passing import Passing, Step
from lungmix.pipeline.report import Report, refuse_without_room
from lungmix.pipeline.stale import fault_of_labels, has_true_rows, is_other_scan, takes_other_labels, takes_other_mask
from lungmix.stages import convert, fit, label, mask
from lungmix.stages.finding import look_through
from lungmix.stages.flags import flags_of, remarks_on
from lungmix.stages.intake import Intake, open_table, take_in
from lungmix.stages.key_table import check_outside
from lungmix.stages.measure import (
    left_out,
    measure_cohort,
    measured_cases,
    radiomics_of_cohort,
    stored_rows,
    take_out,
    take_out_stale,
)
from lungmix.stages.names import assign_names, changed, remember_names, remember_numbers
from lungmix.stages.plausible import not_pooled
from lungmix.store import RADIOMICS_FILE, Cohort, check_slices
from lungmix.store.choices import remember_mask
from lungmix.store.models import model_use, stored_id, stored_model
from lungmix.tissue import Tissue

P = ParamSpec("P")

FIT = "fit"
MEASURE = "measure"


def _alone(method: Callable[Concatenate[Pipeline, P], Report]) -> Callable[Concatenate[Pipeline, P], Report]:
    """Hold the lock of the store while a method writes to it."""

    @wraps(method)
    def alone(self: Pipeline, /, *args: P.args, **options: P.kwargs) -> Report:
        with self.cohort.locked(wait=self.wait, say=self.listener.say):
            report = method(self, *args, **options)
            # What could not even be opened took no part in any pass.
            for name, reason in self.cohort.damaged.items():
                if name not in report.failed:
                    report.fail(name, reason, StoreError(reason))
            refuse_without_room(report)
            return report

    return alone


def _chosen(model: str | Path | TissueModel) -> TissueModel | None:
    """The mixture that is asked for; None for a fit."""
    if isinstance(model, TissueModel):
        return model
    return None if str(model) == FIT else load_model(model)


@dataclass(frozen=True)
class Pipeline:
    """The stages of a cohort on a cluster.

    Attributes
    ----------
    client : distributed.Client
        The cluster.
    cohort : Cohort
        Opened for writing.
    listener : Listener
        Hears of progress.
    wait : bool
        Wait for another run on this store to end, in place of refusing.
    """

    client: Client
    cohort: Cohort
    listener: Listener = field(default_factory=Listener)
    wait: bool = False

    @cached_property
    def _passing(self) -> Passing:
        return Passing(self.client, self.cohort, self.listener)

    @_alone
    def run(
        self,
        sources: Sequence[str | Path | Scan],
        parameters: MaskParameters,
        model: str | Path | TissueModel = FIT,
        fit_parameters: FitParameters | None = None,
        intake: IntakeParameters | None = None,
        outputs: Sequence[str | Path | None] = (),
        series: SeriesRules | None = None,
        chunk_slices: int | None = None,
        *,
        accept_hu: bool = False,
    ) -> Report:
        """Do every stage that is not done yet, for sources and for the cases that the store holds.

        Parameters
        ----------
        sources : sequence of str, Path or Scan
            Paths, or scans that were found already, such as those that come in passing.
        parameters : MaskParameters
            Sizes of the mask.
        model : str, Path or TissueModel
            ``fit``, ``published``, a file, or a mixture.
        fit_parameters : FitParameters, optional
            How mixtures are fitted.
        intake : IntakeParameters, optional
            What is kept of whose scans they are.
        outputs : sequence of str or Path
            Folders that will be written beside the store; a key table may not lie in them.
        series : SeriesRules, optional
            Which DICOM series are used.
        chunk_slices : int, optional
            Slices of a chunk of the images, see `lungmix.store.layout.layout_of`.
        accept_hu : bool
            Make masks of scans whose values are not HU of a chest CT; they enter no pooled fit.
        """
        check_slices(chunk_slices)
        report = Report()
        chosen = _chosen(model)
        taken = self._take(sources, report, intake or IntakeParameters(), outputs, series)
        scans = taken.scans
        self._advise({name: scan.geometry for name, scan in scans.items()}, parameters)
        remember_mask(self.cohort, parameters)
        steps = [self._converting(scans, chunk_slices), self._masking(parameters, accept_hu=accept_hu)]
        take_out_stale(
            self.cohort,
            lambda case: (
                is_other_scan(case, scans.get(case.name), chunk_slices)
                or takes_other_mask(case, parameters)
                or (chosen is not None and takes_other_labels(case, chosen))
            ),
        )
        if chosen is not None:
            # Labels by a given model need not wait for the other cases.
            self._settle_model(chosen, [], FitParameters(), report)
            self._passing.through("label", self._all_names(scans), [*steps, self._labelling(chosen)], report)
            self._settle(taken)
        else:
            self._passing.through("mask", self._all_names(scans), steps, report)
            self._settle(taken)
            masked = self._with_stage(mask.STAGE, report)
            if masked:
                self._settle_model(None, masked, fit_parameters or FitParameters(), report, steps)
                self._label_all(report, steps)
        self._measure(report, steps=steps)
        self._flag(report, self._all_names(scans))
        return report

    @_alone
    def convert(
        self,
        sources: Sequence[str | Path | Scan],
        intake: IntakeParameters | None = None,
        nrrd: Path | None = None,
        series: SeriesRules | None = None,
        chunk_slices: int | None = None,
    ) -> Report:
        """Bring sources into the store.

        Parameters
        ----------
        sources : sequence of str, Path or Scan
            Scans.
        intake : IntakeParameters, optional
            What is kept of whose scans they are.
        nrrd : Path, optional
            Folder for an anonymous ``.nrrd`` file a case.
        series : SeriesRules, optional
            Which DICOM series are used.
        chunk_slices : int, optional
            Slices of a chunk of the images, see `lungmix.store.layout.layout_of`.
        """
        check_slices(chunk_slices)
        report = Report()
        if nrrd is not None:
            check_outside(nrrd, "--nrrd", self.cohort.url)
        taken = self._take(sources, report, intake or IntakeParameters(), [nrrd], series)
        take_out_stale(self.cohort, lambda case: is_other_scan(case, taken.scans.get(case.name), chunk_slices))
        self._passing.through("convert", list(taken.scans), [self._converting(taken.scans, chunk_slices, nrrd)], report)
        self._settle(taken)
        self._flag(report, report.done)
        return report

    @_alone
    def mask(self, parameters: MaskParameters, *, accept_hu: bool = False) -> Report:
        """Find the lungs of all cases of the store.

        Parameters
        ----------
        parameters : MaskParameters
            Sizes of the mask.
        accept_hu : bool
            Make masks of scans whose values are not HU of a chest CT too; they enter no pooled fit.
        """
        report = Report()
        self._advise({}, parameters)
        remember_mask(self.cohort, parameters)
        take_out_stale(self.cohort, lambda case: takes_other_mask(case, parameters))
        names = list(self.cohort)
        self._passing.through("mask", names, [self._masking(parameters, accept_hu=accept_hu)], report)
        self._flag(report, names)
        return report

    @_alone
    def fit(
        self,
        model: str | Path | TissueModel = FIT,
        parameters: FitParameters | None = None,
        cases: Sequence[str] = (),
        leave_out: Sequence[str] = (),
    ) -> Report:
        """Fit mixtures to masked cases, all or some, or take a given one."""
        report = Report()
        chosen = _chosen(model)
        report.done = fit.choose_cases(self._with_stage(mask.STAGE, report), cases, leave_out)
        self._settle_model(chosen, report.done, parameters or FitParameters(), report)
        self._compare_models(report)
        return report

    def select(
        self,
        components: Sequence[int],
        parameters: FitParameters | None = None,
        cases: Sequence[str] = (),
        leave_out: Sequence[str] = (),
    ) -> Report:
        """Judge several numbers of components by their BIC; the store stays as it is."""
        report = Report()
        report.done = fit.choose_cases(list(fit.masked_counts(self.cohort)), cases, leave_out)
        counts = fit.pool_counts(self.cohort, report.done)
        with self._passing.bar("components") as watch:
            report.selection = bic_table(counts, parameters or FitParameters(), components, watch)
        return report

    @_alone
    def label(self) -> Report:
        """Label all masked cases with the model of the store."""
        report = self._report_of_store()
        self._label_all(report)
        return report

    @_alone
    def relabel(self, model: str | Path | TissueModel, parameters: FitParameters | None = None) -> Report:
        """Label all masked cases with another model, and measure them; masks stay as they are."""
        report = Report()
        chosen = _chosen(model)
        self._settle_model(chosen, self._with_stage(mask.STAGE, report), parameters or FitParameters(), report)
        self._label_all(report)
        self._measure(report)
        return report

    @_alone
    def remove(self, names: Sequence[str]) -> Report:
        """Delete cases, and take them out of the tables; the model stays until a fit is asked for.

        A case is deleted in this order: rows of tables, objects, the note of its scan. So a command that was killed
        can be given again.

        Raises
        ------
        StoreError
            If nothing is left of a case of this name; then none is deleted.
        """
        left = {*self.cohort.damaged, *self.cohort.register, *measured_cases(self.cohort)}
        for name in names:
            if name not in left:
                self.cohort.case(name)
        remember_numbers(self.cohort)
        take_out(self.cohort, names)
        self.cohort.forget(names)
        return Report(done=list(names), rows=stored_rows(self.cohort))

    @_alone
    def measure(self, leave_out: Sequence[Tissue] = (), *, radiomics: bool = False) -> Report:
        """Measure all labelled cases, and tell lungs apart where that was not done with the labels.

        Cases with a mask whose labels are not those of the model of the store fail.

        Parameters
        ----------
        leave_out : sequence of Tissue
            Parts of the mask that do not count as lung.
        radiomics : bool
            Write the table of first-order features too; where there is one, it is always written.
        """
        report = self._report_of_store()
        model = report.model
        assert model is not None
        missing = label.without_sides(self.cohort)
        # Labels by another model are not replaced here: who measures has not asked for others.
        missing = [name for name in missing if fault_of_labels(self.cohort[name], model) is None]
        if missing and self.client is not None:
            take_out(self.cohort, missing)
            self._passing.through("label", missing, [self._labelling(model)], report)
        self._measure(report, leave_out, radiomics=radiomics)
        report.done = [str(row["case"]) for row in report.rows]
        self._flag(report, report.done)
        self._compare_models(report)
        return report

    def _report_of_store(self) -> Report:
        """A report that begins with the model of the store."""
        model = stored_model(self.cohort)
        return Report(model=model, model_id=stored_id(self.cohort, model))

    def _compare_models(self, report: Report) -> None:
        """Warn where labels and masks were not made with one model and one preset."""
        use = model_use(self.cohort)
        report.stale = {name: str(one) for name, one in use.stale.items()}
        for warning in use.warnings(self.cohort.url):
            self.listener.say(warning)

    def _take(
        self,
        sources: Sequence[str | Path | Scan],
        report: Report,
        parameters: IntakeParameters,
        outputs: Sequence[str | Path | None],
        series: SeriesRules | None,
    ) -> Intake:
        table = open_table(self.cohort, parameters, *outputs)
        scans: list[Scan] = []
        places: list[str] = []
        for one in look_through(sources, series, self.listener):
            if isinstance(one.found, Refusal):
                report.fail(one.place, one.found.reason)
            elif isinstance(one.found, Skipped):
                report.skip(one.place, one.found.reason)
            else:
                scans.append(one.found)
                places.append(one.place)
        named = assign_names(self.cohort, scans, keep_names=parameters.keep_names)
        for name in changed(self.cohort, named):
            self.listener.say(f"{name}: its source is not what it was: the case is made anew")
        remember_names(self.cohort, named)
        self._passing.know({name: scan.geometry for name, scan in named.items()})
        report.places = dict(zip(named, places, strict=True))
        taken = take_in(self.cohort, named, report.places, parameters, table)
        report.notes = {name: scan.notes for name, scan in taken.scans.items() if scan.notes}
        return taken

    def _settle(self, taken: Intake) -> None:
        remember_numbers(self.cohort)
        taken.settle(self.cohort)

    def _advise(self, new: Mapping[str, Geometry], parameters: MaskParameters) -> None:
        geometries = {**{name: case.geometry for name, case in self.cohort.items()}, **new}
        self._passing.know(geometries)
        hint = mask.advice({name: geometry.slice_spacing for name, geometry in geometries.items()}, parameters)
        if hint:
            self.listener.say(hint)

    def _flag(self, report: Report, names: Sequence[str]) -> None:
        """Note what is doubtful about cases that did not fail."""
        wanted = {*names} - report.failed.keys()
        for name, case in self.cohort.items() if wanted else ():
            if name in wanted:
                report.note(name, flags_of(case))
        for row in report.rows:
            if row["case"] in wanted:
                report.note(str(row["case"]), remarks_on(row))

    def _all_names(self, scans: dict[str, Scan]) -> list[str]:
        return sorted({*scans, *self.cohort})

    def _with_stage(self, stage: str, report: Report) -> list[str]:
        return [name for name, case in self.cohort.items() if stage in case.stages and name not in report.failed]

    def _converting(self, scans: Mapping[str, Scan], chunk_slices: int | None, nrrd: Path | None = None) -> Step:
        def work(name: str) -> str:
            if name not in scans:
                return "kept"
            watch = self._passing.watch(name, convert.STAGE)
            watch(0, 1)
            status = convert.convert_case(self.client, self.cohort, name, scans[name], chunk_slices, self._passing.room)
            if nrrd is not None:
                write_volume(self.cohort[name], nrrd, anew=status != "kept")
            watch(1, 1)
            return status

        return convert.STAGE, work

    def _masking(self, parameters: MaskParameters, *, accept_hu: bool = False) -> Step:
        return mask.STAGE, lambda name: mask.mask_case(
            self.client, self.cohort, name, parameters, self._passing.watch(name, mask.STAGE), accept_hu=accept_hu,
            room=self._passing.room,
        )  # fmt: skip

    def _labelling(self, model: TissueModel) -> Step:
        model_name = stored_id(self.cohort, model).name
        return label.STAGE, lambda name: label.label_case(
            self.client,
            self.cohort,
            name,
            model,
            self._passing.watch(name, label.STAGE),
            model_name,
            self._passing.room,
        )

    def _label_all(self, report: Report, steps: Sequence[Step] = ()) -> None:
        """Label all masked cases; `steps` make masks again that turn out to be damaged."""
        if report.model is None:
            return
        model = report.model
        take_out_stale(self.cohort, lambda case: takes_other_labels(case, model))
        stage, label_one = self._labelling(model)

        def work(name: str) -> str:
            if steps and mask.STAGE not in self.cohort[name].stages:
                for _, step in steps:
                    step(name)
            return label_one(name)

        self._passing.through("label", self._with_stage(mask.STAGE, report), [(stage, work)], report)

    def _settle_model(
        self,
        chosen: TissueModel | None,
        names: Sequence[str],
        parameters: FitParameters,
        report: Report,
        steps: Sequence[Step] = (),
    ) -> None:
        if chosen is not None:
            fit.publish(self.cohort, chosen, {"given": True})
            report.model, report.model_id = chosen, stored_id(self.cohort, chosen)
            return

        def work() -> None:
            whole = [name for name in names if name not in report.failed]
            if names and not whole:
                return
            apart = not_pooled(self.cohort, whole)
            whole = [name for name in whole if name not in apart]
            if apart and not whole:
                raise ModelError(
                    f"none of {len(apart)} masked cases can be pooled, because their HU are doubtful (such as "
                    f"{next(iter(apart))}: {next(iter(apart.values()))}): label them with --model published"
                )
            with (
                self._passing.bar("voxels" if parameters.method != "counts" else "counts") as watch,
                Ledger(report.spent).alone(fit.STAGE),
            ):
                report.fits, _ = fit.fit_cohort(self.cohort, whole, parameters, self.client, watch)
                report.model = report.fits[parameters.fit]
                report.model_id = stored_id(self.cohort, report.model)
                report.note(fit.STAGE, fit.doubts_of(report.model, len(whole)))
                report.comparison = compare(report.fits, fit.CountsOfCases(self.cohort, whole), parameters.clip)

        self._passing.of_all("the fit", work, steps, report)

    def _has_true_rows(self, name: str) -> bool:
        return name in self.cohort.damaged or (name in self.cohort and has_true_rows(self.cohort[name]))

    def _measure(
        self,
        report: Report,
        leave_out: Sequence[Tissue] | None = None,
        *,
        radiomics: bool = False,
        steps: Sequence[Step] = (),
    ) -> None:
        """Write the tables; parts are left out as they were, unless the caller says which."""
        model = report.model
        if model is None:
            return
        parts = left_out(self.cohort) if leave_out is None else leave_out

        def work() -> None:
            measured = measured_cases(self.cohort)
            names = []
            for name, case in self.cohort.items():
                fault = fault_of_labels(case, model)
                if fault is None:
                    # Also where it failed, as at a source that is cut short: what it holds is still true.
                    names.append(name)
                elif name not in report.failed and (mask.STAGE in case.stages or name in measured):
                    report.fail(name, fault)
            if not names:
                # A table of one model is never mixed with another, and never emptied for want of new rows.
                take_out(self.cohort, {name for name in measured if not self._has_true_rows(name)})
                return
            with Ledger(report.spent).alone(MEASURE):
                report.rows = measure_cohort(self.cohort, names, model, parts)
                if radiomics:
                    report.radiomics = radiomics_of_cohort(self.cohort, names, model, parts)
                elif self.cohort.read_text(RADIOMICS_FILE) is not None:
                    radiomics_of_cohort(self.cohort, names, model, parts)

        self._passing.of_all("the measurements", work, [*steps, self._labelling(model)] if steps else [], report)
