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
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.parameters import FitParameters, MaskParameters
from lungmix.pipeline import Pipeline
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import CohortWriter
from lungmix.store.choices import (
    choose,
    choose_fit,
    last_fit,
    last_mask,
    remember_fit,
    remember_mask,
    resolve_fit,
    resolve_mask,
)
from support.labelled import label_record, labelled_store

ANATOMICAL, PAPER = MaskParameters("anatomical"), MaskParameters("paper")
ANCHORED = FitParameters(fit="anchored")
PUBLISHED_SHIFTED = replace(PUBLISHED, means=tuple(mean + 10 for mean in PUBLISHED.means))


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
    lungmix.open_cohort(tmp_path / "empty.zarr", "a")
    for name in ("new.zarr", "empty.zarr"):
        result = choose(str(tmp_path / name))
        assert (result.mask, result.model, result.fit) == (ANATOMICAL, "fit", ANCHORED)
        assert result.kept == result.changes == result.notes == []
    assert not (tmp_path / "new.zarr").exists()


def test_preset_or_fit_of_the_publication_alone_leaves_the_other_at_its_default(tmp_path):
    url = str(tmp_path / "new.zarr")
    assert (choose(url, preset="paper").mask, choose(url, preset="paper").fit) == (PAPER, ANCHORED)
    assert (choose(url, fit="paper").mask, choose(url, fit="paper").fit) == (ANATOMICAL, FitParameters(fit="paper"))
    assert choose(url, threshold=-350).mask == MaskParameters("anatomical", threshold=-350)
    with pytest.raises(UsageError, match="no opening: choose another preset"):
        choose(url, opening=1)


def converted(url, count=2):
    """Return a store with cases, and without any record of masks or fits."""
    cohort = lungmix.open_cohort(url, "a")
    for number in range(1, count + 1):
        case = CohortWriter(cohort).add(f"case-{number:03d}", Geometry((8, 8, 8)), Acquisition())
        case.record("convert", {"key": f"c{number}"})
    return cohort


def test_store_with_cases_but_without_records_keeps_the_method_of_the_publication(tmp_path):
    url = str(tmp_path / "s.zarr")
    cohort = converted(url)
    result = choose(url)
    assert (result.mask, result.fit) == (PAPER, FitParameters(fit="paper"))
    assert result.kept == ["masks paper", "fit paper of 5 components by counts"]
    assert (resolve_mask(cohort), resolve_fit(cohort)) == (result.mask, result.fit)
    # Its first run was killed while masking: the mask parameters are recorded, the fit is not.
    remember_mask(cohort, MaskParameters("physical"))
    assert choose(url).mask == MaskParameters("physical")
    assert choose(url).fit == FitParameters(fit="paper")


def test_store_of_which_the_first_run_was_killed_resumes_with_its_own_parameters(tmp_path):
    for name, given in (("default", {}), ("given", {"preset": "paper", "fit": "converged", "components": 3})):
        url = str(tmp_path / name)
        chosen = choose(url, **given)
        # A run records its parameters before it creates a case.
        cohort = lungmix.open_cohort(url, "a")
        remember_fit(cohort, chosen.fit)
        assert choose(url).fit == chosen.fit
        remember_mask(cohort, chosen.mask)
        converted(url)
        again = choose(url)
        assert (again.mask, again.fit) == (chosen.mask, chosen.fit)
    assert again.kept == ["masks paper", "fit converged of 3 components by counts"]
    assert choose(str(tmp_path / "default")).kept == []


def test_fit_parameters_are_recorded_once(tmp_path):
    file = tmp_path / "new.zarr" / "zarr.json"
    cohort = lungmix.open_cohort(tmp_path / "new.zarr", "a")
    remember_fit(cohort, ANCHORED)
    before = file.read_bytes()
    assert b"fit_parameters" in before
    remember_fit(cohort, ANCHORED)
    assert file.read_bytes() == before
    other = FitParameters(fit="anchored", prior=PUBLISHED_SHIFTED, pool="lungs")
    remember_fit(cohort, other)
    assert last_fit(lungmix.open_cohort(cohort.url)) == other


