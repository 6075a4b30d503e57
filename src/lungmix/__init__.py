"""Lung masks, one pooled Gaussian mixture and tissue labels for cohorts of chest CT that no memory can hold."""

import lazy_loader

# Names are loaded when they are first used: `lungmix --help` and each worker then load only what they need. The stub
# `__init__.pyi` lists them, for this loader and for type checkers.
__getattr__, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __dir__() -> list[str]:
    """Return the public names, and the submodules that are imported already."""
    return sorted({*_names(), *globals()})
