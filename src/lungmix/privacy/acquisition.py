"""Technical attributes of a scan: besides the geometry, the only header values that a store may contain."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from lungmix.privacy import header_allowlist

MAX_AGE = 90
"""Ages of 90 years and over are recorded as 90, because few patients are older (HIPAA, 45 CFR 164.514)."""

_SEXES = ("F", "M", "O")


@dataclass(frozen=True)
class Acquisition:
    """Technical attributes of a scan that a store may contain. Unknown attributes are None.

    Every instance contains only known words and plausible numbers. Words that are not in
    `lungmix.privacy.header_allowlist` are dropped, numbers out of range become None, and ages over 89 become 90.

    Attributes
    ----------
    modality : str or None
        Modality, ``CT``.
    manufacturer, model, kernel : str or None
        Values of DICOM, or their known words; see `lungmix.privacy.header_allowlist`.
    kvp : float or None
        Tube voltage, kV.
    slice_thickness : float or None
        Nominal slice thickness, mm.
    exposure, tube_current, exposure_time : float or None
        Exposure, mAs; tube current, mA; exposure time, ms.
    pitch : float or None
        Pitch of a spiral.
    ctdi_vol : float or None
        Volume CT dose index, mGy.
    sex : {"F", "M", "O"} or None
        Sex of the patient; kept only on request.
    age : int or None
        Age of the patient, years; kept only on request.
    study_date : str or None
        Shifted date of the study, ``YYYYMMDD``; kept only on request.
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

    @property
    def scanner(self) -> str:
        """Manufacturer and model; empty where both are unknown."""
        return " ".join(name for name in (self.manufacturer, self.model) if name)

    def technical(self) -> Acquisition:
        """Return these attributes without sex, age and date."""
        return replace(self, sex=None, age=None, study_date=None)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; attributes whose value is unknown are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Acquisition:
        """Return the attributes from a dictionary that :meth:`to_dict` returned; unknown keys are ignored."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})


def _text(clean: Callable[[str | None], str | None]) -> Callable[[Any], str | None]:
    return lambda value: clean(value) if isinstance(value, str) else None


def _choice(*allowed: str) -> Callable[[Any], str | None]:
    return lambda value: value if isinstance(value, str) and value in allowed else None


def _number(low: float, high: float) -> Callable[[Any], float | None]:
    """Return a function that rounds a number to three decimals; it returns None for a number out of range.

    Scanners set fewer decimals; more could hide other information.
    """

    def clean(value: Any) -> float | None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return round(float(value), 3) if is_number and low <= value <= high else None

    return clean


def _age(value: Any) -> int | None:
    is_valid = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 150
    return min(value, MAX_AGE) if is_valid else None


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
