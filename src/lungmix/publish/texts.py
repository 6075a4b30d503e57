"""Texts of a data set for people: the data card, the citation file and the changes between versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lungmix.errors import count_of
from lungmix.publish.about import LICENSES, About, citation_of
from lungmix.publish.by_others import FIXED_TEXT as TEXT_OF_LABELS
from lungmix.publish.contents import contents_table
from lungmix.publish.folder import ImageFile
from lungmix.publish.loading import FIXED_TEXT as TEXT_OF_LOADING
from lungmix.publish.loading import loading_text
from lungmix.publish.sections import FIXED_TEXT as TEXT_OF_SECTIONS
from lungmix.publish.sections import acquisition_text, limits_text, making_text, quality_text
from lungmix.publish.split import FIXED_TEXT as TEXT_OF_SPLIT
from lungmix.publish.split import Split, split_text
from lungmix.publish.tables import DESCRIBED
from lungmix.publish.versions import EarlierVersion
from lungmix.store.schema import LABEL_MAPS
from lungmix.tissue import segments_of
from lungmix.webpage.overview import CohortOverview

METHOD = (
    "Zaffino P, Marzullo A, Moccia S, Calimeri F, De Momi E, Bertucci B, Arcuri PP, Spadea MF. An Open-Source COVID-19 "
    "CT Dataset with Automatic Lung Tissue Classification for Radiomics. Bioengineering 2021, 8(2):26. "
    "https://doi.org/10.3390/bioengineering8020026"
)

_ONE_MIXTURE = """

One mixture labels all scans. Where it was fitted to them, it has seen the scans of both sides."""

_PRIVACY = """\
The scans were converted to voxels, geometry and technical attributes by an allow list; no other value of a header was
kept, and no date. Names of cases are neutral unless the publisher chose names of files. Slices were searched for text
that is burned into the voxels: shapes of letters with one value on one line. Text that was resampled or compressed with
loss, has fewer than four letters, or is very small, is missed. What was not done: faces were not removed. A scan that
includes the face can identify a person. Do not try to identify anybody.
"""

_WORDS_OF_DICOM = "CT CHEST AXIAL DERIVED ORIGINAL PRIMARY SECONDARY 19700101"
"""Values in each DICOM object."""

FIXED_TEXT = " ".join((
    METHOD, _WORDS_OF_DICOM, contents_table(), TEXT_OF_LOADING, TEXT_OF_SECTIONS, _PRIVACY, TEXT_OF_SPLIT,
    _ONE_MIXTURE, TEXT_OF_LABELS,
    *(column.meaning for column in DESCRIBED),
    *(segment.name for image in LABEL_MAPS for segment in segments_of(image)),
))  # fmt: skip
"""Text that data sets contain whoever the patients are."""


def description_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one paragraph about the contents of a data set, from the rows of the table of cases."""
    patients, slices = len({row["patient"] for row in rows}), sum(int(row["size_z"]) for row in rows)
    return (
        f"{count_of(len(rows), 'chest CT scan')} ({count_of(slices, 'slice')}) of {count_of(patients, 'patient')} with "
        "lung masks, tissue labels (air, healthy lung, ground-glass opacity, consolidation, other denser tissue) by a "
        "Gaussian mixture of the Hounsfield units (HU), and measurements."
    )


def search_text(
    scans: int | None, identifiers: int, unsearched: int, accepted: Sequence[str] = (), *, missing: int = 0
) -> str:
    """Return sentences about the search for identifiers, and about scans whose slices somebody looked at.

    Parameters
    ----------
    scans : int or None
        Number of scans in the key table; None without such a table.
    identifiers, unsearched : int
        Numbers of values that were searched for, and that were not.
    accepted : sequence of str
        Scans of which somebody said that they have no burned-in text.
    missing : int
        Number of published scans that are not in the key table.
    """
    looked = f" Somebody looked at slices that may have burned-in text: {', '.join(accepted)}." if accepted else ""
    outside = f" {count_of(missing, 'published scan')} not in the key table." if missing else ""
    if scans is None:
        return f"No key table was given, so the files were not searched for identifiers of patients.{looked}"
    return (
        f"All files were searched for {count_of(identifiers, 'identifier')} of {count_of(scans, 'scan')} in the key "
        f"table, also in decompressed bytes. {count_of(unsearched, 'value')} too short or too ordinary to be searched "
        f"for.{outside}{looked}"
    )


