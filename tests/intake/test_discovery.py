"""Discovery of scans in sources, without a cluster."""

from __future__ import annotations

import numpy as np

from lungmix.formats import Scan, SkippedSource, write_image
from lungmix.geometry import Geometry
from lungmix.intake.discovery import discover_scans


def test_a_scan_that_several_sources_contain_is_used_once(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / "in" / f"{name}.nrrd", [np.zeros((4, 4, 4), np.int16)], Geometry((4, 4, 4)), np.int16)
    (tmp_path / "list.txt").write_text("in/b.nrrd\n")
    items = list(discover_scans([tmp_path / "in" / "b.nrrd", tmp_path / "in", tmp_path / "list.txt"]))
    scans = {item.source_label for item in items if isinstance(item.result, Scan)}
    skipped = {item.source_label: item.result.reason for item in items if isinstance(item.result, SkippedSource)}
    assert scans == {"source 1", "source 2, item 1"}
    assert skipped["source 2, item 2"] == skipped["source 3"] == "is a duplicate of source 1"
