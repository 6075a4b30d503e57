"""Fit: reads the counts of cases, writes both fits and the model; depends on the masks and the fit parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.errors import ModelError, StoreError, UsageError
from lungmix.kernels.histogram import FIRST_HU, N_HU
from lungmix.mixture import CONVERGED, PAPER, PUBLISHED, Fits, TissueModel, fit_converged, fit_paper
from lungmix.mixture.fits import clipped
from lungmix.parameters import FITS, FitParameters
from lungmix.stages import mask
from lungmix.stages.plausibility import findings_of
from lungmix.stages.voxels import lung_voxels
from lungmix.store import FIT_FILES, MODEL_FILE, Cohort
from lungmix.store.digests import cache_key, digest_of
from lungmix.tissue import TISSUES

STAGE = "fit"
HU = np.arange(FIRST_HU, FIRST_HU + N_HU)
"""HU of each entry of a case's counts."""

FEWEST_SCANS = 20
"""Scans of a fit that needs no warning: Figure 4 of the publication shows Gaussians of random groups that lie over each
other from 20 scans on, and not with 10."""

Counts = npt.NDArray[np.uint64]
Watch = Callable[[int, int], None]


def fit_cohort(
    cohort: Cohort,
    names: Sequence[str],
    parameters: FitParameters,
    client: Client | None = None,
    watch: Watch | None = None,
) -> tuple[Fits, str]:
    """Both fits of the pooled lung voxels of cases, unless the store holds them; one becomes the store's model.

    Parameters
    ----------
    cohort : Cohort
        Opened for writing.
    names : sequence of str
        Cases with a mask.
    parameters : FitParameters
        Components, starts, stopping rule, method, and which fit labels are made with.
    client : distributed.Client, optional
        Where EM passes over voxels; the method ``counts`` needs none.
    watch : callable, optional
        ``watch(done, total)`` while voxels are counted.

    Returns
    -------
    fits : Fits
        By name.
    status : {"done", "kept"}
        Whether they were fitted now.

    Raises
    ------
    ModelError
        If there is nothing to fit.
    """
    if not names:
        raise ModelError("no case has a lung mask, so there is nothing to fit: look at the failures above")
    masks = sorted((name, cohort[name].stages[mask.STAGE]["key"]) for name in names)
    key = cache_key(stage=STAGE, version=2, masks=masks, parameters=parameters.of_both())
    record = {"key": key, "parameters": parameters.to_dict(), "cases": list(names)}
    kept = stored_fits(cohort, key)
    fits = kept or _fit(cohort, names, parameters, client, watch)
    if kept is None:
        texts = {FIT_FILES[name]: fits[name].to_json() for name in FITS}
        for file, text in texts.items():
            cohort.write_text(file, text)
        cohort.record_settings(fits={**record, "sha256": {file: digest_of(text) for file, text in texts.items()}})
    publish(cohort, fits[parameters.fit], record)
    return fits, "done" if kept is None else "kept"


def fit_counts(counts: Counts, parameters: FitParameters) -> Fits:
    """Both fits of counts: uint64, shape (65536,)."""
    paper = fit_paper(HU, counts, clip=parameters.clip, **parameters.of_em())
    return Fits(paper, _converged(counts, paper, parameters))


def doubts_of(model: TissueModel, scans: int) -> list[str]:
    """Return why the classes of a fitted mixture may not be the tissues that they are called.

    Parameters
    ----------
    model : TissueModel
        The fit.
    scans : int
        How many scans were pooled.
    """
    found = []
    if scans < FEWEST_SCANS:
        found.append(
            f"fitted to {scans} scan{'' if scans == 1 else 's'}, fewer than {FEWEST_SCANS}: classes are called air to "
            "other by the rank of their means alone, and percentages depend on the few scans; --model published "
            "does not"
        )
    if model.n_components == len(TISSUES):
        for rank, (mean, tissue) in enumerate(zip(model.means, TISSUES, strict=True)):
            nearest = int(np.argmin(np.abs(np.asarray(PUBLISHED.means) - mean)))
            if nearest != rank:
                own, other = (f"{TISSUES[one].name.lower()} ({PUBLISHED.means[one]:.0f} HU)" for one in (rank, nearest))
                found.append(
                    f"the class called {tissue.name.lower()}, by rank alone, has its mean at {mean:.0f} HU, nearer "
                    f"to the published {other} than to the published {own}"
                )
    return found


