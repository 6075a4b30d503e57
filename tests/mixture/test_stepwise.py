"""Stepwise EM: `partial_fit`, and fits in minibatches, which are random rows of random chunks."""

import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from lungmix import GaussianMixture
from lungmix.errors import ModelError
from lungmix.mixture.parameters import COVARIANCE_TYPES
from lungmix.mixture.stepwise import StepSchedule
from lungmix.phantom import Cohort


def shuffled_groups(n=30_000, seed=0):
    random = np.random.default_rng(seed)
    x = np.concatenate([random.normal(m, s, (n // 3, 2)) for m, s in ((0, 1), (4, 2), (9, 1))])
    return random.permutation(x)


def sorted_chunks(x, rows=1000):
    return da.from_array(x[np.argsort(x[:, 0])], chunks=(rows, -1))


def test_steps_shrink_as_the_schedule_says():
    schedule = StepSchedule(0.7, 2.0, 1e-6, "full")
    assert schedule.step_size(0) == 1
    assert schedule.step_size(6) == pytest.approx(8**-0.7)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_partial_fit_over_one_pass_nears_the_full_fit(covariance_type):
    x = shuffled_groups()
    full = GaussianMixture(3, covariance_type, random_state=0, tol=1e-8, max_iter=1000).fit(x)
    steps = GaussianMixture(3, covariance_type, random_state=0)
    for batch in np.array_split(x, 100):
        steps.partial_fit(batch)
    assert steps.n_steps_ == 100
    assert steps.score(x) == pytest.approx(full.score(x), abs=5e-3)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("kind", ["rows in order", "rows by chance", "chunks"])
def test_two_passes_in_minibatches_reach_the_full_fit(covariance_type, kind):
    x = shuffled_groups()
    full = GaussianMixture(3, covariance_type, random_state=0, tol=1e-8, max_iter=1000).fit(x)
    samples = {
        "rows in order": x[np.argsort(x[:, 0])],
        "rows by chance": x,
        "chunks": da.from_array(x, chunks=(1000, -1)),
    }[kind]
    with dask.config.set(scheduler="synchronous"):
        fitted = GaussianMixture(3, covariance_type, random_state=0, batch_size=500, max_iter=2).fit(samples)
    assert fitted.n_iter_ <= 2
    assert fitted.score(x) == pytest.approx(full.score(x), abs=1e-3)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_chunks_in_order_take_a_few_passes_more(covariance_type):
    x = shuffled_groups()
    full = GaussianMixture(3, covariance_type, random_state=0, tol=1e-8, max_iter=1000).fit(x)
    with dask.config.set(scheduler="synchronous"):
        fitted = GaussianMixture(3, covariance_type, random_state=0, batch_size=500, max_iter=10, tol=0).fit(
            sorted_chunks(x)
        )
    assert fitted.score(x) == pytest.approx(full.score(x), abs=1e-3)


def test_two_passes_over_the_phantom_cohort_reach_the_full_fit():
    voxels = []
    for patient in Cohort(12, seed=3, shape=(40, 64, 64), spacing=(7.6, 5.6, 5.6)):
        hu, truth = patient.phantom.volume(), patient.phantom.truth()
        voxels.append(np.maximum(hu[truth > 0], -1000))
    pooled = np.concatenate(voxels)
    lazy = da.from_array(pooled, chunks=(tuple(len(v) for v in voxels),))
    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        full = GaussianMixture(5, random_state=0).fit(pooled)
        fitted = GaussianMixture(5, random_state=0, batch_size=2000, max_iter=2).fit(lazy)
    assert fitted.n_iter_ <= 2
    assert fitted.score(pooled) > full.score(pooled) - 1e-3


def test_minibatches_do_not_depend_on_the_workers():
    x = sorted_chunks(shuffled_groups(9000), 300)
    rules = {"random_state": 3, "batch_size": 100, "max_iter": 2}
    fits = []
    for scheduler in ("synchronous", "threads", "threads"):
        with dask.config.set(scheduler=scheduler, num_workers=3):
            fits.append(GaussianMixture(3, **rules).fit(x))
    assert all(np.array_equal(fit.means_, fits[0].means_) for fit in fits)
    with dask.config.set(scheduler="synchronous"):
        other = GaussianMixture(3, **{**rules, "random_state": 4}).fit(x)
    assert not np.array_equal(other.means_, fits[0].means_)


def test_passes_end_when_they_gain_less_than_tol():
    x = shuffled_groups()
    fitted = GaussianMixture(3, random_state=0, batch_size=1000, tol=1e-3, max_iter=50).fit(x)
    assert fitted.converged_
    assert 2 <= fitted.n_iter_ < 50
    assert fitted.n_steps_ == fitted.n_iter_ * 30


def test_listener_hears_every_pass():
    heard = []
    GaussianMixture(3, n_init=2, batch_size=1000, max_iter=3, tol=0, random_state=0, listener=heard.append).fit(
        shuffled_groups(6000)
    )
    assert [(progress.iteration, set(progress.lower_bounds)) for progress in heard] == [
        (1, {0, 1}),
        (2, {0, 1}),
        (3, {0, 1}),
    ]


def test_partial_fit_moves_on_from_a_fit_by_a_small_step():
    x = shuffled_groups()
    fitted = GaussianMixture(3, random_state=0).fit(x)
    before = fitted.means_.copy()
    fitted.partial_fit(x[:3000])
    assert np.allclose(fitted.means_, before, atol=0.2)
    assert not np.array_equal(fitted.means_, before)


def test_partial_fit_takes_a_dask_array_as_one_minibatch():
    x = shuffled_groups(3000)
    with dask.config.set(scheduler="synchronous"):
        lazy = GaussianMixture(3, random_state=0).partial_fit(da.from_array(x, chunks=(700, -1)))
    assert np.allclose(lazy.means_, GaussianMixture(3, random_state=0).partial_fit(x).means_, rtol=1e-10)


def test_first_minibatch_with_fewer_samples_than_components_is_rejected():
    with pytest.raises(ModelError, match="n_samples"):
        GaussianMixture(3).partial_fit([[1.0], [2.0]])
    fitted = GaussianMixture(3, random_state=0).partial_fit(shuffled_groups(300))
    fitted.partial_fit([[1.0, 2.0]])
    with pytest.raises(ModelError, match="features"):
        fitted.partial_fit([[1.0]])


def test_minibatches_of_a_warm_start_go_on():
    x = shuffled_groups(9000)
    fitted = GaussianMixture(3, random_state=0, batch_size=300, max_iter=1, warm_start=True).fit(x)
    steps = fitted.n_steps_
    assert fitted.fit(x).n_steps_ == 2 * steps
