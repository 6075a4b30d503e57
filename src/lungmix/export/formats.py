"""File formats of an export, and the export of one case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lungmix.atomic import atomic_file
from lungmix.errors import UsageError
from lungmix.export import pyradiomics
from lungmix.export.images import export_image, image_in_name, segments_in
from lungmix.export.itksnap import label_descriptions
from lungmix.export.slicer import color_table, write_segmentation
from lungmix.formats import Scan
from lungmix.formats.images import extension_of
from lungmix.store import Case
from lungmix.tissue import Tissue

DICOM_SEG = "dicom-seg"
DICOM_SR = "dicom-sr"
DICOM_KO = "dicom-ko"
DICOM = (DICOM_SEG, DICOM_SR, DICOM_KO)
"""Formats of DICOM objects, which refer to the slices of a CT."""
PYRADIOMICS = "pyradiomics"

LABELS = "tissue"
"""Image that is written by default in formats for labels."""


@dataclass(frozen=True)
class Options:
    """Options of DICOM segmentations and structured reports.

    Attributes
    ----------
    series : tuple of Scan
        DICOM series, one of which is the original series that the segmentation or the report is to refer to.
    with_ct : bool
        True to write an anonymous series of the CT, and refer to that.
    binary : bool
        True to write one bit-plane per segment instead of a label map.
    retain_uid : bool
        True to write the identifiers of the original series, which a reference to it needs. The patient can be found
        by them.
    excluded : tuple of Tissue
        Regions of the mask that do not count as lung in the tables of the store.
    """

    series: tuple[Scan, ...] = ()
    with_ct: bool = False
    binary: bool = False
    retain_uid: bool = False
    excluded: tuple[Tissue, ...] = ()


def options_for(
    sources: Sequence[str | Path] = (), *, with_ct: bool = False, binary: bool = False, retain_uid: bool = False
) -> Options:
    """Return the options of DICOM segmentations, with all DICOM series in `sources` (folders or archives).

    Raises
    ------
    UsageError
        If sources are given without `retain_uid`, which allows to write identifiers of the series.
    SourceError
        If the sources hold no DICOM series.
    """
    if not sources:
        return Options((), with_ct, binary, retain_uid)
    _check_reference(retain_uid)
    from lungmix.export.dicom_source import find_series

    return Options(tuple(find_series(sources)), with_ct, binary, retain_uid)


def _check_reference(retain_uid: bool) -> None:
    if not retain_uid:
        raise UsageError(
            "a reference to the original series contains its identifiers, by which the patient can be found: give "
            "`retain_uid=True` to allow this, or `with_ct=True`, which writes an anonymous series"
        )


Write = Callable[[Case, Path, str, Options], list[Path]]


@dataclass(frozen=True)
class Format:
    """A file format of an export.

    Attributes
    ----------
    name : str
        Name on the command line.
    extension : str
        Extension of files in this format.
    labels : bool
        True if the format holds labels only, no CT.
    write : callable
        ``write(case, path, image, options)`` returns the written files.
    content : str
        What the files contain instead of an image, for their names; empty for formats of images.
    """

    name: str
    extension: str
    labels: bool
    write: Write
    content: str = ""


def _without_options(write: Callable[[Case, Path, str], list[Path]]) -> Write:
    return lambda case, path, image, _: write(case, path, image)


def _named_labels(ending: str, text_of: Callable[[tuple[Tissue, ...]], str]) -> Write:
    """Return a function that writes labels as an image, and next to it a text file with the names of the labels.

    Parameters
    ----------
    ending : str
        End of the name of the text file, in place of the extension of the image.
    text_of : callable
        Function of the segments that returns the text, in the format of the program that reads it.
    """

    def write(case: Case, path: Path, image: str, _: Options) -> list[Path]:
        text = text_of(segments_in(image))
        text_file = path.with_name(path.name[: -len(extension_of(path) or "")] + ending)
        export_image(case, path, image)
        with atomic_file(text_file) as out:
            out.write(text.encode())
        return [path, text_file]

    return write


def _image(case: Case, path: Path, image: str, _: Options) -> list[Path]:
    return [export_image(case, path, image)]


def _dicom_seg(case: Case, path: Path, image: str, options: Options) -> list[Path]:
    # highdicom is slow to import, and other formats do not need it.
    from lungmix.export.dicom_seg import write_seg

    return write_seg(case, path, image, series=options.series, with_ct=options.with_ct, binary=options.binary)


def _dicom_sr(case: Case, path: Path, image: str, options: Options) -> list[Path]:
    from lungmix.export.dicom_sr import write_report

    return write_report(
        case, path, series=options.series, with_ct=options.with_ct, binary=options.binary, excluded=options.excluded
    )


def _dicom_ko(case: Case, path: Path, image: str, options: Options) -> list[Path]:
    from lungmix.export.dicom_ko import write_key_slices

    return write_key_slices(case, path, series=options.series, with_ct=options.with_ct)


FORMATS = {
    target.name: target
    for target in (
        *(Format(name, f".{name}", False, _image) for name in ("nrrd", "nii.gz", "nii", "mha", "mhd")),
        Format("seg.nrrd", ".seg.nrrd", True, _without_options(write_segmentation)),
        Format("slicer-colors", ".nii.gz", True, _named_labels("_colors.csv", color_table)),
        Format("itk-snap", ".nii.gz", True, _named_labels("_labels.txt", label_descriptions)),
        Format(DICOM_SEG, ".dcm", True, _dicom_seg),
        Format(DICOM_SR, ".dcm", True, _dicom_sr, content="measurements"),
        Format(DICOM_KO, ".dcm", True, _dicom_ko, content="key-slices"),
        Format(PYRADIOMICS, ".csv", True, _without_options(pyradiomics.write_batch)),
    )
}
"""Formats by name. A file has the first format with its extension, unless the user names another format."""


def find_format(name: str) -> Format:
    """Return the format with a name.

    Raises
    ------
    UsageError
        If there is no such format; the message lists all formats.
    """
    if name not in FORMATS:
        raise UsageError(f"there is no format {name!r}: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def check_options(target: Format, options: Options) -> None:
    """Raise `UsageError` if a format cannot use one of the options, or lacks an option that it needs."""
    if target.name not in DICOM:
        if options != Options():
            raise UsageError(
                f"`sources`, `with_ct`, `binary` and `retain_uid` are for {', '.join(DICOM)}: "
                f"omit them for {target.name}"
            )
    elif target.name == DICOM_KO and options.binary:
        raise UsageError(f"`binary` is for {DICOM_SEG} and {DICOM_SR}: omit it for {DICOM_KO}")
    elif bool(options.series) == options.with_ct:
        raise UsageError(
            "DICOM segmentations and reports refer to CT slices: give either `sources=FOLDER` with the original "
            "series, or `with_ct=True`, which writes an anonymous series beside it"
        )
    elif options.series:
        _check_reference(options.retain_uid)


def holds_no_image(target: Format) -> UsageError:
    """Return the error for an image that is given for a format of measurements."""
    return UsageError(
        f"{target.name} holds {target.content.replace('-', ' ')}, and writes or names the images that these refer to: "
        "omit `image`"
    )


def format_of(path: Path, name: str | None = None) -> Format:
    """Return the format called `name`; without a name, the format of the extension of `path`.

    Raises
    ------
    UsageError
        If there is no such format, or if the extension of `path` is not that of the format.
    """
    if name is not None:
        target = find_format(name)
        if not path.name.lower().endswith(target.extension):
            raise UsageError(f"{path.name} does not have the extension of {name}: use the extension {target.extension}")
        return target
    by_length = sorted(FORMATS.values(), key=lambda target: len(target.extension), reverse=True)
    for target in by_length:
        if path.name.lower().endswith(target.extension):
            return target
    extensions = dict.fromkeys(target.extension for target in FORMATS.values())
    raise UsageError(
        f"{path.name} has no supported extension: use {', '.join(extensions)}, or give a `format`: {', '.join(FORMATS)}"
    )


def export_case(
    case: Case, path: str | Path, image: str | None = None, format: str | None = None, options: Options | None = None
) -> list[Path]:
    """Write a case as a file, with the additional files of its format.

    Parameters
    ----------
    case : Case
        Case of a cohort.
    path : str or Path
        File to write.
    image : str, optional
        One of the images of `export_image`; by default the image that the file name contains, else the CT, or the
        labels ``tissue`` if the format holds labels only.
    format : str, optional
        Name of one of `FORMATS`; by default the format of the extension.
    options : Options, optional
        Options of DICOM segmentations.

    Returns
    -------
    list of Path
        The files; the first one is `path`.

    Raises
    ------
    UsageError
        If the format is unknown, or cannot hold the image.
    StoreError
        If the case has no such image yet.
    """
    path = Path(path)
    target = format_of(path, format)
    check_options(target, options or Options())
    return target.write(case, path, image_of(path, image, format), options or Options())


def image_of(path: Path, image: str | None = None, format: str | None = None) -> str:
    """Return the image that `export_case` writes for the same arguments.

    Raises
    ------
    UsageError
        If an image is given for a format of measurements.
    """
    target = format_of(path, format)
    if target.content and image is not None:
        raise holds_no_image(target)
    return image or image_in_name(path, LABELS if target.labels else "ct")
