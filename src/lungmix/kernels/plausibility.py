"""Checks that the voxel values of a scan are plausible HU of a chest, on its histogram, before the values are used.

A problem that a check finds is a finding. A finding either rejects the scan, because its values are not HU of a chest,
or flags it: a flagged scan is measured, but not pooled with others. `LIMITS` holds every threshold with its reason;
thresholds that quality control has too are the defaults of `lungmix.quality_flags`.
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
    """Return the threshold of a flag of quality control, converted to the unit that this module uses."""
    flag = next(flag for flag in FLAGS if flag.name == flag_name)
    return Limit(flag.threshold / scale + offset, flag.reason)


LIMITS = {
    "air_from": Limit(-1150, "air is at -1000 HU, and noise and sharp kernels rarely spread it to less than -1150 HU"),
    "air_to": Limit(-600, "normally aerated lung is below -600 HU, even at full expiration and in infants"),
    "soft_from": Limit(-250, "fat is near -100 HU, and above -250 HU even with noise"),
    "soft_to": Limit(250, "muscle, blood and organs are at 30 to 80 HU, and below 250 HU even with contrast and noise"),
    "no_air": Limit(0.0001, "the trachea alone, after the opening, is more than one voxel in 10,000 of a chest"),
    "little_air": _limit_of("little_air", _PERCENT),
    "no_soft": Limit(0.002, "even if everything around the lungs was blanked, their vessels are a larger share"),
    "soft_in_place": Limit(0.05, "if the HU of a chest are shifted down by 1024, only dense bone is near 0 HU"),
    "too_low": Limit(-1250, "noise brings only few voxels of air this far down, and padding is a single value"),
    "many_too_low": Limit(
        0.05, "resampling mixes padding and air at the rim of the field of view, in 1 to 2 % of voxels"
    ),
    "pile": Limit(0.005, "if the lowest or highest value has this share of the voxels, values may have been clipped"),
    "pile_high": _limit_of("hu_clipped", _PERCENT),
    "pile_ratio": Limit(10, "if values were clipped, the last value has many times the voxels of its neighbours"),
    "clip_low": Limit(-900, "if values are clipped above this, healthy lung near -850 HU and emphysema are one value"),
    "clip_low_harmless": Limit(-1000, "the method itself clips HU there"),
    "clip_high": Limit(50, "if values are clipped below this, soft tissue is one value"),
    "clip_high_harmless": Limit(1000, "only dense bone and metal are above this; 12-bit images end at 3071 HU"),
    "few_values": _limit_of("few_values", offset=-1),
    "gaps": _limit_of("hu_steps", _PERCENT),
}
"""Thresholds by name. Their units are HU, shares of all voxels (0 to 1), or counts."""

SHIFTS = (1024, -1024)
"""Errors of HU if the usual rescale intercept of -1024 was not applied, and if it was applied twice. An intercept of
-1000 is detected by them too."""

_NEAR = 20
_WINDOW = 16
_DENSE = 50
_FEWEST_WINDOWS = 4


class SummaryError(ValueError):
    """Error for a stored summary that this version cannot read; the message continues a sentence about the summary."""


@dataclass(frozen=True)
class HuSummary:
    """Summary of the histogram of a scan, small enough to be stored with the scan.

    A field that a later version adds needs a default, so that summaries in existing stores can still be read.

    Attributes
    ----------
    voxels, distinct : int
        Number of voxels, and number of distinct values.
    minimum, maximum : int
        Lowest and highest value, HU.
    at_minimum, at_maximum : float
        Shares of the voxels that have the lowest and the highest value, 0 to 1.
    clipped_low, clipped_high : bool
        True if values look clipped at the low or high end: the last value has many times the voxels of its neighbours.
    aerated, soft : float
        Shares of the voxels in the range of air and lung, and in that of soft tissue.
    too_low : float
        Share of the voxels below the HU of air and its noise, without padding.
    gaps : float
        In the parts of the histogram that have many voxels: share of the HU that no voxel has; 0 without such parts.
    shift : int
        HU to add to the ranges of air and of soft tissue so that both have voxels; 0 if no shift is needed or no shift
        in `SHIFTS` is enough.
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
        """Return the summary that `to_dict` converted to a dictionary.

        Fields that are missing because an earlier version wrote the dictionary get their defaults.

        Raises
        ------
        SummaryError
            If a field without default is missing, if a value is not a number, or if a key is no field.
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
        "rejected" if the values are not HU of a chest; "flagged" if they are usable but doubtful.
    reason : str
        Description of the problem for people, with numbers.
    """

    code: str
    severity: Literal["rejected", "flagged"]
    reason: str


def add_all(hu: npt.NDArray[np.int16], counts: Counts) -> None:
    """Add all voxels of a slab to a histogram, in place; entry ``i`` counts voxels of ``i - 32768`` HU."""
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
    """Return the findings on a scan: a single one that rejects it, or any number of flags; none for plausible CT.

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
    """Return the error of the rescale intercept, one of `SHIFTS`, that explains the histogram; 0 if none does.

    An error explains the histogram if the ranges of air and of soft tissue, shifted by it, both hold at least the share
    ``little_air`` of the voxels.
    """

    def fit_of(shift: int) -> float:
        return min(_share(counts, "air", shift, total), _share(counts, "soft", shift, total))

    fits = {shift: fit_of(shift) for shift in SHIFTS}
    best = max(fits, key=lambda shift: fits[shift])
    return best if fits[best] >= LIMITS["little_air"].value else 0


def _spikes(counts: Counts, total: int) -> npt.NDArray[np.int64]:
    """Return the indices of padding in a histogram.

    Padding is a value below the HU of air with far more voxels than the neighbouring values.
    """
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
    """Return True if values look clipped at one end of the range.

    If fewer than a quarter of the neighbouring values occur, the image is a drawing and not clipped.
    """
    populated = int(np.count_nonzero(neighbours))
    if at_end < LIMITS[share].value * total or populated < _NEAR // 4:
        return False
    return at_end >= LIMITS["pile_ratio"].value * float(neighbours.sum()) / _NEAR


def _gaps(counts: Counts) -> float:
    """Return the share of values that do not occur, in windows of values with so many voxels that all should occur."""
    windows = counts.reshape(N_HU // _WINDOW, _WINDOW)
    dense = windows[windows.sum(axis=1) >= _DENSE * _WINDOW]
    return float((dense == 0).mean()) if len(dense) >= _FEWEST_WINDOWS else 0.0


@kernel()
def _add_all(hu, counts):  # type: ignore[no-untyped-def]
    for i in range(len(hu)):
        counts[np.int64(hu[i]) + 32768] += np.uint64(1)
