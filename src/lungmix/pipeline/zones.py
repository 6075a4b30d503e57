"""Lung zones of a run: by which rule lungs are divided, or that they are not."""

from __future__ import annotations

from lungmix.stages.base import Stage
from lungmix.stages.lung_zones import IMAGE, ZoneStage
from lungmix.stages.measure import drop_stale_rows
from lungmix.store import CaseWriter, Cohort, CohortWriter
from lungmix.store.choices import last_zones, zones_of
from lungmix.store.schema import ZONE, ZONES_SETTING


def remember_zones(cohort: Cohort, zones: str | None = None) -> None:
    """Record by which rule lungs are divided, if that is given, and delete lung zones if there are to be none.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    zones : {"volume", "height", "volume-common", "none"}, optional
        See `lungmix.Pipeline.run`.

    Raises
    ------
    UsageError
        If there is no such rule.
    """
    rule = zones_of(cohort, zones)
    if rule is None and zones is not None:
        drop_stale_rows(cohort, lambda case: {ZONE} if case.has_remains(ZONE, IMAGE) else set())
        for case in cohort.values():
            if case.has_remains(ZONE, IMAGE):
                CaseWriter(case).drop_stage(ZONE)
    # Recorded last: after a kill before, the next run finds the setting of the zones that are left.
    if rule != last_zones(cohort):
        CohortWriter(cohort).record_settings(**{ZONES_SETTING: rule})


def zone_stages(cohort: Cohort) -> list[Stage]:
    """Return the stage that makes lung zones; no stage if the store is to have none."""
    rule = last_zones(cohort)
    return [] if rule is None else [ZoneStage(rule)]
