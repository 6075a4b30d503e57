"""Export of all cases of a cohort to one format; a failed case does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lungmix.callbacks import Callback, stage_events
from lungmix.cluster import map_bounded
from lungmix.errors import LungmixError, UsageError, count_of, reason_of, redact, reveal
from lungmix.export import pyradiomics
from lungmix.export.dicomweb import base_for_objects, store_case
from lungmix.export.formats import (
    DICOM,
    DICOM_SR,
    LABELS,
    PYRADIOMICS,
    Format,
    Options,
    check_options,
    export_case,
    find_format,
    format_of,
    holds_no_image,
    image_of,
)
from lungmix.export.images import check_image, made_with, segments_in
from lungmix.formats.dicomweb.connect import open_server
from lungmix.stages.measure import excluded_regions
from lungmix.store import Cohort
from lungmix.store.models import model_use
from lungmix.store.patients import first_scans
from lungmix.store.schema import REGISTERED_MAPS

# Slabs are compressed in parallel; the elements of DICOM segmentations are made by one thread at a time anyway.
_PARALLEL_CASES = 2


@dataclass
class Exported:
    """Result of an export.

    Attributes
    ----------
    files : dict of str to list of Path
        Written files of each case.
    failed : dict of str to str
        Reason for each case that was not written; without file names, which may name patients.
    messages : dict of str to str
        The reasons in `failed` with file names, for the person at the terminal.
    stored : dict of str to int
        Number of objects of each case that a DICOMweb server has taken.
    tables : list of Path
        Tables with the rows of all cases.
    made_with : dict of str to dict
        Parameters of mask and labels of each case; see `lungmix.export.images.made_with`.
    warnings : list of str
        Warnings that cases of the store differ in model or preset, if the image depends on these.
    errors : dict of str to Exception
        Exception of each case in `failed`, for debugging.
    """

    files: dict[str, list[Path]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)
    made_with: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    errors: dict[str, Exception] = field(default_factory=dict)


def export_one(
    cohort: Cohort,
    name: str,
    path: Path,
    image: str | None = None,
    format: str | None = None,
    options: Options | None = None,
) -> Exported:
    """Write one case of a cohort, and return the result; see `lungmix.export.export_case`."""
    case = cohort.case(name)
    out = Exported(
        {name: export_case(case, path, image, format, _measured_as(cohort, format_of(path, format), options))}
    )
    _add_models(cohort, out, image_of(path, image, format))
    return out


def export_cohort(
    cohort: Cohort,
    folder: Path,
    format: str,
    image: str | None = None,
    options: Options | None = None,
    callback: Callback | None = None,
) -> Exported:
    """Write all cases into a folder, as ``CASE_IMAGE.EXTENSION``.

    Parameters
    ----------
    cohort : Cohort
        Cohort to export.
    folder : Path
        Folder of the files; created if it does not exist.
    format : str
        Name of one of `lungmix.export.FORMATS`. ``pyradiomics`` writes one table for all cases.
    image : str, optional
        Image to write; by default the CT, or the labels ``tissue`` if the format holds labels only.
    options : Options, optional
        Options of DICOM segmentations.
    callback : Callback, optional
        Receives progress.

    Raises
    ------
    UsageError
        If the format is unknown, or cannot hold the image.
    """
    progress = callback or Callback()
    target = find_format(format)
    check_options(target, options or Options())
    given = _measured_as(cohort, target, options)
    if image is not None:
        # Before any file is written.
        _check_image_for(target, image)
    image_name = image or (LABELS if target.labels else "ct")
    names, remarks = _cases_to_write(cohort, image_name)
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[pyradiomics.Row]] = {}
    out = Exported()

    def write(name: str) -> list[Path]:
        if target.name == PYRADIOMICS:
            rows[name] = pyradiomics.write_images(cohort[name], folder, image_name)
            return [folder / file for file in pyradiomics.files_of(rows[name])]
        return target.write(
            cohort[name], folder / f"{name}_{target.content or image_name}{target.extension}", image_name, given
        )

    _export_cases(names, write, 1 if target.name in DICOM else _PARALLEL_CASES, out, progress)
    if target.name == PYRADIOMICS:
        table = folder / pyradiomics.TABLE_FILE
        pyradiomics.write_table(table, [row for name in sorted(rows) for row in rows[name]])
        out.tables.append(table)
    _add_models(cohort, out, image_name)
    out.warnings += remarks
    return out


def store_cohort(
    cohort: Cohort,
    address: str,
    format: str,
    image: str | None = None,
    options: Options | None = None,
    callback: Callback | None = None,
    cases: Sequence[str] = (),
) -> Exported:
    """Send cases to a DICOMweb server as DICOM objects (STOW-RS).

    Objects that refer to the original series get the attributes of the patient and the study that the server has.

    Parameters
    ----------
    cohort : Cohort
        Cohort to export.
    address : str
        ``dicomweb+https://HOST/PATH``.
    format : {"dicom-seg", "dicom-sr", "dicom-ko"}
        Format of the objects.
    image : str, optional
        Labels to write as a segmentation; by default ``tissue``.
    options : Options, optional
        Options of DICOM segmentations.
    callback : Callback, optional
        Receives progress.
    cases : sequence of str
        Names of the cases; by default all.

    Raises
    ------
    UsageError
        If the address or the format is not suitable.
    """
    target = find_format(format)
    given = _measured_as(cohort, target, options)
    base = base_for_objects(address, target, options or Options())
    if image is not None:
        _check_image_for(target, image)
    for name in cases:
        cohort.case(name)
    image_name = image or LABELS
    out = Exported()
    with open_server(base) as server:

        def send(name: str) -> list[Path]:
            out.stored[name] = store_case(server, cohort[name], target, image_name, given)
            return []

        _export_cases(list(cases) or sorted({*cohort, *cohort.damaged}), send, 1, out, callback or Callback())
    _add_models(cohort, out, image_name)
    return out


def _check_image_for(target: Format, image: str) -> None:
    """Raise errors about an image that concern all cases."""
    check_image(image)
    if target.labels:
        segments_in(image)
    if target.content:
        raise holds_no_image(target)


def _cases_to_write(cohort: Cohort, image: str) -> tuple[list[str], list[str]]:
    """Return the cases that can have an image, and a remark on the others.

    Raises
    ------
    UsageError
        If the image belongs to later scans of patients, and the store knows none.
    """
    names = sorted({*cohort, *cohort.damaged})
    if image not in REGISTERED_MAPS:
        return names, []
    later = first_scans(cohort).keys() | cohort.damaged.keys()
    chosen = [name for name in names if name in later]
    if not chosen:
        raise UsageError(
            f"the image {image!r} belongs to later scans of patients, and the store knows none: give a table of "
            'patients, `Pipeline.followup("patients.csv", register="deformable")`'
        )
    others = len(names) - len(chosen)
    remark = f"{count_of(others, 'case')} without the image {image!r}, which only later scans of patients have"
    return chosen, [remark] if others else []


def _measured_as(cohort: Cohort, target: Format, options: Options | None) -> Options:
    """Return options with the regions that the tables of a store exclude, for a format of measurements."""
    given = options or Options()
    return replace(given, excluded=tuple(excluded_regions(cohort))) if target.name == DICOM_SR else given


def _add_models(cohort: Cohort, out: Exported, image: str) -> None:
    out.made_with = {name: made_with(cohort[name], image) for name in out.files}
    if any(out.made_with.values()):
        out.warnings = model_use(cohort).warnings()


def _export_cases(
    names: list[str], write: Callable[[str], list[Path]], parallel_cases: int, out: Exported, callback: Callback
) -> None:
    with stage_events(callback, "export", names):
        for outcome in map_bounded(names, write, parallel_cases):
            if outcome.error is None:
                out.files[outcome.item] = outcome.result or []
                callback.on_case_end(outcome.item)
            else:
                if isinstance(outcome.error, LungmixError):
                    outcome.error.case = outcome.error.case or outcome.item
                reason = reason_of(outcome.error)
                out.failed[outcome.item], out.messages[outcome.item] = redact(reason), reveal(reason)
                out.errors[outcome.item] = outcome.error
                callback.on_case_end(outcome.item, reason)
