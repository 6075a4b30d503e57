"""Looking through sources, without a cluster."""

from __future__ import annotations

import numpy as np

from lungmix.formats import Scan, SkippedSource, write_image
from lungmix.geometry import Geometry
from lungmix.intake.discovery import discover_scans


def test_a_scan_that_several_sources_lead_to_is_taken_once(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / "in" / f"{name}.nrrd", [np.zeros((4, 4, 4), np.int16)], Geometry((4, 4, 4)), np.int16)
    (tmp_path / "list.txt").write_text("in/b.nrrd\n")
    found = list(discover_scans([tmp_path / "in" / "b.nrrd", tmp_path / "in", tmp_path / "list.txt"]))
    scans = {one.place for one in found if isinstance(one.found, Scan)}
    again = {one.place: one.found.reason for one in found if isinstance(one.found, SkippedSource)}
    assert scans == {"source 1", "source 2, item 1"}
    assert again["source 2, item 2"] == again["source 3"] == "is source 1 again"
