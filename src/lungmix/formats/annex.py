"""Files without their content, in trees of DataLad, git-annex or Git LFS that were cloned without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lungmix.errors import SourceError, mark_path

METADATA_FOLDERS = (".git", ".datalad")
"""Folders with the metadata of such trees, whose files are linked from the tree."""

_OBJECTS = ".git/annex/objects"
_MAX_POINTER_BYTES = 2048
_REMEDIES = {
    "annex": "run `datalad get` or `git annex get` there",
    "lfs": "run `git lfs pull` there",
}


def missing_content_kind(file: Path) -> str | None:
    """Return the system that has the missing content of a file, ``annex`` or ``lfs``; None for any other file.

    Without content, a file of git-annex is a broken link into its store or a text with the name of the content there,
    and a file of Git LFS is such a text.
    """
    try:
        if file.is_symlink():
            target = file.readlink().as_posix()
            return "annex" if _OBJECTS in target and not file.exists() else None
        if not file.is_file() or file.stat().st_size > _MAX_POINTER_BYTES:
            return None
        with file.open("rb") as stream:
            content = stream.read(_MAX_POINTER_BYTES)
    except OSError:
        return None
    first_line = content.split(b"\n")[0].replace(b"\\", b"/")
    if first_line.startswith(b"version https://git-lfs.github.com/spec/"):
        return "lfs"
    if b"\0" not in first_line and (
        first_line.startswith(b"/annex/objects/") or first_line.find(b".git/annex/objects/") in _DEPTHS
    ):
        return "annex"
    return None


# On file systems without links a file contains the path of its link: one "../" per level of folders.
_DEPTHS = range(0, 3 * 64, 3)


def missing_content_error(file: Path, kind: str, more_files: Sequence[Path] = ()) -> SourceError:
    """Return the error of files without content, which names the first of them."""
    others = f" and {len(more_files)} more files" if len(more_files) > 1 else " and 1 more file" if more_files else ""
    system = "git-annex or DataLad" if kind == "annex" else "Git LFS"
    return SourceError(f"{mark_path(file)}{others}: content not here, {system} has it elsewhere: {_REMEDIES[kind]}")


def is_annexed(file: Path) -> bool:
    """Return True for a link into the store of the git-annex tree that contains the link."""
    if not file.is_symlink():
        return False
    target = file.resolve()
    return any(target.is_relative_to((folder / _OBJECTS).resolve()) for folder in file.absolute().parents)
