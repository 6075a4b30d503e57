"""Every case of a cohort as files of one format; a case that fails does not end the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lungmix.callbacks import Callback
from lungmix.cluster import map_bounded
from lungmix.errors import reason_of, redact, reveal
from lungmix.export import pyradiomics
from lungmix.export.images import check_image, made_with, segments_in
from lungmix.export.targets import (
    DICOM_SEG,
    LABELS,
    PYRADIOMICS,
    Options,
    check_options,
    export_case,
    image_of,
    named_format,
)
from lungmix.store import Cohort
from lungmix.store.models import model_use

# Slabs are compressed side by side; a DICOM segmentation holds all labels of a case in memory.
_SIDE_BY_SIDE = 2


@dataclass
class Exported:
    """What an export of many cases wrote.

    Attributes
    ----------
    files : dict of str to list of Path
        By case.
    failed : dict of str to str
        Reason for every case that was not written, without names of files.
    told : dict of str to str
        The same with names, for the person at the terminal.
    tables : list of Path
        What was written for all cases together.
    made_with : dict of str to dict
        By case: preset of the mask and mixture of the labels; see `lungmix.export.images.made_with`.
    warnings : list of str
        Disagreements between models or presets of the store, where they matter to the image.
    errors : dict of str to Exception
        The errors behind `failed`, for debugging.
    """

    files: dict[str, list[Path]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
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
    """Write one case of a cohort; parameters and errors are those of `lungmix.export.export_case`."""
    case = cohort.case(name)
    out = Exported({name: export_case(case, path, image, format, options)})
    _state_models(cohort, out, image_of(path, image, format))
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
        What to write.
    folder : Path
        Made if need be.
    format : str
        A name of `lungmix.export.FORMATS`. ``pyradiomics`` writes one table for all cases.
    image : str, optional
        By default the CT, or the labels ``tissue`` where the format is one for labels.
    options : Options, optional
        For DICOM.
    callback : Callback, optional
        Hears of progress.

    Raises
    ------
    UsageError
        If the format, or the image in this format, is not written.
    """
    hears = callback or Callback()
    chosen = named_format(format)
    check_options(chosen, options or Options())
    if image is not None:
        # What is wrong for all cases is said before any is written.
        check_image(image)
        if chosen.labels:
            segments_in(image)
    wanted = image or (LABELS if chosen.labels else "ct")
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[pyradiomics.Row]] = {}
    out = Exported()

    def write(name: str) -> list[Path]:
        if chosen.name == PYRADIOMICS:
            rows[name] = pyradiomics.write_images(cohort[name], folder, wanted)
            return [folder / file for file in pyradiomics.files_of(rows[name])]
        return chosen.write(cohort[name], folder / f"{name}_{wanted}{chosen.extension}", wanted, options or Options())

    _pass(sorted({*cohort, *cohort.damaged}), write, 1 if chosen.name == DICOM_SEG else _SIDE_BY_SIDE, out, hears)
    if chosen.name == PYRADIOMICS:
        table = folder / pyradiomics.TABLE_FILE
        pyradiomics.write_table(table, [row for name in sorted(rows) for row in rows[name]])
        out.tables.append(table)
    _state_models(cohort, out, wanted)
    return out


def _state_models(cohort: Cohort, out: Exported, image: str) -> None:
    out.made_with = {name: made_with(cohort[name], image) for name in out.files}
    if any(out.made_with.values()):
        out.warnings = model_use(cohort).warnings(cohort.url)


def _pass(
    names: list[str], write: Callable[[str], list[Path]], side_by_side: int, out: Exported, callback: Callback
) -> None:
    callback.on_begin("export", names)
    try:
        for outcome in map_bounded(names, write, side_by_side):
            if outcome.error is None:
                out.files[outcome.item] = outcome.result or []
                callback.on_case_end(outcome.item)
            else:
                reason = reason_of(outcome.error)
                out.failed[outcome.item], out.told[outcome.item] = redact(reason), reveal(reason)
                out.errors[outcome.item] = outcome.error
                callback.on_case_end(outcome.item, reason)
    finally:
        callback.on_end()
