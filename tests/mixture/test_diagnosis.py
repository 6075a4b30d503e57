"""Diagnosis of tissue models in sentences, with and without a histogram."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from lungmix.errors import MixtureWarning
from lungmix.mixture import PUBLISHED, TissueModel, diagnose, fit_anchored, fit_converged, fit_paper
from lungmix.mixture.diagnosis import doubts_of, with_doubts
from support.generators import HU, expected_counts

BACKGROUND = TissueModel(
    (0.43, 0.33, 0.12, 0.02, 0.10), (-890.0, -840.0, -690.0, -480.0, -200.0), (1600.0, 4000.0, 1e4, 475.0**2, 4e4)
)
"""A fit, as of some real scans, whose component of consolidation is a wide background."""


def histogram(model, voxels=1e6):
    weights = np.array(model.weights) / sum(model.weights)
    return np.rint(expected_counts(weights, model.means, np.sqrt(model.variances), voxels)).astype(np.uint64)


def test_published_model_raises_no_check_on_any_voxels():
    for voxels in (None, histogram(PUBLISHED), histogram(BACKGROUND)):
        diagnosis = diagnose(PUBLISHED, voxels)
        assert diagnosis.raised == ()
        assert not diagnosis.is_doubtful
        assert diagnosis.distance == 0


def test_background_is_named_in_words_and_numbers():
    diagnosis = diagnose(BACKGROUND)
    text = "\n".join(diagnosis.sentences())
    for words in (
        "Air: its mean -890 HU is outside -1000 to -900 HU",
        "Consolidation: its standard deviation 475 HU is 250 HU or more",
        "Healthy lung: its label has several intervals of HU",
        "Other denser tissue: by its mean -200 HU it belongs to Consolidation",
    ):
        assert words in text
    rows = diagnosis.rows()
    assert [row["text"] for row in rows] == diagnosis.sentences()
    assert {"check": "wide", "component": "consolidation", "value": 475.0, "high": 250, "fails": True}.items() <= next(
        row for row in rows if row["check"] == "wide"
    ).items()


def test_involvement_is_compared_on_the_histogram():
    voxels = histogram(PUBLISHED)
    shifted = replace(PUBLISHED, means=(-950.0, -829.0, -600.0, -300.0, 0.0))
    low, high = (
        100 * sum(int(voxels[model.map_thresholds()[1] <= HU].sum()) for model in [model]) / int(voxels.sum())
        for model in (shifted, PUBLISHED)
    )
    assert diagnose(shifted, voxels).involvement_shift == pytest.approx(low - high, abs=0.1)
    assert np.isnan(diagnose(shifted).involvement_shift)
    assert np.isnan(diagnose(shifted, np.zeros(65536, np.uint64)).involvement_shift)


def test_label_that_misses_the_mean_of_its_component_is_a_remark():
    # Air, with a mean near that of healthy lung, is labelled only below its mean.
    model = TissueModel(
        (0.05, 0.65, 0.14, 0.06, 0.10),
        (-928.0, -870.0, -652.0, -337.0, -13.0),
        (2500.0, 1600.0, 8836.0, 24649.0, 37636.0),
    )
    voxels = histogram(model)
    diagnosis = diagnose(model, voxels)
    assert not diagnosis.is_doubtful
    first, second = diagnosis.sentences()[:2]
    assert first == (
        "Air is not the label at its own mean, -928 HU: there Healthy lung is more probable, so that percentages of "
        "both can differ much from those by the published model, although lung involvement hardly does"
    )
    percents = [100 * voxels[mixture.lookup_table() == 1].sum() / voxels.sum() for mixture in (model, PUBLISHED)]
    assert second == (
        f"Air: {percents[0]:.1f} % of the pooled voxels have this label, {percents[1]:.1f} % by the published model"
    )
    rows = {row["check"]: row for row in diagnosis.rows()}
    assert rows["share"]["reference"] == pytest.approx(percents[1])
    assert rows["share"]["value"] == pytest.approx(percents[0] - percents[1])
    assert not rows["share"]["fails"]
    assert "share" not in {row["check"] for row in diagnose(model).rows()}


def test_doubtful_mixture_warns_and_a_good_one_does_not():
    with pytest.warns(MixtureWarning, match="standard deviation 475 HU"):
        diagnose(BACKGROUND).warn()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagnose(PUBLISHED).warn()


def test_components_of_other_numbers_are_named_by_number():
    model = TissueModel((0.998, 0.002), (-900.0, -300.0), (1e3, 1e3))
    assert [text.split(":")[0] for text in diagnose(model).sentences()] == ["component 2", "component 1"]


def test_fits_record_where_their_starts_ended():
    voxels = np.rint(histogram(PUBLISHED) * 0.7 + histogram(BACKGROUND) * 0.3)
    paper = fit_paper(HU, voxels, clip=-1000, n_init=3)
    assert [end["start"] for end in paper.fit_info["starts"]] == ["k-means 1", "k-means 2", "k-means 3"]
    assert max(end["value"] for end in paper.fit_info["starts"]) == paper.fit_info["log_likelihood"]
    assert min(end["distance"] for end in paper.fit_info["starts"]) < 1e-12
    converged = fit_converged(HU, voxels, [paper], clip=-1000)
    assert [end["start"] for end in converged.fit_info["starts"]] == ["paper", "quantiles"]
    anchored = fit_anchored(HU, voxels, [converged, paper], clip=-1000)
    assert [end["start"] for end in anchored.fit_info["starts"]] == ["prior", "converged", "paper"]
    far = replace(PUBLISHED, fit_info={"starts": [{"start": "a", "value": 0.0, "converged": True, "distance": 0.3}]})
    (row,) = diagnose(far).rows()
    assert (row["check"], row["fails"], row["value"]) == ("starts", False, 0.3)
    assert not diagnose(far).is_doubtful


def test_swapped_components_of_a_prior_are_named():
    model = replace(PUBLISHED, fit_info={"prior_components": [0, 1, 2, 4, 3]})
    assert diagnose(model).sentences() == [
        "Consolidation: by its mean -337 HU it belongs to Other denser tissue",
        "Other denser tissue: by its mean -13 HU it belongs to Consolidation",
    ]


def test_fit_that_ended_early_is_doubtful():
    assert diagnose(replace(PUBLISHED, fit_info={"converged": False})).is_doubtful


def test_record_of_a_file_is_not_trusted_and_that_of_a_fit_is_taken():
    shifted = replace(PUBLISHED, means=(-950.0, -790.0, -520.0, -300.0, 0.0))
    recorded = with_doubts(shifted, histogram(PUBLISHED))
    (text,) = doubts_of(recorded, is_fit=True)
    assert "involvement differs by -" in text
    assert doubts_of(recorded, is_fit=False) == []
    named = replace(BACKGROUND, fit_info={"doubts": ["Doe^John"], "starts": "Doe^John"})
    assert "Doe^John" not in doubts_of(named, is_fit=False)
    assert len(doubts_of(named, is_fit=False)) > 3
