"""Parameters that a user can choose, validated, with their units."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, floor, inf, prod
from pathlib import Path
from typing import Any

from lungmix.errors import UsageError, mark_untrusted
from lungmix.tissue import LOBES, TISSUES

ANATOMICAL = "anatomical"
PRESETS = ("paper", "physical", ANATOMICAL)
FITS = ("paper", "converged", "anchored")
"""Names of the fits, in the order of tables and figures."""

PRIOR_STRENGTH = 0.05
"""Default weight of the prior of the fit ``anchored``: its pseudo-voxels divided by the number of voxels.

docs/fitting.md compares it with other weights.
"""

PUBLISHED_PRIOR = "published"

METHODS = ("counts", "em", "minibatch")
POOL_MASK, POOL_LUNGS = POOLS = ("mask", "lungs")
WEIGH_VOXELS, WEIGH_SCANS = WEIGHTS = ("voxels", "scans")
MOST_COMPONENTS = 20


_SIZE = re.compile(r"(?:(?:threshold|opening|min_voxels)=-?\d{1,9}|radii=\d{1,4}(?:\+\d{1,4}){0,9})", re.ASCII)


@dataclass(frozen=True)
class MaskParameters:
    """Parameters of the lung mask. The preset determines each of them that is None.

    The defaults of this class are those of the publication; a new store has the preset ``anatomical`` by default.

    Attributes
    ----------
    preset : {"paper", "physical", "anatomical"}
        ``paper`` has sizes in voxels, as published. ``physical`` has sizes in millimetres and millilitres.
        ``anatomical`` finds lungs by other rules, and takes neither `opening`, `min_voxels` nor `radii`.
    threshold : int, optional
        HU; voxels below are air. By default -155. For ``anatomical``, -300 by default; where voxels are wide, -400
        replaces the default, also if -300 was given.
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
        """HU below which voxels are air: the given threshold, or the default of the preset."""
        default = ANATOMICAL_HU if self.preset == ANATOMICAL else PAPER_HU
        return default if self.threshold is None else self.threshold

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self)


def text_of_mask(parameters: Mapping[str, Any]) -> str:
    """Return mask parameters as text: the preset and values that differ from it, such as ``paper threshold=-300``.

    The text contains no comma, so that it fits into CSV cells.
    """
    preset = str(parameters.get("preset", "paper"))
    defaults = MaskParameters(preset if preset in PRESETS else "paper").to_dict()
    changed = {key: value for key, value in parameters.items() if key != "preset" and value != defaults.get(key)}
    texts = [f"{key}={'+'.join(map(str, v)) if isinstance(v, list | tuple) else v}" for key, v in changed.items()]
    return " ".join([preset, *texts])


def mask_of_text(text: str) -> MaskParameters | None:
    """Return the parameters of a text that `text_of_mask` returned; None for any other text."""
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
"""Value of the parameter `masks` in place of a folder: computed masks replace masks that came from files."""

MASK_REGIONS = (
    "lung", "right", "left", "airway", "elsewhere", "right_dense", "left_dense", *(lobe.region for lobe in LOBES),
)  # fmt: skip
"""Regions that a label of a mask file can mean."""


