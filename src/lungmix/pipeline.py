"""From sources to measurements: which stages run for which cases, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial, wraps
from math import prod
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from distributed import Client

from lungmix import errors
from lungmix.analysis.comparison import Comparison, compare
from lungmix.analysis.selection import bic_table
from lungmix.care import Care
from lungmix.engine import Ledger, Listener, Spent
from lungmix.engine.trouble import is_memory
from lungmix.errors import LungmixError, StoreError, anonymous, shown
from lungmix.export.images import write_volume
from lungmix.formats import Refusal, Scan, SeriesRules, Skipped
from lungmix.geometry import Geometry
from lungmix.mixture import Fits, TissueModel, load_model
from lungmix.parameters import FitParameters, IntakeParameters, MaskParameters
from lungmix.stages import convert, fit, label, mask
from lungmix.stages.finding import look_through
from lungmix.stages.intake import Intake, open_table, take_in
from lungmix.stages.key_table import check_outside
from lungmix.stages.measure import Row, measure_cohort, radiomics_of_cohort
from lungmix.stages.names import assign_names, remember_numbers
from lungmix.store import MODEL_FILE, Cohort
from lungmix.tissue import Tissue

P = ParamSpec("P")

FIT = "fit"
MEASURE = "measure"

Step = tuple[str, Callable[[str], str]]
"""A stage and its work on a case, which answers "done" or "kept"."""


@dataclass
class Report:
    """What a run did.

    Attributes
    ----------
    done : list of str
        Cases that went through.
    failed : dict of str to str
        Reason for every case or source that did not, without names of files: what may be passed on.
    told : dict of str to str
        The same with names, for the person at the terminal.
    places : dict of str to str
        Where the cases of this run came from, such as ``source 2, item 17``.
    model : TissueModel or None
        The mixture of the labels.
    fits : Fits or None
        Both fits, where a mixture was fitted.
    comparison : Comparison or None
        Both fits side by side.
    selection : list of dict
        Several numbers of components and their BIC, where that was asked for.
    rows : list of dict
        Measurements, one row a labelled case.
    radiomics : list of dict
        First-order features, one row a region of a labelled case, where that was asked for.
    skipped : dict of str to str
        Parts of sources that are not meant to be scans, or were not chosen, with the reason; no failures.
    notes : dict of str to tuple of str
        What people should know of cases, such as gaps that were interpolated; names of files are marked.
    errors : dict of str to Exception
        The errors behind `failed`, for debugging.
    spent : dict of str to Spent
        Where the time went, by stage; stages that were all kept are missing.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    model: TissueModel | None = None
    fits: Fits | None = None
    comparison: Comparison | None = None
    selection: list[dict[str, Any]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    radiomics: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    spent: dict[str, Spent] = field(default_factory=dict)

    def skip(self, name: str, reason: str) -> None:
        """Take note of what is not meant to be a scan."""
        self.skipped[name], self.told[name] = anonymous(reason), shown(reason)

    def fail(self, name: str, reason: str, error: Exception | None = None) -> None:
        """Take note of a failure; names in the reason are marked."""
        self.failed[name], self.told[name] = anonymous(reason), shown(reason)
        if error is not None:
            self.errors[name] = error


def _alone(method: Callable[Concatenate[Pipeline, P], Report]) -> Callable[Concatenate[Pipeline, P], Report]:
    """Hold the lock of the store while a method writes to it."""

    @wraps(method)
    def alone(self: Pipeline, /, *args: P.args, **options: P.kwargs) -> Report:
        with self.cohort.locked(wait=self.wait, say=self.listener.say):
            return method(self, *args, **options)

    return alone


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
    _sizes: dict[str, int] = field(default_factory=dict, repr=False)

    @_alone
    def run(
        self,
        sources: Sequence[str | Path | Scan],
        parameters: MaskParameters,
        model: str | Path = FIT,
        fit_parameters: FitParameters | None = None,
        intake: IntakeParameters | None = None,
        outputs: Sequence[str | Path | None] = (),
        series: SeriesRules | None = None,
    ) -> Report:
        """Do every stage that is not done yet, for sources and for the cases that the store holds.

        Parameters
        ----------
        sources : sequence of str, Path or Scan
            Paths, or scans that were found already, such as those that come in passing.
        parameters : MaskParameters
            Sizes of the mask.
        model : str or Path
            ``fit``, ``published`` or a file.
        fit_parameters : FitParameters, optional
            How mixtures are fitted.
        intake : IntakeParameters, optional
            What is kept of whose scans they are.
        outputs : sequence of str or Path
            Folders that will be written beside the store; a key table may not lie in them.
        series : SeriesRules, optional
            Which DICOM series are used.
        """
        report = Report()
        chosen = None if str(model) == FIT else load_model(model)
        taken = self._take(sources, report, intake or IntakeParameters(), outputs, series)
        scans = taken.scans
        self._advise({name: scan.geometry for name, scan in scans.items()}, parameters)
        steps = [self._converting(scans), self._masking(parameters)]
        if chosen is not None:
            # Labels by a given model need not wait for the other cases.
            self._settle_model(chosen, [], FitParameters(), report)
            self._pass("label", self._all_names(scans), [*steps, self._labelling(chosen)], report)
            self._settle(taken)
        else:
            self._pass("mask", self._all_names(scans), steps, report)
            self._settle(taken)
            masked = self._with_stage(mask.STAGE, report)
            if masked:
                self._settle_model(None, masked, fit_parameters or FitParameters(), report)
                assert report.model is not None
                self._pass("label", masked, [self._labelling(report.model)], report)
        self._measure(report)
        return report

    @_alone
    def convert(
        self,
        sources: Sequence[str | Path | Scan],
        intake: IntakeParameters | None = None,
        nrrd: Path | None = None,
        series: SeriesRules | None = None,
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
        """
        report = Report()
        if nrrd is not None:
            check_outside(nrrd, "--nrrd", self.cohort.url)
        taken = self._take(sources, report, intake or IntakeParameters(), [nrrd], series)
        self._pass("convert", list(taken.scans), [self._converting(taken.scans, nrrd)], report)
        self._settle(taken)
        return report

    @_alone
    def mask(self, parameters: MaskParameters) -> Report:
        """Find the lungs of all cases of the store."""
        report = Report()
        self._advise({}, parameters)
        names = list(self.cohort)
        self._pass("mask", names, [self._masking(parameters)], report)
        return report

    @_alone
    def fit(
        self,
        model: str | Path = FIT,
        parameters: FitParameters | None = None,
        cases: Sequence[str] = (),
        leave_out: Sequence[str] = (),
    ) -> Report:
        """Fit mixtures to masked cases, all or some, or take a given one."""
        report = Report()
        chosen = None if str(model) == FIT else load_model(model)
        report.done = fit.choose_cases(self._with_stage(mask.STAGE, report), cases, leave_out)
        self._settle_model(chosen, report.done, parameters or FitParameters(), report)
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
        with self._bar("components") as watch:
            report.selection = bic_table(counts, parameters or FitParameters(), components, watch)
        return report

    @_alone
    def label(self) -> Report:
        """Label all masked cases with the model of the store."""
        report = Report(model=stored_model(self.cohort))
        assert report.model is not None
        names = self._with_stage(mask.STAGE, report)
        self._pass("label", names, [self._labelling(report.model)], report)
        return report

    @_alone
    def relabel(self, model: str | Path, parameters: FitParameters | None = None) -> Report:
        """Label all masked cases with another model, and measure them; masks stay as they are."""
        report = Report()
        chosen = None if str(model) == FIT else load_model(model)
        names = self._with_stage(mask.STAGE, report)
        self._settle_model(chosen, names, parameters or FitParameters(), report)
        assert report.model is not None
        self._pass("label", names, [self._labelling(report.model)], report)
        self._measure(report)
        return report

    @_alone
    def remove(self, names: Sequence[str]) -> Report:
        """Delete cases, and take them out of the tables; the model stays until a fit is asked for.

        Raises
        ------
        StoreError
            If the store has no such case; then none is deleted.
        """
        for name in names:
            self.cohort.case(name)
        remember_numbers(self.cohort)
        for name in names:
            self.cohort.remove(name)
        report = Report(done=list(names))
        if self.cohort.read_text(MODEL_FILE) is not None:
            report.model = stored_model(self.cohort)
            self._measure(report)
        return report

    @_alone
    def measure(self, leave_out: Sequence[Tissue] = (), *, radiomics: bool = False) -> Report:
        """Measure all labelled cases, and tell lungs apart where that was not done with the labels.

        Parameters
        ----------
        leave_out : sequence of Tissue
            Parts of the mask that do not count as lung.
        radiomics : bool
            Write the table of first-order features too.
        """
        model = stored_model(self.cohort)
        report = Report(model=model)
        missing = label.without_sides(self.cohort)
        if missing and self.client is not None:
            self._pass("label", missing, [self._labelling(model)], report)
        self._measure(report, leave_out, radiomics=radiomics)
        report.done = [str(row["case"]) for row in report.rows]
        return report

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
        self._know({name: scan.geometry for name, scan in named.items()})
        report.places = dict(zip(named, places, strict=True))
        taken = take_in(self.cohort, named, report.places, parameters, table)
        report.notes = {name: scan.notes for name, scan in taken.scans.items() if scan.notes}
        return taken

    def _settle(self, taken: Intake) -> None:
        remember_numbers(self.cohort)
        taken.settle(self.cohort)

    def _advise(self, new: Mapping[str, Geometry], parameters: MaskParameters) -> None:
        geometries = {**{name: case.geometry for name, case in self.cohort.items()}, **new}
        self._know(geometries)
        hint = mask.advice({name: geometry.spacing[2] for name, geometry in geometries.items()}, parameters)
        if hint:
            self.listener.say(hint)

    def _know(self, geometries: Mapping[str, Geometry]) -> None:
        self._sizes.update({name: 2 * prod(one.size) for name, one in geometries.items()})

    def _sizes_of(self, names: Sequence[str]) -> dict[str, int]:
        """Bytes of HU by case, for progress; opens only cases that were not seen before."""
        for name in names:
            if name not in self._sizes:
                # What cannot be opened is told by its stages.
                with suppress(LungmixError, KeyError):
                    self._know({name: self.cohort[name].geometry})
        return {name: self._sizes.get(name, 0) for name in names}

    def _all_names(self, scans: dict[str, Scan]) -> list[str]:
        return sorted({*scans, *self.cohort})

    def _with_stage(self, stage: str, report: Report) -> list[str]:
        return [name for name, case in self.cohort.items() if stage in case.stages and name not in report.failed]

    def _converting(self, scans: Mapping[str, Scan], nrrd: Path | None = None) -> Step:
        def work(name: str) -> str:
            if name not in scans:
                return "kept"
            watch = self._watch(name, convert.STAGE)
            watch(0, 1)
            status = convert.convert_case(self.client, self.cohort, name, scans[name])
            if nrrd is not None:
                write_volume(self.cohort[name], nrrd, anew=status != "kept")
            watch(1, 1)
            return status

        return convert.STAGE, work

    def _masking(self, parameters: MaskParameters) -> Step:
        return mask.STAGE, lambda name: mask.mask_case(
            self.client, self.cohort, name, parameters, self._watch(name, mask.STAGE)
        )

    def _labelling(self, model: TissueModel) -> Step:
        return label.STAGE, lambda name: label.label_case(
            self.client, self.cohort, name, model, self._watch(name, label.STAGE)
        )

    def _settle_model(
        self, chosen: TissueModel | None, names: Sequence[str], parameters: FitParameters, report: Report
    ) -> None:
        if chosen is not None:
            fit.publish(self.cohort, chosen, {"given": True})
            report.model = chosen
            return
        with (
            self._bar("voxels" if parameters.method != "counts" else "counts") as watch,
            Ledger(report.spent).alone(fit.STAGE),
        ):
            report.fits, _ = fit.fit_cohort(self.cohort, names, parameters, self.client, watch)
            report.model = report.fits[parameters.fit]
            report.comparison = compare(report.fits, fit.CountsOfCases(self.cohort, names), parameters.clip)

    @contextmanager
    def _bar(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Progress of work that no case owns."""
        self.listener.begin(fit.STAGE, [what])
        try:
            yield self._watch(what, fit.STAGE)
        finally:
            self.listener.end()

    def _measure(self, report: Report, leave_out: Sequence[Tissue] = (), *, radiomics: bool = False) -> None:
        if report.model is None:
            return
        names = [
            name
            for name in self._with_stage(label.STAGE, report)
            if self.cohort[name].stages[label.STAGE]["key"] == label.key_for(self.cohort[name], report.model)
        ]
        with Ledger(report.spent).alone(MEASURE):
            report.rows = measure_cohort(self.cohort, names, report.model, leave_out)
            if radiomics:
                report.radiomics = radiomics_of_cohort(self.cohort, names, report.model, leave_out)

    def _watch(self, name: str, stage: str) -> Callable[[int, int], None]:
        return lambda done, total: self.listener.advance(name, stage, done, total)

    def _pass(self, title: str, names: Sequence[str], steps: Sequence[Step], report: Report) -> None:
        ledger = Ledger(report.spent)

        def work(name: str) -> None:
            watched = {}
            try:
                for stage, step in steps:
                    status, spent = ledger.watch(name, stage, partial(step, name))
                    if status == "done":
                        watched[stage] = spent
                        self.listener.spent(name, stage, spent)
            finally:
                with suppress(OSError):
                    if watched and name in self.cohort:
                        self.cohort[name].note({stage: spent.to_dict() for stage, spent in watched.items()})

        care = Care(self.client, self.cohort, self.listener)
        self.listener.begin(title, names, self._sizes_of(names))
        try:
            with ledger.listening(self.client):
                for outcome in care.through(names, work, self._window()):
                    if outcome.error is None:
                        self.listener.finish(outcome.item)
                    else:
                        reason = reason_of(outcome.error)
                        care.note(outcome.item, title, outcome.error)
                        report.fail(outcome.item, reason, outcome.error)
                        self.listener.finish(outcome.item, reason)
        finally:
            self.listener.end()
        report.done = [name for name in names if name not in report.failed]

    def _window(self) -> int:
        # One case more than workers: while one ends, the next has begun.
        return max(2, len(self.client.scheduler_info(n_workers=-1)["workers"]) + 1)


def stored_model(cohort: Cohort) -> TissueModel:
    """The mixture of a store.

    Raises
    ------
    StoreError
        If it has none.
    """
    text = cohort.read_text(MODEL_FILE)
    if text is None:
        raise StoreError(f"{cohort.url} holds no model yet: run `lungmix fit {cohort.url}` first")
    return TissueModel.from_json(text)


def reason_of(error: BaseException) -> str:
    """One sentence for people; a run meets workers too."""
    if is_memory(error):
        return "a worker died several times at this case, most likely for want of memory: give --memory-limit more"
    return errors.reason_of(error)
