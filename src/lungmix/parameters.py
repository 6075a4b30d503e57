"""Parameters that a user can choose, validated, with their units."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, floor, inf, prod
from pathlib import Path
from typing import Any

from lungmix.errors import UsageError, mark_untrusted
from lungmix.tissue import TISSUES

ANATOMICAL = "anatomical"
PRESETS = ("paper", "physical", ANATOMICAL)
FITS = ("paper", "converged", "anchored")
"""Names of the fits, in the order of tables and figures."""

PRIOR_STRENGTH = 0.05
"""Pseudo-voxels of the prior of the fit ``anchored``, as a share of the voxels; docs/fitting.md compares others."""

PUBLISHED_PRIOR = "published"

METHODS = ("counts", "em", "minibatch")
MOST_COMPONENTS = 20


_SIZE = re.compile(r"(?:(?:threshold|opening|min_voxels)=-?\d{1,9}|radii=\d{1,4}(?:\+\d{1,4}){0,9})", re.ASCII)


@dataclass(frozen=True)
class MaskParameters:
    """Sizes of the lung mask. Where a size is None, the preset determines it.

    Attributes
    ----------
    preset : {"paper", "physical", "anatomical"}
        Sizes in voxels as published, or in millimetres and millilitres; or lungs as anatomy has them, by rules of
        their own, which need none of the sizes below.
    threshold : int, optional
        HU; voxels below are air. By default -155, or for ``anatomical`` -300, and -400 where voxels are wide; there
        -300 counts as the default.
    opening : int, optional
        Iterations of the 6-connected opening, 0 for none. By default 3, or 2.1 mm.
    min_voxels : int, optional
        Size of the smallest component kept. By default 500,000 voxels, or 100 mL.
    radii : tuple of int, optional
        Radii in voxels of successive closings by a ball. By default 30 and 20, or one ellipsoid of 10 mm.
    """

    preset: str = "paper"
    threshold: int | None = None
    opening: int | None = None
    min_voxels: int | None = None
    radii: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"there is no preset {self.preset!r}: choose one of {', '.join(PRESETS)}")
        object.__setattr__(self, "threshold", self.air_hu)
        sizes = [name for name in ("opening", "min_voxels", "radii") if getattr(self, name) is not None]
        if self.preset == ANATOMICAL and sizes:
            raise UsageError(f"the preset {ANATOMICAL!r} has no {sizes[0]}: choose another preset, or leave it out")
        if self.radii is not None:
            object.__setattr__(self, "radii", tuple(int(radius) for radius in self.radii))
        for name, value in (("opening", self.opening), ("min_voxels", self.min_voxels)):
            if value is not None and value < 0:
                raise UsageError(f"{name} cannot be {value}: give 0 or more")
        if any(radius < 0 for radius in self.radii or ()):
            raise UsageError(f"radii cannot be {self.radii}: give 0 or more")

    @property
    def air_hu(self) -> int:
        """HU below which voxels are air; that of the preset unless it was given."""
        default = ANATOMICAL_HU if self.preset == ANATOMICAL else PAPER_HU
        return default if self.threshold is None else self.threshold

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self)


def text_of_mask(parameters: Mapping[str, Any]) -> str:
    """Return the name of a preset and the parameters that differ from its defaults, such as ``paper threshold=-300``.

    The text contains no comma, so that it fits into CSV cells.
    """
    preset = str(parameters.get("preset", "paper"))
    defaults = MaskParameters(preset if preset in PRESETS else "paper").to_dict()
    changed = {key: value for key, value in parameters.items() if key != "preset" and value != defaults.get(key)}
    texts = [f"{key}={'+'.join(map(str, v)) if isinstance(v, list | tuple) else v}" for key, v in changed.items()]
    return " ".join([preset, *texts])


def mask_of_text(text: str) -> MaskParameters | None:
    """Return the parameters that a text of `text_of_mask` stands for; None for any other text."""
    preset, *sizes = text.split(" ")
    if not all(map(_SIZE.fullmatch, sizes)):
        return None
    values: dict[str, Any] = {}
    for size in sizes:
        name, _, value = size.partition("=")
        values[name] = tuple(map(int, value.split("+"))) if name == "radii" else int(value)
    try:
        return MaskParameters(preset, **values)
    except UsageError:
        return None


NO_MASKS = "none"
"""Place of masks that stands for none: masks from files are computed in their place."""

MASK_REGIONS = ("lung", "right", "left", "airway", "elsewhere", "right_dense", "left_dense")
"""Regions that the labels of a mask file can stand for."""


@dataclass(frozen=True)
class MaskLabels:
    """Labels of mask files, by the region of the mask that they stand for; voxels of other labels are not in the mask.

    Attributes
    ----------
    segments : tuple of (str, int or str)
        Pairs of a region, one of `MASK_REGIONS`, and a voxel value or segment number, or the name of a segment.
    """

    segments: tuple[tuple[str, int | str], ...]

    def __post_init__(self) -> None:
        for region, segment in self.segments:
            if region not in MASK_REGIONS:
                raise UsageError(
                    f"a mask has no region {mark_untrusted(region)}: choose one of {', '.join(MASK_REGIONS)}"
                )
            if isinstance(segment, int) and segment < 1:
                raise UsageError(f"voxels of label {segment} are outside every mask: give numbers from 1 on")
        if not self.segments:
            raise UsageError('`mask_labels` names no label: give them such as `mask_labels="right=1,left=2"`')

    @classmethod
    def parse(cls, labels: str | Mapping[str, Any] | MaskLabels | None) -> MaskLabels | None:
        """Return the labels of a text such as ``right=1,left=2``, or of a mapping of regions to numbers or names.

        Raises
        ------
        UsageError
            If a region is unknown, or the text says something else.
        """
        if labels is None or isinstance(labels, MaskLabels):
            return labels
        pairs: list[tuple[str, Any]]
        if isinstance(labels, str):
            parts = [part.partition("=") for part in labels.split(",") if part.strip()]
            if not all(equals and segment.strip() for _, equals, segment in parts):
                raise UsageError(
                    f'`mask_labels` {mark_untrusted(labels)} is not understood: write `mask_labels="right=1,left=2"`'
                )
            pairs = [(region.strip().lower(), segment.strip()) for region, _, segment in parts]
        else:
            pairs = [
                (region, segment)
                for region, segments in labels.items()
                for segment in ([segments] if isinstance(segments, int | str) else segments)
            ]
        return cls(
            tuple((region, int(text) if (text := str(segment)).isdecimal() else text) for region, segment in pairs)
        )


PAPER_HU = -155
ANATOMICAL_HU = -300
ANATOMICAL_COARSE_HU = -400
ANATOMICAL_CLOSING_MM = 3.0
ANATOMICAL_RULES = 2
"""Version of the rules of the preset ``anatomical``; masks by other versions are made again."""

PAPER_OPENING = 3
PAPER_MIN_VOXELS = 500_000
PAPER_RADII = (30, 20)
PHYSICAL_OPENING_MM = 2.1
PHYSICAL_MIN_ML = 100.0
PHYSICAL_CLOSING_MM = 10.0


def opening_extent_mm(spacing_zyx: Sequence[float]) -> tuple[int, int, int]:
    """Return the extent of the opening of the preset ``physical``, in voxels along z, y, x."""
    z, y, x = (floor(PHYSICAL_OPENING_MM / s + 0.5) for s in spacing_zyx)
    return z, y, x


def voxels_of_ml(millilitres: float, spacing_zyx: Sequence[float]) -> int:
    """Return the smallest voxel count whose volume is at least ``millilitres``."""
    voxel = prod(spacing_zyx) / 1000.0
    count = max(ceil(millilitres / voxel), 1)
    # The quotient is rounded; correct it by the product that the rule compares.
    while count > 1 and (count - 1) * voxel >= millilitres:
        count -= 1
    while count * voxel < millilitres:
        count += 1
    return count


@dataclass(frozen=True)
class FitParameters:
    """Settings of a fit; the defaults are those of the paper.

    Attributes
    ----------
    n_components : int
        Number of Gaussians.
    n_init : int
        Number of k-means starts.
    max_iter : int
        Largest number of EM iterations.
    tol : float
        EM stops when the mean log-likelihood per voxel gains less than this in an iteration.
    reg_covar : float
        Added to variances, HU².
    clip : int
        Lowest HU: values below it are taken as this value.
    random_state : int
        Seed of the starts.
    method : {"counts", "em", "minibatch"}
        Fit to the histograms of the cases, or by EM over the voxels, all at once or in minibatches.
    fit : {"paper", "converged", "anchored"}
        Fit whose model labels the voxels; all are stored.
    prior : TissueModel, optional
        Centre of the prior of the fit ``anchored``, with `n_components` components; by default the published mixture.
        The field holds its weights, means and variances. With another number of components than that of the published
        mixture, there is no fit ``anchored`` unless a prior is given.
    prior_strength : float
        Number of pseudo-voxels of the prior divided by the number of voxels, 0 or more: so many for the weights
        together, and as many for mean and variance of each component.
    exclude_flagged : bool
        Pool no case that quality control flags; flags that depend on labels do not count.
    """

    n_components: int = 5
    n_init: int = 6
    max_iter: int = 100
    tol: float = 1e-3
    reg_covar: float = 1e-6
    clip: int = -1000
    random_state: int = 0
    method: str = "counts"
    fit: str = "paper"
    exclude_flagged: bool = False
    prior: Any = None
    prior_strength: float = PRIOR_STRENGTH

    def __post_init__(self) -> None:
        for name, value, choices in (("fit", self.fit, FITS), ("method", self.method, METHODS)):
            if value not in choices:
                raise UsageError(f"there is no {name} {value!r}: choose one of {', '.join(choices)}")
        if not 1 <= self.n_components <= MOST_COMPONENTS:
            raise UsageError(f"{self.n_components} components are not possible: give 1 to {MOST_COMPONENTS}")
        if not 0 <= self.prior_strength < inf:
            raise UsageError(
                f"the prior cannot have the strength {self.prior_strength!r}: give 0 or more, as a share of the voxels"
            )
        object.__setattr__(self, "prior", _numbers_of(self.prior))
        if not self.has_anchored and (self.fit == FITS[-1] or self.prior is not None):
            raise UsageError(
                f"the prior has {self._prior_components} components and the mixture {self.n_components}: give a prior "
                "with as many components, or another number of components"
            )

    @property
    def has_anchored(self) -> bool:
        """True if the prior has as many components as the mixture, so that there is a fit ``anchored``."""
        return self._prior_components == self.n_components

    @property
    def _prior_components(self) -> int:
        return len(TISSUES) if self.prior is None else len(self.prior[0])

    def of_em(self) -> dict[str, Any]:
        """Return the arguments of EM, by the names of `lungmix.GaussianMixture`."""
        names = ("n_components", "n_init", "tol", "reg_covar", "max_iter", "random_state")
        return {name: getattr(self, name) for name in names}

    def of_both(self) -> dict[str, Any]:
        """Return the settings that ``paper`` and ``converged`` of given cases depend on, as a JSON-ready dictionary."""
        return {key: value for key, value in asdict(self).items() if key not in ("fit", *_ONLY_WHERE_SET)}

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary, which holds the numbers of a prior, never the name of its file."""
        values = asdict(self)
        if self.prior is not None:
            values["prior"] = {name: list(column) for name, column in zip(_COLUMNS, self.prior, strict=True)}
        # Only where they are set, so that records of other fits keep their bytes.
        for name, default in _ONLY_WHERE_SET.items():
            if values[name] == default:
                del values[name]
        return values


