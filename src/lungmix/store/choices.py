"""Parameters of the last run of a store: what is not chosen again stays, and what changes is named beforehand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from lungmix.errors import LungmixError, StoreError
from lungmix.mixture import TissueModel, load_model
from lungmix.parameters import FitParameters, MaskParameters
from lungmix.store.case import Case
from lungmix.store.chunking import check_slices, layout_of
from lungmix.store.cohort import Cohort, open_cohort
from lungmix.store.models import PUBLISHED_NAME, label_id, mask_of, stored_id, stored_model, text_of_mask

FIT = "fit"
MASK_SETTING = "mask"


@dataclass(frozen=True)
class Choices:
    """Parameters of a command, chosen now or as in the last run.

    Attributes
    ----------
    mask : MaskParameters
        Sizes of the mask.
    model : str or TissueModel
        ``fit``, or the mixture of the labels.
    fit : FitParameters
        How mixtures are fitted.
    kept : list of str
        What was not chosen now and is as in the last run, where that is not the default.
    changes : list of str
        A sentence for what will be recomputed although it is done.
    """

    mask: MaskParameters
    model: str | TissueModel
    fit: FitParameters
    kept: list[str]
    changes: list[str]


def choose(
    url: str,
    *,
    preset: str | None = None,
    threshold: int | None = None,
    opening: int | None = None,
    min_voxels: int | None = None,
    radii: Iterable[int] | None = None,
    model: str | None = None,
    components: int | None = None,
    fit: str | None = None,
    method: str | None = None,
    chunk_slices: int | None = None,
    stages: Iterable[str] = ("convert", "mask", "label"),
) -> Choices:
    """Complete the parameters of a command with those of the last run of its store.

    A preset that is named takes all its sizes along: sizes that are not given with it are the preset's.

    Parameters
    ----------
    url : str
        STORE; it may not be there yet.
    preset, threshold, opening, min_voxels, radii
        See `MaskParameters`; None where not chosen.
    model : str, optional
        ``fit``, ``published`` or a file.
    components, fit, method
        See `FitParameters`; None where not chosen.
    chunk_slices : int, optional
        See `lungmix.store.chunking.layout_of`.
    stages : iterable of str
        Stages that the command makes, to name what will change.
    """
    cohort = _opened(url)
    given: dict[str, Any] = {
        "threshold": threshold,
        "opening": opening,
        "min_voxels": min_voxels,
        "radii": tuple(radii or ()) or None,
    }
    own: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    last = None if cohort is None or preset is not None else last_mask(cohort)
    # Without a store, or with a preset, the sizes begin at those of the preset.
    mask = replace(last, **own) if last is not None else MaskParameters(preset or "paper", **own)
    chosen = _model(cohort, model)
    how = last_fit(cohort) if cohort is not None else FitParameters()
    changed: dict[str, Any] = {"n_components": components, "fit": fit, "method": method}
    fitted = replace(how, **{key: value for key, value in changed.items() if value is not None})
    kept = []
    if last is not None and last != MaskParameters() and not own:
        kept.append(f"masks {text_of_mask(mask.to_dict())}")
    if cohort is not None and model is None and chosen != FIT:
        kept.append(f"model {stored_id(cohort).name}")
    if cohort is not None and chosen == FIT and not any(changed.values()) and how != FitParameters():
        kept.append(f"fit {how.fit} of {how.n_components} components by {how.method}")
    check_slices(chunk_slices)
    changes = [] if cohort is None else _changes(cohort, mask, chosen, fitted, chunk_slices, set(stages))
    return Choices(mask, chosen, fitted, kept, changes)


def last_mask(cohort: Cohort) -> MaskParameters | None:
    """Return the sizes of the masks of the last run, or those that most masks have; None if there are none."""
    try:
        return MaskParameters(**cohort.settings[MASK_SETTING])
    except (KeyError, TypeError, LungmixError):
        found = Counter(one for one in map(mask_of, cohort.values()) if one is not None)
        return found.most_common(1)[0][0] if found else None


def last_fit(cohort: Cohort) -> FitParameters:
    """Return how the last mixture of a store was fitted; the defaults if none was."""
    for record in (FIT, "fits"):
        try:
            return FitParameters(**cohort.settings[record]["parameters"])
        except (KeyError, TypeError, LungmixError):
            continue
    return FitParameters()


def remember_mask(cohort: Cohort, parameters: MaskParameters) -> None:
    """Record the sizes of the masks of a run, unless they are recorded."""
    known = {key: list(value) if isinstance(value, tuple) else value for key, value in parameters.to_dict().items()}
    if cohort.settings.get(MASK_SETTING) != known:
        cohort.record_settings(**{MASK_SETTING: known})


def _opened(url: str) -> Cohort | None:
    try:
        return open_cohort(url)
    except StoreError:
        return None  # the command itself says why, or makes the store


def _model(cohort: Cohort | None, model: str | None) -> str | TissueModel:
    if model is not None:
        return FIT if model == FIT else load_model(model)
    if cohort is None or not cohort.settings.get(FIT, {}).get("given"):
        return FIT
    return stored_model(cohort)


def _changes(
    cohort: Cohort,
    mask: MaskParameters,
    model: str | TissueModel,
    fit: FitParameters,
    chunk_slices: int | None,
    stages: set[str],
) -> list[str]:
    cut: list[str] = []
    masks: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    # A fit with the parameters of the last one leaves only the labels that were made with it.
    target = model.digest if isinstance(model, TissueModel) else _kept_digest(cohort, fit)
    for case in cohort.values():
        if "convert" in stages and chunk_slices is not None and layout_of(case.geometry, chunk_slices) != case.layout:
            cut.append(case.name)
        known = mask_of(case)
        if "mask" in stages and known is not None and known != mask:
            masks[text_of_mask(known.to_dict())] += 1
        elif "label" in stages and (other := _other_labels(case, target)) is not None:
            labels[other] += 1
    found = []
    if cut:
        found.append(f"--chunk-slices {chunk_slices}: up to {_cases(len(cut))} will be converted again from SOURCE")
    if masks:
        now = text_of_mask(mask.to_dict())
        found.append(
            f"masks of {_cases(masks.total())} will be recomputed with {now} instead of {', '.join(masks)}, and so "
            "their labels and measurements"
        )
    if labels:
        now = f"a fit ({fit.fit})" if isinstance(model, str) else _name(model)
        found.append(
            f"labels of {_cases(labels.total())} will be recomputed with {now} instead of {', '.join(labels)}, and so "
            "their measurements"
        )
    return found


def _kept_digest(cohort: Cohort, fit: FitParameters) -> str | None:
    """Return the digest of the store's model if it is a fit with these parameters; None if it will be another."""
    record = cohort.settings.get(FIT, {})
    if record.get("given") or last_fit(cohort) != fit:
        return None
    try:
        return stored_id(cohort).digest
    except LungmixError:
        return None


def _other_labels(case: Case, digest: str | None) -> str | None:
    known = label_id(case)
    return None if known is None or known.digest == digest else known.name


def _name(model: TissueModel) -> str:
    return PUBLISHED_NAME if model.digest == load_model(PUBLISHED_NAME).digest else "the given model"


def _cases(count: int) -> str:
    return f"{count} case" if count == 1 else f"{count} cases"
