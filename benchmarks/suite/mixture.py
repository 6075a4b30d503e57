"""Timings of the mixture: fits of histograms, one pass of EM over rows, steps, starts."""

import dask
import dask.array as da
import numpy as np

import lungmix
from lungmix import GaussianMixture
from lungmix.mixture import fit_paper
from lungmix.mixture.counts import count
from lungmix.mixture.em_kernels import e_step_statistics
from lungmix.mixture.parameters import State


class Mixture:
    """Benchmarks of fits of five components to a histogram of HU."""

    timeout = 300

    def setup(self):
        model = lungmix.load_model("published")
        self.values = np.arange(-1000, 1001)
        x = self.values[:, None]
        sd = np.sqrt(model.variances)
        density = np.sum(np.array(model.weights) / sd * np.exp(-(((x - model.means) / sd) ** 2) / 2), axis=1)
        self.counts = np.rint(density * 1e9).astype(np.uint64)
        self.hu = np.random.default_rng(0).choice(self.values, 1_000_000).astype(np.int16)

    def time_fit_of_counts(self):
        fit_paper(self.values, self.counts, clip=None)

    def time_reduction_to_counts(self):
        count(self.hu)


class Rows:
    """Benchmarks of five components and a million rows, for several covariance types and numbers of features."""

    timeout = 300
    params = (["full", "diag"], [1, 3, 8, 32, 100])
    param_names = ("covariance_type", "features")

    def setup(self, covariance_type, features):
        self.x = np.random.default_rng(0).normal(size=(1_000_000, features))
        shape = (5, features, features) if covariance_type == "full" else (5, features)
        covariances = np.broadcast_to(np.eye(features) if covariance_type == "full" else 1.0, shape).copy()
        self.state = State(np.full(5, 0.2), self.x[:5].copy(), covariances)
        e_step_statistics(self.x[:1000], None, [self.state], covariance_type)

    def time_one_pass(self, covariance_type, features):
        e_step_statistics(self.x, None, [self.state], covariance_type)


class Estimator:
    """Benchmarks of the estimator on a million rows of three features in chunks, in one process."""

    timeout = 300

    def setup(self):
        random = np.random.default_rng(0)
        self.x = random.integers(3, size=(1_000_000, 1)) * 6 + random.normal(size=(1_000_000, 3))
        self.lazy = da.from_array(self.x, chunks=(100_000, 3))
        self.fitted = GaussianMixture(3, random_state=0).fit(self.x[:10_000])

    def time_fit(self):
        GaussianMixture(3, random_state=0).fit(self.x)

    def time_fit_of_chunks(self):
        with dask.config.set(scheduler="threads"):
            GaussianMixture(3, random_state=0).fit(self.lazy)

    def time_pass_in_minibatches(self):
        with dask.config.set(scheduler="threads"):
            GaussianMixture(3, random_state=0, batch_size=5000, max_iter=1).fit(self.lazy)

    def time_predict(self):
        self.fitted.predict(self.x)
