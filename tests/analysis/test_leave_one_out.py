"""Lung involvement of each patient by the mixture of all other patients."""

import numpy as np
import pytest
from rich.console import Console

from lungmix.analysis.comparison import involvement
from lungmix.analysis.leave_one_out import involvement_by_others
from lungmix.analysis.scores import study
from lungmix.cli.show_scores import scores_values, show_scores
from lungmix.errors import UsageError
from lungmix.parameters import FitParameters
from lungmix.stages.fit import HU, add_counts, fit_counts
from support.generators import counts_of_scans, store_of_counts

PATIENTS = {"case-001": "a", "case-002": "b", "case-003": "a", "case-004": "c"}


@pytest.fixture
def counts():
    return counts_of_scans(6, 30_000, spread=5.0)


@pytest.fixture
def cohort(tmp_path, counts):
    return store_of_counts(tmp_path / "s.zarr", counts)


@pytest.mark.parametrize("fit", ["paper", "converged", "anchored"])
def test_no_scan_of_a_patient_is_in_the_mixture_that_labels_the_patient(cohort, counts, fit):
    parameters = FitParameters(fit=fit)
    done = []
    result = involvement_by_others(cohort, PATIENTS, parameters, lambda *progress: done.append(progress))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert list(result) == list(PATIENTS)
    model_of_all = fit_counts(add_counts(counts), parameters)[fit]
    for case, patient in PATIENTS.items():
        others = {name: histogram for name, histogram in counts.items() if PATIENTS.get(name) != patient}
        assert len(others) == (4 if patient == "a" else 5)
        model = fit_counts(add_counts(others), parameters)[fit]
        assert result[case] == (involvement(model, counts[case]), involvement(model_of_all, counts[case]))


def test_scans_that_count_alike_are_left_out_too(cohort, counts):
    parameters = FitParameters(fit="anchored", weigh="scans")
    result = involvement_by_others(cohort, PATIENTS, parameters)
    others = [histogram for name, histogram in counts.items() if name != "case-002"]
    pooled = sum((h / h.sum() for h in others), np.zeros(65536)) * sum(h.sum() for h in others) / 5
    model = fit_counts(sum(others), parameters, pooled).anchored
    assert result["case-002"][0] == pytest.approx(involvement(model, counts["case-002"]), abs=1e-6)
    assert pooled[HU < -1024].sum() == 0


def test_cohort_of_one_patient_has_no_others(tmp_path, counts):
    cohort = store_of_counts(tmp_path / "one.zarr", {name: counts[name] for name in ("case-001", "case-003")})
    with pytest.raises(UsageError, match="one patient"):
        involvement_by_others(cohort, {"case-001": "a", "case-003": "a"}, FitParameters())


def test_study_has_the_results_of_both_mixtures(cohort, counts):
    result = involvement_by_others(cohort, PATIENTS, FitParameters())
    rows = [
        {"case": case, "patient": patient, "score": n, "lung_involvement": result[case][1]}
        for n, (case, patient) in enumerate(PATIENTS.items())
    ]
    both = study(rows, by_others=result)
    values = [result[case][0] for case in PATIENTS]
    assert [row["lung_involvement_by_others"] for row in both.rows] == values
    assert both.by_others.all.c == pytest.approx(np.corrcoef(values, range(4))[0, 1])
    assert both.by_others.first.n == 3
    assert both.by_others.largest_shift == max(abs(a - b) for a, b in result.values())
    assert study(rows).by_others is None
    console = Console(record=True, width=120)
    show_scores(console, both, [])
    text = console.export_text()
    assert "all scans, mixture of the other patients" in text
    assert "it changes LI by up to" in text
    assert scores_values("s", both, [])["by_others"]["all"]["n"] == 4
