"""The commands that maintain a store, on the command line."""

import json

import pytest

import lungmix
from lungmix.cli.app import _status_of
from lungmix.geometry import Geometry
from lungmix.mixture import load_model
from lungmix.stages.fit import publish
from support.generators import labelled_case


@pytest.fixture
def store(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    for name in ("case-001", "case-002"):
        labelled_case(cohort, name, Geometry((20, 20, 20)))
    publish(cohort, load_model("published"), {"given": True})
    return str(tmp_path / "s.zarr")


def test_case_shows_where_it_comes_from(store, capsys):
    assert _status_of(["info", store, "case-001", "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["stages"]["mask"]["key"] == "case-001 mask"
    assert output["stages"]["mask"]["lungmix_version"] == lungmix.__version__
    assert output["acquisition"]["modality"] == "CT"
    assert _status_of(["info", store, "case-001"]) == 0
    assert "mask:" in capsys.readouterr().out
    assert _status_of(["info", store, "case-009"]) == 2
    assert "no case" in capsys.readouterr().err


def test_case_is_removed(store, capsys):
    assert _status_of(["remove", store, "case-001", "--quiet"]) == 0
    assert list(lungmix.open_cohort(store)) == ["case-002"]
    assert _status_of(["remove", store, "case-001", "--quiet"]) == 2
