"""Enhanced multi-frame CT: each frame is one slice, in any order in the file."""

import tracemalloc

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from lungmix.errors import SourceError, reveal
from lungmix.formats import SeriesFilter, find_scans
from lungmix.formats.dicom import enhanced_ct
from support.series import change, hu_of, only_scan, read, refused, scans, skipped, write_series

SHAPE = (10, 18, 14)
SPACING = (0.75, 0.5, 1.25)


def item(**values):
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def write_enhanced(file, hu, order=None, slopes=None, phases=None, syntax=ExplicitVRLittleEndian, shared=True, **tags):
    """Write one file with all slices as frames, in the given order, with a slope and a phase per frame.

    The first slice is at (-10, 5, -100) mm.
    """
    order = list(range(len(hu))) if order is None else order
    slopes = slopes or [(1.0, -1024.0)] * len(hu)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedCTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.PatientName, dataset.PatientID = "Frames^Test", "P2"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.FrameOfReferenceUID, dataset.SeriesNumber, dataset.InstanceNumber = generate_uid(), 4, 1
    dataset.Manufacturer, dataset.ManufacturerModelName = "SIEMENS", "Sensation 10"
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = *hu.shape[1:], len(hu)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    measures = item(
        PixelMeasuresSequence=[item(PixelSpacing=[SPACING[1], SPACING[0]], SliceThickness=SPACING[2])],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        CTReconstructionSequence=[item(ConvolutionKernel="B40f")],
    )
    dataset.SharedFunctionalGroupsSequence = [measures if shared else Dataset()]
    frames, pixels = [], []
    for z in order:
        slope, intercept = slopes[z]
        content = item(InStackPositionNumber=z + 1, StackID="1")
        if phases is not None:
            content.TemporalPositionIndex = phases[z]
        frame = item(
            FrameContentSequence=[content],
            PlanePositionSequence=[
                item(ImagePositionPatient=[-10, 5, -100 + SPACING[2] * (z if phases is None else z // 2)])
            ],
            PixelValueTransformationSequence=[item(RescaleIntercept=intercept, RescaleSlope=slope, RescaleType="HU")],
        )
        if not shared:
            frame.update(measures)
        frames.append(frame)
        pixels.append(np.rint((hu[z] - intercept) / slope).astype("<u2"))
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.PixelData = np.stack(pixels).tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    if syntax == DeflatedExplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax == JPEG2000Lossless:
        return write_by_gdcm(dataset, file)
    elif syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(file, enforce_file_format=True)
    return file


def write_stacks(file, hu, position, stack=None, number=None, **content):
    """Write one file with a frame per position, in slice spacings; attributes are functions of the frame index."""
    write_enhanced(file, hu)
    dataset = pydicom.dcmread(file)
    attributes = {"StackID": stack, "InStackPositionNumber": number, **content}
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.PlanePositionSequence[0].ImagePositionPatient = [-10, 5, -100 + SPACING[2] * position(index)]
        for name, value in attributes.items():
            if value is None:
                delattr(frame.FrameContentSequence[0], name)
            else:
                setattr(frame.FrameContentSequence[0], name, value(index))
    dataset.save_as(file)
    return file


def write_by_gdcm(dataset, file):
    import gdcm

    dataset.save_as(file, enforce_file_format=True)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(file))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000Lossless))
    change.SetInput(reader.GetImage())
    assert change.Change()
    encoded = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    # Only the pixels are taken from GDCM, so that the functional groups stay as pydicom wrote them.
    fragments = [encoded.GetFragment(i).GetByteValue().GetBuffer() for i in range(encoded.GetNumberOfFragments())]
    fragments = [part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part for part in fragments]
    dataset.PixelData = pydicom.encaps.encapsulate(fragments)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(file, enforce_file_format=True)
    return file


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_frames_are_slices_in_the_order_of_their_positions(tmp_path, seed, shared):
    hu = hu_of(SHAPE, seed)
    order = np.random.default_rng(seed).permutation(len(hu)).tolist()
    scan = only_scan(write_enhanced(tmp_path / "ct.dcm", hu, order, shared=shared))
    assert np.array_equal(read(scan), hu)
    assert scan.geometry.spacing == SPACING
    assert scan.geometry.origin == (-10, 5, -100)
    assert scan.geometry.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert scan.acquisition.kernel == "B40f"
    assert scan.acquisition.slice_thickness == 1.25


