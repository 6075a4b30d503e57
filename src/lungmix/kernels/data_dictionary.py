"""Data dictionary: the columns of each table that lungmix writes, in their order, with unit and meaning."""

from __future__ import annotations

from dataclasses import dataclass

from lungmix.quality_flags import FLAGS, PARTS
from lungmix.tissue import AIRWAY, CHANGES, ELSEWHERE, LOBES, LUNGS, TISSUES, ZONE_DEPTHS, ZONE_HALVES, ZONE_THIRDS


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    key : str
        Name in the header.
    unit : str
        ``mL``, ``%``, ``HU`` and the like; empty for names, counts and flags.
    meaning : str
        Description for people.
    """

    key: str
    unit: str
    meaning: str


LAA_THRESHOLDS = (950, 910, 856)
"""Low attenuation areas are voxels strictly below -950, -910 and -856 HU. Constants here have no minus sign."""

HAA_ABOVE = (700, 500)
"""High attenuation areas are voxels strictly above -700 and -500 HU."""

HAA_BANDS = ((600, 250),)
"""High attenuation areas with two bounds are voxels strictly between -600 and -250 HU (Lederer et al. 2009)."""

AERATED_BANDS = ((950, 700), (950, 800))
"""Well aerated lung has -950 to -700 HU or, in other publications, -950 to -800 HU, ends included."""


def _densities(of: str) -> list[Column]:
    """Return the columns of mean, low attenuation and 15th percentile; their meanings name the voxels by `of`."""
    return [
        Column("mean_hu", "HU", f"mean density of {of}"),
        *(Column(f"laa{t}", "%", f"low attenuation: {of} strictly below -{t} HU") for t in LAA_THRESHOLDS),
        Column("perc15", "HU", f"15th percentile of {of}, linear interpolation"),
    ]


def _further(of: str, more: str = "") -> list[Column]:
    return [
        Column("sd_hu", "HU", f"standard deviation of {of}"),
        *(Column(f"haa_above_{t}", "%", f"high attenuation: {of} strictly above -{t} HU") for t in HAA_ABOVE),
        *(
            Column(f"haa_{a}_{b}", "%", f"high attenuation: {of} strictly between -{a} and -{b} HU")
            for a, b in HAA_BANDS
        ),
        *(
            Column(f"aerated_{a}_{b}", "%", f"well aerated: {of} from -{a} to -{b} HU, ends included")
            for a, b in AERATED_BANDS
        ),
        Column("mass_g", "g", f"mass of {of}, at a density of 1 + HU / 1000 g/mL, and 0 g/mL below -1000 HU"),
        Column("touches_border", "", f"1 if {of} reach the first or last slice, row or column{more}"),
    ]


EXPECTED = "_expected"
"""Ending of columns with sums over voxels of posteriors, in place of numbers of voxels with a label."""


def _expected(columns: list[Column]) -> list[Column]:
    """Return the columns of expected values of the measurements in other columns."""
    return [
        Column(f"{column.key}{EXPECTED}", column.unit, f"expected value by posteriors: {column.meaning}")
        for column in columns
    ]


_MADE_WITH = (
    Column("mask", "", "preset of the lung mask, and the sizes that differ from it; given: a mask from a file"),
    Column("model", "", "name and digest of the mixture of the labels"),
)


def _columns() -> tuple[Column, ...]:
    parts = "GGO, consolidation and other together"
    lung = "lung voxels"
    columns = [
        Column("case", "", "name of the scan"),
        Column("lung_ml", "mL", "volume of the lung mask"),
        *(Column(t.key, "%", f"{t.name}, of lung voxels") for t in TISSUES),
        Column("lung_involvement", "%", f"{parts}, of lung voxels"),
        *_densities(lung),
        *(Column(f"{t.key}_ml", "mL", f"volume of {t.name}") for t in TISSUES),
        Column("voxels", "", "lung voxels"),
        *_further(lung, ", or a lung outside the mask does"),
    ]
    for side in LUNGS:
        of = f"voxels of the {side.name.lower()}"
        of_side = [
            Column("ml", "mL", f"volume of the {side.name.lower()}"),
            *(Column(t.key, "%", f"{t.name}, of {of}") for t in TISSUES),
            Column("lung_involvement", "%", f"{parts}, of {of}"),
            *_densities(of),
            *_further(of),
        ]
        columns += [Column(f"{side.key}_{column.key}", column.unit, column.meaning) for column in of_side]
    columns += [
        Column(f"{AIRWAY.key}_ml", "mL", "trachea and main bronchi within the mask, outside the lungs"),
        Column(
            f"{ELSEWHERE.key}_ml",
            "mL",
            "other parts of the mask outside both lungs: between them, and separate components",
        ),
        *_MADE_WITH,
        Column(
            "left_out_ml",
            "mL",
            "part of the mask that was excluded on request; the columns of single regions do not exclude it",
        ),
        Column("rejected_ml", "mL", "lung that is not in the mask because the image edge cuts it or it is too small"),
    ]
    shares = [*(tissue.key for tissue in TISSUES), "lung_involvement"]
    by_label = [
        *shares,
        *(f"{tissue.key}_ml" for tissue in TISSUES),
        *(f"{side.key}_{key}" for side in LUNGS for key in shares),
    ]
    meanings = {column.key: column for column in columns}
    return (*columns, *_expected([meanings[key] for key in by_label]))


MEASUREMENTS: tuple[Column, ...] = _columns()
"""Columns of ``measurements.csv`` for models of five components; others have ``component_1`` ... instead of tissues."""


ALL, BOTH = "all", "both"
"""Values of columns of ``zones.csv``: all parts of a lung together, and both lungs together."""


BY_LOBES = "lobes"
"""Value of the column `by` of ``zones.csv`` in rows of lobes."""


def _zone_columns() -> tuple[Column, ...]:
    of = "voxels of the zone"
    shares = [
        *(Column(t.key, "%", f"{t.name}, of {of}") for t in TISSUES),
        Column("lung_involvement", "%", f"GGO, consolidation and other together, of {of}"),
    ]
    return (
        Column("case", "", "name of the scan"),
        Column(
            "zone",
            "",
            "side, third, half and depth joined by _, without those of which the row has all; or a lobe, such as "
            "right_upper_lobe",
        ),
        Column("side", "", "right, left, or both lungs together"),
        Column("third", "", "upper, middle or lower third of the lung, or all"),
        Column("half", "", "ventral or dorsal half of the lung, or all"),
        Column("depth", "", "core, or peel: lung nearer than 20 mm to the surface of the lung; or all"),
        Column("lung_ml", "mL", "volume of the zone"),
        *shares,
        *_densities(of),
        *(Column(f"{t.key}_ml", "mL", f"volume of {t.name} in the zone") for t in TISSUES),
        Column("voxels", "", of),
        Column("mass_g", "g", f"mass of {of}, at a density of 1 + HU / 1000 g/mL, and 0 g/mL below -1000 HU"),
        *_expected(shares),
        Column(
            "by",
            "",
            "thirds and halves of a lung have equal extents (height) or equal volumes (volume), or those of both lungs "
            "together have equal volumes (volume-common); lobes for a lobe",
        ),
        *_MADE_WITH,
    )


ZONES: tuple[Column, ...] = _zone_columns()
"""Columns of ``zones.csv``, one row per zone of a case and per sum of zones, for models of five components."""


_AERATED_INVOLVEMENT = Column(
    "aerated_involvement", "%", "GGO, consolidation and other together, of the voxels of the aerated lungs"
)

DENSE_COLUMNS: tuple[Column, ...] = (
    Column("dense_lung_ml", "mL", "dense lung that the preset anatomical adds to the aerated lungs"),
    _AERATED_INVOLVEMENT,
    *_expected([_AERATED_INVOLVEMENT]),
)
"""Columns that ``measurements.csv`` has in addition if one of its cases has a mask of the preset ``anatomical``."""


HARMONISED_COLUMNS: tuple[Column, ...] = (
    Column(
        "harmonised",
        "",
        "methods of harmonisation that were applied, separated by commas; none for other scans",
    ),
)
"""Columns that ``measurements.csv`` has in addition if one of its cases has a harmonised image."""


FOLLOWUP_REGIONS: dict[str, str] = {
    **{lung.key: f"the {lung.name.lower()}" for lung in LUNGS},
    **{
        f"{lung.key}_{third.key}": f"the {third.name} third of the {lung.name.lower()}"
        for lung in LUNGS
        for third in ZONE_THIRDS
    },
    **{f"{BOTH}_{third.key}": f"the {third.name} thirds of both lungs" for third in ZONE_THIRDS},
    **{f"{BOTH}_{half.key}": f"the {half.name} halves of both lungs" for half in ZONE_HALVES},
    **{f"{BOTH}_{depth.key}": f"the {depth.name} of both lungs" for depth in ZONE_DEPTHS},
    **{lobe.key: f"the {lobe.name[0].lower()}{lobe.name[1:]}" for lobe in LOBES},
}
"""Parts of the lungs whose lung involvement ``followup.csv`` has, with their description."""


REGISTRATION: tuple[Column, ...] = (
    Column(
        "registration", "",
        "affine or deformable; failed if the lungs of the scans could not be registered; empty for the first scan",
    ),
    Column("registration_dice", "", "Dice coefficient of the lungs of both scans after the registration"),
    Column(
        "registration_similarity", "",
        "correlation of the structure of both lungs, HU without local mean and contrast, after the registration",
    ),
    Column(
        "registration_volume_ratio", "",
        "mean Jacobian determinant over the lungs of the first scan: volume of the same lung in this scan per volume "
        "in the first",
    ),
    Column("registered_lung_ml", "mL", "lung of the first scan whose point in this scan is lung too"),
    Column(
        "registered_lung_involvement_first", "%",
        "GGO, consolidation and other together in the first scan, of the voxels of registered_lung_ml",
    ),
    Column(
        "registered_lung_involvement", "%",
        "GGO, consolidation and other together in this scan, of the voxels of registered_lung_ml, each weighted by its "
        "volume in the first scan",
    ),
    Column(
        "change_registered_lung_involvement", "points",
        "registered_lung_involvement minus registered_lung_involvement_first",
    ),
    *(
        Column(f"{change.key}_ml", "mL", f"{meaning}, by labels after the median, in the space of the first scan")
        for change, meaning in zip(
            CHANGES[1:],
            (
                "involved in the first scan and normal in this one",
                "normal in the first scan and involved in this one",
                "involved in both scans by the same tissue", "involved in both scans, by a denser tissue in this one",
                "involved in both scans, by a less dense tissue in this one",
            ),
            strict=True,
        )
    ),
)  # fmt: skip
"""Columns that ``followup.csv`` has in addition if a scan of the table is registered."""


def _followup_columns() -> tuple[Column, ...]:
    parts = "GGO, consolidation and other together"
    involvement = Column("lung_involvement", "%", f"{parts}, of lung voxels")
    tissues = [Column(t.key, "%", f"{t.name}, of lung voxels") for t in TISSUES]
    of_regions = [
        Column(f"{key}_lung_involvement", "%", f"{parts}, of the voxels of {text}")
        for key, text in FOLLOWUP_REGIONS.items()
    ]
    changes = []
    for column in (*tissues, involvement, *of_regions):
        change = f"change since the first scan: {column.meaning}"
        at_volume = f"{change}; at the lung volume of the first scan"
        for ending, meaning in (("", change), ("_corrected", at_volume)):
            changes.append(Column(f"change_{column.key}{ending}", "points", meaning))
            for end, side in (("low", "lower"), ("high", "upper")):
                of_end = f"{side} end of the 95 % interval of the {meaning}"
                changes.append(Column(f"change_{column.key}{ending}_{end}", "points", of_end))
    return (
        Column("case", "", "name of the scan"),
        Column("patient", "", "patient-001, patient-002 ..., in the order of the first names of their cases"),
        Column("scan", "", "number of the scan of the patient, from 1"),
        Column("days", "d", "days since the first scan of the patient; NaN if unknown"),
        Column("lung_ml", "mL", "volume of the lung mask"),
        *tissues,
        involvement,
        Column("lung_involvement_corrected", "%", f"{parts}, at the lung volume of the first scan"),
        *(Column(f"{t.key}_ml", "mL", f"volume of {t.name}") for t in TISSUES),
        Column("mass_g", "g", "mass of lung voxels, at a density of 1 + HU / 1000 g/mL, and 0 g/mL below -1000 HU"),
        *of_regions,
        Column("change_lung_ml", "mL", "change since the first scan: volume of the lung mask"),
        *changes,
        Column(
            "course",
            "",
            "worse or improved if the interval of change_lung_involvement_corrected is above or below 0, else stable; "
            "empty for the first scan",
        ),
        *REGISTRATION,
        Column("remarks", "", "differences from the first scan in acquisition, mask and lung volume"),
        *_MADE_WITH,
    )


FOLLOWUP: tuple[Column, ...] = _followup_columns()
"""Columns of ``followup.csv``, one row per scan of every patient with two or more measured scans.