def test_earlier_store_with_a_fit_is_not_rewritten_where_nothing_changed(store, fitted, tmp_path):
    cohort = lungmix.open_cohort(fitted, "r+")
    settings = {key: value for key, value in cohort.settings.items() if key != "fit_parameters"}
    cohort._group.attrs["lungmix"] = settings
    given = lungmix.open_cohort(shutil.copytree(store, tmp_path / "given.zarr"), "r+")
    for earlier, fit in ((cohort, FitParameters(n_components=4, fit="converged")), (given, FitParameters(fit="paper"))):
        assert resolve_fit(earlier) == fit
        remember_fit(earlier, fit)
        assert "fit_parameters" not in earlier.settings
    remember_fit(cohort, ANCHORED)
    assert last_fit(cohort) == ANCHORED
    # The model is still that of the last fit, so that labels by it are valid for its parameters alone.
    assert choose(fitted, model="fit").changes
    assert not choose(fitted, model="fit", components=4, fit="converged").changes


def test_fit_of_a_store_without_records_is_that_of_most_labels(tmp_path):
    url = str(tmp_path / "s.zarr")
    cohort, _ = labelled_store(url, 3)
    for name, fit in (("case-001", "anchored"), ("case-002", "anchored"), ("case-003", "converged")):
        label_record(cohort[name], PUBLISHED_SHIFTED, fit)
    settings = cohort.settings
    cohort._group.attrs["lungmix"] = {key: value for key, value in settings.items() if key not in ("fit", "fits")}
    assert last_fit(cohort) == ANCHORED
    three = TissueModel((0.5, 0.3, 0.2), (-900.0, -500.0, 0.0), (2500.0, 10000.0, 40000.0))
    label_record(cohort["case-001"], three, "paper")
    label_record(cohort["case-002"], three, "paper")
    assert last_fit(cohort) == FitParameters(n_components=3)


def test_other_number_of_components_is_fitted_without_a_prior(tmp_path):
    url = str(tmp_path / "new.zarr")
    result = choose(url, components=3)
    assert result.fit == FitParameters(n_components=3, fit="paper")
    (note,) = result.notes
    assert note == (
        "the mixture has 3 components and the published prior 5, so labels are by the fit paper, not by anchored"
    )
    assert choose(url, components=5).fit == ANCHORED
    assert choose(url, components=3, fit="converged").fit == FitParameters(n_components=3, fit="converged")
    assert choose(url, components=3, model="published").notes == choose(url, components=5).notes == []
    with pytest.raises(UsageError, match="the prior has 5 components and the mixture 3"):
        choose(url, components=3, fit="anchored")
    prior = TissueModel((0.5, 0.3, 0.2), (-900.0, -500.0, 0.0), (2500.0, 10000.0, 40000.0))
    prior.to_json(tmp_path / "three.json")
    with_prior = choose(url, components=3, prior=str(tmp_path / "three.json"))
    assert with_prior.fit == FitParameters(n_components=3, fit="anchored", prior=prior)
    assert with_prior.notes == []


@pytest.mark.parametrize("fit", ["anchored", "paper", "converged"])
def test_fit_of_five_components_is_used_again_after_another_number(tmp_path, fit):
    url = str(tmp_path / "cohort.zarr")
    cohort = lungmix.open_cohort(url, "a")
    remember_fit(cohort, FitParameters(fit=fit))
    three = choose(url, components=3)
    assert three.fit.fit == ("paper" if fit == "anchored" else fit)
    remember_fit(cohort, three.fit)
    assert choose(url).fit == three.fit
    remember_fit(cohort, choose(url, components=4).fit)
    five = choose(url, components=5)
    assert five.fit == FitParameters(fit=fit)
    assert five.notes == [
        "the mixture has 5 components again, not 4, so labels are by the fit anchored, not by paper"
    ] * (fit == "anchored")
    assert choose(url, components=5, fit="converged").fit == FitParameters(fit="converged")


def test_fit_of_five_components_is_the_default_if_there_was_none(tmp_path):
    url = str(tmp_path / "cohort.zarr")
    cohort = lungmix.open_cohort(url, "a")
    remember_fit(cohort, choose(url, components=3).fit)
    assert choose(url, components=5).fit == ANCHORED


