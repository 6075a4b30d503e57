"""Detection of scripts without a main guard, which each worker would run again from the beginning."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from traceback import walk_stack

import dask

# Names by which a script can detect that a worker runs it.
_GUARDS = ("__main__", "__mp_main__", "parent_process", "current_process", "_inheriting")


def is_likely() -> bool:
    """Return True if the main module is a script without a guard, not a session, ``-c``, ``-m`` or a command."""
    return _unguarded_source() is not None


def is_certain() -> bool:
    """Return True if the running line belongs to such a script and every run of the script executes it."""
    if dask.config.get("distributed.worker.multiprocessing-method", "spawn") == "fork":
        return False
    source = _unguarded_source()
    if source is None or (line := _line_of_script()) is None:
        return False
    try:
        return not _is_guarded(ast.parse(source).body, line)
    except (SyntaxError, ValueError):
        return False


def is_missing() -> bool:
    """Return True if workers would import a script that is no file, as one from the standard input."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None or getattr(main, "__spec__", None) is not None:
        return False
    return file == "<stdin>" and dask.config.get("distributed.worker.multiprocessing-method", "spawn") != "fork"


def _is_guarded(statements: Sequence[ast.stmt], line: int) -> bool:
    """Return True where the statement on a line may not be executed by every run."""
    for statement in statements:
        if statement.lineno <= line <= (statement.end_lineno or statement.lineno):
            if isinstance(statement, ast.If | ast.Match | ast.While | ast.For | ast.Try):
                return True
            return isinstance(statement, ast.With) and _is_guarded(statement.body, line)
    return False


def _unguarded_source() -> str | None:
    """Return the source of the script where a worker would import it and it contains no guard; else None."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    name = getattr(getattr(main, "__spec__", None), "name", "")
    # As in multiprocessing: a package that is run with -m is not imported by new processes.
    if file is None or name == "__main__" or name.endswith(".__main__"):
        return None
    with suppress(OSError):
        source = Path(file).read_text(errors="replace")
        if not any(guard in source for guard in _GUARDS):
            return source
    return None


def _line_of_script() -> int | None:
    """Return the line of the script's module that this thread executes; None where there is none."""
    main = sys.modules["__main__"]
    line = None
    for frame, number in walk_stack(sys._getframe()):
        if frame.f_code.co_name == "<module>" and frame.f_globals is vars(main):
            line = number if frame.f_code.co_filename == main.__file__ else None
    return line
