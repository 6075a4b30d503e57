"""Folders of DataLad, git-annex and Git LFS: files with content are read, files without are named in one line."""

import numpy as np
import pytest

from lungmix.formats import RejectedSource, Scan, find_scans, write_image
from lungmix.geometry import Geometry
from lungmix.phantom import Phantom, write_phantom

VOLUME = np.arange(-105, 105, dtype=np.int16).reshape(7, 6, 5)


@pytest.fixture
def tree(tmp_path):
    """Folder of git-annex: files are links into its store, which has the content of only some of them."""
    root = tmp_path / "dataset"
    (root / ".git" / "annex" / "objects").mkdir(parents=True)

    def annex(file, *, present):
        number = len(list((root / ".git" / "annex" / "objects").iterdir()))
        key = root / ".git" / "annex" / "objects" / f"{number:03d}" / "MD5E-s210--x"
        key.parent.mkdir()
        file.rename(key)
        up = "../" * len(file.relative_to(root).parent.parts)
        file.symlink_to(f"{up}{key.relative_to(root)}")
        if not present:
            key.unlink()

    annex.root = root
    return annex


def image(path):
    path.parent.mkdir(exist_ok=True)
    write_image(path, [VOLUME], Geometry((5, 6, 7)), np.int16)
    return path


def test_files_whose_content_is_elsewhere_are_one_line_and_the_others_are_read(tree):
    for number in range(6):
        tree(image(tree.root / f"sub-{number}" / "ct.nrrd"), present=number < 2)
    items = find_scans(tree.root)
    assert [type(item) for item in items].count(Scan) == 2
    (refusal,) = [item for item in items if not isinstance(item, Scan)]
    assert isinstance(refusal, RejectedSource)
    assert "ct.nrrd" in refusal.reason
    assert "and 3 more files: content not here" in refusal.reason
    assert "`datalad get` or `git annex get`" in refusal.reason


def test_series_and_detached_headers_are_read_through_links_into_the_store(tree):
    write_phantom(tree.root / "series", Phantom((6, 16, 16)))
    (tree.root / "image").mkdir()
    write_image(tree.root / "image" / "x.mhd", [VOLUME], Geometry((5, 6, 7)), np.int16)
    for file in [*(tree.root / "series").iterdir(), *(tree.root / "image").iterdir()]:
        tree(file, present=True)
    scans = find_scans(tree.root)
    assert [(item.kind, item.geometry.size) for item in scans] == [("meta", (5, 6, 7)), ("dicom", (16, 16, 6))]


def test_series_without_its_content_is_one_line(tree):
    write_phantom(tree.root / "series", Phantom((6, 16, 16)))
    for file in (tree.root / "series").iterdir():
        tree(file, present=False)
    items = find_scans(tree.root)
    assert sum("content not here" in item.reason for item in items) == 1
    assert len(items) == 1


@pytest.mark.parametrize("name", ["ct.nrrd", "slice.dcm", "scans.zip"])
@pytest.mark.parametrize(
    ("pointer", "words"),
    [
        ("/annex/objects/MD5E-s1--d41d8cd9.nrrd\n", "git annex get"),
        ("../.git/annex/objects/aa/bb/MD5E-s1--d41d8cd9/MD5E-s1--d41d8cd9", "git annex get"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    ],
)
def test_pointer_in_place_of_a_file_is_named(tmp_path, name, pointer, words):
    (tmp_path / name).write_text(pointer)
    for source in (tmp_path / name, tmp_path):
        (item,) = find_scans(source)
        assert isinstance(item, RejectedSource)
        assert "content not here" in item.reason
        assert words in item.reason


def test_link_without_its_content_that_is_given_by_itself_is_named(tree):
    tree(image(tree.root / "ct.nrrd"), present=False)
    (item,) = find_scans(tree.root / "ct.nrrd")
    assert "content not here" in item.reason


def test_header_reads_no_voxels_through_a_link_into_another_tree(tree, tmp_path):
    write_image(tree.root / "x.mhd", [VOLUME], Geometry((5, 6, 7)), np.int16)
    data = next(file for file in tree.root.iterdir() if "raw" in file.suffix)
    other = tmp_path / "other" / ".git" / "annex" / "objects"
    other.mkdir(parents=True)
    data.rename(other / data.name)
    data.symlink_to(other / data.name)
    (item,) = find_scans(tree.root / "x.mhd")
    assert "outside its own folder" in item.reason
