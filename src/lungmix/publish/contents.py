"""Contents of each file of a data set in a sentence, for the data card and for metadata."""

from __future__ import annotations

from lungmix.publish import folder as files
from lungmix.tissue import SIDES, TISSUES, Tissue


def _labels(tissues: tuple[Tissue, ...]) -> str:
    return ", ".join(f"{tissue.label} {tissue.name.lower()}" for tissue in tissues)


CONTENTS: dict[str, str] = {
    files.path_of("CASE", "ct"): "the scan: 16-bit integers in Hounsfield units (HU)",
    files.path_of("CASE", "lung"): "lung mask, 1 in the lungs",
    files.path_of("CASE", "side"): f"regions of the mask: {_labels(SIDES)}",
    files.path_of("CASE", "tissue"): f"tissue of each voxel: {_labels(TISSUES)}",
    files.path_of("CASE", "tissue_median"): "the same labels after a median filter",
    files.CASES_FILE: "a row per scan: patient, scanner, geometry, measurements, score, flags of quality control",
    files.FILES_FILE: "a row per image: case, path, size, SHA-256 sum",
    files.DICTIONARY_FILE: "unit and meaning of every column of the two tables",
    files.MODEL_FILE: "the Gaussian mixture of the labels: weights, means and variances in HU",
    files.README_FILE: "this data card",
    files.LICENSE_FILE: "the licence",
    files.CITATION_FILE: "how to cite the data set, in the format CFF 1.2.0",
    files.CHANGES_FILE: "changes between versions",
    files.CROISSANT_FILE: "metadata for programs, in the format Croissant 1.0",
    files.RECORD_FILE: "what each image was made of; the next version and the check need it",
    files.SUMS_FILE: f"sums of all files: sha256sum -c {files.SUMS_FILE}",
}
"""Contents by path, with ``CASE`` for the name of a case."""


def contents_of(path: str, case: str = "") -> str:
    """Return the contents of a file in a sentence; of an image, with the name of its case.

    Raises
    ------
    KeyError
        If the data card does not describe the file.
    """
    text = CONTENTS[path.replace(f"/{case}/{case}_", "/CASE/CASE_") if case else path]
    return f"{case}: {text}" if case else text


def contents_table() -> str:
    """Return the contents of all files as a Markdown table."""
    lines = [f"| {path} | {text} |" for path, text in CONTENTS.items()]
    return "\n".join(["| file | contents |", "| --- | --- |", *lines]) + "\n"
