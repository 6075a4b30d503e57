"""Detection of scripts without a main guard, ``if __name__ == "__main__":``.

A worker is a new Python process that imports the script. Without a guard it would run the whole script again.
"""

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
    """Return True if the program is a script without a main guard; notebooks, ``-c`` and commands are no scripts."""
    return _unguarded_source() is not None


def is_certain() -> bool:
    """Return True if the program is a script without a main guard, and each run of it executes the running line.

    The running line is the one at the top level of the script that led to this call. It is executed in each run unless
    it is in a branch or a loop.
    """
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
    """Return True if workers would import a script that is not in a file, such as one from the standard input."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None or getattr(main, "__spec__", None) is not None:
        return False
    return file == "<stdin>" and dask.config.get("distributed.worker.multiprocessing-method", "spawn") != "fork"


def _is_guarded(statements: Sequence[ast.stmt], line: int) -> bool:
    """Return True if the statement on a line is in a branch or a loop, so that a run may not execute it."""
    for statement in statements:
        if statement.lineno <= line <= (statement.end_lineno or statement.lineno):
            if isinstance(statement, ast.If | ast.Match | ast.While | ast.For | ast.Try):
                return True
            return isinstance(statement, ast.With) and _is_guarded(statement.body, line)
    return False


def _unguarded_source() -> str | None:
    """Return the source of the script if workers would import it and it contains no guard; else None."""
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
    """Return the line of the script's top level that this thread executes; None if it executes no line of it."""
    main = sys.modules["__main__"]
    line = None
    for frame, number in walk_stack(sys._getframe()):
        if frame.f_code.co_name == "<module>" and frame.f_globals is vars(main):
            line = number if frame.f_code.co_filename == main.__file__ else None
    return line
