"""Origin of each mask of a run: a mask file, an earlier run, a segmenter, or the computation from HU."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lungmix.errors import count_of
from lungmix.formats import Scan
from lungmix.geometry import Geometry
from lungmix.intake.mask_matching import match_masks
from lungmix.parameters import NO_MASKS, MaskLabels, MaskParameters
from lungmix.pipeline.result import RunResult
from lungmix.pipeline.runner import CaseRunner
from lungmix.segmenters import SegmenterSpec
from lungmix.stages.anatomical import mask_stage
from lungmix.stages.given_mask import GivenMaskStage, is_given
from lungmix.stages.mask import MaskStage, advice
from lungmix.stages.segmented_mask import SegmentedMaskStage
from lungmix.store import Case, Cohort, CohortWriter
from lungmix.store.choices import remember_mask, resolve_mask
from lungmix.store.models import record_of
from lungmix.store.schema import GIVEN_MASKS, MASK

AnyMaskStage = MaskStage | GivenMaskStage | SegmentedMaskStage


def plan_masks(
    runner: CaseRunner,
    names: Sequence[str],
    scans: Mapping[str, Scan],
    result: RunResult,
    mask: MaskParameters | None = None,
    *,
    accept_hu: bool = False,
    masks: str | Path | None = None,
    mask_labels: str | Mapping[str, Any] | MaskLabels | None = None,
    segmenter: SegmenterSpec | None = None,
) -> AnyMaskStage:
    """Return the stage that makes the masks of a run, and record its parameters in the store.

    Parameters
    ----------
    runner : CaseRunner
        Runner of the cases.
    names : sequence of str
        Cases of the run.
    scans : mapping of str to Scan
        Scans of this run by case.
    result : RunResult
        Receives mask files that belong to no case.
    mask : MaskParameters, optional
        Parameters of computed masks; by default those of the store, see `lungmix.store.choices.resolve_mask`.
    accept_hu : bool
        Make masks of scans whose values are not HU of a chest CT.
    masks : str or Path, optional
        Folder, file or table of mask files. By default, cases keep masks that came from files.
    mask_labels : str, mapping or MaskLabels, optional
        Labels of the mask files.
    segmenter : SegmenterSpec, optional
        Segmenter that makes the masks of all cases.

    Raises
    ------
    UsageError
        If `masks` holds no mask files, or `mask_labels` cannot be parsed.
    """
    cohort, parameters = runner.cohort, resolve_mask(runner.cohort, mask)
    labels = MaskLabels.parse(mask_labels)
    if segmenter is not None:
        return _plan_segmenter(runner, scans, SegmentedMaskStage(segmenter, parameters, accept_hu))
    computed = mask_stage(parameters, accept_hu)
    cases = dict(cohort.items())
    kept = set() if masks == NO_MASKS else _given_among(cohort, cases)
    stage = GivenMaskStage(computed, kept=kept)
    if masks is not None and masks != NO_MASKS:
        matched = match_masks(masks, cohort, names, scans)
        for label, reason in matched.unused.items():
            result.skip(label, reason)
        others = kept - matched.masks.keys() - matched.rejected
        stage = GivenMaskStage(computed, matched.masks, labels, matched.missing, others)
    remember_mask(cohort, parameters)
    _record_given(cohort, kept)
    computed_names = {*names} - stage.masks.keys() - stage.missing.keys() - kept
    geometries = _set_sizes(runner, cases, scans)
    spacings = {name: grid.slice_spacing for name, grid in geometries.items() if name in computed_names}
    if hint := advice(spacings, parameters):
        runner.callback.on_warning(hint)
    if masks is None and (still := kept & {*names}):
        runner.callback.on_info(
            f"masks of {count_of(len(still), 'case')} came from files or a segmenter and are kept; `masks='none'` has "
            "them computed"
        )
    return stage if stage.masks or stage.missing or stage.kept else computed


def _plan_segmenter(runner: CaseRunner, scans: Mapping[str, Scan], stage: SegmentedMaskStage) -> SegmentedMaskStage:
    remember_mask(runner.cohort, stage.parameters)
    _set_sizes(runner, dict(runner.cohort.items()), scans)
    return stage


def _set_sizes(runner: CaseRunner, cases: Mapping[str, Case], scans: Mapping[str, Scan]) -> dict[str, Geometry]:
    """Set the sizes of all cases in the runner, and return their geometries."""
    geometries = {
        **{name: case.geometry for name, case in cases.items()},
        **{name: scan.geometry for name, scan in scans.items()},
    }
    runner.set_case_sizes(geometries)
    return geometries


def given_cases(cohort: Cohort) -> set[str]:
    """Return the cases whose masks came from files or a segmenter, including cases whose masks are now invalid."""
    return _given_among(cohort, dict(cohort.items()))


def _given_among(cohort: Cohort, cases: Mapping[str, Case]) -> set[str]:
    given = {*cohort.settings.get(GIVEN_MASKS, [])}
    for name, case in cases.items():
        if is_given(case):
            given.add(name)
        elif record_of(case, MASK):
            given.discard(name)
    return given


def remember_given(cohort: Cohort, forgotten: Collection[str] = ()) -> None:
    """Record in the settings of the store which cases have masks from files or a segmenter.

    The record of the mask in a case says so too, but is lost when the scan changes or the case is corrupt.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    forgotten : collection of str
        Cases to leave out, because they are being removed.
    """
    _record_given(cohort, given_cases(cohort).difference(forgotten))


def _record_given(cohort: Cohort, names: set[str]) -> None:
    if sorted(names) != cohort.settings.get(GIVEN_MASKS, []):
        CohortWriter(cohort).record_settings(**{GIVEN_MASKS: sorted(names)})
