"""What a store may know of a scan besides its geometry: technical attributes by name, and nothing else."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from lungmix.privacy import header_allowlist

OLDEST = 90
"""Years. Who is older is few, so that an age would tell who: all of them count as this old (HIPAA, 45 CFR 164.514)."""

_SEXES = ("F", "M", "O")


@dataclass(frozen=True)
class Acquisition:
    """Technical attributes of a scan: the only ones that enter a store. Unknown ones are None.

    Whatever it is made from, it holds known words and plausible numbers alone: texts that are not in
    `lungmix.privacy.header_allowlist` and numbers out of range become None, ages over 89 become 90.

    Attributes
    ----------
    modality : str or None
        ``CT``.
    manufacturer, model, kernel : str or None
        As DICOM gives them where all their words are known.
    kvp : float or None
        Tube voltage, kV.
    slice_thickness : float or None
        Nominal, mm.
    exposure, tube_current, exposure_time : float or None
        mAs, mA, ms.
    pitch : float or None
        Of a spiral.
    ctdi_vol : float or None
        Dose index, mGy.
    sex : {"F", "M", "O"} or None
        Of the patient; kept only where it is asked for.
    age : int or None
        Of the patient, years; kept only where it is asked for.
    study_date : str or None
        ``YYYYMMDD``, shifted; kept only where it is asked for.
    """

    modality: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    kernel: str | None = None
    kvp: float | None = None
    slice_thickness: float | None = None
    exposure: float | None = None
    tube_current: float | None = None
    exposure_time: float | None = None
    pitch: float | None = None
    ctdi_vol: float | None = None
    sex: str | None = None
    age: int | None = None
    study_date: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _CLEAN[field.name](getattr(self, field.name)))

    def technical(self) -> Acquisition:
        """The same without sex, age and date."""
        return replace(self, sex=None, age=None, study_date=None)

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready dictionary without the unknown ones."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Acquisition:
        """Inverse of :meth:`to_dict`; unknown keys are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def _text(clean: Callable[[str | None], str | None]) -> Callable[[Any], str | None]:
    return lambda value: clean(value) if isinstance(value, str) else None


def _choice(*allowed: str) -> Callable[[Any], str | None]:
    return lambda value: value if isinstance(value, str) and value in allowed else None


def _number(low: float, high: float) -> Callable[[Any], float | None]:
    """Numbers within bounds; three digits after the point are more than any scanner sets."""

    def clean(value: Any) -> float | None:
        plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return round(float(value), 3) if plain and low <= value <= high else None

    return clean


def _age(value: Any) -> int | None:
    plain = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 150
    return min(value, OLDEST) if plain else None


def _date(value: Any) -> str | None:
    if not isinstance(value, str) or len(value) != 8 or not value.isdigit():
        return None
    try:
        datetime.date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return None
    return value


_CLEAN: dict[str, Callable[[Any], Any]] = {
    "modality": _choice("CT"),
    "manufacturer": _text(header_allowlist.maker),
    "model": _text(header_allowlist.model),
    "kernel": _text(header_allowlist.kernel),
    "kvp": _number(10, 500),
    "slice_thickness": _number(0, 1000),
    "exposure": _number(0, 100_000),
    "tube_current": _number(0, 10_000),
    "exposure_time": _number(0, 1_000_000),
    "pitch": _number(0, 100),
    "ctdi_vol": _number(0, 1000),
    "sex": _choice(*_SEXES),
    "age": _age,
    "study_date": _date,
}
