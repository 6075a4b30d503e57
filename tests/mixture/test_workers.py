"""Fits on a cluster give the result of one machine, in bounded memory, even if workers die."""

import os
import signal
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.exceptions import ConvergenceWarning

import lungmix
from lungmix import GaussianMixture

pytestmark = pytest.mark.slow


def blocks_of(n_chunks, rows, seed=0):
    """Return a dask array of three groups of samples in three dimensions; workers make each chunk when they need it."""

    def make(block_info=None):
        random = np.random.default_rng([seed, block_info[None]["chunk-location"][0]])
        group = random.integers(3, size=(rows, 1))
        return group * 6.0 + random.standard_normal((rows, 3))

    return da.map_blocks(make, chunks=((rows,) * n_chunks, (3,)), dtype=np.float64, meta=np.empty((0, 0)))


def quiet_fit(x, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(3, random_state=0, **{"n_init": 2, "tol": 0, "max_iter": 4, **options}).fit(x)


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("weights_", "means_", "covariances_"))


@pytest.mark.parametrize("options", [{}, {"batch_size": 3000}, {"covariance_type": "diag"}])
def test_cluster_gives_the_bits_of_one_thread(client, options):
    x = blocks_of(20, 10_000)
    result = quiet_fit(x, **options)
    assert same(quiet_fit(x.persist(), **options), result)
    with dask.config.set(scheduler="synchronous"):
        assert same(quiet_fit(x, **options), result)
    labels = result.predict(x)
    assert labels.dask is not None
    assert np.bincount(labels.compute(), minlength=3).min() > 60_000


def test_worker_killed_in_the_middle_of_a_fit_changes_nothing():
    x = blocks_of(16, 20_000)
    with dask.config.set(scheduler="synchronous"):
        undisturbed = quiet_fit(x, max_iter=6)
    with lungmix.connect(workers=2, memory_limit="1GB") as client:
        killed = []

        def kill(progress):
            if progress.iteration in (2, 4):
                pids = client.run(os.getpid)
                victim = sorted(pids.values())[0]
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

        assert same(quiet_fit(x.persist(), max_iter=6, listener=kill), undisturbed)
        assert len(set(killed)) == 2
        assert same(quiet_fit(x, max_iter=6), undisturbed)


def test_array_larger_than_the_workers_memory_is_fitted_without_spilling(tmp_path):
    x = blocks_of(135, 200_000)
    limit = 600 << 20
    assert x.nbytes > limit
    start = {
        "weights_init": np.full(3, 1 / 3), "means_init": [[0.0] * 3, [5.0] * 3, [11.0] * 3],
        "precisions_init": np.stack([np.eye(3)] * 3),
    }  # fmt: skip
    with (
        dask.config.set({"temporary-directory": str(tmp_path)}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit=limit, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        pids = set(client.run(os.getpid).values())
        fitted = quiet_fit(x, max_iter=1, **start)
        spilled = client.run(lambda dask_worker: dask_worker.data.spilled_total.disk)
        peaks = client.run(lambda dask_worker: max(dask_worker.monitor.quantities["memory"]))
        assert set(client.run(os.getpid).values()) == pids
    assert set(spilled.values()) == {0}
    assert max(peaks.values()) < 0.75 * limit
    assert np.allclose(fitted.means_[:, 0], [0, 6, 12], atol=0.02)
