"""Sources with planted words: every text, name, identifier and date of a patient is replaced by an unmistakable one."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import Dataset, PrivateBlock
from pydicom.uid import SecondaryCaptureImageStorage

from lungmix.formats import write_image
from lungmix.geometry import Geometry
from lungmix.phantom import Phantom, write_phantom

WORD = "Qzxplant"
"""Word that is planted in every text and name, in capitals where DICOM requires these."""

UID = "1.2.826.0.1.3680043.10.777.90210.4711.81549300"
BIRTH, STUDY, TIME = "19470213", "20190823", "081549.777333"
NUMBER = "1711815493"
"""`UID`, `BIRTH`, `STUDY`, `TIME` and `NUMBER` are planted in identifiers, dates, times and integers, which have no
letters."""

PLANTED = (WORD, UID, BIRTH, STUDY, TIME, NUMBER)

SHAPE, SPACING = (40, 64, 64), (5.5, 5.625, 7.5)

_LONGEST = {"AE": 16, "CS": 16, "SH": 16, "LO": 64, "PN": 64, "ST": 1024, "LT": 10240, "UT": 10240, "UC": 64, "UR": 64}
_NOT_WORDS = {"AS": "072Y", "DA": STUDY, "TM": TIME, "DT": f"{STUDY}{TIME}", "UI": UID, "IS": NUMBER}

# Attributes without planted words, as they say how pixels are read or of which kind the object is.
_NEEDED = {
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "PhotometricInterpretation",
    "PatientPosition", "BurnedInAnnotation", "RescaleType", "SamplesPerPixel", "NumberOfFrames", "InstanceNumber",
    "TimezoneOffsetFromUTC", "PixelDataProviderURL", "TemporalPositionIdentifier", "AcquisitionNumber",
    "NumberOfSeriesRelatedInstances", "NumberOfTemporalPositions", "SeriesInstanceUID", "Planes",
}  # fmt: skip
_DECIMALS = ("PatientSize", "PatientWeight", "KVP", "TableHeight", "RadionuclideTotalDose")


def write_sources(folder: Path) -> list[Path]:
    """Write valid and invalid scans, with planted words in every name and text; return the sources."""
    phantom = Phantom(SHAPE, SPACING, 4)
    first, second = folder / f"{WORD} Maria" / f"study {WORD}", folder / f"files {WORD}"
    _series(first / f"{WORD} series", phantom)
    for name in (".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".nii.gz"):
        _image(second / f"{WORD}{name}", phantom)
    _archives(folder / f"archives {WORD}", second)
    bad = folder / f"bad {WORD}"
    _broken_series(bad, first / f"{WORD} series")
    _broken_files(bad, second)
    listed = folder / f"{WORD}.txt"
    listed.write_text(f"# {WORD}\nfiles {WORD}/{WORD}.nii\nmissing {WORD}.nrrd\n")
    return [first.parent, second, folder / f"archives {WORD}", bad, listed, folder / f"nothing {WORD}.nrrd"]


def _series(folder: Path, phantom: Phantom) -> None:
    write_phantom(folder, phantom)
    for number, file in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(file)
        plant(dataset, number)
        dataset.save_as(folder / f"{WORD}-{number:04d}.dcm", enforce_file_format=True)
        file.unlink()


def plant(dataset: Dataset, number: int) -> None:
    """Set every text attribute of the DICOM dictionary to a planted word, also in sequences, and private attributes."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for tag, (vr, *_) in DicomDictionary.items():
        keyword = keyword_for_tag(tag)
        if keyword and tag >> 16 > 7 and tag >> 16 not in (0x7FE0, 0xFFFE, 0xFFFC) and keyword not in _NEEDED:
            value = _text(vr)
            if value is not None:
                setattr(dataset, keyword, value)
    for keyword in _DECIMALS:
        setattr(dataset, keyword, NUMBER)
    dataset.PatientBirthDate = BIRTH
    dataset.FrameOfReferenceUID = dataset.StudyInstanceUID = UID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{UID}.{number}"
    for keyword in ("RequestAttributesSequence", "OtherPatientIDsSequence", "ReferencedStudySequence"):
        item, inner = Dataset(), Dataset()
        for nested in (item, inner):
            nested.PatientName, nested.PatientID, nested.TextValue, nested.ReferencedSOPInstanceUID = (
                WORD,
                WORD,
                WORD,
                UID,
            )
        item.ConceptCodeSequence = [inner]
        setattr(dataset, keyword, [item])
    block: PrivateBlock = dataset.private_block(0x0011, f"{WORD} PRIVATE", create=True)
    for offset, (vr, value) in enumerate(
        (("LO", WORD), ("UN", WORD.encode()), ("OB", WORD.encode("utf-16-le")), ("PN", WORD), ("LT", WORD)), start=1
    ):
        block.add_new(offset, vr, value)
    for group in (0x6000, 0x6002):
        for element, vr, value in (
            (0x0010, "US", 64), (0x0011, "US", 64), (0x0022, "LO", WORD), (0x0040, "CS", "G"), (0x0050, "SS", [1, 1]),
            (0x0100, "US", 1), (0x0102, "US", 0), (0x1500, "LO", WORD),
            (0x3000, "OW", (WORD.encode() * 64)[:512]),
        ):  # fmt: skip
            dataset.add_new((group << 16) | element, vr, value)
    # GDCM does not read images whose overlay has both a bitmap and a comment.
    dataset.add_new(0x60044000, "LT", WORD)
    dataset.add_new(0xFFFCFFFC, "OB", WORD.encode())
    dataset.preamble = (WORD.encode() * 16)[:128]
    dataset.file_meta.SourceApplicationEntityTitle = WORD
    dataset.file_meta.ImplementationVersionName = WORD
    dataset.file_meta.PrivateInformationCreatorUID = UID
    dataset.file_meta.PrivateInformation = WORD.encode()


