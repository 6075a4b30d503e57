"""Listing of untrusted folders: their regular files, and entries that cannot be read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from lungmix.errors import mark_path
from lungmix.formats.annex import METADATA_FOLDERS, missing_content_kind

MAX_DEPTH = 64
_TEXT_BYTES = 1024
_APPLE_DOUBLE = b"\x00\x05\x16\x07"


@dataclass
class Contents:
    """Regular files of a folder and of all folders in it.

    Attributes
    ----------
    files : list of Path
        Files, folder by folder, in the order of their names. Pipes, sockets and devices are left out, because reading
        one may never end.
    unread : list of (Path, str)
        Folders and links that were not read, each with the reason as a sentence.
    absent : list of Path
        Links of git-annex whose content is missing.
    """

    files: list[Path] = field(default_factory=list)
    unread: list[tuple[Path, str]] = field(default_factory=list)
    absent: list[Path] = field(default_factory=list)


def list_files(folder: Path) -> Contents:
    """Return the files in a folder and in all folders below it; links to folders are not followed."""
    contents = Contents()
    root = folder.resolve()
    pending = [(folder, 0)]
    while pending:
        current, depth = pending.pop()
        try:
            with os.scandir(current) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            reason = f"{mark_path(current)} cannot be opened ({error.strerror}): check its permissions"
            contents.unread.append((current, reason))
            continue
        subfolders = []
        for entry in entries:
            path = current / entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in METADATA_FOLDERS:
                        subfolders.append((path, depth + 1))
                elif entry.is_file():
                    contents.files.append(path)
                elif entry.is_symlink():
                    _record_link(path, root, contents)
            except OSError as error:
                if entry.is_symlink():  # a circle of links
                    _record_link(path, root, contents)
                else:
                    contents.unread.append((path, f"{mark_path(path)} cannot be read ({error.strerror}): check it"))
        if subfolders and depth >= MAX_DEPTH:
            reason = (
                f"{mark_path(current)} is {MAX_DEPTH} folders deep, so folders in it are not read: give it as a source "
                "of its own"
            )
            contents.unread.append((current, reason))
            continue
        pending += reversed(subfolders)
    return contents


def _record_link(path: Path, root: Path, contents: Contents) -> None:
    """Record a link as unread or absent, unless its target lies in the listed folder anyway."""
    try:
        target = path.resolve()
        is_folder = target.is_dir()
        exists = target.exists()
    except (OSError, RuntimeError):  # a circle of links
        is_folder = exists = False
        target = path
    if is_folder and not target.is_relative_to(root):
        contents.unread.append((path, f"{mark_path(path)} is a link to a folder elsewhere: give that folder itself"))
    elif missing_content_kind(path):
        contents.absent.append(path)
    elif not exists:
        contents.unread.append(
            (path, f"{mark_path(path)} is a link that leads nowhere: get the file that it stands for")
        )


def is_text(file: Path) -> bool:
    """Return True where a file is not empty and begins with text."""
    with file.open("rb") as stream:
        beginning = stream.read(_TEXT_BYTES)
    return bool(beginning) and begins_text(beginning)


def begins_text(content: bytes) -> bool:
    """Return True if bytes are the beginning of a text in UTF-8, whose last character may be cut off."""
    text = content.decode("utf-8", "ignore")
    is_utf8 = len(text.encode()) >= len(content) - 3
    return is_utf8 and all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)


def is_apple_double(file: Path) -> bool:
    """Return True for an AppleDouble file: metadata of macOS about another file, whose name follows ``._``."""
    if not file.name.startswith("._"):
        return False
    with file.open("rb") as stream:
        return stream.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE


def kind_of(file: Path) -> str:
    """Return the extension of a file in lower case; empty unless it consists of 1 to 6 letters."""
    suffix = file.suffix.lower()
    return suffix if suffix[1:].isalpha() and len(suffix) <= 7 else ""
