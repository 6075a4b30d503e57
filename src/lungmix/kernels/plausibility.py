"""Plausibility of HU, checked on the histogram of a scan before its values are used.

`LIMITS` holds every threshold with its reason; thresholds of flags are the defaults of `lungmix.quality_flags`. A
finding either rejects a scan, because its values are not HU of a chest, or flags it: a flagged scan is measured, but
not pooled with others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lungmix.kernels.histogram import FIRST_HU, N_HU
from lungmix.kernels.jit import kernel
from lungmix.quality_flags import FLAGS

Counts = npt.NDArray[np.uint64]

_PERCENT = 100


@dataclass(frozen=True)
class Limit:
    """A threshold and the reason for its value."""

    value: float
    reason: str


def _limit_of(flag_name: str, scale: float = 1.0, offset: float = 0.0) -> Limit:
    """Return the threshold of a flag of quality control, in the unit of this module."""
    flag = next(flag for flag in FLAGS if flag.name == flag_name)
    return Limit(flag.threshold / scale + offset, flag.reason)


LIMITS = {
    "air_from": Limit(-1150, "air is at -1000 HU; noise and sharp kernels spread it, mostly to no less than -1150"),
    "air_to": Limit(-600, "normally aerated lung is below -600 HU, at full expiration and in infants too"),
    "soft_from": Limit(-250, "fat is near -100 HU, with noise above -250"),
    "soft_to": Limit(250, "muscle, blood and organs are at 30 to 80 HU, with contrast and noise below 250"),
    "no_air": Limit(0.0001, "an opened trachea alone is more than one voxel in 10,000 of a chest"),
    "little_air": _limit_of("little_air", _PERCENT),
    "no_soft": Limit(0.002, "the vessels of lungs whose surroundings were blanked are more"),
    "soft_in_place": Limit(0.05, "of a chest that is shifted down only dense bone comes to lie at 0 HU"),
    "too_low": Limit(-1250, "noise takes no more than few voxels of air this far down; padding is one value"),
    "many_too_low": Limit(0.05, "resampling blends padding with air along the rim of the field of view, 1 to 2 %"),
    "pile": Limit(0.005, "a value at the end of the range that holds this share of the voxels may be a clip"),
    "pile_high": _limit_of("hu_clipped", _PERCENT),
    "pile_ratio": Limit(10, "at a clip the last value holds many times the voxels of its neighbours"),
    "clip_low": Limit(-900, "clipped above this, healthy lung near -850 HU and emphysema are one value"),
    "clip_low_harmless": Limit(-1000, "the method clips there itself"),
    "clip_high": Limit(50, "clipped below this, soft tissue itself is one value"),
    "clip_high_harmless": Limit(1000, "dense bone and metal only; 12-bit images end at 3071"),
    "few_values": _limit_of("few_values", offset=-1),
    "gaps": _limit_of("hu_steps", _PERCENT),
}
"""Thresholds by name: HU, shares of all voxels, or counts."""

SHIFTS = (1024, -1024)
"""Offsets in HU if the usual rescale intercept is not applied, or applied twice; they also detect that of -1000."""

_NEAR = 20
_WINDOW = 16
_DENSE = 50
_FEWEST_WINDOWS = 4


class SummaryError(ValueError):
    """A stored summary is not one of this version; the message is a predicate."""


@dataclass(frozen=True)
class HuSummary:
    """Summary of the histogram of a scan, small enough to be stored with it.

    A field that is added later needs a default, with which summaries in existing stores are read.

    Attributes
    ----------
    voxels, distinct : int
        Number of voxels, and of distinct values.
    minimum, maximum : int
        Ends of the range, HU.
    at_minimum, at_maximum : float
        Shares of the voxels at the ends.
    clipped_low, clipped_high : bool
        True where an end looks clipped: its voxels are many times those of neighbouring values.
    aerated, soft : float
        Shares of the voxels in the ranges of air and lung and of soft tissue.
    too_low : float
        Share of the voxels below every tissue, without padding.
    gaps : float
        Share of missing values in densely populated parts of the histogram; 0 where there are none.
    shift : int
        HU to add to the ranges of air and soft tissue so that both are populated; 0 where no shift is needed, or none
        helps.
    """

    voxels: int
    distinct: int
    minimum: int
    maximum: int
    at_minimum: float
    at_maximum: float
    clipped_low: bool
    clipped_high: bool
    aerated: float
    soft: float
    too_low: float
    gaps: float
    shift: int

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HuSummary:
        """Return the summary of a dictionary, the inverse of `to_dict`.

        A field that is missing takes its default, where it has one, as in a dictionary of an earlier version.

        Raises
        ------
        SummaryError
            If fields without default are missing or hold no number, or if some are unknown.
        """
        by_name = {field.name: field for field in fields(cls)}
        required = [name for name, field in by_name.items() if field.default is MISSING]
        if missing := [name for name in required if name not in values]:
            raise SummaryError(f"lacks {', '.join(missing)}")
        if any(name not in by_name for name in values):
            raise SummaryError("has fields that this version of lungmix does not know")
        if wrong := [name for name, value in values.items() if not isinstance(value, int | float)]:
            raise SummaryError(f"has no number as {', '.join(wrong)}")
        return cls(**values)


@dataclass(frozen=True)
class Finding:
    """Problem with the HU of a scan.

    Attributes
    ----------
    code : str
        Identifier for programs.
    severity : {"rejected", "flagged"}
        Not HU of a chest, or usable but doubtful.
    reason : str
        Evidence, with numbers.
    """

    code: str
    severity: Literal["rejected", "flagged"]
    reason: str


def add_all(hu: npt.NDArray[np.int16], counts: Counts) -> None:
    """Add the voxels of a slab to a histogram in place; entry ``i`` counts ``i - 32768`` HU."""
    _add_all(np.ascontiguousarray(hu).reshape(-1), counts)


def summarize(counts: Counts) -> HuSummary:
    """Summarize a histogram.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Histogram of a scan with at least one voxel, from -32768 HU on.

    Returns
    -------
    HuSummary
        Summary of the scan.
    """
    present = np.flatnonzero(counts)
    first, last = int(present[0]), int(present[-1])
    total = int(counts.sum())
    kept = counts.copy()
    kept[_spikes(counts, total)] = 0
    return HuSummary(
        voxels=total,
        distinct=len(present),
        minimum=first + FIRST_HU,
        maximum=last + FIRST_HU,
        at_minimum=int(counts[first]) / total,
        at_maximum=int(counts[last]) / total,
        clipped_low=_is_clip(int(counts[first]), counts[first + 1 : first + 1 + _NEAR], total, "pile"),
        clipped_high=_is_clip(int(counts[last]), counts[max(last - _NEAR, 0) : last], total, "pile_high"),
        aerated=_share(counts, "air", 0, total),
        soft=_share(counts, "soft", 0, total),
        too_low=int(kept[: _index("too_low")].sum()) / total,
        gaps=_gaps(counts),
        shift=_shift(counts, total),
    )


def judge(summary: HuSummary) -> list[Finding]:
    """Return the findings on a scan: one that rejects it, or flags; empty for plausible CT.

    Parameters
    ----------
    summary : HuSummary
        Summary of the scan.
    """
    rejection = _rejection(summary)
    if rejection is not None:
        return [rejection]
    return [*_flags(summary)]


def _rejection(hu: HuSummary) -> Finding | None:
    if hu.distinct == 1:
        return _rejected("constant", f"every voxel is {hu.minimum:,} HU, so there is no lung in it")
    extremes = f"values from {hu.minimum:,} to {hu.maximum:,}"
    shifted = f"all values are about {abs(hu.shift):,} too {'high' if hu.shift > 0 else 'low'} ({extremes})"
    if hu.aerated < LIMITS["no_air"].value:
        nothing = f"{_none(hu.aerated)} between {_hu('air_from')} and {_hu('air_to')} HU, where air and lungs are"
        if hu.distinct <= LIMITS["few_values"].value and hu.minimum >= 0:
            return _rejected("labels", f"{hu.distinct} {extremes}, {nothing}: a label map, not CT")
        if hu.shift > 0:
            return _rejected("shifted", f"{nothing}; {shifted}: the rescale intercept was not applied")
        if hu.minimum >= 0 and hu.maximum <= 255:
            return _rejected("eight-bit", f"{extremes}, {nothing}: an 8-bit picture, not CT in HU")
        if hu.clipped_low:
            return _rejected("clipped", f"{nothing}; {_clip(hu)}")
        return _rejected("no-air", f"{extremes}, {nothing}")
    if hu.too_low > LIMITS["many_too_low"].value:
        low = f"{_percent(hu.too_low)} of all voxels are below {_hu('too_low')} HU, where nothing is, padding aside"
        if hu.shift < 0 and hu.soft < LIMITS["soft_in_place"].value:
            return _rejected("shifted", f"{low}; {shifted}: the rescale intercept was applied twice")
        return _rejected("rescaled", f"{low} ({extremes}): rescaled twice, or not in HU")
    if hu.soft < LIMITS["no_soft"].value:
        nothing = f"{_none(hu.soft)} between {_hu('soft_from')} and {_hu('soft_to')} HU, where soft tissue is"
        if hu.shift < 0:
            return _rejected("shifted", f"{nothing}; {shifted}: the rescale intercept was applied twice")
        return _rejected("no-soft-tissue", f"{extremes}, {nothing}")
    cut_low = hu.clipped_low and hu.minimum > LIMITS["clip_low"].value
    cut_high = hu.clipped_high and hu.maximum < LIMITS["clip_high"].value
    return _rejected("clipped", _clip(hu)) if cut_low or cut_high else None


def _flags(hu: HuSummary) -> list[Finding]:
    flags = []
    low = hu.clipped_low and hu.minimum > LIMITS["clip_low_harmless"].value
    high = hu.clipped_high and hu.maximum < LIMITS["clip_high_harmless"].value
    if low or high:
        flags.append(_flagged("clipped", _clip(hu)))
    if hu.aerated < LIMITS["little_air"].value:
        share = f"{_percent(hu.aerated)} of all voxels are between {_hu('air_from')} and {_hu('air_to')} HU"
        flags.append(_flagged("little-air", f"only {share}, where air and lungs are"))
    if hu.distinct <= LIMITS["few_values"].value:
        flags.append(_flagged("few-values", f"it holds only {hu.distinct} different values"))
    elif hu.gaps > LIMITS["gaps"].value:
        missing = f"{_percent(hu.gaps)} of the values do not occur where voxels are many"
        flags.append(_flagged("steps", f"HU come in steps of about {1 / (1 - hu.gaps):.2g}: {missing}"))
    return flags


def _clip(hu: HuSummary) -> str:
    ends = []
    if hu.clipped_low and hu.minimum > LIMITS["clip_low_harmless"].value:
        ends.append(f"{_percent(hu.at_minimum)} of all voxels are exactly {hu.minimum:,} HU, and none is lower")
    if hu.clipped_high and hu.maximum < LIMITS["clip_high_harmless"].value:
        ends.append(f"{_percent(hu.at_maximum)} of all voxels are exactly {hu.maximum:,} HU, and none is higher")
    return f"clipped to a window: {'; '.join(ends)}"


def _rejected(code: str, reason: str) -> Finding:
    return Finding(code, "rejected", reason)


def _flagged(code: str, reason: str) -> Finding:
    return Finding(code, "flagged", reason)


def _none(share: float) -> str:
    return "no voxel lies" if not share else f"only {_percent(share)} of all voxels lie"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _hu(name: str) -> str:
    return f"{LIMITS[name].value:,.0f}"


def _index(name: str, shift: int = 0) -> int:
    return max(int(LIMITS[name].value) + shift - FIRST_HU, 0)


def _share(counts: Counts, what: str, shift: int, total: int) -> float:
    return int(counts[_index(f"{what}_from", shift) : _index(f"{what}_to", shift) + 1].sum()) / total


def _shift(counts: Counts, total: int) -> int:
    """Return the error of the intercept that explains the histogram; 0 if none does or none is needed."""

    def fit_of(shift: int) -> float:
        return min(_share(counts, "air", shift, total), _share(counts, "soft", shift, total))

    fits = {shift: fit_of(shift) for shift in SHIFTS}
    best = max(fits, key=lambda shift: fits[shift])
    return best if fits[best] >= LIMITS["little_air"].value else 0


def _spikes(counts: Counts, total: int) -> npt.NDArray[np.int64]:
    """Return the indices of padding: single values below every tissue that exceed their neighbours."""
    low = counts[: _index("too_low")]
    spikes = [
        index
        for index in np.flatnonzero(low >= LIMITS["pile"].value * total)
        if int(low[index])
        >= LIMITS["pile_ratio"].value
        * float((counts[max(index - _NEAR, 0) : index + _NEAR + 1].sum() - low[index]) / (2 * _NEAR))
    ]
    return np.asarray(spikes, np.int64)


def _is_clip(at_end: int, neighbours: Counts, total: int, share: str) -> bool:
    """Return True if the voxels at an end of the range are clipped; drawings have too few neighbouring values."""
    populated = int(np.count_nonzero(neighbours))
    if at_end < LIMITS[share].value * total or populated < _NEAR // 4:
        return False
    return at_end >= LIMITS["pile_ratio"].value * float(neighbours.sum()) / _NEAR


def _gaps(counts: Counts) -> float:
    """Return the share of missing values in windows with so many voxels that all values should occur."""
    windows = counts.reshape(N_HU // _WINDOW, _WINDOW)
    dense = windows[windows.sum(axis=1) >= _DENSE * _WINDOW]
    return float((dense == 0).mean()) if len(dense) >= _FEWEST_WINDOWS else 0.0


@kernel()
def _add_all(hu, counts):  # type: ignore[no-untyped-def]
    for i in range(len(hu)):
        counts[np.int64(hu[i]) + 32768] += np.uint64(1)
