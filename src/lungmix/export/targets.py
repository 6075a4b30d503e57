"""The formats of an export by name, and one case as a file of one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lungmix.errors import UsageError
from lungmix.export import itksnap, pyradiomics, slicer
from lungmix.export.images import export_image, image_in_name
from lungmix.formats import Scan
from lungmix.store import Case

DICOM_SEG = "dicom-seg"
PYRADIOMICS = "pyradiomics"

LABELS = "tissue"
"""The image of a format for labels, where nothing else is said."""


@dataclass(frozen=True)
class Options:
    """What a DICOM segmentation refers to, and how it is stored.

    Attributes
    ----------
    series : tuple of Scan
        DICOM series to look for the original one among.
    with_ct : bool
        Write an anonymous series of the CT and refer to that.
    binary : bool
        Bit-planes in place of a label map.
    retain_uid : bool
        Whether the identifiers of the original series, which lead to its patient, may be written. A reference to it
        needs them.
    """

    series: tuple[Scan, ...] = ()
    with_ct: bool = False
    binary: bool = False
    retain_uid: bool = False


def options_for(
    sources: Sequence[str | Path] = (), *, with_ct: bool = False, binary: bool = False, retain_uid: bool = False
) -> Options:
    """Options with the DICOM series that folders or archives hold.

    Raises
    ------
    UsageError
        If the original series may not be referred to, for its identifiers lead to its patient.
    SourceError
        If there is none.
    """
    if not sources:
        return Options((), with_ct, binary, retain_uid)
    _check_reference(retain_uid)
    from lungmix.export.dicom_source import find_series

    return Options(tuple(find_series(sources)), with_ct, binary, retain_uid)


def _check_reference(retain_uid: bool) -> None:
    if not retain_uid:
        raise UsageError(
            "a reference to the original series writes its identifiers, which lead to its patient: say so with "
            "--retain-uid, or take --with-ct, which writes an anonymous series"
        )


Write = Callable[[Case, Path, str, Options], list[Path]]


@dataclass(frozen=True)
class Format:
    """A kind of file that a case can be written as.

    Attributes
    ----------
    name : str
        What people call it on the command line.
    extension : str
        Of its file.
    labels : bool
        Whether it holds labels and no CT.
    write : callable
        ``write(case, path, image, options)`` gives the files that it wrote.
    """

    name: str
    extension: str
    labels: bool
    write: Write


def _plain(write: Callable[[Case, Path, str], list[Path]]) -> Write:
    return lambda case, path, image, _: write(case, path, image)


def _image(case: Case, path: Path, image: str, _: Options) -> list[Path]:
    return [export_image(case, path, image)]


def _dicom_seg(case: Case, path: Path, image: str, options: Options) -> list[Path]:
    # Loads slowly, and most exports need none of it.
    from lungmix.export.dicom_seg import write_seg

    return write_seg(case, path, image, series=options.series, with_ct=options.with_ct, binary=options.binary)


FORMATS = {
    one.name: one
    for one in (
        *(Format(name, f".{name}", False, _image) for name in ("nrrd", "nii.gz", "nii", "mha", "mhd")),
        Format("seg.nrrd", ".seg.nrrd", True, _plain(slicer.write_segmentation)),
        Format("slicer-colors", ".nii.gz", True, _plain(slicer.write_with_colors)),
        Format("itk-snap", ".nii.gz", True, _plain(itksnap.write_with_descriptions)),
        Format(DICOM_SEG, ".dcm", True, _dicom_seg),
        Format(PYRADIOMICS, ".csv", True, _plain(pyradiomics.write_batch)),
    )
}


def named_format(name: str) -> Format:
    """The format of this name.

    Raises
    ------
    UsageError
        Which lists the formats that there are.
    """
    if name not in FORMATS:
        raise UsageError(f"there is no format {name!r}: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def check_options(chosen: Format, options: Options) -> None:
    """Refuse options that the format has no use for, or lacks.

    Raises
    ------
    UsageError
        Which says what to give.
    """
    if chosen.name != DICOM_SEG:
        if options != Options():
            raise UsageError(
                f"--source, --with-ct, --binary and --retain-uid are for {DICOM_SEG}: leave them out for {chosen.name}"
            )
    elif bool(options.series) == options.with_ct:
        raise UsageError(
            "a DICOM segmentation refers to CT slices: give either --source FOLDER with the original series, or "
            "--with-ct, which writes an anonymous series beside it"
        )
    elif options.series:
        _check_reference(options.retain_uid)


def format_of(path: Path, name: str | None = None) -> Format:
    """The format that is asked for by name, or else by the extension of a file.

    Raises
    ------
    UsageError
        If there is no such format, or the file's extension is that of another.
    """
    if name is not None:
        chosen = named_format(name)
        if not path.name.lower().endswith(chosen.extension):
            raise UsageError(f"{path.name} is not a name for {name}: let it end with {chosen.extension}")
        return chosen
    by_length = sorted(FORMATS.values(), key=lambda one: len(one.extension), reverse=True)
    for one in by_length:
        if path.name.lower().endswith(one.extension) and one.name not in ("slicer-colors", "itk-snap"):
            return one
    raise UsageError(
        f"{path.name} has no extension that is written: use .nrrd, .nii, .nii.gz, .mha, .mhd, .seg.nrrd, .dcm, .csv, "
        f"or name a --format: {', '.join(FORMATS)}"
    )


def export_case(
    case: Case, path: str | Path, image: str | None = None, format: str | None = None, options: Options | None = None
) -> list[Path]:
    """Write a case as a file, and what belongs beside it.

    Parameters
    ----------
    case : Case
        From a cohort.
    path : str or Path
        The file.
    image : str, optional
        ``ct``, ``lung``, ``side``, ``tissue`` or ``tissue_median``; by default what the file's name says, else the
        CT, or the labels ``tissue`` where the format is one for labels.
    format : str, optional
        A name of `FORMATS`; by default what the extension says.
    options : Options, optional
        For DICOM.

    Returns
    -------
    list of Path
        The files; the first one is `path`.

    Raises
    ------
    UsageError
        If the format, or the image in this format, is not written.
    StoreError
        If the case has no such image yet.
    """
    path = Path(path)
    chosen = format_of(path, format)
    check_options(chosen, options or Options())
    return chosen.write(case, path, image_of(path, image, format), options or Options())


def image_of(path: Path, image: str | None = None, format: str | None = None) -> str:
    """Return the image that `export_case` writes; parameters are those of it."""
    return image or image_in_name(path, LABELS if format_of(path, format).labels else "ct")