Columns of regions are missing if no scan of the table has them. Changes are NaN for the first scan of a patient.
"""


def _quality_columns() -> tuple[Column, ...]:
    numbers = {flag.number: Column(flag.number, flag.unit, flag.measured) for flag in FLAGS}
    return (
        Column("case", "", "name of the scan"),
        Column(
            "flags", "", "names of the flags that are raised, separated by blanks; empty if there is nothing to look at"
        ),
        Column("slice", "", "axial slice, from 0 at the feet, of the flag that is farthest beyond its threshold"),
        Column("reasons", "", 'sentences on the flags; "not measured" where a case has no numbers'),
        *numbers.values(),
        *(
            Column(number, "mL", f"part of the mask outside lungs and airway that is {text}")
            for number, text in PARTS.items()
        ),
        Column(f"{AIRWAY.key}_ml", "mL", "trachea and main bronchi within the mask, on the reduced copy"),
    )


QUALITY: tuple[Column, ...] = _quality_columns()
"""Columns of ``qc.csv``; numbers are measured on the reduced copy of a scan, and NaN where they cannot be measured."""

RADIOMICS: tuple[Column, ...] = (
    Column("case", "", "name of the scan"),
    Column("region", "", "lung, or the key of a tissue"),
    Column("label", "", "voxel value in the label map: 0 for the lung, 1 to 5 for tissues"),
    Column("voxels", "", "voxels of the region"),
    *_MADE_WITH,
    Column("Energy", "HU²", "sum of squares"),
    Column("TotalEnergy", "mm³ HU²", "sum of squares times the volume of a voxel"),
    Column("Entropy", "bit", "entropy of the histogram with bins of 25 HU"),
    Column("Minimum", "HU", "lowest value"),
    Column("10Percentile", "HU", "10th percentile, linear interpolation"),
    Column("90Percentile", "HU", "90th percentile, linear interpolation"),
    Column("Maximum", "HU", "highest value"),
    Column("Mean", "HU", "mean"),
    Column("Median", "HU", "median"),
    Column("InterquartileRange", "HU", "75th percentile minus 25th percentile"),
    Column("Range", "HU", "highest value minus lowest value"),
    Column("MeanAbsoluteDeviation", "HU", "mean absolute distance from the mean"),
    Column(
        "RobustMeanAbsoluteDeviation",
        "HU",
        "mean absolute deviation of the values from the 10th to the 90th percentile",
    ),
    Column("RootMeanSquared", "HU", "root of the mean square"),
    Column("StandardDeviation", "HU", "root of the variance"),
    Column("Skewness", "", "third central moment over the cubed standard deviation"),
    Column("Kurtosis", "", "fourth central moment over the squared variance; 3 for a normal distribution"),
    Column("Variance", "HU²", "mean squared distance from the mean"),
    Column("Uniformity", "", "sum of squared shares of the histogram with bins of 25 HU"),
)
"""Columns of ``radiomics.csv``; features carry the names that PyRadiomics gives them."""

EVALUATION: tuple[Column, ...] = (
    Column("case", "", "name of the scan"),
    Column("region", "", "lungs (right and left together), right, left, another segment of the store, or a tissue"),
    Column(
        "dice",
        "",
        "twice the voxels in the intersection / (voxels in store + voxels of reference); NaN if both are empty",
    ),
    Column("jaccard", "", "voxels in the intersection / voxels in the union; NaN if store and reference are empty"),
    Column("volume_ml", "mL", "volume in the store"),
    Column("reference_ml", "mL", "volume of the reference"),
    Column(
        "volume_difference_percent", "%", "(volume in the store - volume of the reference) / volume of the reference"
    ),
    Column(
        "asd_mm",
        "mm",
        "mean distance of the surface voxels of each mask from the other surface; NaN if a mask is empty",
    ),
    Column("hd95_mm", "mm", "95th percentile of these distances, linear interpolation"),
    Column("hd_mm", "mm", "largest of these distances"),
    Column(
        "surface_dice_1mm", "", "share of the surface voxels of both masks that are at most 1 mm from the other surface"
    ),
    Column(
        "surface_dice_3mm", "", "share of the surface voxels of both masks that are at most 3 mm from the other surface"
    ),
    Column("sensitivity", "", "voxels in the intersection / voxels of the reference; NaN if the reference is empty"),
    Column("precision", "", "voxels in the intersection / voxels in the store; NaN if there are none in the store"),
    Column("worst_slice", "", "slice, from 0, with most voxels in only one of the two masks; -1 if they are equal"),
    Column("grid", "", "same, or resampled where the reference was on another grid"),
    _MADE_WITH[0],
    Column("model", "", "name and digest of the mixture of the labels; empty unless a tissue is compared"),
)
"""Columns of ``evaluation.csv``, one row per compared region of a case."""

EVALUATION_HU: tuple[Column, ...] = (
    Column("case", "", "name of the scan"),
    Column("region", "", "tissue, or lesion for all that count as involved"),
    Column("from_hu", "HU", "lowest value of the bin"),
    Column("to_hu", "HU", "highest value of the bin"),
    Column("reference_ml", "mL", "volume of the reference in the bin"),
    Column("sensitivity", "", "share of this volume that has the label in the store"),
)
"""Columns of ``evaluation_hu.csv``. It has one row per case, region and bin of HU in which the reference has voxels."""
