"""Plausibility of HU: what the histogram of a whole scan says about its values before they count.

Every threshold stands in `LIMITS` with its reason. A finding either refuses a scan, because its values are not HU of
a chest, or flags it: it can be measured, but it is not pooled with others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lungmix.kernels.histogram import FIRST_HU, N_HU
from lungmix.kernels.jit import kernel

Counts = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Limit:
    """A threshold and why it lies where it does."""

    value: float
    reason: str


LIMITS = {
    "air_from": Limit(-1150, "air is at -1000 HU; noise and sharp kernels spread it, mostly to no less than -1150"),
    "air_to": Limit(-600, "normally aerated lung is below -600 HU, at full expiration and in infants too"),
    "soft_from": Limit(-250, "fat is near -100 HU, with noise above -250"),
    "soft_to": Limit(250, "muscle, blood and organs are at 30 to 80 HU, with contrast and noise below 250"),
    "no_air": Limit(0.0001, "an opened trachea alone is more than one voxel in 10,000 of a chest"),
    "little_air": Limit(0.01, "lungs with dense disease and nothing around the body still hold more aerated voxels"),
    "no_soft": Limit(0.002, "the vessels of lungs whose surroundings were blanked are more"),
    "soft_in_place": Limit(0.05, "of a chest that is shifted down only dense bone comes to lie at 0 HU"),
    "too_low": Limit(-1250, "noise takes no more than few voxels of air this far down; padding is one value"),
    "many_too_low": Limit(0.05, "resampling blends padding with air along the rim of the field of view, 1 to 2 %"),
    "pile": Limit(0.005, "a value at the end of the range that holds this share of the voxels may be a clip"),
    "pile_high": Limit(0.0005, "dense bone is rare: its clip holds fewer voxels"),
    "pile_ratio": Limit(10, "at a clip the last value holds many times the voxels of its neighbours"),
    "clip_low": Limit(-900, "clipped above this, healthy lung near -850 HU and emphysema are one value"),
    "clip_low_harmless": Limit(-1000, "the method clips there itself"),
    "clip_high": Limit(50, "clipped below this, soft tissue itself is one value"),
    "clip_high_harmless": Limit(1000, "dense bone and metal only; 12-bit images end at 3071"),
    "few_values": Limit(64, "label maps and drawings; the noise of CT alone spreads over more values"),
    "gaps": Limit(0.4, "CT in whole HU leaves no value out where voxels are many; steps of 2 leave out half"),
}
"""Thresholds by name: HU, shares of all voxels, or numbers."""

SHIFTS = (1024, -1024)
"""Errors of the usual rescale intercept, HU: not applied, or applied twice; those of -1000 are found by them too."""

_NEAR = 20
_WINDOW = 16
_DENSE = 50
_FEWEST_WINDOWS = 4


@dataclass(frozen=True)
class HuSummary:
    """What the histogram of a scan says; small enough to be kept with the scan.

    Attributes
    ----------
    voxels, distinct : int
        Voxels, and values that occur.
    minimum, maximum : int
        The ends of the range, HU.
    at_minimum, at_maximum : float
        Shares of the voxels at the ends.
    clipped_low, clipped_high : bool
        Whether the ends look like clips: one value that holds many times the voxels of its neighbours.
    aerated, soft : float
        Shares of the voxels in the ranges of air and lung and of soft tissue.
    too_low : float
        Share of the voxels below every tissue, without values of padding.
    gaps : float
        Share of values that do not occur where voxels are many; 0 where they are few.
    shift : int
        HU to add to the ranges of air and soft tissue to find both; 0 where they are in their place, or nowhere.
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
        """As a JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HuSummary:
        """Inverse of `to_dict`; raises `TypeError` where values are missing."""
        return cls(**values)


@dataclass(frozen=True)
class Finding:
    """Something about the HU of a scan that people should know.

    Attributes
    ----------
    code : str
        For programs.
    severity : {"refused", "flagged"}
        Not HU of a chest, or usable but doubtful.
    reason : str
        What was seen, with numbers.
    """

    code: str
    severity: Literal["refused", "flagged"]
    reason: str


def add_all(hu: npt.NDArray[np.int16], counts: Counts) -> None:
    """Add the voxels of a slab to counts per HU value, in place; entry ``i`` counts ``i - 32768`` HU."""
    _add_all(np.ascontiguousarray(hu).reshape(-1), counts)


def summarize(counts: Counts) -> HuSummary:
    """Summarize a histogram.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Voxels of a whole scan of each HU value from -32768 on.

    Returns
    -------
    HuSummary
        Of a scan with one voxel at least.
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
    """Judge a summary; the refusals, if any, come first, and the list is empty for plausible CT.

    Parameters
    ----------
    summary : HuSummary
        Of a scan.
    """
    refused = _refusal(summary)
    if refused is not None:
        return [refused]
    return [*_flags(summary)]


