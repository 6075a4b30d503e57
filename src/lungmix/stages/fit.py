"""Fit: reads the counts of all cases, writes the model; depends on the masks and the fit parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lungmix.errors import ModelError
from lungmix.kernels.counts import FIRST_HU, N_HU
from lungmix.mixture import TissueModel, fit_tissue_model
from lungmix.parameters import FitParameters
from lungmix.stages import mask
from lungmix.store import MODEL_FILE, Cohort
from lungmix.store.records import key_of

STAGE = "fit"


def fit_cohort(cohort: Cohort, names: Sequence[str], parameters: FitParameters) -> tuple[TissueModel, str]:
    """Fit one mixture to the pooled lung voxels of cases, unless the store holds it.

    Parameters
    ----------
    cohort : Cohort
        Opened for writing.
    names : sequence of str
        Cases with a mask.
    parameters : FitParameters
        Components, starts, stopping rule.

    Returns
    -------
    model : TissueModel
        Components sorted by mean.
    status : {"done", "kept"}
        Whether it was fitted now.

    Raises
    ------
    ModelError
        If there is nothing to fit.
    """
    if not names:
        raise ModelError("no case has a lung mask, so there is nothing to fit: look at the failures above")
    masks = sorted((name, cohort[name].stages[mask.STAGE]["key"]) for name in names)
    key = key_of(stage=STAGE, version=1, masks=masks, parameters=parameters.to_dict())
    text = cohort.read_text(MODEL_FILE)
    if text is not None and cohort.settings.get("fit", {}).get("key") == key:
        return TissueModel.from_json(text), "kept"
    values = np.arange(FIRST_HU, FIRST_HU + N_HU)
    counts = clip_counts(pool_counts(cohort, names), parameters.clip)
    present = counts > 0
    model = fit_tissue_model(
        values[present],
        counts[present],
        n_components=parameters.n_components,
        n_init=parameters.n_init,
        tol=parameters.tol,
        reg_covar=parameters.reg_covar,
        max_iter=parameters.max_iter,
        random_state=parameters.random_state,
    )
    publish(cohort, model, {"key": key, "parameters": parameters.to_dict(), "cases": list(names)})
    return model, "done"


def publish(cohort: Cohort, model: TissueModel, record: dict[str, object]) -> None:
    """Make a model the one of the store."""
    cohort.write_text(MODEL_FILE, model.to_json())
    cohort.record_settings(fit=record)


def pool_counts(cohort: Cohort, names: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Sum of the counts per HU of cases: uint64, shape (65536,)."""
    total = np.zeros(N_HU, np.uint64)
    for name in names:
        total += cohort[name].hu_counts
    return total


def clip_counts(counts: npt.NDArray[np.uint64], lowest: int) -> npt.NDArray[np.uint64]:
    """Counts after ``hu = max(hu, lowest)``."""
    clipped = counts.copy()
    index = lowest - FIRST_HU
    clipped[index] += counts[:index].sum()
    clipped[:index] = 0
    return clipped