def test_prior_and_number_of_components_replace_those_of_the_last_run(tmp_path):
    url, files = str(tmp_path / "cohort.zarr"), {}
    cohort = lungmix.open_cohort(url, "a")
    three = TissueModel((0.5, 0.3, 0.2), (-900.0, -500.0, 0.0), (2500.0, 10000.0, 40000.0))
    for name, model in (("three", three), ("five", PUBLISHED_SHIFTED)):
        files[name] = str(tmp_path / f"{name}.json")
        model.to_json(files[name])
    given = choose(url, prior=files["three"])
    assert given.fit == FitParameters(n_components=3, fit="anchored", prior=three)
    remember_fit(cohort, given.fit)
    assert choose(url, prior=files["five"]).fit == FitParameters(fit="anchored", prior=PUBLISHED_SHIFTED)
    assert choose(url, prior="published").fit == ANCHORED
    five = choose(url, components=5)
    assert five.fit == ANCHORED
    assert five.notes == ["the mixture has 5 components and the prior of the last run 3, so this prior is not used"]
    assert choose(url, components=4).fit == FitParameters(n_components=4, fit="paper")
    assert len(choose(url, components=4).notes) == 2
    with pytest.raises(UsageError, match="the prior has 3 components and the mixture 5"):
        choose(url, components=5, prior=files["three"])
    remember_fit(cohort, FitParameters(n_components=3))
    with pytest.raises(UsageError, match="the last run on this store had 3: give `n_components=5`"):
        choose(url, fit="anchored")
    assert choose(url, fit="anchored", components=5).fit == ANCHORED


@pytest.mark.parametrize("method", ["em", "minibatch"])
def test_fit_over_voxels_leaves_the_fit_of_the_labels_at_its_default(tmp_path, method):
    result = choose(str(tmp_path / "new.zarr"), method=method)
    assert result.fit == FitParameters(fit="anchored", method=method)
    assert result.notes == []


def test_notes_are_printed_by_commands_that_fit_one_mixture(fitted, capsys):
    lungmix.Pipeline(None, lungmix.open_cohort(fitted, "r+")).fit(fit=ANCHORED)
    assert _status_of(["fit", fitted, "--components", "2-3"]) == 0
    assert "published prior" not in capsys.readouterr().err
    assert _status_of(["fit", fitted, "--components", "3", "--quiet", "--json"]) == 0
    printed = capsys.readouterr()
    note = "the mixture has 3 components and the published prior 5, so labels are by the fit paper, not by anchored"
    assert f"warning: {note}" in printed.err
    assert note in json.loads(printed.out)["notes"]["fit"]
    lungmix.Pipeline(None, lungmix.open_cohort(fitted, "r+")).fit(fit=ANCHORED)
    assert _status_of(["fit", fitted, "--components", "3"]) == 0
    assert "labels are by the fit paper, not by anchored" in " ".join(capsys.readouterr().err.split())
    assert last_fit(lungmix.open_cohort(fitted)) == FitParameters(n_components=3)


def test_omitted_options_are_those_of_the_last_run_and_recompute_nothing(store):
    result = choose(store)
    assert result.mask == MaskParameters("physical")
    assert result.model == PUBLISHED
    assert result.changes == []
    assert result.kept == ["masks physical", "model published"]


def test_method_of_the_publication_replaces_all_parameters_of_the_last_run(store, fitted):
    for url in (store, fitted):
        result = choose(url, as_published=True)
        assert (result.mask, result.model, result.fit) == (PAPER, "fit", FitParameters(fit="paper"))
        assert result.masks == result.harmonise == "none"
        assert result.kept == []
    assert choose(store, as_published=True).changes
    assert choose(store).masks is None


@pytest.mark.parametrize(
    "other",
    [{"preset": "paper"}, {"fit": "anchored"}, {"pool": "lungs"}, {"masks": "folder"}, {"harmonise": "kernel"}],
)
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


def test_changed_settings_of_the_same_fit_are_named(fitted, tmp_path):
    cohort = lungmix.open_cohort(fitted, "r+")
    model = Pipeline(None, cohort).fit(fit=ANCHORED).model
    for case in cohort.values():
        label_record(case, model, "anchored")
    assert choose(fitted).changes == []
    (change,) = choose(fitted, prior_strength=0.2, weigh="scans").changes
    assert change == (
        "labels of 2 cases will be recomputed, because settings of the fit changed (prior strength 0.2 instead of "
        f"{ANCHORED.prior_strength:g}, weighed alike scans instead of voxels), and so their measurements"
    )
    PUBLISHED_SHIFTED.to_json(tmp_path / "prior.json")
    (change,) = choose(fitted, prior=str(tmp_path / "prior.json"), exclude_flagged=True).changes
    assert "(prior given instead of published, without flagged cases)" in change
    # Settings of an earlier fit, which the store's model has replaced, are not recorded.
    label_record(cohort["case-001"], PUBLISHED_SHIFTED, "anchored")
    (change,) = choose(fitted, prior_strength=0.2).changes
    assert change.startswith("labels of 2 cases will be recomputed with a new fit (anchored) instead of an earlier one")
    (change,) = choose(fitted).changes
    assert change.startswith("labels of 1 case will be recomputed with a new fit (anchored) instead of an earlier one")


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
