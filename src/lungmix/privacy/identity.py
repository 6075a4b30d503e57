"""Who a scan is of. Kept out of everything that is written, sent or shown; for a key table that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields


@dataclass(frozen=True, repr=False)
class Identity:
    """What the header of a DICOM series says of the patient and the study; unknown attributes are None.

    `repr` shows nothing, so that no log, traceback or message can.

    Attributes
    ----------
    patient_id, patient_name, birth_date, sex, age : str or None
        Of the patient, as DICOM gives them (``1960``, ``19600329``, ``M``, ``058Y``).
    accession_number, study_uid, study_date, study_time : str or None
        Of the study.
    series_uid, series_number, series_description, series_date, acquisition_date, content_date : str or None
        Of the series.
    frame_uid : str or None
        Frame of reference.
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
        """From a function that gives the text of a DICOM attribute by its keyword, or None."""
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
