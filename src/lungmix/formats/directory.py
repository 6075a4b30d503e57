"""What lies in a folder from strangers: its plain files, and what in it could not be looked at."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from lungmix.errors import mark_path
from lungmix.formats.annex import OWN_FOLDERS, absent_kind

DEEPEST = 64
_TEXT_BYTES = 1024
_APPLE_DOUBLE = b"\x00\x05\x16\x07"


@dataclass
class Contents:
    """Plain files of a folder and of all folders in it.

    Attributes
    ----------
    files : list of Path
        In the order of their names, folder by folder. Pipes, sockets and devices are none of them: nobody can say
        when reading one of those would end.
    unread : list of (Path, str)
        Folders and links that were not followed, each with one sentence for people.
    absent : list of Path
        Links of git-annex whose content is not here.
    """

    files: list[Path] = field(default_factory=list)
    unread: list[tuple[Path, str]] = field(default_factory=list)
    absent: list[Path] = field(default_factory=list)


def list_files(folder: Path) -> Contents:
    """Look through a folder, without following links to other folders."""
    found = Contents()
    root = folder.resolve()
    waiting = [(folder, 0)]
    while waiting:
        here, depth = waiting.pop()
        try:
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            reason = f"{mark_path(here)} cannot be opened ({error.strerror}): check its permissions"
            found.unread.append((here, reason))
            continue
        below = []
        for entry in entries:
            path = here / entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in OWN_FOLDERS:
                        below.append((path, depth + 1))
                elif entry.is_file():
                    found.files.append(path)
                elif entry.is_symlink():
                    _link(path, root, found)
            except OSError as error:
                if entry.is_symlink():  # a circle of links
                    _link(path, root, found)
                else:
                    found.unread.append((path, f"{mark_path(path)} cannot be looked at ({error.strerror}): check it"))
        if below and depth >= DEEPEST:
            reason = f"{mark_path(here)} lies {DEEPEST} folders deep, and what is below is not read: give it by itself"
            found.unread.append((here, reason))
            continue
        waiting += reversed(below)
    return found


def _link(path: Path, root: Path, found: Contents) -> None:
    """Take note of a link that is not followed, unless what it leads to is found anyway."""
    try:
        target = path.resolve()
        is_folder = target.is_dir()
        there = target.exists()
    except (OSError, RuntimeError):  # a circle of links
        is_folder = there = False
        target = path
    if is_folder and not target.is_relative_to(root):
        found.unread.append((path, f"{mark_path(path)} is a link to a folder elsewhere: give that folder itself"))
    elif absent_kind(path):
        found.absent.append(path)
    elif not there:
        found.unread.append((path, f"{mark_path(path)} is a link that leads nowhere: get the file that it stands for"))


def is_text(file: Path) -> bool:
    """Whether a file begins with words and has any."""
    with file.open("rb") as stream:
        beginning = stream.read(_TEXT_BYTES)
    # A character may have been cut at the end of what was read.
    text = beginning.decode("utf-8", "ignore")
    whole = len(text.encode()) >= len(beginning) - 3
    return bool(beginning) and whole and all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)


def is_apple_double(file: Path) -> bool:
    """Whether a file holds what macOS knows of the one beside it, whose name it bears after ``._``."""
    if not file.name.startswith("._"):
        return False
    with file.open("rb") as stream:
        return stream.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE


def kind_of(file: Path) -> str:
    """Extension in lower case; empty where the name has none, or numbers in its place."""
    suffix = file.suffix.lower()
    return suffix if suffix[1:].isalpha() and len(suffix) <= 7 else ""
