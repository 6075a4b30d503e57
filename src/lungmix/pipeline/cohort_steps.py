"""Steps of a run that read all cases: fit a mixture, write the tables of measurements, collect notes on cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lungmix.analysis.comparison import Comparison, compare_cases
from lungmix.callbacks import stage_events
from lungmix.cluster import UsageRecorder
from lungmix.errors import ModelError, count_of
from lungmix.mixture import TissueModel
from lungmix.parameters import POOL_LUNGS, FitParameters
from lungmix.pipeline.followup import update_followup
from lungmix.pipeline.harmonisation import fault_of_image
from lungmix.pipeline.result import RunResult
from lungmix.pipeline.runner import CaseRunner
from lungmix.pipeline.staleness import fault_of_labels
from lungmix.pipeline.zones import zone_stages
from lungmix.stages import fit, mask, quality, regions
from lungmix.stages.base import Stage
from lungmix.stages.flags import flagged_cases, flags_of
from lungmix.stages.harmonise import notes_of
from lungmix.stages.label import LabelStage, without_sides
from lungmix.stages.measure import (
    drop_rows,
    drop_stale_rows,
    excluded_regions,
    has_zone_rows,
    measure_cohort,
    measured_cases,
)
from lungmix.stages.plausibility import not_pooled
from lungmix.stages.pool import without_lungs
from lungmix.stages.sides import SideStage
from lungmix.store import QUALITY_FILE, RADIOMICS_FILE, ZONES_FILE, Cohort
from lungmix.store.choices import last_harmonisation, last_quality, last_smoothing, last_zones
from lungmix.store.models import model_use, stored_id
from lungmix.store.schema import ZONE
from lungmix.tissue import Tissue

MEASURE = "measure"

_SHOWN = 5


def label_stage_of(cohort: Cohort, model: TissueModel, before: Sequence[Stage] = ()) -> LabelStage:
    """Return the stage that labels with a model of the store.

    It labels under a Potts prior, and makes lung zones along with labels, if the store remembers them.
    """
    return LabelStage(model, stored_id(cohort, model).name, before, last_smoothing(cohort), last_zones(cohort))


def label_stages(cohort: Cohort, model: TissueModel, before: Sequence[Stage] = ()) -> list[Stage]:
    """Return the stages that label with a model of the store, and make lung zones if the store remembers them.

    The last stage makes zones of cases whose labels are kept.
    """
    return [label_stage_of(cohort, model, before), *zone_stages(cohort)]


def resolve_model(
    runner: CaseRunner,
    given: TissueModel | None,
    names: Sequence[str],
    parameters: FitParameters,
    result: RunResult,
    stages: Sequence[Stage] = (),
) -> None:
    """Set the model of the result: the given one, or else one that is fitted to the cases `names`."""
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
        Stages that recompute a case whose data turn out to be corrupt, see `CaseRunner.run_cohort_step`.

    Raises
    ------
    ModelError
        If no case can be pooled.
    """
    cohort = runner.cohort
    if parameters.exclude_flagged:
        measure_quality(runner, [name for name in names if name not in result.failed], result)
    if parameters.pool == POOL_LUNGS:
        _find_sides(runner, [name for name in names if name not in result.failed], result)

    def step() -> None:
        pooled = [name for name in names if name not in result.failed]
        if names and not pooled:
            return
        apart = not_pooled(cohort, pooled, runner.client)
        pooled = [name for name in pooled if name not in apart]
        flagged = flagged_cases(cohort, pooled) if parameters.exclude_flagged else {}
        if flagged and len(flagged) == len(pooled):
            name, flags = next(iter(flagged.items()))
            raise ModelError(
                f"none of {len(pooled)} masked cases can be pooled, because quality control flags each (such as "
                f"{name}: {', '.join(flags)}): label them with `model='published'`, change thresholds by "
                "`quality`, or pool them with `exclude_flagged=False`"
            )
        pooled = [name for name in pooled if name not in flagged]
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
            counted = progress if parameters.method == "counts" else None
            histograms = fit.CohortHistograms(cohort, pooled, parameters, runner.client, counted)
            result.fits, _ = fit.fit_cohort(cohort, pooled, parameters, runner.client, progress, flagged, histograms)
            result.model = result.fits[parameters.fit]
            result.model_id = stored_id(cohort, result.model)
            notes = without_lungs(cohort, pooled, runner.client) if parameters.pool == POOL_LUNGS else []
            result.note(fit.STAGE, [*_note_of_flagged(flagged), *notes, *fit.doubts_of(len(pooled), parameters)])
            result.comparison = compare_cases(
                result.fits, cohort, pooled, histograms.alike, parameters.clip, runner.client
            )
            _warn_of_doubts(runner, parameters.fit, result.comparison)

    runner.run_cohort_step("the fit", step, stages, result)


def _warn_of_doubts(runner: CaseRunner, name: str, comparison: Comparison) -> None:
    """Warn if checks of the fit that labels the voxels fail, and name fits that pass or the published model."""
    diagnosis = comparison.diagnosis[name]
    if diagnosis["doubtful"]:
        texts = [row["text"] for row in diagnosis["checks"] if row["fails"]]
        passing = [other for other, item in comparison.diagnosis.items() if not item["doubtful"]]
        others = (
            f"; checks of {' and '.join(passing)} pass"
            if passing
            else '; no other fit passes: label by `model="published"`, and see "Is a fit good?" in the documentation '
            "(docs/diagnosis.md)"
        )
        runner.callback.on_warning(f"labels by the fit {name} are doubtful: {'; '.join(texts)}{others}")


