"""The estimator passes the checks of scikit-learn and behaves as users of scikit-learn expect of a mixture."""

import json
import os
import pickle
import subprocess
import sys
import warnings

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture as Reference
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from lungmix import GaussianMixture
from lungmix.errors import LungmixError, ModelError
from lungmix.mixture.parameters import COVARIANCE_TYPES


def three_groups(n=900, d=2, seed=0):
    random = np.random.default_rng(seed)
    return np.concatenate([random.normal(m, 1, (n // 3, d)) for m in (0, 6, 14)])


# The estimator with default parameters is checked by the next test in a process of its own: one check needs the array
# API of SciPy, which must be enabled before SciPy is imported.
CHECKED = [
    GaussianMixture(2, "tied", n_init=1),
    GaussianMixture(2, "diag", init_params="k-means++"),
    GaussianMixture(2, "spherical", n_init=2, init_params="random_from_data"),
    GaussianMixture(2, warm_start=True),
]


@parametrize_with_checks(CHECKED, expected_failed_checks=None)
def test_scikit_learn_finds_nothing_to_object_to(estimator, check):
    if getattr(check, "func", check).__name__ == "check_array_api_input":
        assert not estimator.__sklearn_tags__().array_api_support
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_every_check_of_scikit_learn_runs_and_passes_in_a_fresh_process():
    program = """
import json, warnings
warnings.simplefilter("ignore")
from sklearn.utils.estimator_checks import check_estimator
from lungmix import GaussianMixture
done = check_estimator(GaussianMixture(), on_skip=None, on_fail=None)
print(json.dumps({check["check_name"]: check["status"] for check in done}))
"""
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    statuses = json.loads(done.stdout)
    assert len(statuses) > 40
    assert set(statuses.values()) == {"passed"}, statuses


def test_grid_search_finds_the_number_of_components():
    search = GridSearchCV(
        GaussianMixture(n_init=2, random_state=0), {"n_components": [1, 2, 3]}, scoring=None, cv=3
    ).fit(np.random.default_rng(0).permutation(three_groups()))
    assert search.best_params_ == {"n_components": 3}


def test_pipeline_takes_weights_and_predicts():
    x = three_groups()
    pipe = make_pipeline(StandardScaler(), GaussianMixture(3, random_state=0))
    pipe.fit(x, gaussianmixture__sample_weight=np.ones(len(x)))
    assert len(np.unique(pipe.predict(x))) == 3


def test_clone_and_pickle_keep_parameters_and_answers():
    x = three_groups()
    fitted = GaussianMixture(3, "tied", random_state=0).fit(x)
    assert clone(fitted).get_params() == fitted.get_params()
    assert not hasattr(clone(fitted), "means_")
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(x), fitted.predict_proba(x))


def test_curve_of_lower_bounds_rises_to_its_end():
    fitted = GaussianMixture(3, random_state=0, tol=1e-9).fit(three_groups())
    assert fitted.converged_
    assert len(fitted.lower_bounds_) == fitted.n_iter_
    assert fitted.lower_bounds_[-1] == fitted.lower_bound_
    assert np.all(np.diff(fitted.lower_bounds_) > -1e-12)


def test_warm_start_continues_the_last_fit():
    x = three_groups()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        uninterrupted = GaussianMixture(3, n_init=1, random_state=0, tol=0, max_iter=6).fit(x)
        parts = GaussianMixture(3, n_init=1, random_state=0, tol=0, max_iter=3, warm_start=True)
        parts.fit(x).fit(x)
    assert np.array_equal(parts.means_, uninterrupted.means_)


def test_warm_start_with_other_components_is_rejected():
    fitted = GaussianMixture(2, warm_start=True, random_state=0).fit(three_groups())
    with pytest.raises(ModelError, match="warm_start"):
        fitted.set_params(n_components=3).fit(three_groups())


def test_fit_that_stops_short_warns_with_the_remedy():
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        GaussianMixture(2, tol=0, max_iter=2, n_init=1, random_state=0).fit(three_groups())


def test_part_of_a_start_is_taken_and_the_rest_found():
    means = [[14.0, 14.0], [0.0, 0.0], [6.0, 6.0]]
    fitted = GaussianMixture(3, means_init=means, random_state=0).fit(three_groups())
    assert np.allclose(fitted.means_, means, atol=0.5)


def test_zero_iterations_give_the_start():
    means = np.array([[1.0, 2.0]])
    fitted = GaussianMixture(1, means_init=means, max_iter=0).fit(three_groups())
    assert np.array_equal(fitted.means_, means)
    assert fitted.n_iter_ == 0


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_scikit_learn_and_back_without_loss(covariance_type):
    x = three_groups()
    theirs = Reference(3, covariance_type=covariance_type, random_state=0).fit(x)
    ours = GaussianMixture.from_sklearn(theirs)
    assert np.array_equal(ours.predict(x), theirs.predict(x))
    assert ours.score(x) == pytest.approx(theirs.score(x), rel=1e-13)
    assert ours.bic(x) == pytest.approx(theirs.bic(x), rel=1e-12)
    assert ours.aic(x) == pytest.approx(theirs.aic(x), rel=1e-12)
    back = ours.to_sklearn()
    assert np.array_equal(back.means_, theirs.means_)
    assert np.allclose(back.predict_proba(x), theirs.predict_proba(x), atol=1e-12)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_samples_have_the_moments_of_the_mixture(covariance_type):
    fitted = GaussianMixture(3, covariance_type, random_state=0).fit(three_groups(3000))
    x, component = fitted.sample(200_000)
    assert x.shape == (200_000, 2)
    assert np.allclose(np.bincount(component) / len(x), fitted.weights_, atol=0.01)
    again = GaussianMixture(
        3, covariance_type, means_init=fitted.means_, weights_init=fitted.weights_, random_state=0
    ).fit(x)
    assert np.allclose(again.means_, fitted.means_, atol=0.05)
    assert np.allclose(again.covariances_, fitted.covariances_, atol=0.06)


def test_frame_gives_its_names():
    frame = pd.DataFrame(three_groups(), columns=["a", "b"])
    fitted = GaussianMixture(3, random_state=0).fit(frame)
    assert list(fitted.feature_names_in_) == ["a", "b"]
    assert np.array_equal(fitted.predict(frame), fitted.predict_proba(frame).argmax(axis=1))


def test_one_dimensional_samples_are_one_feature():
    x = three_groups(d=1)
    flat = GaussianMixture(3, random_state=0).fit(x[:, 0])
    table = GaussianMixture(3, random_state=0).fit(x)
    assert np.array_equal(flat.means_, table.means_)
    assert np.array_equal(flat.predict(x[:, 0]), table.predict(x))


def test_weights_given_as_second_argument_are_not_ignored_in_silence():
    with pytest.raises(ModelError, match="sample_weight="):
        GaussianMixture(1).fit(np.array([1.0, 2.0, 3.0]), np.ones(3))


def test_errors_are_of_the_package_and_of_scikit_learns_kind():
    with pytest.raises(ValueError, match="n_components") as caught:
        GaussianMixture(0).fit([[1.0]])
    assert isinstance(caught.value, LungmixError)
    with pytest.raises(NotFittedError):
        GaussianMixture().predict([[1.0]])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_components": 0}, "n_components"),
        ({"n_components": 2.5}, "n_components"),
        ({"n_init": 0}, "n_init"),
        ({"max_iter": -1}, "max_iter"),
        ({"tol": -1.0}, "tol"),
        ({"tol": float("nan")}, "tol"),
        ({"reg_covar": -1.0}, "reg_covar"),
        ({"kappa": 0.5}, "kappa"),
        ({"batch_size": 0}, "batch_size"),
        ({"covariance_type": "round"}, "full, tied, diag, spherical"),
        ({"init_params": "guess"}, "kmeans"),
        ({"weights_init": [0.5, 0.6]}, "weights_init"),
        ({"means_init": [[1.0]]}, "means_init"),
        ({"precisions_init": [[[1.0]], [[-1.0]]]}, "positive definite"),
        ({"precisions_init": [[[1.0]], [[1.0]]], "covariances_init": [[[1.0]], [[1.0]]]}, "one of them"),
    ],
)
def test_impossible_parameters_are_rejected_by_name(options, match):
    with pytest.raises(ModelError, match=match):
        GaussianMixture(**{"n_components": 2, **options}).fit([1.0, 2.0, 3.0])


@pytest.mark.parametrize("x", [np.zeros((2, 2, 2)), da.zeros((2, 2, 2)), da.zeros((3, 2), dtype=complex)])
def test_samples_of_impossible_shape_or_type_are_rejected(x):
    with pytest.raises(ModelError, match=r"shape|type"):
        GaussianMixture(1).fit(x)


def test_listener_hears_every_iteration_of_all_starts():
    heard = []
    fitted = GaussianMixture(3, n_init=4, random_state=0, tol=1e-6, listener=heard.append).fit(three_groups())
    assert [progress.iteration for progress in heard] == list(range(1, len(heard) + 1))
    assert set(heard[0].lower_bounds) == {0, 1, 2, 3}
    assert max(heard[fitted.n_iter_ - 1].lower_bounds.values()) >= fitted.lower_bound_
