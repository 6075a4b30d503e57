"""Print a publication or its check on the terminal, or return them as JSON objects for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lungmix.cli.redaction import may_show_names, printable
from lungmix.cli.spelling import spelled
from lungmix.errors import UsageError, count_of, mark_path
from lungmix.publish import (
    About,
    Published,
    SplitRule,
    check_dataset,
    identifiers_of,
    publish,
    read_creators,
)

__all__ = [
    "SplitRule",
    "about_of",
    "check_dataset",
    "checked_values",
    "identifiers_of",
    "names_in",
    "publish",
    "published_values",
    "show_checked",
    "show_published",
]


def about_of(
    title: str | None, version: str | None, license: str | None, creators: Path | None, license_file: Path | None,
    publisher: str | None, doi: str | None,
) -> About:  # fmt: skip
    """Return the statements of the publisher that the options give.

    Raises
    ------
    UsageError
        If one of them is missing or invalid.
    """
    if title is None or version is None or license is None or creators is None:
        raise UsageError("a data set needs a title, a version, a licence and creators: give `title`, `version`, "
                         "`license` and `creators`")  # fmt: skip
    try:
        text = "" if license_file is None else license_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageError(
            f"the licence {mark_path(license_file or '')} cannot be read as text: give another file"
        ) from None
    return About(title, version, license, read_creators(creators), text, publisher or "", doi or "")


def names_in(text: str | None) -> list[str]:
    """Return the names in a list that is separated by commas."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def show_published(console: Console, result: Published) -> None:
    """Print numbers of files, cases that failed or were left out, and the problems of the folder."""
    lines = [
        f"{count_of(len(result.done), 'case')}: {count_of(result.written, 'image')} written, {result.linked} as in the "
        f"previous version, {result.kept} from an earlier call"
    ]
    lines += [f"left out: {name}: {reason}" for name, reason in result.absent.items()]
    for name, reason in result.failed.items():
        lines.append(f"failed: {name}: {result.messages[name] if may_show_names() else reason}")
    lines += [result.search] if result.search else []
    _print(console, [*lines, *_problem_lines(result.problems)])
    state = "complete" if result.is_complete else "NOT complete: run the same command again"
    _print(console, [f"version {result.version} in {result.folder} is {state}"])


def published_values(store: str, result: Published) -> dict[str, Any]:
    """Return the result, JSON-ready."""
    return {
        "store": store, "folder": str(result.folder), "version": result.version, "complete": result.is_complete,
        "done": result.done, "failed": spelled(result.failed), "left_out": result.absent, "written": result.written,
        "linked": result.linked, "kept": result.kept, "problems": result.problems, "search": result.search,
    }  # fmt: skip


def show_checked(console: Console, folder: str, problems: Mapping[str, Sequence[str]], identifiers: int) -> None:
    """Print the problems of a folder, and for how many identifiers it was searched."""
    _print(console, _problem_lines(problems))
    _print(console, [
        f"{folder}: {'passed' if not problems else count_of(len(problems), 'file') + ' with problems'}; searched for "
        f"{count_of(identifiers, 'identifier')} and for burned-in text, not for faces"
    ])  # fmt: skip


def checked_values(folder: str, problems: Mapping[str, Sequence[str]], identifiers: int) -> dict[str, Any]:
    """Return the result of a check, JSON-ready."""
    return {"folder": folder, "passed": not problems, "problems": dict(problems), "identifiers": identifiers}


def _problem_lines(problems: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"problem: {path}: {text}" for path, texts in problems.items() for text in texts]


def _print(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(printable(line), markup=False, highlight=False)
