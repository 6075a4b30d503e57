"""Omitted options are those of the last run, and results that will be recomputed are reported before."""

import json
import os
import pty
import shutil
import sys
from dataclasses import replace

import pytest

import lungmix
from lungmix.cli.app import _status_of
from lungmix.errors import UsageError
from lungmix.mixture import PUBLISHED
from lungmix.parameters import FitParameters, MaskParameters
from lungmix.pipeline import Pipeline
from lungmix.store import CohortWriter
from lungmix.store.choices import choose, choose_fit, last_fit, last_mask, remember_mask
from support.labelled import label_record, labelled_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Store with masks of the preset ``physical`` and labels by the published mixture."""
    url = str(tmp_path_factory.mktemp("choices") / "cohort.zarr")
    labelled_store(url, 2)
    return url


@pytest.fixture
def fitted(tmp_path):
    """Store with masks of the preset ``physical`` and labels by a fit of four components."""
    url = str(tmp_path / "fitted.zarr")
    cohort, _ = labelled_store(url, 2)
    model = Pipeline(None, cohort).fit(fit=FitParameters(n_components=4, fit="converged")).model
    for case in cohort.values():
        label_record(case, model, "converged")
    return url


def test_new_store_has_the_defaults(tmp_path):
    result = choose(str(tmp_path / "new.zarr"))
    assert (result.mask, result.model, result.fit) == (MaskParameters(), "fit", FitParameters())
    assert result.kept == result.changes == []


def test_omitted_options_are_those_of_the_last_run_and_recompute_nothing(store):
    result = choose(store)
    assert result.mask == MaskParameters("physical")
    assert result.model == PUBLISHED
    assert result.changes == []
    assert result.kept == ["masks physical", "model published"]


def test_method_of_the_publication_replaces_all_parameters_of_the_last_run(store, fitted):
    for url in (store, fitted):
        result = choose(url, as_published=True)
        assert (result.mask, result.model, result.fit) == (MaskParameters("paper"), "fit", FitParameters())
        assert result.masks == "none"
        assert result.kept == []
    assert choose(store, as_published=True).changes
    assert choose(store).masks is None


@pytest.mark.parametrize("other", [{"preset": "paper"}, {"fit": "anchored"}, {"pool": "lungs"}, {"masks": "folder"}])
def test_method_of_the_publication_excludes_other_parameters(tmp_path, other):
    with pytest.raises(UsageError, match=f"leave `{next(iter(other))}` out"):
        choose(str(tmp_path / "new.zarr"), as_published=True, **other)


def test_omitted_fit_is_the_last_one(fitted):
    result = choose(fitted)
    assert (result.model, result.fit) == ("fit", FitParameters(n_components=4, fit="converged"))
    assert result.changes == []
    assert "fit converged of 4 components by counts" in result.kept


def test_omitted_prior_is_the_last_one_and_a_file_is_stored_as_numbers(tmp_path):
    url = str(tmp_path / "cohort.zarr")
    cohort, _ = labelled_store(url, 2)
    prior = replace(PUBLISHED, means=tuple(mean + 10 for mean in PUBLISHED.means))
    prior.to_json(tmp_path / "prior.json")
    given = choose(url, model="fit", fit="anchored", prior=str(tmp_path / "prior.json"), prior_strength=0.2).fit
    assert given == FitParameters(fit="anchored", prior=prior, prior_strength=0.2)
    Pipeline(None, cohort).fit(fit=given)
    assert str(tmp_path) not in json.dumps(dict(lungmix.open_cohort(url).settings))
    assert choose(url).fit == given
    assert "fit anchored of 5 components by counts, prior given of strength 0.2" in choose(url).kept
    assert choose(url, prior="published").fit == FitParameters(fit="anchored", prior_strength=0.2)
    assert choose_fit(url, components=5, fit="anchored").prior == given.prior
    assert choose_fit(url, components=5, prior="published", prior_strength=1).to_dict().keys() >= {"prior_strength"}
    assert choose_fit(url, components=3) == FitParameters(n_components=3, prior_strength=0.2)


def test_changed_preset_reports_the_cases_to_recompute(store):
    result = choose(store, preset="paper")
    assert result.mask == MaskParameters("paper")
    assert result.changes == [
        "masks of 2 cases will be recomputed with paper instead of physical, and so their labels and measurements"
    ]
    assert choose(store, threshold=-300).mask == MaskParameters("physical", threshold=-300)


def test_changed_model_and_changed_fit_report_the_cases_to_relabel(store, fitted):
    (change,) = choose(store, model="fit").changes
    assert (
        change
        == "labels of 2 cases will be recomputed with a fit (paper) instead of published, and so their measurements"
    )
    (change,) = choose(fitted, model="published").changes
    assert "with published instead of converged" in change
    (change,) = choose(fitted, fit="paper").changes
    assert "with a fit (paper) instead of converged" in change
    assert choose(fitted, model="fit", components=4, fit="converged").changes == []


def test_labels_of_an_earlier_fit_are_reported_before_they_are_recomputed(store, tmp_path):
    url = shutil.copytree(store, tmp_path / "s.zarr")
    Pipeline(None, lungmix.open_cohort(url, "r+")).fit()
    (change,) = choose(str(url)).changes
    assert change.startswith("labels of 2 cases will be recomputed with a fit (paper) instead of published")


def test_changed_chunks_report_the_cases_to_convert(store):
    (change,) = choose(store, chunk_slices=8, stages=("convert",)).changes
    assert "up to 2 cases will be converted again" in change


def test_mask_parameters_of_a_run_without_any_mask_are_recorded(store):
    cohort = lungmix.open_cohort(store, "r+")
    before = cohort.settings
    assert last_mask(cohort) == MaskParameters("physical")
    try:
        remember_mask(cohort, MaskParameters("paper", radii=(4, 3)))
        assert last_mask(lungmix.open_cohort(store)) == MaskParameters("paper", radii=(4, 3))
    finally:
        cohort._group.attrs["lungmix"] = before
    CohortWriter(cohort).record_settings(mask={"size": "of a later version"}, fit={"parameters": {"n_components": "x"}})
    try:
        assert last_mask(cohort) == MaskParameters("physical")
        assert last_fit(cohort) == FitParameters()
    finally:
        cohort._group.attrs["lungmix"] = before


def on_a_terminal(words, answer):
    """Run a command whose standard streams are a terminal, give it the answer, and return its status and output."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", "from lungmix.cli import main; main()", *words])
    said, asked = b"", False
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:
            break
        if not piece:
            break
        said += piece
        if b"Recompute?" in said and not asked:
            asked = True
            os.write(terminal, answer)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.decode()


@pytest.mark.slow
def test_terminal_is_asked_before_masks_are_recomputed(store):
    before = {name: case.stages for name, case in lungmix.open_cohort(store).items()}
    status, said = on_a_terminal(["mask", store, "--preset", "paper"], b"n\n")
    assert status == 2
    assert "masks of 2 cases will be recomputed with paper instead of physical" in said
    assert "nothing was changed" in said.replace("\r\n", " ")
    assert {name: case.stages for name, case in lungmix.open_cohort(store).items()} == before


def test_scripts_get_a_warning_and_no_question(store, capsys, monkeypatch):
    reached = []
    monkeypatch.setattr("lungmix.cli.commands.run.pipeline_on", lambda *_, **__: reached.append(1) or 1 / 0)
    for words in (["--quiet"], ["--yes"]):
        assert _status_of(["mask", store, "--preset", "paper", *words]) == 1
        assert "warning: masks of 2 cases will be recomputed" in capsys.readouterr().err
    assert len(reached) == 2