def publish(cohort: Cohort, model: TissueModel, record: Mapping[str, object]) -> None:
    """Make a model the one of the store, unless it is."""
    text = model.to_json()
    whole = {**record, "sha256": digest_of(text)}
    if cohort.settings.get(STAGE) != whole or cohort.read_text(MODEL_FILE) != text:
        cohort.write_text(MODEL_FILE, text)
        cohort.record_settings(fit=whole)


def stored_fits(cohort: Cohort, key: str | None = None) -> Fits | None:
    """Both fits as they stand in the store, or None; with `key`, only those that were made from it.

    Files that are not those of their record, because a run was killed between the two or a disk lost bytes, are none.
    """
    record = cohort.settings.get("fits")
    if record is None or (key is not None and record.get("key") != key):
        return None
    texts = {name: cohort.read_text(FIT_FILES[name]) for name in FITS}
    if {FIT_FILES[name]: digest_of(text or "") for name, text in texts.items()} != record.get("sha256"):
        return None
    models = {name: TissueModel.from_json(text or "", FIT_FILES[name]) for name, text in texts.items()}
    return Fits(models[PAPER], models[CONVERGED])


def choose_cases(present: Sequence[str], cases: Sequence[str] = (), leave_out: Sequence[str] = ()) -> list[str]:
    """Names to fit.

    Parameters
    ----------
    present : sequence of str
        Cases with a mask.
    cases : sequence of str
        Only these, if any are given.
    leave_out : sequence of str
        Not these.

    Raises
    ------
    UsageError
        If a name is not among `present`, or nothing is left.
    """
    for name in (*cases, *leave_out):
        if name not in present:
            raise UsageError(f"there is no masked case {name!r} in the store: `lungmix info STORE` lists the cases")
    chosen = [name for name in present if (not cases or name in cases) and name not in leave_out]
    if present and not chosen:
        raise UsageError("every case is left out, so there is nothing to fit: name fewer in --leave-out")
    return chosen


class CountsOfCases(Mapping[str, Counts]):
    """Counts per HU of each case: uint64, shape (65536,), read when they are asked for; all would fill a memory."""

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
    """Counts of all cases that have a mask and whose HU may be pooled.

    Raises
    ------
    StoreError
        If there are none.
    """
    found = {
        name: case.hu_counts for name, case in cohort.items() if mask.STAGE in case.stages and not findings_of(case)
    }
    if not found:
        raise StoreError(f"{cohort.url} holds no case with a lung mask: run `lungmix mask {cohort.url}` first")
    return found


def add_counts(counts: Mapping[str, Counts]) -> Counts:
    """Sum of the counts of cases: uint64, shape (65536,)."""
    total = np.zeros(N_HU, np.uint64)
    for one in counts.values():
        total += one
    return total


def pool_counts(cohort: Cohort, names: Sequence[str]) -> Counts:
    """Sum of the counts per HU of cases of a store: uint64, shape (65536,)."""
    return add_counts(CountsOfCases(cohort, names))


def _fit(
    cohort: Cohort, names: Sequence[str], parameters: FitParameters, client: Client | None, watch: Watch | None
) -> Fits:
    counts = pool_counts(cohort, names)
    if parameters.method == "counts":
        return fit_counts(counts, parameters)
    if client is None:
        raise UsageError(f"the method {parameters.method} passes over voxels on a cluster: give a client")
    from lungmix.mixture.voxels import EmOptions, fit_batch, fit_minibatch, winning_start

    options = EmOptions(**parameters.of_em())
    start = winning_start(*clipped(HU, counts, parameters.clip), options)
    fit = fit_batch if parameters.method == "em" else fit_minibatch
    found = fit(lung_voxels(client, cohort, names, parameters.clip, watch), start, options)
    paper = replace(found, fit_info={**found.fit_info, "clip": parameters.clip})
    return Fits(paper, _converged(counts, paper, parameters))


def _converged(counts: Counts, paper: TissueModel, parameters: FitParameters) -> TissueModel:
    return fit_converged(HU, counts, [paper], clip=parameters.clip, reg_covar=parameters.reg_covar)