def test_geometry_and_voxels_are_those_of_simpleitk(tmp_path):
    hu = hu_of(SHAPE)
    file = write_enhanced(tmp_path / "ct.dcm", hu)
    image, scan = sitk.ReadImage(str(file)), only_scan(file)
    assert scan.geometry.size == image.GetSize()
    assert np.allclose(scan.geometry.spacing, image.GetSpacing())
    assert np.allclose(scan.geometry.origin, image.GetOrigin())
    assert np.array_equal(read(scan), sitk.GetArrayFromImage(image))


def test_slope_and_intercept_are_those_of_each_frame(tmp_path):
    hu = hu_of(SHAPE) // 2 * 2
    slopes = [(2.0 if z % 3 else 1.0, -1024.0 - 10 * z) for z in range(len(hu))]
    scan = only_scan(write_enhanced(tmp_path / "ct.dcm", hu, [3, 1, 2, 0, 9, 8, 7, 6, 5, 4], slopes))
    assert np.array_equal(read(scan), hu)


@pytest.mark.parametrize(
    "syntax",
    [RLELossless, JPEGLSLossless, JPEG2000Lossless, DeflatedExplicitVRLittleEndian],
    ids=lambda uid: uid.keyword,
)
def test_compressed_frames_are_read_one_by_one(tmp_path, syntax):
    hu = hu_of(SHAPE)
    scan = only_scan(write_enhanced(tmp_path / "ct.dcm", hu, [9, 0, 8, 1, 7, 2, 6, 3, 5, 4], syntax=syntax))
    assert np.array_equal(read(scan), hu)


def test_phases_of_one_file_are_volumes_of_their_own(tmp_path):
    hu = hu_of(SHAPE)
    file = write_enhanced(tmp_path / "ct.dcm", hu, phases=[1, 2] * 5)
    sources = find_scans(file)
    assert len(scans(sources)) == 1
    assert "phase" in skipped(sources)[0].reason
    both = scans(find_scans(file, SeriesFilter("all")))
    assert sorted(read(scan).tolist() for scan in both) == sorted([hu[::2].tolist(), hu[1::2].tolist()])
    assert len({scan.key for scan in both}) == len({scan.fingerprint for scan in both}) == 2


def test_missing_frame_is_named_with_its_neighbours(tmp_path):
    hu = hu_of(SHAPE)
    file = write_enhanced(tmp_path / "ct.dcm", hu)
    dataset = pydicom.dcmread(file)
    del dataset.PerFrameFunctionalGroupsSequence[4]
    dataset.NumberOfFrames = 9
    dataset.PixelData = dataset.PixelData[: 9 * 18 * 14 * 2]
    dataset.save_as(file)
    (source,) = refused(find_scans(file))
    assert "between slices 4 and 5 of 9" in reveal(source.reason)


def test_file_with_fewer_descriptions_than_frames_is_damaged(tmp_path):
    file = write_enhanced(tmp_path / "ct.dcm", hu_of(SHAPE))
    dataset = pydicom.dcmread(file)
    del dataset.PerFrameFunctionalGroupsSequence[4]
    dataset.save_as(file)
    assert "it describes 9 frames and declares 10: " in refused(find_scans(file))[0].reason


def test_file_with_more_frames_than_any_ct_names_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(enhanced_ct, "_MAX_FRAMES", 9)
    file = write_enhanced(tmp_path / "ct.dcm", hu_of(SHAPE))
    assert "it has 10 frames, more than any CT: " in refused(find_scans(file))[0].reason


def test_truncated_file_is_rejected(tmp_path):
    file = write_enhanced(tmp_path / "ct.dcm", hu_of(SHAPE))
    file.write_bytes(file.read_bytes()[:-100])
    assert "cut short" in refused(find_scans(file))[0].reason


