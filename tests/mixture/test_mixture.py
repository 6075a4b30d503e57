import json
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from lungmix import GaussianMixture, TissueModel, load_model
from lungmix.errors import ModelError
from lungmix.mixture import PUBLISHED, fit_tissue_model
from lungmix.mixture.em import COVARIANCE_TYPES
from lungmix.mixture.starts import kmeans_responsibilities


def start_of(covariance_type, d):
    weights, means = np.array([0.3, 0.3, 0.4]), np.array([[0.0] * d, [12.0] * d, [28.0] * d])
    covariances = {
        "full": np.stack([np.eye(d) * 16] * 3),
        "tied": np.eye(d) * 16,
        "diag": np.full((3, d), 16.0),
        "spherical": np.full(3, 16.0),
    }[covariance_type]
    precisions = np.linalg.inv(covariances) if covariance_type in ("full", "tied") else 1 / covariances
    return weights, means, covariances, precisions


@given(
    st.sampled_from(COVARIANCE_TYPES), st.integers(1, 3), st.integers(1, 12), st.integers(0, 2**32 - 1), st.booleans()
)
@settings(max_examples=60)
def test_same_start_gives_the_parameters_of_scikit_learn(covariance_type, d, iterations, seed, whole):
    random = np.random.default_rng(seed)
    x = np.concatenate([random.normal(m, 1, (60, d)) for m in (0, 3, 7)]) * 4
    x = np.round(x).astype(int) if whole else x
    copies = random.integers(0, 4, len(x))
    weights, means, covariances, precisions = start_of(covariance_type, d)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        expected = Reference(
            3, covariance_type=covariance_type, weights_init=weights, means_init=means, precisions_init=precisions,
            tol=0, max_iter=iterations,
        ).fit(np.repeat(x, copies, axis=0))  # fmt: skip
    ours = GaussianMixture(
        3, covariance_type, tol=0, max_iter=iterations,
        weights_init=weights, means_init=means, covariances_init=covariances,
    ).fit(x, sample_weight=copies)  # fmt: skip
    assert np.allclose(ours.weights_, expected.weights_, rtol=1e-8, atol=1e-12)
    assert np.allclose(ours.means_, expected.means_, rtol=1e-8, atol=1e-8)
    assert np.allclose(ours.covariances_, expected.covariances_, rtol=1e-7, atol=1e-8)
    assert ours.lower_bound_ == pytest.approx(expected.lower_bound_, rel=1e-8)
    real = x.astype(float)  # scikit-learn 1.9 scores integers wrongly
    assert ours.score(x) == pytest.approx(expected.score(real))
    assert ours.bic(x) == pytest.approx(expected.bic(real))
    assert ours.aic(x) == pytest.approx(expected.aic(real))
    assert np.array_equal(ours.predict(x), expected.predict(real))
    assert np.allclose(ours.predict_proba(x), expected.predict_proba(real), atol=1e-9)


def test_kmeans_start_on_counts_is_that_on_all_voxels():
    random = np.random.default_rng(0)
    voxels = np.concatenate([random.normal(m, 2, 500).round() for m in (-40, 0, 50)]).astype(int)
    values, counts = np.unique(voxels, return_counts=True)
    ours = kmeans_responsibilities(values[:, None] * 1.0, counts * 1.0, 3, np.random.RandomState(0)).argmax(axis=1)
    theirs = KMeans(3, n_init=1, random_state=0).fit(voxels[:, None] * 1.0)
    centres = sorted(np.average(values[ours == k], weights=counts[ours == k]) for k in range(3))
    assert np.allclose(centres, sorted(theirs.cluster_centers_[:, 0]))


def test_fit_on_counts_reaches_the_likelihood_of_scikit_learn_on_all_voxels():
    random = np.random.default_rng(1)
    component = random.choice(5, 40_000, p=np.array(PUBLISHED.weights) / sum(PUBLISHED.weights))
    hu = random.normal(np.array(PUBLISHED.means)[component], np.sqrt(PUBLISHED.variances)[component])
    hu = np.maximum(hu.round().astype(int), -1000)
    expected = Reference(5, n_init=6, random_state=0).fit(hu[:, None])
    ours = GaussianMixture(5, n_init=6, random_state=0).fit(hu)
    assert ours.lower_bound_ == pytest.approx(expected.lower_bound_, abs=2e-3)
    assert np.allclose(np.sort(ours.means_[:, 0]), np.sort(expected.means_[:, 0]), atol=15)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30)
