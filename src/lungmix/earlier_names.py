"""Earlier names of parameters, which scripts of users may still use."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def accepts_earlier_names(**names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator for functions whose parameters were renamed.

    A call with an earlier name works, with a `DeprecationWarning`. A call with both names raises `TypeError`, as Python
    does for a parameter that is given twice.

    Parameters
    ----------
    **names : str
        Present name of a parameter by its earlier name.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def renamed(*args: P.args, **given: P.kwargs) -> T:
            for earlier in names.keys() & given.keys():
                present = names[earlier]
                if present in given:
                    raise TypeError(f"{function.__name__}() got both {present!r} and its earlier name {earlier!r}")
                warnings.warn(f"{earlier!r} is now called {present!r}", DeprecationWarning, stacklevel=2)
                given[present] = given.pop(earlier)
            return function(*args, **given)

        return renamed

    return decorate
