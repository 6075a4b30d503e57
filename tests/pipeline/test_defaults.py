"""Defaults of runs: those of a new store, and those of a store that an earlier version made."""

import pytest

import lungmix
from lungmix.parameters import FitParameters, MaskParameters
from lungmix.phantom import Phantom, write_phantom
from lungmix.pipeline import Pipeline, runner
from lungmix.store.models import label_id
from support.command import SMALL, run_here
from support.stores import assert_same_store, store_digest


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Phantom in which all presets find lungs."""
    path = tmp_path_factory.mktemp("scan") / "scan.nrrd"
    write_phantom(path, Phantom((40, 64, 64), (5.5, 5.625, 7.5), 4))
    return path


@pytest.fixture(scope="module")
def cluster(client):
    return "--scheduler", client.scheduler.address


def methods_of(url) -> tuple[str, str]:
    """Return the preset of the mask and the fit of the labels of the only case."""
    (case,) = lungmix.open_cohort(url).values()
    return case.stages["mask"]["parameters"]["preset"], label_id(case).name


@pytest.mark.slow
def test_new_store_has_anatomical_masks_and_labels_by_the_anchored_fit(scan, cluster, client, tmp_path):
    done = run_here("run", tmp_path / "command.zarr", scan, *cluster)
    assert done.returncode == 0, done.stderr
    assert methods_of(tmp_path / "command.zarr") == ("anatomical", "anchored")
    assert "as in the last run" not in done.stderr
    assert "fewer than" not in done.stdout + done.stderr
    # One call in Python, and one stage after another, give the same store.
    assert not lungmix.run(tmp_path / "call.zarr", scan, client=client).failed
    assert_same_store(tmp_path / "command.zarr", tmp_path / "call.zarr")
    pipeline = Pipeline(client, lungmix.open_cohort(tmp_path / "stages.zarr", "a"))
    pipeline.convert(scan)
    assert not pipeline.mask().failed
    for stage in (pipeline.fit, pipeline.label, pipeline.measure):
        stage()
    assert methods_of(tmp_path / "stages.zarr") == ("anatomical", "anchored")
    assert pipeline.cohort.model == lungmix.open_cohort(tmp_path / "call.zarr").model
    before = store_digest(tmp_path / "command.zarr")
    assert not lungmix.run(tmp_path / "command.zarr", scan, client=client).failed
    assert store_digest(tmp_path / "command.zarr") == before


def test_store_of_an_earlier_version_keeps_its_preset_and_its_fit(scan, cluster, client, tmp_path):
    url = tmp_path / "s.zarr"
    assert run_here("run", url, scan, *SMALL, "--fit", "paper", *cluster).returncode == 0
    cohort = lungmix.open_cohort(url, "r+")
    cohort._group.attrs["lungmix"] = {k: v for k, v in cohort.settings.items() if k != "fit_parameters"}
    before = (store_digest(url), (url / "zarr.json").read_bytes())
    again = run_here("run", url, scan, *cluster)
    assert again.returncode == 0, again.stderr
    said = " ".join(again.stderr.split())
    masks = "masks paper opening=1 min_voxels=1000 radii=3"
    assert f"as in the last run on this store: {masks}; fit paper of 5 components by counts" in said
    assert not lungmix.run(url, scan, client=client).failed
    assert (store_digest(url), (url / "zarr.json").read_bytes()) == before


def test_run_that_ends_before_its_first_case_is_repeated_with_its_parameters(scan, client, tmp_path, monkeypatch):
    mask, fit = MaskParameters("physical"), FitParameters(fit="converged")
    with monkeypatch.context() as context:
        context.setattr(runner.CaseRunner, "run_cases", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lungmix.run(tmp_path / "s.zarr", scan, mask=mask, fit=fit, client=client)
    assert not lungmix.open_cohort(tmp_path / "s.zarr")
    assert not lungmix.run(tmp_path / "s.zarr", scan, client=client).failed
    assert methods_of(tmp_path / "s.zarr") == ("physical", "converged")


def test_converted_store_is_no_earlier_one(scan, client, tmp_path):
    pipeline = Pipeline(client, lungmix.open_cohort(tmp_path / "s.zarr", "a"))
    pipeline.convert(scan)
    assert "fit_parameters" in lungmix.open_cohort(tmp_path / "s.zarr").settings
    pipeline.mask(MaskParameters("physical"))
    assert pipeline.relabel("fit").model_id.name == "anchored"
    assert pipeline.select([5]).selection
    assert pipeline.fit(fit=FitParameters(fit="converged")).model_id.name == "converged"
    assert pipeline.fit().model_id.name == "converged"


def test_given_model_leaves_the_fit_of_a_new_store_at_its_default(scan, client, tmp_path):
    lungmix.run(tmp_path / "s.zarr", scan, model="published", client=client)
    assert methods_of(tmp_path / "s.zarr") == ("anatomical", "published")
    lungmix.run(tmp_path / "s.zarr", scan, client=client)
    assert methods_of(tmp_path / "s.zarr") == ("anatomical", "anchored")