def _text(vr: str) -> str | None:
    if vr in _NOT_WORDS:
        return _NOT_WORDS[vr]
    if vr not in _LONGEST:
        return None
    words = {"CS": WORD.upper(), "PN": f"{WORD}^{WORD} {NUMBER}", "UR": f"http://{WORD}.example/{NUMBER}"}
    return words.get(vr, f"{WORD} {NUMBER}")[: _LONGEST[vr]]


def _image(path: Path, phantom: Phantom) -> None:
    """Write an image file with planted words in comments, keys, descriptions and the header of its gzip stream."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = phantom.volume()
    name = path.name.removeprefix(WORD)
    if name in (".nrrd", ".nhdr"):
        fields = [
            "NRRD0005", f"# {WORD}", "type: short", "dimension: 3", "space: left-posterior-superior",
            "sizes: " + " ".join(map(str, plain.shape[::-1])), f"content: {WORD}", f"{WORD}:={WORD} {NUMBER}",
            f"space directions: ({SPACING[0]},0,0) (0,{SPACING[1]},0) (0,0,{SPACING[2]})",
            f'labels: "{WORD}" "{WORD}" "{WORD}"', "endian: little", "encoding: gzip", "space origin: (0,0,0)",
        ]  # fmt: skip
        voxels = _gzip(plain.astype("<i2").tobytes())
        if name == ".nrrd":
            path.write_bytes("\n".join([*fields, "", ""]).encode() + voxels)
        else:
            path.write_text("\n".join([*fields, f"data file: {WORD}.gz", ""]))
            path.with_name(f"{WORD}.gz").write_bytes(voxels)
    elif name in (".mha", ".mhd"):
        data = "LOCAL" if name == ".mha" else f"{WORD}.raw"
        lines = [
            "ObjectType = Image", f"Comment = {WORD}", f"Name = {WORD}", "NDims = 3", "BinaryData = True",
            "BinaryDataByteOrderMSB = False", "CompressedData = False", "TransformMatrix = 1 0 0 0 1 0 0 0 1",
            "Offset = 0 0 0", f"{WORD} = {WORD}", "ElementSpacing = " + " ".join(map(str, SPACING)),
            "DimSize = " + " ".join(map(str, plain.shape[::-1])), f"PatientID = {WORD}", "ElementType = MET_SHORT",
            f"ElementDataFile = {data}", "",
        ]  # fmt: skip
        voxels = plain.astype("<i2").tobytes()
        path.write_bytes("\n".join(lines).encode() + (voxels if name == ".mha" else b""))
        if name == ".mhd":
            path.with_name(data).write_bytes(voxels)
    else:
        image = nibabel.Nifti1Image(plain.transpose(2, 1, 0), np.diag([*SPACING, 1.0]))
        for field, size in (("descrip", 80), ("aux_file", 24), ("intent_name", 16), ("db_name", 18)):
            image.header[field] = f"{WORD} {NUMBER}"[:size].encode()
        for code in ("comment", "dicom", "afni"):
            image.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, WORD.encode()))
        nibabel.save(image, path)
        if name == ".nii.gz":
            path.write_bytes(_gzip(gzip.decompress(path.read_bytes())))


def _gzip(content: bytes) -> bytes:
    packed = gzip.compress(content, 1)
    # The header of a gzip stream contains a file name and a comment.
    return packed[:3] + b"\x18" + packed[4:10] + WORD.encode() + b"\0" + WORD.encode() + b"\0" + packed[10:]


def _archives(folder: Path, images: Path) -> None:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / f"{WORD}.zip", "w") as archive:
        archive.comment = WORD.encode()
        archive.write(images / f"{WORD}.mha", f"in {WORD}/{WORD} inner.mha")
        archive.writestr(f"{WORD}/bad {WORD}.nrrd", WORD)
    with tarfile.open(folder / f"{WORD}.tar", "w", pax_headers={WORD: WORD}) as archive:
        archive.add(images / f"{WORD}.nii", f"{WORD}/{WORD} inner.nii")


def _broken_series(folder: Path, good: Path) -> None:
    """Write series that are rejected, each for another reason."""

    def changed(name: str, change: object) -> None:
        target = folder / f"{name} {WORD}"
        target.mkdir(parents=True)
        for number, file in enumerate(sorted(good.iterdir())[:6]):
            dataset = pydicom.dcmread(file)
            dataset.SeriesInstanceUID = f"{UID}.{sum(name.encode())}"
            change(dataset, number)  # type: ignore[operator]
            dataset.save_as(target / file.name, enforce_file_format=True)

    def attribute(keyword: str, value: object) -> object:
        return lambda dataset, number: setattr(dataset, keyword, value)

    def secondary(dataset: Dataset, number: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage

    def gap(dataset: Dataset, number: int) -> None:
        if number > 2:
            dataset.ImagePositionPatient = [0, 0, 500 + 10 * number]

    changed("burned", attribute("BurnedInAnnotation", "YES"))
    changed("modality", attribute("Modality", WORD.upper()))
    changed("type", attribute("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER", WORD.upper()]))
    changed("secondary", secondary)
    changed("gap", gap)
    changed("nowhere", lambda dataset, number: delattr(dataset, "ImagePositionPatient"))
    changed("huge", attribute("RescaleSlope", 30000))
    (folder / f"cut {WORD}").mkdir()
    for file in sorted(good.iterdir())[:3]:
        content = file.read_bytes()
        (folder / f"cut {WORD}" / file.name).write_bytes(content[: len(content) // 2])


def _broken_files(folder: Path, images: Path) -> None:
    nrrd = (images / f"{WORD}.nrrd").read_bytes()
    (folder / f"words {WORD}.nrrd").write_text(WORD)
    (folder / f"cut {WORD}.nrrd").write_bytes(nrrd[: len(nrrd) // 2])
    for name, old, new in (
        ("encoding", b"encoding: gzip", b"encoding: "), ("type", b"type: short", b"type: "),
        ("sizes", b"sizes: 64 64 40", b"sizes: "), ("directions", b"space directions: ", b"space directions: x"),
    ):  # fmt: skip
        (folder / f"{name} {WORD}.nrrd").write_bytes(nrrd.replace(old, new + WORD.encode()))
    mha = (images / f"{WORD}.mha").read_bytes()
    (folder / f"element {WORD}.mha").write_bytes(mha.replace(b"MET_SHORT", WORD.encode()))
    (folder / f"elsewhere {WORD}.mhd").write_bytes(
        mha.replace(b"DataFile = LOCAL", f"DataFile = ../{WORD}/{WORD}.raw".encode())
    )
    (folder / f"missing {WORD}.mhd").write_bytes(mha.replace(b"DataFile = LOCAL", f"DataFile = {WORD}.zraw".encode()))
    nifti = images / f"{WORD}.nii"
    (folder / f"cut {WORD}.nii").write_bytes(nifti.read_bytes()[:3000])
    image = nibabel.load(nifti)
    values = np.asarray(image.dataobj, np.float32)
    values[3, 3, 3] = np.nan
    broken = nibabel.Nifti1Image(values, image.affine)
    broken.header["descrip"] = WORD.encode()
    nibabel.save(broken, folder / f"nan {WORD}.nii.gz")
    (folder / f"{WORD}.zip").write_bytes(b"PK\x03\x04" + WORD.encode() * 9)
    (folder / f"{WORD}.tar.gz").write_bytes(b"\x1f\x8b" + WORD.encode() * 9)
    solid = Geometry((24, 24, 12), (5.0, 5.0, 5.0))
    write_image(folder / f"solid {WORD}.nrrd", [np.full(solid.shape, 40, np.int16)], solid, np.int16, {WORD: WORD})
    shutil.copy(images / f"{WORD}.nhdr", folder / f"{WORD}.nhdr")
