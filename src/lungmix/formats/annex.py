"""Files whose content lies elsewhere: trees of DataLad and git-annex, and of Git LFS, that were cloned without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lungmix.errors import SourceError, mark_path

OWN_FOLDERS = (".git", ".datalad")
"""Folders that such trees keep for themselves: what is in them is found by its name in the tree."""

_OBJECTS = ".git/annex/objects"
_LONGEST_POINTER = 2048
_GET = {
    "annex": "run `datalad get` or `git annex get` there",
    "lfs": "run `git lfs pull` there",
}


def absent_kind(file: Path) -> str | None:
    """Return what keeps the content of a file that is not here: ``annex`` or ``lfs``; None for any other file.

    A file of git-annex is a link into its store that leads nowhere, or a line of text with the name that the content
    has there, as is one of Git LFS.
    """
    try:
        if file.is_symlink():
            target = file.readlink().as_posix()
            return "annex" if _OBJECTS in target and not file.exists() else None
        if not file.is_file() or file.stat().st_size > _LONGEST_POINTER:
            return None
        with file.open("rb") as stream:
            beginning = stream.read(_LONGEST_POINTER)
    except OSError:
        return None
    first = beginning.split(b"\n")[0].replace(b"\\", b"/")
    if first.startswith(b"version https://git-lfs.github.com/spec/"):
        return "lfs"
    if b"\0" not in first and (first.startswith(b"/annex/objects/") or first.find(b".git/annex/objects/") in _DEPTHS):
        return "annex"
    return None


# Where links cannot be made, a file holds the path that its link would: one step up for each folder that it lies in.
_DEPTHS = range(0, 3 * 64, 3)


def absent(file: Path, kind: str, further: Sequence[Path] = ()) -> SourceError:
    """Return the error of files whose content is not here, the first of them by its name."""
    more = f" and {len(further)} more files" if len(further) > 1 else " and 1 more file" if further else ""
    keeper = "git-annex or DataLad" if kind == "annex" else "Git LFS"
    return SourceError(f"{mark_path(file)}{more}: content not here, {keeper} has it elsewhere: {_GET[kind]}")


def is_annexed(file: Path) -> bool:
    """Return True for a link into the store of the git-annex tree that the link lies in."""
    if not file.is_symlink():
        return False
    target = file.resolve()
    return any(target.is_relative_to((folder / _OBJECTS).resolve()) for folder in file.absolute().parents)