def _refusal(one: HuSummary) -> Finding | None:
    if one.distinct == 1:
        return _refused("constant", f"every voxel is {one.minimum:,} HU, so there is no lung in it")
    seen = f"values from {one.minimum:,} to {one.maximum:,}"
    shifted = f"all values are about {abs(one.shift):,} too {'high' if one.shift > 0 else 'low'} ({seen})"
    if one.aerated < LIMITS["no_air"].value:
        nothing = f"{_none(one.aerated)} between {_hu('air_from')} and {_hu('air_to')} HU, where air and lungs are"
        if one.distinct <= LIMITS["few_values"].value and one.minimum >= 0:
            return _refused("labels", f"{one.distinct} {seen}, {nothing}: a label map, not CT")
        if one.shift > 0:
            return _refused("shifted", f"{nothing}; {shifted}: the rescale intercept was not applied")
        if one.minimum >= 0 and one.maximum <= 255:
            return _refused("eight-bit", f"{seen}, {nothing}: an 8-bit picture, not CT in HU")
        if one.clipped_low:
            return _refused("clipped", f"{nothing}; {_clip(one)}")
        return _refused("no-air", f"{seen}, {nothing}")
    if one.too_low > LIMITS["many_too_low"].value:
        low = f"{_percent(one.too_low)} of all voxels are below {_hu('too_low')} HU, where nothing is, padding aside"
        if one.shift < 0 and one.soft < LIMITS["soft_in_place"].value:
            return _refused("shifted", f"{low}; {shifted}: the rescale intercept was applied twice")
        return _refused("rescaled", f"{low} ({seen}): rescaled twice, or not in HU")
    if one.soft < LIMITS["no_soft"].value:
        nothing = f"{_none(one.soft)} between {_hu('soft_from')} and {_hu('soft_to')} HU, where soft tissue is"
        if one.shift < 0:
            return _refused("shifted", f"{nothing}; {shifted}: the rescale intercept was applied twice")
        return _refused("no-soft-tissue", f"{seen}, {nothing}")
    cut_low = one.clipped_low and one.minimum > LIMITS["clip_low"].value
    cut_high = one.clipped_high and one.maximum < LIMITS["clip_high"].value
    return _refused("clipped", _clip(one)) if cut_low or cut_high else None


def _flags(one: HuSummary) -> list[Finding]:
    found = []
    low = one.clipped_low and one.minimum > LIMITS["clip_low_harmless"].value
    high = one.clipped_high and one.maximum < LIMITS["clip_high_harmless"].value
    if low or high:
        found.append(_flagged("clipped", _clip(one)))
    if one.aerated < LIMITS["little_air"].value:
        share = f"{_percent(one.aerated)} of all voxels are between {_hu('air_from')} and {_hu('air_to')} HU"
        found.append(_flagged("little-air", f"only {share}, where air and lungs are"))
    if one.distinct <= LIMITS["few_values"].value:
        found.append(_flagged("few-values", f"it holds only {one.distinct} different values"))
    elif one.gaps > LIMITS["gaps"].value:
        left_out = f"{_percent(one.gaps)} of the values do not occur where voxels are many"
        found.append(_flagged("steps", f"HU come in steps of about {1 / (1 - one.gaps):.2g}: {left_out}"))
    return found


def _clip(one: HuSummary) -> str:
    ends = []
    if one.clipped_low and one.minimum > LIMITS["clip_low_harmless"].value:
        ends.append(f"{_percent(one.at_minimum)} of all voxels are exactly {one.minimum:,} HU, and none is lower")
    if one.clipped_high and one.maximum < LIMITS["clip_high_harmless"].value:
        ends.append(f"{_percent(one.at_maximum)} of all voxels are exactly {one.maximum:,} HU, and none is higher")
    return f"clipped to a window: {'; '.join(ends)}"


def _refused(code: str, reason: str) -> Finding:
    return Finding(code, "refused", reason)


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
    """The error of the intercept that explains the histogram; 0 where none does or none is needed."""

    def fit_of(shift: int) -> float:
        return min(_share(counts, "air", shift, total), _share(counts, "soft", shift, total))

    fits = {shift: fit_of(shift) for shift in SHIFTS}
    best = max(fits, key=lambda shift: fits[shift])
    return best if fits[best] >= LIMITS["little_air"].value else 0


def _spikes(counts: Counts, total: int) -> npt.NDArray[np.int64]:
    """Indices of values of padding: single ones below every tissue that stand out of their neighbours."""
    low = counts[: _index("too_low")]
    found = [
        index
        for index in np.flatnonzero(low >= LIMITS["pile"].value * total)
        if int(low[index])
        >= LIMITS["pile_ratio"].value
        * float((counts[max(index - _NEAR, 0) : index + _NEAR + 1].sum() - low[index]) / (2 * _NEAR))
    ]
    return np.asarray(found, np.int64)


def _is_clip(pile: int, beside: Counts, total: int, share: str) -> bool:
    """Whether the voxels at an end of the range are a clip; drawings of few values have no neighbours there."""
    populated = int(np.count_nonzero(beside))
    if pile < LIMITS[share].value * total or populated < _NEAR // 4:
        return False
    return pile >= LIMITS["pile_ratio"].value * float(beside.sum()) / _NEAR


def _gaps(counts: Counts) -> float:
    """Share of values that do not occur, of windows that hold so many voxels that all of them should."""
    windows = counts.reshape(N_HU // _WINDOW, _WINDOW)
    dense = windows[windows.sum(axis=1) >= _DENSE * _WINDOW]
    return float((dense == 0).mean()) if len(dense) >= _FEWEST_WINDOWS else 0.0


@kernel()
def _add_all(hu, counts):  # type: ignore[no-untyped-def]
    for i in range(len(hu)):
        counts[np.int64(hu[i]) + 32768] += np.uint64(1)
