"""Fit: reads the histograms of cases, writes the fits and the model; depends on the masks and the fit parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.errors import ModelError, StoreError, UsageError, count_of
from lungmix.kernels.histogram import FIRST_HU, N_HU
from lungmix.mixture import (
    ANCHORED,
    CONVERGED,
    PAPER,
    PUBLISHED,
    Fits,
    TissueModel,
    fit_anchored,
    fit_converged,
    fit_paper,
)
from lungmix.mixture.diagnosis import with_doubts
from lungmix.mixture.fits import clipped
from lungmix.parameters import FitParameters
from lungmix.stages import mask
from lungmix.stages.plausibility import findings_of
from lungmix.stages.pool import pooled_counts
from lungmix.stages.voxels import lung_voxels
from lungmix.store import FIT_FILES, MODEL_FILE, Case, Cohort, CohortWriter
from lungmix.store.digests import cache_key, digest_of
from lungmix.store.schema import FITS_RECORD

STAGE = "fit"
HU = np.arange(FIRST_HU, FIRST_HU + N_HU)
"""HU of each bin of a histogram."""

MIN_SCANS = 20
"""A fit without prior of fewer scans gets a warning.

In Figure 4 of the publication, Gaussians of random groups of scans coincide from 20 scans on, and differ with 10.
"""

Counts = npt.NDArray[np.uint64]
Progress = Callable[[int, int], None]


def fit_cohort(
    cohort: Cohort,
    names: Sequence[str],
    parameters: FitParameters,
    client: Client | None = None,
    progress: Progress | None = None,
    flagged: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Fits, str]:
    """Fit the pooled lung voxels of cases, unless the store holds these fits; make one of them the store's model.

    A store of an earlier version lacks the fit ``anchored`` and the record of failed checks; both are added.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    names : sequence of str
        Cases with a mask.
    parameters : FitParameters
        Settings of the fits, and the name of the fit that labels the voxels.
    client : distributed.Client, optional
        Client of the cluster that runs EM over voxels; the method ``counts`` needs none.
    progress : callable, optional
        Called as ``progress(done, total)`` while voxels are counted.
    flagged : mapping of str to sequence of str, optional
        Names of flags by case, for cases that were excluded because of them; they are written to the record.

    Returns
    -------
    fits : Fits
        Fits by name.
    status : {"done", "kept"}
        ``"kept"`` if the store held the fits already.

    Raises
    ------
    ModelError
        If there is nothing to fit.
    """
    if not names:
        raise ModelError("no case has a lung mask, so there is nothing to fit: see the failures above")
    masks = sorted((name, cohort[name].stages[mask.STAGE]["key"]) for name in names)
    key = cache_key(stage=STAGE, version=2, masks=masks, parameters=parameters.of_both())
    record: dict[str, object] = {"key": key, "parameters": parameters.to_dict(), "cases": list(names)}
    if flagged:
        record["flagged"] = {name: list(flags) for name, flags in flagged.items()}
    anchored_key = _anchored_key(key, parameters)
    stored = stored_fits(cohort, key)
    fits = stored or _fit(cohort, names, parameters, client, progress)
    is_new = stored is None
    if stored is not None and cohort.settings[FITS_RECORD].get(ANCHORED, {}).get("key") != anchored_key:
        histogram, pooled = _histograms(cohort, names, parameters)
        fits = _diagnosed(replace(stored, anchored=_anchored(pooled, stored, parameters)), histogram, pooled)
        is_new = True
    if is_new:
        texts = {FIT_FILES[name]: model.to_json() for name, model in fits.items()}
        writer = CohortWriter(cohort)
        for file, text in texts.items():
            writer.write_text(file, text)
        digests = {file: digest_of(text) for file, text in texts.items()}
        # The digest of this fit is recorded apart: earlier versions read the digests of the other two fits.
        anchored = {"key": anchored_key, "sha256": digests.pop(FIT_FILES[ANCHORED], None)}
        writer.record_settings(fits={**record, "sha256": digests, ANCHORED: anchored})
    publish(cohort, fits[parameters.fit], record)
    return fits, "done" if is_new else "kept"


def fit_counts(histogram: Counts, parameters: FitParameters, pooled: npt.NDArray[Any] | None = None) -> Fits:
    """Return the fits of a histogram, which is uint64 of shape (65536,), one bin per HU.

    Parameters
    ----------
    histogram : ndarray of uint64, shape (65536,)
        Voxels by HU.
    parameters : FitParameters
        Settings of the fits.
    pooled : ndarray, shape (65536,), optional
        Voxels of the fits ``converged`` and ``anchored``, where these are others: see `lungmix.stages.pool`.
    """
    paper = fit_paper(HU, histogram, clip=parameters.clip, **parameters.of_em())
    return _with_others(histogram if pooled is None else pooled, paper, parameters)


def prior_of(parameters: FitParameters) -> TissueModel:
    """Return the mixture at the centre of the prior of the fit ``anchored``."""
    return PUBLISHED if parameters.prior is None else TissueModel(*parameters.prior)


def doubts_of(scans: int, parameters: FitParameters) -> list[str]:
    """Return a sentence on why a fit of fewer than `MIN_SCANS` scans may be doubtful; no sentence for more scans.

    A prior keeps the meaning of the classes for any number of scans, so the fit ``anchored`` gets no sentence.

    Parameters
    ----------
    scans : int
        Number of pooled scans.
    parameters : FitParameters
        Settings of the fit; a prior of strength 0 is no prior.
    """
    has_prior = parameters.fit == ANCHORED and parameters.prior_strength > 0
    if scans >= MIN_SCANS or has_prior:
        return []
    return [
        f"fitted to {count_of(scans, 'scan')}, fewer than {MIN_SCANS}: classes are called air to other by the rank of "
        'their means alone, and percentages depend on the few scans; `model="published"` does not'
    ]


def publish(cohort: Cohort, model: TissueModel, record: Mapping[str, object]) -> None:
    """Write a model and its record as the model of the store, unless the store has both already."""
    text = model.to_json()
    settings = {**record, "sha256": digest_of(text)}
    if cohort.settings.get(STAGE) != settings or cohort.read_text(MODEL_FILE) != text:
        writer = CohortWriter(cohort)
        writer.write_text(MODEL_FILE, text)
        writer.record_settings(fit=settings)


def stored_fits(cohort: Cohort, key: str | None = None) -> Fits | None:
    """Return the fits of the store; None if there are none, or if they are recorded with another key than `key`.

    Files that do not match their digests in the record, as after a killed run or on a bad disk, count as missing.
    """
    record = cohort.settings.get(FITS_RECORD)
    if record is None or (key is not None and record.get("key") != key):
        return None
    digests = dict(record.get("sha256") or {})
    anchored = record.get(ANCHORED, {}).get("sha256")
    names = (PAPER, CONVERGED, *([ANCHORED] if anchored else []))
    if anchored:
        digests[FIT_FILES[ANCHORED]] = anchored
    texts = {name: cohort.read_text(FIT_FILES[name]) for name in names}
    if {FIT_FILES[name]: digest_of(text or "") for name, text in texts.items()} != digests:
        return None
    return Fits(**{name: TissueModel.from_json(text or "", FIT_FILES[name]) for name, text in texts.items()})


def choose_cases(present: Sequence[str], cases: Sequence[str] = (), exclude_cases: Sequence[str] = ()) -> list[str]:
    """Return the names of the cases to fit.

    Parameters
    ----------
    present : sequence of str
        Cases with a mask.
    cases : sequence of str
        Cases to fit; all of `present` if none are given.
    exclude_cases : sequence of str
        Cases to exclude.

    Raises
    ------
    UsageError
        If a name is not among `present`, or no case remains.
    """
    for name in (*cases, *exclude_cases):
        if name not in present:
            raise UsageError(f"there is no masked case {name!r} in the store: `Cohort.keys()` lists the cases")
    chosen = [name for name in present if (not cases or name in cases) and name not in exclude_cases]
    if present and not chosen:
        raise UsageError("every case is excluded, so there is nothing to fit: name fewer in `exclude_cases`")
    return chosen


class CountsOfCases(Mapping[str, Counts]):
    """Histograms by case, uint64 of shape (65536,), read on access because all of them may not fit into memory."""

    def __init__(self, cohort: Cohort, names: Sequence[str]):
        self._cohort = cohort
        self._names = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Counts:
        if name not in self._names:
            raise KeyError(name)
        return self._cohort[name].hu_counts

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def masked_counts(cohort: Cohort) -> dict[str, Counts]:
    """Return the histograms of all cases that have a mask and plausible HU.

    Raises
    ------
    StoreError
        If there is no such case.
    """
    return {name: case.hu_counts for name, case in masked_cases(cohort).items()}


def masked_cases(cohort: Cohort) -> dict[str, Case]:
    """Return all cases that have a mask and plausible HU.

    Raises
    ------
    StoreError
        If there is no such case.
    """
    cases = {name: case for name, case in cohort.items() if mask.STAGE in case.stages and not findings_of(case)}
    if not cases:
        raise StoreError(f"{cohort.url} holds no case with a lung mask: run `Pipeline.mask()` first")
    return cases


def add_counts(counts: Mapping[str, Counts]) -> Counts:
    """Return the sum of histograms, uint64 of shape (65536,)."""
    total = np.zeros(N_HU, np.uint64)
    for histogram in counts.values():
        total += histogram
    return total


def pool_counts(cohort: Cohort, names: Sequence[str]) -> Counts:
    """Return the sum of the histograms of cases of a store, uint64 of shape (65536,)."""
    return add_counts(CountsOfCases(cohort, names))


def _histograms(cohort: Cohort, names: Sequence[str], parameters: FitParameters) -> tuple[Counts, npt.NDArray[Any]]:
    """Return the histogram for the fit ``paper``, and that for the other fits, which is read only if it differs."""
    histogram = pool_counts(cohort, names)
    return histogram, histogram if parameters.pools_as_published else pooled_counts(cohort, names, parameters)


def _fit(
    cohort: Cohort, names: Sequence[str], parameters: FitParameters, client: Client | None, progress: Progress | None
) -> Fits:
    histogram, pooled = _histograms(cohort, names, parameters)
    if parameters.method == "counts":
        return _diagnosed(fit_counts(histogram, parameters, pooled), histogram, pooled)
    if client is None:
        raise UsageError(f"the method {parameters.method} passes over voxels on a cluster: give a client")
    from lungmix.mixture.distributed_fits import EmOptions, fit_batch, fit_minibatch, winning_start

    options = EmOptions(**parameters.of_em())
    start = winning_start(*clipped(HU, histogram, parameters.clip), options)
    fit = fit_batch if parameters.method == "em" else fit_minibatch
    result = fit(lung_voxels(client, cohort, names, parameters.clip, progress), start, options)
    paper = replace(result, fit_info={**result.fit_info, "clip": parameters.clip})
    return _diagnosed(_with_others(pooled, paper, parameters), histogram, pooled)


def _with_others(histogram: npt.NDArray[Any], paper: TissueModel, parameters: FitParameters) -> Fits:
    converged = fit_converged(HU, histogram, [paper], clip=parameters.clip, reg_covar=parameters.reg_covar)
    fits = Fits(paper, converged)
    return replace(fits, anchored=_anchored(histogram, fits, parameters))


def _anchored(histogram: npt.NDArray[Any], fits: Fits, parameters: FitParameters) -> TissueModel | None:
    if not parameters.has_anchored:
        return None
    return fit_anchored(
        HU,
        histogram,
        [fits.converged, fits.paper],
        prior=prior_of(parameters),
        strength=parameters.prior_strength,
        clip=parameters.clip,
        reg_covar=parameters.reg_covar,
    )


def _diagnosed(fits: Fits, histogram: Counts, pooled: npt.NDArray[Any]) -> Fits:
    """Return fits with the failed checks of each, which are stored with it.

    The fit ``paper`` is checked on `histogram`, the others on the voxels that they pooled.
    """
    checked = {name: with_doubts(model, histogram if name == PAPER else pooled) for name, model in fits.items()}
    return Fits(**checked)


def _anchored_key(key: str, parameters: FitParameters) -> str | None:
    if not parameters.has_anchored:
        return None
    prior = {"prior": prior_of(parameters).digest, "strength": float(parameters.prior_strength)}
    return cache_key(stage=ANCHORED, version=1, fits=key, **prior)