def readme_text(
    about: About,
    overview: CohortOverview,
    rows: Sequence[Mapping[str, Any]],
    model: str,
    paths: Mapping[str, str],
    day: str,
    absent: Mapping[str, str],
    privacy_search: str,
    split: Split | None = None,
    labels_text: str = "",
) -> str:
    """Return the data card: what the data set is, who may use it, how it was made, its limits, how to load and cite it.

    Parameters
    ----------
    about : About
        Statements of the publisher.
    overview : CohortOverview
        Overview of the store.
    rows : sequence of mapping
        Rows of the table of cases.
    model : str
        Text of the file with the mixture.
    paths : mapping of str to str
        Case of each image by path, and an empty text for each other file.
    day : str
        Date of the publication.
    absent : mapping of str to str
        Reason for each case of the store that is not part of the data set.
    privacy_search : str
        Sentence about the search for identifiers.
    split : Split, optional
        Training and test set.
    labels_text : str
        Sentences on the labels, if they are not those of the store.
    """  # fmt: skip
    license_name = LICENSES[about.license][0] if about.license in LICENSES else about.license
    sections = [
        f"# {about.title}\n\nVersion {about.version}, {day}. {description_of(rows)}",
        f"## Who may use it\n\nThe licence is {license_name} ({about.license}): {about.license_url}. See "
        f"LICENSE.txt.\n\nCite it as:\n\n> {citation_of(about, int(day[:4]))}\n\nand the method:\n\n> {METHOD}",
        "## Files\n\n"
        + contents_table(paths)
        + "\nCASE is the name of a scan. All images of a scan have the same size, spacing, origin and direction. NRRD "
        "files have axes to the left, back and head of the patient, and gzip of level 1. Voxels with the label 0 are "
        "outside the lungs.",
        "## How to load it\n\n" + loading_text(str(rows[0]["case"]) if rows else "CASE"),
        f"## How it was acquired\n\n{acquisition_text(rows)}",
        f"## How it was made\n\n{making_text(overview, rows, model, is_by_others=bool(labels_text))}",
        f"## Doubtful scans\n\n{quality_text(overview, rows)}",
        f"## Training and test set\n\n{split_text(split)}{_ONE_MIXTURE if split and not labels_text else ''}",
        *([f"## Labels free of their own leak\n\n{labels_text.rstrip()}"] if labels_text else []),
        "## How it was de-identified\n\n" + _PRIVACY + f"\n{privacy_search}",
        f"## Known limits\n\n{limits_text(overview, rows)}",
    ]
    if absent:
        lines = "\n".join(f"- {name}: {reason}" for name, reason in sorted(absent.items()))
        sections.append(f"## Scans that are not part of it\n\n{lines}")
    return "\n\n".join(sections) + "\n"


def citation_text(about: About, day: str) -> str:
    """Return the text of ``CITATION.cff``; texts are quoted as JSON, which is valid YAML."""
    authors = []
    for creator in about.creators:
        if creator.family:
            lines = [f"  - family-names: {_quoted(creator.family)}"]
            lines += [f"    given-names: {_quoted(creator.given)}"] if creator.given else []
        else:
            lines = [f"  - name: {_quoted(creator.name)}"]
        if creator.affiliation and creator.family:
            lines.append(f"    affiliation: {_quoted(creator.affiliation)}")
        if creator.orcid:
            lines.append(f"    orcid: {_quoted(f'https://orcid.org/{creator.orcid}')}")
        authors += lines
    return "\n".join([
        "cff-version: 1.2.0", "message: Cite this data set so.", "type: dataset", f"title: {_quoted(about.title)}",
        f"version: {_quoted(about.version)}", f"date-released: {day}",
        *([f"doi: {_quoted(about.doi)}"] if about.doi else []),
        *([f"license: {about.license}"] if about.license in LICENSES else []),
        "authors:", *authors, "",
    ])  # fmt: skip


def changes_text(about: About, day: str, images: Sequence[ImageFile], earlier: EarlierVersion | None) -> str:
    """Return the text of the changes: those since the previous version, then the earlier text.

    Parameters
    ----------
    about : About
        Statements of the publisher.
    day : str
        Date of the publication.
    images : sequence of ImageFile
        Images of this version.
    earlier : EarlierVersion or None
        The previous version; None for the first version.
    """
    lines = [f"## {about.version} ({day})", ""]
    if earlier is None:
        lines.append(f"First version: {count_of(len({image.case for image in images}), 'scan')}.")
    else:
        before, now = earlier.images, {image.path: image for image in images}
        old_cases, new_cases = ({image.case for image in each.values()} for each in (before, now))
        lines += [f"- added: {name}" for name in sorted(new_cases - old_cases)]
        lines += [f"- removed: {name}" for name in sorted(old_cases - new_cases)]
        lines += [line for name in sorted(old_cases & new_cases) for line in _changes_of_case(name, before, now)]
        same = sum(path in now and now[path].sha256 == image.sha256 for path, image in before.items())
        lines.append(f"- unchanged: {count_of(same, 'image')}")
    _, _, rest = ("" if earlier is None else earlier.changes).partition("\n\n")
    return "\n".join(["# Changes", "", *lines]) + "\n" + (f"\n{rest}" if rest else "")


def _changes_of_case(name: str, before: Mapping[str, ImageFile], now: Mapping[str, ImageFile]) -> list[str]:
    """Return lines about the images of a case in both versions: relabelled, changed, new and removed ones, and why."""
    old, new = ({path: image for path, image in each.items() if image.case == name} for each in (before, now))
    changed = [path for path in sorted(old.keys() & new.keys()) if old[path].sha256 != new[path].sha256]
    lines = []
    if changed:
        reasons = dict.fromkeys(text for path in changed for text in _reasons(new[path], old[path]))
        images = list(dict.fromkeys(new[path].image for path in changed))
        what = "relabelled" if all(image.startswith("tissue") for image in images) else "changed"
        why = "; ".join(reasons) or "the scan was converted or its mask computed again, with other voxels"
        lines.append(f"- {what}: {name} ({', '.join(images)}), {why}")
    lines += [f"- new file: {path}" for path in sorted(new.keys() - old.keys())]
    return lines + [f"- file removed: {path}" for path in sorted(old.keys() - new.keys())]


def _reasons(image: ImageFile, old: ImageFile) -> list[str]:
    """Return which of the parameters that an image was made with changed."""
    return [
        f"{key.removeprefix('lungmix_')} {before} became {now}"
        for key in sorted(old.made_with.keys() | image.made_with.keys())
        for before, now in [(old.made_with.get(key, "unrecorded"), image.made_with.get(key, "unrecorded"))]
        if before != now
    ]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