@dataclass(frozen=True)
class MaskLabels:
    """Labels of mask files with the region that each of them means; voxels of other labels are not in the mask.

    Attributes
    ----------
    segments : tuple of (str, int or str)
        Pairs of a region, one of `MASK_REGIONS`, and its label: a voxel value, or the number or name of a segment.
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
            If a region is unknown, or the text is not a list of pairs ``REGION=LABEL``.
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
            pairs = [(region.strip().lower().replace("-", "_"), segment.strip()) for region, _, segment in parts]
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
ANATOMICAL_RULES = 3
"""Version of the rules of the preset ``anatomical``; masks by other versions are recomputed."""

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
    # Rounding of the quotient may put the count off by one; compare products, as the rule for components does.
    while count > 1 and (count - 1) * voxel >= millilitres:
        count -= 1
    while count * voxel < millilitres:
        count += 1
    return count


@dataclass(frozen=True)
class FitParameters:
    """Settings of a fit.

    The defaults of this class are those of the publication; a new store has the fit ``anchored`` by default.

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
        Lowest HU of the fit; lower values are raised to it.
    random_state : int
        Seed of the starts.
    method : {"counts", "em", "minibatch"}
        How the fit ``paper`` is computed. ``counts`` fits the histograms of the cases. ``em`` and ``minibatch`` run EM
        over the voxels, all in each iteration or in minibatches. The other fits always use histograms.
    fit : {"paper", "converged", "anchored"}
        The fit whose mixture labels the voxels. The other fits are stored too.
    prior : TissueModel, optional
        Centre of the prior of the fit ``anchored``, with `n_components` components; by default the published mixture.
        The attribute holds its weights, means and variances. The published mixture has five components; for another
        number of components, there is a fit ``anchored`` only if a prior is given.
    prior_strength : float
        Number of pseudo-voxels of the prior divided by the number of voxels, 0 or more. The weights together have
        this number of pseudo-voxels, and mean and variance of each component have it too.
    exclude_flagged : bool
        Fit without cases that quality control flags; flags that depend on labels do not count.
    pool : {"mask", "lungs"}
        Voxels that the fits ``converged`` and ``anchored`` pool: the whole mask, or right and left lung without airway
        and without what a mask holds outside the lungs. The fit ``paper`` always pools the whole mask.
    weigh : {"voxels", "scans"}
        What counts alike in the fits ``converged`` and ``anchored``: each voxel, or each scan, so that a scan with many
        thin slices counts no more than one with few thick ones. In the fit ``paper`` each voxel counts alike.
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
    pool: str = POOL_MASK
    weigh: str = WEIGH_VOXELS

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("fit", self.fit, FITS),
            ("method", self.method, METHODS),
            ("pool", self.pool, POOLS),
            ("weigh", self.weigh, WEIGHTS),
        ):
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
    def pools_as_published(self) -> bool:
        """True if all fits pool the whole masks, each voxel alike."""
        return all(getattr(self, key) == default for key, default in _OF_POOL.items())

    @property
    def _prior_components(self) -> int:
        return len(TISSUES) if self.prior is None else len(self.prior[0])

    def of_em(self) -> dict[str, Any]:
        """Return the arguments of EM, by the names of `lungmix.GaussianMixture`."""
        names = ("n_components", "n_init", "tol", "reg_covar", "max_iter", "random_state")
        return {name: getattr(self, name) for name in names}

    def of_both(self) -> dict[str, Any]:
        """Return the settings that the fits ``paper`` and ``converged`` depend on, as a JSON-ready dictionary."""
        pool = {key: value for key, default in _OF_POOL.items() if (value := getattr(self, key)) != default}
        return {key: value for key, value in asdict(self).items() if key not in ("fit", *_ONLY_WHERE_SET)} | pool

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary. It contains the numbers of a prior, but not the name of the prior's file."""
        values = asdict(self)
        if self.prior is not None:
            values["prior"] = {name: list(column) for name, column in zip(_COLUMNS, self.prior, strict=True)}
        # Defaults of these are omitted, so that records of fits keep the bytes of versions without these settings.
        for name, default in _ONLY_WHERE_SET.items():
            if values[name] == default:
                del values[name]
        return values


_OF_POOL = {"pool": POOL_MASK, "weigh": WEIGH_VOXELS}
_ONLY_WHERE_SET = {"exclude_flagged": False, "prior": None, "prior_strength": PRIOR_STRENGTH, **_OF_POOL}
_COLUMNS = ("weights", "means", "variances")


def _numbers_of(prior: Any) -> tuple[tuple[float, ...], ...] | None:
    """Return weights, means and variances of a prior; None for the published mixture.

    A prior is an object or a mapping with these three attributes or keys, or a tuple of the three sequences.
    """
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


DEFAULT_MASK = MaskParameters(ANATOMICAL)
"""Mask parameters of a new store, if none are given; see `lungmix.store.choices.resolve_mask`."""

DEFAULT_FIT = FitParameters(fit="anchored")
"""Fit parameters of a new store, if none are given; see `lungmix.store.choices.resolve_fit`."""

PUBLISHED_MASK = MaskParameters("paper")
PUBLISHED_FIT = FitParameters(fit="paper")
"""Settings of the publication. Stores of versions before `DEFAULT_MASK` and `DEFAULT_FIT` keep them."""


SMOOTHERS = POTTS, NO_SMOOTHING = ("potts", "none")
"""Values of the parameter `smooth`."""

LARGEST_BETA = 10.0
POTTS_ITERATIONS = 5
"""Mean-field iterations, and so the slices on each side that the label of a voxel depends on."""


