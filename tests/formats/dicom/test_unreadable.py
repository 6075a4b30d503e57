"""Files of which one read or every read fails: a series is used completely or rejected, never in part."""

import errno
import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungmix.errors import SourceError, reveal
from lungmix.formats import Scan, SeriesFilter, find_scans
from lungmix.formats.directory import list_files
from support.series import copy, hu_of, only_scan, read, refused, scans, write_series

GAPS = SeriesFilter(allow_gaps=True)
NAMES = [f"{number:05d}.dcm" for number in range(1, 9)]


class Failing(io.BufferedReader):
    """File that can be opened, but fails when it is read."""

    def read(self, *_):
        raise OSError(errno.EIO, "Input/output error")


class Faults:
    """Patch by which opening or reading a file fails, as many times as `times` has for its name."""

    def __init__(self, monkeypatch, times, opens=True):
        self.remaining, self.opens, self.seen = Counter(times), opens, Counter()
        path_open = Path.open

        def opened(path, *args, **kwargs):
            stream = path_open(path, *args, **kwargs)
            if self.remaining[path.name] <= 0:
                return stream
            self.remaining[path.name] -= 1
            self.seen[path.name] += 1
            stream.close()
            if self.opens:
                raise OSError(errno.ESTALE, "Stale file handle")
            return Failing(io.FileIO(path))

        monkeypatch.setattr(Path, "open", opened)


def reasons(sources):
    return [reveal(source.reason) for source in refused(sources)]


@pytest.mark.parametrize("opens", [True, False])
def test_read_that_fails_once_changes_nothing(tmp_path, monkeypatch, opens):
    write_series(tmp_path)
    before = find_scans(tmp_path)
    faults = Faults(monkeypatch, dict.fromkeys(NAMES, 1), opens)
    assert find_scans(tmp_path) == before
    assert sum(faults.seen.values()) == len(NAMES)


@pytest.mark.parametrize("at", [0, 3, 7])
@pytest.mark.parametrize("opens", [True, False])
def test_slice_that_cannot_be_read_is_named_and_its_series_rejected(tmp_path, monkeypatch, at, opens):
    write_series(tmp_path)
    Faults(monkeypatch, {NAMES[at]: 99}, opens)
    words = f"{NAMES[at]} cannot be read ({'Stale file handle' if opens else 'Input/output error'}): check it"
    of_series, of_file = reasons(find_scans(tmp_path))
    assert of_series.startswith("series 1")
    assert f"{NAMES[at]}, which belongs to it, cannot be read" in of_series
    assert words in of_file
    (scan,) = scans(find_scans(tmp_path, GAPS))
    assert "not used" in " ".join(scan.notes)
    assert scan.geometry.shape[0] == (8 if at == 3 else 7)


@given(st.lists(st.integers(0, 4), min_size=8, max_size=8), st.booleans())
@settings(max_examples=40, deadline=None)
def test_series_is_complete_or_rejected_whichever_reads_fail(tmp_path_factory, times, opens):
    folder = tmp_path_factory.mktemp("s")
    write_series(folder, hu_of((8, 4, 4)))
    with pytest.MonkeyPatch.context() as monkeypatch:
        Faults(monkeypatch, dict(zip(NAMES, times, strict=True)), opens)
        sources = find_scans(folder)
    lost = [name for name, count in zip(NAMES, times, strict=True) if count > 1]
    messages = reasons(sources)
    assert len(scans(sources)) == (not lost)
    for name in lost:
        assert sum(reason.startswith(f"{name} cannot be read") for reason in messages) == 1
    # If only one or two slices remain, they are not a scan.
    assert len(messages) == len(lost) + (0 < len(lost) < 6)
    assert all(scan.geometry.shape[0] == 8 for scan in scans(sources))


def test_unreadable_file_of_another_kind_fails_no_series(tmp_path, monkeypatch):
    write_series(tmp_path)
    (tmp_path / "letter.pdf").write_text("words")
    Faults(monkeypatch, {"letter.pdf": 99})
    sources = find_scans(tmp_path)
    assert reasons(sources) == ["letter.pdf cannot be read (Stale file handle): check it"]
    (scan,) = scans(sources)
    assert reveal(scan.notes[0]) == "letter.pdf, which cannot be read (Stale file handle), may belong to it"


def test_unreadable_slice_between_two_series_is_noted_for_both(tmp_path, monkeypatch):
    write_series(tmp_path / "a", seed=1)
    for file in write_series(tmp_path / "b", seed=2, PatientID="P2"):
        file.rename(tmp_path / "a" / f"b{file.name}")
    Faults(monkeypatch, {NAMES[7]: 99})
    sources = find_scans(tmp_path / "a")
    assert len(reasons(sources)) == 1
    assert ["may belong to it" in " ".join(scan.notes) for scan in scans(sources)] == [True, True]


def test_unreadable_duplicate_fails_only_its_series(tmp_path, monkeypatch):
    files = write_series(tmp_path / "a")
    write_series(tmp_path / "b", seed=2, PatientID="P2", SeriesInstanceUID="1.2.3")
    (tmp_path / "a" / "copy.dcm").write_bytes(files[2].read_bytes())
    reads = Counter()
    path_open = Path.open

    def opened(path, *args, **kwargs):
        reads[path.name] += 1
        if path.name == "copy.dcm" and reads[path.name] > 1:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return path_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    sources = find_scans(tmp_path)
    assert len(scans(sources)) == 1
    assert "a file (copy.dcm) cannot be read (Input/output error): check it" in reasons(sources)[0]


def test_directory_entry_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write_series(tmp_path)
    scandir = os.scandir

    class Entry:
        def __init__(self, entry):
            self.name, self.path, self.is_dir, self.is_symlink = entry.name, entry.path, entry.is_dir, entry.is_symlink
            self._entry = entry

        def is_file(self):
            if self.name == NAMES[7]:
                raise OSError(errno.EIO, "Input/output error")
            return self._entry.is_file()

    class Listing(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    def listed(folder):
        with scandir(folder) as listing:
            return Listing(map(Entry, listing))

    monkeypatch.setattr(os, "scandir", listed)
    assert f"{NAMES[7]} cannot be read (Input/output error): check it" in reasons(find_scans(tmp_path))


def test_slice_deleted_before_conversion_is_named(tmp_path):
    write_series(tmp_path)
    scan = only_scan(tmp_path)
    (tmp_path / NAMES[4]).unlink()
    with pytest.raises(SourceError, match=r"00005\.dcm \(slice 5\) cannot be read \(No such file or directory\)"):
        read(scan)


def test_result_does_not_depend_on_the_order_of_files(tmp_path, monkeypatch):
    files = write_series(tmp_path)
    copy(files[0], tmp_path / "localizer.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    expected = only_scan(tmp_path)
    for seed in range(10):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lungmix.formats.sources.list_files", lambda folder, seed=seed: _shuffled(folder, seed))
            (scan,) = (source for source in find_scans(tmp_path) if isinstance(source, Scan))
        assert (scan.key, scan.fingerprint, scan.files) == (expected.key, expected.fingerprint, expected.files)
        assert np.array_equal(read(scan), hu_of())


def _shuffled(folder, seed):
    contents = list_files(folder)
    np.random.default_rng(seed).shuffle(contents.files)
    return contents
