"""Patients of whom nothing was used."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from lungmix.errors import mark_path
from lungmix.formats.dicom.header import Damaged
from lungmix.formats.dicom.linked_components import linked
from lungmix.formats.dicom.slice_groups import Group, common_folder
from lungmix.formats.scan import RejectedSource, case_name


def unused_patients(
    groups: Sequence[Group], skipped: Mapping[int, str], damaged: Sequence[Damaged]
) -> list[RejectedSource]:
    """Return a refusal for each patient of whom there are images, all of which are skipped.

    Images of one study are of one patient, whatever else their headers say. Damaged files are refused on their own;
    what lies beside them may be of the same patient.

    Parameters
    ----------
    groups : sequence of Group
        All of a source.
    skipped : mapping of int to str
        Indices of those that are skipped, with the reason.
    damaged : sequence of Damaged
        Damaged files of the source.
    """
    folders = {one.header.folder for one in damaged}
    found = []
    for indices in linked([_links(group) for group in groups]):
        slices = [one for i in indices for one in groups[i].slices if groups[i].first.rows]
        refused = any(i not in skipped for i in indices) or any(one.folder in folders for one in slices)
        if refused or not slices:
            continue
        largest = max(indices, key=lambda i: len(groups[i].slices) * bool(groups[i].first.rows))
        folder = common_folder(slices)
        images = f"the {len(slices)} images of one patient" if len(slices) > 1 else "the one image of a patient"
        reason = (
            f"{mark_path(folder)} holds no CT series that is used: nothing of {images} was used "
            f"({groups[largest].title}: {skipped[largest]}); give the original CT series"
        )
        found.append(RejectedSource(case_name(folder.name), str(folder), reason))
    return found


def _links(group: Group) -> list[Hashable]:
    patient, study, _ = group.series
    links = [("patient", patient), ("study", study)]
    return [link for link in links if link[1]] or [("folder", str(group.folder))]
