"""Labels and measurements of a data set: those of the store, or those by the mixture of all other patients.

A mixture that was fitted with a scan in it has seen this scan. So the labels of each scan, and the measurements from
them, can be by the same fit to the scans of all other patients. The store stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lungmix.analysis.leave_one_out import FitsWithout
from lungmix.errors import UsageError
from lungmix.kernels.data_dictionary import DENSE_COLUMNS, HARMONISED_COLUMNS, Column
from lungmix.kernels.measures import component_keys
from lungmix.mixture import TissueModel
from lungmix.mixture.diagnosis import doubts_of
from lungmix.stages.fit import fitted_cases
from lungmix.stages.measure import (
    excluded_regions,
    rows_of_case,
    stored_rows,
    with_dense_columns,
    with_harmonised_columns,
)
from lungmix.stages.relabelled import RelabelledCase, RelabelledRef, Relabelling
from lungmix.store import MEASUREMENTS_FILE, ZONES_FILE, Case, CaseRef, Cohort
from lungmix.store.models import ModelId, stored_id, stored_model
from lungmix.store.patients import patients_by_case
from lungmix.store.tables import Row, rows_of

MODELS_COLUMNS = (
    Column("patient", "", "patient whose scans the mixture labels, as in cases.csv"),
    Column("model", "", "name and digest of the mixture, as in the headers of label maps and in cases.csv"),
    Column("fit", "", "fit by which the mixture was made"),
    Column("scans", "", "number of scans that it was fitted to"),
    Column("left_out", "", "number of scans of the patient that were left out of this fit"),
    Column("component", "", "label of the component"),
    Column("tissue", "", "name of the component in columns of tables"),
    Column("weight", "", "share of the component in the voxels that were fitted"),
    Column("mean", "HU", "mean of the component"),
    Column("variance", "HU²", "variance of the component"),
    Column("doubts", "", "failed checks of the mixture, empty if there are none"),
)
_TEXT = """\
The labels of each scan in tissue and tissue_median, and the measurements from them in cases.csv and zones.csv, are by a
mixture that was fitted to the scans of all other patients: a mixture that was fitted with a scan in it has seen this
scan, so that a test of methods with its labels would look better than it is. models.csv has the mixture of each patient
and how it was made. The header of each label map, and the column model of cases.csv, name it. model.json is the same
fit to all patients; it labelled none of the scans, but Table 1, pictures and the page are by it. OME-Zarr folders have
no labels of tissues.
"""
_SENTENCE = " The labels of each scan are by a mixture that was fitted to the scans of all other patients."
LEAVE_OUT = "leave_one_patient_out"
"""Entry of the record of a data set with labels by the mixture of all other patients."""

FIXED_TEXT = " ".join((_TEXT, _SENTENCE, *(column.meaning for column in MODELS_COLUMNS)))
"""Text that data sets with such labels contain."""


class StoredLabels:
    """Labels and measurements as the store has them.

    Parameters
    ----------
    cohort : Cohort
        The store.
    """

    is_by_others = False

    def __init__(self, cohort: Cohort):
        self.cohort = cohort

    def case(self, name: str) -> Case:
        """Return a case with its labels."""
        return self.cohort.case(name)

    def ref(self, name: str) -> CaseRef | RelabelledRef:
        """Return a reference to a case with its labels, for tasks."""
        return CaseRef.of(self.cohort, name)

    def measurements(self, names: Sequence[str]) -> dict[str, Row]:
        """Return the measurements of cases by name; without cases that are not measured."""
        chosen = {*names}
        return {str(row["case"]): row for row in stored_rows(self.cohort) if row["case"] in chosen}

    def zones(self, names: Sequence[str]) -> list[Row]:
        """Return the measurements of lung zones and lobes of cases."""
        chosen = {*names}
        return [row for row in rows_of(self.cohort.read_text(ZONES_FILE) or "") if row["case"] in chosen]

    def models(self, names: Sequence[str]) -> list[Row]:
        """Return the rows of the table of the mixtures of each patient; none if all are labelled by one."""
        return []

    def text(self) -> str:
        """Return sentences of the data card; empty if all scans are labelled by the mixture of the store."""
        return ""

    def description(self) -> str:
        """Return a sentence of the description of the data set, or nothing."""
        return ""

    def settings(self) -> dict[str, Any]:
        """Return entries of the record of the data set."""
        return {}


@dataclass(frozen=True)
class _OthersMixture:
    """Mixture of all other patients, its name, the names of the cases that it was fitted to, and its failed checks."""

    model: TissueModel
    model_id: ModelId
    fit: str
    scans: int
    left_out: int
    doubts: list[str]


class LabelsByOthers(StoredLabels):
    """Labels and measurements of each scan by the mixture of all other patients.

    Parameters
    ----------
    cohort : Cohort
        The store, whose mixture was fitted to its scans.
    names : sequence of str
        Labelled cases.

    Raises
    ------
    UsageError
        If the mixture of the store was given, or all scans are of one patient.
    StoreError
        If the scans or masks that the mixture was fitted to have changed since.
    """

    is_by_others = True

    def __init__(self, cohort: Cohort, names: Sequence[str]):
        super().__init__(cohort)
        self._patients = patients_of_cases(cohort)
        pooled, parameters = fitted_cases(cohort)
        if len({self._patients[name] for name in pooled}) < 2:
            raise UsageError("the mixture was fitted to one patient, so no mixture of other patients exists: add scans")
        fits = FitsWithout(pooled, parameters)
        self._mixtures: dict[str, _OthersMixture] = {}
        for patient in sorted({self._patients[name] for name in names}):
            left_out = [name for name in pooled if self._patients[name] == patient]
            # The mixture of the store has not seen a patient whose scans were not pooled.
            model = fits.fit(left_out) if left_out else stored_model(cohort)
            model_id = ModelId(f"{parameters.fit}_by_others", model.digest) if left_out else stored_id(cohort, model)
            self._mixtures[patient] = _OthersMixture(
                model,
                model_id,
                parameters.fit,
                len(pooled) - len(left_out),
                len(left_out),
                doubts_of(model, is_fit=True),
            )

    def _relabelling(self, name: str) -> Relabelling:
        mixture = self._mixtures[self._patients[name]]
        return Relabelling.of(self.cohort.case(name), mixture.model, mixture.model_id.name, mixture.doubts)

    def case(self, name: str) -> Case:
        """Return a case with its labels."""
        return RelabelledCase(self.cohort.case(name), self._relabelling(name))

    def ref(self, name: str) -> CaseRef | RelabelledRef:
        """Return a reference to a case with its labels, for tasks."""
        return RelabelledRef(CaseRef.of(self.cohort, name), self._relabelling(name))

    def measurements(self, names: Sequence[str]) -> dict[str, Row]:
        """Return the measurements of cases by name."""
        rows = self._rows(names, MEASUREMENTS_FILE)
        if any(DENSE_COLUMNS[0].key in row for row in rows):
            rows = with_dense_columns(rows)
        if any(HARMONISED_COLUMNS[0].key in row for row in rows):
            rows = with_harmonised_columns(rows)
        return {str(row["case"]): row for row in rows}

    def zones(self, names: Sequence[str]) -> list[Row]:
        """Return the measurements of lung zones and lobes of cases."""
        return self._rows(names, ZONES_FILE)

    def models(self, names: Sequence[str]) -> list[Row]:
        """Return the rows of the table of the mixtures, one per patient and component."""
        rows: list[Row] = []
        for patient in sorted({self._patients[name] for name in names}):
            mixture = self._mixtures[patient]
            model, keys = mixture.model, component_keys(mixture.model.n_components)
            components = zip(keys, model.weights, model.means, model.variances, strict=True)
            for label, (key, weight, mean, variance) in enumerate(components, 1):
                rows.append({
                    "patient": patient, "model": str(mixture.model_id), "fit": mixture.fit, "scans": mixture.scans,
                    "left_out": mixture.left_out, "component": label, "tissue": key, "weight": weight, "mean": mean,
                    "variance": variance, "doubts": "; ".join(mixture.doubts),
                })  # fmt: skip
        return rows

    def text(self) -> str:
        """Return sentences of the data card."""
        return _TEXT

    def description(self) -> str:
        """Return a sentence of the description of the data set."""
        return _SENTENCE

    def settings(self) -> dict[str, Any]:
        """Return entries of the record of the data set."""
        return {LEAVE_OUT: True}

    def _rows(self, names: Sequence[str], file: str) -> list[Row]:
        excluded = excluded_regions(self.cohort)
        return [
            row
            for name in names
            for row in rows_of_case(self.case(name), file, self._mixtures[self._patients[name]].model, excluded)
        ]


def labels_of(
    cohort: Cohort, names: Sequence[str], by_others: bool | None = None, before: bool = False
) -> StoredLabels:
    """Return the labels of a data set.

    Parameters
    ----------
    cohort : Cohort
        The store.
    names : sequence of str
        Labelled cases.
    by_others : bool, optional
        True for labels by the mixture of all other patients; None for labels as before.
    before : bool
        True if the labels of the previous version were by the mixture of all other patients.
    """
    return LabelsByOthers(cohort, names) if (before if by_others is None else by_others) else StoredLabels(cohort)


def patients_of_cases(cohort: Cohort) -> dict[str, str]:
    """Return the recorded patient of each case of a store; a case of no recorded patient is one of its own."""
    recorded = patients_by_case(cohort, need_first=False)
    return {name: recorded.get(name, name) for name in cohort}
