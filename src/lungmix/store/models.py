"""Model of a store, and the models and mask parameters with which its cases were computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lungmix.errors import LungmixError, StoreError, count_of
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.mixture.diagnosis import doubts_of
from lungmix.parameters import NO_HARMONISATION, MaskParameters, text_of_mask
from lungmix.store.digests import digest_of
from lungmix.store.schema import FIT, FROM_FILE, HARMONISE, LABEL, MASK, MODEL_FILE

if TYPE_CHECKING:
    from lungmix.store.case import Case
    from lungmix.store.cohort import Cohort

PUBLISHED_NAME = "published"
MODEL_DOUBTS = "model_doubts"
"""Key, in the record of labels, of the failed checks of their mixture."""

GIVEN = "given"
"""Name of a model or a mask that came from a file."""


@dataclass(frozen=True)
class ModelId:
    """Name and digest of a mixture.

    Attributes
    ----------
    name : str
        ``published``; the name of a fit, ``paper``, ``converged`` or ``anchored``; or ``given`` for a file.
    digest : str
        `TissueModel.digest`, which differs between two fits of the same name.
    """

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}:{self.digest}"


def record_of(case: Case, stage: str) -> dict[str, Any]:
    """Return the record of a finished or corrupt stage; an empty dictionary for other stages."""
    record: dict[str, Any] = case.stages.get(stage) or case.damage.get(stage, {}).get("record", {})
    return record


def stored_model(cohort: Cohort) -> TissueModel:
    """Return the model of a store, with which the next labels are computed.

    Raises
    ------
    StoreError
        If there is no model, or its file does not match its digest. In a store that has lost its metadata, there is no
        digest, and any file is accepted.
    """
    text, record = cohort.read_text(MODEL_FILE), cohort.settings.get(FIT, {})
    if text is None and not record:
        raise StoreError(f"{cohort.url} holds no model yet: run `Pipeline.fit()` first")
    if text is None or digest_of(text) != record.get("sha256", digest_of(text)):
        remedy = (
            "run `Pipeline.fit(model=FILE)` with the file that was given, or 'published'"
            if record.get("given")
            else "run `Pipeline.fit()`"
        )
        fault = "is missing" if text is None else "does not match its digest"
        raise StoreError(f"{cohort.url}: its {MODEL_FILE} {fault}: {remedy}")
    return TissueModel.from_json(text, MODEL_FILE)


def stored_id(cohort: Cohort, model: TissueModel | None = None) -> ModelId:
    """Return the name and the digest of the model of a store.

    Parameters
    ----------
    cohort : Cohort
        Cohort with a model.
    model : TissueModel, optional
        The model, if it was read already.
    """
    model = model or stored_model(cohort)
    record = cohort.settings.get(FIT, {})
    name = record.get("parameters", {}).get("fit")
    return ModelId(PUBLISHED_NAME if model.digest == PUBLISHED.digest else str(name or GIVEN), model.digest)


def label_model(case: Case) -> TissueModel | None:
    """Return the mixture with which a case was labelled; None without labels, or if it is not recorded."""
    try:
        model = record_of(case, LABEL)["model"]
        weights, means, variances = (tuple(map(float, model[key])) for key in ("weights", "means", "variances"))
        return TissueModel(weights, means, variances)
    except (KeyError, TypeError, ValueError):
        return None


def label_id(case: Case) -> ModelId | None:
    """Return name and digest of the mixture with which a case was labelled; None if there is none, or none recorded."""
    model = label_model(case)
    if model is None:
        return None
    name = PUBLISHED_NAME if model.digest == PUBLISHED.digest else record_of(case, LABEL).get("model_name", GIVEN)
    return ModelId(str(name), model.digest)


def label_doubts(case: Case) -> list[str]:
    """Return the failed checks of the mixture with which a case was labelled; none without labels.

    Labels of earlier versions have no record of these checks. For them, only the parameters of the mixture are checked.
    """
    recorded = record_of(case, LABEL).get(MODEL_DOUBTS)
    if recorded is not None:
        return list(map(str, recorded))
    model = label_model(case)
    return [] if model is None else doubts_of(model, is_fit=False)


def mask_text(case: Case) -> str | None:
    """Return a text for the mask of a case, such as ``paper threshold=-300``; None if it is not recorded.

    The text is the preset with other parameters for a computed mask, ``given`` for a mask from a file, and the name of
    the segmenter for a mask by a segmenter. It contains no comma, so that it fits into CSV cells.
    """
    record = record_of(case, MASK)
    if FROM_FILE in record:
        return str(record[FROM_FILE].get("segmenter", GIVEN))
    parameters: Mapping[str, Any] | None = record.get("parameters")
    return None if parameters is None else text_of_mask(parameters)


def sides_text(case: Case) -> str | None:
    """Return the parameters by which right and left lung were computed, for a mask from a file without these regions.

    None for other masks.
    """
    record = record_of(case, MASK)
    if FROM_FILE not in record or record[FROM_FILE].get("regions"):
        return None
    return text_of_mask(record.get("parameters", {}))


def harmonised_text(case: Case) -> str | None:
    """Return the methods of harmonisation that were applied to a case, separated by commas, or ``none``.

    None for a case without a harmonised image.
    """
    record = record_of(case, HARMONISE)
    methods = record.get("parameters", {}).get("methods")
    if methods is None:
        return None
    return ",".join(name for name in methods if name not in record.get("not_applied", {})) or NO_HARMONISATION


def mask_of(case: Case) -> MaskParameters | None:
    """Return the parameters of the computed mask of a case; None for other masks, or if they are not recorded."""
    record = record_of(case, MASK)
    try:
        return None if FROM_FILE in record else MaskParameters(**record["parameters"])
    except (KeyError, TypeError, LungmixError):
        return None


@dataclass(frozen=True)
class ModelUse:
    """Models and masks in a store, and their inconsistencies.

    Attributes
    ----------
    stored : ModelId or None
        Model of the store, with which the next labels are computed.
    labels : dict of str to ModelId
        Mixture of the labels of each case, as far as it is recorded.
    masks : dict of str to str
        Preset of the mask of each case, as far as it is recorded; see `mask_text`.
    harmonised : dict of str to str
        Methods of harmonisation of each case that has a harmonised image, see `harmonised_text`.
    """

    stored: ModelId | None
    labels: dict[str, ModelId] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    harmonised: dict[str, str] = field(default_factory=dict)

    @property
    def stale(self) -> dict[str, ModelId]:
        """Mixture of each case whose labels were computed with another mixture than the present one of the store."""
        if self.stored is None:
            return {}
        return {name: model for name, model in self.labels.items() if model.digest != self.stored.digest}

    def warnings(self) -> list[str]:
        """Return a message for each inconsistency, with the remedy."""
        messages = []
        if self.stale:
            others = _counted(map(str, self.stale.values()))
            carry = "carries" if len(self.stale) == 1 else "carry"
            messages.append(
                f"{count_of(len(self.stale), 'case')} {carry} labels by another model ({others}) than "
                f"that of the store ({self.stored}), and measurements of these labels: run `Pipeline.label()` "
                "and `Pipeline.measure()`"
            )
        if len(set(self.masks.values())) > 1:
            messages.append(
                f"masks were computed with different parameters ({_counted(self.masks.values())}): volumes and "
                f"tissues of these cases are not comparable; run `Pipeline.mask(MaskParameters(preset=NAME))` for all"
            )
        return messages

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return {
            "model": None if self.stored is None else str(self.stored),
            "labels": {name: str(model) for name, model in self.labels.items()},
            "masks": self.masks,
        }


def model_use(cohort: Cohort, cases: Mapping[str, Case] | None = None) -> ModelUse:
    """Return the models and presets with which the cases of a store were computed.

    If the model of the store cannot be read, `ModelUse.stored` is None.

    Parameters
    ----------
    cohort : Cohort
        The store.
    cases : mapping of str to Case, optional
        Cases of the store, if they were read already.
    """
    try:
        stored = stored_id(cohort)
    except (StoreError, ValueError):
        stored = None
    labels, masks, harmonised = {}, {}, {}
    for name, case in (cohort if cases is None else cases).items():
        label, mask = label_id(case), mask_text(case)
        if label is not None:
            labels[name] = label
        if mask is not None:
            masks[name] = mask
        if (methods := harmonised_text(case)) is not None:
            harmonised[name] = methods
    return ModelUse(stored, labels, masks, harmonised)


def _counted(texts: Any) -> str:
    return ", ".join(f"{text}: {count_of(count, 'case')}" for text, count in Counter(texts).items())
