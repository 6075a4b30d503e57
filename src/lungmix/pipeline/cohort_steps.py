"""Steps that read all cases at once: the fit of a mixture, the tables of measurements, and notes on doubtful cases."""

from __future__ import annotations

from collections.abc import Sequence

from lungmix.analysis.comparison import compare
from lungmix.callbacks import stage_events
from lungmix.cluster import UsageRecorder
from lungmix.errors import ModelError
from lungmix.mixture import TissueModel
from lungmix.parameters import FitParameters
from lungmix.pipeline.result import RunResult
from lungmix.pipeline.runner import CaseRunner
from lungmix.pipeline.staleness import fault_of_labels
from lungmix.stages import fit, mask
from lungmix.stages.base import Stage
from lungmix.stages.flags import flags_of, remarks_on
from lungmix.stages.label import LabelStage
from lungmix.stages.measure import drop_rows, excluded_regions, measure_cohort, measured_cases
from lungmix.stages.plausibility import not_pooled
from lungmix.store import RADIOMICS_FILE, Cohort
from lungmix.store.models import stored_id
from lungmix.tissue import Tissue

MEASURE = "measure"


def label_stage_of(cohort: Cohort, model: TissueModel, before: Sequence[Stage] = ()) -> LabelStage:
    """Return the stage that labels with a model, under the name that the store has for it; see `LabelStage`."""
    return LabelStage(model, stored_id(cohort, model).name, before)


def resolve_model(
    runner: CaseRunner,
    given: TissueModel | None,
    names: Sequence[str],
    parameters: FitParameters,
    result: RunResult,
    stages: Sequence[Stage] = (),
) -> None:
    """Take the model that was given, or fit one to the cases `names`; see `fit_mixture`."""
    if given is None:
        fit_mixture(runner, names, parameters, result, stages)
    else:
        fit.publish(runner.cohort, given, {"given": True})
        result.model, result.model_id = given, stored_id(runner.cohort, given)


def fit_mixture(
    runner: CaseRunner,
    names: Sequence[str],
    parameters: FitParameters,
    result: RunResult,
    stages: Sequence[Stage] = (),
) -> None:
    """Fit mixtures to masked cases.

    Parameters
    ----------
    runner : CaseRunner
        Runner of the cases.
    names : sequence of str
        Cases; those that have failed and those whose HU are doubtful are excluded.
    parameters : FitParameters
        How mixtures are fitted.
    result : RunResult
        Receives the fits, the model of the labels and notes.
    stages : sequence of Stage
        Compute a case again that turns out to be corrupt, see `CaseRunner.run_cohort_step`.

    Raises
    ------
    ModelError
        If no case can be pooled.
    """
    cohort = runner.cohort

    def step() -> None:
        pooled = [name for name in names if name not in result.failed]
        if names and not pooled:
            return
        apart = not_pooled(cohort, pooled)
        pooled = [name for name in pooled if name not in apart]
        if apart and not pooled:
            raise ModelError(
                f"none of {len(apart)} masked cases can be pooled, because their HU are doubtful (such as "
                f"{next(iter(apart))}: {next(iter(apart.values()))}): label them with `model='published'`"
            )
        title = "voxels" if parameters.method != "counts" else "counts"
        with (
            stage_events(runner.callback, fit.STAGE, [title]) as progress,
            UsageRecorder(result.spent).alone(fit.STAGE),
        ):
            result.fits, _ = fit.fit_cohort(cohort, pooled, parameters, runner.client, progress)
            result.model = result.fits[parameters.fit]
            result.model_id = stored_id(cohort, result.model)
            result.note(fit.STAGE, fit.doubts_of(result.model, len(pooled)))
            result.comparison = compare(result.fits, fit.CountsOfCases(cohort, pooled), parameters.clip)

    runner.run_cohort_step("the fit", step, stages, result)


def measure_cases(
    runner: CaseRunner,
    result: RunResult,
    excluded: Sequence[Tissue] | None = None,
    *,
    radiomics: bool = False,
    stages: Sequence[Stage] = (),
) -> None:
    """Write the tables of measurements of all cases with labels by the model of the result.

    Parameters
    ----------
    runner : CaseRunner
        Runner of the cases.
    result : RunResult
        Has the model, and receives rows and failures.
    excluded : sequence of Tissue, optional
        Regions that do not count as lung; by default those of the last measurement.
    radiomics : bool
        Write the table of first-order features too; where there is one, it is always written.
    stages : sequence of Stage
        Compute a case again, before its labels, that turns out to be corrupt.
    """
    cohort, model = runner.cohort, result.model
    if model is None:
        return
    regions = excluded_regions(cohort) if excluded is None else excluded

    def step() -> None:
        measured = measured_cases(cohort)
        names, spacings = [], {}
        for name, case in cohort.items():
            fault = fault_of_labels(case, model)
            if fault is None:
                # Also where it failed, as at a source that is cut short: what it holds is still true.
                names.append(name)
                spacings[name] = case.geometry.spacing
            elif name not in result.failed and (mask.STAGE in case.stages or name in measured):
                result.fail(name, fault)
        if not names:
            # A table of one model is never mixed with another, and never emptied because there are no new rows.
            drop_rows(cohort, {name for name in measured if not _has_true_rows(cohort, name)})
            return
        with UsageRecorder(result.spent).alone(MEASURE):
            result.rows, result.spacings = measure_cohort(cohort, names, model, regions), spacings
            if radiomics or cohort.read_text(RADIOMICS_FILE) is not None:
                table = measure_cohort(cohort, names, model, regions, RADIOMICS_FILE)
                result.radiomics = table if radiomics else []

    runner.run_cohort_step("the measurements", step, [*stages, label_stage_of(cohort, model)] if stages else [], result)


def add_flags(cohort: Cohort, result: RunResult, names: Sequence[str]) -> None:
    """Add notes on doubtful cases among `names` to the result."""
    selected = {*names} - result.failed.keys()
    for name, case in cohort.items() if selected else ():
        if name in selected:
            result.note(name, flags_of(case))
    for row in result.rows:
        if row["case"] in selected:
            result.note(str(row["case"]), remarks_on(row))


def _has_true_rows(cohort: Cohort, name: str) -> bool:
    return name in cohort.damaged or (name in cohort and cohort[name].has_labels)
