"""Detection of files whose content is missing, in folders of DataLad, git-annex or Git LFS cloned without content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lungmix.errors import SourceError, mark_path

METADATA_FOLDERS = (".git", ".datalad")
"""Names of folders with metadata of git and DataLad. They are not searched: other folders have links to their files."""

_OBJECTS = ".git/annex/objects"
_MAX_POINTER_BYTES = 2048
_REMEDIES = {
    "annex": "run `datalad get` or `git annex get` in the folder",
    "lfs": "run `git lfs pull` in the folder",
}


def missing_content_kind(file: Path) -> str | None:
    """Return ``annex`` or ``lfs``, the system that keeps the missing content of a file; None for other files.

    A file of git-annex without content is a broken link into the store of git-annex, or a text file with the path of
    the content in that store. A file of Git LFS without content is a text file that begins with the address of the
    specification of Git LFS.
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


# Positions of ".git" in the text that replaces a link on file systems without links: one "../" per folder level.
_DEPTHS = range(0, 3 * 64, 3)


def missing_content_error(file: Path, kind: str, more_files: Sequence[Path] = ()) -> SourceError:
    """Return the error for files without content; its message names `file` and counts `more_files`."""
    others = f" and {len(more_files)} more files" if len(more_files) > 1 else " and 1 more file" if more_files else ""
    system = "git-annex or DataLad" if kind == "annex" else "Git LFS"
    return SourceError(
        f"{mark_path(file)}{others}: content not here, {system} has not downloaded it: {_REMEDIES[kind]}"
    )


def is_annexed(file: Path) -> bool:
    """Return True if a file is a link into the store of the git-annex repository that contains the link."""
    if not file.is_symlink():
        return False
    target = file.resolve()
    return any(target.is_relative_to((folder / _OBJECTS).resolve()) for folder in file.absolute().parents)
