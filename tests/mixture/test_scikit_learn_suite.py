"""The tests of mixtures that scikit-learn ships, run with our class in place of that of scikit-learn.

Words of messages are not compared. Other tests (`test_contract`, `test_agreement`) check the same properties, so that
none goes unchecked if a version of scikit-learn ships no tests.
"""

from importlib.util import find_spec, module_from_spec
from unittest import mock

import numpy as np
import pytest
import sklearn.mixture

from lungmix import GaussianMixture

_THEIR_FUNCTIONS = "tests private functions of scikit-learn, not the class"
_PRIVATE_METHODS = "calls private methods of their class"
_ARRAY_API = "arrays of other libraries: ours are those of numpy and dask"

LEFT_OUT = {
    "test_suffstat_sk_full": _THEIR_FUNCTIONS,
    "test_suffstat_sk_tied": _THEIR_FUNCTIONS,
    "test_suffstat_sk_diag": _THEIR_FUNCTIONS,
    "test_gaussian_suffstat_sk_spherical": _THEIR_FUNCTIONS,
    "test_compute_log_det_cholesky": _THEIR_FUNCTIONS,
    "test_gaussian_mixture_log_probabilities": _THEIR_FUNCTIONS,
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters": "counts calls of a private function",
    "test_gaussian_mixture_precisions_init": _PRIVATE_METHODS,
    "test_gaussian_mixture_precisions_init_diag": "takes precisions of a private function, in the order of a k-means "
    "on rows as they come: ours sorts rows first, so that their order changes nothing",
    "test_gaussian_mixture_array_api_compliance": _ARRAY_API,
    "test_gaussian_mixture_raises_where_array_api_not_implemented": _ARRAY_API,
}


class AnyWords:
    """Stand-in for pytest whose `raises` and `warns` accept any message."""

    def __getattr__(self, name):
        return getattr(pytest, name)

    def raises(self, error, match=None):
        return pytest.raises(error)

    def warns(self, warning, match=None):
        return pytest.warns(warning)


def suite_of(name):
    """Return the test functions in a module of the tests of scikit-learn, in which our class replaces its class."""
    spec = find_spec(f"sklearn.mixture.tests.{name}") if find_spec("sklearn.mixture.tests") else None
    if spec is None or spec.loader is None:
        return {}
    module = module_from_spec(spec)
    with mock.patch.object(sklearn.mixture, "GaussianMixture", GaussianMixture):
        spec.loader.exec_module(module)
    assert module.GaussianMixture is GaussianMixture
    module.pytest = AnyWords()
    return {key: test for key, test in vars(module).items() if key.startswith("test_") and key not in LEFT_OUT}


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def global_dtype(request):
    return request.param


@pytest.fixture
def global_random_seed():
    return 42


globals().update({**suite_of("test_mixture"), **suite_of("test_gaussian_mixture")})
