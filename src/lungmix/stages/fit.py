"""Fit: reads the histograms of cases, writes the fits and the model; depends on the masks and the fit parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
from lungmix.stages.pool import pool_cohort
from lungmix.stages.voxels import lung_voxels
from lungmix.store import FIT_FILES, MODEL_FILE, Case, Cohort, CohortWriter
from lungmix.store.digests import cache_key, digest_of
from lungmix.store.schema import FITS_RECORD
from lungmix.tissue import TISSUES

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
    histograms: CohortHistograms | None = None,
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
        Client of the cluster that runs EM over voxels, and that pools the histograms of a large cohort.
    progress : callable, optional
        Called as ``progress(done, total)`` while voxels are counted.
    flagged : mapping of str to sequence of str, optional
        Names of flags by case, for cases that were excluded because of them; they are written to the record.
    histograms : CohortHistograms, optional
        Pooled histograms of these cases, if the caller needs them too.

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
    key = _key_of(cohort, names, parameters)
    record: dict[str, object] = {"key": key, "parameters": parameters.to_dict(), "cases": list(names)}
    if flagged:
        record["flagged"] = {name: list(flags) for name, flags in flagged.items()}
    anchored_key = _anchored_key(key, parameters)
    stored = stored_fits(cohort, key)
    histograms = histograms or CohortHistograms(cohort, names, parameters, client)
    fits = stored or _fit(histograms, progress)
    is_new = stored is None
    if stored is not None and cohort.settings[FITS_RECORD].get(ANCHORED, {}).get("key") != anchored_key:
        anchored_fit = _anchored(histograms.pooled, stored, parameters)
        fits = _diagnosed(replace(stored, anchored=anchored_fit), histograms)
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


@dataclass(frozen=True)
class CohortHistograms:
    """Pooled histograms of cases, which are read when they are first needed.

    Attributes
    ----------
    cohort : Cohort
        The store.
    names : sequence of str
        Masked cases.
    parameters : FitParameters
        Settings of the fits.
    client : distributed.Client or None
        Client of the cluster that reads the histograms of a large cohort.
    progress : callable or None
        Called as ``progress(done, total)`` with the number of cases that were read.
    """

    cohort: Cohort
    names: Sequence[str]
    parameters: FitParameters
    client: Client | None = None
    progress: Progress | None = None

    @property
    def alike(self) -> Counts:
        """Sum of the histograms of the masks, uint64 of shape (65536,), which the fit ``paper`` sees."""
        return self._both[0]

    @property
    def pooled(self) -> npt.NDArray[Any]:
        """Histogram of shape (65536,) that the fits ``converged`` and ``anchored`` see; see `lungmix.stages.pool`."""
        return self._both[1]

    @cached_property
    def _both(self) -> tuple[Counts, npt.NDArray[Any]]:
        return pool_cohort(self.cohort, self.names, self.parameters, self.client, self.progress)


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
    if parameters.n_components == len(TISSUES):
        names = "classes are called air to other by the rank of their means alone"
    else:
        names = "components are numbered by the rank of their means, and may describe other tissues in other cohorts"
    return [
        f"fitted to {count_of(scans, 'scan')}, fewer than {MIN_SCANS}: {names}, and percentages depend on the few "
        'scans; `model="published"` does not'
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
    masked, included, excluded = set(present), set(cases), set(exclude_cases)
    for name in (*cases, *exclude_cases):
        if name not in masked:
            raise UsageError(f"there is no masked case {name!r} in the store: `Cohort.keys()` lists the cases")
    chosen = [name for name in present if (not cases or name in included) and name not in excluded]
    if present and not chosen:
        raise UsageError("every case is excluded, so there is nothing to fit: name fewer in `exclude_cases`")
    return chosen


class SparseCounts(Mapping[str, Counts]):
    """Histograms by case, uint64 of shape (65536,), of which only bins that are not empty are in memory.

    Parameters
    ----------
    counts : iterable of (str, ndarray)
        Names and histograms of cases.
    """

    def __init__(self, counts: Iterable[tuple[str, Counts]]):
        self._bins = {name: _compact(histogram) for name, histogram in counts}

    def __getitem__(self, name: str) -> Counts:
        counts = np.zeros(N_HU, np.uint64)
        index, count = self._bins[name]
        counts[index] = count
        return counts

    def __iter__(self) -> Iterator[str]:
        return iter(self._bins)

    def __len__(self) -> int:
        return len(self._bins)


def _compact(histogram: Counts) -> tuple[npt.NDArray[np.uint16], npt.NDArray[Any]]:
    """Return the bins of a histogram that are not empty, and their counts in the smallest type that holds them."""
    index = np.flatnonzero(histogram)
    counts = histogram[index]
    return index.astype(np.uint16), counts.astype(np.min_scalar_type(int(counts.max(initial=0))))


def masked_counts(cohort: Cohort) -> SparseCounts:
    """Return the histograms of all cases that have a mask and plausible HU.

    Raises
    ------
    StoreError
        If there is no such case.
    """
    return SparseCounts((name, case.hu_counts) for name, case in _masked(cohort))


def masked_cases(cohort: Cohort) -> dict[str, Case]:
    """Return all cases that have a mask and plausible HU.

    Raises
    ------
    StoreError
        If there is no such case.
    """
    return dict(_masked(cohort))


def fitted_cases(cohort: Cohort) -> tuple[dict[str, Case], FitParameters]:
    """Return the cases that the mixture of a store was fitted to, and the settings of this fit.

    Raises
    ------
    UsageError
        If the mixture was given, and not fitted to cases of the store.
    StoreError
        If these cases or their masks are not those that it was fitted to any more.
    """
    record = cohort.settings.get(STAGE, {})
    if "cases" not in record or "parameters" not in record:
        raise UsageError(
            f"the mixture of {cohort.url} was given, and not fitted to its scans, so it cannot be fitted without one "
            "of them: run `Pipeline.fit()` first, or leave `leave_one_patient_out` out"
        )
    parameters, present = FitParameters(**record["parameters"]), dict(cohort.items())
    names = [name for name in record["cases"] if name in present and mask.STAGE in present[name].stages]
    if names != record["cases"] or _key_of(present, names, parameters) != record.get("key"):
        raise StoreError(
            f"{cohort.url}: the scans or masks that the mixture was fitted to have changed since: run "
            "`Pipeline.run(sources)` first",
            path=cohort.url,
        )
    return {name: present[name] for name in names}, parameters


def _key_of(cohort: Mapping[str, Case], names: Sequence[str], parameters: FitParameters) -> str:
    masks = sorted((name, cohort[name].stages[mask.STAGE]["key"]) for name in names)
    return cache_key(stage=STAGE, version=2, masks=masks, parameters=parameters.of_both())


def _masked(cohort: Cohort) -> Iterator[tuple[str, Case]]:
    is_empty = True
    for name, case in cohort.items():
        if mask.STAGE in case.stages and not findings_of(case):
            is_empty = False
            yield name, case
    if is_empty:
        raise StoreError(f"{cohort.url} holds no case with a lung mask: run `Pipeline.mask()` first")


def add_counts(counts: Mapping[str, Counts]) -> Counts:
    """Return the sum of histograms by case, uint64 of shape (65536,)."""
    return add_histograms(counts.values())


def add_histograms(histograms: Iterable[Counts]) -> Counts:
    """Return the sum of histograms, uint64 of shape (65536,)."""
    total = np.zeros(N_HU, np.uint64)
    for histogram in histograms:
        total += histogram
    return total


def pool_counts(cohort: Cohort, names: Sequence[str], client: Client | None = None) -> Counts:
    """Return the sum of the histograms of cases of a store, uint64 of shape (65536,).

    Workers of `client` read a large cohort.
    """
    return pool_cohort(cohort, names, FitParameters(), client)[0]


def _fit(histograms: CohortHistograms, progress: Progress | None) -> Fits:
    parameters, client = histograms.parameters, histograms.client
    if parameters.method == "counts":
        return _diagnosed(fit_counts(histograms.alike, parameters, histograms.pooled), histograms)
    if client is None:
        raise UsageError(f"the method {parameters.method} passes over voxels on a cluster: give a client")
    from lungmix.mixture.distributed_fits import EmOptions, fit_batch, fit_minibatch, winning_start

    options = EmOptions(**parameters.of_em())
    start = winning_start(*clipped(HU, histograms.alike, parameters.clip), options)
    fit = fit_batch if parameters.method == "em" else fit_minibatch
    voxels = lung_voxels(client, histograms.cohort, histograms.names, parameters.clip, progress)
    result = fit(voxels, start, options)
    paper = replace(result, fit_info={**result.fit_info, "clip": parameters.clip})
    return _diagnosed(_with_others(histograms.pooled, paper, parameters), histograms)


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


def _diagnosed(fits: Fits, histograms: CohortHistograms) -> Fits:
    """Return fits with the failed checks of each, which are stored with it.

    The fit ``paper`` is checked on the voxels of all masks, the others on the voxels that they pooled.
    """
    checked = {
        name: with_doubts(model, histograms.alike if name == PAPER else histograms.pooled)
        for name, model in fits.items()
    }
    return Fits(**checked)


def _anchored_key(key: str, parameters: FitParameters) -> str | None:
    if not parameters.has_anchored:
        return None
    prior = {"prior": prior_of(parameters).digest, "strength": float(parameters.prior_strength)}
    return cache_key(stage=ANCHORED, version=1, fits=key, **prior)