def has_incomplete_cases(cohort: Cohort) -> bool:
    """Return True if a labelled case lacks its regions, or numbers of quality control that can be measured."""
    return bool(without_sides(cohort) or quality.without_numbers(cohort))


def complete_cases(runner: CaseRunner, result: RunResult) -> None:
    """Compute missing regions and numbers of quality control of all cases that are labelled by the result's model."""
    cohort, model = runner.cohort, result.model
    assert model is not None

    def labelled(names: Sequence[str]) -> list[str]:
        # A command that measures labels no voxels: cases with labels by another model stay as they are.
        return [name for name in names if fault_of_labels(cohort[name], model) is None]

    missing = labelled(without_sides(cohort))
    if missing:
        drop_rows(cohort, missing)
        runner.run_cases("label", missing, [label_stage_of(cohort, model)], result)
    measure_quality(runner, labelled(quality.without_numbers(cohort)), result)


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
        Regions that do not count as lung; by default the same regions as in the last measurement.
    radiomics : bool
        Write the table of first-order features too. A store that has this table always gets a new one.
    stages : sequence of Stage
        Stages before the labels, which recompute a case whose data turn out to be corrupt.
    """
    cohort, model = runner.cohort, result.model
    if model is None:
        return
    regions = excluded_regions(cohort) if excluded is None else excluded

    def step() -> None:
        measured, parameters = measured_cases(cohort), last_harmonisation(cohort)
        names, spacings = [], {}
        for name, case in cohort.items():
            fault = fault_of_labels(case, model) or fault_of_image(case, parameters)
            if fault is None:
                # A case that failed in this run is measured too: its stored labels are valid, and its source, for
                # example, may be a truncated file now.
                names.append(name)
                spacings[name] = case.geometry.spacing
            elif name not in result.failed and (mask.STAGE in case.stages or name in measured):
                result.fail(name, fault)
        if not names:
            # No case has labels by this model. Rows by another model stay if their cases still have labels.
            drop_rows(cohort, {name for name in measured if not _has_true_rows(cohort, name)})
            return
        with UsageRecorder(result.spent).alone(MEASURE):
            result.rows, result.spacings = measure_cohort(cohort, names, model, regions), spacings
            result.quality = measure_cohort(cohort, names, model, regions, QUALITY_FILE, result.rows)
            if radiomics or cohort.read_text(RADIOMICS_FILE) is not None:
                table = measure_cohort(cohort, names, model, regions, RADIOMICS_FILE)
                result.radiomics = table if radiomics else []
            zoned = [name for name in names if has_zone_rows(cohort[name])]
            if zoned:
                result.zones = measure_cohort(cohort, zoned, model, regions, ZONES_FILE)
            elif cohort.read_text(ZONES_FILE) is not None:
                drop_stale_rows(cohort, lambda case: {ZONE})
            update_followup(cohort, names, model)

    runner.run_cohort_step("the measurements", step, [*stages, *label_stages(cohort, model)] if stages else [], result)


def add_flags(cohort: Cohort, result: RunResult, names: Sequence[str]) -> None:
    """Add notes on doubtful cases among `names` to the result."""
    selected = {*names} - result.failed.keys()
    parameters, rows = last_quality(cohort), {str(row["case"]): row for row in result.rows}
    for name, case in cohort.items() if selected else ():
        if name in selected:
            result.note(name, [*flags_of(case, parameters, rows.get(name)), *notes_of(case)])


def compare_models(runner: CaseRunner, result: RunResult) -> None:
    """Warn if labels of the store are by different models, or its masks by different parameters."""
    use = model_use(runner.cohort)
    result.stale = {name: str(model_id) for name, model_id in use.stale.items()}
    for warning in use.warnings():
        runner.callback.on_warning(warning)


def _note_of_flagged(flagged: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a sentence on the cases that a fit excluded because of their flags; no sentence if there are none."""
    if not flagged:
        return []
    listed = "; ".join(f"{name}: {', '.join(flags)}" for name, flags in list(flagged.items())[:_SHOWN])
    more = f"; and {len(flagged) - _SHOWN} more" if len(flagged) > _SHOWN else ""
    return [f"{count_of(len(flagged), 'flagged case')} not pooled ({listed}{more})"]


def measure_quality(runner: CaseRunner, names: Sequence[str], result: RunResult) -> None:
    """Measure numbers of quality control for those masked cases among `names` whose numbers the store lacks."""
    cohort, done = runner.cohort, result.done
    missing = [name for name in names if quality.is_unmeasured(cohort[name])]
    if missing:
        runner.run_cases(quality.STAGE, missing, [quality.QualityStage()], result)
        result.done = [name for name in done if name not in result.failed]


def _find_sides(runner: CaseRunner, names: Sequence[str], result: RunResult) -> None:
    """Find right and left lung of those masked cases among `names` that lack them."""
    cohort, done = runner.cohort, result.done
    missing = [name for name in names if not regions.is_valid(cohort[name])]
    if missing:
        runner.run_cases(regions.STAGE, missing, [SideStage()], result)
        result.done = [name for name in done if name not in result.failed]


def _has_true_rows(cohort: Cohort, name: str) -> bool:
    return name in cohort.damaged or (name in cohort and cohort[name].has_labels)