def test_dask_array_of_any_chunks_gives_the_fit_of_numpy(chunks, seed, weighted):
    random = np.random.default_rng(seed)
    hu = random.choice([-900, -890, -500, -100, 0, 10, 40], sum(chunks)).astype(np.int16)
    hu[: min(7, len(hu))] = [-900, -890, -500, -100, 0, 10, 40][: len(hu)]
    if len(np.unique(hu)) < 2:
        return
    weights = random.integers(1, 5, len(hu)) if weighted else None
    with dask.config.set(scheduler="synchronous"):
        lazy = GaussianMixture(2, random_state=0).fit(da.from_array(hu, chunks=(tuple(chunks),)), sample_weight=weights)
        eager = GaussianMixture(2, random_state=0).fit(hu, sample_weight=weights)
        assert np.array_equal(lazy.means_, eager.means_)
        labels = lazy.predict(da.from_array(hu, chunks=(tuple(chunks),)))
        assert isinstance(labels, da.Array)
        assert np.array_equal(labels.compute(), eager.predict(hu))
        proba = lazy.predict_proba(da.from_array(hu, chunks=(tuple(chunks),)))
        assert proba.shape == (len(hu), 2)
        assert np.allclose(proba.compute(), eager.predict_proba(hu))


@pytest.mark.parametrize(
    ("x", "options", "match"),
    [
        ([1.0, float("nan"), 3.0], {}, "nan at row 1"),
        ([1.0, 2.0, float("inf")], {}, "inf at row 2"),
        ([], {}, "no samples"),
        ([1, 1, 1], {"n_components": 2}, "distinct"),
        ([1, 2, 3], {"covariance_type": "round"}, "full, tied, diag, spherical"),
        ([1, 2, 3], {"n_init": 0}, "n_init"),
        (np.zeros((2, 2, 2)), {}, "shape"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_the_place(x, options, match):
    with pytest.raises(ModelError, match=match):
        GaussianMixture(**{"n_components": 2, **options}).fit(np.asarray(x))


def test_negative_weights_are_refused():
    with pytest.raises(ModelError, match="sample_weight"):
        GaussianMixture(1).fit(np.array([1, 2, 3]), sample_weight=[1, -1, 1])


def test_published_model_is_the_publication():
    assert load_model("published") is PUBLISHED
    assert PUBLISHED.thresholds() == [(-1656, 4), (-1221, 1), (-893, 2), (-721, 3), (-472, 4), (-235, 5)]


def test_table_is_the_highest_posterior_of_every_hu():
    table = PUBLISHED.table()
    hu = np.arange(-32768, 32768)
    scores = PUBLISHED.log_densities(hu)
    assert np.array_equal(table, scores.argmax(axis=1) + 1)
    assert table[-950 + 32768] == 1
    assert table[40 + 32768] == 5


def test_ties_go_to_the_lower_label():
    twin = TissueModel((0.5, 0.5), (-100.0, 100.0), (50.0, 50.0))
    assert twin.labels_of([0])[0] == 1


def test_model_survives_json_to_the_last_bit(tmp_path):
    model = fit_tissue_model(np.arange(-1000, 100), np.arange(1, 1101), n_components=3, n_init=1)
    model.to_json(tmp_path / "model.json")
    assert load_model(tmp_path / "model.json") == model


def test_components_come_sorted_by_mean():
    model = TissueModel((0.2, 0.8), (10.0, -10.0), (1.0, 2.0))
    assert model.means == (-10.0, 10.0)
    assert model.weights == (0.8, 0.2)
    assert model.variances == (2.0, 1.0)


def test_from_sklearn_takes_every_covariance_type():
    x = np.random.default_rng(0).normal(size=(200, 1)) * 40
    for covariance_type in COVARIANCE_TYPES:
        theirs = Reference(2, covariance_type=covariance_type, random_state=0).fit(x)
        model = TissueModel.from_sklearn(theirs)
        order = np.argsort(theirs.means_[:, 0])
        assert np.array_equal(model.labels_of(x[:, 0]), np.argsort(order)[theirs.predict(x)] + 1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"weights": [0.5, 0.6]}, "add up to 1"),
        ({"variances": [1.0, -1.0]}, "variances"),
        ({"means": [1.0]}, "equally many"),
        ({"means": [1.0, "x"]}, "means"),
        ({"format_version": 99}, "format_version"),
    ],
)
def test_file_that_is_no_model_is_named(tmp_path, change, match):
    document = {"weights": [0.5, 0.5], "means": [-1.0, 1.0], "variances": [1.0, 1.0], **change}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ModelError, match=match) as caught:
        load_model(path)
    assert "mine.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x04pickle", b"[1, 2]", b"null"])
def test_bytes_that_are_no_model_are_refused(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.json"):
        load_model(path)


def test_missing_model_says_what_to_give():
    with pytest.raises(ModelError, match="published"):
        load_model("no-such-model.json")
