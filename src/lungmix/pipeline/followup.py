"""Follow-up of a run: which scans are of one patient, and the table of their changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from lungmix.analysis.change import IMPROVED, STABLE, WORSE
from lungmix.analysis.followup import MeanChange, fresh_rows, mean_change
from lungmix.cluster import UsageRecorder
from lungmix.errors import UsageError, count_of, first_of
from lungmix.intake.key_table import KeyTable
from lungmix.intake.patients import group_patients
from lungmix.mixture import TissueModel
from lungmix.parameters import KERNEL
from lungmix.pipeline.harmonisation import fault_of_image
from lungmix.pipeline.registration import drop_stale_registrations, register_scans
from lungmix.pipeline.result import CaseResult
from lungmix.pipeline.runner import CaseRunner
from lungmix.pipeline.staleness import fault_of_labels
from lungmix.stages.measure import write_table
from lungmix.store import Cohort
from lungmix.store.choices import last_harmonisation
from lungmix.store.models import ModelId
from lungmix.store.patients import patients_of, record_patients
from lungmix.store.schema import FOLLOWUP_FILE, PATIENTS_SETTING
from lungmix.store.tables import Row, lines_of, text_of
from lungmix.tissue import TISSUES

FOLLOWUP = "followup"


@dataclass(repr=False)
class FollowupResult(CaseResult):
    """Result of a follow-up.

    Attributes
    ----------
    done : list of str
        Cases with a row.
    failed : dict of str to str
        Reason of each scan of a patient that is not measured, without names of files.
    messages : dict of str to str
        The same reasons with names of files, for the terminal.
    rows : list of dict
        One row per scan of each patient with two or more measured scans, with the columns of ``followup.csv``.
    mean_change : MeanChange or None
        Mean change of the lung involvement over patients; None without rows.
    model_id : ModelId or None
        Name and digest of the mixture of the labels.
    remarks : list of str
        Sentences on the table of patients: lines that name no case, patients without days.
    has_unlike_kernels : bool
        True if scans of a patient have different, or unknown, kernels and are not harmonised.
    notes : dict of str to tuple of str
        By case, differences of acquisition, mask and lung volume from the first scan of the patient.
    skipped : dict of str to str
        Empty.
    errors : dict of str to Exception
        The errors behind `failed`, for debugging.
    spent : dict of str to ResourceUsage
        Time and memory.
    """

    rows: list[Row] = field(default_factory=list)
    mean_change: MeanChange | None = None
    model_id: ModelId | None = None
    remarks: list[str] = field(default_factory=list)
    has_unlike_kernels: bool = False

    def _origin(self) -> list[str]:
        return [] if self.model_id is None else [f"model: {self.model_id}"]

    def statistics(self) -> list[str]:
        """Return lines with the number of patients, their mean change and their courses."""
        mean = self.mean_change
        if mean is None:
            return []
        lines = [f"{count_of(mean.patients, 'patient')} with {count_of(mean.scans, 'scan')}"]
        if isfinite(mean.value):
            interval = f" ({mean.low:+.1f} to {mean.high:+.1f})" if isfinite(mean.low) else ""
            lines.append(
                f"mean change of LI since the first scan: {mean.value:+.1f}{interval} points at its lung volume, "
                f"{mean.measured:+.1f} as measured"
            )
        lines.append(
            f"last scan of a patient: {mean.worse} {WORSE}, {mean.stable} {STABLE}, {mean.improved} {IMPROVED}"
        )
        return lines


def remember_patients(
    cohort: Cohort, patients: str | Path | None, key_table: str | Path | None, result: FollowupResult
) -> None:
    """Record which scans are of one patient, if a table is given.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    patients, key_table
        See `lungmix.Pipeline.followup`.
    result : FollowupResult
        Receives sentences on the table.

    Raises
    ------
    UsageError
        If a table is invalid, or it is not known which scans are of one patient.
    """
    if patients is None and key_table is None:
        if PATIENTS_SETTING not in cohort.settings:
            raise UsageError(
                "the store does not know which scans are of one patient: give a table with the columns case, patient "
                "and date or days, `patients=FILE`, or the key table, `key_table=FILE`"
            )
        return
    key = None if key_table is None else KeyTable.read(key_table).rows_of(cohort)
    groups = group_patients(cohort, patients, key)
    if groups.unmatched:
        result.remarks.append(
            f"{count_of(len(groups.unmatched), 'line')} of the table of patients named no case of the store: "
            f"{first_of(groups.unmatched)}"
        )
    if groups.undated:
        result.remarks.append(
            f"days of {count_of(len(groups.undated), 'patient')} are unknown ({first_of(groups.undated)}): their scans "
            "are in the order of the table, or of their names"
        )
    if groups.patients != patients_of(cohort):
        record_patients(cohort, groups.patients)


def update_followup(cohort: Cohort, names: Sequence[str], model: TissueModel) -> list[Row]:
    """Write ``followup.csv`` and the same table as Parquet, if the store records its patients; return the rows.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    names : sequence of str
        Cases with labels by the model.
    model : TissueModel
        Mixture of the labels. The table gets no rows if it has another number of components than five.
    """
    if PATIENTS_SETTING not in cohort.settings:
        return []
    drop_stale_registrations(cohort)
    rows = fresh_rows(cohort, names, model) if model.n_components == len(TISSUES) else []
    if rows:
        write_table(cohort, FOLLOWUP_FILE, text_of(rows))
    elif text := cohort.read_text(FOLLOWUP_FILE):
        write_table(cohort, FOLLOWUP_FILE, f"{lines_of(text)[0]}\n")
    return rows


def follow_up(runner: CaseRunner, model: TissueModel, result: FollowupResult, register: str | None = None) -> None:
    """Write the table of the follow-up of all patients that the store records.

    Parameters
    ----------
    runner : CaseRunner
        Runner of the cases.
    model : TissueModel
        Model of the store.
    result : FollowupResult
        Receives rows, failures of scans without labels by the model, and those of scans that cannot be registered.
    register : {"affine", "deformable"}, optional
        How later scans are registered with the first one; None registers no scan.
    """
    cohort = runner.cohort
    if model.n_components != len(TISSUES):
        raise UsageError("changes of lung involvement need five tissues: fit five components, then label and measure")
    parameters = last_harmonisation(cohort)
    names = []
    for scans in patients_of(cohort).values():
        for scan in scans:
            case = cohort[scan.case]
            fault = fault_of_labels(case, model) or fault_of_image(case, parameters)
            if fault is None:
                names.append(scan.case)
            else:
                result.fail(scan.case, fault)
    register_scans(runner, names, register, result)
    with UsageRecorder(result.spent).alone(FOLLOWUP):
        result.rows = update_followup(cohort, names, model)
    result.done = [name for row in result.rows if (name := str(row["case"])) not in result.failed]
    for row in result.rows:
        result.note(str(row["case"]), [text for text in str(row["remarks"]).split("; ") if text])
    if result.rows:
        result.mean_change = mean_change(result.rows)
        is_harmonised = parameters is not None and KERNEL in parameters.methods
        result.has_unlike_kernels = not is_harmonised and any("kernel" in str(row["remarks"]) for row in result.rows)
