"""Identity of the patient of a scan.

It is used to group slices and for a key table, and is never put into a store, sent to a worker or shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields


@dataclass(frozen=True, repr=False)
class Identity:
    """Attributes of patient and study from the header of a DICOM series; unknown ones are None.

    `repr` shows no attribute, so that no log, traceback or message does.

    Attributes
    ----------
    patient_id, patient_name, birth_date, sex, age : str or None
        Attributes of the patient, as in DICOM (``1960``, ``19600329``, ``M``, ``058Y``).
    accession_number, study_uid, study_date, study_time : str or None
        Attributes of the study.
    series_uid, series_number, series_description, series_date, acquisition_date, content_date : str or None
        Attributes of the series.
    frame_uid : str or None
        UID of the frame of reference.
    """

    patient_id: str | None = None
    patient_name: str | None = None
    birth_date: str | None = None
    sex: str | None = None
    age: str | None = None
    accession_number: str | None = None
    study_uid: str | None = None
    study_date: str | None = None
    study_time: str | None = None
    series_uid: str | None = None
    series_number: str | None = None
    series_description: str | None = None
    series_date: str | None = None
    acquisition_date: str | None = None
    content_date: str | None = None
    frame_uid: str | None = None

    def __repr__(self) -> str:
        return "Identity(...)"

    @classmethod
    def read(cls, text_of: Callable[[str], str | None]) -> Identity:
        """Return the identity in a header; `text_of` returns the text of the attribute with a keyword, or None."""
        return cls(**{field.name: text_of(KEYWORDS[field.name]) for field in fields(cls)})


NOBODY = Identity()

KEYWORDS = {
    "patient_id": "PatientID",
    "patient_name": "PatientName",
    "birth_date": "PatientBirthDate",
    "sex": "PatientSex",
    "age": "PatientAge",
    "accession_number": "AccessionNumber",
    "study_uid": "StudyInstanceUID",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "series_uid": "SeriesInstanceUID",
    "series_number": "SeriesNumber",
    "series_description": "SeriesDescription",
    "series_date": "SeriesDate",
    "acquisition_date": "AcquisitionDate",
    "content_date": "ContentDate",
    "frame_uid": "FrameOfReferenceUID",
}
"""DICOM keyword of each field of `Identity`."""
