"""Conversion: logs of workers about unreadable scans, and the air that is packed for masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import lungmix
from lungmix.errors import SourceError, trace_of
from lungmix.formats import find_scans, write_image
from lungmix.geometry import Geometry
from lungmix.kernels.packed_masks import unpack
from lungmix.parameters import MaskParameters
from lungmix.pipeline.masks import AnyMaskStage
from lungmix.stages import convert, reading
from lungmix.stages.anatomical import mask_stage
from lungmix.stages.base import StageContext
from lungmix.stages.given_mask import GivenMaskStage
from lungmix.stages.segmented_mask import SegmentedMaskStage
from lungmix.store import CaseFiles, CaseRef, CohortWriter
from lungmix.store.schema import PACKED
from support.masks import InProcess, mask_of


@pytest.mark.parametrize("error", [ValueError("could not convert 'Rossi^Maria'"), RuntimeError("/data/Rossi.nrrd: no")])
def test_messages_of_libraries_about_a_file_are_in_no_log_of_a_worker(tmp_path, error):
    write_image(tmp_path / "Rossi.nrrd", [np.zeros((4, 4, 4), np.int16)], Geometry((4, 4, 4)), np.int16)
    (scan,) = find_scans(tmp_path / "Rossi.nrrd")
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = CohortWriter(cohort).add("case-001", scan.geometry, scan.acquisition)
    where = CaseRef.of(cohort, "case-001", case.start_stage(convert.STAGE, "key"))

    def fail(scan, thickness):
        raise error

    unreadable = replace(scan, reader=fail)
    with pytest.raises(SourceError) as caught:
        reading.run_or_return_error(convert._copy_slabs, unreadable, where, -155)
    assert "Rossi" in str(caught.value)
    assert type(error).__name__ in caught.value.redacted_message
    shown = [repr(caught.value), repr(unreadable), caught.value.redacted_message]
    shown += [line for line in trace_of(caught.value).splitlines() if not line.startswith(" ")]
    assert not [text for text in shown if "Rossi" in text]


@pytest.mark.parametrize(
    ("parameters", "spacing", "expected"),
    [
        (MaskParameters("physical"), 1.5, -155),
        (MaskParameters("paper", threshold=-250), 1.5, -250),
        (MaskParameters("anatomical"), 1.5, -300),
        (MaskParameters("anatomical"), 2.5, -400),
    ],
)
def test_conversion_packs_the_air_that_the_mask_needs(tmp_path, parameters, spacing, expected):
    geometry = Geometry((70, 9, 12), (spacing, spacing, 2.0))
    hu = np.random.default_rng(0).integers(-1000, 100, geometry.shape).astype(np.int16)
    write_image(tmp_path / "a.nrrd", [hu], geometry, np.int16)
    (scan,) = find_scans(tmp_path / "a.nrrd")
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    convert.ConvertStage({"one": scan}, None, mask_stage(parameters).air_hu).run(
        StageContext(InProcess(), cohort), "one"
    )
    case = CaseFiles(cohort["one"])
    assert case.packed_threshold == expected
    assert np.array_equal(unpack(case.read_packed(PACKED, 0, 12), 70) > 0, hu < expected)


def test_masks_that_are_not_computed_need_the_usual_air():
    geometry, computed = Geometry((4, 4, 4)), mask_stage(MaskParameters("anatomical"))
    mask = mask_of(np.ones((4, 4, 4), np.uint8), geometry)
    stage: AnyMaskStage = GivenMaskStage(computed, {"given": mask}, None, {"missing": "no mask"}, {"kept"})
    assert [stage.air_hu(name, geometry) for name in ("given", "missing", "kept")] == [-155] * 3
    assert stage.air_hu("other", geometry) == computed.air_hu("other", geometry) == -300
    assert SegmentedMaskStage(None, MaskParameters("anatomical")).air_hu("other", geometry) == -155
