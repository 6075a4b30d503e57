"""Earlier names of parameters: scripts that use them still run."""

import inspect

import pytest

import lungmix
from lungmix.earlier_names import accepts_earlier_names
from lungmix.pipeline import Pipeline


@accepts_earlier_names(patience="timeout")
def wait(timeout=10, *, warn=None):
    return timeout, warn


def test_an_earlier_name_is_taken_with_a_warning():
    with pytest.warns(DeprecationWarning, match="'patience' is now called 'timeout'"):
        assert wait(patience=3, warn="w") == (3, "w")
    assert wait(4) == (4, None)


def test_both_names_at_once_are_an_error():
    with pytest.raises(TypeError, match="both 'timeout' and its earlier name 'patience'"):
        wait(timeout=1, patience=2)


@pytest.mark.parametrize(
    ("function", "both", "earlier"),
    [
        (lungmix.connect, {"timeout": 1, "patience": 1}, "patience"),
        (lungmix.connect, {"warn": print, "say": print}, "say"),
        (lungmix.find_scans, {"source": "scans", "series": None, "rules": None}, "rules"),
        (lungmix.find_scans, {"source": "scans", "progress": None, "watch": None}, "watch"),
    ],
)
def test_public_functions_know_their_earlier_names(function, both, earlier):
    with pytest.raises(TypeError, match=f"its earlier name '{earlier}'"):
        function(**both)


@pytest.mark.parametrize("method", ["mask", "fit", "select", "relabel"])
def test_signatures_show_present_names_only(method):
    assert "parameters" not in inspect.signature(getattr(Pipeline, method)).parameters