def test_damaged_frame_is_named(tmp_path):
    file = write_enhanced(tmp_path / "ct.dcm", hu_of(SHAPE), syntax=JPEGLSLossless)
    content = bytearray(file.read_bytes())
    dataset = pydicom.dcmread(file)
    frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=10))
    at = content.index(frames[6])
    content[at + 4 : at + len(frames[6])] = b"\0" * (len(frames[6]) - 4)
    file.write_bytes(content)
    with pytest.raises(SourceError, match=r"ct\.dcm.*slice 7"):
        read(only_scan(file))


def test_frames_are_streamed(tmp_path):
    hu = np.zeros((60, 256, 256), np.int16)
    scan = only_scan(write_enhanced(tmp_path / "ct.dcm", hu))
    tracemalloc.start()
    for slab in scan.slabs(4):
        assert len(slab) == 4
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < hu.nbytes / 2


def test_frames_without_rescaling_to_hu_are_rejected(tmp_path):
    file = write_enhanced(tmp_path / "a.dcm", hu_of(SHAPE))
    dataset = pydicom.dcmread(file)
    del dataset.PerFrameFunctionalGroupsSequence[3].PixelValueTransformationSequence
    dataset.save_as(file)
    (source,) = refused(find_scans(file))
    assert "has no valid rescaling of its pixels to HU" in source.reason


def test_frames_of_another_quantity_are_skipped(tmp_path):
    file = write_enhanced(tmp_path / "a.dcm", hu_of(SHAPE))
    dataset = pydicom.dcmread(file)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PixelValueTransformationSequence[0].RescaleType = "MGML"
    dataset.save_as(file)
    (source,) = skipped(find_scans(file))
    assert "map of a material" in source.reason


def test_frames_without_positions_are_rejected_as_such(tmp_path):
    file = write_enhanced(tmp_path / "a.dcm", hu_of(SHAPE))
    dataset = pydicom.dcmread(file)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    dataset.save_as(file)
    (source,) = refused(find_scans(file))
    assert "lacks position or orientation" in source.reason


def test_frames_with_an_inconsistent_high_bit_are_rejected(tmp_path):
    write_enhanced(tmp_path / "e.dcm", hu_of(SHAPE), BitsStored=12)
    (source,) = refused(find_scans(tmp_path))
    assert "e.dcm declares that its 12 bits end at bit 15 (HighBit)" in reveal(source.reason)


def test_multi_frame_file_without_positions_is_rejected_rather_than_skipped_as_small(tmp_path):
    (file, *others) = write_series(tmp_path / "s")
    for other in others:
        other.unlink()
    change(file, NumberOfFrames=3, PixelData=pydicom.dcmread(file).PixelData * 3)
    (source,) = refused(find_scans(tmp_path / "s"))
    assert "has files of several frames whose positions are not stated" in source.reason


@pytest.mark.parametrize("signed", [0, 1])
def test_bits_above_bits_stored_are_ignored_in_frames(tmp_path, signed):
    hu = hu_of(SHAPE).clip(-1024, 1000)
    write_enhanced(tmp_path / "e.dcm", hu, BitsStored=12, HighBit=11, PixelRepresentation=signed)
    dataset = pydicom.dcmread(tmp_path / "e.dcm")
    stored = np.frombuffer(dataset.PixelData, "<u2")
    expected = stored & 0xFFF
    dataset.PixelData = (stored | 0x5000).astype("<u2").tobytes()
    dataset.save_as(tmp_path / "e.dcm")
    values = expected.astype(int) - (4096 * (expected >= 2048) if signed else 0)
    assert np.array_equal(read(only_scan(tmp_path)).ravel(), values - 1024)


ALTERNATE = ("A", "B")
TWICE = (20, *SHAPE[1:])


