"""Measure how fast lungmix sorts DICOM files into series, compared with reading their headers with pydicom alone.

10,000 slices of 100 series are shuffled into folders, with names that do not show the series. Headers are as long as
those of scanners, and each patient has one localizer. `find_scans` searches the folders, reads every header, sorts the
slices, checks the geometry of every series and opens its first and last slice. pydicom reads the header of each file of
a list. The two run alternately in one process, with the files in the page cache.
"""

from __future__ import annotations

import random
import sys
import time

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from figures import Check, Sheet, Table, parser_for
from lungmix.formats import Scan, SkippedSource, find_scans
from lungmix.formats.dicom.write import CtSeries
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from scans import folder_for

PATIENTS, SERIES, SLICES = 25, 4, 100
QUICK_PATIENTS = 2
SIZE = 192
ROUNDS = 3


def main():
    chosen = parser_for(__doc__).parse_args()
    patients = QUICK_PATIENTS if chosen.quick else PATIENTS
    with folder_for(chosen.scans) as scans:
        folder = scans / f"dicom-{patients}"
        if not folder.is_dir():
            write_cohort(folder, patients)
        sheet = measure(folder, patients)
    sheet.show()
    sheet.save(chosen.out)


def measure(folder, patients):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    seconds = {"pydicom": [], "find_scans": []}
    for _ in range(ROUNDS):
        start = time.process_time()
        for file in files:
            pydicom.dcmread(file, stop_before_pixels=True)
        seconds["pydicom"].append(time.process_time() - start)
        start = time.process_time()
        found = find_scans(folder)
        seconds["find_scans"].append(time.process_time() - start)
        if sum(isinstance(one, Scan) for one in found) != patients * SERIES:
            sys.exit(f"{patients * SERIES} series were written, {len(found)} things found: {found[:3]}")
        if sum(isinstance(one, SkippedSource) for one in found) != patients:
            sys.exit(f"{patients} localizers were written, {len(found)} things found")
    best = {name: min(values) for name, values in seconds.items()}
    ratio = best["pydicom"] / best["find_scans"]
    what = {"pydicom": "reading all headers with pydicom", "find_scans": "finding and checking all series"}
    rows = [[what[name], f"{best[name]:.1f}", f"{len(files) / best[name]:,.0f}"] for name in best]
    note = f"{len(files):,} files, {patients * SERIES} series; the best of {ROUNDS} rounds in turns."
    return Sheet(
        "dicom_scan",
        [Table("Sorting DICOM files", ["", "cpu s", "files per second"], rows, note)],
        [Check("files sorted per second, over headers that pydicom reads per second", ratio, 0.5)],
        {"seconds": seconds, "files": len(files)},
    )


def write_cohort(folder, patients):
    chance = random.Random(0)
    plane = np.random.default_rng(0).integers(-1000, 400, (SIZE, SIZE)).astype(np.int16)
    names = list(range(patients * (SERIES * SLICES + 1)))
    chance.shuffle(names)
    folders = [folder / f"{i:02d}" for i in range(20)]
    for one in folders:
        one.mkdir(parents=True)
    for patient in range(patients):
        for number in range(SERIES):
            for dataset in slices_of(patient, number, plane):
                name = names.pop()
                dataset.save_as(folders[name % len(folders)] / f"I{name:06d}", enforce_file_format=True)


def slices_of(patient, number, plane):
    """Return the slices of a series, and a localizer for each patient."""
    geometry = Geometry((SIZE, SIZE, SLICES + 1), (1.5, 1.5, 2.5), (-144, -144, -120))
    known = Acquisition("CT", "SIEMENS", "Sensation 10", "B40f", 120.0, 2.5)
    series = CtSeries(geometry, known, f"Patient^{patient}", f"P{patient}", (f"{patient}-{number}", "scan"))
    for index in range(SLICES + (number == 0)):
        dataset = series.slice(index, plane)
        if index == SLICES:
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        dataset.SeriesNumber = number + 1
        fill(dataset, index)
        yield dataset


def fill(dataset, index):
    """Add attributes that scanners write: times, doses, references, and blocks of private elements, one long."""
    for keyword in ("SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(dataset, keyword, "20200131")
    for keyword in ("SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(dataset, keyword, f"1015{index % 60:02d}.25")
    dataset.StudyDescription, dataset.SeriesDescription, dataset.ProtocolName = "Thorax", "Thorax 2.5", "Thorax routine"
    dataset.InstitutionName, dataset.StationName, dataset.SoftwareVersions = "Hospital", "CT1", "syngo CT 2006G"
    dataset.Exposure, dataset.XRayTubeCurrent, dataset.ExposureTime, dataset.GeneratorPower = 73, 184, 500, 30
    dataset.DataCollectionDiameter, dataset.ReconstructionDiameter, dataset.GantryDetectorTilt = 500, 288, 0
    dataset.TableHeight, dataset.RotationDirection, dataset.FilterType, dataset.FocalSpots = 129, "CW", "0", 1.2
    dataset.SliceLocation, dataset.WindowCenter, dataset.WindowWidth = -120 + 2.5 * index, [40, -600], [350, 1200]
    reference = Dataset()
    reference.ReferencedSOPClassUID = dataset.SOPClassUID
    reference.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    dataset.ReferencedImageSequence = Sequence([reference])
    dataset.SourceImageSequence = Sequence([reference])
    for group in (0x0019, 0x0021, 0x0029, 0x0051):
        block = dataset.private_block(group, "SCANNER", create=True)
        for element in range(12):
            block.add_new(element, "LO", f"value {element}")
    block.add_new(0x40, "OB", bytes(8192))


if __name__ == "__main__":
    main()
