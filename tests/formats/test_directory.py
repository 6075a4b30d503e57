"""Files that are listed in a folder, and entries that are not read."""

import os
from pathlib import Path

import numpy as np
import pytest

from lungmix.formats import RejectedSource, Scan, find_scans, write_image
from lungmix.formats.directory import MAX_DEPTH, list_files
from lungmix.geometry import Geometry


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "in"
    (inside / "b" / "c").mkdir(parents=True)
    (inside / "a").mkdir()
    for name in ("z.txt", "b/y.txt", "b/c/x.txt", "a/w.txt"):
        (inside / name).write_text("x")
    return inside


def names(folder):
    return [str(file.relative_to(folder)) for file in list_files(folder).files]


def reasons(folder):
    return [(path.name, reason) for path, reason in list_files(folder).unread]


def test_files_come_in_the_order_of_their_names_folder_by_folder(folder):
    assert names(folder) == ["z.txt", "a/w.txt", "b/y.txt", "b/c/x.txt"]
    assert not reasons(folder)


def test_link_to_a_folder_elsewhere_is_named_and_one_to_a_folder_inside_is_not(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "v.txt").write_text("x")
    (folder / "out").symlink_to(tmp_path / "other")
    (folder / "around").symlink_to(folder / "b")
    (folder / "up").symlink_to("..")
    assert "a/w.txt" in names(folder)
    assert len(names(folder)) == 4
    assert [name for name, _ in reasons(folder)] == ["out", "up"]
    assert "give that folder itself" in reasons(folder)[0][1]


def test_link_to_a_file_is_a_file_and_one_to_nothing_is_named(folder, tmp_path):
    (tmp_path / "v.txt").write_text("x")
    (folder / "a" / "link").symlink_to(tmp_path / "v.txt")
    (folder / "a" / "nowhere").symlink_to("none")
    (folder / "a" / "self").symlink_to("self")
    assert "a/link" in names(folder)
    assert [name for name, _ in reasons(folder)] == ["nowhere", "self"]


def test_pipes_and_devices_are_no_files(folder):
    os.mkfifo(folder / "pipe")
    (folder / "device").symlink_to("/dev/zero")
    assert len(names(folder)) == 4
    assert not reasons(folder)


def test_folder_that_is_too_deep_is_reported(tmp_path):
    deep = tmp_path.joinpath(*["d"] * (MAX_DEPTH + 2))
    deep.mkdir(parents=True)
    (deep / "x").write_text("x")
    assert not names(tmp_path)
    assert len(reasons(tmp_path)) == 1
    assert "give it as a source of its own" in reasons(tmp_path)[0][1]


def test_unreadable_entries_are_reported_and_others_are_read(folder, monkeypatch):
    # Permissions do not restrict root, who may run these tests, so errors are simulated.
    for name in ("a/good.nrrd", "b/shut.nrrd"):
        write_image(folder / name, [np.zeros((2, 3, 4), np.int16)], Geometry((4, 3, 2)), np.int16)
    scandir, opened = os.scandir, Path.open

    def list_unless_shut(path):
        if not isinstance(path, int) and Path(path).name == "c":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    def open_unless_shut(path, *arguments, **options):
        if path.name == "shut.nrrd":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "scandir", list_unless_shut)
    monkeypatch.setattr(Path, "open", open_unless_shut)
    items = find_scans(folder)
    assert [item.name for item in items if isinstance(item, Scan)] == ["good"]
    refused = {Path(item.path).name: item.reason for item in items if isinstance(item, RejectedSource)}
    assert sorted(refused) == ["c", "shut.nrrd"]
    assert all("Permission denied" in reason and "check" in reason for reason in refused.values())
