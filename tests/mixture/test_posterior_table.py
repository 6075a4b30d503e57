import numpy as np
from hypothesis import given

from lungmix.mixture import PUBLISHED
from oracle.posteriors import posteriors
from support.generators import models

HU = np.arange(-32768, 32768)


@given(models())
def test_table_holds_the_posterior_of_every_component_at_every_hu(model):
    table = model.posterior_table()
    assert table.shape == (65536, model.n_components)
    assert table.dtype == np.float64
    assert np.allclose(table, posteriors(HU, model), rtol=0, atol=1e-7)
    assert np.allclose(table.sum(axis=1), 1, rtol=0, atol=1e-15 * (1 + model.n_components))
    assert table.min() >= 0


@given(models())
def test_label_is_the_component_of_the_highest_posterior(model):
    table, labels = model.posterior_table(), model.lookup_table()
    assert np.array_equal(table.argmax(axis=1) + 1, labels)


def test_posteriors_of_values_keep_their_shape():
    hu = np.array([[-1000, -800, -650], [-300, 0, 32767]])
    posteriors_of_hu = PUBLISHED.predict_proba(hu)
    assert posteriors_of_hu.shape == (2, 3, 5)
    assert np.array_equal(posteriors_of_hu, PUBLISHED.posterior_table()[hu + 32768])


def test_label_below_air_is_that_of_a_wider_component():
    table = PUBLISHED.posterior_table()
    assert PUBLISHED.lowest_label_start() == -1221
    assert table[-1221 + 32768].argmax() == 0
    assert table[-1222 + 32768].argmax() == 3
