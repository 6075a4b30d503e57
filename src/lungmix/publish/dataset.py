"""Publication of a cohort: write images on the workers, then tables and texts, check all, and write the sums last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client

from lungmix.callbacks import Callback, stage_events
from lungmix.cluster import map_bounded
from lungmix.errors import StoreError, UsageError, reason_of, redact, reveal
from lungmix.export.images import export_image
from lungmix.publish import folder as files
from lungmix.publish.about import About, license_file_text
from lungmix.publish.by_others import StoredLabels, labels_of, patients_of_cases
from lungmix.publish.check import check_dataset
from lungmix.publish.cohort_tables import cohort_tables, table_1_columns, table_1_texts
from lungmix.publish.croissant import croissant_text
from lungmix.publish.folder import ImageFile, Journal
from lungmix.publish.forms import (
    formats_of,
    has_sums,
    link_files,
    planned_images,
    remove_other_files,
    sums_of,
    write_folder,
)
from lungmix.publish.identifiers import identifiers_of
from lungmix.publish.metadata import write_metadata
from lungmix.publish.opening import OPENING_COLUMNS, opening_texts
from lungmix.publish.report import without_report, write_report
from lungmix.publish.sections import methods_of
from lungmix.publish.split import Split, SplitRule, check_patients, split_patients
from lungmix.publish.tables import Row, case_rows, csv_text, dictionary_rows, file_rows
from lungmix.publish.texts import changes_text, citation_text, description_of, readme_text, search_text
from lungmix.publish.versions import EarlierVersion, earlier_version, remove_replaced_files, start_publication
from lungmix.stages.relabelled import RelabelledRef
from lungmix.store import MODEL_FILE, Cohort
from lungmix.store.case_ref import CaseRef
from lungmix.store.schema import LABEL, LABEL_MAPS
from lungmix.webpage.overview import overview_of

_PARALLEL_CASES = 2
"""Cases in flight without a cluster."""


@dataclass
class Published:
    """Result of a publication.

    Attributes
    ----------
    folder : Path
        Folder of the data set.
    version : str
        Version of the data set.
    done : list of str
        Published cases.
    failed : dict of str to str
        Reason of each case that could not be written, without names of files.
    messages : dict of str to str
        The same reasons with names of files, for the terminal.
    absent : dict of str to str
        Reason for each case of the store that was left out, such as a case without labels.
    written, linked, kept : int
        Numbers of images that were written, that are those of the previous version, and that an earlier call wrote.
    problems : dict of str to list of str
        Problems that the check of the folder found, by file.
    accepted : dict of str to str
        Sum of the CT by case whose slices were accepted although they may have burned-in text.
    search : str
        Sentence about the search for identifiers.
    errors : dict of str to Exception
        The errors behind `failed`, for debugging.
    """

    folder: Path
    version: str
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    written: int = 0
    linked: int = 0
    kept: int = 0
    problems: dict[str, list[str]] = field(default_factory=dict)
    accepted: dict[str, str] = field(default_factory=dict)
    search: str = ""
    errors: dict[str, Exception] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """True if no case failed and the check found no problem, so that the folder has its sums."""
        return not self.failed and not self.problems


def publish(
    cohort: Cohort,
    folder: str | Path,
    about: About,
    *,
    client: Client | None = None,
    previous: str | Path | None = None,
    scores: Mapping[str, int] | None = None,
    key: Mapping[str, Mapping[str, str]] | None = None,
    split: SplitRule | None = None,
    accept_burned_in: Sequence[str] = (),
    leave_one_patient_out: bool | None = None,
    formats: Sequence[str] = (files.NRRD,),
    page: bool = False,
    callback: Callback | None = None,
) -> Published:
    """Publish the labelled cases of a cohort as a folder of plain files.

    Images are written slab by slab, one task per image. A call that was killed is resumed by the same call. The sums
    are written last, and only if all cases are written and the check of the folder finds no problem.

    In the folder of a complete data set, a call with another version makes the next version in place: the sums are
    removed first, images that did not change are not touched, and files of cases that left the store are removed.

    Parameters
    ----------
    cohort : Cohort
        The store.
    folder : str or Path
        Folder of the data set, which all workers can write to; created if it does not exist.
    about : About
        Title, version, licence and creators.
    client : distributed.Client, optional
        A cluster; without it, this process writes the images.
    previous : str or Path, optional
        Folder of the previous version. Images that did not change are hard links to its files, or copies where the
        file system has no links.
    scores : mapping of str to int, optional
        A radiologist's score S, 0 to 5, by case.
    key : mapping, optional
        Rows of a key table by case. Files are searched for the identifiers in them, in this process only.
    split : SplitRule, optional
        Share and seed by which patients are assigned to the training and the test set.
    leave_one_patient_out : bool, optional
        True for labels and measurements of each scan by a mixture that is fitted to the scans of all other patients;
        by default as in the previous version, or else by the mixture of the store.
    formats : sequence of str
        Formats of the images: ``nrrd``, which is always written, ``nifti``, ``dicom-seg`` and ``ome-zarr``.
    page : bool
        True to write the HTML page with its figures, see `lungmix.webpage.page.write_page`, into a folder.
    accept_burned_in : sequence of str
        Cases whose slices may have burned-in text and were looked at. They stay accepted in the next versions while
        their scans have the same voxels.
    callback : Callback, optional
        Receives progress and warnings.

    Raises
    ------
    UsageError
        If a format is unknown; if `key` has no row of a published case; if the folder has this version already, is no
        folder, or has other files; if `previous` is not complete, or given for the folder of a complete data set; or if
        one of training and test set would have no patient, or the store does not record that scans are of one patient;
        or if patients are left out of a mixture that was given, or of the only patient.
    StoreError
        If no case has labels, or the store no model.
    """
    target, callback, formats = Path(folder), callback or Callback(), formats_of(formats)
    journal = Journal(target)
    earlier = earlier_version(target, journal, about, previous)
    labelled, absent = _split_cases(cohort)
    model = cohort.read_text(MODEL_FILE)
    if not labelled or model is None:
        raise StoreError(f"{cohort.url} has no labels to publish: run `Pipeline.run(sources)` first", path=cohort.url)
    if other := sorted({*accept_burned_in} - {*labelled}):
        raise UsageError(
            f"`accept_burned_in` names cases that are not published: {', '.join(other)}; `Cohort.keys()` lists cases"
        )
    if key is not None and not {*key} & {*labelled}:
        raise UsageError("the key table has no row of a published case: give that of this store as `key_table`")
    check_patients(patients_of_cases(cohort), key or {})
    labels = labels_of(cohort, labelled, leave_one_patient_out, earlier is not None and earlier.leave_one_patient_out)
    cases = case_rows(labels, labelled, scores or {})
    before = (None, None) if earlier is None else (earlier.split, earlier.sides)
    sides = split_patients(cases, split or SplitRule(), about.version, *before)
    start_publication(target, journal, earlier)
    result = Published(target, about.version, absent=absent)
    images = _write_images(labels, labelled, target, journal, earlier, formats, client, result, callback)
    result.done = [name for name in labelled if name not in result.failed]
    if result.failed:
        return result
    remove_other_files(target, images)
    identifiers, unsearched = identifiers_of(key or {})
    accepted = {} if earlier is None else earlier.accepted
    scans = {image.case: image.sha256 for image in images if image.path == files.path_of(image.case, "ct")}
    result.accepted = {
        case: digest for case, digest in scans.items() if case in accept_burned_in or accepted.get(case) == digest
    }
    result.search = search_text(
        None if key is None else len(key),
        len(identifiers),
        unsearched,
        sorted(result.accepted),
        missing=0 if key is None else len({*labelled} - {*key}),
    )
    scored = {name: float(score) for name, score in (scores or {}).items()}
    of_page = write_report(cohort, target, about.title, scored, earlier, callback) if page else without_report(target)
    sums = sums_of(images) | of_page
    sums |= _write_texts(labels, target, about, model, images, of_page, earlier, cases, sides, result)
    remove_replaced_files(target, earlier, sums)
    result.problems = check_dataset(target, identifiers, sums=sums)
    if not result.problems:
        files.write_sums(target, sums)
        journal.path.unlink()
    return result


def write_image_file(case_ref: CaseRef | RelabelledRef, image: str, path: str) -> tuple[str, int]:
    """Write an image of a case as NRRD or NIfTI, and return the sum and the size of the file; runs on a worker."""
    target = Path(path)
    export_image(case_ref.open(), target, image)
    return files.sum_of(target), target.stat().st_size


def _split_cases(cohort: Cohort) -> tuple[list[str], dict[str, str]]:
    """Return the names of labelled cases, and a reason for each other case."""
    labelled, absent = [], dict.fromkeys(cohort.damaged, "its metadata are corrupt")
    for name, case in cohort.items():
        if LABEL in case.stages:
            labelled.append(name)
        else:
            absent[name] = "it has no labels"
    return sorted(labelled), absent | dict.fromkeys(cohort.failed, "it could not be converted")


def _write_images(
    labels: StoredLabels, names: Sequence[str], target: Path, journal: Journal, earlier: EarlierVersion | None,
    formats: Sequence[str], client: Client | None, result: Published, callback: Callback,
) -> list[ImageFile]:  # fmt: skip
    finished = journal.read()
    old_images = {} if earlier is None else earlier.images
    old_folder = target if earlier is None else earlier.folder

    def write_case(name: str) -> list[ImageFile]:
        images = []
        planned = planned_images(labels.case(name), formats)
        for image in planned:
            made, before = finished.get(image.path), old_images.get(image.path)
            if made is not None and made.source == image.source and has_sums(target, made):
                images.append(made)
                result.kept += 1
                continue
            if before is not None and before.source == image.source and has_sums(old_folder, before):
                if old_folder != target:
                    link_files(old_folder, target, before)
                done = before
                result.linked += 1
            else:
                done = _write(labels, image, planned, target, client)
                result.written += 1
            journal.add(done)
            images.append(done)
        return images

    images: list[ImageFile] = []
    with stage_events(callback, "publish", names):
        for outcome in map_bounded(names, write_case, _cases_in_flight(client)):
            if outcome.error is None:
                images += outcome.result or []
                callback.on_case_end(outcome.item)
            else:
                reason = reason_of(outcome.error)
                result.failed[outcome.item], result.messages[outcome.item] = redact(reason), reveal(reason)
                result.errors[outcome.item] = outcome.error
                callback.on_case_end(outcome.item, reason)
    return sorted(images, key=lambda image: image.path)


def _write(
    labels: StoredLabels, image: ImageFile, planned: Sequence[ImageFile], target: Path, client: Client | None
) -> ImageFile:
    case_ref, root, file = labels.ref(image.case), target.absolute(), target.absolute() / image.path
    submit = _call if client is None else partial(_submit, client)
    if image.is_folder:
        maps = sorted({other.image for other in planned if other.format == image.format and other.image in LABEL_MAPS})
        done = submit(write_folder, case_ref, image, str(root), maps)
    else:
        digest, size = submit(write_image_file, case_ref, image.image, str(file))
        done = replace(image, sha256=digest, size=size)
    if any(
        not (root / path).is_file() or (root / path).stat().st_size != size for path, (size, _) in done.files().items()
    ):
        raise StoreError(
            f"case {image.case}: a worker wrote its {image.image} to a disk that this machine does not see: give a "
            "folder that all workers share",
            case=image.case,
        )
    return done


def _call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _submit(client: Client, function: Callable[..., Any], *args: Any) -> Any:
    return client.submit(function, *args, pure=False).result()


def _cases_in_flight(client: Client | None) -> int:
    # One case more than there are workers, so that no worker waits while a case ends and the next one begins.
    return _PARALLEL_CASES if client is None else len(client.scheduler_info(n_workers=-1)["workers"]) + 1


def _write_texts(
    labels: StoredLabels, target: Path, about: About, model: str, images: Sequence[ImageFile],
    of_page: Mapping[str, str], earlier: EarlierVersion | None, cases: list[Row], split: Split | None,
    result: Published,
) -> dict[str, str]:  # fmt: skip
    """Write tables, texts and metadata, and return their sums by file."""
    day, overview = date.today().isoformat(), overview_of(labels.cohort)
    rows = {files.CASES_FILE: cases, files.FILES_FILE: file_rows(images)}
    if split is not None:
        rows |= {files.CASES_FILE: split.add_to(cases), files.SPLIT_FILE: split.rows}
    rows |= cohort_tables(labels, result.done, images)
    if labels.is_by_others:
        rows |= {files.MODELS_FILE: labels.models(result.done)}
    scores = {str(row["case"]): row["score"] for row in cases if row["score"] != ""}
    table_1 = table_1_texts(labels.cohort, result.done, scores)
    columns = {file: list(table[0]) for file, table in rows.items() if table} | table_1_columns(table_1)
    columns |= OPENING_COLUMNS
    dictionary = dictionary_rows(columns)
    description = description_of(cases) + labels.description()
    openers = opening_texts(about, description, day, images, rows[files.CASES_FILE])
    release = None if earlier is None else earlier.release
    texts = {
        **{file: csv_text(table) for file, table in rows.items()},
        **table_1,
        **openers,
        files.DICTIONARY_FILE: csv_text(dictionary),
        files.MODEL_FILE: model,
        files.LICENSE_FILE: license_file_text(about),
        files.CITATION_FILE: citation_text(about, day),
        files.CHANGES_FILE: changes_text(about, day, images, earlier),
        files.RECORD_FILE: files.record_text(
            about.version,
            1 if earlier is None else earlier.number + 1,
            images,
            labels.settings()
            | ({} if split is None else {"split": split.to_dict()})
            | ({files.ACCEPTED: result.accepted} if result.accepted else {}),
        ),
    }
    paths = {image.path: image.case for image in images} | dict.fromkeys([*texts, *of_page, *files.WRITTEN_LAST], "")
    texts[files.README_FILE] = readme_text(
        about,
        overview,
        rows[files.CASES_FILE],
        model,
        paths,
        day,
        result.absent,
        result.search,
        split,
        labels.text(),
    )
    for file in {files.SPLIT_FILE, files.MODELS_FILE, files.ZONES_FILE, files.TABLE_1_FILE} - texts.keys():
        # An earlier call may have written it.
        (target / file).unlink(missing_ok=True)
    for file, text in texts.items():
        files.write_text(target / file, text)
    sums = {file: files.sum_of(target / file) for file in texts}
    meanings = {(row["file"], row["column"]): row["meaning"] for row in dictionary}
    files.write_text(target / files.CROISSANT_FILE, croissant_text(about, description, day, sums, rows, meanings))
    sums |= {files.CROISSANT_FILE: files.sum_of(target / files.CROISSANT_FILE)}
    methods = methods_of(overview, result.done, is_by_others=labels.is_by_others)
    listed = {**sums_of(images), **of_page, **sums}
    return sums | write_metadata(target, about, description, methods, day, images, listed, release)
