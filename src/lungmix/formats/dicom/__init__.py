"""DICOM: finding the files of a series, its geometry, and its voxels."""

import sys
from contextlib import suppress
from importlib import import_module


def _import_gdcm() -> None:
    """Import GDCM, with which pydicom decodes, before pydicom does.

    GDCM imports modules of old Python versions that held the flags of the dynamic loader, and accepts anything of that
    name. A folder ``dl`` in the working directory would make its import, and that of pydicom, fail.
    """
    names = ("dl", "DLFCN")
    imported = {name: sys.modules[name] for name in names if name in sys.modules}
    # A module that is None in `sys.modules` cannot be imported.
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        with suppress(ImportError):
            import_module("gdcm")
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(imported)


if "gdcm" not in sys.modules:
    _import_gdcm()
