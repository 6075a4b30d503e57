"""What is known of a scan before its voxels are read, and after."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Acquisition:
    """Technical attributes of a scan: the only ones that enter a store. Unknown ones are None.

    Attributes
    ----------
    modality, manufacturer, model, kernel : str or None
        As DICOM gives them.
    kvp : float or None
        Tube voltage, kV.
    slice_thickness : float or None
        Nominal, mm.
    """

    modality: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    kernel: str | None = None
    kvp: float | None = None
    slice_thickness: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready dictionary without the unknown ones."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Acquisition:
        """Inverse of :meth:`to_dict`; unknown keys are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})
