"""Which mixture made what: the model of a store, and the mixtures that the labels of its cases were made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lungmix.errors import LungmixError, StoreError
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.parameters import MaskParameters
from lungmix.store.case import Case
from lungmix.store.cohort import Cohort
from lungmix.store.digests import digest_of
from lungmix.store.schema import MODEL_FILE

PUBLISHED_NAME = "published"
GIVEN = "given"
"""Name of a model that came from a file."""

_MASK, _LABEL, _FIT = "mask", "label", "fit"


@dataclass(frozen=True)
class ModelId:
    """A mixture by name and digest.

    Attributes
    ----------
    name : str
        ``published``, ``paper`` and ``converged`` of fits, ``given`` of a file.
    digest : str
        See `TissueModel.digest`. Two fits of one name differ in it.
    """

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}:{self.digest}"


def stored_model(cohort: Cohort) -> TissueModel:
    """Return the model of a store: the mixture that the next labels are made with.

    Raises
    ------
    StoreError
        If there is none, or its file is not the one that was written. A store whose own metadata were lost knows no
        digest of the file; there it is believed.
    """
    text, record = cohort.read_text(MODEL_FILE), cohort.settings.get(_FIT, {})
    if text is None and not record:
        raise StoreError(f"{cohort.url} holds no model yet: run `lungmix fit {cohort.url}` first")
    if text is None or digest_of(text) != record.get("sha256", digest_of(text)):
        remedy = (
            f"give it again with `lungmix fit {cohort.url} --model FILE`, the file that was given or 'published'"
            if record.get("given")
            else f"run `lungmix fit {cohort.url}`"
        )
        fault = "is missing" if text is None else "is not the one that was written"
        raise StoreError(f"{cohort.url}: its {MODEL_FILE} {fault}: {remedy}")
    return TissueModel.from_json(text, MODEL_FILE)


def stored_id(cohort: Cohort, model: TissueModel | None = None) -> ModelId:
    """Return name and digest of the model of a store.

    Parameters
    ----------
    cohort : Cohort
        With a model.
    model : TissueModel, optional
        The same model, if it was read already.
    """
    model = model or stored_model(cohort)
    record = cohort.settings.get(_FIT, {})
    name = record.get("parameters", {}).get("fit")
    return ModelId(PUBLISHED_NAME if model.digest == PUBLISHED.digest else str(name or GIVEN), model.digest)


def label_model(case: Case) -> TissueModel | None:
    """Return the mixture that the labels of a case were made with; None without labels, or where no record says."""
    try:
        known = _record(case, _LABEL)["model"]
        weights, means, variances = (tuple(map(float, known[key])) for key in ("weights", "means", "variances"))
        return TissueModel(weights, means, variances)
    except (KeyError, TypeError, ValueError):
        return None


def label_id(case: Case) -> ModelId | None:
    """Return name and digest of the mixture of a case's labels; None without labels, or where no record says."""
    model = label_model(case)
    if model is None:
        return None
    name = PUBLISHED_NAME if model.digest == PUBLISHED.digest else _record(case, _LABEL).get("model_name", GIVEN)
    return ModelId(str(name), model.digest)


def mask_text(case: Case) -> str | None:
    """Return the preset of a case's mask and what differs from it, such as ``paper threshold=-300``; None if unknown.

    The text holds no comma, for tables.
    """
    known: Mapping[str, Any] | None = _record(case, _MASK).get("parameters")
    return None if known is None else text_of_mask(known)


def mask_of(case: Case) -> MaskParameters | None:
    """Return the sizes that the mask of a case was made with; None without a mask, or where no record says."""
    try:
        return MaskParameters(**_record(case, _MASK)["parameters"])
    except (KeyError, TypeError, LungmixError):
        return None


def text_of_mask(parameters: Mapping[str, Any]) -> str:
    """Return the name of a preset and the sizes that differ from it; see `mask_text`."""
    preset = str(parameters.get("preset", "paper"))
    usual = MaskParameters().to_dict()
    others = {key: value for key, value in parameters.items() if key != "preset" and value != usual.get(key)}
    words = [f"{key}={'+'.join(map(str, v)) if isinstance(v, list | tuple) else v}" for key, v in others.items()]
    return " ".join([preset, *words])


@dataclass(frozen=True)
class ModelUse:
    """Models and masks of a store, and where they disagree.

    Attributes
    ----------
    stored : ModelId or None
        The model of the store, which the next labels are made with.
    labels : dict of str to ModelId
        Mixture of the labels of each labelled case that says.
    masks : dict of str to str
        Preset of the mask of each masked case that says; see `mask_text`.
    """

    stored: ModelId | None
    labels: dict[str, ModelId] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)

    @property
    def stale(self) -> dict[str, ModelId]:
        """Cases whose labels were made with another mixture than that of the store."""
        if self.stored is None:
            return {}
        return {name: one for name, one in self.labels.items() if one.digest != self.stored.digest}

    def warnings(self, url: str) -> list[str]:
        """Return a sentence for each disagreement, with what to do.

        Parameters
        ----------
        url : str
            STORE of the commands that are named.
        """
        found = []
        if self.stale:
            others = _counted(map(str, self.stale.values()))
            found.append(
                f"{_cases(len(self.stale))} {_carry(len(self.stale))} labels by another model ({others}) than that of "
                f"the store ({self.stored}), and measurements of these labels: run `lungmix label {url}` "
                f"and `lungmix measure {url}`"
            )
        if len(set(self.masks.values())) > 1:
            found.append(
                f"masks were made with different sizes ({_counted(self.masks.values())}): volumes and tissues of these "
                f"cases are not comparable; run `lungmix mask {url} --preset NAME` for all"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return this as a JSON-ready dictionary."""
        return {
            "model": None if self.stored is None else str(self.stored),
            "labels": {name: str(one) for name, one in self.labels.items()},
            "masks": self.masks,
        }


def model_use(cohort: Cohort, cases: Mapping[str, Case] | None = None) -> ModelUse:
    """Return which models and presets made what in a store; a model that cannot be used counts as none.

    Parameters
    ----------
    cohort : Cohort
        The store.
    cases : mapping of str to Case, optional
        Its cases, if they were read already.
    """
    try:
        stored = stored_id(cohort)
    except (StoreError, ValueError):
        stored = None
    labels, masks = {}, {}
    for name, case in (cohort if cases is None else cases).items():
        label, mask = label_id(case), mask_text(case)
        if label is not None:
            labels[name] = label
        if mask is not None:
            masks[name] = mask
    return ModelUse(stored, labels, masks)


def _record(case: Case, stage: str) -> dict[str, Any]:
    """Record of a stage that is finished, or that was until it was found damaged."""
    record: dict[str, Any] = case.stages.get(stage) or case.damage.get(stage, {}).get("record", {})
    return record


def _counted(texts: Any) -> str:
    return ", ".join(f"{text}: {_cases(count)}" for text, count in Counter(texts).items())


def _cases(count: int) -> str:
    return f"{count} case" if count == 1 else f"{count} cases"


def _carry(count: int) -> str:
    return "carries" if count == 1 else "carry"
