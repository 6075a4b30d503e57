import json

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture as Reference

from lungmix import GaussianMixture, TissueModel, load_model
from lungmix.errors import ModelError
from lungmix.mixture import PUBLISHED, fit_paper
from lungmix.mixture.parameters import COVARIANCE_TYPES


def test_fit_on_counts_reaches_the_likelihood_of_scikit_learn_on_all_voxels():
    random = np.random.default_rng(1)
    component = random.choice(5, 40_000, p=np.array(PUBLISHED.weights) / sum(PUBLISHED.weights))
    hu = random.normal(np.array(PUBLISHED.means)[component], np.sqrt(PUBLISHED.variances)[component])
    hu = np.maximum(hu.round().astype(int), -1000)
    expected = Reference(5, n_init=6, random_state=0).fit(hu[:, None])
    ours = GaussianMixture(5, n_init=6, random_state=0).fit(hu)
    assert ours.lower_bound_ == pytest.approx(expected.lower_bound_, abs=2e-3)
    assert np.allclose(np.sort(ours.means_[:, 0]), np.sort(expected.means_[:, 0]), atol=15)


def test_published_model_is_the_publication():
    assert load_model("published") is PUBLISHED
    assert PUBLISHED.label_intervals() == [(-1656, 4), (-1221, 1), (-893, 2), (-721, 3), (-472, 4), (-235, 5)]


def test_old_names_of_the_model_warn_and_give_the_same_values():
    with pytest.warns(DeprecationWarning, match="use TissueModel"):
        assert PUBLISHED.fit == PUBLISHED.fit_info
    with pytest.warns(DeprecationWarning, match=r"boundaries\(\) is deprecated: use TissueModel.map_thresholds\(\)"):
        assert PUBLISHED.boundaries() == PUBLISHED.map_thresholds()
    with pytest.warns(DeprecationWarning, match="label_intervals"):
        assert PUBLISHED.thresholds() == PUBLISHED.label_intervals()
    with pytest.warns(DeprecationWarning, match="lookup_table"):
        assert np.array_equal(PUBLISHED.table(), PUBLISHED.lookup_table())
    with pytest.warns(DeprecationWarning, match="predict"):
        assert PUBLISHED.labels_of([-900]) == PUBLISHED.predict([-900])
    with pytest.warns(DeprecationWarning, match="lowest_label_start"):
        assert PUBLISHED.lower_end() == PUBLISHED.lowest_label_start()


def test_table_is_the_highest_posterior_of_every_hu():
    table = PUBLISHED.lookup_table()
    hu = np.arange(-32768, 32768)
    scores = PUBLISHED.log_densities(hu)
    assert np.array_equal(table, scores.argmax(axis=1) + 1)
    assert table[-950 + 32768] == 1
    assert table[40 + 32768] == 5


def test_ties_go_to_the_lower_label():
    twin = TissueModel((0.5, 0.5), (-100.0, 100.0), (50.0, 50.0))
    assert twin.predict([0])[0] == 1


def test_model_survives_json_to_the_last_bit(tmp_path):
    model = fit_paper(np.arange(-1000, 100), np.arange(1, 1101), clip=None, n_components=3, n_init=1)
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
        assert np.array_equal(model.predict(x[:, 0]), np.argsort(order)[theirs.predict(x)] + 1)


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
def test_bytes_that_are_no_model_are_rejected(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.json"):
        load_model(path)


def test_missing_model_says_what_to_give():
    with pytest.raises(ModelError, match="published"):
        load_model("no-such-model.json")
