"""Weighted kappa of tables, compared with scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from lungmix.kernels.kappa import weighted_kappa

scores = st.integers(0, 5)


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=60), st.sampled_from(["quadratic", "linear"]))
def test_kappa_equals_that_of_scikit_learn(pairs, weights):
    first, second = np.array(pairs).T
    table = np.zeros((6, 6))
    np.add.at(table, (first, second), 1)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        expected = cohen_kappa_score(first, second, labels=range(6), weights=weights)
    # Later versions of scikit-learn return a number where kappa is undefined.
    if len(np.unique(pairs)) == 1:
        expected = np.nan
    assert weighted_kappa(table, weights) == pytest.approx(expected, nan_ok=True)


def test_many_tables_have_the_kappas_of_each():
    tables = np.random.default_rng(0).integers(0, 9, (4, 3, 6, 6))
    kappas = weighted_kappa(tables)
    assert kappas.shape == (4, 3)
    assert kappas[2, 1] == weighted_kappa(tables[2, 1])


def test_kappa_of_no_scans_or_one_score_is_undefined():
    table = np.zeros((6, 6))
    assert np.isnan(weighted_kappa(table))
    table[2, 2] = 7
    assert np.isnan(weighted_kappa(table, "linear"))
