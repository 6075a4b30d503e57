"""Contents of each file of a data set in a sentence, for the data card and for metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lungmix.publish import folder as files
from lungmix.store.schema import HARMONISED
from lungmix.tissue import DENSE, LOBES, SIDES, TISSUES, Tissue


def _labels(tissues: Sequence[Tissue]) -> str:
    return ", ".join(f"{tissue.label} {tissue.name.lower()}" for tissue in tissues)


CONTENTS: dict[str, str] = {
    files.path_of("CASE", "ct"): "the scan: 16-bit integers in Hounsfield units (HU)",
    files.path_of("CASE", "lung"): "lung mask, 1 in the lungs",
    files.path_of("CASE", "side"): f"regions of the mask: {_labels(SIDES)}",
    files.path_of("CASE", "tissue"): f"tissue of each voxel: {_labels(TISSUES)}",
    files.path_of("CASE", "tissue_median"): "the same labels after a median filter",
    files.path_of("CASE", "tissue_potts"): "labels under a Potts prior",
    files.path_of("CASE", "region"): f"parts of the mask: {_labels(DENSE)}",
    files.path_of("CASE", "lobe"): f"lobes: {_labels(LOBES)}",
    files.path_of("CASE", "zone"): f"lung zones; {files.LABELS_FILE} names their labels",
    files.path_of("CASE", HARMONISED): "HU after harmonisation; labels are of these HU",
    "images/CASE/CASE_IMAGE.nii.gz": "the same images as NIfTI",
    files.path_of("CASE", "tissue", files.DICOM_SEG): "tissue labels as DICOM SEG with the CT",
    files.path_of("CASE", "ct", files.OME_ZARR): "the same images as OME-Zarr 0.5",
    files.CASES_FILE: "a row per scan: patient, scanner, geometry, measurements, score, flags of quality control",
    files.FILES_FILE: "a row per image: case, path, size, SHA-256 sum",
    files.ZONES_FILE: "a row per lung zone, sum of zones and lobe of each scan",
    files.SPLIT_FILE: "training and test set by patient",
    files.LABELS_FILE: "name and colour of each label of each image",
    files.TABLE_1_FILE: "characteristics of the cohort: numbers of patients and scans, means or quartiles",
    files.TABLE_1_TEXT: "the same table as Markdown",
    f"{files.REPORT_FOLDER}/index.html": "a page for a browser: table, figures, and a viewer of every scan",
    f"{files.REPORT_FOLDER}/figures/NAME.png": "figures as PNG and SVG, and numbers of some as CSV",
    f"{files.REPORT_FOLDER}/data/CASE.js": "a scan at reduced resolution for the viewer of the page",
    f"{files.REPORT_FOLDER}/look/CASE.webp": "a slice of a scan with flags, for the page",
    f"{files.REPORT_FOLDER}/patients/NAME.html": "pages of patients with several scans, and their data",
    f"{files.REPORT_FOLDER}/changes/CASE.js": "changes since the first scan of a patient, for these pages",
    files.DICTIONARY_FILE: "unit and meaning of every column of the tables",
    files.MODEL_FILE: "the Gaussian mixture of the labels: weights, means and variances in HU",
    files.MODELS_FILE: "the mixtures of all other patients, in data sets that are labelled by them",
    files.README_FILE: "this data card",
    files.LICENSE_FILE: "the licence",
    files.CITATION_FILE: "how to cite the data set, in the format CFF 1.2.0",
    files.CHANGES_FILE: "changes between versions",
    files.DATALIST_FILE: "image and label of each scan, as training and test set, for MONAI",
    files.BATCH_FILE: "image, mask and label of each lung and tissue, for a batch run of PyRadiomics",
    files.SLICER_FILE: "names and colours of the tissues, for 3D Slicer",
    files.ITKSNAP_FILE: "names and colours of the tissues, for ITK-SNAP",
    files.CROISSANT_FILE: "metadata for programs, in the format Croissant 1.0",
    files.DATACITE_FILE: "metadata for repositories and catalogues, in the format DataCite 4.5",
    files.ROCRATE_FILE: "all files, creators, licence and software, in the format RO-Crate 1.2",
    files.RECORD_FILE: "what each image was made of; the next version and the check need it",
    files.SUMS_FILE: f"sums of all files: sha256sum -c {files.SUMS_FILE}",
}
"""Contents by path, with ``CASE`` for the name of a case."""


def contents_of(path: str, case: str = "") -> str:
    """Return the contents of a file or a folder in a sentence; of an image, with the name of its case.

    Raises
    ------
    KeyError
        If the data card does not describe the file.
    """
    text = CONTENTS[_listed_as(path, case)]
    return f"{case}: {text}" if case else text


def contents_table(paths: Mapping[str, str] | None = None) -> str:
    """Return the contents of files as a Markdown table.

    Parameters
    ----------
    paths : mapping of str to str, optional
        Case of each image by path, and an empty text for each other file; by default, all files that there can be.
    """
    listed = set(CONTENTS) if paths is None else {_listed_as(path, case) for path, case in paths.items()}
    lines = [f"| {path} | {text} |" for path, text in CONTENTS.items() if path in listed]
    return "\n".join(["| file | contents |", "| --- | --- |", *lines]) + "\n"


def _listed_as(path: str, case: str) -> str:
    if not case:
        folder = path.rpartition("/")[0]
        in_folder = (listed for listed in CONTENTS if folder and listed.startswith(f"{folder}/"))
        return path if path in CONTENTS else next(in_folder, path)
    key = path.rstrip("/").replace(f"images/{case}/{case}", "images/CASE/CASE", 1)
    for ending in (files.EXTENSIONS[name] for name in (files.NIFTI, files.DICOM_SEG, files.OME_ZARR)):
        if ending in key:
            # Images in further formats are described in one line each.
            return next(listed for listed in CONTENTS if ending in listed)
    return key
