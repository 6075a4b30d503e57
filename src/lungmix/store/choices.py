"""Parameters of a command: its options, completed by parameters of the last run of the store.

Messages say which parameters are taken from the last run, and which finished results will be recomputed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lungmix.errors import LungmixError, StoreError, UsageError, count_of
from lungmix.mixture import ANCHORED, TissueModel, load_model
from lungmix.parameters import (
    DEFAULT_FIT,
    DEFAULT_MASK,
    FITS,
    HARMONISERS,
    KERNEL,
    KERNEL_REFERENCE_HU,
    NO_HARMONISATION,
    NO_MASKS,
    NO_SMOOTHING,
    NO_ZONES,
    PUBLISHED_FIT,
    PUBLISHED_MASK,
    ZONINGS,
    FitParameters,
    HarmoniseParameters,
    MaskParameters,
    PottsParameters,
    check_smoothing,
    check_zones,
    text_of_mask,
)
from lungmix.quality_flags import QualityParameters
from lungmix.segmenters import check_mask_options
from lungmix.store.case import Case
from lungmix.store.chunking import check_slices, layout_of
from lungmix.store.cohort import Cohort, open_cohort
from lungmix.store.cohort_writer import CohortWriter
from lungmix.store.models import (
    GIVEN,
    PUBLISHED_NAME,
    ModelId,
    label_id,
    label_model,
    mask_of,
    mask_text,
    record_of,
    stored_id,
    stored_model,
)
from lungmix.store.schema import (
    CONVERT,
    FIT,
    FIT_OF_TISSUES,
    FIT_SETTING,
    FITS_RECORD,
    HARMONISE,
    HARMONISE_SETTING,
    LABEL,
    MASK,
    MASK_SETTING,
    QUALITY_SETTING,
    SMOOTH_SETTING,
    ZONES_SETTING,
)
from lungmix.tissue import TISSUES


@dataclass(frozen=True)
class Choices:
    """Parameters of a command, from its options or from the last run.

    Attributes
    ----------
    mask : MaskParameters
        Parameters of the mask.
    model : str or TissueModel
        ``fit``, or the mixture of the labels.
    fit : FitParameters
        Parameters of the fit.
    kept : list of str
        Descriptions of parameters taken from the last run that differ from the defaults.
    changes : list of str
        Messages about finished results that will be recomputed.
    masks : str or None
        Path or address of mask files; ``none`` computes masks; None keeps those that came from files.
    notes : list of str
        Sentences on parameters that follow from others.
    harmonise : str or None
        Methods of harmonisation, or ``none``; None for those of the last run.
    """

    mask: MaskParameters
    model: str | TissueModel
    fit: FitParameters
    kept: list[str]
    changes: list[str]
    masks: str | None = None
    notes: list[str] = field(default_factory=list)
    harmonise: str | None = None


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
    prior: str | None = None,
    prior_strength: float | None = None,
    method: str | None = None,
    exclude_flagged: bool | None = None,
    pool: str | None = None,
    weigh: str | None = None,
    chunk_slices: int | None = None,
    masks: str | None = None,
    mask_labels: str | None = None,
    mask_with: str | None = None,
    mask_weights: str | Path | None = None,
    mask_device: str | None = None,
    as_published: bool = False,
    smooth: str | None = None,
    beta: float | None = None,
    harmonise: str | None = None,
    kernel_reference: Sequence[float] | None = None,
    zones: str | None = None,
    stages: Iterable[str] = (CONVERT, MASK, LABEL),
) -> Choices:
    """Return the parameters of a command, completed with those of the last run of its store, or with the defaults.

    If a preset is given, missing parameters of the mask are those of the preset, not those of the last run. The fit
    ``anchored`` needs a prior with as many components as the mixture. A prior that is given without a number of
    components also gives that number. If another number of components is given without a prior, the prior of the last
    run is not used. If no fit is given either, the fit is then ``paper``; once five components are given again, it is
    the last fit that had five.

    Parameters
    ----------
    url : str
        Address of the store, which need not exist yet.
    preset, threshold, opening, min_voxels, radii
        See `MaskParameters`; None if not given.
    model : str, optional
        ``fit``, ``published`` or a file.
    components, fit, prior_strength, method, exclude_flagged, pool, weigh
        See `FitParameters`; None if not given.
    prior : str, optional
        ``published`` or a file.
    chunk_slices : int, optional
        See `lungmix.store.chunking.layout_of`.
    masks : str, optional
        Path or address of mask files; or ``none``, with which masks are computed, also in place of masks that came from
        files or a segmenter.
    mask_labels, mask_with, mask_weights, mask_device
        See `lungmix.segmenters.check_mask_options`; None if not given.
    as_published : bool
        Use the masks, the pool and the fit of the publication, whatever the last run had. No other parameter of masks
        or fits may be given then.
    smooth, beta
        See `remember_smoothing`.
    harmonise, kernel_reference
        See `harmonisation_of`.
    zones
        See `zones_of`.
    stages : iterable of str
        Stages that the command runs, for `Choices.changes`.

    Raises
    ------
    UsageError
        If a parameter cannot be used, so that the command ends before it creates a store.
    """
    if as_published:
        others = {
            "preset": preset, "threshold": threshold, "opening": opening, "min_voxels": min_voxels, "radii": radii,
            "model": model, "components": components, "fit": fit, "prior": prior, "prior_strength": prior_strength,
            "method": method, "exclude_flagged": exclude_flagged, "pool": pool, "weigh": weigh, "masks": masks,
            "mask_labels": mask_labels, "mask_with": mask_with, "harmonise": harmonise,
            "kernel_reference": kernel_reference,
        }  # fmt: skip
        excess = [name for name, value in others.items() if value is not None]
        if excess:
            raise UsageError(
                f"the method of the publication has its own parameters of masks and fits: leave `{excess[0]}` out"
            )
        preset, model, masks, harmonise = "paper", FIT, NO_MASKS, NO_HARMONISATION
    check_mask_options(masks, mask_labels, mask_with, mask_weights, mask_device)
    cohort = open_or_none(url)
    options: dict[str, Any] = {
        "threshold": threshold,
        "opening": opening,
        "min_voxels": min_voxels,
        "radii": tuple(radii or ()) or None,
    }
    given = {key: value for key, value in options.items() if value is not None}
    last = resolve_mask(cohort) if preset is None else MaskParameters(preset)
    mask = replace(last, **given)
    chosen_model = _choose_model(cohort, model)
    last_parameters = PUBLISHED_FIT if as_published else resolve_fit(cohort)
    fit_options: dict[str, Any] = {
        "n_components": components, "fit": fit, "method": method, "exclude_flagged": exclude_flagged,
        "prior": None if prior is None else _prior_named(prior), "prior_strength": prior_strength,
        "pool": pool, "weigh": weigh,
    }  # fmt: skip
    is_last_fit = chosen_model == FIT and all(value is None for value in fit_options.values())
    fit_parameters, notes = _complete_fit(cohort, last_parameters, fit_options)
    if chosen_model != FIT:
        notes = []
    kept = []
    if cohort is not None and preset is None and last != DEFAULT_MASK and not given:
        kept.append(f"masks {text_of_mask(mask.to_dict())}")
    if cohort is not None and model is None and chosen_model != FIT:
        kept.append(f"model {stored_id(cohort).name}")
    if cohort is not None and not as_published and is_last_fit and last_parameters != DEFAULT_FIT:
        components_text = count_of(last_parameters.n_components, "component")
        without = " without flagged cases" if last_parameters.exclude_flagged else ""
        if last_parameters.prior is not None or last_parameters.prior_strength != DEFAULT_FIT.prior_strength:
            name = PUBLISHED_NAME if last_parameters.prior is None else GIVEN
            without += f", prior {name} of strength {last_parameters.prior_strength:g}"
        if last_parameters.pool != DEFAULT_FIT.pool:
            without += f", {last_parameters.pool} pooled"
        if last_parameters.weigh != DEFAULT_FIT.weigh:
            without += f", {last_parameters.weigh} weighed alike"
        kept.append(f"fit {last_parameters.fit} of {components_text} by {last_parameters.method}{without}")
    last_smooth = smoothing_of(cohort, smooth, beta)
    if last_smooth is not None and smooth is None and beta is None and LABEL in stages:
        beta_text = "" if last_smooth.beta is None else f" of beta {last_smooth.beta:g}"
        kept.append(f"labels under a Potts prior{beta_text}")
    harmonised = harmonisation_of(cohort, harmonise, kernel_reference)
    if harmonised is not None and harmonise is None and kernel_reference is None and MASK in stages:
        kept.append(text_of_hu(harmonised))
    rule = zones_of(cohort, zones)
    if rule is not None and zones is None and LABEL in stages:
        kept.append(f"lung zones by {rule}")
    check_slices(chunk_slices)
    changes = (
        []
        if cohort is None
        else _changes(
            cohort, mask, chosen_model, fit_parameters, chunk_slices, masks, mask_with, set(stages), harmonised
        )
    )
    return Choices(mask, chosen_model, fit_parameters, kept, changes, masks, notes, harmonise)


def choose_fit(
    url: str, *, components: int, fit: str = "paper", prior: str | None = None, prior_strength: float | None = None
) -> FitParameters:
    """Return the parameters of the fits of a study; a prior that is not given is that of the last fit of the store.

    Parameters
    ----------
    url, components, fit, prior, prior_strength
        See `choose`.
    """
    cohort = open_or_none(url)
    last = resolve_fit(cohort)
    same = last.n_components == components
    return FitParameters(
        n_components=components,
        fit=fit,
        prior=_prior_named(prior) if prior is not None else last.prior if same else None,
        prior_strength=last.prior_strength if prior_strength is None else prior_strength,
    )


def choose_harmonisation(url: str, methods: str | None, reference: Sequence[float] | None = None) -> Choices:
    """Return the parameters of the command that writes harmonised images, see `choose`.

    Parameters
    ----------
    url
        See `choose`.
    methods, reference
        See `harmonisation_of`. Without methods of the last run, all methods are applied.
    """
    methods = methods_or_all(open_or_none(url), methods)
    return choose(url, harmonise=methods, kernel_reference=reference, stages=(MASK,))


def methods_or_all(cohort: Cohort | None, methods: str | None) -> str | None:
    """Return the given methods of harmonisation, or all methods for a store that remembers none."""
    is_new = cohort is None or last_harmonisation(cohort) is None
    return ",".join(HARMONISERS) if methods is None and is_new else methods


def last_mask(cohort: Cohort) -> MaskParameters | None:
    """Return the mask parameters of the last run, or else the most frequent ones among cases; None without masks."""
    try:
        return MaskParameters(**cohort.settings[MASK_SETTING])
    except (KeyError, TypeError, LungmixError):
        counter = Counter(parameters for parameters in map(mask_of, cohort.values()) if parameters is not None)
        return counter.most_common(1)[0][0] if counter else None


def resolve_mask(cohort: Cohort | None, given: MaskParameters | None = None) -> MaskParameters:
    """Return the mask parameters of a run: the given ones, those of the store, or else the default.

    A store of a version before `DEFAULT_MASK` that has cases, but no mask, keeps the preset of the publication.

    Parameters
    ----------
    cohort : Cohort or None
        The store; None if it does not exist yet.
    given : MaskParameters, optional
        Parameters that were given for the run.
    """
    if given is not None or cohort is None:
        return given or DEFAULT_MASK
    return last_mask(cohort) or (PUBLISHED_MASK if _is_earlier(cohort) else DEFAULT_MASK)


def resolve_fit(cohort: Cohort | None, given: FitParameters | None = None) -> FitParameters:
    """Return the fit parameters of a run: the given ones, those of the store (see `last_fit`), or else the default.

    Parameters
    ----------
    cohort : Cohort or None
        The store; None if it does not exist yet.
    given : FitParameters, optional
        Parameters that were given for the run.
    """
    if given is not None or cohort is None:
        return given or DEFAULT_FIT
    return last_fit(cohort)


def last_fit(cohort: Cohort) -> FitParameters:
    """Return the fit parameters of the last run or fit of a store; the default for a store without cases.

    If the store has lost its records, the fit is the most frequent one among the labels of its cases. A store of a
    version before `DEFAULT_FIT` that has cases, but no fit, keeps the fit of the publication.
    """
    try:
        return FitParameters(**cohort.settings[FIT_SETTING])
    except (KeyError, TypeError, LungmixError):
        recorded = _recorded_fit(cohort) or _fit_of_labels(cohort)
    return recorded or (PUBLISHED_FIT if _is_earlier(cohort) else DEFAULT_FIT)


def remember_fit(cohort: Cohort, parameters: FitParameters) -> None:
    """Record the fit parameters of a run, unless the store has them already.

    A store without any record of a fit gets one, which distinguishes it later from stores of earlier versions.
    """
    has_record = not cohort.settings.keys().isdisjoint((FIT_SETTING, FIT, FITS_RECORD))
    last = last_fit(cohort)
    if not has_record or parameters != last:
        is_left = last.n_components == len(TISSUES) != parameters.n_components
        before: dict[str, str | None] = {FIT_OF_TISSUES: last.fit} if is_left else {}
        if parameters.n_components == len(TISSUES):
            # The last fit is one with five components again.
            before = {FIT_OF_TISSUES: None}
        CohortWriter(cohort).record_settings(**{FIT_SETTING: parameters.to_dict()}, **before)


def _recorded_fit(cohort: Cohort) -> FitParameters | None:
    """Return the parameters of the mixtures that a store has; None if it has none, or only a given one."""
    for record in (FIT, FITS_RECORD):
        try:
            return FitParameters(**cohort.settings[record]["parameters"])
        except (KeyError, TypeError, LungmixError):
            continue
    return None


def _fit_of_labels(cohort: Cohort) -> FitParameters | None:
    """Return the most frequent fit by which cases are labelled; None if no labels are by a fit."""
    names: Counter[tuple[str, int]] = Counter()
    for case in cohort.values():
        model, model_id = label_model(case), label_id(case)
        if model is not None and model_id is not None and model_id.name in FITS:
            names[model_id.name, len(model.weights)] += 1
    for (name, components), _ in names.most_common(1):
        with suppress(LungmixError):
            return FitParameters(n_components=components, fit=name)
    return None


def _is_earlier(cohort: Cohort) -> bool:
    """Return True if a version before `DEFAULT_MASK` and `DEFAULT_FIT` created the cases of a store."""
    return FIT_SETTING not in cohort.settings and bool(len(cohort) or cohort.damaged)


def _complete_fit(cohort: Cohort | None, last: FitParameters, given: dict[str, Any]) -> tuple[FitParameters, list[str]]:
    """Return the fit parameters of a run, and notes on those that follow from others.

    Parameters
    ----------
    cohort : Cohort or None
        The store.
    last : FitParameters
        Parameters of the last run, or defaults.
    given : dict
        Given parameters by attribute of `FitParameters`; None for those that were not given.

    Raises
    ------
    UsageError
        If parameters do not agree.
    """
    values, notes = {key: value for key, value in given.items() if value is not None}, []
    if "n_components" not in values and "prior" in values:
        values["n_components"] = _size_of(values["prior"])
    components = values.get("n_components", last.n_components)
    if "prior" not in values and last.prior is not None and _size_of(last.prior) != components:
        values["prior"] = PUBLISHED_NAME
        notes.append(
            f"the mixture has {count_of(components, 'component')} and the prior of the last run "
            f"{_size_of(last.prior)}, so this prior is not used"
        )
    prior_size = _size_of(values.get("prior", last.prior))
    if "fit" not in values:
        name = last.fit
        if components == len(TISSUES) != last.n_components:
            name = _fit_of_tissues(cohort)
        if name == ANCHORED and components != prior_size and given["prior"] is None:
            name = PUBLISHED_FIT.fit
            notes.append(
                f"the mixture has {count_of(components, 'component')} and the published prior {len(TISSUES)}, so "
                f"labels are by the fit {name}, not by {last.fit}"
            )
        elif name != last.fit:
            notes.append(
                f"the mixture has {count_of(components, 'component')} again, not {last.n_components}, so labels are by "
                f"the fit {name}, not by {last.fit}"
            )
        values["fit"] = name
    elif values["fit"] == ANCHORED and components != prior_size and given["n_components"] is None:
        raise UsageError(
            f"the fit {ANCHORED} needs as many components as its prior, which has {prior_size}, but the last run on "
            f"this store had {components}: give `n_components={prior_size}`"
        )
    return replace(last, **values), notes


def _size_of(prior: Any) -> int:
    """Return the number of components of a prior: a mixture, its columns, or the published mixture."""
    if prior is None or isinstance(prior, str):
        return len(TISSUES)
    return prior.n_components if isinstance(prior, TissueModel) else len(prior[0])


def _fit_of_tissues(cohort: Cohort | None) -> str:
    """Return the fit that was the last one with as many components as tissues, or else the default."""
    name = None if cohort is None else cohort.settings.get(FIT_OF_TISSUES)
    return name if name in FITS else DEFAULT_FIT.fit


def remember_mask(cohort: Cohort, parameters: MaskParameters) -> None:
    """Record the mask parameters of a run, unless they are recorded already."""
    setting = {key: list(value) if isinstance(value, tuple) else value for key, value in parameters.to_dict().items()}
    if cohort.settings.get(MASK_SETTING) != setting:
        CohortWriter(cohort).record_settings(**{MASK_SETTING: setting})


def last_smoothing(cohort: Cohort) -> PottsParameters | None:
    """Return the parameters of labels under a Potts prior of the last run; None if it made no such labels."""
    try:
        setting = cohort.settings.get(SMOOTH_SETTING)
        return None if setting is None else PottsParameters(**setting)
    except (TypeError, LungmixError):
        return None


def remember_smoothing(cohort: Cohort, smooth: str | None, beta: float | None) -> PottsParameters | None:
    """Record whether labels under a Potts prior are made, if that is given, and return the parameters of the store.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    smooth, beta
        See `lungmix.Pipeline.run`.

    Raises
    ------
    UsageError
        If they are not possible.
    """
    parameters = smoothing_of(cohort, smooth, beta)
    if parameters != last_smoothing(cohort):
        setting = None if parameters is None else parameters.to_dict()
        CohortWriter(cohort).record_settings(**{SMOOTH_SETTING: setting})
    return parameters


def smoothing_of(cohort: Cohort | None, smooth: str | None, beta: float | None) -> PottsParameters | None:
    """Return the parameters of labels under a Potts prior: the given ones, or those of the last run on a store.

    Parameters and errors are those of `remember_smoothing`.
    """
    check_smoothing(smooth, beta)
    last = None if cohort is None else last_smoothing(cohort)
    if smooth is None and beta is None:
        return last
    if smooth is None and last is None:
        raise UsageError('a `beta` needs labels under a Potts prior: give `smooth="potts"` too')
    return None if smooth == NO_SMOOTHING else PottsParameters(beta)


def last_zones(cohort: Cohort) -> str | None:
    """Return the rule of the lung zones of the last run, such as ``volume``; None if it made none."""
    rule = cohort.settings.get(ZONES_SETTING)
    return rule if rule in ZONINGS and rule != NO_ZONES else None


def zones_of(cohort: Cohort | None, zones: str | None) -> str | None:
    """Return the rule of the lung zones: the given one, or that of the last run on a store; None for no zones.

    Parameters
    ----------
    cohort : Cohort or None
        The store; None if it does not exist yet.
    zones : str, optional
        See `lungmix.Pipeline.run`.

    Raises
    ------
    UsageError
        If there is no such rule.
    """
    check_zones(zones)
    if zones is None:
        return None if cohort is None else last_zones(cohort)
    return None if zones == NO_ZONES else zones


def last_harmonisation(cohort: Cohort) -> HarmoniseParameters | None:
    """Return the parameters of the harmonised images of the last run; None if it made none."""
    try:
        setting = cohort.settings.get(HARMONISE_SETTING)
        return None if setting is None else HarmoniseParameters(**setting)
    except (TypeError, LungmixError):
        return None


def harmonisation_of(
    cohort: Cohort | None, methods: str | None, reference: Sequence[float] | None = None
) -> HarmoniseParameters | None:
    """Return the parameters of harmonised images: the given ones, or those of the last run on a store.

    Parameters
    ----------
    cohort : Cohort or None
        The store; None if it does not exist yet.
    methods, reference
        See `harmonise` and `kernel_reference` of `lungmix.Pipeline.run`.

    Raises
    ------
    UsageError
        If they are not possible.
    """
    last = None if cohort is None else last_harmonisation(cohort)
    if methods is not None:
        return HarmoniseParameters.of(methods, reference)
    if reference is None:
        return last
    if last is None or KERNEL not in last.methods:
        raise UsageError('a `kernel_reference` needs harmonised images: give `harmonise="kernel"` too')
    return replace(last, reference=tuple(reference))


def text_of_hu(parameters: HarmoniseParameters | None) -> str:
    """Return what HU are, for messages: those of the scans, or the methods and the reference of harmonisation."""
    if parameters is None:
        return "HU of the scans"
    given = KERNEL in parameters.methods and parameters.reference != KERNEL_REFERENCE_HU
    reference = f" to {' and '.join(f'{sd:g}' for sd in parameters.reference)} HU" if given else ""
    return f"HU harmonised by {','.join(parameters.methods)}{reference}"


def harmonised_by(case: Case) -> HarmoniseParameters | None:
    """Return the parameters of the harmonised image of a case, even if it is corrupt; None if it has none."""
    try:
        return HarmoniseParameters(**record_of(case, HARMONISE)["parameters"])
    except (KeyError, TypeError, LungmixError):
        return None


def last_quality(cohort: Cohort) -> QualityParameters:
    """Return the thresholds of quality control of a store; the defaults if there are none."""
    try:
        return QualityParameters.from_dict(cohort.settings[QUALITY_SETTING]["thresholds"])
    except (KeyError, TypeError, ValueError, AttributeError, LungmixError):
        return QualityParameters()


def choose_quality(url: str, texts: Sequence[str] | None) -> QualityParameters | None:
    """Return the thresholds of quality control of a store after changes such as ``noise=60``; None without changes."""
    if not texts:
        return None
    cohort = open_or_none(url)
    return (QualityParameters() if cohort is None else last_quality(cohort)).updated(texts)


def remember_quality(cohort: Cohort, parameters: QualityParameters | None) -> None:
    """Record thresholds of quality control, unless they are recorded already; None records nothing."""
    if parameters is not None and parameters != last_quality(cohort):
        CohortWriter(cohort).record_settings(**{QUALITY_SETTING: {"thresholds": parameters.to_dict()}})


def open_or_none(url: str) -> Cohort | None:
    """Return a store opened for reading; None if it cannot be opened, as before it was created."""
    try:
        return open_cohort(url)
    except StoreError:
        return None  # the command itself raises the error, or creates the store


def _choose_model(cohort: Cohort | None, model: str | None) -> str | TissueModel:
    if model is not None:
        return FIT if model == FIT else load_model(model)
    if cohort is None or not cohort.settings.get(FIT, {}).get("given"):
        return FIT
    return stored_model(cohort)


def _prior_named(source: str) -> str | TissueModel:
    return source if source == PUBLISHED_NAME else load_model(source)


def _changes(
    cohort: Cohort,
    mask: MaskParameters,
    model: str | TissueModel,
    fit: FitParameters,
    chunk_slices: int | None,
    given_masks: str | None,
    mask_with: str | None,
    stages: set[str],
    harmonised: HarmoniseParameters | None,
) -> list[str]:
    converted: list[str] = []
    masks: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    digests: set[str] = set()
    replaced = segmented = 0
    other_hu: Counter[str] = Counter()
    # If the parameters of the fit are unchanged, labels computed with the last fit stay valid.
    target = model.digest if isinstance(model, TissueModel) else _unchanged_digest(cohort, fit)
    for case in cohort.values():
        if CONVERT in stages and chunk_slices is not None and layout_of(case.geometry, chunk_slices) != case.layout:
            converted.append(case.name)
        case_mask, text = mask_of(case), mask_text(case)
        if MASK in stages and text is not None and (of := harmonised_by(case)) != harmonised:
            other_hu[text_of_hu(of)] += 1
        elif MASK in stages and mask_with is not None:
            segmented += text not in (None, mask_with)
        elif MASK in stages and case_mask is None and text is not None and given_masks == NO_MASKS:
            masks[text] += 1
        elif MASK in stages and case_mask is not None and given_masks not in (None, NO_MASKS):
            replaced += 1
        elif MASK in stages and case_mask is not None and case_mask != mask:
            masks[text_of_mask(case_mask.to_dict())] += 1
        elif LABEL in stages and (other := _other_model(case, target)) is not None:
            labels[other.name] += 1
            digests.add(other.digest)
    messages = []
    if converted:
        messages.append(
            f"`chunk_slices={chunk_slices}`: up to {count_of(len(converted), 'case')} will be converted again, from "
            "their sources"
        )
    if masks:
        new_text = text_of_mask(mask.to_dict())
        messages.append(
            f"masks of {count_of(masks.total(), 'case')} will be recomputed with {new_text} instead of "
            f"{', '.join(masks)}, and so their labels and measurements"
        )
    if segmented:
        messages.append(
            f"masks of {count_of(segmented, 'case')} will be replaced by those of {mask_with}, and so their labels and "
            "measurements"
        )
    if replaced:
        messages.append(
            f"computed masks of {count_of(replaced, 'case')} will be replaced where there is a mask file, and so their "
            "labels and measurements"
        )
    if other_hu:
        messages.append(
            f"masks of {count_of(other_hu.total(), 'case')} will be recomputed from {text_of_hu(harmonised)} instead "
            f"of {', '.join(other_hu)}, and so their labels and measurements"
        )
    if isinstance(model, str) and labels.keys() == {fit.fit}:
        changed = _changed_settings(cohort, fit, digests)
        reason = f", because settings of the fit changed ({changed})" if changed else f" with a new fit ({fit.fit})"
        old_text = "" if changed else " instead of an earlier one"
        messages.append(
            f"labels of {count_of(labels.total(), 'case')} will be recomputed{reason}{old_text}, and so their "
            "measurements"
        )
    elif labels:
        new_text = f"a fit ({fit.fit})" if isinstance(model, str) else _name(model)
        messages.append(
            f"labels of {count_of(labels.total(), 'case')} will be recomputed with {new_text} instead of "
            f"{', '.join(labels)}, and so their measurements"
        )
    return messages


def _changed_settings(cohort: Cohort, fit: FitParameters, digests: set[str]) -> str:
    """Return the settings of a fit that differ from those of the model of the labels.

    Only the settings of the store's model are recorded. If the labels, whose models have these digests, are by others,
    the text is empty.
    """
    before = None if cohort.settings.get(FIT, {}).get("given") else _recorded_fit(cohort)
    try:
        if before is None or digests != {stored_id(cohort).digest}:
            return ""
    except LungmixError:
        return ""
    pairs = {
        "components": (fit.n_components, before.n_components),
        "prior strength": (fit.prior_strength, before.prior_strength),
        "pool": (fit.pool, before.pool),
        "weighed alike": (fit.weigh, before.weigh),
        "method": (fit.method, before.method),
    }
    texts = [f"{name} {new} instead of {old}" for name, (new, old) in pairs.items() if new != old]
    if fit.prior != before.prior:
        names = [PUBLISHED_NAME if prior is None else GIVEN for prior in (fit.prior, before.prior)]
        same = names[0] == names[1]
        texts.append(f"another {GIVEN} prior" if same else f"prior {names[0]} instead of {names[1]}")
    if fit.exclude_flagged != before.exclude_flagged:
        texts.append(f"{'without' if fit.exclude_flagged else 'with'} flagged cases")
    return ", ".join(texts)


def _unchanged_digest(cohort: Cohort, fit: FitParameters) -> str | None:
    """Return the digest of the store's model if it was fitted with these parameters; None otherwise."""
    record = cohort.settings.get(FIT, {})
    if record.get("given") or _recorded_fit(cohort) != fit:
        return None
    try:
        return stored_id(cohort).digest
    except LungmixError:
        return None


def _other_model(case: Case, digest: str | None) -> ModelId | None:
    """Return the model of the labels of a case if it has another digest than the given one."""
    model = label_id(case)
    return None if model is None or model.digest == digest else model


def _name(model: TissueModel) -> str:
    return PUBLISHED_NAME if model.digest == load_model(PUBLISHED_NAME).digest else "the given model"
