"""Files and folders appear complete, or stay as they were."""

import pytest

from lungmix.atomic import atomic_file, atomic_write


def test_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path):
    target = tmp_path / "new" / "table.csv"
    with atomic_file(target) as stream:
        stream.write(b"first")
        assert not target.exists()
    with pytest.raises(TypeError), atomic_file(target) as stream:
        stream.writelines([b"second", None])
    assert target.read_bytes() == b"first"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("fails", [False, True])
def test_folder_is_replaced_as_one(tmp_path, fails):
    target = tmp_path / "series"
    target.mkdir()
    (target / "old").touch()
    try:
        with atomic_write(target) as partial_path:
            partial_path.mkdir()
            (partial_path / "new").touch()
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert [file.name for file in target.iterdir()] == ["old" if fails else "new"]
    assert list(tmp_path.iterdir()) == [target]


def test_file_never_replaces_a_folder(tmp_path):
    target = tmp_path / "scan.nii"
    target.mkdir()
    (target / "original.dcm").write_bytes(b"kept")
    with pytest.raises(OSError, match=r"scan\.nii"), atomic_file(target) as stream:
        stream.write(b"new")
    assert (target / "original.dcm").read_bytes() == b"kept"
    assert list(tmp_path.iterdir()) == [target]