@dataclass(frozen=True)
class PottsParameters:
    """Settings of labels under a Potts prior.

    Attributes
    ----------
    beta : float, optional
        Strength of the prior, 0 to 10; by default it is estimated for each case.
    """

    beta: float | None = None

    def __post_init__(self) -> None:
        if self.beta is not None and not 0 <= self.beta <= LARGEST_BETA:
            raise UsageError(
                f"a Potts prior cannot have the beta {self.beta!r}: give a number from 0 to {LARGEST_BETA:g}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return asdict(self)


def check_smoothing(smooth: str | None, beta: float | None) -> None:
    """Raise if the parameters `smooth` and `beta` of a run are not possible.

    Raises
    ------
    UsageError
        If there is no such smoothing, or the beta is out of range.
    """
    if smooth is not None and smooth not in SMOOTHERS:
        raise UsageError(f"there is no smoothing {mark_untrusted(smooth)}: choose one of {', '.join(SMOOTHERS)}")
    if smooth == NO_SMOOTHING and beta is not None:
        raise UsageError('without smoothing there is no `beta`: leave it out, or give `smooth="potts"`')
    PottsParameters(beta)


ZONES_BY_VOLUME, ZONES_BY_HEIGHT, ZONES_BY_COMMON_VOLUME = ZONE_RULES = ("volume", "height", "volume-common")
"""Rules by which planes divide the lungs into thirds and halves."""

NO_ZONES = "none"
ZONINGS = (*ZONE_RULES, NO_ZONES)
"""Values of the parameter `zones`: one of `ZONE_RULES`, or no zones."""


def check_zones(zones: str | None) -> None:
    """Raise if the parameter `zones` of a run is not possible.

    Raises
    ------
    UsageError
        If there is no such rule.
    """
    if zones is not None and zones not in ZONINGS:
        raise UsageError(f"there are no lung zones by {mark_untrusted(zones)}: choose one of {', '.join(ZONINGS)}")


AFFINE, DEFORMABLE, NO_REGISTRATION = REGISTRATIONS = ("affine", "deformable", "none")
"""Values of the parameter `register`: how later scans are registered with the first scan of their patient, or not."""


def check_registration(register: str | None) -> None:
    """Raise if the parameter `register` of a follow-up is not possible.

    Raises
    ------
    UsageError
        If there is no such registration.
    """
    if register is not None and register not in REGISTRATIONS:
        raise UsageError(
            f"there is no registration {mark_untrusted(register)}: choose one of {', '.join(REGISTRATIONS)}"
        )


HARMONISERS = AIR_BLOOD, KERNEL = ("air-blood", "kernel")
"""Methods of harmonisation, in the order in which they are applied."""

NO_HARMONISATION = "none"

KERNEL_REFERENCE_HU = (38.5, 43.6)
"""Standard deviations of frequency bands in the lungs: means of three scans with soft kernels.

docs/harmonise.md lists them.
"""


@dataclass(frozen=True)
class HarmoniseParameters:
    """Settings of the harmonised image, whose HU are labelled and measured in place of those of the scan.

    Attributes
    ----------
    methods : tuple of str
        ``"air-blood"``: a linear map of HU by air in the trachea and blood in the descending aorta. ``"kernel"``: the
        frequency bands of axial slices are brought to the standard deviations of a reference.
    reference : tuple of float
        With ``"kernel"``: standard deviation of each band of `lungmix.kernels.frequency_bands.BANDS_MM`, HU.
    """

    methods: tuple[str, ...] = HARMONISERS
    reference: tuple[float, ...] = KERNEL_REFERENCE_HU

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in HARMONISERS:
                raise UsageError(
                    f"there is no harmonisation {mark_untrusted(name)}: choose {' or '.join(HARMONISERS)}, both "
                    f"({','.join(HARMONISERS)}), or {NO_HARMONISATION}"
                )
        if not self.methods:
            raise UsageError(f"no harmonisation is named: choose one of {', '.join((*HARMONISERS, NO_HARMONISATION))}")
        reference = tuple(float(value) for value in self.reference)
        if len(reference) != len(KERNEL_REFERENCE_HU) or not all(0 < value < inf for value in reference):
            raise UsageError(
                f"the reference of the kernel normalisation has {len(KERNEL_REFERENCE_HU)} standard deviations in HU, "
                f"such as {','.join(map(str, KERNEL_REFERENCE_HU))}"
            )
        # The order in which methods are named has no meaning, and a reference none without the kernel.
        object.__setattr__(self, "methods", tuple(name for name in HARMONISERS if name in self.methods))
        object.__setattr__(self, "reference", reference if KERNEL in self.methods else KERNEL_REFERENCE_HU)

    @classmethod
    def of(cls, methods: str, reference: Sequence[float] | None = None) -> HarmoniseParameters | None:
        """Return the settings for a text such as ``"air-blood,kernel"``; None for ``"none"``."""
        names = [name.strip() for name in methods.split(",") if name.strip()]
        if names == [NO_HARMONISATION]:
            if reference is not None:
                raise UsageError("without harmonisation there is no `kernel_reference`: leave it out")
            return None
        if reference is not None and KERNEL not in names:
            raise UsageError('a `kernel_reference` needs `harmonise="kernel"`: leave it out, or add this method')
        return cls(tuple(names), KERNEL_REFERENCE_HU if reference is None else tuple(reference))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        reference = {"reference": list(self.reference)} if KERNEL in self.methods else {}
        return {"methods": list(self.methods), **reference}


@dataclass(frozen=True)
class IntakeParameters:
    """Settings of which attributes of patients a cohort keeps; by default none.

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
