"""Mixtures as JSON: they are read back without loss, and texts that are no mixture are rejected."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix import GaussianMixture, TissueModel
from lungmix.errors import ModelError
from lungmix.mixture.parameters import COVARIANCE_TYPES


@pytest.fixture(scope="module")
def samples():
    random = np.random.default_rng(0)
    return np.concatenate([random.normal(m, 1, (200, 2)) for m in (0, 7)])


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_mixture_survives_json_to_the_last_bit(samples, covariance_type, tmp_path):
    fitted = GaussianMixture(2, covariance_type, random_state=3, tol=1e-5, kappa=0.9).fit(samples)
    fitted.to_json(tmp_path / "mixture.json")
    for again in (GaussianMixture.from_json(fitted.to_json()), GaussianMixture.from_json(tmp_path / "mixture.json")):
        assert again.get_params() == fitted.get_params()
        assert np.array_equal(again.predict_proba(samples), fitted.predict_proba(samples))
        assert (again.lower_bounds_, again.converged_) == (fitted.lower_bounds_, fitted.converged_)
        assert again.to_json() == fitted.to_json()


def test_mixture_from_json_continues_to_learn(samples):
    fitted = GaussianMixture(2, random_state=0).partial_fit(samples)
    again = GaussianMixture.from_json(fitted.to_json())
    assert np.array_equal(again.partial_fit(samples).means_, fitted.partial_fit(samples).means_)
    assert again.n_steps_ == 2


def test_names_of_features_survive(samples):
    frame = pd.DataFrame(samples, columns=["a", "b"])
    again = GaussianMixture.from_json(GaussianMixture(2, random_state=0).fit(frame).to_json())
    assert list(again.feature_names_in_) == ["a", "b"]


def test_tissue_model_takes_a_mixture_from_json(samples):
    fitted = GaussianMixture.from_json(GaussianMixture(2, random_state=0).fit(samples[:, 0] * 30).to_json())
    assert TissueModel.from_sklearn(fitted).n_components == 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "other"}, "format"),
        ({"format_version": 9}, "format_version"),
        ({"weights": [0.5, 0.6]}, "add up to 1"),
        ({"weights": [1.5, -0.5]}, "weights"),
        ({"means": [[1.0, 2.0]]}, "means"),
        ({"means": [[1.0], [1.0, 2.0]]}, "ragged"),
        ({"covariances": [1.0, 1.0]}, "shape"),
        ({"covariances": [[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]]}, "positive definite"),
        ({"covariance_type": "round"}, "covariance_type"),
        ({"parameters": {"listener": "os.system"}}, "listener"),
        ({"parameters": {"tol": -1}}, "tol"),
        ({"more": 1}, "more"),
    ],
)
def test_text_that_is_no_mixture_is_named(samples, change, match, tmp_path):
    document = json.loads(GaussianMixture(2, random_state=0).fit(samples).to_json())
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**document, **change}))
    with pytest.raises(ModelError, match=match) as caught:
        GaussianMixture.from_json(path)
    assert "mine.json" in str(caught.value)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_mixture_are_rejected(content):
    with pytest.raises(ModelError, match="not a mixture"):
        GaussianMixture.from_json(content)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.json"):
        GaussianMixture.from_json(tmp_path / "absent.json")
