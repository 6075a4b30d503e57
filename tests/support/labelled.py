"""Stores of small labelled phantoms, made in memory without a cluster."""

from __future__ import annotations

import lungmix
from lungmix.geometry import Geometry
from lungmix.kernels.histogram import count_hu
from lungmix.mixture import PUBLISHED
from lungmix.phantom import Cohort
from lungmix.privacy.acquisition import Acquisition
from lungmix.stages import label
from lungmix.stages.fit import publish
from lungmix.stages.measure import measure_cohort
from lungmix.store import CaseWriter, CohortWriter

SHAPE, SPACING = (40, 64, 64), (5.5, 5.625, 7.5)


def add_case(cohort, name, ct, lung, geometry, acquisition=None, model=PUBLISHED, beta=None):
    """Add a case with all its images, labelled by a model; with a beta, also under a Potts prior."""
    case = CohortWriter(cohort).add(name, geometry, acquisition or Acquisition())
    tissue = lungmix.tissue_labels(ct, lung, model)
    images = {"ct": ct, "lung": lung, "tissue": tissue, "tissue_median": lungmix.median_labels(tissue)}
    if beta is not None:
        images["tissue_potts"] = lungmix.potts_labels(ct, lung, model, geometry.spacing, beta)
    for image, volume in images.items():
        case.create_image(image)
        for start, stop in case.layout.slabs():
            case.write(image, start, volume[start:stop])
    case.write_histogram("hu_counts", count_hu(ct, lung))
    case.record("convert", {"key": "c"})
    case.record("mask", {"key": "m", "parameters": {"preset": "physical", "threshold": -155}})
    label_record(case, model, **({} if beta is None else {"potts": {"beta": beta}}))
    return case


def label_record(case, model=PUBLISHED, name="published", **more):
    """Record in a case that its labels are by a model."""
    parameters = {key: list(getattr(model, key)) for key in ("weights", "means", "variances")}
    CaseWriter(case).record(
        "label", {"key": label.key_for(case, model), "model": parameters, "model_name": name, **more}
    )


def labelled_store(url, scans=3, seed=3, beta=None):
    """Return a measured cohort of phantoms, and the scores of its cases."""
    cohort = lungmix.open_cohort(url, "a")
    scores = {}
    for patient in Cohort(scans, seed, SHAPE, SPACING):
        phantom = patient.phantom
        lung = (phantom.truth() > 0).astype("uint8")
        add_case(cohort, phantom.name, phantom.volume(), lung, phantom.geometry, phantom.acquisition, beta=beta)
        scores[phantom.name] = patient.score
    publish(cohort, PUBLISHED, {"given": True})
    measure_cohort(cohort, list(cohort), PUBLISHED)
    return cohort, scores


def unlabelled(cohort, name, reason):
    """Add a case whose mask stage failed."""
    case = CohortWriter(cohort).add(name, Geometry((8, 8, 8)), Acquisition())
    case.record("convert", {"key": "c"})
    case.record_failure("mask", reason)