@pytest.mark.parametrize("series_filter", [None, SeriesFilter("all")], ids=["thinnest", "all"])
@pytest.mark.parametrize("number", [lambda i: i // 2 + 1, None], ids=["numbered", "unnumbered"])
@pytest.mark.parametrize("distance", [0, 0.3, 0.5, 5, 40], ids=lambda position: f"{position} apart")
def test_stacks_that_alternate_frame_by_frame_are_volumes_of_their_own(tmp_path, distance, number, series_filter):
    hu = hu_of(TWICE)
    file = write_stacks(
        tmp_path / "ct.dcm", hu, lambda i: i // 2 + distance * (i % 2), lambda i: ALTERNATE[i % 2], number
    )
    sources = find_scans(file, series_filter or SeriesFilter())
    assert not refused(sources)
    assert sorted(read(scan).tobytes() for scan in scans(sources)) == sorted(hu[i::2].tobytes() for i in (0, 1))
    assert sorted(scan.geometry.origin[2] for scan in scans(sources)) == [-100, -100 + SPACING[2] * distance]
    assert len({scan.key for scan in scans(sources)}) == len({scan.fingerprint for scan in scans(sources)}) == 2


def test_phases_of_stacks_that_alternate_are_separated_too(tmp_path):
    hu = hu_of(TWICE)
    file = write_stacks(
        tmp_path / "ct.dcm", hu, lambda i: i // 4 + 40 * (i % 2), lambda i: ALTERNATE[i % 2],
        lambda i: i // 4 + 1, TemporalPositionIndex=lambda i: i // 2 % 2 + 1,
    )  # fmt: skip
    all_scans = scans(find_scans(file, SeriesFilter("all")))
    assert sorted(read(scan).tobytes() for scan in all_scans) == sorted(hu[i::4].tobytes() for i in range(4))
    sources = find_scans(file)
    assert [len(scans(sources)), len(skipped(sources)), len(refused(sources))] == [2, 2, 0]


def test_consecutive_stacks_are_rejected_as_parts_and_named(tmp_path):
    hu = hu_of(TWICE)
    file = write_stacks(
        tmp_path / "ct.dcm", hu, lambda i: i // 2 + 10 * (i % 2), lambda i: ALTERNATE[i % 2], lambda i: i // 2 + 1
    )
    (source,) = refused(find_scans(file))
    assert "slices 11 to 20" in reveal(source.reason)
    assert "differ in stack (StackID)" in source.reason
    both = scans(find_scans(file, SeriesFilter("all")))
    assert sorted(read(scan).tobytes() for scan in both) == sorted(hu[i::2].tobytes() for i in (0, 1))


def test_interleaved_stacks_numbered_as_one_are_rejected(tmp_path):
    file = write_stacks(tmp_path / "ct.dcm", hu_of(TWICE), lambda i: i / 2, lambda i: ALTERNATE[i % 2], lambda i: i + 1)
    (source,) = refused(find_scans(file))
    assert "are interleaved in one even stack and differ in stack (StackID)" in source.reason


def test_stack_id_that_is_new_in_every_frame_is_ignored(tmp_path):
    hu = hu_of(SHAPE)
    scan = only_scan(write_stacks(tmp_path / "ct.dcm", hu, lambda i: i, lambda i: str(i + 1), lambda i: 1))
    assert np.array_equal(read(scan), hu)
    assert "StackID has a new value in nearly every slice" in scan.notes[0]


@pytest.mark.parametrize("stack", [lambda i: "1", None], ids=["one stack", "no stack"])
def test_repeated_acquisition_in_a_stack_is_separated_by_number_or_rejected(tmp_path, stack):
    hu = hu_of(TWICE)
    write_stacks(
        tmp_path / "told.dcm", hu, lambda i: i // 2, stack, lambda i: i // 2 + 1,
        FrameAcquisitionNumber=lambda i: i % 2 + 1,
    )  # fmt: skip
    both = scans(find_scans(tmp_path / "told.dcm", SeriesFilter("all")))
    assert sorted(read(scan).tobytes() for scan in both) == sorted(hu[i::2].tobytes() for i in (0, 1))
    write_stacks(tmp_path / "same.dcm", hu, lambda i: i // 2, stack, lambda i: i // 2 + 1)
    for series_filter in (SeriesFilter(), SeriesFilter("all", allow_gaps=True, trust_positions=True)):
        (source,) = refused(find_scans(tmp_path / "same.dcm", series_filter))
        assert "slices 1 and 2 lie at one position (frames 1 and 2 of same.dcm), and 9 more pairs do" in reveal(
            source.reason
        )
