"""Rejection of patients of whom no series is used."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from lungmix.errors import mark_path
from lungmix.formats.dicom.header import DamagedFile
from lungmix.formats.dicom.linked_components import connected_components
from lungmix.formats.dicom.slice_groups import Group, common_folder
from lungmix.formats.scan import RejectedSource, case_name


def reject_unused_patients(
    groups: Sequence[Group], skipped: Mapping[int, str], damaged: Sequence[DamagedFile]
) -> list[RejectedSource]:
    """Return a rejected source for each patient whose images were all skipped.

    Images of one study are of one patient, whatever else their headers declare. A patient with images in the folder of
    a damaged file is left out: the file may be of the same patient, and it is rejected anyway.

    Parameters
    ----------
    groups : sequence of Group
        All groups of a source.
    skipped : mapping of int to str
        Reasons of the skipped groups, by index.
    damaged : sequence of DamagedFile
        Damaged files of the source.
    """
    folders = {file.header.folder for file in damaged}
    rejected = []
    for indices in connected_components([_links(group) for group in groups]):
        slices = [header for i in indices for header in groups[i].slices if groups[i].first.rows]
        is_accounted_for = any(i not in skipped for i in indices) or any(header.folder in folders for header in slices)
        if is_accounted_for or not slices:
            continue
        largest = max(indices, key=lambda i: len(groups[i].slices) * bool(groups[i].first.rows))
        folder = common_folder(slices)
        images = f"the {len(slices)} images of one patient" if len(slices) > 1 else "the one image of a patient"
        reason = (
            f"{mark_path(folder)} holds no CT series that is used: nothing of {images} was used "
            f"({groups[largest].title}: {skipped[largest]}); give the original CT series"
        )
        rejected.append(RejectedSource(case_name(folder.name), str(folder), reason))
    return rejected


def _links(group: Group) -> list[Hashable]:
    patient, study, _ = group.series
    links = [("patient", patient), ("study", study)]
    return [link for link in links if link[1]] or [("folder", str(group.folder))]
