"""Weighted kappa of tables, compared with scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from lungmix.kernels.kappa import kappa_with_error, weighted_kappa

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


def tables_of(pairs, patient):
    tables = np.zeros((max(patient) + 1, 6, 6))
    np.add.at(tables, (patient, *np.transpose(pairs)), 1)
    return tables


@pytest.mark.parametrize("weights", ["quadratic", "linear"])
def test_kappa_of_patients_is_that_of_their_scans(weights):
    random = np.random.default_rng(1)
    tables = tables_of(random.integers(0, 6, (40, 2)), np.arange(40) % 25)
    counts = random.integers(0, 3, (9, 25))
    kappa, error = kappa_with_error(tables, counts, weights)
    assert kappa == pytest.approx(weighted_kappa(np.einsum("mn,nij->mij", counts, tables), weights))
    # A patient who counts twice is two patients.
    repeated = np.repeat(tables, counts[0], axis=0)
    assert kappa_with_error(repeated, np.ones((1, len(repeated))), weights)[1] == pytest.approx(error[:1])


@pytest.mark.parametrize("weights", ["quadratic", "linear"])
def test_error_is_that_of_the_jackknife_and_of_statsmodels(weights):
    random = np.random.default_rng(2)
    first = random.integers(0, 6, 400)
    second = np.clip(first + random.integers(-2, 3, 400), 0, 5)
    tables = tables_of(np.stack([first, second], axis=1), np.arange(400))
    error = kappa_with_error(tables, np.ones((1, 400)), weights)[1][0]
    without = kappa_with_error(tables, 1 - np.eye(400), weights)[0]
    assert error == pytest.approx(np.sqrt(399 / 400 * ((without - without.mean()) ** 2).sum()), rel=0.01)
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    expected = inter_rater.cohens_kappa(tables.sum(axis=0), wt=weights, return_results=True)
    assert error == pytest.approx(expected.std_kappa * np.sqrt(400 / 399))


def test_error_of_undefined_kappa_is_undefined():
    kappa, error = kappa_with_error(tables_of([(2, 2), (2, 2)], [0, 1]), np.ones((1, 2)))
    assert np.isnan([kappa[0], error[0]]).all()
