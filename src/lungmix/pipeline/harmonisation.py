"""Harmonisation of a run: which HU its masks, labels and measurements are of."""

from __future__ import annotations

from collections.abc import Sequence

from lungmix.errors import UsageError, count_of, first_of
from lungmix.parameters import HarmoniseParameters
from lungmix.pipeline.masks import given_cases
from lungmix.stages.measure import drop_rows
from lungmix.store import Case, CaseWriter, Cohort, CohortWriter
from lungmix.store.choices import harmonisation_of, harmonised_by, last_harmonisation, text_of_hu
from lungmix.store.schema import HARMONISE, HARMONISE_SETTING, HARMONISED


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
    if has_masks or (parameters is None and not _was_harmonised(cohort)):
        return
    given = given_cases(cohort)
    changed = [name for name, case in cohort.items() if name in given and harmonised_by(case) != parameters]
    if changed:
        raise UsageError(
            f"masks of {count_of(len(changed), 'case')} ({first_of(changed)}) came from files or a segmenter, and are "
            "counted again by other HU: give them again with `Pipeline.run(sources, masks=PLACE)`, or make them with "
            "`mask_with=NAME`"
        )


def remember_harmonisation(
    cohort: Cohort, methods: str | None = None, reference: Sequence[float] | None = None
) -> HarmoniseParameters | None:
    """Record which harmonised images are made, delete those that are not wanted any more, and return their parameters.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    methods, reference
        See `lungmix.store.choices.harmonisation_of`.

    Returns
    -------
    HarmoniseParameters or None
        Parameters of the harmonised images; None if there are to be none.
    """
    parameters = harmonisation_of(cohort, methods, reference)
    if parameters is None and _was_harmonised(cohort):
        left = [name for name, case in cohort.items() if case.has_remains(HARMONISE, HARMONISED)]
        if left:
            drop_rows(cohort, left)
        for name in left:
            CaseWriter(cohort[name]).drop_stage(HARMONISE)
    # Recorded last: after a kill before, the next run finds the setting of the images that are left.
    if parameters != last_harmonisation(cohort):
        setting = None if parameters is None else parameters.to_dict()
        CohortWriter(cohort).record_settings(**{HARMONISE_SETTING: setting})
    return parameters


def _was_harmonised(cohort: Cohort) -> bool:
    """Return True if harmonised images were ever asked for, so that cases can have them."""
    return HARMONISE_SETTING in cohort.settings


def fault_of_image(case: Case, parameters: HarmoniseParameters | None) -> str | None:
    """Return the reason why the mask of a case is of other HU than those of the last run; None if it is not.

    There is a reason for cases that a killed run did not reach.
    """
    if harmonised_by(case) == parameters:
        return None
    return f"its mask is not of {text_of_hu(parameters)}, as the last run asked for: run `Pipeline.mask()`"
