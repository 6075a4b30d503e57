"""Harmonisation of a run: which HU its masks, labels and measurements are of."""

from __future__ import annotations

from collections.abc import Sequence

from lungmix.errors import UsageError, count_of, first_of
from lungmix.pipeline.masks import given_cases
from lungmix.stages.base import Stage
from lungmix.stages.harmonise import HarmoniseStage, is_left
from lungmix.stages.measure import drop_rows
from lungmix.store import CaseWriter, Cohort, CohortWriter
from lungmix.store.choices import harmonisation_of, harmonised_by, last_harmonisation
from lungmix.store.schema import HARMONISE, HARMONISE_SETTING


def check_harmonisation(
    cohort: Cohort, methods: str | None, reference: Sequence[float] | None = None, has_masks: bool = False
) -> None:
    """Raise if the harmonisation of a run is not possible, before anything is changed.

    Parameters
    ----------
    cohort : Cohort
        The store.
    methods, reference
        See `lungmix.store.choices.harmonisation_of`.
    has_masks : bool
        True if masks are given in this run, or made by a segmenter.

    Raises
    ------
    UsageError
        If a parameter is invalid, or a mask from a file would be lost, whose voxels must be counted by other HU.
    """
    parameters = harmonisation_of(cohort, methods, reference)
    if has_masks:
        return
    given = given_cases(cohort)
    changed = [name for name, case in cohort.items() if name in given and harmonised_by(case) != parameters]
    if changed:
        raise UsageError(
            f"masks of {count_of(len(changed), 'case')} ({first_of(changed)}) came from files or a segmenter, and are "
            "counted again by other HU: give them again, `masks=PLACE` or `mask_with=NAME`"
        )


def remember_harmonisation(
    cohort: Cohort, methods: str | None = None, reference: Sequence[float] | None = None
) -> list[Stage]:
    """Record which harmonised images are made, delete those that are not wanted any more, and return their stage.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    methods, reference
        See `lungmix.store.choices.harmonisation_of`.

    Returns
    -------
    list of Stage
        The stage that makes harmonised images; no stage if there are to be none.
    """
    parameters = harmonisation_of(cohort, methods, reference)
    if parameters is None:
        left = [name for name, case in cohort.items() if is_left(case)]
        if left:
            drop_rows(cohort, left)
        for name in left:
            CaseWriter(cohort[name]).drop_stage(HARMONISE)
    # Recorded last: after a kill before, the next run finds the setting of the images that are left.
    if parameters != last_harmonisation(cohort):
        setting = None if parameters is None else parameters.to_dict()
        CohortWriter(cohort).record_settings(**{HARMONISE_SETTING: setting})
    return [] if parameters is None else [HarmoniseStage(parameters)]
