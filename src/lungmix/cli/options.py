"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from lungmix.cli.redaction import remember_store
from lungmix.errors import UsageError

_STORE = typer.Argument(help="Folder of the cohort, or s3://BUCKET/PREFIX.", metavar="STORE", callback=remember_store)
Store = Annotated[str, _STORE]
StoreIfAny = Annotated[str | None, _STORE]
NewStore = Annotated[
    str,
    typer.Argument(
        help="Folder of the cohort, or s3://BUCKET/PREFIX; created if it does not exist.",
        metavar="STORE",
        callback=remember_store,
    ),
]
OptionalStore = Annotated[str | None, _STORE]
Sources = Annotated[
    list[str],
    typer.Argument(
        help="DICOM folder, .nrrd .nhdr .mha .mhd .nii .nii.gz file, .zip or .tar archive, or a text or CSV list; "
        "or s3://BUCKET/PREFIX for any of these; or dicomweb+https://HOST/PATH for studies on a DICOMweb server.",
        metavar="SOURCE...",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Rules of the mask: 'anatomical' (without trachea, with dense lung), 'physical' (sizes in mm and mL) or "
        "'paper' (sizes in voxels, as published); by default as in the last run on STORE, or 'anatomical'."
    ),
]
Threshold = Annotated[
    int | None, typer.Option(help="HU below which a voxel is air; by default -300, or -155 with paper and physical.")
]
Opening = Annotated[
    int | None, typer.Option(help="Iterations of the opening, for paper and physical; by default as in the preset.")
]
MinVoxels = Annotated[
    int | None,
    typer.Option(
        help="Smallest component that is lung, in voxels, for paper and physical; by default as in the preset."
    ),
]
Radii = Annotated[
    list[int] | None,
    typer.Option("--radius", help="Radius of a closing in voxels, for paper and physical; repeat for several."),
]
AcceptHu = Annotated[
    bool,
    typer.Option(
        "--accept-hu",
        help="Also make masks of scans whose values are not HU of a chest CT, such as clipped ones; fits exclude "
        "these scans.",
    ),
]
Masks = Annotated[
    str | None,
    typer.Option(
        help="Take the lungs from files: a folder, file, archive, table or s3:// address with NRRD, .seg.nrrd, NIfTI, "
        "MetaImage, DICOM SEG or RTSTRUCT, matched to scans by UIDs, table or name; one file per scan, or one per lung "
        "or lobe. Masks from files or a segmenter are kept; 'none' replaces them by computed masks.",
        metavar="PLACE",
    ),
]
MaskLabels = Annotated[
    str | None,
    typer.Option(
        help="Labels of the mask files, as numbers or names: right=1,left=2, lung=1 or right-upper=1,...; by default "
        "by names in the files.",
        metavar="REGION=LABEL,...",
    ),
]
MaskWith = Annotated[
    str | None,
    typer.Option(
        help="Make the masks by a segmenter: lungmask, lungmask-lobes, or one that another package adds.",
        metavar="NAME",
    ),
]
MaskWeights = Annotated[
    Path | None,
    typer.Option(
        help="Weights of the segmenter, on a disk that all workers read; by default those in its cache.", metavar="FILE"
    ),
]
MaskDevice = Annotated[
    str | None,
    typer.Option(help="Device of the segmenter, such as cuda on workers with a graphics card; cpu by default."),
]
Model = Annotated[str, typer.Option(help="'fit' a mixture to this cohort, take the 'published' one, or a FILE.json.")]
LastModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="'fit' a mixture to this cohort, take the 'published' one, or a FILE.json; by default as in the last run "
        "on STORE, or 'fit'.",
    ),
]
StudyComponents = Annotated[int, typer.Option("--components", help="Number of Gaussians of a fitted mixture.")]
Yes = Annotated[bool, typer.Option("--yes", help="Recompute results with other parameters without asking.")]
Components = Annotated[
    int | None, typer.Option(help="Number of Gaussians of a fitted mixture; by default as in the last fit, or 5.")
]
SeveralComponents = Annotated[
    str | None,
    typer.Option(
        "--components",
        help="Number of Gaussians. Several numbers, such as 2-8 or 3,5,7, print a table of BIC and store nothing.",
    ),
]
Fit = Annotated[
    str | None,
    typer.Option(
        "--fit",
        help="The fit that labels the voxels: 'paper', 'converged' or 'anchored'; by default as in the last run, or "
        "'anchored'. All three are stored.",
    ),
]
Prior = Annotated[
    str | None,
    typer.Option(
        help="Mixture at the centre of the prior of the fit 'anchored': 'published', or a FILE.json; by default as in "
        "the last fit, or 'published'.",
        metavar="published|FILE.json",
    ),
]
PriorStrength = Annotated[
    float | None,
    typer.Option(
        help="Weight of the prior, as a fraction of the number of voxels, 0 or more; by default as in the last fit, or "
        "0.05.",
        metavar="SHARE",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        help="How the fit 'paper' is computed: from the histograms of cases, 'counts' (the default), or by EM over "
        "voxels on the cluster, 'em' or 'minibatch'. The other fits always use histograms."
    ),
]
Smooth = Annotated[
    str | None,
    typer.Option(
        help="'potts' also makes the label map tissue_potts, of labels that agree with their neighbours; 'none' makes "
        "none; by default as in the last run on STORE, or 'none'.",
        metavar="potts|none",
    ),
]
Beta = Annotated[
    float | None,
    typer.Option(
        help="With --smooth potts: strength of the prior, 0 to 10; by default it is estimated for each case.",
        metavar="NUMBER",
    ),
]
Harmonise = Annotated[
    str | None,
    typer.Option(
        help="Pool, label and measure harmonised HU, which an image of its own holds: 'air-blood' (linear, by tracheal "
        "air and aortic blood), 'kernel' (frequency bands as of a soft reconstruction kernel), or both, "
        "'air-blood,kernel'; 'none' uses the HU of the scans; by default as in the last run on STORE, or 'none'.",
        metavar="METHODS|none",
    ),
]
KernelReference = Annotated[
    str | None,
    typer.Option(
        help="With --harmonise kernel: standard deviations in the lungs of the bands up to 1 mm and from 1 to 2 mm "
        "that scans are brought to, in HU.",
        metavar="HU,HU",
    ),
]
Zones = Annotated[
    str | None,
    typer.Option(
        help="Divide each lung into thirds, halves, core and peel and measure these zones in zones.csv: thirds and "
        "halves of equal 'volume' or 'height', or cut by planes common to both lungs ('volume-common'); 'none' "
        "deletes zones; by default as in the last run on STORE, "
        "or 'none'.",
        metavar="volume|height|volume-common|none",
    ),
]
ZonesBy = Annotated[
    str | None,
    typer.Option(
        "--by",
        help="Thirds and halves of a lung have equal 'volume' or 'height', or are cut by planes common to both lungs "
        "('volume-common'); 'none' deletes the zones; by default as in the last run on STORE, or 'volume'.",
        metavar="volume|height|volume-common|none",
    ),
]
ExcludeFlagged = Annotated[
    bool | None,
    typer.Option(
        "--exclude-flagged/--pool-flagged",
        help="Fit without cases that quality control flags, or with them; by default as in the last fit, or with them.",
        show_default=False,
    ),
]
AsPublished = Annotated[
    bool,
    typer.Option(
        "--as-published",
        help="The whole method as in the publication: preset and fit 'paper', whatever the last run had. No other "
        "option of masks or fits can be given with it.",
    ),
]
Pool = Annotated[
    str | None,
    typer.Option(
        help="Voxels that the fits 'converged' and 'anchored' pool: the whole 'mask', or 'lungs', without airway and "
        "what a mask holds outside the lungs; by default as in the last fit, or 'mask'.",
        metavar="mask|lungs",
    ),
]
Weigh = Annotated[
    str | None,
    typer.Option(
        help="What counts alike in the fits 'converged' and 'anchored': 'voxels', or 'scans', however many slices they "
        "have; by default as in the last fit, or 'voxels'.",
        metavar="voxels|scans",
    ),
]
QcThreshold = Annotated[
    list[str] | None,
    typer.Option(
        "--qc-threshold",
        help="Threshold of a flag of quality control: noise=60, noise=default, or cut_end=inf to switch it off; "
        "repeat for several flags. STORE remembers the thresholds.",
        metavar="FLAG=NUMBER",
    ),
]
Cases = Annotated[list[str] | None, typer.Option("--cases", help="Fit to these cases only.", metavar="CASE...")]
LeaveOut = Annotated[list[str] | None, typer.Option("--leave-out", help="Fit without these cases.", metavar="CASE...")]
FigureFile = Annotated[
    Path | None,
    typer.Option("--figure", help="Plot the fits over the histogram, as FILE.png and FILE.svg.", metavar="FILE"),
]
StudyDir = Annotated[Path, typer.Option("--out", help="Folder for the table and the figure.", metavar="DIR")]
Seed = Annotated[int, typer.Option(help="Seed of the random draws.", min=0)]
Scheduler = Annotated[str | None, typer.Option(help="Address of a dask scheduler, such as tcp://host:8786.")]
SchedulerFile = Annotated[Path | None, typer.Option(help="File that a dask scheduler wrote.")]
Workers = Annotated[int | None, typer.Option("--workers", "-j", help="Processes of the local cluster.")]
MemoryLimit = Annotated[str | None, typer.Option(help="Memory of each local process, such as 2GB.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait while another run writes to STORE, instead of failing.")]
LogFile = Annotated[Path | None, typer.Option("--log", help="Append events as JSON, one per line.")]
PerformanceReport = Annotated[
    Path | None,
    typer.Option(help="Write dask's report of tasks, workers and memory as a page.", metavar="FILE.html"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings, but no progress.")]
SeriesFilter = Annotated[
    str,
    typer.Option(
        help="DICOM series to use: 'thinnest' (of several axial reconstructions of one acquisition, the one with the "
        "thinnest slices), 'all' (every CT series), or conditions such as kernel=B70*,thickness<=1.5 on kernel, "
        "thickness, spacing, slices, number, kvp, manufacturer, model, orientation, type.",
        metavar="FILTER",
    ),
]
AllowGaps = Annotated[
    bool, typer.Option("--allow-gaps", help="Interpolate missing and unevenly spaced slices, with a note.")
]
TrustPositions = Annotated[
    bool, typer.Option("--trust-positions", help="Use positions of slices even if other attributes contradict them.")
]
ChunkSlices = Annotated[
    int | None,
    typer.Option(
        help="Slices of a stored chunk: 8, 16, 32 or 64, by default up to 64. Cases with other chunks are recomputed.",
        metavar="N",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-table",
        help="Write a table, outside the store and readable by you alone, of which case belongs to which patient.",
        metavar="FILE.csv",
    ),
]
ReadKey = Annotated[
    Path | None,
    typer.Option(
        "--key-table", help="Key table, if tables name files or patients in place of cases.", metavar="FILE.csv"
    ),
]
KeepNames = Annotated[
    bool,
    typer.Option("--keep-names", help="Name cases after their files or folders; only for names that identify nobody."),
]
RetainPatient = Annotated[
    bool,
    typer.Option("--retain-patient-characteristics", help="Keep sex and age, ages over 89 as 90."),
]
ShiftDates = Annotated[
    bool,
    typer.Option(
        "--shift-dates",
        help="Keep study dates, shifted by a number of days that only the key table of --key-table holds.",
    ),
]
ReportDir = Annotated[Path | None, typer.Option("--report", help="Write an HTML report into this folder.")]


RENAMED = {"key": "key-table", "withdraw": "invalidate", "times": "resamplings", "share": "fraction"}
"""Present spellings by earlier spellings of options, which still work but are not listed in help."""


def example(*texts: str) -> Callable[[Any], Any]:
    """Decorate a command: add examples to its help."""

    def decorate(function: Any) -> Any:
        lines = "\n\n".join(f"    {text}" for text in texts)
        function.__doc__ = f"{function.__doc__ or ''}\n\nExample:\n\n{lines}"
        return function

    return decorate


class ManyCases(TyperCommand):
    """Command whose options ``--cases`` and ``--leave-out`` take several names, as in ``--cases a b c``.

    After STORE, such an option takes all words up to the next option. Before STORE it takes one word only.
    """

    _MANY = ("--cases", "--leave-out")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments; before that, repeat the option for each name, as click needs: ``--cases a --cases b``."""
        words: list[str] = []
        option, store = "", False
        for word in args:
            if word.startswith("-"):
                option = word if word in self._MANY else ""
                words.append(word)
            elif option and words[-1] == option:
                words.append(word)
            elif option and store:
                words += [option, word]
            else:
                store = store or not words or not words[-1].startswith("-")
                words.append(word)
        return super().parse_args(ctx, words)


def parse_reference(text: str | None) -> list[float] | None:
    """Return the numbers in a text such as ``38.5,43.6``; None without a text.

    Raises
    ------
    UsageError
        If the text has another form.
    """
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--kernel-reference {text} is not understood: write two numbers, such as 38.5,43.6") from None


def parse_cuts(text: str) -> list[float]:
    """Return the numbers in a text such as ``50,70``.

    Raises
    ------
    UsageError
        If the text has another form.
    """
    try:
        cuts = [float(part) for part in text.split(",")]
    except ValueError:
        cuts = []
    if not cuts or not all(map(math.isfinite, cuts)):
        raise UsageError(f"--cut {text} is not understood: write one number or several, such as 50,70")
    return cuts


def parse_numbers(text: str, option: str) -> list[int]:
    """Return the numbers in a text such as ``5``, ``2-8``, ``3,5,7`` or ``2-4,7``, in ascending order.

    Raises
    ------
    UsageError
        If the text has another form.
    """
    numbers: set[int] = set()
    try:
        for part in text.split(","):
            first, _, last = part.strip().partition("-")
            numbers.update(range(int(first), int(last or first) + 1))
    except ValueError:
        numbers.clear()
    if not numbers:
        raise UsageError(f"{option} {text} is not understood: write 5, 2-8 or 3,5,7")
    return sorted(numbers)
