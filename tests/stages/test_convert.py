"""What a worker makes of a scan that cannot be read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import lungmix
from lungmix.errors import SourceError, trace_of
from lungmix.formats import find_scans, write_image
from lungmix.geometry import Geometry
from lungmix.stages import convert, reading
from lungmix.store import CaseRef, CohortWriter


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
        reading.run_or_return_error(convert._copy_slabs, unreadable, where)
    assert "Rossi" in str(caught.value)
    assert type(error).__name__ in caught.value.redacted_message
    shown = [repr(caught.value), repr(unreadable), caught.value.redacted_message]
    shown += [line for line in trace_of(caught.value).splitlines() if not line.startswith(" ")]
    assert not [text for text in shown if "Rossi" in text]