_ONLY_WHERE_SET = {"exclude_flagged": False, "prior": None, "prior_strength": PRIOR_STRENGTH}
_COLUMNS = ("weights", "means", "variances")


def _numbers_of(prior: Any) -> tuple[tuple[float, ...], ...] | None:
    """Return weights, means and variances of a mixture, its record or these three; None for the published mixture."""
    if prior is None or prior == PUBLISHED_PRIOR:
        return None
    try:
        if isinstance(prior, Mapping):
            columns = [prior[name] for name in _COLUMNS]
        else:
            columns = list(prior) if isinstance(prior, tuple) else [getattr(prior, name) for name in _COLUMNS]
        return tuple(tuple(float(number) for number in column) for column in columns)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UsageError(
            f"a prior is a mixture, which lungmix.load_model reads from a file, or {PUBLISHED_PRIOR!r}"
        ) from None


@dataclass(frozen=True)
class IntakeParameters:
    """Attributes of patients that a cohort retains; by default none.

    Attributes
    ----------
    keep_names : bool
        Name new cases after their files or folders. Only for sources whose names identify no patient.
    key : Path, optional
        Key table that maps cases to patients. Written outside the store, readable by its owner only.
    retain_patient : bool
        Keep sex and age; ages over 89 as 90.
    shift_dates : bool
        Keep the date of the study, shifted by a number of days that is the same for all scans of a patient and is
        recorded in `key`.
    """

    keep_names: bool = False
    key: Path | None = None
    retain_patient: bool = False
    shift_dates: bool = False

    def __post_init__(self) -> None:
        if self.shift_dates and self.key is None:
            raise UsageError("`shift_dates=True` needs `key=FILE`, the only place where the number of days is stored")
